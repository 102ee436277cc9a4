"""How many members a device steps at once: of the numbers that its memory holds, the one measured to be fastest."""

import contextlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m._memory import memory
from jaxm2m.files import atomic, cache_folder, fingerprint, read_json
from jaxm2m.population._compiled import compile_programs
from jaxm2m.population._members import Layout
from jaxm2m.population._trainable import Dataset, Trainable
from jaxm2m.population._validate import make_zero_sums

_MEMORY_SHARE = 0.6  # of the free memory
_NEARLY = 1.1  # times the fastest


@dataclass(frozen=True)
class Plan:
    """How the members of a population are stepped.

    Attributes
    ----------
    chunk_size
        Members that a device steps at once.
    seconds
        Measured seconds of a step of all members, for each chunk size that was tried; empty if the user chose.
    bytes
        Memory that a step needs on a device, for each of them.
    """

    chunk_size: int
    seconds: dict[int, float]
    bytes: dict[int, int]

    @property
    def record(self) -> dict[str, Any]:
        """The plan as `run.json` holds it."""
        seconds = {str(chunk): elapsed for chunk, elapsed in self.seconds.items()}  # as JSON gives them back
        needed = {str(chunk): count for chunk, count in self.bytes.items()}
        return {"chunk": self.chunk_size, "seconds a step": seconds, "bytes": needed}


def plan_chunks(
    trainable: Trainable, hyper: dict[str, np.ndarray], dataset: Dataset, members: int, batch_size: int, mesh: Mesh
) -> Plan:
    """Measure how members are best stepped on the devices of this process, or recall it.

    What was measured is kept in the user's cache, so that the same call on the same machine computes the same numbers:
    results of different chunk sizes differ by rounding.

    Raises
    ------
    MemoryError
        Several members share a device, and do not fit even if they are stepped one by one.
    """
    devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    local = -(-members // mesh.size)
    if local == 1:  # nothing to choose, and to measure compiles as much as the training does
        return Plan(1, {}, {})
    shapes = [(str(a.dtype), a.shape) for a in jax.tree.leaves(dataset)]
    what = (type(trainable).__qualname__, repr(dict(trainable.settings)), repr(shapes), local, batch_size)
    where = (devices[0].device_kind, len(devices), jax.__version__, str(jnp.result_type(float)))
    folder = cache_folder()
    place = folder / "population-plans.json"
    name = fingerprint(*what, *where)
    with contextlib.suppress(KeyError, ValueError, TypeError):
        chunk_size = _check.integer(_read_plans(place)[name]["chunk"], "chunk")
        return Plan(min(chunk_size, local), {}, {})
    plan = _measure(trainable, hyper, dataset, local, Layout(Mesh(np.array(devices), "member"), 1, 1, batch_size))
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(place) as temporary:
            temporary.write_text(json.dumps(_read_plans(place) | {name: {"chunk": plan.chunk_size}}))
    return plan


def _read_plans(place: Path) -> dict[str, Any]:
    """Read the plans in the cache; none where the file is missing or damaged."""
    try:
        known = read_json(place)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _measure(trainable: Trainable, hyper: dict[str, np.ndarray], dataset: Dataset, local: int, layout: Layout) -> Plan:
    device = layout.mesh.devices.flat[0]
    budget = _compute_budget(device, layout.mesh.size)
    chunk_sizes = sorted({min(n, local) for n in (1, 4, 16, local)})
    dataset = jax.device_put(dataset, layout.everywhere)
    seconds: dict[int, float] = {}
    need: dict[int, int] = {}
    for chunk_size in chunk_sizes:
        trial = replace(layout, chunk_size=chunk_size, members=chunk_size * layout.mesh.size)
        step = _Step(trainable, trial, hyper, dataset, local)
        if step.bytes > budget:
            if chunk_size == 1:
                raise MemoryError(
                    f"members: {local} stepped one by one need {step.bytes / 2**30:.2f} GB with {layout.batch_size} "
                    f"examples a step, {device} has {budget / 2**30:.2f} GB for it; make the batch or the model "
                    "smaller, or train fewer members."
                )
            break
        need[chunk_size] = step.bytes
        seconds[chunk_size] = step.measure_seconds() * -(-local // chunk_size)
    # the smallest that is about as fast as any: it needs less memory, and a noisy machine chooses it again
    chunk_size = min(n for n in seconds if seconds[n] <= _NEARLY * min(seconds.values()))
    return Plan(chunk_size, seconds, need)


class _Step:
    """The compiled step of a layout."""

    def __init__(
        self, trainable: Trainable, layout: Layout, hyper: dict[str, np.ndarray], dataset: Dataset, local: int
    ):
        programs = compile_programs(trainable, layout)
        count = layout.members
        first = {name: np.resize(values, count) for name, values in hyper.items()}
        key = jax.random.key(0)
        split = np.resize(np.asarray(dataset.split), count)
        self._members = programs.begin(key, split, first)
        self._sums = make_zero_sums(trainable, tuple(hyper), layout, dataset)
        self._rest = (dataset, jnp.int32(0))
        self._key: Key[Array, ""] = key
        self._run = programs.advance.lower(key, self._members, *self._rest, jnp.int32(1), self._sums).compile()  # type: ignore[attr-defined]
        sizes = self._run.memory_analysis()
        # members are overwritten in place: arguments count once
        self.bytes = int(getattr(sizes, "temp_size_in_bytes", 0) + getattr(sizes, "argument_size_in_bytes", 0))
        if layout.chunk_size < local:
            # the members that wait, and the two copies that a loop over chunks keeps of all
            member = sum(a.nbytes for a in jax.tree.leaves(self._members)) // count
            self.bytes += (3 * local - layout.chunk_size) * member

    def measure_seconds(self) -> float:
        """Measure the seconds of one step: the best of three runs of as many as take about a tenth of a second."""
        count = 1
        self._time(count)  # the first run faults its memory in
        while (elapsed := self._time(count)) < 0.03 and count < 1 << 12:
            count *= 4
        return min(elapsed, self._time(count), self._time(count)) / count

    def _time(self, count: int) -> float:
        start = time.perf_counter()
        self._members, self._sums = self._run(self._key, self._members, *self._rest, jnp.int32(count), self._sums)
        jax.block_until_ready(self._members)
        return time.perf_counter() - start


def _compute_budget(device: Any, devices: int) -> float:
    """Compute how many bytes a step may take on a device."""
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return _MEMORY_SHARE * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    _, free = memory()
    return _MEMORY_SHARE * free / devices if free else np.inf
