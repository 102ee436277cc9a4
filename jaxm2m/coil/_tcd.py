"""Coil definition files in JSON (`.tcd`): dipoles, line segments and A-grids, stimulators, casings, deformations."""

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxm2m import files
from jaxm2m.coil._didt import check_largest_didt

# Bounds on what a coil may hold, far above any published one.
TEXT_LIMIT = 1 << 30
VECTORS = 2_000_000
GRID_VALUES = 3 * 320**3
FARTHEST = 2000.0  # mm from the origin


def read_tcd(path: Path) -> dict[str, Any]:
    """Parse a `.tcd` file.

    Deformations are applied at their initial setting, in the file's order. Line segments are read as midpoint and
    vector, or as start and vector where only that joins consecutive segments (both are in use).

    Returns
    -------
    Dictionary with `elements` (list of dictionaries: `kind` "dipoles" | "segments" | "grid", `stimulator`, and
    `position`, `moment` | `start`, `end` | `values`, `affine`), `casings` (list of (vertices, triangles), deformed as
    their elements are), `didt_max` (n_stimulator,) A/s, `limits` (3, 2) mm or None, `resolution` (3,) mm or None,
    `metadata`.

    Raises
    ------
    ValueError
        Broken JSON, missing keys, broken or enormous compressed arrays, wrong shapes, NaN, indices out of range.
    """
    if path.stat().st_size > TEXT_LIMIT:
        raise ValueError(f"{path}: {path.stat().st_size / 2**20:.0f} MiB of JSON; a coil file has at most 1024 MiB.")
    data = files.parse_json(path.read_bytes(), f"{path}")
    if not isinstance(data, dict) or not isinstance(data.get("coilElementList"), list) or not data["coilElementList"]:
        raise ValueError(f"{path}: has no `coilElementList`; a .tcd needs at least one current element.")

    models = [_read_model(m, f"{path}: coilModels[{i}]") for i, m in enumerate(_read_list(data, "coilModels", path))]
    deforms = _read_deformations(data, path)
    stimulators = _read_list(data, "stimulatorList", path)
    elements, casings, used = [], [], set()
    for i, entry in enumerate(data["coilElementList"]):
        where = f"{path}: coilElementList[{i}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: is {type(entry).__name__}; expected an object.")
        index = _read_index(entry, "stimulator", len(stimulators) or 1, where) or 0
        motion = np.eye(4)
        moves = _read_list(entry, "deformations", where)
        for k in range(len(moves)):
            index_of = _read_index(moves, k, len(deforms), f"{where}: deformations")
            motion = (np.eye(4) if index_of is None else deforms[index_of]) @ motion
        elements.append({"stimulator": index, "name": entry.get("name")} | _read_element(entry, motion, where))
        model = _read_index(entry, "elementCasing", len(models), where)
        if model is not None:
            used.add(model)
            vertices, triangles = models[model]
            casings.append((_check_near(_transform(vertices, motion), f"{where}: its casing"), triangles))
    model = _read_index(data, "coilCasing", len(models), f"{path}")
    if model is not None:
        casings.insert(0, models[model])

    metadata = {k: data[k] for k in ("name", "brand", "version") if isinstance(data.get(k), str)}
    metadata["stimulators"] = tuple(
        str(s.get("name", i)) if isinstance(s, dict) else str(i) for i, s in enumerate(stimulators)
    )
    return {
        "elements": elements,
        "casings": casings,
        "didt_max": np.array(
            [_read_rate(s, f"{path}: stimulatorList[{i}]") for i, s in enumerate(stimulators or [{}])]
        ),
        "limits": _read_plain(data, "limits", (3, 2), path),
        "resolution": _read_plain(data, "resolution", (3,), path),
        "metadata": metadata,
    }


