"""A search for a coil's place: where every start went on the scalp, and what it gained."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.head import Head, MeshHead
from jaxm2m.placement import Placement
from jaxm2m.plot import _pose, _scene, style

_SKIN = (0.90, 0.88, 0.86)
# without the palest end of FIELD, which would not show on the scalp
_VALUE = LinearSegmentedColormap.from_list("value", style.FIELD(np.linspace(0.14, 1, 64)))
_HANDLE, _TICK = 34.0, 7.0  # mm
_PARTS = 12  # of a step
_SMALLEST = 52.0  # mm, half of the page's width


def search(
    placement: Placement,
    head: Head | MeshHead,
    target: ArrayLike | None = None,
    *,
    coil: Coil | None = None,
    label: str = "objective",
    title: str | None = None,
) -> Figure:
    """Draw the paths of all starts over the scalp, and the objective over their evaluations.

    The scalp is seen along the best pose's axis. Numbers tell the starts, here and there; short lines at starts and
    ends point along the coil's handle. A path on the far side of the head is drawn on the right only; values far below
    those of the better starts are drawn at the lower edge.

    Parameters
    ----------
    placement
        The result that `placement.optimize` returned.
    head
        The head whose scalp is drawn.
    target
        Point (3,), mm; the scalp point nearest to it is marked.
    coil
        The coil; its casing is outlined in the best pose.
    label
        Name of the objective, with its unit.
    title
        Title above both panels.

    Returns
    -------
    matplotlib.figure.Figure
        The scalp on the left, the values on the right.

    Raises
    ------
    ValueError
        `target` is not one point.
    """
    centres = np.asarray(placement.history.poses, np.float64)[:, :, :3, 3]
    values = np.asarray(placement.history.values, np.float64)
    known = np.isfinite(values).all(0)
    best = np.asarray(placement.pose, np.float64)
    shown = values[:, known]
    low, high = float(shown.min()), float(max(shown.max(), placement.value))
    # starts that are far below the better ones (a muscle that hardly answers) would leave no room for what matters
    low = max(low, high - max(6 * (high - float(np.percentile(shown[0], 75))), (high - low) / 20))
    if high - low < 1e-6 * max(abs(high), 1e-30):
        low, high = low - max(abs(low), 1e-30) / 2, high + max(abs(high), 1e-30) / 2
    scale = Normalize(low, high)

    figure = style.figure(10.0, 4.9)
    height = 0.86 if title else 0.92
    ax = figure.add_axes((0.012, 0.03, 0.46, height), anchor="W")
    view = _scene.make_camera(-best[:3, 2])
    _draw_scalp(ax, view, head)
    flat = view.flat(centres)
    seen = known & ~_pose.find_hidden(head, view, centres.reshape(-1, 3)).reshape(centres.shape[:2]).any(0)
    arrow = np.stack([best[:3, 3], best[:3, 3] - _HANDLE * best[:3, 1]])
    _frame_points(ax, np.concatenate([flat[:, seen].reshape(-1, 2), view.flat(arrow)]), _SMALLEST, 16.0)
    on_scalp = None
    if target is not None:
        place = np.asarray(_check.points(target, "target"), np.float64)
        if place.shape != (3,):
            raise ValueError(f"target: shape {place.shape}; give one point x, y, z in mm.")
        on_scalp = np.asarray(head.scalp.nearest(place), np.float64)
        ax.plot(*view.flat(on_scalp), **{**_CROSS, "color": "white", "markersize": 13, "markeredgewidth": 3.4})
        ax.plot(*view.flat(on_scalp), **_CROSS)
    for i in np.flatnonzero(seen):
        _draw_path(ax, flat[:, i], values[:, i], scale)
        for step, colour in ((0, style.PALE), (-1, style.INK)):
            back = view.flat(-np.asarray(placement.history.poses[step, i, :3, 1], np.float64))
            ax.plot(*np.stack([flat[step, i], flat[step, i] + _TICK * back], -1), color=colour, linewidth=1, zorder=5)
        ax.plot(*flat[0, i], "o", **_START)
        ax.plot(*flat[-1, i], "o", **_style_end(values[-1, i], scale))
        _write_number(ax, flat[0, i], flat[-1, i] - flat[0, i], str(i + 1))
    _draw_best(ax, view, best)
    style.bare(ax)
    if head.space != "sphere":
        _scene.write_letters(ax, view)
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    style.scale_bar(ax, 20.0, right - 25, bottom + 4)
    _draw_legend(ax, on_scalp is not None)
    _draw_overview(ax, view, head, best, coil)
    _draw_values(figure, placement, np.flatnonzero(known), scale, label, height)
    if title:
        figure.suptitle(title, fontsize=11, color=style.INK, y=0.975)
    return figure


_START: Any = {"markersize": 4.5, "color": "white", "markeredgecolor": style.INK, "markeredgewidth": 0.8, "zorder": 11}
_CROSS: Any = {"marker": "+", "color": style.AXES["z"], "markersize": 12, "markeredgewidth": 1.8, "zorder": 10}
_RING: Any = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": style.AXES["y"]}


def _frame_points(ax: Axes, page: np.ndarray, smallest: float, margin: float) -> None:
    """Set limits to a square that holds all points of the page, mm."""
    low, high = page.min(0), page.max(0)
    half = max(float((high - low).max()) / 2 + margin, smallest)
    x, y = (low + high) / 2
    ax.set_xlim(x - half, x + half)
    ax.set_ylim(y - half, y + half)


def _draw_path(ax: Axes, points: np.ndarray, values: np.ndarray, scale: Normalize, width: float = 2.4) -> None:
    if len(points) < 2:
        return
    # a step is divided, so that its colour goes over from the one end's to the other's
    whole = np.arange(len(points))
    fine = np.linspace(0, whole[-1], _PARTS * whole[-1] + 1)
    line = np.stack([np.interp(fine, whole, points[:, k]) for k in range(2)], -1)
    between = np.interp((fine[1:] + fine[:-1]) / 2, whole, values)
    # each reaches under the next of its step: seams would show
    first = np.arange(len(line) - 1)
    segments: Any = np.stack([line[first], line[first + 1 + (first % _PARTS < _PARTS - 1)]], 1)
    ax.plot(*line.T, color=style.INK, linewidth=width + 1.1, solid_capstyle="round", zorder=3)
    colours = _VALUE(scale(between))
    ax.add_collection(
        LineCollection(segments, colors=colours, linewidths=width, capstyle="round", zorder=4), autolim=False
    )


def _write_number(ax: Axes, start: np.ndarray, along: np.ndarray, text: str) -> None:
    """Write a start's number, on the side to which its path does not go."""
    length = float(np.linalg.norm(along))
    away = -along / length if length > 1 else np.array([0.0, 1.0])
    drawn = ax.annotate(
        text,
        (start[0], start[1]),
        xytext=(9 * away[0], 9 * away[1]),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=9,
        color=style.INK,
        zorder=12,
        annotation_clip=True,
    )
    drawn.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def _draw_best(ax: Axes, view: _scene.Camera, best: np.ndarray) -> None:
    centre: Any = view.flat(best[:3, 3])
    tip: Any = view.flat(best[:3, 3] - _HANDLE * best[:3, 1])
    ax.plot(*centre, **_RING, markeredgewidth=2.2, zorder=11)
    ax.annotate(
        "",
        tip,
        centre,
        arrowprops={"arrowstyle": "-|>", "color": style.AXES["y"], "linewidth": 2.2, "shrinkA": 6, "shrinkB": 0},
        zorder=11,
    )
    beyond = centre + (tip - centre) * (1 + 7 / max(float(np.linalg.norm(tip - centre)), 1.0))
    drawn = ax.text(
        beyond[0], beyond[1], "handle", color=style.AXES["y"], fontsize=9, ha="center", va="center", zorder=12
    )
    drawn.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def _draw_scalp(ax: Axes, view: _scene.Camera, head: Head | MeshHead) -> None:
    vertices, triangles = head.scalp.vertices, head.scalp.triangles
    _scene.draw(ax, view, vertices, triangles, np.broadcast_to(_SKIN, vertices.shape), dark=0.68, inside=0.5)


