"""Many poses to one HDF5 file, by a solve each or by a basis, in a way that survives being killed.

Batches of poses are computed here and kept as `files.open_parts`. Their chunks are compressed once, when a part is
written, and copied as they are into the one file at the end. Numbers depend on the batch's own poses only, and batches
are the same in a run that goes on, so it ends with the same bits.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from jaxm2m import _check, fem, files
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.efield._basis import Basis
from jaxm2m.efield._convergence import ConvergenceError
from jaxm2m.efield._expansion import LIMIT
from jaxm2m.efield._field_map import FieldMap, evaluate
from jaxm2m.efield._poses import check_poses
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import Simulator

_SMALL = 4 << 20  # bytes: poses of little data share a file of about this size
_MOST = 16  # poses that share a file for that reason
_LARGE = 256 << 20  # bytes of a batch that a basis computes


class _Batch(NamedTuple):
    """Fields (pose, point, 3) V/m, what the solves did, and the basis' estimated errors; NaN where there is neither."""

    e: Any
    status: Any
    iterations: Any
    residual: Any
    estimate: Any


def compute_fields(
    sim: Simulator,
    coil: Coil,
    poses: ArrayLike,
    path: str | os.PathLike[str],
    *,
    roi: Grid | Points | None = None,
    didt: ArrayLike = 1e6,
    basis: Basis | None = None,
    limit: float | int = LIMIT,
    progress: bool | None = None,
) -> Path:
    """Compute the field of many poses into an HDF5 file.

    The call may be killed at any instant: at most the batch being computed and the one being written are lost, and the
    same call goes on from there and ends with the same numbers. Nothing named `path` exists before it is complete. The
    processes of `jax.distributed`, which all make this call, share the poses; `path` must be on a disk that they share.
    Called again when `path` is complete, it returns at once. The folder `<path>.parts` holds what is done; at the end
    the disk holds all of it twice for a moment.

    Parameters
    ----------
    sim, coil
        The simulator of the head and the coil. Tabulate coils of many elements (`coil.tabulate`) before.
    poses
        (n_pose, 4, 4) coil frame to world, mm.
    path
        `.h5` or `.hdf5`; its folder exists.
    roi
        Where the field is wanted: points or a grid, mm. A basis has its own.
    didt
        A/s: one number; (n_stimulator,); (n_pose,) for a coil of one stimulator; or (n_pose, n_stimulator).
    basis
        A basis of the simulator's head. Where given, it computes the fields, and a pose that it does not hold is
        solved.
    limit
        Estimated relative error (no unit) of the basis above which a pose is solved; what the estimate is, `Basis.bind`
        says.
    progress
        Whether to show a progress bar; by default on a terminal only.

    Returns
    -------
    Path
        `path`, which holds

        - `e`: float32, V/m, world axes: (n_pose, nx, ny, nz, 3) on a `Grid`, zero outside grey and white matter, or
          (n_pose, n_point, 3) at `Points`. One chunk a pose, byte-shuffled and compressed (gzip).
        - `poses` (n_pose, 4, 4); `didt` (n_pose,) or (n_pose, n_stimulator), A/s.
        - `affine` (4, 4), grid index -> mm; or `points` (n_point, 3) mm.
        - `tissue`, int8 (nx, ny, nz) or (n_point,): index into the attribute `tissues` (JSON), -1 where there is no
          field.
        - `iterations`, `residual` (n_pose,) of the solves; 0 and NaN of poses that a basis computed.
        - `estimate` (n_pose,), where a basis was given: its estimated relative error, NaN of poses that were solved.
        - attributes: `space`, `jaxm2m`, `settings` (JSON: fingerprints of all that went in), ...

    Raises
    ------
    ValueError
        Poses that are not rigid or that put the coil into the head: all of them are named. A `path` begun with
        something else: what differs is named. Neither `roi` nor `basis`, or both; a basis of another head. All before
        any solve.
    ConvergenceError
        A solve that failed; what was done before is kept.
    RuntimeError
        Another run writes to `path`, or another process of this one failed.
    OSError
        The disk is full, or will be; what is done is kept.
    """
    path = files.check_output(path)
    poses = check_poses(poses, coil, sim.head.scalp)
    rates = _check_didt(didt, len(poses), coil.n_stimulator)
    if (roi is None) == (basis is None):
        raise ValueError("roi: give points or a grid, or a `basis`, which has its own; one of the two.")
    _check.positive(limit, "limit")
    if basis is not None:
        basis.check_simulator(sim, "basis")
        roi = basis.roi
    assert roi is not None
    solved = partial(sim.bind, coil, roi)
    field_map = solved() if basis is None else basis.bind(coil, limit=limit)
    compute = _by_solves(field_map) if basis is None else _by_basis(field_map, limit, solved)
    settings = _settings(sim, coil, roi, poses, rates)
    if basis is not None:
        settings["basis"] = files.make_setting(f"of error up to {100 * limit:g} %", basis.solver, float(limit))
    batch_size, part = _choose_batches(field_map, len(poses))
    with files.open_parts(
        path,
        settings,
        count=len(poses),
        size=part,
        batch_size=batch_size,
        unit="poses",
        content="fields of efield.compute_fields",
    ) as run:
        if run.finished:
            return path
        share = run.share()
        with run.report_progress("E-fields", share, progress) as advance:
            for index in _compute_parts(run, share, compute, _shape(roi), poses, rates):
                advance(len(poses[run.items(index)]))
        if run.wait():
            with run.finish() as file:
                _assemble(file, run, sim, field_map, roi, poses, rates)
    return path


