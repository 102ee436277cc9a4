r"""Recruitment curves: how MEPs grow with the intensity."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float
from scipy.optimize import minimize
from scipy.special import expit

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle.maps._maps import name_muscles
from jaxm2m.muscle.maps._sigmoid import MARGIN, SLOPES, fit, sigmoid
from jaxm2m.muscle.responses._meps import Meps


@dataclass(frozen=True, eq=False, repr=False)
class Recruitment:
    """Recruitment curves, one for each muscle.

    Attributes
    ----------
    y0, amp : (n_muscle,) float arrays
        Floor and plateau, uV.
    r, x0 : (n_muscle,) float arrays
        Steepness and midpoint, per unit of intensity and in it. Of a muscle whose MEPs do not grow r is 0 and x0 NaN.
    r2 : (n_muscle,) float array
        R^2 of the amplitudes, or of their logarithms if those were fitted.
    bounded : (n_muscle,) bool array
        The data cover a foot, a straight line or a step, and do not determine all four parameters.
    log : bool
        Whether logarithms were fitted.
    least : float
        MEP of the threshold, uV.
    intensity : (n_stimulus,) float array
        Intensities, in the unit that was passed.
    meps : (n_stimulus, n_muscle) float array
        MEPs that were fitted, uV.
    muscles : tuple of str
        Names of the muscles.
    """

    y0: Float[np.ndarray, " n_muscle"]
    amp: Float[np.ndarray, " n_muscle"]
    r: Float[np.ndarray, " n_muscle"]
    x0: Float[np.ndarray, " n_muscle"]
    r2: Float[np.ndarray, " n_muscle"]
    bounded: Bool[np.ndarray, " n_muscle"]
    log: bool
    least: float
    intensity: Float[np.ndarray, " n_stimulus"]
    meps: Float[np.ndarray, "n_stimulus n_muscle"]
    muscles: tuple[str, ...]

    def __repr__(self) -> str:
        low, high = np.fmin.reduce(self.r2), np.fmax.reduce(self.r2)
        return f"Recruitment({len(self.muscles)} muscles, {len(self.intensity)} stimuli, R^2 {low:.2f} to {high:.2f})"

    def predict(self, intensity: ArrayLike) -> Float[Array | np.ndarray, "*batch n_muscle"]:
        """Predict MEPs by the curves.

        Parameters
        ----------
        intensity
            (...) intensities, in the unit of the fitted ones.

        Returns
        -------
        array
            (..., n_muscle) MEPs, uV. JAX arrays stay JAX arrays, and can be differentiated.
        """
        x = _check.array(intensity, "intensity")
        y0, amp = (np.log10(v) if self.log else v for v in (self.y0, self.amp))
        y = sigmoid(jnp.asarray(x, jnp.result_type(float))[..., None], y0, amp, self.r, self.x0)
        y = 10**y if self.log else y
        return np.asarray(y) if isinstance(x, np.ndarray) else y

    @property
    def threshold(self) -> Float[np.ndarray, " n_muscle"]:
        """Intensity at which the curve crosses `least` uV, (n_muscle,); NaN where it never does.

        It may lie outside the fitted intensities.
        """
        low, high, level = (np.log10(v) if self.log else v for v in (self.y0, self.amp, np.float64(self.least)))
        crosses = (low < level) & (level < high) & (self.r > 0)
        share = np.where(crosses, (level - low) / np.where(crosses, high - low, 1), 0.5)
        return np.where(crosses, self.x0 + np.log(share / (1 - share)) / np.where(crosses, self.r, 1), np.nan)

    @property
    def slope(self) -> Float[np.ndarray, " n_muscle"]:
        """Slope dy/dx at x0, uV per unit of intensity, (n_muscle,)."""
        if self.log:
            return np.sqrt(self.y0 * self.amp) * np.log(self.amp / self.y0) * self.r / 4
        return (self.amp - self.y0) * self.r / 4

    def table(self) -> pd.DataFrame:
        """Tabulate the curves.

        Returns
        -------
        pandas.DataFrame
            A row for each muscle: y0, amp (uV), r, x0, r2, threshold, slope, bounded.
        """
        names = ("y0", "amp", "r", "x0", "r2", "threshold", "slope", "bounded")
        return pd.DataFrame({n: getattr(self, n) for n in names}, index=pd.Index(self.muscles, name="muscle"))


def recruitment(
    intensity: ArrayLike,
    meps: Meps | ArrayLike,
    *,
    log: bool = False,
    least: float | int = 50.0,
    muscles: Sequence[str] | None = None,
) -> Recruitment:
    """Fit a recruitment curve to each muscle, all at once.

        y = y0 + (amp - y0) / (1 + exp(-r (x - x0))) ,    r >= 0, amp >= y0 >= 0,

    least squares of y, or with `log` the same curve of log10 y between log10 y0 and log10 amp. MEPs scatter by a factor
    rather than by so many uV, which speaks for `log`; the form without it is that of pyNIBS.

    Parameters
    ----------
    intensity
        (n_stimulus,) intensities x, in any unit: % of stimulator output or of the motor threshold, A/us, V/m at the
        hotspot.
    meps
        `Meps`, or (n_stimulus, n_muscle) uV.
    log
        Whether logarithms are fitted; amplitudes must be above zero.
    least
        MEP at which the threshold is read off the curve, uV.
    muscles
        Names, for arrays; else which to take.

    Returns
    -------
    Recruitment
        A curve for each muscle.

    Raises
    ------
    ValueError
        Fewer than five intensities; MEPs that are flagged, negative, NaN, or zero with `log`.

    Notes
    -----
    Of a curve that is seen up to its foot only, x0 ends a little above the fitted intensities, and it is marked
    `bounded`; so is one whose floor would be negative, and is held at 0.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> intensity = np.linspace(40, 90, 26)  # % MSO
    >>> meps = 2000 / (1 + np.exp(-0.2 * (intensity - 65)))  # uV
    >>> curve = jm.muscle.recruitment(intensity, meps[:, None], muscles=("FDI",))
    >>> [round(float(v[0]), 1) for v in (curve.amp, curve.r, curve.x0)]
    [2000.0, 0.2, 65.0]
    """
    values, names = name_muscles(meps, muscles)
    x = np.asarray(_check.finite(intensity, "intensity"), np.float64)
    if x.shape != values.shape[:1]:
        raise ValueError(f"intensity: shape {x.shape} for {len(values)} stimuli; pass one number for each.")
    if len(np.unique(x)) < 5:
        raise ValueError(
            f"intensity: {len(np.unique(x))} different ones; a curve of four parameters needs at least five."
        )
    _check.positive(least, "least")
    if log and values.min() <= 0:
        raise ValueError("meps: zeros have no logarithm; raise them to the noise (np.maximum(meps, 5)), or log=False.")
    dtype = jnp.result_type(float)
    fits = fit(jnp.asarray(x[:, None], dtype), jnp.asarray(np.log10(values) if log else values, dtype))
    y0, amp, r, x0, r2 = (np.array(v[0], np.float64) for v in fits[:5])
    # silent muscles have no variance to explain
    r2 = np.where(np.ptp(values, 0) > 0, r2, np.nan)
    bounded = np.array(fits.bounded[0])
    if log:
        y0, amp = 10**y0, 10**amp
    else:
        for k in np.flatnonzero(y0 < 0):
            y0[k], bounded[k] = 0.0, True
            amp[k], r[k], x0[k], r2[k] = _fit_from_zero(x, values[:, k])
    return Recruitment(y0, amp, r, x0, r2, bounded, log, float(least), x, values, names)


def _fit_from_zero(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Fit amp / (1 + exp(-r (x - x0))), x0 within the bounds of `fit`; return amp, r, x0 and R^2."""
    scale, span = x.std(), np.ptp(x)

    def place(parameters: np.ndarray) -> tuple[float, float]:
        slope = float(np.exp(parameters[0]) / scale)
        margin = 1 / (1 / span + slope / MARGIN)
        return slope, float(x.min() - margin + parameters[1] * (span + 2 * margin))

    def rise(parameters: np.ndarray) -> tuple[np.ndarray, float]:
        slope, midpoint = place(parameters)
        s = expit(slope * (x - midpoint))
        return s, float((s * y).sum() / (s * s).sum())

    def loss(parameters: np.ndarray) -> float:
        s, amp = rise(parameters)
        return float(((y - amp * s) ** 2).sum() / (y**2).sum())

    bounds = [(float(np.log(SLOPES[0])), float(np.log(SLOPES[1]))), (0.0, 1.0)]
    grid = np.meshgrid(np.linspace(*bounds[0], 9), np.linspace(0, 1, 11))
    starts = np.stack(grid, -1).reshape(-1, 2)
    options = {"xatol": 1e-8, "fatol": 1e-12}
    best = minimize(loss, min(starts, key=loss), method="Nelder-Mead", bounds=bounds, options=options)
    s, amp = rise(best.x)
    r2 = 1 - ((y - amp * s) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return amp, *place(best.x), float(r2)
