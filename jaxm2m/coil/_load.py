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
from jaxm2m.coil._coil import Casing, Coil, Element
from jaxm2m.coil._conductors import conductor_points
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import quasi_interpolate
from jaxm2m.coil._segments import Segments
from jaxm2m.coil._stl import read_stl
from jaxm2m.coil._sums import compute_potential
from jaxm2m.coil._tcd import GRID_VALUES, check_affine, check_extent, read_tcd

_TRIANGLES = 2_000_000  # of a casing, once it is divided
_STRONGEST = 10.0  # V/m at 1 A/us, 40 mm below the frame: a figure-8 coil has 1
_AWAY = (
    20.0  # mm: largest distance of a conductor to the outside of a casing that a file gives, else it is another coil's
)

# elements, casings (vertices, triangles), largest dI/dt of each stimulator, metadata
_Contents = tuple[tuple[Element, ...], list[tuple[np.ndarray, np.ndarray]], np.ndarray | list[float], dict[str, Any]]


def load(path: PathLike, flip: bool = False, casing: PathLike | Casing | None = None) -> Coil:
    """Read a coil from a file.

    - `.ccd`: dipoles as text.
    - `.tcd`: JSON with dipoles, line segments, A-grids, several stimulators, casings, deformations at their initial
      setting.
    - `.nii`, `.nii.gz`: (nx, ny, nz, 3) A in T m per A, affine in mm.

    On loading, E of the free coil at (0, 0, +40) mm is computed for a rising current (in the first stimulator); where
    its main component is not along +y the coil is loaded as it is, with a warning.

    The casing is `casing`, or the file's own, or a file `NAME.stl` beside `NAME.ccd` (`.tcd`, `.nii.gz`), or the
    surface 4 mm off the conductors (concave where they are). The conductors of dipoles are discs across their moments;
    those of an A-grid lie where curl curl A, the current, is large. Of a coil whose conductors all lie at z < 0 the
    casing ends at z = 0, so that it can touch the head. `metadata["casing"]` tells which it was. Its edges are divided
    to at most 12 mm.

    Parameters
    ----------
    path
        The file.
    flip
        Reverse the current (every moment, segment or A): the remedy for a coil whose main field points along -y.
    casing
        A surface in the coil's frame: an `.stl` file in mm, or a `Casing`.

    Returns
    -------
    Coil
        With `didt_max` in A/s whatever the file's unit, NaN where it has none.

    Raises
    ------
    OSError
        No such file, unreadable.
    ValueError
        Unknown suffix, empty, truncated or inconsistent file, NaN, broken or enormous compressed arrays, a casing in
        metres or away from the windings; the message names the file and what was found.

    Warns
    -----
    UserWarning
        E under the coil does not point along +y; an A-grid too coarse to tell where its windings are, which has no
        casing then.
    """
    path = _check.file(path, suffixes=SUFFIXES)
    suffix = next(s for s in SUFFIXES if path.name.lower().endswith(s))
    with np.errstate(over="ignore"):  # what is too large is told below
        elements, casings, didt_max, metadata = _READERS[suffix](path, -1.0 if flip else 1.0)
    dtype = jnp.result_type(float)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(elements)):
        raise ValueError(f"{path}: holds numbers that are too large for {dtype}; the coil is unusable as it is.")
    surface, source = _casing_of(elements, casings, path, path.name[: -len(suffix)], casing)
    metadata = StaticMetadata(metadata | {"source": path.name, "casing": source})
    coil = Coil(elements, surface, jnp.asarray(np.asarray(didt_max, float), dtype), metadata)
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


def _from_ccd(path: Path, sign: float) -> _Contents:
    contents = read_ccd(path)
    dtype = jnp.result_type(float)
    elements = (Dipoles(jnp.asarray(contents["position"], dtype), jnp.asarray(sign * contents["moment"], dtype)),)
    metadata = contents["metadata"]
    name = metadata.get("coilname") or metadata.get("header", path.stem).split(" version")[0].removesuffix(".ccd")
    stimulator = metadata.get("stimulator")
    stimulators = (stimulator,) if stimulator not in (None, "", "None") else ()
    return elements, [], [contents["didt_max"]], metadata | {"name": name, "stimulators": stimulators}


