"""The search as a call: starts on the scalp, all climbing in one program, the distinct ends ranked."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress
from jaxm2m.coil import Coil
from jaxm2m.placement import _search
from jaxm2m.placement._placement import Candidate, History, Placement, distinct

EDGE = 6.0  # mm, of the casing's mesh in a search: a nose or an ear passes between wider vertices
TOGETHER = 16  # starts at once where the field does not say


def optimize(
    field: Any,
    objective: Callable[[Array], Array],
    *,
    coil: Coil,
    scalp: Any,
    target: Any = None,
    starts: Any = 8,
    key: Any = None,
    radius: float | int = 30.0,
    distance: float | int = 4.0,
    didt: Any = 1e6,
    tilt: float | int = 0.0,
    offset: float | int = 0.0,
    avoid: Sequence[tuple[Any, float | int]] = (),
    evaluations: int = 60,
    check: Any = None,
    space: str | None = None,
    show: bool | None = None,
) -> Placement:
    """Place a coil so that an objective of its field is as large as it can be.

    All starts climb at once, each by a quasi-Newton search with the exact gradient, in the two coordinates on the scalp
    and the turn about its normal, and those asked for by `tilt`, `offset` and a range of `didt`. The coil lies
    tangentially at `distance`, or farther where its casing would touch the head. Starts of a negative value are turned
    first, so that a field that points the wrong way is not climbed from behind.

    Parameters
    ----------
    field
        A `FieldMap` of `Basis.bind` or `Simulator.bind`, or any JAX function (pose, *, didt) -> e. Restrict it to the
        points that the objective needs (`FieldMap.pick`).
    objective
        e (n_point, 3) V/m -> a number, to be maximised: of this room, or any JAX function.
    coil
        Its casing must stay outside the head. A coil without one is only kept at its distance.
    scalp
        `head.scalp`.
    target
        (3,) mm: starts lie round the scalp point nearest to it. Not needed where `starts` are poses.
    starts
        How many, or poses (n, 4, 4) mm.
    key
        `jax.random.key(...)`, for the starts' places and turns.
    radius
        mm, of the patch of scalp in which starts lie; infinite: the whole scalp.
    distance
        mm from the scalp to the coil's frame.
    didt
        A/s; or (lowest, highest), between which the intensity is searched as well.
    tilt
        Degrees that the coil may lean from the tangent plane.
    offset
        mm that it may stand farther off than `distance`.
    avoid
        Balls that the casing must not enter, each (centre (3,) mm, radius mm): an ear, an electrode.
    evaluations
        Values with gradients for each start, at most.
    check
        A second map, usually of the full solver, by which the best pose's value is computed once more.
    space
        Coordinate space of the poses, for `export`; by default that of the map.
    show
        A progress bar; by default on a terminal only.

    Raises
    ------
    ValueError
        Arguments that cannot be used; an intensity above the coil's largest; no start from which the search could go
        on; no pose outside the zones.
    """
    began = time.perf_counter()
    dtype = jnp.result_type(float)
    _check.integer(evaluations, "evaluations")
    _check.positive(distance, "distance", zero=True)
    for name, value in (("tilt", tilt), ("offset", offset)):
        _check.positive(value, name, zero=True)
    if tilt > 60:
        raise ValueError(f"tilt: {tilt:g} degrees; a coil that leans by more than 60 degrees is not on the scalp.")
    problem = _search.Problem(
        field,
        objective,
        scalp,
        _vertices(coil, dtype),
        jnp.asarray(distance, dtype),
        jnp.asarray(np.radians(tilt), dtype) if tilt else None,
        jnp.asarray(offset, dtype) if offset else None,
        jnp.asarray(intensity(didt, coil), dtype),
        zones(avoid, coil, dtype),
    )
    dynamic, static = _search.divided(problem)
    poses = _starts(starts, scalp, target, key, radius, dtype)
    means = getattr(field, "means", None)
    most = TOGETHER if means is None else means.together()
    # all batches alike: a last one that is smaller would be compiled as well
    together = max(k for k in range(1, most + 1) if len(poses) % k == 0)

    history: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def remember(climb: _search.Climb) -> None:
        history.append((np.asarray(climb.at.pose), np.asarray(climb.at.value), np.asarray(climb.evaluations)))

    with progress(evaluations, "placement", unit="steps", show=show) as told:
        climb = _begun(dynamic, static, poses, together, evaluations)
        remember(climb)
        told()
        for _ in range(evaluations - int(np.asarray(climb.evaluations).max())):
            active = climb.reason == _search.CLIMBING
            if not np.asarray(active).any():
                break
            at = climb.at
            trial = _search.tried(dynamic, static, active, at.base, at.extra, climb.step, climb.scale, together)
            climb = _search.judged(climb, trial)
            remember(climb)
            told()
    reasons = np.asarray(climb.reason)
    reasons = np.where(reasons == _search.CLIMBING, _search.SPENT, reasons)
    if (reasons == _search.LOST).all():
        raise ValueError(
            f"starts: the objective has no finite value and gradient at any of {len(poses)} starts: the basis does not "
            "cover them, the solves fail, or the objective itself is not finite. Start nearer to the target, or "
            "evaluate the objective at one pose to see which."
        )
    words = tuple(_search.REASONS[int(r)] for r in reasons)
    ranked = _ranked(climb, reasons, words, dynamic, static)
    checked = float("nan")
    if check is not None:
        best = ranked[0]
        checked = float(objective(check(jnp.asarray(best.pose, dtype), didt=best.didt)))
    notes = getattr(field, "notes", None)
    named: str = space or (notes["space"] if notes is not None else "subject")
    steps = History(*(np.stack(x) for x in zip(*history, strict=True)))
    return Placement(
        ranked, steps, words, int(np.asarray(climb.evaluations).sum()), named, checked, time.perf_counter() - began
    )


def _begun(dynamic: Any, static: Any, poses: Array, together: int, most: int) -> _search.Climb:
    base, extra = _search.laid(dynamic, static, poses)
    problem = _search.joined(dynamic, static)
    n, zero = len(base), jnp.zeros((len(base), 3 + problem.n_extra), base.dtype)
    everyone, scale = jnp.ones(n, bool), jnp.zeros(n, base.dtype)
    at = _search.tried(dynamic, static, everyone, base, extra, zero, scale, together)
    evaluations = jnp.ones(n, jnp.int32)
    against = at.value < 0
    if most > 1 and np.asarray(against).any():
        turned = _search.tried(dynamic, static, against, base, extra, _search.turn(at), scale, together)
        at = _search.better(against, turned, at)
        evaluations = evaluations + against
    if len(problem.zones):
        # of the objective, or of what it changes by over 30 mm
        scale = jnp.maximum(jnp.abs(at.value), 30.0 * jnp.linalg.norm(at.gradient, axis=-1))
        at = _search.tried(dynamic, static, everyone, at.base, extra, zero, scale, together)
        evaluations = evaluations + 1
    return _search.begun(at, scale, evaluations)


def _vertices(coil: Coil, dtype: Any) -> Float[Array, "vertex 3"]:
    if coil.casing is None:
        return jnp.zeros((0, 3), dtype)
    return jnp.asarray(coils.refine(coil.casing, EDGE).vertices, dtype)


def intensity(didt: Any, coil: Coil) -> np.ndarray:
    """`didt`, a number or (lowest, highest) in A/s, if the coil can do it; `ValueError` else."""
    value = np.asarray(_check.positive(didt, "didt"), np.float64)
    if value.shape not in ((), (2,)) or (value.shape == (2,) and value[0] >= value[1]):
        raise ValueError(f"didt: {didt}; give one number, or the lowest and the highest, A/s.")
    limit = float(np.nanmin(np.asarray(coil.didt_max))) if np.isfinite(np.asarray(coil.didt_max)).any() else np.inf
    if value.max() > limit:
        raise ValueError(
            f"didt: {value.max():g} A/s is more than the coil's largest, {limit:g} A/s; lower it, or correct "
            "`coil.didt_max`."
        )
    return value


def zones(avoid: Sequence[tuple[Any, float | int]], coil: Coil, dtype: Any) -> Float[Array, "zone 4"]:
    """Centres and radii, mm, of the balls to `avoid`, if the coil has a casing to keep out; `ValueError` else."""
    rows = []
    for centre, radius in avoid:
        point = np.asarray(_check.points(centre, "avoid"), np.float64)
        if point.shape != (3,):
            raise ValueError(f"avoid: shape {point.shape}; give pairs of a centre (x, y, z) and a radius, mm.")
        # from the middle of a triangle of the casing its corners may be this much farther
        rows.append([*point, np.hypot(float(_check.positive(radius, "avoid")), EDGE / 3**0.5)])
    if rows and coil.casing is None:
        raise ValueError("avoid: the coil has no casing to keep out of a zone; replace `casing` by coil.hull(points).")
    return jnp.asarray(np.array(rows).reshape(-1, 4), dtype)


def _starts(
    starts: Any, scalp: Any, target: Any, key: Any, radius: float | int, dtype: Any
) -> Float[Array, "start 4 4"]:
    if not isinstance(starts, (int, np.integer)):
        poses = np.asarray(_check.pose(starts, "starts"))
        if poses.ndim != 3 or not len(poses):
            raise ValueError(f"starts: shape {poses.shape}; give a number of starts, or poses (n, 4, 4).")
        return jnp.asarray(poses, dtype)
    count = _check.integer(starts, "starts")
    if key is None:
        raise ValueError("key: missing; give jax.random.key(0), so that the starts are the same another time.")
    if radius != np.inf:
        _check.positive(radius, "radius")
    if np.isinf(radius):
        vertices = np.asarray(scalp.vertices)
        where, _ = jax.random.split(key)
        chosen = np.asarray(jax.random.randint(where, (count,), 0, len(vertices)))
        return _anywhere(scalp, jnp.asarray(vertices[chosen].astype(dtype)), key)
    if target is None:
        raise ValueError("target: missing; the starts lie round it (or give poses as `starts`).")
    point = np.asarray(_check.points(target, "target"))
    if point.shape != (3,):
        raise ValueError(f"target: shape {point.shape}; give one point, x, y, z in mm.")
    middle = scalp.nearest(jnp.asarray(point.astype(dtype)))
    return _round(scalp, middle, np.asarray(radius, dtype), key, count)


@jax.jit
@full_precision
def _anywhere(scalp: Any, points: Array, key: Array) -> Array:
    """Poses over the points, evenly turned, in an order that has nothing to do with the places."""
    count, dtype = len(points), points.dtype
    _, turn = jax.random.split(key)
    angle = 2 * jnp.pi * (jnp.arange(count) + jax.random.uniform(turn, (), dtype)) / count
    angle = jax.random.permutation(jax.random.fold_in(turn, 1), angle)
    return jax.vmap(_turned, (None, 0, 0))(scalp, points, angle.astype(dtype))


@partial(jax.jit, static_argnames=("count",))
@full_precision
def _round(scalp: Any, middle: Array, radius: Array, key: Array, count: int) -> Array:
    """The same on a sunflower: even over the patch of the radius, the middle one over the target."""
    dtype = middle.dtype
    where, _ = jax.random.split(key)
    index = jnp.arange(count)
    out = radius * jnp.sqrt(index / count)
    around = index * jnp.pi * (3 - 5**0.5) + jax.random.uniform(where, (), dtype, 0, 2 * jnp.pi)
    pose = _turned(scalp, middle, jnp.zeros((), dtype))
    shifts = jnp.stack([out * jnp.cos(around), out * jnp.sin(around), 0 * out], -1)
    return _anywhere(scalp, pose[:3, 3] + shifts.astype(dtype) @ pose[:3, :3].T, key)


def _turned(scalp: Any, point: Array, angle: Array) -> Array:
    """A pose near a scalp point, turned by an angle against the world's axis that is least along the normal."""
    outward = scalp.normal(point)
    first = jnp.cross(outward, jnp.eye(3, dtype=point.dtype)[jnp.argmin(jnp.abs(outward))])
    first = first / jnp.sqrt(first @ first)
    y = jnp.cos(angle) * first + jnp.sin(angle) * jnp.cross(outward, first)
    columns = jnp.stack([jnp.cross(y, -outward), y, -outward, point], -1)
    return jnp.concatenate([columns, jnp.asarray([[0, 0, 0, 1]], columns.dtype)])


def _ranked(climb: _search.Climb, reasons: np.ndarray, words: tuple[str, ...], dynamic: Any, static: Any) -> Any:
    clear, trespass = (np.asarray(x) for x in _search.limits(dynamic, static, climb.at.pose))
    valued = reasons != _search.LOST
    usable = valued & (clear >= 0) & (trespass <= 0)
    if not usable.any():
        if (valued & (clear >= 0)).any():
            raise ValueError(
                "avoid: no start ended outside the zones; move the zones, allow an `offset` and more `evaluations`, or "
                "give `starts` elsewhere."
            )
        raise ValueError(
            "coil: its casing is inside the head at the end of every start; give a larger `distance`, or `starts` "
            "elsewhere."
        )
    index = np.flatnonzero(usable)
    poses, values, didt = (np.asarray(x, np.float64)[index] for x in (climb.at.pose, climb.at.value, climb.at.didt))
    return tuple(
        Candidate(
            poses[g[0]], float(values[g[0]]), float(didt[g[0]]), int(index[g[0]]), len(g), words[int(index[g[0]])]
        )
        for g in distinct(poses, values)
    )
