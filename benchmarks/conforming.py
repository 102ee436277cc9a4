"""Conforming tetrahedra of label volumes against the voxel default: the folded cortex and the five-shell sphere.

    python benchmarks/conforming.py [--cases fold,sphere] [--edges 3,2.571,2]

Fold: relative errors of E in grey, white and csf (L2, 95th and 99th percentile, %) against the body-fitted reference of
`interfaces/fold.py`, as `interface_errors.py` has them for voxels. Its box, whose faces insulate, is filled by lattice
cubes as it is by voxels; the tissues come from labels, from volume fractions, or from the exact geometry.
Sphere: the same against the exact solution, Magstim-like figure-8, voxels of 2 mm and their tetrahedra. Each row tells
the number of unknowns, by which to compare.
"""

import argparse
import time

import jax.numpy as jnp
import numpy as np
import record
import sphere
from interface_errors import fold_head
from interface_errors import folded as by_voxels
from interfaces import fold, voxels
from interfaces.box_mesh import box_lattice, near_boundaries

import jaxm2m as jm
from jaxm2m.head import meshing

TARGET = np.array([20.0, -30.0, 86.0])  # mm from the spheres' centre


def exact_levels(points):
    """Levels (n, 5) of the fold's layers: the distance-like value inside each, negative outside."""
    body = fold.Fold()
    far = [body.half, body.half]
    g = body.levels(np.clip(points, [-far[0], -far[1], -body.depth], [far[0], far[1], 0]))
    inner = [np.minimum(-g[:, k - 1], g[:, k]) for k in (1, 2, 3)]
    return np.stack([g[:, 0], *inner, -g[:, 3]], -1)


def fold_levels(source):
    """Levels of "exact", of "labels" of so many mm, or of "fractions" on voxels of so many mm."""
    body = fold.Fold()
    kind, *rest = source.split()
    if kind == "exact":
        return exact_levels
    size = float(rest[0])
    affine = voxels.affine(size, body.origin)
    if kind == "labels":
        return meshing.Levels(meshing.levels_of_labels(body.labels(size), len(fold.NAMES)), affine)
    levels = meshing.levels_of_fractions(body.fractions(size))
    return meshing.Levels(levels, affine @ np.diag([0.5, 0.5, 0.5, 1.0]))


def fold_mesh(source, edge, graded):
    """The fold as a MeshHead."""
    body = fold.Fold()
    size = -2 * body.origin
    size[2] = body.depth
    reach = meshing.REACH * edge
    fine = near_boundaries(body.labels(1.0), 1.0, body.origin, reach) if graded else None
    start = time.perf_counter()
    nodes, elements = box_lattice(body.origin, size, edge, fine)
    nodes, elements, layer = meshing.conform(fold_levels(source), nodes, elements)
    nodes = np.where(
        ((nodes <= body.origin + 1e-9) | (nodes >= body.origin + size - 1e-9)).any(1)[:, None],
        nodes,
        meshing.repair(nodes, elements),
    )
    seconds = time.perf_counter() - start
    head = jm.head.from_mesh(
        nodes,
        elements,
        layer + 1,
        list(fold.NAMES),
        conductivity=dict(zip(fold.NAMES, fold.SIGMA, strict=True)),
    )
    return head, seconds


def angles(head):
    """Smallest and largest dihedral angle (degrees), and percentiles."""
    corners = np.asarray(head.nodes)[np.asarray(head.elements)]
    normals = []
    for i, j, k in ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1)):
        n = np.cross(corners[:, j] - corners[:, i], corners[:, k] - corners[:, i])
        normals.append(n / np.linalg.norm(n, axis=1, keepdims=True))
    between = [(normals[i] * normals[j]).sum(1) for i in range(4) for j in range(i)]
    degrees = np.degrees(np.arccos(np.clip(-np.concatenate(between), -1, 1)))
    at = (0, 0.01, 0.1, 1, 50, 99, 99.9, 99.99, 100)
    return {f"p{q:g}": float(x) for q, x in zip(at, np.percentile(degrees, at), strict=True)}


def folded(head, reference):
    """Errors by tissue and coil."""
    sim = jm.efield.Simulator(head, tolerance=1e-6)
    tissue = np.array([head.tissues.index(n) for n in fold.NAMES])[reference.layer]
    row = {}
    for name, source in fold.COILS.items():
        position, moment = (jnp.asarray(a, jnp.float32) for a in source.dipoles())
        dipoles = jm.coil.Dipoles(position, moment)
        coil = jm.coil.Coil((dipoles,), None, jnp.array([jnp.nan]), {"name": name})
        e = np.asarray(sim.bind(coil, jm.efield.Points(reference.points, tissue))(np.eye(4), didt=1e6), float)
        for layer, kind in enumerate(fold.NAMES):
            inside = reference.layer == layer
            if inside.any():
                row[f"{kind}, coil {name}"] = fold.errors(e[inside], reference.e[name][inside])
    return row


