"""What is known of a pose of a coil over a head, as one compiled program of seven numbers."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxm2m import coil as coils
from jaxm2m._norm import norm
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m._types import ScalpSurface
from jaxm2m.efield import FieldMap
from jaxm2m.placement._objectives import Magnitude
from jaxm2m.placement._scalp import clear_casing, project_to_scalp, shift, tilt
from jaxm2m.placement._search import join_tree, split_tree

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


def _twist(x: Any, y: Any, turn: Any) -> Array:
    zero = jnp.zeros_like(x)
    return jnp.stack([x, y, zero, zero, zero, turn])


def locate(scalp: ScalpSurface, base: Array, pose: Any) -> Array:
    """Find x, y (mm) and the turn (degrees) from `base` of a pose on the scalp."""
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
def report_held(dynamic: Any, static: Any, controls: Array) -> PoseReport:
    """Report on a coil that controls (7,) hold."""
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
def report_recorded(dynamic: Any, static: Any, pose: Array, didt: Array) -> PoseReport:
    """Report on a coil at a pose (4, 4), lifted where it touches."""
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
