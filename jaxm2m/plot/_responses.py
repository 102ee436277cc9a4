"""MEPs of all muscles at one pose of the coil, a bar a muscle."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxm2m._types import ArrayLike
from jaxm2m.plot import style

_OTHERS = "#c9c6c0"


def responses(
    meps: ArrayLike,
    *,
    muscles: Sequence[str],
    wanted: Sequence[str] = (),
    spared: Sequence[str] = (),
    marks: ArrayLike | None = None,
    label: str = "",
    title: str | None = None,
) -> Figure:
    """Draw the MEPs of all muscles at one pose, those that should answer and those that should not in colour.

    Parameters
    ----------
    meps
        (n_muscle,) MEPs, uV, such as those that a model predicts.
    muscles
        Names of the muscles, (n_muscle,).
    wanted, spared
        Names of those that should answer, and of those that should not.
    marks
        (n_muscle,) other values of the same MEPs, uV, drawn as dots: true means, or those of another field.
    label
        What the dots are.
    title
        Title above the bars.

    Returns
    -------
    matplotlib.figure.Figure
        A bar per muscle.

    Raises
    ------
    ValueError
        Another number of MEPs than of muscles; names that are none of the muscles.
    """
    rows = [np.asarray(values, float) for values in (meps, *([] if marks is None else [marks]))]
    for name, values in zip(("meps", "marks"), rows, strict=False):
        if values.shape != (len(muscles),):
            raise ValueError(f"{name}: shape {values.shape}; give one MEP for each of {len(muscles)} muscles.")
    colours = dict.fromkeys(wanted, style.AXES["y"]) | dict.fromkeys(spared, style.AXES["x"])
    unknown = [name for name in colours if name not in muscles]
    if unknown:
        raise ValueError(f"wanted: {', '.join(unknown)}; the muscles are {', '.join(muscles)}.")
    x = np.arange(len(muscles))
    width = max(4.4, 1.1 + 0.5 * len(muscles))
    figure = style.figure(width, 3.2)
    ax = figure.add_axes((0.85 / width, 0.13, 1 - 1.0 / width, 0.66))
    ax.bar(x, rows[0], color=[colours.get(name, _OTHERS) for name in muscles], width=0.68)
    keys: list[Patch | Line2D] = [
        Patch(color=colour, label=text)
        for colour, text, names in (
            (style.AXES["y"], "should answer", wanted),
            (style.AXES["x"], "should not", spared),
            (_OTHERS, "others", colours and len(colours) < len(muscles)),
        )
        if names
    ]
    if marks is not None:
        ax.plot(x, rows[1], "o", color=style.INK, markersize=5)
        keys.append(Line2D([], [], linestyle="none", marker="o", color=style.INK, markersize=5, label=label))
    ax.set_ylim(0, 1.08 * max(1.0, *(values.max() for values in rows)))
    ax.set_xlim(-0.6, len(muscles) - 0.4)
    ax.set_xticks(x, muscles, fontsize=8.5, color=style.INK)
    ax.set_ylabel("MEP (\N{MICRO SIGN}V)", fontsize=9, color=style.INK)
    ax.tick_params(labelsize=8.5, length=2.5, colors=style.INK, width=0.6)
    ax.tick_params(axis="x", length=0)
    for text in ax.get_xticklabels():
        if text.get_text() in colours:
            text.set_fontweight("bold")
            text.set_color(colours[text.get_text()])
    ax.spines[["top", "right"]].set_visible(False)
    if title:
        figure.text(0.85 / width, 0.93, title, fontsize=9.5, color=style.INK)
    if keys:
        figure.legend(
            handles=keys, loc="upper right", ncols=len(keys), fontsize=8.5, frameon=False, handlelength=1.2,
            columnspacing=1.4, bbox_to_anchor=(1 - 0.1 / width, 0.92),
        )  # fmt: skip
    return figure
