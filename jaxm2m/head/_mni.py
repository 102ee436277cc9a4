"""From a SimNIBS head to MNI space and back, by the transforms that its folder holds.

`toMNI/Conform2MNI_nonl.nii.gz` lies on the subject's grid and holds in every voxel the MNI coordinates (mm);
`toMNI/MNI2Conform_nonl.nii.gz` lies on a grid in MNI space and holds the subject's. Folders of older versions also
have `toMNI/MNI2conform_12DOF.txt`, a matrix from MNI to the subject (mm), taken where a field is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from jaxm2m import _check
from jaxm2m.files import check_nifti_size, read_nifti

_FOLDER = "toMNI"
_TO, _BACK, _MATRIX = ("Conform2MNI_nonl", "MNI2Conform_nonl", "MNI2conform_12DOF.txt")
_FARTHEST = 500.0  # mm


@dataclass(frozen=True)
class Transforms:
    """Files of deformations to MNI space and back, and the matrix (4, 4) from MNI; None where there is none."""

    to: Path | None
    back: Path | None
    matrix: tuple[tuple[float, ...], ...] | None


def find_transforms(folder: Path) -> Transforms | None:
    """What a SimNIBS folder has of them, looked at but not read; None without any."""
    to, back = (_find_field(folder / _FOLDER, stem) for stem in (_TO, _BACK))
    matrix = _read_matrix(folder / _FOLDER / _MATRIX)
    return None if to is None and back is None and matrix is None else Transforms(to, back, matrix)


def to_mni(
    metadata: Mapping[str, Any], points: Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"]
) -> Float[np.ndarray, "*point 3"]:
    """MNI coordinates of a head's points, mm; the head by its metadata."""
    return _transform(metadata, points, "to")


def from_mni(
    metadata: Mapping[str, Any], points: Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"]
) -> Float[np.ndarray, "*point 3"]:
    """A head's coordinates of points in MNI space, mm; the head by its metadata."""
    return _transform(metadata, points, "back")


def _transform(metadata, points, way: str):
    points = np.asarray(_check.points(points, "points"), np.float64)
    if metadata["space"] == "MNI152":
        return points
    transforms = metadata.get("mni")
    field = getattr(transforms, way, None)
    if field is not None:
        return _sample_field(field, points)
    if transforms is not None and transforms.matrix is not None:
        matrix = np.array(transforms.matrix)
        matrix = np.linalg.inv(matrix) if way == "to" else matrix
        return points @ matrix[:3, :3].T + matrix[:3, 3]
    missing = f"{_FOLDER}/{_TO if way == 'to' else _BACK}.nii.gz"
    raise ValueError(
        f"head: it came without a transform {'to' if way == 'to' else 'from'} MNI space; load the SimNIBS folder "
        f"(m2m_...) that holds {missing}."
    )


def _sample_field(path: Path, points: np.ndarray) -> np.ndarray:
    values, affine = read_nifti(path)
    values = values.reshape(*values.shape[:3], 3)
    inverse = np.linalg.inv(affine)
    index = points.reshape(-1, 3) @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((index >= -0.5) & (index <= np.array(values.shape[:3]) - 0.5)).all(1)
    out = np.stack([ndimage.map_coordinates(values[..., k], index.T, order=1, mode="nearest") for k in range(3)], -1)
    good = inside & np.isfinite(out).all(1)
    if not good.all():
        x, y, z = points.reshape(-1, 3)[np.argmin(good)]
        raise ValueError(
            f"points: {int((~good).sum())} of {good.size} lie beyond the transform {path.name}, the first at "
            f"({x:.1f}, {y:.1f}, {z:.1f}) mm; leave them out."
        )
    return out.astype(np.float64).reshape(points.shape)


def _find_field(folder: Path, stem: str) -> Path | None:
    for suffix in (".nii.gz", ".nii"):
        path = folder / (stem + suffix)
        if path.exists():
            shape = tuple(n for n in check_nifti_size(path).shape if n > 1)
            if len(shape) != 4 or shape[3] != 3:
                raise ValueError(
                    f"path: {path} has shape {shape}; a deformation to or from MNI space holds x, y, z in every voxel "
                    "(nx, ny, nz, 3). Remove it, or restore it from the segmentation."
                )
            return path
    return None


def _read_matrix(path: Path) -> tuple[tuple[float, ...], ...] | None:
    if not path.exists():
        return None
    try:
        words = path.read_bytes()[:4096].decode("ascii").split()
        matrix = np.array([float(word) for word in words[:16]]).reshape(4, 4)
    except (UnicodeDecodeError, ValueError):
        matrix = np.zeros((4, 4))
    if not (np.isfinite(matrix).all() and np.allclose(matrix[3], (0, 0, 0, 1)) and np.linalg.det(matrix) > 0.1) or (
        np.abs(matrix[:3, 3]).max() > _FARTHEST
    ):
        raise ValueError(f"path: {path} is no 4x4 matrix of a transform in mm; remove it, or restore it.")
    return tuple(tuple(row) for row in matrix.tolist())
