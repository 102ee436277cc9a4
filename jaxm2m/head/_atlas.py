"""A real standard head out of installed packages."""

import gzip
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from jaxm2m.files import atomic, cache_folder, fingerprint
from jaxm2m.head._head import Head
from jaxm2m.head._load import load_volume

# FreeSurfer's affine from MNI305 (fsaverage) to MNI152, mm
_MNI305_TO_MNI152 = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
_RECIPE = 1  # raise when the steps below change: caches are then built anew
_SHARE = 0.5
_THINNEST, _THICKEST = 3.0, 8.0
_SKIN = 2.0
_MARGIN = ((0, 0), (0, 12), (32, 0))  # voxels added to nilearn's volume, which cuts the nose and the jaw off


def atlas(
    spacing: float | int = 2.0,
    *,
    conductivity: Mapping[str, float | int] | None = None,
    crop: tuple[Sequence[float | int] | np.ndarray, float | int] | None = None,
) -> Head:
    """Build a five-tissue head in MNI152 space from what the packages mne and nilearn carry.

    Scalp and inner skull are fsaverage's surfaces (mne), moved from MNI305 to MNI152 by FreeSurfer's affine; grey and
    white matter are the ICBM 152 tissue maps (nilearn, 1 mm), the larger of grey, white and the rest in each voxel
    inside the inner skull; the rest is CSF.

    **One assumption**: the outer skull is in neither package. It is put at half of the local gap between inner skull
    and scalp, the bone kept between 3 and 8 mm and the skin at least 2 mm.

    The volume (1 mm labels, cut flat at z = -104.5 mm) is built once, in well under a minute, and kept, with the head's
    surfaces, in the user's cache folder (environment variable `JAXM2M_CACHE`, else the system's) under a key of
    versions and recipe; its checksum is verified whenever it is read, and a file that fails is built anew.

    Parameters
    ----------
    spacing
        Edge of the head's cubic voxels, mm.
    conductivity
        S/m by tissue name, over the defaults in `conductivities`.
    crop
        (centre, radius) in mm: keep the voxels within `radius` of `centre` along each axis; see `load` for what that
        costs.

    Returns
    -------
    Head
        Scalp, skull, CSF, grey and white matter, in MNI152 space.

    Raises
    ------
    ImportError
        mne or nilearn is missing.
    """
    return load_volume(
        _cache_volume(),
        spacing,
        labels="five",
        conductivity=conductivity,
        crop=crop,
        space="MNI152",
        keep=True,
    )


def _cache_volume() -> Path:
    """The cached label volume, built where it is missing or damaged."""
    try:
        versions = {package: version(package) for package in ("mne", "nilearn")}
    except PackageNotFoundError as e:
        raise ImportError(f'head.atlas: {e.name} is missing; python -m pip install "jaxm2m[atlas]".') from None
    key = fingerprint("atlas", _RECIPE, versions, _SHARE, _THINNEST, _THICKEST, _SKIN)[:16]
    folder = cache_folder()
    path = folder / f"atlas-{key}.nii.gz"
    if _is_intact(path):
        return path
    labels, affine = _build_labels()
    image = nibabel.Nifti1Image(labels, affine)
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    image.header.set_xyzt_units("mm")
    # no time stamp: builders at work at once write the same bytes, in whatever order they end
    data = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        with atomic(_record_path(path)) as temporary:
            temporary.write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "versions": versions}))
    except OSError as e:
        raise OSError(
            f"head.atlas: the cache folder {folder} cannot be written ({e.strerror or e}); set JAXM2M_CACHE to one "
            "that can."
        ) from e
    return path


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _is_intact(path: Path) -> bool:
    try:
        expected = json.loads(_record_path(path).read_text())["sha256"]
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return checksum == expected


