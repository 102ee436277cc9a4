"""Tetrahedra of body-centred cubic lattices of two sizes, and conforming bisection of edges.

An edge is bisected in all elements round it at once, so that a mesh whose faces match keeps them matching. Where
several edges of an element are bisected, the order is that of one list for all elements: two elements then cut the face
they share alike.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

PAIRS = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])


def build_lattice(
    fine: Bool[np.ndarray, "nx ny nz"], used: Bool[np.ndarray, "nx ny nz"]
) -> tuple[Float[np.ndarray, "node 3"], Int[np.ndarray, "element 4"]]:
    """Build a lattice of body-centred cubes: of edge 1 where `fine`, of edge 2 elsewhere, over a grid of edge 2.

    Each face between two cubes of one size gives four tetrahedra, of the two centres and one edge of the face, all
    alike: dihedral angles of 60 and 90 degrees. A small cube's face on a large one gives two on either side. The half
    cubes outside faces of `used` cubes with others stay uncovered.

    Parameters
    ----------
    fine
        (nx, ny, nz) which cubes are divided into eight.
    used
        (nx, ny, nz) which cubes the lattice covers.

    Returns
    -------
    nodes
        (n_node, 3) in edges of a small cube, from the grid's lowest corner.
    elements
        (n_element, 4) indices of their nodes, of positive volume.
    """
    # quarters of a large cube: corners and centres of both sizes are whole numbers
    small = np.argwhere(np.repeat(np.repeat(np.repeat(fine & used, 2, 0), 2, 1), 2, 2)) * 2
    large = np.argwhere(~fine & used) * 4
    have_small = np.repeat(np.repeat(np.repeat(fine & used, 2, 0), 2, 1), 2, 2)
    have_large = ~fine & used
    tets = []
    for axis in range(3):
        for cells, have, width in ((small, have_small, 2), (large, have_large, 4)):
            beside = cells // width + np.eye(3, dtype=int)[axis]
            inside = (beside < have.shape).all(1)
            inside[inside] = have[tuple(beside[inside].T)]
            cell = cells[inside]
            step = np.eye(3, dtype=int)[axis] * width
            ring = _face_corners(cell + step, axis, width)
            centre = cell + width // 2
            for i in range(4):
                tets.append(np.stack([centre, centre + step, ring[i], ring[(i + 1) % 4]], 1))
        for side in (0, 1):  # small cubes whose neighbour is large
            beside = small // 2 + np.eye(3, dtype=int)[axis] * (2 * side - 1)
            home = beside // 2
            inside = ((beside >= 0) & (home < have_large.shape)).all(1)
            inside[inside] = have_large[tuple(home[inside].T)]
            cell, home = small[inside], home[inside]
            ring = _face_corners(cell + np.eye(3, dtype=int)[axis] * 2 * side, axis, 2)
            for apex in (cell + 1, home * 4 + 2):
                for i, j, k in ((0, 1, 2), (0, 2, 3)):
                    tets.append(np.stack([apex, ring[i], ring[j], ring[k]], 1))
    points = np.concatenate(tets)
    extent = 4 * np.array(fine.shape) + 1
    number = (points[..., 0] * extent[1] + points[..., 1]) * extent[2] + points[..., 2]
    values, elements = np.unique(number, return_inverse=True)
    elements = elements.reshape(-1, 4)
    nodes = np.stack([values // (extent[1] * extent[2]), values // extent[2] % extent[1], values % extent[2]], -1)
    elements = _bisect_hanging(nodes, elements, values, extent)
    nodes = nodes / 2
    a, b, c, d = (nodes[elements[:, i]] for i in range(4))
    turned = np.einsum("ni,ni->n", np.cross(b - a, c - a), d - a) < 0
    elements[turned] = elements[turned][:, [1, 0, 2, 3]]
    return nodes, elements


def _face_corners(corner, axis: int, width: int) -> list[np.ndarray]:
    """The corners, in order round it, of the face of a cube across `axis` whose lowest corner is given."""
    u, v = (np.eye(3, dtype=int)[a] * width for a in range(3) if a != axis)
    return [corner, corner + u, corner + u + v, corner + v]


def _bisect_hanging(nodes, elements, values, extent):
    """Elements after bisection of the edges of large cubes that have a node in their middle."""
    edges = np.unique(edge_keys(elements))
    a, b = nodes[edge_ends(edges)].transpose(1, 0, 2)
    long = (np.abs(a - b).sum(1) == 4) & (np.abs(a - b).max(1) == 4)
    middle = (a + b) // 2
    number = (middle[:, 0] * extent[1] + middle[:, 1]) * extent[2] + middle[:, 2]
    place = np.minimum(np.searchsorted(values, number), len(values) - 1)
    # centres of large cubes lie 4 apart as well, but nothing is in between
    hung = long & (values[place] == number)
    if not hung.any():
        return elements
    elements = bisect(elements, edges[hung], len(nodes))
    new = elements >= len(nodes)
    elements[new] = place[hung][elements[new] - len(nodes)]
    return elements


def edge_keys(elements: Int[np.ndarray, "element 4"]) -> Int[np.ndarray, "element 6"]:
    """One number for each edge, the same in all elements that share it."""
    low = np.minimum(elements[:, PAIRS[:, 0]], elements[:, PAIRS[:, 1]])
    high = np.maximum(elements[:, PAIRS[:, 0]], elements[:, PAIRS[:, 1]])
    return (low.astype(np.int64) << 32) | high


def edge_ends(key: Int[np.ndarray, " edge"]) -> Int[np.ndarray, "edge 2"]:
    """The nodes of edges, lower number first."""
    return np.stack([key >> 32, key & 0xFFFFFFFF], -1)


def bisect(
    elements: Int[np.ndarray, "element 4"], edges: Int[np.ndarray, " edge"], first: int
) -> Int[np.ndarray, "more 4"]:
    """Elements after bisection of the edges with these keys, in this order, at nodes `first`, `first` + 1, ..."""
    touched = np.zeros(first, bool)
    touched[edge_ends(edges).ravel()] = True
    may = touched[elements].sum(1) > 1
    done, work = [elements[~may]], elements[may]
    order = np.argsort(edges)
    table = edges[order]
    while len(work):
        key = edge_keys(work)
        place = np.minimum(np.searchsorted(table, key), len(table) - 1)
        rank = np.where(table[place] == key, order[place], len(table))
        which = rank.argmin(1)
        row = np.arange(len(work))
        rank = rank[row, which]
        cut = rank < len(table)
        done.append(work[~cut])
        work, which, rank = work[cut], which[cut], rank[cut]
        row = np.arange(len(work))
        one, other = work.copy(), work
        one[row, PAIRS[which, 0]] = first + rank
        other[row, PAIRS[which, 1]] = first + rank
        work = np.concatenate([one, other])
    return np.concatenate(done)