def _choose_batches(field_map: FieldMap, count: int) -> tuple[int, int]:
    """Poses computed at once, and in a part."""
    most = max(_LARGE // max(12 * field_map.n_point, 1), 1)
    batch_size = min(field_map.solver.batch_size(), most, count)
    few = int(np.clip(_SMALL // max(12 * field_map.n_point, 1), 1, _MOST))
    return batch_size, batch_size * -(-min(few, count) // batch_size)


def _compute_parts(
    run: files.Parts,
    missing: list[int],
    compute: Callable[..., _Batch],
    shape: tuple[int, ...],
    poses: np.ndarray,
    rates: np.ndarray,
) -> Iterator[int]:
    """Compute and store parts; yields the index of each when it is on the disk."""
    with ThreadPoolExecutor(1, "jaxm2m-write") as writer:
        waiting: Future[int] | None = None
        for index in missing:
            chosen = np.arange(run.count)[run.items(index)]
            # a last batch that is not full is filled with its last pose: another shape would be another program
            filled = np.concatenate([chosen, np.repeat(chosen[-1:], run.size - len(chosen))])
            # while one thread stores it, and waits for it where it must be solved, the next one is begun
            result = compute(jnp.asarray(poses[filled]), jnp.asarray(rates[filled]), run.batch_size, len(chosen))
            done, waiting = waiting, writer.submit(_store, run, index, result, shape)
            if done is not None:
                yield done.result()
            if index == missing[0]:
                run.check_room(waiting.result())
        if waiting is not None:
            yield waiting.result()


def _by_solves(field_map: FieldMap) -> Callable[..., _Batch]:
    """Compute poses by a solve each."""

    def compute(poses: Any, rates: Any, batch_size: int, count: int) -> _Batch:
        # returns before it is computed
        e, stats = _compute_batch(field_map, poses, rates, batch_size)
        return _Batch(e, stats.status, stats.iterations, stats.residual, np.full(len(poses), np.nan))

    return compute


def _by_basis(expanded: FieldMap, limit: float | int, solved: Callable[[], FieldMap]) -> Callable[..., _Batch]:
    """Compute poses by a basis, and by a solve each those that it does not hold, of the first `count`."""
    # it costs seconds and memory, and is seldom wanted
    solved = cache(solved)

    def compute(poses: Any, rates: Any, batch_size: int, count: int) -> _Batch:
        e, estimate = _compute_batch(expanded, poses, rates, batch_size)
        estimate = np.array(estimate)
        # in the precision in which the basis compares them
        refused = np.flatnonzero(~(estimate[:count] <= estimate.dtype.type(limit)))
        estimate[refused] = np.nan
        status, iterations = np.full(len(poses), fem.CONVERGED), np.zeros(len(poses), np.int32)
        residual = np.full(len(poses), np.nan)
        if len(refused):
            e = np.array(e)
        for i in refused:
            one, stats = _compute_batch(solved(), poses[i : i + 1], rates[i : i + 1], 1)
            e[i] = one[0]
            status[i], iterations[i], residual[i] = stats.status[0], stats.iterations[0], stats.residual[0]
        return _Batch(e, status, iterations, residual, estimate)

    return compute


@partial(jax.jit, static_argnames="batch_size")
def _compute_batch(field_map: FieldMap, poses: Any, rates: Any, batch_size: int):
    def one(x: Any) -> Any:
        return evaluate(field_map, *x, batch_size=1)

    return jax.lax.map(one, (poses, rates), batch_size=batch_size if batch_size > 1 else None)


def _store(run: files.Parts, index: int, result: _Batch, shape: tuple[int, ...]) -> int:
    """Write one part; returns its index."""
    items = run.items(index)
    count = items.stop - items.start
    status, iterations, residual, estimate = (np.asarray(a)[:count] for a in result[1:])
    failed = np.flatnonzero(status != fem.CONVERGED)
    if len(failed):
        first = int(failed[0])
        raise ConvergenceError(
            f"poses[{items.start + first}]: after {int(iterations[first])} iterations the residual is "
            f"{residual[first]:.2g}: {fem.MESSAGES[int(status[first])]}. Leave the pose out or raise `tolerance`; "
            f"{run.kept}."
        )
    e = np.asarray(result.e, np.float32)[:count].reshape(count, *shape, 3)
    # compressed here, since HDF5 would do it on one core
    with ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
        pressed = list(pool.map(files.compress_chunk, e))
    with run.store(index) as file:
        files.write_chunks(files.create_chunked(file, "e", (count, *shape, 3), unit="V/m"), pressed)
        file["iterations"], file["residual"], file["estimate"] = iterations, residual, estimate
    return index


def _assemble(
    file: h5py.File,
    run: files.Parts,
    sim: Simulator,
    field_map: FieldMap,
    roi: Any,
    poses: np.ndarray,
    rates: np.ndarray,
) -> None:
    """All parts in one file."""
    shape = _shape(roi)
    data = files.create_chunked(file, "e", (run.count, *shape, 3), unit="V/m")
    iterations, residual, estimate = np.zeros(run.count, np.int32), np.zeros(run.count), np.zeros(run.count)
    for i in run.indices:
        where = run.items(i)
        with run.open(i) as part:
            one = part["e"].id
            offsets = ((j, *(0,) * (data.ndim - 1)) for j in range(len(part["e"])))
            files.write_chunks(data, (one.read_direct_chunk(offset)[1] for offset in offsets), where.start)
            iterations[where], residual[where] = part["iterations"][()], part["residual"][()]
            # runs that were begun before there were bases have none
            estimate[where] = part["estimate"][()] if "estimate" in part else np.nan
    file["poses"], file["didt"] = poses, rates[:, 0] if rates.shape[1] == 1 else rates
    file["didt"].attrs["unit"] = "A/s"
    file["iterations"], file["residual"] = iterations, residual
    if "basis" in run.settings:
        file["estimate"] = estimate
    tissue = np.full(field_map.n_point, -1, np.int8)
    tissue[np.asarray(field_map.active)] = np.asarray(field_map.tissue)
    file["tissue"] = tissue.reshape(shape)
    if isinstance(roi, Grid):
        file["affine"] = np.asarray(roi.affine, np.float64)
    else:
        file["points"] = np.asarray(roi.positions(), np.float64)
        file["points"].attrs["unit"] = "mm"
    file.attrs["space"] = sim.head.space
    file.attrs["tissues"] = json.dumps(sim.head.tissues)
    file.attrs["jaxm2m"] = version("jaxm2m")
    file.attrs["jax"] = jax.__version__


def _shape(roi: Grid | Points) -> tuple[int, ...]:
    return roi.shape if isinstance(roi, Grid) else (len(roi.positions()),)


def _settings(sim: Simulator, coil: Coil, roi: Any, poses: np.ndarray, rates: np.ndarray) -> files.Settings:
    """All that the numbers depend on."""
    xyz = np.asarray(roi.positions(), np.float64)
    points = "x".join(map(str, roi.shape)) if isinstance(roi, Grid) else f"{len(xyz)}"
    tissue = None if isinstance(roi, Grid) else roi.tissue
    low, high = rates.min(), rates.max()
    conducts = sim.settings
    # messages name what differs in this order: what a user changes comes before what the machine changes
    return {
        "head": conducts["head"],
        "conductivity": conducts["conductivity"],
        "coil": files.make_setting(" + ".join(type(e).__name__ for e in coil.elements), coil.elements),
        "poses": files.make_setting(f"{len(poses)}", poses),
        "didt": files.make_setting(f"{low:g} A/s" if low == high else f"{low:g} to {high:g} A/s", rates),
        "roi": files.make_setting(
            f"{type(roi).__name__} of {points} points", np.asarray(roi.positions(), np.float64), tissue
        ),
        **conducts,
    }


def _check_didt(didt: Any, n_pose: int, n_stimulator: int) -> np.ndarray:
    """Return dI/dt (A/s) as (n_pose, n_stimulator)."""
    rates = np.asarray(_check.finite(didt, "didt"), np.float64)
    if rates.ndim == 0 or (rates.shape == (n_stimulator,) and n_stimulator > 1):
        return np.broadcast_to(rates, (n_pose, n_stimulator)).copy()
    if rates.shape == (n_pose,) and n_stimulator == 1:
        return rates[:, None]
    if rates.shape == (1,) and n_stimulator == 1:
        return np.broadcast_to(rates, (n_pose, 1)).copy()
    if rates.shape == (n_pose, n_stimulator):
        return rates
    raise ValueError(
        f"didt: shape {rates.shape} for {n_pose} poses and {n_stimulator} stimulator(s); give one number, "
        f"{'(n_pose,)' if n_stimulator == 1 else '(n_stimulator,)'} or (n_pose, n_stimulator), A/s."
    )
