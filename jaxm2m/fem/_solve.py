"""The differentiable inverse of a stiffness."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m.fem._conjugate_gradient import CONVERGED, Stats, conjugate_gradient

MAX_ITERATIONS = 200


@runtime_checkable
class Matrix(Protocol):
    """A symmetric positive semidefinite matrix whose null space are the constants; a pytree.

    Its class attribute `axes` holds the axes of an array of unknowns; the other axes are right-hand sides.
    """

    axes: ClassVar[tuple[int, ...]]

    @property
    def preconditioner(self) -> Any:
        """An approximate inverse: a callable on residuals, or None."""

    def __call__(self, potential: Float[Array, "..."], /) -> Float[Array, "..."]:
        """Compute the product with a vector of unknowns."""
        ...

    def exact(self, potential: Float[Array, "..."], remainder: Float[Array, "..."], /) -> Float[Array, "..."]:
        """Compute the product with a sum of two vectors, rounded relative to differences of neighbours.

        Parameters
        ----------
        potential, remainder
            Unknowns, (...) V; the vector is their sum.

        Returns
        -------
        (...) array
            A.
        """
        ...

    def inner(self, a: Float[Array, "..."], b: Float[Array, "..."], /) -> Float[Array, "..."]:
        """Compute the inner product over the unknowns.

        Parameters
        ----------
        a, b
            Vectors of unknowns, (...) in any unit.

        Returns
        -------
        (...) array
            The sum of a b, in any unit; the unknowns' axes are kept at length 1.
        """
        ...

    def remove_mean(self, a: Float[Array, "..."], /) -> Float[Array, "..."]:
        """Remove the mean over the unknowns that count.

        Parameters
        ----------
        a
            Vector of unknowns, (...) in any unit.

        Returns
        -------
        (...) array
            In the same unit; zero at unknowns that do not count.
        """
        ...


def solve(
    matrix: Matrix,
    b: Float[Array, "..."],
    tolerance: Float[Array, ""] | float | None = None,
    max_iterations: int = MAX_ITERATIONS,
    poison: bool = True,
) -> tuple[Float[Array, "..."], Float[Array, "..."], Stats]:
    """Solve K phi = b with zero mean of phi over the active nodes (the pure Neumann problem's gauge).

    One forward solve; a cotangent costs one more (K is symmetric), a tangent one more. The load's mean over the active
    nodes, which no potential can balance, is removed.

    Parameters
    ----------
    matrix
        Of `assemble_stiffness` or `assemble_mesh_stiffness`; derivatives with respect to it are those of its
        coefficients, not of its preconditioner.
    b
        (...) nodal loads, A; axes that are not the matrix's own are right-hand sides.
    tolerance
        Largest ||b - K phi|| / ||b|| (no unit); by default 1e-5 in float32 and 1e-10 in float64.
    max_iterations
        Number of conjugate-gradient iterations at most, for each right-hand side.
    poison
        Fill what did not converge with NaN, in the adjoint solves too.

    Returns
    -------
    phi
        (...) V.
    remainder
        (...) V, what rounding leaves out of phi: it matters only to residuals and to fields of fine float32 grids, and
        its cotangents are dropped.
    stats
        `Stats`, with the residual recomputed from phi + remainder.
    """
    if tolerance is None:
        tolerance = 1e-5 if b.dtype == jnp.float32 else 1e-10
    frozen = jax.tree.map(jax.lax.stop_gradient, matrix)

    def inverse(_, both):
        rhs = both[0]
        # squares of small loads, those of adjoint solves above all, underflow in float32; a power of two costs no bit
        _, exponent = jnp.frexp(jnp.max(jnp.abs(rhs), axis=matrix.axes, keepdims=True))
        scale = jnp.ldexp(jnp.ones((), rhs.dtype), jnp.clip(exponent, -120, 120))
        x, remainder, stats = conjugate_gradient(
            frozen,
            frozen.exact,
            frozen.preconditioner,
            frozen.remove_mean,
            frozen.inner,
            rhs / scale,
            tolerance,
            max_iterations,
        )
        x, remainder = x * scale, remainder * scale
        if poison:
            x = jnp.where(stats.status == CONVERGED, x, jnp.nan)
        return jnp.stack([x, remainder]), jax.tree.map(lambda a: a.squeeze(matrix.axes), stats)

    def forward(both):
        return jnp.stack([matrix(both[0]), both[1]])

    # the remainder is part of the unknown, not an auxiliary output: jax.jacfwd fails on those (jax 0.10)
    rhs = jnp.stack([matrix.remove_mean(b), jnp.zeros_like(b)])
    both, stats = jax.lax.custom_linear_solve(forward, rhs, inverse, symmetric=True, has_aux=True)
    phi, remainder = both
    return matrix.remove_mean(phi), remainder, stats
