"""One computed field in tetrahedra: what it says in numbers, and how it is saved."""

from typing import Any

import meshio
import numpy as np
from jaxtyping import Array, Float, Int

from jaxm2m import fem
from jaxm2m._pytree import tree
from jaxm2m.efield._field import HeadField
from jaxm2m.head import MeshHead


@tree
class MeshField(HeadField):
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
    def tissue(self) -> Int[Array, " m"] | Int[np.ndarray, " m"]:  # type: ignore[override]
        """Tissue of each element, index into `head.tissues`."""
        return self.head.tissue

    def _within(self, target: np.ndarray, radius: float | int) -> np.ndarray:
        return ((self.head.centroids() - target) ** 2).sum(1) <= radius**2

    def _volumes_and_centres(self, tissue: int, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.head.element_volumes()[inside] / 1000, self.head.centroids()[inside]

    def in_voxels(
        self,
    ) -> tuple[Float[np.ndarray, "lx ly lz"], Int[np.ndarray, "lx ly lz"], Float[np.ndarray, "4 4"]]:
        """Return the magnitude on the head's raster.

        Returns
        -------
        magnitude
            (lx, ly, lz) |E|, float32, V/m.
        tissue
            (lx, ly, lz) index into `head.tissues`; -1 in air.
        affine
            (4, 4) raster index to mm.
        """
        element = self.head.voxel_elements()
        magnitude = np.asarray(self.magnitude, np.float32)
        inside = element >= 0
        value = np.where(inside, magnitude[element], np.float32(0))
        return value, np.where(inside, np.asarray(self.tissue)[element], -1), np.asarray(self.head.labels_affine)

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
        tags = np.array(self.head.metadata["tags"], np.int32)[np.asarray(self.tissue)]
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
