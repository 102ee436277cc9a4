"""Where in cortex muscles are driven from: draws of their densities and curves, and what these say of any field."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Key
from scipy.stats import chi

from jaxm2m import _check, cortex
from jaxm2m._precision import full_precision
from jaxm2m._pytree import register
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.efield import Grid
from jaxm2m.muscle._volumes import save_volumes
from jaxm2m.muscle.sources._activity import Activity
from jaxm2m.muscle.sources._density import DensityPrior
from jaxm2m.muscle.sources._posterior_check import CHECKS
from jaxm2m.muscle.sources._recruitment_curve import (
    NODES,
    SHARED,
    WEIGHTS,
    RecruitmentCurve,
    evaluate_curve,
    log_likelihood,
    mean_response,
)
from jaxm2m.muscle.sources._sources_file import read_sources, write_sources

_SHARES = (0.5, 0.9)
# mm along each axis: what hot spots of generated cortices, which are made of no bumps, are off beyond the posterior
_MODEL_ERROR = 1.0


@partial(register, static=["muscles", "shape", "prior", "unidentified"])
@dataclass(frozen=True, eq=False, repr=False)
class Sources:
    """Densities over grey matter and recruitment curves of muscles, as draws of their posterior; a pytree.

    Made by `fit_sources`. The mean MEP of a draw is curve(gain w . activity), with w the density over the grey points.

    Attributes
    ----------
    weights
        (n_draw, n_muscle, n_bump) weights of the bumps, which sum to 1.
    curves
        `RecruitmentCurve` of (n_draw, n_muscle) numbers; its gain is that of the drive w . activity.
    kernel
        (n_bump, n_grey) bumps over the grey points; rows sum to 1.
    points
        (n_grey, 3) mm.
    activity
        What grey points make of a field.
    largest
        (n_muscle,) the largest MEPs of the session, uV.
    strongest
        (n_muscle,) the largest mean responses to its stimuli, as shares of `largest`.
    usual
        (2, n_draw, n_muscle) the 2nd and 98th percentiles of each draw's drive over the session's stimuli, no unit: a
        density elsewhere sees other fields, so that drives of two draws compare by these only.
    checks
        (n_muscle + 1, 3) p-values of the posterior checks "spread", "curve" and "pattern"; the last row of all muscles
        together.
    affine
        (4, 4) of the grid, index -> mm; None where the points are on none.
    shape
        Points of the grid along each axis; empty where there is none.
    muscles
        Names of the muscles.
    prior
        What was believed of a density beforehand.
    unidentified
        (muscle, reason) of those of which the session says nothing.
    """

    weights: Any
    curves: RecruitmentCurve
    kernel: Any
    points: Any
    activity: Activity
    largest: Any
    strongest: Any
    usual: Any
    checks: Any
    affine: Any
    shape: tuple[int, ...]
    muscles: tuple[str, ...]
    prior: DensityPrior
    unidentified: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        n_draw, n_muscle, n_bump = np.shape(self.weights)
        without = f", {len(self.unidentified)} unidentified" if self.unidentified else ""
        return f"Sources({n_muscle} muscles{without}, {n_bump} bumps of {self.prior.width:g} mm, {n_draw} draws)"

    @property
    def rate(self) -> cortex.FiringRate | None:
        """`cortex.FiringRate` of the grey points, or None where the field itself counts."""
        return self.activity.rate

    @property
    def grid(self) -> Grid | None:
        """`efield.Grid` of the fields; None where the points are on none."""
        if self.affine is None:
            return None
        nx, ny, nz = self.shape
        return Grid(np.asarray(self.affine, np.float64), (nx, ny, nz))

    def __call__(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch muscle"]:
        """Compute the mean MEPs of fields, over the posterior; differentiable.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m at the points of the session's fields.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_muscle) mean MEPs, uV peak-to-peak.

        Raises
        ------
        ValueError
            Fields at other points.
        """
        return self.responses(e, didt=didt).mean(-2)

    def predict_scaled(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch muscle"]:
        """Compute mean MEPs as shares of the session's largest.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m at the points of the session's fields.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_muscle) shares, no unit.
        """
        return self(e, didt=didt) / self.largest

    def predict_members(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch member muscle"]:
        """Compute the mean MEPs of each draw as shares of the session's largest.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m at the points of the session's fields.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_draw, n_muscle) shares, no unit.
        """
        return self.responses(e, didt=didt) / self.largest

    def responses(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch draw muscle"]:
        """Compute the mean MEPs of fields for each draw of the posterior.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m at the points of the session's fields.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_draw, n_muscle) uV.
        """
        return _respond(self, self._arrange(e), didt)

    def respond(self, drive: Float[Array, "*batch draw muscle"]) -> Float[Array, "*batch draw muscle"]:
        """Compute the mean MEPs of drives as the densities see them.

        Parameters
        ----------
        drive
            (..., n_draw, n_muscle) activity under each draw's densities: `weights` times features of the bumps.

        Returns
        -------
        array
            (..., n_draw, n_muscle) uV.
        """
        return mean_response(self.curves, drive)

    def drive(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch muscle"]:
        """Compute the drive of fields, over the posterior, as shares of the strongest of the session.

        The strongest is the 98th percentile over the session's stimuli, of each draw its own, as in `table` and
        `describe_curves`.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m at the points of the session's fields.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_muscle) shares, no unit.
        """
        return (_compute_drive(self, self._arrange(e), didt) / self.usual[1]).mean(-2)

    def evaluate_curves(self, drive: ArrayLike, *, noise: bool = True) -> Float[Array, "draw muscle number"]:
        """Compute the MEPs of each draw's curves at drives.

        Parameters
        ----------
        drive
            (n,) shares of the session's strongest drive, no unit, zero or above; the same for all muscles.
        noise
            Whether the mean over trial-to-trial noise is taken, as elsewhere. False: the curve without noise, about
            the median of single MEPs, which is lower where the curve is steep.

        Returns
        -------
        array
            (n_draw, n_muscle, n) uV.
        """
        wide = RecruitmentCurve(*(number[..., None] for number in self.curves))
        share = jnp.asarray(_check.positive(drive, "drive", zero=True), self.usual.dtype)
        return _evaluate(wide, share * self.usual[1][..., None], noise)

    def _arrange(self, e: ArrayLike) -> Array:
        """Fields (..., n_point, 3)."""
        e = jnp.asarray(e)
        if self.shape and e.shape[-4:] == (*self.shape, 3):
            e = e.reshape(*e.shape[:-4], self.activity.n_point, 3)
        if e.shape[-2:] != (self.activity.n_point, 3):
            raise ValueError(
                f"e: shape {tuple(e.shape)}; give (..., {self.activity.n_point}, 3), fields at the points that the "
                "sources were fitted on."
            )
        return e

    def interval(
        self, e: ArrayLike, share: float | int = 0.9, *, didt: ArrayLike | None = None
    ) -> Float[Array, "2 *batch muscle"]:
        """Compute the interval that holds a share of the posterior of the mean MEPs.

        Single MEPs scatter about their mean by far more.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m at the points of the session's fields.
        share
            Share of the posterior, 0 to 1.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (2, ..., n_muscle) its ends, uV.
        """
        if not 0 < share < 1:
            raise ValueError(f"share: {share:g}; it must lie between 0 and 1.")
        ends = jnp.asarray([(1 - share) / 2, (1 + share) / 2], jnp.result_type(float))
        return jnp.quantile(self.responses(e, didt=didt), ends, axis=-2)

    def log_likelihood(
        self, meps: ArrayLike, e: ArrayLike, *, didt: ArrayLike | None = None
    ) -> Float[Array, "measured field"]:
        """Compute how likely measured MEPs are for fields, over the posterior: which of them it may have been.

        Parameters
        ----------
        meps
            (n_measured, n_muscle) MEPs of single stimuli, uV.
        e
            (n_field, n_point, 3) V/m at the points of the session's fields: those that may have been.
        didt
            dI/dt, A/s, a number or one for each field, for firing rates whose threshold needs it.

        Returns
        -------
        array
            (n_measured, n_field) logarithm of the density of log10 MEPs, up to a constant, no unit.
        """
        values = np.asarray(_check.positive(meps, "meps"), np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.muscles):
            raise ValueError(f"meps: shape {values.shape}; give (n_measured, {len(self.muscles)}), above zero.")
        fields = self._arrange(e)
        return _log_likelihood(self, jnp.asarray(np.log10(values), jnp.result_type(float)), fields, didt)

    def sample(self, key: Key[Array, ""], n: int) -> "Sources":
        """Draw from the posterior, with replacement where `n` is more than there are.

        Parameters
        ----------
        key
            Which draws.
        n
            How many.

        Returns
        -------
        Sources
            The same with `n` draws: with one, a truth that may be.
        """
        _check.integer(n, "n")
        count = len(self.weights)
        chosen = jax.random.choice(key, count, (n,), replace=n > count)
        curves = RecruitmentCurve(*(number[chosen] for number in self.curves))
        return replace(self, weights=self.weights[chosen], curves=curves, usual=self.usual[:, chosen])

    def restrict(self) -> tuple[np.ndarray, "Sources"]:
        """Return the sources for fields at their grey points alone, which cost less than those of a whole grid.

        Returns
        -------
        index : array
            (n_grey,) indices of these points among those of the fields.
        sources : Sources
            The same, for fields (..., n_grey, 3) at `FieldMap.pick(index)`.
        """
        index = np.asarray(self.activity.grey)
        activity = replace(self.activity, grey=jnp.arange(len(index)), n_point=len(index))
        return index, replace(self, activity=activity, affine=None, shape=())

    def density(self, muscle: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Compute mean and standard deviation of the densities over the grey points.

        Parameters
        ----------
        muscle
            Its name; None: all.

        Returns
        -------
        mean, deviation : arrays
            (n_muscle, n_grey), or (n_grey,) of one muscle, shares: each mean sums to 1.
        """
        kernel, weights = np.asarray(self.kernel, np.float64), np.asarray(self.weights, np.float64)

        def describe(row: int) -> tuple[np.ndarray, np.ndarray]:
            draws = weights[:, row] @ kernel
            return draws.mean(0), draws.std(0)

        if muscle is not None:
            return describe(self._index(muscle))
        # one muscle after the other: the draws of all over a fine grid are gigabytes
        mean, deviation = zip(*map(describe, range(len(self.muscles))), strict=True)
        return np.stack(mean), np.stack(deviation)

    def centroids(self) -> Float[np.ndarray, "draw muscle 3"]:
        """Compute the centroids of the densities of each draw.

        Returns
        -------
        array
            (n_draw, n_muscle, 3) mm.
        """
        places = np.asarray(self.kernel, np.float64) @ np.asarray(self.points, np.float64)
        return np.asarray(self.weights, np.float64) @ places

    def hotspots(self) -> pd.DataFrame:
        """Tabulate where the muscles are driven from: the centroids of their densities, and how sure that is.

        Returns
        -------
        pandas.DataFrame
            A row a muscle: x, y, z (mm), `radius_50` and `radius_90` (mm) of the balls that hold half and nine tenths
            of the posterior of the centroid, with 1 mm along each axis for what no cortex shares with bumps and
            curves, and `reason`, "" unless the session says nothing of the muscle, whose numbers are then NaN.
        """
        draws = self.centroids()
        mean = draws.mean(0)
        away = np.linalg.norm(draws - mean, axis=2)
        radii = np.quantile(away, _SHARES, axis=0)
        table = pd.DataFrame(mean, columns=list("xyz"), index=pd.Index(self.muscles, name="muscle"))
        table["radius_50"], table["radius_90"] = np.hypot(radii, _MODEL_ERROR * chi.ppf(_SHARES, 3)[:, None])
        reasons = dict(self.unidentified)
        table["reason"] = [reasons.get(name, "") for name in self.muscles]
        table.loc[table["reason"] != "", ["x", "y", "z", "radius_50", "radius_90"]] = np.nan
        return table

    def table(self) -> pd.DataFrame:
        """Tabulate the curves.

        Returns
        -------
        pandas.DataFrame
            A row a muscle: `threshold`, the drive at which the mean MEP reaches 50 uV as a share of the session's
            strongest drive (NaN: never within twice that), `plateau` and `floor` (uV), posterior means with their
            standard deviations (`threshold_sd`, ...).
        """
        draws = self.describe_curves()
        columns = {}
        for name, values in draws.items():
            columns[name], columns[f"{name}_sd"] = values.mean(0), values.std(0)
        return pd.DataFrame(columns, index=pd.Index(self.muscles, name="muscle"))

    def check(self) -> pd.DataFrame:
        """Tabulate the posterior checks, which compare the session with what the fitted model would give.

        Returns
        -------
        pandas.DataFrame
            p-values, small where the model is wrong; a row a muscle and one of all of them together, `all`. Columns:
            `spread` (MEPs scatter more, or less, than the noise model says), `curve` (what is left of them goes along
            with the drive) and `pattern` (it follows the field in another way).
        """
        index = pd.Index([*self.muscles, "all"], name="muscle")
        return pd.DataFrame(np.asarray(self.checks, np.float64), index=index, columns=list(CHECKS))

    def describe_curves(self) -> dict[str, Float[np.ndarray, "draw muscle"]]:
        """Compute threshold, plateau and floor of each draw's curves.

        Returns
        -------
        dict
            `threshold` (share of the session's strongest drive), `plateau` and `floor` (uV), each (n_draw, n_muscle).
        """
        drive = np.linspace(0, 2, 101)
        response = np.asarray(self.evaluate_curves(drive), np.float64)
        above = response >= 50
        at = np.maximum(above.argmax(-1), 1)
        low, high = (np.take_along_axis(np.log(response), (at - k)[..., None], -1)[..., 0] for k in (1, 0))
        step = np.clip((np.log(50) - low) / np.maximum(high - low, 1e-12), 0, 1)
        threshold = np.where(above.any(-1), drive[1] * (at - 1 + step), np.nan)
        plateau, floor = (10 ** np.asarray(a, np.float64) for a in (self.curves.decades - 1, self.curves.floor))
        return {"threshold": threshold, "plateau": plateau, "floor": floor}

    def maps(self, path: PathLike, quantity: str = "density") -> Path:
        """Write densities on the grid as a NIfTI file, a volume a muscle.

        Parameters
        ----------
        path
            The file to be written, `.nii.gz` or `.nii`.
        quantity
            "density" (mean, 1/mm^3) or "deviation" (standard deviation, 1/mm^3).

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        ValueError
            The sources are not on a grid.
        """
        _check.option(quantity, ("density", "deviation"), "quantity")
        if self.affine is None:
            raise ValueError("path: these sources are at points, not on a grid; use density().")
        values = self.density()[quantity == "deviation"]
        affine = np.asarray(self.affine, np.float64)
        volumes = np.zeros((len(self.muscles), self.activity.n_point))
        volumes[:, np.asarray(self.activity.grey)] = values / abs(np.linalg.det(affine[:3, :3]))
        return save_volumes(
            path, volumes.reshape(len(self.muscles), *self.shape), affine, self.muscles, quantity, "1/mm^3"
        )

    def save(self, path: PathLike) -> Path:
        """Write the sources to `.h5`; the file appears whole or not at all.

        Parameters
        ----------
        path
            The file to be written.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        TypeError
            A firing rate with a curve of the user's own.
        """
        return write_sources(path, vars(self))

    @classmethod
    def load(cls, path: PathLike) -> "Sources":
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The HDF5 file.

        Returns
        -------
        Sources
            The sources of the file.

        Raises
        ------
        ValueError
            The file holds something else, or is damaged.
        """
        return cls(**read_sources(path))

    def _index(self, muscle: str) -> int:
        return self.muscles.index(_check.option(muscle, self.muscles, "muscle"))


@jax.jit
@full_precision
def _compute_drive(sources: Sources, e: Array, didt: Any) -> Array:
    features = sources.activity(e, didt) @ sources.kernel.T
    return jnp.einsum("...b,dmb->...dm", features, sources.weights)


@jax.jit
@full_precision
def _log_likelihood(sources: Sources, y: Array, e: Array, didt: Any) -> Array:
    features = sources.activity(e, didt) @ sources.kernel.T

    def one(draw):
        weights, curve = draw
        drive = features @ weights.T

        def sum_muscles(shared):
            return log_likelihood(curve, y[:, None], drive, shared).sum(-1)

        # muscles are independent only given what they share
        heights = jax.lax.map(sum_muscles, SHARED * jnp.asarray(NODES, y.dtype))
        return jax.scipy.special.logsumexp(heights, axis=0, b=jnp.asarray(WEIGHTS, y.dtype)[:, None, None])

    heights = jax.lax.map(one, (sources.weights, sources.curves))
    return jax.scipy.special.logsumexp(heights, axis=0) - jnp.log(len(heights))


@jax.jit
@full_precision
def _respond(sources: Sources, e: Array, didt: Any) -> Array:
    return mean_response(sources.curves, _compute_drive(sources, e, didt))


@partial(jax.jit, static_argnums=2)
@full_precision
def _evaluate(curves: RecruitmentCurve, drive: Array, noise: bool) -> Array:
    return mean_response(curves, drive) if noise else 10 ** evaluate_curve(curves, curves.rest + curves.gain * drive)
