"""Simulation-based calibration: truths drawn from the prior must rank evenly among the draws of their posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxm2m._precision import full_precision
from jaxm2m.muscle.sources._density import Bumps, weigh_bumps
from jaxm2m.muscle.sources._drift import make_no_drift
from jaxm2m.muscle.sources._posterior import (
    Measured,
    describe_mode,
    draw_posterior,
    draw_prior,
    find_mode,
    measure_drive,
)
from jaxm2m.muscle.sources._recruitment_curve import N_NUMBER, curve_from, make_curve_prior, mean_response

_THRESHOLD = 50.0  # uV


def rank_truths(
    key: Key[Array, ""], features: Float[Array, "stimulus bump"], bumps: Bumps, n_muscle: int, n_draw: int = 100
) -> dict[str, Float[np.ndarray, " muscle"]]:
    """Draw muscles and a session from the prior, fit it, and rank the truth among the posterior's draws.

    Parameters
    ----------
    key
        All randomness follows from it.
    features
        (n_stimulus, n_bump) activity under each bump, firing rates.
    bumps
        The bumps and their prior.
    n_muscle
        Muscles of the session, which share the excitability of each stimulus.
    n_draw
        Draws of the posterior.

    Returns
    -------
    dict
        For `threshold`, `plateau`, `x`, `y` and `z` of the hot spot the share of draws below the truth, (n_muscle,),
        no unit. Over many sessions each is uniform if the posterior is right (S. Talts et al., arXiv:1804.06788).
    """
    k_truth, k_draws = jax.random.split(key)
    curve = make_curve_prior(rates=True)
    truth, _, y = draw_prior(k_truth, features, bumps.log_mean, bumps.factor, curve, n_muscle)
    data = Measured(
        y, jnp.ones(y.shape, bool), features, bumps.log_mean, bumps.factor, curve, features, make_no_drift(len(y))
    )
    mode = describe_mode(find_mode(data), data)
    draws = draw_posterior(k_draws, mode, data, n_draw, thinning=6)
    places = jnp.asarray(bumps.places, features.dtype)
    true = np.asarray(_describe(truth[None], data, places), np.float64)
    drawn = np.asarray(_describe(draws.standard, data, places), np.float64)
    below = (drawn < true).mean(0)
    return dict(zip(("threshold", "plateau", "x", "y", "z"), below.T, strict=True))


@jax.jit
@full_precision
def _describe(standard: Array, data: Measured, places: Array) -> Float[Array, "draw muscle quantity"]:
    drives = jnp.linspace(0, 3, 301, dtype=standard.dtype)

    def one(standard):
        curve = curve_from(standard[:N_NUMBER], data.curve)
        weights = weigh_bumps(standard[N_NUMBER:], data.log_mean, data.factor)
        # in drives of the density, so that curve and density are checked together
        _, size = measure_drive(data.features, weights, data.reference)
        height = jnp.log(mean_response(curve, drives))
        threshold = jnp.interp(jnp.log(_THRESHOLD), height, drives) * size
        return jnp.concatenate([jnp.stack([threshold, curve.decades]), weights @ places])

    return jax.lax.map(jax.vmap(one), standard)
