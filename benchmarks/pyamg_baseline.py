"""PyAMG (Ruge-Stuben) conjugate gradients on a scalar voxel head: the peer that the voxel solver is held against.

    python benchmarks/pyamg_baseline.py --labels FILE.nii.gz [--out result.json]

`assemble` is a stand-alone SciPy assembly of trilinear hexahedra and the independent reference for the package's
stencil; `skfem_stiffness` assembles the same matrix with scikit-fem.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import scipy
import scipy.sparse as sp

REPEATS = 7
SIGMA = {1: 0.465, 2: 0.010, 3: 1.654, 4: 0.275, 5: 0.126}
CORNERS = np.array(list(product((0, 1), repeat=3)))
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def element_matrices() -> np.ndarray:
    """R (6, 8, 8) with K_e = h sum_c S_c R_c for a cube of edge h and S = (xx, yy, zz, xy, xz, yz), integrated exactly.

    Trilinear v_a = prod_i l_(a_i)(x_i), l_0 = 1 - x, l_1 = x on the unit cube: the integrals factor into those of
    l l, l l' and l' l'.
    """
    mass = np.array([[2.0, 1.0], [1.0, 2.0]]) / 6
    stiff = np.array([[1.0, -1.0], [-1.0, 1.0]])
    mixed = np.array([[-0.5, -0.5], [0.5, 0.5]])  # int l_a' l_b
    out = np.zeros((6, 8, 8))
    for c, (i, j) in enumerate(PAIRS):
        for a, b in product(range(8), repeat=2):
            first, second = 1.0, 1.0
            for axis in range(3):
                p, q = CORNERS[a, axis], CORNERS[b, axis]
                if i == j:
                    first *= stiff[p, q] if axis == i else mass[p, q]
                else:
                    first *= mixed[p, q] if axis == i else mixed[q, p] if axis == j else mass[p, q]
                    second *= mixed[p, q] if axis == j else mixed[q, p] if axis == i else mass[p, q]
            out[c, a, b] = first if i == j else first + second
    return out


def assemble(sigma: np.ndarray, h: float) -> tuple[sp.csr_matrix, np.ndarray]:
    """Stiffness of trilinear hexahedra on the nodes that touch a conducting voxel.

    K_ab = int grad(v_a) . S grad(v_b), constant S in each cube.

    Parameters
    ----------
    sigma : (nx, ny, nz) scalar or (nx, ny, nz, 6) symmetric tensor (xx, yy, zz, xy, xz, yz), S/m; 0 in air.
    h : edge of a voxel; K comes in S/m times the unit of h.

    Returns
    -------
    K : (n_active, n_active) CSR float64, indices sorted, up to 27 entries a row.
    active : (nx + 1, ny + 1, nz + 1) bool; rows of K are these nodes in C order.
    """
    sigma = np.asarray(sigma, float)
    cells = sigma.shape[:3]
    nodes = tuple(n + 1 for n in cells)
    reference = element_matrices()
    parts = sigma[..., None] if sigma.ndim == 3 else sigma
    if sigma.ndim == 3:
        reference = reference[:3].sum(0)[None]
        reference[np.abs(reference) < 1e-12] = 0.0  # exactly zero along edges: not stored
    conducting = parts[..., : min(3, parts.shape[-1])].sum(-1) > 0
    active = np.zeros(nodes, bool)
    for a in CORNERS:
        active[tuple(slice(o, o + n) for o, n in zip(a, cells, strict=True))] |= conducting
    index = np.full(nodes, -1, np.int32)
    index[active] = np.arange(active.sum(), dtype=np.int32)
    # One dense array of values a neighbour offset, in the order of increasing column: rows come out sorted.
    offsets = list(product((-1, 0, 1), repeat=3))
    values = np.zeros((int(active.sum()), 27))
    columns = np.full((int(active.sum()), 27), -1, np.int32)
    stencil = np.zeros(nodes)
    for slot, offset in enumerate(offsets):
        stencil[:] = 0
        for a, b in product(range(8), repeat=2):
            if tuple(CORNERS[b] - CORNERS[a]) == offset:
                weight = h * reference[:, a, b]
                stencil[tuple(slice(o, o + n) for o, n in zip(CORNERS[a], cells, strict=True))] += parts @ weight
        values[:, slot] = stencil[active]
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, nodes, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, nodes, strict=True))
        neighbour = np.full(nodes, -1, np.int32)
        neighbour[here] = index[there]
        columns[:, slot] = neighbour[active]
    keep = (values != 0) & (columns >= 0)
    pointer = np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.int32)
    return sp.csr_matrix((values[keep], columns[keep], pointer), (len(values), len(values))), active


def skfem_stiffness(sigma: np.ndarray, h: float) -> tuple[sp.csr_matrix, np.ndarray]:
    """The same matrix by scikit-fem (MeshHex, ElementHex1), for scalar sigma > 0 everywhere; rows in C order of
    the nodes.

    Returns K and the largest |difference| of node positions after the reordering (a check of the reordering, mm).
    """
    import skfem
    from skfem.helpers import dot, grad

    axes = [h * np.arange(n + 1) for n in sigma.shape]
    mesh = skfem.MeshHex.init_tensor(*axes)
    basis = skfem.Basis(mesh, skfem.ElementHex1(), intorder=4)
    cell = np.floor(mesh.p[:, mesh.t].mean(1) / h).astype(int)

    @skfem.BilinearForm
    def laplace(u, v, w):
        return w.sigma * dot(grad(u), grad(v))

    weight = sigma[tuple(cell)][:, None] * np.ones(basis.X.shape[-1])
    matrix = laplace.assemble(basis, sigma=weight)
    order = np.lexsort(np.round(mesh.p / h).astype(int)[::-1])  # C order: x slowest
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    vertex = basis.nodal_dofs[0][order]
    return matrix[vertex][:, vertex].tocsr(), np.abs(mesh.p[:, order].T - grid).max()


def conductivity(labels: np.ndarray, block: int = 2, sigma: dict[int, float] = SIGMA, least: float = 0.0) -> np.ndarray:
    """Arithmetic mean of sigma over the tissue in each block; 0 where at most `least` of it is tissue."""
    pad = [(0, -n % block) for n in labels.shape]
    labels = np.pad(labels, pad)
    split = labels.reshape([m for n in labels.shape for m in (n // block, block)])
    total, tissue = np.zeros(split.shape[::2]), np.zeros(split.shape[::2])
    for label, value in sigma.items():
        share = (split == label).mean((1, 3, 5))
        total += value * share
        tissue += share
    return np.where(tissue > least, total / np.maximum(tissue, 1e-9), 0.0)


def tms_load(sigma: np.ndarray, h: float, origin: np.ndarray, active: np.ndarray, dadt) -> np.ndarray:
    """b (n_active,) = -int sigma dA/dt . grad(v), dA/dt taken at cell centres; h, origin in mm, b in S/m V/m mm^2."""
    cells = sigma.shape
    at = np.argwhere(sigma > 0)
    current = -sigma[tuple(at.T)][:, None] * dadt((at + 0.5) * h + origin)
    b = np.zeros(active.shape)
    for corner in CORNERS:
        # int over the cube of grad(v) is h^2/4 times the corner's signs
        part = np.zeros(cells)
        part[tuple(at.T)] = h**2 / 4 * current @ (2 * corner - 1)
        b[tuple(slice(o, o + n) for o, n in zip(corner, cells, strict=True))] += part
    return b[active]


def cores() -> int:
    """Processors that this process may use; XLA runs one thread on each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def interleaved(runs: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, dict]:
    """Best of `repeats` of each of `runs`, which take turns: every one meets the same load of the machine.

    Each must have run once before, and must return only when its result is there. "busy threads" is processor time
    over wall time of the best run: what it really used, whatever it was allowed.
    """
    best = dict.fromkeys(runs, (np.inf, 0.0))
    for _ in range(repeats):
        for name, run in runs.items():
            time.sleep(0.1)  # BLAS's threads spin for a while after the last product of the run before
            busy, start = time.process_time(), time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            best[name] = min(best[name], (elapsed, time.process_time() - busy))
    return {
        name: {"solve, s": elapsed, "repeats": repeats, "busy threads": busy / elapsed}
        for name, (elapsed, busy) in best.items()
    }


