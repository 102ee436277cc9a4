"""|E| in three planes through a point."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.efield import Field, MeshField
from jaxm2m.head import Head, MeshHead
from jaxm2m.plot import style

_PIXEL = 0.5  # mm
MARK = "#2456a6"
_PLANES = {"sagittal": (0, 1, 2), "coronal": (1, 0, 2), "axial": (2, 0, 1)}  # fixed, right and up on the page
_LETTERS = ("L", "R"), ("P", "A"), ("I", "S")
_OUTSIDE = {"scalp": "#e7ddd3", **dict.fromkeys(("skull", "compact_bone", "spongy_bone"), "#f7f4ee")}


def slices(
    field: Field | MeshField,
    at: ArrayLike,
    *,
    tissues: tuple[str, ...] = ("white", "grey", "csf"),
    limit: float | int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw |E| in the sagittal, coronal and axial plane through a point, with the tissues' outlines.

    Each pixel takes the field of its own tissue, interpolated between voxels of that tissue only: the normal component
    jumps at interfaces, and a picture must not blur it. A field in tetrahedra is taken on its head's raster.

    Parameters
    ----------
    field
        A simulator's field.
    at
        Point (3,) in world coordinates, mm; the planes are those of the world's axes, whatever the head's grid.
    tissues
        Names of the tissues where |E| is coloured; others are drawn in pale tones. (|E| in bone and skin is several
        times that in the brain and would rule the scale.)
    limit
        Upper end of the colours, V/m. Default: 99.9th percentile of the coloured voxels.
    title
        Title above the planes.

    Returns
    -------
    matplotlib.figure.Figure
        The three planes side by side, on one scale.

    Raises
    ------
    ValueError
        `at` is not one point, or lies outside the head; or the head lacks one of `tissues`.
    """
    point = np.asarray(_check.points(at, "at"), np.float64)
    if point.shape != (3,):
        raise ValueError(f"at: shape {point.shape}; give one point x, y, z in mm.")
    head = field.head
    for name in tissues:
        _check.option(name, head.tissues, "tissues")
    numbers = [head.tissues.index(name) for name in tissues]
    magnitude, tissue, affine = field.in_voxels()
    inverse = np.linalg.inv(np.asarray(affine, np.float64))
    coloured = np.isin(tissue, numbers)
    highest = style.limit_of(magnitude[coloured]) if limit is None else float(limit)

    low, high = _find_extent(np.asarray(head.labels), np.asarray(head.labels_affine, np.float64))
    if ((point < low) | (point > high)).any():
        raise ValueError(f"at: {point.round(1).tolist()} mm is outside the head, {low.round()} to {high.round()} mm.")
    size = high - low
    # the planes stand side by side on one scale
    widths = [size[right] for _, right, _ in _PLANES.values()]
    tallest = max(size[up] for *_, up in _PLANES.values())
    scale = 9.6 / sum(widths)  # inches a mm
    figure = style.figure(11.2, tallest * scale + (1.05 if title else 0.7))
    width, height = figure.get_size_inches()
    left = 0.35
    for (name, (fixed, right, up)), extent in zip(_PLANES.items(), widths, strict=True):
        bottom = 0.3 + (tallest - size[up]) * scale / 2
        ax = figure.add_axes((left / width, bottom / height, extent * scale / width, size[up] * scale / height))
        _draw_plane(ax, head, magnitude, tissue, inverse, numbers, point, (fixed, right, up), low, high, highest)
        label = f"{name}, {'xyz'[fixed]} = {point[fixed]:g} mm".replace("-", "\N{MINUS SIGN}")
        middle = (left + extent * scale / 2) / width
        figure.text(middle, (0.42 + tallest * scale) / height, label, fontsize=10, color=style.INK, ha="center")
        left += extent * scale + 0.12
    _, right, up = list(_PLANES.values())[-1]
    style.scale_bar(figure.axes[-1], 50.0, high[right] - 55, low[up] - 1)
    above = bool((magnitude[coloured] > highest).any())
    bar = (1 - 0.8 / width, (0.3 + 0.15 * tallest * scale) / height, 0.15 / width, 0.7 * tallest * scale / height)
    style.colour_bar(figure, bar, highest, "|E| (V/m)", above)
    if title:
        figure.suptitle(title, fontsize=11, color=style.INK, y=1 - 0.08 / height, va="top")
    return figure


