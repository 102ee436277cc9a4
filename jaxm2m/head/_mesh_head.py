"""The head of tetrahedra: a mesh that follows the tissues' boundaries, conductivities, and its surfaces."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8

from jaxm2m import _check
from jaxm2m._tree import Notes, tree
from jaxm2m.head import _distance, _mesh_check, _mesh_geometry, _mni, _tissues
from jaxm2m.head._surface import Surface

_SPACING = 1.0  # mm, of the raster
_LARGEST = 150_000_000  # voxels of the raster
_FINEST = 500_000_000  # eighths of them, for surfaces


@tree
class MeshHead:
    """A head of tetrahedra, each of one tissue.

    Attributes
    ----------
    nodes
        (n, 3) mm, float64, on the host.
    elements
        (m, 4) int32 rows of `nodes`, of positive volume.
    tissue
        (m,) int32, index into `tissues`.
    conductivity
        (n_tissue,) S/m.
    anisotropy
        (m, 3, 3) float32: an element's conductivity tensor is `conductivity[tissue] * anisotropy`. None: the identity
        everywhere.
    labels
        (lx, ly, lz) uint8, a raster of the mesh along the world's axes: 0 air, k = `tissues[k - 1]`.
    labels_affine
        (4, 4) label index -> mm.
    scalp
        Surface of everything that is not outer air.
    cortex
        The boundary between grey and white matter; `cortex.normal` points from white to grey. None without white.
    notes
        "tissues", "space", "source", "tags" (of the mesh's file, one a tissue), and remarks on how the head was made
        ("remarks").
    """

    nodes: Float[np.ndarray, "n 3"]
    elements: Int[np.ndarray, "m 4"]
    tissue: Int[np.ndarray, " m"]
    conductivity: Float[Array, "n_tissue"]
    anisotropy: Float[np.ndarray, "m 3 3"] | None
    labels: UInt8[np.ndarray, "lx ly lz"]
    labels_affine: Float[np.ndarray, "4 4"]
    scalp: Surface
    cortex: Surface | None
    notes: Notes

    @property
    def tissues(self) -> tuple[str, ...]:
        """Names, in the order of `conductivity`."""
        return self.notes["tissues"]

    @property
    def space(self) -> str:
        """Coordinate space of `nodes`: "MNI152", "subject", ..."""
        return self.notes["space"]

    @cached_property
    def _locator(self) -> _mesh_geometry.Locator:
        return _mesh_geometry.Locator(np.asarray(self.nodes, np.float64), np.asarray(self.elements))

    def locate(
        self, points: Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"]
    ) -> tuple[Int[np.ndarray, "*point"], Float[np.ndarray, "*point 4"]]:
        """The element that holds each point (mm), -1 outside, and the point's barycentric coordinates in it.

        A point on a face belongs to the element on one of its sides. On the host; the first call builds a search tree.
        """
        points = np.asarray(_check.points(points, "points"), np.float64)
        element, weights = self._locator(points.reshape(-1, 3))
        return element.reshape(points.shape[:-1]), weights.reshape(*points.shape[:-1], 4)

    def tissue_at(self, points: Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"]) -> Int[np.ndarray, "*point"]:
        """Index into `tissues` at points (mm), by the element that holds them; -1 outside. On the host."""
        element, _ = self.locate(points)
        return np.where(element >= 0, np.asarray(self.tissue)[element].astype(np.int64), -1)

    def centroids(self) -> Float[np.ndarray, "m 3"]:
        """Centres of the elements, mm."""
        return _mesh_geometry.centres(np.asarray(self.nodes, np.float64), np.asarray(self.elements))

    def element_volumes(self) -> Float[np.ndarray, " m"]:
        """Volumes of the elements, mm^3."""
        return _mesh_geometry.volumes(np.asarray(self.nodes, np.float64), np.asarray(self.elements))

    def volumes(self) -> dict[str, float]:
        """Volume of every tissue, ml."""
        ml = np.bincount(np.asarray(self.tissue), self.element_volumes(), len(self.tissues)) / 1000
        return dict(zip(self.tissues, ml.tolist(), strict=True))

    def occupied(self) -> tuple[Bool[np.ndarray, "lx ly lz"], Float[np.ndarray, "4 4"]]:
        """Which voxels of the raster lie in the head, and their affine (index -> mm)."""
        return np.asarray(self.labels) > 0, np.asarray(self.labels_affine)

    def fraction_of(self, tissue: str) -> tuple[Float[np.ndarray, "lx ly lz"], Float[np.ndarray, "4 4"]]:
        """How much of each voxel of the raster one tissue fills (0 or 1, float32), and the affine (index -> mm)."""
        k = self.tissues.index(_check.option(tissue, self.tissues, "tissue"))
        return (np.asarray(self.labels) == k + 1).astype(np.float32), np.asarray(self.labels_affine)

    def to_mni(self, points: Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"]) -> Float[np.ndarray, "*point 3"]:
        """MNI coordinates (mm) of points, by the transform of the SimNIBS folder the head came from. On the host."""
        return _mni.to_mni(self.notes, points)

    def from_mni(
        self, points: Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"]
    ) -> Float[np.ndarray, "*point 3"]:
        """The head's coordinates (mm) of points in MNI space, by the transform of its SimNIBS folder. On the host."""
        return _mni.from_mni(self.notes, points)

    def voxel_elements(self) -> Int[np.ndarray, "lx ly lz"]:
        """The element that holds the centre of each voxel of the raster, -1 in air; some seconds on a whole head."""
        elements, affine = np.asarray(self.elements), np.asarray(self.labels_affine, np.float64)
        lx, ly, lz = self.labels.shape
        number = np.arange(len(elements), dtype=np.int32)
        return _mesh_geometry.raster(np.asarray(self.nodes, np.float64), elements, number, (lx, ly, lz), affine, -1)

    def summary(self) -> str:
        """A few lines for people: mesh, space, tissues with volume and conductivity, remarks."""
        size = " x ".join(f"{length:.0f}" for length in np.ptp(np.asarray(self.nodes), axis=0))
        lines = [
            f"Head from {self.notes['source']} in {self.space} space",
            f"  {len(self.elements)} tetrahedra, {len(self.nodes)} nodes ({size} mm)",
        ]
        number = np.bincount(np.asarray(self.tissue), minlength=len(self.tissues))
        sigma = np.asarray(self.conductivity)
        for (name, ml), s, n in zip(self.volumes().items(), sigma, number, strict=True):
            lines.append(f"  {name:<13}{ml:9.1f} ml {s:9.4g} S/m {n:10d} tetrahedra")
        lines += [f"  {remark}" for remark in self.notes.get("remarks", ())]
        return "\n".join(lines)


def from_mesh(
    nodes: Float[np.ndarray, "n 3"],
    elements: Integer[np.ndarray, "m 4"],
    tags: Integer[np.ndarray, " m"],
    tissues: Mapping[Any, Any] | Sequence[str] | None = None,
    *,
    tensors: Float[np.ndarray, "m 3 3"] | None = None,
    conductivity: Mapping[str, float | int] | None = None,
    spacing: float | int | None = None,
    scalp: Surface | None = None,
    cortex: Surface | None = None,
    space: str = "subject",
    source: str = "mesh",
    remarks: Sequence[str] = (),
    numbers: Integer[np.ndarray, " m"] | None = None,
    name: str = "mesh",
) -> MeshHead:
    """A head from arrays of a tetrahedral mesh; see `load`.

    Nodes that no tetrahedron uses are dropped, tetrahedra that are all inverted are turned, and islands of less than
    1 % of the head are left out; the last two leave a remark.

    Parameters
    ----------
    nodes
        (n, 3) mm.
    elements
        (m, 4) rows of `nodes`, counted from 0.
    tags
        (m,) one number a tetrahedron.
    tissues
        Which tag is which tissue: a mapping as in `load`, or names (tag k is `tissues[k - 1]`). Default: SimNIBS's
        numbers (1 white, 2 grey, 3 CSF, 4 bone, 5 scalp, 6 eye, 7 compact, 8 spongy bone, 9 blood, 10 muscle).
    tensors
        (m, 3, 3) conductivity of each tetrahedron, S/m; all zero or NaN where a tetrahedron has its tissue's scalar.
    conductivity
        S/m by tissue name, over the defaults in `conductivities`.
    spacing
        Edge of the raster's voxels, mm. Default: 1, more where that were over 150 million voxels.
    scalp, cortex
        Surfaces, where they are known better than from the mesh.
    space, source, remarks
        Coordinate space, origin and remarks for `notes`.
    numbers, name
        What error messages call the tetrahedra (default: their rows, from 0) and the mesh.

    Raises
    ------
    ValueError
        Unknown tags, rows out of range, NaN, flat, doubled or partly inverted tetrahedra, several large parts, a mesh
        in metres, tensors that are not symmetric and positive: before long work, naming the first one and the fix.
    """
    nodes, elements, tags = _mesh_check.arrays(nodes, elements, tags, name)
    numbers = np.arange(len(elements)) if numbers is None else numbers
    table = _table(tissues, tags, name)
    kept = np.flatnonzero(np.isin(tags, [tag for tag, tissue in table.items() if tissue != "air"]))
    names = _tissues.order([table[tag] for tag in np.unique(tags[kept]).tolist()])
    sigma = _tissues.conductivity_of(names, conductivity)
    _mesh_check.unit(nodes, elements, name)
    remarks = list(remarks)
    elements, remark = _mesh_check.oriented(nodes, elements, kept, numbers, name)
    remarks += remark
    _mesh_check.distinct(elements, kept, numbers, name)
    kept, remark = _mesh_check.connected(nodes, elements, kept, name)
    remarks += remark
    elements, tags = elements[kept], tags[kept]
    number = {tissue: k for k, tissue in enumerate(names)}
    values, where = np.unique(tags, return_inverse=True)
    tissue = np.array([number[table[tag]] for tag in values.tolist()], np.int32)[where]
    anisotropy = None
    if tensors is not None:
        anisotropy = _mesh_check.anisotropy(tensors, kept, np.asarray(sigma, np.float64)[tissue], numbers, name)
    used, elements = np.unique(elements, return_inverse=True)
    nodes, elements = np.ascontiguousarray(nodes[used]), elements.reshape(-1, 4).astype(np.int32)

    low, high = nodes.min(0), nodes.max(0)
    h = float(_check.positive(float(_SPACING if spacing is None else spacing), "spacing"))
    voxels = np.prod((high - low) / h)
    if voxels > _LARGEST:
        if spacing is not None:
            raise ValueError(f"spacing: {h:g} mm makes a raster of {voxels:.2g} voxels; take a coarser one.")
        h = float(np.prod(high - low) / _LARGEST) ** (1 / 3)
        remarks.append(f"labels: a raster of {h:.2g} mm, to stay in memory")
    shape, affine = _mesh_geometry.grid(low, high, h)
    label = (tissue + 1).astype(np.uint8)
    labels = _mesh_geometry.raster(nodes, elements, label, shape, affine, 0)
    if scalp is None or (cortex is None and "white" in names):
        # eight samples a voxel: a normal is then off by a quarter of what whole voxels give, 0.6 degrees in the mean
        fine = labels
        if 8 * labels.size <= _FINEST:
            half = _distance.regrid(affine, h, h / 2)
            nx, ny, nz = shape
            fine = _mesh_geometry.raster(nodes, elements, label, (2 * nx, 2 * ny, 2 * nz), half, 0)
        if scalp is None:
            scalp, remark = _distance.scalp(_shares(fine > 0, shape), affine)
            remarks += remark
        if cortex is None and "white" in names:
            cortex = _distance.cortex(_shares(fine == names.index("white") + 1, shape), affine)
    return MeshHead(
        nodes=nodes,
        elements=elements,
        tissue=tissue,
        conductivity=sigma,
        anisotropy=anisotropy,
        labels=labels,
        labels_affine=affine,
        scalp=scalp,
        cortex=cortex,
        notes=Notes(
            tissues=names,
            space=space,
            source=source,
            remarks=tuple(remarks),
            tags=tuple(min(tag for tag, t in table.items() if t == tissue) for tissue in names),
        ),
    )


def _shares(inside: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(nx, ny, nz) share of each voxel, from samples of it or of its eighths."""
    nx, ny, nz = shape
    blocks = inside.reshape(nx, inside.shape[0] // nx, ny, inside.shape[1] // ny, nz, inside.shape[2] // nz)
    return blocks.mean((1, 3, 5), dtype=np.float32)


def _table(tissues: Mapping[Any, Any] | Sequence[str] | None, tags: np.ndarray, name: str) -> dict[int, str]:
    """Tag -> tissue, for all tags that occur."""
    found = np.unique(tags).tolist()
    fix = 'pass labels={"white": 1, ...} with the mesh\'s tags (map tags to "air" to drop them)'
    if tissues is None:
        unknown = [tag for tag in found if tag not in _tissues.SIMNIBS]
        if unknown:
            raise ValueError(
                f"{name}: tags {_few(unknown)} are none of SimNIBS's tissues (1 white ... 10 muscle); {fix}."
            )
        return {tag: _tissues.SIMNIBS[tag] for tag in found}
    if not isinstance(tissues, Mapping):
        tissues = {k + 1: tissue for k, tissue in enumerate(tissues)}
    table = _tissues.mapping(tissues)
    unknown = [tag for tag in found if tag not in table]
    if unknown:
        raise ValueError(f'{name}: tags {_few(unknown)} are not in the mapping; map them, to "air" to drop them.')
    missing = sorted({t for tag, t in table.items() if tag and t != "air"} - {table[tag] for tag in found})
    if missing:
        raise ValueError(
            f"{name}: no tetrahedron of {', '.join(missing)}, found tags {_few(found)}; correct the mapping or leave "
            "these tissues out."
        )
    if all(table[tag] == "air" for tag in found):
        raise ValueError(f"{name}: every tetrahedron is air; {fix}.")
    return {tag: table[tag] for tag in found}


def _few(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
