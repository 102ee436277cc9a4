"""Spectra: multitaper power, frequency responses of filters that adapt, coherence."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import fft, signal

from jaxm2m import _check
from jaxm2m.emg.preprocessing._steps import as_signal, check_varies


@dataclass(frozen=True, eq=False, repr=False)
class FrequencyResponse:
    """A frequency response, estimated segment by segment.

    Attributes
    ----------
    frequency : (n_freq,) float array
        Frequencies, Hz.
    each : (n_segment, n_freq, n_channel) float array
        Power that came out over power that went in, of standardised signals.
    """

    frequency: Float[np.ndarray, " n_freq"]
    each: Float[np.ndarray, "n_segment n_freq n_channel"]

    def __repr__(self) -> str:
        segments, frequencies, channels = self.each.shape
        return f"FrequencyResponse({segments} segments, {frequencies} frequencies, {channels} channels)"

    @property
    def mean(self) -> Float[np.ndarray, "n_freq n_channel"]:
        """Mean over segments, (n_freq, n_channel), a ratio of powers."""
        return self.each.mean(0)

    @property
    def sem(self) -> Float[np.ndarray, "n_freq n_channel"]:
        """Standard error of the mean over segments, (n_freq, n_channel), a ratio of powers."""
        return self.each.std(0, ddof=1) / len(self.each) ** 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Coherence:
    """Magnitude-squared coherence of single trials.

    Attributes
    ----------
    frequency : (n_freq,) float array
        Frequencies, Hz.
    each : (n_trial, n_freq, n_channel, n_output) float array
        Coherence of each trial, 0 to 1.
    """

    frequency: Float[np.ndarray, " n_freq"]
    each: Float[np.ndarray, "n_trial n_freq n_channel n_output"]

    def __repr__(self) -> str:
        n, f, c, o = self.each.shape
        return f"Coherence({n} trials, {f} frequencies, {c} channels with {o} outputs)"

    @property
    def mean(self) -> Float[np.ndarray, "n_freq n_channel n_output"]:
        """Mean over trials, (n_freq, n_channel, n_output), 0 to 1."""
        return self.each.mean(0)

    @property
    def sem(self) -> Float[np.ndarray, "n_freq n_channel n_output"]:
        """Standard error of the mean over trials, (n_freq, n_channel, n_output), no unit."""
        return self.each.std(0, ddof=1) / len(self.each) ** 0.5

    def band(
        self, low: float | int = 10.0, high: float | int = 50.0
    ) -> Float[np.ndarray, "n_trial n_channel n_output"]:
        """Average the coherence of each trial over a band of frequencies.

        Parameters
        ----------
        low, high
            Bounds of the band, Hz, both included.

        Returns
        -------
        array
            Mean coherence, (n_trial, n_channel, n_output), 0 to 1.
        """
        inside = (self.frequency >= low) & (self.frequency <= high)
        if not inside.any():
            raise ValueError(f"low: no frequency between {low:g} and {high:g} Hz; widen the band.")
        return self.each[:, inside].mean(1)


def multitaper(
    x: Float[Any, "*batch n_time n_channel"], sfreq: float | int = 500.0, nw: float | int = 3.0
) -> tuple[Float[np.ndarray, " n_freq"], Float[np.ndarray, "*batch n_freq n_channel"]]:
    """Compute Thomson's multitaper power spectrum.

    x less its mean is multiplied by the discrete prolate spheroidal sequences v_k whose share of power lambda_k within
    +-nw/T is above 0.9, and P = 2 sum_k lambda_k |F(v_k x)|^2 / sum_k lambda_k, half of that at 0 and Nyquist's
    frequency: the numbers of `mne.time_frequency.psd_array_multitaper` with bandwidth 2 nw sfreq / n_time.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit.
    sfreq
        Sampling rate, Hz.
    nw
        Half the time-bandwidth product, no unit.

    Returns
    -------
    frequency : array
        (n_time // 2 + 1,) frequencies, Hz.
    power : array
        (..., n_freq, n_channel), in the unit of `x` squared; divided by sfreq it is a density per Hz.
    """
    x, n = as_signal(x), np.shape(x)[-2]
    if float(_check.positive(nw, "nw")) < 0.5 or nw >= n / 2:
        raise ValueError(f"nw: {nw:g} for {n} bins; it must lie between 0.5 and half of them.")
    tapers, shares = signal.windows.dpss(n, float(nw), int(2 * nw), sym=False, return_ratios=True)
    kept = shares > 0.9
    if not kept.any():
        kept = shares == shares.max()
    tapers, shares = tapers[kept], shares[kept]
    x = np.moveaxis(x - x.mean(-2, keepdims=True), -2, -1)
    power = sum(share * np.abs(fft.rfft(x * taper, axis=-1)) ** 2 for taper, share in zip(tapers, shares, strict=True))
    power = 2 * power / shares.sum()
    power[..., 0] /= 2
    if n % 2 == 0:
        power[..., -1] /= 2
    frequency = fft.rfftfreq(n, 1 / float(_check.positive(sfreq, "sfreq")))
    return frequency, np.moveaxis(power, -1, -2)


def frequency_response(
    before: Float[Any, "n_segment n_time n_channel"],
    after: Float[Any, "_ _ _"],
    sfreq: float | int = 500.0,
    nw: float | int = 3.0,
) -> FrequencyResponse:
    """Compute what a filter, an adaptive one included, does to the spectrum in one phase of behaviour.

    Each channel of both signals gets mean 0 and standard deviation 1 over all segments of the phase; the response is
    the ratio of their multitaper spectra, segment by segment.

    Parameters
    ----------
    before, after
        Rectified EMG and activation in the same segments (`around` cuts them), (n_segment, n_time, n_channel), in any
        unit, all of one phase. The source: 175 bins at 25 % of swing, and in the middle of stance.
    sfreq
        Sampling rate, Hz.
    nw
        Half the time-bandwidth product, no unit.

    Returns
    -------
    FrequencyResponse
        The ratio of the spectra in each segment.
    """
    ins, outs = as_signal(before, "before"), as_signal(after, "after")
    if ins.ndim != 3 or ins.shape != outs.shape:
        raise ValueError(f"after: shape {outs.shape} against {ins.shape}; both must be (n_segment, n_time, n_channel).")
    frequency, p = multitaper(_standardise(ins, "before"), sfreq, nw)
    return FrequencyResponse(frequency, multitaper(_standardise(outs, "after"), sfreq, nw)[1] / p)


def coherence(
    x: Float[Any, "n_trial n_time n_channel"],
    y: Float[Any, "_ _ n_output"],
    sfreq: float | int = 500.0,
    *,
    window: int = 120,
    overlap: int = 100,
) -> Coherence:
    """Compute the magnitude-squared coherence of each channel with each output, in single trials.

    |S_xy|^2 / (S_xx S_yy), with Welch's spectra as by MATLAB's `mscohere(x, y, hanning(120), 100, 120)`: no detrending,
    and a Hann window without its zeros. Few windows fit into a trial, which biases the coherence of independent signals
    upwards (to 1/m for m windows that do not overlap): compare methods on the same trials.

    Parameters
    ----------
    x
        Activations, aligned as wanted, (n_trial, n_time, n_channel), in any unit. The source: 300 ms before to 600 ms
        after force onset.
    y
        dF/dt of the same trials, (n_trial, n_time, n_output), in any unit.
    sfreq
        Sampling rate, Hz.
    window, overlap
        Length of the windows, and by how much they overlap, bins.

    Returns
    -------
    Coherence
        The coherence of each trial.
    """
    a, b = as_signal(x, "x"), as_signal(y, "y")
    if a.ndim != 3 or a.shape[:2] != b.shape[:2] or b.ndim != 3:
        raise ValueError(f"y: shape {b.shape} against {a.shape}; both must have the same trials and bins.")
    _check.integer(window, "window", minimum=2)
    if not 0 <= overlap < window or 2 * window - overlap > a.shape[1]:
        raise ValueError(
            f"window: {window} bins with {overlap} overlapping in trials of {a.shape[1]}; two windows at least must "
            "fit, or coherence is 1 everywhere."
        )
    frequency, each = signal.coherence(
        a[:, :, :, None],
        b[:, :, None, :],
        fs=float(_check.positive(sfreq, "sfreq")),
        window=signal.windows.hann(window + 2)[1:-1],
        nperseg=window,
        noverlap=overlap,
        detrend=False,
        axis=1,
    )
    return Coherence(frequency, each)


def _standardise(x: np.ndarray, name: str) -> np.ndarray:
    check_varies(x.reshape(-1, x.shape[-1]), name)
    return (x - x.mean((0, 1))) / x.std((0, 1))
