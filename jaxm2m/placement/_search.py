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

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m._types import ScalpSurface
from jaxm2m.placement._scalp import clear_casing, project_to_scalp, shift, tilt

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
class SearchProblem:
    """What a search climbs, and within which limits.

    Attributes
    ----------
    field
        V/m: a `FieldMap`, or any function of a pose and `didt`.
    objective
        e (n_point, 3) V/m -> a number.
    scalp
        `head.scalp`, mm.
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

    field: Callable[..., Array]
    objective: Callable[[Array], Array]
    scalp: ScalpSurface
    vertices: Float[Array, "vertex 3"]
    distance: Float[Array, ""]
    tilt_limit: Any
    offset_limit: Any
    didt: Any
    zones: Float[Array, "zone 4"]

    lever: ClassVar[float] = LEVER

    @property
    def n_extra(self) -> int:
        """Number of coordinates beyond the three on the scalp."""
        return 2 * (self.tilt_limit is not None) + (self.offset_limit is not None) + (self.didt.ndim == 1)

    def start(self) -> Array:
        """Return where the further coordinates begin: no tilt, little offset, the middle intensity.

        Returns
        -------
        extra
            (n_extra,) in mm of the lever.
        """
        first = [0.0, 0.0] if self.tilt_limit is not None else []
        first += [0.3 * LEVER] if self.offset_limit is not None else []
        first += [0.25 * jnp.pi * LEVER] if self.didt.ndim == 1 else []
        return jnp.asarray(first, self.distance.dtype)

    def place(self, base: Array, extra: Array) -> tuple[Array, Array]:
        """Place the coil: at its distance, tilted, lifted, and clear of the head.

        Parameters
        ----------
        base
            (4, 4) tangential pose on the scalp, mm.
        extra
            (n_extra,) the further coordinates, in mm of the lever.

        Returns
        -------
        pose
            (4, 4) coil frame to world, mm.
        didt
            A/s.
        """
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
            pose = clear_casing(pose, outward, self.vertices, self.scalp)
        return pose, didt

    def move(self, base: Array, extra: Array, step: Array) -> tuple[Array, Array]:
        """Move a pose along the scalp and its further coordinates.

        Parameters
        ----------
        base
            (4, 4) tangential pose on the scalp, mm.
        extra
            (n_extra,) the further coordinates, in mm of the lever.
        step
            (3 + n_extra,) mm across, mm along, and turn; turns and further coordinates in mm of the lever (`lever` mm
            a rad).

        Returns
        -------
        base
            (4, 4) mm, on the scalp again.
        extra
            (n_extra,) mm of the lever.
        """
        zero = jnp.zeros_like(step[0])
        twist = jnp.stack([step[0], step[1], zero, zero, zero, step[2] / LEVER])
        return project_to_scalp(self.scalp, coils.move(base, twist)), extra + step[3:]

    def constraint_violation(self, pose: Array) -> Array:
        """Measure how far the casing reaches into each zone.

        Parameters
        ----------
        pose
            (4, 4) mm.

        Returns
        -------
        depth
            (n_zone,) mm, negative outside.
        """
        points = self.vertices @ pose[:3, :3].T + pose[:3, 3]
        away = points[None] - self.zones[:, None, :3]
        return self.zones[:, 3] - jnp.sqrt((away * away).sum(-1).min(-1))


@tree
class Evaluation:
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
class SearchState:
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

    at: Evaluation
    inverse: Float[Array, "start coordinate coordinate"]
    step: Float[Array, "start coordinate"]
    scale: Float[Array, " start"]
    fresh: Bool[Array, " start"]
    evaluations: Int[Array, " start"]
    reason: Int[Array, " start"]


def _evaluate_start(problem: SearchProblem, base: Array, extra: Array, scale: Array) -> tuple[Array, ...]:
    """Pose, dI/dt, value, value less penalty, and its gradient in the coil's own frame, of one start."""

    def merit(step):
        pose, didt = problem.place(*problem.move(base, extra, step))
        value = problem.objective(problem.field(pose, didt=didt)).astype(base.dtype)
        penalty = jnp.zeros((), base.dtype)
        if len(problem.zones):
            inside = jnp.maximum(problem.constraint_violation(pose) + ZONE_MARGIN, 0)
            penalty = ZONE_STIFFNESS * (inside * inside).sum()
        return value - scale * penalty, (value, pose, didt.astype(base.dtype))

    zero = jnp.zeros(3 + problem.n_extra, base.dtype)
    (total, (value, pose, didt)), gradient = jax.value_and_grad(merit, has_aux=True)(zero)
    return pose, didt, value, total, gradient


