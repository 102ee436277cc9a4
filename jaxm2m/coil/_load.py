"""Loading and saving coils."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxm2m import _check, files
from jaxm2m._pytree import StaticMetadata
from jaxm2m._types import PathLike
from jaxm2m.coil import _casing
from jaxm2m.coil._ccd import read_ccd, write_ccd
from jaxm2m.coil._coil import Casing, Coil
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import quasi_interpolate
from jaxm2m.coil._potential import vector_potential
from jaxm2m.coil._segments import Segments
from jaxm2m.coil._tcd import GRID_VALUES, check_affine, check_extent, read_tcd

_TRIANGLES = 2_000_000  # of a casing, once it is divided


def load(path: PathLike, flip: bool = False) -> Coil:
    """Read a coil from a file.

    - `.ccd`: dipoles as text.
    - `.tcd`: JSON with dipoles, line segments, A-grids, several stimulators, casings, deformations at their initial
      setting.
    - `.nii`, `.nii.gz`: (nx, ny, nz, 3) A in T m per A, affine in mm.

    On loading, E of the free coil at (0, 0, +40) mm is computed for a rising current (in the first stimulator); where
    its main component is not along +y the coil is loaded as it is, with a warning. A coil whose file has no casing gets
    one: the convex hull of its windings grown by 4 mm, or the box where |A| exceeds half of its largest value if it is
    an A-grid (which does not say where its windings are). Casing edges are divided to at most 12 mm.

    Parameters
    ----------
    path
        The file.
    flip
        Reverse the current (every moment, segment or A): the remedy for a coil whose main field points along -y.

    Returns
    -------
    Coil
        With `didt_max` in A/s whatever the file's unit, NaN where it has none.

    Raises
    ------
    OSError
        No such file, unreadable.
    ValueError
        Unknown suffix, empty, truncated or inconsistent file, NaN, broken or enormous compressed arrays; the message
        names the file and what was found.
    """
    path = _check.file(path, suffixes=SUFFIXES)
    suffix = next(s for s in SUFFIXES if path.name.lower().endswith(s))
    coil = _READERS[suffix](path, -1.0 if flip else 1.0)
    _check_direction(coil, path, flip)
    return coil


def save(coil: Coil, path: PathLike) -> Path:
    """Write a dipole coil as a `.ccd` file, whole or not at all.

    Positions go to metres and `didt_max` to A/us, as the format has it; the casing is not part of it.

    Parameters
    ----------
    coil
        A coil of dipoles with one stimulator.
    path
        The file to write, ending in `.ccd`.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        Suffix not `.ccd`, several stimulators, or elements that are not dipoles.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != ".ccd":
        raise ValueError(f"path: {path} does not end in .ccd; coils are written as .ccd only.")
    if coil.n_stimulator != 1:
        raise ValueError(f"coil: has {coil.n_stimulator} stimulators; a .ccd holds one: save one coil for each.")
    dipoles = [e for e in coil.elements if isinstance(e, Dipoles)]
    if len(dipoles) < len(coil.elements):
        kinds = sorted({type(e).__name__ for e in coil.elements} - {"Dipoles"})
        raise ValueError(f"coil: holds {', '.join(kinds)}; a .ccd holds dipoles only: keep the file it came from.")
    position = np.concatenate([np.asarray(e.position, float) for e in dipoles])
    moment = np.concatenate([np.asarray(e.moment, float) for e in dipoles])
    text = write_ccd(position, moment, float(coil.didt_max[0]), coil.metadata)
    with files.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _from_ccd(path: Path, sign: float) -> Coil:
    contents = read_ccd(path)
    dtype = jnp.result_type(float)
    elements = (Dipoles(jnp.asarray(contents["position"], dtype), jnp.asarray(sign * contents["moment"], dtype)),)
    metadata = contents["metadata"]
    name = metadata.get("coilname") or metadata.get("header", path.stem).split(" version")[0].removesuffix(".ccd")
    stimulator = metadata.get("stimulator")
    return _build(
        elements,
        [],
        [contents["didt_max"]],
        path,
        metadata | {"name": name, "stimulators": (stimulator,) if stimulator not in (None, "", "None") else ()},
    )


def _from_tcd(path: Path, sign: float) -> Coil:
    contents = read_tcd(path)
    dtype = jnp.result_type(float)
    elements: list[Any] = []
    for entry in contents["elements"]:
        index = entry["stimulator"]
        if entry["kind"] == "dipoles":
            position, moment = jnp.asarray(entry["position"], dtype), jnp.asarray(sign * entry["moment"], dtype)
            elements.append(Dipoles(position, moment, index))
        elif entry["kind"] == "segments":
            start, end = jnp.asarray(entry["start"], dtype), jnp.asarray(entry["end"], dtype)
            elements.append(Segments(start, end, jnp.full(len(start), sign, dtype), index))
        else:
            elements.append(quasi_interpolate(sign * entry["values"], entry["affine"], index))
    extra = {k: contents[k].tolist() for k in ("limits", "resolution") if contents[k] is not None}
    return _build(tuple(elements), contents["casings"], contents["didt_max"], path, contents["metadata"] | extra)


