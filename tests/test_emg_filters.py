import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jaxm2m import emg


def reference(x, sfreq, alpha, beta, likelihood="gaussian", estimate="argmax", sigma_max=2.0, bins=100):
    """The source's filter of one channel, sample by sample, bin by bin where it is written so."""
    d, dt = sigma_max / bins, 1 / sfreq
    sigma = d * np.arange(1, bins + 1)
    p = np.full(bins, 1 / bins)
    result = np.empty(len(x))
    for t, e in enumerate(x):
        new = np.empty(bins)
        for j in range(bins):
            left, right = p[max(j - 1, 0)], p[min(j + 1, bins - 1)]
            new[j] = p[j] + dt * alpha * (left - 2 * p[j] + right) / d**2 + dt * beta * (1 - p[j])
        p = new * np.exp(-(e**2) / (2 * sigma**2) if likelihood == "gaussian" else -e / sigma) / sigma
        p = p / p.sum()
        result[t] = sigma[p.argmax()] if estimate == "argmax" else (sigma * p).sum()
    return result


def rectified(n, channels, seed=0):
    random = np.random.default_rng(seed)
    size = np.exp(signal.lfilter([0.1], [1, -0.98], random.normal(size=(n, channels)), axis=0))
    return np.abs(random.normal(size=(n, channels))) * 0.4 * size


@pytest.mark.float64
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@pytest.mark.parametrize("estimate", ["argmax", "mean"])
def test_bayes_equals_a_plain_loop(likelihood, estimate):
    x = rectified(60, 2)
    alpha, beta = np.array([1e-1, 1e-2, 1e-4, 1e-1]), np.array([1e0, 1e-4, 1e-10, 1e-10])
    found = emg.bayes(x, 500, alpha, beta, likelihood=likelihood, estimate=estimate)
    assert found.shape == (4, 60, 2)
    for i in range(4):
        for k in range(2):
            expected = reference(x[:, k], 500, alpha[i], beta[i], likelihood, estimate)
            np.testing.assert_allclose(found[i, :, k], expected, rtol=0, atol=1e-10)


def test_bayes_axes(tolerance):
    x = rectified(80, 6).reshape(80, 3, 2).swapaxes(0, 1)
    alone = emg.bayes(x[1], 500, 1e-2, 1e-4, estimate="mean")
    together = emg.bayes(x, 500, np.full((2, 1), 1e-2), np.array([1e-1, 1e-2, 1e-4]), estimate="mean")
    assert alone.shape == (80, 2)
    assert together.shape == (2, 3, 3, 80, 2)
    assert together.dtype == jnp.result_type(float)
    np.testing.assert_allclose(together[1, 2, 1], alone, rtol=tolerance(1e-4, 1e-12))


@pytest.mark.float32
def test_bayes_follows_the_amplitude():
    random = np.random.default_rng(0)
    sigma = np.where(np.arange(3000) < 1500, 0.2, 1.2)
    x = np.abs(sigma * random.normal(size=3000))[:, None]
    for estimate in ("argmax", "mean"):
        found = np.asarray(emg.bayes(x, 500, 1e-3, 1e-10, estimate=estimate))[:, 0]
        assert np.median(found[300:1500]) == pytest.approx(0.2, rel=0.2)
        assert np.median(found[1800:]) == pytest.approx(1.2, rel=0.2)


@pytest.mark.float32
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_bayes_survives_spikes_and_zeros(likelihood):
    x = np.full((50, 1), 0.5)
    x[20], x[30:35] = 1e4, 0
    alpha, beta = emg.bayes_grid()
    assert len(alpha) == 44
    assert np.isfinite(emg.bayes(x, 500, alpha, beta, likelihood=likelihood, estimate="mean")).all()


