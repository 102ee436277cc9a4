"""The training of a population: generations of steps, scores, decisions, checkpoints."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Key, PyTree

from jaxm2m import _check
from jaxm2m._progress import Advance, progress
from jaxm2m.files import Settings, setting
from jaxm2m.population._board import Board
from jaxm2m.population._checkpoint import Checkpoints
from jaxm2m.population._directory import RunDirectory, full_disk_told, run_directory
from jaxm2m.population._members import Layout, Members
from jaxm2m.population._outline import check, check_start, outline, zero_sums
from jaxm2m.population._plan import Plan, planned
from jaxm2m.population._programs import programs
from jaxm2m.population._run import Run, model_settings
from jaxm2m.population._schedule import PBT, Schedule, generation_key
from jaxm2m.population._space import Hyper, Space
from jaxm2m.population._trainable import Examples, Trainable

_BLOCK = 0.5  # seconds between two looks at the clock, the progress bar and Ctrl-C


def train(
    trainable: Trainable,
    space: Space,
    examples: Examples,
    *,
    key: Key[Array, ""],
    schedule: Schedule | None = None,
    members: int | None = None,
    batch: int | None = None,
    start: PyTree | None = None,
    directory: str | os.PathLike[str] | None = None,
    keep: int = 3,
    chunk: int | None = None,
    tensorboard: bool = False,
    notes: Mapping[str, Any] | None = None,
    show: bool | None = None,
) -> Run:
    """Train a population of one model, all members in one program.

    On one device or several, in one process or in all those of `jax.distributed`: the members, and what each of them
    draws, are the same. A run with a `directory` may be killed at any instant; the same call goes on from its last
    generation and ends with the same numbers. One that has ended is returned at once.

    Parameters
    ----------
    trainable
        The model.
    space
        Its hyperparameters.
    examples
        Its data: `Examples.holdout(train, valid)` or `Examples.folds(data, fold)`.
    key
        All randomness follows from it.
    schedule
        `PBT()` by default.
    members
        How many; by default 20, or those of `Examples.folds`.
    batch
        Examples of a step; all by default, and never more than there are.
    start
        Weights that members begin with, such as those of another run: as the model's `init` gives them, arrays with the
        member first. None: new ones.
    directory
        Of the run: what it was begun with (`run.json`), its history (`history.jsonl`), checkpoints. None keeps nothing.
    keep
        So many last checkpoints are kept, and the best.
    chunk
        Members that a device steps at once; by default what fits and was measured to be fastest. A run that goes on
        keeps its own.
    tensorboard
        Whether scores, losses and hyperparameters also go to `directory/tensorboard` (extra `tensorboard`).
    notes
        What `run.json` is to carry besides, for whoever loads the run: JSON. It decides nothing.
    show
        Progress on standard error; None: on a terminal only.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        Arguments do not fit each other, or the directory's run was begun with others: what differs is named.
    FloatingPointError
        The loss or the score of all members is not finite: when, and with what, is told.
    OSError
        The directory cannot be written to, or its disk is full; the last checkpoint is kept.
    RuntimeError
        Another process trains in the directory.
    """
    schedule = PBT() if schedule is None else schedule
    members = _members(members, examples, schedule)
    key = _key(key)
    batch = _batch(batch, examples)
    if keep < 1:
        raise ValueError(f"keep: {keep}; at least one checkpoint must be kept.")
    if chunk is not None:
        _check.integer(chunk, "chunk")
    first = _rounded(space.draw(generation_key(key, -1), members))
    check(trainable, space.names, examples, batch)
    if start is not None:
        start = jax.tree.map(np.asarray, start)  # from a single device it would go to several by a program a leaf
        check_start(trainable, space.names, members, start)
    settings = (
        model_settings(trainable)
        | {f"space {name}": setting(words) for name, words in space.settings.items()}
        | {f"schedule {name}": setting(words) for name, words in schedule.settings.items()}
        | {
            "members": setting(str(members)),
            "batch": setting(str(batch)),
            "key": setting("another key", np.asarray(jax.random.key_data(key))),
            "examples": setting(_described(examples), *_content(examples)),
            "precision": setting(str(jnp.result_type(float))),
        }
        | ({} if start is None else {"start": setting("other weights", *jax.tree.leaves(start))})
    )
    config = {
        "model": dict(trainable.settings),
        "space": space.settings,
        "schedule": schedule.settings,
        "members": members,
        "batch": batch,
        "hyper": space.names,
        "notes": dict(notes or {}),
    }
    with _opened(directory, settings, config, keep, tensorboard) as files:
        training = _Training(trainable, space, examples, schedule, members, batch, key, start, files, chunk, first)
        return training.run(show)


class _Training:
    """The state of `train` between two generations."""

    def __init__(
        self,
        trainable: Trainable,
        space: Space,
        examples: Examples,
        schedule: Schedule,
        members: int,
        batch: int,
        key: Array,
        start: PyTree | None,
        files: "_Files",
        chunk: int | None,
        first: Hyper,
    ):
        self.space, self.schedule, self.key, self.files, self.count = space, schedule, key, files, members
        mesh = Mesh(np.array(jax.devices()), ("member",))

        def new_plan() -> Plan:
            if chunk is not None:
                return Plan(chunk, {}, {})
            return planned(trainable, first, examples, members, batch, mesh)

        self.plan = recorded = files.begin(new_plan)
        self.layout = Layout(mesh, members, min(recorded["chunk"], -(-members // mesh.size)), batch)
        self.programs = programs(trainable, self.layout)
        self.examples = jax.device_put(examples, self.layout.everywhere)
        self.epoch = int((np.asarray(examples.train) >= 0).sum(axis=1).min()) // batch
        self.rows = files.rows()
        self.generation, stored = files.restore(outline(trainable, space.names, members))
        if stored is None:
            split = np.resize(np.asarray(examples.split), members)
            self.members = self.programs.begin(key, split, first, start)
            self.hyper = first
        else:
            self.members = self.programs.spread(stored)
            self.hyper = {name: np.asarray(values) for name, values in stored.hyper.items()}
        self.rows = [row for row in self.rows if row["generation"] < self.generation]
        files.cut(self.rows, self.generation * members)
        self.active = np.ones(members, bool) if stored is None else np.asarray(stored.active)
        self.smoothing = np.asarray(schedule.smoothing, jnp.result_type(float))
        self.zero = zero_sums(trainable, space.names, self.layout, examples)

    @property
    def smoothed(self) -> np.ndarray:
        """(generation, member) so far."""
        return np.array([row["smoothed"] for row in self.rows]).reshape(self.generation, self.count)

    def run(self, show: bool | None) -> Run:
        """Until the schedule says stop."""
        steps = self.epoch * self.schedule.epochs
        stop = ""
        if self.generation:
            stop = self.schedule.decide(generation_key(self.key, self.generation - 1), self.smoothed).stop
        show = show if jax.process_index() == 0 else False
        with progress(self.schedule.generations * steps, "training", unit="steps", show=show) as advance:
            advance(self.generation * steps)
            while not stop:
                start = time.perf_counter()
                sums = self._advance(self.generation * steps, steps, advance)
                stop = self._decide(sums, (self.generation + 1) * steps, time.perf_counter() - start)
                advance(0, _note(self.rows[-self.count :]))
        self.files.end(stop)
        members: Members = self._fetched(self.members)
        return Run(members, pd.DataFrame(self.rows), stop, self.plan)

    def _advance(self, start: int, steps: int, advance: Advance) -> dict[str, np.ndarray]:
        """A generation's steps, in blocks that are short for a person; the sums of what they found."""
        sums = jax.tree.map(jnp.copy, self.zero)
        done, block = 0, self.epoch if jax.process_count() == 1 else steps
        while done < steps:
            count = min(block, steps - done)
            begun = time.perf_counter()
            self.members, sums = self.programs.advance(
                self.key, self.members, self.examples, np.int32(start + done), np.int32(count), sums
            )
            jax.block_until_ready(sums)
            if time.perf_counter() - begun < _BLOCK:
                block *= 2
            done += count
            advance(count)
        return self._fetched(sums)

    def _decide(self, sums: dict[str, np.ndarray], step: int, seconds: float) -> str:
        """Score, exchange and store the members; why the run ends, if it does."""
        self.members, now = self.programs.score(self.key, self.members, self.examples, np.int32(step), self.smoothing)
        seen = self._fetched({"smoothed": self.members.smoothed, "broken": self.members.broken})
        scores, smoothed = np.array(now, float), seen["smoothed"].astype(float)
        if not np.isfinite(scores[self.active]).any():
            raise FloatingPointError(self._diagnosis(seen["broken"], step))
        key = generation_key(self.key, self.generation)
        decision = self.schedule.decide(key, np.vstack([self.smoothed, smoothed]))
        replaced = decision.parent != np.arange(self.count)
        rows = []
        for i in range(self.count):
            done = float(sums["steps"][i]) or math.nan  # a member that has stopped has no loss
            terms = {name: float(total[i]) / done for name, total in sums.items() if name != "steps"}
            row: dict[str, Any] = {"generation": self.generation, "step": step, "member": i}
            row |= {"active": bool(self.active[i]), "score": float(scores[i]), "smoothed": float(smoothed[i])} | terms
            row |= {name: float(values[i]) for name, values in self.hyper.items()}
            rows.append(row | {"parent": int(decision.parent[i]), "seconds": seconds})
        tuned = {name: self.hyper[name][decision.parent] for name in self.space.tuned}
        self.hyper = _rounded(self.space.perturb(key, self.hyper | tuned, replaced))
        self.active = decision.active
        self.members = self.programs.exchange(self.members, decision.parent.astype(np.int32), self.hyper, self.active)
        self.rows += rows
        self.generation += 1
        self.files.add(self.generation, rows, lambda: self._fetched(self.members))
        return decision.stop

    def _fetched(self, tree: PyTree) -> PyTree:
        """The first `count` of everything, on the host."""
        if jax.process_count() > 1:
            tree = self.programs.gather(tree)
        return jax.tree.map(lambda a: np.array(a)[: self.count], tree)

    def _diagnosis(self, broken: np.ndarray, step: int) -> str:
        when = (
            f"the first loss that was not finite came at step {broken[broken >= 0].min()}"
            if (broken >= 0).any()
            else "every loss was finite"
        )
        ranges = [
            f"{name} {values.min():.3g}" + (f" to {values.max():.3g}" if np.ptp(values) else "")
            for name, values in self.hyper.items()
        ]
        data = [
            jax.tree_util.keystr(path) or "the data"
            for path, leaf in jax.tree_util.tree_leaves_with_path(self.examples.data)
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(jnp.isfinite(leaf).all())
        ]
        cause = (
            f"the examples hold NaN or infinity ({', '.join(data)})"
            if data
            else "the examples are finite: look at the model's first loss and score, and at the learning rate"
        )
        return (
            f"score: not finite in any of the {int(self.active.sum())} active members after generation "
            f"{self.generation} (step {step}); {when}; {cause}. Hyperparameters: {', '.join(ranges) or 'none'}."
        )


