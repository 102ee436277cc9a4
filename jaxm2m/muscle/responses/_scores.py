r"""How well MEPs are predicted: direction, scale, error, variance accounted for, and jackknife intervals over folds.

With m the measured and p the predicted values of one trial, one muscle, or all together,

    cosine = <m, p> / |m| |p|                nrmse = |m - p| / |m|
    s1 = <m, p> / <m, m>    s2 = <m, p> / <p, p>    s3 = |p| / |m| .

s1 is the reading of "amplitude scale factor ... using dot products" in the 2019 paper. The best possible prediction,
p = E[m | x], has s2 = 1 and, over all trials, s1 = 1 - nrmse^2 < 1: inflating predictions "improves" s1. So none of
the three says much alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle.responses._meps import Meps, amplitudes

VAF_DEFINITIONS = ("uncentred", "muscle", "grand", "minimum")
_NAMES = ("cosine", "s1", "s2", "s3", "nrmse")


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Scores of one set of predictions; columns cosine, s1, s2, s3, nrmse.

    Attributes
    ----------
    trials : pandas.DataFrame
        A row for each trial; NaN where measured or predicted values are all zero.
    muscles : pandas.DataFrame
        A row for each muscle, over all trials; NaN where a score would divide by zero.
    pooled : pandas.Series
        All trials and muscles as one vector. Trials of zeros count here, as errors if the other is not zero.
    excluded : int
        Trials that have no scores of their own.
    """

    trials: pd.DataFrame
    muscles: pd.DataFrame
    pooled: pd.Series
    excluded: int

    def __repr__(self) -> str:
        text = ", ".join(f"{name} {self.pooled[name]:.3f}" for name in _NAMES)
        return f"Scores(pooled {text}; {len(self.trials)} trials, {self.excluded} excluded)"

    @property
    def mean(self) -> pd.Series:
        """Mean scores over the trials that are not excluded."""
        return self.trials.mean()


@dataclass(frozen=True)
class Interval:
    """An estimate with its jackknife interval.

    Attributes
    ----------
    estimate, se, low, high : (...) float arrays
        Estimate, corrected for bias; its standard error; ends of the interval.
    confidence : float
        Confidence of the interval, 0 to 1.
    folds : int
        Number of folds.
    """

    estimate: Float[np.ndarray, "..."]
    se: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]
    confidence: float
    folds: int

    def __str__(self) -> str:
        texts = [np.array2string(v, precision=4) for v in (self.estimate, self.low, self.high)]
        return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def cosine(measured: ArrayLike, predicted: ArrayLike) -> Float[np.ndarray, "..."]:
    """Compute <m, p> / |m| |p| over the last axis.

    Parameters
    ----------
    measured, predicted
        m and p, (..., n_muscle), in the same unit.

    Returns
    -------
    array
        (...) cosines, no unit, in [-1, 1]; NaN where one of them is zero.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> print(f"{float(jm.muscle.cosine(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]))[0]):.2f}")
    0.96
    """
    return _of_products(*_products(*_pair(measured, predicted), axis=-1))[..., 0]


