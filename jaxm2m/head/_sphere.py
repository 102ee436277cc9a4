"""Concentric shells with exact volume fractions, for tests and teaching."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m.head import _distance
from jaxm2m.head._head import Head, cubic, from_fractions

_LINES = 12  # per edge of a cut voxel
_LARGEST = 7e7  # voxels: 0.5 mm for a head


def sphere(
    radii: Sequence[float | int] | np.ndarray = (70, 78, 80, 86, 92),
    spacing: float | int = 2.0,
    *,
    centre: Sequence[float | int] | np.ndarray = (0.0, 0.0, 0.0),
    rotation: np.ndarray | None = None,
    tissues: Sequence[str] = ("white", "grey", "csf", "skull", "scalp"),
    conductivity: Mapping[str, float | int] | None = None,
    margin: int = 2,
) -> Head:
    """Build concentric spherical shells on a cubic grid, with exact volume fractions.

    A voxel that a sphere cuts is crossed by 12 x 12 lines along the axis closest to the sphere's normal; along each the
    length inside the sphere is exact. A fraction is wrong by less than 1e-3 (2e-4 root mean square), the volume of a
    shell's ball by less than 1e-5 of itself.

    Parameters
    ----------
    radii
        (n_tissue,) radii of the shells, inside to outside, mm.
    spacing
        Edge of a voxel, mm.
    centre
        (3,) centre of the spheres, mm. Voxel centres lie at `rotation` times whole multiples of `spacing`, so that a
        centre which is no such multiple is off the grid.
    rotation
        (3, 3) rotation of the grid's axes against the world's (no unit). Default: none.
    tissues
        Names, inside to outside.
    conductivity
        S/m by name, over the defaults.
    margin
        Number of voxels of air round the outer sphere.

    Returns
    -------
    Head
        With the spheres' exact distances as `scalp` and `cortex`, and labels of half the spacing.

    Raises
    ------
    ValueError
        Radii that do not grow, numbers of radii and tissues that differ, a matrix that is no rotation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> head = jm.head.sphere(radii=(70, 78, 80, 86, 92), spacing=8.0)
    >>> head.tissues
    ('white', 'grey', 'csf', 'skull', 'scalp')
    >>> print(f"{float(head.scalp.distance(jnp.array([0.0, 0.0, 100.0]))):.1f} mm from the scalp")
    8.0 mm from the scalp
    """
    r = _check.positive(np.asarray(radii, np.float64), "radii")
    _check.positive(float(spacing), "spacing")
    middle = np.asarray(_check.points(np.asarray(centre, np.float64), "centre"))
    if r.ndim != 1 or len(r) != len(tissues):
        raise ValueError(f"radii: {r.size} for {len(tissues)} tissues; one radius for each tissue is needed.")
    if (np.diff(r) <= 0).any():
        raise ValueError(f"radii: {tuple(radii)} do not grow; give them inside to outside.")
    turn = np.eye(3) if rotation is None else np.asarray(rotation, np.float64)
    frame = np.eye(4)
    frame[:3, :3] = turn
    if turn.shape != (3, 3) or np.abs(np.linalg.norm(turn, axis=0) - 1).max() > 1e-6:
        raise ValueError(f"rotation: found shape {turn.shape}; a (3, 3) matrix with unit columns is needed.")
    turn = cubic(frame, "rotation")[:3, :3]
    local = middle @ turn / spacing  # the centre in voxels
    low = np.floor(local - r[-1] / spacing).astype(int) - margin
    high = np.ceil(local + r[-1] / spacing).astype(int) + margin
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = affine[:3, :3] @ low
    shape = tuple((high - low + 1).tolist())
    if np.prod(shape, dtype=float) > _LARGEST:
        raise ValueError(f"spacing: {spacing} mm makes {shape} voxels; take a coarser one.")
    fractions = np.empty((len(r), *shape), np.float32)
    inner: np.ndarray | float = 0.0
    for k, radius in enumerate(r):
        ball = _ball_fractions(shape, local - low, radius / spacing)
        fractions[k] = ball - inner
        inner = ball
    names = tuple(tissues)
    labels, labels_affine = _sample_labels(shape, local - low, r / spacing, affine)
    return from_fractions(
        np.clip(fractions, 0, 1, out=fractions),
        affine,
        names,
        conductivity=conductivity,
        labels=labels,
        labels_affine=labels_affine,
        scalp=_distance.build_ball(middle, r[-1], turn, spacing=4.0, padding=80.0),
        cortex=_distance.build_ball(middle, r[names.index("white")], turn, spacing=4.0, padding=40.0)
        if "white" in names
        else None,
        space="sphere",
        source=f"spheres of {', '.join(f'{x:g}' for x in r)} mm",
    )


def _ball_fractions(shape: tuple[int, ...], centre: np.ndarray, radius: float) -> Float[np.ndarray, "nx ny nz"]:
    """Fraction of a ball in unit voxels; lengths in voxels."""
    x, y, z = (np.arange(n) - c for n, c in zip(shape, centre, strict=True))
    distance = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    out = (distance < radius).astype(np.float64)
    cut = np.abs(distance - radius) < math.sqrt(3) / 2 + 1e-9
    p = np.stack([axis[i] for axis, i in zip((x, y, z), np.nonzero(cut), strict=True)], -1)
    out[cut] = _cut_fraction(p, radius)
    return out


def _cut_fraction(p: np.ndarray, radius: float) -> np.ndarray:
    """Fraction of unit voxels centred at p (n, 3) inside the ball round the origin."""
    p = np.sort(np.abs(p), axis=1)  # the ball's symmetries: the last axis is the closest to the normal
    t = (np.arange(_LINES) + 0.5) / _LINES - 0.5
    out = np.zeros(len(p))
    for a in t:
        for b in t:
            half = np.sqrt(np.maximum(radius**2 - (p[:, 0] + a) ** 2 - (p[:, 1] + b) ** 2, 0))
            out += np.clip(half, p[:, 2] - 0.5, p[:, 2] + 0.5) - np.clip(-half, p[:, 2] - 0.5, p[:, 2] + 0.5)
    return out / _LINES**2


def _sample_labels(shape, centre, radii, affine):
    """Labels at voxels' centres on a grid of half the spacing."""
    x, y, z = ((np.arange(2 * n) + 0.5) / 2 - 0.5 - c for n, c in zip(shape, centre, strict=True))
    labels = np.empty((len(x), len(y), len(z)), np.uint8)
    plane = y[:, None] ** 2 + z**2
    for i, xi in enumerate(x):
        inside = np.searchsorted(radii**2, plane + xi**2, side="right")
        labels[i] = np.where(inside < len(radii), inside + 1, 0)
    h = float(np.linalg.norm(affine[:3, 0]))
    return labels, _distance.regrid(affine, h, h / 2)