class _Files:
    """The run on the disk, as all processes see it: the first one reads and writes, the others are told."""

    def __init__(self, directory: RunDirectory | None, checkpoints: Checkpoints | None, board: Board | None):
        self._directory, self._checkpoints, self._board = directory, checkpoints, board

    def begin(self, new_plan: Callable[[], Plan]) -> dict[str, Any]:
        """How members are stepped: as the run was begun."""
        plan: dict[str, Any] = {}
        with self._together():
            if jax.process_index() == 0:
                recorded = self._directory.plan if self._directory else None
                plan = new_plan().record if recorded is None else recorded
            if self._directory:
                self._directory.begin(plan)
        return _agreed(plan)

    def rows(self) -> list[dict[str, Any]]:
        return _agreed(self._directory.read_history() if self._directory else [])

    def cut(self, rows: list[dict[str, Any]], expected: int) -> None:
        """Leave on the disk what belongs to the last checkpoint."""
        with self._together():
            if len(rows) != expected:
                raise ValueError(
                    f"directory: history.jsonl has {len(rows)} rows up to the last checkpoint, there were {expected}; "
                    "bring it back from a copy, or choose another directory."
                )
            if self._directory:
                self._directory.cut_history(rows)

    def restore(self, like: Members) -> tuple[int, Members | None]:
        """The last checkpoint's generation and members."""
        numbers = self._checkpoints.numbers if self._checkpoints else []
        number = _agreed(numbers[-1] if numbers else 0)
        if not number:
            return 0, None
        members = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        with self._together():
            if self._checkpoints:
                members = self._checkpoints.restore(number, like)
        if jax.process_count() > 1:
            members = jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(members))
        return number, members

    def add(self, generation: int, rows: list[dict[str, Any]], members: Any) -> None:
        """Store a generation; the history first, since a checkpoint without its history could not be continued."""
        if jax.process_count() == 1 and not self._directory:
            return
        found = members()
        with self._together():
            if self._directory and self._checkpoints:
                self._directory.add_history(rows)
                scores = [row["score"] for row in rows if math.isfinite(row["score"])]
                self._checkpoints.save(generation, found, min(scores))
            if self._board:
                self._board.add(rows)

    def end(self, stopped: str) -> None:
        with self._together():
            if self._checkpoints and self._directory:
                self._checkpoints.wait()
                self._directory.end(stopped)

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        with _together(), contextlib.ExitStack() as stack:
            if self._directory and (checkpoints := self._checkpoints):
                stack.enter_context(full_disk_told(self._directory.path, lambda: checkpoints.numbers))
            yield


