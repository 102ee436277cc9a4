"""The recurrent layer with its own backward pass against autodiff of a plain scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxm2m.emg.lfads import _gru

TIME, BATCH, N_IN, UNITS = 11, 5, 3, 4


def plain(params, start, inputs, clip=5.0, reverse=False):
    """The equations, batch first, by a scan that JAX differentiates."""
    units = start.shape[1]

    def step(h, x):
        w, u, b = params["input"], params["recurrent"], params["bias"]
        z, r = jnp.split(jax.nn.sigmoid(x @ w[:, : 2 * units] + h @ u[:, : 2 * units] + b[: 2 * units]), 2, -1)
        n = jnp.tanh(x @ w[:, 2 * units :] + (r * h) @ u[:, 2 * units :] + b[2 * units :])
        h = jnp.clip(z * h + (1 - z) * n, -clip, clip)
        return h, h

    return jax.lax.scan(step, start, inputs, reverse=reverse)[1]


def ours(params, start, inputs, clip=5.0, reverse=False):
    return _gru.gru(params, start.T, inputs.swapaxes(1, 2), clip=clip, reverse=reverse).swapaxes(1, 2)


def ours_last(params, start, inputs, clip=5.0, reverse=False):
    return _gru.gru_last(params, start.T, inputs.swapaxes(1, 2), clip=clip, reverse=reverse).T


@pytest.fixture
def layer(precision):
    keys = jax.random.split(jax.random.key(1), 4)
    params = _gru.init_gru(keys[0], N_IN, UNITS)
    params["bias"] = jax.random.normal(keys[1], (3 * UNITS,))
    return params, jax.random.normal(keys[2], (BATCH, UNITS)), 2 * jax.random.normal(keys[3], (TIME, BATCH, N_IN))


def value(function, **options):
    """A scalar that each state at each time has a share in."""

    def scalar(params, start, inputs):
        states = function(params, start, inputs, **options)
        weights = jnp.sin(jnp.arange(states.size, dtype=states.dtype)).reshape(states.shape)
        return (weights * states**2).sum()

    return scalar


def close(found, wanted, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("clip", [5.0, 0.4])
@pytest.mark.slow
def test_states_and_gradients_are_those_of_a_plain_scan(layer, tolerance, clip, reverse):
    options = {"clip": clip, "reverse": reverse}
    states = ours(*layer, **options)
    close(states, plain(*layer, **options), tolerance(2e-6, 1e-13))
    assert (abs(float(jnp.abs(states).max()) - 0.4) < 1e-6) == (clip == 0.4)  # the bound is at work where it should be
    last = ours_last(*layer, **options)
    close(last, states[0 if reverse else -1], tolerance(1e-6, 1e-13))

    gradient = jax.grad(value(ours, **options), argnums=(0, 1, 2))(*layer)
    close(gradient, jax.grad(value(plain, **options), argnums=(0, 1, 2))(*layer), tolerance(1e-4, 1e-10))

    def plain_last(*arguments, **options):
        return plain(*arguments, **options)[0 if reverse else -1]

    gradient = jax.grad(value(ours_last, **options), argnums=(0, 1, 2))(*layer)
    close(gradient, jax.grad(value(plain_last, **options), argnums=(0, 1, 2))(*layer), tolerance(1e-4, 1e-10))


@pytest.mark.float32
def test_data_have_no_gradient_and_change_no_other(layer):
    def weighed(data):
        def scalar(params, start, inputs):
            return (_gru.gru(params, start.T, inputs.swapaxes(1, 2), data=data) ** 2).sum()

        return jax.jit(jax.grad(scalar, argnums=(0, 1, 2)))(*layer)

    *parameters, inputs = weighed(True)
    assert not inputs.any()
    close(parameters, weighed(False)[:2], 1e-6)


def test_gates_at_their_ends_have_finite_gradients(layer):
    """Where the update gate is 1 in rounding, the candidate cannot be told from the states."""
    params, start, inputs = layer
    for bias in (-200.0, 200.0):
        extreme = params | {"bias": jnp.full_like(params["bias"], bias)}
        gradient = jax.jit(jax.grad(value(ours), argnums=(0, 1, 2)))(extreme, start, inputs)
        close(gradient, jax.grad(value(plain), argnums=(0, 1, 2))(extreme, start, inputs), 1e-4)


def test_gradients_under_vmap_map_and_shard_map(layer, tolerance):
    several = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a, -a]), layer)
    wanted = [jax.grad(value(plain))(*(jax.tree.map(lambda a, i=i: a[i], several))) for i in range(3)]
    wanted = jax.tree.map(lambda *a: jnp.stack(a), *wanted)
    gradient = jax.grad(value(ours))
    close(jax.jit(jax.vmap(gradient))(*several), wanted, tolerance(1e-4, 1e-10))

    def mapped(several):
        return jax.lax.map(lambda one: gradient(*one), several)

    close(jax.jit(mapped)(several), wanted, tolerance(1e-4, 1e-10))
    mesh, members = Mesh(np.array(jax.devices()[:1]), "member"), PartitionSpec("member")
    sharded = jax.shard_map(mapped, mesh=mesh, in_specs=members, out_specs=members, check_vma=False)
    close(jax.jit(sharded)(several), wanted, tolerance(1e-4, 1e-10))


@pytest.mark.float32
def test_only_states_are_stored(layer):
    _, pull = jax.vjp(ours, *layer)
    held = sum(a.size for a in jax.tree.leaves(pull) if hasattr(a, "size"))
    params, start, inputs = layer
    needed = TIME * BATCH * UNITS + inputs.size + start.size + 2 * sum(a.size for a in params.values())
    assert held <= needed + 10  # and some numbers
    _, pull = jax.vjp(plain, *layer)
    assert sum(a.size for a in jax.tree.leaves(pull) if hasattr(a, "size")) > 2 * needed  # the test can fail


def test_first_weights_have_unit_fan_in(tolerance):
    params = _gru.init_gru(jax.random.key(0), 50, 400)
    assert params["input"].dtype == jnp.result_type(float)
    np.testing.assert_allclose(params["input"].std(), 50**-0.5, rtol=0.02)
    np.testing.assert_allclose(params["recurrent"].std(), 400**-0.5, rtol=0.02)
    np.testing.assert_array_equal(params["bias"], np.repeat([1.0, 0.0], [800, 400]))
