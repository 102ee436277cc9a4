"""The search as a call: starts on the scalp, all climbing in one program, the distinct ends ranked."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress_bar
from jaxm2m._types import ArrayLike, DTypeLike, ScalpSurface
from jaxm2m.coil import Coil
from jaxm2m.placement import _search
from jaxm2m.placement._placement import Candidate, History, Placement, group_poses

EDGE = 6.0  # mm, of the casing's mesh in a search: a nose or an ear passes between wider vertices
BATCH_SIZE = 16  # starts at once where the field does not say


@full_precision
def optimize(
    field: Callable[..., Array],
    objective: Callable[[Array], Array],
    *,
    coil: Coil,
    scalp: ScalpSurface,
    target: ArrayLike | None = None,
    n_starts: int = 8,
    initial_poses: ArrayLike | None = None,
    key: Key[Array, ""] | None = None,
    radius: float | int = 30.0,
    distance: float | int = 4.0,
    didt: ArrayLike = 1e6,
    tilt: float | int = 0.0,
    offset: float | int = 0.0,
    avoid: Sequence[tuple[ArrayLike, float | int]] = (),
    evaluations: int = 60,
    check: Callable[..., Array] | None = None,
    space: str | None = None,
    progress: bool | None = None,
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
        The coil; its casing must stay outside the head. A coil without one is only kept at its distance.
    scalp
        `head.scalp`, mm.
    target
        (3,) mm: starts lie round the scalp point nearest to it. Not needed with `initial_poses`.
    n_starts
        Number of starts.
    initial_poses
        (n, 4, 4) mm, coil frame to world: the starts themselves, in place of `n_starts` round the target.
    key
        `jax.random.key(...)`, for the starts' places and turns; not needed with `initial_poses`.
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
        Balls, in mm, that the casing must not enter, each (centre (3,) mm, radius mm): an ear, an electrode.
    evaluations
        Number of values with gradients for each start, at most.
    check
        A second map, usually of the full solver, by which the best pose's value is computed once more.
    space
        Coordinate space of the poses, for `export`; by default that of the map.
    progress
        Whether to show a progress bar; by default on a terminal only.

    Returns
    -------
    Placement
        The distinct poses that the starts reached (mm), ranked by the objective, with the whole history.

    Raises
    ------
    ValueError
        Arguments that cannot be used; an intensity above the coil's largest; no start from which the search could go
        on; no pose outside the zones.
    """
    began = time.perf_counter()
    dtype = jnp.result_type(float)
    _check.integer(evaluations, "evaluations")
    problem = make_problem(
        field, objective, coil=coil, scalp=scalp, distance=distance, didt=didt, tilt=tilt, offset=offset, avoid=avoid
    )
    dynamic, static = _search.split_problem(problem)
    poses = _make_starts(n_starts, initial_poses, scalp, target, key, radius, dtype)
    solver = getattr(field, "solver", None)
    most = BATCH_SIZE if solver is None else solver.batch_size()
    # all batches alike: a last one that is smaller would be compiled as well
    batch_size = max(k for k in range(1, most + 1) if len(poses) % k == 0)

    history: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def record(climb: _search.SearchState) -> None:
        history.append((np.asarray(climb.at.pose), np.asarray(climb.at.value), np.asarray(climb.evaluations)))

    with progress_bar(evaluations, "placement", unit="steps", enabled=progress) as advance:
        climb = _begin_search(dynamic, static, poses, batch_size, evaluations)
        record(climb)
        advance()
        for _ in range(evaluations - int(np.asarray(climb.evaluations).max())):
            active = climb.reason == _search.CLIMBING
            if not np.asarray(active).any():
                break
            at = climb.at
            trial = _search.evaluate_step(
                dynamic, static, active, at.base, at.extra, climb.step, climb.scale, batch_size
            )
            climb = _search.accept_step(climb, trial)
            record(climb)
            advance()
    reasons = np.asarray(climb.reason)
    reasons = np.where(reasons == _search.CLIMBING, _search.SPENT, reasons)
    if (reasons == _search.LOST).all():
        raise ValueError(
            f"n_starts: the objective has no finite value and gradient at any of {len(poses)} starts: the basis does "
            "not cover them, the solves fail, or the objective itself is not finite. Start nearer to the target, or "
            "evaluate the objective at one pose to see which."
        )
    words = tuple(_search.REASONS[int(r)] for r in reasons)
    ranked = _rank_ends(climb, reasons, words, dynamic, static)
    checked = float("nan")
    if check is not None:
        best = ranked[0]
        checked = float(objective(check(jnp.asarray(best.pose, dtype), didt=best.didt)))
    metadata = getattr(field, "metadata", None)
    named: str = space or (metadata["space"] if metadata is not None else "subject")
    steps = History(*(np.stack(x) for x in zip(*history, strict=True)))
    return Placement(
        ranked, steps, words, int(np.asarray(climb.evaluations).sum()), named, checked, time.perf_counter() - began
    )


