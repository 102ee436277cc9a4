"""The head: volume fractions of tissues on a cubic grid, their conductivities, and its surfaces."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from scipy import ndimage

from jaxm2m import _check
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m.head import _distance, _tissues
from jaxm2m.head._head_model import HeadModel
from jaxm2m.head._surface import Points, Surface


@tree
class Head(HeadModel):
    """A head of voxels, each of which may hold several tissues.

    Attributes
    ----------
    fractions
        (n_tissue, nx, ny, nz) volume fraction of every tissue in each voxel; air is 1 - sum. Float32, on the host.
    affine
        (4, 4) voxel index -> mm, a right-handed rotation times one spacing; voxel (i, j, k)'s centre is
        affine @ (i, j, k, 1).
    conductivity
        (n_tissue,) S/m.
    labels
        (lx, ly, lz) uint8, the finest label volume known: 0 air, k = `tissues[k - 1]`.
    labels_affine
        (4, 4) label index -> mm (not necessarily cubic).
    scalp
        Surface of everything that is not outer air.
    cortex
        The boundary between grey and white matter; `cortex.normal` points from white to grey. None without white.
    metadata
        "tissues", "space", "source", and remarks on how the head was made ("remarks").
    """

    fractions: Float[np.ndarray, "n_tissue nx ny nz"]
    affine: Float[np.ndarray, "4 4"]
    conductivity: Float[Array, "n_tissue"]
    labels: UInt8[np.ndarray, "lx ly lz"]
    labels_affine: Float[np.ndarray, "4 4"]
    scalp: Surface
    cortex: Surface | None
    metadata: StaticMetadata

    @property
    def spacing(self) -> float:
        """Edge of a voxel (mm)."""
        return float(np.linalg.norm(self.affine[:3, 0]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis, (nx, ny, nz)."""
        _, nx, ny, nz = self.fractions.shape
        return nx, ny, nz

    def tissue_at(self, points: Points) -> Int[np.ndarray, "*point"]:
        """Return the index into `tissues` at points, by the nearest label voxel, on the host.

        Parameters
        ----------
        points
            (..., 3) mm.

        Returns
        -------
        (...) integers
            Index into `tissues`; -1 in air and outside.
        """
        points = np.asarray(_check.points(points, "points"), np.float64)
        inverse = np.linalg.inv(np.asarray(self.labels_affine, np.float64))
        # half a voxel lies on the upper one, so that faces shared by two voxels belong to one
        index = np.floor(points @ inverse[:3, :3].T + inverse[:3, 3] + 0.5)
        shape = self.labels.shape
        inside = np.all((index >= 0) & (index < shape), axis=-1)
        i, j, k = np.moveaxis(np.where(np.expand_dims(inside, -1), index, 0).astype(np.int64), -1, 0)
        return np.where(inside, np.asarray(self.labels)[i, j, k].astype(np.int64) - 1, -1)

    def mask(self) -> tuple[Bool[np.ndarray, "nx ny nz"], Float[np.ndarray, "4 4"]]:
        """Return which voxels tissues fill by half or more.

        Returns
        -------
        mask
            (nx, ny, nz) Booleans.
        affine
            (4, 4) voxel index -> mm.
        """
        return np.asarray(self.fractions).sum(0) >= 0.5, np.asarray(self.affine)

    def _cubic_mm(self) -> Float[np.ndarray, "n_tissue"]:
        return np.asarray(self.fractions).sum((1, 2, 3), dtype=np.float64) * self.spacing**3

    def _fraction(self, k: int) -> tuple[Float[np.ndarray, "nx ny nz"], Float[np.ndarray, "4 4"]]:
        return np.asarray(self.fractions[k]), np.asarray(self.affine)

    def _describe_elements(self) -> str:
        size = " x ".join(f"{n * self.spacing:g}" for n in self.shape)
        return f"{' x '.join(map(str, self.shape))} voxels of {self.spacing:g} mm ({size} mm)"