def _build_labels() -> tuple[np.ndarray, np.ndarray]:
    """Labels uint8 (0 air, 1 scalp, 2 skull, 3 CSF, 4 grey, 5 white) and affine, 1 mm."""
    try:
        import mne
        from nilearn import datasets
    except ImportError as e:
        raise ImportError(f'head.atlas: {e}; python -m pip install "jaxm2m[atlas]".') from e

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grey_image = datasets.load_mni152_gm_template(resolution=1)
        white_image = datasets.load_mni152_wm_template(resolution=1)
    affine = np.array(grey_image.affine, np.float64)
    same = np.allclose(white_image.affine, affine) and white_image.shape == grey_image.shape
    if not (np.allclose(affine[:3, :3], np.eye(3)) and same):
        raise RuntimeError("head.atlas: this nilearn keeps its maps on another grid; please report its version.")
    grey = np.pad(np.asarray(grey_image.dataobj, np.float32), _MARGIN)
    white = np.pad(np.asarray(white_image.dataobj, np.float32), _MARGIN)
    affine[:3, 3] -= [low for low, _ in _MARGIN]
    folder = Path(mne.__file__).parent / "data" / "fsaverage"

    def inside(file: str) -> np.ndarray:
        (surface,) = mne.read_bem_surfaces(folder / file, on_defects="ignore", verbose="error")
        rr = surface["rr"] * 1e3
        vertices = rr @ _MNI305_TO_MNI152[:3, :3].T + _MNI305_TO_MNI152[:3, 3]
        return fill_surface(vertices - affine[:3, 3], surface["tris"], grey.shape)

    head = inside("fsaverage-head.fif")
    skull_inner = inside("fsaverage-inner_skull-bem.fif")
    # nothing lies below the volume, so that its cut counts as no surface; distances to voxels' centres are half a
    # voxel more than those to the faces between them
    depth = np.maximum(_distance_to(~head) - 0.5, 0)
    skull_inner &= depth >= _SKIN + _THINNEST
    height = np.maximum(_distance_to(skull_inner) - 0.5, 0)
    bone = np.clip(_SHARE * (height + depth), _THINNEST, _THICKEST)
    skull = head & ~skull_inner & (height <= bone) & (depth >= _SKIN)
    labels = head.astype(np.uint8)
    labels[skull] = 2
    rest = 1 - grey - white
    labels[skull_inner] = 3
    labels[skull_inner & (grey >= np.maximum(white, rest))] = 4
    labels[skull_inner & (white > np.maximum(grey, rest))] = 5
    return labels, affine


def _distance_to(mask: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask).astype(np.float32)


def fill_surface(vertices: np.ndarray, triangles: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Voxels whose centres lie inside a closed triangulation given in index coordinates.

    Along each column of voxels the crossings of the surface are counted: inside where their number below is odd.
    """
    # a column that meets an edge would count it twice: none lies exactly on one after this shift
    vertices = vertices + np.array([1.234e-4, 2.345e-4, 0])
    crossings = np.zeros((shape[0], shape[1], shape[2] + 1), np.int32)
    for a, b, c in vertices[triangles]:
        low = np.maximum(np.ceil(np.minimum(np.minimum(a, b), c)[:2]), 0).astype(int)
        high = np.minimum(np.floor(np.maximum(np.maximum(a, b), c)[:2]), np.array(shape[:2]) - 1).astype(int)
        if (high < low).any():
            continue
        x = np.arange(low[0], high[0] + 1)[:, None]
        y = np.arange(low[1], high[1] + 1)[None, :]
        twice = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if twice == 0:
            continue
        v = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / twice
        w = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / twice
        hit = (v >= 0) & (w >= 0) & (v + w <= 1)
        i, j = np.nonzero(hit)
        z = a[2] + v[hit] * (b[2] - a[2]) + w[hit] * (c[2] - a[2])
        k = np.clip(np.ceil(z), 0, shape[2]).astype(int)
        np.add.at(crossings, (i + low[0], j + low[1], k), 1)
    return (np.cumsum(crossings, axis=2)[:, :, :-1] % 2).astype(bool)
