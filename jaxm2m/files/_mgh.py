"""FreeSurfer volumes (.mgz, .mgh), read without trusting their headers."""

import gzip
import math
import zlib

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.spatialimages import HeaderDataError

from jaxm2m import _check
from jaxm2m._types import PathLike

_SUFFIXES = (".mgz", ".mgh")


def read_mgh(
    path: PathLike, limit: int = 4 << 30, name: str = "path", *, oriented: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Read the numbers and the affine of a FreeSurfer volume.

    Parameters
    ----------
    path
        A `.mgz` or `.mgh` file.
    limit
        Bytes that its numbers may take in memory.
    name
        What errors call it.
    oriented
        Whether the affine is needed: False accepts a file that says that it has none.

    Returns
    -------
    values : (nx, ny, nz, ...) array
        In the file's own type, native byte order.
    affine : (4, 4) float64 array
        Voxel index to mm of scanner space.

    Raises
    ------
    ValueError
        Not such a file, cut off, larger than `limit`, or without orientation (its "good RAS" flag is not set).
    """
    path = _check.file(path, name, suffixes=_SUFFIXES)
    try:
        image = MGHImage.from_filename(path)
        shape, item = tuple(int(n) for n in image.shape), int(getattr(image.header.get_data_dtype(), "itemsize", 8))
        # nibabel puts the format's default in place of what is not there, and sets the flag
        with gzip.open(path, "rb") if path.name.lower().endswith(".mgz") else open(path, "rb") as file:
            good = int.from_bytes(file.read(30)[28:30], "big", signed=True) > 0
        affine = np.array(image.affine, np.float64)
    except (
        ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        zlib.error,
        gzip.BadGzipFile,
    ) as e:
        first = (str(e) or type(e).__name__).splitlines()[0]
        raise ValueError(f"{name}: {path} is no readable FreeSurfer volume ({first}); export it again.") from None
    needed = math.prod(shape) * item
    if not shape or min(shape) < 1 or needed > limit:
        raise ValueError(
            f"{name}: {path} declares the shape {shape}, {needed / 2**30:.1f} GB; export, crop or resample it."
        )
    # deflate reaches 1032:1 at most, so a file that is much too small need not be read
    if path.stat().st_size * (1032 if path.name.lower().endswith(".mgz") else 1) < needed:
        raise ValueError(f"{name}: {path} ends before its {shape} values do; it was cut off, export it again.")
    if oriented and not good:
        raise ValueError(
            f"{name}: {path} holds no orientation (its good RAS flag is 0), and left may be right; "
            "convert it from the image that it was made from, or pass affine= where it is taken."
        )
    if oriented and (not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12):
        raise ValueError(f"{name}: {path} has an affine that is not invertible; export it again.")
    try:
        values = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as e:
        first = (str(e) or type(e).__name__).splitlines()[0]
        raise ValueError(f"{name}: {path} cannot be read to its end ({first}); export or download it again.") from None
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), affine
