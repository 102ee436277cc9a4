"""The Bayesian filter of rectified EMG, for a whole grid of hyperparameters at once."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._types import ArrayLike


def bayes_grid() -> tuple[Float[np.ndarray, " 44"], Float[np.ndarray, " 44"]]:
    """Return the source's grid of 44 hyperparameter pairs.

    Returns
    -------
    alpha : array
        Diffusion, (44,): 1e-1 to 1e-4, units of the signal squared per second.
    beta : array
        Jump rate, (44,): 1 to 1e-10, 1/s.
    """
    alpha, beta = np.meshgrid(10.0 ** -np.arange(1, 5), 10.0 ** -np.arange(11), indexing="ij")
    return alpha.ravel(), beta.ravel()


def bayes(
    x: Float[Any, "*batch n_time n_channel"],
    sfreq: float | int = 500.0,
    alpha: ArrayLike = 1e-2,
    beta: ArrayLike = 1e-4,
    *,
    likelihood: str = "gaussian",
    estimate: str = "argmax",
    sigma_max: float | int = 2.0,
    bins: int = 100,
) -> Float[Array, "*grid_batch n_time n_channel"]:
    """Filter rectified EMG by Bayes' rule, with a latent amplitude that diffuses and jumps.

    The EMG is e(t), its latent amplitude sigma. On bins sigma_j = j d, j = 1 ... `bins`, d = `sigma_max` / `bins`, p
    starts uniform and every dt = 1/sfreq,

        p_j <- p_j + dt alpha (p_{j-1} - 2 p_j + p_{j+1}) / d^2 + dt beta (1 - p_j)     (edges replicated)
        p_j <- p_j sigma_j^-1 exp(-e^2 / (2 sigma_j^2))    or, Laplace,    p_j sigma_j^-1 exp(-e / sigma_j)
        p   <- p / sum p

    Parameters
    ----------
    x
        Rectified EMG e, (..., n_time, n_channel), normalised so that `sigma_max` is well above its typical size; each
        batch item by itself.
    sfreq
        Sampling rate, Hz.
    alpha, beta
        Diffusion, in units of the signal squared per second, and jump rate, 1/s: numbers, or arrays of one shape
        (`bayes_grid`). The source's best: 1e-2 and 1e-4 (rat), 1e-2 and 1e-2 (monkey).
    likelihood
        "gaussian" or "laplace".
    estimate
        "argmax" (the likeliest bin; the smallest of equals) or "mean". The source does not say which it took.
    sigma_max
        The largest amplitude, in the unit of `x`.
    bins
        Number of bins up to it.

    Returns
    -------
    array
        The amplitude sigma, (*grid, ..., n_time, n_channel), in the unit of `x`; grid is the shape of `alpha` and
        `beta`.

    Raises
    ------
    ValueError
        Negative or NaN values; dt alpha / d^2 above 1/2, or dt beta above 1, where the propagation is not stable: at
        500 Hz, 2 and 100 bins, alpha above 0.1.

    Notes
    -----
    T. D. Sanger, Bayesian filtering of myoelectric signals, J. Neurophysiol. 97, 1839 (2007); D. Hofmann, N. Jiang, I.
    Vujaklija, D. Farina, Bayesian filtering of surface EMG for accurate simultaneous and proportional prosthetic
    control, IEEE Trans. Neural Syst. Rehabil. Eng. 24, 1333 (2016).
    """
    x = _check.positive(x, "x", zero=True)
    if x.ndim < 2:
        raise ValueError(f"x: shape {x.shape}; the last two axes must be time and channel.")
    _check.option(likelihood, ("gaussian", "laplace"), "likelihood")
    _check.option(estimate, ("argmax", "mean"), "estimate")
    _check.integer(bins, "bins", minimum=2)
    d = float(_check.positive(sigma_max, "sigma_max")) / bins
    dt = 1 / float(_check.positive(sfreq, "sfreq"))
    alpha, beta = np.broadcast_arrays(
        np.asarray(_check.positive(alpha, "alpha", zero=True), np.float64),
        np.asarray(_check.positive(beta, "beta", zero=True), np.float64),
    )
    limit = d * d / (2 * dt)
    if alpha.max(initial=0) > limit * (1 + 1e-9):
        raise ValueError(
            f"alpha: {alpha.max():g} is over the stability limit d^2 / (2 dt) = {limit:.4g} of {bins} bins up to "
            f"{sigma_max:g} at {1 / dt:g} Hz; lower it, or take fewer bins."
        )
    if beta.max(initial=0) * dt > 1:
        raise ValueError(f"beta: {beta.max():g} jumps a second at {1 / dt:g} Hz; it must be at most {1 / dt:g}.")
    dtype = jnp.result_type(float)
    # lanes: every hyperparameter pair and every signal, filtered alike
    signals = jnp.moveaxis(jnp.asarray(x, dtype), -2, 0)
    result = _filter(
        signals.reshape(signals.shape[0], -1),
        jnp.asarray(dt * alpha.ravel() / d**2, dtype),
        jnp.asarray(dt * beta.ravel(), dtype),
        jnp.asarray(d * np.arange(1, bins + 1), dtype),
        likelihood,
        estimate,
    )
    result = result.reshape(signals.shape[0], *alpha.shape, *signals.shape[1:])
    return jnp.moveaxis(result, 0, -2)


@partial(jax.jit, static_argnames=("likelihood", "estimate"))
def _filter(x, diffusion, jump, sigma, likelihood, estimate):
    """(n_time, n_pair, n_signal) of x (n_time, n_signal)."""
    # bins lead, so that sums over them run along the vectors of the processor
    column = sigma[:, None]

    def step(p, e):
        # p (bins, pair, signal)
        edged = jnp.concatenate([p[:1], p, p[-1:]])
        p = p + diffusion[:, None] * (edged[:-2] - 2 * p + edged[2:]) + jump[:, None] * (1 - p)
        exponent = -e / column if likelihood == "laplace" else -0.5 * (e / column) ** 2
        # a factor common to all bins falls out with the sum; without it, large spikes would leave no bin above zero
        p = p * (jnp.exp(exponent - exponent[-1]) / column)[:, None, :]
        p = p / p.sum(0)
        if estimate == "mean":
            return p, (sigma[:, None, None] * p).sum(0)
        # argmax as two plain reductions, which compile to vector code
        return p, jnp.where(p == p.max(0), sigma[:, None, None], sigma[-1]).min(0)

    start = jnp.full((sigma.size, diffusion.size, x.shape[1]), 1 / sigma.size, x.dtype)
    return jax.lax.scan(step, start, x)[1]
