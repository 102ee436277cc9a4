"""How many synergies there are: by the variance accounted for, and by bi-cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int, Key

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle._random import numpy_generator
from jaxm2m.muscle.responses._activity import Activity
from jaxm2m.muscle.responses._meps import Meps
from jaxm2m.muscle.responses._scores import vaf, vaf_of_samples
from jaxm2m.muscle.responses._synergies import check_ranks, factorise, read_amplitudes

_BLOCKS = 8  # of a recording


@dataclass(frozen=True, eq=False, repr=False)
class VafCurve:
    """VAF against the number of synergies.

    Attributes
    ----------
    ranks : (n_rank,) int array
        Numbers of synergies.
    vaf, low, high : (n_rank,) float arrays
        VAF, and the ends of its bootstrap interval over trials.
    definition : str
        Definition of VAF, as in `vaf`.
    """

    ranks: Int[np.ndarray, " n_rank"]
    vaf: Float[np.ndarray, " n_rank"]
    low: Float[np.ndarray, " n_rank"]
    high: Float[np.ndarray, " n_rank"]
    definition: str

    def rank(self, threshold: float = 0.9) -> int:
        """Return the smallest rank with at least this VAF.

        It says how many synergies describe so much of the data, not how many there are: of 3 to 9 true synergies with
        hardly any noise it found up to 5 too few (`bi_cross_validation` counts them).

        Parameters
        ----------
        threshold
            VAF to be reached, 0 to 1.

        Returns
        -------
        int
            Number of synergies.
        """
        enough = self.vaf >= threshold
        if not enough.any():
            raise ValueError(f"threshold: {threshold:g}, but VAF reaches {self.vaf.max():.3f}; lower it, or add ranks.")
        return int(self.ranks[enough.argmax()])

    def table(self) -> pd.DataFrame:
        """Tabulate the curve.

        Returns
        -------
        pandas.DataFrame
            A row for each rank: rank, vaf, low, high.
        """
        return pd.DataFrame({"rank": self.ranks, "vaf": self.vaf, "low": self.low, "high": self.high})


@dataclass(frozen=True, eq=False, repr=False)
class BiCrossValidation:
    """Error of predicting MEPs of left-out trials and muscles, against the number of synergies.

    Attributes
    ----------
    ranks : (n_rank,) int array
        Numbers of synergies.
    error : (n_rank, n_block) float array
        Mean square in each left-out block, over the mean square of all MEPs.
    """

    ranks: Int[np.ndarray, " n_rank"]
    error: Float[np.ndarray, "n_rank n_block"]

    @property
    def rank(self) -> int:
        """The smallest rank whose mean error exceeds the least by at most the standard error of the least.

        The least error itself is often of a rank too many, by a hair.
        """
        mean = self.error.mean(1)
        best = mean.argmin()
        limit = mean[best] + self.error[best].std(ddof=1) / self.error.shape[1] ** 0.5
        return int(self.ranks[(mean <= limit).argmax()])

    def table(self) -> pd.DataFrame:
        """Tabulate the errors.

        Returns
        -------
        pandas.DataFrame
            A row for each rank: rank, error, se (over blocks).
        """
        se = self.error.std(1, ddof=1) / self.error.shape[1] ** 0.5
        return pd.DataFrame({"rank": self.ranks, "error": self.error.mean(1), "se": se})


def vaf_curve(
    meps: Meps | Activity | ArrayLike,
    ranks: Sequence[int] | np.ndarray | None = None,
    *,
    definition: str = "uncentred",
    resamples: int = 1000,
    confidence: float = 0.9,
    n_starts: int = 5,
    key: Key[Array, ""] | None = None,
) -> VafCurve:
    """Compute the VAF at each rank, with percentile intervals over resampled trials.

    Synergies are not fitted anew to each resample: its repeated trials would be fitted better than the data, and the
    interval would miss them. The interval is that of the VAF of given synergies over trials.

    Parameters
    ----------
    meps
        `Meps`, or (n_stimulus, n_muscle), in uV or scaled, or activity over time, as for `synergies`.
    ranks
        (n_rank,) numbers of synergies; None: 1 to the number of muscles.
    definition
        Definition of VAF, as in `vaf`.
    resamples
        Number of resamples of the trials.
    confidence
        Confidence of the intervals, 0 to 1.
    n_starts
        Number of random starts at each rank.
    key
        Draws the resamples and the starts; None: `jax.random.key(0)`.

    Returns
    -------
    VafCurve
        VAF and its interval at each rank.
    """
    values, _ = read_amplitudes(meps)
    most, n = min(values.shape), len(values)
    tested = check_ranks(range(1, most + 1) if ranks is None else ranks, "ranks", most)
    _check.integer(resamples, "resamples")
    counts = numpy_generator(key).multinomial(n, np.full(n, 1 / n), size=resamples)
    vafs, low, high = np.empty((3, len(tested)))
    for i, rank in enumerate(tested):
        # VAF needs no more digits than this
        fits = [a @ h for a, h, _ in factorise(values, rank, n_starts, key, 2000, 1e-4)]
        predicted = min(fits, key=lambda p: ((values - p) ** 2).sum())
        vafs[i] = vaf(values, predicted, definition)
        resampled = vaf_of_samples(values, predicted, counts, definition)
        low[i], high[i] = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return VafCurve(np.array(tested), vafs, low, high, definition)


def bi_cross_validation(
    meps: Meps | Activity | ArrayLike,
    ranks: Sequence[int] | np.ndarray | None = None,
    *,
    trial_folds: int = 2,
    muscle_folds: int = 5,
    blocks: int | None = None,
    key: Key[Array, ""] | None = None,
) -> BiCrossValidation:
    """Leave out trials and muscles at once, and predict the block where they meet from what is left.

    With the MEPs divided into left-out A, and B, C, D, and D_k the best approximation of D by k factors,

        [A B]     hat A = B D_k^+ C .
        [C D]

    D_k is the truncated singular value decomposition. Of linear data with little noise it gives the number of synergies
    (if their vectors are linearly independent): of 84 sets of 15 muscles with 3 to 9 synergies the number was right in
    all with noise of 2 and 5 % of the signal's SD, in 83 with 10 and 20 %. Non-negative factors for D_k, which the
    paper has as well, missed 4 of 24, by local minima, at forty times the cost. MEPs are not linear in synergies: of
    real ones the rank is a description.

    Noise must be of about the same size in all muscles: scale them before (`emg.Rectified` is in units of each muscle,
    `muscle.Scaling` does it for MEPs). Where it grows with the muscle instead, the number is too high.

    Parameters
    ----------
    meps
        `Meps`, or (n_stimulus, n_muscle), in uV or scaled, or activity over time, as for `synergies`.
    ranks
        (n_rank,) ranks, each a number of synergies; None: 1 to the largest that the kept muscles allow.
    trial_folds, muscle_folds
        Half of the trials, as in the paper, but a fifth of the muscles: with half of 15 muscles, no rank over 7 could
        be told.
    blocks
        Number of blocks of successive samples that are left out as wholes, every `trial_folds`-th in a fold. None: 8 of
        activity over time, whose samples resemble their neighbours (left out one by one, the neighbours predict their
        noise, and the rank is too high), and single trials of MEPs. Of bare arrays of successive samples pass 8.
    key
        Draws the division; None: `jax.random.key(0)`.

    Returns
    -------
    BiCrossValidation
        The error of each rank in each left-out block.

    Notes
    -----
    A. B. Owen, P. O. Perry, Ann. Appl. Stat. 3, 564 (2009).
    """
    values, _ = read_amplitudes(meps)
    if blocks is None and isinstance(meps, Activity) and not isinstance(meps, Meps):
        blocks = max(_BLOCKS, trial_folds)
    rng, groups = numpy_generator(key), []
    for count, size, name in zip(
        (trial_folds, muscle_folds), values.shape, ("trial_folds", "muscle_folds"), strict=True
    ):
        if not 2 <= _check.integer(count, name) <= size:
            raise ValueError(f"{name}: {count} of {size}; take from 2 to {size}.")
        groups.append(np.array_split(rng.permutation(size), count))
    if blocks is not None:
        if not trial_folds <= _check.integer(blocks, "blocks") <= len(values):
            raise ValueError(f"blocks: {blocks} of {len(values)} samples; take from {trial_folds} (trial_folds) on.")
        fold = np.arange(len(values)) * blocks // len(values) % trial_folds
        groups[0] = [np.flatnonzero(fold == k) for k in range(trial_folds)]
    most = min(size - max(map(len, group)) for size, group in zip(values.shape, groups, strict=True))
    tested = check_ranks(range(1, most + 1) if ranks is None else ranks, "ranks", most)
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