@pytest.mark.host
def test_bayes_refuses():
    x = rectified(20, 1)
    emg.bayes(x, 500, 0.1, 1.0)  # at the limit
    for problem, call in {
        r"alpha: 0.2 is over the stability limit d\^2 / \(2 dt\) = 0.1": lambda: emg.bayes(x, 500, [0.1, 0.2]),
        "alpha: 0.1 is over": lambda: emg.bayes(x, 250, 0.1),
        "beta: 600 jumps a second at 500 Hz": lambda: emg.bayes(x, 500, 0.1, 600),
        "x: -": lambda: emg.bayes(x - 1, 500),
        "x: 1 of 20 values are NaN": lambda: emg.bayes(np.where(np.arange(20) == 3, np.nan, x[:, 0])[:, None], 500),
        "likelihood: 'gamma'": lambda: emg.bayes(x, 500, likelihood="gamma"),
        "estimate: 'median'": lambda: emg.bayes(x, 500, estimate="median"),
    }.items():
        with pytest.raises(ValueError, match=problem):
            call()


@pytest.mark.host
def test_lowpass_response():
    t = np.arange(4000) / 500
    for cutoff in (2.0, 10.0, 40.0):
        wave = np.sin(2 * np.pi * cutoff * t)[:, None]
        both = emg.lowpass(wave, 500, cutoff)[1000:3000, 0]
        once = emg.lowpass(wave, 500, cutoff, causal=True)[1000:3000, 0]
        assert np.abs(both).max() == pytest.approx(0.5, rel=0.01)
        assert np.abs(once).max() == pytest.approx(np.sqrt(0.5), rel=0.01)
        assert both @ wave[1000:3000, 0] / (both @ both) == pytest.approx(2, rel=0.01)  # in phase


@pytest.mark.host
def test_lowpass_family():
    x = rectified(400, 4).reshape(2, 200, 4)
    family = emg.lowpass(x, 500)
    assert family.shape == (7, 2, 200, 4)
    np.testing.assert_array_equal(family[2], emg.lowpass(x, 500, 10.0))
    np.testing.assert_array_equal(family[4][1], emg.lowpass(x[1], 500, 20))
    x[0, 150:] = 100
    np.testing.assert_array_equal(
        emg.lowpass(x, 500, causal=True)[:, 1], emg.lowpass(x[1], 500, causal=True), err_msg="trials are mixed"
    )
    early = emg.lowpass(x[0], 500, causal=True)[:, :150]
    np.testing.assert_allclose(early, emg.lowpass(x[0, :150], 500, causal=True), rtol=1e-12)
    for causal in (True, False):
        np.testing.assert_allclose(emg.lowpass(np.full((60, 1), 3.0), 500, causal=causal), 3, rtol=1e-9)
    with pytest.raises(ValueError, match="cutoff: 250 Hz is not below half"):
        emg.lowpass(x, 500, [10, 250])
    with pytest.raises(ValueError, match=r"12.5% of channel 1 is NaN"):
        emg.lowpass(np.where((np.arange(400) < 50)[:, None] & [False, True], np.nan, 1.0), 500)


@pytest.mark.host
def test_known_decoding_of_real_windows(data):
    h5py = pytest.importorskip("h5py")
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    with h5py.File(data("emg/rat_locomotion.h5")) as file:
        parts = [[file[f"{part}_{name}"][()] for part in ("train", "valid")] for name in ("data", "decode", "inds")]
    x, y, order = (np.concatenate(p).astype(float) for p in parts)
    x, y = x[order.argsort()], y[order.argsort()].reshape(-1, 3)
    y = (y - y.mean(0)) / y.std(0)
    known = {10: (0.584, 0.673, 0.539), 20: (0.570, 0.712, 0.575), 40: (0.529, 0.618, 0.453)}
    for smooth, expected in zip(emg.lowpass(x, 500, list(known)), known.values(), strict=True):
        z = smooth[:, 6:106].reshape(-1, 12)
        z = (z - z.mean(0)) / z.std(0)
        scores = []
        for train, test in KFold(10).split(z):
            error = y[test] - Ridge(1.0).fit(z[train], y[train]).predict(z[test])
            scores.append(1 - (error**2).sum(0) / ((y[test] - y[test].mean(0)) ** 2).sum(0))
        np.testing.assert_allclose(np.mean(scores, 0), expected, atol=5e-3)
