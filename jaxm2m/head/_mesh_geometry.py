"""Tetrahedra as geometry: volumes, barycentric coordinates, which element holds a point, a raster of a mesh.

A point p of the tetrahedron v0 ... v3 is p = v0 + b1 (v1 - v0) + b2 (v2 - v0) + b3 (v3 - v0) with b1, b2, b3 and
b0 = 1 - b1 - b2 - b3 not negative; b_i = (p - v0) . g_i, g_1 = (v2 - v0) x (v3 - v0) / det and so on round.
"""

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.spatial import cKDTree

_EDGE = 1e-9  # of a barycentric coordinate: points on a face belong to an element on one of its sides
_TOGETHER = 1 << 18  # elements
_PAIRS = 1 << 21  # elements times voxels
_POINTS = 1 << 14


def volumes(nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
    """Signed volumes, in the nodes' unit cubed: positive where v3 lies on the side that v0, v1, v2 turn about."""
    a, b, c = _edges(nodes, elements)
    return _dot(a, _cross(b, c)) / 6


def centres(nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 3"]:
    """Means of the corners."""
    total = nodes[elements[:, 0]]
    for i in (1, 2, 3):
        total += nodes[elements[:, i]]
    return total / 4


def longest(nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
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
        centroids = centres(nodes, elements)
        radius = np.sqrt(np.max([((nodes[elements[:, i]] - centroids) ** 2).sum(1) for i in range(4)], axis=0))
        kind = np.floor(np.log2(radius / radius.max())).astype(int)
        classes = [np.flatnonzero(kind == k) for k in np.unique(kind)]
        classes.sort(key=len, reverse=True)
        self.classes = [(own, cKDTree(centroids[own]), radius[own].max() * (1 + 1e-6)) for own in classes]
        self.low, self.high = nodes.min(0), nodes.max(0)

    def __call__(self, points: Float[np.ndarray, "p 3"]) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, "p 4"]]:
        """Element of each point (-1: none) and the point's barycentric coordinates in it (0: none)."""
        element = np.full(len(points), -1)
        weights = np.zeros((len(points), 4))
        inside = np.flatnonzero(((points >= self.low) & (points <= self.high)).all(1))
        for start in range(0, len(inside), _POINTS):
            todo = inside[start : start + _POINTS]
            for own, tree, reach in self.classes:
                self._search(points, todo, own, tree, reach, element, weights)
                todo = todo[element[todo] < 0]
        return element, weights

    def _search(self, points, todo, own, tree, reach, element, weights) -> None:
        first, last = 0, min(8, len(own))
        while len(todo) and first < last:
            _, near = tree.query(points[todo], k=range(first + 1, last + 1), distance_upper_bound=reach, workers=2)
            rows = np.arange(len(todo))
            for column in range(last - first):
                rows = rows[near[rows, column] < len(own)]  # the tree's length stands for "no more within reach"
                which = own[near[rows, column]]
                b = self._barycentric(points[todo[rows]], which)
                holds = (b >= -_EDGE).all(1)
                element[todo[rows[holds]]], weights[todo[rows[holds]]] = which[holds], b[holds]
                rows = rows[~holds]
            todo = todo[rows]
            first, last = last, min(2 * last, len(own))

    def _barycentric(self, points, which) -> np.ndarray:
        start, gradient = _gradients(self.nodes, self.elements[which])
        b = np.stack([_dot(points - start, g) for g in gradient], -1)
        return np.concatenate([1 - b.sum(1, keepdims=True), b], axis=1)


def grid(low: np.ndarray, high: np.ndarray, spacing: float) -> tuple[tuple[int, int, int], Float[np.ndarray, "4 4"]]:
    """Shape and affine of voxels along the world's axes that cover a box; the outermost have their centres in it."""
    extent = np.maximum(high - low, 1e-6 * spacing)
    nx, ny, nz = np.ceil(extent / spacing - 1e-6).astype(int).tolist()
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (low + high) / 2 - spacing * (np.array([nx, ny, nz]) - 1) / 2
    return (nx, ny, nz), affine


def raster(
    nodes: Float[np.ndarray, "n 3"],
    elements: Int[np.ndarray, "m 4"],
    values: Integer[np.ndarray, " m"],
    shape: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
    outside: int,
) -> Integer[np.ndarray, "nx ny nz"]:
    """`values` of the elements that hold the voxels' centres, `outside` elsewhere; the affine as from `grid`."""
    out = np.full(shape, outside, values.dtype)
    flat = out.reshape(-1)
    spacing, origin = affine[0, 0], affine[:3, 3]
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    for begin in range(0, len(elements), _TOGETHER):
        some = elements[begin : begin + _TOGETHER]
        corners = (nodes[some] - origin) / spacing
        first = np.ceil(corners.min(1) - 1e-6).astype(int).clip(0)
        count = np.minimum(np.floor(corners.max(1) + 1e-6).astype(int) + 1, shape) - first
        cover = np.flatnonzero((count > 0).all(1))
        del corners
        # elements whose boxes hold equally many voxels are one array operation
        order = np.lexsort(count[cover].T)
        cover = cover[order]
        steps = np.flatnonzero((np.diff(count[cover], axis=0) != 0).any(1)) + 1
        for group in np.split(cover, steps) if len(cover) else ():
            box = count[group[0]]
            offsets = np.stack(np.meshgrid(*map(np.arange, box), indexing="ij"), -1).reshape(-1, 3)
            size = max(1, _PAIRS // len(offsets))
            for part in (group[i : i + size] for i in range(0, len(group), size)):
                start, gradient = _gradients(nodes, some[part])
                here = first[part] * spacing + origin - start
                inside = np.ones((len(part), len(offsets)), bool)
                rest = np.ones((len(part), len(offsets)))
                for g in gradient:
                    b = _dot(here, g)[:, None] + (g * spacing) @ offsets.T
                    inside &= b >= -_EDGE
                    rest -= b
                inside &= rest >= -_EDGE
                row, column = np.nonzero(inside)
                flat[first[part[row]] @ stride + offsets[column] @ stride] = values[begin + part[row]]
    return out


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