def from_fractions(
    fractions: Float[np.ndarray, "n_tissue nx ny nz"],
    affine: np.ndarray,
    tissues: Sequence[str],
    *,
    conductivity: Mapping[str, float | int] | None = None,
    labels: np.ndarray | None = None,
    labels_affine: np.ndarray | None = None,
    scalp: Surface | None = None,
    cortex: Surface | None = None,
    space: str = "subject",
    source: str = "fractions",
    remarks: Sequence[str] = (),
) -> Head:
    """Build a head from volume fractions on a cubic grid.

    Parameters
    ----------
    fractions
        (n_tissue, nx, ny, nz) volume fraction of each tissue, in [0, 1], their sum <= 1 (the rest is air).
    affine
        (4, 4) voxel index -> mm; a right-handed rotation times one spacing.
    tissues
        Names, one for each fraction; a name without a default conductivity needs one in `conductivity`.
    conductivity
        S/m by name, over the defaults in `conductivities`.
    labels
        (lx, ly, lz) label volume (0 air, k = tissues[k - 1]), finer than the fractions if there is one. Default: in
        each voxel the tissue with the largest fraction, air where that holds half or more.
    labels_affine
        (4, 4) label index -> mm; needed with `labels`.
    scalp, cortex
        Surfaces, where they are known better than from the volume.
    space, source, remarks
        Coordinate space, origin and remarks for `metadata`.

    Returns
    -------
    Head
        The largest connected part of what the fractions describe; islands are removed, with a remark.

    Raises
    ------
    ValueError
        Fractions outside [0, 1], NaN, or a sum above 1; an affine that is sheared, left-handed or not cubic; numbers of
        tissues that differ.
    """
    fractions = np.ascontiguousarray(fractions, dtype=np.float32)
    tissues = tuple(_tissues.canonical_name(t) for t in tissues)
    if fractions.ndim != 4 or len(tissues) != len(fractions):
        raise ValueError(
            f"fractions: found shape {fractions.shape} for {len(tissues)} tissues; (n_tissue, nx, ny, nz) is needed."
        )
    if len(set(tissues)) != len(tissues):
        raise ValueError(f"tissues: {tissues} holds a name twice; add their fractions up.")
    total = fractions.sum(0)
    if not (np.isfinite(total).all() and fractions.min() >= -1e-6 and total.max() <= 1 + 1e-4):
        raise ValueError(
            f"fractions: found values from {fractions.min():g} and sums up to {total.max():g}; volume fractions lie in "
            "[0, 1] and sum with air to 1."
        )
    if total.max() < 0.5:
        raise ValueError("fractions: no voxel is filled by half; there is no head in this grid.")
    affine = cubic(affine)
    conductivities = _tissues.look_up_conductivity(tissues, conductivity)
    remarks = list(remarks)
    fractions, removed = _largest_component(fractions, total)
    if removed:
        voxel = float(np.linalg.norm(affine[:3, 0])) ** 3 / 1000
        remarks.append(f"{removed} voxels ({removed * voxel:.3g} ml) in islands apart from the head removed")
        total = fractions.sum(0)
    if labels is None:
        labels = np.where(total > 0.5, fractions.argmax(0) + 1, 0).astype(np.uint8)
        labels_affine = affine
    elif labels_affine is None:
        raise ValueError("labels_affine: missing; pass the affine of labels.")
    if scalp is None:
        scalp, remark = _distance.build_scalp(total, affine)
        remarks += remark
    if cortex is None and "white" in tissues:
        cortex = _distance.build_cortex(fractions[tissues.index("white")], affine)
    metadata = StaticMetadata(tissues=tissues, space=space, source=source, remarks=tuple(remarks))
    return Head(
        fractions=fractions,
        affine=affine,
        conductivity=conductivities,
        labels=np.ascontiguousarray(labels, np.uint8),
        labels_affine=np.asarray(labels_affine, np.float64),
        scalp=scalp,
        cortex=cortex,
        metadata=metadata,
    )


def _largest_component(fractions: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, int]:
    """Fractions without islands (26 neighbours, voxels filled by half or more), and the number of voxels removed."""
    component, n = ndimage.label(total >= 0.5, structure=np.ones((3, 3, 3), bool))
    if n == 1:
        return fractions, 0
    sizes = np.bincount(component.ravel())
    sizes[0] = 0
    island = (component > 0) & (component != sizes.argmax())
    return np.where(island, np.float32(0), fractions), int(island.sum())


def cubic(affine: np.ndarray, name: str = "affine") -> Float[np.ndarray, "4 4"]:
    """`affine` in float64 if it is a right-handed rotation times one spacing.

    Raises
    ------
    ValueError
        Otherwise, naming the defect.
    """
    affine = np.array(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"{name}: a finite 4x4 matrix is needed; found shape {affine.shape}.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.ptp(spacing) > 1e-4 * spacing.max() or spacing.min() <= 0:
        raise ValueError(f"{name}: voxels of {spacing} mm; a cubic grid is needed (head.from_labels resamples).")
    rotation = affine[:3, :3] / spacing
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > 1e-4:
        raise ValueError(f"{name}: the axes are not perpendicular; remove the shear.")
    if np.linalg.det(rotation) < 0:
        raise ValueError(f"{name}: left-handed; flip one axis of the volume together with its affine.")
    return affine
