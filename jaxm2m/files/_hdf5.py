"""HDF5 files, read without following where they point."""

import math
import os

import h5py

from jaxm2m import _check

GIGABYTE = 1 << 30


def open_hdf5(path: str | os.PathLike[str], limit: int = 64 * GIGABYTE, name: str = "path") -> h5py.File:
    """Open an HDF5 file to read, after a look at all that it declares.

    Refused are links to other files, soft links, data stored in other files (external and virtual data sets), data
    sets of Python objects or references, and declared sizes of more than `limit` bytes in all.

    Returns
    -------
    h5py.File
        Open, read-only; use it in a `with` block.

    Raises
    ------
    ValueError
        Not HDF5, empty, cut off, or refused for the reasons above.

    """
    path = _check.file(path, name)
    if not h5py.is_hdf5(path):
        raise ValueError(f"{name}: {path} is not an HDF5 file; check the path.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "it was cut off" if "truncated" in str(error) else str(error).splitlines()[0]
        raise ValueError(f"{name}: {path} cannot be opened ({reason}); make or download it again.") from None
    try:
        size = _declared_size(file, path, name, set())
        if size > limit:
            raise ValueError(
                f"{name}: {path} declares {size / GIGABYTE:.1f} GB, over the limit of {limit / GIGABYTE:.1f} GB; "
                "read a smaller file, or raise the limit."
            )
    except BaseException:
        file.close()
        raise
    return file


def _declared_size(group: h5py.Group, path: os.PathLike[str], name: str, seen: set[int]) -> int:
    def refuse(key: str, what: str) -> ValueError:
        return ValueError(
            f"{name}: {path} has {what} at {group.name.rstrip('/')}/{key}; write its content into the file itself."
        )

    size = 0
    for key in group:
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise refuse(key, "a link to another file")
        if isinstance(link, h5py.SoftLink):
            raise refuse(key, "a soft link")
        try:
            item = group[key]
        except (KeyError, OSError):
            raise refuse(key, "a broken object") from None
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:  # hard links can form a loop
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            size += _declared_size(item, path, name, seen)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise refuse(key, "data stored in another file")
            if _holds_objects(item.dtype):
                raise refuse(key, "objects or references")
            size += math.prod(item.shape or ()) * item.dtype.itemsize
    return size


def _holds_objects(dtype) -> bool:
    if dtype.names:
        return any(_holds_objects(dtype[field]) for field in dtype.names)
    # text of variable length is an object to NumPy, but harmless
    return dtype.base.kind == "O" and h5py.check_string_dtype(dtype.base) is None
