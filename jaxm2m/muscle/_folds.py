"""The folds of a cross-validation, and what is fitted to the training trials of each before any network is."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxm2m import _check
from jaxm2m.muscle._scaling import Scaling
from jaxm2m.muscle._synergies import synergies

VAF = 0.9  # of the synergies, where no number of them is given


@dataclass(frozen=True, eq=False)
class Fold:
    """Trials of one fold.

    Attributes
    ----------
    train
        On which networks are stepped.
    held
        Of the training set, by which training is stopped and candidates are chosen.
    test
        Which nothing of this fold may depend on; empty where all trials are used.
    """

    train: Int[np.ndarray, " n_train"]
    held: Int[np.ndarray, " n_held"]
    test: Int[np.ndarray, " n_test"]

    @property
    def known(self) -> Int[np.ndarray, " n_known"]:
        """All but the test trials, in their order."""
        return np.sort(np.concatenate([self.train, self.held]))


def drawn(count: int, folds: int, held: float, key: Key[Array, ""]) -> list[Fold]:
    """Folds of equal size, by a permutation of the trials; each holds out a share of its training trials.

    Raises
    ------
    ValueError
        Fewer trials than folds.
    """
    _check.integer(folds, "folds", minimum=2)
    if count < 2 * folds:
        raise ValueError(f"folds: {folds} of {count} stimuli; take fewer folds, at least two stimuli in each.")
    number = np.empty(count, int)
    number[np.asarray(jax.random.permutation(jax.random.fold_in(key, 0), count))] = np.arange(count) % folds
    found = []
    for fold in range(folds):
        train, stop = split(np.flatnonzero(number != fold), held, jax.random.fold_in(key, fold + 1))
        found.append(Fold(train, stop, np.flatnonzero(number == fold)))
    return found


def split(rows: np.ndarray, held: float, key: Key[Array, ""]) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and a share that is held out, at least one."""
    if not 0 < held < 1:
        raise ValueError(f"held: {held:g}; the share that is held out must lie between 0 and 1.")
    order = np.asarray(jax.random.permutation(key, len(rows)))
    few = max(1, round(held * len(rows)))
    return np.sort(rows[order[few:]]), np.sort(rows[order[:few]])


@dataclass(frozen=True, eq=False)
class Fitted:
    """What is fitted to known trials.

    Attributes
    ----------
    largest
        (n_muscle,) uV that become 1.
    synergies
        (n_muscle, n_synergy), columns that sum to 1; no columns where none are used.
    """

    largest: Float[np.ndarray, " n_muscle"]
    synergies: Float[np.ndarray, "n_muscle n_synergy"]


def fitted(meps: Float[np.ndarray, "n m"], known: np.ndarray, rank: int | None, wanted: bool) -> Fitted:
    """Scaling and synergies of known trials; rank None: the smallest with a VAF of 0.90."""
    scaling = Scaling.fit(meps[known])
    if not wanted:
        return Fitted(scaling.largest, np.zeros((meps.shape[1], 0)))
    values = scaling.apply(meps[known])
    most = min(values.shape)
    found = synergies(values, 1 if rank is None else rank, starts=3, tolerance=1e-5)
    for r in range(2, most + 1) if rank is None else ():
        if found.vaf >= VAF:
            break
        found = synergies(values, r, starts=3, tolerance=1e-5)
    return Fitted(scaling.largest, found.vectors)


def seen_range(x: Float[np.ndarray, "n x y z c"], known: np.ndarray) -> tuple[np.ndarray, float]:
    """Where known trials have a field (x, y, z, 1), and the largest value there."""
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
