"""Geometric multigrid on voxels: one V-cycle as a preconditioner.

Coarse conductivities are the means of their eight children (no Galerkin product: on voxel heads it converges as fast
and keeps the cheap stencil on every level), transfers are trilinear, the smoother is Chebyshev of degree 2 on the
Jacobi-scaled operator, the coarsest level is solved with its dense pseudo-inverse. The spectrum of the Jacobi-scaled
stiffness of cubes never exceeds 1.5 (element by element: the largest eigenvalue of a cube's matrix is sigma h / 2 and
its diagonal sigma h / 3), so nothing has to be estimated.

A stencil reads its neighbours, so what it is applied to has a halo of zeros. Making one costs more than a stencil
(the compiler asks for every element whether it lies in the halo), so the residual gets one that is wide enough for all
that the cycle does to it, and every stencil leaves it narrower by one.

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
HALO = 3  # of coefficients and residuals, for DEGREE 2: a stencil of the smoother, the residual, its restriction


@tree
class Level:
    coefficients: Float[Array, "cx cy cz"]  # as far as the halo
    inverse_diagonal: Float[Array, "cx+1 cy+1 cz+1"]  # zero at inactive nodes and in the halo


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


def build(
    conductivity: Float[Array, "nx ny nz"],
    h: Float[Array, ""] | float,
    coarse: Float[Array, "nx ny nz"] | None = None,
) -> Multigrid:
    """Hierarchy for scalar conductivities (S/m, zero: inactive) on a padded voxel grid; h in m.

    The finest level has `conductivity`, the others means of `coarse`, by default the same: where a tensor conducts less
    across than along, its isotropic part serves them better (15 iterations for 16 on a head of 2 mm).
    """
    coarse = conductivity if coarse is None else coarse
    if conductivity.shape != pad_shape(conductivity.shape):
        raise ValueError(
            f"conductivity: shape {conductivity.shape} cannot be halved; pad it to {pad_shape(conductivity.shape)}."
        )
    sigma, coarse = (jax.lax.stop_gradient(a).astype(jnp.float32) for a in (conductivity, coarse))
    h = jax.lax.stop_gradient(jnp.asarray(h)).astype(jnp.float32)
    levels = []
    for level in range(count_halvings(conductivity.shape) + 1):
        coefficients = stencil.scalar_coefficients(sigma, h * 2**level, HALO)
        diagonal = jnp.pad(stencil.scalar_diagonal(coefficients), 1)
        levels.append(Level(coefficients, jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)))
        nx, ny, nz = sigma.shape
        if level < count_halvings(conductivity.shape):
            coarse = coarse.reshape(nx // 2, 2, ny // 2, 2, nz // 2, 2).mean((1, 3, 5))
            sigma = coarse
    return Multigrid(levels, _pseudo_inverse(levels[-1]))


def _pseudo_inverse(level: Level) -> Float[Array, "n n"]:
    inverse_diagonal = stencil.interior(level.inverse_diagonal, HALO)
    coefficients = stencil.interior(level.coefficients, HALO - 1)
    shape = inverse_diagonal.shape
    n = int(np.prod(shape))
    basis = jnp.eye(n, dtype=coefficients.dtype).reshape(n, *shape)
    matrix = jax.lax.map(lambda u: stencil.apply_scalar(coefficients, stencil.halo(u)).ravel(), basis)
    # Jacobi scaling first: the eigenvalues then stand clear of the null space whatever the conductivities
    active = inverse_diagonal.ravel() > 0
    scale = jnp.sqrt(inverse_diagonal.ravel())
    matrix = scale[:, None] * (matrix + matrix.T) / 2 * scale[None, :]
    values, vectors = jnp.linalg.eigh(matrix)
    keep = values > 1e-5 * SPECTRUM
    inverse = (vectors * jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)) @ vectors.T
    return jnp.where(active[:, None] & active[None, :], scale[:, None] * inverse * scale[None, :], 0)


def _cycle(grid: Multigrid, level: int, b):
    if level == len(grid.levels) - 1:
        return (b.reshape(*b.shape[:-3], -1) @ grid.coarse_inverse).reshape(b.shape)
    operator = grid.levels[level]
    b = stencil.halo(b, HALO)
    x = _chebyshev(operator, None, b, HALO)  # its halo is 2 wide
    residual = stencil.interior(b, HALO - 1) - stencil.apply_scalar(_crop(operator.coefficients, 2), x)
    correction = prolong(stencil.halo(_cycle(grid, level + 1, restrict(residual))))
    # corrections beside the active nodes are dropped: prolonged values there are not zero
    x = x + jnp.where(_crop(operator.inverse_diagonal, 2) > 0, correction, 0)
    return _chebyshev(operator, x, b, 2)


def _crop(a, width: int):
    """What a level knows, with a halo of `width`."""
    return stencil.interior(a, HALO - width)


def _chebyshev(level: Level, x, b, width: int):
    """`DEGREE` Chebyshev steps on K x = b from x (None: zero), whose halo is `width`, as a three-term recurrence in x.

    Every stencil leaves the halo narrower by one. In this form each step writes one array and recomputes nothing:
    written with residuals and directions the compiler evaluates every stencil several times.
    """
    centre, radius = SPECTRUM * (1 + 1 / FRACTION) / 2, SPECTRUM * (1 - 1 / FRACTION) / 2
    ratio = centre / radius
    rho = 1 / ratio
    interior = stencil.interior

    def correct(x):
        """The scaled residual of x, with a halo narrower by one."""
        residual = _crop(b, width - 1) - stencil.apply_scalar(_crop(level.coefficients, width), x)
        return _crop(level.inverse_diagonal, width - 1) * residual

    if x is None:
        last, now = None, _crop(level.inverse_diagonal, width) * _crop(b, width) / centre
    else:
        last, now = x, interior(x) + correct(x) / centre
        width -= 1
    for _ in range(DEGREE - 1):
        rho, previous = 1 / (2 * ratio - rho), rho
        new = (1 + rho * previous) * interior(now) + (2 * rho / radius) * correct(now)
        if last is not None:
            new = new - rho * previous * interior(last, 2)
        last, now = now, new
        width -= 1
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
    """Transpose of `prolong`, of what has a halo of one.

    Along z first: the operand of a product is computed once, that of sums of slices once for each of them.
    """
    fine = fine[..., 1:-1]
    nx, ny, nz = ((n + 1) // 2 for n in (fine.shape[-3] - 2, fine.shape[-2] - 2, fine.shape[-1]))
    fine = jnp.matmul(fine, _interpolation(nz, fine.dtype).T, precision=jax.lax.Precision.HIGHEST)
    total = jnp.zeros((), fine.dtype)
    for i, j in product(range(3), repeat=2):
        weight = 0.5 ** (abs(i - 1) + abs(j - 1))
        total = total + weight * fine[..., i : i + 2 * nx - 1 : 2, j : j + 2 * ny - 1 : 2, :]
    return total
