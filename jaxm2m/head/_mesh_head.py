"""The head of tetrahedra: a mesh that follows the tissues' boundaries, conductivities, and its surfaces."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8

from jaxm2m import _check
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m.head import _distance, _label_tables, _mesh_check, _mesh_geometry, _tissues
from jaxm2m.head._head_model import HeadModel
from jaxm2m.head._label_tables import LabelTable
from jaxm2m.head._surface import Points, Surface

_SPACING = 1.0  # mm, of the raster
_LARGEST = 150_000_000  # voxels of the raster
_FINEST = 500_000_000  # eighths of them, for surfaces


@tree
class MeshHead(HeadModel):
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
    metadata
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
    metadata: StaticMetadata

    @cached_property
    def _locator(self) -> _mesh_geometry.Locator:
        return _mesh_geometry.Locator(np.asarray(self.nodes, np.float64), np.asarray(self.elements))

    def locate(self, points: Points) -> tuple[Int[np.ndarray, "*point"], Float[np.ndarray, "*point 4"]]:
        """Find the element that holds each point, on the host.

        A point on a face belongs to the element on one of its sides. The first call builds a search tree.

        Parameters
        ----------
        points
            (..., 3) mm.

        Returns
        -------
        element
            (...) index of the element that holds the point, -1 outside.
        weights
            (..., 4) barycentric coordinates of the point in it (no unit), 0 outside.
        """
        points = np.asarray(_check.points(points, "points"), np.float64)
        element, weights = self._locator(points.reshape(-1, 3))
        return element.reshape(points.shape[:-1]), weights.reshape(*points.shape[:-1], 4)

    def tissue_at(self, points: Points) -> Int[np.ndarray, "*point"]:
        """Return the index into `tissues` at points, by the element that holds them, on the host.

        Parameters
        ----------
        points
            (..., 3) mm.

        Returns
        -------
        (...) integers
            Index into `tissues`; -1 outside.
        """
        element, _ = self.locate(points)
        return np.where(element >= 0, np.asarray(self.tissue)[element].astype(np.int64), -1)

    def centroids(self) -> Float[np.ndarray, "m 3"]:
        """Compute the centroids of the elements.

        Returns
        -------
        (m, 3) float64 array
            mm.
        """
        return _mesh_geometry.compute_centroids(np.asarray(self.nodes, np.float64), np.asarray(self.elements))

    def element_volumes(self) -> Float[np.ndarray, " m"]:
        """Compute the volumes of the elements.

        Returns
        -------
        (m,) float64 array
            mm^3.
        """
        return _mesh_geometry.compute_volumes(np.asarray(self.nodes, np.float64), np.asarray(self.elements))

    def mask(self) -> tuple[Bool[np.ndarray, "lx ly lz"], Float[np.ndarray, "4 4"]]:
        """Return which voxels of the raster (`labels`) lie in the head.

        Returns
        -------
        mask
            (lx, ly, lz) Booleans.
        affine
            (4, 4) voxel index -> mm, `labels_affine`.
        """
        return np.asarray(self.labels) > 0, np.asarray(self.labels_affine)

    def voxel_elements(self) -> Int[np.ndarray, "lx ly lz"]:
        """Find the element that holds the centre of each voxel of the raster; some seconds on a whole head.

        Returns
        -------
        (lx, ly, lz) int32 array
            Index of the element, -1 in air.
        """
        elements, affine = np.asarray(self.elements), np.asarray(self.labels_affine, np.float64)
        lx, ly, lz = self.labels.shape
        number = np.arange(len(elements), dtype=np.int32)
        return _mesh_geometry.rasterise(np.asarray(self.nodes, np.float64), elements, number, (lx, ly, lz), affine, -1)

    def _cubic_mm(self) -> Float[np.ndarray, "n_tissue"]:
        return np.bincount(np.asarray(self.tissue), self.element_volumes(), len(self.tissues))

    def _fraction(self, k: int) -> tuple[Float[np.ndarray, "lx ly lz"], Float[np.ndarray, "4 4"]]:
        return (np.asarray(self.labels) == k + 1).astype(np.float32), np.asarray(self.labels_affine)

    def _describe_elements(self) -> str:
        size = " x ".join(f"{length:.0f}" for length in np.ptp(np.asarray(self.nodes), axis=0))
        return f"{len(self.elements)} tetrahedra, {len(self.nodes)} nodes ({size} mm)"

    def _describe_tissues(self) -> list[str]:
        number = np.bincount(np.asarray(self.tissue), minlength=len(self.tissues))
        return [f" {n:10d} tetrahedra" for n in number]


def from_mesh(
    nodes: Float[np.ndarray, "n 3"],
    elements: Integer[np.ndarray, "m 4"],
    tags: Integer[np.ndarray, " m"],
    tissues: LabelTable | Sequence[str] | None = None,
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
    """Build a head from arrays of a tetrahedral mesh; see `load`.

    Nodes that no tetrahedron uses are dropped, tetrahedra that are all inverted are turned, and islands of less than
    1 % of the head are left out; the last two leave a remark.

    Parameters
    ----------
    nodes
        (n, 3) mm.
    elements
        (m, 4) rows of `nodes`, counted from 0.
    tags
        (m,) one number for each tetrahedron.
    tissues
        Which tag is which tissue: a table's name or a mapping as in `load`, or names (tag k is `tissues[k - 1]`).
        Default: the table of `label_tables` that fits, SimNIBS's first; tissues may be missing.
    tensors
        (m, 3, 3) conductivity of each tetrahedron, S/m; all zero or NaN where a tetrahedron has its tissue's scalar.
    conductivity
        S/m by tissue name, over the defaults in `conductivities`.
    spacing
        Edge of the raster's voxels, mm. Default: 1, more where that were over 150 million voxels.
    scalp, cortex
        Surfaces, where they are known better than from the mesh.
    space, source, remarks
        Coordinate space, origin and remarks for `metadata`.
    numbers
        (m,) number by which error messages call each tetrahedron. Default: its index, from 0.
    name
        What error messages call the mesh.

    Returns
    -------
    MeshHead
        The tetrahedra that are tissue, in one connected part.

    Raises
    ------
    ValueError
        Unknown tags, rows out of range, NaN, flat, doubled or partly inverted tetrahedra, several large parts, a mesh
        in metres, tensors that are not symmetric and positive: before long work, naming the first one and the fix.
    """
    nodes, elements, tags = _mesh_check.check_arrays(nodes, elements, tags, name)
    numbers = np.arange(len(elements)) if numbers is None else numbers
    title, table = _tissue_table(tissues, nodes, elements, tags, name)
    kept = np.flatnonzero(np.isin(tags, [tag for tag, tissue in table.items() if tissue != "air"]))
    names = _tissues.order_tissues([table[tag] for tag in np.unique(tags[kept]).tolist()])
    sigma = _tissues.look_up_conductivity(names, conductivity)
    _mesh_check.check_unit(nodes, elements, name)
    remarks = [f"labels by {title} table", *remarks]
    elements, remark = _mesh_check.orient(nodes, elements, kept, numbers, name)
    remarks += remark
    _mesh_check.check_distinct(elements, kept, numbers, name)
    kept, remark = _mesh_check.keep_connected(nodes, elements, kept, name)
    remarks += remark
    elements, tags = elements[kept], tags[kept]
    number = {tissue: k for k, tissue in enumerate(names)}
    values, where = np.unique(tags, return_inverse=True)
    tissue = np.array([number[table[tag]] for tag in values.tolist()], np.int32)[where]
    anisotropy = None
    if tensors is not None:
        anisotropy = _mesh_check.compute_anisotropy(tensors, kept, np.asarray(sigma, np.float64)[tissue], numbers, name)
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
    shape, affine = _mesh_geometry.fit_grid(low, high, h)
    label = (tissue + 1).astype(np.uint8)
    labels = _mesh_geometry.rasterise(nodes, elements, label, shape, affine, 0)
    if scalp is None or (cortex is None and "white" in names):
        # eight samples a voxel: a normal is then off by a quarter of what whole voxels give, 0.6 degrees in the mean
        fine = labels
        if 8 * labels.size <= _FINEST:
            half = _distance.regrid(affine, h, h / 2)
            nx, ny, nz = shape
            fine = _mesh_geometry.rasterise(nodes, elements, label, (2 * nx, 2 * ny, 2 * nz), half, 0)
        if scalp is None:
            scalp, remark = _distance.build_scalp(_average_blocks(fine > 0, shape), affine)
            remarks += remark
        if cortex is None and "white" in names:
            cortex = _distance.build_cortex(_average_blocks(fine == names.index("white") + 1, shape), affine)
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
        metadata=StaticMetadata(
            tissues=names,
            space=space,
            source=source,
            remarks=tuple(remarks),
            tags=tuple(min(tag for tag, t in table.items() if t == tissue) for tissue in names),
        ),
    )


def _average_blocks(inside: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(nx, ny, nz) share of each voxel, from samples of it or of its eighths."""
    nx, ny, nz = shape
    blocks = inside.reshape(nx, inside.shape[0] // nx, ny, inside.shape[1] // ny, nz, inside.shape[2] // nz)
    return blocks.mean((1, 3, 5), dtype=np.float32)


def _tissue_table(
    tissues: LabelTable | Sequence[str] | None, nodes: np.ndarray, elements: np.ndarray, tags: np.ndarray, name: str
) -> tuple[str, dict[int, str]]:
    """Title of the table, and tag -> tissue for all tags that occur."""
    present = np.unique(tags).tolist()
    fix = 'pass labels={"white": 1, ...} with the mesh\'s tags (map tags to "air" to drop them)'
    if tissues is None:
        geometry = _mesh_check.measure_labels(nodes, elements, tags)
        return _label_tables.recognise(geometry, name, mesh=True)
    if isinstance(tissues, str):
        return _label_tables.select(tissues, present, name, "tags")
    if not isinstance(tissues, Mapping):
        tissues = {k + 1: tissue for k, tissue in enumerate(tissues)}
    table = _label_tables.parse_mapping(tissues)
    unknown = [tag for tag in present if tag not in table]
    if unknown:
        raise ValueError(
            f'{name}: tags {_label_tables.format_few(unknown)} are not in the mapping; map them, to "air" to drop them.'
        )
    missing = sorted({t for tag, t in table.items() if tag and t != "air"} - {table[tag] for tag in present})
    if missing:
        raise ValueError(
            f"{name}: no tetrahedron of {', '.join(missing)}, found tags {_label_tables.format_few(present)}; correct "
            "the mapping or leave these tissues out."
        )
    if all(table[tag] == "air" for tag in present):
        raise ValueError(f"{name}: every tetrahedron is air; {fix}.")
    return "the caller's", {tag: table[tag] for tag in present}
