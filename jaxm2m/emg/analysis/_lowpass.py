"""The low-pass family: the envelopes that EMG is usually smoothed to."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import signal

from jaxm2m import _check
from jaxm2m.emg.preprocessing._steps import as_signal

CUTOFFS = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0)
_PAD = 15  # samples mirrored at the ends, as scipy.signal.filtfilt has it for four poles


def lowpass(
    x: Float[np.ndarray, "*batch n_time n_channel"],
    sfreq: float | int = 500.0,
    cutoff: float | int | Sequence[float | int] = CUTOFFS,
    *,
    order: int = 4,
    causal: bool = False,
) -> Float[np.ndarray, "*family_batch n_time n_channel"]:
    """Apply a Butterworth low-pass filter to rectified EMG.

    Parameters
    ----------
    x
        Rectified signals (..., n_time, n_channel), in any unit; each batch item by itself.
    sfreq
        Sampling rate, Hz.
    cutoff
        Cutoff frequency, Hz; several give the whole family at once. The design has -3 dB there, and -6 dB once run both
        ways.
    order
        Poles of the design; 4 in the source, which does not say whether it ran it both ways.
    causal
        Whether the filter runs forwards only, and lags by some 0.4 / cutoff s. By default it runs forwards and
        backwards: zero phase, twice the order.

    Returns
    -------
    array
        The filtered signals, (..., n_time, n_channel), in the unit of `x`, with a leading axis for several cutoffs.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> time = np.arange(0, 2, 1 / 500)
    >>> x = 1 + np.sin(2 * np.pi * 60 * time)
    >>> print(f"{jm.emg.lowpass(x[:, None], sfreq=500.0, cutoff=5.0)[500, 0]:.2f}")
    1.00
    """
    x, sfreq = as_signal(x), float(_check.positive(sfreq, "sfreq"))
    family = []
    for each in np.atleast_1d(_check.positive(cutoff, "cutoff")):
        if each >= sfreq / 2:
            raise ValueError(f"cutoff: {each:g} Hz is not below half the sampling rate of {sfreq:g} Hz; lower it.")
        sos = signal.butter(_check.integer(order, "order"), each, fs=sfreq, output="sos")
        if causal:
            # starts as if the first sample had always been there
            state = signal.sosfilt_zi(sos)[(...,) + (None,) * (x.ndim - 1)]
            start = np.moveaxis(state, 1, -2) * x[..., :1, :]
            family.append(signal.sosfilt(sos, x, axis=-2, zi=start)[0])
        else:
            family.append(signal.sosfiltfilt(sos, x, axis=-2, padlen=min(x.shape[-2] - 1, _PAD)))
    return np.stack(family) if np.ndim(cutoff) else family[0]
