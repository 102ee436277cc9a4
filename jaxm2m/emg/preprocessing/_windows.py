"""Windows of a recording, and the recording again from what was computed in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.emg.preprocessing._rectified import Rectified


@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """Overlapping windows of trials.

    Attributes
    ----------
    values : (n_window, n_bin, n_channel) array
        The windows, with `margin` bins before and after what they are to estimate.
    trial : (n_window,) int array
        The trial each comes from, in order.
    start : (n_window,) int array
        Its first bin, after the margin, in the trial (after the trial's own margin).
    lengths : (n_trial,) int array
        Bins of each trial that `merge` returns.
    margin : int
        Bins of context on both sides of each window.
    """

    values: Float[np.ndarray, "n_window n_bin n_channel"]
    trial: Int[np.ndarray, " n_window"]
    start: Int[np.ndarray, " n_window"]
    lengths: Int[np.ndarray, " n_trial"]
    margin: int

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        n, t, c = self.values.shape
        size = f"{n} of {t - 2 * self.margin} bins, margins {self.margin}"
        return f"Windows({size}, {c} channels, {len(self.lengths)} trials)"


def chop(
    emg: Rectified | ArrayLike,
    length: float | int = 0.2,
    overlap: float | int = 0.05,
    *,
    sfreq: float | int | None = None,
    margin: int = 0,
    padded: bool = False,
) -> Windows:
    """Cut trials into windows of equal length that overlap.

    Windows begin at the start of each trial, `length - overlap` apart; where the last does not reach the trial's end,
    one more ends there, and overlaps by more. No window holds bins of two trials.

    Parameters
    ----------
    emg
        `Rectified`, or arrays with `sfreq`, in any unit: (n_time, n_channel), (n_trial, n_time, n_channel), or a list
        of (n_time, n_channel).
    length, overlap
        Length of the windows, and by how much they overlap, s.
    sfreq
        Sampling rate of arrays, Hz.
    margin
        Bins of context on both sides of each window (the temporal shift needs 6). At the ends of a trial they are
        mirrored, since nothing is known there.
    padded
        Whether trials hold their own margins: their outer `margin` bins are context, and are not windowed.

    Returns
    -------
    Windows
        The windows, and where each comes from.

    Raises
    ------
    ValueError
        A trial that is shorter than a window.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> windows = jm.emg.chop(np.ones((2, 500, 3)), length=0.2, overlap=0.05, sfreq=500)
    >>> windows
    Windows(14 of 100 bins, margins 0, 3 channels, 2 trials)
    """
    if isinstance(emg, Rectified):
        if sfreq is not None:
            raise ValueError(f"sfreq: {sfreq:g} Hz, but emg has its own, {emg.sfreq:g} Hz; leave it out.")
        trials, sfreq = list(emg.by_trial()), emg.sfreq
    else:
        if sfreq is None:
            raise ValueError("sfreq: not given; arrays need their sampling rate in Hz.")
        trials = _as_trials(emg)
    rate = float(_check.positive(sfreq, "sfreq"))
    bins, shared = round(float(_check.positive(length, "length")) * rate), round(float(overlap) * rate)
    if bins < 1 or not 0 <= shared < bins:
        raise ValueError(
            f"overlap: {overlap:g} s ({shared} bins) of windows of {length:g} s ({bins} bins); it must be shorter."
        )
    _check.integer(margin, "margin", minimum=0)
    stored_margin = margin if padded else 0
    short = [
        i for i, trial in enumerate(trials) if len(trial) - 2 * stored_margin < max(bins, margin + 1 - stored_margin)
    ]
    if short:
        raise ValueError(
            f"emg: trial {short[0]} has {len(trials[short[0]]) - 2 * stored_margin} bins, a window {bins}"
            f"{f' ({len(short)} trials are too short)' if len(short) > 1 else ''}; leave such trials out, or take "
            "shorter windows."
        )
    values, trial, start = [], [], []
    for i, x in enumerate(trials):
        inner = len(x) - 2 * stored_margin
        context = np.pad(x, ((margin - stored_margin, margin - stored_margin), (0, 0)), mode="reflect")
        starts = list(range(0, inner - bins + 1, bins - shared))
        if starts[-1] + bins < inner:
            starts.append(inner - bins)
        values += [context[s : s + bins + 2 * margin] for s in starts]
        trial += [i] * len(starts)
        start += starts
    return Windows(
        np.stack(values),
        np.array(trial),
        np.array(start),
        np.array([len(x) - 2 * stored_margin for x in trials]),
        margin,
    )


def merge(values: ArrayLike, windows: Windows) -> tuple[np.ndarray, ...]:
    """Put windows together again, one array for each trial.

    Where a window overlaps what precedes it, the result is (1 - w) earlier + w later with w linear from 0 to 1 over the
    overlap. `merge(w.values, w)` gives the trials that were chopped.

    Parameters
    ----------
    values
        (n_window, n_bin, ...) in any unit, in the order of `windows`, with the margins or without.
    windows
        The windows that `chop` returned.

    Returns
    -------
    tuple of arrays
        For each trial an array (n_time, ...) of the length of the trial, in the unit of `values`.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> x = np.arange(300.0).reshape(1, 300, 1)
    >>> windows = jm.emg.chop(x, length=0.2, overlap=0.05, sfreq=500)
    >>> bool(np.allclose(jm.emg.merge(windows.values, windows)[0], x[0]))
    True
    """
    values = np.asarray(values)
    bins = windows.values.shape[1] - 2 * windows.margin
    if values.ndim < 2 or len(values) != len(windows) or values.shape[1] not in (bins, windows.values.shape[1]):
        raise ValueError(
            f"values: shape {values.shape}; pass ({len(windows)}, {bins}, ...), or {windows.values.shape[1]} bins with "
            "the margins."
        )
    if values.shape[1] != bins:
        values = values[:, windows.margin : windows.margin + bins]
    dtype = np.result_type(values.dtype, np.float32)
    result = [np.empty((n, *values.shape[2:]), dtype) for n in windows.lengths]
    reached = np.zeros(len(result), int)
    for window, i, start in zip(values, windows.trial, windows.start, strict=True):
        shared = reached[i] - start
        earlier = result[i][start : reached[i]]
        weight = np.linspace(0, 1, shared).reshape(-1, *[1] * (values.ndim - 2)).astype(dtype)
        # this form gives equal windows back to the bit
        earlier += weight * (window[:shared] - earlier)
        result[i][reached[i] : start + bins] = window[shared:]
        reached[i] = start + bins
    return tuple(result)


def _as_trials(emg: ArrayLike) -> list[np.ndarray]:
    if isinstance(emg, Sequence) and len(emg) and np.ndim(emg[0]) == 2:
        return [np.asarray(_check.finite(x, f"emg[{i}]")) for i, x in enumerate(emg)]
    array = np.asarray(_check.finite(emg, "emg"))
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"emg: shape {array.shape}; pass (n_time, n_channel) or (n_trial, n_time, n_channel).")
    return [array] if array.ndim == 2 else list(array)
