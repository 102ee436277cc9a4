r"""A smooth signed distance from a volume of occupancy (volume fractions in [0, 1]).

1. The occupancy is smoothed by a Gaussian of one voxel, so that the level 1/2 is free of stairs.
   The inverse of the Gaussian's integral turns it into a field that is the distance to a flat face, exactly.
2. Marching cubes gives vertices on its level 0.
3. Within a band, the distance is that to the foot of the perpendicular: the nearest vertex, slid along its tangent
   plane to below the point and dropped onto the level again.
4. Beyond the band, distances to the nearest vertex on a grid four times as coarse, interpolated by cubic splines.
5. Gaussian smoothing of half a voxel; the B-spline prefilter makes the coefficients.

Smoothing moves a surface towards its centre of curvature by sigma^2 (k1 + k2) / 2: 0.04 mm on a head at 2 mm.
"""

import math

import numpy as np
import scipy
from scipy import ndimage, special
from scipy.spatial import cKDTree

from jaxm2m import _spline, files
from jaxm2m._isosurface import isosurface
from jaxm2m.head import _overlap
from jaxm2m.head._surface import Surface

_STEP = 4  # fine cells in a coarse one
_LEAST_CUT = 0.03  # of the largest cross-section; an ear or the tip of a nose has less
_LEAST_MISSING = 1.5  # mm
_STEEP = 3.0  # cells: the level field is cut off there
_MOST = 1 << 30  # bytes of surfaces in the cache folder
_VERSION = 1  # of the rule above: another one makes other numbers


def build_scalp(
    total: np.ndarray, affine: np.ndarray, *, spacing: float = 2.0, padding: float = 62.0, keep: bool = False
) -> tuple[Surface, list[str]]:
    """The outer surface of a head.

    Air that the outside does not reach through openings wider than 8 mm (nasal cavities, ear canals) counts as head.
    Where the volume cuts the head (faces on which 1.5 mm of it or more are missing, by how the cross-section shrinks
    towards them) the head is continued straight on, so that the cut is no part of the scalp.

    Parameters
    ----------
    total
        (nx, ny, nz) fraction of tissue.
    affine
        (4, 4) voxel index -> mm, cubic.
    spacing
        Of the distance grid, mm (coarser volumes keep theirs).
    padding
        How far the grid goes beyond the volume, mm.
    keep
        Whether the surface is kept in the cache folder: never that of a person, whose face it shows.

    Returns
    -------
    The surface and remarks for people.
    """
    total, affine = _coarsen(total, affine, spacing)
    h = float(np.linalg.norm(affine[:3, 0]))
    cuts = _find_cut_faces(total, h)
    filled, pockets = _fill_inner_air(total, h, cuts)
    remarks = []
    if pockets:
        remarks.append(f"scalp: {pockets * h**3 / 1000:.1f} ml of inner air counted as head")
    for axis, side in cuts:
        remarks.append(f"scalp: the head is cut at its {'-+'[side]}{'xyz'[axis]} face and continued there")
    n_pad = math.ceil(padding / h)
    widths = []
    for axis, n in enumerate(filled.shape):
        extra = -(n + 2 * n_pad) % 16  # few shapes, few compilations
        low = 0 if (axis, 0) in cuts else extra // 2
        widths.append((n_pad + low, n_pad + extra - low))
    occupancy = np.pad(filled, widths)
    shift = np.array([w[0] for w in widths])
    # a little beyond the volume, but not where it cuts
    limits = np.stack([shift - 3.5, shift + np.array(filled.shape) + 2.5])
    for axis, side in cuts:
        moved = np.moveaxis(occupancy, axis, 0)
        low, high = widths[axis]
        end = low if side == 0 else moved.shape[0] - high - 1
        # a last layer that the head fills in part only, as that of a mesh's raster, is no cross-section
        layer, step = moved[end], 1 if side == 0 else -1
        if layer[layer > 0.05].mean() < 0.9:
            end += step
        if side == 0:
            moved[:end] = moved[end]
            limits[0, axis] = shift[axis] - 0.5
        else:
            moved[end + 1 :] = moved[end]
            limits[1, axis] = shift[axis] + filled.shape[axis] - 0.5
    return _build_surface(occupancy, shift_affine(affine, -shift), limits, band=12.0, keep=keep), remarks


