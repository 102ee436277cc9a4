"""Recruitment curves, a panel a muscle."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxm2m.muscle import Recruitment
from jaxm2m.plot import style

_COLUMNS = 5


def recruitment(curves: Recruitment, *, label: str = "intensity", title: str | None = None) -> Figure:
    """Draw measured MEPs and the fitted recruitment curve of each muscle, with its threshold.

    The vertical axes are logarithmic if logarithms were fitted, and then the same for all muscles.

    Parameters
    ----------
    curves
        The curves that `muscle.recruitment` returned.
    label
        Name of the intensity, with its unit.
    title
        Title above all panels.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per muscle.
    """
    n = len(curves.muscles)
    columns = min(n, _COLUMNS)
    rows = -(-n // columns)
    above = 0.45 if title else 0.15
    width, height = 2.0 * columns + 0.75, 1.75 * rows + 0.5 + above
    figure = style.figure(width, height)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=curves.log)
    figure.subplots_adjust(left=0.68 / width, right=1 - 0.12 / width, top=1 - (above + 0.2) / height,
                           bottom=0.5 / height, wspace=0.12 if curves.log else 0.36, hspace=0.28)  # fmt: skip
    low, high = curves.intensity.min(), curves.intensity.max()
    x = np.linspace(low, high, 200)
    y, threshold = curves.predict(x), curves.threshold
    for k, (ax, name) in enumerate(zip(axes.flat, curves.muscles, strict=False)):
        ax.axhline(curves.least, color=style.PALE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
        ax.plot(
            curves.intensity, curves.meps[:, k], "o", color=style.PALE, markersize=2.6, markeredgewidth=0, alpha=0.6
        )
        ax.plot(x, y[:, k], color=style.AXES["x"], linewidth=1.8, zorder=3)
        if low <= threshold[k] <= high:
            ax.plot(threshold[k], curves.least, "o", color="white", markeredgecolor=style.INK, markersize=5, zorder=4)
        if curves.log:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_title(name, fontsize=9, loc="left", color=style.INK, pad=3)
        ax.set_title(f"$R^2$ {curves.r2[k]:.2f}", fontsize=8, loc="right", color=style.INK, pad=3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=style.INK)
        if k + columns >= n:
            ax.set_xlabel(label, fontsize=9)
            ax.tick_params(labelbottom=True)
        if k % columns == 0:
            ax.set_ylabel("MEP (µV)", fontsize=9)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    if title:
        figure.text(0.68 / width, 1 - 0.22 / height, title, fontsize=11, color=style.INK, va="center")
    return figure
