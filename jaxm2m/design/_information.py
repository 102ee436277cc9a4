r"""What a stimulus is expected to tell: information about a quantity of the posterior, as an objective of the field.

For a muscle with log10 MEP y = mu_k(x) + noise of variance s_k^2(x) under draw k of the posterior, and a quantity z_k
that is to be known,

    I(x) = -1/2 log(1 - R^2),    R^2 = cov(z, mu) cov(z)^-1 cov(mu, z) / (var(mu) + mean s^2)

which is the mutual information where all are jointly normal (D. V. Lindley, Ann. Math. Stat. 27, 986, 1956; T. M.
Cover, J. A. Thomas, Elements of Information Theory, 2nd ed. 2006, ch. 8). Moments come from the draws. Muscles add up:
that they share half of their excitability is left out.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m.muscle import Sources

_MOST = 0.999  # of R^2: more is chance among the draws
_TINY = 1e-12  # of a variance: a quantity that all draws agree on


@tree
class Information:
    """Expected information, in nats; an objective for `placement.optimize`, to be raised.

    Attributes
    ----------
    sources
        Draws of the posterior.
    interest
        (n_draw, n_muscle, n) what is to be known by each muscle's MEPs, of mean zero and covariance one over the draws.
    didt
        dI/dt, A/s, for firing rates whose threshold needs it; else None.
    """

    sources: Sources
    interest: Float[Array, "draw muscle number"]
    didt: Array | None

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        """Compute the information of a field (n_point, 3), V/m."""
        return expect_information(*self.sources.log_moments(e, didt=self.didt), self.interest)


@full_precision
def expect_information(
    mean: Float[Array, "draw muscle"], variance: Float[Array, "draw muscle"], interest: Float[Array, "draw muscle n"]
) -> Float[Array, ""]:
    """Compute the information of one stimulus, nats, from moments of log10 MEPs under each draw."""
    away = mean - mean.mean(0)
    total = (away**2).mean(0) + variance.mean(0)
    shared = jnp.einsum("dm,dmn->mn", away, interest) / len(mean)
    explained = (shared**2).sum(-1) / total
    return -0.5 * jnp.log1p(-jnp.minimum(explained, _MOST)).sum()


@partial(jax.jit, static_argnames="batch_size")
def screen_information(
    mean: Float[Array, "n draw muscle"],
    variance: Float[Array, "n draw muscle"],
    interest: Float[Array, "draw muscle number"],
    batch_size: int = 64,
) -> Float[Array, " n"]:
    """Compute the information of many stimuli."""

    def one(moments):
        return expect_information(moments[0], moments[1], interest)

    return jax.lax.map(one, (mean, variance), batch_size=batch_size)


def whiten(quantity: Float[np.ndarray, "draw *muscle number"]) -> Float[np.ndarray, "draw *muscle number"]:
    """Return a quantity with mean zero and covariance one over the draws; what does not vary becomes zero."""
    values = np.moveaxis(np.asarray(quantity, np.float64), 0, -2)  # (..., draw, number)
    away = values - values.mean(-2, keepdims=True)
    # by NumPy: in one of JAX's programs LAPACK's calls for many muscles may wait for each other for ever
    left, size, right = np.linalg.svd(away, full_matrices=False)
    known = size > np.sqrt(_TINY) * max(1.0, float(np.abs(values).max(initial=0)))
    scores = np.sqrt(values.shape[-2]) * left * known[..., None, :]
    return np.moveaxis(scores @ right, -2, 0)