def _from_tcd(path: Path, sign: float) -> _Contents:
    contents = read_tcd(path)
    dtype = jnp.result_type(float)  # JAX would compile a conversion for each shape
    elements: list[Any] = []
    for entry in contents["elements"]:
        index = entry["stimulator"]
        if entry["kind"] == "dipoles":
            position, moment = (
                jnp.asarray(entry["position"].astype(dtype)),
                jnp.asarray((sign * entry["moment"]).astype(dtype)),
            )
            elements.append(Dipoles(position, moment, index))
        elif entry["kind"] == "segments":
            start, end = jnp.asarray(entry["start"].astype(dtype)), jnp.asarray(entry["end"].astype(dtype))
            elements.append(Segments(start, end, jnp.asarray(np.full(len(start), sign, dtype)), index))
        else:
            elements.append(quasi_interpolate(sign * entry["values"], entry["affine"], index))
    extra = {k: contents[k].tolist() for k in ("limits", "resolution") if contents[k] is not None}
    return tuple(elements), contents["casings"], contents["didt_max"], contents["metadata"] | extra


def _from_nifti(path: Path, sign: float) -> _Contents:
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
    return (quasi_interpolate(sign * values, affine),), [], [np.nan], {"name": path.name.split(".")[0]}


# a format is a line here: suffix -> (path, sign of the current) -> what the file holds
_READERS: dict[str, Callable[[Path, float], _Contents]] = {
    ".ccd": _from_ccd,
    ".tcd": _from_tcd,
    ".nii.gz": _from_nifti,
    ".nii": _from_nifti,
}
SUFFIXES = tuple(_READERS)


def _casing_of(
    elements: tuple[Element, ...],
    casings: list[tuple[np.ndarray, np.ndarray]],
    path: Path,
    stem: str,
    casing: PathLike | Casing | None,
) -> tuple[Casing | None, str]:
    """The casing of a coil, and where it comes from."""
    if isinstance(casing, Casing):
        return casing, "caller"
    beside = [p for p in sorted(path.parent.iterdir()) if p.name.lower() == f"{stem}.stl".lower()]
    if casing is not None:
        file = _check.file(casing, "casing", suffixes=(".stl",))
        casings, source = [_read_casing(file, elements)], file.name
    elif casings:
        source = "file"
    elif beside:
        file = beside[0]
        casings, source = [_read_casing(file, elements)], file.name
    else:
        points = conductor_points(elements)
        if not len(points):
            return None, "none"
        return _casing.offset_surface(points), f"surface {_casing.THICKNESS:g} mm off the conductors"
    for vertices, triangles in casings:
        _check_casing(vertices, triangles, path)
    offset = np.cumsum([0] + [len(v) for v, _ in casings[:-1]])
    triangles = np.concatenate([t + o for (_, t), o in zip(casings, offset, strict=True)])
    vertices, triangles = _casing.divide(np.concatenate([v for v, _ in casings]), triangles)
    return Casing(jnp.asarray(vertices, jnp.result_type(float)), jnp.asarray(triangles, jnp.int32)), source


def _read_casing(path: Path, elements: tuple[Element, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The surface in a file of its own, which must be that of this coil: mm, and round its conductors."""
    vertices, triangles = read_stl(path)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    if np.linalg.norm(high - low) < 20:
        raise ValueError(
            f"{path}: the casing is {np.linalg.norm(high - low):.3g} mm large; it seems to be in metres: save it in mm."
        )
    points = conductor_points(elements)
    away = np.maximum(np.maximum(low - points, points - high), 0)
    if len(points) and np.linalg.norm(away, axis=1).max() > _AWAY:
        raise ValueError(
            f"{path}: the casing spans {_span(low, high)} mm, the coil's conductors "
            f"{_span(points.min(axis=0), points.max(axis=0))}; it belongs to another coil or another frame: give it in "
            "the coil's own frame (mm, z into the head)."
        )
    return vertices, triangles


def _span(low: np.ndarray, high: np.ndarray) -> str:
    return " x ".join(f"{a:.0f}..{b:.0f}" for a, b in zip(low, high, strict=True))


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
    point = np.array([0.0, 0.0, 40.0])
    e = -1e6 * sum((compute_potential(x, point) for x in coil.elements if x.stimulator == 0), np.zeros(3))
    if np.linalg.norm(e) > _STRONGEST:
        warnings.warn(
            f"{path}: E of the free coil at (0, 0, 40) mm is {np.linalg.norm(e):.3g} V/m at 1 A/us, and no coil for heads "
            f"reaches {_STRONGEST:g}. The file must hold A in T m per A of coil current: B is in T, and so is a hundred "
            "times as large; A at another current must be divided by it.",
            stacklevel=3,
        )
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
