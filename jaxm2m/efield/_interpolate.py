"""A field map at points between those that it knows, such as the vertices of a cortex."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial import cKDTree

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.efield._expansion import Expansion
from jaxm2m.efield._field_map import FieldMap, FieldSolver

_NEIGHBOURS = 8


@tree
class Interpolated:
    """Weighted sums of another solver's fields (`FieldSolver` of a `FieldMap`).

    Attributes
    ----------
    solver
        What computes the field.
    index
        (n, k) among the active points of `solver`.
    weights
        (n, k) of these points, no unit.
    """

    solver: FieldSolver
    index: Int[Array, "n k"]
    weights: Float[Array, "n k"]

    def batch_size(self) -> int:
        return self.solver.batch_size()

    def fields(self, coil: Coil, poses: Array, didt: Any, batch_size: int) -> tuple[Array, Any]:
        e, report = self.solver.fields(coil, poses, didt, batch_size)
        return (e[:, self.index] * self.weights[..., None]).sum(2), report

    def raise_for_status(self, report: Any) -> None:
        self.solver.raise_for_status(report)

    def pick(self, active: np.ndarray) -> "Interpolated":
        return replace(self, index=self.index[active], weights=self.weights[active])


def interpolate(
    field_map: FieldMap, points: ArrayLike, *, tissue: str | None = None, reach: float | int | None = None
) -> tuple[FieldMap, Bool[np.ndarray, " point"]]:
    """Make the map of a field at points between those of another map.

    The field at a point is the mean of that at the eight nearest points of the map, weighted by the inverse square of
    their distance; at a point of the map it is the map's own.

    Parameters
    ----------
    field_map
        The field at its points, from a basis or a simulator.
    points
        (n, 3) mm.
    tissue
        Name of the tissue whose points count, such as "grey", since fields jump between tissues; by default all.
    reach
        mm to the nearest point of the map, beyond which a point is left out; by default 1.5 times the distance of the
        map's points.

    Returns
    -------
    field_map
        Its points are those of `points` within reach, in their order.
    inside
        (n,) mask of these.

    Raises
    ------
    ValueError
        No point is within reach, or the map has no point of the tissue.
    """
    xyz = np.asarray(_check.points(points, "points"), np.float64)
    if xyz.ndim != 2:
        raise ValueError(f"points: shape {xyz.shape}; give (n, 3), mm.")
    names, tissues = list(field_map.metadata["tissues"]), np.asarray(field_map.tissue)
    chosen = np.arange(len(tissues))
    if tissue is not None:
        chosen = np.flatnonzero(tissues == names.index(_check.option(tissue, names, "tissue")))
        if not len(chosen):
            raise ValueError(f"tissue: the map has no point of {tissue}; leave it out, or take another map.")
    places = field_map.region.active_points()[chosen]
    near = cKDTree(places)
    if reach is None:
        spacing = np.median(near.query(places, k=min(2, len(places)))[0][:, -1]) if len(places) > 1 else 2.0
        reach = 1.5 * float(spacing)
    count = min(_NEIGHBOURS, len(places))
    away, index = (np.reshape(a, (len(xyz), count)) for a in near.query(xyz, k=count))
    inside = away[:, 0] <= float(_check.positive(reach, "reach"))
    if not inside.any():
        raise ValueError(
            f"points: none of {len(xyz)} lies within {reach:.3g} mm of the map's points, the nearest "
            f"{away.min(initial=np.inf):.3g} mm away; take a map of their region, or a larger reach."
        )
    away, index = away[inside], chosen[index[inside]]
    nearest_tissue = tissues[index[:, 0]]
    weights = 1 / np.maximum(away, 1e-6) ** 2
    weights /= weights.sum(1, keepdims=True)
    solver = field_map.solver
    if isinstance(solver, Expansion):
        solver = _combine_modes(solver, index, weights)
    else:
        used, index = np.unique(index, return_inverse=True)
        dtype = jnp.result_type(float)
        solver = Interpolated(
            solver.pick(used), jnp.asarray(index.reshape(weights.shape), jnp.int32), jnp.asarray(weights, dtype)
        )
    dtype = jnp.asarray(field_map.points).dtype
    region = replace(
        field_map.region,
        points=jnp.asarray(xyz[inside], dtype),
        active=jnp.arange(len(weights), dtype=jnp.int32),
        tissue=jnp.asarray(nearest_tissue, jnp.int32),
    )
    return FieldMap(solver, field_map.coil, region), inside


def _combine_modes(solver: Expansion, index: np.ndarray, weights: np.ndarray) -> Expansion:
    """Interpolate the modes once, and not the field at every pose."""
    modes = np.asarray(solver.modes)
    combined = sum(
        (modes[:, index[:, k]] * weights[:, k, None].astype(modes.dtype) for k in range(index.shape[1])),
        np.zeros((), modes.dtype),
    )
    return replace(solver, modes=jnp.asarray(combined))