def make_problem(
    field: Callable[..., Array],
    objective: Callable[[Array], Array],
    *,
    coil: Coil,
    scalp: ScalpSurface,
    distance: float | int = 4.0,
    didt: ArrayLike = 1e6,
    tilt: float | int = 0.0,
    offset: float | int = 0.0,
    avoid: Sequence[tuple[ArrayLike, float | int]] = (),
) -> _search.SearchProblem:
    """Put together what a search climbs, and within which limits, for searches of one's own.

    Parameters
    ----------
    field, objective, coil, scalp, distance, didt, tilt, offset, avoid
        As in `optimize`: mm, A/s and degrees.

    Returns
    -------
    SearchProblem
        Its `move` and `place` are the coordinates of the search.

    Raises
    ------
    ValueError
        Arguments that cannot be used.
    """
    dtype = jnp.result_type(float)
    _check.positive(distance, "distance", zero=True)
    for name, value in (("tilt", tilt), ("offset", offset)):
        _check.positive(value, name, zero=True)
    if tilt > 60:
        raise ValueError(f"tilt: {tilt:g} degrees; a coil that leans by more than 60 degrees is not on the scalp.")
    return _search.SearchProblem(
        field,
        objective,
        scalp,
        _vertices(coil, dtype),
        jnp.asarray(distance, dtype),
        jnp.asarray(np.radians(tilt), dtype) if tilt else None,
        jnp.asarray(offset, dtype) if offset else None,
        jnp.asarray(check_didt(didt, coil), dtype),
        check_zones(avoid, coil, dtype),
    )


def _begin_search(dynamic: Any, static: Any, poses: Array, batch_size: int, most: int) -> _search.SearchState:
    base, extra = _search.place_starts(dynamic, static, poses)
    problem = _search.join_problem(dynamic, static)
    n, zero = len(base), jnp.zeros((len(base), 3 + problem.n_extra), base.dtype)
    everyone, scale = jnp.ones(n, bool), jnp.zeros(n, base.dtype)
    at = _search.evaluate_step(dynamic, static, everyone, base, extra, zero, scale, batch_size)
    evaluations = jnp.ones(n, jnp.int32)
    against = at.value < 0
    if most > 1 and np.asarray(against).any():
        turned = _search.evaluate_step(dynamic, static, against, base, extra, _search.turn_steps(at), scale, batch_size)
        at = _search.keep_better(against, turned, at)
        evaluations = evaluations + against
    if len(problem.zones):
        # of the objective, or of what it changes by over 30 mm
        scale = jnp.maximum(jnp.abs(at.value), 30.0 * jnp.linalg.norm(at.gradient, axis=-1))
        at = _search.evaluate_step(dynamic, static, everyone, at.base, extra, zero, scale, batch_size)
        evaluations = evaluations + 1
    return _search.initial_state(at, scale, evaluations)


def _vertices(coil: Coil, dtype: Any) -> Float[Array, "vertex 3"]:
    if coil.casing is None:
        return jnp.zeros((0, 3), dtype)
    return jnp.asarray(coils.refine(coil.casing, EDGE).vertices, dtype)


def check_didt(didt: ArrayLike, coil: Coil) -> Float[np.ndarray, "*limits"]:
    """Check that a coil can be driven as fast as a search may ask.

    Parameters
    ----------
    didt
        A/s: a number, or (lowest, highest).
    coil
        The coil; `coil.didt_max` is its limit.

    Returns
    -------
    didt
        () or (2,) A/s, float64.

    Raises
    ------
    ValueError
        Another shape, limits that do not grow, or more than the coil can do.
    """
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


