"""Densities over cortex that muscles are driven from, and how sure they are."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator, MultipleLocator
from scipy import ndimage
from scipy.spatial import cKDTree

from jaxm2m import _check
from jaxm2m.muscle import Sources
from jaxm2m.plot import style

_PLANES = ((1, 2, 0), (0, 2, 1), (0, 1, 2))  # right, up, along which is summed: sagittal, coronal, axial
_FALL = 0.1  # of the peak: what is less is cropped
_WIDTH = 7.6  # inches, of the panels of a row
_LEFT, _DOWN, _BAR = 1.0, 0.24, 1.0  # inches: beside and between the rows, of a colour bar with its numbers
_SPACES = 0.0, 0.12, 0.56  # inches, before each panel: room for numbers where the axis changes
_BESIDE = sum(_SPACES)


def sources(sources: Sources, muscles: str | Sequence[str] | None = None, *, title: str | None = None) -> Figure:
    """Draw where muscles are driven from: their densities, summed along each axis, and how sure these are.

    A row a muscle: the mean of the density over the posterior seen along x, y and z, then its standard deviation, each
    in colours of its own. Marked are the hot spot (dot) and the radii about it that hold 50 and 90 % of its posterior
    (circles). Pale is grey matter, all of it along the view.

    Parameters
    ----------
    sources
        The sources that `muscle.fit_sources` returned.
    muscles
        One muscle, or those to be drawn; None: all of which the session says something.
    title
        Title above all panels.

    Returns
    -------
    matplotlib.figure.Figure
        Six panels per muscle, axes in mm of the session's space.

    Raises
    ------
    ValueError
        Muscles that there are not, or of which the session says nothing.
    """
    names = _choose(sources, muscles)
    index = [sources.muscles.index(name) for name in names]
    points = np.asarray(sources.points, np.float64)
    projections = [_Projection(points, plane) for plane in _PLANES]
    pictures = [p.describe(sources, index) for p in projections]
    low, high = _crop(projections, pictures, sources.hotspots().loc[names])
    size = high - low

    scale = _WIDTH / (2 * sum(size[right] for right, _, _ in _PLANES))  # inches a mm
    row_height = scale * max(size[up] for _, up, _ in _PLANES)
    above, under = 0.85 if title else 0.5, 0.75
    block = _WIDTH / 2 + _BESIDE + _BAR
    width = _LEFT + 2 * block - 0.1
    height = above + len(names) * (row_height + _DOWN) - _DOWN + under
    figure = style.figure(width, height)
    spots = sources.hotspots()
    step = next((s for s in (2, 5, 10, 20, 50, 100) if size.max() / s < 5), 200)
    for row, (k, name) in enumerate(zip(index, names, strict=True)):
        bottom = height - above - row * (row_height + _DOWN) - row_height
        lowest = row == len(names) - 1
        for quantity, label in enumerate(("mean", "standard deviation")):
            limit = max(float(picture[quantity, row].max()) for picture in pictures)
            x = start = _LEFT + quantity * block
            for projection, picture, space in zip(projections, pictures, _SPACES, strict=True):
                right, up, _ = projection.plane
                x += space
                box = (x / width, bottom / height, size[right] * scale / width, size[up] * scale / height)
                ax = figure.add_axes(box)
                projection.draw(ax, picture[quantity, row], limit)
                _mark(ax, spots.iloc[k], (right, up))
                _set_axes(ax, (right, up), low, high, step)
                # z is told by the first panel, y of the last by itself
                ax.tick_params(labelbottom=lowest, labelleft=right == 1 or up == 1)
                if lowest:
                    ax.set_xlabel(f"{'xyz'[right]} (mm)", fontsize=8.5, color=style.INK, labelpad=2)
                if right == 1 or up == 1:
                    ax.set_ylabel(f"{'xyz'[up]} (mm)", fontsize=8.5, color=style.INK, labelpad=1)
                x += size[right] * scale
            bar = ((x + 0.08) / width, bottom / height, 0.09 / width, row_height / height)
            style.colour_bar(figure, bar, limit, "", above=False)
            figure.axes[-1].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            figure.axes[-1].tick_params(labelsize=7.5, length=2, pad=2)
            if row == 0:
                figure.axes[-1].set_title("%/cm²", fontsize=7.5, pad=4, loc="left", color=style.INK)
                figure.text(start / width, 1 - (above - 0.12) / height, label, fontsize=9.5, color=style.INK,
                            va="bottom")  # fmt: skip
        figure.text(0.12 / width, (bottom + row_height / 2) / height, name, fontsize=10, color=style.INK, va="center",
                    weight="bold")  # fmt: skip
    _add_legend(figure, _LEFT / width)
    if title:
        figure.text(_LEFT / width, 1 - 0.22 / height, title, fontsize=11, color=style.INK, va="center")
    return figure


class _Projection:
    """Sums along one axis of the world, in pixels of the points' spacing."""

    def __init__(self, points: np.ndarray, plane: tuple[int, int, int]):
        self.plane = plane
        flat = points[:, plane[:2]]
        away = cKDTree(points).query(points, k=min(2, len(points)))[0]
        self.pixel = max(float(np.median(away[..., -1])), 0.5)
        self.origin = flat.min(0) - 2.5 * self.pixel  # edge of the first pixel: two empty ones round the points
        shape = np.floor((flat.max(0) - self.origin) / self.pixel).astype(int) + 3
        self.shape = int(shape[1]), int(shape[0])
        cell = np.floor((flat - self.origin) / self.pixel).astype(int)
        self._cell = cell[:, 1] * self.shape[1] + cell[:, 0]
        self.grey = self._blur(np.bincount(self._cell, minlength=shape.prod()).reshape(self.shape).astype(float)) > 0.15

    def describe(self, sources: Sources, index: list[int]) -> np.ndarray:
        """Return mean and standard deviation over the draws, (2, n_muscle, up, right), % a cm^2."""
        kernel = np.asarray(sources.kernel, np.float64)
        bumps = np.stack([np.bincount(self._cell, row, self.shape[0] * self.shape[1]) for row in kernel])
        bumps = self._blur(bumps.reshape(-1, *self.shape)).reshape(len(kernel), -1)
        draws = np.asarray(sources.weights, np.float64)[:, index] @ bumps
        pictures = np.stack([draws.mean(0), draws.std(0)]) * 100 / (self.pixel / 10) ** 2
        return pictures.reshape(2, len(index), *self.shape)

    def draw(self, ax: Axes, picture: np.ndarray, limit: float) -> None:
        right, up = (self.origin[i] + self.pixel * np.array([0, self.shape[1 - i]]) for i in (0, 1))
        visible = np.ma.masked_where(~self.grey, picture)
        ax.imshow(visible, origin="lower", extent=(*right, *up), cmap=style.FIELD, vmin=0, vmax=limit,
                  interpolation="nearest", aspect="auto")  # fmt: skip

    def centres(self, axis: int) -> np.ndarray:
        """Return the pixels' middles along the page's axis 0 (right) or 1 (up), mm."""
        return self.origin[axis] + self.pixel * (np.arange(self.shape[1 - axis]) + 0.5)

    @staticmethod
    def _blur(pictures: np.ndarray) -> np.ndarray:
        """Smooth a little: points of a turned grid fall into pixels unevenly."""
        return ndimage.gaussian_filter(pictures, 0.6, mode="constant", axes=(-2, -1), truncate=3.0)


