"""What a training run leaves: the best weights, the population, its history."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Int, PyTree

from jaxm2m.files import Settings, differences, setting
from jaxm2m.population._checkpoint import Checkpoints
from jaxm2m.population._directory import config_of, read_history, read_record
from jaxm2m.population._members import Members
from jaxm2m.population._outline import outline
from jaxm2m.population._trainable import Trainable


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A population that has been trained.

    Attributes
    ----------
    members
        Weights, hyperparameters and more of each, at the end; `members.best` when its score was lowest. NumPy arrays.
    history
        A row for each generation and member: `generation`, `step`, `member`, `score`, `smoothed`, `loss` and its terms
        (means over the generation), each hyperparameter during it, and `parent`, the member that it went on from
        after it.
    stopped
        Why it ended.
    plan
        How members were stepped.
    """

    members: Members
    history: pd.DataFrame
    stopped: str
    plan: Mapping[str, Any]

    @property
    def best(self) -> int:
        """The member with the lowest score of all."""
        return int(np.argmin(self.members.best.score))

    @property
    def score(self) -> float:
        """The lowest score."""
        return float(self.members.best.score[self.best])

    @property
    def params(self) -> PyTree:
        """The weights with the lowest score."""
        return jax.tree.map(lambda a: a[self.best], self.members.best.params)

    @property
    def hyper(self) -> dict[str, float]:
        """The hyperparameters that these weights had last."""
        return {name: float(values[self.best]) for name, values in self.members.best.hyper.items()}

    def scores(self) -> Float[np.ndarray, "generation member"]:
        """The score of each member after each generation."""
        return self.history.pivot(index="generation", columns="member", values="score").to_numpy()

    def ancestors(self) -> Int[np.ndarray, " generation"]:
        """The member that held the forebears of the best weights, in each generation up to that of the best score."""
        parents = self.history.pivot(index="generation", columns="member", values="parent").to_numpy()
        steps = self.history.groupby("generation")["step"].first().to_numpy()
        last = int(np.flatnonzero(steps == int(self.members.best.step[self.best]))[0])
        line = [self.best]
        for generation in range(last, 0, -1):
            line.append(int(parents[generation - 1, line[-1]]))
        return np.array(line[::-1])

    def __repr__(self) -> str:
        members, generations = len(self.members.index), int(self.history["generation"].max()) + 1
        return f"Run({members} members, {generations} generations, best score {self.score:.6g}; {self.stopped})"


def load(directory: str | os.PathLike[str], trainable: Trainable) -> Run:
    """The last whole checkpoint of a run; also while another process trains it.

    Parameters
    ----------
    directory
        Of the run.
    trainable
        What it trained.

    Returns
    -------
    Run

    Raises
    ------
    FileNotFoundError
        No run is there, or none with a checkpoint yet.
    ValueError
        It trained something else, or in another precision: what differs is named.
    """
    directory = Path(directory)
    record = read_record(directory)
    wanted = model_settings(trainable)
    different = differences({name: record["settings"].get(name, {}) for name in wanted}, wanted)
    if different:
        raise ValueError(f"trainable: the run in {directory} trained another {different}; pass what it trained.")
    config = config_of(directory)
    then, now = record["settings"].get("precision", {}).get("is"), str(jnp.result_type(float))
    if then != now:
        raise ValueError(
            f"directory: the run in {directory} was computed in {then}, JAX computes in {now} now; start with "
            f"JAX_ENABLE_X64={int(then == 'float64')}."
        )
    try:
        like = outline(trainable, config["hyper"], config["members"])
    except KeyError as error:
        raise ValueError(
            f"directory: the run.json of {directory} names no hyperparameter {error}; bring it back, or train again."
        ) from None
    number, members = _last(directory, like)
    # a generation's history is written before its checkpoint
    rows = [row for row in read_history(directory) if row["generation"] < number]
    return Run(members, pd.DataFrame(rows), record["stopped"], record["plan"])


def read_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What a run was begun with, for people and for loading it: model, space, schedule, members, batch, notes.

    Raises
    ------
    FileNotFoundError, ValueError
        No run is there, or another version's.
    """
    return config_of(Path(directory))


def _last(directory: Path, like: Members) -> tuple[int, Members]:
    """The last checkpoint and its number."""
    missing = FileNotFoundError(f"directory: {directory} has no checkpoint yet; wait for its first generation.")
    if not (directory / "checkpoints").is_dir():
        raise missing
    seen = 0
    while True:
        with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
            numbers = checkpoints.numbers
            if not numbers:
                raise missing
            try:
                return numbers[-1], checkpoints.restore(numbers[-1], like)
            except Exception:
                # who trains it may have replaced this checkpoint by a newer one meanwhile
                if numbers[-1] == seen:
                    raise
                seen = numbers[-1]


def model_settings(trainable: Trainable) -> Settings:
    """What a trainable is, entry by entry, so that a difference is named."""
    entries = {"model": type(trainable).__name__, **trainable.settings}
    return {f"model {name}" if name != "model" else name: setting(str(value)) for name, value in entries.items()}
