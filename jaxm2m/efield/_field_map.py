"""The field at fixed points as a function of the coil's pose, whatever computes it."""

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._tree import Notes, tree
from jaxm2m.coil import Coil
from jaxm2m.head import Surface


class Means(Protocol):
    """What computes fields: solves, or a basis. A pytree."""

    def fields(self, coil: Coil, poses: Array, didt: Any, together: int) -> tuple[Array, Any]:
        """E (pose, own point, 3) of poses (pose, 4, 4), V/m, NaN where it fails; and a report, one entry a pose."""
        ...

    def together(self) -> int:
        """How many poses are best computed at once."""
        ...

    def refuse(self, report: Any) -> None:
        """Raise what a report of known values tells of failures."""
        ...

    def pick(self, own: np.ndarray) -> "Means":
        """The same for some of the points."""
        ...


@tree
class FieldMap:
    """The field of one coil at fixed points as a function of the pose.

    `field_map(pose, didt=1e6)` takes poses (..., 4, 4) and returns e (..., n_point, 3) in V/m and world axes. It comes
    from `Simulator.bind` (a solve a pose) or `Basis.bind` (milliseconds a pose), and is differentiable in the pose and
    in the coil.

    Attributes
    ----------
    means
        What computes the field.
    coil
        What drives.
    scalp
        What the coil's casing must not enter.
    points
        (n_point, 3) mm.
    own
        (n_own,) the points that have a field, as indices; those of a grid outside grey and white matter are zero.
    tissue
        (n_own,) index of their tissue in the head's `tissues`.
    notes
        "tissues" and "space" of the head.
    """

    means: Any
    coil: Coil
    scalp: Surface
    points: Float[Array, "point 3"] | Float[np.ndarray, "point 3"]
    own: Int[Array, " own"]
    tissue: Int[Array, " own"]
    notes: Notes

    @property
    def n_point(self) -> int:
        """Number of points."""
        return self.points.shape[0]

    def __call__(self, pose: Any, *, didt: Any = 1e6) -> Float[Array, "*batch n_point 3"]:
        """E (V/m) at the points; poses (..., 4, 4) mm, didt in A/s.

        Under a transform nothing can be raised: such a result is NaN.

        Raises
        ------
        ValueError
            Poses that are not rigid, that put the coil into the head, or that a basis does not cover.
        ConvergenceError
            A solve that fails.
        """
        e, report = evaluate(self, checked(self.coil, pose, self.scalp), jnp.asarray(didt), self.means.together())
        self.means.refuse(report)
        return e

    def within(
        self, centre: Any, radius: float | int = 5.0, tissues: tuple[str, ...] = ("grey",)
    ) -> Bool[np.ndarray, " point"]:
        """Which points lie in a ball and in given tissues: the usual target is grey matter within 5 mm.

        Parameters
        ----------
        centre
            (3,) mm.
        radius
            mm.
        tissues
            Names of the head's tissues.

        Raises
        ------
        ValueError
            No such point, or a tissue that the head does not have.
        """
        centre = np.asarray(_check.points(centre, "centre"), np.float64)
        if centre.shape != (3,):
            raise ValueError(f"centre: shape {centre.shape}; give one point x, y, z in mm.")
        _check.positive(radius, "radius")
        names = list(self.notes["tissues"])
        for name in tissues:
            _check.option(name, names, "tissues")
        own, points = np.asarray(self.own), np.asarray(self.points, np.float64)
        inside = np.linalg.norm(points[own] - centre, axis=-1) <= radius
        inside &= np.isin(np.asarray(self.tissue), [names.index(name) for name in tissues])
        if not inside.any():
            near = np.linalg.norm(points[own] - centre, axis=-1).min(initial=np.inf)
            raise ValueError(
                f"centre: no point of {' or '.join(tissues)} within {radius:g} mm of "
                f"({', '.join(f'{x:.1f}' for x in centre)}) mm; the nearest point with a field is {near:.1f} mm away. "
                "Move the target, take a larger radius, or points round it."
            )
        chosen = np.zeros(len(points), bool)
        chosen[own[inside]] = True
        return chosen

    def pick(self, where: Any) -> "FieldMap":
        """The same map for some of its points, in their order; what is left out costs nothing.

        Parameters
        ----------
        where
            (n_point,) mask, such as of `within`, or indices of points that have a field.

        Raises
        ------
        ValueError
            No point, or points outside grey and white matter of a grid.
        """
        where = np.asarray(where)
        n = self.n_point
        if where.dtype == bool and where.shape != (n,):
            raise ValueError(f"where: a mask of shape {where.shape} for {n} points; give one of shape ({n},).")
        index = np.flatnonzero(where) if where.dtype == bool else where
        if index.ndim != 1 or index.dtype.kind not in "iu" or (index < 0).any() or (index >= n).any():
            raise ValueError(f"where: give a mask of {n} points or a list of indices from 0 to {n - 1}.")
        place = np.full(self.n_point, -1)
        place[np.asarray(self.own)] = np.arange(self.own.shape[0])
        own = place[index]
        if own.size == 0 or (own < 0).any():
            raise ValueError(
                f"where: {int((own < 0).sum())} of {own.size} points have no field (they lie outside grey and white "
                "matter); choose one or more that have, as `within` does."
            )
        return FieldMap(
            self.means.pick(own),
            self.coil,
            self.scalp,
            jnp.asarray(self.points)[index],
            jnp.arange(len(own), dtype=jnp.int32),
            jnp.asarray(self.tissue)[own],
            self.notes,
        )


@partial(jax.jit, static_argnames="together")
@full_precision
def evaluate(field_map: FieldMap, poses: Array, didt: Any, together: int) -> tuple[Array, Any]:
    """E (..., n_point, 3) of poses (..., 4, 4) and the report of what computed it."""
    lead = poses.shape[:-2]
    e, report = field_map.means.fields(field_map.coil, poses.reshape(-1, 4, 4), didt, together)
    if field_map.n_point != e.shape[1]:
        e = jnp.zeros((e.shape[0], field_map.n_point, 3), e.dtype).at[:, field_map.own].set(e, unique_indices=True)
    return e.reshape(*lead, *e.shape[1:]), jax.tree.map(lambda a: a.reshape(lead), report)


def checked(coil: Coil, pose: Any, scalp: Surface) -> Array:
    """Rigid poses outside the head, as far as values are known."""
    pose = _check.pose(pose)
    # any of them may be an argument of the user's program
    known = not any(map(_check.traced, jax.tree.leaves((coil.casing, scalp, pose))))
    if coil.casing is not None and known:
        with jax.ensure_compile_time_eval():  # known values stay known under a transform of something else
            coils.check_outside(coil, pose, scalp)
    return jnp.asarray(pose)
