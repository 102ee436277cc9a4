r"""The field at a point of a tetrahedral mesh, from the elements round it.

Superconvergent patch recovery (Zienkiewicz and Zhu 1992), tissue by tissue since the normal component jumps between
them: at each corner of the element a point lies in, the field is the value of a least-squares fit, linear in position,
to the fields at the centroids of the elements of that tissue that meet there, with a small ridge on the slopes; between
the corners it is linear.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from jaxm2m._pytree import tree
from jaxm2m.head import MeshHead

FEWEST = 10  # elements in a patch: with fewer, those that touch them join
RIDGE = 0.02  # on the slopes, of the sum of weights
_BATCH_SIZE = 1 << 14  # patches fitted at once


@tree
class MeshRecovery:
    """Weights of elements at patches' nodes, and of these at points.

    Attributes
    ----------
    elements
        (n_used,) those whose fields are needed.
    weights, columns
        (n_slot, n_patch) of the patches: places in `elements`, and their weights.
    patches, shares
        (n_point, 4) the patches at the corners of each point's element, and barycentric coordinates.
    tissue
        (n_point,) index of its tissue.
    """

    elements: Int[Array, " used"]
    weights: Float[Array, "slot patch"]
    columns: Int[Array, "slot patch"]
    patches: Int[Array, "point 4"]
    shares: Float[Array, "point 4"]
    tissue: Int[Array, " point"]

    def __call__(self, field: Float[Array, "used 3"]) -> Float[Array, "point 3"]:
        """Field at the points (V/m) from that of `elements`."""
        nodal = jnp.zeros((self.columns.shape[1], 3), field.dtype)
        for column, weight in zip(self.columns, self.weights, strict=True):
            nodal = nodal + weight[:, None] * field[column]
        return sum(self.shares[:, i, None] * nodal[self.patches[:, i]] for i in range(4))  # type: ignore[return-value]

    def pick(self, active: Any) -> "MeshRecovery":
        """The same for some of the points."""
        used, patches = np.unique(np.asarray(self.patches)[active], return_inverse=True)
        weights, columns = np.asarray(self.weights)[:, used], np.asarray(self.columns)[:, used]
        kept, columns = np.unique(columns, return_inverse=True)
        return MeshRecovery(
            self.elements[kept],
            jnp.asarray(weights),
            jnp.asarray(columns.reshape(weights.shape), jnp.int32),
            jnp.asarray(patches.reshape(-1, 4), jnp.int32),
            self.shares[active],
            self.tissue[active],
        )


def build_mesh_recovery(
    head: MeshHead,
    element: Int[np.ndarray, " point"],
    barycentric: Float[np.ndarray, "point 4"],
    dtype: Any,
) -> MeshRecovery:
    """Weights for points at barycentric coordinates in elements, each in the tissue of its element."""
    tissue = np.asarray(head.tissue)
    corners = np.asarray(head.elements)
    n_tissue = len(head.tissues)
    # a patch is a node and a tissue
    keys, patches = np.unique(
        corners[element].astype(np.int64) * n_tissue + tissue[element][:, None], return_inverse=True
    )
    table = _patches(corners, tissue, keys, n_tissue, len(head.nodes))
    centroids = head.nodes[corners].mean(1)
    weights = _fit_weights(table, centroids, head.nodes[keys // n_tissue])
    used, columns = np.unique(table.indices, return_inverse=True)
    lengths = np.diff(table.indptr)
    slot = np.arange(lengths.max())[:, None]
    entry = np.where(slot < lengths, table.indptr[:-1] + slot, -1)
    return MeshRecovery(
        jnp.asarray(used, jnp.int32),
        jnp.asarray(np.where(entry >= 0, weights[entry], 0), dtype),
        jnp.asarray(np.where(entry >= 0, columns[entry], 0), jnp.int32),
        jnp.asarray(patches.reshape(-1, 4), jnp.int32),
        jnp.asarray(barycentric, dtype),
        jnp.asarray(tissue[element], jnp.int32),
    )


def _patches(corners: np.ndarray, tissue: np.ndarray, keys: np.ndarray, n_tissue: int, n_node: int) -> sparse.csr_array:
    """(n_patch, n_element) which elements make up each patch."""
    n_element = len(corners)
    rows = (corners.astype(np.int64) * n_tissue + tissue[:, None]).ravel()
    all_patches = sparse.csr_array(
        (np.ones(4 * n_element, np.int8), (rows, np.repeat(np.arange(n_element), 4))),
        shape=(n_node * n_tissue, n_element),
    )
    patches = all_patches[keys]
    few = np.flatnonzero(np.diff(patches.indptr) < FEWEST)
    if len(few):
        # elements of the tissue that share a node with the patch: the incidence's rows know only one tissue each
        touching = sparse.csr_array(patches[few].astype(np.int32) @ all_patches.T.astype(np.int32) @ all_patches)
        scale = sparse.csr_array(
            (np.ones(len(few)), (few, np.arange(len(few)))), shape=(len(keys), len(few)), dtype=np.int32
        )
        patches = sparse.csr_array(patches.astype(np.int32) + scale @ touching)
    patches.sort_indices()
    return patches


def _fit_weights(table: sparse.csr_array, centroids: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weight of each entry of the table: what it contributes to the fit's value at the patch's node."""
    weights = np.empty(table.nnz)
    lengths = np.diff(table.indptr)
    slot = np.arange(lengths.max())
    for start in range(0, len(at), _BATCH_SIZE):
        rows = slice(start, min(start + _BATCH_SIZE, len(at)))
        used = slot < lengths[rows, None]
        entry = np.where(used, table.indptr[:-1][rows, None] + slot, 0)
        d = (centroids[table.indices[entry]] - at[rows, None]) * used[..., None]
        count = used.sum(1)
        d /= np.sqrt((d**2).sum((1, 2)) / count)[:, None, None]
        basis = np.concatenate([d, used[..., None]], 2)
        normal = np.einsum("psi,psj->pij", basis, basis) + RIDGE * count[:, None, None] * np.diag([1.0, 1, 1, 0])
        at_node = np.linalg.solve(normal, np.broadcast_to(np.eye(4)[3][:, None], (len(normal), 4, 1)))[..., 0]
        weights[entry[used]] = np.einsum("psi,pi->ps", basis, at_node)[used]
    return weights
