r"""A quasi-Newton ascent of many coils at once, on the scalp and in the coil's own frame.

A coil's place is its tangential pose on the scalp and a few further coordinates (tilt, offset, intensity). A step d moves
the pose by the twist (d_1, d_2, 0, 0, 0, d_3 / L), lays it on the scalp again, and adds the rest; derivatives are taken in
the frame in which the coil then stands. With B the inverse of the Hessian's estimate of -f and g the gradient of f,

    d = B g, at most 15 mm;
    accepted if f rises by 1e-4 g.d, or not beyond rounding while the slope along d shrinks (W. W. Hager, H. Zhang,
    SIAM J. Optim. 16, 2005, eq. 4.1, 27): then B <- (I - r s y') B (I - r y s') + r s s', s = d, y = g - g_new, r = 1 / s.y
    (J. Nocedal, S. J. Wright, Numerical Optimization, 2nd ed. 2006, eq. 6.17; the frame carries vectors from one place to
    the next);
    else cut back to the peak of the parabola through f, g.d and the new f.

One step of all coils is one program; each evaluates one value and gradient, those that have stopped nothing.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._tree import tree
from jaxm2m.placement._lay import lay, lift, shift, tilt

LEVER = 50.0  # mm: turning by 1 / LEVER moves the middle of a wing by 1 mm
FIRST, LONGEST = 6.0, 15.0  # mm
FINE = 0.02  # mm: a step this short ends a search
ZONE_MARGIN = 0.5  # mm that zones are grown by; what the penalty gives way is less
ZONE_STIFFNESS = 0.2  # of the objective, a mm^2

CLIMBING, PEAK, STUCK, LOST, SPENT = range(5)
REASONS = {
    CLIMBING: "still climbing",
    PEAK: "peak: the next step would be shorter than 0.02 mm",
    STUCK: "no rise along the gradient, within rounding",
    LOST: "no value at the start: not covered by the basis, or a failed solve",
    SPENT: "evaluations spent",
}


@tree
class Problem:
    """What a search needs to know.

    Attributes
    ----------
    field
        `FieldMap`, or any function of a pose and `didt`.
    objective
        e (n_point, 3) -> value.
    scalp
        Of the head.
    vertices
        (n, 3) mm, of the coil's casing; none where the coil has no casing.
    distance
        mm from the scalp to the coil's frame, at least.
    tilt_limit, offset_limit
        rad, mm; None where the coordinate is not searched.
    didt
        A/s; or the limits (2,) between which the intensity is searched.
    zones
        (n_zone, 4): centre and radius of balls that the casing must not enter, mm.
    """

    field: Any
    objective: Any
    scalp: Any
    vertices: Float[Array, "vertex 3"]
    distance: Float[Array, ""]
    tilt_limit: Any
    offset_limit: Any
    didt: Any
    zones: Float[Array, "zone 4"]

    @property
    def n_extra(self) -> int:
        """Coordinates beyond the three on the scalp."""
        return 2 * (self.tilt_limit is not None) + (self.offset_limit is not None) + (self.didt.ndim == 1)

    def start(self) -> Array:
        """Where the further coordinates begin (mm-like): no tilt, little offset, the middle intensity."""
        first = [0.0, 0.0] if self.tilt_limit is not None else []
        first += [0.3 * LEVER] if self.offset_limit is not None else []
        first += [0.25 * jnp.pi * LEVER] if self.didt.ndim == 1 else []
        return jnp.asarray(first, self.distance.dtype)

    def placed(self, base: Array, extra: Array) -> tuple[Array, Array]:
        """The pose, tilted, lifted and clear of the head, and dI/dt."""
        outward = -base[:3, 2]
        pose, rest = base, extra / LEVER
        if self.tilt_limit is not None:
            s = rest[:2] / self.tilt_limit
            pose, rest = tilt(pose, self.tilt_limit * s / jnp.sqrt(1 + s @ s)), rest[2:]
        if self.offset_limit is not None:
            pose, rest = shift(pose, self.offset_limit * jnp.sin(rest[0]) ** 2 * outward), rest[1:]
        didt = self.didt
        if didt.ndim == 1:
            didt = didt[0] + (didt[1] - didt[0]) * jnp.sin(rest[0]) ** 2
        if len(self.vertices):
            pose = lift(pose, outward, self.vertices, self.scalp)
        return pose, didt

    def trespass(self, pose: Array) -> Array:
        """(n_zone,) mm that the casing reaches into each zone."""
        points = self.vertices @ pose[:3, :3].T + pose[:3, 3]
        away = points[None] - self.zones[:, None, :3]
        return self.zones[:, 3] - jnp.sqrt((away * away).sum(-1).min(-1))


@tree
class Climb:
    """The state of all starts; the first axis runs over them."""

    base: Float[Array, "start 4 4"]
    extra: Float[Array, "start extra"]
    pose: Float[Array, "start 4 4"]
    didt: Float[Array, " start"]
    value: Float[Array, " start"]
    merit: Float[Array, " start"]
    gradient: Float[Array, "start coordinate"]
    inverse: Float[Array, "start coordinate coordinate"]
    step: Float[Array, "start coordinate"]
    scale: Float[Array, " start"]
    fresh: Bool[Array, " start"]
    evaluations: Int[Array, " start"]
    reason: Int[Array, " start"]


def _moved(problem: Problem, base: Array, extra: Array, step: Array) -> tuple[Array, Array]:
    zero = jnp.zeros_like(step[0])
    twist = jnp.stack([step[0], step[1], zero, zero, zero, step[2] / LEVER])
    return lay(problem.scalp, coils.move(base, twist), problem.distance), extra + step[3:]


def _evaluated(problem: Problem, base: Array, extra: Array, scale: Array) -> dict[str, Array]:
    """Value, value less penalty, and its gradient in the coil's own frame."""

    def merit(step):
        pose, didt = problem.placed(*_moved(problem, base, extra, step))
        value = problem.objective(problem.field(pose, didt=didt)).astype(base.dtype)
        penalty = jnp.zeros((), base.dtype)
        if len(problem.zones):
            inside = jnp.maximum(problem.trespass(pose) + ZONE_MARGIN, 0)
            penalty = ZONE_STIFFNESS * (inside * inside).sum()
        return value - scale * penalty, (value, penalty, pose, didt)

    (total, (value, penalty, pose, didt)), gradient = jax.value_and_grad(merit, has_aux=True)(
        jnp.zeros(3 + problem.n_extra, base.dtype)
    )
    didt = jnp.broadcast_to(didt, ()).astype(base.dtype)
    return {"merit": total, "value": value, "penalty": penalty, "pose": pose, "didt": didt, "gradient": gradient}


