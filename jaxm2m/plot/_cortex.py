"""|E| on the folded surface of the grey matter."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from jaxm2m import _check
from jaxm2m._isosurface import isosurface
from jaxm2m._types import ArrayLike
from jaxm2m.efield import Field, MeshField
from jaxm2m.head import Head, MeshHead
from jaxm2m.plot import _scene, style


class Ribbon(NamedTuple):
    """The surface in the middle of the grey ribbon.

    `voxels` (n, 3) and `points` (n, 3) mm are its vertices, in voxels and in space; `fold` (n,) is the light that is
    left there: 1 on a crown, 0.5 at the bottom of a fold, where much brain surrounds a vertex.
    """

    voxels: np.ndarray
    points: np.ndarray
    triangles: np.ndarray
    fold: np.ndarray


def cortex(
    field: Field | MeshField,
    *,
    view: ArrayLike | None = None,
    target: ArrayLike | None = None,
    limit: float | int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw |E| of the grey matter on a surface in the middle of the grey ribbon.

    The surface is the half level of white matter plus half the grey (a voxel's fractions), triangulated; the colour
    at a vertex is |E| of the grey voxels round it. Folds are shaded by how deep they lie. A field in tetrahedra is
    taken on its head's raster.

    Parameters
    ----------
    field
        A simulator's field; its head must have grey matter.
    view
        Direction (3,) from the brain towards the viewer, no unit. Default: the side on which the field is strongest,
        which is the coil's.
    target
        Point (3,) to mark, mm.
    limit
        Upper end of the colours, V/m. Default: 99.9th percentile of |E| in the grey voxels.
    title
        Title above the brain.

    Returns
    -------
    matplotlib.figure.Figure
        The shaded brain with the scale of its colours.

    Raises
    ------
    ValueError
        The head has no grey matter, or `view` is no direction.
    """
    brain = extract_ribbon(field.head)
    value, grey = sample_on_ribbon(field, brain)
    highest = style.limit_of(grey) if limit is None else float(limit)
    # along the coil the scale rules, not the folds: shading is weaker where the field is strong
    share = np.clip(value / highest, 0, 1)
    rgb = style.FIELD(share)[:, :3] * (brain.fold + (1 - brain.fold) * 0.5 * share)[:, None]

    if view is None:
        view = _find_view(brain.points, value)
    towards = np.asarray(_check.points(view, "view"), np.float64)
    if towards.shape != (3,) or not np.linalg.norm(towards) > 0:
        raise ValueError(f"view: {view!r}; give a direction as three numbers, not all zero.")
    camera = _scene.make_camera(towards)

    figure = style.figure(7.2, 5.6)
    ax = figure.add_axes((0.02, 0.03, 0.82, 0.88 if title else 0.94))
    _scene.set_frame(ax, camera, brain.points, margin=8)
    _scene.draw(ax, camera, brain.points, brain.triangles, rgb)
    style.bare(ax)
    style.scale_bar(ax, 50.0, ax.get_xlim()[1] - 56, ax.get_ylim()[0] + 1)
    if field.head.space != "sphere":
        _scene.write_letters(ax, camera)
    if target is not None:
        place = camera.flat(np.asarray(_check.points(target, "target"), np.float64))
        ax.plot(*place, "+", color="white", markersize=13, markeredgewidth=3.2, zorder=9)
        ax.plot(*place, "+", color="#2456a6", markersize=12, markeredgewidth=1.6, zorder=10)
    above = bool((grey > highest).any())
    style.colour_bar(figure, (0.865, 0.16, 0.022, 0.66), highest, "|E| in grey matter (V/m)", above)
    if title:
        figure.suptitle(title, fontsize=11, color=style.INK, y=0.97)
    return figure


def extract_ribbon(head: Head | MeshHead) -> Ribbon:
    """Triangulate the half level of white matter plus half the grey.

    Raises
    ------
    ValueError
        The head has no grey matter.
    """
    if "grey" not in head.tissues:
        raise ValueError(f"field: its head has no grey matter, only {', '.join(head.tissues)}; use plot.slices.")
    inside, affine = head.fraction_of("grey")
    inside, affine = inside / 2, np.asarray(affine, np.float64)
    if "white" in head.tissues:
        inside = inside + head.fraction_of("white")[0]
    spacing = float(np.linalg.norm(affine[:3, 0]))
    index, triangles = _extract_surface(inside, spacing)
    buried = _interpolate(ndimage.gaussian_filter(inside, 4.5 / spacing), index)
    low, high = np.percentile(buried, (3, 97))
    fold = 1 - 0.5 * np.clip((buried - low) / max(high - low, 0.3), 0, 1)
    return Ribbon(index, index @ affine[:3, :3].T + affine[:3, 3], triangles, fold)


def sample_on_ribbon(field: Field | MeshField, brain: Ribbon) -> tuple[np.ndarray, np.ndarray]:
    """Return |E| (V/m) at the vertices of its head's ribbon, and in all grey voxels."""
    magnitude, tissue, affine = field.in_voxels()
    mask = tissue == field.head.tissues.index("grey")
    # |E| between grey voxels only: other tissues have other fields
    grey = mask.astype(np.float32)
    wide = 1.0 / float(np.linalg.norm(affine[:3, 0]))
    weight = ndimage.gaussian_filter(grey, wide, truncate=3)
    value = ndimage.gaussian_filter(grey * magnitude, wide, truncate=3)
    return _interpolate(value, brain.voxels) / np.maximum(_interpolate(weight, brain.voxels), 1e-6), magnitude[mask]


def _extract_surface(inside: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (index coordinates) and triangles of the half level."""
    # coarse voxels are divided first: their triangles would show
    fine = np.pad(inside.astype(np.float32), 2)
    shape = np.array(fine.shape)
    fine = ndimage.zoom(fine, max(1.0, spacing / 2), order=3)
    scale = (shape - 1) / (np.array(fine.shape) - 1)
    narrow, wide = (ndimage.gaussian_filter(fine, mm / (spacing * scale)) for mm in (max(0.7, 0.4 * spacing), 4.0))
    # inside a ribbon that is thick for its voxels the level is a plateau: a wider mean tells its middle
    fine = 0.85 * narrow + 0.15 * wide
    vertices, triangles = isosurface(fine, 0.5, gradient_direction="ascent")
    return vertices * scale - 2, triangles


def _interpolate(volume: np.ndarray, index: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(volume, index.T, order=1, mode="nearest")


def _find_view(points: np.ndarray, value: np.ndarray) -> np.ndarray:
    strong = value >= np.percentile(value, 99)
    away = points[strong].mean(0) - (points.min(0) + points.max(0)) / 2
    length = np.linalg.norm(away)
    return away / length if length > 1 else np.array([0.0, 0.0, 1.0])
