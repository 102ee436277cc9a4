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

    Attributes
    ----------
    axes
        Of an array of unknowns; its other axes are right-hand sides.
    preconditioner
        An approximate inverse.
    """

    axes: ClassVar[tuple[int, ...]]

    @property
    def preconditioner(self) -> Any: ...

    def __call__(self, potential: Any, /) -> Any:
        """The product."""

    def exact(self, potential: Any, remainder: Any, /) -> Any:
        """The product with a sum of two, rounded relative to differences of neighbours."""

    def inner(self, a: Any, b: Any, /) -> Any:
        """The inner product over the unknowns, which keeps their axes at length 1."""

    def centred(self, a: Any, /) -> Any:
        """Without its mean over the unknowns that count; zero at the others."""


def solve(
    matrix: Matrix,
    b: Float[Array, "..."],
    tolerance: Float[Array, ""] | float | None = None,
    max_iterations: int = MAX_ITERATIONS,
    poison: bool = True,
) -> tuple[Float[Array, "..."], Float[Array, "..."], Stats]:
    """phi with K phi = b and zero mean over the active nodes (the pure Neumann problem's gauge).

    One forward solve; a cotangent costs one more (K is symmetric), a tangent one more. The load's mean over the active
    nodes, which no potential can balance, is removed.

    Parameters
    ----------
    matrix
        Of `stiffness` or `mesh_stiffness`; derivatives with respect to it are those of its coefficients, not of its
        preconditioner.
    b
        Nodal loads, A; axes that are not the matrix's own are right-hand sides.
    tolerance
        On ||b - K phi|| / ||b||; by default 1e-5 in float32 and 1e-10 in float64.
    max_iterations
        Of the conjugate gradients, for each right-hand side.
    poison
        Fill what did not converge with NaN, in the adjoint solves too.

    Returns
    -------
    phi in V; a remainder that rounding leaves out of phi (it matters only to residuals and to fields of fine float32
    grids, and its cotangents are dropped); and `Stats`, with the residual recomputed from phi + remainder.
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
            frozen.centred,
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
    rhs = jnp.stack([matrix.centred(b), jnp.zeros_like(b)])
    both, stats = jax.lax.custom_linear_solve(forward, rhs, inverse, symmetric=True, has_aux=True)
    phi, remainder = both
    return matrix.centred(phi), remainder, stats