def _read_element(entry: dict, motion: np.ndarray, where: str) -> dict[str, Any]:
    kind = entry.get("type")
    if kind in (1, 2):
        points = _read_vectors(entry, "points", where)
        values = _read_vectors(entry, "values", where)
        if len(points) != len(values):
            raise ValueError(f"{where}: {len(points)} points but {len(values)} values; they must be as many.")
        if not np.any(values):
            raise ValueError(f"{where}: every entry of `values` is zero; the element would induce nothing.")
        if kind == 1:
            position = _check_near(_transform(points, motion), where)
            return {"kind": "dipoles", "position": position, "moment": values @ motion[:3, :3].T}
        start, end = (
            _check_near(_transform(x, motion), where)
            for x in _segment_ends(_check_near(points, where), _check_near(values, where))
        )
        return {"kind": "segments", "start": start, "end": end}
    if kind == 3:
        affine = _read_array(entry, "affine", where)
        if affine.shape != (4, 4) and affine.size == 16:
            affine = affine.reshape(4, 4)
        check_affine(affine, f"{where}: affine")
        values = _read_array(entry, "data", where)
        if values.ndim != 4:
            shape = entry.get("shape") or entry.get("dims") or entry.get("dataShape")
            if not (isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape)):
                raise ValueError(
                    f"{where}: `data` is a flat array of {values.size} numbers without a `shape`; store it as nested "
                    "lists (nx, ny, nz, 3), or add `shape`."
                )
            shape = tuple(shape) if len(shape) == 4 else (*shape, 3)
            if math.prod(shape) != values.size:
                raise ValueError(
                    f"{where}: `data` holds {values.size} numbers; its shape {shape} needs {math.prod(shape)}."
                )
            values = values.reshape(shape)
        if values.shape[-1] != 3 or min(values.shape[:3]) < 4:
            raise ValueError(
                f"{where}: `data` has shape {values.shape}; expected (nx, ny, nz, 3), four nodes or more an axis."
            )
        affine = motion @ affine
        check_extent(affine, values.shape[:3], where)
        return {"kind": "grid", "values": values @ motion[:3, :3].T, "affine": affine}
    raise ValueError(f"{where}: type {kind!r}; known are 1 (dipoles), 2 (line segments) and 3 (A-field grid).")


def _segment_ends(points: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of line segments, from what makes consecutive ones join (midpoints unless starts do so better)."""
    gaps = []
    for shift in (0.5, 0.0):
        start = points - shift * values
        gaps.append(np.median(np.linalg.norm((start + values)[:-1] - start[1:], axis=1)) if len(points) > 1 else 0.0)
    start = points - (0.5 if gaps[0] <= gaps[1] + 1e-6 else 0.0) * values
    return start, start + values


def _read_model(entry: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: is {type(entry).__name__}; expected an object with `points` and `faces`.")
    vertices = _check_near(_read_vectors(entry, "points", where), where)
    triangles = _read_array(entry, "faces", where, whole=len(vertices))
    if triangles.size % 3 or not triangles.size:
        raise ValueError(f"{where}: `faces` holds {triangles.size} indices; expected three for each triangle.")
    triangles = triangles.reshape(-1, 3)
    if np.any(triangles != np.round(triangles)) or triangles.min() < 0 or triangles.max() >= len(vertices):
        raise ValueError(f"{where}: `faces` points outside the {len(vertices)} points; the casing is broken.")
    return vertices, triangles.astype(np.int32)


def _read_deformations(data: dict, path: Path) -> list[np.ndarray]:
    """(4, 4) motions of the coil's parts at the initial settings: translations (mm), rotations (degrees)."""
    ranges = _read_list(data, "deformRangeList", path)
    result = []
    for i, entry in enumerate(_read_list(data, "deformList", path)):
        where = f"{path}: deformList[{i}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: is {type(entry).__name__}; expected an object.")
        index = _read_index(entry, "deformRange", len(ranges), where)
        source = entry if index is None else ranges[index]
        initial = _to_real(source.get("initial")) if isinstance(source, dict) else math.nan
        if not abs(initial) <= FARTHEST:
            raise ValueError(f"{where}: has no initial setting; add `initial` (mm or degrees) to it or to its range.")
        kind = entry.get("type")
        motion = np.eye(4)
        if kind in ("x", "y", "z"):
            motion["xyz".index(kind), 3] = initial
        elif kind == "rot2p":
            first, second = (_read_plain(entry, key, (3,), where) for key in ("point1", "point2"))
            if first is None or second is None or np.array_equal(first, second):
                raise ValueError(f"{where}: a rotation needs two different points `point1` and `point2` on its axis.")
            motion = _rotate_about(first, second, math.radians(initial))
        else:
            raise ValueError(f"{where}: type {kind!r}; known are x, y, z (translations) and rot2p (rotation).")
        result.append(motion)
    return result


def _rotate_about(first: np.ndarray, second: np.ndarray, angle: float) -> np.ndarray:
    axis = (second - first) / np.linalg.norm(second - first)
    cross = np.cross(np.eye(3), axis)  # cross @ v = axis x v
    motion = np.eye(4)
    motion[:3, :3] += math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    motion[:3, 3] = first - motion[:3, :3] @ first
    return motion


