"""Poses as files print them, with three or four decimals, made rigid again."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxm2m import _check


def make_rigid(
    matrices: Float[np.ndarray, "n 4 4"], where: Callable[[int], str], tolerance: float = 5e-3
) -> Float[np.ndarray, "n 4 4"]:
    """The rigid poses nearest to `matrices`; rows of NaN (no position) stay.

    Rounding to three decimals leaves the axes' products off by 1e-3 at most; what is off by more than `tolerance` is
    refused, since the nearest rotation of a sheared matrix is a guess.

    Parameters
    ----------
    matrices : (n, 4, 4) array
        Poses, mm.
    where : callable
        `where(i)` says in an error where row i came from.
    tolerance : float
        Largest deviation of the axes from an orthonormal frame.

    """
    result = np.array(matrices, dtype=np.float64)
    located = ~np.isnan(result).all(axis=(1, 2))
    rows = np.flatnonzero(located)
    for i, defect in _check.pose_defects(result[located], tolerance=tolerance):
        raise ValueError(f"{where(int(rows[i]))}: {defect}")
    u, _, vt = np.linalg.svd(result[located, :3, :3])
    result[located, :3, :3] = u @ vt
    return result