def _from_nifti(path: Path, sign: float) -> Coil:
    values, affine = files.read_nifti(path, limit=8 * GRID_VALUES)
    with np.errstate(invalid="ignore"):  # NaN of any kind is reported below
        values = values.astype(np.float64)
    if values.ndim == 5 and values.shape[3] == 1:
        values = values[:, :, :, 0]  # vectors along NIfTI's fifth axis
    if values.ndim != 4 or values.shape[3] != 3 or min(values.shape[:3]) < 4:
        raise ValueError(
            f"{path}: shape {values.shape}; a coil's A-field has shape (nx, ny, nz, 3), four nodes or more an axis."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: {int((~np.isfinite(values)).sum())} values of A are NaN or infinite; repair the file."
        )
    if not values.any():
        raise ValueError(f"{path}: A is zero everywhere; the coil would induce nothing.")
    check_affine(affine, f"{path}: affine")
    extent = np.linalg.norm(affine[:3, :3] @ (np.array(values.shape[:3]) - 1))
    if extent < 20:
        raise ValueError(f"{path}: the grid's diagonal is {extent:.3g} mm; its affine seems to be in metres: use mm.")
    check_extent(affine, values.shape[:3], f"{path}: the grid")
    grid = quasi_interpolate(sign * values, affine)
    strength = np.linalg.norm(values, axis=-1)
    index = np.argwhere(strength >= strength.max() / 2)
    box = np.stack(np.meshgrid(*zip(index.min(0), index.max(0), strict=True), indexing="ij"), -1).reshape(-1, 3)
    return _build(
        (grid,), [], [np.nan], path, {"name": path.name.split(".")[0]}, box @ affine[:3, :3].T + affine[:3, 3]
    )


# a format is a line here: suffix -> (path, sign of the current) -> Coil
_READERS: dict[str, Callable[[Path, float], Coil]] = {
    ".ccd": _from_ccd,
    ".tcd": _from_tcd,
    ".nii.gz": _from_nifti,
    ".nii": _from_nifti,
}
SUFFIXES = tuple(_READERS)


def _build(elements, casings, didt_max, path: Path, metadata: dict[str, Any], extent: np.ndarray | None = None) -> Coil:
    dtype = jnp.result_type(float)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(elements)):
        raise ValueError(f"{path}: holds numbers that are too large for {dtype}; the coil is unusable as it is.")
    if casings:
        for vertices, triangles in casings:
            _check_casing(vertices, triangles, path)
        offset = np.cumsum([0] + [len(v) for v, _ in casings[:-1]])
        triangles = np.concatenate([t + o for (_, t), o in zip(casings, offset, strict=True)])
        vertices, triangles = _casing.divide(np.concatenate([v for v, _ in casings]), triangles)
        casing: Casing | None = Casing(jnp.asarray(vertices, dtype), jnp.asarray(triangles, jnp.int32))
        source = "file"
    else:
        points = _casing.winding_points(elements)
        points = np.concatenate([points, extent]) if extent is not None else points
        casing = _casing.hull(points) if len(points) else None
        source = f"hull of the windings + {_casing.THICKNESS} mm" if extent is None else "box of half the largest |A|"
    metadata = metadata | {"source": path.name, "casing": source if casing is not None else "none"}
    return Coil(elements, casing, jnp.asarray(np.asarray(didt_max, float), dtype), StaticMetadata(metadata))


def _check_casing(vertices: np.ndarray, triangles: np.ndarray, path: Path) -> None:
    """Refuse a casing whose triangles would be divided into millions: a few bytes may name one edge many times."""
    sides = vertices[triangles] - vertices[np.roll(triangles, -1, axis=1)]
    longest = np.linalg.norm(sides, axis=-1).max(1)
    if np.sum(np.ceil(longest / _casing.EDGE) ** 2) > _TRIANGLES:
        raise ValueError(
            f"{path}: a casing of {len(triangles)} triangles of up to {longest.max():.0f} mm; it is no coil's surface: "
            "correct it, or remove it."
        )


def _check_direction(coil: Coil, path: Path, flip: bool) -> None:
    # one stimulator at a time: the sum of several says nothing about either
    didt = np.zeros(coil.n_stimulator)
    didt[0] = 1e6
    e = -np.asarray(vector_potential(coil, np.eye(4), np.array([[0.0, 0.0, 40.0]]), didt=didt))[0]
    main = int(np.abs(e).argmax())
    if main == 1 and e[1] > 0:
        return
    direction = f"{'-' if e[main] < 0 else '+'}{'xyz'[main]}" if np.any(e) else "nowhere (it is zero)"
    remedy = "flip=False keeps the file's sign" if flip else "load(..., flip=True) reverses its current"
    first = " (first stimulator)" if coil.n_stimulator > 1 else ""
    if main != 1:
        remedy += " but cannot turn it: rotate its poses about z instead"
    warnings.warn(
        f"{path}: E of the free coil{first} at (0, 0, 40) mm points along {direction} "
        f"({e[0]:.3g}, {e[1]:.3g}, {e[2]:.3g} V/m at 1 A/us), not +y, for a rising current; {remedy}.",
        stacklevel=3,
    )
