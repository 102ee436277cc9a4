"""The steps of preprocessing, each on plain arrays (..., n_time, n_channel)."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import signal

from jaxm2m import _check


def as_signal(x: Any, name: str = "x", channels: Sequence[str] | None = None) -> np.ndarray:
    """Convert to finite signals (..., n_time, n_channel), float64; name a channel that is NaN, infinite or empty."""
    x = np.asarray(_check.array(x, name), np.float64)
    if x.ndim < 2 or not x.size:
        raise ValueError(f"{name}: shape {x.shape}; the last two axes must be time and channel.")
    bad = ~np.isfinite(x)
    if bad.any():
        share = bad.reshape(-1, x.shape[-1]).mean(0)
        k = int(share.argmax())
        raise ValueError(
            f"{name}: {share[k]:.1%} of channel {_label(channels, k)} is NaN or infinite"
            f"{f' ({int((share > 0).sum())} channels are)' if (share > 0).sum() > 1 else ''}; "
            "leave the channel or the trials out, or fill the gaps."
        )
    return x


def as_rectified(x: Any, name: str = "x", channels: Sequence[str] | None = None, *, zero: bool = False) -> np.ndarray:
    """Convert to rectified signals: as `as_signal`, above zero (`zero=True`: not below it), no channel constant."""
    x = as_signal(x, name, channels)
    flat = x.reshape(-1, x.shape[-1])
    low = flat.min(0)
    k = int(low.argmin())
    if low[k] < 0:
        raise ValueError(
            f"{name}: {(flat[:, k] < 0).mean():.1%} of channel {_label(channels, k)} is negative (to {low[k]:.4g}); "
            "rectified EMG is not. Where a filter rang below zero, pass np.maximum(x, 0); raw EMG goes through "
            "emg.preprocess."
        )
    if low[k] == 0 and not zero:
        raise ValueError(
            f"{name}: {(flat[:, k] == 0).mean():.1%} of channel {_label(channels, k)} is zero, which has no "
            "logarithm; emg.preprocess raises zeros to a floor."
        )
    check_varies(flat, name, channels)
    return x


def check_varies(x: np.ndarray, name: str, channels: Sequence[str] | None = None) -> None:
    """Refuse a constant channel in x (n, n_channel)."""
    still = np.flatnonzero(x.max(0) == x.min(0))
    if len(still):
        raise ValueError(
            f"{name}: channel {', '.join(_label(channels, k) for k in still)} is constant ({x[0, still[0]]:.4g}); "
            "it was not connected: leave it out."
        )


def notch(
    x: Float[np.ndarray, "*batch n_time n_channel"],
    sfreq: float | int,
    frequencies: float | int | Sequence[float | int],
    quality: float | int = 30.0,
) -> Float[np.ndarray, "*batch n_time n_channel"]:
    """Apply zero-phase notch filters, `frequency / quality` Hz wide at -3 dB each.

    Each is a second-order IIR filter, run forwards and backwards.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit.
    sfreq
        Sampling rate, Hz.
    frequencies
        Centres of the notches, Hz; the rat recordings of the source had notches at 60, 120, 240, 300 and 420 Hz, the
        monkey's at 60 and 94 Hz.
    quality
        Ratio of centre to width.

    Returns
    -------
    array
        The filtered signals, (..., n_time, n_channel), in the unit of `x`.
    """
    x, sfreq = as_signal(x), float(_check.positive(sfreq, "sfreq"))
    _check.positive(quality, "quality")
    for frequency in map(float, np.atleast_1d(_check.positive(frequencies, "frequencies"))):
        check_below_nyquist(frequency, sfreq, "frequencies")
        sos = signal.tf2sos(*signal.iirnotch(frequency, quality, fs=sfreq))
        x = _both_ways(sos, x, 3 * quality * sfreq / frequency)
    return x


def highpass(
    x: Float[np.ndarray, "*batch n_time n_channel"], sfreq: float | int, cutoff: float | int = 65.0, order: int = 4
) -> Float[np.ndarray, "*batch n_time n_channel"]:
    """Apply a zero-phase Butterworth high-pass filter.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit.
    sfreq
        Sampling rate, Hz.
    cutoff
        Cutoff frequency, Hz; the response there is -6 dB, since the filter runs forwards and backwards.
    order
        Order of the filter in one direction.

    Returns
    -------
    array
        The filtered signals, (..., n_time, n_channel), in the unit of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> time = np.arange(0, 1, 1 / 1000)
    >>> slow, fast = np.sin(2 * np.pi * 5 * time), np.sin(2 * np.pi * 150 * time)
    >>> left = jm.emg.highpass((slow + fast)[:, None], sfreq=1000.0)[:, 0] - fast
    >>> print(f"{np.std(left[200:-200]):.2f}")
    0.00
    """
    x, sfreq = as_signal(x), float(_check.positive(sfreq, "sfreq"))
    check_below_nyquist(float(_check.positive(cutoff, "cutoff")), sfreq, "cutoff")
    sos = signal.butter(_check.integer(order, "order"), cutoff, "highpass", fs=sfreq, output="sos")
    return _both_ways(sos, x, 3 * sfreq / cutoff)


def rectify(x: Float[np.ndarray, "*batch n_time n_channel"]) -> Float[np.ndarray, "*batch n_time n_channel"]:
    """Rectify full-wave: |x|.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit.

    Returns
    -------
    array
        Their absolute values, (..., n_time, n_channel), in the unit of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> jm.emg.rectify(np.array([[-1.0], [2.0], [-3.0]])).ravel().tolist()
    [1.0, 2.0, 3.0]
    """
    return np.abs(as_signal(x))


def resample(
    x: Float[np.ndarray, "*batch n_time n_channel"], sfreq: float | int, to: float | int = 500.0
) -> Float[np.ndarray, "*batch n_new n_channel"]:
    """Resample to a lower rate by a polyphase filter.

    The window is Kaiser's with beta 5; sample 0 stays in place, ends are mirrored. The anti-aliasing filter rings:
    rectified signals come out slightly negative in places.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit.
    sfreq
        Their sampling rate, Hz.
    to
        The new sampling rate, Hz.

    Returns
    -------
    array
        The resampled signals, (..., n_new, n_channel), in the unit of `x`.

    Raises
    ------
    ValueError
        `to` is above `sfreq`.
    """
    x = as_signal(x)
    up, down = resampling_ratio(sfreq, to)
    if up == down:
        return x
    return signal.resample_poly(x, up, down, axis=-2, window=("kaiser", 5.0), padtype="symmetric")


def resampling_ratio(sfreq: float | int, to: float | int) -> tuple[int, int]:
    """Find whole numbers (up, down) with `to` = `sfreq` up / down, to some 1e-6."""
    sfreq, to = float(_check.positive(sfreq, "sfreq")), float(_check.positive(to, "to"))
    if to > sfreq * (1 + 1e-6):
        raise ValueError(
            f"sfreq: {sfreq:g} Hz is below {to:g} Hz, and samples that were not taken cannot be made; check the rate, "
            f"or pass to={sfreq:g}."
        )
    # measured rates have no simple ratio: one sample in a million more or less is no matter
    fractions = [Fraction(to / sfreq).limit_denominator(limit) for limit in (100, 1000, 10_000)]
    close = [f for f in fractions if abs(float(f) * sfreq / to - 1) < 1e-6]
    fraction = (close or fractions[-1:])[0]
    return fraction.numerator, fraction.denominator


def clip(
    x: Float[np.ndarray, "*batch n_time n_channel"], percentile: float | int | Sequence[float | int] = 99.9
) -> tuple[Float[np.ndarray, "*batch n_time n_channel"], Float[np.ndarray, " n_channel"]]:
    """Set what exceeds a percentile of its channel to that percentile.

    Parameters
    ----------
    x
        Rectified signals (..., n_time, n_channel), in any unit; percentiles are over all batch items.
    percentile
        One, or one for each channel, from 50 to 100. The source took 99.99 (monkey), 99.9 (rat), and 99 for a channel
        with many artefacts.

    Returns
    -------
    clipped : array
        The signals, (..., n_time, n_channel), in the unit of `x`.
    threshold : array
        The threshold of each channel, (n_channel,), in the unit of `x`.
    """
    x = as_rectified(x, zero=True)
    share = np.asarray(_check.positive(percentile, "percentile"), np.float64)
    if share.shape not in ((), x.shape[-1:]) or (share > 100).any() or (share < 50).any():
        raise ValueError(f"percentile: {percentile}; pass one, or one for each channel, from 50 to 100.")
    share = np.broadcast_to(share, x.shape[-1:])
    flat = x.reshape(-1, x.shape[-1])
    threshold = np.array([np.percentile(flat[:, k], share[k]) for k in range(x.shape[-1])])
    return np.minimum(x, threshold), threshold


def normalise(
    x: Float[np.ndarray, "*batch n_time n_channel"], percentile: float | int = 95.0
) -> tuple[Float[np.ndarray, "*batch n_time n_channel"], Float[np.ndarray, " n_channel"]]:
    """Divide each channel by a percentile of its own.

    Parameters
    ----------
    x
        Rectified signals (..., n_time, n_channel), in any unit; percentiles are over all batch items.
    percentile
        Percentile that becomes 1, from 0 to 100.

    Returns
    -------
    normalised : array
        The signals, (..., n_time, n_channel), no unit.
    scale : array
        The divisor of each channel, (n_channel,), in the unit of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> scaled, divisor = jm.emg.normalise(np.arange(101.0)[:, None])
    >>> print(f"{divisor[0]:.1f}, then up to {scaled.max():.3f}")
    95.0, then up to 1.053
    """
    x = as_rectified(x, zero=True)
    if not 0 < _check.positive(percentile, "percentile") <= 100:
        raise ValueError(f"percentile: {percentile}; pass one up to 100.")
    scale = np.percentile(x.reshape(-1, x.shape[-1]), percentile, axis=0)
    return x / check_scale(scale, percentile), scale


def check_scale(scale: np.ndarray, percentile: float | int, channels: Sequence[str] | None = None) -> np.ndarray:
    """Return divisors; refuse one that is zero."""
    for k in np.flatnonzero(scale <= 0):
        raise ValueError(
            f"x: {percentile:g} % of channel {_label(channels, k)} is zero; it was not connected: leave it out."
        )
    return scale


def _label(channels: Sequence[str] | None, k: Any) -> str:
    return str(k) if channels is None else repr(channels[k])


def check_below_nyquist(frequency: float | int, sfreq: float | int, name: str) -> None:
    """Refuse a frequency that the sampling rate cannot hold."""
    if frequency >= sfreq / 2:
        raise ValueError(
            f"{name}: {frequency:g} Hz is not below half the sampling rate of {sfreq:g} Hz; check the rate, or leave "
            "it out."
        )


def _both_ways(sos: np.ndarray, x: np.ndarray, pad: float | int) -> np.ndarray:
    return signal.sosfiltfilt(sos, x, axis=-2, padlen=min(x.shape[-2] - 1, round(pad)))