def build_cortex(white: np.ndarray, affine: np.ndarray, *, margin: float = 12.0, keep: bool = False) -> Surface | None:
    """The boundary between grey and white matter: the level 1/2 of white matter with all that it encloses.

    Parameters
    ----------
    white
        (nx, ny, nz) fraction of white matter.
    affine
        (4, 4) voxel index -> mm, cubic.
    margin
        How far the grid goes beyond white matter, mm.
    keep
        As in `build_scalp`.

    Returns
    -------
    The surface; None where no voxel is white by more than half.
    """
    where = ndimage.find_objects((white > 0.5).astype(np.int8))
    if not where:
        return None
    h = float(np.linalg.norm(affine[:3, 0]))
    n = math.ceil(margin / h)
    # two voxels more: those that white fills by less than half place the surface
    box = tuple(slice(max(0, b.start - 2), b.stop + 2) for b in where[0])
    inner = white[box]
    air, count = ndimage.label(np.pad(inner <= 0.5, 1, constant_values=True))
    enclosed = ((air > 0) & (air != air[0, 0, 0]))[1:-1, 1:-1, 1:-1]
    inner = np.where(enclosed, np.float32(1), inner) if count > 1 else inner
    widths = [(n, n + (-(s + 2 * n) % 16)) for s in inner.shape]
    occupancy = np.pad(inner, widths)
    start = np.array([b.start for b in box]) - n
    limits = np.array([[0.0] * 3, np.array(occupancy.shape) - 1.0])
    return _build_surface(occupancy, shift_affine(affine, start), limits, band=max(5.0, 3 * h), keep=keep)


def build_ball(centre, radius: float, rotation: np.ndarray, *, spacing: float, padding: float) -> Surface:
    """The sphere's own distance |p - centre| - radius, on a grid."""
    n = 16 * math.ceil(2 * (radius + padding) / spacing / 16)
    x = (np.arange(n) - (n - 1) / 2) * spacing
    r = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = np.asarray(centre) + affine[:3, :3] @ np.full(3, -(n - 1) / 2)
    limits = np.array([[0.0] * 3, [n - 1.0] * 3])
    return Surface(_spline.prefilter(r - radius).astype(np.float32), affine, limits)


def _build_surface(
    occupancy: np.ndarray, affine: np.ndarray, limits: np.ndarray, *, band: float, keep: bool
) -> Surface:
    h = float(np.linalg.norm(affine[:3, 0]))
    if not keep:
        return Surface(_fit_distance(occupancy, h, band), affine, limits)
    key = files.fingerprint([_VERSION, np.__version__, scipy.__version__, h, band], occupancy)
    coefficients = files.load_or_make(
        "surfaces",
        key,
        lambda: _fit_distance(occupancy, h, band),
        read=lambda file: file["coefficients"][()],
        write=lambda file, values: file.create_dataset("coefficients", data=values),
        most=_MOST,
    )
    return Surface(coefficients, affine, limits)


def _fit_distance(occupancy: np.ndarray, h: float, band: float) -> np.ndarray:
    """Spline coefficients of the signed distance, mm."""
    level = _compute_level(occupancy)
    vertices = isosurface(level, 0.0)[0].astype(np.float32)
    tree = cKDTree(vertices)
    distance = _compute_far_distances(tree, level)
    near = _find_near_cells(level, math.ceil(band / h))
    close = _compute_near_distances(tree, level, near)
    t = np.clip((np.abs(close) * h / band - 0.6) / 0.4, 0, 1)
    weight = t * t * (3 - 2 * t)
    distance[near] = weight * distance[near] + (1 - weight) * close
    distance = ndimage.gaussian_filter(distance, 0.5, mode="nearest", truncate=3.0)
    return _spline.prefilter(distance.astype(np.float32)) * np.float32(h)


