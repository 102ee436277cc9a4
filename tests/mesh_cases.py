"""Small tetrahedral meshes and the Gmsh files that other programs would write of them."""

import struct
from itertools import permutations

import numpy as np


def cube(n=4, edge=24.0, centre=(0.0, 0.0, 0.0)):
    """Nodes, positive tetrahedra and their centroids: a lattice of n cells a side, six tetrahedra a cell."""
    x = np.linspace(-edge / 2, edge / 2, n + 1)
    nodes = np.stack(np.meshgrid(x, x, x, indexing="ij"), -1).reshape(-1, 3) + centre
    steps = np.array([(n + 1) ** 2, n + 1, 1])
    first = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3) @ steps
    elements = []
    for way in permutations(range(3)):
        corners = [first]
        for axis in way:
            corners.append(corners[-1] + steps[axis])
        if np.linalg.det(np.eye(3)[list(way)]) < 0:
            corners[1], corners[2] = corners[2], corners[1]
        elements.append(np.stack(corners, 1))
    elements = np.concatenate(elements)
    return nodes, elements, nodes[elements].mean(1)


def layered(n=4, edge=24.0):
    """A cube of grey matter (tag 2) in scalp (tag 5)."""
    nodes, elements, middle = cube(n, edge)
    tags = np.where(np.abs(middle).max(1) < edge / 4, 2, 5)
    return nodes, elements, tags


def surface(nodes):
    """Some triangles with SimNIBS's tags, as its meshes carry."""
    return np.array([[0, 1, 2], [1, 2, 3]]), np.array([1002, 1005])


def binary_22(nodes, elements, tags, *, triangles=None, grouped=False, order="<", numbers=None, data=()):
    """Gmsh 2.2 binary; ungrouped as SimNIBS writes it, a header before every element."""
    number = np.arange(1, len(nodes) + 1) if numbers is None else numbers
    out = b"$MeshFormat\n2.2 1 8\n" + struct.pack(order + "i", 1) + b"\n$EndMeshFormat\n$Nodes\n%d\n" % len(nodes)
    rows = np.zeros(len(nodes), [("n", order + "i4"), ("x", order + "f8", 3)])
    rows["n"], rows["x"] = number, nodes
    out += rows.tobytes() + b"\n$EndNodes\n"
    faces, face_tags = triangles if triangles is not None else (np.zeros((0, 3), int), np.zeros(0, int))
    out += b"$Elements\n%d\n" % (len(faces) + len(elements))
    first = 1
    for kind, cells, cell_tags in ((2, faces, face_tags), (4, elements, tags)):
        own = np.arange(first, first + len(cells))
        first += len(cells)
        table = np.column_stack([own, cell_tags, cell_tags, number[cells]])
        if grouped and len(cells):
            out += struct.pack(order + "3i", kind, len(cells), 2) + table.astype(order + "i4").tobytes()
        else:
            head = np.tile((kind, 1, 2), (len(cells), 1))
            out += np.column_stack([head, table]).astype(order + "i4").tobytes()
    out += b"$EndElements\n"
    for name, values in data:
        rows = np.zeros(len(values), [("n", order + "i4"), ("x", order + "f8", values.shape[1])])
        rows["n"], rows["x"] = np.arange(len(faces) + 1, len(faces) + len(values) + 1), values
        out += b'$ElementData\n1\n"%s"\n1\n0\n3\n0\n%d\n%d\n' % (name.encode(), values.shape[1], len(values))
        out += rows.tobytes() + b"\n$EndElementData\n"
    return out


def text_22(nodes, elements, tags, *, triangles=None, data=()):
    lines = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat", "$PhysicalNames", "1", '3 2 "GM $EndElements"']
    lines += ["$EndPhysicalNames", "$Nodes", str(len(nodes))]
    lines += [f"{i + 1} {x!r} {y!r} {z!r}" for i, (x, y, z) in enumerate(nodes.tolist())]
    faces, face_tags = triangles if triangles is not None else (np.zeros((0, 3), int), np.zeros(0, int))
    lines += ["$EndNodes", "$Elements", str(len(faces) + len(elements))]
    number = 1
    for kind, cells, cell_tags in ((2, faces, face_tags), (4, elements, tags)):
        for cell, tag in zip(cells, cell_tags, strict=True):
            # a varying number of tags, as partitioned meshes have
            more = " 1 2" if number % 3 == 0 else ""
            count = 4 if more else 2
            lines.append(f"{number} {kind} {count} {tag} {tag}{more} {' '.join(str(k + 1) for k in cell)}")
            number += 1
    lines.append("$EndElements")
    for name, values in data:
        lines += ["$ElementData", "1", f'"{name}"', "1", "0.0", "3", "0", str(values.shape[1]), str(len(values))]
        lines += [f"{len(faces) + i + 1} {' '.join(map(repr, row))}" for i, row in enumerate(values.tolist())]
        lines.append("$EndElementData")
    return "\n".join(lines).encode() + b"\n"


def version_41(nodes, elements, tags, *, binary, order="<"):
    """Gmsh 4.1: a volume a tag, its number 10 more than its physical tag; nodes in two blocks, numbered backwards."""

    def ints(*values):
        return struct.pack(f"{order}{len(values)}i", *values) if binary else " ".join(map(str, values)).encode() + b"\n"

    def sizes(*values):
        return struct.pack(f"{order}{len(values)}Q", *values) if binary else " ".join(map(str, values)).encode() + b"\n"

    def doubles(*values):
        values = [float(v) for v in values]
        return (
            struct.pack(f"{order}{len(values)}d", *values) if binary else " ".join(map(repr, values)).encode() + b"\n"
        )

    kinds = np.unique(tags).tolist()
    out = b"$MeshFormat\n4.1 %d 8\n" % binary + (ints(1) + b"\n" if binary else b"") + b"$EndMeshFormat\n$Entities\n"
    out += sizes(1, 0, 1, len(kinds)) + ints(7) + doubles(0, 0, 0) + sizes(0)
    out += ints(3) + doubles(*[0] * 6) + sizes(1) + ints(1005) + sizes(2) + ints(1, -2)
    for tag in kinds:
        out += ints(10 + tag) + doubles(*[0] * 6) + sizes(1) + ints(tag) + sizes(1) + ints(3)
    out += b"\n$EndEntities\n$Nodes\n"
    half = len(nodes) // 2
    number = np.arange(len(nodes), 0, -1) * 2
    out += sizes(2, len(nodes), 2, 2 * len(nodes))
    for part in (slice(0, half), slice(half, None)):
        out += ints(3, 10 + kinds[0], 0) + sizes(len(number[part]))
        out += sizes(*number[part].tolist()) + doubles(*nodes[part].ravel())
    out += b"\n$EndNodes\n$Elements\n" + sizes(len(kinds) + 1, len(elements) + 1, 1, len(elements) + 1)
    out += ints(2, 3, 2) + sizes(1) + sizes(1, *number[[0, 1, 2]].tolist())
    first = 2
    for tag in kinds:
        own = elements[tags == tag]
        out += ints(3, 10 + tag, 4) + sizes(len(own))
        table = np.column_stack([np.arange(first, first + len(own)), number[own]])
        out += sizes(*table.ravel().tolist())
        first += len(own)
    return out + b"\n$EndElements\n"
