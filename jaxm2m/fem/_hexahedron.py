"""The trilinear cube and its edges.

Potentials live on nodes, fields on edges (lowest-order Whitney elements), voxels between them:

    e = D phi         differences along edges / h: (D phi)_x is bilinear in y, z
    b = D' M e        load of the flux S e, integrated exactly: b_i = int S e . grad N_i
    K = D' M D        the stiffness

Because the gradient of a trilinear potential is exactly a Whitney field, a source that is itself a gradient leaves no
field behind (up to the accuracy of its edge averages): the discretisation is gauge invariant.

On a cube the Walsh functions 1, x, y, z, xy, xz, yz, xyz (coordinates -1..1) diagonalise M but for the off-diagonal
terms of S; everything below is written in their coefficients. Arrays are (..., nx, ny, nz) voxels and
(..., nx + 1, ny + 1, nz + 1) nodes; an edge array is as long as the voxels along its own axis, as the nodes along the
others. Leading axes are batch axes. Units: h in m, S in S/m, e in V/m, potentials in V, loads in A.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped


class Edges(NamedTuple):
    """Averages of a vector field's tangential component along the grid's edges (V/m).

    Attributes
    ----------
    x, y, z
        (..., nx, ny + 1, nz + 1), (..., nx + 1, ny, nz + 1) and (..., nx + 1, ny + 1, nz) of the edges along each axis.
    """

    x: Float[Array, "*batch nx ny+1 nz+1"]
    y: Float[Array, "*batch nx+1 ny nz+1"]
    z: Float[Array, "*batch nx+1 ny+1 nz"]


def _halves(a, axis):
    n = a.shape[axis]
    return jax.lax.slice_in_dim(a, 0, n - 1, axis=axis), jax.lax.slice_in_dim(a, 1, n, axis=axis)


def _sum(a, axis):
    low, high = _halves(a, axis)
    return high + low


def _difference(a, axis):
    low, high = _halves(a, axis)
    return high - low


def _sum_t(a, axis):
    """Transpose of `_sum`: from voxels to nodes along one axis."""
    pad = [(0, 0)] * a.ndim
    pad[axis] = (1, 1)
    return _sum(jnp.pad(a, pad), axis)


def _difference_t(a, axis):
    pad = [(0, 0)] * a.ndim
    pad[axis] = (1, 1)
    return -_difference(jnp.pad(a, pad), axis)


def gradient(potential: Float[Array, "*batch nx ny nz"], h: Float[Array, ""] | float) -> Edges:
    """Compute the gradient of a nodal potential along the edges.

    Parameters
    ----------
    potential
        (..., nx, ny, nz) V at the nodes.
    h
        Edge of a voxel, m.

    Returns
    -------
    Edges
        V/m.
    """
    return Edges(*(_difference(potential, axis) / h for axis in (-3, -2, -1)))


def at_centres(edges: Edges) -> Float[Array, "*batch nx ny nz 3"]:
    """Evaluate an edge field at the voxels' centres.

    Parameters
    ----------
    edges
        V/m.

    Returns
    -------
    (..., nx, ny, nz, 3) array
        V/m, in the axes of the grid.
    """
    x, y, z = edges
    return jnp.stack(
        [_sum(_sum(x, -2), -1) / 4, _sum(_sum(y, -3), -1) / 4, _sum(_sum(z, -3), -2) / 4],
        axis=-1,
    )


def load_vector(
    tensor: tuple[Array, ...], edges: Edges, h: Float[Array, ""] | float
) -> Float[Array, "*batch nx ny nz"]:
    """Compute the load vector int S e . grad N_i of an edge field e by exact integration.

    Parameters
    ----------
    tensor
        Sxx, Syy, Szz, Sxy, Sxz, Syz of the voxels, (nx, ny, nz) S/m each.
    edges
        The field, V/m.
    h
        Edge of a voxel, m.

    Returns
    -------
    (..., nx + 1, ny + 1, nz + 1) array
        A, at the nodes.
    """
    xx, yy, zz, xy, xz, yz = tensor
    i, j, k = -3, -2, -1
    ex, ey, ez = edges
    # Walsh coefficients: of the x component over (1, y, z, yz), and so on (times 4)
    s, d = _sum(ex, j), _difference(ex, j)
    x1, x_z, x_y, x_yz = _sum(s, k), _difference(s, k), _sum(d, k), _difference(d, k)
    s, d = _sum(ey, i), _difference(ey, i)
    y1, y_z, y_x, y_xz = _sum(s, k), _difference(s, k), _sum(d, k), _difference(d, k)
    s, d = _sum(ez, i), _difference(ez, i)
    z1, z_y, z_x, z_xy = _sum(s, j), _difference(s, j), _sum(d, j), _difference(d, j)
    # moments of the flux against the gradients of the seven modes
    r_x = xx * x1 + xy * y1 + xz * z1
    r_y = xy * x1 + yy * y1 + yz * z1
    r_z = xz * x1 + yz * y1 + zz * z1
    r_xy = (xx * x_y + xz * z_y + yy * y_x + yz * z_x) / 3
    r_xz = (xx * x_z + xy * y_z + zz * z_x + yz * y_x) / 3
    r_yz = (yy * y_z + xy * x_z + zz * z_y + xz * x_y) / 3
    r_xyz = (xx * x_yz + yy * y_xz + zz * z_xy) / 9
    # back to the nodes: the transposed Walsh transform, one axis at a time
    a_0 = _difference_t(r_z, k)
    a_x = _sum_t(r_x, k) + _difference_t(r_xz, k)
    a_y = _sum_t(r_y, k) + _difference_t(r_yz, k)
    a_xy = _sum_t(r_xy, k) + _difference_t(r_xyz, k)
    b_0 = _sum_t(a_0, j) + _difference_t(a_y, j)
    b_x = _sum_t(a_x, j) + _difference_t(a_xy, j)
    return (_sum_t(b_0, i) + _difference_t(b_x, i)) * (h * h / 16)


def apply(
    tensor: tuple[Array, ...], potential: Float[Array, "*batch nx ny nz"], h: Float[Array, ""] | float
) -> Float[Array, "*batch nx ny nz"]:
    """Compute K phi = D' M D phi without a stored matrix.

    Parameters
    ----------
    tensor
        Sxx, Syy, Szz, Sxy, Sxz, Syz of the voxels, S/m.
    potential
        (..., nx, ny, nz) V at the nodes.
    h
        Edge of a voxel, m.

    Returns
    -------
    (..., nx, ny, nz) array
        A, at the nodes.
    """
    return load_vector(tensor, gradient(potential, h), h)


def active_nodes(active: Shaped[Array, "nx ny nz"]) -> Bool[Array, "nx+1 ny+1 nz+1"]:
    """Find the nodes of the active voxels.

    Parameters
    ----------
    active
        (nx, ny, nz) which voxels are active (not zero; no unit).

    Returns
    -------
    (nx + 1, ny + 1, nz + 1) Booleans
        True at the nodes of at least one active voxel (no unit).
    """
    touched = active.astype(jnp.float32)
    for axis in range(3):
        touched = _sum_t(touched, axis)
    return touched > 0


def corner_nodes(active: np.ndarray) -> Int[np.ndarray, "element 8"]:
    """List the nodes at the corners of the active voxels of a grid.

    Parameters
    ----------
    active
        (nx, ny, nz) which voxels are active (not zero; no unit).

    Returns
    -------
    (n_active, 8) integers
        Flat indices of the grid's (nx + 1, ny + 1, nz + 1) nodes, the corners of a voxel in the order of
        `itertools.product((0, 1), repeat=3)`, that of `stencil.element_stiffness`.
    """
    nodes = np.arange(np.prod([n + 1 for n in active.shape])).reshape([n + 1 for n in active.shape])
    i, j, k = np.nonzero(active)
    return np.stack([nodes[i + a, j + b, k + c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], axis=1)
