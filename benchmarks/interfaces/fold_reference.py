"""Solve `fold` on a body-fitted mesh, show the mesh's convergence, and store E at fixed points.

    python benchmarks/interfaces/fold_reference.py            levels 0, 1, 2; writes fold_reference.npz
    python benchmarks/interfaces/fold_reference.py --levels 0 1 --dry

The section (p, q) of `fold` is meshed with curved quadratic triangles whose edges lie on the interfaces, and
extruded along y with quadratic lines: 18-node wedges. The map (p, y, q) -> (x, y, z) is not discretised: it enters at
the quadrature points,

    int sigma (J^-T grad phi).(J^-T grad v) |J| = -int sigma (dA/dt).(J^-T grad v) |J|,     E = -dA/dt - J^-T grad phi,

so that the only geometric error is the quadratic edge's, O(h^3). Level l halves every edge (and the slabs in y) of
level l - 1.

CG is preconditioned with the same operator without the map (J = I), which separates: a generalised eigenproblem in
y and one sparse two-dimensional factorisation for every mode. Iterations depend on neither contrast nor mesh.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import splu
from scipy.spatial import Delaunay, cKDTree

if __package__ in (None, ""):  # run as a script
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from interfaces.fold import COILS, NAMES, SIGMA, STORED, Fold, errors, fingerprint
else:
    from .fold import COILS, NAMES, SIGMA, STORED, Fold, errors, fingerprint

# Six-point rule of degree 4 on the triangle (Dunavant, Int. J. Numer. Meth. Eng. 21, 1985) and three Gauss points
# on (0, 1).
_A, _B = 0.445948490915965, 0.091576213509771
TRIANGLE = np.array([[_A, _A], [1 - 2 * _A, _A], [_A, 1 - 2 * _A], [_B, _B], [1 - 2 * _B, _B], [_B, 1 - 2 * _B]])
TRIANGLE_WEIGHT = np.repeat([0.223381589678011, 0.109951743655322], 3) / 2
_GAUSS, _GAUSS_WEIGHT = np.polynomial.legendre.leggauss(3)
LINE, LINE_WEIGHT = (_GAUSS + 1) / 2, _GAUSS_WEIGHT / 2


def p2(st: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quadratic shape functions (n, 6) and reference gradients (n, 6, 2): corners, then mid-edges 01, 12, 20."""
    s, t = st[..., 0], st[..., 1]
    lam = np.stack([1 - s - t, s, t], -1)
    dlam = np.array([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    i, j = np.array([0, 1, 2]), np.array([1, 2, 0])
    value = np.concatenate([lam * (2 * lam - 1), 4 * lam[..., i] * lam[..., j]], -1)
    corner = (4 * lam - 1)[..., None] * dlam
    edge = 4 * (lam[..., i, None] * dlam[j] + lam[..., j, None] * dlam[i])
    return value, np.concatenate([corner, edge], -2)


def l2(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quadratic line on (0, 1): values (n, 3) and derivatives (n, 3) at nodes 0, 1/2, 1."""
    return (
        np.stack([(1 - t) * (1 - 2 * t), 4 * t * (1 - t), t * (2 * t - 1)], -1),
        np.stack([4 * t - 3, 4 - 8 * t, 4 * t - 1], -1),
    )


# the section's mesh


def _trace(fold: Fold, level: float, spacing: float) -> np.ndarray:
    """Points (n, 2) on F = level from side to side, `spacing` apart; F grows with q, so the curve is a graph over p."""
    p = np.linspace(-fold.half, fold.half, 160001)
    low, high = np.full_like(p, -fold.depth), np.full_like(p, -1.0)
    for _ in range(48):
        mid = (low + high) / 2
        above = fold.csf_level(p, mid) > level
        low, high = np.where(above, low, mid), np.where(above, mid, high)
    curve = np.stack([p, (low + high) / 2], -1)
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    s = np.linspace(0, arc[-1], int(np.ceil(arc[-1] / spacing)) + 1)
    points = np.stack([np.interp(s, arc, curve[:, i]) for i in range(2)], -1)
    points[1:-1] = _project(fold, points[1:-1], level)
    return points


def _project(fold: Fold, points: np.ndarray, level: float) -> np.ndarray:
    """Newton steps along grad F onto F = level."""
    step = 1e-5
    for _ in range(6):
        p, q = points.T
        miss = fold.csf_level(p, q) - level
        gradient = np.stack(
            [
                fold.csf_level(p + step, q) - fold.csf_level(p - step, q),
                fold.csf_level(p, q + step) - fold.csf_level(p, q - step),
            ],
            -1,
        ) / (2 * step)
        points = points - (miss / (gradient**2).sum(-1))[:, None] * gradient
    return points


@dataclass(frozen=True)
class Section:
    """Triangles (n, 3) on vertices (m, 2) = (p, q), their layer (n,), and each vertex's interface (0: none, 1..4)."""

    vertices: np.ndarray
    triangles: np.ndarray
    layer: np.ndarray
    tag: np.ndarray

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unique edges (e, 2), their index per triangle (n, 3) in the order 01, 12, 20, and their interface (e,)."""
        pairs = np.sort(self.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, index = np.unique(pairs, axis=0, return_inverse=True)
        index = index.reshape(-1, 3)
        low, high = np.full(len(unique), 9), np.full(len(unique), -1)
        np.minimum.at(low, index, self.layer[:, None])
        np.maximum.at(high, index, self.layer[:, None])
        return unique, index, np.where(high > low, high, 0)  # interface k lies between layers k - 1 and k

    def midpoints(self, fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mid-edge points (e, 2), moved onto the curved interfaces; edge index per triangle; interface."""
        unique, index, interface = self.edges()
        middle = self.vertices[unique].mean(1)
        for k, level in ((3, 0.0), (4, -fold.ribbon)):
            side = np.abs(middle[:, 0]) > fold.half - 1e-9
            on = (interface == k) & ~side
            middle[on] = _project(fold, middle[on], level)
        return middle, index, interface

    def refine(self, fold: Fold) -> "Section":
        """Every triangle into four."""
        middle, index, interface = self.midpoints(fold)
        n = len(self.vertices)
        a, b, c = self.triangles.T
        ab, bc, ca = (index + n).T
        triangles = np.concatenate([np.stack(t, -1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        return Section(
            np.concatenate([self.vertices, middle]),
            triangles,
            np.tile(self.layer, 4),
            np.concatenate([self.tag, interface]),
        )


def section(fold: Fold, spacing: float = 1.4, growth: float = 0.3, coarse: float = 4.5) -> Section:
    """A triangulation that contains the interfaces, `spacing` mm at the cortex, growing away from it.

    Points on interfaces and sides are fixed; the others relax under spring forces (Persson & Strang, SIAM Review
    46, 2004). Points in the diametral circle of an interface edge are then dropped, which makes every such edge a
    Delaunay edge.
    """
    pia, white = _trace(fold, 0.0, spacing), _trace(fold, -fold.ribbon, spacing)
    cortex = cKDTree(np.concatenate([pia, white]))

    def size(x: np.ndarray) -> np.ndarray:
        return np.minimum(spacing + growth * np.maximum(cortex.query(x)[0] - spacing, 0), coarse)

    chains, tags = [pia, white], [3, 4]
    for q, tag in ((0.0, 0), (-fold.scalp, 1), (-fold.scalp - fold.skull, 2), (-fold.depth, 0)):
        fine = np.stack([np.linspace(-fold.half, fold.half, 4001), np.full(4001, q)], -1)
        chains.append(_graded(fine, size))
        tags.append(tag)
    for x in (-fold.half, fold.half):
        stops = np.sort([chain[0 if x < 0 else -1, 1] for chain in chains[:6]])
        for low, high in pairwise(stops):
            fine = np.stack([np.full(1001, x), np.linspace(low, high, 1001)], -1)
            chains.append(_graded(fine, size)[1:-1])
            tags.append(0)
    fixed = np.concatenate(chains)
    interface_of = np.concatenate([np.full(len(c), t) for c, t in zip(chains, tags, strict=True)])
    middles = np.concatenate([(c[1:] + c[:-1]) / 2 for c, t in zip(chains, tags, strict=True) if t])
    radii = np.concatenate(
        [np.linalg.norm(np.diff(c, axis=0), axis=1) / 2 for c, t in zip(chains, tags, strict=True) if t]
    )

    rng = np.random.default_rng(0)
    grid = np.stack(
        np.meshgrid(
            np.arange(-fold.half, fold.half, spacing), np.arange(-fold.depth, 0, spacing * 0.866), indexing="ij"
        ),
        -1,
    )
    grid[:, 1::2, 0] += spacing / 2
    free = grid.reshape(-1, 2)
    free = free[np.abs(free[:, 0]) < fold.half - spacing / 3]
    free = free[rng.random(len(free)) < (spacing / size(free)) ** 2]
    fixed_tree, ball = cKDTree(fixed), cKDTree(middles)

    def clear(x: np.ndarray, factor: float) -> np.ndarray:
        inside = (np.abs(x[:, 0]) < fold.half - 1e-6) & (x[:, 1] < -1e-6) & (x[:, 1] > -fold.depth + 1e-6)
        distance, nearest = ball.query(x)
        return inside & (distance > 1.15 * radii[nearest]) & (fixed_tree.query(x)[0] > factor * size(x))

    free = free[clear(free, 0.5)]
    for sweep in range(120):
        points = np.concatenate([fixed, free])
        triangles = Delaunay(points).simplices
        bars = np.unique(np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
        vector = points[bars[:, 0]] - points[bars[:, 1]]
        length = np.linalg.norm(vector, axis=1)
        want = size(points[bars].mean(1))
        want = want * 1.2 * np.sqrt((length**2).sum() / (want**2).sum())
        force = (np.maximum(want - length, 0) / length)[:, None] * vector
        total = np.stack([np.bincount(bars.ravel(), np.stack([f, -f], 1).ravel(), len(points)) for f in force.T], -1)
        free = free + 0.2 * total[len(fixed) :]
        if sweep % 10 == 9 or sweep > 110:
            free = free[clear(free, 0.45)]
    points = np.concatenate([fixed, free])
    triangles = Delaunay(points).simplices
    a, b, c = points[triangles].transpose(1, 0, 2)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    flipped = area < 0
    triangles[flipped] = triangles[flipped][:, [0, 2, 1]]
    triangles = triangles[np.abs(area) > 1e-6]
    centre = points[triangles].mean(1)
    layer = (fold.section_levels(centre[:, 0], centre[:, 1]) <= 0).sum(-1)
    mesh = Section(points, triangles, layer, np.concatenate([interface_of, np.zeros(len(free), int)]))
    unique, _, interface = mesh.edges()
    ends = mesh.tag[unique]
    cut = interface > 0
    if not np.all(ends[cut] == interface[cut][:, None]):
        raise RuntimeError("section: a triangle crosses an interface; take another spacing.")
    expected = sum(len(c) - 1 for c, t in zip(chains, tags, strict=True) if t)
    if cut.sum() != expected:
        raise RuntimeError(f"section: {cut.sum()} interface edges instead of {expected}.")
    return mesh


def _graded(fine: np.ndarray, size: Callable) -> np.ndarray:
    """Points along a dense polyline, one local size apart."""
    step = np.linalg.norm(np.diff(fine, axis=0), axis=1)
    count = np.concatenate([[0.0], np.cumsum(step / size((fine[1:] + fine[:-1]) / 2))])
    s = np.linspace(0, count[-1], max(2, int(np.ceil(count[-1])) + 1))
    return np.stack([np.interp(s, count, fine[:, i]) for i in range(2)], -1)


# the discrete problem


class Problem:
    """Stiffness, loads and field evaluation on the extruded section; node index = plane * n_section + section node."""

    def __init__(self, fold: Fold, mesh: Section, slabs: int, sigma: tuple[float, ...] = SIGMA):
        self.fold, self.mesh, self.slabs = fold, mesh, slabs
        middle, edge, _ = mesh.midpoints(fold)
        self.nodes = np.concatenate([mesh.vertices, middle])  # (m, 2)
        self.elements = np.concatenate([mesh.triangles, edge + len(mesh.vertices)], 1)  # (n, 6)
        self.y = np.linspace(-fold.half, fold.half, 2 * slabs + 1)
        self.sigma = np.asarray(sigma)[mesh.layer]
        self.n = len(self.nodes) * len(self.y)
        n2, d2 = p2(TRIANGLE)
        corners = self.nodes[self.elements]  # (n, 6, 2)
        self._pq = np.einsum("ga,nai->ngi", n2, corners)
        jacobian = np.einsum("gad,nai->ngid", d2, corners)
        self._det2 = np.linalg.det(jacobian)
        if self._det2.min() <= 0:
            raise RuntimeError("section: an inverted curved triangle; take another spacing.")
        self._grad2 = np.einsum("gad,ngdi->ngai", d2, np.linalg.inv(jacobian))
        self._n2 = n2

    def _slab(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mapped gradients (n, 18 points, 3, 18 nodes), weights sigma |J| w (n, 18), and points x (n, 18, 3) in mm."""
        h = self.y[2 * k + 2] - self.y[2 * k]
        value, slope = l2(LINE)
        n_t = len(self.elements)
        section_point = np.empty((n_t, 6, 3, 3))
        section_point[..., 0], section_point[..., 2] = self._pq[:, :, None, 0], self._pq[:, :, None, 1]
        section_point[..., 1] = self.y[2 * k] + h * LINE
        x, jacobian = self.fold.forward(section_point)
        gradient = np.empty((n_t, 6, 3, 3, 3, 6))  # triangle point, line point, component, line node, triangle node
        gradient[..., 0, :, :] = np.einsum("nga,lb->nglba", self._grad2[..., 0], value)
        gradient[..., 1, :, :] = np.einsum("ga,lb->glba", self._n2, slope / h)[None]
        gradient[..., 2, :, :] = np.einsum("nga,lb->nglba", self._grad2[..., 1], value)
        inverse = np.linalg.inv(jacobian)  # (grad v)_i = sum_j (J^-1)_ji d_j v
        gradient = np.einsum("nglji,ngljc->nglic", inverse, gradient.reshape(n_t, 6, 3, 3, 18), optimize=True)
        weight = np.linalg.det(jacobian) * self._det2[:, :, None]
        weight = weight * TRIANGLE_WEIGHT[:, None] * LINE_WEIGHT * h * self.sigma[:, None, None]
        return gradient.reshape(n_t, 18, 3, 18), weight.reshape(n_t, 18), x.reshape(n_t, 18, 3)

    def assemble(self, sources: dict) -> tuple[sp.csr_matrix, np.ndarray]:
        """Stiffness (n, n) and right-hand sides (n, n_source) for sources given as functions points -> dA/dt."""
        m = len(self.nodes)
        local = (np.arange(3)[:, None] * m + self.elements[:, None, :]).reshape(-1, 18)  # (n, 18) in three planes
        rows, cols = np.repeat(local, 18, 1).ravel(), np.tile(local, (1, 18)).ravel()
        load = np.zeros((len(sources), self.n))
        blocks = []
        for k in range(self.slabs):
            gradient, weight, x = self._slab(k)
            flat = gradient.reshape(len(gradient), 54, 18)
            heavy = (gradient * weight[:, :, None, None]).reshape(len(gradient), 54, 18)
            element = flat.transpose(0, 2, 1) @ heavy
            block = sp.coo_matrix((element.ravel(), (rows, cols)), (3 * m, 3 * m)).tocsr()
            blocks.append(block)
            for i, source in enumerate(sources.values()):
                a = source(x.reshape(-1, 3)).reshape(len(x), 54, 1)
                element_load = -(heavy.transpose(0, 2, 1) @ a)[..., 0]
                load[i, 2 * k * m : (2 * k + 3) * m] += np.bincount(local.ravel(), element_load.ravel(), 3 * m)
        # Planes of nodes: even planes are shared by two slabs; row blocks are concatenated without a global sort.
        rows_out = []
        empty = sp.csr_matrix((m, m))
        for plane in range(2 * self.slabs + 1):
            parts: dict[int, sp.csr_matrix] = {}
            for k in {(plane - 1) // 2, plane // 2} & set(range(self.slabs)):
                if not 2 * k <= plane <= 2 * k + 2:
                    continue
                row = plane - 2 * k
                for col in range(3):
                    piece = blocks[k][row * m : (row + 1) * m, col * m : (col + 1) * m]
                    other = 2 * k + col
                    parts[other] = parts[other] + piece if other in parts else piece
            first, last = min(parts), max(parts)
            strip = sp.hstack([parts.get(c, empty) for c in range(first, last + 1)], format="csr")
            strip = sp.csr_matrix((strip.data, strip.indices.astype(np.int32) + first * m, strip.indptr), (m, self.n))
            rows_out.append(strip)
        del blocks
        matrix = sp.vstack(rows_out, format="csr")
        return matrix, load.T

    def preconditioner(self) -> Callable:
        """The solution operator of the unmapped problem, K_pq x M_y + M_pq x K_y, as a function of a vector (n,)."""
        det = self._det2 * TRIANGLE_WEIGHT * self.sigma[:, None]
        stiff = np.einsum("ng,ngai,ngbi->nab", det, self._grad2, self._grad2, optimize=True)
        mass = np.einsum("ng,ga,gb->nab", det, self._n2, self._n2, optimize=True)
        rows, cols = np.repeat(self.elements, 6, 1).ravel(), np.tile(self.elements, (1, 6)).ravel()
        m = len(self.nodes)
        k2, m2 = (sp.coo_matrix((e.ravel(), (rows, cols)), (m, m)).tocsc() for e in (stiff, mass))
        value, slope = l2(LINE)
        h = self.y[2] - self.y[0]
        line = np.arange(0, len(self.y) - 2, 2)[:, None] + np.arange(3)
        k1, m1 = np.zeros((2, len(self.y), len(self.y)))
        np.add.at(k1, (line[:, :, None], line[:, None, :]), np.einsum("g,ga,gb->ab", LINE_WEIGHT / h, slope, slope))
        np.add.at(m1, (line[:, :, None], line[:, None, :]), np.einsum("g,ga,gb->ab", LINE_WEIGHT * h, value, value))
        eigenvalue, mode = scipy.linalg.eigh(k1, m1)
        eigenvalue[0] = max(eigenvalue[0], 1e-6)  # the constant: any positive shift will do in a preconditioner
        factor = [
            splu(
                (k2 + e * m2).astype(np.float32),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
            for e in eigenvalue
        ]

        def apply(r: np.ndarray) -> np.ndarray:
            spectrum = (mode.T @ r.reshape(len(self.y), m)).astype(np.float32)
            scale = np.abs(spectrum).max() or 1.0
            solved = np.stack([f.solve(s / scale) for f, s in zip(factor, spectrum, strict=True)])
            return (mode @ (solved * np.float64(scale))).ravel()

        return apply

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Element (n,), reference coordinates (n, 2) and section points (n, 3) of points (n, 3) in mm."""
        section_points = self.fold.inverse(points)
        pq = section_points[:, [0, 2]]
        layer = (self.fold.section_levels(*pq.T) <= 0).sum(-1)
        best, where, score = np.zeros(len(pq), int), np.zeros((len(pq), 2)), np.full(len(pq), -np.inf)
        for k in np.unique(layer):
            mine, of = np.flatnonzero(layer == k), np.flatnonzero(self.mesh.layer == k)
            tree = cKDTree(self.nodes[self.elements[of, :3]].mean(1))
            candidates = of[tree.query(pq[mine], k=min(16, len(of)))[1]]
            for element in candidates.T:
                corners = self.nodes[self.elements[element]]
                st = np.full((len(mine), 2), 1 / 3)
                for _ in range(8):
                    value, slope = p2(st)
                    miss = np.einsum("na,nai->ni", value, corners) - pq[mine]
                    jacobian = np.einsum("nad,nai->nid", slope, corners)
                    st = st - np.clip(np.linalg.solve(jacobian, miss[..., None])[..., 0], -1, 1)
                inside = np.minimum(st.min(-1), 1 - st.sum(-1))
                inside = np.where(np.isfinite(inside), inside, -np.inf)
                better = inside > score[mine]
                best[mine[better]], where[mine[better]], score[mine[better]] = (
                    element[better],
                    st[better],
                    inside[better],
                )
        if score.min() < -1e-2:
            raise RuntimeError(f"locate: {np.count_nonzero(score < -1e-2)} points lie in no element.")
        return best, where, section_points

    def gradient(self, phi: np.ndarray, points: np.ndarray) -> np.ndarray:
        """grad(phi) (n, 3) per mm at points (n, 3) mm, taken inside the element that holds the point."""
        element, st, section_points = self.locate(points)
        value, slope = p2(st)
        corners = self.nodes[self.elements[element]]
        jacobian = np.linalg.inv(np.einsum("nad,nai->nid", slope, corners))
        slope = np.einsum("nad,ndi->nai", slope, jacobian)
        h = self.y[2] - self.y[0]
        k = np.clip(((section_points[:, 1] + self.fold.half) / h).astype(int), 0, self.slabs - 1)
        line, dline = l2((section_points[:, 1] - self.y[2 * k]) / h)
        u = phi.reshape(len(self.y), -1)[
            2 * k[:, None, None] + np.arange(3)[:, None], self.elements[element][:, None, :]
        ]
        local = np.stack(
            [
                np.einsum("nba,nb,na->n", u, line, slope[..., 0]),
                np.einsum("nba,nb,na->n", u, dline / h, value),
                np.einsum("nba,nb,na->n", u, line, slope[..., 1]),
            ],
            -1,
        )
        _, jacobian3 = self.fold.forward(section_points)
        return np.linalg.solve(jacobian3.transpose(0, 2, 1), local[..., None])[..., 0]


def conjugate_gradients(
    matrix: sp.csr_matrix, b: np.ndarray, precondition: Callable, tolerance: float = 1e-8, limit: int = 400
) -> tuple[np.ndarray, int, float]:
    """CG (flexible beta, for the float32 preconditioner): x, iterations and the recomputed relative residual."""
    x, r = np.zeros_like(b), b.copy()
    z = precondition(r)
    p, rz = z.copy(), r @ z
    norm = np.linalg.norm(b)
    iterations = 0
    while iterations < limit:
        iterations += 1
        ap = matrix @ p
        alpha = rz / (p @ ap)
        x += alpha * p
        new = r - alpha * ap
        if np.linalg.norm(new) < tolerance * norm:
            break
        z = precondition(new)
        beta = z @ (new - r) / rz
        r, rz = new, z @ new
        p = z + beta * p
    return x, iterations, float(np.linalg.norm(b - matrix @ x) / norm)


def sample(fold: Fold, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Uniform random points (4000 grey, 1200 csf, 1200 white above z = -40), their layer and distance (mm)."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-fold.half, -fold.half, 20 - fold.depth], [fold.half, fold.half, -12], (150_000, 3))
    points = points.astype(np.float32).astype(float)
    layer = fold.layer(points)
    keep = np.concatenate([np.flatnonzero(layer == k)[:n] for k, n in ((3, 4000), (2, 1200), (4, 1200))])
    points, layer = points[keep], layer[keep]
    return points, layer, fold.distance(points)


def solve(fold: Fold, mesh: Section, slabs: int, sources: dict, points: np.ndarray) -> tuple[dict, dict]:
    """E (n, 3) in V/m for each source at points, and a record of sizes, iterations and residuals."""
    start = time.perf_counter()
    problem = Problem(fold, mesh, slabs)
    matrix, load = problem.assemble(sources)
    assembled = time.perf_counter() - start
    precondition = problem.preconditioner()
    record = {
        "nodes": problem.n,
        "wedges": len(problem.elements) * slabs,
        "edge_at_cortex_mm": float(np.median(_cortex_edges(problem))),
        "slab_mm": 2 * fold.half / slabs,
        "nonzeros": matrix.nnz,
        "assembly_s": assembled,
        "factorisation_s": time.perf_counter() - start - assembled,
    }
    fields = {}
    for i, (name, source) in enumerate(sources.items()):
        phi, iterations, residual = conjugate_gradients(matrix, load[:, i], precondition)
        fields[name] = -source(points) - problem.gradient(phi, points)
        record[f"iterations_{name}"], record[f"residual_{name}"] = iterations, residual
    record["total_s"] = time.perf_counter() - start
    return fields, record


def _cortex_edges(problem: Problem) -> np.ndarray:
    unique, _, interface = problem.mesh.edges()
    on = unique[interface >= 3]
    return np.linalg.norm(np.diff(problem.mesh.vertices[on], axis=1)[:, 0], axis=-1)


def _changes(coarse: dict, fine: dict, layer: np.ndarray) -> dict:
    """`fold.errors` (percent) of the coarser field against the finer, by coil and tissue."""
    return {
        name: {NAMES[k]: errors(coarse[name][layer == k], fine[name][layer == k]) for k in (2, 3, 4)} for name in fine
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--slabs", type=int, default=12, help="slabs in y at level 0")
    parser.add_argument("--dry", action="store_true", help="do not write")
    arguments = parser.parse_args()
    fold = Fold()
    points, layer, distance = sample(fold)
    sources = {name: coil.dadt for name, coil in COILS.items()}
    mesh = section(fold)
    results: list[dict] = []
    records: list[dict] = []
    changes: list[dict] = []
    for level in range(max(arguments.levels) + 1):
        if level:
            mesh = mesh.refine(fold)
        if level not in arguments.levels:
            continue
        fields, record = solve(fold, mesh, arguments.slabs * 2**level, sources, points)
        print(f"level {level}", json.dumps(record), flush=True)
        if results:
            changes.append(_changes(results[-1], fields, layer))
            print("  change of E, %", json.dumps(changes[-1]), flush=True)
        results.append(fields)
        records.append(record)
    if arguments.dry or len(results) < 2:
        return
    # The last change bounds the finest level's error as long as the changes shrink: at order r the error is
    # change/(2^r - 1).
    error = {name: {tissue: row["l2"] for tissue, row in table.items()} for name, table in changes[-1].items()}
    np.savez_compressed(
        STORED,
        fingerprint=fingerprint(fold, COILS),
        metadata=json.dumps({"error": error, "mesh": records[-1], "levels": records, "changes": changes}),
        points=points.astype(np.float32),
        layer=layer.astype(np.uint8),
        distance=distance.astype(np.float32),
        **{f"e_{name}": e.astype(np.float32) for name, e in results[-1].items()},
    )


if __name__ == "__main__":
    main()
