r"""Cubic B-spline interpolation on a regular grid, twice continuously differentiable, in JAX.

Along one axis, with \(\beta\) the centred cubic B-spline and \(c\) the coefficients,

    f(x) = sum_k c_k beta(x - k),      k = -inf ... inf,   c mirrored about its first and last entry,

which interpolates the grid's values when `prefilter` made `c`. In three dimensions the product is taken.
Source: M. Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Process. Mag. 16(6), 1999.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage


def prefilter(values: np.ndarray, ndim: int = 3) -> np.ndarray:
    """Compute the coefficients of the interpolating cubic B-spline.

    Parameters
    ----------
    values
        Samples on a regular grid in the first `ndim` axes; further axes are components.
    ndim
        Number of grid axes.

    Returns
    -------
    array
        Coefficients of the same shape and floating dtype (float64 for integers); the recursion runs in float64.
    """
    values = np.asarray(values)
    if values.ndim < ndim:
        raise ValueError(f"values: found {values.ndim} axes; a grid of {ndim} axes is needed.")
    out = values.astype(np.float64)
    for axis in range(ndim):
        if out.shape[axis] > 1:
            ndimage.spline_filter1d(out, order=3, axis=axis, mode="mirror", output=out)
    return out.astype(values.dtype if np.issubdtype(values.dtype, np.floating) else np.float64)


def evaluate(
    coefficients: Float[Array, "nx ny nz *component"] | Float[np.ndarray, "nx ny nz *component"],
    index_coordinates: Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"],
) -> Float[Array, "..."]:
    """Evaluate the spline at points given in index coordinates.

    Parameters
    ----------
    coefficients
        (nx, ny, nz, ...) from `prefilter`; at least four entries along every grid axis.
    index_coordinates
        (..., 3) points, (0, 0, 0) being the centre of the first sample. A point outside takes the value of the nearest
        point of the grid's edge (so that the function is continuous, and its derivative across the edge is zero beyond
        it).

    Returns
    -------
    array
        Values (*point, *component); differentiable twice in the coordinates and linear in the coefficients. NaN where
        a coordinate is NaN.

    Raises
    ------
    ValueError
        Fewer than four entries along an axis, or coordinates that are not triples.
    """
    c = jnp.asarray(coefficients)
    x = jnp.asarray(index_coordinates)
    if c.ndim < 3 or min(c.shape[:3]) < 4:
        raise ValueError(
            f"coefficients: found a grid of {c.shape[:3]}; at least 4 entries along each of 3 axes are needed."
        )
    if x.shape[-1:] != (3,):
        raise ValueError(f"index_coordinates: found shape {x.shape}; (..., 3) is needed.")
    n, component = c.shape[:3], c.shape[3:]
    flat = x.reshape(-1, 3)
    start, weight = [], []
    for axis in range(3):
        xa = jnp.clip(flat[:, axis], 0, n[axis] - 1)
        # the four taps are moved inwards at the edges and the mirrored ones folded onto them, so that a block of
        # 4 x 4 x 4 neighbours in memory always holds all that a point needs
        first = jnp.clip(jnp.floor(jax.lax.stop_gradient(xa)) - 1, 0, n[axis] - 4)
        start.append(first.astype(jnp.int32))
        weight.append(_weights(xa, first, n[axis]))

    def block(i, j, k):
        return jax.lax.dynamic_slice(c, (i, j, k, *[jnp.int32(0)] * len(component)), (4, 4, 4, *component))

    taps = jax.vmap(block)(*start)
    # full precision: GPUs would else multiply in TF32
    value = jnp.einsum("pijk...,pi,pj,pk->p...", taps, *weight, precision=jax.lax.Precision.HIGHEST)
    return value.reshape(x.shape[:-1] + component)


def _weights(x: Array, first: Array, n: int) -> Array:
    """Weights (..., 4) of the taps `first` ... `first + 3`, images in the mirrors at 0 and n - 1 included."""
    tap = first[..., None] + jnp.arange(4, dtype=x.dtype)
    x = x[..., None]
    low = jnp.where(tap > 0, _bspline(x + tap), 0)
    high = jnp.where(tap < n - 1, _bspline(x - (2 * (n - 1) - tap)), 0)
    return _bspline(x - tap) + low + high


def _bspline(d: Array) -> Array:
    a = jnp.abs(d)
    return jnp.where(a < 1, 2 / 3 - a * a * (1 - a / 2), jnp.maximum(2 - a, 0) ** 3 / 6)
