"""How many members a device steps at once: as many as its memory holds, and what was measured to be fastest."""

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
from jaxm2m.population._members import Layout
from jaxm2m.population._outline import zero_sums
from jaxm2m.population._programs import programs
from jaxm2m.population._trainable import Examples, Trainable

_SHARE = 0.6  # of the free memory
_NEARLY = 1.1  # times the fastest


@dataclass(frozen=True)
class Plan:
    """How members are stepped.

    Attributes
    ----------
    chunk
        Members that a device steps at once.
    seconds
        Measured seconds of a step of all members, for each chunk that was tried; empty if the user chose.
    bytes
        What a step needs on a device, for each of them.
    """

    chunk: int
    seconds: dict[int, float]
    bytes: dict[int, int]

    @property
    def record(self) -> dict[str, Any]:
        """For `run.json`."""
        seconds = {str(chunk): taken for chunk, taken in self.seconds.items()}  # as JSON gives them back
        needed = {str(chunk): count for chunk, count in self.bytes.items()}
        return {"chunk": self.chunk, "seconds a step": seconds, "bytes": needed}


def planned(
    trainable: Trainable, hyper: dict[str, np.ndarray], examples: Examples, members: int, batch: int, mesh: Mesh
) -> Plan:
    """Measure how members are best stepped on the devices of this process, or recall it.

    What was measured is kept in the user's cache, so that the same call on the same machine computes the same numbers:
    chunks differ by rounding.

    Raises
    ------
    MemoryError
        Several members a device, and they do not fit, stepped one by one.
    """
    devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    local = -(-members // mesh.size)
    if local == 1:  # nothing to choose, and to measure compiles as much as the training does
        return Plan(1, {}, {})
    shapes = [(str(a.dtype), a.shape) for a in jax.tree.leaves(examples)]
    what = (type(trainable).__qualname__, repr(dict(trainable.settings)), repr(shapes), local, batch)
    where = (devices[0].device_kind, len(devices), jax.__version__, str(jnp.result_type(float)))
    folder = cache_folder()
    place = folder / "population-plans.json"
    name = fingerprint(*what, *where)
    with contextlib.suppress(KeyError, ValueError, TypeError):
        chunk = _check.integer(_recalled(place)[name]["chunk"], "chunk")
        return Plan(min(chunk, local), {}, {})
    plan = _measured(trainable, hyper, examples, local, Layout(Mesh(np.array(devices), "member"), 1, 1, batch))
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(place) as temporary:
            temporary.write_text(json.dumps(_recalled(place) | {name: {"chunk": plan.chunk}}))
    return plan


def _recalled(place: Path) -> dict[str, Any]:
    """The plans that are kept; none where the file is missing or damaged."""
    try:
        known = read_json(place)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _measured(
    trainable: Trainable, hyper: dict[str, np.ndarray], examples: Examples, local: int, layout: Layout
) -> Plan:
    device = layout.mesh.devices.flat[0]
    budget = _budget(device, layout.mesh.size)
    chunks = sorted({min(n, local) for n in (1, 4, 16, local)})
    examples = jax.device_put(examples, layout.everywhere)
    seconds: dict[int, float] = {}
    need: dict[int, int] = {}
    for chunk in chunks:
        tried = replace(layout, chunk=chunk, members=chunk * layout.mesh.size)
        step = _Step(trainable, tried, hyper, examples, local)
        if step.bytes > budget:
            if chunk == 1:
                raise MemoryError(
                    f"members: {local} stepped one by one need {step.bytes / 2**30:.2f} GB with {layout.batch} "
                    f"examples a step, {device} has {budget / 2**30:.2f} GB for it; make the batch or the model "
                    "smaller, or train fewer members."
                )
            break
        need[chunk] = step.bytes
        seconds[chunk] = step.seconds() * -(-local // chunk)
    # the smallest that is about as fast as any: it needs less memory, and a noisy machine chooses it again
    chunk = min(n for n in seconds if seconds[n] <= _NEARLY * min(seconds.values()))
    return Plan(chunk, seconds, need)


class _Step:
    """The compiled step of a layout."""

    def __init__(
        self, trainable: Trainable, layout: Layout, hyper: dict[str, np.ndarray], examples: Examples, local: int
    ):
        made = programs(trainable, layout)
        count = layout.members
        first = {name: np.resize(values, count) for name, values in hyper.items()}
        key = jax.random.key(0)
        split = np.resize(np.asarray(examples.split), count)
        self._members = made.begin(key, split, first)
        self._sums = zero_sums(trainable, tuple(hyper), layout, examples)
        self._rest = (examples, jnp.int32(0))
        self._key: Key[Array, ""] = key
        self._run = made.advance.lower(key, self._members, *self._rest, jnp.int32(1), self._sums).compile()  # type: ignore[attr-defined]
        sizes = self._run.memory_analysis()
        # members are overwritten in place: arguments count once
        self.bytes = int(getattr(sizes, "temp_size_in_bytes", 0) + getattr(sizes, "argument_size_in_bytes", 0))
        if layout.chunk < local:
            # the members that wait, and the two copies that a loop over chunks keeps of all
            member = sum(a.nbytes for a in jax.tree.leaves(self._members)) // count
            self.bytes += (3 * local - layout.chunk) * member

    def seconds(self) -> float:
        """Of one step: the best of three runs of as many as take about a tenth of a second."""
        count = 1
        self._timed(count)  # the first run faults its memory in
        while (taken := self._timed(count)) < 0.03 and count < 1 << 12:
            count *= 4
        return min(taken, self._timed(count), self._timed(count)) / count

    def _timed(self, count: int) -> float:
        start = time.perf_counter()
        self._members, self._sums = self._run(self._key, self._members, *self._rest, jnp.int32(count), self._sums)
        jax.block_until_ready(self._members)
        return time.perf_counter() - start


def _budget(device: Any, devices: int) -> float:
    """Bytes that a step may take on a device."""
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return _SHARE * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    _, free = memory()
    return _SHARE * free / devices if free else np.inf
