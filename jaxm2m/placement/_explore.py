"""A coil moved by hand: what its field does at each pose, and in which direction it gets better.

Seven numbers place the coil: two coordinates on the scalp (mm along the axes of a starting pose, laid on the scalp), a
turn about the scalp's normal, two tilts, a distance, and dI/dt. A casing that would touch the head is lifted.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._types import ArrayLike, ScalpSurface
from jaxm2m.coil import Coil
from jaxm2m.efield import FieldMap, interpolate
from jaxm2m.placement._objectives import magnitude
from jaxm2m.placement._optimize import make_problem, optimize
from jaxm2m.placement._pose_report import Bench, Controls, PoseReport, locate, report_held, report_recorded
from jaxm2m.placement._scalp import project_to_scalp
from jaxm2m.placement._search import split_tree

_RADIUS = 5.0  # mm, of a target


@runtime_checkable
class MuscleModel(Protocol):
    """What `explore` needs of a model: `muscle.Model` and `muscle.Sources` are such."""

    @property
    def muscles(self) -> tuple[str, ...]:
        """Names of the muscles."""
        ...

    @property
    def largest(self) -> Any:
        """Return the (n_muscle,) largest MEPs of the session, uV."""
        ...

    def predict_members(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch member muscle"]:
        """Predict (..., n_member, n_muscle) shares of the largest MEPs by each network, or each draw."""
        ...


class Explorer:
    """A coil over a head, moved by hand; made by `explore`.

    Parameters
    ----------
    bench
        Everything that a pose is looked at with.
    coil
        The coil.
    inside
        (n_vertex,) mask of the vertices of the surface at which the field is known.
    muscles
        Names of the model's muscles.
    target
        (3,) mm.
    """

    def __init__(
        self,
        bench: Bench,
        coil: Coil,
        inside: Bool[np.ndarray, " vertex"],
        muscles: tuple[str, ...],
        target: Float[np.ndarray, "3"],
    ):
        self.inside, self.muscles, self.target = inside, muscles, target
        self._bench, self._coil = bench, coil
        self._dynamic, self._static = split_tree(bench)

    def __repr__(self) -> str:
        return f"Explorer({int(self.inside.sum())} vertices, {len(self.muscles)} muscles)"

    def report(self, controls: Controls) -> PoseReport:
        """Compute what the coil does where it is held, in one compiled program.

        Parameters
        ----------
        controls
            Where it is held.

        Returns
        -------
        PoseReport
            NumPy arrays.
        """
        numbers = np.asarray(controls, np.float64).astype(self._bench.base.dtype)
        return PoseReport(*map(np.asarray, report_held(self._dynamic, self._static, numbers)))

    def report_pose(self, pose: ArrayLike, didt: float | int) -> PoseReport:
        """Compute what the coil does at a pose, such as a recorded one; its gradient is left out.

        Parameters
        ----------
        pose
            (4, 4) coil frame to world, mm; lifted along its own axis where the casing lies in the head.
        didt
            A/s.

        Returns
        -------
        PoseReport
            NumPy arrays.

        Raises
        ------
        ValueError
            No single rigid pose.
        """
        matrix = _check_single(pose).astype(self._bench.base.dtype)
        current = np.asarray(_check.positive(didt, "didt", zero=True), self._bench.base.dtype)
        return PoseReport(*map(np.asarray, report_recorded(self._dynamic, self._static, matrix, current)))

    def locate(self, pose: ArrayLike, controls: Controls | None = None) -> Controls:
        """Find the controls that hold the coil over the place of a pose, turned as it is.

        Parameters
        ----------
        pose
            (4, 4) coil frame to world, mm.
        controls
            Where tilts, distance and dI/dt are taken from; by default those of no tilt, 4 mm and 1 A/us.

        Returns
        -------
        Controls
            Their `x`, `y` and `turn` are those of the pose.

        Raises
        ------
        ValueError
            No single rigid pose.
        """
        bench = self._bench
        matrix = _check_single(pose).astype(bench.base.dtype)
        x, y, turn = (float(v) for v in locate(bench.scalp, bench.base, matrix))
        return (controls or Controls())._replace(x=x, y=y, turn=turn)

    def climb(self, controls: Controls, steps: int = 8) -> list[Controls]:
        """Climb a few steps of the placement search from where the coil is held.

        The search lays the coil flat; it stays at its distance and dI/dt.

        Parameters
        ----------
        controls
            Where the coil is held.
        steps
            Number of values with gradients that the search may take.

        Returns
        -------
        list of Controls
            The accepted steps, the first where the search began; empty where the field is not known.
        """
        flat = controls._replace(tilt_x=0.0, tilt_y=0.0)
        bench = self._bench
        start = np.asarray(self.report(flat).pose, np.float64)
        try:
            best = optimize(
                bench.at_target, bench.objective, coil=self._coil, scalp=bench.scalp, initial_poses=start[None],
                distance=controls.distance, didt=max(controls.didt, 1.0), evaluations=steps, progress=False,
            )  # fmt: skip
        except ValueError:
            return []
        poses = best.history.poses[:, 0]
        moved = np.abs(np.diff(poses, axis=0)).max((1, 2), initial=0.0) > 1e-6
        return [self.locate(pose, flat) for pose in poses[np.append(True, moved)]]


def explore(
    at_grid: FieldMap,
    *,
    coil: Coil,
    scalp: ScalpSurface,
    target: ArrayLike | None = None,
    handle: ArrayLike = (-1.0, -1.0, 0.0),
    vertices: ArrayLike | None = None,
    normals: ArrayLike | None = None,
    model: MuscleModel | None = None,
    objective: Callable[[Array], Array] | None = None,
    radius: float | int = _RADIUS,
) -> Explorer:
    """Prepare a coil to be moved by hand over a head.

    Parameters
    ----------
    at_grid
        The field map of the coil, best of a basis and a tabulated coil: a pose then takes milliseconds.
    coil
        The coil, whose casing must stay outside the head.
    scalp
        `head.scalp`, mm.
    target
        (3,) mm; by default the middle of the map's points.
    handle
        (3,) the direction in which the handle points where all controls are zero, of any length (no unit).
    vertices, normals
        (n, 3) mm and (n, 3) unit vectors: the surface on which the field is wanted; by default the map's grey points,
        and the directions away from the head.
    model
        From fields at the map's points to MEPs: `muscle.Sources`, or a `muscle.Model`.
    objective
        e (n_point, 3) V/m in the target -> a number whose gradient is told and climbed; by default the mean of |E|.
    radius
        mm, of the ball of grey matter that is the target.

    Returns
    -------
    Explorer
        Its `report` tells what the coil does.

    Raises
    ------
    ValueError
        A target without grey matter, a surface of which the map knows nothing, or a model of other points.
    """
    dtype = jnp.result_type(float)
    aim = magnitude() if objective is None else objective
    grey = "grey" if _has_grey(at_grid) else None
    active = at_grid.region.active_points()
    if target is None:
        middle = (active.min(0) + active.max(0)) / 2
        centre = active[np.linalg.norm(active - middle, axis=1).argmin()]
    else:
        centre = np.asarray(_check.points(target, "target"), np.float64)
    at_target = _pick_target(at_grid, centre, float(radius), grey)
    problem = make_problem(at_target, aim, coil=coil, scalp=scalp)
    if vertices is None:
        tissues = np.asarray(at_grid.tissue)
        names = list(at_grid.metadata["tissues"])
        vertices = active[tissues == names.index("grey")] if grey else active
    points = np.asarray(_check.points(vertices, "vertices"), np.float64)
    if normals is None:
        normals = scalp.normal(jnp.asarray(points, dtype))
    outward = np.asarray(_check.points(normals, "normals"), np.float64)
    if outward.shape != points.shape:
        raise ValueError(f"normals: shape {outward.shape} for {len(points)} vertices; give one for each.")
    at_surface, inside = interpolate(at_grid, points, tissue=grey)
    at_model, model, muscles = _prepare_model(at_grid, model)
    base = project_to_scalp(scalp, coils.place(scalp, centre, handle, distance=0.0))
    bench = Bench(
        base, scalp, problem.vertices, at_target, at_surface, at_model, jnp.asarray(outward[inside], dtype), aim, model
    )
    return Explorer(bench, coil, inside, muscles, centre)


def _has_grey(at_grid: FieldMap) -> bool:
    names = list(at_grid.metadata["tissues"])
    return "grey" in names and bool((np.asarray(at_grid.tissue) == names.index("grey")).any())


def _pick_target(at_grid: FieldMap, centre: np.ndarray, radius: float, grey: str | None) -> FieldMap:
    tissues = (grey,) if grey else tuple(at_grid.metadata["tissues"])
    return at_grid.pick(at_grid.within(centre, radius, tissues))


def _prepare_model(at_grid: FieldMap, model: Any) -> tuple[FieldMap | None, Any, tuple[str, ...]]:
    """The map at the model's points, the model of fields there, and its muscles."""
    if model is None:
        return None, None, ()
    muscles: Sequence[str] = model.muscles
    if not hasattr(model, "restrict"):
        return at_grid, model, tuple(muscles)
    if model.activity.n_point != at_grid.n_point:
        raise ValueError(
            f"model: of fields at {model.activity.n_point} points, the map has {at_grid.n_point}; pass the map that it "
            "was fitted on."
        )
    index, model = model.restrict()
    return at_grid.pick(index), model, tuple(muscles)


def _check_single(pose: ArrayLike) -> np.ndarray:
    matrix = np.asarray(_check.pose(pose), np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"pose: shape {matrix.shape}; give one pose (4, 4).")
    return matrix
