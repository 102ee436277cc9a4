"""Linear tetrahedra: topology, geometry and stiffness.

Potentials live on nodes, fields in elements, and what drives on edges: a vector field a is given by its integrals along
the edges, a_pq = int_p^q a . dl, which lowest-order Whitney elements interpolate. Its mean in an element is

    a = 1/4 sum_{p<q} a_pq (g_q - g_p) ,       g_p = grad N_p ,

and the gradient of a nodal potential, a_pq = psi_q - psi_p, comes back exactly: a source that is itself a gradient
leaves no field behind. The stiffness is kept as one number an edge, k_pq = sum_e V g_p . S g_q, since its rows add up
to zero. Units: positions in m, S in S/m, potentials in V, loads in A.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from jaxm2m._pytree import tree
from jaxm2m.fem import _sparse, _stored
from jaxm2m.fem._algebraic import Algebraic
from jaxm2m.fem._sparse import EllMatrix

PAIRS = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
BATCH_SIZE = 1 << 16  # elements whose corners are gathered at once


@tree
class Mesh:
    """What belongs to a mesh whatever its nodes' positions and conductivities.

    Nodes are numbered anew, those with many neighbours first, so that the rows of their matrix stand in groups.

    Attributes
    ----------
    elements
        (n_element, 4) nodes, in the new numbers.
    nodes
        (n_node,) old number of each new one.
    edges
        (n_edge, 2) nodes, the smaller number first.
    element_edges
        (n_element, 6) edges in the order of `PAIRS`.
    columns
        Of the matrix, for each group of rows (n_slot, n_row).
    slots
        The edge of each of its entries; n_edge where the slot is not used.
    """

    elements: Int[Array, "element 4"]
    nodes: Int[Array, " node"]
    edges: Int[Array, "edge 2"]
    element_edges: Int[Array, "element 6"]
    columns: list[Int[Array, "slot row"]]
    slots: list[Int[Array, "slot row"]]


def morton_order(positions: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Order points along Morton's curve, so that those near each other come near each other.

    Parameters
    ----------
    positions
        (n, 3) in any unit; the curve has 1024 cells a side of their box.

    Returns
    -------
    (n,) integers
        Indices of the points in the new order.
    """
    low, high = positions.min(0), positions.max(0)
    cells = ((positions - low) / max((high - low).max(), 1e-30) * 1023).astype(np.int64)
    code = np.zeros(len(positions), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def build_mesh(elements: Int[np.ndarray, "element 4"], positions: Float[np.ndarray, "node 3"]) -> Mesh:
    """Build the topology of tetrahedra, on the host, once for each mesh.

    Parameters
    ----------
    elements
        (n_element, 4) indices of the corner nodes; every node is used.
    positions
        (n_node, 3) in any unit: only for an order of the nodes in which neighbours are near in memory.

    Returns
    -------
    Mesh
        With its nodes numbered anew.
    """
    elements, n_node = np.asarray(elements, np.int64), len(positions)
    pairs = np.sort(elements[:, PAIRS], axis=2).reshape(-1, 2)
    keys, element_edges = np.unique(pairs[:, 0] * n_node + pairs[:, 1], return_inverse=True)
    del pairs
    first, second = keys // n_node, keys % n_node
    n_edge = len(keys)
    index = np.arange(n_edge)
    graph = sparse.csr_array(
        (np.concatenate([index, index]), (np.concatenate([first, second]), np.concatenate([second, first]))),
        shape=(n_node, n_node),
    )
    near = morton_order(np.asarray(positions, np.float64))
    nodes = near[np.argsort(-np.diff(graph.indptr)[near], kind="stable")]
    rank = np.empty(n_node, np.int64)
    rank[nodes] = np.arange(n_node)
    graph = graph[nodes]
    columns, slots = [], []
    for rows in _sparse.group_rows(np.diff(graph.indptr)):
        entry, used = _sparse.group_slots(graph.indptr, rows)
        row = np.arange(rows.start, rows.stop)
        # a slot that is not used points at its own row, whose difference is zero
        columns.append(jnp.asarray(np.where(used, rank[graph.indices[entry]], row), jnp.int32))
        slots.append(jnp.asarray(np.where(used, graph.data[entry], n_edge), jnp.int32))
    return Mesh(
        jnp.asarray(rank[elements], jnp.int32),
        jnp.asarray(nodes, jnp.int32),
        jnp.asarray(np.stack([rank[first], rank[second]], 1), jnp.int32),
        jnp.asarray(element_edges.reshape(-1, 6), jnp.int32),
        columns,
        slots,
    )


def shape_gradients(
    corners: Float[Array, "*element 4 3"],
) -> tuple[Float[Array, "*element 4 3"], Float[Array, "*element"]]:
    """Compute the gradients of the four shape functions and the signed volume of tetrahedra.

    Parameters
    ----------
    corners
        (..., 4, 3) positions of the corners, m.

    Returns
    -------
    gradients
        (..., 4, 3) 1/m.
    volume
        (...) m^3.
    """
    a, b, c = (corners[..., i, :] - corners[..., 0, :] for i in (1, 2, 3))
    normals = [jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)]
    six = (a * normals[0]).sum(-1)
    inner = jnp.stack(normals, -2) / six[..., None, None]
    return jnp.concatenate([-inner.sum(-2, keepdims=True), inner], -2), six / 6


