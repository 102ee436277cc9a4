"""Figures of the demo that no other place needs."""

from typing import TYPE_CHECKING

from jaxm2m.cli.demo import _settings as about

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxm2m.cli.demo._results import CoilSearch, Fields, Session


def draw_rates(fields: "Fields", session: "Session") -> "Figure":
    """The dose-response curve over the fields that grey matter sees with the coil over the hot spot."""
    import jax.numpy as jnp
    import numpy as np

    from jaxm2m.plot import style

    active = np.asarray(fields.at_grid.active)
    grey = active[np.asarray(fields.at_grid.tissue) == fields.head.tissues.index("grey")]
    e = np.asarray(fields.at_grid(jnp.asarray(fields.hot_spot), didt=session.didt))[grey]
    size = np.linalg.norm(e, axis=-1)
    top = max(1.05 * size.max(), 1.5 * float(about.THRESHOLD.split()[0]))
    x = np.linspace(0, top, 300)
    rate = np.asarray(session.rate(np.stack([x, 0 * x, 0 * x], -1)))
    made = style.figure(6.4, 3.2)
    ax = made.add_axes((0.11, 0.17, 0.76, 0.76))
    other = ax.twinx()
    other.hist(size, bins=np.linspace(0, top, 61).tolist(), color=style.PALE, alpha=0.35, linewidth=0)
    other.set_ylabel("points of grey matter", fontsize=9, color=style.PALE)
    ax.plot(x, rate, color=style.AXES["x"], linewidth=2.2)
    ax.set_zorder(other.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.set_xlim(0, top)
    ax.set_ylim(0, 1.04 * float(rate.max()))
    ax.set_xlabel("|E| (V/m)", fontsize=9, color=style.INK)
    ax.set_ylabel("firing rate (share of the largest)", fontsize=9, color=style.INK)
    for axes in (ax, other):
        axes.tick_params(labelsize=8, colors=style.INK if axes is ax else style.PALE)
        axes.spines["top"].set_visible(False)
    return made


def draw_synergies(session: "Session") -> "Figure":
    """VAF by the number of synergies, and the shares of the muscles in those that were taken."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    from jaxm2m.plot import style

    vectors, names, curve = session.synergies.vectors, session.truth.muscles, session.vaf
    count = vectors.shape[1]
    tall, wide = 0.19 * len(names), 0.42 * count
    width, height = 4.9 + wide, 0.85 + tall
    made = style.figure(width, height)
    ax = made.add_axes((0.62 / width, 0.55 / height, 2.5 / width, tall / height))
    ax.axhline(0.9, color=style.PALE, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.fill_between(curve.ranks, curve.low, curve.high, color=style.AXES["z"], alpha=0.18, linewidth=0)
    ax.plot(curve.ranks, curve.vaf, "o-", color=style.AXES["z"], markersize=4, linewidth=1.4)
    ax.plot(count, curve.vaf[list(curve.ranks).index(count)], "o", color="none", markeredgecolor=style.INK,
            markersize=9, markeredgewidth=1.3)  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_xlabel("number of synergies", fontsize=9, color=style.INK)
    ax.set_ylabel("VAF", fontsize=9, color=style.INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=style.INK, length=2.5, width=0.6)
    left = 3.95
    ax = made.add_axes((left / width, 0.55 / height, wide / width, tall / height))
    image = ax.imshow(vectors, cmap=style.FIELD, vmin=0, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(names)), names, fontsize=8, color=style.INK)
    ax.set_xticks(range(count), [str(k + 1) for k in range(count)], fontsize=8, color=style.INK)
    ax.set_xlabel("synergy", fontsize=9, color=style.INK)
    ax.set_xticks(np.arange(1, count) - 0.5, minor=True)
    ax.grid(which="minor", axis="x", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    bar = made.colorbar(
        image, cax=made.add_axes(((left + wide + 0.12) / width, 0.55 / height, 0.1 / width, tall / height))
    )
    bar.set_label("share of the muscle", fontsize=9, color=style.INK)
    bar.ax.tick_params(labelsize=8, colors=style.INK, length=2.5, width=0.6)
    bar.outline.set_linewidth(0.5)
    return made


def draw_muscles(placed: "CoilSearch", names: tuple[str, ...]) -> "Figure":
    """MEPs of all muscles at the hot spot and at the pose that was found: bars, and predictions with intervals."""
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from jaxm2m.plot import style

    order = list(placed.poses)
    shown = [order.index("hot spot"), order.index("found")]
    made = style.figure(8.2, 4.6)
    top = 1.05 * max(placed.true[shown].max(), placed.interval[:, shown].max())
    colours = {about.MUSCLE: style.AXES["y"], about.SPARED: style.AXES["x"]}
    x = np.arange(len(names))
    for row, (which, title) in enumerate(zip(shown, ("over the hot spot", "where the gradient led"), strict=True)):
        ax = made.add_axes((0.09, 0.57 - 0.47 * row, 0.89, 0.34))
        ax.bar(x, placed.true[which], color=[colours.get(n, "#c9c6c0") for n in names], width=0.68)
        ax.vlines(x, *placed.interval[:, which], color=style.INK, linewidth=1.1)
        ax.plot(x, placed.predicted[which], "o", color=style.INK, markersize=4.5)
        ax.set_ylim(0, top)
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_xticks(x, names, fontsize=8.5, color=style.INK)
        for label in ax.get_xticklabels():
            if label.get_text() in colours:
                label.set_fontweight("bold")
                label.set_color(colours[label.get_text()])
        ax.set_ylabel("MEP (\N{MICRO SIGN}V)", fontsize=9, color=style.INK)
        ax.set_title(title, fontsize=9.5, loc="left", color=style.INK, pad=4)
        ax.tick_params(labelsize=8.5, length=2.5, colors=style.INK, width=0.6)
        ax.tick_params(axis="x", length=0)
        ax.spines[["top", "right"]].set_visible(False)
    keys = [
        Patch(color=colours[about.MUSCLE]),
        Patch(color=colours[about.SPARED]),
        Patch(color="#c9c6c0"),
        Line2D([], [], linestyle="none", marker="o", color=style.INK, markersize=5),
    ]
    labels = ["true mean: to be activated", "to be spared", "others", "predicted, 90 %"]
    made.legend(keys, labels, loc="upper right", ncols=4, fontsize=8.5, frameon=False, bbox_to_anchor=(0.985, 1.0),
                handlelength=1.2, columnspacing=1.4)  # fmt: skip
    return made
