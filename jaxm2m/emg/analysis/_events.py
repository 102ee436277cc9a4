"""Events of behaviour: derivatives, force onset, foot strike and foot off."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import signal

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.emg.preprocessing._steps import as_signal


@dataclass(frozen=True, eq=False, repr=False)
class Gait:
    """Strides of one limb: strike, stance, off, swing, next strike.

    Attributes
    ----------
    strike : (n_stride + 1,) float array
        Times at which the foot touches the ground, s.
    off : (n_stride,) float array
        Times at which it leaves it, one after each strike but the last, s.
    """

    strike: Float[np.ndarray, " n_strike"]
    off: Float[np.ndarray, " n_stride"]

    def __repr__(self) -> str:
        return (
            f"Gait({len(self.off)} strides, stance {np.diff(self.stance).mean():.3f} s, "
            f"swing {np.diff(self.swing).mean():.3f} s)"
        )

    @property
    def stance(self) -> Float[np.ndarray, "n_stride 2"]:
        """First and last time of each stance, (n_stride, 2), s."""
        return np.stack([self.strike[:-1], self.off], -1)

    @property
    def swing(self) -> Float[np.ndarray, "n_stride 2"]:
        """First and last time of each swing, (n_stride, 2), s."""
        return np.stack([self.off, self.strike[1:]], -1)

    def within(self, phase: str, share: float | int | None = None) -> Float[np.ndarray, " n_stride"]:
        """Return the times at a share of each stance or swing.

        Parameters
        ----------
        phase
            "stance" or "swing".
        share
            Share of the phase that has passed, 0 to 1; None: the source's 0.5 of stance, 0.25 of swing.

        Returns
        -------
        array
            A time for each stride, (n_stride,), s.
        """
        _check.option(phase, ("stance", "swing"), "phase")
        share = {"stance": 0.5, "swing": 0.25}[phase] if share is None else float(share)
        bounds = self.stance if phase == "stance" else self.swing
        return bounds[:, 0] + share * (bounds[:, 1] - bounds[:, 0])

    def in_stance(self, times: Float[np.ndarray, " n_time"]) -> Bool[np.ndarray, " n_time"]:
        """Tell whether the foot is on the ground.

        Parameters
        ----------
        times
            (n_time,) times, s.

        Returns
        -------
        array
            (n_time,) bool for each time in s; False before the first strike and from the last on.
        """
        index = np.searchsorted(self.strike, times, side="right") - 1
        inside = (index >= 0) & (index < len(self.off))
        return inside & (times < self.off[np.clip(index, 0, len(self.off) - 1)])


def derivative(
    x: Float[Any, "*batch n_time n_variable"],
    sfreq: float | int = 500.0,
    order: int = 1,
    *,
    degree: int = 5,
    frame: int = 27,
) -> Float[np.ndarray, "*batch n_time n_variable"]:
    """Compute derivatives in time by a Savitzky-Golay filter.

    Parameters
    ----------
    x
        Angles, positions or forces, (..., n_time, n_variable), in any unit.
    sfreq
        Sampling rate, Hz.
    order
        1: velocity, 2: acceleration.
    degree
        Degree of the polynomial.
    frame
        Bins to which the polynomial is fitted (odd). At the ends of a trial the first and the last polynomial go on.

    Returns
    -------
    array
        The derivatives, (..., n_time, n_variable), in units of `x` per s (order 1) or per s^2 (order 2).

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> time = np.arange(0, 1, 1 / 500)
    >>> print(f"{jm.emg.derivative((time**2)[:, None], sfreq=500.0)[250, 0]:.2f}")
    1.00
    """
    x = as_signal(x)
    if _check.integer(frame, "frame") % 2 == 0 or frame > x.shape[-2]:
        raise ValueError(f"frame: {frame} for trials of {x.shape[-2]} bins; it must be odd, and no longer.")
    if _check.integer(degree, "degree") >= frame or _check.integer(order, "order") > degree:
        raise ValueError(f"degree: {degree}; it must lie between order ({order}) and frame ({frame}).")
    step = 1 / float(_check.positive(sfreq, "sfreq"))
    return signal.savgol_filter(x, frame, degree, deriv=order, delta=step, axis=-2)


def force_onset(
    rate: Float[Any, "n_trial n_time n_axis"],
    sfreq: float | int,
    target: ArrayLike,
    *,
    before: float | int = 0.25,
    after: float | int = 0.75,
    threshold: float | int = 0.15,
) -> Float[np.ndarray, " n_trial"]:
    """Find when |dF/dt| crosses 15 % of its maximum near the appearance of the target.

    The crossing is the last one upwards before the maximum, interpolated between bins: earlier ones are noise.

    Parameters
    ----------
    rate
        dF/dt of each trial (`derivative(force, sfreq)`), (n_trial, n_time, n_axis), in any unit; one or several
        directions.
    sfreq
        Sampling rate, Hz.
    target
        (n_trial,) times of the target, s from the first bin, or one number for all trials.
    before, after
        The window around the target, s.
    threshold
        Share of the maximum, between 0 and 1.

    Returns
    -------
    array
        (n_trial,) onsets, s from the first bin; NaN where |dF/dt| is above the threshold from the beginning of the
        window.
    """
    rate, sfreq = as_signal(rate, "rate"), float(_check.positive(sfreq, "sfreq"))
    if rate.ndim != 3:
        raise ValueError(f"rate: shape {rate.shape}; pass (n_trial, n_time, n_axis).")
    if not 0 < float(threshold) < 1:
        raise ValueError(f"threshold: {threshold:g}; it is a share of the maximum, between 0 and 1.")
    targets = np.broadcast_to(np.asarray(_check.finite(target, "target"), np.float64), len(rate))
    size, onset = np.linalg.norm(rate, axis=-1), np.full(len(rate), np.nan)
    for i, (speed, at) in enumerate(zip(size, targets, strict=True)):
        first, last = round((at - float(before)) * sfreq), round((at + float(after)) * sfreq) + 1
        if first < 0 or last > len(speed):
            raise ValueError(
                f"target: in trial {i} at {at:g} s, but the trial has {len(speed) / sfreq:g} s, which do not hold "
                f"{before:g} s before and {after:g} s after; pass longer trials, or a shorter window."
            )
        speed = speed[first:last]
        level, peak = threshold * speed.max(), int(speed.argmax())
        below = np.flatnonzero(speed[:peak] < level)
        if len(below):
            k = below[-1]
            onset[i] = (first + k + (level - speed[k]) / (speed[k + 1] - speed[k])) / sfreq
    return onset


def gait(
    forward: Float[Any, " n_time"], sfreq: float | int, *, shortest: float | int = 0.25, prominence: float | int = 0.3
) -> Gait:
    """Find foot strikes and foot offs from where the foot is along the direction of walking.

    On a treadmill the foot moves forward in swing and back with the belt in stance: it strikes where it is furthest in
    front of the pelvis, and leaves where it is furthest behind. Where only angles are known, the hip's flexion, or the
    limb's angle, may stand for the position.

    Parameters
    ----------
    forward
        (n_time,) position of the foot relative to the pelvis, positive in front, of one contiguous recording; any unit.
    sfreq
        Sampling rate, Hz.
    shortest
        The shortest stride, s.
    prominence
        How far a maximum must stand out, as a share of the range between the 5th and 95th percentile.

    Returns
    -------
    Gait
        Times of foot strikes and foot offs.

    Raises
    ------
    ValueError
        Fewer than two strikes.

    Notes
    -----
    J. A. Zeni, J. G. Richards, J. S. Higginson, Two simple methods for determining gait events during treadmill and
    overground walking using kinematic data, Gait & Posture 27, 710 (2008).
    """
    x = np.asarray(_check.finite(forward, "forward"), np.float64)
    if x.ndim != 1:
        raise ValueError(f"forward: shape {x.shape}; pass one signal, (n_time,).")
    sfreq = float(_check.positive(sfreq, "sfreq"))
    low, high = np.percentile(x, (5, 95))
    distance = max(1, round(float(_check.positive(shortest, "shortest")) * sfreq))
    least = float(_check.positive(prominence, "prominence")) * (high - low)
    strikes = signal.find_peaks(x, distance=distance, prominence=max(least, np.finfo(float).tiny))[0]
    if len(strikes) < 2:
        raise ValueError(
            f"forward: {len(strikes)} foot strikes in {len(x) / sfreq:g} s; pass at least one whole stride, or lower "
            "shortest or prominence."
        )
    offs = [a + int(x[a:b].argmin()) for a, b in pairwise(strikes)]
    return Gait(_vertex(x, strikes) / sfreq, _vertex(x, np.array(offs)) / sfreq)


def around(
    x: Float[Any, "n_time n_channel"], times: ArrayLike, sfreq: float | int, before: float | int, after: float | int
) -> tuple[Float[np.ndarray, "n_kept n_bin n_channel"], Int[np.ndarray, " n_kept"]]:
    """Cut segments of a recording around events.

    Parameters
    ----------
    x
        The recording, (n_time, n_channel), in any unit.
    times
        (n_event,) times of the events, s from the first bin; NaN is left out.
    sfreq
        Sampling rate, Hz.
    before, after
        Time before and after the event, s; their sum, rounded, is the length of the segments. The source: 0.175 and
        0.175 (175 bins).

    Returns
    -------
    segments : array
        The segments that lie inside the recording, (n_kept, n_bin, n_channel), in the unit of `x`.
    kept : array
        (n_kept,) indices of the events that they belong to.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> segments, kept = jm.emg.around(np.zeros((1000, 2)), [0.05, 1.0, 1.5], sfreq=500.0, before=0.1, after=0.2)
    >>> segments.shape, kept.tolist()
    ((2, 150, 2), [1, 2])
    """
    x, sfreq = as_signal(x), float(_check.positive(sfreq, "sfreq"))
    if x.ndim != 2:
        raise ValueError(f"x: shape {x.shape}; pass one recording, (n_time, n_channel).")
    times = np.atleast_1d(np.asarray(_check.array(times, "times"), np.float64))
    bins = round((float(before) + float(after)) * sfreq)
    if bins < 1:
        raise ValueError(f"after: {before:g} s before and {after:g} s after hold no bin; take longer ones.")
    # far outside instead of NaN, which no bin has
    starts = np.rint((np.nan_to_num(times, nan=-1e9) - float(before)) * sfreq).astype(int)
    kept = np.flatnonzero((starts >= 0) & (starts + bins <= len(x)))
    return x[starts[kept, None] + np.arange(bins)], kept


def _vertex(x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Locate the vertex of the parabola through an extremum and its neighbours, in bins."""
    inside = (k > 0) & (k < len(x) - 1)
    a, b, c = x[np.maximum(k - 1, 0)], x[k], x[np.minimum(k + 1, len(x) - 1)]
    bend = a - 2 * b + c
    bent = inside & (bend != 0)
    shift = np.where(bent, 0.5 * (a - c) / np.where(bent, bend, 1), 0)
    return k + np.clip(shift, -0.5, 0.5)
