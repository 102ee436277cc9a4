"""The autoencoder as a population trains it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxm2m import emg
from jaxm2m.emg.lfads import _augment, _model
from jaxm2m.population import Trainable

CONFIG = emg.LFADSConfig(
    channels=3, generator=8, controller=6, ci_encoder=6, ic_encoder=8, ic_dim=4, co_dim=1, fac_dim=2
)
HYPER = {
    "learning_rate": 5e-3,
    "dropout": 0.1,
    "coordinated_dropout": 0.3,
    "l2_generator": 1e-2,
    "l2_controller": 1e-2,
    "kl_ic": 1e-4,
    "kl_co": 1e-5,
}


def model(**options):
    return emg.SequentialVAE(CONFIG, margin=3, shift=1.5, ramp=20, **options)


def hyper(**changed):
    return {name: jnp.asarray(value, jnp.result_type(float)) for name, value in (HYPER | changed).items()}


def windows(count=24, time=20, seed=0):
    """Gamma data around a common oscillation of random phase."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1)) + np.arange(time + 6)[:, None] * 0.4
    mean = np.exp(1.5 * np.sin(phase + np.arange(3)))
    return jnp.asarray(rng.gamma(4.0, mean / 4), jnp.result_type(float)), mean


def test_is_a_trainable_that_shares_programs():
    one, same, other = model(offset=(1.0, 2.0, 3.0)), model(offset=(1.0, 2.0, 3.0)), model(decay=10)
    assert isinstance(one, Trainable)
    assert one == same
    assert hash(one) == hash(same)
    assert one.settings == json.loads(json.dumps(one.settings))
    assert one.settings != other.settings
    np.testing.assert_array_equal(one.init(jax.random.key(0))["offset"], [1, 2, 3])
    assert all(a.dtype == jnp.result_type(float) for a in jax.tree.leaves(one.init(jax.random.key(0))))


@pytest.mark.float64
def test_the_ramp_brings_the_penalties_in(tolerance):
    trainable, (data, _) = model(), windows()
    params, numbers = trainable.init(jax.random.key(0)), hyper(kl_ic=0.3, kl_co=0.2, l2_generator=5.0)
    loss = jax.jit(trainable.loss)
    (start, terms), (half, _), (full, _), (late, _) = (
        loss(params, numbers, data, jax.random.key(1), step) for step in (0, 10, 20, 1000)
    )
    rest = terms["l2"] + 0.3 * terms["divergence_ic"] + 0.2 * terms["divergence_co"]
    np.testing.assert_allclose(start, 1e4 * terms["nll"], rtol=1e-6)
    np.testing.assert_allclose(full - start, 1e4 * rest, rtol=tolerance(1e-4, 1e-9))
    np.testing.assert_allclose(half - start, 0.5e4 * rest, rtol=tolerance(1e-4, 1e-9))
    assert late == full
    assert loss(params, numbers, data, jax.random.key(2), 0)[0] != start  # noise


@pytest.mark.float32
def test_only_hidden_inputs_count_for_the_gradient():
    """Data explained where they are seen: nothing is learned there."""
    params, (data, _) = model().init(jax.random.key(0)), windows()
    data = data[:, 3:-3]
    inputs = _model.prepare_inputs(params, CONFIG, data)

    def nll(params, graded):
        return _model.loss_terms(params, CONFIG, inputs, data, grad_mask=graded)["nll"]

    value = jax.jit(jax.value_and_grad(nll))
    seen = jnp.broadcast_to(jnp.arange(3) != 1, data.shape)
    nowhere, gradient = value(params, jnp.zeros_like(seen))
    assert not any(np.any(a) for a in jax.tree.leaves(gradient))
    part, gradient = value(params, ~seen)
    bias = gradient["readout"]["bias"].reshape(2, 3)
    assert (bias[:, 1] != 0).all()
    assert (bias[:, [0, 2]] == 0).all()
    assert nowhere == part == value(params, jnp.ones_like(seen))[0]