def _draw_plane(
    ax: Axes, head: Head | MeshHead, magnitude, tissue, inverse, numbers, point, axes, low, high, highest
) -> None:
    fixed, right, up = axes
    u = np.arange(low[right], high[right] + _PIXEL / 2, _PIXEL)
    v = np.arange(low[up], high[up] + _PIXEL / 2, _PIXEL)
    world = np.empty((len(v), len(u), 3))
    world[..., fixed], world[..., right], world[..., up] = point[fixed], u, v[:, None]

    share = _sample_fractions(head, world)
    nearest = np.where(share.sum(0) > 0.5, share.argmax(0), -1)
    picture = np.ones((*nearest.shape, 3))
    for k, name in enumerate(head.tissues):
        picture[nearest == k] = _convert_colour(_OUTSIDE.get(name, "#efece6"))
    index = world @ inverse[:3, :3].T + inverse[:3, 3]
    for k in numbers:
        here = nearest == k
        if not here.any():
            continue
        where = index[here].T
        inside_tissue = (tissue == k).astype(np.float32)
        weight = ndimage.map_coordinates(inside_tissue, where, order=1)
        value = ndimage.map_coordinates(inside_tissue * magnitude, where, order=1)
        # a pixel without a voxel of its tissue beside it takes the nearest voxel's
        close = ndimage.map_coordinates(magnitude, where, order=0, mode="nearest")
        value = np.where(weight > 0.02, value / np.maximum(weight, 1e-6), close)
        picture[here] = style.FIELD(np.clip(value / highest, 0, 1))[:, :3]
    edge = _PIXEL / 2
    ax.imshow(
        picture, origin="lower", extent=(u[0] - edge, u[-1] + edge, v[0] - edge, v[-1] + edge), interpolation="none"
    )
    outlines = {"white": 0.35, "grey": 0.7, "csf": 0.6, "skull": 0.6, "scalp": 0.9}
    if "skull" not in head.tissues:
        outlines["spongy_bone"] = outlines["skull"]
    for k, name in enumerate(head.tissues):
        # a tissue's outer boundary: all that lies inside of it
        inside = share[: k + 1].sum(0) if name in outlines else None
        if inside is not None and inside.min() < 0.5 < inside.max():
            ax.contour(u, v, inside, levels=[0.5], colors=style.INK, linewidths=outlines[name], alpha=0.8)
    ax.plot(point[right], point[up], "o", markersize=9, markerfacecolor="none", markeredgecolor=MARK, markeredgewidth=1)
    for line, across in ((ax.axvline, right), (ax.axhline, up)):
        # ticks at the frame, where they hide nothing
        for end in ((0.0, 0.06), (0.94, 1.0)):
            line(point[across], *end, color=MARK, linewidth=1)
    ax.set_xlim(u[0], u[-1])
    ax.set_ylim(v[0], v[-1])
    style.bare(ax)
    if head.space != "sphere":
        for page, axis in enumerate((right, up)):
            for side, letter in zip((0.018, 0.982), _LETTERS[axis], strict=True):
                x, y = (side, 0.5) if page == 0 else (0.5, side)
                ax.text(x, y, letter, transform=ax.transAxes, ha="center", va="center", fontsize=10, color="#555555")


def _find_extent(labels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the box of the head in world axes, mm, with a margin."""
    ranges = []
    for axis in range(3):
        along = np.flatnonzero(labels.any(tuple(a for a in range(3) if a != axis)))
        ranges.append((along[0], along[-1]) if len(along) else (0, labels.shape[axis] - 1))
    corners = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]
    return corners.min(0) - 9, corners.max(0) + 9


def _sample_fractions(head: Head | MeshHead, world: np.ndarray) -> np.ndarray:
    """Return how much of each tissue the labels hold round each pixel, (n_tissue, v, u)."""
    inverse = np.linalg.inv(np.asarray(head.labels_affine, np.float64))
    index = np.moveaxis(world @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    labels = np.asarray(head.labels)
    low = np.clip(np.floor(index.reshape(3, -1).min(1)).astype(int) - 1, 0, None)
    high = np.ceil(index.reshape(3, -1).max(1)).astype(int) + 2
    block = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    index = index - low[:, None, None]
    out = np.stack(
        [ndimage.map_coordinates((block == k + 1).astype(np.float32), index, order=1) for k in range(len(head.tissues))]
    )
    # the labels' steps are rounded off
    wide = 0.6 * float(np.linalg.norm(np.asarray(head.labels_affine)[:3, 0])) / _PIXEL
    return ndimage.gaussian_filter(out, (0, wide, wide))


def _convert_colour(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)
