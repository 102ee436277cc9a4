"""Coils of two wings that are bent towards the head, and the exact surface 4 mm off their conductors."""

import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxm2m.coil import Segments

OFFSET = 4.0  # mm from conductors to casing where a file gives none


def turn(angle):
    """Rotation about y, degrees: a positive angle lifts what lies at x > 0 out of the plane, away from the head."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def wing(side, angle, height, turns=9, sides=96):
    """(n, 2, 3) segments of one wing, its inner edge on the axis of the bend; `angle` > 0 bends towards the head."""
    radii = np.linspace(28.0, 43.5, turns)
    phi = 2 * np.pi * np.arange(sides + 1) / sides
    rings = [np.column_stack([46 + r * np.cos(phi), r * np.sin(phi), np.zeros_like(phi)]) for r in radii]
    pieces = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
    pieces = pieces @ turn(-angle).T + (0, 0, height)
    return pieces * (side, 1, 1)


COILS = {
    "double cone": np.concatenate([wing(side, 30.0, -5.0) for side in (-1, 1)]),
    "bent figure-8": np.concatenate([wing(side, 12.0, -5.0) for side in (-1, 1)]),
    "flat figure-8": np.concatenate([wing(side, 0.0, -5.0) for side in (-1, 1)]),
}


def build(pieces):
    """Their current element."""
    start, end = jnp.asarray(pieces[:, 0]), jnp.asarray(pieces[:, 1])
    return Segments(start, end, jnp.ones(len(pieces), start.dtype))


def exact_distance(pieces, points):
    """Signed distance (mm) of points to the surface at OFFSET from segments, positive outside."""
    share = np.linspace(0, 1, 13)[:, None, None]
    dense = (pieces[None, :, 0] + share * (pieces[:, 1] - pieces[:, 0])).reshape(-1, 3)
    return cKDTree(dense).query(points)[0] - OFFSET


def surface_points(casing):
    """Vertices, middles of edges and of triangles, and the outward normals of the triangles they belong to."""
    v, t = np.asarray(casing.vertices, float), np.asarray(casing.triangles)
    corners = v[t]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    samples = [*corners.swapaxes(0, 1), corners.mean(axis=1)]
    samples += [(corners[:, i] + corners[:, (i + 1) % 3]) / 2 for i in range(3)]
    return np.concatenate(samples), np.tile(normal, (len(samples), 1))
