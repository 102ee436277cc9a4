r"""Muscle synergies: non-negative factors of MEPs, how many there are, and whether two sets are the same.

    min_{S, a} 1/2 sum_t |m_t - S a_t|^2 ,   S >= 0, a_t >= 0, 1'S = 1' .

Any factorisation W h becomes this by S = W D^-1, a = D h with D = diag(1'W): the constraint costs nothing.
The factors are not always unique: if a synergy uses no muscle that another does not use as well, that other may give
up a part of it without loss of fit.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment, nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from jaxm2m import _check
from jaxm2m.muscle._meps import Meps, amplitudes
from jaxm2m.muscle._scores import vaf, vaf_of_samples


@dataclass(frozen=True, eq=False, repr=False)
class Synergies:
    """Synergies fitted to MEPs.

    Attributes
    ----------
    vectors : (n_muscle, n_synergy) float array
        S, the share of each muscle in each synergy; columns sum to 1, in order of falling total activation. A synergy
        that the fit left empty is a column of zeros.
    muscles : tuple of str
    vaf : float
        Uncentred VAF of the MEPs it was fitted to.
    rss : (n_start,) float array
        Residual sum of squares that each start reached; the least was taken.
    converged : bool
        Whether that start met the tolerance.

    """

    vectors: Float[np.ndarray, "n_muscle n_synergy"]
    muscles: tuple[str, ...]
    vaf: float
    rss: Float[np.ndarray, " n_start"]
    converged: bool

    def __repr__(self) -> str:
        n, k = self.vectors.shape
        return f"Synergies({k} of {n} muscles, VAF {self.vaf:.3f}{'' if self.converged else ', not converged'})"

    def activations(self, meps: Any) -> Float[np.ndarray, "n_stimulus n_synergy"]:
        """argmin |m - S a| over a >= 0 for each stimulus, also for new ones; in the unit of the MEPs."""
        values = amplitudes(meps)
        if values.shape[1] != len(self.vectors):
            raise ValueError(f"meps: {values.shape[1]} muscles, the synergies have {len(self.vectors)}; pass the same.")
        return np.array([nnls(self.vectors, row)[0] for row in values])

    def reconstruct(self, activations: Any) -> Any:
        """S a for activations (..., n_synergy): MEPs (..., n_muscle); JAX arrays stay JAX arrays."""
        return _check.array(activations, "activations") @ self.vectors.T


@dataclass(frozen=True, eq=False, repr=False)
class VafCurve:
    """VAF against the number of synergies.

    Attributes
    ----------
    ranks : (n_rank,) int array
    vaf, low, high : (n_rank,) float arrays
        And its bootstrap interval over trials.
    definition : str

    """

    ranks: Int[np.ndarray, " n_rank"]
    vaf: Float[np.ndarray, " n_rank"]
    low: Float[np.ndarray, " n_rank"]
    high: Float[np.ndarray, " n_rank"]
    definition: str

    def rank(self, threshold: float = 0.9) -> int:
        """The smallest rank with at least this VAF.

        It says how many synergies describe so much of the data, not how many there are: of 3 to 9 true synergies with
        hardly any noise it found up to 5 too few (`bi_cross_validation` counts them).
        """
        enough = self.vaf >= threshold
        if not enough.any():
            raise ValueError(f"threshold: {threshold:g}, but VAF reaches {self.vaf.max():.3f}; lower it, or add ranks.")
        return int(self.ranks[enough.argmax()])

    def table(self) -> pd.DataFrame:
        """A row a rank: rank, vaf, low, high."""
        return pd.DataFrame({"rank": self.ranks, "vaf": self.vaf, "low": self.low, "high": self.high})


@dataclass(frozen=True, eq=False, repr=False)
class BiCrossValidation:
    """Error of predicting MEPs of left-out trials and muscles, against the number of synergies.

    Attributes
    ----------
    ranks : (n_rank,) int array
    error : (n_rank, n_block) float array
        Mean square in each left-out block, over the mean square of all MEPs.

    """

    ranks: Int[np.ndarray, " n_rank"]
    error: Float[np.ndarray, "n_rank n_block"]

    @property
    def rank(self) -> int:
        """The smallest rank whose mean error exceeds the least one by no more than the standard error of that.

        The least error itself is often of a rank too many, by a hair.
        """
        mean = self.error.mean(1)
        best = mean.argmin()
        limit = mean[best] + self.error[best].std(ddof=1) / self.error.shape[1] ** 0.5
        return int(self.ranks[(mean <= limit).argmax()])

    def table(self) -> pd.DataFrame:
        """A row a rank: rank, error, se (over blocks)."""
        se = self.error.std(1, ddof=1) / self.error.shape[1] ** 0.5
        return pd.DataFrame({"rank": self.ranks, "error": self.error.mean(1), "se": se})


@dataclass(frozen=True, eq=False, repr=False)
class Matching:
    """Pairs of synergies of two fits.

    Attributes
    ----------
    pairs : (n_pair, 2) int array
        Synergy of the first and of the second.
    cosine, p : (n_pair,) float arrays
        Their cosine, and the share of pairs of shuffled synergies that are at least as alike.
    chance : float
        95th percentile of the cosine of such pairs.

    """

    pairs: Int[np.ndarray, "n_pair 2"]
    cosine: Float[np.ndarray, " n_pair"]
    p: Float[np.ndarray, " n_pair"]
    chance: float

    def __repr__(self) -> str:
        low, high = self.cosine.min(), self.cosine.max()
        return f"Matching({len(self.pairs)} pairs, cosine {low:.3f} to {high:.3f}, chance {self.chance:.3f})"


def synergies(
    meps: Any,
    n_synergy: int,
    *,
    starts: int = 10,
    seed: int = 0,
    iterations: int = 20_000,
    tolerance: float = 1e-6,
) -> Synergies:
    """Factorise MEPs by coordinate descent from several random starts, and take the best.

    Parameters
    ----------
    meps
        `Meps`, or (n_stimulus, n_muscle), not negative: scaled values, or uV, in which large muscles count most.
    n_synergy
        At most the number of muscles, and of stimuli.
    starts, seed
        Random starts; more of them than one also says how many agree (`rss`).
    iterations, tolerance
        Largest number, and the ratio of the violation of optimality to that at the start at which it stops.

    Raises
    ------
    ValueError
        Rank too high; MEPs that are negative, NaN, flagged or all zero.

    Warns
    -----
    UserWarning
        The best start did not converge, or left synergies empty.

    """
    values, muscles = _read(meps)
    _check_ranks([n_synergy], "n_synergy", min(values.shape))
    fits = _starts(values, n_synergy, starts, seed, iterations, tolerance)
    rss = np.array([((values - a @ h) ** 2).sum() for a, h, _ in fits])
    a, h, converged = fits[int(rss.argmin())]
    if not converged:
        late = sum(not done for *_, done in fits)
        warnings.warn(
            f"synergies: {late} of {starts} starts, the best among them, had not converged to {tolerance:g} after "
            f"{iterations} iterations; raise iterations, or accept a larger tolerance.",
            stacklevel=2,
        )
    total = h.sum(1)
    activity = a.sum(0) * total
    empty = activity == 0
    if empty.any():
        warnings.warn(
            f"synergies: {int(empty.sum())} of {n_synergy} are empty, the data hold no more; take fewer.", stacklevel=2
        )
    vectors = np.where(empty, 0, h.T / np.where(empty, 1, total))[:, np.argsort(-activity, kind="stable")]
    return Synergies(vectors, muscles, float(1 - rss.min() / (values**2).sum()), rss, converged)


def vaf_curve(
    meps: Any,
    ranks: Any = None,
    *,
    definition: str = "uncentred",
    resamples: int = 1000,
    confidence: float = 0.9,
    starts: int = 5,
    seed: int = 0,
) -> VafCurve:
    """VAF at each rank (by default 1 to the number of muscles), with percentile intervals over resampled trials.

    Synergies are not fitted anew to each resample: its repeated trials would be fitted better than the data, and the
    interval would miss them. The interval is that of the VAF of given synergies over trials.
    """
    values, _ = _read(meps)
    most, n = min(values.shape), len(values)
    tested = _check_ranks(range(1, most + 1) if ranks is None else ranks, "ranks", most)
    _check.integer(resamples, "resamples")
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    found, low, high = np.empty((3, len(tested)))
    for i, rank in enumerate(tested):
        # VAF needs no more digits than this
        fits = [a @ h for a, h, _ in _starts(values, rank, starts, seed, 2000, 1e-4)]
        predicted = min(fits, key=lambda p: ((values - p) ** 2).sum())
        found[i] = vaf(values, predicted, definition)
        resampled = vaf_of_samples(values, predicted, counts, definition)
        low[i], high[i] = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return VafCurve(np.array(tested), found, low, high, definition)


def bi_cross_validation(
    meps: Any, ranks: Any = None, *, trial_folds: int = 2, muscle_folds: int = 5, seed: int = 0
) -> BiCrossValidation:
    r"""Leave out trials and muscles at once, and predict the block where they meet from what is left.

    With the MEPs divided into left-out A, and B, C, D, and D_k the best approximation of D by k factors,

        [A B]     hat A = B D_k^+ C .
        [C D]

    D_k is the truncated singular value decomposition. Of linear data with little noise it gives the number of synergies
    (if their vectors are linearly independent): of 84 sets of 15 muscles with 3 to 9 synergies all were told right with
    noise of 2 and 5 % of the signal's SD, 83 with 10 and 20 %. Non-negative factors for D_k, which the paper has as
    well, missed 4 of 24, by local minima, at forty times the cost. MEPs are not linear in synergies: of real ones
    the rank is a description.

    Parameters
    ----------
    meps
        As for `synergies`.
    ranks
        By default 1 to the most that the kept muscles allow.
    trial_folds, muscle_folds
        Half of the trials, as in the paper, but a fifth of the muscles: with half of 15 muscles, no rank over 7 could
        be told.
    seed
        Of the division.

    Notes
    -----
    A. B. Owen, P. O. Perry, Ann. Appl. Stat. 3, 564 (2009).

    """
    values, _ = _read(meps)
    rng, groups = np.random.default_rng(seed), []
    for count, size, name in zip(
        (trial_folds, muscle_folds), values.shape, ("trial_folds", "muscle_folds"), strict=True
    ):
        if not 2 <= _check.integer(count, name) <= size:
            raise ValueError(f"{name}: {count} of {size}; take from 2 to {size}.")
        groups.append(np.array_split(rng.permutation(size), count))
    most = min(size - max(map(len, group)) for size, group in zip(values.shape, groups, strict=True))
    tested = _check_ranks(range(1, most + 1) if ranks is None else ranks, "ranks", most)
    error = []
    for i in groups[0]:
        for j in groups[1]:
            b, c = np.delete(values[i], j, 1), np.delete(values[:, j], i, 0)
            left, size, right = np.linalg.svd(np.delete(np.delete(values, i, 0), j, 1), full_matrices=False)
            # silent muscles leave directions of size zero
            inverse = np.where(size > 1e-10 * size[0], 1 / np.maximum(size, np.finfo(float).tiny), 0)
            of_trials, of_muscles = b @ right.T * inverse, left.T @ c
            missed = [values[np.ix_(i, j)] - of_trials[:, :k] @ of_muscles[:k] for k in tested]
            error.append([(m**2).mean() / (values**2).mean() for m in missed])
    return BiCrossValidation(np.array(tested), np.array(error).T)


def match_synergies(first: Any, second: Any, *, shuffles: int = 1000, seed: int = 0) -> Matching:
    """Pair synergies of two fits so that the sum of cosines is largest, and compare with shuffled ones.

    Chance is what the same matching finds after the muscles of each synergy of `second` have been permuted.

    Parameters
    ----------
    first, second
        `Synergies`, or vectors (n_muscle, n_synergy), of the same muscles; the numbers of synergies may differ.
    shuffles, seed
        Of the null.

    """
    one, two = (np.asarray(s.vectors if isinstance(s, Synergies) else s, np.float64) for s in (first, second))
    if one.ndim != 2 or two.ndim != 2 or len(one) != len(two):
        raise ValueError(
            f"second: shape {two.shape}, but first has {one.shape}; pass (n_muscle, n_synergy) of the same."
        )
    if isinstance(first, Synergies) and isinstance(second, Synergies) and first.muscles != second.muscles:
        raise ValueError(f"second: {', '.join(second.muscles)}, but first has {', '.join(first.muscles)}; match them.")
    pairs, cosines = _matched(one, two)
    rng = np.random.default_rng(seed)
    _check.integer(shuffles, "shuffles")
    null = np.concatenate([_matched(one, rng.permuted(two, axis=0))[1] for _ in range(shuffles)])
    p = (1 + (null >= cosines[:, None]).sum(1)) / (1 + null.size)
    return Matching(pairs, cosines, p, float(np.quantile(null, 0.95)))


def _read(meps: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    values = amplitudes(meps)
    if not values.any():
        raise ValueError("meps: all are zero; there is nothing to factorise.")
    return values, meps.muscles if isinstance(meps, Meps) else tuple(str(k + 1) for k in range(values.shape[1]))


def _check_ranks(ranks: Any, name: str, most: int) -> list[int]:
    checked = [_check.integer(rank, name) for rank in ranks]
    if not checked or max(checked) > most:
        raise ValueError(f"{name}: {max(checked, default='none')}; 1 to {most} is what these trials and muscles allow.")
    return checked


def _starts(values: np.ndarray, rank: int, starts: int, seed: int, iterations: int, tolerance: float) -> list:
    _check.integer(starts, "starts")
    seeds = np.random.default_rng(seed).integers(2**31, size=starts)
    return [_factorise(values, rank, int(s), iterations, tolerance) for s in seeds]


def _factorise(
    values: np.ndarray, rank: int, seed: int, iterations: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Factors (n_stimulus, rank) and (rank, n_muscle), and whether they met the tolerance."""
    model = NMF(rank, init="random", random_state=seed, max_iter=iterations, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ours says more
        a = model.fit_transform(values)
    return a, model.components_, model.n_iter_ < iterations


def _matched(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit = [v / np.maximum(np.linalg.norm(v, axis=0), np.finfo(float).tiny) for v in (one, two)]
    cosines = unit[0].T @ unit[1]
    rows, columns = linear_sum_assignment(-cosines)
    return np.stack([rows, columns], -1), cosines[rows, columns]
