"""Maximum and draws of the posterior of all muscles: densities, curves, and the excitability of each stimulus.

Everything is standard normal under the prior: 7 numbers of the curve, then those of the bumps, a row a muscle; and one
number a stimulus that all muscles share, part of which may drift. Given that, muscles are independent. Draws alternate
between Hamiltonian steps of each muscle (R. M. Neal, MCMC using Hamiltonian dynamics, in Handbook of Markov Chain Monte
Carlo, 2011), in coordinates in which the posterior is nearly standard normal again, and random walks of each stimulus.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key

from jaxm2m._precision import full_precision
from jaxm2m.muscle.sources._density import weigh_bumps
from jaxm2m.muscle.sources._recruitment_curve import (
    N_NUMBER,
    SHARED,
    CurvePrior,
    curve_from,
    draw_response,
    log_likelihood,
)

_LEAPS = 8
_WALKS = 3
_RATE = 0.1  # of Adam, which falls to zero


class Measured(NamedTuple):
    """What is known of a session, and the priors of the bumps' weights and of curves.

    Attributes
    ----------
    y
        (n_stimulus, n_muscle) log10 of MEPs in uV.
    usable
        (n_stimulus, n_muscle) which of them count.
    features
        (n_stimulus, n_bump) mean rate under each bump.
    log_mean, factor
        As in `Bumps`.
    curve
        Prior of the curves.
    reference
        (n_reference, n_bump) features of the stimuli whose strongest drive is 1: the session's own, or poses that were
        laid before it.
    drift
        (n_stimulus, n_component) orthogonal components B of what all muscles share, whose covariance over the stimuli
        is I + B B'.
    """

    y: Float[Array, "stimulus muscle"]
    usable: Bool[Array, "stimulus muscle"]
    features: Float[Array, "stimulus bump"]
    log_mean: Float[Array, " bump"]
    factor: Float[Array, "bump bump"]
    curve: CurvePrior
    reference: Float[Array, "reference bump"]
    drift: Float[Array, "stimulus component"]


class Mode(NamedTuple):
    """The maximum of the posterior, and its shape there.

    Attributes
    ----------
    standard
        (n_muscle, n_number + n_bump).
    shared
        (n_stimulus,) standard normal.
    scale, axes
        (n_muscle, n_stimulus), (n_muscle, n_stimulus, n_number + n_bump): the curvature is
        I + axes' scale^2 axes.
    evidence
        (n_muscle,) Laplace's approximation of the log of the marginal likelihood, given `shared`.
    """

    standard: Array
    shared: Array
    scale: Array
    axes: Array
    evidence: Array


class Draws(NamedTuple):
    """Draws of the posterior; the first axis runs over them.

    Attributes
    ----------
    standard
        (n_draw, n_muscle, n_number + n_bump).
    shared
        (n_draw, n_stimulus).
    acceptance
        (n_muscle,) share of the steps that were taken.
    """

    standard: Array
    shared: Array
    acceptance: Array


def measure_drive(features: Array, weights: Array, reference: Array) -> tuple[Array, Array]:
    """Drive of the stimuli, about 1 for the strongest ones of the reference, and what was divided by.

    Without that a density would be drawn to wherever the field is largest.
    """
    # about the 98th percentile, but smooth
    size = 1.6 * jnp.mean((reference @ weights) ** 4) ** 0.25 + jnp.finfo(weights.dtype).tiny
    return features @ weights / size, size


def _terms(standard: Array, y: Array, usable: Array, shared: Array, data: Measured) -> Array:
    curve = curve_from(standard[:N_NUMBER], data.curve)
    weights = weigh_bumps(standard[N_NUMBER:], data.log_mean, data.factor)
    drive, _ = measure_drive(data.features, weights, data.reference)
    return jnp.where(usable, log_likelihood(curve, y, drive, SHARED * shared), 0)


def _potential(standard: Array, y: Array, usable: Array, shared: Array, data: Measured) -> Array:
    return 0.5 * (standard @ standard) - _terms(standard, y, usable, shared, data).sum()


def weigh_shared(shared: Float[Array, " stimulus"], drift: Float[Array, "stimulus component"]) -> Float[Array, ""]:
    """Minus the log density, up to a constant, of what all muscles share beforehand."""
    # (I + B B')^-1 is I - B (I + B' B)^-1 B', and components are orthogonal
    slow = ((shared @ drift) ** 2 / (1 + (drift**2).sum(0))).sum()
    return 0.5 * (shared @ shared - slow)


_MUSCLES = (0, 1, 1, None, None)


@partial(jax.jit, static_argnames="steps")
@full_precision
def find_mode(data: Measured, steps: int = 400, start: tuple[Array, Array] | None = None) -> tuple[Array, Array, Array]:
    """Climb to the maximum by Adam: standard (muscle, number), shared (stimulus,), and minus the log posterior."""

    def loss(point):
        standard, shared = point
        each = jax.vmap(_potential, _MUSCLES)(standard, data.y, data.usable, shared, data)
        return each.sum() + weigh_shared(shared, data.drift), each

    def step(state, _):
        point, memory = state
        (_, each), slope = jax.value_and_grad(loss, has_aux=True)(point)
        change, memory = optimizer.update(slope, memory)
        return (optax.apply_updates(point, change), memory), each

    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, steps), b2=0.99)
    dtype = data.features.dtype
    if start is None:
        n_muscle, n_number = data.y.shape[1], N_NUMBER + data.features.shape[1]
        start = jnp.zeros((n_muscle, n_number), dtype), jnp.zeros(len(data.y), dtype)
    point = start
    (point, _), each = jax.lax.scan(step, (point, optimizer.init(point)), None, length=steps)
    return *point, each[-1]


def describe_mode(maximum: tuple[Array, Array, Array], data: Measured) -> Mode:
    """Describe the curvature where `find_mode` ended, by the scores of the stimuli (empirical Fisher information)."""
    standard, shared, potential = maximum
    scores = np.asarray(measure_scores(standard, shared, data), np.float64)
    # by NumPy: LAPACK's calls for many muscles in one of JAX's programs may wait for each other for ever
    square, vectors = np.linalg.eigh(scores @ scores.swapaxes(1, 2))
    scale = np.sqrt(np.maximum(square, 1e-6))
    axes = vectors.swapaxes(1, 2) @ scores / scale[:, :, None]
    evidence = -np.asarray(potential, np.float64) - 0.5 * np.log1p(scale**2).sum(1)
    dtype = standard.dtype
    return Mode(standard, shared, jnp.asarray(scale, dtype), jnp.asarray(axes, dtype), jnp.asarray(evidence, dtype))


@jax.jit
@full_precision
def measure_scores(standard: Array, shared: Array, data: Measured) -> Float[Array, "muscle stimulus number"]:
    """Derivatives of each stimulus' log likelihood in the numbers of each muscle."""
    return jax.vmap(jax.jacrev(_terms), _MUSCLES)(standard, data.y, data.usable, shared, data)


