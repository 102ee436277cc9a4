r"""The prior of a muscle's density over grey matter: non-negative, smooth, and near the other muscles'.

    w(p) = sum_b m_b k_b(p),    m = softmax(-|c_b - centre|^2 / (2 reach^2) + z),
    z ~ N(0, spread^2 exp(-d^2 / (2 l^2)))

k_b are Gaussians of `width` about the places c_b of a lattice, each over grey matter only and summing to 1, so that w
does too; d the distances between them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from jaxm2m import _check

_NOTHING = -1e4  # log of a weight that is zero to all digits


@dataclass(frozen=True)
class DensityPrior:
    """What is believed of a muscle's density over cortex before its MEPs are seen.

    Attributes
    ----------
    width
        Standard deviation of the bumps that a density is made of, and their distance, mm.
    correlation
        Distance over which neighbouring bumps have like weights, mm.
    spread
        Standard deviation of the logarithm of a bump's weight, no unit.
    reach
        How far from the muscles' common centre, mm: a standard deviation.

    Raises
    ------
    ValueError
        Numbers that are not above zero.
    """

    width: float = 5.0
    correlation: float = 8.0
    spread: float = 1.6
    reach: float = 9.0

    def __post_init__(self):
        for name in ("width", "correlation", "spread", "reach"):
            _check.positive(getattr(self, name), name)


class Bumps(NamedTuple):
    """The bumps of a density over grey points, and the prior of their weights.

    Attributes
    ----------
    kernel
        (n_bump, n_grey) rows sum to 1.
    places
        (n_bump, 3) their centroids, mm.
    log_mean
        (n_bump,) logarithm of the weights, up to a constant, where z is zero.
    factor
        (n_bump, n_bump) z = factor @ standard normal.
    """

    kernel: Float[np.ndarray, "bump grey"]
    places: Float[np.ndarray, "bump 3"]
    log_mean: Array
    factor: Array


def make_bumps(
    points: Float[np.ndarray, "grey 3"], centre: np.ndarray, prior: DensityPrior, step: float = 1.0
) -> Bumps:
    """Lay bumps over the grey points within three reaches of the centre, `step` widths apart."""
    width = float(prior.width)
    axes = [np.arange(low, high + width, step * width) for low, high in zip(points.min(0), points.max(0), strict=True)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    lattice = lattice[np.linalg.norm(lattice - centre, axis=1) <= 3 * prior.reach + width]
    # those in grey matter first: distances of the whole lattice to the points of a fine grid would take gigabytes
    near = cKDTree(points).query(lattice)[0] < 0.6 * step * width if len(lattice) else np.zeros(0, bool)
    if not near.any():
        raise ValueError(
            f"grid: no grey matter within {3 * prior.reach:g} mm of ({', '.join(f'{x:.0f}' for x in centre)}) mm, "
            "where the muscles' sources are looked for; pass `centre=`, or a grid round the hot spot."
        )
    kernel = np.exp(-0.5 * (cdist(lattice[near], points) / width) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    places = kernel @ points
    log_mean = -0.5 * ((places - centre) ** 2).sum(1) / prior.reach**2
    covariance = np.exp(-0.5 * (cdist(places, places) / prior.correlation) ** 2)
    # a smooth kernel is singular to all digits
    factor = prior.spread * np.linalg.cholesky(covariance + 1e-4 * np.eye(len(places)))
    dtype = jnp.result_type(float)
    return Bumps(kernel, places, jnp.asarray(log_mean, dtype), jnp.asarray(factor, dtype))


def pad_bumps(bumps: Bumps, count: int) -> Bumps:
    """Add bumps without weight, so that fits with other centres share their programs."""
    more = count - len(bumps.kernel)
    return Bumps(
        np.pad(bumps.kernel, ((0, more), (0, 0))),
        np.pad(bumps.places, ((0, more), (0, 0))),
        jnp.pad(bumps.log_mean, (0, more), constant_values=_NOTHING),
        jnp.pad(bumps.factor, ((0, more), (0, more))),
    )


def weigh_bumps(standard: Float[Array, " bump"], log_mean: Array, factor: Array) -> Float[Array, " bump"]:
    """Weights of the bumps, which sum to 1, of numbers that are standard normal under the prior."""
    return jax.nn.softmax(log_mean + factor @ standard)
