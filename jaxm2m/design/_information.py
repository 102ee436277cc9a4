r"""What a stimulus is expected to tell: information about a quantity of the posterior, as an objective of the field.

About the mode of the posterior (Laplace's approximation), a muscle's log10 MEP is y = s(x)' theta + noise of variance
v(x) and the quantity that is to be known is z = J theta, theta normal with covariance C. Then

    I(x) = -1/2 log det(1 - B B'),    B = cov(z)^-1/2 J C s / sqrt(s' C s + v)

a column of B a muscle, is their mutual information (D. V. Lindley, Ann. Math. Stat. 27, 986, 1956; T. M. Cover, J. A.
Thomas, Elements of Information Theory, 2nd ed. 2006, ch. 8), where MEPs of different muscles vary alone: that they
share half of their excitability is left out. Moments of draws about the mode instead count as known what the curves
bend away, and lead to the same few poses again and again.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m.muscle import LinearPosterior

_MOST = 0.999  # of a muscle's share: more is rounding
_BATCH = 128


@tree
class Interest:
    """What is to be known, as directions in the numbers of muscles.

    Attributes
    ----------
    directions
        (n_muscle, n_quantity, n_number) cov(z)^-1/2 J C; zeros of muscles that tell nothing of it.
    joint
        Whether the quantities belong to all muscles together; else each muscle has its own.
    """

    directions: Float[Array, "muscle quantity number"]
    joint: bool


@tree
class Information:
    """Expected information, in nats; an objective for `placement.optimize`, to be raised.

    Attributes
    ----------
    posterior
        About its mode.
    interest
        What is to be known.
    didt
        dI/dt, A/s, for firing rates whose threshold needs it; else None.
    """

    posterior: LinearPosterior
    interest: Interest
    didt: Array | None

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        """Compute the information of a field (n_point, 3), V/m."""
        return expect_information(self.posterior, self.interest, self.posterior.measure(e, self.didt))


@full_precision
def expect_information(
    posterior: LinearPosterior, interest: Interest, features: Float[Array, " bump"]
) -> Float[Array, ""]:
    """Compute the information of one stimulus, nats, of the activity under each bump."""
    _, variance, slope = posterior.respond(features)
    seen = jnp.einsum("mkn,mn->mk", posterior.known, slope)
    total = (slope**2).sum(-1) - (seen**2).sum(-1) + variance
    shares = jnp.einsum("mqn,mn->mq", interest.directions, slope) / jnp.sqrt(total)[:, None]
    if interest.joint:
        return -0.5 * _log_determinant(jnp.eye(shares.shape[1], dtype=shares.dtype) - shares.T @ shares)
    return -0.5 * jnp.log1p(-jnp.minimum((shares**2).sum(-1), _MOST)).sum()


@jax.jit
def screen_information(
    posterior: LinearPosterior, interest: Interest, features: Float[Array, "n bump"]
) -> Float[Array, " n"]:
    """Compute the information of many stimuli."""
    return jax.lax.map(partial(expect_information, posterior, interest), features, batch_size=_BATCH)


def _log_determinant(matrix: Float[Array, "n n"]) -> Array:
    """Of a small matrix between 0 and 1, by elimination: LAPACK's calls for many may wait for each other for ever."""
    total = jnp.zeros((), matrix.dtype)
    while len(matrix):
        pivot = jnp.maximum(matrix[0, 0], 1 - _MOST)
        total = total + jnp.log(pivot)
        matrix = matrix[1:, 1:] - jnp.outer(matrix[1:, 0], matrix[0, 1:]) / pivot
    return total
