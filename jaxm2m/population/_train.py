"""The training of a population: generations of steps, scores, decisions, checkpoints."""

import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh
from jaxtyping import Array, Key, PyTree

from jaxm2m import _check
from jaxm2m._progress import Advance, progress_bar
from jaxm2m._types import PathLike
from jaxm2m.files import make_setting
from jaxm2m.population._chunking import Plan, plan_chunks
from jaxm2m.population._compiled import compile_programs
from jaxm2m.population._members import Layout, Members
from jaxm2m.population._run import Run, model_settings
from jaxm2m.population._run_files import RunFiles, open_run_files
from jaxm2m.population._schedule import PBT, Schedule, derive_generation_key
from jaxm2m.population._space import Hyper, SearchSpace
from jaxm2m.population._trainable import Dataset, Trainable
from jaxm2m.population._validate import check_initial_params, check_trainable, infer_shapes, make_zero_sums

_CHECK_SECONDS = 0.5  # seconds between two looks at the clock, the progress bar and Ctrl-C


def train(
    trainable: Trainable,
    space: SearchSpace,
    dataset: Dataset,
    *,
    key: Key[Array, ""],
    schedule: Schedule | None = None,
    members: int | None = None,
    batch_size: int | None = None,
    initial_params: PyTree | None = None,
    directory: PathLike | None = None,
    keep: int = 3,
    chunk_size: int | None = None,
    tensorboard: bool = False,
    metadata: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Run:
    """Train a population of one model, all members in one program.

    The members, and what each of them draws, are the same on one device or several, in one process or in all those of
    `jax.distributed`. A run with a `directory` may be killed at any instant; the same call goes on from its last
    generation and ends with the same numbers. A run that has ended is returned at once.

    Parameters
    ----------
    trainable
        The model, with its loss and its optimiser.
    space
        Hyperparameters of the model, tuned and fixed.
    dataset
        Examples and their splits, such as `Dataset.holdout(train, valid)` or `Dataset.folds(data, fold)`.
    key
        All randomness follows from it.
    schedule
        Which members go on, and for how long; None: `PBT()`.
    members
        Number of members; None: 20, or as many as the dataset is split for.
    batch_size
        Number of examples of a step, never more than the smallest split has; None: all of them.
    initial_params
        Weights that members begin with, such as those of another run: a tree as the model's `init` gives it, of arrays
        with the member first. None: new weights.
    directory
        Directory of the run: what it was begun with (`run.json`), its history (`history.jsonl`), its checkpoints. None
        keeps nothing.
    keep
        Number of last checkpoints that are kept, beside the best.
    chunk_size
        Number of members that a device steps at once; None: what fits and was measured to be fastest. A run that is
        continued keeps its own.
    tensorboard
        Whether scores, losses and hyperparameters also go to `directory/tensorboard` (extra `tensorboard`).
    metadata
        JSON values that `run.json` carries as well, for whoever loads the run. They change no result.
    progress
        Whether a progress bar is shown, on standard error; None: on a terminal only.

    Returns
    -------
    Run
        The trained population.

    Raises
    ------
    ValueError
        Arguments do not fit each other, or the run in the directory was begun with others: what differs is named.
    FloatingPointError
        The scores of all members are not finite: the message says since when, and with which hyperparameters.
    OSError
        The directory cannot be written to, or its disk is full; the last checkpoint is kept.
    RuntimeError
        Another process trains in the directory.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> import jax
    >>> import numpy as np
    >>> import optax
    >>> import jaxm2m as jm
    >>> @dataclass(frozen=True)
    ... class Mean:  # one weight, drawn to the mean of the data
    ...     settings: ClassVar[dict] = {}
    ...     def init(self, key):
    ...         return jax.numpy.zeros(())
    ...     def optimizer(self, hyper):
    ...         return optax.sgd(hyper["learning_rate"])
    ...     def loss(self, params, hyper, batch, key, step):
    ...         return ((batch - params) ** 2).mean(), {}
    ...     def score(self, params, hyper, batch, key):
    ...         return (batch - params) ** 2
    >>> run = jm.population.train(
    ...     Mean(),
    ...     jm.population.SearchSpace(learning_rate=jm.population.LogUniform(0.05, 0.5)),
    ...     jm.population.Dataset.holdout(np.full(8, 3.0)),
    ...     key=jax.random.key(0),
    ...     schedule=jm.population.Independent(epochs=5, generations=4),
    ...     members=2,
    ... )
    >>> print(f"{float(run.params):.1f}")
    3.0
    """
    schedule = PBT() if schedule is None else schedule
    members = _check_members(members, dataset, schedule)
    key = _check_key(key)
    batch_size = _check_batch_size(batch_size, dataset)
    if keep < 1:
        raise ValueError(f"keep: {keep}; at least one checkpoint must be kept.")
    if chunk_size is not None:
        _check.integer(chunk_size, "chunk_size")
    first_hyper = _round_hyper(space.draw(derive_generation_key(key, -1), members))
    check_trainable(trainable, space.names, dataset, batch_size)
    if initial_params is not None:
        # from a single device each leaf would go to several by a program of its own
        initial_params = jax.tree.map(np.asarray, initial_params)
        check_initial_params(trainable, space.names, members, initial_params)
    settings = (
        model_settings(trainable)
        | {f"space {name}": make_setting(words) for name, words in space.settings.items()}
        | {f"schedule {name}": make_setting(words) for name, words in schedule.settings.items()}
        | {
            "members": make_setting(str(members)),
            "batch": make_setting(str(batch_size)),
            "key": make_setting("another key", np.asarray(jax.random.key_data(key))),
            "examples": make_setting(_describe_dataset(dataset), *_list_arrays(dataset)),
            "precision": make_setting(str(jnp.result_type(float))),
        }
        | ({} if initial_params is None else {"start": make_setting("other weights", *jax.tree.leaves(initial_params))})
    )
    config = {
        "model": dict(trainable.settings),
        "space": space.settings,
        "schedule": schedule.settings,
        "members": members,
        "batch": batch_size,
        "hyper": space.names,
        "notes": dict(metadata or {}),
    }
    # NaN is no accident here: it stands for a score that is not known yet, and members that diverge are replaced
    with open_run_files(directory, settings, config, keep, tensorboard) as files, jax.debug_nans(False):
        training = _Training(
            trainable,
            space,
            dataset,
            schedule,
            members,
            batch_size,
            key,
            initial_params,
            files,
            chunk_size,
            first_hyper,
        )
        return training.run(progress)


class _Training:
    """The state of `train` between two generations."""

    def __init__(
        self,
        trainable: Trainable,
        space: SearchSpace,
        dataset: Dataset,
        schedule: Schedule,
        members: int,
        batch_size: int,
        key: Array,
        initial_params: PyTree | None,
        files: RunFiles,
        chunk_size: int | None,
        first_hyper: Hyper,
    ):
        self.space, self.schedule, self.key, self.files, self.count = space, schedule, key, files, members
        mesh = Mesh(np.array(jax.devices()), ("member",))

        def make_plan() -> Plan:
            if chunk_size is not None:
                return Plan(chunk_size, {}, {})
            return plan_chunks(trainable, first_hyper, dataset, members, batch_size, mesh)

        self.plan = plan = files.begin(make_plan)
        self.layout = Layout(mesh, members, min(plan["chunk"], -(-members // mesh.size)), batch_size)
        self.programs = compile_programs(trainable, self.layout)
        self.dataset = jax.device_put(dataset, self.layout.everywhere)
        self.epoch = int((np.asarray(dataset.train) >= 0).sum(axis=1).min()) // batch_size
        self.rows = files.read_rows()
        self.generation, stored = files.restore(infer_shapes(trainable, space.names, members))
        if stored is None:
            split = np.resize(np.asarray(dataset.split), members)
            self.members = self.programs.begin(key, split, first_hyper, initial_params)
            self.hyper = first_hyper
        else:
            self.members = self.programs.shard(stored)
            self.hyper = {name: np.asarray(values) for name, values in stored.hyper.items()}
        self.rows = [row for row in self.rows if row["generation"] < self.generation]
        files.cut_rows(self.rows, self.generation * members)
        self.active = np.ones(members, bool) if stored is None else np.asarray(stored.active)
        self.smoothing = np.asarray(schedule.smoothing, jnp.result_type(float))
        self.zero = make_zero_sums(trainable, space.names, self.layout, dataset)

    @property
    def smoothed(self) -> np.ndarray:
        """(generation, member) smoothed scores so far."""
        return np.array([row["smoothed"] for row in self.rows]).reshape(self.generation, self.count)

    def run(self, progress: bool | None) -> Run:
        """Train until the schedule stops the run."""
        steps = self.epoch * self.schedule.epochs
        stop = ""
        if self.generation:
            stop = self.schedule.decide(derive_generation_key(self.key, self.generation - 1), self.smoothed).stop
        progress = progress if jax.process_index() == 0 else False
        with progress_bar(self.schedule.generations * steps, "training", unit="steps", enabled=progress) as advance:
            advance(self.generation * steps)
            while not stop:
                start = time.perf_counter()
                sums = self._advance(self.generation * steps, steps, advance)
                stop = self._end_generation(sums, (self.generation + 1) * steps, time.perf_counter() - start)
                advance(0, _describe_scores(self.rows[-self.count :]))
        self.files.end(stop)
        members: Members = self._fetch(self.members)
        return Run(members, pd.DataFrame(self.rows), stop, self.plan)

    def _advance(self, first_step: int, steps: int, advance: Advance) -> dict[str, np.ndarray]:
        """Step through a generation, in blocks that are short for a person, and return the sums of loss and terms."""
        sums = jax.tree.map(jnp.copy, self.zero)
        done, block = 0, self.epoch if jax.process_count() == 1 else steps
        while done < steps:
            count = min(block, steps - done)
            started = time.perf_counter()
            self.members, sums = self.programs.advance(
                self.key, self.members, self.dataset, np.int32(first_step + done), np.int32(count), sums
            )
            jax.block_until_ready(sums)
            if time.perf_counter() - started < _CHECK_SECONDS:
                block *= 2
            done += count
            advance(count)
        return self._fetch(sums)

    def _end_generation(self, sums: dict[str, np.ndarray], step: int, seconds: float) -> str:
        """Score, exchange and store the members, and return why the run ends, if it does."""
        self.members, now = self.programs.score(self.key, self.members, self.dataset, np.int32(step), self.smoothing)
        state = self._fetch({"smoothed": self.members.smoothed, "broken": self.members.broken})
        scores, smoothed = np.array(now, float), state["smoothed"].astype(float)
        if not np.isfinite(scores[self.active]).any():
            raise FloatingPointError(self._diagnose(state["broken"], step))
        key = derive_generation_key(self.key, self.generation)
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
        self.hyper = _round_hyper(self.space.perturb(key, self.hyper | tuned, replaced))
        self.active = decision.active
        self.members = self.programs.exchange(self.members, decision.parent.astype(np.int32), self.hyper, self.active)
        self.rows += rows
        self.generation += 1
        self.files.store(self.generation, rows, lambda: self._fetch(self.members))
        return decision.stop

    def _fetch(self, tree: PyTree) -> PyTree:
        """Fetch the first `count` of everything to the host."""
        if jax.process_count() > 1:
            tree = self.programs.gather(tree)
        return jax.tree.map(lambda a: np.array(a)[: self.count], tree)

    def _diagnose(self, broken: np.ndarray, step: int) -> str:
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
            for path, leaf in jax.tree_util.tree_leaves_with_path(self.dataset.data)
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


def _check_members(members: int | None, dataset: Dataset, schedule: Schedule) -> int:
    splits = len(dataset.split)
    count = members if members is not None else (splits if splits > 1 else 20)
    _check.integer(count, "members", minimum=2 if schedule.meets else 1)
    if splits > 1 and schedule.meets:
        raise ValueError(
            "schedule: members on different folds cannot be compared with each other; use Independent, or holdout."
        )
    if splits not in (1, count):
        raise ValueError(f"members: {count}, but the examples are split for {splits}; pass the same number.")
    return count


def _check_batch_size(batch_size: int | None, dataset: Dataset) -> int:
    least = int((np.asarray(dataset.train) >= 0).sum(axis=1).min())
    return least if batch_size is None else min(_check.integer(batch_size, "batch_size"), least)


def _check_key(key: Any) -> Array:
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32:
        key = jax.random.wrap_key_data(jnp.asarray(key))
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key: found {type(key).__name__}; pass jax.random.key(0).")
    if key.ndim:
        raise ValueError(f"key: found {key.size} of them; pass one.")
    return key


def _round_hyper(hyper: Hyper) -> Hyper:
    """Round as devices and checkpoints do, so that a run that is continued perturbs the same numbers."""
    return {name: values.astype(jnp.result_type(float)) for name, values in hyper.items()}


def _describe_dataset(dataset: Dataset) -> str:
    shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in jax.tree.leaves(dataset.data))
    return f"set of {shapes} in {len(dataset.train)} split{'s' if len(dataset.train) > 1 else ''}"


def _list_arrays(dataset: Dataset) -> list[Any]:
    return [jax.tree.map(np.asarray, leaf) for leaf in jax.tree.leaves(dataset)]


def _describe_scores(rows: list[dict[str, Any]]) -> str:
    scores = [row["score"] for row in rows if row["active"]]
    sound = [score for score in scores if math.isfinite(score)]
    text = f"best {min(sound):.5g}, median {float(np.median(sound)):.5g}"
    return text + (f", {len(scores) - len(sound)} not finite" if len(sound) < len(scores) else "")
