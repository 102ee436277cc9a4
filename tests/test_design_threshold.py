"""Hunting a motor threshold: the posterior against brute force, rules of others against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxm2m import design, simulate
from jaxm2m.design import _threshold
from jaxm2m.muscle.sources import evaluate_curve, log_likelihood

LOWEST, HIGHEST, TRUTH = 30e6, 150e6, 72e6  # A/s
KEY = jax.random.key(0)


def begin(rule, **options):
    if rule == "posterior":
        arguments = {"key": jax.random.key(3), "capacity": 30, "n_particle": 512} | options
        return design.track_threshold(LOWEST, HIGHEST, **arguments)
    if rule == "relative frequency":
        return design.track_relative_frequency(LOWEST, HIGHEST)
    return design.track_maximum_likelihood(LOWEST, HIGHEST)


def hunt(state, n, truth=TRUTH, seed=0):
    """The rule after n stimuli of a subject, and their intensities."""
    intensities = []
    for k in range(n):
        didt = state.propose(jax.random.fold_in(jax.random.key(7), k))
        mep = simulate.mep(jax.random.fold_in(jax.random.key(seed), k), (didt / truth)[None])[0]
        state = state.add(didt, mep)
        intensities.append(float(didt))
    return state, np.array(intensities)


RULES = ("posterior", "relative frequency", "maximum likelihood")


@pytest.mark.parametrize("rule", RULES)
def test_all_have_one_interface(rule):
    state = begin(rule)
    assert isinstance(state, design.ThresholdRule)
    didt = state.propose(KEY)
    after = state.add(didt, 20.0)
    assert isinstance(after.threshold(), design.ThresholdEstimate)
    assert type(after) is type(state)
    same = jax.tree.map(lambda a: a.shape, jax.tree.leaves(after))
    assert same == jax.tree.map(lambda a: a.shape, jax.tree.leaves(state))
    assert LOWEST <= float(didt) <= HIGHEST


@pytest.mark.parametrize("rule", RULES)
def test_missing_meps_count_for_nothing(rule):
    state, _ = hunt(begin(rule), 4)
    didt = state.propose(KEY)
    beside, after = (s.add(didt, 130.0) for s in (state.add(didt, np.nan), state))
    for a, b in zip(jax.tree.leaves(beside), jax.tree.leaves(after), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", RULES)
def test_thresholds_of_subjects(rule):
    state, _ = hunt(begin(rule), 30 if rule != "relative frequency" else 150)
    estimate = state.threshold()
    assert abs(float(estimate.mean) / TRUTH - 1) < 0.06
    if rule == "posterior":
        assert float(estimate.low) < TRUTH < float(estimate.high) < 1.15 * float(estimate.low)


def test_at_the_threshold_the_curve_is_50_uv(tolerance):
    standard = jax.random.normal(KEY, (200, 7))
    subject = _threshold.make_subject(standard, jnp.asarray(LOWEST), jnp.asarray(HIGHEST))
    curve = subject.curve
    v = curve.rest + curve.gain * subject.drive(subject.threshold)
    np.testing.assert_allclose(10 ** evaluate_curve(curve, v), 50, rtol=tolerance(1e-3, 1e-9))
    # beforehand every threshold is as probable as another, in its logarithm
    shares = np.log(np.asarray(subject.threshold) / LOWEST) / np.log(HIGHEST / LOWEST)
    np.testing.assert_allclose(shares, norm.cdf(np.asarray(standard[:, 0])), atol=tolerance(1e-5, 1e-12))


@pytest.mark.optimized
def test_the_posterior_is_that_of_brute_force():
    """Weights of very many draws of the prior, after stimuli that move the particles more than once."""
    state = begin("posterior", n_particle=4096)
    didt = np.array([60, 75, 90, 75, 68, 80, 72, 85]) * 1e6
    meps = np.array([12.0, 60, 700, 30, 11, 150, 40, 400])
    for x, mep in zip(didt, meps, strict=True):
        state = state.add(x, mep)
    assert len(np.unique(np.asarray(state.standard[:, 0]))) > 2000
    standard = jax.random.normal(jax.random.key(5), (400_000, 7))
    subject = _threshold.make_subject(standard, state.lowest, state.highest)
    total = sum(
        log_likelihood(subject.curve, jnp.log10(jnp.asarray(mep)), subject.drive(jnp.asarray(x)), jnp.zeros(()))
        for x, mep in zip(didt, meps, strict=True)
    )
    weight = np.exp(np.asarray(total, np.float64) - float(total.max()))
    weight /= weight.sum()
    values = np.asarray(subject.threshold, np.float64)
    mean = weight @ values
    spread = np.sqrt(weight @ (values - mean) ** 2)
    order = np.argsort(values)
    ends = values[order][np.searchsorted(np.cumsum(weight[order]), [0.05, 0.95])]
    estimate = state.threshold()
    assert abs(float(estimate.mean) - mean) < 0.15 * spread
    np.testing.assert_allclose([float(estimate.low), float(estimate.high)], ends, atol=0.3 * spread)
    for k in range(1, 7):
        x, w = np.asarray(state.standard[:, k], np.float64), np.exp(np.asarray(state.log_weight, np.float64))
        y = np.asarray(standard[:, k], np.float64)
        centre = weight @ y
        assert abs(x @ w / w.sum() - centre) < 0.25 * np.sqrt(weight @ (y - centre) ** 2)


def test_stimuli_near_the_threshold_tell_most():
    state, intensities = hunt(begin("posterior", n_particle=2048), 20)
    didt = jnp.asarray([0.4, 1.0, 1.1]) * TRUTH
    # a few hundred particles: one estimate is rough
    information = np.mean([np.asarray(state.information(jax.random.key(k), didt)) for k in range(4)], axis=0)
    assert information.min() > -0.01
    assert information[0] < 0.8 * information[1]
    assert (np.abs(intensities[10:] / TRUTH - 1) < 0.35).all()
    assert 0 < np.asarray(begin("posterior").information(KEY, jnp.asarray([70e6]))).item() < np.log(4)


def test_nothing_compiles_after_the_first_stimuli():
    state, _ = hunt(begin("posterior"), 3)
    programs = _threshold._add_stimulus, _threshold._expect_information, _threshold._summarise
    before = [program._cache_size() for program in programs]
    hunt(state, 5)
    assert [program._cache_size() for program in programs] == before


def test_the_same_keys_give_the_same_session():
    one, other = (hunt(begin("posterior"), 12) for _ in range(2))
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[0].standard, other[0].standard)
    third, _ = hunt(begin("posterior", key=jax.random.key(4)), 12)
    assert (np.asarray(third.standard) != np.asarray(one[0].standard)).any()


def test_a_session_in_one_program():
    def step(state, key):
        didt = state.propose(key)
        return state.add(didt, jnp.where(didt > TRUTH, 300.0, 10.0)), didt

    final, didt = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))(
        begin("maximum likelihood"), jax.random.split(KEY, 30)
    )
    assert didt.shape == (30,)
    np.testing.assert_allclose(float(final.threshold().mean), TRUTH, rtol=0.02)


@pytest.mark.parametrize("truth", [31e6, 61e6, 149.9e6])
def test_the_relative_frequency_rule_ends_at_the_lowest_that_passes(truth):
    state, count = begin("relative frequency"), 0
    while not bool(state.finished):
        state = state.add(state.propose(KEY), 100.0 if float(state.intensity) >= truth else 10.0)
        count += 1
        assert count < 200
    best = float(state.threshold().mean)
    assert truth <= best * (1 + 1e-6)
    assert best - truth < 0.0101 * HIGHEST
    # one up after the other, five for each that passes, six for the one that fails
    up = int(np.ceil(np.round((truth - LOWEST) / (0.05 * HIGHEST), 6)))
    passed = round((min(LOWEST + up * 0.05 * HIGHEST, HIGHEST) - best) / (0.01 * HIGHEST)) + 1
    if truth < 149e6:
        assert count == up + 1 + 5 * passed + 6
    assert np.isnan(float(state.threshold().low))
    same = state.add(best, 1000.0)
    assert bool(same.finished)
    assert float(same.propose(KEY)) == float(state.propose(KEY))


def test_a_chance_response_does_not_end_the_rule():
    state = begin("relative frequency").add(LOWEST, 80.0)
    assert bool(state.testing)
    for _ in range(6):
        assert float(state.propose(KEY)) == LOWEST
        state = state.add(LOWEST, 10.0)
    assert not bool(state.finished)
    np.testing.assert_allclose(float(state.propose(KEY)), LOWEST + 0.05 * HIGHEST)


def test_maximum_likelihood_is_that_of_its_formula(tolerance):
    state = begin("maximum likelihood")
    didt, meps = np.array([70, 60, 66, 64, 75]) * 1e6, np.array([90.0, 20, 55, 30, 400])
    for x, mep in zip(didt, meps, strict=True):
        state = state.add(x, mep)
    ticks = np.linspace(LOWEST, HIGHEST, 400)
    sign = np.append(np.where(meps >= 50, 1, -1), [1, -1])
    z = sign[:, None] * (np.append(didt, [HIGHEST, LOWEST])[:, None] - ticks) / (0.07 * ticks)
    total = norm.logcdf(z).sum(0)
    np.testing.assert_allclose(state.log_likelihood, total, rtol=tolerance(1e-3, 1e-9), atol=1e-3)
    np.testing.assert_allclose(float(state.threshold().mean), ticks[total.argmax()], rtol=0.005)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0.0, 50.0), "didt: 0"),
        ((60e6, -1.0), "mep: -1"),
        ((60e6, np.inf), "mep: inf"),
        ((60e6, np.ones(2)), "mep: shapes"),
    ],
)
def test_bad_stimuli(rule, arguments, match):
    with pytest.raises(ValueError, match=match):
        begin(rule).add(*(a if isinstance(a, float) else jnp.asarray(a) for a in arguments))


def test_bad_trackers():
    with pytest.raises(ValueError, match="lowest"):
        design.track_maximum_likelihood(150e6, 30e6)
    with pytest.raises(ValueError, match="highest"):
        design.track_relative_frequency(30e6, -1.0)
    with pytest.raises(ValueError, match="n_particle: 15"):
        begin("posterior", n_particle=15)
    with pytest.raises(ValueError, match="capacity"):
        begin("posterior", capacity=0)
    with pytest.raises(ValueError, match="room for 1 stimuli"):
        begin("posterior", capacity=1).add(60e6, 20.0).add(60e6, 20.0)


def test_no_response_is_no_amplitude_of_zero():
    start = design.track_threshold(3e7, 1.5e8, key=jax.random.key(0), n_particle=256)
    one, other = (start.add(6e7, mep) for mep in (0.0, 10.0))
    assert float(one.y[0]) == pytest.approx(1.0)
    np.testing.assert_array_equal(one.log_weight, other.log_weight)
    np.testing.assert_array_equal(one.standard, other.standard)
