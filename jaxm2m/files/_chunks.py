"""HDF5 data sets of one compressed chunk a row, compressed outside HDF5, which does it on one core."""

import zlib
from collections.abc import Iterable

import h5py
import numpy as np


def create_chunked(file: h5py.File, name: str, shape: tuple[int, ...], *, unit: str) -> h5py.Dataset:
    """Create a float32 data set of one byte-shuffled, deflated chunk a row.

    Parameters
    ----------
    file
        The file, open to be written.
    name
        Name of the data set.
    shape
        Its shape, the rows first.
    unit
        What it is measured in, kept as its attribute `unit`.

    Returns
    -------
    h5py.Dataset
        The data set, without data.
    """
    data = file.create_dataset(
        name,
        shape,
        np.dtype("<f4"),
        chunks=(1, *shape[1:]),
        shuffle=True,
        compression="gzip",
        compression_opts=1,
    )
    data.attrs["unit"] = unit
    return data


def compress_chunk(values: np.ndarray) -> bytes:
    """Compress a row as the shuffle and deflate filters of HDF5 do.

    Parameters
    ----------
    values
        Numbers of a row of a data set of `create_chunked`, of any shape and unit.

    Returns
    -------
    bytes
        The chunk, for `write_chunks`.
    """
    planes = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).reshape(-1, 4).T
    # of a field, runs are all that repeats: to look for more takes twice as long and saves 2 %
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return deflate.compress(planes.tobytes()) + deflate.flush()


def write_chunks(data: h5py.Dataset, chunks: Iterable[bytes], start: int = 0) -> None:
    """Write compressed chunks as they are.

    Parameters
    ----------
    data
        A data set of `create_chunked`.
    chunks
        One chunk a row, of `compress_chunk` or of a data set alike.
    start
        Row of the first.
    """
    for i, chunk in enumerate(chunks, start):
        data.id.write_direct_chunk((i, *(0,) * (data.ndim - 1)), chunk)
