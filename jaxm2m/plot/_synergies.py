"""Synergies: the share of each muscle, and their time courses."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxm2m.muscle import Cycles, Synergies
from jaxm2m.plot import style


def synergies(fit: Synergies, cycles: Cycles | None = None, *, title: str | None = None) -> Figure:
    """Draw the weights of each synergy, a row each, and beside them their activation in each cycle and its mean.

    Parameters
    ----------
    fit
        The synergies that `muscle.synergies` returned.
    cycles
        Cycles whose activations are drawn, over per cent of the cycle; None: weights alone.
    title
        Title above all panels.

    Returns
    -------
    matplotlib.figure.Figure
        A row per synergy.
    """
    m, n = fit.vectors.shape
    columns = 1 if cycles is None else 2
    above = 0.5 if title else 0.25
    long = 0.45 + 0.07 * max(map(len, fit.muscles))  # inches for the names of muscles
    width, height = max(0.28 * m + 0.9, 2.6) + (2.8 if cycles is not None else 0), 1.05 * n + long + above
    figure = style.figure(width, height)
    axes = figure.subplots(n, columns, squeeze=False, sharex="col", sharey="col")
    figure.subplots_adjust(left=0.62 / width, right=1 - 0.12 / width, top=1 - above / height, bottom=long / height,
                           wspace=0.3, hspace=0.35)  # fmt: skip
    active = None if cycles is None else np.stack([fit.activations(cycle) for cycle in cycles.by_trial()])
    for k in range(n):
        ax = axes[k, 0]
        ax.bar(np.arange(m), fit.vectors[:, k], color=style.AXES["x"], width=0.7)
        ax.set_ylabel(f"S{k + 1}", rotation=0, ha="right", va="center", fontsize=9)
        ax.set_xticks(np.arange(m), fit.muscles, rotation=90, fontsize=8)
        ax.yaxis.set_major_locator(MaxNLocator(2))
        if active is not None:
            share = np.linspace(0, 100, active.shape[1])
            axes[k, 1].plot(share, active[:, :, k].T, color=style.PALE, linewidth=0.6)
            axes[k, 1].plot(share, active[:, :, k].mean(0), color=style.INK, linewidth=1.8)
            axes[k, 1].set_ylim(bottom=0)
            axes[k, 1].yaxis.set_major_locator(MaxNLocator(2))
    axes[0, 0].set_title("share of each muscle", fontsize=9, loc="left")
    if active is not None:
        axes[0, 1].set_title("activation", fontsize=9, loc="left")
        axes[-1, 1].set_xlabel("cycle (%)", fontsize=8.5)
    for ax in axes.flat:
        ax.tick_params(labelsize=7.5, colors=style.INK, length=2.5, width=0.6)
    if title:
        figure.text(0.12 / width, 1 - 0.16 / height, title, fontsize=11, color=style.INK, va="center")
    return figure
