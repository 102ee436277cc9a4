"""One computed field: what it says in numbers, and how it is saved."""

from typing import Any

import meshio
import numpy as np
from jaxtyping import Array, Float, Int

from jaxm2m import fem
from jaxm2m._pytree import tree
from jaxm2m.efield._field import HeadField
from jaxm2m.head import Head


@tree
class Field(HeadField):
    """The E-field of one coil pose in a head.

    Attributes
    ----------
    e
        (nx, ny, nz, 3) V/m, world axes, at the centres of the head's voxels, each in the tissue that fills most of it;
        zero in air.
    tissue
        (nx, ny, nz) that tissue, index into `head.tissues`; -1 in air.
    phi
        (nx + 1, ny + 1, nz + 1) V, potential at the voxels' corners, zero mean over the head.
    stats
        Iterations, recomputed relative residual and status of the solve.
    didt
        A/s, as given.
    head
        What the field is in.
    """

    e: Float[Array, "nx ny nz 3"]
    tissue: Int[Array, "nx ny nz"]
    phi: Float[Array, "nx+1 ny+1 nz+1"]
    stats: fem.Stats
    didt: Any
    head: Head

    def _within(self, target: np.ndarray, radius: float | int) -> np.ndarray:
        centre = np.linalg.solve(np.asarray(self.head.affine), [*target, 1])[:3]
        x, y, z = (np.arange(length) - c for length, c in zip(self.tissue.shape, centre, strict=True))
        return x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= (radius / self.head.spacing) ** 2

    def _volumes_and_centres(self, tissue: int, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        affine, ml = np.asarray(self.head.affine), self.head.spacing**3 / 1000
        volumes = np.asarray(self.head.fractions)[tissue][inside].astype(np.float64) * ml
        return volumes, np.argwhere(inside) @ affine[:3, :3].T + affine[:3, 3]

    def in_voxels(
        self,
    ) -> tuple[Float[np.ndarray, "nx ny nz"], Int[np.ndarray, "nx ny nz"], Float[np.ndarray, "4 4"]]:
        """Return the magnitude in the head's voxels.

        Returns
        -------
        magnitude
            (nx, ny, nz) |E|, float32, V/m.
        tissue
            (nx, ny, nz) index into `head.tissues`; -1 in air.
        affine
            (4, 4) voxel index to mm.
        """
        return np.asarray(self.magnitude, np.float32), np.asarray(self.tissue), np.asarray(self.head.affine)

    def _volume(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.e, np.float32), np.asarray(self.head.affine)

    def _arrays(self) -> dict[str, tuple[Any, str | None]]:
        return {
            "e": (self.e, "V/m"),
            "tissue": (self.tissue, None),
            "phi": (self.phi, "V"),
            "didt": (self.didt, "A/s"),
            "affine": (self.head.affine, None),
        }

    def _mesh(self) -> meshio.Mesh:
        active = np.asarray(self.tissue) >= 0
        corners = fem.corner_nodes(active)
        used, cells = np.unique(corners, return_inverse=True)
        # our corners run over z fastest; Gmsh's walk round the faces
        cells = cells.reshape(-1, 8)[:, [0, 4, 6, 2, 1, 5, 7, 3]]
        index = np.stack(np.unravel_index(used, [n + 1 for n in active.shape]), -1) - 0.5
        affine = np.asarray(self.head.affine)
        tags = np.asarray(self.tissue)[active] + 1
        return meshio.Mesh(
            index @ affine[:3, :3].T + affine[:3, 3],
            [("hexahedron", cells)],
            point_data={"phi": np.asarray(self.phi, np.float64).ravel()[used]},
            cell_data={
                "E": [np.asarray(self.e, np.float64)[active]],
                "gmsh:physical": [tags.astype(np.int32)],
                "gmsh:geometrical": [tags.astype(np.int32)],
            },
        )
