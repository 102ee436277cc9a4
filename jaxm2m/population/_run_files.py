"""The files of a run, as all processes of a training see them."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxm2m._processes import broadcast, end_all_on_failure
from jaxm2m._types import PathLike
from jaxm2m.files import Settings
from jaxm2m.population._checkpoint import Checkpoints
from jaxm2m.population._chunking import Plan
from jaxm2m.population._directory import RunDirectory, explain_full_disk, open_run_directory
from jaxm2m.population._members import Members
from jaxm2m.population._tensorboard import Board


class RunFiles:
    """The run on the disk, as all processes see it: the first one reads and writes, the others receive what it read."""

    def __init__(self, directory: RunDirectory | None, checkpoints: Checkpoints | None, board: Board | None):
        self._directory, self._checkpoints, self._board = directory, checkpoints, board

    def begin(self, make_plan: Callable[[], Plan]) -> dict[str, Any]:
        """Return how members are stepped: as the run was begun, or by a new plan."""
        plan: dict[str, Any] = {}
        with self._guard():
            if jax.process_index() == 0:
                recorded = self._directory.plan if self._directory else None
                plan = make_plan().record if recorded is None else recorded
            if self._directory:
                self._directory.begin(plan)
        return broadcast(plan)

    def read_rows(self) -> list[dict[str, Any]]:
        """Read the history."""
        return broadcast(self._directory.read_history() if self._directory else [])

    def cut_rows(self, rows: list[dict[str, Any]], expected: int) -> None:
        """Leave on the disk what belongs to the last checkpoint."""
        with self._guard():
            if len(rows) != expected:
                raise ValueError(
                    f"directory: history.jsonl has {len(rows)} rows up to the last checkpoint, there were {expected}; "
                    "bring it back from a copy, or choose another directory."
                )
            if self._directory:
                self._directory.cut_history(rows)

    def restore(self, like: Members) -> tuple[int, Members | None]:
        """Restore the members of the last whole checkpoint, whose generation comes first; 0 and None without any."""
        number, members = 0, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        with self._guard():
            if self._checkpoints and self._checkpoints.numbers:
                number, members = self._checkpoints.restore_last_whole(like)
                if number < self._checkpoints.numbers[-1]:
                    self._checkpoints.drop_after(number)
        number = broadcast(number)
        if not number:
            return 0, None
        if jax.process_count() > 1:
            members = jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(members))
        return number, members

    def store(self, generation: int, rows: list[dict[str, Any]], fetch_members: Callable[[], Members]) -> None:
        """Store a generation; the history first, since a checkpoint without its history could not be continued."""
        if jax.process_count() == 1 and not self._directory:
            return
        stored = fetch_members()
        with self._guard():
            if self._directory and self._checkpoints:
                self._directory.add_history(rows)
                scores = [row["score"] for row in rows if math.isfinite(row["score"])]
                self._checkpoints.save(generation, stored, min(scores))
            if self._board:
                self._board.add(rows)

    def end(self, stopped: str) -> None:
        """Wait for the last checkpoint, and note why the run has ended."""
        with self._guard():
            if self._checkpoints and self._directory:
                self._checkpoints.wait()
                self._directory.end(stopped)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """End all processes when one fails, and explain a full disk."""
        with end_all_on_failure(), contextlib.ExitStack() as stack:
            if self._directory and (checkpoints := self._checkpoints):
                stack.enter_context(explain_full_disk(self._directory.path, lambda: checkpoints.numbers))
            yield


@contextlib.contextmanager
def open_run_files(
    directory: PathLike | None, settings: Settings, config: dict[str, Any], keep: int, tensorboard: bool
) -> Iterator[RunFiles]:
    """Open the files of a run in the first process; those of a run without a directory keep nothing."""
    with contextlib.ExitStack() as stack:
        files = RunFiles(None, None, None)
        if directory is None and tensorboard:
            raise ValueError("tensorboard: there is no directory to write to; pass one.")
        with end_all_on_failure():
            if directory is not None and jax.process_index() == 0:
                run_folder = stack.enter_context(open_run_directory(directory, settings, config))
                checkpoints = stack.enter_context(Checkpoints(run_folder.checkpoints, keep))
                board = stack.enter_context(Board(run_folder.path / "tensorboard")) if tensorboard else None
                files = RunFiles(run_folder, checkpoints, board)
        yield files
