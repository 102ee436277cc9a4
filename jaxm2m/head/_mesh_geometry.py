"""Tetrahedra as geometry: volumes, barycentric coordinates, which element holds a point, a raster of a mesh.

A point p of the tetrahedron v0 ... v3 is p = v0 + b1 (v1 - v0) + b2 (v2 - v0) + b3 (v3 - v0) with b1, b2, b3 and
b0 = 1 - b1 - b2 - b3 not negative; b_i = (p - v0) . g_i, g_1 = (v2 - v0) x (v3 - v0) / det and so on round.
"""

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.spatial import cKDTree

_EDGE = 1e-9  # of a barycentric coordinate: points on a face belong to an element on one of its sides
_NEAR = 1e-6  # voxels: likewise
_BATCH_SIZE = 1 << 18  # elements
_PAIRS = 1 << 20  # elements times lines
_POINTS = 1 << 14


def compute_volumes(nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
    """Signed volumes, in the nodes' unit cubed: positive where v3 lies on the side that v0, v1, v2 turn about."""
    a, b, c = _edges(nodes, elements)
    return _dot(a, _cross(b, c)) / 6


def compute_centroids(nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 3"]:
    """Means of the corners."""
    total = nodes[elements[:, 0]]
    for i in (1, 2, 3):
        total += nodes[elements[:, i]]
    return total / 4


def longest_edges(nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
    """Longest edge of each element."""
    a, b, c = _edges(nodes, elements)
    return np.sqrt(np.max([_dot(d, d) for d in (a, b, c, b - a, c - b, a - c)], axis=0))


class Locator:
    """Finds the element that holds a point, exactly: also in meshes of small and large elements.

    An element can hold a point only if its centroid lies within its radius (centroid to farthest corner) of it.
    Elements are sorted into classes of radius, each a factor of two wide and with a tree of centroids, so that the
    search near a point ends after a bounded number of elements, found or not.
    """

    def __init__(self, nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"]):
        self.nodes, self.elements = nodes, elements
        centroids = compute_centroids(nodes, elements)
        radius = np.sqrt(np.max([((nodes[elements[:, i]] - centroids) ** 2).sum(1) for i in range(4)], axis=0))
        kind = np.floor(np.log2(radius / radius.max())).astype(int)
        classes = [np.flatnonzero(kind == k) for k in np.unique(kind)]
        classes.sort(key=len, reverse=True)
        self.classes = [
            (members, cKDTree(centroids[members]), radius[members].max() * (1 + 1e-6)) for members in classes
        ]
        self.low, self.high = nodes.min(0), nodes.max(0)

    def __call__(self, points: Float[np.ndarray, "p 3"]) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, "p 4"]]:
        """Element of each point (-1: none) and the point's barycentric coordinates in it (0: none)."""
        element = np.full(len(points), -1)
        weights = np.zeros((len(points), 4))
        inside = np.flatnonzero(((points >= self.low) & (points <= self.high)).all(1))
        for start in range(0, len(inside), _POINTS):
            todo = inside[start : start + _POINTS]
            for members, tree, reach in self.classes:
                self._search(points, todo, members, tree, reach, element, weights)
                todo = todo[element[todo] < 0]
        return element, weights

    def _search(self, points, todo, members, tree, reach, element, weights) -> None:
        first, last = 0, min(8, len(members))
        while len(todo) and first < last:
            _, near = tree.query(points[todo], k=range(first + 1, last + 1), distance_upper_bound=reach, workers=2)
            rows = np.arange(len(todo))
            for column in range(last - first):
                rows = rows[near[rows, column] < len(members)]  # the tree's length stands for "no more within reach"
                which = members[near[rows, column]]
                b = self._barycentric(points[todo[rows]], which)
                holds = (b >= -_EDGE).all(1)
                element[todo[rows[holds]]], weights[todo[rows[holds]]] = which[holds], b[holds]
                rows = rows[~holds]
            todo = todo[rows]
            first, last = last, min(2 * last, len(members))

    def _barycentric(self, points, which) -> np.ndarray:
        start, gradient = _gradients(self.nodes, self.elements[which])
        b = np.stack([_dot(points - start, g) for g in gradient], -1)
        return np.concatenate([1 - b.sum(1, keepdims=True), b], axis=1)


def fit_grid(
    low: np.ndarray, high: np.ndarray, spacing: float
) -> tuple[tuple[int, int, int], Float[np.ndarray, "4 4"]]:
    """Shape and affine of voxels along the world's axes that cover a box; the outermost have their centres in it."""
    extent = np.maximum(high - low, 1e-6 * spacing)
    nx, ny, nz = np.ceil(extent / spacing - 1e-6).astype(int).tolist()
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (low + high) / 2 - spacing * (np.array([nx, ny, nz]) - 1) / 2
    return (nx, ny, nz), affine


def rasterise(
    nodes: Float[np.ndarray, "n 3"],
    elements: Int[np.ndarray, "m 4"],
    values: Integer[np.ndarray, " m"],
    shape: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
    outside: int,
) -> Integer[np.ndarray, "nx ny nz"]:
    """`values` of the elements that hold the voxels' centres, `outside` elsewhere; the affine as from `fit_grid`.

    An element holds an interval of every line of voxels along z: the b_i are linear in z.
    """
    out = np.full(shape, outside, values.dtype)
    flat = out.reshape(-1)
    nodes = (nodes - affine[:3, 3]) / affine[0, 0]
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    for begin in range(0, len(elements), _BATCH_SIZE):
        some = elements[begin : begin + _BATCH_SIZE]
        corners = [nodes[some[:, i]] for i in range(4)]
        first = np.ceil(np.minimum.reduce(corners) - _NEAR).astype(int).clip(0)
        count = np.minimum(np.floor(np.maximum.reduce(corners) + _NEAR).astype(int) + 1, shape) - first
        del corners
        cover = np.flatnonzero((count > 0).all(1))
        # elements that as many lines cross are one array operation
        cover = cover[np.lexsort((count[cover, 1], count[cover, 0]))]
        steps = np.flatnonzero((np.diff(count[cover, :2], axis=0) != 0).any(1)) + 1
        for group in np.split(cover, steps) if len(cover) else ():
            nx, ny = count[group[0], :2]
            lines = np.stack(np.meshgrid(np.arange(nx), np.arange(ny), indexing="ij"), -1).reshape(-1, 2)
            size = max(1, _PAIRS // len(lines))
            for part in (group[i : i + size] for i in range(0, len(group), size)):
                low, high = _find_intervals(nodes, some[part], first[part], count[part, 2], lines)
                number = np.maximum(high - low + 1, 0)
                row, line = np.nonzero(number)
                number = number[row, line]
                start = first[part[row]] @ stride + lines[line] @ stride[:2] + low[row, line]
                end = np.cumsum(number)
                index = np.repeat(start - end + number, number) + np.arange(end[-1] if len(end) else 0)
                flat[index] = np.repeat(values[begin + part[row]], number)
    return out


def _find_intervals(nodes, elements, first, count, lines):
    """First and last voxel (element, line) along z, from the element's first voxel on; empty where last < first."""
    start, gradient = _gradients(nodes, elements)
    here = first - start
    values = [_dot(here, g)[:, None] + g[:, :2] @ lines.T for g in gradient]
    slopes = [g[:, 2:] for g in gradient]
    values.append(1 - sum(values))
    slopes.append(-sum(slopes))
    most = count[:, None].astype(float)
    low, high = np.zeros(values[0].shape), np.repeat(most - 1, len(lines), 1)
    for value, slope in zip(values, slopes, strict=True):
        up, down = slope > 0, slope < 0
        zero = value * (-1 / np.where(up | down, slope, 1))
        np.maximum(low, zero, out=low, where=up)
        np.minimum(high, zero, out=high, where=down)
        high[~(up | down) & (value < -_EDGE)] = -1
    low, high = np.minimum(low, most), np.maximum(high, -1)
    return np.ceil(low - _NEAR).astype(int), np.floor(high + _NEAR).astype(int)


def _edges(nodes, elements):
    start = nodes[elements[:, 0]]
    return tuple(nodes[elements[:, i]] - start for i in (1, 2, 3))


def _gradients(nodes, elements):
    """v0 (m, 3), and g_1, g_2, g_3 (m, 3) each."""
    a, b, c = _edges(nodes, elements)
    bc, ca, ab = _cross(b, c), _cross(c, a), _cross(a, b)
    volume = _dot(a, bc)[:, None]
    return nodes[elements[:, 0]], (bc / volume, ca / volume, ab / volume)


def _cross(a, b):
    # np.cross on long arrays takes several times as long
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def _dot(a, b):
    return np.einsum("ij,ij->i", a, b)
