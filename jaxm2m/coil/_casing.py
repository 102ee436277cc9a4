"""Casings: surfaces round windings, and their distance to a scalp."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError, cKDTree

from jaxm2m import _check
from jaxm2m._isosurface import isosurface
from jaxm2m._precision import full_precision
from jaxm2m._types import DTypeLike, ScalpSurface
from jaxm2m.coil._coil import Casing, Coil
from jaxm2m.coil._decimate import decimate
from jaxm2m.coil._pose import move

# Plastic between the centre line of the windings and the outside, mm, where a coil file gives no casing.
THICKNESS = 4.0
# Longest edge of a casing, mm: over a head of radius 75 mm its distance is then known to 12^2 / (8 75) = 0.24 mm.
EDGE = 12.0
# Of the grid on which an offset surface is found, mm: a tube of 4 mm radius is three of them wide.
_GRID = 2.5
# mm that an offset surface may lose where vertices are taken out, and that those that stay lie too far out for it.
_TOLERANCE, _OUTWARD = 0.25, 0.15
_NODES = 4_000_000
_CROWDED = 3000  # cubes as wide as the casing is thick that hold conductors: a figure-8 coil has 1000
_POSES = 64  # whose casings are looked at together
GAP = 0.5  # mm kept between casing and scalp, for what the casing's mesh may overlook
# A coil that touches the scalp is not in it: mm, above the error of interpolated distances, below what skin gives way.
TOUCH = 0.1


def hull(points: np.ndarray, thickness: float | int = THICKNESS, dtype: DTypeLike | None = None) -> Casing:
    """Build the convex hull of points, grown by a thickness on all sides.

    Parameters
    ----------
    points
        (n, 3) mm.
    thickness
        mm; the hull is that of balls of this radius (42-vertex polyhedra, up to 7 % larger) round them.
    dtype
        Of the vertices. Default: `jnp.result_type(float)`.

    Returns
    -------
    Casing
        Closed, with triangles oriented outward and edges of at most 12 mm.
    """
    points = np.asarray(points, float)
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:  # flat or collinear windings have no hull until grown
        points = np.unique(points, axis=0)
    ball = _ball_vertices() * thickness
    grown = (points[:, None] + ball[None]).reshape(-1, 3)
    shape = ConvexHull(grown)
    index = np.full(len(grown), -1)
    index[shape.vertices] = np.arange(len(shape.vertices))
    triangles = index[shape.simplices]
    vertices = grown[shape.vertices]
    # outward: the normal agrees with the hull's plane equation
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), shape.equations[:, :3]) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    vertices, triangles = divide(vertices, triangles)
    dtype = dtype or jnp.result_type(float)
    return Casing(jnp.asarray(vertices.astype(dtype)), jnp.asarray(triangles.astype(np.int32)))


def offset_surface(points: np.ndarray, thickness: float | int = THICKNESS, dtype: DTypeLike | None = None) -> Casing:
    """Build the surface at a distance from points: concave where they are, unlike their hull.

    Points that all lie at z < 0 belong to a coil that can touch the head with the plane z = 0 of its frame: what the
    surface has beyond that plane is cut off.

    Parameters
    ----------
    points
        (n, 3) mm on the conductors, about 1 mm apart.
    thickness
        mm, from the points to the surface.
    dtype
        Of the vertices. Default: `jnp.result_type(float)`.

    Returns
    -------
    Casing
        Closed, with triangles oriented outward: 0.2 mm inside to 0.5 mm outside the exact surface, except in slots
        between two conductors.
    """
    points = np.asarray(points, float)
    # a thinner one is found as this one, and drawn in
    level = max(float(thickness), _GRID / 2)
    low, high = points.min(axis=0) - level, points.max(axis=0) + level
    step = max(min(_GRID, level), (np.prod(high - low) / _NODES) ** (1 / 3))
    # a tangle of wires has a surface of many folds, of which the outermost matter
    crowded = len(np.unique(np.floor((points - low) / level).astype(int), axis=0)) > _CROWDED
    step, tolerance = (2 * step, 1.0) if crowded else (step, _TOLERANCE)
    low = low - 1.5 * step
    shape = np.ceil((high - low) / step + 1.5).astype(int)
    tree = cKDTree(points)
    # to the nearest node that a point rounds to: enough to know which nodes the surface passes
    free = np.ones(shape, bool)
    free[tuple(np.rint((points - low) / step).astype(int).T)] = False
    distance = step * ndimage.distance_transform_edt(free)
    near = np.abs(distance - level) < 3 * step
    distance[near] = tree.query(low + step * np.argwhere(near))[0]
    # hollows that are closed on all sides are no outside
    label, _ = ndimage.label(distance >= level)
    distance[(label > 0) & (label != label[0, 0, 0])] = 0
    vertices, triangles = isosurface(distance, level, gradient_direction="descent")
    vertices = low + step * vertices
    goal = thickness + _OUTWARD

    def project(x: np.ndarray) -> np.ndarray:
        gap, nearest = tree.query(x)
        return points[nearest] + (x - points[nearest]) * (goal / np.maximum(gap, 1e-9))[:, None]

    vertices, triangles = decimate(project(project(vertices)), triangles, tolerance, EDGE)
    if not crowded:  # edges that cut off a rim, or bridge a crease
        vertices, triangles = _halve_edges(
            vertices, triangles, lambda a, b: np.abs(tree.query((a + b) / 2)[0] - goal), tolerance, project, rounds=4
        )
    if points[:, 2].max() < 0:
        vertices[:, 2] = np.minimum(vertices[:, 2], 0)
    vertices, triangles = divide(vertices, triangles)
    dtype = dtype or jnp.result_type(float)
    return Casing(jnp.asarray(vertices.astype(dtype)), jnp.asarray(triangles.astype(np.int32)))


def refine(casing: Casing, edge: float | int) -> Casing:
    """Divide the edges of a casing, for distances to a head that is narrow somewhere.

    Parameters
    ----------
    casing
        The casing to refine.
    edge
        Longest edge of the result, mm.

    Returns
    -------
    Casing
        The same surface with more triangles.
    """
    vertices, triangles = divide(np.asarray(casing.vertices), np.asarray(casing.triangles), float(edge))
    return Casing(jnp.asarray(vertices, casing.vertices.dtype), jnp.asarray(triangles, jnp.int32))


def divide(vertices: np.ndarray, triangles: np.ndarray, edge: float = EDGE) -> tuple[np.ndarray, np.ndarray]:
    """The same surface with no edge longer than `edge` (mm): the longest edges are halved until none is.

    A flat casing touches a head in the middle of its face, so its corners alone do not tell its distance.
    """
    vertices, triangles = np.asarray(vertices, float), np.asarray(triangles)
    return _halve_edges(vertices, triangles, lambda a, b: np.linalg.norm(a - b, axis=-1), edge, lambda x: x, rounds=64)


def _halve_edges(
    vertices: np.ndarray,
    triangles: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    edge: float,
    place: Callable[[np.ndarray], np.ndarray],
    rounds: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Halve the edges whose measure, a function of their ends, is above `edge`; their middles go where `place` says."""
    for _ in range(rounds):
        sides = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=-1)
        length = measure(vertices[sides[..., 0]], vertices[sides[..., 1]])
        long = np.flatnonzero(length.max(axis=1) > edge)
        if not len(long):
            break
        # an edge is halved in this round if it is the longest of every triangle that it belongs to, so that both
        # sides of it agree and the surface stays closed
        ordered = np.sort(sides, axis=-1)
        key = ordered[..., 0] * len(vertices) + ordered[..., 1]
        # equal lengths are told apart by the edge's number
        order = np.lexsort((key, length), axis=-1)[:, -1]
        longest = key[np.arange(len(key)), order]
        edges, count = np.unique(longest[long], return_counts=True)
        shared, times = np.unique(key, return_counts=True)
        halved = edges[count == times[np.searchsorted(shared, edges)]]
        split = np.flatnonzero(np.isin(longest, halved))
        middle = len(vertices) + np.searchsorted(halved, longest[split])
        ends = vertices[halved // len(vertices)], vertices[halved % len(vertices)]
        vertices = np.concatenate([vertices, place((ends[0] + ends[1]) / 2)])
        turned = triangles[split[:, None], (order[split, None] + np.arange(3)) % 3]  # first side is the halved one
        first = np.column_stack([turned[:, 0], middle, turned[:, 2]])
        second = np.column_stack([middle, turned[:, 1], turned[:, 2]])
        triangles = np.concatenate([np.delete(triangles, split, axis=0), first, second])
    return vertices, triangles


def clearance(
    coil: Coil, pose: Float[Array, "*batch 4 4"] | Float[np.ndarray, "*batch 4 4"], scalp: ScalpSurface
) -> Array:
    """Compute the smallest signed distance between a coil's casing and a scalp.

    Differentiable in the pose: the derivative is that of the nearest vertex of the casing. The casing's vertices are
    tested; its edges are at most 12 mm long, so that the distance to a head of radius 75 mm can be 0.24 mm smaller than
    computed.

    Parameters
    ----------
    coil
        A coil with a casing.
    pose
        (..., 4, 4) mm.
    scalp
        A surface: `scalp.distance(points)` is the signed distance in mm, negative inside.

    Returns
    -------
    (...) array
        mm, negative where the casing is inside the head.

    Raises
    ------
    ValueError
        A coil without a casing.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> head = jm.head.sphere(spacing=8.0)
    >>> coil = jm.coil.figure8()
    >>> pose = jm.coil.place(head.scalp, (0.0, 0.0, 92.0), distance=6.0)
    >>> print(f"{float(jm.coil.clearance(coil, pose, head.scalp)):.1f} mm between casing and scalp")
    6.0 mm between casing and scalp
    """
    if coil.casing is None:
        raise ValueError(
            "coil: has no casing, so its distance to the head is unknown; load it from a file that has "
            "one, give a casing (load(..., casing=FILE)), or replace `casing` by offset_surface(points, thickness)."
        )
    return jnp.min(scalp.distance(_transform(coil.casing.vertices, jnp.asarray(pose))), axis=-1)


# one program, not one for each of its operations
@jax.jit
@full_precision
def _transform(points: Array, pose: Array) -> Array:
    return points @ pose[..., :3, :3].swapaxes(-1, -2) + pose[..., None, :3, 3]


def clear_casing(
    coil: Coil,
    poses: Float[Array, "n 4 4"] | Float[np.ndarray, "n 4 4"],
    scalp: ScalpSurface,
    gap: float | int = GAP,
) -> tuple[Array, Float[np.ndarray, " n"]]:
    """Draw poses back along their own axes where the casing would touch the head.

    Parameters
    ----------
    coil
        The coil; without a casing all poses stay.
    poses
        (n, 4, 4) mm.
    scalp
        A surface: `scalp.distance(points)` is the signed distance in mm, negative inside.
    gap
        mm kept between casing and scalp in the poses that are moved.

    Returns
    -------
    poses
        (n, 4, 4) mm; those whose casing is outside are as they were.
    shift
        (n,) mm that each was drawn back, 0 where it stayed.

    Raises
    ------
    ValueError
        Poses in which the casing touches however far they are drawn back.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> head = jm.head.sphere(spacing=8.0)
    >>> coil = jm.coil.figure8()
    >>> pose = jm.coil.place(head.scalp, (0.0, 0.0, 92.0), distance=0.0)
    >>> deep = jm.coil.move(pose, jnp.array([0.0, 0.0, 3.0, 0.0, 0.0, 0.0]))  # 3 mm into the head
    >>> poses, shift = jm.coil.clear_casing(coil, deep[None], head.scalp)
    >>> print(f"drawn back by {shift[0]:.1f} mm")
    drawn back by 3.5 mm
    """
    moved = jnp.asarray(poses)
    shift = np.zeros(len(moved))
    if coil.casing is None:
        return moved, shift
    low = np.zeros(len(moved), bool)
    for _ in range(30):
        # poses x vertices x taps of a spline are too many at once
        parts = [clearance(coil, moved[i : i + _POSES], scalp) for i in range(0, len(moved), _POSES)]
        clear = np.concatenate([np.asarray(part) for part in parts])
        low = clear < np.where(shift > 0, gap / 10, -TOUCH)
        if not low.any():
            return moved, shift
        twists = np.zeros((len(moved), 6), moved.dtype)
        twists[low, 2] = clear[low] - gap
        shift -= twists[:, 2]
        moved = _move(moved, twists)
    raise ValueError(
        f"poses: the casing touches the head in {int(low.sum())} of {len(moved)} poses however far they are drawn "
        "back; move them away from ears and nose, or take a smaller coil."
    )


# one program instead of many small ones
_move = jax.jit(move)


def check_outside(
    coil: Coil,
    pose: Float[Array, "*batch 4 4"] | Float[np.ndarray, "*batch 4 4"],
    scalp: ScalpSurface,
    name: str = "pose",
) -> None:
    """Raise an error for poses that put a coil's casing inside the head, by more than the 0.1 mm of a touch.

    Parameters
    ----------
    coil
        A coil with a casing.
    pose
        (..., 4, 4) mm.
    scalp
        A surface: `scalp.distance(points)` is the signed distance in mm, negative inside.
    name
        What the error calls the poses.

    Raises
    ------
    ValueError
        Names the worst pose, how many are affected and the depth of the deepest casing point (mm).
    """
    pose = _check.pose(pose, name)
    gap = np.atleast_1d(np.asarray(clearance(coil, pose, scalp)))
    if np.isnan(gap).any():
        raise ValueError(f"{name}: the distance of the casing to the scalp is NaN; check the pose for NaN.")
    if (gap < -TOUCH).any():
        worst = np.unravel_index(int(gap.argmin()), gap.shape)
        which = "" if gap.size == 1 else f" pose {worst[0] if len(worst) == 1 else worst} of"
        many = "" if gap.size == 1 else f" ({int((gap < -TOUCH).sum())} of {gap.size} poses are inside)"
        raise ValueError(
            f"{name}:{which} the coil's casing reaches {-gap.min():.1f} mm into the head{many}; move the coil outwards "
            f"by at least {-gap.min():.1f} mm (a larger `distance` in place(), or -z in its own frame)."
        )


def _ball_vertices() -> np.ndarray:
    """42 vertices of a subdivided icosahedron that encloses the unit sphere."""
    golden = (1 + 5**0.5) / 2
    v = np.array([[0, s, t * golden] for s in (-1, 1) for t in (-1, 1)])
    v = np.concatenate([v, v[:, [2, 0, 1]], v[:, [1, 2, 0]]])
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    near = np.argwhere(np.triu(v @ v.T > 0.4, 1))
    middle = v[near[:, 0]] + v[near[:, 1]]
    v = np.concatenate([v, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
    return v / -ConvexHull(v).equations[:, 3].max()
