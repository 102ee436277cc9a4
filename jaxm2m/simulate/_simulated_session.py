"""What a simulated mapping session holds, and what follows from its truth: mean MEPs of any field, true hot spots."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int, Key
from scipy.spatial.distance import cdist

from jaxm2m import _check
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike
from jaxm2m.cortex import FiringRate
from jaxm2m.simulate._mep import expected_mep, mep

_REST = 0.75  # strength without drive, in thresholds of the average muscle


@tree
class SimulatedSession:
    """MEPs of a mapping session with everything they came from.

    Attributes
    ----------
    poses : (n, 4, 4) array
        Coil poses, mm.
    didt : (n,) array
        dI/dt of the stimuli, A/s.
    intensity : (n,) array
        Intensity of the stimuli, in resting motor thresholds.
    meps : (n, n_muscle) array
        Peak-to-peak, uV.
    mean : (n, n_muscle) array
        E[V | u], uV: the best that a prediction of `meps` can be.
    drive : (n, n_muscle) array
        u.
    direct, synergy : (n, n_muscle) arrays
        D and Y, divided by their 98th percentiles: u is their weighted sum.
    activations : (n, n_synergy) array
        W_s r, of the synergies.
    synergies : (n_muscle, n_synergy) array
        S; columns sum to 1.
    direct_weights, synergy_weights : (n_muscle, n_active), (n_synergy, n_active) arrays
        W_d and W_s, over the points of the map that have a field (`FieldMap.active`); rows sum to 1.
    direct_centres, synergy_centres : (n_muscle, 3), (n_synergy, 3) arrays
        Centres of the weights, mm.
    second_centres : (n_muscle, 3) array
        The other centre of muscles with two places, mm; NaN for all others.
    thresholds : (n_muscle,) array
        Motor threshold of each muscle, where 0.75 + gain u is 1 for the average one.
    rmt_didt : array
        dI/dt at resting motor threshold, A/s.
    largest : (2, n_muscle) array
        The 98th percentiles that D and Y were divided by.
    alpha, gain : arrays
        Share of the synergies in u, and how strongly u acts.
    rate : FiringRate
        r; in truth "field" x.
    active : (n_active,) array
        Indices of the points of the map that have a field.
    points : (n_active, 3) array
        These points, mm.
    n_point : int
        Number of points of the map.
    muscles : tuple of str
        Names of the muscles.
    curve : str
        Family of the recruitment curve, as in `mep`.
    """

    poses: Float[Array, "n 4 4"]
    didt: Float[Array, " n"]
    intensity: Float[Array, " n"]
    meps: Float[Array, "n n_muscle"]
    mean: Float[Array, "n n_muscle"]
    drive: Float[Array, "n n_muscle"]
    direct: Float[Array, "n n_muscle"]
    synergy: Float[Array, "n n_muscle"]
    activations: Float[Array, "n n_synergy"]
    synergies: Float[Array, "n_muscle n_synergy"]
    direct_weights: Float[Array, "n_muscle n_active"]
    synergy_weights: Float[Array, "n_synergy n_active"]
    direct_centres: Float[Array, "n_muscle 3"]
    synergy_centres: Float[Array, "n_synergy 3"]
    second_centres: Float[Array, "n_muscle 3"]
    thresholds: Float[Array, " n_muscle"]
    rmt_didt: Float[Array, ""]
    largest: Float[Array, "2 n_muscle"]
    alpha: Float[Array, ""]
    gain: Float[Array, ""]
    rate: FiringRate
    active: Int[Array, " n_active"]
    points: Float[Array, "n_active 3"]
    n_point: int
    muscles: tuple[str, ...]
    curve: str

    def __len__(self) -> int:
        return len(self.meps)

    def expected_meps(
        self, e: Float[Array, "*pose n_point 3"] | Float[np.ndarray, "*pose n_point 3"]
    ) -> Float[Array, "*pose n_muscle"]:
        """Compute the mean MEPs of any field on the map that the session was generated on, differentiable.

        At the session's own poses and dI/dt they are `mean`: the truth that a model, or a pose found with one, is to be
        held against.

        Parameters
        ----------
        e
            (..., n_point, 3) fields, V/m.

        Returns
        -------
        array
            (..., n_muscle) mean MEPs, uV.

        Raises
        ------
        ValueError
            Fields at other points than the map's.
        """
        return _expected_meps(self, self._check_field(e))

    def draw_meps(
        self,
        key: Key[Array, ""],
        e: Float[Array, "*pose n_point 3"] | Float[np.ndarray, "*pose n_point 3"],
        *,
        excitability: ArrayLike = 0.0,
    ) -> Float[Array, "*pose n_muscle"]:
        """Draw the MEPs of further stimuli of the same subject, noise and all.

        Parameters
        ----------
        key
            Draws the noise; muscles share half of the variance of their excitability, as in the session.
        e
            (..., n_point, 3) fields, V/m.
        excitability
            What is added to the strength of stimulation of all muscles, in motor thresholds, a number or (...): a
            drift, or a muscle that is tensed.

        Returns
        -------
        array
            (..., n_muscle) peak-to-peak amplitudes, uV.

        Raises
        ------
        ValueError
            Fields at other points than the map's.
        """
        more = jnp.asarray(_check.finite(excitability, "excitability"))[..., None]
        return mep(key, _strength(self, self._check_field(e)) + more, curve=self.curve)

    def _check_field(self, e: Any) -> Array:
        e = jnp.asarray(e)
        if e.shape[-2:] != (self.n_point, 3):
            raise ValueError(
                f"e: shape {e.shape}; give (..., {self.n_point}, 3), fields of the map that the session was made on."
            )
        return e

    def ceiling(self, *, scaled: bool = True) -> Float[Array, ""]:
        """Compute the NRMSE of the true means, sqrt(mean (V - E[V|u])^2 / mean V^2).

        But for chance, no prediction from the field comes below it.

        Parameters
        ----------
        scaled
            Whether each muscle is divided by its largest MEP first, as models are trained; else MEPs are in uV.

        Returns
        -------
        array
            The NRMSE, a scalar, no unit.
        """
        return _ceiling(self.meps, self.mean, scaled)

    def densities(self) -> Float[Array, "n_muscle n_active"]:
        """Compute how strongly each point drives each muscle: the drive is `densities() @ r`, linear in the rates.

            alpha S W_s / largest[1] + (1 - alpha) W_d / largest[0]

        Returns
        -------
        array
            (n_muscle, n_active), over the points of the map that have a field (`points`), no unit.
        """
        return _densities(self)

    def hotspots(self) -> pd.DataFrame:
        """Compute where each muscle is driven from: the true hot spots, the centroids of `densities`.

        A muscle with two places has two: each the centroid of what lies nearer to that place's centre than to the
        other's.

        Returns
        -------
        DataFrame
            A row for each muscle and place, index `muscle`; columns `place` (0, and 1 for a second one) and `x`, `y`,
            `z`, mm.
        """
        densities, points, first, second = (
            np.asarray(values, np.float64)
            for values in (self.densities(), self.points, self.direct_centres, self.second_centres)
        )
        rows = []
        for muscle, density, *centres in zip(self.muscles, densities, first, second, strict=True):
            places = np.stack([centre for centre in centres if np.isfinite(centre).all()])
            nearest = cdist(points, places).argmin(1)
            for place in range(len(places)):
                share = density * (nearest == place)
                rows.append((muscle, place, *(share @ points / share.sum())))
        return pd.DataFrame(rows, columns=["muscle", "place", "x", "y", "z"]).set_index("muscle")


@partial(jax.jit, static_argnums=2)
def _ceiling(meps: Array, mean: Array, scaled: bool) -> Array:
    largest = meps.max(0) if scaled else jnp.ones_like(meps[0])
    return jnp.sqrt((((meps - mean) / largest) ** 2).mean() / ((meps / largest) ** 2).mean())


@jax.jit
@full_precision
def _expected_meps(session: SimulatedSession, e: Array) -> Array:
    return expected_mep(_strength(session, e), curve=session.curve)


@jax.jit
@full_precision
def _strength(session: SimulatedSession, e: Array) -> Array:
    rates = session.rate(e)[..., session.active]
    direct = rates @ session.direct_weights.T / session.largest[0]
    synergy = rates @ session.synergy_weights.T @ session.synergies.T / session.largest[1]
    return stimulus_strength(direct, synergy, session.alpha, session.gain, session.thresholds)


@jax.jit
@full_precision
def _densities(session: SimulatedSession) -> Array:
    direct = session.direct_weights / session.largest[0][:, None]
    synergy = session.synergies @ session.synergy_weights / session.largest[1][:, None]
    return weighted_drive(direct, synergy, session.alpha)


def stimulus_strength(direct: Array, synergy: Array, alpha: Any, gain: Any, thresholds: Array) -> Array:
    """Compute the strength of the stimulus, in motor thresholds of each muscle."""
    return (_REST + gain * weighted_drive(direct, synergy, alpha)) / thresholds


def weighted_drive(direct: Array, synergy: Array, alpha: Any) -> Array:
    """Add direct projections and synergies, alpha the share of the latter."""
    return alpha * synergy + (1 - alpha) * direct
