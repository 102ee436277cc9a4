"""Derivatives, force onset and gait events with known answers."""

import numpy as np
import pytest

from jaxm2m import emg

pytestmark = pytest.mark.host


def test_derivatives_of_a_polynomial_are_exact():
    t = np.arange(100) / 500
    x = np.stack([t**5 - 3 * t**2, 2 * t], -1)
    np.testing.assert_allclose(emg.derivative(x), np.stack([5 * t**4 - 6 * t, 2 + 0 * t], -1), atol=1e-9)
    np.testing.assert_allclose(emg.derivative(x, order=2), np.stack([20 * t**3 - 6, 0 * t], -1), atol=1e-7)
    np.testing.assert_allclose(emg.derivative(np.stack([x, 2 * x]))[1], 2 * emg.derivative(x), atol=1e-9)


def test_derivative_is_the_least_squares_polynomial():
    x = np.random.default_rng(0).normal(size=(60, 1))
    t = np.arange(-13, 14) / 500
    fit = np.polynomial.Polynomial.fit(t, x[17:44, 0], 5)
    assert emg.derivative(x)[30, 0] == pytest.approx(fit.deriv()(0.0))
    assert emg.derivative(x, order=2)[30, 0] == pytest.approx(fit.deriv(2)(0.0))


def test_force_onset_by_hand():
    # dF/dt in two directions: a ramp up to 1 in 20 bins from bin 600 on, seen from two sides
    ramp = np.clip((np.arange(1500) - 600) / 20, 0, 1) * (np.arange(1500) < 700)
    rate = np.stack([0.6 * ramp, -0.8 * ramp], -1)
    late = np.roll(rate, 25, axis=0)
    got = emg.force_onset(np.stack([rate, late, 5 * rate]), 500, 1.1)
    # 15 % of the maximum is crossed 3 bins after the ramp sets in
    np.testing.assert_allclose(got, np.array([603, 628, 603]) / 500, atol=1e-9)
    # a target for each trial; threshold and window as told
    got = emg.force_onset(np.stack([rate, late]), 500, [1.1, 1.2], threshold=0.5, before=0.1, after=0.3)
    np.testing.assert_allclose(got, np.array([610, 635]) / 500, atol=1e-9)


def test_force_onset_passes_noise_over():
    rate = np.zeros((1, 1000, 1))
    rate[0, 450:455] = 0.3
    rate[0, 500:600, 0] = np.linspace(0, 1, 100)
    got = emg.force_onset(rate, 500, 1.0)
    assert got[0] == pytest.approx((500 + 0.15 * 99) / 500)
    # above the threshold from the beginning of the window
    assert np.isnan(emg.force_onset(np.ones((1, 1000, 1)), 500, 1.0)[0])


@pytest.fixture
def strides():
    """Foot position of ten strides (stance 0.52 s, swing 0.155 s, some longer), with noise, and their events."""
    rng = np.random.default_rng(2)
    stance, swing = 0.52 + 0.05 * rng.random(10), 0.155 + 0.02 * rng.random(10)
    strike = 0.4 + np.concatenate([[0], np.cumsum(stance + swing)])
    off = strike[:-1] + stance
    t = np.arange(0, strike[-1] + 0.3, 1 / 500)
    knots = np.sort(np.concatenate([strike, off]))
    height = np.where(np.isin(knots, strike), 40.0, -40.0)
    forward = np.interp(t, [0, *knots, t[-1]], [-30, *height, 0]) + 0.3 * rng.normal(size=t.size)
    return t, forward, strike, off


def test_gait(strides):
    t, forward, strike, off = strides
    got = emg.gait(forward, 500)
    assert got.strike.shape == (11,)
    np.testing.assert_allclose(got.strike, strike, atol=0.006)
    np.testing.assert_allclose(got.off, off, atol=0.006)
    np.testing.assert_allclose(got.stance, np.stack([got.strike[:-1], got.off], -1))
    np.testing.assert_allclose(got.within("swing"), off + 0.25 * (strike[1:] - off), atol=0.008)
    np.testing.assert_allclose(got.within("stance"), (strike[:-1] + off) / 2, atol=0.008)
    np.testing.assert_allclose(got.within("stance", 0), got.strike[:-1])
    inside = got.in_stance(t)
    truth = ((t[:, None] >= strike[:-1]) & (t[:, None] < off)).any(1)
    assert (inside == truth).mean() > 0.98
    assert not inside[t < strike[0] - 0.01].any()
    assert not inside[t > strike[-1]].any()
    assert "10 strides" in repr(got)


def test_segments_around_events():
    x = np.stack([np.arange(1000.0), -np.arange(1000.0)], -1)
    got, kept = emg.around(x, [0.1, 0.5, np.nan, 1.0, 1.9], 500, 0.175, 0.175)
    assert got.shape == (2, 175, 2)
    np.testing.assert_array_equal(kept, [1, 3])
    assert got[0, 0, 0] == 162  # 250 - 87.5, rounded to even
    np.testing.assert_array_equal(np.diff(got[1, :, 1]), -1)
    edge, kept = emg.around(x, [0.0, 1.5], 500, 0, 0.5)
    np.testing.assert_array_equal(kept, [0, 1])
    assert edge[1, -1, 0] == 999


def test_refusals(strides):
    _, forward, _, _ = strides
    with pytest.raises(ValueError, match=r"forward: 0 foot strikes in 2 s; pass at least one whole stride"):
        emg.gait(np.zeros(1000), 500)
    with pytest.raises(ValueError, match=r"forward: 3 of \d+ values are NaN or infinite"):
        emg.gait(np.where(np.arange(len(forward)) < 3, np.nan, forward), 500)
    with pytest.raises(ValueError, match=r"frame: 26 for trials of 100 bins; it must be odd"):
        emg.derivative(np.zeros((100, 1)), frame=26)
    with pytest.raises(ValueError, match=r"degree: 5; it must lie between order \(6\) and frame \(27\)"):
        emg.derivative(np.zeros((100, 1)), order=6)
    with pytest.raises(ValueError, match=r"target: in trial 1 at 1.8 s, but the trial has 2 s"):
        emg.force_onset(np.zeros((2, 1000, 1)), 500, [1.0, 1.8])
    with pytest.raises(ValueError, match=r"threshold: 15; it is a share"):
        emg.force_onset(np.zeros((2, 1000, 1)), 500, 1.0, threshold=15)
    with pytest.raises(ValueError, match=r"phase: 'flight'; choose one of 'stance', 'swing'\."):
        emg.gait(forward, 500).within("flight")
