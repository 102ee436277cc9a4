"""Which member goes on from which: population-based training, halving, and independent members.

A schedule looks at the scores of all generations so far and decides; it keeps nothing itself, so that a run that is
continued decides as one that was never stopped.
"""

from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxm2m import _check


@dataclass(frozen=True)
class Decision:
    """What follows from the scores of a generation.

    Attributes
    ----------
    parent
        (member,) the member whose weights each goes on from; its own number if from its own.
    active
        (member,) whether it goes on at all.
    stop
        Why the run ends; empty if it goes on.
    """

    parent: Int[np.ndarray, " member"]
    active: Bool[np.ndarray, " member"]
    stop: str = ""


@runtime_checkable
class Schedule(Protocol):
    """Decides after each generation which members go on, and from which weights."""

    @property
    def epochs(self) -> int:
        """Number of epochs of a generation."""
        ...

    @property
    def generations(self) -> int:
        """Largest number of generations."""
        ...

    @property
    def smoothing(self) -> float:
        """Weight of the past in a smoothed score, from 0 to below 1."""
        ...

    @property
    def meets(self) -> bool:
        """Whether members are compared with each other, so that all must have the same split of the dataset."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """All that the decisions depend on, as text by name."""
        ...

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """Decide how the members go on.

        Parameters
        ----------
        key
            PRNG key of this generation.
        smoothed
            (n_generation, n_member) smoothed scores of all generations so far, in the unit of the trainable's score.
            NaN is worse than any number.

        Returns
        -------
        Decision
            For each member, whom it goes on from and whether it goes on; and why the run ends, if it does.
        """
        ...


@dataclass(frozen=True)
class PBT:
    """Population-based training: bad members go on from the weights of good ones, with perturbed hyperparameters.

    Parameters
    ----------
    epochs
        Number of epochs of a generation.
    generations
        Largest number of generations. A larger one continues a run that has ended.
    patience, tolerance
        The run ends when the best smoothed score has not improved by the relative `tolerance` in `patience`
        generations.
    smoothing
        Weight of the past in a smoothed score, from 0 to below 1.
    exploit
        "rival": each member draws another at random, and goes on from it if it is better. "truncation": the worst
        fifth go on from random members of the best fifth. A member whose score is not finite always goes on from
        another whose score is.

    References
    ----------
    Jaderberg et al., Population based training of neural networks, arXiv:1711.09846, 2017.
    """

    epochs: int = 30
    generations: int = 100
    patience: int = 10
    tolerance: float | int = 5e-4
    smoothing: float | int = 0.3
    exploit: str = "rival"

    meets = True

    def __post_init__(self):
        _check_schedule(self)
        _check.integer(self.patience, "patience")
        _check.positive(self.tolerance, "tolerance", zero=True)
        _check.option(self.exploit, ("rival", "truncation"), "exploit")

    @property
    def settings(self) -> dict[str, str]:
        """All that the decisions depend on, as text by name."""
        return _describe_schedule(self)

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """Replace worse members by better ones, as `exploit` says.

        Parameters
        ----------
        key
            PRNG key of this generation.
        smoothed
            (n_generation, n_member) smoothed scores of all generations so far, in the unit of the trainable's score.
            NaN is worse than any number.

        Returns
        -------
        Decision
            For each member, whom it goes on from and whether it goes on; and why the run ends, if it does.
        """
        scores = np.where(np.isfinite(smoothed[-1]), smoothed[-1], np.inf)
        members = len(scores)
        everyone = np.arange(members)
        first, second = jax.random.split(key)
        if self.exploit == "rival":
            rival = (everyone + np.asarray(jax.random.randint(first, (members,), 1, members))) % members
            parent = np.where(scores[rival] < scores, rival, everyone)
        else:
            fifth = max(1, members // 5)
            order = np.argsort(scores, kind="stable")
            chosen = order[np.asarray(jax.random.randint(first, (members,), 0, fifth))]
            parent = everyone.copy()
            parent[order[-fifth:]] = chosen[order[-fifth:]]
        sound = np.flatnonzero(np.isfinite(scores))
        lucky = sound[np.asarray(jax.random.randint(second, (members,), 0, len(sound)))] if len(sound) else everyone
        parent = np.where(np.isfinite(scores[parent]), parent, lucky)
        best = np.fmin.reduce(np.where(np.isfinite(smoothed), smoothed, np.inf), axis=1)
        stop = _check_limit(self, smoothed) or (
            f"no improvement by {self.tolerance:g} in {self.patience} generations"
            if _find_stalled(best[:, None], self.patience, self.tolerance)[0]
            else ""
        )
        return Decision(parent, np.ones(members, bool), stop)


@dataclass(frozen=True)
class Halving:
    """Successive halving (after Li et al. 2020): at ever longer intervals, only the best fraction goes on.

    The rungs, after which members stop, are generations 1, `factor`, `factor`^2, ...

    Parameters
    ----------
    epochs
        Number of epochs of a generation.
    generations
        Largest number of generations.
    factor
        One of so many members goes on at each rung.
    """

    epochs: int = 30
    generations: int = 100
    factor: int = 3

    smoothing = 0.0
    meets = True

    def __post_init__(self):
        _check_schedule(self)
        _check.integer(self.factor, "factor", minimum=2)

    @property
    def settings(self) -> dict[str, str]:
        """All that the decisions depend on, as text by name."""
        return _describe_schedule(self)

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """Stop the worse members at a rung.

        Parameters
        ----------
        key
            PRNG key of this generation.
        smoothed
            (n_generation, n_member) smoothed scores of all generations so far, in the unit of the trainable's score.
            NaN is worse than any number.

        Returns
        -------
        Decision
            For each member, whom it goes on from and whether it goes on; and why the run ends, if it does.
        """
        members = smoothed.shape[1]
        active = np.ones(members, bool)
        rung = 1
        while rung <= len(smoothed):
            scores = smoothed[rung - 1]
            scores = np.where(active & np.isfinite(scores), scores, np.inf)
            keep = -(-int(active.sum()) // self.factor)
            best = np.argsort(scores, kind="stable")[:keep]
            active = np.zeros(members, bool)
            active[best] = True
            rung *= self.factor
        return Decision(np.arange(members), active, _check_limit(self, smoothed))


@dataclass(frozen=True)
class Independent:
    """Members that are never compared: random search, several seeds, folds of a cross-validation.

    Parameters
    ----------
    epochs
        Number of epochs of a generation.
    generations
        Largest number of generations. A larger one continues a run that has ended.
    patience, tolerance
        A member stops when its score has not improved by the relative `tolerance` in `patience` generations; None: no
        member stops.
    """

    epochs: int = 30
    generations: int = 100
    patience: int | None = None
    tolerance: float | int = 5e-4

    smoothing = 0.0
    meets = False

    def __post_init__(self):
        _check_schedule(self)
        if self.patience is not None:
            _check.integer(self.patience, "patience")
        _check.positive(self.tolerance, "tolerance", zero=True)

    @property
    def settings(self) -> dict[str, str]:
        """All that the decisions depend on, as text by name."""
        return _describe_schedule(self)

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """Stop members without improvement.

        Parameters
        ----------
        key
            PRNG key of this generation.
        smoothed
            (n_generation, n_member) smoothed scores of all generations so far, in the unit of the trainable's score.
            NaN is worse than any number.

        Returns
        -------
        Decision
            For each member, whom it goes on from and whether it goes on; and why the run ends, if it does.
        """
        members = smoothed.shape[1]
        active = np.ones(members, bool)
        stop = _check_limit(self, smoothed)
        if self.patience is not None:
            active = ~_find_stalled(smoothed, self.patience, self.tolerance)
            if not active.any():
                stop = f"no member improved by {self.tolerance:g} in {self.patience} generations"
        return Decision(np.arange(members), active, stop)


def _check_schedule(schedule: PBT | Halving | Independent) -> None:
    _check.integer(schedule.epochs, "epochs")
    _check.integer(schedule.generations, "generations")
    if not 0 <= schedule.smoothing < 1:
        raise ValueError(f"smoothing: {schedule.smoothing:g}; must be at least 0 and below 1.")


def _describe_schedule(schedule: PBT | Halving | Independent) -> dict[str, str]:
    # a run may be given more generations: what it did so far does not depend on how many were allowed
    entries = {name: str(value) for name, value in asdict(schedule).items() if name != "generations"}
    return {"schedule": type(schedule).__name__, **entries}


def _check_limit(schedule: PBT | Halving | Independent, smoothed: np.ndarray) -> str:
    return f"all {schedule.generations} generations done" if len(smoothed) >= schedule.generations else ""


def _find_stalled(scores: Float[np.ndarray, "generation n"], patience: int, tolerance: float) -> Bool[np.ndarray, " n"]:
    """Find the columns that have not fallen below their earlier best, by the tolerance, for so long."""
    best, since = np.full(scores.shape[1], np.inf), np.zeros(scores.shape[1], int)
    stopped = np.zeros(scores.shape[1], bool)
    for row in scores:
        row = np.where(np.isfinite(row), row, np.inf)
        bar = best - tolerance * np.abs(best, where=np.isfinite(best), out=np.zeros_like(best))
        better = row < bar
        best, since = np.where(better, row, best), np.where(better, 0, since + 1)
        stopped |= since >= patience
    return stopped


def derive_generation_key(key: Key[Array, ""], generation: int) -> Key[Array, ""]:
    """Derive the key of what happens between two generations."""
    return jax.random.fold_in(jax.random.fold_in(key, 4), jnp.asarray(generation, jnp.int32))
