"""Maps of MEPs, a panel a muscle."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from jaxm2m.muscle import MotorMap
from jaxm2m.plot import style

_COLUMNS = 5
_WIDTH, _GAP, _BAR = 1.55, 0.62, 0.07  # inches


def motor_map(maps: MotorMap, *, title: str | None = None) -> Figure:
    """Draw the motor map of each muscle (uV) over the plane of the sites (mm), a panel per muscle.

    Colours go from zero to the muscle's own peak. Marked are the sites (dots), the centre of gravity (cross) and the
    hotspot (ring). What lies outside the hull of the sites stays white.

    Parameters
    ----------
    maps
        The maps that `muscle.motor_map` returned.
    title
        Title above all panels.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per muscle.
    """
    n = len(maps.muscles)
    columns = min(n, _COLUMNS)
    rows = -(-n // columns)
    h = maps.spacing / 2
    extent = (maps.x[0] - h, maps.x[-1] + h, maps.y[0] - h, maps.y[-1] + h)
    panel = _WIDTH * min(max((extent[3] - extent[2]) / (extent[1] - extent[0]), 0.4), 2.5)
    above, under = 0.75 if title else 0.35, 0.75
    width, height = 0.6 + columns * (_WIDTH + _GAP), rows * (panel + 0.3) + above + under - 0.3
    figure = style.figure(width, height)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if max(extent[1] - extent[0], extent[3] - extent[2]) / s < 5)
    centres, hotspots = maps.centre, maps.hotspot
    for k, name in enumerate(maps.muscles):
        row, column = divmod(k, columns)
        left, bottom = 0.6 + column * (_WIDTH + _GAP), height - above - row * (panel + 0.3) - panel
        ax = figure.add_axes((left / width, bottom / height, _WIDTH / width, panel / height))
        peak = np.nan_to_num(maps.maps[k]).max() or maps.least
        image = ax.imshow(
            maps.maps[k].T, origin="lower", extent=extent, cmap=style.FIELD, vmin=0, vmax=peak, interpolation="nearest"
        )
        ax.plot(*maps.sites.T, ".", color=style.PALE, markersize=1.6, markeredgewidth=0, zorder=2)
        for colour, wide in (("white", 2.8), (style.INK, 1.3)):
            ax.plot(
                *hotspots[k], "o", color="none", markeredgecolor=colour, markersize=7.5, markeredgewidth=wide, zorder=4
            )
            ax.plot(*centres[k], "+", color=colour, markersize=8, markeredgewidth=wide, zorder=5)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_xlim(extent[:2])
        ax.set_ylim(extent[2:])
        ax.set_title(name, fontsize=9, loc="left", color=style.INK, pad=3)
        ax.tick_params(labelsize=7.5, colors=style.INK, length=2.5, width=0.6)
        ax.spines[:].set_linewidth(0.6)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MultipleLocator(step))
        lowest = k + columns >= n
        ax.tick_params(labelbottom=lowest, labelleft=column == 0)
        if lowest:
            ax.set_xlabel("x (mm)", fontsize=8.5)
        if column == 0:
            ax.set_ylabel("y (mm)", fontsize=8.5)
        bar = figure.colorbar(
            image, cax=figure.add_axes(((left + _WIDTH + 0.05) / width, bottom / height, _BAR / width, panel / height))
        )
        bar.outline.set_linewidth(0.5)
        bar.ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        bar.ax.tick_params(labelsize=7, colors=style.INK, length=2, width=0.5, pad=1.5)
        bar.ax.set_title("µV", fontsize=7.5, pad=3.5, loc="left")
    drawn = [
        Line2D([], [], linestyle="none", marker="+", markersize=8, markeredgewidth=1.3, color=style.INK),
        Line2D(
            [], [], linestyle="none", marker="o", markersize=7, markeredgewidth=1.3, color=style.INK, fillstyle="none"
        ),
        Line2D([], [], linestyle="none", marker=".", markersize=3, color=style.PALE),
    ]
    figure.legend(drawn, ["centre of gravity", "hotspot", "site"], loc="lower left", ncols=3, fontsize=8, frameon=False,
                handletextpad=0.2, bbox_to_anchor=(0.5 / width, 0.0), columnspacing=1.2, borderaxespad=0.2)  # fmt: skip
    if title:
        figure.text(0.6 / width, 1 - 0.3 / height, title, fontsize=11, color=style.INK, va="center")
    return figure
