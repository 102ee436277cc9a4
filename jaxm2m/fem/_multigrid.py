"""Geometric multigrid on voxels: one V-cycle as a preconditioner.

Coarse conductivities are the means of their eight children (no Galerkin product: on voxel heads it converges as fast
and keeps the cheap stencil on every level), transfers are trilinear, the smoother is Chebyshev of degree 2 on the
Jacobi-scaled operator, the coarsest level is solved with its dense pseudo-inverse. The spectrum of the Jacobi-scaled
stiffness of cubes never exceeds 1.5 (element by element: the largest eigenvalue of a cube's matrix is sigma h / 2 and
its diagonal sigma h / 3), so nothing has to be estimated.

The cycle runs in float32 also for a float64 solve: it costs half and a preconditioner need not be exact.
"""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m._pytree import tree
from jaxm2m.fem import _stencil as stencil

DEGREE = 2
SPECTRUM = 1.5
FRACTION = 5.0  # the smoother works on [SPECTRUM / FRACTION, SPECTRUM]
COARSEST = 8  # voxels a side, at most, on the coarsest level


@tree
class Level:
    coefficients: Float[Array, "nx+2 ny+2 nz+2"]
    inverse_diagonal: Float[Array, "nx+1 ny+1 nz+1"]  # zero at inactive nodes


