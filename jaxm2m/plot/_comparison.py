"""What predicts MEPs how well: the third figure of the 2019 paper."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from jaxm2m.muscle import Comparison
from jaxm2m.plot import style

_SCORES = {
    "cosine": "cosine (1 is best)",
    "s1": "scale factor $s_1$",
    "nrmse": "NRMSE (0 is best)",
}
_COLOURS = (style.AXES["z"], style.AXES["x"], style.AXES["y"])  # of the inputs
_PANEL, _ROW = 2.55, 0.115  # inches: width of a map, height of a muscle
_LEFT, _RIGHT, _BETWEEN = 0.62, 0.12, 0.6


def comparison(result: Comparison, *, stimuli: int = 30, title: str | None = None) -> Figure:
    """Draw measured MEPs, the predictions of each variant, and how good they are.

    A: measured MEPs, a row per muscle and a column per stimulus. B, C: predictions of the same stimuli from each input,
    one panel per head; every stimulus is predicted by models that never saw it. All maps share one colour scale: 0 to
    1, the largest MEP of the muscle in the training trials of the stimulus's fold. The stimuli are ordered by the sum
    of their scaled MEPs and taken at even steps of that order, from the weakest to the strongest.

    D: cosine, scale factor s1 and NRMSE of the scaled MEPs, all trials and muscles of a fold together; dots are means
    over folds, bars jackknife 90 % intervals. These hold what all variants share, such as easy and hard folds: whether
    two variants differ is told by `result.differences()`. The best possible prediction of MEPs that scatter has an s1
    of 1 - NRMSE^2, not of 1.

    Parameters
    ----------
    result
        The comparison that `muscle.compare` returned.
    stimuli
        Largest number of stimuli in the maps.
    title
        Title above all panels.

    Returns
    -------
    matplotlib.figure.Figure
        Maps of MEPs above, scores below.
    """
    groups: dict[str, dict[str, int]] = {}
    for v, variant in enumerate(result.variants):
        kind, _, head = variant.rpartition(", ")
        groups.setdefault(kind, {})[head] = v
    measured, predicted = result.values()
    order = np.argsort(measured.sum(1), kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(stimuli, len(order))).round().astype(int))]

    rows, kinds = max(map(len, groups.values())), len(groups)
    panel = max(_ROW * len(result.muscles), 0.6)
    above, under, gap = 0.42 + 0.3 * bool(title), 0.5, 0.24
    maps = max(rows * (panel + gap), panel + gap + 0.5)
    lines = 0.17 * len(result.variants) + 0.14 * kinds
    width = _LEFT + (1 + kinds) * _PANEL + kinds * _BETWEEN + _RIGHT
    height = above + maps + 0.78 + lines + under
    figure = style.figure(width, height)

    def place(column: int, row: int) -> Axes:
        left, top = _LEFT + column * (_PANEL + _BETWEEN), height - above - row * (panel + gap)
        return figure.add_axes((left / width, (top - panel) / height, _PANEL / width, panel / height))

    def letter(which: int, name: str, left: float, top: float) -> None:
        x, y = (left - 0.5) / width, 1 - top / height
        figure.text(x, y, "ABCDEFGH"[which], fontsize=12, fontweight="bold", color=style.INK, va="center")
        figure.text(left / width, y, name, fontsize=9.5, color=style.INK, va="center")

    first = place(0, 0)
    image = _draw_map(first, measured[shown], result.muscles)
    letter(0, "measured", _LEFT, above - 0.26)
    first.set_xlabel(f"{len(shown)} of {len(measured)} stimuli, weakest to strongest", fontsize=8, color=style.INK)
    bar_at = (_LEFT / width, (height - above - panel - 0.42) / height, _PANEL / width, 0.09 / height)
    beyond = "max" if (measured[shown] > 1).any() else "neither"
    bar = figure.colorbar(image, cax=figure.add_axes(bar_at), orientation="horizontal", extend=beyond)
    bar.set_label("MEP / largest in training", fontsize=8, color=style.INK)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "0.25", "0.5", "0.75", "1"])
    bar.ax.tick_params(labelsize=7.5, colors=style.INK, length=2.5, width=0.6)
    bar.outline.set_linewidth(0.5)
    for g, (kind, heads) in enumerate(groups.items(), 1):
        letter(g, f"from the {kind}", _LEFT + g * (_PANEL + _BETWEEN), above - 0.26)
        for row, (head, v) in enumerate(heads.items()):
            ax = place(g, row)
            _draw_map(ax, predicted[v][shown], result.muscles)
            ax.set_title(head, fontsize=8, loc="left", color=style.INK, pad=2.5)
            if row == len(heads) - 1:
                ax.set_xlabel("the same stimuli", fontsize=8, color=style.INK)

    top = above + maps + 0.55
    letter(kinds + 1, "cross-validated scores, with jackknife 90 % intervals", _LEFT, top - 0.2)
    _draw_scores(figure, result, groups, top, lines)
    if title:
        figure.text(_LEFT / width, 1 - 0.2 / height, title, fontsize=11, color=style.INK, va="center")
    return figure


def _draw_map(ax: Axes, values: np.ndarray, muscles: tuple[str, ...]) -> Any:
    image = ax.imshow(values.T, cmap=style.FIELD, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(muscles)), muscles, fontsize=6.5, color=style.INK)
    ax.set_xticks([])
    ax.tick_params(length=0, pad=2)
    ax.spines[:].set_linewidth(0.5)
    return image


def _draw_scores(
    figure: Figure, result: Comparison, groups: dict[str, dict[str, int]], top: float, lines: float
) -> None:
    """A panel a score, a line a variant, `top` inches under the upper edge."""
    width, height = figure.get_size_inches()
    table = result.table.xs(("scaled", "pooled"), level=("unit", "kind"))
    names = [head for heads in groups.values() for head in heads]
    left = _LEFT + 0.12 + 0.07 * max(map(len, groups)) + 0.066 * max(map(len, names))
    panel = (width - left - _RIGHT - 0.3 * (len(_SCORES) - 1)) / len(_SCORES)
    at, y = {}, 0.0
    for heads in groups.values():
        for v in heads.values():
            at[v], y = y, y + 1
        y += 0.8
    for s, (score, label) in enumerate(_SCORES.items()):
        x = left + s * (panel + 0.3)
        ax = figure.add_axes((x / width, 1 - (top + lines) / height, panel / width, lines / height))
        ends = []
        for g, (kind, heads) in enumerate(groups.items()):
            colour = _COLOURS[g % len(_COLOURS)]
            for v in heads.values():
                row = table.loc[result.variants[v]]
                low, high = row[f"{score}_low"], row[f"{score}_high"]
                ax.plot([low, high], [at[v]] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
                ax.plot(row[score], at[v], "o", color=colour, markersize=5)
                ends += [low, high]
            if s == 0:
                middle = float(np.mean([at[v] for v in heads.values()]))
                where = blended_transform_factory(figure.transFigure, ax.transData)
                ax.text(_LEFT / width, middle, kind, transform=where, va="center", fontsize=8.5, color=colour)
        span = max(max(ends) - min(ends), 0.05)
        ax.set_xlim(min(ends) - 0.08 * span, max(ends) + 0.08 * span)
        ax.set_ylim(max(at.values()) + 0.6, -0.6)
        ax.set_yticks(list(at.values()), names if s == 0 else [], fontsize=8, color=style.INK)
        ax.xaxis.set_major_locator(MaxNLocator(5 if panel > 1.8 else 3, steps=[1, 2, 5, 10]))
        ax.grid(axis="x", color=style.PALE, alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(label, fontsize=8.5 if panel > 1.8 else 7.5, color=style.INK)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelsize=8, colors=style.INK)
