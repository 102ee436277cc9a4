"""Who goes on from whom: population-based training, halving, and members that never meet.

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
        (member,) whose weights each goes on from; its own number if its own.
    active
        (member,) who goes on at all.
    stop
        Why the run ends; empty if it goes on.
    """

    parent: Int[np.ndarray, " member"]
    active: Bool[np.ndarray, " member"]
    stop: str = ""


@runtime_checkable
class Schedule(Protocol):
    """What `train` asks after each generation."""

    @property
    def epochs(self) -> int:
        """Epochs of a generation."""
        ...

    @property
    def generations(self) -> int:
        """Generations at most."""
        ...

    @property
    def smoothing(self) -> float:
        """Weight of the past in a smoothed score."""
        ...

    @property
    def meets(self) -> bool:
        """Whether members are compared with each other, so that all must have the same examples."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """All that its decisions depend on, in words."""
        ...

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """What follows from the smoothed scores of all generations; NaN is worse than any number."""
        ...


@dataclass(frozen=True)
class PBT:
    """Population-based training (Jaderberg et al. 2017): bad members go on from good ones, perturbed.

    Parameters
    ----------
    epochs
        Of a generation.
    generations
        At most. More of them go on with a run that has ended.
    patience, tolerance
        The run ends when `patience` generations brought no relative improvement of the best smoothed score by
        `tolerance`.
    smoothing
        Weight of the past in a smoothed score.
    exploit
        "rival": each member draws another at random and goes on from it if that is better. "truncation": the worst
        fifth go on from random ones of the best fifth. A member whose score is not finite always goes on from another
        one that has one.
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
        """All that its decisions depend on."""
        return _settings(self)

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """Copies by `exploit`; see `Schedule.decide`."""
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
        stop = _limit(self, smoothed) or (
            f"no improvement by {self.tolerance:g} in {self.patience} generations"
            if _stale(best[:, None], self.patience, self.tolerance)[0]
            else ""
        )
        return Decision(parent, np.ones(members, bool), stop)


@dataclass(frozen=True)
class Halving:
    """Successive halving (after Li et al. 2020): at ever longer intervals, only the best part goes on.

    Members stop after generations 1, `factor`, `factor`^2, ...: the best of each `factor` go on.

    Parameters
    ----------
    epochs
        Of a generation.
    generations
        At most.
    factor
        One of how many goes on.
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
        """All that its decisions depend on."""
        return _settings(self)

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """Stops the worse ones at a rung; see `Schedule.decide`."""
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
        return Decision(np.arange(members), active, _limit(self, smoothed))


@dataclass(frozen=True)
class Independent:
    """Members that never meet: random search, several seeds, folds of a cross-validation.

    Parameters
    ----------
    epochs
        Of a generation.
    generations
        At most. More of them go on with a run that has ended.
    patience, tolerance
        A member stops when `patience` generations brought no relative improvement of its score by `tolerance`; None:
        none stops.
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
        """All that its decisions depend on."""
        return _settings(self)

    def decide(self, key: Key[Array, ""], smoothed: Float[np.ndarray, "generation member"]) -> Decision:
        """Stops members without improvement; see `Schedule.decide`."""
        members = smoothed.shape[1]
        active = np.ones(members, bool)
        stop = _limit(self, smoothed)
        if self.patience is not None:
            active = ~_stale(smoothed, self.patience, self.tolerance)
            if not active.any():
                stop = f"no member improved by {self.tolerance:g} in {self.patience} generations"
        return Decision(np.arange(members), active, stop)


def _check_schedule(schedule: PBT | Halving | Independent) -> None:
    _check.integer(schedule.epochs, "epochs")
    _check.integer(schedule.generations, "generations")
    if not 0 <= schedule.smoothing < 1:
        raise ValueError(f"smoothing: {schedule.smoothing:g}; must be at least 0 and below 1.")


def _settings(schedule: PBT | Halving | Independent) -> dict[str, str]:
    # a run may be given more generations: what it did so far does not depend on how many were allowed
    entries = {name: str(value) for name, value in asdict(schedule).items() if name != "generations"}
    return {"schedule": type(schedule).__name__, **entries}


def _limit(schedule: PBT | Halving | Independent, smoothed: np.ndarray) -> str:
    return f"all {schedule.generations} generations done" if len(smoothed) >= schedule.generations else ""


def _stale(scores: Float[np.ndarray, "generation n"], patience: int, tolerance: float) -> Bool[np.ndarray, " n"]:
    """Whether each column has not fallen below its earlier best, by the tolerance, for so long."""
    best, since = np.full(scores.shape[1], np.inf), np.zeros(scores.shape[1], int)
    stopped = np.zeros(scores.shape[1], bool)
    for row in scores:
        row = np.where(np.isfinite(row), row, np.inf)
        bar = best - tolerance * np.abs(best, where=np.isfinite(best), out=np.zeros_like(best))
        better = row < bar
        best, since = np.where(better, row, best), np.where(better, 0, since + 1)
        stopped |= since >= patience
    return stopped


def generation_key(key: Key[Array, ""], generation: int) -> Key[Array, ""]:
    """The key of what happens between two generations."""
    return jax.random.fold_in(jax.random.fold_in(key, 4), jnp.asarray(generation, jnp.int32))