def _choose(sources: Sources, muscles: str | Sequence[str] | None) -> list[str]:
    reasons = dict(sources.unidentified)
    if muscles is None:
        names = [name for name in sources.muscles if name not in reasons]
        if not names:
            raise ValueError("sources: the session says nothing of any muscle; see sources.unidentified.")
        return names
    names = [muscles] if isinstance(muscles, str) else list(muscles)
    if not names:
        raise ValueError("muscles: none; name those to be drawn, or pass None for all.")
    for name in names:
        _check.option(name, sources.muscles, "muscles")
        if name in reasons:
            raise ValueError(f"muscles: the session says nothing of {name} ({reasons[name]}); leave it out.")
    return names


def _crop(
    projections: list[_Projection], pictures: list[np.ndarray], spots: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Return the box that holds all that is seen of the densities and the circles, mm."""
    places, radius = spots[["x", "y", "z"]].to_numpy(), spots["radius_90"].to_numpy()[:, None]
    low, high = (places - radius).min(0), (places + radius).max(0)
    for projection, picture in zip(projections, pictures, strict=True):
        mean = picture[0]
        visible = (mean > _FALL * mean.max((1, 2), keepdims=True)).any(0)
        for axis in (0, 1):
            along = projection.centres(axis)[visible.any(axis)]
            world = projection.plane[axis]
            low[world], high[world] = min(low[world], along.min()), max(high[world], along.max())
    return low - 3, high + 3


def _mark(ax: Axes, spot: pd.Series, axes: tuple[int, int]) -> None:
    x, y = (float(spot["xyz"[axis]]) for axis in axes)
    ax.plot(x, y, "o", color=style.INK, markersize=2.8, markeredgecolor="white", markeredgewidth=0.6, zorder=5)
    for share, line in ((50, "solid"), (90, "dashed")):
        radius = float(spot[f"radius_{share}"])
        ax.add_patch(Circle((x, y), radius, fill=False, edgecolor="white", linewidth=2.2, zorder=4))
        ax.add_patch(Circle((x, y), radius, fill=False, edgecolor=style.INK, linewidth=1.0, linestyle=line, zorder=4))


def _set_axes(ax: Axes, axes: tuple[int, int], low: np.ndarray, high: np.ndarray, step: int) -> None:
    right, up = axes
    ax.set_xlim(low[right], high[right])
    ax.set_ylim(low[up], high[up])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MultipleLocator(step))
    ax.tick_params(labelsize=7.5, colors=style.INK, length=2.5, width=0.6)
    ax.spines[:].set_linewidth(0.6)


def _add_legend(figure: Figure, left: float) -> None:
    lines = [
        Line2D([], [], linestyle="none", marker="o", markersize=3.2, color=style.INK),
        Line2D([], [], color=style.INK, linewidth=1.0),
        Line2D([], [], color=style.INK, linewidth=1.0, linestyle="dashed"),
    ]
    labels = ["hot spot", "radius that holds 50 % of its posterior", "90 %"]
    figure.legend(lines, labels, loc="lower left", ncols=3, fontsize=8, frameon=False, handlelength=1.6,
                  bbox_to_anchor=(left, 0.0), columnspacing=1.4, borderaxespad=0.2)  # fmt: skip
