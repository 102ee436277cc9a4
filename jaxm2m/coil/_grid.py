"""A vector potential sampled on a regular grid, as a cubic spline."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy import ndimage

from jaxm2m import _linear, _spline
from jaxm2m._pytree import tree
from jaxm2m._types import DTypeLike


@tree
class PotentialGrid:
    """A(x) as a tensor-product cubic B-spline (twice continuously differentiable inside the grid).

    Outside the grid, at distance d from its nearest point q,  A(x) = A(q) / (1 + d^2 / L^2)^(3/2)  with L half of the
    grid's diagonal: continuous with its first derivative, and decaying, but no longer a solution of Maxwell's
    equations. A grid should reach round the whole head.

    Attributes
    ----------
    coefficients
        (nx, ny, nz, 3) spline coefficients, T m per A, components along the coil's axes.
    affine
        (4, 4) voxel index -> mm in the coil's frame; any invertible one.
    stimulator
        Index of the stimulator whose current drives it.
    """

    coefficients: Float[Array, "nx ny nz 3"]
    affine: Float[Array, "4 4"]
    stimulator: int = 0

    def potential(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Compute A at a chunk of points.

        Parameters
        ----------
        points
            (n, 3) mm in the coil's frame.

        Returns
        -------
        (n, 3) array
            A, T m per A.
        """
        size = np.array(self.coefficients.shape[:3]) - 1
        last = jnp.asarray(size, points.dtype)
        index = (points - self.affine[:3, 3]) @ _linear.inverse(self.affine[:3, :3]).T
        inside = jnp.clip(index, 0, last)
        reach = jnp.sum((self.affine[:3, :3] @ last / 2) ** 2)
        away = jnp.sum(((index - inside) @ self.affine[:3, :3].T) ** 2, axis=-1, keepdims=True)
        return _spline.evaluate(self.coefficients, inside) / (1 + away / reach) ** 1.5

    def potential_and_jacobian(self, points: Float[Array, "n 3"]) -> tuple[Float[Array, "n 3"], Float[Array, "n 3 3"]]:
        """Compute A and its Jacobian at a chunk of points.

        Parameters
        ----------
        points
            (n, 3) mm in the coil's frame.

        Returns
        -------
        potential
            (n, 3) A, T m per A.
        jacobian
            (n, 3, 3) J[..., a, b] = dA_a / dx_b, T m per A per mm.
        """
        a, tangent = jax.linearize(self.potential, points)
        return a, jax.vmap(lambda e: tangent(jnp.broadcast_to(e, points.shape)), out_axes=-1)(
            jnp.eye(3, dtype=points.dtype)
        )


def quasi_interpolate(
    values: np.ndarray, affine: np.ndarray, stimulator: int = 0, dtype: DTypeLike | None = None
) -> PotentialGrid:
    """`PotentialGrid` close to samples, by the local cubic quasi-interpolant c = f - d2(f)/6, d2 the second difference.

    It reproduces cubics, so its error is of the order of interpolation's, O(h^4), but a node reaches only three nodes
    far. Exact interpolation rings through the whole grid from nodes in the windings, where A has poles: on an unclamped
    2 mm grid of a figure-8 coil B is then off by 0.38 % at 3.7 mm from the casing instead of 0.036 %, on a 4 mm grid by
    3.9 instead of 0.5 %; at 41 mm all are below 0.01 %, where exact interpolation would be the closer one.
    Source: C. de Boor, A Practical Guide to Splines, ch. XII (quasi-interpolants).

    Parameters
    ----------
    values
        (nx, ny, nz, 3) A at the nodes, T m per A; mirrored about the faces of the grid.
    affine
        (4, 4) voxel index -> mm.
    """
    dtype = dtype or jnp.result_type(float)
    coefficients = np.asarray(values, np.float64)
    if min(coefficients.shape[:3]) < 4:
        raise ValueError(f"values: a grid of {coefficients.shape[:3]} nodes; a cubic spline needs 4 along each axis.")
    for axis in range(3):
        coefficients = ndimage.correlate1d(coefficients, [-1 / 6, 4 / 3, -1 / 6], axis=axis, mode="mirror")
    return PotentialGrid(jnp.asarray(coefficients, dtype), jnp.asarray(affine, dtype), stimulator)
