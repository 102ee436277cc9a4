"""Pulses, calibration of stimulators, resting motor threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m import coil as jc
from jaxm2m._pytree import StaticMetadata


def coil_with(didt_max):
    dtype = jnp.result_type(float)
    element = jc.Dipoles(jnp.zeros((1, 3), dtype), jnp.ones((1, 3), dtype))
    return jc.Coil((element,), None, jnp.asarray(didt_max, dtype), StaticMetadata(name="Test"))


@pytest.mark.parametrize("kind", ["monophasic", "biphasic", "half-sine"])
def test_didt_peaks_at_one_and_ends(kind):
    wave = jc.pulse(kind, peak=1.6e8)
    t = np.linspace(-1e-4, 3e-3, 20001)
    value = np.asarray(wave.didt(t))
    assert float(wave.didt(0.0)) == 1.0
    assert np.abs(value).max() <= 1 + 1e-6
    assert (value[t < -1e-7] == 0).all()
    assert np.abs(value[t > float(wave.duration) + 1e-6]).max() < 1e-3
    assert float(wave.peak) == pytest.approx(1.6e8)


def test_current_returns_to_zero(x64):
    for kind, at in (("half-sine", 140e-6), ("biphasic", 280e-6), ("monophasic", 2e-3)):
        wave = jc.pulse(kind)
        t = np.linspace(0, at, 200001)
        current = np.trapezoid(np.asarray(wave.didt(t)), t)
        peak = float(wave.period) / (2 * np.pi)  # of the undamped circuit
        assert abs(current) < 1e-4 * peak
    mono = jc.pulse("monophasic")
    t = np.linspace(0, float(mono.period) / 4, 20001)
    assert np.trapezoid(np.asarray(mono.didt(t)), t) == pytest.approx(float(mono.period) / (2 * np.pi), rel=1e-6)
    late = np.asarray(mono.didt(np.linspace(float(mono.period) / 4, 2e-3, 1000)))
    assert late.min() > -0.6  # the damping branch induces less than the discharge
    assert late.max() <= 1e-12


def test_biphasic_reverses_with_damping(tolerance):
    wave = jc.pulse("biphasic", period=300e-6, decay=600e-6)
    half = float(wave.didt(150e-6))
    assert half == pytest.approx(-np.exp(-0.25), rel=tolerance(1e-5, 1e-9))


@pytest.mark.parametrize("kind", ["monophasic", "biphasic", "half-sine"])
def test_gradients_of_a_pulse_are_finite(kind):
    slope = jax.jit(jax.grad(lambda p, t: p.didt(t)))
    for t in (-1.0, 0.0, 1e-5, 7e-5, 1e-3, 1.0):
        gradient = slope(jc.pulse(kind), t)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.host
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "square"}, "kind: 'square'; choose one of"),
        ({"period": 0.0}, "period: 0"),
        ({"decay": -1e-4}, "decay: -0.0001"),
        ({"peak": float("nan")}, "peak"),
    ],
)
def test_impossible_pulses_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        jc.pulse(**arguments)


def test_calibration_by_factor_table_and_coil():
    linear = jc.calibrate(1.6e8)
    np.testing.assert_allclose(linear.didt([0, 50, 100]), [0, 8e7, 1.6e8], rtol=1e-6)
    np.testing.assert_allclose(linear.intensity(8e7), 50, rtol=1e-6)
    table = jc.calibrate({100: 1.5e8, 30: 5e7, 60: 1.0e8})
    np.testing.assert_allclose(table.didt([15, 30, 45, 100]), [2.5e7, 5e7, 7.5e7, 1.5e8], rtol=1e-6)
    np.testing.assert_allclose(table.intensity(table.didt(np.arange(0, 101, 7.0))), np.arange(0, 101, 7.0), rtol=1e-5)
    two = coil_with([1.2e8, 1.0e8])
    np.testing.assert_allclose(jc.calibrate(two, stimulator=1).didt(50), 5e7, rtol=1e-6)
    slope = jax.grad(lambda p: linear.didt(p))(40.0)
    np.testing.assert_allclose(slope, 1.6e6, rtol=1e-6)


@pytest.mark.host
def test_calibration_refuses_what_it_cannot_know():
    with pytest.raises(ValueError, match=r"carries no largest dI/dt.*calibrate"):
        jc.calibrate(coil_with([np.nan]))
    with pytest.raises(ValueError, match="stimulator: 1; the coil has 1"):
        jc.calibrate(coil_with([1e8]), stimulator=1)
    with pytest.raises(ValueError, match="must rise"):
        jc.calibrate({30: 5e7, 60: 4e7})
    with pytest.raises(ValueError, match="NaN or negative"):
        jc.calibrate({30: float("nan")})
    with pytest.raises(ValueError, match="source"):
        jc.calibrate(-1.0)
    with pytest.raises(ValueError, match=r"percent: .* outside the calibration, 0 to 100"):
        jc.calibrate(1e8).didt(120.0)
    with pytest.raises(ValueError, match=r"didt: .* outside the calibration"):
        jc.calibrate(1e8).intensity(2e8)
    with pytest.raises(ValueError, match="percent"):
        jc.calibrate(1e8).didt([50.0, np.nan])


def trials(rows):
    intensity = [level for level, meps in rows for _ in meps]
    return intensity, [mep for _, meps in rows for mep in meps]


@pytest.mark.host
def test_threshold_is_the_lowest_intensity_with_three_of_six():
    rows = [(50, [90, 80, 70, 10, 20, 30]), (47, [60, 10, 55, 20, 51, 5]), (45, [60, 10, 55, 20, 49, 5])]
    assert jc.resting_motor_threshold(*trials(rows)) == 47
    # exactly 50 uV does not exceed; interleaving does not matter
    rows = [(50, [90, 80, 70, 10, 20, 30]), (47, [60, 10, 55, 20, 50, 5])]
    intensity, mep = trials(rows)
    order = np.ravel(np.column_stack([np.arange(6), np.arange(6, 12)]))
    assert jc.resting_motor_threshold(np.array(intensity)[order], np.array(mep)[order]) == 50


@pytest.mark.host
def test_threshold_counts_within_any_six_consecutive():
    spread = [60, 1, 1, 1, 1, 1, 60, 1, 1, 1, 1, 1, 60]
    rows = [(45, spread), (50, [60, 60, 60])]
    assert jc.resting_motor_threshold(*trials(rows)) == 50  # three hits, never within six
    rows = [(45, [1, 1, 1, 1, 60, 60, 60]), (40, [1] * 6)]
    assert jc.resting_motor_threshold(*trials(rows)) == 45
    rows = [(45, [60, np.nan, 60, np.nan, 60]), (40, [1] * 6)]
    assert jc.resting_motor_threshold(*trials(rows)) == 45


@pytest.mark.host
def test_threshold_warns_and_refuses():
    with pytest.warns(UserWarning, match="lowest tested, 45"):
        jc.resting_motor_threshold(*trials([(45, [60] * 6), (50, [60] * 6)]))
    with pytest.raises(ValueError, match="at none of 1 intensities"):
        jc.resting_motor_threshold(*trials([(45, [0.1] * 6)]))
    with pytest.raises(ValueError, match="mep: shape"):
        jc.resting_motor_threshold([45, 45], [60.0])
    with pytest.raises(ValueError, match="no trial with a number"):
        jc.resting_motor_threshold([45.0], [np.nan])
    with pytest.raises(ValueError, match="negative amplitudes"):
        jc.resting_motor_threshold([45.0], [-3.0])
    with pytest.raises(ValueError, match="needed: 7 of 6"):
        jc.resting_motor_threshold([45.0], [60.0], needed=7)
    with pytest.raises(ValueError, match="intensity"):
        jc.resting_motor_threshold([np.nan], [60.0])
