"""Tilted layers with uniform current across them: exact in an unbounded medium, cut out by a voxel box.

Layers k = 0, 1, ... are stacked along -n: layer k lies where b_k < n.r < b_(k-1) (b decreasing). With current density
j along n and a tangential field E_t,

    E = E_t + (j / sigma_k) n,    J = sigma_k E_t + j n,    div J = 0, tangential E and normal J continuous.

In a finite box the exact J is imposed on the faces as a boundary current (`load`). For E_t = 0, J is the constant
j n: the load is exact and the same for every tilt of the layers. The solver's E = -grad(phi), no induced source.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from . import voxels
from .box import Box

SIGMA = (0.465, 0.010, 1.654, 0.275, 0.126)
NAMES = ("scalp", "skull", "csf", "grey", "white")
TILTS = {  # none aligned with the grid; the first only just off it
    "5 deg": (np.sin(np.deg2rad(5)) * 0.8, np.sin(np.deg2rad(5)) * 0.6, np.cos(np.deg2rad(5))),
    "20 deg": (0.12, -0.32, 0.94),
    "35 deg": (0.52, 0.25, 0.82),
    "diagonal": (0.60, 0.55, 0.58),
}


@dataclass(frozen=True)
class Slab(Box):
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
    cell: ClassVar[float] = np.inf  # planes are cut exactly in any cube
    margin: ClassVar[float] = 6.0

    @property
    def n(self) -> np.ndarray:
        """Unit normal, (3,)."""
        return np.asarray(self.normal) / np.linalg.norm(self.normal)

    def levels(self, points: np.ndarray) -> np.ndarray:
        """Signed distance (n_point, n_layer - 1) to the interfaces in mm, positive towards the scalp."""
        return (points @ self.n)[:, None] - np.asarray(self.bounds)

    def field(self, points: np.ndarray, layer: np.ndarray | None = None) -> np.ndarray:
        """Exact E (n, 3) in V/m; with `layer` (n,) or an int, the field that this layer has (E is constant in each)."""
        layer = self.layer(points) if layer is None else np.broadcast_to(layer, len(points))
        e_t = np.asarray(self.tangential) - self.n * (self.n @ np.asarray(self.tangential))
        return e_t + (self.current / np.asarray(self.sigma)[layer])[:, None] * self.n

    def load(self, spacing: float) -> np.ndarray:
        """Nodal right-hand side b (nx + 1, ny + 1, nz + 1) of K phi = b, in A/m^2 mm^2 (see `voxels.boundary_load`)."""
        cuts = 1 if not np.any(self.tangential) else max(8, round(8 * spacing))
        return voxels.boundary_load(self.current_density, self.shape(spacing), spacing, self.origin, cuts)


CASES = {
    **{f"head layers, {name}": Slab(normal=normal) for name, normal in TILTS.items()},
    **{
        f"csf on grey, {name}": Slab(normal=normal, sigma=(1.654, 0.275), bounds=(0.3,), tangential=(2.0, -1.0, 1.5))
        for name, normal in TILTS.items()
    },
}
