"""A coil moved by hand: what its field does at each pose, and in which direction it gets better.

Seven numbers place the coil: two coordinates on the scalp (mm along the axes of a starting pose, laid on the scalp), a
turn about the scalp's normal, two tilts, a distance, and dI/dt. A casing that would touch the head is lifted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._norm import norm
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike, ScalpSurface
from jaxm2m.coil import Coil
from jaxm2m.efield import FieldMap, interpolate
from jaxm2m.placement._objectives import Magnitude, magnitude
from jaxm2m.placement._optimize import make_problem, optimize
from jaxm2m.placement._scalp import clear_casing, project_to_scalp, shift, tilt
from jaxm2m.placement._search import join_tree, split_tree

_RADIUS = 5.0  # mm, of a target
_PERCENTILE = 95.0
_INTERVAL = (0.05, 0.95)  # of the posterior of mean MEPs
_LOCATING = 30  # steps towards the place of a pose


class Controls(NamedTuple):
    """Where a person holds the coil, and how strongly it is driven.

    Attributes
    ----------
    x, y
        mm on the scalp, along the x and y axes of the starting pose.
    turn
        Degrees about the scalp's normal.
    tilt_x, tilt_y
        Degrees about the coil's own x and y axes.
    distance
        mm from the scalp to the coil's frame; more where the casing would touch.
    didt
        A/s.
    """

    x: float = 0.0
    y: float = 0.0
    turn: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0
    distance: float = 4.0
    didt: float = 1e6


class PoseReport(NamedTuple):
    """What is known of a pose; NaN where the field map does not cover it.

    Attributes
    ----------
    pose
        (4, 4) coil frame to world, mm, after lifting.
    frame
        (4, 4) the scalp point under the coil, with the axes along which `Controls.x` and `Controls.y` move it, mm.
    magnitude
        (n_vertex,) |E| on the surface, V/m.
    normal
        (n_vertex,) E along the surface's outward normal, V/m; negative into it.
    value
        The objective, V/m unless it has another unit.
    mean, percentile
        Mean and 95th percentile of |E| in the target, V/m.
    gradient
        (3,) derivatives of the objective: per mm along the x and the y axis of the turned coil, and per degree of turn.
    clearance
        mm between casing and head; infinite without a casing.
    shift
        mm that the coil was lifted so that its casing does not touch.
    error
        Estimated relative error of the basis, a fraction; NaN where the field is solved.
    meps
        (3, n_muscle) mean, 5 and 95 % of the predicted mean MEPs, uV; (3, 0) without a model.
    """

    pose: Any
    frame: Any
    magnitude: Any
    normal: Any
    value: Any
    mean: Any
    percentile: Any
    gradient: Any
    clearance: Any
    shift: Any
    error: Any
    meps: Any


@tree
class Bench:
    """Everything that a pose is looked at with.

    Attributes
    ----------
    base
        (4, 4) tangential pose on the scalp, mm, where all controls are zero.
    scalp, vertices
        The scalp, and (n, 3) mm of the coil's casing.
    at_target, at_surface, at_model
        The fields in the target, on the surface, and at the points of the model (None without one).
    normals
        (n_vertex, 3) of the surface, outward.
    objective
        e (n_point, 3) V/m in the target -> a number.
    model
        From fields to muscles, or None.
    """

    base: Any
    scalp: Any
    vertices: Any
    at_target: Any
    at_surface: Any
    at_model: Any
    normals: Any
    objective: Any
    model: Any


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
        return PoseReport(*map(np.asarray, _report(self._dynamic, self._static, numbers)))

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
        return PoseReport(*map(np.asarray, _report_pose(self._dynamic, self._static, matrix, current)))

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
        x, y, turn = (float(v) for v in _locate(bench.scalp, bench.base, matrix))
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
        (n, 3) mm and (n, 3) unit vectors: the surface on which the field is wanted; by default the map's grey points
        and, for their normals, those of the scalp.
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
        normals = np.asarray(scalp.normal(jnp.asarray(vertices, dtype)))
    points = np.asarray(_check.points(vertices, "vertices"), np.float64)
    outward = np.asarray(_check.points(np.zeros_like(points) if normals is None else normals, "normals"))
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


def _twist(x: Any, y: Any, turn: Any) -> Array:
    zero = jnp.zeros_like(x)
    return jnp.stack([x, y, zero, zero, zero, turn])


def _locate(scalp: ScalpSurface, base: Array, pose: np.ndarray) -> Array:
    dynamic, static = split_tree((scalp, base))
    return _locate_on(dynamic, static, pose)


@partial(jax.jit, static_argnames="static")
@full_precision
def _locate_on(dynamic: Any, static: Any, pose: Array) -> Array:
    scalp, base = join_tree(dynamic, static)
    goal = project_to_scalp(scalp, pose)
    zero = jnp.zeros((), base.dtype)

    def lay_frame(xy):
        return project_to_scalp(scalp, coils.move(base, _twist(xy[0], xy[1], zero)))

    def approach(_, xy):
        frame = lay_frame(xy)
        return xy + (goal[:3, 3] - frame[:3, 3]) @ frame[:3, :2]

    xy = jax.lax.fori_loop(0, _LOCATING, approach, jnp.zeros(2, base.dtype))
    frame, y = lay_frame(xy), goal[:3, 1]
    return jnp.append(xy, jnp.degrees(jnp.arctan2(-(y @ frame[:3, 0]), y @ frame[:3, 1])))


@partial(jax.jit, static_argnames="static")
@full_precision
def _report(dynamic: Any, static: Any, controls: Array) -> PoseReport:
    bench: Bench = join_tree(dynamic, static)
    x, y, turn, tilt_x, tilt_y, distance, didt = controls
    zero = jnp.zeros_like(x)
    frame = project_to_scalp(bench.scalp, coils.move(bench.base, _twist(x, y, zero)))
    turned = coils.move(frame, _twist(zero, zero, jnp.radians(turn)))
    angles = jnp.radians(jnp.stack([tilt_x, tilt_y]))

    def place(step):
        base = project_to_scalp(bench.scalp, coils.move(turned, _twist(step[0], step[1], jnp.radians(step[2]))))
        outward = -base[:3, 2]
        apart = tilt(shift(base, distance * outward), angles)
        return apart, _clear(bench, apart, outward)

    def value(step):
        _, pose = place(step)
        e = bench.at_target(pose, didt=didt)
        return bench.objective(e), e

    (height, e), gradient = jax.value_and_grad(value, has_aux=True)(jnp.zeros(3, controls.dtype))
    apart, pose = place(jnp.zeros(3, controls.dtype))
    return _describe(bench, apart, pose, frame, e, height, gradient, didt)


@partial(jax.jit, static_argnames="static")
@full_precision
def _report_pose(dynamic: Any, static: Any, pose: Array, didt: Array) -> PoseReport:
    bench: Bench = join_tree(dynamic, static)
    clear = _clear(bench, pose, -pose[:3, 2])
    e = bench.at_target(clear, didt=didt)
    unknown = jnp.full(3, jnp.nan, pose.dtype)
    frame = project_to_scalp(bench.scalp, pose)
    return _describe(bench, pose, clear, frame, e, bench.objective(e), unknown, didt)


def _clear(bench: Bench, pose: Array, outward: Array) -> Array:
    return clear_casing(pose, outward, bench.vertices, bench.scalp) if len(bench.vertices) else pose


def _describe(
    bench: Bench, apart: Array, pose: Array, frame: Array, e: Array, height: Array, gradient: Array, didt: Array
) -> PoseReport:
    dtype = pose.dtype
    surface: FieldMap = bench.at_surface
    (on_surface,), report = surface.solver.fields(surface.coil, pose[None], didt, 1)
    error = report[0] if isinstance(report, jax.Array) else jnp.full((), jnp.nan, dtype)
    clear = jnp.asarray(jnp.inf, dtype)
    if len(bench.vertices):
        clear = bench.scalp.distance(bench.vertices @ pose[:3, :3].T + pose[:3, 3]).min()
    size = Magnitude(None, None, None)(e), Magnitude(None, None, _PERCENTILE)(e)
    moved = pose[:3, 3] - apart[:3, 3]
    return PoseReport(
        pose, frame, norm(on_surface), (on_surface * bench.normals).sum(-1), height, *size, gradient, clear,
        jnp.sqrt(moved @ moved), error, _predict(bench, pose, didt),
    )  # fmt: skip


def _predict(bench: Bench, pose: Array, didt: Array) -> Array:
    """Mean and interval of the mean MEPs over the model's members."""
    model = bench.model
    if model is None:
        return jnp.zeros((3, 0), pose.dtype)
    e = bench.at_model(pose, didt=didt)
    members = model.predict_members(e, didt=didt) * model.largest
    return jnp.concatenate([members.mean(0)[None], jnp.quantile(members, jnp.asarray(_INTERVAL), axis=0)])