@tree
class MeshStiffness:
    """K of linear tetrahedra, with the multigrid that preconditions it.

    Attributes
    ----------
    mesh
        Topology.
    positions
        (n_node, 3) m, in the mesh's numbers.
    conductivity
        (n_element,) S/m, or (n_element, 3, 3).
    matrix, diagonal
        K, off its diagonal and on it.
    preconditioner
        Outside the derivative; None until `precondition` makes one.
    """

    mesh: Mesh
    positions: Float[Array, "node 3"]
    conductivity: Float[Array, "element *tensor"]
    matrix: EllMatrix
    diagonal: Float[Array, " node"]
    preconditioner: Algebraic | None

    axes: ClassVar[tuple[int, ...]] = (0,)

    def __call__(self, potential: Float[Array, "node *rhs"]) -> Float[Array, "node *rhs"]:
        """Compute K phi (A) of nodal potentials (V)."""
        return self.diagonal.reshape(-1, *(1,) * (potential.ndim - 1)) * potential + self.matrix @ potential

    def exact(
        self, potential: Float[Array, "node *rhs"], remainder: Float[Array, "node *rhs"]
    ) -> Float[Array, "node *rhs"]:
        """Compute K (phi + remainder) from differences: rounding is relative to the field, not to phi.

        Parameters
        ----------
        potential, remainder
            (n_node, ...) V.

        Returns
        -------
        (n_node, ...) array
            A.
        """
        return self.matrix.differences(potential, remainder)

    def inner(self, a: Float[Array, "node *rhs"], b: Float[Array, "node *rhs"]) -> Float[Array, "1 *rhs"]:
        """Compute the inner product over the nodes.

        Parameters
        ----------
        a, b
            (n_node, ...) in any unit.

        Returns
        -------
        (1, ...) array
            The sum of a b, in the product of their units.
        """
        return _sum_nodes(a * b)

    def remove_mean(self, a: Float[Array, "node *rhs"]) -> Float[Array, "node *rhs"]:
        """Remove the mean over the nodes.

        Parameters
        ----------
        a
            (n_node, ...) in any unit.

        Returns
        -------
        (n_node, ...) array
            In the same unit.
        """
        return a - _sum_nodes(a) / len(a)

    def load_vector(
        self, along: Callable[[Int[Array, "element 4"]], Float[Array, "element 6"]]
    ) -> Float[Array, " node"]:
        """Compute the load vector int S a . grad N_i of a field a.

        Parameters
        ----------
        along
            Function of the nodes of some elements (n, 4) that returns the field's integrals along their edges (n, 6),
            V.

        Returns
        -------
        (n_node,) array
            A.
        """
        count = len(self.mesh.elements)
        n_batch = -(-count // BATCH_SIZE)

        @jax.checkpoint
        def part(index: Any) -> Any:
            # the last batch is filled up with elements that count nothing
            number = index * BATCH_SIZE + jnp.arange(BATCH_SIZE)
            which = jnp.minimum(number, count - 1)
            corners = self.mesh.elements[which]
            gradients, volume = shape_gradients(self.positions[corners])
            flux = _conduct(self.conductivity[which], element_mean(gradients, along(corners)))
            weight = jnp.where(number < count, volume, 0)
            return corners, (gradients * flux[:, None]).sum(-1) * weight[:, None]

        def add(total: Any, index: Any) -> Any:
            corners, loads = part(index)
            return total.at[corners].add(loads), None

        return jax.lax.scan(add, jnp.zeros_like(self.diagonal), jnp.arange(n_batch))[0]


def _sum_nodes(a: Array) -> Array:
    """The sum over the first axis, kept at length 1; in two steps, since a long float32 sum loses digits."""
    whole = len(a) // 1024 * 1024
    return (a[:whole].reshape(-1, 1024, *a.shape[1:]).sum(0).sum(0) + a[whole:].sum(0))[None]


def element_mean(
    gradients: Float[Array, "*element 4 3"], along: Float[Array, "*element 6"]
) -> Float[Array, "*element 3"]:
    """Compute the mean of a field in elements from its integrals along their edges.

    Parameters
    ----------
    gradients
        (..., 4, 3) gradients of the shape functions, per m, of `shape_gradients`.
    along
        (..., 6) integrals along the edges, V, in the order of `PAIRS`.

    Returns
    -------
    (..., 3) array
        V/m.
    """
    low, high = PAIRS.T
    return (along[..., None] * (gradients[..., high, :] - gradients[..., low, :])).sum(-2) / 4


def _conduct(conductivity: Array, field: Array) -> Array:
    if conductivity.ndim == 1:
        return conductivity[:, None] * field
    return jnp.einsum("eij,ej->ei", conductivity, field, precision=jax.lax.Precision.HIGHEST)


def conductances(
    mesh: Mesh, positions: Float[Array, "node 3"], conductivity: Float[Array, "element *tensor"]
) -> Float[Array, " edge"]:
    """k_pq (S) of every edge: the entries of the stiffness off its diagonal.

    Differentiable in positions (m) and conductivities (S/m; a number or a tensor for each element).
    """
    gradients, volume = shape_gradients(positions[mesh.elements])
    low, high = PAIRS.T
    if conductivity.ndim == 1:
        flux = conductivity[:, None, None] * gradients
    else:
        flux = jnp.einsum("eij,epj->epi", conductivity, gradients, precision=jax.lax.Precision.HIGHEST)
    entries = volume[:, None] * (gradients[:, low] * flux[:, high]).sum(-1)
    return jnp.zeros(len(mesh.edges), entries.dtype).at[mesh.element_edges].add(entries)


def to_csr(matrix: MeshStiffness) -> sparse.csr_array:
    """Convert a stiffness to SciPy's CSR matrix, on the host.

    Parameters
    ----------
    matrix
        The stiffness of a mesh.

    Returns
    -------
    scipy.sparse.csr_array
        (n_node, n_node) float64, S; its rows add up to zero.
    """
    indptr, indices, data = [np.zeros(1, np.int64)], [], []
    for columns, values in zip(matrix.matrix.columns, matrix.matrix.values, strict=True):
        # slots that are not used hold zero
        column, value = np.asarray(columns).T, np.asarray(values, np.float64).T
        used = value != 0
        indices.append(column[used])
        data.append(value[used])
        indptr.append(used.sum(1))
    n = len(matrix.diagonal)
    off = sparse.csr_array((np.concatenate(data), np.concatenate(indices), np.cumsum(np.concatenate(indptr))), (n, n))
    return sparse.csr_array(off - sparse.dia_array((off.sum(1)[None], [0]), shape=(n, n)))


def precondition(matrix: MeshStiffness) -> MeshStiffness:
    """Give a stiffness the multigrid for its values, built on the host or read from the cache on disk.

    Parameters
    ----------
    matrix
        The stiffness of a mesh.

    Returns
    -------
    MeshStiffness
        The same, with a preconditioner.

    Raises
    ------
    ModuleNotFoundError
        PyAMG is not installed.
    """
    return replace(matrix, preconditioner=_stored.load_or_build(to_csr(matrix)))


def assemble_mesh_stiffness(
    mesh: Mesh,
    positions: Float[Array, "node 3"],
    conductivity: Float[Array, "element *tensor"],
    preconditioner: Algebraic | None = None,
) -> MeshStiffness:
    """Assemble the stiffness of a mesh; differentiable in positions and conductivities.

    Parameters
    ----------
    mesh
        Topology, of `build_mesh`.
    positions
        (n_node, 3) m, in the mesh's numbers.
    conductivity
        (n_element,) S/m, or tensors (n_element, 3, 3).
    preconditioner
        Of a stiffness whose conductivities are of the same order.

    Returns
    -------
    MeshStiffness
        The matrix, S, as one number for each edge.
    """
    edges = conductances(mesh, positions, conductivity)
    edges = jnp.append(edges, jnp.zeros((), edges.dtype))
    values = [edges[slot] for slot in mesh.slots]
    diagonal = -jnp.concatenate([v.sum(0) for v in values])
    return MeshStiffness(mesh, positions, conductivity, EllMatrix(mesh.columns, values, None), diagonal, preconditioner)
