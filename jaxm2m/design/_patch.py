"""The patch of scalp that a session is about: its poses, and their fields in the grey matter under it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._types import ArrayLike, ScalpSurface
from jaxm2m.coil import Coil
from jaxm2m.efield import FieldMap, evaluate
from jaxm2m.placement import SearchProblem, make_problem

N_PLACE, N_TURN = 48, 12
_BATCH = 32  # poses that are laid at once


@dataclass(frozen=True, eq=False)
class Patch:
    """Poses over a patch of scalp, all turns of each place one after the other, and what they do.

    Attributes
    ----------
    problem
        How a coil is laid on the scalp.
    target
        (3,) mm, over which the middle of the patch is.
    handle
        (3,) where the handle points at a turn of zero.
    radius
        mm.
    field
        The map at the grey points under the patch.
    chosen
        (n_grey,) indices of these points in the map that was passed.
    n_point
        How many points that has.
    centre
        (3,) the grey point nearest to the target, mm.
    poses
        (n, 4, 4) coil frame to world, mm.
    places
        (n, 2) mm along the scalp from the middle.
    turns
        (n,) rad, against the handle.
    fields
        (n, n_grey, 3) V/m at 1 A/us.
    """

    problem: SearchProblem
    target: Float[np.ndarray, "3"]
    handle: Float[np.ndarray, "3"]
    radius: float
    field: FieldMap
    chosen: Int[np.ndarray, " grey"]
    n_point: int
    centre: Float[np.ndarray, "3"]
    poses: Float[np.ndarray, "n 4 4"]
    places: Float[np.ndarray, "n 2"]
    turns: Float[np.ndarray, " n"]
    fields: Float[np.ndarray, "n grey 3"]

    def __len__(self) -> int:
        return len(self.poses)

    def place(self, x: float, y: float, turn: float) -> Float[np.ndarray, "4 4"]:
        """Place the coil (mm) in a turn (rad), its casing out of the head."""
        return _lay(self.problem, self.target, self.handle, np.array([[x, y]]), np.array([turn]))[0]

    def compute_fields(self, poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n grey 3"]:
        """Compute the fields of poses at the grey points, V/m at 1 A/us, NaN where the map has none."""
        return _compute_fields(self.field, poses)

    def is_clear(self, poses: Float[np.ndarray, "n 4 4"]) -> Bool[np.ndarray, " n"]:
        """Say of poses whether the casing stays out of the zones."""
        return _find_clear(self.problem, poses)

    def find_spot(self, pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3"]:
        """Find the place (mm) and the turn (rad) of a pose, in the frame of the pose that is nearest to it."""
        moved, turned = measure_moves(pose, self.poses)
        nearest = int(np.argmin(moved + 0.2 * turned))
        frame, turn = self.poses[nearest], self.turns[nearest]
        away = frame[:3, :2].T @ (pose[:3, 3] - frame[:3, 3])
        x, y = frame[:3, :2].T @ pose[:3, 1]
        cosine, sine = np.cos(turn), np.sin(turn)
        place = self.places[nearest] + np.array([[cosine, -sine], [sine, cosine]]) @ away
        angle = turn + np.arctan2(-x, y)
        return np.array([*place, (angle + np.pi) % (2 * np.pi) - np.pi])


def lay_patch(
    at_roi: FieldMap,
    *,
    coil: Coil,
    scalp: ScalpSurface,
    target: ArrayLike,
    radius: float | int,
    handle: ArrayLike,
    distance: float | int,
    avoid: Sequence[tuple[ArrayLike, float | int]],
    reach: float,
) -> Patch:
    """Lay poses over the target and compute their fields in grey matter within `reach` (mm) of it.

    Raises
    ------
    ValueError
        No grey matter near the target, or no pose that the map covers outside the zones.
    """
    _check.positive(radius, "radius")
    middle = np.asarray(_check.points(target, "target"), np.float64)
    if middle.shape != (3,):
        raise ValueError(f"target: shape {middle.shape}; give one point, x, y, z in mm.")
    centre = _find_grey(at_roi, middle)
    chosen = np.flatnonzero(at_roi.within(centre, reach))
    field = at_roi.pick(chosen)
    problem = make_problem(
        field, jax.tree_util.Partial(_nothing), coil=coil, scalp=scalp, distance=distance, avoid=avoid
    )
    direction = np.asarray(_check.points(handle, "handle"), np.float64)
    places, turns = _sunflower(float(radius), N_PLACE), 2 * np.pi * np.arange(N_TURN) / N_TURN
    poses = _lay(problem, middle, direction, places, turns)
    fields = _compute_fields(field, poses)
    usable = np.isfinite(fields).all((1, 2)) & _find_clear(problem, poses)
    if not usable.any():
        raise ValueError("target: no pose over it is covered by the map and outside the zones; move it.")
    spots = np.repeat(places, N_TURN, axis=0)[usable], np.tile(turns, N_PLACE)[usable]
    return Patch(
        problem, middle, direction, float(radius), field, chosen, at_roi.n_point, centre, poses[usable], *spots,
        fields[usable],
    )  # fmt: skip


def measure_moves(
    pose: Float[np.ndarray, "4 4"], poses: Float[np.ndarray, "n 4 4"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Measure how far (mm) and by how much (degrees) the arm moves from a pose to others."""
    moved = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1)
    cosine = (np.einsum("ij,nij->n", pose[:3, :3], poses[:, :3, :3]) - 1) / 2
    return moved, np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _find_clear(problem: SearchProblem, poses: np.ndarray) -> Bool[np.ndarray, " n"]:
    if not len(problem.zones):
        return np.ones(len(poses), bool)
    depth = jax.lax.map(problem.constraint_violation, jnp.asarray(poses, problem.distance.dtype), batch_size=16)
    return np.asarray(depth).max(1) <= 0


