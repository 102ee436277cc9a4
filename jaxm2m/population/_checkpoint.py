"""Checkpoints of a run, by Orbax: the last few and the best, written beside the training.

Nothing else in the package knows Orbax.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy


class Checkpoints:
    """Trees of NumPy arrays by number, in a folder; one process alone reads and writes them."""

    def __init__(self, folder: Path, keep: int = 1, *, read_only: bool = False):
        self.folder = folder.absolute()
        if not read_only:
            self.folder.mkdir(exist_ok=True)
            # what a killed writer left
            for leftover in self.folder.glob("*orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover, ignore_errors=True)
        policies = [
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(get_metric_fn=_score, reverse=True, n=1, keep_checkpoints_without_metrics=False),
        ]
        # this process alone: orbax would wait for the others
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        with _quiet(), _damage_told(self.folder):
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_handlers=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                options=ocp.CheckpointManagerOptions(
                    create=False,
                    read_only=read_only,
                    preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                    best_fn=_score,  # scores are stored only where this is given
                    enable_async_checkpointing=True,
                    multiprocessing_options=alone,
                ),
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # a second error would hide the first one
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()

    @property
    def numbers(self) -> list[int]:
        """The checkpoints that are whole."""
        with _quiet():
            return sorted(self._manager.all_steps(read=True))

    def save(self, number: int, tree: PyTree, score: float) -> None:
        """Begin to write; what went wrong with the one before is raised here.

        Parameters
        ----------
        number
            Of the checkpoint.
        tree
            NumPy arrays, which nobody changes.
        score
            The lower, the better: the best checkpoint is kept.
        """
        with _quiet():
            self._manager.save(
                number, args=ocp.args.StandardSave(_named(tree)), metrics={"score": float(score)}, force=True
            )

    def wait(self) -> None:
        """Until all is written."""
        with _quiet():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, number: int, like: PyTree) -> PyTree:
        """Checkpoint `number` as a tree `like` this one (arrays, or their shapes and types).

        Raises
        ------
        ValueError
            It holds something else: another version of the package, or of the model, wrote it.
        """
        place = self.folder / str(number)
        with _quiet(), _damage_told(place):
            found: Any = self._manager.item_metadata(number)
            shapes = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in found.tree.items()}
        expected = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in _named(like).items()}
        for name in sorted({*shapes, *expected}):
            if shapes.get(name) != expected.get(name):
                raise ValueError(
                    f"directory: checkpoint {place} holds {_shown(shapes.get(name))} as {name}, this version needs "
                    f"{_shown(expected.get(name))}; go on with the version that began the run, or choose another "
                    "directory."
                )
        wanted = {name: np.zeros(shape, dtype) for name, (shape, dtype) in expected.items()}
        with _quiet(), _damage_told(place):
            restored = self._manager.restore(number, args=ocp.args.StandardRestore(wanted))
            leaves = [np.asarray(restored[name]) for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def close(self) -> None:
        """Wait, and let go."""
        try:
            self.wait()
        finally:
            with _quiet():
                self._manager.close()


def _score(metrics: Any) -> float:
    return metrics["score"]


def _named(tree: PyTree) -> dict[str, Any]:
    """The leaves by their paths; Orbax then need not know what they hang on."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _shown(entry: tuple | None) -> str:
    return "nothing" if entry is None else f"{entry[1].name}{list(entry[0])}"


@contextlib.contextmanager
def _damage_told(place: Path) -> Iterator[None]:
    """Whatever Orbax meets in a checkpoint becomes one line that names it."""
    try:
        yield
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"directory: {place} cannot be read ({line}); bring it back, or choose another directory."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax tells each step of its work to absl's log."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
