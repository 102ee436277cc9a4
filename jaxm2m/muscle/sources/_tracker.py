"""Sources that follow a session stimulus by stimulus: a mode that is kept up, and quick draws about it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxm2m import _check
from jaxm2m._precision import full_precision
from jaxm2m._pytree import register
from jaxm2m._types import ArrayLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import FieldMap, Grid, Points
from jaxm2m.muscle.sources._activity import make_activity, select_grey
from jaxm2m.muscle.sources._density import DensityPrior, make_bumps, weigh_bumps
from jaxm2m.muscle.sources._drift import make_drift, make_no_drift
from jaxm2m.muscle.sources._fit import find_reasons
from jaxm2m.muscle.sources._linear import LinearPosterior, linearise
from jaxm2m.muscle.sources._posterior import (
    Measured,
    describe_mode,
    draw_posterior,
    find_mode,
    measure_drive,
    measure_scores,
)
from jaxm2m.muscle.sources._posterior_check import CHECKS, check_posterior
from jaxm2m.muscle.sources._recruitment_curve import (
    N_NUMBER,
    RecruitmentCurve,
    curve_from,
    make_curve_prior,
    mean_response,
)
from jaxm2m.muscle.sources._sources import Sources

_STEPS = 60  # of Adam after a stimulus, from where the mode was
_STEP = 1.4  # widths between bumps, of which their sum is still smooth; half as many as in a fit
_NO_RESPONSE = 1.0  # log10 uV, of a table's zero: about where the noise of a recording lies


@partial(register, static=("muscles", "shape", "prior"))
@dataclass(frozen=True, eq=False, repr=False)
class SourceTracker:
    """The posterior of sources while a session runs; a pytree, made by `track_sources`.

    Each stimulus that is added moves the mode of the posterior from where it was. `draw` approximates the posterior by
    the curvature there, in a fraction of a second; `fit` draws from it as `fit_sources` does, in seconds.

    Attributes
    ----------
    data
        The session so far, with room for `capacity` stimuli, and the priors.
    count
        Stimuli so far, those that were missed too.
    standard, shared
        The mode.
    kernel, points, activity, affine, shape, muscles, prior
        As in `Sources`.
    """

    data: Measured
    count: Any
    standard: Any
    shared: Any
    kernel: Any
    points: Any
    activity: Any
    affine: Any
    shape: tuple[int, ...]
    muscles: tuple[str, ...]
    prior: DensityPrior

    def __repr__(self) -> str:
        return f"SourceTracker({len(self.muscles)} muscles, {int(self.count)} of {self.capacity} stimuli)"

    @property
    def capacity(self) -> int:
        """How many stimuli there is room for."""
        return len(self.data.y)

    def measure(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch bump"]:
        """Compute the features of fields: their activity under each bump.

        Parameters
        ----------
        e
            (..., n_point, 3) V/m at the points of the map.
        didt
            dI/dt, A/s, for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_bump) rates, or shares of the largest field.
        """
        return _measure(self, jnp.asarray(e), didt)

    def add(self, e: ArrayLike, meps: ArrayLike, *, didt: ArrayLike | None = None) -> "SourceTracker":
        """Return the tracker after one more stimulus.

        Parameters
        ----------
        e
            (n_point, 3) V/m at the points of the map.
        meps
            (n_muscle,) peak-to-peak uV, NaN where one is missing or flagged. Zero, as tables have it for "no response",
            counts as 10 uV, or as the muscle's smallest MEP so far where that is less.
        didt
            dI/dt, A/s, for firing rates whose threshold needs it.

        Returns
        -------
        SourceTracker
            With `count` one larger.

        Raises
        ------
        ValueError
            Another number of muscles, negative amplitudes, or more stimuli than there is room for.
        """
        values = np.asarray(meps, np.float64)
        if values.shape != (len(self.muscles),):
            raise ValueError(f"meps: shape {values.shape}; give one amplitude for each of {len(self.muscles)} muscles.")
        if np.isinf(values).any() or (np.nan_to_num(values) < 0).any():
            raise ValueError("meps: negative or infinite; give peak-to-peak amplitudes in uV, NaN where there is none.")
        if int(self.count) >= self.capacity:
            raise ValueError(f"meps: there is room for {self.capacity} stimuli; make a tracker of larger `capacity`.")
        smallest = np.where(self.data.usable, self.data.y, _NO_RESPONSE).min(0)
        y = jnp.asarray(_logarithms(values, smallest), self.data.y.dtype)
        return _add(self, self.measure(e, didt=didt), y, jnp.asarray(np.isfinite(values)))

    def restore(
        self,
        features: Float[np.ndarray, "n bump"],
        meps: Float[np.ndarray, "n muscle"],
        standard: Float[np.ndarray, "muscle number"],
        shared: Float[np.ndarray, " capacity"],
    ) -> "SourceTracker":
        """Return the tracker as it was after stimuli, from what it held then.

        Parameters
        ----------
        features
            (n, n_bump) as `measure` gives them, rates or shares.
        meps
            (n, n_muscle) uV, NaN where one is missing.
        standard, shared
            The mode then, no unit.

        Returns
        -------
        SourceTracker
            To the bit what it was.

        Raises
        ------
        ValueError
            Arrays of other bumps, muscles or capacity.
        """
        if (
            features.shape != (len(meps), len(self.kernel))
            or meps.shape[1] != len(self.muscles)
            or len(meps) > self.capacity
            or standard.shape != self.standard.shape
            or shared.shape != self.shared.shape
        ):
            raise ValueError("features: of other bumps, muscles or another capacity; they belong to another tracker.")
        n, dtype = len(meps), self.data.y.dtype
        logarithms, smallest = np.ones_like(meps), np.full(meps.shape[1], _NO_RESPONSE)
        for i, row in enumerate(meps):
            # in the precision in which they were added
            logarithms[i] = np.asarray(_logarithms(row, smallest), dtype)
            smallest = np.where(np.isfinite(row), np.minimum(smallest, logarithms[i]), smallest)
        data = self.data._replace(
            y=self.data.y.at[:n].set(jnp.asarray(logarithms, dtype)),
            usable=self.data.usable.at[:n].set(np.isfinite(meps)),
            features=self.data.features.at[:n].set(jnp.asarray(features, dtype)),
        )
        count = jnp.asarray(n, jnp.int32)
        modes = (jnp.asarray(a, dtype) for a in (standard, shared))
        return replace(self, data=data, count=count, standard=next(modes), shared=next(modes))

    def draw(self, key: Key[Array, ""], n_draw: int = 128) -> Sources:
        """Draw from the normal distribution about the mode that has the posterior's curvature there.

        Parameters
        ----------
        key
            Of the draws.
        n_draw
            How many.

        Returns
        -------
        Sources
            Whose `checks` are not known (NaN).
        """
        scores = np.asarray(measure_scores(self.standard, self.shared, self.data), np.float64)[:, : int(self.count)]
        noise = np.asarray(jax.random.normal(key, (n_draw, *self.standard.shape), self.standard.dtype), np.float64)
        standard = self.standard + jnp.asarray(_shrink(noise, scores), self.standard.dtype)
        checks = jnp.full((len(self.muscles) + 1, len(CHECKS)), jnp.nan, standard.dtype)
        return self._make_sources(standard, checks)

    def linearise(self) -> LinearPosterior:
        """Take the posterior for normal about its mode, with the curvature there, and log MEPs for linear.

        Returns
        -------
        LinearPosterior
            What fields are expected to give, and how that depends on what is not known.
        """
        places = self.kernel @ self.points
        return linearise(
            self.standard, self.shared, self.data, int(self.count), places, self.kernel, self.activity
        )  # fmt: skip

    def fit(self, key: Key[Array, ""], n_draw: int = 64) -> Sources:
        """Draw from the posterior itself, in seconds.

        Parameters
        ----------
        key
            All randomness follows from it.
        n_draw
            Draws that are kept.

        Returns
        -------
        Sources
            The posterior, with its checks.
        """
        k_draw, k_check = jax.random.split(key)
        maximum = find_mode(self.data, start=(self.standard, self.shared))
        draws = draw_posterior(k_draw, describe_mode(maximum, self.data), self.data, n_draw)
        return self._make_sources(draws.standard, check_posterior(k_check, draws, self.data))

    def _make_sources(self, standard: Array, checks: Array) -> Sources:
        weights, curves, usual, strongest = _describe(standard, self.data)
        y, usable = np.asarray(self.data.y, np.float64), np.asarray(self.data.usable)
        # before a muscle has answered, what it is expected to
        largest = np.where(usable.any(0), np.where(usable, 10**y, 0).max(0), np.asarray(strongest))
        n_bump = len(self.kernel)
        return Sources(
            weights=weights[..., :n_bump],
            curves=curves,
            kernel=self.kernel,
            points=self.points,
            activity=self.activity,
            largest=jnp.asarray(largest, weights.dtype),
            strongest=strongest / jnp.asarray(largest, weights.dtype),
            usual=usual,
            checks=checks,
            affine=self.affine,
            shape=self.shape,
            muscles=self.muscles,
            prior=self.prior,
            unidentified=tuple(
                (name, why) for name, why in zip(self.muscles, find_reasons(y, usable), strict=True) if why
            ),
        )


def track_sources(
    at_roi: FieldMap,
    reference: Float[Array, "reference point 3"] | Float[np.ndarray, "reference point 3"],
    *,
    muscles: Sequence[str],
    centre: ArrayLike,
    rate: FiringRate | None = None,
    grid: Grid | Points | None = None,
    capacity: int = 300,
    didt: ArrayLike | None = None,
    prior: DensityPrior | None = None,
    drift: bool = True,
) -> SourceTracker:
    """Begin to follow a session, before its first stimulus.

    Parameters
    ----------
    at_roi
        The field map, which knows which of its points are grey matter.
    reference
        (n_reference, n_point, 3) V/m: fields of poses such as the session may have, at its dI/dt. What drives a muscle
        most among them is its drive of 1.
    muscles
        Names of the muscles.
    centre
        (3,) mm, about which sources are looked for.
    rate
        The firing rate as a function of the field; None: the field itself.
    grid
        The region of the map, where sources shall know a grid; None: its points.
    capacity
        Stimuli that there is room for. A larger one costs time at each stimulus.
    didt
        dI/dt of the reference, A/s, a number or one a field, for firing rates whose threshold needs it.
    prior
        What is believed of a density beforehand; None: `DensityPrior()`.
    drift
        Whether the excitability that all muscles share may drift, over some fifty stimuli.

    Returns
    -------
    SourceTracker
        Without a stimulus.

    Raises
    ------
    ValueError
        No grey matter near the centre, no muscle, fields of other points.
    """
    prior = DensityPrior() if prior is None else prior
    names = tuple(muscles)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"muscles: {', '.join(names) or 'none'}; give one or more, each a name of its own.")
    _check.integer(capacity, "capacity", minimum=1)
    middle = np.asarray(_check.points(centre, "centre"), np.float64)
    if middle.shape != (3,):
        raise ValueError(f"centre: shape {middle.shape}; give one point x, y, z in mm.")
    fields = np.asarray(_check.finite(reference, "reference"))
    if fields.ndim != 3 or fields.shape[1:] != (at_roi.n_point, 3) or not len(fields):
        raise ValueError(f"reference: shape {fields.shape}; give fields (n, {at_roi.n_point}, 3) of the map.")
    grid = Points(np.asarray(at_roi.points)) if grid is None else grid
    chosen, _ = select_grey(at_roi, grid, (fields != 0).any((0, 2)))
    activity = make_activity(rate, None, chosen, grid, fields[:8])
    points = np.asarray(grid.positions(), np.float64)[chosen]
    bumps = make_bumps(points, middle, prior, _STEP)
    dtype = bumps.log_mean.dtype
    kernel = jnp.asarray(bumps.kernel, dtype)
    features = activity(jnp.asarray(fields, dtype), didt) @ kernel.T
    if not float(jnp.ptp(features, axis=0).max()) > 1e-6 * float(jnp.abs(features).max()):
        raise ValueError("rate: the activity of the grey points does not vary over the reference; check the threshold.")
    n_muscle, n_bump = len(names), len(bumps.kernel)
    data = Measured(
        jnp.ones((capacity, n_muscle), dtype),
        jnp.zeros((capacity, n_muscle), bool),
        jnp.zeros((capacity, n_bump), dtype),
        bumps.log_mean,
        bumps.factor,
        make_curve_prior(rates=rate is not None),
        features,
        make_drift(capacity) if drift else make_no_drift(capacity),
    )
    return SourceTracker(
        data=data,
        count=jnp.zeros((), jnp.int32),
        standard=jnp.zeros((n_muscle, N_NUMBER + n_bump), dtype),
        shared=jnp.zeros(capacity, dtype),
        kernel=kernel,
        points=jnp.asarray(points, dtype),
        activity=activity,
        affine=jnp.asarray(grid.affine, dtype) if isinstance(grid, Grid) else None,
        shape=tuple(grid.shape) if isinstance(grid, Grid) else (),
        muscles=names,
        prior=prior,
    )


def _shrink(
    noise: Float[np.ndarray, "draw muscle number"], scores: Float[np.ndarray, "muscle stimulus number"]
) -> Float[np.ndarray, "draw muscle number"]:
    """Standard normal noise with the covariance (I + scores' scores)^-1 of each muscle instead."""
    spread = np.empty_like(noise)
    # by NumPy: LAPACK's calls for many muscles in one of JAX's programs may wait for each other for ever
    for m, rows in enumerate(scores):
        if len(rows) < rows.shape[1]:
            square, vectors = np.linalg.eigh(rows @ rows.T)
            known = square > 1e-10 * max(1.0, float(square.max(initial=0)))
            axes = vectors[:, known].T @ rows / np.sqrt(square[known])[:, None]
            less = 1 / np.sqrt(1 + square[known]) - 1
            spread[:, m] = noise[:, m] + (noise[:, m] @ axes.T * less) @ axes
        else:
            square, axes = np.linalg.eigh(rows.T @ rows)
            spread[:, m] = (noise[:, m] / np.sqrt(1 + np.maximum(square, 0))) @ axes.T
    return spread


def _logarithms(meps: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    """log10 of MEPs (uV), `smallest` where there was no response, and anything where there is no MEP."""
    above = np.nan_to_num(meps) > 0
    return np.where(above, np.log10(np.where(above, meps, 1.0)), smallest)


@jax.jit
@full_precision
def _measure(tracker: SourceTracker, e: Array, didt: Any) -> Array:
    return tracker.activity(e, didt) @ tracker.kernel.T


@jax.jit
@full_precision
def _describe(standard: Array, data: Measured) -> tuple[Array, RecruitmentCurve, Array, Array]:
    """Weights, curves of the drive as it is, usual range of each draw's drive, mean response to the strongest one."""

    def one(standard):
        weights = weigh_bumps(standard[N_NUMBER:], data.log_mean, data.factor)
        drive, size = measure_drive(data.reference, weights, data.reference)
        curve = curve_from(standard[:N_NUMBER], data.curve)
        usual = jnp.percentile(drive * size, jnp.asarray([2.0, 98.0], drive.dtype))
        return weights, curve._replace(gain=curve.gain / size), usual, mean_response(curve, drive.max())

    weights, curves, usual, strongest = jax.vmap(jax.vmap(one))(standard)
    return weights, curves, jnp.moveaxis(usual, -1, 0), strongest.mean(0)


@jax.jit
@full_precision
def _add(tracker: SourceTracker, features: Array, y: Array, usable: Array) -> SourceTracker:
    data, i = tracker.data, tracker.count
    data = data._replace(
        y=data.y.at[i].set(y), usable=data.usable.at[i].set(usable), features=data.features.at[i].set(features)
    )
    standard, shared, _ = find_mode(data, steps=_STEPS, start=(tracker.standard, tracker.shared))
    return replace(tracker, data=data, count=i + 1, standard=standard, shared=shared)
