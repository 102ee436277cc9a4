"""Heads from files: label volumes of any affine and any labels, meshes, SimNIBS folders."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from jaxm2m import _check
from jaxm2m._pytree import StaticMetadata
from jaxm2m._types import PathLike
from jaxm2m.files import check_nifti_size, describe_disagreement, nifti_unit, read_mgh, read_nifti
from jaxm2m.head import _distance, _label_tables, _overlap, _tissues
from jaxm2m.head._electrodes import find_positions
from jaxm2m.head._folder import find_head
from jaxm2m.head._head import Head, from_fractions
from jaxm2m.head._label_tables import LabelTable
from jaxm2m.head._mesh_head import MeshHead
from jaxm2m.head._mesh_load import load_mesh
from jaxm2m.head._mni import find_transforms
from jaxm2m.head._plausible import warn_of_doubts
from jaxm2m.head._probability_maps import is_list_of_maps, load_maps
from jaxm2m.head._volume_axes import choose_spacing, measure_spacings, to_canonical_axes, warn_of_size

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".msh", ".msh.gz")
_LARGEST = 6 << 30  # bytes of fractions
_LARGEST_LABEL = 1_000_000
_SURFACE_SPACING = 2.0


def load(
    path: PathLike | Sequence[PathLike] | Mapping[str, PathLike],
    spacing: float | int | None = None,
    *,
    labels: LabelTable | None = None,
    conductivity: Mapping[str, float | int] | None = None,
    crop: tuple[Sequence[float | int] | np.ndarray, float | int] | None = None,
    space: str | None = None,
    affine: np.ndarray | Sequence[Sequence[float | int]] | None = None,
    tissues: Sequence[str] | None = None,
    fill: str | None = None,
) -> Head | MeshHead:
    """Load a head from a label volume, maps of tissue probability, a tetrahedral mesh or a SimNIBS folder.

    Parameters
    ----------
    path
        `.nii`, `.nii.gz` or FreeSurfer's `.mgz` of whole numbers (stored as integers or floats), with any affine:
        rotated, flipped, anisotropic, not sheared. `.msh` or `.msh.gz` of Gmsh (2.2 or 4.1, text or binary, mm), as
        SimNIBS writes it: first-order tetrahedra with physical tags; surfaces in it are not read. Element data of 9
        components (xx, xy, xz, yx, ... zz) or 6 (xx, xy, xz, yy, yz, zz) whose name holds "cond" or "tensor" are
        conductivity tensors, S/m. A SimNIBS folder (`m2m_x`): its mesh (`x.msh`, in it or beside it), else
        `final_tissues.nii.gz`; transforms to MNI space are kept for `to_mni` and `from_mni`,
        and `eeg_positions/*.csv` for `electrode`.
        Several volumes, or one with a fourth axis, are maps of tissue probability, [0, 1]: fractions as they are. SPM's
        and CAT's c1 ... c6 and FSL's pve_0 ... pve_2 are known by their names; otherwise `{"grey": path, ...}`.
    spacing
        Edge of the head's cubic voxels, mm; the grid keeps the volume's axes. Default: the volume's own spacing, its
        smallest if it is anisotropic. Each voxel gets the exact volume fraction of each label. Of a mesh: edge of the
        voxels of its raster (`labels`), default 1 mm.
    labels
        Which label (tag of a mesh) is which tissue: a name of `label_tables` ("five", "mcx", "simnibs", "roast",
        "freesurfer", "charm"), or `{"scalp": 1, "white": (2, 41)}` or `{1: "scalp"}`; "air" drops a label. Default: the
        table that fits without doubt, by the numbers, by what lies outermost, and by the size and number of parts of
        label 6 (eyes or air); the table taken stands in the head's `metadata`. Tissues may be missing in a mesh.
    conductivity
        S/m by tissue name, over the defaults in `conductivities`.
    crop
        (centre, radius) in mm: keep the voxels within `radius` of `centre` along each axis of the volume. The faces
        of the cut insulate, and induced current runs in loops as wide as the head, so that small boxes are wrong.
        Round the hand knob of Colin27 at 2 mm under a figure-8 coil, the relative L2 error of E in the 40 mm cube
        about the target is 44 % for a radius of 50 mm, 29 % for 60, 11 % for 80, 3.4 % for 100, 0.4 % for 120
        (`benchmarks/head_cropping.py`): use it to drop the neck and the far side, not to shrink a head to its target.
        Surfaces are those of the whole head. Not for meshes.
    space
        Coordinate space of the affine. Default: "MNI152" where the file says so (form code 4), else "subject".
    affine
        (4, 4) voxel index -> mm, for a volume whose file has none or a wrong one. Default: the file's. Not for meshes.
    tissues
        Names of the maps, in the order of the files or of the fourth axis; "air" is one.
    fill
        Of maps: the tissue to which what no map accounts for inside the head belongs; "air" leaves it empty. Default:
        refused where that is more than 1 % of the head.

    Returns
    -------
    Head or MeshHead
        A `Head` of a label volume, a `MeshHead` of a mesh.

    Raises
    ------
    ValueError
        Unknown, ambiguous or missing labels, numbers that are not whole or NaN, a file without orientation, a sheared
        affine or one in metres, an empty or truncated file, sizes beyond memory; of a mesh what `from_mesh` refuses:
        before any long work, naming the file and the fix.

    Warns
    -----
    UserWarning
        A volume of more than 20 million voxels without `spacing`, before the work that takes minutes; a head that is
        shorter than 100 mm or longer than 350 mm; conductivities that are no tissue's.
    """
    if is_list_of_maps(path):
        for key, value in {"labels": labels, "crop": crop}.items():
            if value is not None:
                raise ValueError(f"{key}: maps of tissue probability take none; leave it out.")
        head: Head | MeshHead = load_maps(
            path,  # type: ignore[arg-type]
            spacing,
            tissues=tissues,
            fill=fill,
            conductivity=conductivity,
            space=space,
            affine=affine,
        )
        warn_of_doubts(head, head.metadata["source"])
        return head
    for key, value in {"tissues": tissues, "fill": fill}.items():
        if value is not None:
            raise ValueError(f"{key}: for maps of tissue probability (several files, or a fourth axis); leave it out.")
    target = Path(path).expanduser()  # type: ignore[arg-type]
    extra: dict[str, object] = {}
    if target.is_dir():
        extra = {"mni": find_transforms(target), "eeg_positions": find_positions(target)}
        target = find_head(target)
    if target.name.lower().endswith((".msh", ".msh.gz")):
        for key, value in {"crop": crop, "affine": affine}.items():
            if value is not None:
                raise ValueError(f"{key}: {target} is a tetrahedral mesh, which takes none; leave it out.")
        head = load_mesh(target, labels=labels, conductivity=conductivity, spacing=spacing, space=space)
    else:
        head = load_volume(
            target, spacing, labels=labels, conductivity=conductivity, crop=crop, space=space, affine=affine
        )
    warn_of_doubts(head, str(target))
    extra = {key: value for key, value in extra.items() if value}
    return dataclasses.replace(head, metadata=StaticMetadata({**head.metadata, **extra})) if extra else head


def load_volume(
    path: Path,
    spacing: float | int | None,
    *,
    labels: LabelTable | None,
    conductivity: Mapping[str, float | int] | None,
    crop: tuple[Sequence[float | int] | np.ndarray, float | int] | None,
    space: str | None,
    affine: np.ndarray | Sequence[Sequence[float | int]] | None = None,
    keep: bool = False,
) -> Head:
    """A head from a label volume; arguments as in `load`, `keep` as in `_distance.build_scalp`."""
    name = str(path)
    remarks = []
    if path.name.lower().endswith((".mgz", ".mgh")):
        volume, stored_affine = read_mgh(path, oriented=affine is None)
        shape = volume.shape
    else:
        image = check_nifti_size(path)
        shape = tuple(image.shape)
        if space is None and affine is None:
            codes = (int(image.header["sform_code"]), int(image.header["qform_code"]))
            space = "MNI152" if (codes[0] or codes[1]) == 4 else "subject"
        if affine is None:  # a wrong one is reported before the numbers are read
            measure_spacings(image.affine * _unit_scale(image), name)
        _check_volume_shape(shape, name)
        volume, stored_affine = read_nifti(path, oriented=affine is None)
        disagreement = describe_disagreement(image)
        remarks = [disagreement] if disagreement and affine is None else []
    _check_volume_shape(shape, name)
    volume = volume.reshape(volume.shape[:3])
    frame = stored_affine if affine is None else np.asarray(affine, np.float64)
    return _from_labels(
        volume, frame, labels, spacing, conductivity, crop, space or "subject", path.name, remarks, name, keep
    )


def _check_volume_shape(shape: tuple[int, ...], name: str) -> None:
    if len([n for n in shape if n > 1]) > 3 or len(shape) < 3 or any(n > 1 for n in shape[3:]):
        raise ValueError(f"path: {name} has shape {shape}; a volume of labels has three axes.")


def from_labels(
    labels: np.ndarray,
    affine: np.ndarray,
    tissues: LabelTable | Sequence[str] | None = None,
    spacing: float | int | None = None,
    *,
    conductivity: Mapping[str, float | int] | None = None,
    crop: tuple[Sequence[float | int] | np.ndarray, float | int] | None = None,
    space: str = "subject",
    source: str = "labels",
    remarks: Sequence[str] = (),
    name: str = "labels",
) -> Head:
    """Build a head from an array of labels; see `load`.

    Parameters
    ----------
    labels
        (nx, ny, nz) whole numbers (no unit), 0 air.
    affine
        (4, 4) voxel index -> mm.
    tissues
        A table's name or a mapping as in `load`, or names: label k is `tissues[k - 1]`. Default: the table that fits.
    spacing
        Edge of the head's cubic voxels, mm. Default: the volume's own spacing, its smallest if it is anisotropic.
    conductivity
        S/m by tissue name, over the defaults in `conductivities`.
    crop
        (centre, radius) in mm: keep the voxels within `radius` of `centre` along each axis; see `load` for what that
        costs.
    space
        Coordinate space of the affine.
    source, remarks, name
        What `metadata` says of the volume's origin and making, and what error messages call it.

    Returns
    -------
    Head
        A head of cubic voxels along the volume's axes.

    Raises
    ------
    ValueError
        As of `load`: labels that are unknown, missing or no whole numbers, a sheared affine, sizes beyond memory.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> labels = np.zeros((12, 12, 12), int)
    >>> labels[2:10, 2:10, 2:10] = 1
    >>> head = jm.head.from_labels(labels, np.diag([4.0, 4.0, 4.0, 1.0]), tissues=["grey"], conductivity={"grey": 0.3})
    >>> head.tissues, [round(float(s), 2) for s in head.conductivity]
    (('grey',), [0.3])
    """
    return _from_labels(labels, affine, tissues, spacing, conductivity, crop, space, source, remarks, name, keep=False)


def _from_labels(
    labels, affine, tissues, spacing, conductivity, crop, space, source, remarks, name, keep: bool
) -> Head:
    labels = np.asarray(labels)
    if labels.ndim != 3:
        raise ValueError(f"{name}: found shape {labels.shape}; a volume of labels has three axes.")
    spacings = measure_spacings(affine, name)
    new = choose_spacing(spacing, spacings)
    cells = [_overlap.count_cells(n, h, new) for n, h in zip(labels.shape, spacings, strict=True)]
    if np.prod(cells, dtype=float) * 4 * 3 > _LARGEST:
        size = " x ".join(map(str, cells))
        raise ValueError(
            f"spacing: {new:g} mm makes {size} voxels, {np.prod(cells, dtype=float) * 20 / 2**30:.0f} GB for five "
            "tissues; take a coarser one."
        )
    if spacing is None:
        warn_of_size(cells, new, name)
    labels, counts = _to_whole_numbers(labels, name)
    title = "the caller's"
    if tissues is None:
        geometry = _label_tables.measure_volume_labels(labels, counts, float(np.prod(spacings)))
        title, table = _label_tables.recognise(geometry, name)
    elif isinstance(tissues, str):
        title, table = _label_tables.select(tissues, counts, name)
    else:
        if not isinstance(tissues, Mapping):
            tissues = {k + 1: t for k, t in enumerate(tissues)}
        table = _map_labels(tissues, counts, name)
    names = _tissues.order_tissues([table[label] for label in counts if label in table])
    sigma = dict(conductivity or {})
    _tissues.look_up_conductivity(names, sigma)  # a missing one is reported before the long work
    number = {tissue: k + 1 for k, tissue in enumerate(names)} | {"air": 0}
    look_up = np.zeros(max(counts) + 1, np.uint8)
    for label in counts:
        look_up[label] = number[table[label]]
    volume, frame = to_canonical_axes(look_up[labels], affine, name)
    remarks = [f"labels by {title} table", *remarks]
    return _build(volume, frame, names, new, sigma, crop, space, source, remarks, keep)


def _build(volume, affine, names, spacing, conductivity, crop, space, source, remarks, keep: bool) -> Head:
    old = np.linalg.norm(affine[:3, :3], axis=0)
    matrices = [_overlap.overlap_matrix(n, h, spacing) for n, h in zip(volume.shape, old, strict=True)]
    grid = _distance.regrid(affine, old, spacing)
    coarse = max(_SURFACE_SPACING, float(old.min()))
    outer = _overlap.average(
        volume > 0, [_overlap.overlap_matrix(n, h, coarse) for n, h in zip(volume.shape, old, strict=True)]
    )
    scalp, remark = _distance.build_scalp(outer, _distance.regrid(affine, old, coarse), keep=keep)
    cortex = None
    if "white" in names:
        white = _overlap.average(volume == names.index("white") + 1, matrices)
        cortex = _distance.build_cortex(white, grid, keep=keep)
        del white
    if crop is not None:
        volume, affine, matrices, grid = _crop(volume, affine, matrices, grid, crop)
        remarks = [*remarks, f"cropped to {crop[1]:g} mm round {tuple(np.asarray(crop[0]).tolist())} mm"]
    fractions = _overlap.average_labels(volume, len(names), matrices)
    return from_fractions(
        fractions,
        grid,
        names,
        conductivity=conductivity,
        labels=volume,
        labels_affine=affine,
        scalp=scalp,
        cortex=cortex,
        space=space,
        source=source,
        remarks=[*remarks, *remark],
    )


def _crop(volume, affine, matrices: list[sparse.csr_array], grid, crop):
    """Volume, its affine, overlaps and grid of the cells whose centres lie within the box."""
    try:
        centre, radius = crop
    except (TypeError, ValueError):
        raise ValueError(f"crop: found {crop!r}; (centre, radius) in mm is needed.") from None
    centre = np.asarray(_check.points(np.asarray(centre, np.float64), "crop"))
    _check.positive(float(radius), "crop")
    spacing = np.linalg.norm(grid[:3, 0])
    middle = np.linalg.solve(grid[:3, :3], centre - grid[:3, 3])
    reach = radius / spacing
    box, overlaps = [], []
    for w, m in zip(matrices, middle, strict=True):
        low, high = max(0, int(np.ceil(m - reach - 1e-9))), min(w.shape[0], int(np.floor(m + reach + 1e-9)) + 1)
        if high - low < 4:
            raise ValueError(
                f"crop: the box of {radius:g} mm round {tuple(centre)} misses the volume; check the centre."
            )
        rows = sparse.csr_array(w[low:high])
        columns = np.unique(rows.nonzero()[1])
        box.append(slice(columns[0], columns[-1] + 1))
        overlaps.append((low, sparse.csr_array(rows[:, box[-1]])))
    volume = np.ascontiguousarray(volume[tuple(box)])
    if not volume.any():
        raise ValueError(f"crop: the box of {radius:g} mm round {tuple(centre)} holds air alone; check the centre.")
    affine, grid = affine.copy(), grid.copy()
    affine[:3, 3] += affine[:3, :3] @ [b.start for b in box]
    grid[:3, 3] += grid[:3, :3] @ [low for low, _ in overlaps]
    return volume, affine, [w for _, w in overlaps], grid


def _unit_scale(image) -> np.ndarray:
    scale = nifti_unit(image)
    return np.array([scale, scale, scale, 1.0])[:, None]


def _to_whole_numbers(labels: np.ndarray, name: str) -> tuple[np.ndarray, dict[int, int]]:
    """The volume in an unsigned type, and its voxels by label."""
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            n = int((~np.isfinite(labels)).sum())
            raise ValueError(f"{name}: {n} voxels are NaN or infinite; set them to 0 (air).")
        off = np.abs(labels - np.rint(labels)).max()
        if off > 1e-3:
            raise ValueError(
                f"{name}: found values like {labels.ravel()[np.abs(labels - np.rint(labels)).argmax()]:.4g}, not whole "
                "numbers; pass a label volume (an image or a probability map is none, resample labels by nearest "
                "neighbour)."
            )
        labels = np.rint(labels)
    elif labels.dtype.kind not in "iub":
        raise ValueError(f"{name}: holds {labels.dtype}; labels are whole numbers.")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > _LARGEST_LABEL:
        raise ValueError(f"{name}: labels from {low} to {high}; whole numbers from 0 (air) are needed.")
    labels = labels.astype(np.uint8 if high < 256 else np.uint16 if high < 65536 else np.uint32, copy=False)
    count = np.bincount(labels.ravel())
    return labels, {int(k): int(count[k]) for k in np.nonzero(count)[0]}


def _map_labels(tissues: Mapping, counts: Mapping[int, int], name: str) -> dict[int, str]:
    table = _label_tables.parse_mapping(tissues)
    labels = sorted(set(counts) - {0})
    unknown = [label for label in labels if label not in table]
    if unknown:
        raise ValueError(f'{name}: labels {unknown[:8]} are not in the mapping; map them, to "air" to drop them.')
    present = {table[label] for label in labels}
    missing = sorted({t for k, t in table.items() if k and t != "air"} - present)
    if missing:
        numbers = {t: [k for k, v in table.items() if v == t] for t in missing}
        raise ValueError(
            f"{name}: no voxel of {', '.join(f'{t} (label {numbers[t]})' for t in missing)}, found labels {labels}; "
            "correct the mapping or leave these tissues out."
        )
    if not present - {"air"}:
        raise ValueError(f"{name}: every voxel is air; is this the label volume?")
    return table
