"""What the figures share: colours, canvas, scale bar."""

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# lightness falls evenly, so that the map reads in grey as well and shading a surface leaves its order
FIELD = LinearSegmentedColormap.from_list(
    "field", ["#efece6", "#fbe2a6", "#f9b35c", "#ec7133", "#c4283a", "#8a1246", "#45123f"]
)
INK = "#222222"
PALE = "#8a8a8a"
COPPER = "#b4561f"
AXES = {"x": "#c0392b", "y": "#1e8449", "z": "#2456a6"}  # of the coil's frame


class Picture(Figure):
    """A figure that a notebook shows as the value of a cell, without pyplot."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def figure(width: float, height: float) -> Figure:
    """Make an empty figure (inches) that belongs to no window and no global list."""
    canvas = Picture(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(canvas)
    return canvas


def bare(ax: Axes) -> None:
    """Give axes of an image equal scales, no frame, no ticks."""
    ax.set_aspect("equal")
    ax.set_axis_off()


def scale_bar(ax: Axes, length: float, x: float, y: float) -> None:
    """Draw a bar of `length` mm that begins at (x, y), in data coordinates (mm)."""
    ax.plot([x, x + length], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=20, clip_on=False)
    ax.annotate(
        f"{length:g} mm",
        (x + length / 2, y),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
        color=INK,
        zorder=20,
        annotation_clip=False,
    )


def colour_bar(figure: Figure, where: tuple[float, float, float, float], limit: float, label: str, above: bool) -> None:
    """Draw the scale of `FIELD` from 0 to `limit`, standing at `where` (figure fractions)."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    ax = figure.add_axes(where)
    bar: Any = figure.colorbar(ScalarMappable(Normalize(0, limit), FIELD), cax=ax, extend="max" if above else "neither")
    bar.set_label(label, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_linewidth(0.5)


def limit_of(values: np.ndarray, share: float = 99.9) -> float:
    """Return the upper end of a colour scale: a percentile, so that one voxel does not set it; 1 where all is zero."""
    top = float(np.percentile(values, share)) if values.size else 0.0
    return top if np.isfinite(top) and top > 0 else 1.0
