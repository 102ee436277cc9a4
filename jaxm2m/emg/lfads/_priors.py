"""What the latent variables are before any data: Kullback-Leibler divergences from it."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

_LOG_2PI = math.log(2 * math.pi)


def gaussian_kl(
    mean: Float[Array, "batch n"], variance: Float[Array, "batch n"], prior_mean: Float[Array, " n"], prior: float
) -> Float[Array, " batch"]:
    """Compute KL(N(mean, variance) || N(prior_mean, prior)), summed over dimensions.

    Parameters
    ----------
    mean, variance
        Of the posterior.
    prior_mean, prior
        Mean and variance of the prior.
    """
    ratio = variance / prior
    return 0.5 * (ratio - 1 - jnp.log(ratio) + (mean - prior_mean) ** 2 / prior).sum(-1)


def gaussian_log(
    sample: Float[Array, "*shape"], mean: Float[Array, "*#shape"] | float, log_variance: Float[Array, "*#shape"]
) -> Float[Array, "*shape"]:
    """Compute log N(sample; mean, exp(log_variance))."""
    return -0.5 * (_LOG_2PI + log_variance + (sample - mean) ** 2 * jnp.exp(-log_variance))


def autoregressive_log(
    sample: Float[Array, "time batch n"], log_tau: Float[Array, " n"], log_variance: Float[Array, " n"]
) -> Float[Array, " batch"]:
    """Compute the log-probability of a first-order autoregressive process, summed over time and dimensions.

    In each dimension u_t = alpha u_{t-1} + noise, alpha = exp(-1/tau); the first step is drawn from where the process
    rests, N(0, variance / (1 - alpha^2)).

    Parameters
    ----------
    sample
        u.
    log_tau, log_variance
        Logarithms of the time constant in bins, and of the variance of the noise.
    """
    rate = jnp.exp(-log_tau)
    alpha = jnp.exp(-rate)
    # 1 - alpha^2 = -expm1(-2/tau), without cancellation for slow processes
    rest = log_variance - jnp.log(-jnp.expm1(-2 * rate))
    first = gaussian_log(sample[0], 0.0, rest)
    later = gaussian_log(sample[1:], alpha * sample[:-1], log_variance)
    return first.sum(-1) + later.sum((0, 2))
