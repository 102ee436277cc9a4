"""The stiffness of a voxel grid."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxm2m._pytree import tree
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
        Of `stencil.apply_tensor` (14 arrays) or, for scalar conductivities, of `stencil.apply_scalar` (one).
    preconditioner
        Multigrid on the arithmetic conductivities, outside the derivative.
    """

    mixture: Mixture
    h: Float[Array, ""]
    coefficients: Any
    preconditioner: Multigrid

    axes: ClassVar[tuple[int, ...]] = (-3, -2, -1)

    @property
    def active(self) -> Bool[Array, "mx my mz"]:
        """Which nodes (nx + 1, ny + 1, nz + 1) belong to conducting voxels (Booleans, no unit)."""
        return stencil.interior(self.preconditioner.levels[0].inverse_diagonal, multigrid.HALO) > 0

    def __call__(self, potential: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch nx ny nz"]:
        """Compute K phi (A) of nodal potentials (V)."""
        haloed = stencil.halo(potential)
        if isinstance(self.coefficients, tuple):
            return stencil.apply_tensor(self.coefficients, haloed)
        return stencil.apply_scalar(self.coefficients, haloed)

    def exact(
        self, potential: Float[Array, "*batch nx ny nz"], remainder: Float[Array, "*batch nx ny nz"]
    ) -> Float[Array, "*batch nx ny nz"]:
        """Compute K (phi + remainder) from differences of neighbours: rounding is relative to the field, not to phi.

        Parameters
        ----------
        potential, remainder
            (..., nx, ny, nz) V at the nodes.

        Returns
        -------
        (..., nx, ny, nz) array
            A.
        """
        parts = stencil.halo(potential), stencil.halo(remainder)
        if isinstance(self.coefficients, tuple):
            return stencil.tensor_differences(self.coefficients, parts)
        return stencil.scalar_differences(self.coefficients, parts)

    def inner(
        self, a: Float[Array, "*batch nx ny nz"], b: Float[Array, "*batch nx ny nz"]
    ) -> Float[Array, "*batch 1 1 1"]:
        """Compute the inner product over the nodes.

        Parameters
        ----------
        a, b
            (..., nx, ny, nz) at the nodes, in any unit.

        Returns
        -------
        (..., 1, 1, 1) array
            The sum of a b, in the product of their units.
        """
        return _sum(a * b)

    def remove_mean(self, a: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch nx ny nz"]:
        """Remove the mean over the active nodes.

        Parameters
        ----------
        a
            (..., nx, ny, nz) at the nodes, in any unit.

        Returns
        -------
        (..., nx, ny, nz) array
            In the same unit; zero at inactive nodes.
        """
        active = self.active
        mean = _sum(jnp.where(active, a, 0)) / active.sum()
        return jnp.where(active, a - mean, 0)

    def load_vector(self, edges: hexahedron.Edges) -> Float[Array, "*batch nx ny nz"]:
        """Compute the load vector int S e . grad N_i of a field e.

        Parameters
        ----------
        edges
            Averages of the field along the edges, V/m.

        Returns
        -------
        (..., nx, ny, nz) array
            A, at the nodes.
        """
        return hexahedron.load_vector(self.mixture.tensor(), edges, self.h)


def assemble_stiffness(mixture: Mixture, h: Float[Array, ""] | float, scalar: bool = False) -> Stiffness:
    """Assemble the stiffness of a voxel grid.

    Parameters
    ----------
    mixture
        Conductivities (S/m) of a grid whose shape is a bucket of `pad_shape`; zero in inactive voxels.
    h
        Edge of a voxel, m.
    scalar
        True where every voxel is isotropic: the cheaper stencil is kept. It cannot be read off traced values.

    Returns
    -------
    Stiffness
        The matrix, S, as a stencil, with its multigrid.
    """
    h = jnp.asarray(h, mixture.arithmetic.dtype)
    if scalar:
        coefficients: Any = stencil.scalar_coefficients(mixture.arithmetic, h)
    else:
        coefficients = stencil.tensor_coefficients(mixture.tensor(), h)
    isotropic = (2 * mixture.arithmetic + mixture.across) / 3
    return Stiffness(mixture, h, coefficients, multigrid.build(mixture.arithmetic, h, isotropic))


def _sum(a: Float[Array, "*batch nx ny nz"]) -> Float[Array, "*batch 1 1 1"]:
    """The sum over the nodes, by products with ones: they run on all cores where a sum runs on one."""
    planes = a.reshape(*a.shape[:-2], -1)
    # one product for each member of a batch: rows of a common one round by their place in it
    ones = jnp.ones((*a.shape[:-3], planes.shape[-1], 1), a.dtype)
    return jnp.matmul(planes, ones, precision=jax.lax.Precision.HIGHEST).sum(-2, keepdims=True)[..., None]
