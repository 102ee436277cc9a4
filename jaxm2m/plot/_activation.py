"""Inferred muscle activation over the recording, a row a channel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.emg import Activation, Rectified
from jaxm2m.plot import style

_ROW, _GAP = 0.5, 0.13  # inches
_LONGEST = 3.0  # s that are shown of a longer trial, unless more is asked for
# beside the red of the inferred and the ink of the truth
_FILTERS = (style.AXES["z"], "#d98e04", style.AXES["y"], "#7d3c98")


def activation(
    inferred: Activation,
    emg: Rectified,
    *,
    truth: ArrayLike | None = None,
    filters: Mapping[str, ArrayLike] | None = None,
    channels: Sequence[str] | None = None,
    trial: int = 0,
    time: Sequence[float | int] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw inferred muscle activation over the recording, one row per channel.

    Time runs in seconds from the beginning of the trial. The rectified recording is grey; its highest peaks are cut
    off, so that the rest can be seen.

    Parameters
    ----------
    inferred
        The activation that `fit.activation(emg, key=...)` returned.
    emg
        The recording that it was inferred from.
    truth
        The true activation, where it is known, in units of `emg`: (n_sample, n_channel) as `emg.samples` or
        `inferred.samples`, or trial by trial, (n_trial, n_time, n_channel). For simulated EMG: the mean that `simulate`
        returns, divided by `emg.preprocessing["normalise"]["scale"]`.
    filters
        Up to four other estimates by name, such as the recording after `emg.lowpass`; each in the form and
        unit of `truth`.
    channels
        Names of the channels to draw, in the order of the rows. Default: all.
    trial
        Index of the trial.
    time
        (begin, end) within the trial, s. Default: the whole trial, or its first 3 s if it is longer.
    title
        Title above all rows.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per channel.

    Raises
    ------
    ValueError
        A channel, trial or time is not in the recording; `inferred` is of another recording; or an estimate has another
        shape.
    """
    if inferred.channels != emg.channels or inferred.sfreq != emg.sfreq or len(inferred.trials) != len(emg.trials):
        raise ValueError(
            f"emg: {emg!r}, but the activation is {inferred!r}; pass the recording that it was inferred from."
        )
    wanted = inferred.channels if channels is None else tuple(channels)
    if not wanted:
        raise ValueError("channels: none; name one or more.")
    rows = [inferred.channels.index(_check.option(name, inferred.channels, "channels")) for name in wanted]
    if not 0 <= trial < len(emg.trials):
        raise ValueError(f"trial: {trial}; there are {len(emg.trials)}, from 0 on.")
    filters = {} if filters is None else dict(filters)
    if len(filters) > len(_FILTERS):
        raise ValueError(
            f"filters: {len(filters)}; more than {len(_FILTERS)} lines cannot be told apart, leave some out."
        )

    estimate, recorded = inferred.by_trial()[trial], emg.by_trial()[trial]
    margin, odd = divmod(len(recorded) - len(estimate), 2)
    if margin < 0 or odd:
        raise ValueError(
            f"emg: trial {trial} has {len(recorded)} samples, that of the activation {len(estimate)}; pass the "
            "recording that it was inferred from."
        )
    first, last = _check_window(time, len(recorded) / inferred.sfreq)
    seconds = np.arange(len(recorded)) / inferred.sfreq
    shown = (seconds >= first - 1e-9) & (seconds <= last + 1e-9)
    if shown.sum() < 2:
        raise ValueError(f"time: {first:g} to {last:g} s hold no two samples at {inferred.sfreq:g} Hz; widen it.")

    def pad_margins(values: np.ndarray) -> np.ndarray:
        # a model that used the trial's margins leaves them out
        empty = np.full((margin, values.shape[1]), np.nan)
        return np.concatenate([empty, values, empty]) if len(values) < len(recorded) else values

    estimates = [(name, _select_trial(x, inferred, emg, trial, f"filters[{name!r}]")) for name, x in filters.items()]
    lines = [(name, pad_margins(x), colour, 1.1, 3.0) for (name, x), colour in zip(estimates, _FILTERS, strict=False)]
    lines.append(("inferred", pad_margins(estimate), style.AXES["x"], 1.7, 4.0))
    if truth is not None:
        lines.append(("truth", pad_margins(_select_trial(truth, inferred, emg, trial, "truth")), style.INK, 1.0, 5.0))

    above, under, left = 0.62 if title else 0.36, 0.46, 0.84 + 0.085 * max(map(len, wanted))
    width = 7.4 + left
    height = above + len(rows) * (_ROW + _GAP) - _GAP + under
    figure = style.figure(width, height)
    x = seconds[shown]
    for r, (row, name) in enumerate(zip(rows, wanted, strict=True)):
        bottom = height - above - r * (_ROW + _GAP) - _ROW
        ax = figure.add_axes((left / width, bottom / height, 1 - (left + 0.15) / width, _ROW / height))
        raw = recorded[shown, row]
        ax.fill_between(x, raw, color=style.PALE, alpha=0.42, linewidth=0)
        for _, values, colour, wide, order in lines:
            ax.plot(x, values[shown, row], color=colour, linewidth=wide, zorder=order, solid_joinstyle="round")
        highest = [np.nanmax(values[shown, row], initial=0) for _, values, *_ in lines]
        top = 1.08 * max(*highest, float(np.percentile(raw, 97)))
        ax.set_ylim(0, top if np.isfinite(top) and top > 0 else 1)
        ax.set_xlim(first, last)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, fontweight="bold", color=style.INK)
        ax.yaxis.set_label_coords(-0.34 / (width - left - 0.15), 0.5)
        ax.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
        ax.tick_params(labelsize=7.5, colors=style.INK, length=2.5, width=0.6, labelbottom=r == len(rows) - 1)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[:].set_linewidth(0.6)
    figure.axes[-1].set_xlabel("time (s)", fontsize=9, color=style.INK)
    apart = " " if len(rows) > 3 else "\n"
    unit = f"EMG /{apart}{emg.preprocessing['normalise']['percentile']:g}th percentile"
    middle = under + (height - above - under) / 2
    figure.text(0.22 / width, middle / height, unit, rotation=90, fontsize=9, color=style.INK, va="center", ha="center")
    keys: list[Any] = [Patch(color=style.PALE, alpha=0.42, linewidth=0)]
    keys += [Line2D([], [], color=colour, linewidth=wide) for _, _, colour, wide, _ in lines]
    figure.legend(keys, ["recording", *(name for name, *_ in lines)], loc="lower left", ncols=len(keys), fontsize=8.5,
                frameon=False, borderaxespad=0, handlelength=1.6, columnspacing=1.6, borderpad=0.2,
                bbox_to_anchor=(left / width, 1 - (above - 0.04) / height))  # fmt: skip
    if title:
        figure.text(left / width, 1 - 0.2 / height, title, fontsize=11, color=style.INK, va="center")
    return figure


