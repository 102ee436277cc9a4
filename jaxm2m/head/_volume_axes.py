"""The axes of a volume: their spacing, and their order and direction in the world."""

import warnings
from collections.abc import Sequence

import nibabel
import numpy as np

from jaxm2m import _check

_MANY = 20_000_000  # voxels: more than any image of 1 mm has


def measure_spacings(affine: np.ndarray, name: str) -> np.ndarray:
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"{name}: the affine must be a finite 4x4 matrix; set the volume's sform or qform.")
    spacings = np.linalg.norm(affine[:3, :3], axis=0)
    if spacings.min() < 0.05 or spacings.max() > 20:
        size = " x ".join(f"{s:.3g}" for s in spacings)
        unit = "metres" if spacings.max() < 0.05 else "micrometres" if spacings.min() > 20 else "another unit"
        raise ValueError(f"{name}: voxels of {size} mm; the affine seems to be in {unit}, convert it to mm.")
    axes = affine[:3, :3] / spacings
    products = np.abs(axes.T @ axes - np.eye(3))
    if products.max() > 2e-3:
        angle = 90 - np.degrees(np.arcsin(min(1, products.max())))
        raise ValueError(
            f"{name}: the affine is sheared (two axes meet at {angle:.1f} degrees); resample the volume to "
            "perpendicular axes."
        )
    return spacings


def choose_spacing(spacing: float | int | None, spacings: np.ndarray) -> float:
    if spacing is None:
        smallest = float(spacings.min())
        # headers hold float32: 1.00000001 is 1
        return round(smallest, 5) if abs(smallest - round(smallest, 5)) < 1e-6 * smallest else smallest
    return float(_check.positive(float(spacing), "spacing"))


def warn_of_size(shape: Sequence[int], spacing: float, name: str) -> None:
    """Say what a volume's own voxels cost, before they do, where nobody has chosen them."""
    count = float(np.prod(shape, dtype=float))
    if count > _MANY:
        warnings.warn(
            f"{name}: {' x '.join(map(str, shape))} voxels of {spacing:g} mm, the volume's own, take minutes to load "
            f"and about {count * 20 / 2**30:.0f} GB, fields more. spacing=2 (--spacing 2) loads in seconds; its voxels "
            "hold fractions of tissues.",
            stacklevel=4,
        )


def to_canonical_axes(volume: np.ndarray, affine: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Axes permuted and flipped to lie closest to x, y, z, and right-handed; the affine an exact rotation."""
    affine = np.array(affine, np.float64)
    orientation = nibabel.orientations.io_orientation(affine)
    affine = affine @ nibabel.orientations.inv_ornt_aff(orientation, volume.shape)
    volume = nibabel.orientations.apply_orientation(volume, orientation)
    if np.linalg.det(affine[:3, :3]) < 0:
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = volume.shape[0] - 1
        volume, affine = volume[::-1], affine @ flip
    spacings = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(affine[:3, :3] / spacings)
    centre = (np.array(volume.shape) - 1) / 2
    middle = affine[:3, :3] @ centre + affine[:3, 3]
    affine[:3, :3] = (u @ v) * spacings
    affine[:3, 3] = middle - affine[:3, :3] @ centre
    return np.ascontiguousarray(volume), affine
