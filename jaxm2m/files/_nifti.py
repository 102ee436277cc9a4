"""NIfTI volumes, read without trusting their headers."""

import gzip
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from jaxm2m import _check
from jaxm2m._types import PathLike

GIGABYTE = 1 << 30
_SUFFIXES = (".nii", ".nii.gz")
_LARGEST_HEADER = 64 << 20
_LARGEST_DISAGREEMENT = 1.0  # mm, of two transforms into the same space


def check_nifti_size(path: PathLike, limit: int = 4 * GIGABYTE, name: str = "path") -> nibabel.Nifti1Image:
    """Check what a NIfTI file declares against a limit and against what the file really holds.

    Parameters
    ----------
    path
        A `.nii` or `.nii.gz` file.
    limit
        Bytes that its numbers may take in memory.
    name
        What errors call it.

    Returns
    -------
    nibabel.Nifti1Image
        The image, its numbers not yet read.

    Raises
    ------
    ValueError
        Not a NIfTI file, empty, cut off, or larger than `limit`: before anything large is allocated.
    """
    path = _check.file(path, name, suffixes=_SUFFIXES)
    _check_offset(path, name)
    try:
        image = nibabel.load(path)
    except (
        ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        zlib.error,
    ) as e:
        raise ValueError(f"{name}: {path} is not a readable NIfTI file ({_first_line(e)}); export it again.") from None
    except (ValueError, OverflowError, IndexError, KeyError) as e:
        raise ValueError(f"{name}: {path} has a broken NIfTI header ({_first_line(e)}); export it again.") from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise ValueError(f"{name}: {path} holds {type(image).__name__}; convert it to NIfTI.")
    header = image.header
    shape = tuple(int(n) for n in image.shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"{name}: {path} declares the shape {shape}; export it again.")
    stored = math.prod(shape) * header.get_data_dtype().itemsize
    # scaled integers become floats of eight bytes
    needed = max(stored, math.prod(shape) * 8 * _is_scaled(image))
    if needed > limit:
        raise ValueError(
            f"{name}: {path} declares {_format_shape(shape)} values, {needed / GIGABYTE:.1f} GB in memory, over the "
            f"limit of {limit / GIGABYTE:.1f} GB; crop or resample it, or raise the limit."
        )
    proxy: Any = image.dataobj
    end = int(proxy.offset) + stored
    if _is_shorter(path, end):
        raise ValueError(
            f"{name}: {path} ends before its {_format_shape(shape)} values do; it was cut off, export or download it "
            "again."
        )
    return image


