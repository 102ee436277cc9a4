"""Many poses to one HDF5 file, in a way that survives being killed.

An HDF5 file that is open for writing is broken by a kill. So each batch of poses becomes a small HDF5 file of its own
in the folder `<path>.parts`, which is whole or not there (written beside, synced, renamed), together with `run.json`,
which says what the run was begun with. When the last batch is there, the compressed chunks are copied into one file,
which is renamed to `path`, and the folder goes. Numbers depend on the batch's own poses only, and batches are the same
in a run that goes on, so it ends with the same bits.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from jaxm2m import _check, fem, files
from jaxm2m import coil as coils
from jaxm2m._progress import progress
from jaxm2m.coil import Coil
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import ConvergenceError, FieldMap, Simulator, _at_points, batch
from jaxm2m.head import Surface

_SUFFIXES = (".h5", ".hdf5")
_SMALL = 4 << 20  # bytes: poses of little data share a file of about this size
_MOST = 16  # poses that share a file for that reason


class _Plan(NamedTuple):
    """What a run is: everything that its numbers depend on, and how it is divided."""

    settings: dict[str, dict[str, str]]
    batch: int  # poses solved at once
    part: int  # poses in a file
    total: int  # poses in all

    @property
    def parts(self) -> range:
        return range(-(-self.total // self.part))

    def poses(self, index: int) -> slice:
        return slice(index * self.part, min((index + 1) * self.part, self.total))

    def name(self, index: int) -> str:
        return f"{index:06d}.h5"

    def fingerprint(self) -> str:
        return files.fingerprint(self.settings, self.batch, self.part)


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
    path = _checked_path(path)
    poses = _checked_poses(poses, coil, sim.head.scalp)
    rates = _checked_didt(didt, len(poses), coil.n_stimulator)
    field_map = sim.bind(coil, roi)
    settings = _settings(sim, coil, roi, poses, rates)
    with files.lock(path):
        if path.exists():
            _refuse_other(_settings_of(path), settings, path, f"delete {path.name}")
            _remove_parts(path)
            return path
        plan = _begun(path, settings, field_map, len(poses))
        missing = [i for i in plan.parts if not _whole(path, plan, i)]
        label = "E-fields" if len(missing) == len(plan.parts) else "E-fields (continued)"
        with progress(len(poses), label, unit="poses", show=show) as advance:
            advance(sum(_length(plan, i) for i in plan.parts) - sum(_length(plan, i) for i in missing))
            for index in _computed(path, plan, missing, field_map, roi, poses, rates):
                advance(_length(plan, index))
        with _full_disk_told(path, plan):
            _assemble(path, plan, sim, roi, poses, rates)
        _remove_parts(path)
    return path


def stored(path: str | os.PathLike[str]) -> int:
    """How many poses an unfinished run to `path` has stored."""
    plan = _read_plan(_folder(Path(path)))
    return 0 if plan is None else sum(_length(plan, i) for i in plan.parts if _whole(Path(path), plan, i))


def _computed(
    path: Path, plan: _Plan, missing: list[int], field_map: FieldMap, roi: Any, poses: np.ndarray, rates: np.ndarray
) -> Iterator[int]:
    """Compute and store parts; yields the index of each when it is on the disk."""
    shape = roi.shape if isinstance(roi, Grid) else (field_map.n_point,)
    with ThreadPoolExecutor(1, "jaxm2m-write") as writer:
        waiting: Future[int] | None = None
        for index in missing:
            chosen = np.arange(plan.total)[plan.poses(index)]
            # a last batch that is not full is filled with its last pose: another shape would be another program
            filled = np.concatenate([chosen, np.repeat(chosen[-1:], plan.part - len(chosen))])
            # returns before it is computed: while one thread waits for it and stores it, the next one is begun
            result = _block(field_map, jnp.asarray(poses[filled]), jnp.asarray(rates[filled]), plan.batch)
            done, waiting = waiting, writer.submit(_store, path, plan, index, result, shape)
            if done is not None:
                yield done.result()
            if index == missing[0]:
                _check_room(path, plan, waiting.result(), len(missing))
        if waiting is not None:
            yield waiting.result()


@partial(jax.jit, static_argnames="batch_size")
def _block(field_map: FieldMap, poses: Any, rates: Any, batch_size: int):
    def one(x: Any) -> Any:
        return _at_points(field_map, *x, batch_size=1)

    return jax.lax.map(one, (poses, rates), batch_size=batch_size if batch_size > 1 else None)


def _store(path: Path, plan: _Plan, index: int, result: Any, shape: tuple[int, ...]) -> int:
    """Write one part; returns its index."""
    count = _length(plan, index)
    e, stats = result
    status, iterations, residual = (np.asarray(a)[:count] for a in (stats.status, stats.iterations, stats.residual))
    failed = np.flatnonzero(status != fem.CONVERGED)
    if len(failed):
        first = int(failed[0])
        raise ConvergenceError(
            f"poses[{plan.poses(index).start + first}]: after {int(iterations[first])} iterations the residual is "
            f"{residual[first]:.2g}: {fem.MESSAGES[int(status[first])]}. Leave the pose out or raise `tolerance`; "
            f"{stored(path)} of {plan.total} poses are kept."
        )
    e = np.asarray(e, np.float32)[:count].reshape(count, *shape, 3)
    # compressed here, since HDF5 would do it on one core
    with ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
        pressed = list(pool.map(_pressed, e))
    memory = io.BytesIO()  # a full disk then is an error of a plain file; in the middle of HDF5's own it is a mess
    with h5py.File(memory, "w") as file:
        file.attrs["run"] = plan.fingerprint()
        _copy_chunks(_dataset(file, count, shape), pressed, 0)
        file["iterations"], file["residual"] = iterations, residual
    with _full_disk_told(path, plan), files.atomic(_folder(path) / plan.name(index)) as temporary:
        temporary.write_bytes(memory.getbuffer())
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


def _assemble(path: Path, plan: _Plan, sim: Simulator, roi: Any, poses: np.ndarray, rates: np.ndarray) -> None:
    """All parts in one file, which becomes `path` when it is whole and on the disk."""
    folder = _folder(path)
    shape = roi.shape if isinstance(roi, Grid) else (len(roi.positions()),)
    complete = folder / "complete.h5"
    size = sum((folder / plan.name(i)).stat().st_size for i in plan.parts)
    if shutil.disk_usage(folder).free < size + (1 << 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with files.atomic(complete) as temporary, h5py.File(temporary, "w") as file:
        data = _dataset(file, plan.total, shape)
        iterations, residual = np.zeros(plan.total, np.int32), np.zeros(plan.total)
        for i in plan.parts:
            where = plan.poses(i)
            with h5py.File(folder / plan.name(i), "r") as part:
                one = part["e"].id
                offsets = ((j, *(0,) * (data.ndim - 1)) for j in range(_length(plan, i)))
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
        file.attrs["settings"] = json.dumps(plan.settings)
    os.replace(complete, path)
    with contextlib.suppress(OSError):  # not every system lets a folder be synced
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _settings(sim: Simulator, coil: Coil, roi: Any, poses: np.ndarray, rates: np.ndarray) -> dict[str, dict[str, str]]:
    """All that the numbers depend on: in words, and as a fingerprint."""
    head = sim.head
    points = "x".join(map(str, roi.shape)) if isinstance(roi, Grid) else f"{len(roi.positions())}"
    tissue = None if isinstance(roi, Grid) else roi.tissue
    low, high = rates.min(), rates.max()

    def entry(words: str, *parts: Any) -> dict[str, str]:
        return {"is": words, "sha256": files.fingerprint(words, *parts)}

    return {
        "head": entry(
            f"{'x'.join(map(str, head.shape))} voxels of {head.spacing:g} mm",
            head.fractions,
            head.affine,
            head.labels,
            head.labels_affine,
            list(head.tissues),
        ),
        "conductivity": entry(
            " ".join(f"{s:.4g}" for s in np.asarray(head.conductivity)), np.asarray(head.conductivity, np.float64)
        ),
        "coil": entry(" + ".join(type(e).__name__ for e in coil.elements), coil.elements),
        "poses": entry(f"{len(poses)}", poses),
        "didt": entry(f"{low:g} A/s" if low == high else f"{low:g} to {high:g} A/s", rates),
        "roi": entry(f"{type(roi).__name__} of {points} points", np.asarray(roi.positions(), np.float64), tissue),
        "tolerance": entry(f"{float(sim.parts.tolerance):.3g}", float(sim.parts.tolerance)),
        "interfaces": entry(sim.interfaces),
        "dtype": entry(str(sim.parts.affine.dtype)),
        "device": entry(jax.default_backend()),
        "jaxm2m": entry(version("jaxm2m")),
        "jax": entry(jax.__version__),
    }


def _refuse_other(old: dict[str, dict[str, str]], new: dict[str, dict[str, str]], path: Path, remedy: str) -> None:
    """Raise `ValueError` that names what differs."""
    differences = []
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name, {}), new.get(name, {})
        if was.get("sha256") != now.get("sha256"):
            words = (was.get("is", "unknown"), now.get("is", "unknown"))
            differences.append(f"{name} ({words[0]} then, {words[1]} now)" if words[0] != words[1] else name)
    if differences:
        raise ValueError(
            f"path: {path} was begun with another {', '.join(differences)}; repeat the call with what it was begun "
            f"with, choose another path, or {remedy}."
        )


def _settings_of(path: Path) -> dict[str, dict[str, str]]:
    try:
        with files.open_hdf5(path, limit=1 << 60) as file:  # its size is no matter: one attribute is read
            return json.loads(file.attrs["settings"])
    except (ValueError, KeyError, TypeError):
        raise FileExistsError(
            f"path: {path} exists and holds no fields of efield.stream; choose another path, or move it away."
        ) from None


def _begun(path: Path, settings: dict[str, dict[str, str]], field_map: FieldMap, count: int) -> _Plan:
    """The plan that the folder of parts holds, or a new one."""
    folder = _folder(path)
    remedy = f"delete the folder {folder.name}"
    found = _read_plan(folder)
    if found is not None:
        _refuse_other(found.settings, settings, path, remedy)
        for leftover in folder.glob(".*~*"):  # what a killed writer left; nobody else holds the lock
            leftover.unlink(missing_ok=True)
        return found
    if folder.exists() and any(folder.iterdir()):
        ours = [f for f in folder.iterdir() if "~run.json" in f.name]
        if len(ours) < len(list(folder.iterdir())):
            raise FileExistsError(
                f"path: {folder} exists and holds no unfinished run; {remedy}, or choose another path."
            )
        for leftover in ours:
            leftover.unlink()
    folder.mkdir(exist_ok=True)
    together = batch(field_map.parts)
    few = int(np.clip(_SMALL // max(12 * field_map.n_point, 1), 1, _MOST))
    together = min(together, count)
    part = together * -(-min(few, count) // together)
    plan = _Plan(settings, together, part, count)
    with files.atomic(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(plan._asdict(), indent=1))
    return plan


def _read_plan(folder: Path) -> _Plan | None:
    try:
        found = json.loads((folder / "run.json").read_text())
        plan = _Plan(dict(found["settings"]), *(int(found[key]) for key in ("batch", "part", "total")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return plan if min(plan[1:]) > 0 else None


def _whole(path: Path, plan: _Plan, index: int) -> bool:
    """Whether a part is there and belongs to this run."""
    try:
        with h5py.File(_folder(path) / plan.name(index), "r") as file:
            return file.attrs["run"] == plan.fingerprint() and len(file["e"]) == _length(plan, index)
    except (OSError, KeyError):
        return False


def _remove_parts(path: Path) -> None:
    folder = _folder(path)
    plan = _read_plan(folder)
    if plan is None:
        return
    for leftover in [*folder.glob(".*~*"), *(folder / plan.name(i) for i in plan.parts), folder / "run.json"]:
        leftover.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's file in it
        folder.rmdir()


def _check_room(path: Path, plan: _Plan, index: int, missing: int) -> None:
    """Say now, not in an hour, that the disk is too small for the rest and for the file itself."""
    size = (_folder(path) / plan.name(index)).stat().st_size
    need = size * (missing - 1 + len(plan.parts))
    free = shutil.disk_usage(_folder(path)).free
    if free < need:
        raise OSError(
            f"path: {plan.total} poses need about {need / 2**30:.2f} GB more on the disk of {path}, which has "
            f"{free / 2**30:.2f} GB free; make room and repeat the call, or choose another path."
        )


@contextlib.contextmanager
def _full_disk_told(path: Path, plan: _Plan) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 reports it in words only
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and "o space left" not in str(error) and "errno = 28" not in str(error):
            raise
        raise OSError(
            f"path: no space left on the disk of {path}; {stored(path)} of {plan.total} poses are kept: make room and "
            "repeat the call, which goes on from there."
        ) from error


def _folder(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _length(plan: _Plan, index: int) -> int:
    where = plan.poses(index)
    return where.stop - where.start


def _checked_path(path: Any) -> Path:
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"path: {path} does not end in .h5; name an HDF5 file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"path: {path} is a folder; name a file in it.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"path: the folder {path.parent} cannot be written to; choose another one.")
    return path


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
