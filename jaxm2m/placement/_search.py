r"""A quasi-Newton ascent of many coils at once, on the scalp and in the coil's own frame.

A coil's place is its tangential pose on the scalp and a few further coordinates (tilt, offset, intensity). A step d
moves the pose by the twist (d_1, d_2, 0, 0, 0, d_3 / L), lays it on the scalp again, and adds the rest; derivatives are
taken in the frame in which the coil then stands. With B the inverse of the Hessian's estimate of -f and g the gradient
of f,

    d = B g, at most 15 mm;
    accepted if f rises by 1e-4 g.d, or does not change beyond rounding while the slope along d shrinks (W. W. Hager,
    H. Zhang, SIAM J. Optim. 16, 2005, section 4: the approximate Wolfe conditions): then

        B <- (I - r s y') B (I - r y s') + r s s',    s = d,  y = g - g_new,  r = 1 / s.y

    (BFGS: J. Nocedal, S. J. Wright, Numerical Optimization, 2nd ed. 2006, eq. 6.17; the frame carries the vectors);
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

CLIMBING, PEAK, STUCK, LOST, SPENT, EDGE = range(6)
REASONS = {
    CLIMBING: "still climbing",
    PEAK: "peak: the next step would be shorter than 0.02 mm",
    STUCK: "no rise along the gradient, within rounding",
    LOST: "no value at the start: not covered by the basis, or a failed solve",
    SPENT: "evaluations spent",
    EDGE: "edge: farther up the field has no value (not covered by the basis, or a failed solve)",
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
        pose, rest = shift(base, self.distance * outward), extra / LEVER
        if self.tilt_limit is not None:
            # the limit is reached a quarter turn away, not at infinity
            s = rest[:2] / self.tilt_limit
            far = s @ s > 1e-4
            length = jnp.sqrt(jnp.where(far, s @ s, 1))
            pose, rest = tilt(pose, rest[:2] * jnp.where(far, jnp.sin(length) / length, 1 - s @ s / 6)), rest[2:]
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
class Trial:
    """Values and gradients of all starts; the first axis runs over them.

    Attributes
    ----------
    base
        Tangential poses on the scalp.
    extra
        The further coordinates.
    pose, didt
        What they make: mm, A/s.
    value, merit
        Of the objective; less the penalty for trespassing.
    gradient
        Of the merit, in the frame of `base`.
    """

    base: Float[Array, "start 4 4"]
    extra: Float[Array, "start extra"]
    pose: Float[Array, "start 4 4"]
    didt: Float[Array, " start"]
    value: Float[Array, " start"]
    merit: Float[Array, " start"]
    gradient: Float[Array, "start coordinate"]


@tree
class Climb:
    """The state of all starts.

    Attributes
    ----------
    at
        Where they stand.
    inverse
        B.
    step
        The next trial's.
    scale
        Of the penalty.
    fresh
        No step has been accepted yet.
    evaluations, reason
        How many values with gradients; why a start has stopped (`REASONS`).
    """

    at: Trial
    inverse: Float[Array, "start coordinate coordinate"]
    step: Float[Array, "start coordinate"]
    scale: Float[Array, " start"]
    fresh: Bool[Array, " start"]
    evaluations: Int[Array, " start"]
    reason: Int[Array, " start"]


def _moved(problem: Problem, base: Array, extra: Array, step: Array) -> tuple[Array, Array]:
    zero = jnp.zeros_like(step[0])
    twist = jnp.stack([step[0], step[1], zero, zero, zero, step[2] / LEVER])
    return lay(problem.scalp, coils.move(base, twist)), extra + step[3:]


def _evaluated(problem: Problem, base: Array, extra: Array, scale: Array) -> tuple[Array, ...]:
    """Pose, dI/dt, value, value less penalty, and its gradient in the coil's own frame, of one start."""

    def merit(step):
        pose, didt = problem.placed(*_moved(problem, base, extra, step))
        value = problem.objective(problem.field(pose, didt=didt)).astype(base.dtype)
        penalty = jnp.zeros((), base.dtype)
        if len(problem.zones):
            inside = jnp.maximum(problem.trespass(pose) + ZONE_MARGIN, 0)
            penalty = ZONE_STIFFNESS * (inside * inside).sum()
        return value - scale * penalty, (value, pose, didt.astype(base.dtype))

    zero = jnp.zeros(3 + problem.n_extra, base.dtype)
    (total, (value, pose, didt)), gradient = jax.value_and_grad(merit, has_aux=True)(zero)
    return pose, didt, value, total, gradient


@partial(jax.jit, static_argnames=("static", "together"))
@full_precision
def tried(
    dynamic: Any, static: Any, active: Array, base: Array, extra: Array, step: Array, scale: Array, together: int
) -> Trial:
    """All starts moved by their steps, and evaluated there if they are active."""
    problem = joined(dynamic, static)
    base, extra = jax.vmap(partial(_moved, problem))(base, extra, step)

    def one(base, numbers):
        return _evaluated(problem, base, numbers[1:], numbers[0])

    # one by one the program of a single start, which is the faster one for solves
    several = jax.vmap(one) if together > 1 else lambda *x: jax.tree.map(lambda a: a[None], one(*(a[0] for a in x)))

    def batch(x):
        active, *arguments = x
        shapes = jax.eval_shape(several, *arguments)

        def nothing(*_):
            return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        return jax.lax.cond(active.any(), several, nothing, *arguments)

    # those that climb first, so that batches of those that have stopped cost nothing; the scale and the further
    # coordinates in one array, since there may be none of these
    order = jnp.argsort(~active)
    arrays = (active, base, jnp.concatenate([scale[:, None], extra], 1))
    batches = jax.tree.map(lambda a: a[order].reshape(-1, together, *a.shape[1:]), arrays)
    found = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[jnp.argsort(order)], jax.lax.map(batch, batches))
    return Trial(base, extra, *found)


