"""Recurrent layers whose backward pass is written for speed, and the gated recurrent unit.

Autodiff of a scan stores every gate of every step. Here the states alone are stored: the reverse scan computes the
gates of a step anew from the state before it, while they are in cache, and adds up the gradient of the kernels on its
way. The batch is the last axis: then parts of a state are contiguous, and of all products only one is with a
transposed matrix; those run at half the speed on a CPU.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

State = dict[str, Array]
# step(params, shared, state, inputs, given, after) -> the next state; `after` is that state where it is known already
Step = Callable[[PyTree, PyTree, State, PyTree, PyTree, State | None], State]


def _recurrence(
    step: Step,
    keep: tuple[str, ...],
    reverse: bool,
    params: PyTree,
    shared: PyTree,
    start: State,
    inputs: PyTree,
    fixed: PyTree,
) -> tuple[State, State]:
    """Carry a state through time: state_t = step(params, shared, state_{t-1}, inputs_t, fixed_t, None).

    Parameters
    ----------
    step
        A pure function of its arguments alone. In the backward pass its last argument is what it is to return, which
        may save it work.
    keep
        The entries of the state that are returned for all times.
    reverse
        Whether the recurrence runs from the last time to the first.
    params, start, inputs
        What is differentiated (in reverse mode only): parameters, the state before the first step, and arrays with time
        first.
    shared, fixed
        What is not: constants, and arrays with time first.

    Returns
    -------
    tuple
        The state after the last step, and the kept entries with time first.
    """
    return _forward(step, keep, reverse, params, shared, start, inputs, fixed)[0]


def _forward(step, keep, reverse, params, shared, start, inputs, fixed):
    def body(state, now):
        state = step(params, shared, state, *now, None)
        return state, state

    last, states = jax.lax.scan(body, start, (inputs, fixed), reverse=reverse)
    kept = {name: states[name] for name in keep}
    return (last, kept), (params, shared, start, inputs, fixed, states)


def _backward(step, keep, reverse, saved, cotangents):
    params, shared, start, inputs, fixed, states = saved
    d_last, d_kept = cotangents
    length = jax.tree.leaves(states)[0].shape[0]
    first = length - 1 if reverse else 0

    def body(carry, now):
        d_state, d_params = carry
        t, inputs, fixed, d_kept = now
        d_state = d_state | {name: d_state[name] + d_kept[name] for name in keep}
        after = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, t, keepdims=False), states)
        # the state before this step: the one stored for the step before
        earlier = jnp.clip(t + 1 if reverse else t - 1, 0, length - 1)
        before = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, earlier, keepdims=False), states)
        before = jax.tree.map(lambda a, b: jnp.where(t == first, a, b), start, before)
        _, pull = jax.vjp(lambda p, s, x: step(p, shared, s, x, fixed, after), params, before, inputs)
        d_step, d_state, d_inputs = pull(d_state)
        return (d_state, jax.tree.map(jnp.add, d_params, d_step)), d_inputs

    times = jnp.arange(length)
    zeros = jax.tree.map(jnp.zeros_like, params)
    (d_start, d_params), d_inputs = jax.lax.scan(
        body, (d_last, zeros), (times, inputs, fixed, d_kept), reverse=not reverse
    )
    return d_params, None, d_start, d_inputs, None


recurrence = jax.custom_vjp(_recurrence, nondiff_argnums=(0, 1, 2))
recurrence.defvjp(_forward, _backward)


def init_gru(key: Key[Array, ""], inputs: int, units: int) -> dict[str, Array]:
    """Draw the weights of a gated recurrent unit: N(0, 1/fan-in), biases of the gates 1, of the candidate 0.

    Returns
    -------
    dict
        "input" (inputs, 3 units), "recurrent" (units, 3 units), "bias" (3 units,): update, reset, candidate.
    """
    one, two = jax.random.split(key)
    gates = jnp.ones(2 * units)
    return {
        "input": jax.random.normal(one, (inputs, 3 * units)) / inputs**0.5,
        "recurrent": jax.random.normal(two, (units, 3 * units)) / units**0.5,
        "bias": jnp.concatenate([gates, jnp.zeros(units, gates.dtype)]),
    }


def pack_weights(params: dict[str, Array], *, data: bool = False) -> tuple[dict[str, Array], dict[str, Array]]:
    """Arrange the weights as `cell` multiplies with them: kernels of input and state side by side, biases as a column.

    Parameters
    ----------
    params
        Weights of `init_gru`.
    data
        Whether the inputs are data, which need no derivative.

    Returns
    -------
    tuple
        "gates" (2 units, inputs + units), "candidate" (units, inputs + units), "bias" (3 units, 1); and the kernels
        transposed, for the backward pass, where they are constants: the rows of what is differentiated.
    """
    units = params["recurrent"].shape[0]
    kernel = jnp.concatenate([params["input"], params["recurrent"]])
    parts = {"gates": kernel[:, : 2 * units], "candidate": kernel[:, 2 * units :]}
    first = params["input"].shape[0] if data else 0
    back = {name: jax.lax.stop_gradient(part[first:]) for name, part in parts.items()}
    return {name: part.T for name, part in parts.items()} | {"bias": params["bias"][:, None]}, back


def cell(
    weights: dict[str, Array],
    back: dict[str, Array],
    state: Float[Array, "unit batch"],
    inputs: Float[Array, "n_in batch"],
    clip: Any,
    after: Float[Array, "unit batch"] | None = None,
) -> Float[Array, "unit batch"]:
    """Take one step of a gated recurrent unit whose reset comes before the candidate's product.

    z, r = sigmoid(W x + U h + b), n = tanh(W_n x + U_n (r h) + b_n), h' = z h + (1 - z) n, kept within +-clip.

    Parameters
    ----------
    weights, back
        Of `pack_weights`.
    state
        h.
    inputs
        x.
    clip
        The bound of the state.
    after
        h' where it is known. Only then is the step differentiated by its own rule.
    """
    if after is not None:
        return _reuse_state(weights, back, state, inputs, clip, after)
    z, r, _ = _gates(weights, state, inputs)
    units = state.shape[0]
    n = jnp.tanh(weights["candidate"] @ jnp.concatenate([inputs, r * state]) + weights["bias"][2 * units :])
    return jax.lax.clamp(jnp.asarray(-clip, n.dtype), n + z * (state - n), jnp.asarray(clip, n.dtype))


def _gates(weights: dict[str, Array], state: Array, inputs: Array) -> tuple[Array, Array, Array]:
    units = state.shape[0]
    seen = jnp.concatenate([inputs, state])
    # sigmoid by tanh, which is cheaper
    both = 0.5 + 0.5 * jnp.tanh(0.5 * (weights["gates"] @ seen + weights["bias"][: 2 * units]))
    return both[:units], both[units:], seen


@jax.custom_vjp
def _reuse_state(weights, back, state, inputs, clip, after):
    return after


def _reuse_state_forward(weights, back, state, inputs, clip, after):
    return after, (weights, back, state, inputs, clip, after)


def _reuse_state_backward(saved, d):
    weights, back, h, inputs, clip, after = saved
    units = h.shape[0]
    z, r, seen = _gates(weights, h, inputs)
    # h' = z h + (1 - z) n gives n without its product. Where 1 - z is small n is inexact, but all that follows from it
    # is multiplied by 1 - z; where h' met its bound n is wrong, but the derivative zero.
    rest = 1 - z
    n = jnp.clip((after - z * h) / jnp.maximum(rest, jnp.finfo(h.dtype).tiny), -1, 1)
    d = jnp.where(jnp.abs(after) < clip, d, 0)
    d_n = d * rest * (1 - n * n)
    d_seen = back["candidate"] @ d_n
    d_reset = d_seen[-units:]
    d_gates = jnp.concatenate([d * (h - n) * z * rest, d_reset * h * r * (1 - r)])
    d_more = back["gates"] @ d_gates
    d_weights = {
        "gates": d_gates @ seen.T,
        "candidate": d_n @ jnp.concatenate([inputs, r * h]).T,
        "bias": jnp.concatenate([d_gates.sum(1), d_n.sum(1)])[:, None],
    }
    d_inputs = d_seen[:-units] + d_more[:-units]
    if not len(d_inputs):
        d_inputs = jnp.zeros_like(inputs)
    return d_weights, None, d * z + d_reset * r + d_more[-units:], d_inputs, None, None


_reuse_state.defvjp(_reuse_state_forward, _reuse_state_backward)


def _gru_step(params: PyTree, shared: PyTree, state: State, inputs: Array, fixed: None, after: State | None) -> State:
    known = None if after is None else after["h"]
    return {"h": cell(params, shared["back"], state["h"], inputs, shared["clip"], known)}


def gru(
    params: dict[str, Array],
    start: Float[Array, "unit batch"],
    inputs: Float[Array, "time n_in batch"],
    *,
    clip: float = 5.0,
    reverse: bool = False,
    data: bool = False,
) -> Float[Array, "time unit batch"]:
    """Compute the states of a gated recurrent layer.

    Parameters
    ----------
    params
        Weights of `init_gru`.
    start
        The state before the first step (`reverse`: after the last).
    inputs
        Arrays with time first, batch last.
    clip
        The bound of the states.
    reverse
        Whether the layer runs from the last time to the first.
    data
        Whether the inputs are data, whose derivative is not computed: it is zero.
    """
    _, states = _run(("h",), params, start, inputs, clip, reverse, data)
    return states["h"]


def gru_last(
    params: dict[str, Array],
    start: Float[Array, "unit batch"],
    inputs: Float[Array, "time n_in batch"],
    *,
    clip: float = 5.0,
    reverse: bool = False,
    data: bool = False,
) -> Float[Array, "unit batch"]:
    """Compute the last state of a gated recurrent layer (`reverse`: the first); arguments as for `gru`."""
    last, _ = _run((), params, start, inputs, clip, reverse, data)
    return last["h"]


def _run(
    keep: tuple[str, ...], params: PyTree, start: Array, inputs: Array, clip: float, reverse: bool, data: bool
) -> tuple[State, State]:
    weights, back = pack_weights(params, data=data)
    shared = {"back": back, "clip": clip}
    return recurrence(_gru_step, keep, reverse, weights, shared, {"h": start}, inputs, None)
