"""Edge averages of a coil's vector potential, from samples on a coarse lattice.

Away from the windings A is smooth, so it is sampled every 4 mm and interpolated with cubic splines, as one small matrix
along each axis. The averages along the edges are integrals of the splines, not samples: the discrete source then has
the circulation that A has, and a source that is a gradient drives no field. With a tabulated Magstim coil 4 mm over the
scalp the median error of A in the brain is 5e-6 and the largest 2e-4 (1e-3 in the scalp under the coil).
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import make_interp_spline

from jaxm2m import coil as coils
from jaxm2m._pytree import tree
from jaxm2m.coil import Coil
from jaxm2m.fem import Edges

SPACING = 4.0  # mm, about
MARGIN = 1  # lattice nodes beyond the grid, where the spline's ends are worst


@tree
class VoxelLattice:
    """Interpolation from lattice nodes to the nodes and edges of a grid.

    Attributes
    ----------
    nodes
        For each axis (n + 1, L): values at the grid's nodes.
    edges
        For each axis (n, L): averages along the grid's edges.
    affine
        (4, 4) lattice index -> mm.
    """

    nodes: list[Float[Array, "n L"]]
    edges: list[Float[Array, "m L"]]
    affine: Float[Array, "4 4"]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(m.shape[1] for m in self.nodes)

    def points(self) -> Float[Array, "L 3"]:
        """Positions of the lattice nodes, mm."""
        axes = (jnp.arange(n, dtype=self.affine.dtype) for n in self.shape)
        index = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def edge_averages(self, coil: Coil, pose: Float[Array, "4 4"], didt: Any) -> Edges:
        """Average dA/dt (V/m) along the edges of the grid, in its own axes."""
        a = coils.vector_potential(coil, pose, self.points(), didt)
        return self.interpolate(a)

    def interpolate(self, a: Float[Array, "L 3"]) -> Edges:
        """Average along the edges a vector field given at the lattice nodes in world axes."""
        spacing = jnp.linalg.norm(self.affine[:3, 0])
        a = (a @ (self.affine[:3, :3] / spacing)).reshape(*self.shape, 3)
        matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        components = []
        for axis in range(3):
            x, y, z = (self.edges[i] if i == axis else self.nodes[i] for i in range(3))
            # products of matrices as they lie in memory: nothing is transposed, the last and largest result least
            c = matmul(y, matmul(a[..., axis], z.T))
            components.append(matmul(x, c.reshape(len(c), -1)).reshape(len(x), *c.shape[1:]))
        return Edges(*components)


def build_lattice(shape: tuple[int, int, int], node_affine: np.ndarray, dtype: Any) -> VoxelLattice:
    """Build the lattice of a grid of `shape` voxels whose node (i, j, k) is at node_affine @ (i, j, k, 1) (mm)."""
    spacing = float(np.linalg.norm(node_affine[:3, 0]))
    every = max(1, round(SPACING / spacing))
    matrices = [_axis_matrices(n, every) for n in shape]
    affine = np.array(node_affine, np.float64)
    affine[:3, :3] *= every
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, MARGIN)
    return VoxelLattice(
        [jnp.asarray(m, dtype) for m, _ in matrices],
        [jnp.asarray(m, dtype) for _, m in matrices],
        jnp.asarray(affine, dtype),
    )


@lru_cache(maxsize=32)
def _axis_matrices(n: int, every: int) -> tuple[np.ndarray, np.ndarray]:
    count = max(-(-n // every) + 1 + 2 * MARGIN, 4)
    spline = make_interp_spline(every * (np.arange(count) - MARGIN), np.eye(count), k=3)
    x = np.arange(n + 1)
    return spline(x), np.diff(spline.antiderivative()(x), axis=0)
