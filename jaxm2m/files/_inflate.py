"""Decompression that cannot fill the memory."""

import zlib


def inflate(data: bytes, limit: int, what: str = "data") -> bytes:
    """Decompress zlib or gzip data to a bounded number of bytes.

    Parameters
    ----------
    data
        Compressed, with the header of zlib or gzip.
    limit
        Bytes that it may have when decompressed.
    what
        What errors call it.

    Returns
    -------
    bytes
        The decompressed data.

    Raises
    ------
    ValueError
        `what` is larger than `limit` when decompressed (nothing beyond it is ever allocated), is cut off, or is not
        compressed data.
    """
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: either header
    try:
        result = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"{what}: broken compressed data ({error}); export or download it again.") from None
    if len(result) > limit:
        raise ValueError(f"{what}: more than {limit:,} bytes when decompressed; it is not what it claims to be.")
    if not stream.eof:
        raise ValueError(f"{what}: the compressed data is cut off; export or download it again.")
    return result