def _compute_level(occupancy: np.ndarray) -> np.ndarray:
    """A field that vanishes on the smoothed surface and is the distance (in cells, outside positive) to a flat one."""
    smooth = ndimage.gaussian_filter(occupancy, 1.0, mode="nearest", truncate=3.0)
    if smooth.max() <= 0.5:
        smooth = occupancy  # a few voxels only: their stairs are all that is known
    # across a flat face the occupancy is the Gaussian's integral, a cell's own width included
    level = np.full(smooth.shape, -_STEEP, np.float32)
    level[smooth < 0.5] = _STEEP
    middle = np.abs(smooth - 0.5) < 0.4995
    level[middle] = -math.sqrt(2 * (1 + 1 / 12)) * special.erfinv(2 * smooth[middle] - 1)
    return np.clip(level, -_STEEP, _STEEP)


def _compute_near_distances(tree: cKDTree, level: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Signed distances (in cells) of the cells in `near` to the level 0."""
    slopes = np.stack([np.gradient(level, axis=axis) for axis in range(level.ndim)])
    points = np.argwhere(near).astype(np.float32)
    _, which = tree.query(points, workers=2)
    foot = tree.data[which].astype(np.float32)

    def at(field, q):
        return ndimage.map_coordinates(field, q.T, order=1, mode="nearest")

    def normal(q):
        g = np.stack([at(slope, q) for slope in slopes], -1)
        square = np.maximum((g * g).sum(1, keepdims=True), 0.05)
        return g, square

    g, square = normal(foot)
    away = points - foot
    # slide the nearest vertex along its tangent plane to below the point, then drop it onto the level again
    tangent = away - g * (away * g).sum(1, keepdims=True) / square
    length = np.linalg.norm(tangent, axis=1, keepdims=True)
    moved = foot + tangent * np.minimum(1, 1.5 / np.maximum(length, 1e-6))
    g, square = normal(moved)
    moved -= np.clip(at(level, moved)[:, None] * g / square, -1, 1)
    magnitude = np.minimum(np.linalg.norm(points - moved, axis=1), np.linalg.norm(away, axis=1))
    here = level[near]
    slope = np.linalg.norm(np.stack([s[near] for s in slopes]), axis=0)
    # within half a cell the level itself is the better distance, and has no kink
    direct = here / np.maximum(slope, 0.5)
    t = np.clip(2 * np.abs(direct) - 0.5, 0, 1)
    return t * np.sign(here) * magnitude + (1 - t) * direct


def _compute_far_distances(tree: cKDTree, level: np.ndarray) -> np.ndarray:
    """Signed distances (in cells) to the nearest vertex, from a coarse grid."""
    ticks = [np.arange(0, n + _STEP, _STEP) for n in level.shape]
    points = np.stack(np.meshgrid(*ticks, indexing="ij"), -1).reshape(-1, 3)
    length = tree.query(points, workers=2)[0]
    at = np.minimum(points, np.array(level.shape) - 1)
    signed = np.where(level[tuple(at.T)] < 0, -length, length).astype(np.float32)
    out = signed.reshape([len(t) for t in ticks])
    for axis, n in enumerate(level.shape):
        matrix = _upsampling_matrix(len(ticks[axis]), n)
        out = np.moveaxis(np.tensordot(matrix, out, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def _upsampling_matrix(n_coarse: int, n_fine: int) -> np.ndarray:
    """Cubic spline interpolation as a matrix (n_fine, n_coarse)."""
    x = np.arange(n_fine)[:, None] / _STEP
    k = np.arange(n_coarse)[None, :]
    basis = _bspline(x - k) + np.where(k > 0, _bspline(x + k), 0)
    basis += np.where(k < n_coarse - 1, _bspline(x - (2 * (n_coarse - 1) - k)), 0)
    return (basis @ _spline.prefilter(np.eye(n_coarse), ndim=1)).astype(np.float32)


def _bspline(d: np.ndarray) -> np.ndarray:
    a = np.abs(d)
    return np.where(a < 1, 2 / 3 - a * a * (1 - a / 2), np.maximum(2 - a, 0) ** 3 / 6)


def _find_near_cells(level: np.ndarray, reach: int) -> np.ndarray:
    """Cells within a box of `reach` cells round the level 0."""
    inside = level < 0
    boundary = np.zeros(level.shape, np.float32)
    for axis in range(3):
        moved = np.moveaxis(inside, axis, 0)
        np.moveaxis(boundary, axis, 0)[:-1] += moved[:-1] != moved[1:]
    return ndimage.uniform_filter(boundary, 2 * reach + 1, mode="constant") > 0.1 / (2 * reach + 1) ** 3


def _coarsen(total: np.ndarray, affine: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    h = float(np.linalg.norm(affine[:3, 0]))
    if h > 0.9 * spacing:
        return np.asarray(total, np.float32), affine
    out = _overlap.average(total, [_overlap.overlap_matrix(n, h, spacing) for n in total.shape])
    return out, regrid(affine, h, spacing)


def regrid(affine: np.ndarray, old: float | np.ndarray, new: float) -> np.ndarray:
    """The affine of cells of edge `new` that share the lower corner of cells of edge `old`."""
    old = np.broadcast_to(old, 3)
    result = np.eye(4)
    result[:3, :3] = affine[:3, :3] / old * new
    corner = affine[:3, 3] - affine[:3, :3] @ np.full(3, 0.5)
    result[:3, 3] = corner + result[:3, :3] @ np.full(3, 0.5)
    return result


def shift_affine(affine: np.ndarray, start: np.ndarray) -> np.ndarray:
    result = np.array(affine, np.float64)
    result[:3, 3] += result[:3, :3] @ start
    return result


def _find_cut_faces(total: np.ndarray, h: float) -> list[tuple[int, int]]:
    """Faces (axis, side) on which some of the head is missing.

    Near its end a head is round, so that its cross-section grows in proportion to the depth below the end: two layers
    tell how far off the end is. The outermost layer is left out, which may hold a part of its voxels only.
    """
    faces, shares = [], []
    for axis in range(3):
        area = total.sum(tuple(a for a in range(3) if a != axis), dtype=np.float64)
        for side in (0, 1):
            inwards = area if side == 0 else area[::-1]
            if len(inwards) < 3 or inwards[0] <= 0 or inwards[1] < _LEAST_CUT * area.max():
                continue
            outer, inner = inwards[1], inwards[2]
            missing = np.inf if inner <= outer else h * (outer / (inner - outer) - 1.5)
            if missing > max(_LEAST_MISSING, 0.75 * h):
                faces.append((axis, side))
                shares.append(inwards[0] / area.max())
    # a block that fills its volume has no skin but at its faces: one of them is the cut, as good as any
    return faces if len(faces) < 6 else [faces[int(np.argmax(shares))]]


def _fill_inner_air(total: np.ndarray, h: float, cuts: list[tuple[int, int]]) -> tuple[np.ndarray, int]:
    """Occupancy with inner air filled, and the number of cells that were."""
    steps = max(1, round(4.0 / h))
    solid = np.pad(total > 0.5, steps + 1)
    structure = ndimage.generate_binary_structure(3, 1)
    closed = ndimage.binary_closing(solid, structure, iterations=steps)
    for axis, side in cuts:  # seal them, so that the throat is no way in
        wall = np.moveaxis(closed, axis, 0)
        wall[slice(0, steps + 1) if side == 0 else slice(-steps - 1, None)] = True
    free, _ = ndimage.label(~closed)
    seeds = [np.take(free, [0, -1], axis) for axis in range(3)]
    outer = np.unique(np.concatenate([s.ravel() for s in seeds]))
    reached = np.isin(free, outer[outer > 0])
    # closing also shut narrow folds on the outside: give them back
    reached = ndimage.binary_dilation(reached, structure, iterations=steps + 1, mask=~solid)
    keep = (slice(steps + 1, -steps - 1),) * 3
    pocket = ~(reached | solid)[keep]
    return np.where(pocket, np.float32(1), total), int(pocket.sum())
