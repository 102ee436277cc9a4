"""A population's training: who went on from whom, and what became of the hyperparameters."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxm2m.plot import style
from jaxm2m.population import Run

# the better a score, the darker; without the palest end, which would not show on white
_SCORE = LinearSegmentedColormap.from_list("score", style.FIELD(np.linspace(1, 0.16, 64)))
_FEW = 40  # generations whose nodes are drawn


def lineage(run: Run, *, label: str = "score") -> Figure:
    """Draw which member's weights each member went on from, and the scores.

    Above, each row is a member and each column a generation; a line leads from the member whose weights were taken on
    to the member that has them in the next generation. The line of the best weights is thick. Below, the best and the
    median score with the range of all.

    Parameters
    ----------
    run
        The run that `population.train` returned.
    label
        Name of the score, with its unit.

    Returns
    -------
    matplotlib.figure.Figure
        The lineage above, the scores below.
    """
    scores = run.scores()
    parents = run.history.pivot(index="generation", columns="member", values="parent").to_numpy().astype(int)
    generations, members = scores.shape
    figure = style.figure(8.0, 2.6 + 0.13 * min(max(members, 8), 40))
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [0.1 * max(members, 8), 1.6]})
    figure.subplots_adjust(left=0.09, right=0.87, top=0.97, bottom=0.11, hspace=0.06)

    sound = scores[np.isfinite(scores)]
    low, high = np.percentile(sound, [0, 90]) if sound.size else (0.0, 1.0)
    scale = Normalize(low, high if high > low else low + 1)
    lines = [((g, parents[g, m]), (g + 1, m)) for g in range(generations - 1) for m in range(members)]
    values = [scores[g + 1, m] for g in range(generations - 1) for m in range(members)]
    drawn = LineCollection(lines, cmap=_SCORE, norm=scale, linewidths=0.7, capstyle="round")
    drawn.set_array(np.ma.masked_invalid(values))
    top.add_collection(drawn)
    if generations <= _FEW:
        g, m = np.indices(scores.shape)
        top.scatter(g, m, c=np.ma.masked_invalid(scores), s=9, cmap=_SCORE, norm=scale, zorder=3, linewidths=0)
    lost = np.argwhere(~np.isfinite(scores))
    top.scatter(lost[:, 0], lost[:, 1], marker="x", s=16, color=style.AXES["z"], zorder=4, linewidths=1.0)
    line = run.ancestors()
    top.plot(np.arange(len(line)), line, color=style.INK, linewidth=2.0, zorder=5, solid_joinstyle="round")
    top.plot(len(line) - 1, line[-1], "o", color=style.INK, markersize=6, zorder=6)
    top.set_ylim(members - 0.4, -0.6)
    top.set_ylabel("member", fontsize=9)
    top.set_yticks(np.arange(0, members, -(-members // 8)))

    best = np.fmin.reduce(scores, axis=1)
    middle = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in scores])
    x = np.arange(generations)
    worst = np.fmax.reduce(scores, axis=1)
    bottom.fill_between(x, best, worst, color=style.PALE, alpha=0.2, linewidth=0)
    if members > 1:
        bottom.plot(x, middle, color=style.PALE, linewidth=1.4)
    bottom.plot(x, best, color=style.INK, linewidth=1.8)
    # one member that went astray does not set the scale
    bottom.set_ylim(low - 0.06 * (np.nanmax(middle) - low), np.nanmax(middle) + 0.1 * (np.nanmax(middle) - low))
    ends = (("median", middle, style.PALE, "bottom"), ("best", best, style.INK, "top"))
    for name, values_there, colour, side in ends if members > 1 else ends[1:]:
        bottom.annotate(
            name,
            (x[-1], values_there[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            va=side,
            annotation_clip=False,
        )
    bottom.set_ylabel(label, fontsize=9)
    bottom.set_xlabel("generation", fontsize=9)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.set_xlim(-0.5, generations - 0.5)
    for ax in (top, bottom):
        _style_axes(ax)
    bar = figure.colorbar(ScalarMappable(scale, _SCORE), cax=figure.add_axes((0.9, 0.5, 0.016, 0.4)), extend="max")
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.5)
    return figure


def hyperparameters(run: Run) -> Figure:
    """Draw the hyperparameters over the generations, a panel for each that differs between members.

    Thin lines are members, coloured by their last score; the thick one leads to the best weights.

    Parameters
    ----------
    run
        The run that `population.train` returned.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per hyperparameter.

    Raises
    ------
    ValueError
        All members had the same hyperparameters.
    """
    tables = {name: run.history.pivot(index="generation", columns="member", values=name) for name in run.members.hyper}
    tuned = {name: table.to_numpy() for name, table in tables.items() if np.ptp(table.to_numpy()) > 0}
    if not tuned:
        raise ValueError("run: all members have the same hyperparameters; there is nothing to draw.")
    columns = min(len(tuned), 3)
    rows = -(-len(tuned) // columns)
    figure = style.figure(3.0 * columns + 0.6, 2.1 * rows + 0.5)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    figure.subplots_adjust(left=0.16 / columns + 0.03, right=0.97, top=1 - 0.28 / (2.1 * rows + 0.5),
                         bottom=0.46 / (2.1 * rows + 0.5), hspace=0.3, wspace=0.32)  # fmt: skip
    scores, line = run.scores(), run.ancestors()
    rank = np.argsort(np.argsort(np.where(np.isfinite(scores[-1]), scores[-1], np.inf)))
    colours = _SCORE(rank / max(len(rank) - 1, 1))
    for ax, (name, values) in zip(axes.flat, tuned.items(), strict=False):
        for m in np.argsort(-rank):
            ax.plot(values[:, m], color=colours[m], linewidth=0.8)
        ax.plot(values[np.arange(len(line)), line], color=style.INK, linewidth=2.0)
        ax.plot(len(line) - 1, values[len(line) - 1, line[-1]], "o", color=style.INK, markersize=5)
        if (values > 0).all() and values.max() > 100 * values.min():
            ax.set_yscale("log")
        ax.set_title(name.replace("_", " "), fontsize=9, loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _style_axes(ax)
    for ax in axes.flat[len(tuned) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("generation", fontsize=9)
    return figure


def _style_axes(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