@contextlib.contextmanager
def _opened(
    directory: str | os.PathLike[str] | None, settings: Settings, config: dict[str, Any], keep: int, tensorboard: bool
) -> Iterator[_Files]:
    with contextlib.ExitStack() as stack:
        files = _Files(None, None, None)
        if directory is None and tensorboard:
            raise ValueError("tensorboard: there is no directory to write to; pass one.")
        with _together():
            if directory is not None and jax.process_index() == 0:
                held = stack.enter_context(run_directory(directory, settings, config))
                checkpoints = stack.enter_context(Checkpoints(held.checkpoints, keep))
                board = stack.enter_context(Board(held.path / "tensorboard")) if tensorboard else None
                files = _Files(held, checkpoints, board)
        yield files


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """What fails in the first process ends the others as well, which would wait for it otherwise."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    told = _agreed(str(failure) if failure else "")
    if failure:
        raise failure
    if told:
        raise RuntimeError(f"the first process stopped: {told}")


def _agreed(value: Any) -> Any:
    """What the first process has, in all of them: JSON."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = np.resize(text, length) if len(text) else np.zeros(length, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(text), np.uint8).tobytes())


def _members(members: int | None, examples: Examples, schedule: Schedule) -> int:
    splits = len(examples.split)
    count = members if members is not None else (splits if splits > 1 else 20)
    _check.integer(count, "members", minimum=2 if schedule.meets else 1)
    if splits > 1 and schedule.meets:
        raise ValueError(
            "schedule: members on different folds cannot be compared with each other; use Independent, or holdout."
        )
    if splits not in (1, count):
        raise ValueError(f"members: {count}, but the examples are split for {splits}; pass the same number.")
    return count


