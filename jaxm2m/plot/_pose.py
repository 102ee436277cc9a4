"""A coil over a scalp."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil, Dipoles, Segments
from jaxm2m.head import Head, MeshHead
from jaxm2m.plot import _scene, style

_SKIN = (0.93, 0.83, 0.76)
_ARROW = 40.0  # mm


def pose(
    head: Head | MeshHead,
    coil: Coil,
    pose: ArrayLike,
    *,
    target: ArrayLike | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the coil's windings, casing and axes over the scalp: from the coil's side, and along its plane.

    Parameters
    ----------
    head
        The head whose scalp is drawn.
    coil
        The coil. Segments are drawn as wires, dipoles as points; the casing, where there is one, as glass.
    pose
        Pose (4, 4) of the coil, mm.
    target
        Point (3,) to mark, mm; it is drawn through the scalp.
    title
        Title above both views.

    Returns
    -------
    matplotlib.figure.Figure
        Two views side by side.

    Raises
    ------
    ValueError
        `pose` is no single rigid matrix (4, 4).
    """
    matrix = np.asarray(_check.pose(pose), np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"pose: shape {matrix.shape}; one figure shows one pose (4, 4).")
    place = None if target is None else np.asarray(_check.points(target, "target"), np.float64)
    vertices, triangles = head.scalp.vertices, head.scalp.triangles
    outward, x = -matrix[:3, 2], matrix[:3, 0]
    # the second view looks along the coil's plane, from the side on which nothing of the head stands before it
    side = matrix[:3, 1] + 0.12 * outward
    middle = (vertices.min(0) + vertices.max(0)) / 2
    if (matrix[:3, 3] - middle) @ side < 0:
        side = side - 2 * matrix[:3, 1]
    views = {
        "from the coil's side": _scene.make_camera(0.94 * outward + 0.3 * x + np.array([0, 0, 0.05])),
        "along the handle": _scene.make_camera(side),
    }
    figure = style.figure(9.6, 4.9)
    height = 0.83 if title else 0.89
    for i, (name, view) in enumerate(views.items()):
        ax = figure.add_axes((0.01 + 0.5 * i, 0.03, 0.48, height))
        _scene.draw(ax, view, vertices, triangles, np.broadcast_to(_SKIN, vertices.shape), dark=0.62, inside=0.5)
        shown = [vertices, *(points for points in _draw_coil(ax, view, head, coil, matrix) if len(points))]
        _draw_axes(ax, view, matrix)
        if place is not None:
            ax.plot(*view.flat(place), "+", color="white", markersize=13, markeredgewidth=3.2, zorder=9)
            ax.plot(*view.flat(place), "+", color=style.INK, markersize=12, markeredgewidth=1.6, zorder=10)
        _scene.set_frame(ax, view, np.concatenate(shown), margin=12)
        style.bare(ax)
        ax.set_title(name, fontsize=10, color=style.INK, pad=7)
        if head.space != "sphere":
            _scene.write_letters(ax, view)
    ax = figure.axes[-1]
    style.scale_bar(ax, 50.0, ax.get_xlim()[1] - 56, ax.get_ylim()[0] + 1)
    if title:
        figure.suptitle(title, fontsize=11, color=style.INK, y=0.98)
    return figure


def _draw_coil(
    ax: Axes, view: _scene.Camera, head: Head | MeshHead, coil: Coil, matrix: np.ndarray
) -> list[np.ndarray]:
    """Draw casing and windings, and return the points drawn."""
    drawn = []
    if coil.casing is not None:
        corners = _scene.transform_points(matrix, coil.casing.vertices)
        triangles = np.asarray(coil.casing.triangles)
        seen = ~find_hidden(head, view, corners[triangles].mean(1))
        _scene.draw_glass(ax, view, corners, triangles[seen], to_rgb("#dfe6ee"), alpha=0.55, zorder=4)
        drawn.append(corners)
    for element in coil.elements:
        if isinstance(element, Segments):
            start, end = _scene.transform_points(matrix, element.start), _scene.transform_points(matrix, element.end)
            seen = ~find_hidden(head, view, (start + end) / 2)
            order = np.argsort(view.depth(start[seen]))
            lines: Any = np.stack([view.flat(start[seen][order]), view.flat(end[seen][order])], 1)
            wires = LineCollection(lines, colors=style.COPPER, linewidths=0.9, capstyle="round", zorder=5)
            ax.add_collection(wires, autolim=False)
            drawn += [start, end]
        elif isinstance(element, Dipoles):
            points = _scene.transform_points(matrix, element.position)
            seen = ~find_hidden(head, view, points)
            across, up = view.flat(points[seen]).T
            ax.scatter(across, up, s=1.5, color=style.COPPER, linewidths=0, zorder=5)
            drawn.append(points)
    return drawn


def _draw_axes(ax: Axes, view: _scene.Camera, matrix: np.ndarray) -> None:
    origin: Any = view.flat(matrix[:3, 3])
    for i, (name, colour) in enumerate(style.AXES.items()):
        tip: Any = view.flat(matrix[:3, 3] + _ARROW * matrix[:3, i])
        if np.linalg.norm(tip - origin) < 0.2 * _ARROW:  # it points at the viewer
            continue
        ax.annotate(
            "",
            tip,
            origin,
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0},
            zorder=11,
        )
        beyond = origin + (tip - origin) * (1 + 6 / max(float(np.linalg.norm(tip - origin)), 1.0))
        ax.text(
            beyond[0],
            beyond[1],
            name,
            color=colour,
            fontsize=10,
            fontweight="bold",
            ha="center",
            va="center",
            zorder=12,
        )


def find_hidden(head: Head | MeshHead, view: _scene.Camera, points: np.ndarray) -> np.ndarray:
    """Return which points have the head between them and the viewer."""
    along = np.arange(4.0, 260.0, 8.0)
    rays = points[:, None] + along[:, None] * view.towards
    return np.any(np.asarray(head.scalp.distance(rays.astype(np.float32))) < -0.5, axis=1)
