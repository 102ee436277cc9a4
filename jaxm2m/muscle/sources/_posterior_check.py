"""Posterior checks: would sessions of the fitted model look like the one that was measured?

Each MEP becomes a standard normal z under a draw of the posterior. "spread" is the sum of z^2, "pattern" z' K z, with K
the likeness of the stimuli's features: what of the MEPs follows the field in a way that no density and curve explains.
Both are compared with what MEPs drawn from the same draw give (A. Gelman, X.-L. Meng, H. Stern, Stat. Sinica 6, 733,
1996).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxm2m._precision import full_precision
from jaxm2m.muscle.sources._density import weigh_bumps
from jaxm2m.muscle.sources._posterior import Draws, Measured, measure_drive
from jaxm2m.muscle.sources._recruitment_curve import N_NUMBER, SHARED, curve_from, draw_response, probability_below


@jax.jit
@full_precision
def check_posterior(key: Key[Array, ""], draws: Draws, data: Measured) -> Float[Array, "muscle check"]:
    """Compute p-values (n_muscle, 2) of "spread" and "pattern": two-sided and one-sided."""
    features = data.features - data.features.mean(0)
    likeness = features @ features.T
    likeness = likeness / jnp.trace(likeness)

    def measure(curve, y, drive, shared, usable):
        edge = 1e-6
        z = jax.scipy.special.ndtri(jnp.clip(probability_below(curve, y, drive, shared), edge, 1 - edge))
        z = jnp.where(usable, z, 0)
        return jnp.stack([(z * z).sum(), z @ likeness @ z])

    def one(standard, y, usable, shared, key):
        curve = curve_from(standard[:N_NUMBER])
        drive, _ = measure_drive(data.features, weigh_bumps(standard[N_NUMBER:], data.log_mean, data.factor))
        again = draw_response(curve, drive, SHARED * shared, key)
        return jnp.stack([measure(curve, values, drive, SHARED * shared, usable) for values in (y, again)])

    def draw(inputs):
        standard, shared, key = inputs
        keys = jax.random.split(key, len(standard))
        return jax.vmap(one, (0, 1, 1, None, 0))(standard, data.y, data.usable, shared, keys)

    values = jax.lax.map(draw, (draws.standard, draws.shared, jax.random.split(key, len(draws.standard))))
    above = (values[:, :, 1] >= values[:, :, 0]).mean(0)
    # a p-value of zero would claim more than so many draws can
    above = jnp.clip(above, 0.5 / len(values), 1 - 0.5 / len(values))
    return jnp.stack([2 * jnp.minimum(above[:, 0], 1 - above[:, 0]), above[:, 1]], -1)
