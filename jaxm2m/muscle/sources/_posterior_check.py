"""Posterior checks: would sessions of the fitted model look like the one that was measured?

Each MEP becomes a standard normal z under a draw of the posterior. "spread" is the sum of z^2. "curve" is what of z,
and of z^2 - 1, goes along with the drive: its squared projections on polynomials of the drive's rank. "pattern" is
z' K z, with K the likeness of the stimuli's features: what of the MEPs follows the field in a way that no density and
curve explains. All are compared with what MEPs drawn from the same draw give (A. Gelman, X.-L. Meng, H. Stern, Stat.
Sinica 6, 733, 1996), for each muscle and for their sum: muscles that all deviate a little are a model that is wrong.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxm2m._precision import full_precision
from jaxm2m.muscle.sources._density import weigh_bumps
from jaxm2m.muscle.sources._posterior import Draws, Measured, measure_drive
from jaxm2m.muscle.sources._recruitment_curve import N_NUMBER, SHARED, curve_from, draw_response, probability_below

CHECKS = ("spread", "curve", "pattern")
_EDGE = 1e-6  # of probabilities: beyond, a single MEP would decide


@jax.jit
@full_precision
def check_posterior(key: Key[Array, ""], draws: Draws, data: Measured) -> Float[Array, "muscles check"]:
    """Compute p-values (n_muscle + 1, 3) of `CHECKS`, the last row of all muscles together; "spread" is two-sided."""
    features = data.features - data.features.mean(0)
    likeness = features @ features.T
    likeness = likeness / jnp.trace(likeness)

    def measure(curve, y, drive, shared, usable):
        z = jax.scipy.special.ndtri(jnp.clip(probability_below(curve, y, drive, shared), _EDGE, 1 - _EDGE))
        z = jnp.where(usable, z, 0)
        along = _polynomials(drive, usable)
        squared = jnp.where(usable, (z * z - 1) / jnp.sqrt(2.0), 0)
        # the mean of z^2 is the spread's
        follows = ((along @ z) ** 2).sum() + ((along[1:] @ squared) ** 2).sum()
        return jnp.stack([(z * z).sum(), follows, z @ likeness @ z])

    def one(standard, y, usable, shared, key):
        curve = curve_from(standard[:N_NUMBER], data.curve)
        weights = weigh_bumps(standard[N_NUMBER:], data.log_mean, data.factor)
        drive, _ = measure_drive(data.features, weights, data.reference)
        again = draw_response(curve, drive, SHARED * shared, key)
        return jnp.stack([measure(curve, values, drive, SHARED * shared, usable) for values in (y, again)])

    def draw(inputs):
        standard, shared, key = inputs
        keys = jax.random.split(key, len(standard))
        return jax.vmap(one, (0, 1, 1, None, 0))(standard, data.y, data.usable, shared, keys)

    values = jax.lax.map(draw, (draws.standard, draws.shared, jax.random.split(key, len(draws.standard))))
    # each muscle counts by what is usual for it
    usual = values[:, :, 1].mean(0)
    pooled = (values / jnp.maximum(usual, jnp.finfo(values.dtype).tiny)[None, :, None]).sum(1, keepdims=True)
    values = jnp.concatenate([values, pooled], 1)
    above = (values[:, :, 1] >= values[:, :, 0]).mean(0)
    # a p-value of zero would claim more than so many draws can
    above = jnp.clip(above, 0.5 / len(values), 1 - 0.5 / len(values))
    return above.at[:, 0].set(2 * jnp.minimum(above[:, 0], 1 - above[:, 0]))


def _polynomials(drive: Array, usable: Array) -> Float[Array, "degree stimulus"]:
    """Legendre polynomials of degrees 0 to 4 of the drive's rank among the usable, of norm one."""
    last = jnp.where(usable, drive, jnp.inf)
    count = jnp.maximum(usable.sum(), 1)
    t = (2 * jnp.argsort(jnp.argsort(last)) + 1) / count - 1
    t = jnp.where(usable, t, 0).astype(drive.dtype)
    rows = [
        jnp.ones_like(t),
        t,
        (3 * t**2 - 1) / 2,
        (5 * t**3 - 3 * t) / 2,
        (35 * t**4 - 30 * t**2 + 3) / 8,
    ]
    size = jnp.sqrt((2 * jnp.arange(len(rows)) + 1) / count).astype(drive.dtype)
    return jnp.where(usable, jnp.stack(rows) * size[:, None], 0)
