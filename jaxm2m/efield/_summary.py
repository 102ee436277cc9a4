"""Numbers of a field, a row a tissue: the same for voxels and tetrahedra."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxm2m import _check


def place(target: Any, radius: float | int) -> Float[np.ndarray, "3"]:
    """`target` (mm) as one point, `radius` (mm) checked."""
    target = np.asarray(_check.points(target, "target"), np.float64)
    _check.positive(radius, "radius")
    if target.shape != (3,):
        raise ValueError(f"target: shape {target.shape}; give one point x, y, z in mm.")
    return target


def row(value: np.ndarray, weight: np.ndarray, places: np.ndarray, near: np.ndarray | None) -> dict[str, float]:
    """One tissue's numbers.

    Parameters
    ----------
    value
        (n,) |E|, V/m.
    weight
        (n,) volume that each value stands for, ml.
    places
        (n, 3) where each value is, mm.
    near
        (n,) bool, which values lie round the target; None without one.
    """
    high = percentile(value, weight, 99.9)
    top = int(np.argmax(value))
    out = {"p99.9": high, "peak": value[top]}
    out |= dict(zip(("peak_x", "peak_y", "peak_z"), places[top].tolist(), strict=True))
    for share in (50, 75):
        out[f"volume_{share}"] = weight[value >= share / 100 * high].sum()
    if near is not None:
        out["target"] = np.average(value[near], weights=weight[near]) if near.any() else np.nan
    out["volume"] = weight.sum()
    return out


def table(rows: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Rows by tissue as a table."""
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("tissue")


def percentile(value: np.ndarray, weight: np.ndarray, share: float) -> float:
    """Percentile of values that stand for different volumes."""
    order = np.argsort(value)
    reached = np.cumsum(weight[order]) - weight[order] / 2
    return float(np.interp(share / 100 * weight.sum(), reached, value[order]))
