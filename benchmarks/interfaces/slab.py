"""Tilted layers with uniform current across them: exact in an unbounded medium, cut out by a voxel box.

Layers k = 0, 1, ... are stacked along -n: layer k lies where b_k < n.r < b_(k-1) (b decreasing). With current density
j along n and a tangential field E_t,

    E = E_t + (j / sigma_k) n,    J = sigma_k E_t + j n,    div J = 0, tangential E and normal J continuous.

In a finite box the exact J is imposed on the faces as a boundary current (`load`). For E_t = 0, J is the constant
j n: the load is exact and the same for every tilt of the layers. The solver's E = -grad(phi), no induced source.
"""

from dataclasses import dataclass

import numpy as np

from . import voxels

SIGMA = (0.465, 0.010, 1.654, 0.275, 0.126)
NAMES = ("scalp", "skull", "csf", "grey", "white")
TILTS = {  # none aligned with the grid; the first only just off it
    "5 deg": (np.sin(np.deg2rad(5)) * 0.8, np.sin(np.deg2rad(5)) * 0.6, np.cos(np.deg2rad(5))),
    "20 deg": (0.12, -0.32, 0.94),
    "35 deg": (0.52, 0.25, 0.82),
    "diagonal": (0.60, 0.55, 0.58),
}


@dataclass(frozen=True)
class Slab:
    """Layers scalp, skull, csf, grey, white along `normal` (pointing to the scalp) in a cubic box of edge `size` mm.

    `bounds` (mm along the normal, decreasing) are the n - 1 interfaces, `sigma` (S/m) the n conductivities,
    `current` j (A/m^2) along +normal, `tangential` E_t (V/m) in the plane of the layers (its normal part is removed).
    """

    normal: tuple[float, float, float] = TILTS["35 deg"]
    sigma: tuple[float, ...] = SIGMA
    bounds: tuple[float, ...] = (10.3, 4.4, 1.7, -1.2)
    current: float = 1.0
    tangential: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size: float = 48.0

    @property
    def n(self) -> np.ndarray:
        """Unit normal, (3,)."""
        return np.asarray(self.normal) / np.linalg.norm(self.normal)

    @property
    def origin(self) -> np.ndarray:
        """Outer corner of the box, mm, (3,)."""
        return np.full(3, -self.size / 2)

    def shape(self, spacing: float) -> tuple[int, int, int]:
        """Voxels along each axis."""
        n = round(self.size / spacing)
        if abs(n * spacing - self.size) > 1e-9:
            raise ValueError(f"spacing: {spacing} mm does not divide the box of {self.size} mm; take 4, 2, 1.")
        return n, n, n

    def levels(self, points: np.ndarray) -> np.ndarray:
        """Signed distance (n_point, n_layer - 1) to the interfaces in mm, positive towards the scalp."""
        return (points @ self.n)[:, None] - np.asarray(self.bounds)

    def layer(self, points: np.ndarray) -> np.ndarray:
        """Layer index at points (n, 3)."""
        return (self.levels(points) <= 0).sum(-1)

    def fractions(self, spacing: float, from_labels: float | None = None) -> np.ndarray:
        """Volume fractions (n_layer, nx, ny, nz): exact, or counted from hard labels of `from_labels` mm."""
        shape = self.shape(spacing)
        if from_labels is None:
            return voxels.fractions(self.levels, shape, spacing, self.origin, cell=spacing)
        fine = voxels.labels(self.levels, self.shape(from_labels), from_labels, self.origin)
        return voxels.fractions_of_labels(fine, round(spacing / from_labels), len(self.sigma))

    def field(self, points: np.ndarray, layer: np.ndarray | None = None) -> np.ndarray:
        """Exact E (n, 3) in V/m; with `layer` (n,) or an int, the field that this layer has (E is constant in each)."""
        layer = self.layer(points) if layer is None else np.broadcast_to(layer, len(points))
        e_t = np.asarray(self.tangential) - self.n * (self.n @ np.asarray(self.tangential))
        return e_t + (self.current / np.asarray(self.sigma)[layer])[:, None] * self.n

    def current_density(self, points: np.ndarray) -> np.ndarray:
        """Exact J (n, 3) in A/m^2."""
        return np.asarray(self.sigma)[self.layer(points)][:, None] * self.field(points)

    def load(self, spacing: float) -> np.ndarray:
        """Nodal right-hand side b (nx + 1, ny + 1, nz + 1) of K phi = b, in A/m^2 mm^2 (see `voxels.boundary_load`)."""
        cuts = 1 if not np.any(self.tangential) else max(8, round(8 * spacing))
        return voxels.boundary_load(self.current_density, self.shape(spacing), spacing, self.origin, cuts)

    def samples(self, n: int = 4000, margin: float = 6.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Uniform random points (n, 3), at least `margin` mm inside the box's faces, and their layers (n,)."""
        half = self.size / 2 - margin
        points = np.random.default_rng(seed).uniform(-half, half, (n, 3))
        return points, self.layer(points)


CASES = {
    **{f"head layers, {name}": Slab(normal=normal) for name, normal in TILTS.items()},
    **{
        f"csf on grey, {name}": Slab(normal=normal, sigma=(1.654, 0.275), bounds=(0.3,), tangential=(2.0, -1.0, 1.5))
        for name, normal in TILTS.items()
    },
}