def _transform(points: np.ndarray, motion: np.ndarray) -> np.ndarray:
    return points @ motion[:3, :3].T + motion[:3, 3]


def _read_vectors(entry: dict, key: str, where: str) -> np.ndarray:
    values = _read_array(entry, key, where)
    if not values.size or values.size % 3 or (values.ndim > 1 and values.shape[-1] != 3):
        raise ValueError(f"{where}: `{key}` has shape {values.shape}; expected rows of three numbers.")
    return values.reshape(-1, 3)


def _read_array(entry: dict, key: str, where: str, whole: int = 0) -> np.ndarray:
    """A plain or compressed array of finite float64; `whole`: of indices below this number."""
    value = entry.get(key)
    where = f"{where}: `{key}`"
    if value is None:
        raise ValueError(f"{where} is missing; the file is incomplete.")
    limit = 8 * (GRID_VALUES if key == "data" else 3 * VECTORS)
    if isinstance(value, str):
        try:
            packed = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{where} is not valid base64; the file is broken: fetch it again.") from None
        if packed[:1] not in (b"\x78", b"\x1f"):  # of zlib, of gzip
            raise ValueError(
                f"{where} is packed, but not by zlib or gzip (it begins with {packed[:4].hex(' ')}); save the coil "
                "with plain lists of numbers from the program that wrote it."
            )
        raw = files.inflate(packed, limit=limit, what=where)
        if len(raw) % 8:
            raise ValueError(f"{where} holds {len(raw)} bytes, not a whole number of float64; the file is broken.")
        array = np.frombuffer(raw, "<f8")
        if whole and not (
            np.all(np.isfinite(array)) and np.all(array == np.round(array)) and array.max(initial=0) >= 1
        ):
            integers = np.frombuffer(raw, "<i8")  # faces are integers: some writers pack them as such
            if len(integers) and integers.min() >= 0 and integers.max() < whole:
                return integers.astype(float)
    else:
        try:
            array = np.array(value, float)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{where} is not a regular array of numbers; correct it.") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{where} holds NaN or infinite numbers; the coil is unusable as it is.")
    return array


def check_affine(affine: np.ndarray, where: str) -> None:
    """Refuse affines that do not map a grid to space."""
    good = affine.shape == (4, 4) and np.isfinite(affine).all() and np.allclose(affine[3], [0, 0, 0, 1])
    if not good or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"{where}: not an invertible (4, 4) matrix with last row 0 0 0 1; give voxel index -> mm.")


def check_extent(affine: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Refuse grids that reach farther than any coil."""
    ends = np.stack(np.meshgrid(*([0, n - 1] for n in shape), indexing="ij"), -1).reshape(-1, 3)
    _check_near(_transform(ends, affine), where)


def _check_near(points: np.ndarray, where: str) -> np.ndarray:
    # written so that NaN fails it too
    if not np.abs(points).max() <= FARTHEST:
        far = np.abs(points).max() / 1e3
        raise ValueError(f"{where}: reaches {far:.3g} m from the origin; lengths in a coil file are mm: correct them.")
    return points


def _read_list(data: dict, key: str, where: Any) -> list:
    value = data.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{where}: `{key}` is {type(value).__name__}; expected a list.")
    return value


def _read_index(entry: Any, key: Any, size: int, where: str) -> Any:
    value = entry[key] if isinstance(entry, list) else entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
        raise ValueError(f"{where}: {key} = {value!r} points outside a list of {size}; correct the index.")
    return value


def _read_plain(data: dict, key: str, shape: tuple[int, ...], where: Any) -> np.ndarray | None:
    if data.get(key) is None:
        return None
    try:
        value = np.array(data[key], float)
    except (TypeError, ValueError, OverflowError):
        value = np.array(np.nan)
    if value.shape != shape or not np.isfinite(value).all():
        raise ValueError(f"{where}: `{key}` must hold {'x'.join(map(str, shape))} finite numbers; correct it.")
    return value


def _read_rate(stimulator: Any, where: str) -> float:
    value = stimulator.get("maxdIdt") if isinstance(stimulator, dict) else None
    if value is None:
        return math.nan
    if not _to_real(value) > 0:
        raise ValueError(f"{where}: maxdIdt = {repr(value)[:40]}; expected a positive number, A/s.")
    return check_largest_didt(float(value), f"{where}: maxdIdt")


def _to_real(value: Any) -> float:
    """A finite number, else NaN."""
    try:
        value = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.nan
    return value if math.isfinite(value) else math.nan