def _all_evaluated(problem: Problem, active: Array, base: Array, extra: Array, scale: Array, together: int) -> Any:
    def one(x):
        active, *rest = x
        shapes = jax.eval_shape(lambda *a: _evaluated(problem, *a), *rest)

        def nothing(*_):
            return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        # one by one the stopped cost nothing; together with others they are computed and dropped
        return jax.lax.cond(active, lambda *a: _evaluated(problem, *a), nothing, *rest)

    return jax.lax.map(one, (active, base, extra, scale), batch_size=together if together > 1 else None)


@partial(jax.jit, static_argnames=("static", "together"))
@full_precision
def begin(dynamic: Any, static: Any, poses: Array, together: int) -> Climb:
    """The state at the starts, poses (start, 4, 4) near the scalp."""
    problem = joined(dynamic, static)
    base = jax.vmap(lambda p: lay(problem.scalp, p, problem.distance))(poses)
    n, first = len(base), problem.start()
    extra = jnp.broadcast_to(first, (n, len(first)))
    one = jnp.ones(n, base.dtype)
    found = _all_evaluated(problem, one > 0, base, extra, 0 * one, together)
    length = jnp.sqrt((found["gradient"] ** 2).sum(-1))
    # a target beyond which the objective fades over 30 mm
    scale = jnp.maximum(jnp.abs(found["value"]), 30.0 * length)
    if len(problem.zones):
        found = _all_evaluated(problem, one > 0, base, extra, scale, together)
        length = jnp.sqrt((found["gradient"] ** 2).sum(-1))
    known = jnp.isfinite(found["merit"]) & jnp.isfinite(found["gradient"]).all(-1)
    inverse = jnp.eye(3 + len(first), dtype=base.dtype) * (FIRST / jnp.maximum(length, 1e-30))[:, None, None]
    return Climb(
        base,
        extra,
        found["pose"],
        found["didt"],
        found["value"],
        found["merit"],
        found["gradient"],
        inverse,
        jnp.einsum("sij,sj->si", inverse, found["gradient"]),
        scale,
        jnp.ones(n, bool),
        jnp.full(n, 1 + (len(problem.zones) > 0), jnp.int32),
        jnp.where(known & (length > 0), CLIMBING, jnp.where(known, STUCK, LOST)).astype(jnp.int32),
    )


@partial(jax.jit, static_argnames=("static", "together"))
@full_precision
def advance(dynamic: Any, static: Any, climb: Climb, together: int) -> Climb:
    """One trial step of every start that is still climbing."""
    problem = joined(dynamic, static)
    active = climb.reason == CLIMBING
    base, extra = jax.vmap(partial(_moved, problem))(climb.base, climb.extra, climb.step)
    found = _all_evaluated(problem, active, base, extra, climb.scale, together)
    return jax.vmap(_judged)(climb, found, base, extra, active)


