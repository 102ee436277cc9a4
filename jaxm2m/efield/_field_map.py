"""The field at fixed points as a function of the coil's pose, whatever computes it."""

from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.efield._region import InRegion, Region
from jaxm2m.head import Surface


@runtime_checkable
class FieldSolver(Protocol):
    """What computes the field at a region's active points: one solve a pose, or a basis. A pytree."""

    def fields(self, coil: Coil, poses: Array, didt: Any, batch_size: int) -> tuple[Array, Any]:
        """Compute E (pose, active, 3) V/m of poses (pose, 4, 4), NaN where it fails, and a report, one entry a pose."""
        ...

    def batch_size(self) -> int:
        """Return how many poses are best computed at once."""
        ...

    def raise_for_status(self, report: Any) -> None:
        """Raise the error that a report of known values tells of."""
        ...

    def pick(self, active: np.ndarray) -> "FieldSolver":
        """Return the solver of some of the active points."""
        ...


@tree
class FieldMap(InRegion):
    """The field of one coil at fixed points as a function of the pose.

    `field_map(pose, didt=1e6)` takes poses (..., 4, 4) and returns e (..., n_point, 3) in V/m and world axes. It comes
    from `Simulator.bind` (a solve a pose) or `Basis.bind` (milliseconds a pose), and is differentiable in the pose and
    in the coil.

    Attributes
    ----------
    solver
        The `FieldSolver` that computes the field.
    coil
        The coil that drives it.
    region
        The points of the field. Those of a grid outside grey and white matter have no field and are zero.
    """

    solver: FieldSolver
    coil: Coil
    region: Region

    def __call__(self, pose: ArrayLike, *, didt: ArrayLike = 1e6) -> Float[Array, "*batch n_point 3"]:
        """Compute the field at the points.

        Under a transform nothing can be raised: a pose that would be refused gives NaN.

        Parameters
        ----------
        pose
            (..., 4, 4) coil frame to world, mm.
        didt
            A/s: a number, or one for each of the coil's stimulators.

        Returns
        -------
        e
            (..., n_point, 3) V/m, world axes.

        Raises
        ------
        ValueError
            Poses that are not rigid, that put the coil into the head, or that a basis does not cover.
        ConvergenceError
            A solve that fails.
        """
        e, report = evaluate(self, check_pose(self.coil, pose, self.scalp), jnp.asarray(didt), self.solver.batch_size())
        self.solver.raise_for_status(report)
        return e

    def within(
        self, centre: ArrayLike, radius: float | int = 5.0, tissues: tuple[str, ...] = ("grey",)
    ) -> Bool[np.ndarray, " point"]:
        """Select the points of given tissues in a ball; the usual target is grey matter within 5 mm.

        Parameters
        ----------
        centre
            (3,) mm.
        radius
            mm.
        tissues
            Names of the head's tissues.

        Returns
        -------
        mask
            (n_point,) True at the points that lie in the ball and in one of the tissues; no unit.

        Raises
        ------
        ValueError
            No such point, or a tissue that the head does not have.
        """
        return self.region.within(centre, radius, tissues)

    def pick(self, where: ArrayLike) -> "FieldMap":
        """Return the map of some of its points, in their order; what is left out costs nothing.

        Parameters
        ----------
        where
            (n_point,) mask, such as `within` returns, or indices of points that have a field.

        Returns
        -------
        FieldMap
            Its points are those picked, all of them active.

        Raises
        ------
        ValueError
            No point, or points outside grey and white matter of a grid.
        """
        index, among_active = self.region.active_indices(where)
        return FieldMap(self.solver.pick(among_active), self.coil, self.region.pick(index, among_active))


@partial(jax.jit, static_argnames="batch_size")
@full_precision
def evaluate(field_map: FieldMap, poses: Array, didt: Any, batch_size: int) -> tuple[Array, Any]:
    """Compute the field of poses without checking them, in one compiled program; `FieldMap` checks and raises.

    Parameters
    ----------
    field_map
        The field map of one coil.
    poses
        (..., 4, 4) coil frame to world, mm.
    didt
        A/s: a number, or one for each of the coil's stimulators.
    batch_size
        Number of poses computed at once.

    Returns
    -------
    e
        (..., n_point, 3) V/m, world axes; NaN where a solve failed.
    report
        The solver's report, one entry for each pose.
    """
    lead = poses.shape[:-2]
    e, report = field_map.solver.fields(field_map.coil, poses.reshape(-1, 4, 4), didt, batch_size)
    if field_map.n_point != e.shape[1]:
        e = jnp.zeros((e.shape[0], field_map.n_point, 3), e.dtype).at[:, field_map.active].set(e, unique_indices=True)
    return e.reshape(*lead, *e.shape[1:]), jax.tree.map(lambda a: a.reshape(lead), report)


def check_pose(coil: Coil, pose: Any, scalp: Surface) -> Array:
    """Refuse poses that are not rigid or put the coil into the head, as far as values are known."""
    pose = _check.pose(pose)
    # any of them may be an argument of the user's program
    known = not any(map(_check.is_traced, jax.tree.leaves((coil.casing, scalp, pose))))
    if coil.casing is not None and known:
        with jax.ensure_compile_time_eval():  # known values stay known under a transform of something else
            coils.check_outside(coil, pose, scalp)
    return jnp.asarray(pose)
