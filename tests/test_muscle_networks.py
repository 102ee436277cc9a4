"""The networks from fields to muscles: convolutions, sizes, heads, what is stepped and what is not."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxm2m.muscle import PRESETS, NetworkConfig
from jaxm2m.muscle.networks import _networks
from jaxm2m.muscle.networks._convolution import convolve
from jaxm2m.muscle.networks._networks import Decoder, Encoder, Head, Mapper
from jaxm2m.muscle.networks._resampling import convolve_pooled, convolve_upsampled, pool_blocks, upsample
from jaxm2m.muscle.networks._training import FieldAutoencoder, MuscleMapper, TrainingConfig
from jaxm2m.population._trainable import evaluate_loss

TINY = NetworkConfig(shape=(8, 8, 8), filters=(3, 2), pools=1, kernel=1, hidden=(6, 5))  # kernel 1 compiles soon
HYPER = {"learning_rate": 1e-2, "l1": 0.0, "l2": 0.0, "dropout": 0.0}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def reference(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"), precision="highest"
    )


@pytest.mark.float64
@pytest.mark.parametrize(
    ("channels", "filters", "size", "shape"),
    # the last two by tiles
    [(1, 4, 3, (5, 6, 7)), (5, 2, 3, (5, 6, 7)), (2, 2, 5, (5, 6, 7)), (3, 1, 1, (5, 6, 7)), (9, 8, 3, (4, 6, 5)),
     (8, 11, 3, (6, 2, 1))],
)  # fmt: skip
@pytest.mark.slow
def test_convolution_and_its_gradients_are_those_of_xla(channels, filters, size, shape, tolerance):
    x, kernel = draw(shape, channels, filters, size)
    assert_same_gradients(convolve, reference, x, kernel, tolerance(2e-5, 1e-12))


@pytest.mark.float64
@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize(("channels", "filters"), [(3, 2), (2, 9)])
@pytest.mark.slow
def test_convolution_of_coarse_voxels_is_that_of_the_upsampled_volume(channels, filters, size, tolerance):
    x, kernel = draw((3, 4, 5), channels, filters, size)
    assert_same_gradients(convolve_upsampled, lambda x, k: reference(upsample(x), k), x, kernel, tolerance(3e-5, 1e-12))


@pytest.mark.float64
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.slow
def test_convolution_that_is_pooled_at_once_is_that_which_is_pooled_after(how, size, tolerance):
    x, kernel = draw((4, 6, 8), 2, 5, size)
    pool = (lambda block: block.max(-2)) if how == "max" else (lambda block: jnp.tanh(block).mean(-2))

    def after(x, kernel):
        values = reference(x, kernel)
        return pool_blocks(values if how == "max" else jnp.tanh(values), how)

    assert_same_gradients(lambda x, k: convolve_pooled(x, k, pool), after, x, kernel, tolerance(2e-5, 1e-12))


def draw(shape, channels, filters, size):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, *shape, channels))
    return x, jax.random.normal(keys[1], (size, size, size, channels, filters))


def assert_same_gradients(ours, theirs, x, kernel, tolerance):
    def value(f):
        weight = jax.random.normal(jax.random.key(2), jax.eval_shape(f, x, kernel).shape)
        return jax.value_and_grad(lambda x, k: (f(x, k) * weight).sum(), argnums=(0, 1))(x, kernel)

    for one, other in zip(jax.tree.leaves(value(ours)), jax.tree.leaves(value(theirs)), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * float(jnp.abs(other).max()))


@pytest.mark.parametrize(("channels", "filters"), [(2, 4), (8, 8)])
@pytest.mark.parametrize("function", [convolve, convolve_upsampled])
def test_members_have_their_own_kernels(function, channels, filters, tolerance):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (3, 2, 4, 4, 4, channels))
    kernels = jax.random.normal(keys[1], (3, 3, 3, 3, channels, filters))
    batched = jax.vmap(function)(x, kernels)
    alone = jnp.stack([function(a, k) for a, k in zip(x, kernels, strict=True)])
    np.testing.assert_allclose(batched, alone, atol=tolerance(1e-4, 1e-12))


def test_pooling_and_upsampling():
    x = jnp.arange(2 * 4**3 * 2.0).reshape(2, 4, 4, 4, 2)
    block = x[1, 2:4, 0:2, 2:4, 1]
    assert pool_blocks(x, "max")[1, 1, 0, 1, 1] == block.max()
    assert pool_blocks(x, "mean")[1, 1, 0, 1, 1] == block.mean()
    np.testing.assert_array_equal(pool_blocks(upsample(x), "mean"), x)


def test_m2m_net_has_the_parameters_of_its_public_code():
    sizes = PRESETS["m2m-net"].config
    key = jax.random.key(0)
    autoencoder = [jax.eval_shape(lambda m=m: _networks.init(key, m, sizes)) for m in (Encoder, Decoder)]
    assert count(autoencoder) == 115_970
    mapper = jax.eval_shape(lambda: _networks.init(key, Mapper, sizes))
    assert count(mapper) + 15 * 33 == 140_175
    assert sizes.code == (16, 16, 16, 1)
    assert PRESETS["paper"].config.code == (10, 10, 10, 1)


@pytest.mark.float32
@pytest.mark.parametrize("pools", [0, 1, 2])
def test_decoder_mirrors_the_encoder(pools):
    sizes = dataclasses.replace(TINY, pools=pools)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 8, 1))
    code, _ = _networks.apply(_networks.init(jax.random.key(0), Encoder, sizes), Encoder, sizes)(x)
    assert code.shape[1:] == sizes.code
    back, _ = _networks.apply(_networks.init(jax.random.key(0), Decoder, sizes), Decoder, sizes)(code)
    assert back.shape == x.shape


def test_heads_are_their_formula(tolerance):
    params = _networks.init(jax.random.key(0), Head, 5, 4, 3)
    x = jax.random.normal(jax.random.key(1), (7, 5))
    synergies = jax.random.uniform(jax.random.key(2), (4, 3))
    direct, active = params["direct"], params["activations"]
    params["direct"]["bias"] = bias = jnp.arange(4.0)
    for parts in ((1, 0), (0, 1), (1, 1)):
        found, _ = _networks.apply(params, Head, 5, 4, 3)(x, synergies, jnp.array(parts, x.dtype))
        wanted = parts[0] * (x @ direct["kernel"]) + parts[1] * (x @ active["kernel"]) @ synergies.T + bias
        np.testing.assert_allclose(found, wanted, atol=tolerance(1e-5, 1e-12))


@pytest.mark.float32
def test_a_synergy_head_can_tell_that_a_muscle_is_silent():
    mapper = MuscleMapper(TINY, 3, 2, "adam")
    params = mapper.init(jax.random.key(0))
    params["fixed"]["parts"] = jnp.array([0.0, 1.0])
    x = jax.random.uniform(jax.random.key(1), (8, 8, 8, 8, 1))
    y = jnp.zeros((8, 3))
    numbers = {name: jnp.asarray(v) for name, v in HYPER.items()}
    rule = mapper.optimizer(numbers)

    # without any optimisation XLA makes NaN of this program (jaxlib 0.10.1, CPU)
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    def step(params, state):
        slope = jax.grad(lambda p: mapper.loss(p, numbers, {"x": x, "y": y}, jax.random.key(0), jnp.int32(0))[0])
        updates, state = rule.update(slope(params), state, params)
        return optax.apply_updates(params, updates), state

    state = rule.init(params)
    for _ in range(200):
        params, state = step(params, state)
    assert float(mapper.predict(params, x).max()) < 0.05


def stepped(trainable, batch, **others):
    """Weights before and after one step, and the loss."""
    numbers = {name: jnp.asarray(value) for name, value in (HYPER | others).items()}
    before = trainable.init(jax.random.key(0))
    args = (numbers, batch, jax.random.key(1), jnp.int32(0))

    @jax.jit
    def step(before):
        loss = partial(evaluate_loss, trainable)
        (value, (terms, parts)), slope = jax.value_and_grad(loss, has_aux=True)(before, *args)
        rule = trainable.optimizer(numbers)
        updates, _ = rule.update(slope, rule.init(before), before)
        return optax.apply_updates(before, updates) | parts, value, terms

    return before, *step(before)


@pytest.fixture
def batch(precision):
    keys = jax.random.split(jax.random.key(5), 2)
    return {"x": jax.random.normal(keys[0], (6, 8, 8, 8, 1)), "y": jax.random.uniform(keys[1], (6, 3))}


@pytest.mark.float32
@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "adadelta", "sgd"])
def test_what_is_fixed_is_not_stepped(batch, optimizer):
    for trainable in (FieldAutoencoder(TINY, optimizer), MuscleMapper(TINY, 3, 2, optimizer, residual=True)):
        before, after, *_ = stepped(trainable, batch)
        for part in before:
            same = jax.tree.map(lambda a, b: bool((a == b).all()), before[part], after[part])
            if part in ("fixed", "first"):
                assert all(jax.tree.leaves(same)), part
            elif part != "statistics":
                assert not all(jax.tree.leaves(same)), part


@pytest.mark.float64
def test_running_statistics_follow_as_in_batch_normalisation(batch, tolerance):
    sizes = dataclasses.replace(TINY, convolutions=(4,), normalised=True, activation="relu")
    mapper = MuscleMapper(sizes, 3, 2, "sgd")
    before, after, value, terms = stepped(mapper, batch)
    assert float(value) == pytest.approx(float(terms["error"]), rel=1e-6)  # they add nothing to the loss
    code, _ = _networks.apply(before["encoder"], Encoder, sizes)(batch["x"])
    kernel, bias = before["mapper"]["conv0"]["kernel"], before["mapper"]["conv0"]["bias"]
    seen = jax.nn.relu(reference(code, kernel) + bias)
    found = after["statistics"]["norm0"]
    np.testing.assert_allclose(found["mean"], 0.1 * seen.mean((0, 1, 2, 3)), atol=tolerance(1e-5, 1e-12))
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * seen.var((0, 1, 2, 3)), atol=tolerance(1e-5, 1e-12))


@pytest.mark.float32
def test_penalties_and_the_falling_rate(batch):
    _, _, value, _ = stepped(MuscleMapper(TINY, 3, 2, "sgd"), batch)
    before, _, more, _ = stepped(MuscleMapper(TINY, 3, 2, "sgd"), batch, l1=0.1, l2=0.2)
    kernels = [before["mapper"][n]["kernel"] for n in ("dense0", "dense1")]
    kernels += [before["head"][n]["kernel"] for n in ("direct", "activations")]
    wanted = sum(0.1 * jnp.abs(k).sum() + 0.2 * (k**2).sum() for k in kernels)
    assert float(more - value) == pytest.approx(float(wanted), rel=1e-4)
    # a rule that has fallen twice moves 0.25 times as far
    trainable = MuscleMapper(TINY, 3, 2, "sgd", lr_decay=(3.0, 0.5))
    numbers = {name: jnp.asarray(v) for name, v in HYPER.items()}
    rule = trainable.optimizer(numbers)
    slope = jax.tree.map(jnp.ones_like, before)
    state, moves = rule.init(before), []
    for _ in range(7):
        updates, state = rule.update(slope, state, before)
        moves.append(float(updates["head"]["direct"]["bias"][0]))
    trace = np.cumsum(0.9 ** np.arange(7))  # momentum
    np.testing.assert_allclose(moves, -1e-2 * trace * 0.5 ** (np.arange(7) // 3), rtol=1e-5)


@pytest.mark.float32
def test_errors_are_of_what_was_scaled(batch):
    mapper = MuscleMapper(TINY, 3, 2, "adam", criterion="squared error")
    params = mapper.init(jax.random.key(0))
    params["fixed"]["largest"] = jnp.array([1.0, 10.0, 100.0])
    found = mapper.score(params, {}, batch, jax.random.key(0))
    wanted = ((mapper.predict(params, batch["x"]) - batch["y"] / jnp.array([1.0, 10.0, 100.0])) ** 2).mean(1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    crossed = MuscleMapper(TINY, 3, 2, "adam")
    p, t = mapper.predict(params, batch["x"]), batch["y"] / jnp.array([1.0, 10.0, 100.0])
    entropy = -(t * jnp.log(p) + (1 - t) * jnp.log(1 - p)).mean(1)
    np.testing.assert_allclose(crossed.score(params, {}, batch, jax.random.key(0)), entropy, rtol=1e-5)


@pytest.mark.host
@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"shape": (8, 8, 9)}, "halved"),
        ({"pools": 3}, "pools"),
        ({"kernel": 2}, "odd"),
        ({"convolutions": (2, 2, 2)}, "convolutions"),
        ({"hidden": ()}, "hidden"),
        ({"pool": "min"}, "pool"),
    ],
)
def test_architectures_that_cannot_be(how, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(TINY, **how)


@pytest.mark.host
@pytest.mark.parametrize("how", [{"optimizer": "rmsprop"}, {"dropout": 1.0}, {"batch_size": 0}, {"criterion": "hinge"}])
def test_recipes_that_cannot_be(how):
    with pytest.raises(ValueError, match=next(iter(how))):
        TrainingConfig(**how)