def spheres(edges):
    """Voxels of 2 mm and tetrahedra of their fractions, one off-grid centre."""
    centre = np.array([0.3, -0.55, 0.8])
    coil = jm.coil.figure8()
    voxel = jm.head.sphere(sphere.RADII, spacing=2.0, centre=centre)
    pose = np.asarray(jm.coil.place(voxel.scalp, centre + TARGET, (1.0, -0.3, 0.2), distance=4.0), float)
    random = np.random.default_rng(1)
    points = {"white": sphere.shell(random, 0, 66, 4000), "grey": sphere.shell(random, 70, 78, 4000)}
    truth = {kind: induced(coil, pose, x, centre) for kind, x in points.items()}
    table = jm.coil.tabulate(coil, spacing=4.0, reach=200.0)
    for edge in (None, *edges):
        name = "voxels of 2 mm" if edge is None else f"tetrahedra, cubes of {edge:g} mm"
        start = time.perf_counter()
        head = voxel if edge is None else jm.head.tetrahedralise(voxel, edge)
        seconds = time.perf_counter() - start
        sim = jm.efield.Simulator(head)
        row = {"unknowns": unknowns(head)} | ({} if edge is None else {"meshing s": seconds})
        for kind, x in points.items():
            where = jm.efield.Points(x + centre, np.full(len(x), head.tissues.index(kind)))
            at_points = sim.bind(table, where)
            row[kind] = fold.errors(np.asarray(at_points(pose, didt=1e6), float), truth[kind])
        start = time.perf_counter()
        np.asarray(at_points(pose, didt=1e6))
        row["one pose s"] = time.perf_counter() - start
        if isinstance(head, jm.head.MeshHead):
            row["dihedral angles"] = angles(head)
        record.write("conforming", f"sphere: {name}", row)


def induced(coil, pose, points, centre):
    """E (V/m) of any spherically symmetric conductor at points (n, 3) mm about its centre.

    E(r) = r x int_0^1 t dB/dt(t r) dt at 1e6 A/s, B of the coil's wires by Biot and Savart.
    """
    nodes, weights = np.polynomial.legendre.leggauss(24)
    out = np.zeros((len(points), 3))
    for t, w in zip((nodes + 1) / 2, weights / 2, strict=True):
        out += w * t * np.cross(points * 1e-3, flux_density(coil, pose, points * t + centre))
    return out


def flux_density(coil, pose, points):
    """dB/dt (T/s) of a coil of straight wires at points (n, 3) mm."""
    wires = coil.elements[0]
    start, end = (np.asarray(x, float) @ pose[:3, :3].T + pose[:3, 3] for x in (wires.start, wires.end))
    out = np.empty((len(points), 3))
    for i, x in enumerate(points):
        a, b = (x - start) * 1e-3, (x - end) * 1e-3
        la, lb = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        scale = np.asarray(wires.turns, float) * (la + lb) / (la * lb * (la * lb + (a * b).sum(1)))
        out[i] = 1e-7 * 1e6 * (scale[:, None] * np.cross(a, b)).sum(0)
    return out


def unknowns(head):
    """Nodes that a solve has."""
    if isinstance(head, jm.head.MeshHead):
        return len(head.nodes)
    active = np.pad(np.asarray(head.fractions).sum(0) >= 0.5, 1)
    at_node = np.zeros([n - 1 for n in active.shape], bool)
    for corner in np.ndindex(2, 2, 2):
        at_node |= active[tuple(slice(c, n - 1 + c) for c, n in zip(corner, active.shape, strict=True))]
    return int(at_node.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="fold,sphere")
    parser.add_argument("--edges", default="3,2.571,2", help="of the lattice's cubes, mm")
    parser.add_argument("--sources", default="exact,fractions 2,labels 1,labels 0.5")
    options = parser.parse_args()
    edges = [float(e) for e in options.edges.split(",")]
    if "fold" in options.cases:
        reference = fold.load()
        for source, labels in (("exact fractions", None), ("labels 0.5", 0.5), ("labels 1", 1.0)):
            row = {"unknowns": unknowns(fold_head(2.0, labels))} | by_voxels(2.0, labels, "tensor", reference)
            record.write("conforming", f"fold: voxels of 2 mm, {source}", row)
        for edge in edges:
            for source in options.sources.split(","):
                head, seconds = fold_mesh(source, edge, True)
                row = {"unknowns": len(head.nodes), "elements": len(head.elements), "meshing s": seconds}
                row |= folded(head, reference) | {"dihedral angles": angles(head)}
                record.write("conforming", f"fold: cubes of {edge:g} mm, {source}", row)
    if "sphere" in options.cases:
        spheres(edges)


if __name__ == "__main__":
    main()