def _unwhiten(q: Array, centre: Array, scale: Array, axes: Array) -> Array:
    return centre + q + ((1 / jnp.sqrt(1 + scale**2) - 1) * (axes @ q)) @ axes


@partial(jax.jit, static_argnames=("n_draw", "n_warmup", "thinning"))
@full_precision
def draw_posterior(
    key: Key[Array, ""], mode: Mode, data: Measured, n_draw: int, n_warmup: int = 100, thinning: int = 3
) -> Draws:
    """Draw from the posterior, from its maximum on; step sizes are tuned during the warm-up."""
    n_muscle, size = mode.standard.shape
    dtype = mode.standard.dtype

    def potential(q, centre, scale, axes, y, usable, shared):
        return _potential(_unwhiten(q, centre, scale, axes), y, usable, shared, data)

    each = jax.vmap(jax.value_and_grad(potential), (0, 0, 0, 0, 1, 1, None))
    to_standard = jax.vmap(_unwhiten)

    def evaluate(q, shared):
        return each(q, mode.standard, mode.scale, mode.axes, data.y, data.usable, shared)

    precision = 1 + (data.drift**2).sum(0)

    def draw_drift(shared, key):
        """Of the slow part, given all of it: normal, and independent in its components."""
        noise = jax.random.normal(key, precision.shape, dtype)
        return data.drift @ (shared @ data.drift / precision + noise / jnp.sqrt(precision))

    def walk(shared, log_step, key, q):
        standard = to_standard(q, mode.standard, mode.scale, mode.axes)
        curves = jax.vmap(curve_from, (0, None))(standard[:, :N_NUMBER], data.curve)
        weights = jax.vmap(weigh_bumps, (0, None, None))(standard[:, N_NUMBER:], data.log_mean, data.factor)
        drive = jax.vmap(measure_drive, (None, 0, None))(data.features, weights, data.reference)[0]
        drift = draw_drift(shared, jax.random.fold_in(key, _WALKS))

        def log_density(shared):
            terms = jax.vmap(log_likelihood, (0, 1, 0, None))(curves, data.y, drive, SHARED * shared)
            return jnp.where(data.usable.T, terms, 0).sum(0) - 0.5 * (shared - drift) ** 2

        def one(state, key):
            shared, height, taken = state
            k_step, k_accept = jax.random.split(key)
            trial = shared + jnp.exp(log_step) * jax.random.normal(k_step, shared.shape, dtype)
            trial_height = log_density(trial)
            accept = jnp.log(jax.random.uniform(k_accept, shared.shape, dtype)) < trial_height - height
            state = jnp.where(accept, trial, shared), jnp.where(accept, trial_height, height), taken + accept
            return state, None

        start = (shared, log_density(shared), jnp.zeros_like(shared))
        (shared, _, taken), _ = jax.lax.scan(one, start, jax.random.split(key, _WALKS))
        return shared, taken / _WALKS

    def step(state, inputs):
        q, shared, log_leap, log_walk = state
        key, rate = inputs
        k_walk, k_momentum, k_leap, k_accept = jax.random.split(key, 4)
        shared, walked = walk(shared, log_walk, k_walk, q)
        height, slope = evaluate(q, shared)
        momentum = jax.random.normal(k_momentum, q.shape, dtype)
        leap = (jnp.exp(log_leap) * jax.random.uniform(k_leap, (n_muscle,), dtype, 0.8, 1.2))[:, None]

        def one(_, state):
            q, momentum, slope, _ = state
            momentum = momentum - 0.5 * leap * slope
            q = q + leap * momentum
            height, slope = evaluate(q, shared)
            return q, momentum - 0.5 * leap * slope, slope, height

        trial, end, _, trial_height = jax.lax.fori_loop(0, _LEAPS, one, (q, momentum, slope, height))
        gain = height - trial_height + 0.5 * ((momentum**2).sum(1) - (end**2).sum(1))
        probability = jnp.exp(jnp.minimum(jnp.nan_to_num(gain, nan=-jnp.inf), 0))
        accept = jax.random.uniform(k_accept, (n_muscle,), dtype) < probability
        q = jnp.where(accept[:, None], trial, q)
        log_leap = log_leap + rate * (probability - 0.75)
        log_walk = log_walk + 2 * rate * (walked - 0.44)
        return (q, shared, log_leap, log_walk), probability

    def keep(state, inputs):
        state, probability = jax.lax.scan(step, state, inputs)
        return state, (to_standard(state[0], mode.standard, mode.scale, mode.axes), state[1], probability.mean(0))

    k_warmup, k_draws = jax.random.split(key)
    start = (
        jnp.zeros((n_muscle, size), dtype),
        mode.shared,
        jnp.full(n_muscle, jnp.log(1.2) - 0.25 * jnp.log(size), dtype),
        jnp.full(mode.shared.shape, jnp.log(0.6), dtype),
    )
    rates = jnp.asarray(0.3 / jnp.sqrt(1 + jnp.arange(n_warmup) / 10), dtype)
    start, _ = jax.lax.scan(step, start, (jax.random.split(k_warmup, n_warmup), rates))
    keys = jax.random.split(k_draws, n_draw * thinning).reshape(n_draw, thinning)
    _, (standard, shared, taken) = jax.lax.scan(keep, start, (keys, jnp.zeros((n_draw, thinning), dtype)))
    return Draws(standard, shared, taken.mean(0))


@partial(jax.jit, static_argnames="n_muscle")
@full_precision
def draw_prior(
    key: Key[Array, ""], features: Array, log_mean: Array, factor: Array, curve: CurvePrior, n_muscle: int
) -> tuple[Array, Array, Array]:
    """Draw a truth and its session: standard (muscle, number), shared (stimulus,), log10 MEPs (stimulus, muscle)."""
    k_standard, k_shared, k_mep = jax.random.split(key, 3)
    standard = jax.random.normal(k_standard, (n_muscle, N_NUMBER + features.shape[1]), features.dtype)
    shared = jax.random.normal(k_shared, (len(features),), features.dtype)

    def one(standard, key):
        weights = weigh_bumps(standard[N_NUMBER:], log_mean, factor)
        drive, _ = measure_drive(features, weights, features)
        return draw_response(curve_from(standard[:N_NUMBER], curve), drive, SHARED * shared, key)

    return standard, shared, jax.vmap(one)(standard, jax.random.split(k_mep, n_muscle)).T