@partial(jax.jit, static_argnames=("static", "batch_size"))
@full_precision
def evaluate_step(
    dynamic: Any, static: Any, active: Array, base: Array, extra: Array, step: Array, scale: Array, batch_size: int
) -> Evaluation:
    """All starts moved by their steps, and evaluated there if they are active."""
    problem = join_problem(dynamic, static)
    base, extra = jax.vmap(problem.move)(base, extra, step)

    def one(base, numbers):
        return _evaluate_start(problem, base, numbers[1:], numbers[0])

    # one by one the program of a single start, which is the faster one for solves
    several = jax.vmap(one) if batch_size > 1 else lambda *x: jax.tree.map(lambda a: a[None], one(*(a[0] for a in x)))

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
    batches = jax.tree.map(lambda a: a[order].reshape(-1, batch_size, *a.shape[1:]), arrays)
    results = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[jnp.argsort(order)], jax.lax.map(batch, batches))
    return Evaluation(base, extra, *results)


@jax.jit
def turn_steps(at: Evaluation) -> Array:
    """Steps (start, coordinate) that turn each coil to where a field along a fixed direction would be largest.

    Such a field goes with the turn t as f cos t + f' sin t. From a start against the field, the gradient alone may lead
    away to the far side of the head, where the field comes round.
    """
    angle = jnp.arctan2(LEVER * at.gradient[:, 2], at.value)
    return jnp.zeros_like(at.gradient).at[:, 2].set(LEVER * angle)


@jax.jit
def keep_better(which: Array, new: Evaluation, old: Evaluation) -> Evaluation:
    """`new` of those starts of `which` that are better there, `old` of the others."""
    take = which & (new.merit > old.merit) & jnp.isfinite(new.gradient).all(-1)
    return jax.tree.map(lambda a, b: jnp.where(take.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


@partial(jax.jit, static_argnames="static")
@full_precision
def place_starts(dynamic: Any, static: Any, poses: Array) -> tuple[Array, Array]:
    """Places of the starts: poses (start, 4, 4) laid on the scalp, and where the further coordinates begin."""
    problem = join_problem(dynamic, static)
    first = problem.start()
    return jax.vmap(partial(project_to_scalp, problem.scalp))(poses), jnp.broadcast_to(first, (len(poses), len(first)))


@jax.jit
def initial_state(at: Evaluation, scale: Array, evaluations: Array) -> SearchState:
    """The state after the starts were evaluated."""
    length = jnp.sqrt((at.gradient**2).sum(-1))
    known = jnp.isfinite(at.merit) & jnp.isfinite(at.gradient).all(-1)
    eye = jnp.eye(at.gradient.shape[-1], dtype=at.base.dtype)
    inverse = eye * (FIRST / jnp.maximum(length, 1e-30))[:, None, None]
    return SearchState(
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
def accept_step(climb: SearchState, trial: Evaluation) -> SearchState:
    """The state after a trial of those that were climbing."""
    return jax.vmap(_accept_one)(climb, trial)


def _accept_one(climb: SearchState, trial: Evaluation) -> SearchState:
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
    return SearchState(
        moved[0], moved[1], following, climb.scale, moved[2], climb.evaluations + active, reason.astype(jnp.int32)
    )


@partial(jax.jit, static_argnames="static")
@full_precision
def constraint_values(dynamic: Any, static: Any, poses: Array) -> tuple[Array, Array]:
    """(start,) clearance of the casing (mm, infinite without one) and the deepest trespass (mm) of poses."""
    problem = join_problem(dynamic, static)

    def one(pose):
        clear = violation = jnp.asarray(jnp.inf, pose.dtype)
        if len(problem.vertices):
            clear = problem.scalp.distance(problem.vertices @ pose[:3, :3].T + pose[:3, 3]).min()
        violation = problem.constraint_violation(pose).max() if len(problem.zones) else -violation
        return clear, violation

    return jax.lax.map(one, poses, batch_size=16)


def split_problem(problem: SearchProblem) -> tuple[Any, Any]:
    """The problem as arrays, which pass through `jit` as arguments, and the rest, which is part of the program."""
    return split_tree(problem)


def join_problem(dynamic: Any, static: Any) -> SearchProblem:
    """The inverse of `split_problem`."""
    return join_tree(dynamic, static)


def split_tree(value: Any) -> tuple[Any, Any]:
    """A pytree as arrays, and its structure with whatever is no array."""
    leaves, structure = jax.tree.flatten(value)
    numeric = [isinstance(x, (jax.Array, float, int)) or hasattr(x, "__array__") for x in leaves]
    # on the device once, not at every step
    dynamic = [jnp.asarray(x) for x, n in zip(leaves, numeric, strict=True) if n]
    static = (structure, tuple(None if n else x for x, n in zip(leaves, numeric, strict=True)), tuple(numeric))
    return dynamic, static


def join_tree(dynamic: Any, static: Any) -> Any:
    """The inverse of `split_tree`."""
    structure, fixed, numeric = static
    arrays = iter(dynamic)
    return jax.tree.unflatten(structure, [next(arrays) if n else x for x, n in zip(fixed, numeric, strict=True)])
