"""The stiffness of a voxel grid."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m._tree import tree
from jaxm2m.fem import _hexahedron as hexahedron
from jaxm2m.fem import _multigrid as multigrid
from jaxm2m.fem import _stencil as stencil
from jaxm2m.fem._mixture import Mixture
from jaxm2m.fem._multigrid import Multigrid


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

    axes: ClassVar[tuple[int, ...]] = (-3, -2, -1)

    @property
    def active(self) -> Array:
        """(nx + 1, ny + 1, nz + 1) True at nodes of conducting voxels."""
        return self.preconditioner.levels[0].inverse_diagonal > 0

    def __call__(self, potential: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch nx ny nz"]:
        """K phi (A) of nodal potentials (V)."""
        haloed = stencil.halo(potential)
        if isinstance(self.coefficients, tuple):
            return stencil.tensor(self.coefficients, haloed)
        return stencil.scalar(self.coefficients, haloed)

    def exact(self, potential: Float[Array, "*batch nx ny nz"], remainder: Float[Array, "*batch nx ny nz"]):
        """K (phi + remainder) (A) from differences along the edges: rounding is relative to the field, not to phi."""
        fields = (hexahedron.gradient(u, self.h) for u in (potential, remainder))
        return self.load(jax.tree.map(jnp.add, *fields))

    def inner(
        self, a: Float[Array, "*batch nx ny nz"], b: Float[Array, "*batch nx ny nz"]
    ) -> Float[Array, "*batch 1 1 1"]:
        """The sum over the nodes of a b."""
        return jnp.einsum("...ijk,...ijk->...", a, b, precision=jax.lax.Precision.HIGHEST)[..., None, None, None]

    def centred(self, a: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch nx ny nz"]:
        """Without its mean over the active nodes, zero at the others."""
        active = self.active
        mean = jnp.where(active, a, 0).sum(self.axes, keepdims=True) / active.sum()
        return jnp.where(active, a - mean, 0)

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
