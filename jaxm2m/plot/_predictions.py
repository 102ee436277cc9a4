"""Predicted against measured MEPs, a panel a muscle."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle import Meps, scores
from jaxm2m.plot import style
from jaxm2m.plot._amplitudes import read_amplitudes

_COLUMNS = 5
_PANEL, _ACROSS, _DOWN = 1.45, 0.5, 0.5  # inches: a panel, and between two


def predictions(
    measured: Meps | ArrayLike, predicted: ArrayLike, *, muscles: Sequence[str], title: str | None = None
) -> Figure:
    """Draw predicted over measured MEPs, a panel per muscle and a dot per stimulus.

    On the diagonal line both are the same. What is flagged or missing is left out, of each muscle by itself.

    Parameters
    ----------
    measured
        `Meps`, or (n_stimulus, n_muscle) uV, NaN where there is none.
    predicted
        (n_stimulus, n_muscle) uV.
    muscles
        Names of the muscles, (n_muscle,).
    title
        Title above all panels: say which stimuli they are, those of the training or others.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per muscle, with its NRMSE.

    Raises
    ------
    ValueError
        Shapes or names that do not fit each other, predictions that are not finite, a muscle without measured MEPs.
    """
    measured, predicted = (
        read_amplitudes(measured, "measured"),
        np.asarray(_check.finite(predicted, "predicted"), float),
    )
    if measured.shape != predicted.shape or measured.ndim != 2 or measured.shape[1] != len(muscles):
        raise ValueError(
            f"predicted: shape {predicted.shape}, measured {measured.shape}, {len(muscles)} muscles; give both as "
            "(n_stimulus, n_muscle)."
        )
    columns = min(len(muscles), _COLUMNS)
    rows = -(-len(muscles) // columns)
    above, under, left = 0.55 if title else 0.25, 0.48, 0.68
    width = left + columns * (_PANEL + _ACROSS) - _ACROSS + 0.15
    height = above + rows * (_PANEL + _DOWN) - _DOWN + under
    if title:  # which may be wider than few panels
        width = max(width, left + 0.085 * len(title) + 0.1)
    figure = style.figure(width, height)
    for k, name in enumerate(muscles):
        row, column = divmod(k, columns)
        x, y = left + column * (_PANEL + _ACROSS), height - above - row * (_PANEL + _DOWN) - _PANEL
        ax = figure.add_axes((x / width, y / height, _PANEL / width, _PANEL / height))
        usable = ~np.isnan(measured[:, k])
        if not usable.any():
            raise ValueError(f"measured: no MEP of {name} that may be used; leave the muscle out.")
        real, guess = measured[usable, k], predicted[usable, k]
        error = scores(real[:, None], guess[:, None], muscles=(name,)).muscles["nrmse"].iloc[0]
        top = 1.06 * max(real.max(), guess.max(), 1.0)
        ax.plot([0, top], [0, top], color=style.PALE, linewidth=0.8, zorder=1)
        ax.plot(real, guess, "o", color=style.AXES["z"], markersize=2.8, alpha=0.6,
                markeredgewidth=0)  # fmt: skip
        ax.set_xlim(0, top)
        ax.set_ylim(0, top)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(3))
        ax.set_title(name, fontsize=9, loc="left", color=style.INK, pad=3)
        ax.set_title(f"NRMSE {error:.2f}", fontsize=7.5, loc="right", color=style.INK, pad=3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7.5, colors=style.INK, length=2.5, width=0.6)
        if k + columns >= len(muscles):
            ax.set_xlabel("measured (µV)", fontsize=8.5, color=style.INK)
        if column == 0:
            ax.set_ylabel("predicted (µV)", fontsize=8.5, color=style.INK)
    if title:
        figure.text(left / width, 1 - 0.2 / height, title, fontsize=10.5, color=style.INK, va="center")
    return figure
