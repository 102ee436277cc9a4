"""Gmsh meshes, versions 2.2 and 4.1, text and binary: tetrahedra, their tags and tensors.

SimNIBS writes binary 2.2 with a header before every single element, which costs readers that take a header at a time
minutes on a whole head: runs of equal headers are read as one array here. Every count is held against the bytes that
are left before anything of its size is made.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxm2m import _check
from jaxm2m._types import PathLike
from jaxm2m.head._gmsh_stream import BrokenFile, Source, Stream, Text, TruncatedSection, parse_count, to_integers

_TETRAHEDRON = 4
_NODES = {1: 2, 2: 3, 3: 4, 4: 4, 5: 8, 6: 6, 7: 5, 8: 3, 9: 6, 10: 9, 11: 10, 12: 27, 13: 18, 14: 14, 15: 1}
_NODES |= {16: 8, 17: 20, 18: 15, 19: 13, 20: 9, 21: 10, 26: 4, 27: 5, 28: 6, 29: 20, 30: 35, 31: 56}
_SOLIDS = {5: "hexahedra", 6: "prisms", 7: "pyramids", 11: "second-order tetrahedra", 12: "hexahedra", 13: "prisms"}
_SOLIDS |= {14: "pyramids", 17: "hexahedra", 18: "prisms", 19: "pyramids"}
_SOLIDS |= dict.fromkeys((29, 30, 31), "higher-order tetrahedra")
_TENSOR = ("cond", "tensor")
_MOST_TAGS = 1000
_LARGEST = 8 << 30  # bytes of a file, unpacked


@dataclass(frozen=True)
class GmshMesh:
    """What a file holds of tetrahedra: rows of nodes, tags, the file's own numbers, tensors (NaN: none)."""

    nodes: Float[np.ndarray, "n 3"]
    elements: Int[np.ndarray, "m 4"]
    tags: Int[np.ndarray, " m"]
    numbers: Int[np.ndarray, " m"]
    tensors: Float[np.ndarray, "m 3 3"] | None


def read_gmsh(path: PathLike, name: str = "path") -> GmshMesh:
    """Read a Gmsh mesh.

    Raises
    ------
    ValueError
        Not a Gmsh file or of another version, cut off, counts beyond the file's size, no tetrahedra or other solids
        beside them, no tags, nodes that are not there.
    """
    path = _check.file(path, name)
    try:
        return _parse(_read_bytes(path))
    except BrokenFile as e:
        raise ValueError(f"{name}: {path} {e}") from None


def _read_bytes(path: Path) -> bytes:
    if not path.name.lower().endswith(".gz"):
        return path.read_bytes()
    blocks, length = [], 0
    try:
        with gzip.open(path, "rb") as file:
            while block := file.read(1 << 24):
                length += len(block)
                if length > _LARGEST:
                    raise BrokenFile(f"unpacks to more than {_LARGEST >> 30} GB; unpack it, or coarsen the mesh.")
                blocks.append(block)
    except (OSError, EOFError, zlib.error) as e:
        raise BrokenFile(f"cannot be unpacked to its end ({e}); download or pack it again.") from None
    return b"".join(blocks)


def _parse(data: bytes) -> GmshMesh:
    if not data[:200].lstrip().startswith(b"$MeshFormat"):
        raise BrokenFile("is not a Gmsh mesh (it does not begin with $MeshFormat); export it as .msh 2.2 or 4.1.")
    source = Source(data)
    old = source.version < 4
    nodes = elements = None
    entities: dict[int, int] = {}
    tensors = []
    for section in source.sections():
        try:
            if section == "ElementData":
                data_set = _read_tensors(source, section)
                tensors += [] if data_set is None else [data_set]
            elif section in ("Nodes", "Elements") or (section == "Entities" and not old):
                stream = source.stream(section)
                if section == "Entities":
                    entities = _read_entities(stream)
                elif section == "Nodes":
                    nodes = _read_nodes_2(stream) if old else _read_nodes_4(stream)
                else:
                    elements = _read_elements_2(stream) if old else _read_elements_4(stream, entities)
                stream.finish()
            else:
                source.skip(section)
                continue
            source.close(section)
        except (TruncatedSection, ValueError, OverflowError, IndexError) as e:
            raise BrokenFile(
                f"is cut off or broken in its section ${section} ({e}); export or download it again."
            ) from None
    if nodes is None or elements is None:
        raise BrokenFile(
            f"has no section ${'Elements' if nodes is not None else 'Nodes'}; export or download it again."
        )
    numbers, tags, corners = _collect_tetrahedra(elements)
    if not tags.any():
        raise BrokenFile(
            "gives its tetrahedra no physical tag, so that tissues are unknown; assign physical volumes in Gmsh, or "
            "pass arrays to head.from_mesh."
        )
    rows = _find_node_rows(nodes[0], corners, numbers)
    return GmshMesh(nodes[1], rows, tags, numbers, _join_tensors(tensors, numbers))


