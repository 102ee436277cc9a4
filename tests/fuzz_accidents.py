"""What can become of a file on its way to a user: bytes, words, nodes, variables that are lost, doubled or changed."""

import base64
import gzip
import io
import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

MUTATIONS = int(os.environ.get("JAXM2M_FUZZ", "8"))  # of each file
Mutate = Callable[[bytes, np.random.Generator], bytes]
NUMBERS = (0, 1, -1, 2, 3, 7, 127, 255, 32767, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
NUMBERS = (*NUMBERS, (1 << 62), (1 << 63) - 1, (1 << 64) - 1)
WORDS = ("nan", "inf", "-inf", "1e999", "-1", "0", "1e308", "-1e-320", "9" * 30, "9" * 5000, "", "x", "0x10", "1_0")
WORDS = (*WORDS, "1,5", "٣", "\x00", "(null)", "2147483648", "18446744073709551615", "None", "1e5", "NaN NaN")
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    3,
    1 << 31,
    1 << 64,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    10**400,
)
VALUES = (*VALUES, "", "x", "<script>", "nan", [], {}, [[]], [None], [1, [2]], {"a": 1}, [[1.0] * 3] * 2, "é" * 100)


def raw(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three accidents to the bytes, whatever they mean."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not out:
            break
        # headers decide most: half of the accidents happen there
        at = int(rng.integers(len(out) if rng.random() < 0.5 else min(len(out), 400)))
        size = int(rng.integers(1, 1 + min(len(out), 1 << int(rng.integers(0, 11)))))
        kind = rng.integers(9)
        if kind == 0:
            del out[at:]
        elif kind == 1:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            out[at : at + size] = rng.bytes(len(out[at : at + size]))
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = out[at : at + size] * int(rng.choice([1, 2, 50]))
        elif kind == 5:
            out[at:at] = bytes(size)
        elif kind == 6:
            width = int(rng.choice([1, 2, 4, 8]))
            number = int(rng.choice(np.array(NUMBERS, object))) % (1 << 8 * width)
            at -= at % width
            out[at : at + width] = number.to_bytes(width, str(rng.choice(["little", "big"])))
        elif kind == 7:
            code = str(rng.choice(["<f", ">f", "<d", ">d"]))
            word = struct.pack(code, float(rng.choice([np.nan, np.inf, -np.inf, 0, -1, 1e30, 1e-30])))
            out[at : at + len(word)] = word
        else:
            width = int(rng.choice([2, 4, 8]))
            at -= at % width
            out[at : at + width] = out[at : at + width][::-1]
    return bytes(out)


def text(data: bytes, rng: np.random.Generator) -> bytes:
    """A number, word or line of a text changed; now and then the bytes."""
    kind = rng.integers(8)
    if kind < 2:
        return raw(data, rng)
    if kind < 5:
        found = list(re.finditer(rb"[-+.\w]+" if kind == 2 else rb"[-+]?\d[\d.eE+-]*", data))
        if found:
            at = found[int(rng.integers(len(found)))]
            return data[: at.start()] + str(rng.choice(WORDS)).encode() + data[at.end() :]
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = int(rng.integers(len(lines)))
    if kind == 5:
        lines[at : at + 1] = [lines[at]] * int(rng.choice([0, 2, 300]))
    elif kind == 6:
        odd = [b"\xff\xfe\x00", b"\x00", b'"', b"'", b"\r", b"\t" * 50, b"," * 50, b"#", b"$", b"\n" * 20, b";" * 9]
        lines[at] = odd[int(rng.integers(len(odd)))].join([lines[at][:7], lines[at][7:]])
    else:
        other = int(rng.integers(len(lines)))
        lines[at], lines[other] = lines[other], lines[at]
    return b"".join(lines)


def in_gzip(mutate: Mutate) -> Mutate:
    """The content changed and compressed again, or the compressed bytes changed."""

    def changed(data: bytes, rng: np.random.Generator) -> bytes:
        if rng.random() < 0.3:
            return raw(data, rng)
        return gzip.compress(mutate(gzip.decompress(data), rng), compresslevel=1, mtime=0)

    return changed


def json_tree(data: bytes, rng: np.random.Generator) -> bytes:
    """A node of a JSON tree replaced, removed, doubled or nested; arrays in base64 too; now and then the text."""
    if rng.random() < 0.2:
        return text(data, rng)
    try:
        tree = json.loads(data)
    except ValueError:  # an earlier accident's
        return text(data, rng)
    for _ in range(rng.integers(1, 3)):
        holder, key = tree, None
        while isinstance(holder, (dict, list)) and holder:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = keys[int(rng.integers(len(keys)))]
            inner = holder[key]
            if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.25:
                break
            holder = inner
        if key is None or not isinstance(holder, (dict, list)) or not holder:
            break
        kind = rng.integers(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif kind == 2:
            holder[key] = [holder[key]]
        elif kind == 3 and isinstance(holder[key], str) and len(holder[key]) > 40:
            holder[key] = _packed(holder[key], rng)
        else:
            holder[key] = VALUES[int(rng.integers(len(VALUES)))]
    return json.dumps(tree).encode()


def _packed(words: str, rng: np.random.Generator) -> str:
    try:
        content = zlib.decompress(base64.b64decode(words))
    except (ValueError, zlib.error):
        return words[::-1]
    return base64.b64encode(zlib.compress(raw(content, rng))).decode()


def json_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """A line of JSON lines changed as JSON, or the text."""
    lines = data.splitlines(keepends=True)
    if rng.random() < 0.4:
        return text(data, rng)
    at = int(rng.integers(len(lines)))
    lines[at] = json_tree(lines[at], rng).rstrip(b"\n") + b"\n"
    return b"".join(lines)


def xml(data: bytes, rng: np.random.Generator) -> bytes:
    """Elements removed, doubled or nested; entities; attributes changed; or the text."""
    kind = rng.integers(6)
    if kind < 3:
        return text(data, rng)
    found = list(re.finditer(rb"<(\w+)[^<>]*/>|<(\w+)[^<>]*>[^<>]*</\2>", data))
    at = found[int(rng.integers(len(found)))]
    if kind == 3:
        return data[: at.start()] + at[0] * int(rng.choice([0, 2, 500])) + data[at.end() :]
    if kind == 4:
        deep = int(rng.choice([3, 300, 20000]))
        return data[: at.start()] + b"<a>" * deep + at[0] + b"</a>" * deep + data[at.end() :]
    entity = [b'<!DOCTYPE a [<!ENTITY x "y">]>', b'<!DOCTYPE a SYSTEM "file:///etc/passwd">', b"<!-- -- -->", b"<?x?>"]
    start = data.index(b"?>") + 2 if b"?>" in data else 0
    return data[:start] + entity[int(rng.integers(len(entity)))] + data[start:]


def hdf5(data: bytes, rng: np.random.Generator) -> bytes:
    """A data set, group or attribute removed or replaced by another kind: what other programs may have written."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(rng.integers(1, 3)):
            names = [name for name in names if _whole(file, name)]  # the first accident may have cut some off
            if not names:
                break
            holder: Any = file if rng.random() < 0.6 else file[names[int(rng.integers(len(names)))]]
            keys = list(holder.attrs)
            if keys and rng.random() < 0.5:
                key = keys[int(rng.integers(len(keys)))]
                value = holder.attrs[key]
                del holder.attrs[key]
                if rng.random() < 0.8:
                    holder.attrs[key] = _attribute(value, rng)
                continue
            _replaced(file, names[int(rng.integers(len(names)))], rng)
    return buffer.getvalue()


def _whole(file: h5py.File, name: str) -> bool:
    """Whether the file still has something of that name that is no broken link."""
    try:
        return file[name] is not None
    except (KeyError, OSError, RuntimeError):
        return False


def _attribute(value: Any, rng: np.random.Generator) -> Any:
    odd = (b"\xff\xfe", "x" * 1000, "<script>", np.nan, -1, 1 << 62, [], [1, 2, 3], ["a", "b"], np.void(b"abc"))
    kind = int(rng.integers(len(odd) + 4))
    if kind < len(odd):
        return odd[kind]
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json_tree(value.encode(), rng).decode("utf-8", "replace").replace("\x00", "")
    return h5py.Empty("f") if kind == len(odd) else value


def _replaced(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    old = file[name]
    there = isinstance(old, h5py.Dataset) and old.shape is not None and old.size < 1 << 20  # not what only declares
    values = old[()] if there else np.zeros(2)
    del file[name]
    kind = rng.integers(18)
    if kind == 0:
        file.create_group(name)
    elif kind == 1:
        file[name] = h5py.Empty("f8")
    elif kind == 2:
        file[name] = h5py.ExternalLink("other.h5", "x")
    elif kind == 3:
        file[name] = h5py.SoftLink(f"/{name}")
    elif kind == 4:
        file[name] = file["/"]  # a loop of hard links
    elif kind == 5:
        # gigabytes that are declared and not there
        shape = (*(np.shape(values) or (1,))[:-1], 1 << int(rng.choice([26, 34, 40])))
        file.create_dataset(name, shape, "f8", chunks=(*(1,) * (len(shape) - 1), 1024), compression="gzip")
    elif kind == 6:
        file.create_dataset(name, data=np.array(["a", "é"], object), dtype=h5py.string_dtype())
    elif kind == 7:
        file[name] = np.array([b"\xff\xfe", b"ab"])
    elif kind == 8:
        file[name] = np.zeros(2, [("a", "i4"), ("b", "f8", (2,))])
    elif kind == 9:
        file.create_dataset(name, (2,), dtype=h5py.ref_dtype)
    elif kind == 10:
        file.create_dataset(name, (2,), dtype=h5py.vlen_dtype(np.int32))
    elif kind == 11:
        file[name] = np.asarray(values).reshape(-1)[:1] if np.size(values) else np.zeros(0)
    elif kind == 12:
        file[name] = np.zeros((0, *np.shape(values)[1:]), np.asarray(values).dtype if np.size(values) else float)
    elif kind == 13:
        file[name] = np.asarray(values)[None]
    elif kind == 14:
        file[name] = np.ones(np.shape(values), np.complex64)
    elif kind == 15 and np.asarray(values).dtype.kind in "iuf":
        worse = np.array(values, np.float64)
        worse.reshape(-1)[: 1 + worse.size // 3] = float(rng.choice([np.nan, np.inf, -1, 1e300, 1e18]))
        file[name] = worse
    elif kind == 16 and np.asarray(values).dtype.kind in "iu":
        file[name] = np.full(np.shape(values), int(rng.choice([-1, -(1 << 62), (1 << 62), 99999])))
    elif kind == 17:
        file[name] = np.asarray(values).reshape(-1)[0] if np.size(values) else 0.0


def matlab(data: bytes, rng: np.random.Generator) -> bytes:
    """Version 5 of MAT: elements changed inside their compression too."""
    if rng.random() < 0.4:
        return raw(data, rng)
    out, at = data[:128], 128
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + size]
        at += 8 + size + (0 if kind == 15 else -size % 8)
        if kind == 15 and rng.random() < 0.5:
            body = zlib.compress(raw(zlib.decompress(body), rng), 1)
            size = len(body)
        out += struct.pack("<II", kind, size) + body
    return out