def _check_window(time: Sequence[float | int] | None, duration: float) -> tuple[float, float]:
    """Return the first and the last second to draw."""
    if time is None:
        return 0.0, min(duration, _LONGEST)
    values = np.asarray(_check.finite(time, "time"), np.float64)
    if values.shape != (2,) or values[0] >= values[1]:
        raise ValueError(f"time: {time}; give (begin, end) in s.")
    if values[0] < 0 or values[1] > duration + 1e-6:
        raise ValueError(f"time: {values[0]:g} to {values[1]:g} s, but the trial lasts from 0 to {duration:g} s.")
    return float(values[0]), float(values[1])


def _select_trial(values: Any, inferred: Activation, emg: Rectified, trial: int, name: str) -> np.ndarray:
    """Return one trial of an estimate, with or without margins."""
    ends = {len(emg.samples): emg.trials[trial], len(inferred.samples): inferred.trials[trial]}
    if isinstance(values, list | tuple) or np.ndim(values) == 3:
        selected = np.asarray(values[trial], np.float64) if len(values) == len(emg.trials) else np.zeros(0)
    elif np.ndim(values) == 2:
        all_of_it = np.asarray(values, np.float64)
        # where both are as long, the recording's own order counts
        start, stop = ends[len(emg.samples)] if len(all_of_it) == len(emg.samples) else ends.get(len(all_of_it), (0, 0))
        selected = all_of_it[start:stop]
    else:
        selected = np.zeros(0)
    lengths = {len(inferred.by_trial()[trial]), len(emg.by_trial()[trial])}
    if selected.ndim != 2 or len(selected) not in lengths or selected.shape[1:] != (len(inferred.channels),):
        raise ValueError(
            f"{name}: shape {np.shape(values) if not isinstance(values, list | tuple) else len(values)}; pass "
            f"{emg.samples.shape} as emg.samples, {inferred.samples.shape} as those of the activation, or "
            f"{len(emg.trials)} trials (n_time, {len(inferred.channels)}) each."
        )
    return selected
