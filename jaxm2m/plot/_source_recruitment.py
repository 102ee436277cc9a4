"""Recruitment curves of sources with their uncertainty, a panel a muscle."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle import Meps, Sources
from jaxm2m.plot import style
from jaxm2m.plot._amplitudes import read_amplitudes

_COLUMNS = 5
_LEAST = 50.0  # uV, of a threshold


def source_recruitment(
    sources: Sources,
    *,
    drive: ArrayLike | None = None,
    meps: Meps | ArrayLike | None = None,
    share: float | int = 0.9,
    title: str | None = None,
) -> Figure:
    """Draw how each muscle's mean MEP grows with its drive, with the posterior's band.

    The drive is a share of the strongest of the session; beyond 1 (grey) the prior speaks more than the session. The
    mean (solid, with the band) lies above the curve without noise (dashed) where this is steep: single MEPs scatter
    about the latter by factors. An open dot with a bar marks the threshold, where the mean reaches 50 uV. The axes are
    logarithmic in MEPs, and the same for all muscles.

    Parameters
    ----------
    sources
        The sources that `muscle.fit_sources` returned.
    drive
        (n_stimulus, n_muscle) drives of measured stimuli, `sources.drive(fields)`: shares, no unit.
    meps
        Their measured MEPs, drawn as dots: `Meps`, of which what is flagged is left out, or (n_stimulus, n_muscle) uV.
    share
        Share of the posterior that band and bar hold, 0 to 1.
    title
        Title above all panels.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per muscle; it says so where the session tells nothing of one.

    Raises
    ------
    ValueError
        Drives without MEPs or MEPs without drives, shapes that do not fit each other, or a `share` outside 0 to 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: {share:g}; it must lie between 0 and 1.")
    dots = _read_dots(sources, drive, meps)
    right = 1.25 if dots is None else max(1.25, 1.05 * float(dots[0].max()))
    x = np.linspace(0, right, 160)
    curves = np.asarray(sources.evaluate_curves(x), np.float64)
    middle = np.asarray(sources.evaluate_curves(x, noise=False), np.float64).mean(0)
    low, high = np.quantile(curves, [(1 - share) / 2, (1 + share) / 2], axis=0)
    thresholds = np.asarray(sources.describe_curves()["threshold"], np.float64)
    lowest, highest = low.min(), high.max()
    if dots is not None and np.isfinite(dots[1]).any():
        lowest, highest = min(lowest, np.nanmin(dots[1])), max(highest, np.nanmax(dots[1]))

    n = len(sources.muscles)
    columns = min(n, _COLUMNS)
    rows = -(-n // columns)
    above = 0.45 if title else 0.15
    width, height = 2.0 * columns + 0.75, 1.75 * rows + 0.5 + above
    figure = style.figure(width, height)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.68 / width, right=1 - 0.12 / width, top=1 - (above + 0.2) / height,
                           bottom=0.5 / height, wspace=0.12, hspace=0.28)  # fmt: skip
    reasons = dict(sources.unidentified)
    for k, (ax, name) in enumerate(zip(axes.flat, sources.muscles, strict=False)):
        ax.axvspan(1, right, color="#f1efea", linewidth=0, zorder=0)
        ax.axhline(_LEAST, color=style.PALE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
        if dots is not None:
            ax.plot(dots[0][:, k], dots[1][:, k], "o", color=style.PALE, markersize=2.6, markeredgewidth=0, alpha=0.6)
        if name in reasons:
            ax.text(0.5, 0.94, "not identified", transform=ax.transAxes, fontsize=8, color=style.INK, ha="center",
                    va="top")  # fmt: skip
        else:
            ax.fill_between(x, low[k], high[k], color=style.AXES["x"], alpha=0.22, linewidth=0, zorder=2)
            ax.plot(x, curves[:, k].mean(0), color=style.AXES["x"], linewidth=1.8, zorder=3)
            ax.plot(x, middle[k], color=style.AXES["x"], linewidth=0.9, linestyle=(0, (4, 2)), zorder=3)
            _mark_threshold(ax, thresholds[:, k], share, right)
        ax.set_yscale("log")
        ax.set_xlim(0, right)
        ax.set_ylim(0.7 * lowest, 1.5 * highest)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(name, fontsize=9, loc="left", color=style.INK, pad=3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=style.INK)
        if k + columns >= n:
            ax.set_xlabel("drive (share of the strongest)", fontsize=8.5, color=style.INK)
            ax.tick_params(labelbottom=True)
        if k % columns == 0:
            ax.set_ylabel("MEP (µV)", fontsize=9, color=style.INK)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    if title:
        figure.text(0.68 / width, 1 - 0.22 / height, title, fontsize=11, color=style.INK, va="center")
    return figure


def _read_dots(sources: Sources, drive: Any, meps: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Drives and MEPs (n_stimulus, n_muscle) that can be drawn, NaN where there is none; None without them."""
    if drive is None and meps is None:
        return None
    if drive is None or meps is None:
        missing = "drive" if drive is None else "meps"
        raise ValueError(f"{missing}: missing; pass both drive=sources.drive(fields) and meps=.")
    size = read_amplitudes(meps, "meps")
    place = np.asarray(_check.finite(drive, "drive"), np.float64)
    for values, name in ((place, "drive"), (size, "meps")):
        if values.ndim != 2 or values.shape[1] != len(sources.muscles) or values.shape != place.shape:
            raise ValueError(
                f"{name}: shape {values.shape}; give (n_stimulus, {len(sources.muscles)}), the same for drive and meps."
            )
    return place, np.where(size > 0, size, np.nan)


def _mark_threshold(ax: Axes, draws: np.ndarray, share: float, right: float) -> None:
    """Mark the median and the range of the thresholds; none where some draw never reaches it."""
    if not np.isfinite(draws).all():
        return
    low, middle, high = np.quantile(draws, [(1 - share) / 2, 0.5, (1 + share) / 2])
    if middle <= right:
        ax.plot([low, min(high, right)], [_LEAST, _LEAST], color=style.INK, linewidth=1.3, zorder=4)
        ax.plot(middle, _LEAST, "o", color="white", markeredgecolor=style.INK, markersize=5, zorder=5)
