"""What is wrong with the channels of a recording, before anything is fitted to it."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.emg.preprocessing._plausible import estimate_spectrum
from jaxm2m.session import Recording, load_emg

#: Thresholds of `quality`: above them (below, of `tiny`) a channel is flagged.
THRESHOLDS = {
    "saturation": 0.015,  # share of samples at the largest or smallest value; a clip at the 99th percentile is less
    "dropout": 0.05,  # s in which no channel changes
    "flat": 0.25,  # s in which a channel does not change while others do
    "line": 0.7,  # share of the power over 10 Hz within 1 Hz of the mains and its harmonics
    "negative": 0.01,  # share of negative samples, beside channels that have more than 0.1
    "tiny": 1e-3,  # of the median amplitude of all channels
    "duplicate": 0.9999,  # correlation with another channel
    "artefact": 5.0,  # height of a brief peak over the peaks of 95 % of the windows
}
_WINDOW = 0.5  # s, in which peaks are compared
_BRIEF = 0.05  # s for which an artefact stays above half its height
_FAINT = 1e-7  # V: no amplifier's noise is below


@dataclass(frozen=True, eq=False, repr=False)
class Quality:
    """What is measured of each channel, and what is wrong.

    Attributes
    ----------
    channels : tuple of str
        Names of the channels.
    sfreq : float
        Sampling rate, Hz.
    duration : float
        Of the recording, s.
    unit : str
        Of `amplitude`.
    saturation : (n_channel,) float array
        Share of samples that lie at the channel's largest or smallest value.
    flat : (n_channel,) float array
        The longest time in which the channel does not change, s.
    line : (n_channel,) float array
        Share of the power over 10 Hz within 1 Hz of the mains and its harmonics; NaN where it cannot be said.
    negative : (n_channel,) float array
        Share of samples below zero.
    amplitude : (n_channel,) float array
        Median of the absolute samples less their median, over 0.6745: the standard deviation of noise.
    duplicates : tuple of str
        The other channel that is the same but for scale and offset; "" where there is none.
    dropouts : (n_dropout, 2) int array
        First sample and first sample after it of stretches in which no channel changes.
    artefacts : (n_artefact, 2) int array
        Sample and channel (index) of isolated brief peaks.
    flags : tuple of tuple of str
        What is wrong with each channel.
    """

    channels: tuple[str, ...]
    sfreq: float
    duration: float
    unit: str
    saturation: Float[np.ndarray, " n_channel"]
    flat: Float[np.ndarray, " n_channel"]
    line: Float[np.ndarray, " n_channel"]
    negative: Float[np.ndarray, " n_channel"]
    amplitude: Float[np.ndarray, " n_channel"]
    duplicates: tuple[str, ...]
    dropouts: Int[np.ndarray, "n_dropout 2"]
    artefacts: Int[np.ndarray, "n_artefact 2"]
    flags: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        flagged = sum(bool(flags) for flags in self.flags)
        return f"Quality({flagged} of {len(self.channels)} channels flagged, {len(self.dropouts)} dropouts)"

    def table(self) -> pd.DataFrame:
        """Tabulate the measures.

        Returns
        -------
        pandas.DataFrame
            A row for each channel: channel, amplitude (`unit`), saturation (share), flat (s), line (share), negative
            (share), duplicate (name), artefacts (number), problems (text).
        """
        counts = np.bincount(self.artefacts[:, 1], minlength=len(self.channels))
        return pd.DataFrame(
            {
                "channel": self.channels,
                "amplitude": self.amplitude,
                "saturation": self.saturation,
                "flat": self.flat,
                "line": self.line,
                "negative": self.negative,
                "duplicate": self.duplicates,
                "artefacts": counts,
                "problems": ["; ".join(flags) for flags in self.flags],
            }
        )


def quality(
    recording: Recording | ArrayLike, sfreq: float | int | None = None, *, line: float | int | None = None
) -> Quality:
    """Look for what is wrong with the channels of a recording; nothing is changed or left out.

    Flags, by `emg.THRESHOLDS`: "saturated" (at the rail), "dropout" (no channel changes), "flat", "dead" (never
    changes), "mains" (little but the line), "rectified" (no negative samples, beside channels that have them), "tiny",
    "same as ...", "artefacts" (brief peaks far above those of other windows of half a second; in continuous recordings
    too, where `screen` has no trials to compare).

    Parameters
    ----------
    recording
        `Recording`, or arrays as `session.load_emg` takes them, in any unit.
    sfreq
        Sampling rate of arrays, Hz.
    line
        Mains frequency, Hz; None: 50 or 60, whichever has more power.

    Returns
    -------
    Quality
        Measures and flags of each channel.

    Raises
    ------
    ValueError
        NaN in the samples.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> x = np.random.default_rng(0).normal(size=(4000, 3))
    >>> x[:, 1] = np.clip(x[:, 1], -1, 1)
    >>> jm.emg.quality(x, sfreq=2000).table().problems.tolist()
    ['', 'saturated (30.8 % of samples)', '']
    """
    if not isinstance(recording, Recording):
        recording = load_emg(recording, sfreq)
    elif sfreq is not None:
        raise ValueError("sfreq: a Recording has its own; leave it out.")
    x, rate, names = np.asarray(_check.finite(recording.samples, "recording")), recording.sfreq, recording.channels
    frequencies = (50.0, 60.0) if line is None else (float(_check.positive(line, "line")),)
    high, low = x.max(0), x.min(0)
    still = _find_still(x, recording.segments)
    dropouts = _find_runs(np.asarray(still.all(1)), round(THRESHOLDS["dropout"] * rate))
    live = np.ones(len(x), bool)
    for start, stop in dropouts:
        live[start:stop] = False
    negative = (x < 0).mean(0)
    saturation = _measure_saturation(x, live, low, high)
    flat = np.array([_longest_run(still[:, i] & live) for i in range(x.shape[1])]) / rate
    dead = high == low
    share = _measure_line(x, recording.segments, rate, frequencies, negative)
    # one copy of a long recording, a row a channel, serves three measures
    centred = np.array(x.T, np.float64, order="C", copy=True)
    centred -= np.array([np.median(row) for row in centred])[:, None]
    same = _find_duplicates(centred, names, dead | (np.nan_to_num(share) > THRESHOLDS["line"]))
    np.abs(centred, out=centred)
    amplitude = np.array([np.median(row) for row in centred]) / 0.6745
    artefacts = _find_artefacts(centred.T, recording.segments, rate)
    counts = np.bincount(artefacts[:, 1], minlength=len(names))
    typical = np.median(amplitude[~dead]) if (~dead).any() else 0.0
    volts = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}.get(recording.unit)
    flags = []
    for i in range(len(names)):
        faint = volts is not None and amplitude[i] * volts < _FAINT
        marks = {
            "dead (never changes)": dead[i],
            f"saturated ({saturation[i]:.1%} of samples)".replace("%", " %"): saturation[i] > THRESHOLDS["saturation"],
            f"dropout ({len(dropouts)} of {np.diff(dropouts).sum() / rate:.3g} s in all)": len(dropouts) > 0,
            f"flat (for {flat[i]:.3g} s)": flat[i] > THRESHOLDS["flat"] and not dead[i],
            f"mains ({share[i]:.0%} of the power)".replace("%", " %"): share[i] > THRESHOLDS["line"],
            "rectified (no negative samples)": negative[i] < THRESHOLDS["negative"] and (negative > 0.1).any(),
            f"tiny ({amplitude[i]:.2g})": not dead[i] and (amplitude[i] < THRESHOLDS["tiny"] * typical or faint),
            f"same as {same[i]}": bool(same[i]),
            f"artefacts ({counts[i]})": counts[i] > 0,
        }
        flags.append(
            tuple(text for text, wrong in marks.items() if wrong and not (dead[i] and not text.startswith("dead")))
        )
    return Quality(
        names,
        rate,
        recording.duration,
        recording.unit,
        saturation,
        flat,
        share,
        negative,
        amplitude,
        same,
        dropouts,
        artefacts,
        tuple(flags),
    )


def report_quality(recording: Recording, line: float | int | None) -> tuple[tuple[str, str, str, str, str], ...]:
    """The rows of the recording's report with the flags of its channels; what is flagged is warned of."""
    flags = dict(zip(recording.channels, quality(recording, line=line).flags, strict=True))
    texts = [f"{name}: {', '.join(flags[name])}" for name in recording.channels if flags[name]]
    if texts:
        warnings.warn(
            f"recording: {'; '.join(texts[:20])}. Nothing was left out; emg.quality(recording) has the table.",
            stacklevel=4,
        )
    rows = recording.report_rows()
    count = len(recording.channels)
    used = tuple((row[0], row[1], row[2], row[3], "; ".join(flags[row[0]])) for row in rows[:count])
    return (*used, *rows[count:])


