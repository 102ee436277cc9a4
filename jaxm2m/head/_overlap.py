"""Volume fractions on a cubic grid by exact box overlap.

A voxel is a box. Along one axis the overlap of new cell i with old cell j is

    W_ij = max(0, min(upper_i, upper_j) - max(lower_i, lower_j)) / new spacing,

and in three dimensions the fraction of a label is the product W_x W_y W_z applied to its indicator, exactly.
"""

import math

import numpy as np
from scipy import sparse


def count_cells(n: int, old: float, new: float) -> int:
    """Number of new cells that cover `n` old ones from the same lower edge."""
    return max(1, math.ceil(n * old / new - 1e-6))


def overlap_matrix(n: int, old: float, new: float) -> sparse.csr_array:
    """Overlaps (n_new, n) of new cells with old ones, lower edges aligned; each column sums to old / new."""
    upper = np.arange(1, count_cells(n, old, new) + 1) * new
    edges = np.arange(1, n + 1) * old
    # the highest new cell may end a rounding error before the last old one: the column sums are kept
    upper[-1] = max(upper[-1], edges[-1])
    overlap = np.minimum(upper[:, None], edges) - np.maximum(upper[:, None] - new, edges - old)
    overlap[overlap < 1e-9 * old] = 0
    return sparse.csr_array((overlap / new).astype(np.float32))


def average(volume: np.ndarray, matrices: list[sparse.csr_array]) -> np.ndarray:
    """Apply one overlap matrix per axis to `volume`; float32."""
    out = volume
    for axis, w in enumerate(matrices):
        if w.shape[0] == w.shape[1] and abs(w - sparse.eye_array(w.shape[0])).max() < 1e-6:
            continue
        moved = np.moveaxis(out, axis, 0)
        flat = np.ascontiguousarray(moved, dtype=np.float32).reshape(moved.shape[0], -1)
        out = np.moveaxis((w @ flat).reshape(w.shape[0], *moved.shape[1:]), 0, axis)
    return np.ascontiguousarray(out, dtype=np.float32)


def average_labels(labels: np.ndarray, n_tissue: int, matrices: list[sparse.csr_array]) -> np.ndarray:
    """Fractions (n_tissue, nx, ny, nz) float32 of labels 1 ... n_tissue on the new grid."""
    shape = tuple(w.shape[0] for w in matrices)
    out = np.empty((n_tissue, *shape), dtype=np.float32)
    for k in range(n_tissue):
        out[k] = average(labels == k + 1, matrices)
    return out
