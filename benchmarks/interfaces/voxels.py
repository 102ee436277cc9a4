"""Voxel grids: exact volume fractions of nested layers, and the trilinear load of a boundary current.

A medium is described by nested sets: level function k is positive in layers 0..k and negative in the layers after it,
so that n layers need n - 1 level functions.
"""

from collections.abc import Callable

import numpy as np

Levels = Callable[[np.ndarray], np.ndarray]


def centres(shape: tuple[int, int, int], spacing: float, origin: np.ndarray) -> np.ndarray:
    """Voxel centres (nx, ny, nz, 3) in mm of a grid whose outer corner is `origin` (mm)."""
    axes = [o + spacing * (np.arange(n) + 0.5) for o, n in zip(origin, shape, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def affine(spacing: float, origin: np.ndarray) -> np.ndarray:
    """Voxel index to mm, (4, 4); the centre of voxel (0, 0, 0) is half a voxel inside `origin`."""
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = np.asarray(origin) + spacing / 2
    return matrix


def halfspace(offset: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Share of the unit cube [-1/2, 1/2]^3 in which `offset + normal . x > 0`, closed form.

    Inclusion-exclusion over the eight corners, V = sum_c (-1)^|c| max(d - m.c, 0)^3 / (6 m1 m2 m3) with m =
    |normal| sorted and d the distance of the plane from the corner deepest inside (Scardovelli & Zaleski, J.
    Comput. Phys. 164, 2000). Components under 1e-4 of the largest are raised to it (error < 1e-4 of a cube),
    because the formula divides by them.

    Parameters
    ----------
    offset : (n,)
    normal : (n, 3), in units of `offset` per cube edge.
    """
    m = np.abs(normal)
    m = np.maximum(m, 1e-4 * m.max(-1, keepdims=True) + 1e-300)
    total = m.sum(-1)
    d = np.clip(0.5 * total + offset, 0.0, total)
    upper = d > total / 2  # the smaller side is summed: less cancellation
    d = np.where(upper, total - d, d) / total
    m = m / total[:, None]
    volume = np.zeros_like(d)
    for i in (0, 1):
        for j in (0, 1):
            for k in (0, 1):
                volume += (-1) ** (i + j + k) * np.maximum(d - m @ np.array([i, j, k], float), 0.0) ** 3
    volume = np.clip(volume / (6 * m.prod(-1)), 0.0, 1.0)
    return np.where(upper, 1 - volume, volume)


def fractions(
    levels: Levels, shape: tuple[int, int, int], spacing: float, origin: np.ndarray, cell: float
) -> np.ndarray:
    """Volume fractions (n_layer, nx, ny, nz) of nested layers, to second order in `cell`.

    Each voxel is cut into cubes no larger than `cell` mm. In a cube that an interface may cross, the level
    function is replaced by its linear part and the plane's cut of the cube is taken in closed form; the constant
    of that plane is (2 centre + corner mean)/3, which is right for the volume to third order also on a curved
    interface.

    Parameters
    ----------
    levels : points (n, 3) mm -> (n, n_layer - 1).
    shape, spacing, origin : grid; `origin` is its outer corner, mm.
    cell : largest edge of a sub-cube, mm.
    """
    sub = max(1, int(np.ceil(spacing / cell - 1e-9)))
    fine = spacing / sub
    out = None
    for i in range(shape[0]):  # one sheet of voxels at a time bounds the memory
        start = np.array([origin[0] + i * spacing, origin[1], origin[2]])
        counts = (sub, shape[1] * sub, shape[2] * sub)
        corner_axes = [s + fine * np.arange(n + 1) for s, n in zip(start, counts, strict=True)]
        corners = np.stack(np.meshgrid(*corner_axes, indexing="ij"), -1)
        at_corner = levels(corners.reshape(-1, 3))
        n_level = at_corner.shape[-1]
        at_corner = at_corner.reshape(*corners.shape[:3], n_level)
        at_centre = levels(centres(counts, fine, start).reshape(-1, 3)).reshape(*counts, n_level)
        eight = np.stack(
            [
                at_corner[a : a + counts[0], b : b + counts[1], c : c + counts[2]]
                for a in (0, 1)
                for b in (0, 1)
                for c in (0, 1)
            ]
        )
        mean = eight.mean(0)
        signs = np.array([[2 * a - 1, 2 * b - 1, 2 * c - 1] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        slope = np.tensordot(signs, eight, (0, 0)) / 4  # (3, ..., n_level): change over one sub-cube
        value = (2 * at_centre + mean) / 3
        above = (at_centre > 0).astype(float)
        mixed = np.abs(value) < 0.5 * np.abs(slope).sum(0) * 1.001
        above[mixed] = halfspace(value[mixed], slope[:, mixed].T)
        above = above.reshape(sub, shape[1], sub, shape[2], sub, n_level).mean((0, 2, 4))
        above = np.maximum.accumulate(above, -1)
        shares = np.diff(above, axis=-1, prepend=0.0, append=1.0)
        if out is None:
            out = np.zeros((n_level + 1, *shape))
        out[:, i] = np.moveaxis(shares, -1, 0)
    assert out is not None
    return out


def labels(levels: Levels, shape: tuple[int, int, int], spacing: float, origin: np.ndarray) -> np.ndarray:
    """Layer index (0 first) at each voxel's centre, (nx, ny, nz) uint8."""
    points = centres(shape, spacing, origin).reshape(-1, 3)
    return (levels(points) <= 0).sum(-1).astype(np.uint8).reshape(shape)


def fractions_of_labels(fine: np.ndarray, block: int, n_layer: int) -> np.ndarray:
    """Volume fractions (n_layer, nx, ny, nz) by counting `block`^3 labels a voxel."""
    shape = tuple(n // block for n in fine.shape)
    split = fine.reshape(shape[0], block, shape[1], block, shape[2], block)
    return np.stack([(split == k).mean((1, 3, 5)) for k in range(n_layer)])


def boundary_load(
    current: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, int, int],
    spacing: float,
    origin: np.ndarray,
    cuts: int = 1,
) -> np.ndarray:
    """Nodal right-hand side of a current density through the faces of a voxel box, for trilinear elements.

    For E = -grad(phi) and J = sigma E the weak form is int sigma grad(phi).grad(v) = -int_boundary (J.N) v, N outward:
    b_i = -int (J.N) v_i, so that K phi = b with the usual stiffness K. Sum of b is zero when div J = 0.

    Parameters
    ----------
    current : points (n, 3) mm -> J (n, 3).
    shape, spacing, origin : grid; lengths in mm; `origin` is its outer corner.
    cuts : each face of a voxel is cut into `cuts`^2 squares with 3 x 3 Gauss points; 1 for a smooth J, 8 or more
    for a
        J that jumps along the face.

    Returns
    -------
    (nx + 1, ny + 1, nz + 1), in units of J times mm^2. With lengths in metres in K and J in A/m^2, multiply by 1e-6.
    """
    gauss, weight = np.polynomial.legendre.leggauss(3)
    t = ((gauss[None] + 1) / 2 + np.arange(cuts)[:, None]).ravel() / cuts
    w = np.tile(weight / 2 / cuts, cuts)
    hat = np.stack([1 - t, t])  # (2, n_t)
    load = np.zeros(tuple(n + 1 for n in shape))
    for axis in range(3):
        u, v = (a for a in range(3) if a != axis)
        pu = (origin[u] + spacing * (np.arange(shape[u])[:, None] + t)).ravel()
        pv = (origin[v] + spacing * (np.arange(shape[v])[:, None] + t)).ravel()
        for side in (0, 1):
            points = np.empty((pu.size, pv.size, 3))
            points[..., axis] = origin[axis] + side * shape[axis] * spacing
            points[..., u], points[..., v] = pu[:, None], pv[None]
            flux = current(points.reshape(-1, 3))[:, axis] * (2 * side - 1)
            flux = flux.reshape(shape[u], t.size, shape[v], t.size)
            corner = spacing**2 * np.einsum("isjt,as,bt,s,t->ijab", flux, hat, hat, w, w, optimize=True)
            face = load[(slice(None),) * axis + (side * shape[axis],)]
            for a in (0, 1):
                for b in (0, 1):
                    face[a : a + shape[u], b : b + shape[v]] -= corner[..., a, b]
    return load
