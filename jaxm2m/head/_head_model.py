"""What heads of voxels and heads of tetrahedra have in common."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxm2m import _check
from jaxm2m._pytree import StaticMetadata
from jaxm2m.head import _mni
from jaxm2m.head._surface import Points, Surface


class HeadModel(ABC):
    """Either head, `Head` (voxels) or `MeshHead` (tetrahedra): tissues, their conductivities and surfaces.

    Attributes
    ----------
    conductivity
        (n_tissue,) S/m.
    labels
        (lx, ly, lz) uint8 label volume: 0 air, k = `tissues[k - 1]`.
    labels_affine
        (4, 4) label index -> mm.
    scalp
        Surface of everything that is not outer air.
    cortex
        The boundary between grey and white matter; `cortex.normal` points from white to grey. None without white.
    metadata
        "tissues", "space", "source", and remarks on how the head was made ("remarks").
    """

    # the dataclasses below declare them as fields, each in the order of its leaves
    conductivity: Float[Array, "n_tissue"]
    labels: UInt8[np.ndarray, "lx ly lz"]
    labels_affine: Float[np.ndarray, "4 4"]
    scalp: Surface
    cortex: Surface | None
    metadata: StaticMetadata

    @property
    def tissues(self) -> tuple[str, ...]:
        """Names of the tissues, in the order of `conductivity`."""
        return self.metadata["tissues"]

    @property
    def space(self) -> str:
        """Coordinate space of the head: "MNI152", "subject", ..."""
        return self.metadata["space"]

    @abstractmethod
    def tissue_at(self, points: Points) -> Int[np.ndarray, "*point"]:
        """Return the index into `tissues` at points, on the host.

        Parameters
        ----------
        points
            (..., 3) mm.

        Returns
        -------
        (...) integers
            Index into `tissues`; -1 in air and outside the head.
        """

    @abstractmethod
    def mask(self) -> tuple[Bool[np.ndarray, "nx ny nz"], Float[np.ndarray, "4 4"]]:
        """Return which voxels belong to the head.

        Returns
        -------
        mask
            (nx, ny, nz) Booleans: of a voxel head, the voxels that tissues fill by half or more; of a mesh, the voxels
            of its raster (`labels`) whose centres lie in a tetrahedron.
        affine
            (4, 4) index -> mm of these voxels.
        """

    def volumes(self) -> dict[str, float]:
        """Compute the volume of every tissue.

        Returns
        -------
        dict
            ml by tissue name.
        """
        return dict(zip(self.tissues, (self._cubic_mm() / 1000).tolist(), strict=True))

    def fraction_of(self, tissue: str) -> tuple[Float[np.ndarray, "nx ny nz"], Float[np.ndarray, "4 4"]]:
        """Return how much of each voxel one tissue fills.

        Parameters
        ----------
        tissue
            Its name, one of `tissues`.

        Returns
        -------
        fraction
            (nx, ny, nz) float32 fraction of each voxel; of a mesh, of each voxel of its raster (`labels`), 0 or 1.
        affine
            (4, 4) index -> mm of these voxels.

        Raises
        ------
        ValueError
            A tissue that the head does not have.
        """
        return self._fraction(self.tissues.index(_check.option(tissue, self.tissues, "tissue")))

    def to_mni(self, points: Points) -> Float[np.ndarray, "*point 3"]:
        """Transform points to MNI space, on the host, by the transform of the SimNIBS folder the head came from.

        Parameters
        ----------
        points
            (..., 3) mm in the head's space.

        Returns
        -------
        (..., 3) float64 array
            mm in MNI space.

        Raises
        ------
        ValueError
            A head without such a transform, or points beyond it.
        """
        return _mni.to_mni(self.metadata, points)

    def from_mni(self, points: Points) -> Float[np.ndarray, "*point 3"]:
        """Transform points from MNI space, on the host, by the transform of the SimNIBS folder the head came from.

        Parameters
        ----------
        points
            (..., 3) mm in MNI space.

        Returns
        -------
        (..., 3) float64 array
            mm in the head's space.

        Raises
        ------
        ValueError
            A head without such a transform, or points beyond it.
        """
        return _mni.from_mni(self.metadata, points)

    def summary(self) -> str:
        """Describe the head in a few lines.

        Returns
        -------
        str
            Its grid or mesh, space, tissues with volume and conductivity, and remarks, a line each.
        """
        lines = [f"Head from {self.metadata['source']} in {self.space} space", f"  {self._describe_elements()}"]
        rows = zip(self.volumes().items(), np.asarray(self.conductivity), self._describe_tissues(), strict=True)
        lines += [f"  {name:<13}{ml:9.1f} ml {s:9.4g} S/m{more}" for (name, ml), s, more in rows]
        lines += [f"  {remark}" for remark in self.metadata.get("remarks", ())]
        return "\n".join(lines)

    @abstractmethod
    def _cubic_mm(self) -> Float[np.ndarray, "n_tissue"]:
        """Volume of every tissue, mm^3."""

    @abstractmethod
    def _fraction(self, k: int) -> tuple[Float[np.ndarray, "nx ny nz"], Float[np.ndarray, "4 4"]]:
        """`fraction_of` the tissue with index `k`."""

    @abstractmethod
    def _describe_elements(self) -> str:
        """Number and size of what the head is made of."""

    def _describe_tissues(self) -> list[str]:
        """What `summary` says of each tissue beyond its volume and conductivity."""
        return [""] * len(self.tissues)
