"""What is wrong with the channels of a recording, in one table of colours and along time."""

import numpy as np
from matplotlib.figure import Figure

from jaxm2m.emg import THRESHOLDS, Quality
from jaxm2m.plot import style


def quality(checked: Quality, *, title: str | None = None) -> Figure:
    """Draw the measures of each channel beside their thresholds, and where in time something is wrong.

    Parameters
    ----------
    checked
        What `emg.quality` returned.
    title
        Title above all panels.

    Returns
    -------
    matplotlib.figure.Figure
        A table, in which what is over its threshold is coloured, and a time line of dropouts and artefacts.
    """
    n = len(checked.channels)
    above = 0.6 if title else 0.4
    width, height = 8.0, 0.24 * n + above + 0.5
    figure = style.figure(width, height)
    table, line = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    figure.subplots_adjust(left=1.1 / width, right=1 - 0.15 / width, top=1 - above / height, bottom=0.5 / height,
                           wspace=0.06)  # fmt: skip
    typical = np.median(checked.amplitude)
    negatives = (checked.negative > 0.1).any()
    columns = {
        "saturation": (checked.saturation, checked.saturation > THRESHOLDS["saturation"], "{:.1%}"),
        "flat (s)": (checked.flat, checked.flat > THRESHOLDS["flat"], "{:.2f}"),
        "mains": (checked.line, checked.line > THRESHOLDS["line"], "{:.0%}"),
        "negative": (checked.negative, (checked.negative < THRESHOLDS["negative"]) & negatives, "{:.0%}"),
        "amplitude": (checked.amplitude, checked.amplitude < THRESHOLDS["tiny"] * typical, "{:.2g}"),
    }
    for k, (name, (values, wrong, form)) in enumerate(columns.items()):
        for i in range(n):
            if wrong[i]:
                table.axhspan(
                    i - 0.5, i + 0.5, k / len(columns), (k + 1) / len(columns), color=style.COPPER, alpha=0.35
                )
            text = "-" if np.isnan(values[i]) else form.format(values[i])
            table.text(k + 0.5, i, text, ha="center", va="center", fontsize=8, color=style.INK)
        table.text(k + 0.5, -0.62, name, ha="center", va="bottom", fontsize=8, color=style.PALE)
    table.set_xlim(0, len(columns))
    table.set_ylim(n - 0.5, -0.5)
    table.set_yticks(range(n), [f"{name} *" if checked.flags[i] else name for i, name in enumerate(checked.channels)])
    table.set_xticks([])
    table.tick_params(length=0)
    for spine in table.spines.values():
        spine.set_visible(False)
    for start, stop in checked.dropouts / checked.sfreq:
        line.axvspan(start, stop, color=style.COPPER, alpha=0.35, linewidth=0)
    line.plot(checked.artefacts[:, 0] / checked.sfreq, checked.artefacts[:, 1], "|", color=style.COPPER, markersize=9)
    line.set_xlim(0, checked.duration)
    line.set_xlabel("time (s): dropouts, artefacts")
    line.tick_params(axis="y", length=0, labelleft=False)
    for side in ("top", "right", "left"):
        line.spines[side].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10, color=style.INK)
    return figure
