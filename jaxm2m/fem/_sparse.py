"""Sparse matrices whose rows stand in groups of like length.

Within a group every row has the same number of slots, each with a column and a value: arrays (n_slot, n_row). A product
gathers one slot after the other. On a CPU that runs as fast as a compiled CSR product and an order of magnitude faster
than JAX's own sparse formats; without groups, the longest row of an unstructured mesh would double the work.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from jaxm2m._pytree import tree

WASTE = 0.06, 0.25  # of a group's slots may be padding: in a mesh's own matrix, in others
SMALLEST = 2048  # rows: below, a group costs more than padding
UNROLL = 32  # slots in a step of the loop over them: fewer pass over the result more often, more compile longer


@tree
class EllMatrix:
    """A sparse matrix, group by group.

    Attributes
    ----------
    columns, values
        For each group (n_slot, n_row); slots that are not used hold zero.
    order
        (n_row,) place of every row among the rows of the groups; None where they are in order.
    """

    columns: list[Int[Array, "slot row"]]
    values: list[Float[Array, "slot row"]]
    order: Int[Array, " row"] | None

    def __matmul__(self, x: Float[Array, "column *rhs"]) -> Float[Array, "row *rhs"]:
        """Compute the product with one or many vectors; right-hand sides on the last axis."""
        return self._sum(lambda columns, _: _gather_rows(x, columns), x.shape[1:], x.dtype)

    def differences(self, *parts: Float[Array, "row *rhs"]) -> Float[Array, "row *rhs"]:
        """Compute sum_j a_ij (x_j - x_i) with x the sum of `parts`: rounding is relative to differences, not to x.

        For square matrices in order whose rows add up to zero, the diagonal left out.

        Parameters
        ----------
        *parts
            (n_row, ...) vectors in any unit, whose sum is x.

        Returns
        -------
        (n_row, ...) array
            The product, in the unit of the matrix times that of x.
        """

        def term(columns: Any, rows: Any) -> Any:
            steps = [_gather_rows(x, columns) - x[rows] for x in parts]
            return sum(steps[1:], steps[0])

        return self._sum(term, parts[0].shape[1:], parts[0].dtype)

    def _sum(self, term: Any, rhs: tuple[int, ...], dtype: Any) -> Any:
        out, first = [], 0
        for columns, values in zip(self.columns, self.values, strict=True):
            n_slot, n_row = columns.shape
            rows = slice(first, first + n_row)
            wide = values.reshape(n_slot, n_row, *(1,) * len(rhs))
            total = jnp.zeros((n_row, *rhs), jnp.result_type(values, dtype))

            def add(total: Any, slot: Any, rows: slice = rows) -> Any:
                return total + slot[1] * term(slot[0], rows), None

            total = jax.lax.scan(add, total, (columns, wide), unroll=UNROLL)[0]
            out.append(total)
            first += n_row
        product = out[0] if len(out) == 1 else jnp.concatenate(out)
        return product if self.order is None else product[self.order]


def _gather_rows(x: Array, index: Array) -> Array:
    """x[index] without a look at the index's sign and size: that would cost as much as the gather."""
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def group_rows(lengths: Int[np.ndarray, " row"], waste: float = WASTE[0]) -> list[slice]:
    """Groups of rows whose `lengths` do not grow."""
    assert (np.diff(lengths) <= 0).all()
    total = np.concatenate([[0], np.cumsum(lengths)])
    result, first, n = [], 0, len(lengths)
    while first < n:
        # the longest group whose padding stays small
        size = np.arange(1, n - first + 1)
        padding = 1 - (total[first + 1 :] - total[first]) / np.maximum(lengths[first] * size, 1)
        fits = np.flatnonzero((padding <= waste) | (size <= SMALLEST))
        end = first + int(size[fits[-1]])
        result.append(slice(first, end if n - end > SMALLEST // 4 else n))
        first = result[-1].stop
    return result


def group_slots(indptr: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Index (n_slot, n_row) into the entries of a CSR matrix for a group of its rows, and which slots are used."""
    start, end = indptr[rows], indptr[rows.start + 1 : rows.stop + 1]
    index = start + np.arange((end - start).max(initial=1))[:, None]
    used = index < end
    return np.where(used, index, 0), used


def from_csr(matrix: sparse.csr_array, dtype: Any = np.float32) -> EllMatrix:
    """A SciPy matrix in groups; rows are put in order of their length where they are not."""
    lengths = np.diff(matrix.indptr)
    order = None
    if (np.diff(lengths) > 0).any():
        sort = np.argsort(-lengths, kind="stable")
        matrix = matrix[sort]
        inverse = np.empty(len(sort), np.int32)
        inverse[sort] = np.arange(len(sort))
        order = jnp.asarray(inverse)
    columns, values = [], []
    for rows in group_rows(np.diff(matrix.indptr), WASTE[1]):
        index, used = group_slots(matrix.indptr, rows)
        columns.append(jnp.asarray(np.where(used, matrix.indices[index], 0), jnp.int32))
        values.append(jnp.asarray(np.where(used, matrix.data[index], 0), dtype))
    return EllMatrix(columns, values, order)