def _read_nodes_2(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    return stream.numbered_rows(stream.count(), 3)


def _read_nodes_4(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    blocks, count, _, _ = stream.sizes(4).tolist()
    numbers, places = [np.zeros(0, np.int64)], [np.zeros((0, 3))]
    for _ in range(blocks):
        dimension, _, parametric = stream.integers(3).tolist()
        n = int(stream.sizes(1)[0])
        numbers.append(stream.sizes(n))
        width = 3 + (dimension if parametric else 0)
        places.append(stream.doubles(n * width).reshape(n, width)[:, :3])
    number = np.concatenate(numbers)
    if len(number) != count:
        raise TruncatedSection(f"it declares {count} nodes and holds {len(number)}")
    return number, np.concatenate(places).astype(np.float64)


def _read_entities(stream: Stream) -> dict[int, int]:
    """First physical tag of each volume, 0 where it has none."""
    counts = stream.sizes(4).tolist()
    out = {}
    for dimension, count in enumerate(counts):
        for _ in range(count):
            tag = int(stream.integers(1)[0])
            stream.doubles(6 if dimension else 3)
            physical = stream.integers(int(stream.sizes(1)[0])).tolist()
            if dimension:
                stream.integers(int(stream.sizes(1)[0]))
            if dimension == 3:
                # the sign is an orientation
                out[tag] = abs(physical[0]) if physical else 0
    return out


Blocks = list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]
"""Type, number (n,), tag (n,) and nodes (n, ...) of elements."""


def _read_elements_2(stream: Stream) -> Blocks:
    count = stream.count()
    numbers = stream.rest()
    text = isinstance(stream, Text)
    if not 0 <= count <= len(numbers) // 2:
        raise TruncatedSection(f"it declares {count} elements, the file has room for {len(numbers) // 2} at most")
    blocks: Blocks = []
    at, done = 0, 0
    while done < count:
        if at + 3 > len(numbers):
            raise TruncatedSection(f"it declares {count} elements and holds {done}")
        head = to_integers(numbers[at : at + 3])
        # text: number, type, tags; binary: type, elements that follow, tags
        kind, follow, n_tag = (int(head[1]), 1, int(head[2])) if text else head.tolist()
        if kind not in _NODES or not 0 <= n_tag < _MOST_TAGS or not 1 <= follow <= count - done:
            raise TruncatedSection(f"element {done + 1} of {count} is of an unknown kind")
        width = 1 + n_tag + _NODES[kind]
        if follow > 1:
            if at + 3 + follow * width > len(numbers):
                raise TruncatedSection(f"it declares {count} elements and holds {done} and a part")
            table = numbers[at + 3 : at + 3 + follow * width].reshape(follow, width)
            at += 3 + follow * width
            number, rest = table[:, 0], table[:, 1:]
        else:
            stride = (2 if text else 3) + width
            most = min(count - done, (len(numbers) - at) // stride)
            if most < 1:
                raise TruncatedSection(f"it declares {count} elements and holds {done} and a part")
            table = numbers[at : at + most * stride].reshape(most, stride)
            same = slice(1, 3) if text else slice(0, 3)
            table = table[: _run_length(table[:, same])]
            at += table.size
            number, rest = table[:, 0 if text else 3], table[:, 3 if text else 4 :]
            follow = len(table)
        done += follow
        tag = rest[:, 0] if n_tag else np.zeros(follow)
        if kind == _TETRAHEDRON:
            blocks.append((kind, to_integers(number), to_integers(tag), to_integers(rest[:, n_tag:])))
        else:
            blocks.append((kind, number[:0], tag[:0], rest[:0]))
    stream.advance(at)
    return blocks


def _run_length(heads: np.ndarray) -> int:
    """How many rows from the first on are equal to it."""
    start, window = 0, 256
    while start < len(heads):
        other = (heads[start : start + window] != heads[0]).any(1)
        if other.any():
            return start + int(other.argmax())
        start, window = start + window, 2 * window
    return len(heads)


def _read_elements_4(stream: Stream, entities: dict[int, int]) -> Blocks:
    n_block, count, _, _ = stream.sizes(4).tolist()
    blocks, done = [], 0
    for _ in range(n_block):
        _, entity, kind = stream.integers(3).tolist()
        n = int(stream.sizes(1)[0])
        if kind not in _NODES:
            raise TruncatedSection(f"element {done + 1} of {count} is of an unknown kind")
        table = stream.sizes(n * (1 + _NODES[kind])).reshape(n, 1 + _NODES[kind])
        keep = n if kind == _TETRAHEDRON else 0
        tag = np.full(keep, entities.get(entity, 0))
        blocks.append((kind, table[:keep, 0], tag, table[:keep, 1:]))
        done += n
    if done != count:
        raise TruncatedSection(f"it declares {count} elements and holds {done}")
    return blocks


def _read_tensors(source: Source, section: str) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Name, element numbers and tensors (n, 3, 3) of element data that are conductivities; None for other data."""
    start = source.at
    text, _, last = (source.lines() for _ in range(3))
    sizes = [parse_count(word) for word in last]
    name = text[0].strip(b'"').decode("utf-8", "replace") if text else ""
    if len(sizes) < 3 or sizes[1] not in (6, 9) or not any(word in name.lower() for word in _TENSOR):
        source.at = start
        end = source.data.find(f"$End{section}".encode("ascii"), start)
        if end < 0:
            raise TruncatedSection("its end is missing")
        source.at = end
        return None
    stream = source.stream(section)
    numbers, values = stream.numbered_rows(sizes[2], sizes[1])
    stream.finish()
    if sizes[1] == 6:
        values = values[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]]
    return name, numbers, values.reshape(-1, 3, 3)


def _collect_tetrahedra(blocks: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ArrayLike, tags and nodes of all tetrahedra."""
    kinds = {kind for kind, *_ in blocks}
    other = sorted({_SOLIDS[kind] for kind in kinds if kind in _SOLIDS})
    if other:
        raise BrokenFile(f"holds {', '.join(other)}; mesh the head with first-order tetrahedra.")
    tetrahedra = [rest for kind, *rest in blocks if kind == _TETRAHEDRON]
    if not tetrahedra:
        what = "surfaces alone, no tetrahedra" if kinds else "no elements"
        raise BrokenFile(f"holds {what}; mesh the volume with tetrahedra.")
    number, tag, nodes = (np.concatenate(parts) for parts in zip(*tetrahedra, strict=True))
    return number.astype(np.int64), tag.astype(np.int64), nodes.astype(np.int64)


def _find_node_rows(known: np.ndarray, corners: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Nodes' numbers as rows of the nodes."""
    if not len(known):
        raise BrokenFile("holds no nodes; export it again.")
    if np.array_equal(known, np.arange(1, len(known) + 1)):
        rows = corners - 1
        missing = (rows < 0) | (rows >= len(known))
    else:
        order = np.argsort(known, kind="stable")
        if (np.diff(known[order]) == 0).any():
            raise BrokenFile("gives two nodes one number; export it again.")
        rows = order[np.searchsorted(known, corners, sorter=order).clip(0, len(known) - 1)]
        missing = known[rows] != corners
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise BrokenFile(
            f"has {int(missing.any(1).sum())} tetrahedra that name a node which is not there (number {numbers[row]} "
            f"names node {corners[row, column]}); export it again."
        )
    return rows


def _join_tensors(data: list[tuple[str, np.ndarray, np.ndarray]], numbers: np.ndarray) -> np.ndarray | None:
    """Tensors of the elements in their order, NaN where there is none."""
    if not data:
        return None
    if len(data) > 1:
        names = ", ".join(repr(name) for name, *_ in data)
        raise BrokenFile(f"holds several sets of conductivity tensors ({names}); keep one.")
    _, element, values = data[0]
    out = np.full((len(numbers), 3, 3), np.nan)
    order = np.argsort(numbers, kind="stable")
    where = order[np.searchsorted(numbers, element, sorter=order).clip(0, len(numbers) - 1)]
    there = numbers[where] == element
    out[where[there]] = values[there]
    return out