def check_zones(
    avoid: Sequence[tuple[ArrayLike, float | int]], coil: Coil, dtype: DTypeLike | None = None
) -> Float[Array, "zone 4"]:
    """Check the balls that a coil's casing must not enter.

    Parameters
    ----------
    avoid
        (centre (3,), radius) of each ball, mm.
    coil
        The coil; it needs a casing to be kept out.
    dtype
        Precision of the result; by default that of JAX.

    Returns
    -------
    zones
        (n_zone, 4) centre and radius, mm; radii are grown by what the casing's mesh may overlook.

    Raises
    ------
    ValueError
        A centre that is no point, a radius that is not above zero, or a coil without a casing.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    rows = []
    for centre, radius in avoid:
        point = np.asarray(_check.points(centre, "avoid"), np.float64)
        if point.shape != (3,):
            raise ValueError(f"avoid: shape {point.shape}; give pairs of a centre (x, y, z) and a radius, mm.")
        # from the middle of a triangle of the casing its corners may be this much farther
        rows.append([*point, np.hypot(float(_check.positive(radius, "avoid")), EDGE / 3**0.5)])
    if rows and coil.casing is None:
        raise ValueError(
            "avoid: the coil has no casing to keep out of a zone; replace `casing` by coil.offset_surface(points)."
        )
    return jnp.asarray(np.array(rows).reshape(-1, 4), dtype)


def _make_starts(
    n_starts: int, initial_poses: Any, scalp: ScalpSurface, target: Any, key: Any, radius: float | int, dtype: Any
) -> Float[Array, "start 4 4"]:
    if initial_poses is not None:
        poses = np.asarray(_check.pose(initial_poses, "initial_poses"))
        if poses.ndim != 3 or not len(poses):
            raise ValueError(f"initial_poses: shape {poses.shape}; give one or more poses (n, 4, 4).")
        return jnp.asarray(poses, dtype)
    count = _check.integer(n_starts, "n_starts")
    if key is None:
        raise ValueError("key: missing; give jax.random.key(0), so that the starts are the same another time.")
    if radius != np.inf:
        _check.positive(radius, "radius")
    if np.isinf(radius):
        # no member of the protocol: a check at run time would compute it
        vertices = np.asarray(scalp.vertices)  # type: ignore[attr-defined]
        where, _ = jax.random.split(key)
        chosen = np.asarray(jax.random.randint(where, (count,), 0, len(vertices)))
        return _scatter_poses(scalp, jnp.asarray(vertices[chosen].astype(dtype)), key)
    if target is None:
        raise ValueError("target: missing; the starts lie round it (or give `initial_poses`).")
    point = np.asarray(_check.points(target, "target"))
    if point.shape != (3,):
        raise ValueError(f"target: shape {point.shape}; give one point, x, y, z in mm.")
    middle = scalp.nearest(jnp.asarray(point.astype(dtype)))
    return _sunflower_poses(scalp, middle, np.asarray(radius, dtype), key, count)


@jax.jit
@full_precision
def _scatter_poses(scalp: Any, points: Array, key: Array) -> Array:
    """Poses over the points, evenly turned, in an order that has nothing to do with the places."""
    count, dtype = len(points), points.dtype
    _, turn = jax.random.split(key)
    angle = 2 * jnp.pi * (jnp.arange(count) + jax.random.uniform(turn, (), dtype)) / count
    angle = jax.random.permutation(jax.random.fold_in(turn, 1), angle)
    return jax.vmap(_turn_pose, (None, 0, 0))(scalp, points, angle.astype(dtype))


@partial(jax.jit, static_argnames=("count",))
@full_precision
def _sunflower_poses(scalp: Any, middle: Array, radius: Array, key: Array, count: int) -> Array:
    """The same on a sunflower: even over the patch of the radius, the middle one over the target."""
    dtype = middle.dtype
    where, _ = jax.random.split(key)
    index = jnp.arange(count)
    out = radius * jnp.sqrt(index / count)
    around = index * jnp.pi * (3 - 5**0.5) + jax.random.uniform(where, (), dtype, 0, 2 * jnp.pi)
    pose = _turn_pose(scalp, middle, jnp.zeros((), dtype))
    shifts = jnp.stack([out * jnp.cos(around), out * jnp.sin(around), 0 * out], -1)
    return _scatter_poses(scalp, pose[:3, 3] + shifts.astype(dtype) @ pose[:3, :3].T, key)


def _turn_pose(scalp: Any, point: Array, angle: Array) -> Array:
    """A pose near a scalp point, turned by an angle against the world's axis that is least along the normal."""
    outward = scalp.normal(point)
    first = jnp.cross(outward, jnp.eye(3, dtype=point.dtype)[jnp.argmin(jnp.abs(outward))])
    first = first / jnp.sqrt(first @ first)
    y = jnp.cos(angle) * first + jnp.sin(angle) * jnp.cross(outward, first)
    columns = jnp.stack([jnp.cross(y, -outward), y, -outward, point], -1)
    return jnp.concatenate([columns, jnp.asarray([[0, 0, 0, 1]], columns.dtype)])


def _rank_ends(
    climb: _search.SearchState, reasons: np.ndarray, words: tuple[str, ...], dynamic: Any, static: Any
) -> Any:
    clear, constraint_violation = (np.asarray(x) for x in _search.constraint_values(dynamic, static, climb.at.pose))
    valued = reasons != _search.LOST
    usable = valued & (clear >= 0) & (constraint_violation <= 0)
    if not usable.any():
        if (valued & (clear >= 0)).any():
            raise ValueError(
                "avoid: no start ended outside the zones; move the zones, allow an `offset` and more `evaluations`, or "
                "give `initial_poses` elsewhere."
            )
        raise ValueError(
            "coil: its casing is inside the head at the end of every start; give a larger `distance`, or "
            "`initial_poses` elsewhere."
        )
    index = np.flatnonzero(usable)
    poses, values, didt = (np.asarray(x, np.float64)[index] for x in (climb.at.pose, climb.at.value, climb.at.didt))
    return tuple(
        Candidate(
            poses[g[0]], float(values[g[0]]), float(didt[g[0]]), int(index[g[0]]), len(g), words[int(index[g[0]])]
        )
        for g in group_poses(poses, values)
    )
