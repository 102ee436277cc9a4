"""One computed field in tetrahedra: what it says in numbers, and how it is saved."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import meshio
import nibabel
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from jaxm2m import _check, fem, files
from jaxm2m._norm import norm
from jaxm2m._tree import tree
from jaxm2m.efield import _summary
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

    def summary(self, target: Any = None, radius: float = 5.0) -> pd.DataFrame:
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
        path = Path(path)
        suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
        _check.option(suffix, (".nii.gz", ".nii", ".h5", ".msh"), "path")
        write = {".h5": self._write_hdf5, ".msh": self._write_msh}.get(suffix, self._write_nifti)
        with files.atomic(path) as temporary:
            write(temporary)
        return path

    def _write_nifti(self, path: Path) -> None:
        element = self.head.voxel_elements()
        e = np.asarray(self.e, np.float32)
        volume = np.where((element >= 0)[..., None], e[element], np.float32(0))
        image = nibabel.Nifti1Image(volume, np.asarray(self.head.labels_affine))
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = b"E-field, V/m"
        nibabel.save(image, path)

    def _write_hdf5(self, path: Path) -> None:
        arrays = {
            "e": self.e,
            "phi": self.phi,
            "tissue": self.tissue,
            "didt": self.didt,
            "nodes": self.head.nodes,
            "elements": self.head.elements,
        }
        with h5py.File(path, "w") as file:
            for name, given in arrays.items():
                value = np.asarray(given)
                pressed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if value.ndim else {}
                file.create_dataset(name, data=value, **pressed)
            for name, unit in (("e", "V/m"), ("phi", "V"), ("nodes", "mm")):
                file[name].attrs["unit"] = unit
            file.attrs["jaxm2m"] = version("jaxm2m")
            file.attrs["space"] = self.head.space
            file.attrs["tissues"] = json.dumps(self.head.tissues)
            for name, value in self.stats._asdict().items():
                file.attrs[name] = np.asarray(value)

    def _write_msh(self, path: Path) -> None:
        tags = np.array(self.head.notes["tags"], np.int32)[np.asarray(self.tissue)]
        mesh = meshio.Mesh(
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
        meshio.write(path, mesh, file_format="gmsh22", binary=True)
