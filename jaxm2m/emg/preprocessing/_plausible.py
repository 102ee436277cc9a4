"""What the spectrum tells about a sampling rate."""

import warnings

import numpy as np
from scipy import ndimage, signal

_SHARP = 20.0  # a line's height over the median of the spectrum round it
_SPAN = 10.0  # Hz, that spectrum


def check_spectrum(pieces: list[np.ndarray], sfreq: float, line: float | None, highpass: float | None) -> None:
    """Refuse a sampling rate that the spectrum of raw EMG contradicts.

    What can be known: the mains line lies at 50 or 60 Hz. Sharp lines at f, 2 f, 3 f, ... that fit neither show that
    the rate is wrong, and by how much; a single one raises a suspicion. And raw EMG has power above the high-pass.

    What cannot: without a line, a rate that is wrong by less than a factor of several looks like another muscle. A comb
    at 120, 240, 360 Hz, as rectifiers make it, hides a rate that is twice the true one. Rectified data carry no line.
    Two seconds are needed.

    Raises
    ------
    ValueError
        `sfreq` or `line` contradict the spectrum.

    Warns
    -----
    UserWarning
        There are sharp lines, none of them the mains.
    """
    longest = max(pieces, key=len)
    if len(longest) < 2 * sfreq:
        return
    frequency, power = estimate_spectrum(longest, sfreq)
    if highpass is not None:
        _check_band(frequency, power, sfreq, highpass)
    if line is None:
        return
    half = round(_SPAN / frequency[1])
    around = ndimage.median_filter(power, (2 * half + 1, 1), mode="nearest")
    sharp = (power / np.maximum(around, power.max(0) * 1e-15)).max(1)
    top = (
        (sharp == ndimage.maximum_filter1d(sharp, 5)) & (sharp > _SHARP) & (frequency > 8) & (frequency < 0.45 * sfreq)
    )
    lines = frequency[top]
    if not len(lines):
        return
    for mains in (line, 110 - line) if line in (50, 60) else (line,):
        fits = np.abs(lines / mains - np.rint(lines / mains)) * mains < 1.0
        if (fits & (np.rint(lines / mains) % 2 == 1)).any() and fits.mean() >= 0.5:
            if mains != line:
                raise ValueError(
                    f"line: {line:g} Hz, but the spectrum has sharp lines at {_list(lines)} Hz; pass line={mains:g}."
                )
            return
    mains_multiple = [np.abs(lines / m - np.rint(lines / m)) * m < 1.0 for m in {50.0, 60.0, line}]
    strange = lines[~np.any(mains_multiple, axis=0)]
    for first in strange:
        orders = lines / first
        comb = lines[(np.abs(orders - np.rint(orders)) * first < 1.0) & (orders > 0.5)]
        if len(comb) >= 3 and np.isin(comb, strange).sum() >= 2:
            raise ValueError(
                f"sfreq: at {sfreq:g} Hz the spectrum has sharp lines at {_list(comb)} Hz, which are no mains; the "
                f"rate is {_rates(sfreq, first)}. If they are a stimulator's, pass line=None."
            )
    if len(strange) == len(lines):
        warnings.warn(
            f"sfreq: at {sfreq:g} Hz the spectrum has sharp lines at {_list(strange)} Hz and none at {line:g} Hz; if "
            f"the lowest is the mains, the rate is {_rates(sfreq, strange[0])}. If not, remove them by notches.",
            stacklevel=3,
        )


def estimate_spectrum(x: np.ndarray, sfreq: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and power of each channel, in segments of 2 s; one channel after the other, for the memory's sake."""
    spectra = [signal.welch(column, sfreq, nperseg=round(2 * sfreq)) for column in np.ascontiguousarray(x.T)]
    return spectra[0][0], np.stack([power for _, power in spectra], -1)


def _rates(sfreq: float, first: float) -> str:
    return " or ".join(f"{sfreq * mains / first:.6g} Hz (mains of {mains:g} Hz)" for mains in (50, 60))


def _check_band(frequency: np.ndarray, power: np.ndarray, sfreq: float, highpass: float) -> None:
    physiological = frequency > 10
    total, high = power[physiological].sum(0), power[frequency > highpass].sum(0)
    share = high / np.where(total > 0, total, 1)
    if (share < 0.01).all():
        raise ValueError(
            f"sfreq: at {sfreq:g} Hz only {share.max():.2%} of the power over 10 Hz lies above the high-pass of "
            f"{highpass:g} Hz, where raw EMG has most; the rate is too low, or the recording was smoothed: correct the "
            "rate, or pass rectified=True for an envelope."
        )


def _list(lines: np.ndarray) -> str:
    return ", ".join(f"{f:.4g}" for f in lines[:6]) + (" ..." if len(lines) > 6 else "")
