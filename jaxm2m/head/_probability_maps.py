"""Heads from maps of tissue probability: SPM's and CAT's c1 ... c6, FSL's pve, one volume with a fourth axis.

A probability is taken as the fraction of the voxel: that is what a segmentation of partial volumes means by it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from jaxm2m import _check
from jaxm2m._types import PathLike
from jaxm2m.files import check_nifti_size, read_mgh, read_nifti
from jaxm2m.head import _distance, _overlap, _tissues
from jaxm2m.head._head import Head, from_fractions
from jaxm2m.head._volume_axes import choose_spacing, measure_spacings, to_canonical_axes, warn_of_size

_SPM = {"1": "grey", "2": "white", "3": "csf", "4": "skull", "5": "scalp", "6": "air"}
_FSL = {"0": "csf", "1": "grey", "2": "white"}
_NEEDED = ("white", "grey", "csf", "skull", "scalp")
_ROUNDING = 0.02  # sums of maps that were stored in few bits
# Of a voxel. On the folded cortex, maps with noise of 2 % are off in grey matter by 1.3 times what exact fractions are,
# and by 1.02 times without what is smaller than this (benchmarks/interface_errors.py).
_NOISE = 0.05
_LARGEST_GAP = 0.01  # of the head's volume


def is_list_of_maps(path: object) -> bool:
    """Whether what is to be loaded is maps: several files, or one volume with a fourth axis."""
    if isinstance(path, (Mapping, list, tuple)):
        return True
    name = str(path).lower()
    if not name.endswith((".nii", ".nii.gz")) or not Path(str(path)).expanduser().is_file():
        return False
    shape = check_nifti_size(Path(str(path)).expanduser()).shape
    return len(shape) > 3 and shape[3] > 1


def load_maps(
    path: PathLike | Sequence[PathLike] | Mapping[str, PathLike],
    spacing: float | int | None,
    *,
    tissues: Sequence[str] | None,
    fill: str | None,
    conductivity: Mapping[str, float | int] | None,
    space: str | None,
    affine: object = None,
) -> Head:
    """A head from maps; arguments as in `load`."""
    names, maps, matrix, code, source = _read_maps(path, tissues, affine is None)
    if affine is not None:
        matrix = np.asarray(affine, np.float64)
    spacings = measure_spacings(matrix, source)
    new = choose_spacing(spacing, spacings)
    if spacing is None:
        warn_of_size(maps[0].shape, new, source)
    remarks = [f"fractions from {len(maps)} maps of {', '.join(names)}"]
    fractions = _to_fractions(names, maps, source)
    fractions, remark = _fill_gaps(fractions, fill, source, "air" in names)
    remarks += remark
    frame = matrix
    axes = {}
    for name, values in fractions.items():
        axes[name], frame = to_canonical_axes(values, matrix, source)
    old = np.linalg.norm(frame[:3, :3], axis=0)
    shape = next(iter(axes.values())).shape
    matrices = [_overlap.overlap_matrix(n, h, new) for n, h in zip(shape, old, strict=True)]
    order = _tissues.order_tissues(list(axes))
    return from_fractions(
        np.stack([_overlap.average(axes[name], matrices) for name in order]),
        _distance.regrid(frame, old, new),
        order,
        conductivity=conductivity,
        space=space or ("MNI152" if code == 4 and affine is None else "subject"),
        source=source,
        remarks=remarks,
    )


def _read_maps(path, tissues, oriented: bool) -> tuple[list[str], list[np.ndarray], np.ndarray, int, str]:
    """Names, maps (nx, ny, nz), their affine, its form code, and what messages call them."""
    if not isinstance(path, (Mapping, list, tuple)):
        file = Path(path).expanduser()
        values, matrix, code = _read(file, oriented)
        values = values.reshape(*values.shape[:3], -1)
        if tissues is None:
            raise ValueError(
                f"tissues: {file} holds {values.shape[3]} maps and does not say of what; pass their names in order, "
                'tissues=("grey", "white", "csf", "skull", "scalp", "air").'
            )
        names = _check_names(tissues, values.shape[3], str(file))
        return names, list(np.moveaxis(values, 3, 0)), matrix, code, file.name
    if not path:
        raise ValueError("path: no files; pass the maps of the tissues.")
    if isinstance(path, Mapping):
        files = [Path(file).expanduser() for file in path.values()]
        names = _check_names(list(path), len(files), "path")
    else:
        files = [Path(file).expanduser() for file in path]
        if tissues is None:
            names = [_recognise(file) for file in files]
            missing = [name for name in _NEEDED if name not in names]
            if missing:
                raise ValueError(
                    f"path: no map of {', '.join(missing)} among {', '.join(file.name for file in files)}; the field "
                    "needs the whole head: segment it with SPM (c1 to c6) or SimNIBS, or pass {name: file} with all."
                )
        else:
            names = list(tissues)
        names = _check_names(names, len(files), "path")
    maps, first, code = [], None, 0
    for file in files:
        values, matrix, code_here = _read(file, oriented)
        values = values.reshape(values.shape[:3]) if values.size == np.prod(values.shape[:3]) else values
        if values.ndim != 3:
            raise ValueError(f"path: {file} has shape {values.shape}; a map has three axes.")
        if first is None:
            first, code = matrix, code_here
        elif values.shape != maps[0].shape or np.abs(matrix - first).max() > 1e-3:
            raise ValueError(f"path: {file} lies on another grid than {files[0].name}; resample the maps to one grid.")
        maps.append(values)
    assert first is not None
    return names, maps, first, code, files[0].name


def _read(file: Path, oriented: bool) -> tuple[np.ndarray, np.ndarray, int]:
    if file.name.lower().endswith((".mgz", ".mgh")):
        values, matrix = read_mgh(file, oriented=oriented)
        return values, matrix, 0
    header = check_nifti_size(file).header
    values, matrix = read_nifti(file, oriented=oriented)
    return values, matrix, int(header["sform_code"]) or int(header["qform_code"])


def _recognise(file: Path) -> str:
    """The tissue of a map by the name that SPM, CAT or FSL gives it."""
    if match := re.match(r"[rwm]*c([1-6])(?=[^0-9])", file.name):
        return _SPM[match[1]]
    if match := re.search(r"_pve_([012])\.nii(\.gz)?$", file.name.lower()):
        return _FSL[match[1]]
    raise ValueError(
        f"path: {file.name} has no name of SPM, CAT (c1 to c6) or FSL (pve_0 to pve_2); pass a mapping, "
        '{"grey": file, "white": file, ...}, or tissues= in the order of the files.'
    )


def _check_names(names: Sequence[str], count: int, what: str) -> list[str]:
    names = [_tissues.canonical_name(str(name)) for name in names]
    if len(names) != count:
        raise ValueError(f"tissues: {len(names)} names for the {count} maps of {what}; pass one for each.")
    if len(set(names)) != len(names):
        raise ValueError(f"tissues: {', '.join(names)} holds a name twice; add these maps up.")
    if set(names) <= {"air"}:
        raise ValueError("tissues: air alone; pass the maps of the tissues.")
    return names


def _to_fractions(names: Sequence[str], maps: Sequence[np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Fractions by name, without air; sums a little above 1 are rounding and are scaled down.

    A few per cent of a tissue far from it are noise of the segmentation, and no small matter: CSF conducts two hundred
    times as well as skull. They are given to the voxel's other tissues.
    """
    fractions = {}
    for name, values in zip(names, maps, strict=True):
        values = np.asarray(values, np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{source}: the map of {name} holds NaN; set them to 0.")
        low, high = float(values.min()), float(values.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            hint = "; is it a label volume, or an image?" if high > 1 + _ROUNDING else ""
            raise ValueError(
                f"{source}: the map of {name} holds {low:.3g} to {high:.3g}; probabilities lie in [0, 1]{hint}."
            )
        fractions[name] = np.clip(values, 0, 1)
    total = np.sum(list(fractions.values()), axis=0)
    if total.max() > 1 + 5 * _ROUNDING:
        raise ValueError(
            f"{source}: the maps add up to {total.max():.3g} in a voxel; probabilities of different tissues add up to "
            "1. Leave out a map that holds another one."
        )
    whole = total / np.maximum(total, 1)
    fractions = {name: np.where(values < _NOISE, 0, values) for name, values in fractions.items()}
    scale = whole / np.maximum(np.sum(list(fractions.values()), axis=0), _NOISE)
    return {name: values * scale for name, values in fractions.items() if name != "air"}


def _fill_gaps(
    fractions: dict[str, np.ndarray], fill: str | None, source: str, has_air: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What no map accounts for inside the head given to a tissue, if that was asked for; refused otherwise."""
    if fill is not None:
        fill = _check.option(_tissues.canonical_name(fill), (*_tissues.conductivities, "air"), "fill")
    total = np.sum(list(fractions.values()), axis=0)
    inside = ndimage.binary_erosion(ndimage.binary_fill_holes(total > 0.5), iterations=2)
    gap = np.where(inside, 1 - total, 0) * (not has_air)
    share = float(gap.sum() / max(total.sum(), 1))
    if fill is None:
        if share > _LARGEST_GAP:
            raise ValueError(
                f"fill: {100 * share:.1f} % of the head in {source} belong to no map; pass the map that is missing, "
                'fill="csf" (or another tissue) for what lies between the others, or fill="air" to leave it empty.'
            )
        return fractions, []
    if fill == "air":
        return fractions, [f"{100 * share:.2g} % inside the head belong to no map and are air"]
    filled = {**fractions, fill: np.asarray(fractions.get(fill, 0.0) + gap, np.float32)}
    return filled, [f"{100 * share:.2g} % inside the head belong to no map and were taken as {fill}"]
