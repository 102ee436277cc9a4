"""Many poses to one HDF5 file, in a way that survives being killed.

Batches of poses are computed here and kept as `files.parts`. Their chunks are compressed once, when a part is
written, and copied as they are into the one file at the end. Numbers depend on the batch's own poses only, and batches
are the same in a run that goes on, so it ends with the same bits.
"""

import json
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from jaxm2m import _check, fem, files
from jaxm2m import coil as coils
from jaxm2m._progress import progress
from jaxm2m.coil import Coil
from jaxm2m.efield._convergence import ConvergenceError
from jaxm2m.efield._field_map import FieldMap, evaluate
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._settings import simulator_settings
from jaxm2m.efield._simulator import Simulator
from jaxm2m.head import Surface

_SMALL = 4 << 20  # bytes: poses of little data share a file of about this size
_MOST = 16  # poses that share a file for that reason


def stream(
    sim: Simulator,
    coil: Coil,
    poses: Any,
    path: str | os.PathLike[str],
    *,
    roi: Grid | Points,
    didt: Any = 1e6,
    show: bool | None = None,
) -> Path:
    """Compute the field of many poses into an HDF5 file.

    The call may be killed at any instant: at most the batch being computed and the one being written are lost, and the
    same call goes on from there and ends with the same numbers. Nothing named `path` exists before it is complete.
    Called again when `path` is complete, it returns at once. The folder `<path>.parts` holds what is done; at the end
    the disk holds all of it twice for a moment.

    Parameters
    ----------
    sim, coil
        What conducts and what drives. Tabulate coils of many elements (`coil.tabulate`) before.
    poses
        (n_pose, 4, 4) mm.
    path
        `.h5` or `.hdf5`; its folder exists.
    roi
        Where the field is wanted.
    didt
        A/s: one number; (n_stimulator,); (n_pose,) for a coil of one stimulator; or (n_pose, n_stimulator).
    show
        A progress bar; by default on a terminal only.

    Returns
    -------
    `path`, which holds

    - `e`: float32, V/m, world axes: (n_pose, nx, ny, nz, 3) on a `Grid`, zero outside grey and white matter, or
      (n_pose, n_point, 3) at `Points`. One chunk a pose, byte-shuffled and compressed (gzip).
    - `poses` (n_pose, 4, 4); `didt` (n_pose,) or (n_pose, n_stimulator), A/s.
    - `affine` (4, 4), grid index -> mm; or `points` (n_point, 3) mm.
    - `iterations`, `residual` (n_pose,) of the solves.
    - attributes: `space`, `jaxm2m`, `settings` (JSON: fingerprints of all that went in), ...

    Raises
    ------
    ValueError
        Poses that are not rigid or that put the coil into the head: all of them are named. A `path` begun with
        something else: what differs is named. Both before any solve.
    ConvergenceError
        A solve that failed; what was done before is kept.
    RuntimeError
        Another process writes to `path`.
    OSError
        The disk is full, or will be; what is done is kept.
    """
    path = files.check_output(path)
    poses = _checked_poses(poses, coil, sim.head.scalp)
    rates = _checked_didt(didt, len(poses), coil.n_stimulator)
    field_map = sim.bind(coil, roi)
    settings = _settings(sim, coil, roi, poses, rates)
    together, part = _division(field_map, len(poses))
    with files.parts(
        path,
        settings,
        count=len(poses),
        size=part,
        batch=together,
        unit="poses",
        content="fields of efield.stream",
    ) as run:
        if run.finished:
            return path
        missing = run.missing
        label = "E-fields" if len(missing) == len(run.indices) else "E-fields (continued)"
        with progress(len(poses), label, unit="poses", show=show) as advance:
            advance(len(poses) - sum(len(poses[run.items(i)]) for i in missing))
            for index in _computed(run, missing, field_map, roi, poses, rates):
                advance(len(poses[run.items(index)]))
        with run.finish() as file:
            _assemble(file, run, sim, roi, poses, rates)
    return path