@tree
class Multigrid:
    """Hierarchy of scalar stencils and the dense pseudo-inverse of the coarsest one.

    Called with a residual, it applies one V-cycle: an approximate inverse of the stiffness.

    Attributes
    ----------
    levels
        From the finest to the coarsest, each a stencil and the inverse of its diagonal.
    coarse_inverse
        (n, n) pseudo-inverse of the coarsest stencil.
    """

    levels: list[Level]
    coarse_inverse: Float[Array, "n n"]

    def __call__(self, residual: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch nx ny nz"]:
        return _cycle(self, 0, residual.astype(self.coarse_inverse.dtype)).astype(residual.dtype)


def count_halvings(shape: tuple[int, ...]) -> int:
    """How many times a grid of `shape` voxels is halved."""
    return max(0, int(np.ceil(np.log2(max(shape) / COARSEST))))


def pad_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Round a voxel shape up to a bucket, whose sides can be halved down to the coarsest level.

    Parameters
    ----------
    shape
        Number of voxels along each axis.

    Returns
    -------
    tuple of int
        The same or a little more.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> jm.fem.pad_shape((91, 109, 91))
    (96, 112, 96)
    """
    block = 2 ** count_halvings(shape)
    return tuple(-(-n // block) * block for n in shape)


def build(conductivity: Float[Array, "nx ny nz"], h: Float[Array, ""] | float) -> Multigrid:
    """Hierarchy for scalar conductivities (S/m, zero: inactive) on a padded voxel grid; h in m."""
    if conductivity.shape != pad_shape(conductivity.shape):
        raise ValueError(
            f"conductivity: shape {conductivity.shape} cannot be halved; pad it to {pad_shape(conductivity.shape)}."
        )
    sigma = jax.lax.stop_gradient(conductivity).astype(jnp.float32)
    h = jax.lax.stop_gradient(jnp.asarray(h)).astype(jnp.float32)
    levels = []
    for level in range(count_halvings(conductivity.shape) + 1):
        coefficients = stencil.scalar_coefficients(sigma, h * 2**level)
        diagonal = stencil.scalar_diagonal(coefficients)
        levels.append(Level(coefficients, jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)))
        nx, ny, nz = sigma.shape
        if level < count_halvings(conductivity.shape):
            sigma = sigma.reshape(nx // 2, 2, ny // 2, 2, nz // 2, 2).mean((1, 3, 5))
    return Multigrid(levels, _pseudo_inverse(levels[-1]))


def _pseudo_inverse(level: Level) -> Float[Array, "n n"]:
    shape = level.inverse_diagonal.shape
    n = int(np.prod(shape))
    basis = jnp.eye(n, dtype=level.coefficients.dtype).reshape(n, *shape)
    matrix = jax.lax.map(lambda u: stencil.apply_scalar(level.coefficients, stencil.halo(u)).ravel(), basis)
    # Jacobi scaling first: the eigenvalues then stand clear of the null space whatever the conductivities
    active = level.inverse_diagonal.ravel() > 0
    scale = jnp.sqrt(level.inverse_diagonal.ravel())
    matrix = scale[:, None] * (matrix + matrix.T) / 2 * scale[None, :]
    values, vectors = jnp.linalg.eigh(matrix)
    keep = values > 1e-5 * SPECTRUM
    inverse = (vectors * jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)) @ vectors.T
    return jnp.where(active[:, None] & active[None, :], scale[:, None] * inverse * scale[None, :], 0)


def _cycle(grid: Multigrid, level: int, b):
    if level == len(grid.levels) - 1:
        return (b.reshape(*b.shape[:-3], -1) @ grid.coarse_inverse).reshape(b.shape)
    operator = grid.levels[level]
    x = _chebyshev(operator, None, b)
    residual = b - stencil.apply_scalar(operator.coefficients, x)
    correction = prolong(_cycle(grid, level + 1, restrict(residual)))
    # corrections beside the active nodes are dropped: prolonged values there are not zero
    x = stencil.halo(stencil.interior(x) + jnp.where(operator.inverse_diagonal > 0, correction, 0))
    return stencil.interior(_chebyshev(operator, x, b))


def _chebyshev(level: Level, x, b):
    """`DEGREE` Chebyshev steps on K x = b from the haloed x (None: zero), as a three-term recurrence in x.

    In this form each step writes one array (x with its halo) and recomputes nothing: written with residuals and
    directions the compiler evaluates every stencil several times.
    """
    centre, radius = SPECTRUM * (1 + 1 / FRACTION) / 2, SPECTRUM * (1 - 1 / FRACTION) / 2
    ratio = centre / radius
    rho = 1 / ratio
    scale = level.inverse_diagonal
    interior, halo = stencil.interior, stencil.halo
    if x is None:
        last, now = None, halo(scale * b / centre)
    else:
        last, now = x, halo(interior(x) + scale * (b - stencil.apply_scalar(level.coefficients, x)) / centre)
    for _ in range(DEGREE - 1):
        rho, previous = 1 / (2 * ratio - rho), rho
        new = (1 + rho * previous) * interior(now)
        new = new + (2 * rho / radius) * scale * (b - stencil.apply_scalar(level.coefficients, now))
        if last is not None:
            new = new - rho * previous * interior(last)
        last, now = now, halo(new)
    return now


def _interpolation(n: int, dtype) -> np.ndarray:
    """Linear interpolation from n nodes to 2 n - 1, as a matrix."""
    matrix = np.zeros((n, 2 * n - 1), dtype)
    matrix[np.arange(n), 2 * np.arange(n)] = 1
    odd = np.arange(n - 1)
    matrix[odd, 2 * odd + 1] = matrix[odd + 1, 2 * odd + 1] = 0.5
    return matrix


def prolong(coarse: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch mx my mz"]:
    """Trilinear interpolation from nodes 0, 2, 4... to all nodes.

    Along z by a small matrix product: it costs no more than shifted additions, and the compiler neither fuses it nor
    computes its operand twice.
    """
    coarse = jnp.matmul(coarse, _interpolation(coarse.shape[-1], coarse.dtype), precision=jax.lax.Precision.HIGHEST)
    for axis in (coarse.ndim - 2, coarse.ndim - 3):
        n = coarse.shape[axis]
        low = jax.lax.slice_in_dim(coarse, 0, n - 1, axis=axis)
        high = jax.lax.slice_in_dim(coarse, 1, n, axis=axis)
        pairs = jnp.stack([low, (low + high) / 2], axis=axis + 1)
        pairs = pairs.reshape(*coarse.shape[:axis], 2 * (n - 1), *coarse.shape[axis + 1 :])
        coarse = jnp.concatenate([pairs, jax.lax.slice_in_dim(coarse, n - 1, n, axis=axis)], axis=axis)
    return coarse


def restrict(fine: Float[Array, "*batch mx my mz"]) -> Float[Array, "*batch nx ny nz"]:
    """Transpose of `prolong`."""
    nx, ny, nz = ((n + 1) // 2 for n in fine.shape[-3:])
    border = jnp.pad(fine, [(0, 0)] * (fine.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    total = jnp.zeros((), fine.dtype)
    for i, j in product(range(3), repeat=2):
        weight = 0.5 ** (abs(i - 1) + abs(j - 1))
        total = total + weight * border[..., i : i + 2 * nx - 1 : 2, j : j + 2 * ny - 1 : 2, :]
    return jnp.matmul(total, _interpolation(nz, fine.dtype).T, precision=jax.lax.Precision.HIGHEST)
