"""The structure of MATLAB's version 5 files, looked at before scipy reads them.

scipy takes types and dimensions as they stand: an unknown type ends the interpreter, and what dimensions declare is
allocated, or looped over, before it turns out that it is not there. Source: MAT-File Format, The MathWorks, ch. 1.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from jaxm2m.files import inflate

_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # of a number, by type of element
_TEXT = {*_BYTES, 16, 17, 18}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_DEEPEST = 50
_FEW = 1 << 16  # elements that may be there without bytes of their own: structures without fields, blanks


class BrokenFile(ValueError):
    """What is wrong with a file, in a few words."""


def check_mat5(path: Path, limit: int) -> None:
    """Refuse a file whose elements are not what they declare, or are larger than `limit` bytes once decompressed.

    Version 4, which has neither types nor nesting, passes.
    """
    if path.stat().st_size > limit:
        raise BrokenFile(f"it is larger than {limit:,} bytes")
    data = memoryview(path.read_bytes())
    if 0 in data[:4]:
        return
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise BrokenFile("its header is not that of a MAT file")
    left = limit
    for kind, body in _iterate_elements(data[128:], order):
        if kind == _COMPRESSED:
            body = memoryview(inflate(bytes(body), left, "a variable"))
            left -= len(body)
            ((kind, body),) = [*_iterate_elements(body, order)][:1] or [(0, body)]
        if kind != _MATRIX:
            raise BrokenFile(f"a variable is of the unknown type {kind}")
        _check_matrix(body, order, 0)


def _iterate_elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of one element after the other."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:  # a short one: size and type share a word, four bytes follow
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise BrokenFile("an element is longer than its place")
        if start + size > len(data):
            raise BrokenFile("it is cut off, or declares more than it holds")
        yield kind, data[start : start + size]
        # what is compressed is not padded
        at = start + size if kind == _COMPRESSED else start + size + -(start + size) % 8


def _check_matrix(body: memoryview, order: str, depth: int) -> None:
    if not body:
        return
    if depth > _DEEPEST:
        raise BrokenFile("it is nested too deep")
    parts = _iterate_elements(body, order)
    flags = _take_element(parts, {6})
    if len(flags) != 8:
        raise BrokenFile("a variable has no flags")
    word = struct.unpack_from(order + "I", flags)[0]
    kind, complex_ = word & 0xFF, bool(word >> 11 & 1)
    if kind == _OPAQUE:
        _check_rest(parts, order, depth)
        return
    dims = _take_element(parts, {5})
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims[: len(dims) // 4 * 4])
    if not shape or min(shape) < 0:
        raise BrokenFile("a variable has a negative dimension")
    count = math.prod(shape)
    _take_element(parts, {1, 16})  # its name
    if kind == _OBJECT:
        _take_element(parts, {1, 16})
    if kind == _CELL:
        _check_inner(parts, order, depth, count, len(body))
    elif kind in (_STRUCT, _OBJECT):
        length = _take_element(parts, {5})
        names = _take_element(parts, {1, 16})
        width = struct.unpack(order + "i", length)[0] if len(length) == 4 else 0
        if width < 1:
            raise BrokenFile("a structure has names of no length")
        fields = len(names) // width
        if not fields and count > _FEW:
            raise BrokenFile("a structure declares more than it holds")
        _check_inner(parts, order, depth, count * fields, len(body))
    elif kind == _FUNCTION:
        _check_inner(parts, order, depth, 1, len(body))
    elif kind == _CHAR:
        if count > _FEW + len(_take_element(parts, _TEXT)):
            raise BrokenFile("a text declares more than it holds")
    elif kind == _SPARSE:
        for _ in range(4 if complex_ else 3):
            _take_element(parts, set(_BYTES))
    elif 6 <= kind <= 15:
        for _ in range(2 if complex_ else 1):
            element_kind, values = next(parts, (0, memoryview(b"")))
            if element_kind not in _BYTES or len(values) != count * _BYTES[element_kind]:
                raise BrokenFile("an array does not hold as many numbers as it declares")
    else:
        raise BrokenFile(f"a variable is of the unknown class {kind}")


def _take_element(parts: Iterator[tuple[int, memoryview]], kinds: set[int]) -> memoryview:
    kind, body = next(parts, (0, memoryview(b"")))
    if kind not in kinds:
        raise BrokenFile(f"an element of the type {kind} stands in the place of another")
    return body


def _check_inner(parts: Iterator[tuple[int, memoryview]], order: str, depth: int, count: int, size: int) -> None:
    if count > size // 8:
        raise BrokenFile("a variable declares more elements than it holds")
    for _ in range(count):
        _check_matrix(_take_element(parts, {_MATRIX}), order, depth + 1)


def _check_rest(parts: Iterator[tuple[int, memoryview]], order: str, depth: int) -> None:
    for kind, body in parts:
        if kind == _MATRIX:
            _check_matrix(body, order, depth + 1)
        elif kind not in _TEXT:
            raise BrokenFile(f"an element is of the unknown type {kind}")