def scores(measured: Meps | ArrayLike, predicted: ArrayLike, *, muscles: Sequence[str] | None = None) -> Scores:
    """Score predictions by trial, by muscle and pooled.

    Parameters
    ----------
    measured, predicted
        (n_trial, n_muscle) in the same unit: scaled values or uV, and the scores are of that. uV weigh muscles by their
        size. `measured` may be `Meps`.
    muscles
        Names of the muscles; None: those of `Meps`, or numbers.

    Returns
    -------
    Scores
        Cosine, s1, s2, s3 and nrmse of trials, muscles and all together.

    Raises
    ------
    ValueError
        Shapes that differ, NaN, all measured values zero.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> meps = np.array([[9.0, 1.0, 0.0], [8.0, 2.0, 1.0], [0.0, 4.0, 8.0], [1.0, 5.0, 9.0], [5.0, 3.0, 4.0]])
    >>> result = jm.muscle.scores(meps, 0.9 * meps, muscles=("FDI", "ADM", "APB"))
    >>> print(f"{result.pooled['nrmse']:.3f}")
    0.100
    """
    if isinstance(measured, Meps):
        muscles, measured = measured.muscles if muscles is None else muscles, amplitudes(measured, "measured")
    m, p = _pair(measured, predicted)
    if m.ndim != 2 or not m.size:
        raise ValueError(f"measured: shape {m.shape}; pass (n_trial, n_muscle).")
    if not m.any():
        raise ValueError("measured: all values are zero; there is nothing to score.")
    names = [str(k + 1) for k in range(m.shape[1])] if muscles is None else list(muscles)
    if len(names) != m.shape[1]:
        raise ValueError(f"muscles: {len(names)} names for {m.shape[1]} muscles; match them.")
    rows = _of_products(*_products(m, p, axis=1))
    rows[np.isnan(rows[:, 0])] = np.nan
    trials = pd.DataFrame(rows, columns=list(_NAMES))
    by_muscle = pd.DataFrame(_of_products(*_products(m, p, axis=0)), index=names, columns=list(_NAMES))
    pooled = pd.Series(_of_products(*_products(m.ravel(), p.ravel(), axis=0)), index=list(_NAMES))
    return Scores(trials, by_muscle, pooled, int(trials["cosine"].isna().sum()))


def vaf(meps: Meps | ArrayLike, predicted: ArrayLike, definition: str = "uncentred") -> float:
    """Compute the variance accounted for, 1 - RSS / SST (the 2019 paper prints RSS / SST).

    Parameters
    ----------
    meps, predicted
        (n_stimulus, n_muscle) in the same unit. `meps` may be `Meps`.
    definition
        SST is sum m^2 ("uncentred"), sum (m - mean of the muscle)^2 ("muscle"), or sum (m - mean of all)^2 ("grand");
        "minimum": the uncentred VAF of the muscle that has the lowest.

    Returns
    -------
    float
        VAF, at most 1.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> meps = np.array([[3.0, 0.0], [0.0, 4.0]])
    >>> print(f"{float(jm.muscle.vaf(meps, 0.9 * meps)):.2f}")
    0.99
    """
    values = amplitudes(meps)
    predicted = np.asarray(_check.finite(predicted, "predicted"), np.float64)
    if predicted.shape != values.shape:
        raise ValueError(f"predicted: shape {predicted.shape}, but meps has {values.shape}; pass the same.")
    value = float(vaf_of_samples(values, predicted, np.ones((1, len(values))), definition)[0])
    if np.isnan(value):
        raise ValueError(
            f"meps: SST is zero, VAF {definition!r} does not exist; leave out muscles that are constant or zero."
        )
    return value


def vaf_of_samples(values: np.ndarray, predicted: np.ndarray, counts: np.ndarray, definition: str) -> np.ndarray:
    """Compute the VAF of samples in which each trial occurs `counts` (n_sample, n_trial) times."""
    _check.option(definition, VAF_DEFINITIONS, "definition")
    rss, squares, sums = (counts @ v for v in ((values - predicted) ** 2, values**2, values))
    n, n_muscle = counts.sum(1), values.shape[1]
    if definition == "minimum":
        rss, sst = rss, squares
    elif definition == "muscle":
        rss, sst = rss.sum(1), (squares - sums**2 / n[:, None]).sum(1)
    else:
        mean = sums.sum(1) ** 2 / (n * n_muscle) if definition == "grand" else 0
        rss, sst = rss.sum(1), squares.sum(1) - mean
    ratio = 1 - rss / np.where(sst > 0, sst, np.nan)
    return ratio.min(1) if definition == "minimum" else ratio