@pytest.mark.slow
@pytest.mark.float32
def test_nothing_hidden_means_that_everything_counts():
    trainable, (data, _) = model(), windows()
    params = trainable.init(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda p, h: trainable.loss(p, h, data, jax.random.key(0), jnp.int32(0))[0]))
    whole = gradient(params, hyper(coordinated_dropout=0.0))["readout"]["bias"]
    assert (whole != 0).all()
    assert np.linalg.norm(gradient(params, hyper(coordinated_dropout=0.05))["readout"]["bias"]) < 0.5 * np.linalg.norm(
        whole
    )


@pytest.mark.float64
@pytest.mark.slow
def test_score_is_the_likelihood_at_the_posterior_means(tolerance):
    trainable, (data, _) = model(offset=(0.1, -0.2, 0.3)), windows()
    params = trainable.init(jax.random.key(0))
    score = trainable.score(params, hyper(), data, jax.random.key(1))
    inside = data[:, 3:-3]
    code = _model.encode(params, CONFIG, jnp.log(inside) - jnp.array([0.1, -0.2, 0.3]))
    raw = _model.decode(params, CONFIG, code)["raw"].swapaxes(0, 1)
    np.testing.assert_allclose(score, CONFIG.observation.nll(raw, inside).mean((1, 2)), rtol=tolerance(1e-5, 1e-12))
    changed = data.at[:, :3].set(7.0).at[:, -3:].set(9.0)
    np.testing.assert_array_equal(trainable.score(params, hyper(), changed, jax.random.key(2)), score)


def test_the_optimizer_clips_and_decays(tolerance):
    params = {"w": jnp.zeros(2)}
    states = [model(decay=10).optimizer(hyper(learning_rate=rate)).init(params) for rate in (1e-3, 2e-3)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    moved = {}
    for decay in (0, 10):
        optimizer, state = model(decay=decay).optimizer(hyper(learning_rate=1e-3)), states[0]
        if not decay:
            state = optimizer.init(params)
        for _ in range(12):
            updates, state = optimizer.update({"w": jnp.array([3e5, -4e5])}, state, params)
        moved[decay] = updates["w"]
    np.testing.assert_allclose(moved[0], [-1e-3, 1e-3], rtol=1e-5)
    np.testing.assert_allclose(moved[10], 0.03 * moved[0], rtol=1e-5)
    # the norm of 5e5 was clipped to 200 before it met Adam
    momentum = optax.tree_utils.tree_get(state, "mu")
    assert np.abs(momentum).max() <= 200


@pytest.mark.slow
@pytest.mark.float32
def test_training_finds_the_mean_behind_gamma_data():
    trainable = model(offset=tuple(np.log(np.asarray(windows()[0])).mean((0, 1)).tolist()))
    numbers = hyper(learning_rate=1e-2, coordinated_dropout=0.2)
    optimizer = trainable.optimizer(numbers)
    (data, _), (unseen, truth) = windows(64), windows(32, seed=1)
    params = trainable.init(jax.random.key(0))
    state = optimizer.init(params)

    @jax.jit
    def run(params, state):
        def step(carry, i):
            params, state = carry
            (_, terms), gradient = jax.value_and_grad(trainable.loss, has_aux=True)(
                params, numbers, data, jax.random.fold_in(jax.random.key(1), i), i
            )
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), terms["nll"]

        return jax.lax.scan(step, (params, state), jnp.arange(300))

    before = trainable.score(params, numbers, unseen, jax.random.key(0)).mean()
    (after, _), nll = run(params, state)
    assert np.isfinite(nll).all()
    score = trainable.score(after, numbers, unseen, jax.random.key(0)).mean()
    assert score < before - 0.1
    found = emg.posterior_means(after, CONFIG, _augment.crop_margins(unseen, 3)).rates
    correlation = np.corrcoef(np.log(found).ravel(), np.log(truth[:, 3:-3]).ravel())[0, 1]
    raw = np.corrcoef(np.log(unseen[:, 3:-3]).ravel(), np.log(truth[:, 3:-3]).ravel())[0, 1]
    assert correlation > raw  # nearer to the truth than the data
    np.testing.assert_array_equal(after["offset"], params["offset"])  # not trained


def test_settings_name_what_is_wrong():
    with pytest.raises(ValueError, match="offset: 2 numbers for 3 channels; pass one a channel, or none"):
        model(offset=(1.0, 2.0))
    with pytest.raises(ValueError, match="ramp: -1; must be at least 0"):
        emg.SequentialVAE(CONFIG, ramp=-1)
