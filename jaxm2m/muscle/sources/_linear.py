"""The posterior of a session as a normal distribution about its mode, in which log MEPs are linear."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m.muscle.sources._activity import Activity
from jaxm2m.muscle.sources._density import weigh_bumps
from jaxm2m.muscle.sources._posterior import Measured, measure_drive, measure_scores
from jaxm2m.muscle.sources._recruitment_curve import N_NUMBER, CurvePrior, curve_from, log_moments


class LinearResponse(NamedTuple):
    """What a stimulus is expected to give.

    Attributes
    ----------
    mean, variance
        (..., n_muscle) of log10 MEPs (uV) at the mode, over everything that varies between stimuli.
    slope
        (..., n_muscle, n_number) derivatives of the mean in the numbers of each muscle.
    """

    mean: Float[Array, "*batch muscle"]
    variance: Float[Array, "*batch muscle"]
    slope: Float[Array, "*batch muscle number"]


@tree
class LinearPosterior:
    """The posterior of a session as normal about its mode; a pytree, made by `SourceTracker.linearise`.

    Numbers of a muscle are those of its curve, then those of its density, standard normal under the prior.

    Attributes
    ----------
    curves
        (n_muscle, 7) numbers of the curves at the mode.
    weights
        (n_muscle, n_bump) weights of the bumps there.
    size
        (n_muscle,) what drives are divided by.
    growth
        (n_muscle, n_bump) derivatives of the logarithm of `size`.
    known
        (n_muscle, capacity, n_number) K, of which the covariance of the numbers is I - K' K.
    factor
        (n_bump, n_bump) of the prior of the densities.
    prior
        Of the curves.
    places
        (n_bump, 3) mm, the bumps' centroids.
    kernel, activity
        As in `Sources`.
    """

    curves: Float[Array, "muscle 7"]
    weights: Float[Array, "muscle bump"]
    size: Float[Array, " muscle"]
    growth: Float[Array, "muscle bump"]
    known: Float[Array, "muscle capacity number"]
    factor: Float[Array, "bump bump"]
    prior: CurvePrior
    places: Float[Array, "bump 3"]
    kernel: Float[Array, "bump grey"]
    activity: Activity

    @full_precision
    def measure(self, e: Float[Array, "point 3"], didt: Array | None = None) -> Float[Array, " bump"]:
        """Compute the activity under each bump in a field.

        Parameters
        ----------
        e
            (n_point, 3) V/m at the points of the map.
        didt
            dI/dt, A/s, for firing rates whose threshold needs it.

        Returns
        -------
        array
            (n_bump,) rates, or shares of the largest field.
        """
        return self.kernel @ self.activity(e, didt)

    @full_precision
    def respond(self, features: Float[Array, "*batch bump"]) -> LinearResponse:
        """Compute what stimuli are expected to give.

        Parameters
        ----------
        features
            (..., n_bump) as `measure` gives them: rates, or shares of the largest field.

        Returns
        -------
        LinearResponse
            Moments of log10 MEPs (uV), and how these depend on what is not known.
        """

        def one(curve, weights, size, growth):
            drive = features @ weights / size
            mean, variance, by_drive, by_curve = _describe_curve(curve, drive, self.prior)
            away = (features / size - drive[..., None]) * weights
            by_bumps = away @ self.factor - drive[..., None] * growth
            return mean, variance, jnp.concatenate([by_curve, by_drive[..., None] * by_bumps], -1)

        mean, variance, slope = jax.vmap(one, out_axes=(-1, -1, -2))(self.curves, self.weights, self.size, self.growth)
        return LinearResponse(mean, variance, slope)

    def centroid_slopes(self) -> Float[np.ndarray, "muscle 3 number"]:
        """Compute the derivatives of the densities' centroids.

        Returns
        -------
        array
            (n_muscle, 3, n_number) mm.
        """
        weights, places = (np.asarray(a, np.float64) for a in (self.weights, self.places))
        away = (places - (weights @ places)[:, None]) * weights[..., None]
        by_bumps = np.einsum("mbi,bn->min", away, np.asarray(self.factor, np.float64))
        return np.concatenate([np.zeros((*by_bumps.shape[:2], N_NUMBER)), by_bumps], -1)

    def spread(
        self, slopes: Float[np.ndarray, "muscle quantity number"]
    ) -> Float[np.ndarray, "muscle quantity number"]:
        """Multiply derivatives of quantities by the covariance of the numbers.

        Parameters
        ----------
        slopes
            (n_muscle, n_quantity, n_number) derivatives of quantities, such as mm.

        Returns
        -------
        array
            (n_muscle, n_quantity, n_number) their covariances with the numbers, in the same unit.
        """
        known = np.asarray(self.known, np.float64)
        return slopes - (slopes @ known.swapaxes(1, 2)) @ known


def linearise(
    standard: Array, shared: Array, data: Measured, count: int, places: Array, kernel: Array, activity: Activity
) -> LinearPosterior:
    """Make the posterior of `count` stimuli linear about a mode."""
    scores = np.asarray(measure_scores(standard, shared, data), np.float64)
    known = np.zeros_like(scores)
    for m, rows in enumerate(scores[:, :count]):
        # by NumPy: LAPACK's calls for many muscles in one of JAX's programs may wait for each other for ever
        lower = np.linalg.cholesky(np.eye(count) + rows @ rows.T)
        known[m, :count] = np.linalg.solve(lower, rows)
    weights, size, growth = _describe_densities(standard, data)
    return LinearPosterior(
        standard[:, :N_NUMBER], weights, size, growth, jnp.asarray(known, standard.dtype), data.factor, data.curve,
        places, kernel, activity,
    )  # fmt: skip


@jax.jit
@full_precision
def _describe_densities(standard: Array, data: Measured) -> tuple[Array, Array, Array]:
    def one(numbers):
        def log_size(numbers):
            weights = weigh_bumps(numbers, data.log_mean, data.factor)
            _, size = measure_drive(data.reference[:1], weights, data.reference)
            return jnp.log(size), weights

        (size, weights), growth = jax.value_and_grad(log_size, has_aux=True)(numbers)
        return weights, jnp.exp(size), growth

    return jax.vmap(one)(standard[:, N_NUMBER:])


def _describe_curve(numbers: Array, drive: Array, prior: CurvePrior) -> tuple[Array, Array, Array, Array]:
    """Mean and variance of log10 MEPs of drives, and derivatives of the mean in drive and numbers."""

    def mean(numbers, drive):
        value, variance = log_moments(curve_from(numbers, prior), drive)
        return value, (value, variance)

    def one(drive):
        (by_curve, by_drive), (value, variance) = jax.jacfwd(mean, (0, 1), has_aux=True)(numbers, drive)
        return value, variance, by_drive, by_curve

    value, variance, by_drive, by_curve = jax.vmap(one)(drive.reshape(-1))
    return *(a.reshape(drive.shape) for a in (value, variance, by_drive)), by_curve.reshape(*drive.shape, N_NUMBER)
