"""One computed field in tetrahedra: what it says in numbers, and how it is saved."""

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
from jaxm2m.head import MeshHead


@tree
class MeshField:
    """The E-field of one coil pose in a tetrahedral head.

    Attributes
    ----------
    e
        (m, 3) V/m, world axes, of each element.
    phi
        (n,) V, potential at the nodes.
    stats
        Iterations, recomputed relative residual and status of the solve.
    didt
        A/s, as given.
    head
        What the field is in.
    """

    e: Float[Array, "m 3"]
    phi: Float[Array, " n"]
    stats: fem.Stats
    didt: Any
    head: MeshHead

    @property
    def magnitude(self) -> Float[Array, " m"]:
        """|E|, V/m; its gradient at zero field is zero."""
        return norm(self.e)

    @property
    def tissue(self) -> Int[Array, " m"] | Int[np.ndarray, " m"]:
        """Tissue of each element, index into `head.tissues`."""
        return self.head.tissue

    def summary(self, target: Any = None, radius: float | int = 5.0) -> pd.DataFrame:
        """Numbers of the field, a row a tissue; elements count with their volume.

        Parameters
        ----------
        target
            (3,) mm: adds the mean magnitude of elements whose centres lie within `radius` mm of it.

        Returns
        -------
        Columns: `p99.9` (V/m, 99.9th percentile of |E| by volume), `peak` (V/m), `peak_x`, `peak_y`, `peak_z` (mm),
        `volume_50`, `volume_75` (ml above 50 and 75 % of the 99.9th percentile), `target` (V/m), `volume` (ml).
        """
        magnitude, tissue = np.asarray(self.magnitude, np.float64), np.asarray(self.tissue)
        centres, ml = self.head.centroids(), self.head.element_volumes() / 1000
        near = None
        if target is not None:
            near = ((centres - _summary.place(target, radius)) ** 2).sum(1) <= radius**2
        rows = {}
        for t, name in enumerate(self.head.tissues):
            inside = np.flatnonzero(tissue == t)
            if not len(inside):
                continue
            rows[name] = _summary.row(
                magnitude[inside],
                ml[inside],
                centres[inside],
                None if near is None else near[inside],
            )
        return _summary.table(rows)

    def in_voxels(
        self,
    ) -> tuple[Float[np.ndarray, "lx ly lz"], Int[np.ndarray, "lx ly lz"], Float[np.ndarray, "4 4"]]:
        """|E| (float32, V/m) on the head's raster, the tissue there (-1 in air), and the raster's affine."""
        element = self.head.voxel_elements()
        magnitude = np.asarray(self.magnitude, np.float32)
        inside = element >= 0
        value = np.where(inside, magnitude[element], np.float32(0))
        return value, np.where(inside, np.asarray(self.tissue)[element], -1), np.asarray(self.head.labels_affine)

    def save(self, path: Any) -> Path:
        """Write the field: `.msh` (Gmsh 2.2: "E" and "magnE" in the elements, "v" at the nodes), `.h5` (all of it) or
        `.nii.gz`/`.nii` (E on the head's raster as a 4-D volume, float32).

        Elements in a `.msh` have the tags of the mesh that the head came from. The file appears whole or not at all.
        """
        return _write.save(self, path)

    def _volume(self) -> tuple[np.ndarray, np.ndarray]:
        element = self.head.voxel_elements()
        e = np.asarray(self.e, np.float32)
        return np.where((element >= 0)[..., None], e[element], np.float32(0)), np.asarray(self.head.labels_affine)

    def _arrays(self) -> dict[str, tuple[Any, str | None]]:
        return {
            "e": (self.e, "V/m"),
            "phi": (self.phi, "V"),
            "tissue": (self.tissue, None),
            "didt": (self.didt, "A/s"),
            "nodes": (self.head.nodes, "mm"),
            "elements": (self.head.elements, None),
        }

    def _mesh(self) -> meshio.Mesh:
        tags = np.array(self.head.notes["tags"], np.int32)[np.asarray(self.tissue)]
        return meshio.Mesh(
            np.asarray(self.head.nodes, np.float64),
            [("tetra", np.asarray(self.head.elements, np.int32))],
            point_data={"v": np.asarray(self.phi, np.float64)},
            cell_data={
                "E": [np.asarray(self.e, np.float64)],
                "magnE": [np.asarray(self.magnitude, np.float64)],
                "gmsh:physical": [tags],
                "gmsh:geometrical": [tags],
            },
        )
