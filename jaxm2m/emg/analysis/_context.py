"""Smoothing and temporal context: what a linear decoder gains from neighbouring bins alone."""

from typing import Any

import numpy as np
from jaxtyping import Float, Real
from scipy.ndimage import gaussian_filter1d

from jaxm2m import _check
from jaxm2m.emg.preprocessing._steps import as_signal


def smooth(
    x: Real[Any, "*batch n_time n_channel"], sfreq: float | int = 500.0, sd: float | int = 0.035
) -> Float[np.ndarray, "*batch n_time n_channel"]:
    """Convolve each trial with a normal density, mirrored at its ends.

    A baseline for rectified EMG; for spike counts, the rate that the source decodes (sd 35 ms).

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit.
    sfreq
        Sampling rate, Hz.
    sd
        Standard deviation of the density, s.

    Returns
    -------
    array
        The smoothed signals, (..., n_time, n_channel), in the unit of `x`.
    """
    x, bins = as_signal(x), float(_check.positive(sd, "sd")) * float(_check.positive(sfreq, "sfreq"))
    return gaussian_filter1d(x, bins, axis=-2)


def context(
    x: Float[Any, "*batch n_time n_channel"],
    sfreq: float | int = 500.0,
    *,
    reach: float | int = 0.08,
    every: float | int = 0.004,
    margin: int = 0,
) -> Float[np.ndarray, "*batch n_inner n_lag_channel"]:
    """Put each bin beside its neighbours: x(t + k) for k = -reach, ..., reach.

    Decoded with `cross_validate_decoder`, this is a supervised lagged ridge regression. It has as many weights as an
    FIR filter for each channel and output, so that beside it one sees what a model of the dynamics adds to plain
    context.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit; rectified EMG should be smoothed to about the spacing before.
    sfreq
        Sampling rate, Hz.
    reach
        How far neighbours lie on both sides, s. Trials are mirrored at their ends.
    every
        Spacing of the neighbours, s.
    margin
        Bins at both ends of each trial that are context only.

    Returns
    -------
    array
        (..., n_time - 2 margin, n_lag n_channel), in the unit of `x`: all channels of the earliest lag first.
    """
    x, sfreq = as_signal(x), float(_check.positive(sfreq, "sfreq"))
    step = max(1, round(float(_check.positive(every, "every")) * sfreq))
    far = round(float(_check.positive(reach, "reach")) * sfreq) // step * step
    n = x.shape[-2]
    if far > n:
        raise ValueError(f"reach: {far} bins, but trials have {n}; take a shorter one.")
    wide = np.pad(x, [*[(0, 0)] * (x.ndim - 2), (far, far), (0, 0)], mode="symmetric")
    if 2 * _check.integer(margin, "margin", minimum=0) >= n:
        raise ValueError(f"margin: {margin} bins at both ends of trials of {n}; take fewer.")
    return np.concatenate([wide[..., k + margin : k + n - margin, :] for k in range(0, 2 * far + 1, step)], axis=-1)


def context_pca(
    x: Float[Any, "*batch n_time n_channel"],
    sfreq: float | int = 500.0,
    components: int = 12,
    *,
    reach: float | int = 0.08,
    every: float | int = 0.004,
    margin: int = 0,
) -> Float[np.ndarray, "*batch n_inner n_component"]:
    """Compute the principal components of `context`.

    They are as unsupervised as the sequential model, with its temporal context alone.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit.
    sfreq
        Sampling rate, Hz.
    components
        Number of components, the first with the largest variance.
    reach
        How far neighbours lie on both sides, s.
    every
        Spacing of the neighbours, s.
    margin
        Bins at both ends of each trial that are context only.

    Returns
    -------
    array
        The components, (..., n_time - 2 margin, n_component), in the unit of `x`.
    """
    windows = context(x, sfreq, reach=reach, every=every, margin=margin)
    flat = windows.reshape(-1, windows.shape[-1])
    if _check.integer(components, "components") > min(flat.shape):
        raise ValueError(f"components: {components}, but windows have {flat.shape[1]} numbers; take fewer.")
    flat = flat - flat.mean(0)
    # eigenvectors of the covariance: the windows are many, their numbers few
    axes = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :components]
    axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0) < 0, -1, 1)
    return (flat @ axes).reshape(*windows.shape[:-1], components)