def _division(field_map: FieldMap, count: int) -> tuple[int, int]:
    """Poses solved at once, and in a part."""
    together = min(field_map.means.together(), count)
    few = int(np.clip(_SMALL // max(12 * field_map.n_point, 1), 1, _MOST))
    return together, together * -(-min(few, count) // together)


def _computed(
    run: files.Parts, missing: list[int], field_map: FieldMap, roi: Any, poses: np.ndarray, rates: np.ndarray
) -> Iterator[int]:
    """Compute and store parts; yields the index of each when it is on the disk."""
    shape = roi.shape if isinstance(roi, Grid) else (field_map.n_point,)
    with ThreadPoolExecutor(1, "jaxm2m-write") as writer:
        waiting: Future[int] | None = None
        for index in missing:
            chosen = np.arange(run.count)[run.items(index)]
            # a last batch that is not full is filled with its last pose: another shape would be another program
            filled = np.concatenate([chosen, np.repeat(chosen[-1:], run.size - len(chosen))])
            # returns before it is computed: while one thread waits for it and stores it, the next one is begun
            result = _block(field_map, jnp.asarray(poses[filled]), jnp.asarray(rates[filled]), run.batch)
            done, waiting = waiting, writer.submit(_store, run, index, result, shape)
            if done is not None:
                yield done.result()
            if index == missing[0]:
                run.check_room(waiting.result())
        if waiting is not None:
            yield waiting.result()


@partial(jax.jit, static_argnames="batch_size")
def _block(field_map: FieldMap, poses: Any, rates: Any, batch_size: int):
    def one(x: Any) -> Any:
        return evaluate(field_map, *x, together=1)

    return jax.lax.map(one, (poses, rates), batch_size=batch_size if batch_size > 1 else None)


def _store(run: files.Parts, index: int, result: Any, shape: tuple[int, ...]) -> int:
    """Write one part; returns its index."""
    items = run.items(index)
    count = items.stop - items.start
    e, stats = result
    status, iterations, residual = (np.asarray(a)[:count] for a in (stats.status, stats.iterations, stats.residual))
    failed = np.flatnonzero(status != fem.CONVERGED)
    if len(failed):
        first = int(failed[0])
        raise ConvergenceError(
            f"poses[{items.start + first}]: after {int(iterations[first])} iterations the residual is "
            f"{residual[first]:.2g}: {fem.MESSAGES[int(status[first])]}. Leave the pose out or raise `tolerance`; "
            f"{run.kept}."
        )
    e = np.asarray(e, np.float32)[:count].reshape(count, *shape, 3)
    # compressed here, since HDF5 would do it on one core
    with ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
        pressed = list(pool.map(_pressed, e))
    with run.store(index) as file:
        _copy_chunks(_dataset(file, count, shape), pressed, 0)
        file["iterations"], file["residual"] = iterations, residual
    return index


def _dataset(file: h5py.File, count: int, shape: tuple[int, ...]) -> h5py.Dataset:
    data = file.create_dataset(
        "e",
        (count, *shape, 3),
        np.dtype("<f4"),
        chunks=(1, *shape, 3),
        shuffle=True,
        compression="gzip",
        compression_opts=1,
    )
    data.attrs["unit"] = "V/m"
    return data


def _pressed(e: np.ndarray) -> bytes:
    """What HDF5's shuffle and deflate filters make of a chunk."""
    planes = np.ascontiguousarray(e, "<f4").reshape(-1).view(np.uint8).reshape(-1, 4).T
    return zlib.compress(planes.tobytes(), 1)


def _copy_chunks(data: h5py.Dataset, pressed: Any, start: int) -> None:
    for i, chunk in enumerate(pressed, start):
        data.id.write_direct_chunk((i, *(0,) * (data.ndim - 1)), chunk)


def _assemble(
    file: h5py.File, run: files.Parts, sim: Simulator, roi: Any, poses: np.ndarray, rates: np.ndarray
) -> None:
    """All parts in one file."""
    shape = roi.shape if isinstance(roi, Grid) else (len(roi.positions()),)
    data = _dataset(file, run.count, shape)
    iterations, residual = np.zeros(run.count, np.int32), np.zeros(run.count)
    for i in run.indices:
        where = run.items(i)
        with run.open(i) as part:
            one = part["e"].id
            offsets = ((j, *(0,) * (data.ndim - 1)) for j in range(len(part["e"])))
            _copy_chunks(data, (one.read_direct_chunk(offset)[1] for offset in offsets), where.start)
            iterations[where], residual[where] = part["iterations"][()], part["residual"][()]
    file["poses"], file["didt"] = poses, rates[:, 0] if rates.shape[1] == 1 else rates
    file["didt"].attrs["unit"] = "A/s"
    file["iterations"], file["residual"] = iterations, residual
    if isinstance(roi, Grid):
        file["affine"] = np.asarray(roi.affine, np.float64)
    else:
        file["points"] = np.asarray(roi.positions(), np.float64)
        file["points"].attrs["unit"] = "mm"
    file.attrs["space"] = sim.head.space
    file.attrs["tissues"] = json.dumps(sim.head.tissues)
    file.attrs["jaxm2m"] = version("jaxm2m")
    file.attrs["jax"] = jax.__version__


def _settings(sim: Simulator, coil: Coil, roi: Any, poses: np.ndarray, rates: np.ndarray) -> files.Settings:
    """All that the numbers depend on."""
    xyz = np.asarray(roi.positions(), np.float64)
    points = "x".join(map(str, roi.shape)) if isinstance(roi, Grid) else f"{len(xyz)}"
    tissue = None if isinstance(roi, Grid) else roi.tissue
    low, high = rates.min(), rates.max()
    conducts = simulator_settings(sim)
    # messages name what differs in this order: what a user changes comes before what the machine changes
    return {
        "head": conducts["head"],
        "conductivity": conducts["conductivity"],
        "coil": files.setting(" + ".join(type(e).__name__ for e in coil.elements), coil.elements),
        "poses": files.setting(f"{len(poses)}", poses),
        "didt": files.setting(f"{low:g} A/s" if low == high else f"{low:g} to {high:g} A/s", rates),
        "roi": files.setting(
            f"{type(roi).__name__} of {points} points", np.asarray(roi.positions(), np.float64), tissue
        ),
        **conducts,
    }


def _checked_poses(poses: Any, coil: Coil, scalp: Surface) -> np.ndarray:
    """(n, 4, 4) float64; names every pose that cannot be used."""
    found = np.asarray(_check.array(poses, "poses"), np.float64)
    if found.ndim != 3 or found.shape[1:] != (4, 4) or not len(found):
        raise ValueError(f"poses: shape {found.shape}; give (n_pose, 4, 4), one or more.")
    defects = _check.pose_defects(found)
    if defects:
        raise ValueError(f"poses: {_named(defects, len(found))}")
    if coil.casing is not None:
        # without its elements, so that a coil and its table share a program
        gap = np.asarray(_gaps(replace(coil, elements=()), jnp.asarray(found), scalp))
        inside = [(int(i), f"{-gap[i]:.1f} mm") for i in np.flatnonzero(~(gap >= 0))]
        if inside:
            raise ValueError(
                f"poses: in {_named(inside, len(found))} the coil's casing reaches that far into the head; move the "
                "coil outwards (-z in its own frame) or leave these poses out."
            )
    return found


@jax.jit
def _gaps(coil: Coil, poses: Any, scalp: Any):
    return jax.lax.map(lambda pose: coils.clearance(coil, pose, scalp), poses, batch_size=8)


def _named(entries: list[tuple[int, str]], count: int) -> str:
    """All indices; what is wrong with each for the first ones."""
    told = 20
    words = ", ".join(f"[{i}] {text}" for i, text in entries[:told])
    more = f", and [{'], ['.join(str(i) for i, _ in entries[told:])}]" if len(entries) > told else ""
    return f"{len(entries)} of {count} (counted from 0): {words}{more}"


def _checked_didt(didt: Any, n_pose: int, n_stimulator: int) -> np.ndarray:
    """(n_pose, n_stimulator)."""
    found = np.asarray(_check.finite(didt, "didt"), np.float64)
    if found.ndim == 0 or (found.shape == (n_stimulator,) and n_stimulator > 1):
        return np.broadcast_to(found, (n_pose, n_stimulator)).copy()
    if found.shape == (n_pose,) and n_stimulator == 1:
        return found[:, None]
    if found.shape == (1,) and n_stimulator == 1:
        return np.broadcast_to(found, (n_pose, 1)).copy()
    if found.shape == (n_pose, n_stimulator):
        return found
    raise ValueError(
        f"didt: shape {found.shape} for {n_pose} poses and {n_stimulator} stimulator(s); give one number, "
        f"{'(n_pose,)' if n_stimulator == 1 else '(n_stimulator,)'} or (n_pose, n_stimulator), A/s."
    )