def jackknife(
    folds: ArrayLike,
    statistic: Callable[[np.ndarray], ArrayLike] | None = None,
    *,
    confidence: float = 0.9,
    student: bool = False,
) -> Interval:
    r"""Compute leave-one-out jackknife intervals over folds.

    With t the statistic of all n folds, t_-i of all but fold i, and \bar t their mean,

        estimate = n t - (n - 1) \bar t ,   se = sqrt((n - 1) / n  sum_i (t_-i - \bar t)^2) ,

    and the interval is estimate +- q se. Folds share training data, which no such formula knows: intervals are somewhat
    too narrow.

    Parameters
    ----------
    folds
        (n_fold, ...) scores of each fold, in any unit, or whatever `statistic` takes.
    statistic
        folds -> number or array; by default the mean over folds, for which the estimate is the mean itself. With sums
        of products as folds it can be a pooled score, whose estimate is corrected for bias.
    confidence
        Confidence of the interval, 0 to 1; 0.9: q = 1.645.
    student
        Whether q is from Student's t with n - 1 degrees of freedom instead: 1.833 for ten folds.

    Returns
    -------
    Interval
        The estimate and its interval, in the unit of the statistic.

    Notes
    -----
    B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), Chapter 11.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> interval = jm.muscle.jackknife(np.array([0.4, 0.5, 0.6]))
    >>> [round(float(v), 3) for v in (interval.estimate, interval.low, interval.high)]
    [0.5, 0.405, 0.595]
    """
    folds = np.asarray(_check.finite(folds, "folds"), np.float64)
    if folds.ndim == 0 or len(folds) < 2:
        raise ValueError(f"folds: shape {folds.shape}; pass the scores of at least two folds.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence:g}; it must lie between 0 and 1.")
    n = len(folds)
    of = (lambda x: x.mean(0)) if statistic is None else statistic
    left = np.array([of(np.delete(folds, i, axis=0)) for i in range(n)], np.float64)
    estimate = np.asarray(n * np.asarray(of(folds), np.float64) - (n - 1) * left.mean(0))
    se = np.asarray(np.sqrt((n - 1) / n * ((left - left.mean(0)) ** 2).sum(0)))
    half = (1 + confidence) / 2
    q = stats.t.ppf(half, n - 1) if student else stats.norm.ppf(half)
    low, high = np.asarray(estimate - q * se), np.asarray(estimate + q * se)
    return Interval(estimate, se, low, high, float(confidence), n)


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.9, student: bool = False
) -> Interval:
    """Compute the jackknife interval of the mean of first - second over the same folds.

    This is how to compare variants: their own intervals hold what all variants share, such as easy and hard folds.

    Parameters
    ----------
    first, second
        (n_fold, ...) scores in the same unit.
    confidence
        Confidence of the interval, 0 to 1.
    student
        Whether Student's t is used, as in `jackknife`.

    Returns
    -------
    Interval
        The mean difference and its interval.
    """
    a, b = _pair(first, second, ("first", "second"))
    return jackknife(a - b, confidence=confidence, student=student)


def _pair(
    measured: ArrayLike, predicted: ArrayLike, names: tuple[str, str] = ("measured", "predicted")
) -> tuple[np.ndarray, np.ndarray]:
    m = np.asarray(_check.finite(measured, names[0]), np.float64)
    p = np.asarray(_check.finite(predicted, names[1]), np.float64)
    if m.shape != p.shape:
        raise ValueError(f"{names[1]}: shape {p.shape}, but {names[0]} has {m.shape}; pass the same rows and columns.")
    return m, p


def _products(m: np.ndarray, p: np.ndarray, axis: int) -> tuple[Any, ...]:
    return (m * m).sum(axis), (p * p).sum(axis), (m * p).sum(axis), ((m - p) ** 2).sum(axis)


def _of_products(mm: Any, pp: Any, mp: Any, rss: Any) -> np.ndarray:
    """Compute (..., 5) scores; NaN where one would divide by zero."""
    m, p = np.where(mm > 0, mm, np.nan), np.where(pp > 0, pp, np.nan)
    aligned = np.clip(mp / np.sqrt(m) / np.sqrt(p), -1, 1)
    return np.stack([aligned, mp / m, mp / p, np.sqrt(pp / m), np.sqrt(rss / m)], -1)
