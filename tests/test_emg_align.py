"""Alignment by shifts and principal components, with known answers."""

import numpy as np
import pytest

from jaxm2m import emg

pytestmark = pytest.mark.host


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def bumps(late, n=160, channels=3):
    """Oscillating bursts, `late` bins (n_trial,) after bin 80."""
    t = np.arange(n)[None, :, None] - 80 - np.asarray(late)[:, None, None]
    return np.exp(-((t / 25) ** 2)) * (1 + 0.5 * np.cos(2 * np.pi * t / 25 + np.arange(channels)))


def test_recovers_shifts(rng):
    late = rng.integers(-12, 13, 30)
    clean = bumps(late)
    x = np.maximum(clean + 0.15 * rng.normal(size=clean.shape), 0)
    got = emg.align(x, 500, 0.035)
    # all could move together
    difference = got.shift - late
    assert np.abs(difference - np.median(difference)).max() <= 1
    assert np.abs(got.shift).max() <= 17
    assert got.loss[-1] < 0.5 * got.loss[0]
    assert (np.diff(got.loss[1:]) < 1e-6).all()
    assert (got.template >= 0).all()
    spread = got.apply(clean).std(0).max()
    assert spread < 0.3 * clean.std(0).max()
    # what else was recorded moves alike, and so do the times to cut at
    marker = np.zeros((30, 160, 1))
    marker[np.arange(30), 80 + late] = 1
    where = got.apply(marker)[:, :, 0].argmax(1)
    assert np.ptp(where) <= 2
    np.testing.assert_allclose(got.seconds, got.shift / 500)


def test_shifts_stay_within_bounds(rng):
    got = emg.align(bumps([-15, 0, 15]), 500, 0.01)
    assert np.abs(got.shift).max() == 5
    assert (emg.align(bumps([-3, 0, 3]), 500, 0.0).shift == 0).all()
    # nothing to align: nothing moves
    assert (emg.align(bumps([0, 0, 0]), 500).shift == 0).all()


def test_template_without_shifts_is_the_penalised_mean(rng):
    x = rng.normal(size=(7, 40, 2))
    got = emg.align(x, 500, 0.0, smoothness=2.5, nonnegative=False)
    bend = np.diff(np.eye(40), 2, axis=0)
    wanted = np.linalg.solve((1 + 1e-7) * np.eye(40) + 2.5 * bend.T @ bend, x.mean(0))
    np.testing.assert_allclose(got.template, wanted, atol=1e-10)
    # at or above zero: the constrained optimum, where the gradient is zero inside and positive at the bound
    held = emg.align(x, 500, 0.0, smoothness=2.5).template
    gradient = held * (1 + 1e-7) + 2.5 * bend.T @ bend @ held - x.mean(0)
    assert (held >= 0).all()
    assert (held == 0).any()
    np.testing.assert_allclose(gradient[held > 0], 0, atol=1e-9)
    assert (gradient[held == 0] > -1e-9).all()


def test_shifted_template_by_hand():
    # trials of a ramp: the ends repeat, as the model says
    x = np.stack([np.clip(np.arange(20.0) - s, 0, 19)[:, None] for s in (0, 2)])
    got = emg.align(x, 1.0, 4.0, smoothness=0.0)
    assert got.shift[1] - got.shift[0] == 2
    np.testing.assert_array_equal(got.apply(x)[0, 3:15], got.apply(x)[1, 3:15])


def test_trajectories(rng):
    # two latent signals in eight channels, three conditions of other size
    t = np.arange(100) / 100
    latent = np.stack([np.sin(2 * np.pi * t), 0.5 * np.cos(2 * np.pi * t)], -1)
    axes = np.linalg.qr(rng.normal(size=(8, 2)))[0]
    conditions = np.array(["a", "b", "c"] * 4)
    size = np.array([1.0, 2, 3] * 4)
    x = size[:, None, None] * latent @ axes.T + 5 + 0.01 * rng.normal(size=(12, 100, 8))
    got = emg.trajectories(x, conditions, 2)
    assert got.conditions == ("a", "b", "c")
    np.testing.assert_allclose(got.axes.T @ got.axes, np.eye(2), atol=1e-12)
    # sines and cosines are orthogonal: shares of the variance are 1 : 1/4
    np.testing.assert_allclose(got.explained, [0.8, 0.2], atol=0.01)
    np.testing.assert_allclose(np.abs(axes.T @ got.axes), np.eye(2), atol=0.01)
    np.testing.assert_allclose(got.averages[1], got.trials[conditions == "b"].mean(0), atol=1e-12)
    assert np.ptp(got.averages[2, :, 0]) == pytest.approx(6, rel=0.01)
    np.testing.assert_allclose(got.project(x), got.trials, atol=1e-12)
    np.testing.assert_allclose(got.centre, x.mean((0, 1)))
    assert (np.take_along_axis(got.axes, np.abs(got.axes).argmax(0)[None], 0) > 0).all()


def test_trajectories_of_averages(rng):
    x = np.sin(np.arange(50) / 5)[:, None] * rng.normal(size=(1, 6)) + 3 * rng.normal(size=(40, 50, 6))
    trials, averages = (emg.trajectories(x, components=1, fitted_to=f) for f in ("trials", "averages"))
    assert averages.averages.shape == (1, 50, 1)
    assert averages.explained[0] > 2 * trials.explained[0]
    mean = x.mean(0) - x.mean((0, 1))
    wanted = np.linalg.svd(mean)[2][0]
    np.testing.assert_allclose(np.abs(averages.axes[:, 0]), np.abs(wanted), atol=1e-10)


def test_refusals(rng):
    x = rng.normal(size=(4, 30, 2))
    with pytest.raises(ValueError, match=r"largest: 18 bins, but trials have 30; it must be at most half of them\."):
        emg.align(x, 500, 0.035)
    with pytest.raises(ValueError, match=r"x: shape \(3, 30, 2\); pass \(4, n_time, n\)\."):
        emg.align(x, 500, 0.01).apply(x[:3])
    with pytest.raises(ValueError, match=r"components: 3 of 2 channels; take fewer\."):
        emg.trajectories(x)
    with pytest.raises(ValueError, match=r"conditions: 1 labels for 4 trials; pass one a trial\."):
        emg.trajectories(x, ["a"], 2)
    with pytest.raises(ValueError, match=r"fitted_to: 'all'; choose one of 'trials', 'averages'\."):
        emg.trajectories(x, components=2, fitted_to="all")
