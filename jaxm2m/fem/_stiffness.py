"""The stiffness of a voxel grid and its differentiable inverse."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m._tree import tree
from jaxm2m.fem import _hexahedron as hexahedron
from jaxm2m.fem import _multigrid as multigrid
from jaxm2m.fem import _stencil as stencil
from jaxm2m.fem._conjugate_gradient import CONVERGED, Stats, conjugate_gradient
from jaxm2m.fem._mixture import Mixture
from jaxm2m.fem._multigrid import Multigrid

MAX_ITERATIONS = 200


@tree
class Stiffness:
    """K of trilinear elements on a padded voxel grid, with the multigrid that preconditions it.

    Attributes
    ----------
    mixture
        Conductivities of the voxels (S/m), zero where there is air.
    h
        Edge of a voxel, m.
    coefficients
        Of `stencil.tensor` (14 arrays) or, for scalar conductivities, of `stencil.scalar` (one).
    preconditioner
        Multigrid on the arithmetic conductivities, outside the derivative.
    """

    mixture: Mixture
    h: Float[Array, ""]
    coefficients: Any
    preconditioner: Multigrid

    @property
    def active(self) -> Array:
        """(nx + 1, ny + 1, nz + 1) True at nodes of conducting voxels."""
        return self.preconditioner.levels[0].inverse_diagonal > 0

    def __call__(self, potential: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch nx ny nz"]:
        """K phi (A) of nodal potentials (V)."""
        apply = stencil.tensor if isinstance(self.coefficients, tuple) else stencil.scalar
        return apply(self.coefficients, stencil.halo(potential))

    def exact(self, potential: Float[Array, "*batch nx ny nz"], remainder: Float[Array, "*batch nx ny nz"]):
        """K (phi + remainder) (A) from differences along the edges: rounding is relative to the field, not to phi."""
        fields = (hexahedron.gradient(u, self.h) for u in (potential, remainder))
        return self.load(jax.tree.map(jnp.add, *fields))

    def load(self, edges: hexahedron.Edges) -> Float[Array, "*batch nx ny nz"]:
        """Nodal load int S e . grad N_i (A) of a field given by its averages along the edges (V/m)."""
        return hexahedron.load(self.mixture.tensor(), edges, self.h)


def stiffness(mixture: Mixture, h: Float[Array, ""] | float, scalar: bool = False) -> Stiffness:
    """Assemble the stiffness of a voxel grid.

    Parameters
    ----------
    mixture
        Conductivities (S/m) of a grid whose shape is a bucket of `padded`; zero in inactive voxels.
    h
        Edge of a voxel, m.
    scalar
        True where every voxel is isotropic: the cheaper stencil is kept. It cannot be read off traced values.
    """
    h = jnp.asarray(h, mixture.arithmetic.dtype)
    if scalar:
        coefficients: Any = stencil.scalar_coefficients(mixture.arithmetic, h)
    else:
        coefficients = stencil.tensor_coefficients(mixture.tensor(), h)
    return Stiffness(mixture, h, coefficients, multigrid.build(mixture.arithmetic, h))


def solve(
    matrix: Stiffness,
    b: Float[Array, "*batch nx ny nz"],
    tolerance: Float[Array, ""] | float | None = None,
    max_iterations: int = MAX_ITERATIONS,
    poison: bool = True,
) -> tuple[Float[Array, "*batch nx ny nz"], Float[Array, "*batch nx ny nz"], Stats]:
    """phi with K phi = b and zero mean over the active nodes (the pure Neumann problem's gauge).

    One forward solve; a cotangent costs one more (K is symmetric), a tangent one more. The load's mean over the active
    nodes, which no potential can balance, is removed.

    Parameters
    ----------
    matrix
        Of `stiffness`; derivatives with respect to it are those of its coefficients, not of its preconditioner.
    b
        Nodal loads, A; leading axes are right-hand sides.
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
    active = matrix.active
    count = active.sum()

    def centred(a):
        mean = jnp.where(active, a, 0).sum((-3, -2, -1), keepdims=True) / count
        return jnp.where(active, a - mean, 0)

    frozen = jax.tree.map(jax.lax.stop_gradient, matrix)

    def inverse(_, both):
        rhs = both[0]
        # squares of small loads, those of adjoint solves above all, underflow in float32; a power of two costs no bit
        _, exponent = jnp.frexp(jnp.max(jnp.abs(rhs), axis=(-3, -2, -1), keepdims=True))
        scale = jnp.ldexp(jnp.ones((), rhs.dtype), jnp.clip(exponent, -120, 120))
        x, remainder, stats = conjugate_gradient(
            frozen, frozen.exact, frozen.preconditioner, centred, rhs / scale, tolerance, max_iterations
        )
        x, remainder = x * scale, remainder * scale
        if poison:
            x = jnp.where((stats.status == CONVERGED)[..., None, None, None], x, jnp.nan)
        return jnp.stack([x, remainder]), stats

    def forward(both):
        return jnp.stack([matrix(both[0]), both[1]])

    # the remainder is part of the unknown, not an auxiliary output: jax.jacfwd fails on those (jax 0.10)
    rhs = jnp.stack([centred(b), jnp.zeros_like(b)])
    both, stats = jax.lax.custom_linear_solve(forward, rhs, inverse, symmetric=True, has_aux=True)
    phi, remainder = both
    return centred(phi), remainder, stats