def _find_still(x: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Samples that are equal to the one before, in their segment."""
    still = np.zeros(x.shape, bool)
    still[1:] = x[1:] == x[:-1]
    still[segments[:, 0]] = False
    return still


def _find_runs(mask: np.ndarray, least: int) -> np.ndarray:
    """First index and first index after it of runs of at least `least`, with the sample before them."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    runs = edges.reshape(-1, 2)
    runs = runs[(runs[:, 1] - runs[:, 0]) >= max(least, 2)]
    return np.stack([runs[:, 0] - 1, runs[:, 1]], -1)


def _longest_run(mask: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8))).reshape(-1, 2)
    return int((edges[:, 1] - edges[:, 0]).max(initial=-1)) + 1


def _measure_saturation(x: np.ndarray, live: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share of the samples at a rail; the lower one only where the signal crosses zero."""
    share = np.zeros(x.shape[1])
    span = high - low
    for i in np.flatnonzero(span > 0):
        for rail, used in ((high[i], True), (low[i], low[i] < 0)):
            if used:
                at = (np.abs(x[:, i] - rail) <= 1e-6 * span[i]) & live
                share[i] += at.mean() if at.sum() > 10 else 0.0
    return share


def _measure_line(
    x: np.ndarray, segments: np.ndarray, rate: float, frequencies: tuple[float, ...], negative: np.ndarray
) -> np.ndarray:
    """Share of the power over 10 Hz that lies at the mains; rectified channels carry it elsewhere."""
    start, stop = segments[np.diff(segments).ravel().argmax()]
    if stop - start < 2 * rate:
        return np.full(x.shape[1], np.nan)
    frequency, power = estimate_spectrum(x[start:stop], rate)
    over = frequency > 10
    total = power[over].sum(0)
    shares = []
    for mains in frequencies:
        order = np.rint(frequency / mains)
        near = over & (order >= 1) & (order <= 7) & (np.abs(frequency - order * mains) <= 1.0)
        shares.append(power[near].sum(0) / np.where(total > 0, total, np.inf))
    return np.where(negative < THRESHOLDS["negative"], np.nan, np.max(shares, 0))


def _find_duplicates(centred: np.ndarray, names: tuple[str, ...], skipped: np.ndarray) -> tuple[str, ...]:
    """The channel that each one equals but for scale and offset; `centred` has its medians near zero."""
    mean = centred.mean(1)
    covariance = centred @ centred.T / centred.shape[1] - np.outer(mean, mean)
    scale = np.sqrt(np.diag(covariance).clip(0))
    scale = np.where(scale > 0, scale, np.inf)
    correlation = covariance / scale / scale[:, None]
    same = np.abs(correlation) > THRESHOLDS["duplicate"]
    np.fill_diagonal(same, False)
    same[skipped] = same[:, skipped] = False
    return tuple(names[int(row.argmax())] if row.any() else "" for row in same)


def _find_artefacts(x: np.ndarray, segments: np.ndarray, rate: float) -> np.ndarray:
    """Sample and channel of brief peaks far above those of other windows; x is rectified."""
    width = max(1, round(_WINDOW * rate))
    starts = np.concatenate([np.arange(start, max(stop - width, start) + 1, width) for start, stop in segments])
    if len(starts) < 10:
        return np.zeros((0, 2), int)
    pieces = [x[start : start + width] for start in starts]
    peaks = np.stack([piece.max(0) for piece in pieces])
    places = np.stack([piece.argmax(0) for piece in pieces])
    typical = np.percentile(peaks, 95, axis=0, method="lower")
    out = []
    for i, k in np.argwhere(peaks > THRESHOLDS["artefact"] * np.where(typical > 0, typical, np.inf)):
        top = starts[i] + places[i, k]
        around = x[max(0, top - width) : top + width, k]
        above = np.flatnonzero(around > peaks[i, k] / 2)
        if (above[-1] - above[0] + 1) <= _BRIEF * rate:
            out.append((top, k))
    return np.array(out, int).reshape(-1, 2)