def read_nifti(
    path: PathLike, limit: int = 4 * GIGABYTE, name: str = "path", *, oriented: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Read the numbers and the affine of a NIfTI volume.

    Parameters
    ----------
    path : path
        A `.nii` or `.nii.gz` file.
    limit : int
        Bytes that its numbers may take in memory.
    name : str
        What errors call it.
    oriented : bool
        Whether the affine is needed: False accepts a file whose header attaches no orientation to its voxels.

    Returns
    -------
    values : (nx, ny, nz, ...) array
        In the file's own type, or float64 where the file scales its numbers. Little-endian, in C order.
    affine : (4, 4) array
        Voxel index to mm, float64: the sform, else the qform, in mm whatever the file's unit (metres and micrometres
        are converted).

    Raises
    ------
    ValueError
        Not NIfTI, empty, cut off, over the limit, of complex or RGB type, without orientation, or with an affine that
        is not invertible.
    """
    image = check_nifti_size(path, limit, name)
    header = image.header
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ValueError(f"{name}: {path} holds {dtype}; save it as real numbers.")
    affine = nifti_affine(image, path, name) if oriented else np.array(image.affine, dtype=np.float64)
    try:
        values = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise ValueError(
            f"{name}: {path} cannot be read to its end ({_first_line(e)}); export or download it again."
        ) from None
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), affine


def nifti_affine(image: nibabel.Nifti1Image, path: PathLike, name: str = "path") -> np.ndarray:
    """Return the affine of an image in mm.

    Parameters
    ----------
    image
        A NIfTI image.
    path, name
        Its file, and what errors call it.

    Returns
    -------
    (4, 4) float64 array
        Voxel index to mm.

    Raises
    ------
    ValueError
        sform_code and qform_code are both 0, so that the file attaches no orientation to its voxels (nibabel would
        make one up); an affine that is not invertible.

    Warns
    -----
    UserWarning
        Its sform and qform disagree; see `describe_disagreement`.
    """
    if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
        raise ValueError(
            f"{name}: {path} has sform_code 0 and qform_code 0: it attaches no orientation to its voxels, and left may "
            "be right. Copy the transform of the image that it was made from and set the code to 1, or pass affine= "
            "where it is taken."
        )
    disagreement = describe_disagreement(image)
    if disagreement:
        warnings.warn(f"{name}: {path}: {disagreement}", stacklevel=3)
    affine = np.array(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ValueError(f"{name}: {path} has an affine that is not invertible; set its sform or qform.")
    affine[:3] *= nifti_unit(image)
    return affine


def describe_disagreement(image: nibabel.Nifti1Image) -> str:
    """Describe by how much the sform and the qform of an image differ, where they should not.

    Two transforms into the same space (of one code) should agree; two into different spaces may differ, but not in
    handedness.

    Parameters
    ----------
    image
        A NIfTI image.

    Returns
    -------
    str
        A sentence for people, with the largest distance over the volume in mm; empty where they agree.
    """
    header = image.header
    try:
        (s, s_code), (q, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    except (ValueError, HeaderDataError):  # a broken qform beside a good sform
        return ""
    if not s_code or not q_code or s is None or q is None:
        return ""
    scale = nifti_unit(image)
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in image.shape[:3]), indexing="ij"), -1).reshape(-1, 3)
    difference = (s - q)[:3]
    distance = scale * float(np.linalg.norm(corners @ difference[:, :3].T + difference[:, 3], axis=1).max())
    mirrored = np.linalg.det(s[:3, :3]) * np.linalg.det(q[:3, :3]) < 0
    if not mirrored and (s_code != q_code or distance <= _LARGEST_DISAGREEMENT):
        return ""
    return (
        f"sform (code {int(s_code)}) and qform (code {int(q_code)}) differ by up to {distance:.1f} mm"
        f"{', one mirrors the other' if mirrored else ''}; the sform was taken, correct the header if "
        "that is the wrong one"
    )


def nifti_unit(image: nibabel.Nifti1Image) -> float:
    """Return the unit of an image's transforms.

    Parameters
    ----------
    image
        A NIfTI image.

    Returns
    -------
    float
        In mm; 1 where its header names none.
    """
    # the first three bits; nibabel knows no word for most of their values
    return {1: 1e3, 3: 1e-3}.get(int(image.header["xyzt_units"]) & 7, 1.0)


def _check_offset(path: Path, name: str) -> None:
    """nibabel reads all extensions before the numbers; a small .gz can claim gigabytes of them."""
    start = next(_read_blocks(path, 540), b"")
    offset = 0.0
    for order in "<>":
        if start[:4] == struct.pack(order + "i", 348) and len(start) >= 348:
            offset = struct.unpack_from(order + "f", start, 108)[0]
        elif start[:4] == struct.pack(order + "i", 540) and len(start) >= 540:
            offset = struct.unpack_from(order + "q", start, 168)[0]
    if not offset <= _LARGEST_HEADER:
        raise ValueError(f"{name}: {path} declares a header of {offset:.3g} bytes; export it again without extensions.")


def _is_scaled(image: Any) -> bool:
    # nibabel blanks the scaling (and the offset) in the headers of images that it loads
    return (image.dataobj.slope, image.dataobj.inter) != (1, 0)


def _is_shorter(path: Path, end: int) -> bool:
    """Whether the (decompressed) file has fewer than `end` bytes, without holding it."""
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size < end
    # deflate reaches 1032:1 at most, so a file that is much too small need not be read
    if path.stat().st_size * 1032 < end:
        return True
    length = 0
    for block in _read_blocks(path):
        length += len(block)
        if length >= end:
            return False
    return True


def _read_blocks(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            while block := file.read(size):
                yield block
    except (OSError, EOFError, zlib.error):
        return


def _format_shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
