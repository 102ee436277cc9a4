"""A lattice of tetrahedra that fills a box to its faces, to be fitted to the tissues in it."""

import numpy as np
from scipy import ndimage

from jaxm2m.head import meshing


def box_lattice(origin, size, edge, fine=None):
    """Nodes (n, 3) in mm and elements (m, 4) of cubes of about `edge` mm; of twice that where `fine` is false.

    Parameters
    ----------
    origin, size
        Lowest corner and edges of the box, mm, (3,).
    edge
        Rounded along each axis so that cubes of twice that fill the box.
    fine
        Function of the centres of the large cubes (n, 3) -> bool; default: everywhere.
    """
    shape = np.maximum(1, np.round(np.asarray(size) / (2 * edge)).astype(int))
    cube = np.asarray(size) / shape
    centres = (np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3) + 0.5) * cube + origin
    wanted = np.ones(len(centres), bool) if fine is None else fine(centres)
    nodes, elements = meshing.build_lattice(wanted.reshape(shape), np.ones(shape, bool))
    elements = np.concatenate([elements, _pyramids(nodes, elements, 2 * shape)])
    corners = nodes[elements]
    a, b, c = (corners[:, i] - corners[:, 0] for i in (1, 2, 3))
    turned = np.einsum("ni,ni->n", np.cross(a, b), c) < 0
    elements[turned] = elements[turned][:, [1, 0, 2, 3]]
    return nodes * cube / 2 + origin, elements


def near_boundaries(labels, spacing, origin, reach):
    """Function of points (n, 3), mm: within `reach` mm of where grey matter meets another tissue (layers 3 and 4)."""
    at = np.zeros(labels.shape, bool)
    for axis in range(3):
        a, out = np.moveaxis(labels, axis, 0), np.moveaxis(at, axis, 0)
        step = (a[1:] != a[:-1]) & (np.maximum(a[1:], a[:-1]) >= 3)
        out[1:] |= step
        out[:-1] |= step
    distance = ndimage.distance_transform_edt(~at) * spacing

    def fine(points):
        index = (points - origin) / spacing - 0.5
        return ndimage.map_coordinates(distance, index.T, order=1, mode="nearest") < reach

    return fine


def _pyramids(nodes, elements, extent):
    """Elements between the box's faces and the centres of the cubes at them."""
    faces = np.sort(elements[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]].reshape(-1, 3), axis=1)
    free, count = np.unique(faces, axis=0, return_counts=True)
    free = free[count == 1]
    outer = ((nodes == 0) | (nodes == extent)).any(1)[free]
    apex, pair = free[~outer], free[outer].reshape(-1, 2)
    made = []
    for axis in range(3):
        for end in (0, extent[axis]):
            own = (nodes[pair][:, :, axis] == end).all(1) & (np.abs(nodes[apex][:, axis] - end) <= 1)
            order = np.argsort(apex[own], kind="stable")
            tops, first = np.unique(apex[own][order], return_index=True)
            for top, group in zip(tops, np.split(pair[own][order], first[1:]), strict=True):
                ring = np.unique(group)
                x = np.delete(nodes[ring], axis, 1)
                x = x - (x.min(0) + x.max(0)) / 2
                turn = np.argsort(np.arctan2(*x.T))
                ring, x = ring[turn], x[turn]
                # a node in the middle of a side sees all others but its own side's ends across the face
                hung = np.abs(x).min(1) < 1e-9
                ring = np.roll(ring, -int(hung.argmax() if hung.any() else ring.argmin()))
                made += [(top, ring[0], ring[i], ring[i + 1]) for i in range(1, len(ring) - 1)]
    return np.array(made, dtype=elements.dtype)
