"""A closed surface with fewer triangles: where it is flat, vertices are taken out."""

import numpy as np

_ROUNDS = 60


def decimate(
    vertices: np.ndarray, triangles: np.ndarray, tolerance: float, edge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Take out vertices that lie on their neighbours' surface, by moving them onto one of those.

    Vertices that stay are where they were. In each round those are taken out that no vertex nearby forbids, so that the
    result depends on nothing but the surface.

    Parameters
    ----------
    vertices, triangles
        (n, 3) and (m, 3): a closed surface.
    tolerance
        Largest distance of a vertex that is taken out from the triangles that take its place, in the vertices' unit.
    edge
        Largest length of an edge that is made.

    Returns
    -------
    vertices (k, 3), triangles (l, 3)
    """
    error = np.zeros(len(vertices))
    for _ in range(_ROUNDS):
        pairs, target = _choose_targets(vertices, triangles)
        cost = _measure(vertices, triangles, target, edge)
        # only edges whose ends have two neighbours in common can be closed
        cost[_count_common(pairs, target, len(vertices)) != 2] = np.inf
        total = error + cost
        open_ = total <= tolerance
        if not open_.any():
            break
        rank = np.full(len(vertices), len(vertices))
        order = np.lexsort((np.arange(len(vertices)), total))
        rank[order] = np.arange(len(vertices))
        rank[~open_] = len(vertices)
        # a vertex goes if it comes first among all that its neighbours belong to
        owner = rank.copy()
        np.minimum.at(owner, pairs[:, 0], rank[pairs[:, 1]])
        first = owner.copy()
        np.minimum.at(first, pairs[:, 0], owner[pairs[:, 1]])
        gone = open_ & (first == rank)
        reached = pairs[gone[pairs[:, 0]]]
        np.maximum.at(error, reached[:, 1], total[reached[:, 0]])
        replace = np.arange(len(vertices))
        replace[gone] = target[gone]
        triangles = replace[triangles]
        triangles = triangles[(triangles != np.roll(triangles, 1, axis=1)).all(axis=1)]
        number = np.cumsum(~gone) - 1
        vertices, error, triangles = vertices[~gone], error[~gone], number[triangles]
        if gone.sum() < 0.005 * len(vertices):
            break
    return vertices, triangles


def _choose_targets(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (vertex, neighbour) of all edges both ways, and the neighbour of each that lies most in its plane."""
    normal = _normals(vertices, triangles)[0]
    mean = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(mean, triangles[:, i], normal)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    step = vertices[pairs[:, 1]] - vertices[pairs[:, 0]]
    length = np.linalg.norm(step, axis=1)
    rise = np.abs(np.einsum("ij,ij->i", step, mean[pairs[:, 0]])) + 0.02 * length
    order = np.lexsort((pairs[:, 1], rise, pairs[:, 0]))
    start = np.searchsorted(pairs[order, 0], np.arange(len(vertices)))
    return pairs, pairs[order[start], 1]


def _measure(vertices: np.ndarray, triangles: np.ndarray, target: np.ndarray, edge: float) -> np.ndarray:
    """(n,) distance of each vertex from the triangles that would take its place; inf where they may not."""
    old, _ = _normals(vertices, triangles)
    cost = np.zeros(len(vertices))
    for i in range(3):
        moved, a, b = triangles[:, i], triangles[:, (i + 1) % 3], triangles[:, (i + 2) % 3]
        to = target[moved]
        stays = (to != a) & (to != b)
        moved, a, b, to, before = moved[stays], a[stays], b[stays], to[stays], old[stays]
        new, area = _normals(vertices, np.column_stack([to, a, b]))
        away = np.abs(np.einsum("ij,ij->i", new, vertices[moved] - vertices[to]))
        turned = np.einsum("ij,ij->i", new, before) < 0.5
        long = np.maximum(*(np.linalg.norm(vertices[to] - vertices[x], axis=1) for x in (a, b))) > edge
        np.maximum.at(cost, moved, np.where(turned | long | (area < 1e-9), np.inf, away))
    return cost


def _count_common(pairs: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    """(n,) how many neighbours each vertex has in common with its target."""
    known = np.sort(pairs[:, 0] * count + pairs[:, 1])
    key = target[pairs[:, 0]] * count + pairs[:, 1]
    at = np.minimum(np.searchsorted(known, key), len(known) - 1)
    return np.bincount(pairs[known[at] == key, 0], minlength=count)


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    length = np.linalg.norm(cross, axis=1)
    return cross / np.maximum(length, 1e-12)[:, None], length / 2
