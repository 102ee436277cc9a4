"""Checkpoints of a run, by Orbax: the last few and the best, written beside the training.

Nothing else in the package knows Orbax.
"""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy


class Checkpoints:
    """Checkpoints of a run in a folder: trees of NumPy arrays by number, read and written by one process alone.

    Parameters
    ----------
    folder
        The folder, made where there is none.
    keep
        Number of last checkpoints that are kept beside the one with the lowest score.
    read_only
        Whether nothing is written, so that another process may write meanwhile.

    Raises
    ------
    ValueError
        The folder cannot be read.
    """

    def __init__(self, folder: Path, keep: int = 1, *, read_only: bool = False):
        self.folder = folder.absolute()
        if not read_only:
            self.folder.mkdir(exist_ok=True)
            # left by a killed writer
            for leftover in self.folder.glob("*orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover, ignore_errors=True)
        policies = [
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(
                get_metric_fn=_get_score, reverse=True, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
        # this process alone: orbax would wait for the others
        this_process = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        with _silence_log(), _explain_damage(self.folder):
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_handlers=ocp.StandardCheckpointHandler(multiprocessing_options=this_process),
                options=ocp.CheckpointManagerOptions(
                    create=False,
                    read_only=read_only,
                    preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                    best_fn=_get_score,  # scores are stored only where this is given
                    enable_async_checkpointing=True,
                    multiprocessing_options=this_process,
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
        """Numbers of the complete checkpoints, ascending."""
        with _silence_log():
            return sorted(self._manager.all_steps(read=True))

    def save(self, number: int, tree: PyTree, score: float) -> None:
        """Begin to write a checkpoint; an error of the previous one is raised here.

        Parameters
        ----------
        number
            Number of the checkpoint, above those before.
        tree
            Tree of NumPy arrays, which must not change until they are written.
        score
            Score of the checkpoint, in the unit of the trainable's score; the one with the lowest is kept.
        """
        with _silence_log():
            self._manager.save(
                number, args=ocp.args.StandardSave(_flatten_by_path(tree)), metrics={"score": float(score)}, force=True
            )

    def wait(self) -> None:
        """Wait until all checkpoints are written."""
        with _silence_log():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore_last_whole(self, like: PyTree) -> tuple[int, PyTree]:
        """Read the newest checkpoint that is not damaged.

        Parameters
        ----------
        like
            As in `restore`.

        Returns
        -------
        number : int
            Of the checkpoint.
        tree : PyTree
            Tree of NumPy arrays, structured as `like`.

        Raises
        ------
        ValueError
            There is none that can be read, or the newest whole one holds other arrays.

        Warns
        -----
        UserWarning
            A newer one is damaged, as a full disk leaves it; what is then read instead is said.
        """
        damage: DamagedCheckpoint | None = None
        for number in reversed(self.numbers):
            try:
                tree = self.restore(number, like)
            except DamagedCheckpoint as error:
                damage = damage or error
                continue
            if damage is not None:
                warnings.warn(f"{damage} Checkpoint {number}, the last whole one, was read instead.", stacklevel=2)
            return number, tree
        raise damage or ValueError(f"directory: {self.folder} holds no checkpoint; choose another directory.")

    def drop_after(self, number: int) -> None:
        """Set aside checkpoints newer than `number`, which are damaged, so that they can be written again.

        Parameters
        ----------
        number
            Of the last whole checkpoint.
        """
        for later in (later for later in self.numbers if later > number):
            place, count = self.folder / str(later), 0
            while (aside := self.folder.parent / f"damaged-checkpoint-{later}{f'-{count}' if count else ''}").exists():
                count += 1
            place.rename(aside)
        with _silence_log():
            self._manager.reload()

    def restore(self, number: int, like: PyTree) -> PyTree:
        """Read a checkpoint.

        Parameters
        ----------
        number
            Number of the checkpoint.
        like
            Tree of the same structure: arrays, or their shapes and types.

        Returns
        -------
        PyTree
            Tree of NumPy arrays, structured as `like`.

        Raises
        ------
        ValueError
            The checkpoint is damaged, or holds other arrays: another version of the package, or of the model, wrote it.
        """
        place = self.folder / str(number)
        with _silence_log(), _explain_damage(place):
            metadata: Any = self._manager.item_metadata(number)
            shapes = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in metadata.tree.items()}
        expected = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in _flatten_by_path(like).items()}
        for name in sorted({*shapes, *expected}):
            if shapes.get(name) != expected.get(name):
                raise ValueError(
                    f"directory: checkpoint {place} holds {_describe_entry(shapes.get(name))} as {name}, this version "
                    f"needs {_describe_entry(expected.get(name))}; go on with the version that began the run, or "
                    "choose another directory."
                )
        targets = {name: np.zeros(shape, dtype) for name, (shape, dtype) in expected.items()}
        with _silence_log(), _explain_damage(place):
            restored = self._manager.restore(number, args=ocp.args.StandardRestore(targets))
            leaves = [np.asarray(restored[name]) for name in targets]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def close(self) -> None:
        """Wait until all checkpoints are written, and release the folder."""
        try:
            self.wait()
        finally:
            with _silence_log():
                self._manager.close()


def _get_score(metrics: Any) -> float:
    return metrics["score"]


def _flatten_by_path(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by their paths, so that Orbax need not know the types of the tree's nodes."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _describe_entry(entry: tuple | None) -> str:
    return "nothing" if entry is None else f"{entry[1].name}{list(entry[0])}"


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read."""


@contextlib.contextmanager
def _explain_damage(place: Path) -> Iterator[None]:
    """Turn whatever Orbax raises at a checkpoint into one line that names it."""
    try:
        yield
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DamagedCheckpoint(
            f"directory: {place} cannot be read ({line}); bring it back, or choose another directory."
        ) from error


@contextlib.contextmanager
def _silence_log() -> Iterator[None]:
    """Silence absl's log, to which Orbax reports each step of its work."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
