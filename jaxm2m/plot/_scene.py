"""Three dimensions on paper: a parallel projection, and shaded triangles drawn from far to near.

matplotlib's own 3-D axes sort whole collections and shade facets; here each triangle is sorted (painter's algorithm)
and its vertices' colours are interpolated (Gouraud), which is quick and smooth enough to print.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import TriMesh
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation


class Camera(NamedTuple):
    """An orthographic view: unit vectors to the right, up, and towards the viewer."""

    right: np.ndarray
    up: np.ndarray
    towards: np.ndarray

    def flat(self, points: Any) -> Float[np.ndarray, "*n 2"]:
        """Project points (mm) onto the page (mm)."""
        return np.asarray(points, np.float64) @ np.stack([self.right, self.up], -1)

    def depth(self, points: Any) -> Float[np.ndarray, "*n"]:
        """Return how near the points are to the viewer, mm."""
        return np.asarray(points, np.float64) @ self.towards


def make_camera(towards: Any, up: Any = (0.0, 0.0, 1.0)) -> Camera:
    """Make the view from the direction `towards`, with `up` upwards on the page."""
    towards = np.asarray(towards, np.float64)
    towards = towards / np.linalg.norm(towards)
    right = np.cross(up, towards)
    if np.linalg.norm(right) < 1e-3:  # seen from straight above or below: the nose goes up
        right = np.cross((0.0, 1.0, 0.0), towards)
    right /= np.linalg.norm(right)
    return Camera(right, np.cross(towards, right), towards)


def vertex_normals(vertices: Float[np.ndarray, "n 3"], triangles: Int[np.ndarray, "m 3"]) -> Float[np.ndarray, "n 3"]:
    """Compute unit normals at the vertices, the mean of their triangles' by area."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    out = np.stack(
        [sum(np.bincount(triangles[:, i], face[:, axis], len(vertices)) for i in range(3)) for axis in range(3)],
        -1,
    )
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return out / np.where(length > 0, length, 1)


def transform_points(matrix: np.ndarray, points: Any) -> Float[np.ndarray, "*n 3"]:
    """Bring points (mm) of the coil's frame into the head's space, by a pose (4, 4)."""
    return np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def draw(
    ax: Axes,
    view: Camera,
    vertices: Float[np.ndarray, "n 3"],
    triangles: Int[np.ndarray, "m 3"],
    rgb: Float[np.ndarray, "n 3"],
    *,
    dark: float | int = 0.55,
    inside: float | int | None = None,
    zorder: float | int = 1,
) -> None:
    """Draw a shaded surface.

    Parameters
    ----------
    rgb
        Colours at the vertices.
    dark
        The part of them that is left in the shade.
    inside
        Where the surface is open, the part left on its inner side; by default that is not drawn.
    """
    normals = vertex_normals(vertices, triangles)
    light = view.towards + 0.55 * view.up - 0.45 * view.right
    light /= np.linalg.norm(light)
    lit = np.clip(normals @ light, 0, 1)
    halfway = light + view.towards
    shine = np.clip(normals @ (halfway / np.linalg.norm(halfway)), 0, 1) ** 30
    colour = np.clip(rgb * (dark + (1 - dark) * lit)[:, None] * 1.04 + 0.07 * shine[:, None], 0, 1)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    front = np.cross(b - a, c - a) @ view.towards > 0
    if inside is not None:
        _draw_triangles(ax, view, vertices, triangles[~front], rgb * inside, zorder - 0.5)
    _draw_triangles(ax, view, vertices, triangles[front], colour, zorder)


def draw_glass(
    ax: Axes,
    view: Camera,
    vertices: Float[np.ndarray, "n 3"],
    triangles: Int[np.ndarray, "m 3"],
    rgb: tuple[float, float, float],
    *,
    alpha: float,
    zorder: float | int,
) -> None:
    """Draw a shaded surface that lets what lies behind it shine through.

    Transparent triangles would each show their edges: the surface is painted apart, and laid on as a whole.
    """
    if len(triangles) == 0:
        return
    flat = view.flat(vertices)
    low, high = flat.min(0) - 2, flat.max(0) + 2
    width, height = (high - low) / 25.4
    figure = Figure(figsize=(width, height), dpi=120)
    canvas = FigureCanvasAgg(figure)
    inset = figure.add_axes((0, 0, 1, 1))
    inset.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    inset.set_axis_off()
    figure.patch.set_alpha(0)
    draw(inset, view, vertices, triangles, np.broadcast_to(rgb, vertices.shape), dark=0.6)
    canvas.draw()
    image = np.array(canvas.buffer_rgba())
    image[..., 3] = (image[..., 3] * alpha).astype(np.uint8)
    ax.imshow(image, extent=(low[0], high[0], low[1], high[1]), zorder=zorder, interpolation="bilinear")


def _draw_triangles(ax: Axes, view: Camera, vertices: Any, triangles: Any, rgb: Any, zorder: float | int) -> None:
    """Draw triangles from far to near."""
    if len(triangles) == 0:
        return
    order = np.argsort(view.depth(vertices)[triangles].sum(1))
    flat = view.flat(vertices)
    mesh = TriMesh(Triangulation(flat[:, 0], flat[:, 1], triangles[order]), zorder=zorder, rasterized=True)
    colour: Any = np.column_stack([rgb, np.ones(len(rgb))])
    mesh.set_facecolor(colour)
    ax.add_collection(mesh, autolim=False)


def set_frame(ax: Axes, view: Camera, vertices: np.ndarray, margin: float | int = 6.0) -> None:
    """Set limits that hold all `vertices`."""
    flat = view.flat(vertices)
    low, high = flat.min(0) - margin, flat.max(0) + margin
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])


def write_letters(ax: Axes, view: Camera) -> None:
    """Write R, L, A, P, S, I at the edges of the page, where a world axis lies near to the page's."""
    names = ("L", "R"), ("P", "A"), ("I", "S")
    for page, turned in enumerate((view.right, view.up)):
        axis = int(np.abs(turned).argmax())
        if np.abs(turned[axis]) < 0.75:
            continue
        for side, letter in zip((0.015, 0.985), names[axis] if turned[axis] > 0 else names[axis][::-1], strict=True):
            x, y = (side, 0.5) if page == 0 else (0.5, side)
            ax.text(x, y, letter, transform=ax.transAxes, ha="center", va="center", fontsize=10, color="#555555")