def _draw_overview(ax: Axes, view: _scene.Camera, head: Head | MeshHead, best: np.ndarray, coil: Coil | None) -> None:
    """Draw the whole head in a corner, with the page's part of it and the casing."""
    small = ax.inset_axes((0.685, 0.685, 0.31, 0.31), zorder=15)
    small.set_facecolor("white")
    _draw_scalp(small, view, head)
    points = [head.scalp.vertices]
    if coil is not None and coil.casing is not None:
        points.append(_scene.transform_points(best, coil.casing.vertices))
        lines: Any = view.flat(points[-1])[_find_outline(view, points[-1], np.asarray(coil.casing.triangles))]
        small.add_collection(LineCollection(lines, colors=style.COPPER, linewidths=1.2, zorder=2), autolim=False)
    _frame_points(small, view.flat(np.concatenate(points)), 0.0, 8.0)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    small.plot([left, right, right, left, left], [low, low, high, high, low], color=style.INK, linewidth=0.9, zorder=3)
    small.set(xticks=[], yticks=[], aspect="equal")
    small.spines[:].set(linewidth=0.6, color=style.PALE)


def _find_outline(view: _scene.Camera, corners: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the edges (n, 2) between a triangle that is seen and one that is not."""
    a, b, c = (corners[triangles[:, i]] for i in range(3))
    front = np.cross(b - a, c - a) @ view.towards > 0
    sides = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    edges, index = np.unique(sides, axis=0, return_inverse=True)
    return edges[np.bincount(index.ravel(), np.tile(front, 3)) == 1]


def _draw_legend(ax: Axes, target: bool) -> None:
    entries = [
        Line2D([], [], linestyle="none", marker="o", **_START),
        Line2D([], [], linestyle="none", marker="o", **_style_end(0.6, Normalize(0, 1))),
        Line2D([], [], linestyle="none", **{**_RING, "markersize": 8}, markeredgewidth=1.8),
    ]
    names = ["start, with its handle's direction", "end, likewise", "best"]
    if target:
        entries.append(Line2D([], [], linestyle="none", **{**_CROSS, "markersize": 8}))
        names.append("scalp nearest to the target")
    legend = ax.legend(
        entries, names, loc="lower left", fontsize=7.5, framealpha=0.85, edgecolor="none", borderpad=0.4,
        handletextpad=0.3, labelspacing=0.3, borderaxespad=0.3,
    )  # fmt: skip
    legend.set_zorder(20)


def _draw_values(
    figure: Figure, placement: Placement, known: np.ndarray, scale: Normalize, label: str, height: float
) -> None:
    """Draw each start's value over its evaluations; the scale of the colours is the axis of the values."""
    values, counts = np.asarray(placement.history.values, np.float64), np.asarray(placement.history.evaluations)
    ends = np.array([scale.vmin, scale.vmax, *([placement.checked] if np.isfinite(placement.checked) else [])])
    margin = 0.05 * np.ptp(ends)
    low, high = ends.min() - margin, ends.max() + margin
    bar = figure.add_axes((0.575, 0.13, 0.014, height - 0.105))
    ramp = _VALUE(scale(np.linspace(low, high, 256)))
    bar.imshow(ramp[:, None], aspect="auto", origin="lower", extent=(0, 1, low, high))
    if np.nanmin(values[:, known]) < ends.min():
        bar.plot(0.5, low, "v", color=ramp[0], markeredgecolor=style.INK, markersize=9, clip_on=False, zorder=0)
    bar.set_xlim(0, 1)
    bar.set_xticks([])
    bar.set_ylabel(label, fontsize=10, color=style.INK)
    bar.tick_params(labelsize=9, colors=style.INK)
    bar.spines[:].set_linewidth(0.5)

    last = max(int(counts[:, known].max()), 2)
    ax = figure.add_axes((0.6, 0.13, 0.38, height - 0.105))
    ax.set_xlim(1 - 0.09 * last, last * 1.03)
    ax.set_ylim(low, high)
    ax.set_yticks([])
    ax.set_xlabel("evaluations of value and gradient", fontsize=10, color=style.INK)
    ticks: Any = MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]).tick_values(0, last)
    ax.set_xticks([1, *ticks[(ticks > 1) & (ticks <= last)]])
    ax.spines["bottom"].set_bounds(1, last)
    ax.tick_params(labelsize=9, colors=style.INK)
    ax.spines[["top", "right", "left"]].set_visible(False)
    winner = placement.ranked[0].start
    for i in sorted(known, key=lambda i: i == winner):
        # a trial that is refused is counted, and the value stays
        count, index = np.unique(counts[:, i], return_index=True)
        line = np.stack([count, np.maximum(values[index, i], low)], -1)
        _draw_path(ax, line, line[:, 1], scale, 2.6 if i == winner else 1.3)
        ax.plot(*line[-1], "o", **_style_end(line[-1, 1], scale), clip_on=False)
    if np.isfinite(placement.checked):
        mark: Any = {"markersize": 6, "color": "white", "markeredgecolor": style.INK, "zorder": 8, "clip_on": False}
        ax.plot(last, placement.checked, "D", linestyle="none", label="best pose, checked", **mark)
        legend = ax.legend(loc="lower right", fontsize=9, framealpha=0.85, edgecolor="none", handletextpad=0.3)
        legend.set_zorder(9)
    places = _spread_labels(np.maximum(values[0, known], low), 0.042 * (high - low))
    places += max(0.0, low - places.min())
    for i, y in zip(known, places, strict=True):
        ax.text(1 - 0.03 * last, y, str(i + 1), fontsize=9, color=style.INK, ha="right", va="center")


def _spread_labels(values: np.ndarray, gap: float) -> np.ndarray:
    """Return heights of labels near `values`, at least `gap` from each other."""
    order = np.argsort(values)
    out = values[order].astype(np.float64)
    for _ in range(200):
        short = np.maximum(gap - np.diff(out), 0) / 2
        if short.max(initial=0) < 1e-3 * gap:
            break
        out[1:] += short
        out[:-1] -= short
    placed = np.empty_like(out)
    placed[order] = out
    return placed


def _style_end(value: float, scale: Normalize) -> dict[str, Any]:
    return {
        "markersize": 6,
        "color": _VALUE(scale(value)),
        "markeredgecolor": style.INK,
        "markeredgewidth": 0.9,
        "zorder": 7,
    }
