"""Line integrals of a coil's vector potential along the edges of a tetrahedral mesh, from samples on a coarse lattice.

Away from the windings A is smooth: it is sampled every 4 mm and interpolated with cubic splines at the nodes, together
with the symmetric part G of its gradient. Along an edge d from p to q the corrected trapezoidal rule,

    int A . dl = (A_p + A_q) . d / 2 + d . (G_p - G_q) d / 12 ,

is exact for cubic polynomials, so that a source that is a gradient drives next to no field.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _spline, fem
from jaxm2m import coil as coils
from jaxm2m._pytree import tree
from jaxm2m.coil import Coil

SPACING = 4.0  # mm
MARGIN = 4  # lattice nodes beyond the mesh, so that the spline's mirrored ends do not reach it
BATCH_SIZE = 1 << 14  # nodes whose 64 taps are summed at once
SYMMETRIC = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@tree
class MeshLattice:
    """Interpolation from lattice nodes to the nodes of a mesh.

    Attributes
    ----------
    filters
        For each axis (L, L): from samples to coefficients of the spline.
    index
        (n_node, 3) nodes in index coordinates of the lattice.
    affine
        (4, 4) lattice index -> mm.
    """

    filters: list[Float[Array, "L L"]]
    index: Float[Array, "node 3"]
    affine: Float[Array, "4 4"]

    def points(self) -> Float[Array, "lattice 3"]:
        """Positions of the lattice nodes, mm."""
        axes = (jnp.arange(len(m), dtype=self.affine.dtype) for m in self.filters)
        index = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        return index * self.affine[0, 0] + self.affine[:3, 3]

    def sample(self, coil: Coil, pose: Float[Array, "4 4"], didt: Any) -> Float[Array, "node 9"]:
        """Compute dA/dt at the nodes (V/m) and of its gradient's symmetric part (V/m^2), in `SYMMETRIC`'s order."""
        return self.interpolate(coils.vector_potential(coil, pose, self.points(), didt))

    def interpolate(self, a: Float[Array, "lattice 3"]) -> Float[Array, "node 9"]:
        """Interpolate a vector field given at the lattice nodes, and the symmetric part of its gradient."""
        shape = tuple(len(m) for m in self.filters)
        c = a.reshape(*shape, 3)
        for path, matrix in zip(("abcd,ia->ibcd", "abcd,jb->ajcd", "abcd,kc->abkd"), self.filters, strict=True):
            c = jnp.einsum(path, c, matrix, precision=jax.lax.Precision.HIGHEST)
        c = c.reshape(-1, 3)
        _, ny, nz = shape
        per_metre = 1e3 / self.affine[0, 0]
        taps = jnp.asarray(np.stack(np.meshgrid(*3 * [np.arange(4)], indexing="ij"), -1).reshape(-1, 3))

        @jax.checkpoint
        def block(x: Any) -> Any:
            first = jnp.floor(jax.lax.stop_gradient(x)) - 1
            weights, slopes = _weights(x - first)
            start = first.astype(jnp.int32) @ jnp.asarray([ny * nz, nz, 1], jnp.int32)

            def add(total: Any, tap: Any) -> Any:
                i, j, k = tap
                value = c[start + (i * ny + j) * nz + k]
                wx, wy, wz = weights[:, 0, i], weights[:, 1, j], weights[:, 2, k]
                gradient = jnp.stack(
                    [slopes[:, 0, i] * wy * wz, wx * slopes[:, 1, j] * wz, wx * wy * slopes[:, 2, k]], 1
                )
                gradient = gradient * per_metre
                symmetric = [(value[:, p] * gradient[:, q] + value[:, q] * gradient[:, p]) / 2 for p, q in SYMMETRIC]
                return total + jnp.concatenate([(wx * wy * wz)[:, None] * value, jnp.stack(symmetric, 1)], 1), None

            return jax.lax.scan(add, jnp.zeros((len(x), 9), c.dtype), taps)[0]

        n = len(self.index)
        padded = jnp.pad(self.index, [(0, -n % BATCH_SIZE), (0, 0)], mode="edge").reshape(
            -1, min(BATCH_SIZE, n + -n % BATCH_SIZE), 3
        )
        return jax.lax.map(block, padded).reshape(-1, 9)[:n]


def build_mesh_lattice(nodes: Float[np.ndarray, "node 3"], dtype: Any) -> MeshLattice:
    """The lattice round `nodes` (mm)."""
    low, high = nodes.min(0), nodes.max(0)
    shape = np.ceil((high - low) / SPACING).astype(int) + 1 + 2 * MARGIN
    origin = (low + high) / 2 - (shape - 1) / 2 * SPACING
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = origin
    return MeshLattice(
        [jnp.asarray(_spline.prefilter(np.eye(n), ndim=1), dtype) for n in shape],
        jnp.asarray((nodes - origin) / SPACING, dtype),
        jnp.asarray(affine, dtype),
    )


def _weights(x: Array) -> tuple[Array, Array]:
    """Cubic B-splines of the four taps and their slopes, (..., 4), at x in [1, 2] from the first."""
    t = x[..., None] - 1
    weights = jnp.concatenate([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], -1) / 6
    slopes = jnp.concatenate([-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2], -1) / 2
    return weights, slopes


def edge_integrals(
    corners: Float[Array, "element 4 3"], samples: Float[Array, "element 4 9"]
) -> Float[Array, "element 6"]:
    """Integrals of dA/dt (V) along the edges of elements, from what `MeshLattice.sample` gives at their corners (m)."""
    low, high = fem.PAIRS.T
    d = corners[:, high] - corners[:, low]
    middle = ((samples[:, low, :3] + samples[:, high, :3]) * d).sum(-1) / 2
    factors = jnp.stack([d[..., p] * d[..., q] * (1 if p == q else 2) for p, q in SYMMETRIC], -1)
    return middle + ((samples[:, low, 3:] - samples[:, high, 3:]) * factors).sum(-1) / 12
