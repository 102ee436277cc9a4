"""Concentric shells as tetrahedra that conform to them, for tests, teaching and benchmarks."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxm2m import _check
from jaxm2m.head import _distance
from jaxm2m.head._mesh_head import MeshHead, from_mesh

CORE = 0.5  # half an edge of the inner cube over the innermost radius
BULGE = 0.4  # how far the inner cube's faces are rounded towards a sphere
_CORNERS = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))  # normals outward
_LARGEST = 30_000_000  # elements


def sphere_mesh(
    radii: Sequence[float | int] | np.ndarray = (70, 78, 80, 86, 92),
    spacing: float | int = 5.0,
    *,
    tissues: Sequence[str] = ("white", "grey", "csf", "skull", "scalp"),
    conductivity: Mapping[str, float | int] | None = None,
) -> MeshHead:
    """Build concentric spherical shells of tetrahedra that follow every sphere.

    A cube in the middle and six blocks round it (an O-grid) are divided into hexahedra, each of those into twelve
    tetrahedra that meet at its centre.

    Parameters
    ----------
    radii
        (n_tissue,) radii of the shells, inside to outside, mm.
    spacing
        About the edge of a hexahedron, mm; the volume a node stands for is about half its cube. A shell is at least one
        layer.
    tissues
        Names, inside to outside.
    conductivity
        S/m by name, over the defaults.

    Returns
    -------
    MeshHead
        With the spheres' exact distances as `scalp` and `cortex`; each sphere is a layer of the elements' faces.

    Raises
    ------
    ValueError
        Radii that do not grow, numbers of radii and tissues that differ, a spacing that makes too many elements.
    """
    r = _check.positive(np.asarray(radii, np.float64), "radii")
    spacing = float(_check.positive(float(spacing), "spacing"))
    if r.ndim != 1 or len(r) != len(tissues):
        raise ValueError(f"radii: {r.size} for {len(tissues)} tissues; one radius for each tissue is needed.")
    if (np.diff(r) <= 0).any():
        raise ValueError(f"radii: {tuple(radii)} do not grow; give them inside to outside.")
    if 12 * (2 * r[-1] / spacing) ** 3 > _LARGEST:
        raise ValueError(f"spacing: {spacing:g} mm makes over {_LARGEST:,} tetrahedra; take a coarser one.")
    nodes, elements, shell = build_ball(r, spacing)
    return from_mesh(
        nodes,
        elements,
        shell + 1,
        {k + 1: name for k, name in enumerate(tissues)},
        conductivity=conductivity,
        scalp=_distance.build_ball(np.zeros(3), r[-1], np.eye(3), spacing=4.0, padding=80.0),
        cortex=_distance.build_ball(np.zeros(3), r[tuple(tissues).index("white")], np.eye(3), spacing=4.0, padding=40.0)
        if "white" in tissues
        else None,
        space="sphere",
        source=f"spheres of {', '.join(f'{x:g}' for x in r)} mm",
    )


def build_ball(
    radii: np.ndarray, spacing: float
) -> tuple[Float[np.ndarray, "node 3"], Int[np.ndarray, "element 4"], Int[np.ndarray, " element"]]:
    """Divide concentric shells into tetrahedra.

    Parameters
    ----------
    radii
        (n_shell,) radii of the shells, inside to outside, mm.
    spacing
        About the edge of a hexahedron, mm.

    Returns
    -------
    nodes
        (n_node, 3) mm.
    elements
        (n_element, 4) indices of their nodes, of positive volume.
    shell
        (n_element,) index of each element's shell.
    """
    half = CORE * radii[0]
    n = max(2, round(np.pi / 2 * (half + radii[-1]) / 2 / spacing))  # an edge's cells, right halfway between
    t = np.linspace(-1, 1, n + 1)
    # cells of equal angle on the sphere
    square = np.stack(np.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 2)
    cube = _round_cube(np.stack(np.meshgrid(t, t, t, indexing="ij"), -1).reshape(-1, 3)) * half
    blocks = [(cube.reshape(n + 1, n + 1, n + 1, 3), np.zeros(n, np.int64))]
    layers = [max(1, round((b - a) / spacing)) for a, b in zip([half * 1.1, *radii[:-1]], radii, strict=True)]
    for axis in range(3):
        for side in (-1, 1):
            face = np.insert(square, axis, side, axis=1)
            unit = np.tan(np.pi / 4 * face)
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            inner = _round_cube(face) * half
            first = np.linspace(0, 1, layers[0] + 1)[:, None, None]
            walls = [(1 - first) * inner + first * radii[0] * unit]
            for a, b, m in zip(radii[:-1], radii[1:], layers[1:], strict=True):
                walls.append(np.linspace(a, b, m + 1)[1:, None, None] * unit)
            block = np.concatenate(walls).reshape(-1, n + 1, n + 1, 3)
            blocks.append((block, np.repeat(np.arange(len(radii)), layers)))
    points, cells, shell, first_node = [], [], [], 0
    for block, of_layer in blocks:
        index = np.arange(block[..., 0].size).reshape(block.shape[:3]) + first_node
        a, b, c = (m - 1 for m in block.shape[:3])
        corners = [index[i : a + i, j : b + j, k : c + k].ravel() for i, j, k in _CORNERS]
        points.append(block.reshape(-1, 3))
        cells.append(np.stack(corners, 1))
        shell.append(np.repeat(of_layer, b * c))
        first_node += block[..., 0].size
    nodes, merged = _merge_points(np.concatenate(points), 1e-6 * spacing)
    elements, of_cell = _split_hexahedra(nodes, merged[np.concatenate(cells)])
    nodes = np.concatenate([nodes, nodes[merged[np.concatenate(cells)]].mean(1)])
    return nodes, elements, np.concatenate(shell)[of_cell]


def _round_cube(p: np.ndarray) -> np.ndarray:
    """Points of the cube [-1, 1]^3 moved part of the way towards a ball of the same radius as its faces' centres."""
    # the further out, the rounder: at the centre the lattice stays as it is
    far = np.abs(p).max(1, keepdims=True)
    length = np.linalg.norm(p, axis=1, keepdims=True)
    ball = p * far / np.where(length > 0, length, 1)
    share = BULGE * far
    return (1 - share) * p + share * ball * 1.2


def _merge_points(points: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Points without those that blocks share, and where each went."""
    # an offset that no lattice plane hits: points on both sides of a rounding's edge would stay apart
    key = np.floor(points / tolerance / 64 + 0.1234567).astype(np.int64)
    _, first, where = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return points[first], where.ravel()


def _split_hexahedra(nodes: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Twelve tetrahedra a hexahedron: two triangles a face, cut from its corner of least number, and the centre."""
    centre = len(nodes) + np.arange(len(cells))
    elements = []
    for face in _FACES:
        quad = cells[:, list(face)]
        turn = (quad.argmin(1)[:, None] + np.arange(4)) % 4
        quad = np.take_along_axis(quad, turn, 1)
        elements += [np.stack([quad[:, 0], quad[:, i], quad[:, i + 1], centre], 1) for i in (1, 2)]
    all_nodes = np.concatenate([nodes, nodes[cells].mean(1)])
    tetrahedra = np.concatenate(elements)
    x = all_nodes[tetrahedra]
    negative = np.linalg.det(x[:, 1:] - x[:, :1]) < 0
    tetrahedra[negative] = tetrahedra[negative][:, [1, 0, 2, 3]]
    return tetrahedra, np.tile(np.arange(len(cells)), len(elements))
