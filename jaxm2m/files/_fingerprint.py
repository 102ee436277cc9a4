"""Fingerprints: are two inputs the same to the bit?"""

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxm2m._pytree import StaticMetadata


def fingerprint(*parts: object) -> str:
    """Compute SHA-256 over arrays, text, numbers, None, lists, dicts and pytrees.

    Of arrays, type, shape and numbers count. The order of a dict's keys does not count. `StaticMetadata` (names,
    provenance) do not count: whose head it is never enters a fingerprint. JAX and NumPy arrays of equal numbers are the
    same.

    Parameters
    ----------
    *parts
        What to take the fingerprint of.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    TypeError
        Something whose content is not known (a function, an open file).

    Examples
    --------
    >>> import jaxm2m as jm
    >>> a, b = jm.files.fingerprint("head", 2.0), jm.files.fingerprint("head", 2.5)
    >>> len(a) == len(b), a == b
    (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def _update(digest: Any, part: Any) -> None:
    def add(kind: bytes, content: bytes = b"") -> None:
        # kind and length before the content, so that no two sequences of parts read alike
        digest.update(kind + struct.pack("<q", len(content)))
        digest.update(content)

    if part is None:
        add(b"none")
    elif isinstance(part, StaticMetadata):
        add(b"notes")
    elif isinstance(part, (bool, np.bool_)):
        add(b"bool", bytes([bool(part)]))
    elif isinstance(part, int):
        add(b"int", str(part).encode())
    elif isinstance(part, float):
        add(b"float", struct.pack("<d", part))
    elif isinstance(part, str):
        add(b"str", part.encode())
    elif isinstance(part, bytes):
        add(b"bytes", part)
    elif isinstance(part, Path):
        add(b"path", str(part).encode())
    elif isinstance(part, (np.ndarray, np.generic, jax.Array)):
        _update_array(digest, add, part)
    elif isinstance(part, Mapping):
        add(b"dict", str(len(part)).encode())
        for key in sorted(part, key=lambda k: (type(k).__name__, str(k))):
            _update(digest, key)
            _update(digest, part[key])
    elif isinstance(part, (list, tuple)):
        add(b"list", str(len(part)).encode())
        for item in part:
            _update(digest, item)
    else:
        _update_tree(digest, add, part)


def _update_array(digest: Any, add: Any, part: Any) -> None:
    values = np.asarray(part)
    if values.dtype == object:
        raise TypeError("fingerprint: an array of Python objects; pass numbers or text.")
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    add(b"array", f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data if values.size else b"")


def _update_tree(digest: Any, add: Any, part: Any) -> None:
    # one level at a time, so that whatever a node holds is treated as above
    structure: Any
    children, structure = jax.tree_util.tree_flatten(part, is_leaf=lambda node: node is not part)
    if jax.tree_util.treedef_is_leaf(structure):
        raise TypeError(f"fingerprint: found {type(part).__name__}; pass arrays, text, numbers, dicts or pytrees.")
    add(b"tree", type(part).__qualname__.encode())
    static = structure.node_data()[1]
    _update(digest, static if isinstance(static, (tuple, list, str, int)) else repr(static))
    for child in children:
        _update(digest, child)
