"""One computed field: what it says in numbers, and how it is saved."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from jaxm2m import fem
from jaxm2m._norm import norm
from jaxm2m._tree import tree
from jaxm2m.efield import _summary, _write
from jaxm2m.head import Head


@tree
class Field:
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

    @property
    def magnitude(self) -> Float[Array, "nx ny nz"]:
        """|E|, V/m; its gradient at zero field is zero."""
        return norm(self.e)

    def summary(self, target: Any = None, radius: float | int = 5.0) -> pd.DataFrame:
        """Numbers of the field, a row a tissue.

        Voxels count with the volume fraction of the tissue, and for each tissue only those it fills most of.

        Parameters
        ----------
        target
            (3,) mm: adds the mean magnitude within `radius` mm of it.

        Returns
        -------
        Columns: `p99.9` (V/m, 99.9th percentile of |E| by volume), `peak` (V/m), `peak_x`, `peak_y`, `peak_z` (mm),
        `volume_50`, `volume_75` (ml above 50 and 75 % of the 99.9th percentile), `target` (V/m), `volume` (ml).
        """
        magnitude, tissue = np.asarray(self.magnitude, np.float64), np.asarray(self.tissue)
        fractions, affine = np.asarray(self.head.fractions), np.asarray(self.head.affine)
        ml = self.head.spacing**3 / 1000
        near = None
        if target is not None:
            centre = np.linalg.solve(affine, [*_summary.place(target, radius), 1])[:3]
            x, y, z = (np.arange(length) - c for length, c in zip(tissue.shape, centre, strict=True))
            near = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= (radius / self.head.spacing) ** 2
        rows = {}
        for t, name in enumerate(self.head.tissues):
            inside = tissue == t
            if not inside.any():
                continue
            rows[name] = _summary.row(
                magnitude[inside],
                fractions[t][inside].astype(np.float64) * ml,
                np.argwhere(inside) @ affine[:3, :3].T + affine[:3, 3],
                None if near is None else near[inside],
            )
        return _summary.table(rows)

    def in_voxels(
        self,
    ) -> tuple[Float[np.ndarray, "nx ny nz"], Int[np.ndarray, "nx ny nz"], Float[np.ndarray, "4 4"]]:
        """|E| (float32, V/m) in the head's voxels, the tissue there (-1 in air), and the voxels' affine."""
        return np.asarray(self.magnitude, np.float32), np.asarray(self.tissue), np.asarray(self.head.affine)

    def save(self, path: Any) -> Path:
        """Write the field: `.nii.gz`/`.nii` (E as a 4-D volume), `.h5` (all of it) or `.msh` (hexahedra with E, Gmsh).

        The file appears whole or not at all.
        """
        return _write.save(self, path)

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
        corners = fem.corners(active)
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
