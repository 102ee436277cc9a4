"""Where the conductors of a coil lie: points close enough to each other to tell its shape."""

from collections.abc import Iterable

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from jaxm2m.coil._coil import Element
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import PotentialGrid
from jaxm2m.coil._segments import Segments

STEP = 1.0  # mm between the points: with 4 mm round each, a surface dips by 0.03 mm between them
# Largest radius of the disc that stands for a dipole, mm: what lies between dipoles farther apart is not known.
_LARGEST_DISC = 8.0
# Of the largest curl curl A of a grid: smaller values are errors of its differences beside the windings.
_CURRENT = 0.1


def conductor_points(elements: Iterable[Element]) -> np.ndarray:
    """(n, 3) mm in the coil's frame: points on the conductors, about 1 mm apart.

    - Segments: along each.
    - Dipoles: each is a small loop of current, so it is a disc across its moment, as wide as the gaps to the next.
    - A-grids: nodes where curl curl A, which is the current, is large, drawn halfway to its middle.
    """
    points = [np.zeros((0, 3))]
    for element in elements:
        if isinstance(element, Segments):
            points.append(_sample_segments(np.asarray(element.start, float), np.asarray(element.end, float)))
        elif isinstance(element, Dipoles):
            points.append(_sample_discs(np.asarray(element.position, float), np.asarray(element.moment, float)))
        else:
            points.append(_find_currents(element))
    return np.concatenate(points)


def _sample_segments(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    count = np.ceil(np.linalg.norm(end - start, axis=1) / STEP).astype(int) + 1
    which = np.repeat(np.arange(len(start)), count)
    step = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    share = step / np.maximum(count[which] - 1, 1)
    return start[which] + share[:, None] * (end - start)[which]


def _sample_discs(position: np.ndarray, moment: np.ndarray) -> np.ndarray:
    # several dipoles in one place are one loop
    position, label = np.unique(position, axis=0, return_inverse=True)
    axis = np.stack([np.bincount(label.ravel(), m, len(position)) for m in moment.T], axis=-1)
    length = np.linalg.norm(axis, axis=1, keepdims=True)
    axis = np.where(length > 0, axis / np.where(length > 0, length, 1), (0.0, 0.0, 1.0))
    radius = np.minimum(2**-0.5 * _spacing(position, axis), _LARGEST_DISC)
    side = np.cross(axis, np.eye(3)[np.abs(axis).argmin(axis=1)])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(axis, side)
    points = []
    for rings in np.unique(np.ceil(radius / STEP)).astype(int):
        here = np.ceil(radius / STEP) == rings
        rho = np.concatenate([np.full(6 * i, i / rings) for i in range(1, rings + 1)] + [np.zeros(1)])
        angle = np.concatenate([2 * np.pi * np.arange(6 * i) / (6 * i) for i in range(1, rings + 1)] + [np.zeros(1)])
        u = (rho * np.cos(angle) * radius[here, None])[..., None] * side[here, None]
        v = (rho * np.sin(angle) * radius[here, None])[..., None] * other[here, None]
        points.append((position[here, None] + u + v).reshape(-1, 3))
    return np.concatenate(points)


def _spacing(position: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """(n,) mm: the fourth smallest distance of each dipole to those that lie across its axis."""
    count = min(len(position), 33)
    if count < 2:
        return np.zeros(len(position))
    distance, neighbour = cKDTree(position).query(position, count)
    distance, neighbour = distance[:, 1:], neighbour[:, 1:]
    along = np.abs(np.einsum("nki,ni->nk", position[neighbour] - position[:, None], axis))
    across = np.sort(np.where(along < distance / 2, distance, np.inf), axis=1)[:, :4]
    finite = np.isfinite(across)
    last = np.where(finite, across, 0).max(axis=1)
    return np.where(finite.any(axis=1), last, distance[:, 0])


def _find_currents(grid: PotentialGrid) -> np.ndarray:
    a, affine = np.asarray(grid.coefficients, float), np.asarray(grid.affine, float)
    to_index = np.linalg.inv(affine[:3, :3])
    # in the Coulomb gauge curl curl A is minus the Laplacian, which needs a node's next neighbours only
    metric = to_index @ to_index.T
    laplacian = np.zeros_like(a)
    for i in range(3):
        laplacian += metric[i, i] * ndimage.correlate1d(a, [1, -2, 1], axis=i, mode="nearest")
        for j in range(i):
            if abs(metric[i, j]) > 1e-9 * metric[i, i]:
                mixed = ndimage.correlate1d(a, [-0.5, 0, 0.5], axis=i, mode="nearest")
                laplacian += 2 * metric[i, j] * ndimage.correlate1d(mixed, [-0.5, 0, 0.5], axis=j, mode="nearest")
    current = np.linalg.norm(laplacian, axis=-1)
    # differences at the grid's faces say nothing
    inner = np.zeros(current.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    weight = np.where(inner & (current >= _CURRENT * current.max(where=inner, initial=0)), current, 0)
    nodes = np.argwhere(weight > 0)
    # a wire makes all nodes around it large: each goes to the middle of the current near it
    total = ndimage.uniform_filter(weight, 3, mode="constant")
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in weight.shape), indexing="ij"), axis=-1)
    middle = np.stack([ndimage.uniform_filter(weight * index[..., i], 3, mode="constant") for i in range(3)], axis=-1)
    middle = middle[weight > 0] / total[weight > 0][:, None]
    return (nodes + middle) / 2 @ affine[:3, :3].T + affine[:3, 3]
