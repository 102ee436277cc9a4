"""Excitability that drifts over a session: the slow part of what all muscles share."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.distance import cdist

_LENGTH = 50.0  # stimuli over which excitability changes: some minutes
_SIZE = 1.0  # of the drift, in standard deviations of what varies from one stimulus to the next
_LEAST = 1e-2  # of the variance of a stimulus, that a component must add somewhere


def make_drift(n_stimulus: int) -> Float[Array, "stimulus component"]:
    """Components of a drift, orthogonal: it is their sum, each times a standard normal number."""
    when = np.arange(n_stimulus)[:, None]
    variance, axes = np.linalg.eigh(_SIZE**2 * np.exp(-0.5 * (cdist(when, when) / _LENGTH) ** 2))
    components = axes * np.sqrt(np.maximum(variance, 0))
    usable = (components**2).max(0) > _LEAST
    return jnp.asarray(components[:, usable][:, ::-1], jnp.result_type(float))


def make_no_drift(n_stimulus: int) -> Float[Array, "stimulus component"]:
    """No component."""
    return jnp.zeros((n_stimulus, 0), jnp.result_type(float))