def _batch(batch: int | None, examples: Examples) -> int:
    least = int((np.asarray(examples.train) >= 0).sum(axis=1).min())
    return least if batch is None else min(_check.integer(batch, "batch"), least)


def _key(key: Any) -> Array:
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32:
        key = jax.random.wrap_key_data(jnp.asarray(key))
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key: found {type(key).__name__}; pass jax.random.key(0).")
    if key.ndim:
        raise ValueError(f"key: found {key.size} of them; pass one.")
    return key


def _rounded(hyper: Hyper) -> Hyper:
    """As devices and checkpoints hold them, so that a run that is continued perturbs the same numbers."""
    return {name: values.astype(jnp.result_type(float)) for name, values in hyper.items()}


def _described(examples: Examples) -> str:
    shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in jax.tree.leaves(examples.data))
    return f"set of {shapes} in {len(examples.train)} split{'s' if len(examples.train) > 1 else ''}"


def _content(examples: Examples) -> list[Any]:
    return [jax.tree.map(np.asarray, leaf) for leaf in jax.tree.leaves(examples)]


def _note(rows: list[dict[str, Any]]) -> str:
    scores = [row["score"] for row in rows if row["active"]]
    sound = [score for score in scores if math.isfinite(score)]
    text = f"best {min(sound):.5g}, median {float(np.median(sound)):.5g}"
    return text + (f", {len(scores) - len(sound)} not finite" if len(sound) < len(scores) else "")
