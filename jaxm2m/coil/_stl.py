"""Surfaces as STL files, binary or text."""

import re
from pathlib import Path

import numpy as np

_HEADER = 84  # bytes of a binary file before its triangles: a title and their number
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_VERTEX = re.compile(rb"^\s*vertex\s+(\S+)\s+(\S+)\s+(\S+)\s*$", re.MULTILINE | re.IGNORECASE)


def read_stl(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a surface from an STL file.

    A binary file is known by its length, whatever its title says: CAD programs write "solid" there too.

    Returns
    -------
    vertices (n, 3), in the file's unit, corners in one place merged; triangles (m, 3).

    Raises
    ------
    ValueError
        Neither binary nor text of this format, truncated, without triangles, NaN.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[_HEADER - 4 : _HEADER], "little")
    excess = len(data) - _HEADER - count * _TRIANGLE.itemsize
    # some programs add something of their own behind the triangles
    if count and (excess == 0 or (excess > 0 and b"\0" in data[:_HEADER])):
        corners = np.frombuffer(data, _TRIANGLE, count, _HEADER)["corners"].reshape(-1, 3).astype(float)
    elif data[:512].lstrip().lower().startswith(b"solid") and b"\0" not in data:
        rows = _VERTEX.findall(data)
        whole = data.lower().count(b"endfacet")
        if not rows or len(rows) != 3 * whole or data.lower().count(b"vertex") != len(rows):
            raise ValueError(
                f"{path}: {len(rows)} readable corners for {whole} whole triangles; the file is truncated or no STL: "
                "export the casing again."
            )
        try:
            corners = np.array(rows, dtype="S").astype(float)
        except ValueError:
            raise ValueError(f"{path}: a corner is not three numbers; export the casing again as STL.") from None
    else:
        raise ValueError(
            f"{path}: {len(data)} bytes are neither text of the STL format nor {count} triangles of its binary form; "
            "the file is truncated or of another kind: export the casing again."
        )
    if not np.isfinite(corners).all():
        raise ValueError(f"{path}: a corner is NaN or infinite; repair the surface and export it again.")
    vertices, index = np.unique(corners, axis=0, return_inverse=True)
    triangles = index.reshape(-1, 3)
    flat = (triangles == np.roll(triangles, 1, axis=1)).any(axis=1)
    return vertices, triangles[~flat]