@jax.jit
def turn(at: Trial) -> Array:
    """Steps (start, coordinate) that turn each coil to where a field along a fixed direction would be largest.

    Such a field goes with the turn t as f cos t + f' sin t. From a start against the field, the gradient alone may lead
    away to the far side of the head, where the field comes round.
    """
    angle = jnp.arctan2(LEVER * at.gradient[:, 2], at.value)
    return jnp.zeros_like(at.gradient).at[:, 2].set(LEVER * angle)


@jax.jit
def better(which: Array, new: Trial, old: Trial) -> Trial:
    """`new` of those starts of `which` that are better there, `old` of the others."""
    take = which & (new.merit > old.merit) & jnp.isfinite(new.gradient).all(-1)
    return jax.tree.map(lambda a, b: jnp.where(take.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


@partial(jax.jit, static_argnames="static")
@full_precision
def laid(dynamic: Any, static: Any, poses: Array) -> tuple[Array, Array]:
    """Places of the starts: poses (start, 4, 4) laid on the scalp, and where the further coordinates begin."""
    problem = joined(dynamic, static)
    first = problem.start()
    return jax.vmap(partial(lay, problem.scalp))(poses), jnp.broadcast_to(first, (len(poses), len(first)))


@jax.jit
def begun(at: Trial, scale: Array, evaluations: Array) -> Climb:
    """The state after the starts were evaluated."""
    length = jnp.sqrt((at.gradient**2).sum(-1))
    known = jnp.isfinite(at.merit) & jnp.isfinite(at.gradient).all(-1)
    eye = jnp.eye(at.gradient.shape[-1], dtype=at.base.dtype)
    inverse = eye * (FIRST / jnp.maximum(length, 1e-30))[:, None, None]
    return Climb(
        at,
        inverse,
        jnp.einsum("sij,sj->si", inverse, at.gradient),
        scale,
        jnp.ones(len(length), bool),
        evaluations,
        jnp.where(known & (length > 0), CLIMBING, jnp.where(known, STUCK, LOST)).astype(jnp.int32),
    )


@jax.jit
@full_precision
def judged(climb: Climb, trial: Trial) -> Climb:
    """The state after a trial of those that were climbing."""
    return jax.vmap(_judged)(climb, trial)


def _judged(climb: Climb, trial: Trial) -> Climb:
    at, step, gradient = climb.at, climb.step, climb.at.gradient
    active, rounding = climb.reason == CLIMBING, 8 * jnp.finfo(step.dtype).eps
    slope, rise = gradient @ step, trial.merit - at.merit
    known = jnp.isfinite(trial.merit) & jnp.isfinite(trial.gradient).all()
    new = jnp.where(known, trial.gradient, 0)
    level = (jnp.abs(rise) <= rounding * jnp.abs(at.merit)) & (jnp.abs(new @ step) <= 0.9 * slope)
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
    # rounding may turn an estimate round
    steep = eye * FIRST / jnp.maximum(jnp.sqrt(new @ new), 1e-30)
    updated = jnp.where(new @ updated @ new > 0, updated, steep)
    forward = updated @ new
    forward = forward * jnp.minimum(1, LONGEST / jnp.maximum(jnp.sqrt(forward @ forward), 1e-30))

    below = rise - slope  # of the tangent
    cut = jnp.where(known & (below < 0), jnp.clip(-slope / (2 * jnp.where(below < 0, below, 1)), 0.1, 0.5), 0.3)
    following = jnp.where(accepted, forward, cut * step)
    short = jnp.abs(following).max() < jnp.where(accepted, FINE, FINE / 10)
    flat = accepted & (new @ forward <= rounding * jnp.abs(trial.merit) / 8)
    reason = jnp.where(active & (short | flat), jnp.where(accepted, PEAK, jnp.where(known, STUCK, EDGE)), climb.reason)

    take = active & accepted
    moved = jax.tree.map(lambda a, b: jnp.where(take, a, b), (trial, updated, False), (at, climb.inverse, climb.fresh))
    following = jnp.where(active, following, step)
    return Climb(
        moved[0], moved[1], following, climb.scale, moved[2], climb.evaluations + active, reason.astype(jnp.int32)
    )


@partial(jax.jit, static_argnames="static")
@full_precision
def limits(dynamic: Any, static: Any, poses: Array) -> tuple[Array, Array]:
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
    # on the device once, not at every step
    dynamic = [jnp.asarray(x) for x, n in zip(leaves, numeric, strict=True) if n]
    static = (structure, tuple(None if n else x for x, n in zip(leaves, numeric, strict=True)), tuple(numeric))
    return dynamic, static


def joined(dynamic: Any, static: Any) -> Problem:
    """The inverse of `divided`."""
    structure, fixed, numeric = static
    arrays = iter(dynamic)
    return jax.tree.unflatten(structure, [next(arrays) if n else x for x, n in zip(fixed, numeric, strict=True)])
