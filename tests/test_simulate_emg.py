"""EMG of known dynamics: the equations hold, the draws have the moments they should, the analyses find the truth."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxm2m import emg, simulate

# few settings for all tests: each compiles anew
ALL = {
    "lorenz": partial(simulate.lorenz_emg, trials=40, conditions=20, duration=2.0),
    "gait": partial(simulate.gait_emg, trials=3, conditions=3, duration=5.0),
    "isometric": partial(simulate.isometric_emg, trials=48),
}


@pytest.mark.slow
@pytest.mark.float32
@pytest.mark.parametrize("name", ALL)
def test_what_all_have_in_common(name, precision):
    one, again, other = (ALL[name](jax.random.key(s)) for s in (0, 0, 1))
    assert one.emg.dtype == one.mean.dtype == one.state.dtype == jnp.dtype(precision)
    assert one.emg.shape == one.mean.shape == (*one.condition.shape, one.state.shape[1], len(one.channels))
    assert one.inputs.shape[:2] == one.behaviour.shape[:2] == one.stance.shape == one.emg.shape[:2]
    assert one.behaviour.shape[-1] == len(one.names)
    assert float(one.sfreq) == 500
    for leaf in (one.emg, one.mean, one.state, one.inputs, one.behaviour):
        assert np.isfinite(leaf).all()
    assert (one.emg > 0).all()
    assert (one.mean > 0).all()
    np.testing.assert_array_equal(one.emg, again.emg)
    assert not np.allclose(one.emg, other.emg)
    # gamma: mean m, variance m^2 / a, in every channel
    ratio = np.asarray(one.emg / one.mean, np.float64).reshape(-1, one.emg.shape[-1])
    n = len(ratio)
    assert np.abs(ratio.mean(0) - 1).max() < 5 * (1 / 1.5 / n) ** 0.5
    np.testing.assert_allclose(ratio.var(0), 1 / 1.5, rtol=0.15)


@pytest.mark.float32
@pytest.mark.parametrize("name", ALL)
def test_traceable(name):
    keys = jax.random.split(jax.random.key(3), 5)
    one, all_ = (jax.eval_shape(f, k) for f, k in ((ALL[name], keys[0]), (jax.jit(jax.vmap(ALL[name])), keys)))
    assert all_.emg.shape == (5, *one.emg.shape)
    assert all_.names == one.names


@pytest.mark.float32
@pytest.mark.parametrize("shape", [0.5, 3.0])
def test_distribution(shape):
    s = ALL["isometric"](jax.random.key(5), shape=shape, strength=0.0)
    ratio = np.asarray(s.emg / s.mean, np.float64)[:8].ravel() * shape
    np.testing.assert_allclose(s.shape, shape)
    # Kolmogorov-Smirnov: beyond 2 / sqrt(n) in less than one of a thousand draws
    assert stats.kstest(ratio, stats.gamma(shape).cdf).statistic < 2 / ratio.size**0.5


@pytest.mark.float64
def test_lorenz_equations():
    s = simulate.lorenz_emg(jax.random.key(0), trials=6, conditions=2, duration=0.4, sfreq=10000, speed=5, pulses=4.0)
    x, y, z = np.moveaxis(np.asarray(s.state), -1, 0)
    u = np.asarray(s.inputs)[..., 0]
    slope = [np.gradient(v, 1e-4, axis=1)[:, 1:-1] for v in (x, y, z)]
    held = (u[:, 1:-1] + u[:, :-2]) / 2  # a central difference straddles two bins
    wanted = [
        (5 * 10 * (y - x))[:, 1:-1] + held,
        5 * (x * (28 - z) - y)[:, 1:-1],
        5 * (x * y - 8 / 3 * z)[:, 1:-1],
    ]
    for found, right in zip(slope, wanted, strict=True):
        np.testing.assert_allclose(found, right, atol=3e-3 * np.abs(right).max())
    # log mean is an affine function of the state
    flat = np.concatenate([np.asarray(s.state).reshape(-1, 3), np.ones((x.size, 1))], -1)
    target = np.log(np.asarray(s.mean)).reshape(x.size, -1)
    fit = np.linalg.lstsq(flat, target, rcond=None)[0]
    np.testing.assert_allclose(flat @ fit, target, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(fit[:3] * np.array([[7.9], [9.0], [8.6]]), axis=0), 0.7)


@pytest.mark.float32
def test_lorenz_inputs_and_conditions():
    s = ALL["lorenz"](jax.random.key(1))
    np.testing.assert_array_equal(s.condition, np.arange(40) % 20)
    # the trials of a condition begin at one state
    start = np.asarray(s.state[:, 0])
    np.testing.assert_array_equal(start[:20], start[20:])
    assert len(np.unique(start[:, 0])) == 20
    # about one pulse a second, each of which moves x by 8
    area = np.abs(np.asarray(s.inputs)).sum() / 500
    assert 8 * 50 < area < 8 * 110
    # without pulses, trials of a condition are one; together they have the attractor's size
    quiet = ALL["lorenz"](jax.random.key(2), pulses=0.0)
    assert (np.asarray(quiet.inputs) == 0).all()
    np.testing.assert_array_equal(quiet.mean[0], quiet.mean[20])
    assert (np.asarray(quiet.emg[0]) != np.asarray(quiet.emg[20])).all()
    np.testing.assert_allclose(np.asarray(quiet.state).std((0, 1)), [7.9, 9.0, 8.6], rtol=0.1)
    assert np.asarray(quiet.mean).mean() == pytest.approx(1, abs=0.3)
    with pytest.raises(ValueError, match=r"trials: 0; must be at least 1\."):
        simulate.lorenz_emg(jax.random.key(1), trials=0)


@pytest.mark.float32
def test_gait_phases():
    s = ALL["gait"](jax.random.key(0))
    for i, stance in enumerate((0.52, 0.52 / 1.25, 0.52 / 1.5)):
        got = emg.gait(np.asarray(s.pick("forward")[i, :, 0], np.float64), 500)
        assert np.diff(got.stance).mean() == pytest.approx(stance, rel=0.1)
        assert np.diff(got.swing).mean() == pytest.approx(0.155, rel=0.1)
        t = np.arange(2500) / 500
        inside = (t > got.strike[0] + 0.004) & (t < got.strike[-1] - 0.004)
        assert (got.in_stance(t) == np.asarray(s.stance[i]))[inside].mean() > 0.98
    # on the circle but for pushes, and phases agree with it
    radius = np.linalg.norm(s.state, axis=-1)
    assert np.median(radius) == pytest.approx(1, abs=0.02)
    assert radius.min() > 0
    agree = (np.asarray(s.state[..., 1]) > 0) == np.asarray(s.stance)
    assert agree.mean() > 0.999
    # extensors work in stance, flexors in swing
    stance = np.asarray(s.stance)
    mean = np.asarray(s.mean)
    names = s.channels
    for muscle, up in (("VL", True), ("GA", True), ("TA", False), ("IL", False)):
        k = names.index(muscle)
        assert (mean[stance][:, k].mean() > 1.5 * mean[~stance][:, k].mean()) == up
        assert (mean[~stance][:, k].mean() > 1.5 * mean[stance][:, k].mean()) != up


@pytest.mark.float32
def test_gait_kinematics():
    s = ALL["gait"](jax.random.key(1))
    angle, velocity, acceleration = (
        np.asarray(s.pick(*(f"{j}{what}" for j in ("hip", "knee", "ankle"))), np.float64)
        for what in ("", " velocity", " acceleration")
    )
    inner = slice(20, -20)
    for found, wanted in (
        (emg.derivative(angle, 500), velocity),
        (emg.derivative(velocity, 500), acceleration),
    ):
        error = np.abs(found - wanted)[:, inner]
        # a force held over each bin: half a bin between velocity's slope and acceleration
        assert error.max() < 0.06 * np.abs(wanted).max()
    assert (np.ptp(angle, axis=(0, 1)) < 2.5).all()
    # the true activation tells the movement better than what is recorded
    y = acceleration[:, 100:]
    truth = emg.cross_validate_decoder(np.asarray(s.mean[:, 100:]), y, 500, lags=np.arange(0, 0.06, 0.01))
    drawn = emg.cross_validate_decoder(
        np.asarray(emg.smooth(np.asarray(s.emg), 500, 0.01))[:, 100:], y, 500, lags=np.arange(0, 0.06, 0.01)
    )
    assert (truth.mean > 0.75).all()
    assert (truth.mean > drawn.mean).all()
    with pytest.raises(ValueError, match=r"names: 'toe'; choose one of 'hip', "):
        s.pick("toe")


@pytest.mark.float32
def test_isometric_task():
    s = ALL["isometric"](jax.random.key(0))
    force, rate = np.asarray(s.pick("force x", "force y")), np.asarray(s.pick("rate x", "rate y"), np.float64)
    # the hold: at the target's angle
    hold = force[:, -100:].mean(1)
    angle = 2 * np.pi * np.asarray(s.condition) / 8
    direction = hold / np.linalg.norm(hold, axis=-1, keepdims=True)
    assert (np.stack([np.cos(angle), np.sin(angle)], -1) * direction).sum(-1).min() > 0.8
    np.testing.assert_allclose(force[:, :250], 0, atol=1e-5)
    # the drive sets in 0.2 s after the target, the force soon after
    onset = np.asarray(s.onset)
    assert onset.mean() == pytest.approx(0.7, abs=0.015)
    drive = np.asarray(s.state[..., :2])
    moved = np.abs(drive).max(-1) > 0
    np.testing.assert_allclose(moved.argmax(1) / 500, onset + 0.002, atol=1e-4)
    found = emg.force_onset(rate, 500, 0.5)
    delay = found - onset
    assert (delay > 0).all()
    assert delay.max() < 0.15


@pytest.mark.float32
def test_isometric_oscillations_are_coherent_with_the_force():
    s = ALL["isometric"](jax.random.key(1))
    condition = np.asarray(s.condition)
    flexion = condition == 0
    window = slice(200, 650)
    rate = np.asarray(s.pick("rate x"), np.float64)
    mean = np.asarray(s.mean, np.float64)
    k = s.channels.index("FDS 2")
    truth = emg.coherence(mean[flexion][:, window, k : k + 1], rate[flexion][:, window]).band(10, 50).mean()
    drawn = np.asarray(s.emg, np.float64)[flexion][:, :, k : k + 1]
    smoothed = emg.coherence(emg.lowpass(drawn, 500, 20)[:, window], rate[flexion][:, window]).band(10, 50).mean()
    assert truth > smoothed + 0.15
    # the band holds power where the wrist flexes, and nowhere else
    frequency, power = emg.multitaper(mean[:, 350:525, k : k + 1], 500)
    band = (frequency > 14) & (frequency < 26)
    inside = power[:, band, 0].mean(1)
    assert inside[flexion].min() > 20 * inside[(condition > 2) & (condition < 6)].max()
    none = ALL["isometric"](jax.random.key(1), strength=0.0)
    assert np.asarray(none.mean).max() < 6
    tremor = emg.multitaper(np.asarray(none.mean, np.float64)[:1, 350:525, k : k + 1], 500)[1][0, band, 0].mean()
    assert tremor < 0.25 * inside[0]
    with pytest.raises(ValueError, match=r"oscillation: 200 Hz at 500 Hz; it must be below a quarter of that\."):
        simulate.isometric_emg(jax.random.key(0), oscillation=200)
    with pytest.raises(ValueError, match=r"after: 0.3 s; the drive sets in 0.2 s after the target"):
        simulate.isometric_emg(jax.random.key(0), after=0.3)


@pytest.mark.float64
def test_isometric_oscillator():
    s = simulate.isometric_emg(jax.random.key(2), trials=8, sfreq=5000, jitter=0.0)
    o, rate = np.asarray(s.state[0, :, 4]), np.asarray(s.state[0, :, 5])
    after = np.asarray(s.inputs[0, :, 2]).argmax() + 1
    slope, bend = (
        np.gradient(o, 1 / 5000)[after + 2 : -2],
        np.gradient(np.gradient(o, 1 / 5000), 1 / 5000)[after + 2 : -2],
    )
    # of the two numbers of the equation, frequency and damping, the first is this trial's own
    system = np.stack([o[after + 2 : -2], slope], -1)
    stiffness, damping = np.linalg.lstsq(system, bend, rcond=None)[0]
    np.testing.assert_allclose(system @ [stiffness, damping], bend, atol=1e-3 * np.abs(bend).max())
    assert damping == pytest.approx(-2 / 0.08, rel=1e-2)
    own = (-stiffness) ** 0.5
    assert own / (2 * np.pi) == pytest.approx(20, rel=0.11)
    np.testing.assert_allclose(own * rate[after + 2 : -2], slope, atol=2e-3 * own)
    # the kick is the velocity that it leaves behind
    assert np.asarray(s.inputs[0, :, 2]).sum() / 5000 == pytest.approx(own * rate[after - 1], rel=1e-2)
    # extension is not kicked
    assert np.abs(np.asarray(s.state[4, :, 4])).max() == 0