def _judged(climb: Climb, found: dict[str, Array], base: Array, extra: Array, active: Array) -> Climb:
    """The state of one start after its trial."""
    step, gradient, rounding = climb.step, climb.gradient, 8 * jnp.finfo(base.dtype).eps
    slope, rise = gradient @ step, found["merit"] - climb.merit
    known = jnp.isfinite(found["merit"]) & jnp.isfinite(found["gradient"]).all()
    new = jnp.where(known, found["gradient"], 0)
    level = (jnp.abs(rise) <= rounding * jnp.abs(climb.merit)) & (jnp.abs(new @ step) <= 0.9 * slope)
    accepted = known & ((rise >= 1e-4 * slope) | level)

    change = gradient - new
    curvature = step @ change
    bends = curvature > 1e-6 * jnp.sqrt((step @ step) * (change @ change))
    safe = jnp.where(bends, curvature, 1)
    # the first estimate knows no scale: take that of the curvature just met
    eye = jnp.eye(len(step), dtype=step.dtype)
    rough = jnp.where(climb.fresh & bends, eye * safe / jnp.where(bends, change @ change, 1), climb.inverse)
    keep = eye - jnp.outer(step, change) / safe
    updated = jnp.where(bends, keep @ rough @ keep.T + jnp.outer(step, step) / safe, climb.inverse)
    forward = updated @ new
    # after steps that were cut, an estimate may point down
    updated = jnp.where(forward @ new > 0, updated, eye * FIRST / jnp.maximum(jnp.sqrt(new @ new), 1e-30))
    forward = updated @ new
    forward = forward * jnp.minimum(1, LONGEST / jnp.maximum(jnp.sqrt(forward @ forward), 1e-30))

    below = rise - slope  # of the tangent
    cut = jnp.where(known & (below < 0), jnp.clip(-slope / (2 * jnp.where(below < 0, below, 1)), 0.1, 0.5), 0.3)
    trial = jnp.where(accepted, forward, cut * step)
    short = jnp.abs(trial).max() < jnp.where(accepted, FINE, FINE / 10)
    flat = accepted & (new @ forward <= rounding * jnp.abs(found["merit"]) / 8)
    ended = jnp.where(accepted, PEAK, STUCK)
    reason = jnp.where(active & (short | flat), ended, climb.reason).astype(jnp.int32)

    take = active & accepted
    after = Climb(
        base, extra, found["pose"], found["didt"], found["value"], found["merit"], new, updated, trial,
        climb.scale, jnp.zeros((), bool), climb.evaluations, reason,
    )  # fmt: skip
    result = jax.tree.map(lambda a, b: jnp.where(take, a, b), after, climb)
    return Climb(
        result.base, result.extra, result.pose, result.didt, result.value, result.merit, result.gradient,
        result.inverse, jnp.where(active, trial, climb.step), climb.scale, result.fresh,
        climb.evaluations + active, reason,
    )  # fmt: skip


@partial(jax.jit, static_argnames="static")
@full_precision
def judged(dynamic: Any, static: Any, poses: Array) -> tuple[Array, Array]:
    """(start,) clearance of the casing (mm, infinite without one) and the deepest trespass (mm) of poses."""
    problem = joined(dynamic, static)

    def one(pose):
        clear = trespass = jnp.asarray(jnp.inf, pose.dtype)
        if len(problem.vertices):
            clear = problem.scalp.distance(problem.vertices @ pose[:3, :3].T + pose[:3, 3]).min()
        trespass = problem.trespass(pose).max() if len(problem.zones) else -trespass
        return clear, trespass

    return jax.lax.map(one, poses, batch_size=16)


def divided(problem: Problem) -> tuple[Any, Any]:
    """The problem as arrays, which pass through `jit` as arguments, and the rest, which is part of the program."""
    leaves, structure = jax.tree.flatten(problem)
    numeric = [isinstance(x, (jax.Array, float, int)) or hasattr(x, "__array__") for x in leaves]
    dynamic = [x for x, n in zip(leaves, numeric, strict=True) if n]
    static = (structure, tuple(None if n else x for x, n in zip(leaves, numeric, strict=True)), tuple(numeric))
    return dynamic, static


def joined(dynamic: Any, static: Any) -> Problem:
    """The inverse of `divided`."""
    structure, fixed, numeric = static
    arrays = iter(dynamic)
    return jax.tree.unflatten(structure, [next(arrays) if n else x for x, n in zip(fixed, numeric, strict=True)])
