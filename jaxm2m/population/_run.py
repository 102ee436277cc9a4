"""The result of a training run: the best weights, the population, its history."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Int, PyTree

from jaxm2m._types import PathLike
from jaxm2m.files import Settings, describe_differences, make_setting
from jaxm2m.population._checkpoint import Checkpoints
from jaxm2m.population._directory import read_history, read_record, read_run_config
from jaxm2m.population._members import Members
from jaxm2m.population._trainable import Trainable
from jaxm2m.population._validate import infer_shapes


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained population.

    Attributes
    ----------
    members
        State of each member at the end, NumPy arrays with the member first: weights (`params`), hyperparameters
        (`hyper`), the optimiser's state. `members.best` has weights and hyperparameters at the member's lowest score.
    history
        A row for each generation and member: `generation`, `step`, `member`, `active`, `score`, `smoothed`, `loss` and
        its terms (means over the generation), each hyperparameter during the generation, `parent` (the member that it
        went on from after it) and `seconds`, which the generation took.
    stopped
        Why the run ended.
    plan
        How members were stepped; `plan["chunk"]` of them at once on a device.
    """

    members: Members
    history: pd.DataFrame
    stopped: str
    plan: Mapping[str, Any]

    @property
    def best(self) -> int:
        """Index of the member with the lowest score of all."""
        return int(np.argmin(self.members.best.score))

    @property
    def score(self) -> float:
        """Lowest score of all members and generations, in the unit of the trainable's score."""
        return float(self.members.best.score[self.best])

    @property
    def params(self) -> PyTree:
        """Weights with the lowest score, without a member axis."""
        return jax.tree.map(lambda a: a[self.best], self.members.best.params)

    @property
    def hyper(self) -> dict[str, float]:
        """Hyperparameters of the best weights by name, as they were when their score was lowest."""
        return {name: float(values[self.best]) for name, values in self.members.best.hyper.items()}

    def scores(self) -> Float[np.ndarray, "generation member"]:
        """Tabulate the score of each member after each generation.

        Returns
        -------
        Float[np.ndarray, "generation member"]
            (n_generation, n_member) scores, in the unit of the trainable's score; NaN where one is not finite.
        """
        return self.history.pivot(index="generation", columns="member", values="score").to_numpy()

    def ancestors(self) -> Int[np.ndarray, " generation"]:
        """Trace the best weights back through the members that held their ancestors.

        Returns
        -------
        Int[np.ndarray, " generation"]
            (n_generation,) index of the member in each generation, up to that of the best score.
        """
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


def load(directory: PathLike, trainable: Trainable) -> Run:
    """Read the last complete checkpoint of a run, also while another process trains it.

    Parameters
    ----------
    directory
        Directory of the run.
    trainable
        The model that was trained, with the same settings.

    Returns
    -------
    Run
        The population as of that checkpoint, and its history up to there.

    Raises
    ------
    FileNotFoundError
        The directory holds no run, or none with a checkpoint yet.
    ValueError
        The run trained another model, or in another precision: what differs is named.
    """
    directory = Path(directory).expanduser()
    record = read_record(directory)
    wanted = model_settings(trainable)
    different = describe_differences({name: record["settings"].get(name, {}) for name in wanted}, wanted)
    if different:
        raise ValueError(f"trainable: the run in {directory} trained another {different}; pass what it trained.")
    config = read_run_config(directory)
    then, now = record["settings"].get("precision", {}).get("value"), str(jnp.result_type(float))
    if then != now:
        raise ValueError(
            f"directory: the run in {directory} was computed in {then}, JAX computes in {now} now; start with "
            f"JAX_ENABLE_X64={int(then == 'float64')}."
        )
    try:
        like = infer_shapes(trainable, config["hyper"], config["members"])
    except KeyError as error:
        raise ValueError(
            f"directory: the run.json of {directory} names no hyperparameter {error}; bring it back, or train again."
        ) from None
    number, members = _restore_last(directory, like)
    # a generation's history is written before its checkpoint
    rows = [row for row in read_history(directory) if row["generation"] < number]
    return Run(members, pd.DataFrame(rows), record["stopped"], record["plan"])


def read_config(directory: PathLike) -> dict[str, Any]:
    """Read what a run was begun with.

    Parameters
    ----------
    directory
        Directory of the run.

    Returns
    -------
    dict
        JSON values: "model", "space" and "schedule" (settings by name), "members", "batch" (examples of a step),
        "hyper" (names of the hyperparameters) and "notes" (the `metadata` of `train`).

    Raises
    ------
    FileNotFoundError
        The directory holds no run.
    ValueError
        Its record is damaged, or of another version.
    """
    return read_run_config(Path(directory).expanduser())


def _restore_last(directory: Path, like: Members) -> tuple[int, Members]:
    """Restore the last checkpoint, whose number comes first."""
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
                    return checkpoints.restore_last_whole(like)
                seen = numbers[-1]


def model_settings(trainable: Trainable) -> Settings:
    """Describe a trainable entry by entry, so that a difference is named."""
    entries = {"model": type(trainable).__name__, **trainable.settings}
    return {f"model {name}" if name != "model" else name: make_setting(str(value)) for name, value in _flatten(entries)}


def _flatten(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested mappings by their path: ("config ic_dim", 30)."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from ((f"{name} {inner}", v) for inner, v in _flatten(value))
        else:
            yield name, value