def prepare(matrix: sp.csr_matrix, b: np.ndarray, tolerance: float = 1e-5) -> tuple[Callable[[], np.ndarray], dict]:
    """Ruge-Stuben AMG-preconditioned CG to a true relative residual: the solve, ready to be timed, and what it takes.

    Two quirks of PyAMG are met here. The pure Neumann matrix is singular: b is made consistent first and the
    coarsest level is solved with its pseudo-inverse. Its stopping test with `accel="cg"` may watch the
    preconditioned residual, so the residual is recomputed and the tolerance lowered until the true one holds; the
    solve returned is the one that held.
    """
    import pyamg
    from threadpoolctl import threadpool_info

    b = b - b.mean()
    start = time.perf_counter()
    hierarchy = pyamg.ruge_stuben_solver(matrix, coarse_solver="pinv")
    setup = time.perf_counter() - start
    ask = tolerance
    for _ in range(6):
        history: list[float] = []
        x = hierarchy.solve(b, tol=ask, maxiter=200, accel="cg", residuals=history)
        true = float(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b))
        if true <= tolerance:
            break
        ask /= 2
    return partial(hierarchy.solve, b, tol=ask, maxiter=200, accel="cg"), {
        "set-up, s": setup,
        "iterations": len(history) - 1,
        "true residual": true,
        "asked residual": ask,
        "converged": true <= tolerance,
        "levels": len(hierarchy.levels),
        "operator complexity": float(hierarchy.operator_complexity()),
        "dtype": str(x.dtype),
        "threads": 1,  # of PyAMG's and SciPy's sparse kernels, which are built without threads
        "threads of BLAS": max((pool["num_threads"] for pool in threadpool_info()), default=1),
    }


