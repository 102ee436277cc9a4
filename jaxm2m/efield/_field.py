"""What a computed field says in numbers and how it is saved, in voxels and in tetrahedra alike."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from jaxm2m import fem
from jaxm2m._norm import norm
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.efield import _summary, _write


class HeadField(ABC):
    """What `Field` and `MeshField` share: magnitude, table and files of a field in a whole head."""

    e: Array
    tissue: Any  # of each voxel or element, index into `head.tissues`; -1 in air
    stats: fem.Stats
    head: Any  # `Head` or `MeshHead`: each kind of field says which

    @property
    def magnitude(self) -> Float[Array, "*place"]:
        """|E|, V/m; its gradient at zero field is zero."""
        return norm(self.e)

    def summary(self, target: ArrayLike | None = None, radius: float | int = 5.0) -> pd.DataFrame:
        """Tabulate the field, a row a tissue.

        Elements count with their volume. Voxels count with the volume fraction of the tissue, and for each tissue only
        those that it fills most of.

        Parameters
        ----------
        target
            (3,) mm: adds the mean magnitude within `radius` of it.
        radius
            mm.

        Returns
        -------
        table
            "p99.9" (V/m, 99.9th percentile of |E| by volume), "peak" (V/m), "peak_x", "peak_y", "peak_z" (mm),
            "volume_50", "volume_75" (ml above 50 and 75 % of the 99.9th percentile), "target" (V/m), "volume" (ml).
        """
        magnitude, tissue = np.asarray(self.magnitude, np.float64), np.asarray(self.tissue)
        near = None if target is None else self._within(_summary.place(target, radius), radius)
        rows = {}
        for index, name in enumerate(self.head.tissues):
            inside = tissue == index
            if inside.any():
                volumes, centres = self._volumes_and_centres(index, inside)
                rows[name] = _summary.row(magnitude[inside], volumes, centres, None if near is None else near[inside])
        return _summary.table(rows)

    def save(self, path: PathLike) -> Path:
        """Write the field to a file that appears whole or not at all.

        Parameters
        ----------
        path
            The suffix decides. `.h5`: everything. `.nii.gz` or `.nii`: E in the head's voxels, or on the raster of a
            tetrahedral head, as a 4-D volume (float32, V/m). `.msh` (Gmsh 2.2): voxels as hexahedra with "E", or
            tetrahedra with "E", "magnE" and, at the nodes, "v" (V), under the tags of the mesh that the head came from.

        Returns
        -------
        Path
            The file.
        """
        return _write.save(self, path)

    # what each kind of head adds

    @abstractmethod
    def _within(self, target: np.ndarray, radius: float | int) -> np.ndarray:
        """Which voxels or elements have their centres within a radius of the target (mm)."""
        ...

    @abstractmethod
    def _volumes_and_centres(self, tissue: int, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Volumes (n,) of a tissue, ml, and centres (n, 3), mm, of the voxels or elements inside a mask."""
        ...

    @abstractmethod
    def _volume(self) -> tuple[np.ndarray, np.ndarray]:
        """E (nx, ny, nz, 3) V/m, float32, and the affine of its voxels."""
        ...

    @abstractmethod
    def _arrays(self) -> dict[str, tuple[Any, str | None]]:
        """Every array by name, with its unit."""
        ...

    @abstractmethod
    def _mesh(self) -> meshio.Mesh:
        """Cells with E in them."""
        ...
