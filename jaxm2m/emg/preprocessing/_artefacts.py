"""Trials with isolated large events."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Bool, Float

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.emg.preprocessing._steps import as_signal


@dataclass(frozen=True, eq=False)
class Screening:
    """Trials with isolated large events, as `screen` marks them.

    Attributes
    ----------
    flagged : (n_trial,) bool array
        Trials with an event in at least one channel.
    excess : (n_trial, n_channel) float array
        Height of the trial's highest brief event over that of the other trials, a ratio; NaN where there are no others.
    time : (n_trial, n_channel) float array
        Time of that event, s from the start of the trial.
    """

    flagged: Bool[np.ndarray, " n_trial"]
    excess: Float[np.ndarray, "n_trial n_channel"]
    time: Float[np.ndarray, "n_trial n_channel"]


def screen(
    trials: Array | np.ndarray | Sequence[ArrayLike],
    sfreq: float | int,
    factor: float | int = 2.0,
    width: float | int = 0.05,
) -> Screening:
    """Flag trials with brief spikes far above what is seen consistently across trials.

    A trial's event in a channel is its maximum, if it stays above half its height for at most `width`; it is isolated
    if it is over `factor` times the maxima of 95 % of the other trials. So one target of eight whose movement takes a
    muscle twice as far is no artefact. A single trial cannot be judged.

    Parameters
    ----------
    trials
        Rectified EMG, (n_trial, n_time, n_channel), or a list of (n_time, n_channel), in any unit; before clipping,
        which hides events.
    sfreq
        Sampling rate, Hz.
    factor
        Ratio to the other trials' maxima above which an event is isolated. The source rejected "brief spikes 2-5x
        greater than typical range", by eye.
    width
        Longest time for which an event stays above half its height, s.

    Returns
    -------
    Screening
        The flags, and the height and the time of each trial's highest event.
    """
    signals = [as_signal(x, f"trials[{i}]") for i, x in enumerate(trials)]
    _check.positive(factor, "factor")
    _check.positive(width, "width")
    sfreq = float(_check.positive(sfreq, "sfreq"))
    peak, time = np.stack([x.max(0) for x in signals]), np.stack([x.argmax(0) for x in signals])
    excess = np.full(peak.shape, np.nan)
    if len(signals) > 1:
        for i in range(len(signals)):
            typical = np.percentile(np.delete(peak, i, 0), 95, axis=0, method="lower")
            excess[i] = peak[i] / np.where(typical > 0, typical, np.inf)
    flagged = np.zeros(len(signals), bool)
    for i, k in np.argwhere(excess > factor):
        flagged[i] |= _width(signals[i][:, k], int(time[i, k])) <= width * sfreq
    return Screening(flagged, excess, time / sfreq)


def _width(x: np.ndarray, top: int) -> int:
    """Samples round the maximum that stay above half of it."""
    below = np.flatnonzero(x < x[top] / 2)
    left = below[below < top].max(initial=-1)
    right = below[below > top].min(initial=len(x))
    return int(right - left - 1)
