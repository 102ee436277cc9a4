"""Casings: hulls round windings, and their distance to a scalp."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError

from jaxm2m import _check
from jaxm2m._precision import full_precision
from jaxm2m._types import DTypeLike, ScalpSurface
from jaxm2m.coil._coil import Casing, Coil, Element
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._segments import Segments

# Plastic between the centre line of the windings and the outside, mm, where a coil file gives no casing.
THICKNESS = 4.0
# Longest edge of a casing, mm: over a head of radius 75 mm its distance is then known to 12^2 / (8 75) = 0.24 mm.
EDGE = 12.0


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
    for _ in range(64):
        sides = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=-1)
        length = np.linalg.norm(vertices[sides[..., 0]] - vertices[sides[..., 1]], axis=-1)
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
        vertices = np.concatenate(
            [vertices, (vertices[halved // len(vertices)] + vertices[halved % len(vertices)]) / 2]
        )
        turned = triangles[split[:, None], (order[split, None] + np.arange(3)) % 3]  # first side is the halved one
        first = np.column_stack([turned[:, 0], middle, turned[:, 2]])
        second = np.column_stack([middle, turned[:, 1], turned[:, 2]])
        triangles = np.concatenate([np.delete(triangles, split, axis=0), first, second])
    return vertices, triangles


def winding_points(elements: Iterable[Element]) -> np.ndarray:
    """(n, 3) mm: where the current elements lie; empty for A-grids, which do not say."""
    points = [np.zeros((0, 3))]
    for element in elements:
        if isinstance(element, Dipoles):
            points.append(np.asarray(element.position, float))
        elif isinstance(element, Segments):
            points += [np.asarray(element.start, float), np.asarray(element.end, float)]
    return np.concatenate(points)


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
    5.8 mm between casing and scalp
    """
    if coil.casing is None:
        raise ValueError(
            "coil: has no casing, so its distance to the head is unknown; load it from a file that has "
            "one, or replace `casing` by hull(points, thickness)."
        )
    return jnp.min(scalp.distance(_transform(coil.casing.vertices, jnp.asarray(pose))), axis=-1)


# one program, not one for each of its operations
@jax.jit
@full_precision
def _transform(points: Array, pose: Array) -> Array:
    return points @ pose[..., :3, :3].swapaxes(-1, -2) + pose[..., None, :3, 3]


def check_outside(
    coil: Coil,
    pose: Float[Array, "*batch 4 4"] | Float[np.ndarray, "*batch 4 4"],
    scalp: ScalpSurface,
    name: str = "pose",
) -> None:
    """Raise an error for poses that put a coil's casing inside the head.

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
    if (gap < 0).any():
        worst = np.unravel_index(int(gap.argmin()), gap.shape)
        which = "" if gap.size == 1 else f" pose {worst[0] if len(worst) == 1 else worst} of"
        many = "" if gap.size == 1 else f" ({int((gap < 0).sum())} of {gap.size} poses are inside)"
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
