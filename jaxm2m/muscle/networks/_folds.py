"""The folds of a cross-validation, and what is fitted to the training trials of each before any network is."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxm2m import _check
from jaxm2m.muscle.responses._scaling import Scaling
from jaxm2m.muscle.responses._synergies import synergies

VAF = 0.9  # of the synergies, where no number of them is given


@dataclass(frozen=True, eq=False)
class Fold:
    """Trials of one fold.

    Attributes
    ----------
    train
        Trials on which networks are stepped.
    validation
        Trials of the training set by which training is stopped and candidates are chosen.
    test
        Trials which nothing of this fold may depend on; empty where all trials are used.
    """

    train: Int[np.ndarray, " n_train"]
    validation: Int[np.ndarray, " n_validation"]
    test: Int[np.ndarray, " n_test"]

    @property
    def known(self) -> Int[np.ndarray, " n_known"]:
        """All but the test trials, in their order."""
        return np.sort(np.concatenate([self.train, self.validation]))


def draw_folds(count: int, n_folds: int, validation_fraction: float, key: Key[Array, ""]) -> list[Fold]:
    """Draw folds of equal size, by a permutation of the trials; each holds out a share of its training trials.

    Raises
    ------
    ValueError
        Fewer trials than folds.
    """
    _check.integer(n_folds, "n_folds", minimum=2)
    if count < 2 * n_folds:
        raise ValueError(f"n_folds: {n_folds} of {count} stimuli; take fewer folds, at least two stimuli in each.")
    number = np.empty(count, int)
    number[np.asarray(jax.random.permutation(jax.random.fold_in(key, 0), count))] = np.arange(count) % n_folds
    folds = []
    for fold in range(n_folds):
        train, validation = split(
            np.flatnonzero(number != fold), validation_fraction, jax.random.fold_in(key, fold + 1)
        )
        folds.append(Fold(train, validation, np.flatnonzero(number == fold)))
    return folds


def split(rows: np.ndarray, validation_fraction: float, key: Key[Array, ""]) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows into those to train on, and a share that is held out, at least one."""
    order = np.asarray(jax.random.permutation(key, len(rows)))
    few = max(1, round(validation_fraction * len(rows)))
    return np.sort(rows[order[few:]]), np.sort(rows[order[:few]])


@dataclass(frozen=True, eq=False)
class Fitted:
    """Scaling and synergies, fitted to known trials.

    Attributes
    ----------
    largest
        (n_muscle,) uV that become 1.
    synergies
        (n_muscle, n_synergy), columns that sum to 1; no columns where none are used.
    """

    largest: Float[np.ndarray, " n_muscle"]
    synergies: Float[np.ndarray, "n_muscle n_synergy"]


def fit_scaling(meps: Float[np.ndarray, "n m"], known: np.ndarray, rank: int | None, wanted: bool) -> Fitted:
    """Fit scaling and, where `wanted`, synergies to known trials; rank None: the smallest with a VAF of 0.90."""
    scaling = Scaling.fit(meps[known])
    if not wanted:
        return Fitted(scaling.largest, np.zeros((meps.shape[1], 0)))
    values = scaling.apply(meps[known])
    most = min(values.shape)
    factors = synergies(values, 1 if rank is None else rank, n_starts=3, tolerance=1e-5)
    for r in range(2, most + 1) if rank is None else ():
        if factors.vaf >= VAF:
            break
        factors = synergies(values, r, n_starts=3, tolerance=1e-5)
    return Fitted(scaling.largest, factors.vectors)


def measure_range(x: Float[np.ndarray, "n x y z c"], known: np.ndarray) -> tuple[np.ndarray, float]:
    """Find where known trials have a field, (x, y, z, 1), and the largest value there."""
    mask, scale = np.zeros(x.shape[1:4], bool), 0.0
    for row in known:  # one by one: a copy of all may be gigabytes
        mask |= (x[row] != 0).any(-1)
        scale = max(scale, float(np.abs(x[row]).max()))
    if not scale:
        raise ValueError(
            "fields: nothing but zeros is left of what the networks see; check the mask, the threshold of the firing "
            "rate, and whether the grid's middle lies in cortex."
        )
    return mask[..., None], scale
