r"""From the vector potential of any source to coefficients of solved modes.

The map from the incident field to E in a region is linear, and the incident field inside the head is fixed by dA/dt at
few points, since each Cartesian component of A is harmonic there. With a the components of dA/dt at the control points
(on a closed surface inside the head, and in the region), A_j those of the solved modes and G those of gradients of
harmonic functions, whose E is zero,

    min_{c, g}  || W (a - A c - G g) ||^2 + t^2 s_1^2 || c ||^2 ,       E = sum_j c_j E_j ,

so that c = C a with one matrix C. The gradients come free of any solve and spare the modes from having to span the
gauge as well. What is left of dA/dt at points of the region that took no part in the fit, divided by E, estimates the
relative error of E: the residual is the incident field that was not served.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial import cKDTree

from jaxm2m._isosurface import isosurface

DEPTH = 4.0  # mm, of the control surface under the head's own
SURFACE, INSIDE, HELD_OUT = 400, 100, 100  # points on the surface, in the region, and there for the estimate
NEAR, GRADE = 40.0, 20.0  # mm: the surface's points lie evenly within NEAR of the region, then grow apart
REGION_WEIGHT = 10.0  # of the region's points against the surface's, as root mean squares
GAUGE_AWAY = 30.0  # mm outside the surface: the poles whose gradients span the gauge
TIKHONOV = 3e-5


class ControlPoints(NamedTuple):
    """Where dA/dt is asked for, mm: points of the fit, and points for the estimate of its error."""

    surface: Float[np.ndarray, "surface 3"]
    inside: Float[np.ndarray, "inside 3"]
    held_out: Float[np.ndarray, "held_out 3"]
    gauge: Float[np.ndarray, "pole 3"]

    @property
    def points(self) -> Float[np.ndarray, "all 3"]:
        return np.concatenate([self.surface, self.inside, self.held_out])


def choose_control_points(
    occupied: np.ndarray, affine: np.ndarray, points: Float[np.ndarray, "active 3"]
) -> ControlPoints:
    """Choose control points for a region of `points` (mm) in a head.

    Parameters
    ----------
    occupied
        (nx, ny, nz) which voxels are head.
    affine
        (4, 4) voxel index -> mm.
    """
    spacing = float(np.linalg.norm(affine[:3, 0]))
    active = np.pad(occupied, 2)
    # counted from the centres of air's voxels, half a voxel outside the head
    depth = (ndimage.distance_transform_edt(active).astype(np.float32) - 0.5) * spacing
    origin = affine[:3, 3] - 2 * affine[:3, :3].sum(1)
    vertices = isosurface(depth, DEPTH)[0] @ affine[:3, :3].T + origin
    away = cKDTree(points).query(vertices)[0]
    surface = _spread(vertices, SURFACE, 1 + np.maximum(away - NEAR, 0) / GRADE)
    random = np.random.default_rng(0)
    # a region may be a single point: its neighbours in the head then tell as much
    index = random.integers(len(points), size=40 * (INSIDE + HELD_OUT))
    near = points[index] + random.normal(scale=3.0, size=(len(index), 3)) * (len(points) < 1000)
    inverse = np.linalg.inv(affine[:3, :3])
    voxel = np.round((near - origin) @ inverse.T).astype(int)
    deep = depth[tuple(np.clip(voxel, 0, np.array(depth.shape) - 1).T)] > DEPTH
    near = np.concatenate([near[deep], points])
    chosen = _spread(near, INSIDE + HELD_OUT, np.ones(len(near)))
    chosen = random.permutation(chosen)
    middle = surface.mean(0)
    outward = (surface - middle) / np.linalg.norm(surface - middle, axis=1, keepdims=True)
    return ControlPoints(surface, chosen[:INSIDE], chosen[INSIDE:], surface + GAUGE_AWAY * outward)


def _spread(points: np.ndarray, count: int, size: np.ndarray) -> np.ndarray:
    """`count` of the points, each the farthest from those before it in units of the local `size`."""
    chosen = [int(size.argmin())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int((distance / size).argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return points[chosen]


class Fit(NamedTuple):
    """The matrices of the least-squares problem, for dA/dt (V/m) at the points of the fit, flattened.

    Attributes
    ----------
    coefficients
        C (mode, 3 n_fit): c = C a.
    residual
        R (3 n_held_out, 3 n_fit): what the fit makes of dA/dt at the held-out points, R a.
    """

    coefficients: Float[np.ndarray, "mode fit"]
    residual: Float[np.ndarray, "held_out fit"]


def fit(where: ControlPoints, modes: Float[np.ndarray, "mode point 3"]) -> Fit:
    """Solve the problem once for all sources.

    Parameters
    ----------
    modes
        dA/dt (V/m) of each solved mode at `where.points`.
    """
    n, n_surface, n_inside = len(modes), len(where.surface), len(where.inside)
    n_fit = n_surface + n_inside
    counts = np.array([3 * n_surface, 3 * n_inside])
    weight = np.repeat(np.array([1, REGION_WEIGHT]) / np.sqrt(counts), counts)
    a = modes.reshape(n, -1).astype(np.float64)
    a_fit, a_out = a[:, : 3 * n_fit] * weight, a[:, 3 * n_fit :]
    step = where.points[None] - where.gauge[:, None]
    poles = (step / np.linalg.norm(step, axis=-1, keepdims=True) ** 3).reshape(len(where.gauge), -1)
    g_fit, g_out = poles[:, : 3 * n_fit] * weight, poles[:, 3 * n_fit :]
    length = np.linalg.norm(g_fit, axis=1, keepdims=True)
    u, s, vt = np.linalg.svd((g_fit / length).T, full_matrices=False)
    keep = s > 1e-3 * s[0]
    gauge, gauge_out = u[:, keep], ((vt[keep].T / s[keep]).T @ (g_out / length)).T

    def remove_gauge(x: np.ndarray) -> np.ndarray:
        return x - (x @ gauge) @ gauge.T

    free = remove_gauge(a_fit)
    size = np.linalg.norm(free, axis=1)
    u, s, vt = np.linalg.svd((free / size[:, None]).T, full_matrices=False)
    filtered = s / (s**2 + (TIKHONOV * s[0]) ** 2)
    coefficients = ((vt.T / size[:, None]) * filtered) @ remove_gauge(u.T)
    # the modes' part, and the gauge's part of what the modes leave
    left = gauge.T - (a_fit @ gauge).T @ coefficients
    residual = a_out.T @ coefficients + gauge_out @ left
    return Fit(coefficients * weight, residual * weight)