def solve(matrix: sp.csr_matrix, b: np.ndarray, tolerance: float = 1e-5, repeats: int = 1) -> dict:
    """The row of `prepare` with the solution "x" and the best time of `repeats` solves."""
    run, row = prepare(matrix, b, tolerance)
    return {"x": run(), **row, **interleaved({"pyamg": run}, repeats)["pyamg"]}


def colin27(path: Path, block: int = 2, repeats: int = REPEATS, least: float = 0.0) -> dict:
    """The whole comparison on a 1 mm label volume with a figure-8 coil over the left hand knob; times in seconds."""
    import nibabel
    from interfaces.fold import Coil

    image = nibabel.nifti1.load(path)
    labels = np.asarray(image.dataobj)
    origin = image.affine[:3, 3] - 0.5
    start = time.perf_counter()
    sigma = conductivity(labels, block, least=least)
    averaging = time.perf_counter() - start
    h = float(block)
    start = time.perf_counter()
    matrix, active = assemble(sigma, h)
    assembly = time.perf_counter() - start
    coil = Coil(height=4.0)
    # The coil's plane (normal -z in its own frame) is laid on the scalp over the hand knob, facing the head's centre.
    normal = np.array([-0.55, -0.25, 0.8])
    normal /= np.linalg.norm(normal)
    along = np.cross(normal, [1.0, 1.0, 0.0])
    along /= np.linalg.norm(along)
    frame = np.stack([along, np.cross(normal, along), normal], -1)
    at = np.array([-40.0, -20.0, 52.0]) + 36.0 * normal
    b = tms_load(sigma, h, origin, active, lambda points: coil.dadt((points - at) @ frame) @ frame.T)
    row = solve(matrix, b, repeats=repeats)
    del row["x"]
    return {
        "what": "PyAMG Ruge-Stuben CG, arithmetic conductivity, one pose",
        "nodes": int(active.sum()),
        "nonzeros": int(matrix.nnz),
        "averaging, s": averaging,
        "assembly, s": assembly,
        **row,
    }


def environment() -> dict:
    """Hardware and versions of a result."""
    import pyamg

    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), model
        )
    return {
        "cpu": model,
        "cores": cores(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pyamg": pyamg.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="1 mm label volume, 1 scalp ... 5 white")
    parser.add_argument("--block", type=int, default=2, help="labels along a voxel's edge")
    parser.add_argument("--least", type=float, default=0.0, help="a voxel conducts above this share of tissue")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.labels.exists():
        raise SystemExit(f"--labels: {arguments.labels} does not exist; give the 1 mm label volume.")
    result = {
        **colin27(arguments.labels, arguments.block, arguments.repeats, arguments.least),
        "environment": environment(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
