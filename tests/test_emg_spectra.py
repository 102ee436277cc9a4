"""Spectra: against MNE, SciPy and known filters."""

import importlib.util

import numpy as np
import pytest
from scipy import signal

from jaxm2m import emg

pytestmark = pytest.mark.host


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.mark.skipif(importlib.util.find_spec("mne") is None, reason="mne is not installed: pip install mne")
@pytest.mark.parametrize(("n", "nw"), [(175, 3.0), (128, 3.0), (100, 2.5), (175, 4)])
def test_multitaper_equals_mne(rng, n, nw):
    from mne.time_frequency import psd_array_multitaper

    x = rng.gamma(1.5, size=(4, n, 3)) + 2
    frequency, power = emg.multitaper(x, 500, nw)
    wanted, f = psd_array_multitaper(
        np.moveaxis(x, -1, -2), 500.0, bandwidth=2 * nw * 500 / n, normalization="length", verbose="ERROR"
    )
    np.testing.assert_allclose(frequency, f, rtol=1e-12)
    np.testing.assert_allclose(power, np.moveaxis(wanted, -1, -2), rtol=1e-9)


def test_multitaper_keeps_power_and_frequency(rng):
    # white noise of variance 4: the one-sided density integrates to the variance
    x = 2 * rng.normal(size=(200, 175, 2))
    frequency, power = emg.multitaper(x, 500)
    assert len(frequency) == 88
    assert frequency[1] == pytest.approx(500 / 175)
    np.testing.assert_allclose((power / 500).sum((0, 1)) * frequency[1] / 200, 4, rtol=0.03)
    t = np.arange(500) / 500
    frequency, power = emg.multitaper(np.sin(2 * np.pi * 60 * t)[:, None] + 100, 500)
    peak = frequency[power[:, 0].argmax()]
    assert abs(peak - 60) <= 3
    assert power[np.abs(frequency - 60) > 5].max() < 1e-3 * power.max()


def test_response_of_a_known_filter(rng):
    x = rng.normal(size=(300, 500, 1))
    sos = signal.butter(4, 40, fs=500, output="sos")
    got = emg.frequency_response(x[:, 100:275], signal.sosfiltfilt(sos, x, axis=1)[:, 100:275])
    assert got.each.shape == (300, 88, 1)
    truth = np.abs(signal.sosfreqz(sos, got.frequency, fs=500)[1]) ** 4
    # standardised signals: the response is known but for its scale
    inside = (got.frequency > 5) & (got.frequency < 60)
    scale = np.mean(got.mean[inside, 0][:8] / truth[inside][:8])
    np.testing.assert_allclose(got.mean[inside, 0] / scale, truth[inside], atol=0.08)
    np.testing.assert_allclose(got.sem, got.each.std(0, ddof=1) / 300**0.5)


def test_response_tells_phases_apart(rng):
    # a filter that lets 30 Hz through in one phase only
    t = np.arange(175) / 500
    x = rng.normal(size=(60, 175, 2)) + np.sin(2 * np.pi * 30 * t)[:, None]
    smooth, sharp = emg.lowpass(x, 500, (10, 60))
    k = 30 * 175 // 500
    one, two = emg.frequency_response(x, sharp), emg.frequency_response(x, smooth)
    assert (one.mean[k] > 10 * two.mean[k]).all()


def test_coherence_is_that_of_the_source(rng):
    x, y = rng.normal(size=(5, 450, 3)), rng.normal(size=(5, 450, 2))
    y[..., 0] += x[..., 1]
    got = emg.coherence(x, y)
    assert got.each.shape == (5, 61, 3, 2)
    window = np.hanning(122)[1:-1]  # MATLAB's hanning(120)
    f, wanted = signal.coherence(x[3, :, 1], y[3, :, 0], 500, window, nperseg=120, noverlap=100, detrend=False)
    np.testing.assert_allclose(got.frequency, f)
    np.testing.assert_allclose(got.each[3, :, 1, 0], wanted, rtol=1e-12)
    np.testing.assert_allclose(got.mean, got.each.mean(0))
    band = got.band(10, 50)
    inside = (f >= 10) & (f <= 50)
    np.testing.assert_allclose(band, got.each[:, inside].mean(1))
    assert band[:, 1, 0].mean() > band[:, 0, 0].mean() + 0.1


def test_coherence_by_definition(rng):
    # |mean of cross spectra|^2 over the product of mean spectra, segment by segment
    x, y = rng.normal(size=(1, 300, 1)), rng.normal(size=(1, 300, 1))
    window = np.hanning(122)[1:-1]
    a = np.array([np.fft.rfft(window * x[0, s : s + 120, 0]) for s in range(0, 181, 20)])
    b = np.array([np.fft.rfft(window * y[0, s : s + 120, 0]) for s in range(0, 181, 20)])
    wanted = np.abs((a.conj() * b).mean(0)) ** 2 / ((np.abs(a) ** 2).mean(0) * (np.abs(b) ** 2).mean(0))
    np.testing.assert_allclose(emg.coherence(x, y).each[0, :, 0, 0], wanted, rtol=1e-9)
    # a filter without noise is coherent everywhere
    np.testing.assert_allclose(emg.coherence(x, -3 * x).each, 1, rtol=1e-12)


def test_refusals(rng):
    x = rng.normal(size=(3, 200, 2))
    with pytest.raises(
        ValueError, match=r"window: 120 bins with 100 overlapping in trials of 130; two windows at least"
    ):
        emg.coherence(x[:, :130], x[:, :130])
    with pytest.raises(
        ValueError, match=r"y: shape \(2, 200, 2\) against \(3, 200, 2\); both must have the same trials"
    ):
        emg.coherence(x, x[:2])
    with pytest.raises(ValueError, match=r"low: no frequency between 10 and 11 Hz; widen the band\."):
        emg.coherence(x, x).band(10, 11)
    with pytest.raises(ValueError, match=r"nw: 100 for 200 bins"):
        emg.multitaper(x, 500, 100)
    with pytest.raises(ValueError, match=r"after: shape \(3, 200, 1\) against \(3, 200, 2\)"):
        emg.frequency_response(x, x[..., :1])
    with pytest.raises(ValueError, match=r"before: channel 1 is constant"):
        emg.frequency_response(x * [1, 0], x)
