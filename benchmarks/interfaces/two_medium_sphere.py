"""Concentric shells in a uniform current: the exact l = 1 solution, cut out by a voxel box.

Far away E = E0. In shell k the potential is phi = -(a_k + b_k / r^3) E0.r, hence

    E = a_k E0 + b_k (E0 - 3 (E0.u) u) / r^3,   u = r/|r|,

a_k and b_k from continuity of phi and of sigma dphi/dr at each radius, b = 0 in the core, a = 1 outside
(Jackson, Classical Electrodynamics, section 4.4, with conductivities for permittivities). For a single sphere
a_core = 3 s_out / (2 s_out + s_core) and b_out = R^3 (s_out - s_core) / (s_core + 2 s_out).

In a finite box the exact J is imposed on the faces as a boundary current (`load`). The solver's E = -grad(phi).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from . import voxels
from .box import Box


@dataclass(frozen=True)
class ShellSphere(Box):
    """Shells from outside to inside: medium 0 fills the box, medium k + 1 lies inside radii[k] (decreasing, mm)."""

    radii: tuple[float, ...] = (15.3,)
    sigma: tuple[float, ...] = (1.654, 0.275)
    centre: tuple[float, float, float] = (0.37, -0.71, 0.23)
    field_far: tuple[float, float, float] = (0.6, -0.3, 0.74)
    size: float = 48.0
    cell: ClassVar[float] = 0.5  # fractions to 1e-5
    margin: ClassVar[float] = 4.0

    @property
    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """a (n_medium,) and b (n_medium,) in mm^3 of the formula above."""
        n = len(self.sigma)
        matrix, rhs = np.zeros((2 * n, 2 * n)), np.zeros(2 * n)
        matrix[0, 0], rhs[0] = 1.0, 1.0  # a outside
        matrix[1, 2 * n - 1] = 1.0  # b of the core
        scale = self.radii[0] ** 3  # b in units of the outer sphere, for conditioning
        for k, radius in enumerate(self.radii):
            s_out, s_in, q = self.sigma[k], self.sigma[k + 1], scale / radius**3
            row = 2 + 2 * k
            matrix[row, [2 * k, 2 * k + 1, 2 * k + 2, 2 * k + 3]] = 1, q, -1, -q
            matrix[row + 1, [2 * k, 2 * k + 1, 2 * k + 2, 2 * k + 3]] = s_out, -2 * q * s_out, -s_in, 2 * q * s_in
        solution = np.linalg.solve(matrix, rhs)
        return solution[0::2], solution[1::2] * scale

    def levels(self, points: np.ndarray) -> np.ndarray:
        """Signed distance (n_point, n_medium - 1) in mm to the spheres, positive outside."""
        return np.linalg.norm(points - np.asarray(self.centre), axis=-1)[:, None] - np.asarray(self.radii)

    def field(self, points: np.ndarray, layer: np.ndarray | None = None) -> np.ndarray:
        """Exact E (n, 3) in V/m; with `layer`, the continuation of that medium's field."""
        layer = self.layer(points) if layer is None else np.broadcast_to(layer, len(points))
        a, b = self.coefficients
        e0 = np.asarray(self.field_far)
        r = points - np.asarray(self.centre)
        radius = np.maximum(np.linalg.norm(r, axis=-1, keepdims=True), 1e-9)
        u = r / radius
        return a[layer][:, None] * e0 + b[layer][:, None] * (e0 - 3 * (u @ e0)[:, None] * u) / radius**3

    def load(self, spacing: float) -> np.ndarray:
        """Nodal right-hand side b (nx + 1, ny + 1, nz + 1) of K phi = b, in A/m^2 mm^2 (see `voxels.boundary_load`)."""
        return voxels.boundary_load(self.current_density, self.shape(spacing), spacing, self.origin, cuts=2)


CASES = {  # grey in csf; skull shell in scalp with csf, grey and white inside
    "grey in csf": ShellSphere(),
    "csf in grey": ShellSphere(sigma=(0.275, 1.654)),
    "head in scalp": ShellSphere(
        radii=(20.2, 17.1, 14.6, 11.7), sigma=(0.465, 0.010, 1.654, 0.275, 0.126), centre=(0.37, -0.71, 0.23)
    ),
}