def _find_grey(at_roi: FieldMap, target: np.ndarray) -> np.ndarray:
    """The grey point of the map nearest to the target, mm."""
    names = list(at_roi.metadata["tissues"])
    grey = np.asarray(at_roi.tissue) == (names.index("grey") if "grey" in names else -1)
    if not grey.any():
        raise ValueError("at_roi: none of its points is grey matter; lay its region over cortex.")
    points = at_roi.region.active_points()[grey]
    return points[np.linalg.norm(points - target, axis=1).argmin()]


def _sunflower(radius: float, count: int) -> Float[np.ndarray, "count 2"]:
    """Places (count, 2) that cover a disc evenly, mm, the first in its middle."""
    index = np.arange(count)
    out, around = radius * np.sqrt(index / count), index * np.pi * (3 - 5**0.5)
    return np.column_stack([out * np.cos(around), out * np.sin(around)])


def _lay(
    problem: SearchProblem, target: np.ndarray, handle: np.ndarray, places: np.ndarray, turns: np.ndarray
) -> Float[np.ndarray, "n 4 4"]:
    """Lay the coil at places (n_place, 2), mm, each in all turns (n_turn,), rad."""
    spots, angles = np.repeat(places, len(turns), axis=0), np.tile(turns, len(places))
    start = coils.place(problem.scalp, target, handle, 0.0)
    dtype = problem.distance.dtype
    first = jnp.asarray(np.column_stack([spots, 0 * angles]), dtype)
    then = jnp.asarray(np.column_stack([0 * spots, problem.lever * angles]), dtype)
    return np.asarray(_lay_steps(problem, jnp.asarray(start, dtype), first, then), np.float64)


def _nothing(e: Array) -> Array:
    return jnp.zeros((), e.dtype)


_NOTHING = jax.tree_util.Partial(_nothing)  # of a search that only lays coils


@jax.jit
@full_precision
def _lay_steps(problem: Any, start: Array, first: Array, then: Array) -> Array:
    def one(steps):
        # along the scalp first, then turned where it stands
        base, extra = problem.move(start, problem.start(), steps[0])
        return problem.place(*problem.move(base, extra, steps[1]))[0]

    return jax.lax.map(one, (first, then), batch_size=_BATCH)


def _compute_fields(field: FieldMap, poses: np.ndarray) -> Float[np.ndarray, "n grey 3"]:
    # not by calling the map: what it does not cover is no error here
    e, _ = evaluate(field, jnp.asarray(poses), jnp.asarray(1e6), field.solver.batch_size())
    return np.asarray(e)
