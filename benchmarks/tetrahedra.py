"""Tetrahedral heads: the solve beside PyAMG's, accuracy beside voxels, a head of four million elements.

    python benchmarks/tetrahedra.py [--cases solver,accuracy,head]

- solver: five shells, about 900,000 nodes; the load of a dipole; to a recomputed residual of 1e-6 in float32. In turns
  with PyAMG's own conjugate gradients on the same hierarchy (its symmetric Gauss-Seidel, float64). Bars: faster than
  PyAMG; eight right-hand sides cost at most four times one.
- accuracy: error of E in each shell against the exact formula, elements and recovered, beside voxels.
- head: about four million elements, from nodes and tags to a field and a gradient in the pose. Bar: 16 GB.

Floor of a product with the stiffness: 8 bytes an entry (value and column) at the bandwidth of a copy. An iteration is
five products with the finest matrix (smoothing twice two, and the iteration's own) and a third more for the rest.
"""

import argparse
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pyamg
import record
from exact_sphere import dipole_field
from scipy import sparse

import jaxm2m as jm
from jaxm2m import fem
from jaxm2m.head import meshing

RADII = np.array([70.0, 78, 80, 86, 92])
SIGMA = np.array([0.126, 0.275, 1.654, 0.01, 0.465])
COARSEST = 500  # unknowns, at most, on PyAMG's coarsest level: as in `fem.build_algebraic`
POSITION = np.array([[-30.0, 0, -3], [-40, 10, -6], [30, 0, -3], [40, -10, -6]])  # mm, in the coil's frame
MOMENT = np.array([[0, 0, 2e-3], [0, 0, 3e-3], [0, 0, -2e-3], [0, 5e-4, -3e-3]])  # A m^2 per A


def seconds(function, *arguments):
    started = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - started, result


def solver(options):
    nodes, elements, shell = meshing.build_ball(RADII, options.spacing)
    result = {"nodes": len(nodes), "elements": len(elements)}
    result["s topology"], mesh = seconds(fem.build_mesh, elements, nodes)
    x = nodes[np.asarray(mesh.nodes)] * 1e-3
    assemble = jax.jit(fem.assemble_mesh_stiffness)
    matrix = assemble(mesh, jnp.asarray(x), jnp.asarray(SIGMA[shell]))
    result["s assembly"], matrix = seconds(assemble, mesh, jnp.asarray(x), jnp.asarray(SIGMA[shell]))
    k = fem.to_csr(matrix)
    result["entries"], result["slots"] = k.nnz, sum(c.size for c in mesh.columns)
    result["s multigrid"], grid = seconds(fem.build_algebraic, k)
    matrix = replace(matrix, preconditioner=grid)
    result["levels"] = [len(level.diagonal) for level in grid.levels] + [len(grid.coarse_inverse)]
    # the load of a dipole over the top
    d = np.asarray(x) - (0, 0, 0.11)
    a = np.cross([0, 1, 0], d) / np.linalg.norm(d, axis=1, keepdims=True) ** 3
    low, high = fem.PAIRS.T
    a = jnp.asarray(a)

    def load(matrix, a):
        def along(corners):
            steps = matrix.positions[corners[:, high]] - matrix.positions[corners[:, low]]
            return ((a[corners[:, low]] + a[corners[:, high]]) / 2 * steps).sum(-1)

        return matrix.load_vector(along)

    b = matrix.remove_mean(jax.jit(load)(matrix, a))
    result["s load"], _ = seconds(jax.jit(load).lower(matrix, a).compile(), matrix, a)
    # eight loads of different sources
    turned = [
        matrix.remove_mean(jax.jit(load)(matrix, jnp.roll(a * s, i % 3, axis=1))) for i, s in enumerate(range(1, 9))
    ]
    many = jnp.stack(turned, 1)
    solve = jax.jit(lambda matrix, b: fem.solve(matrix, b, 1e-6))
    compiled = {}
    for name, loads in (("one", b), ("eight", many)):
        result[f"s compile {name}"], compiled[name] = seconds(lambda loads=loads: solve.lower(matrix, loads).compile())
    theirs = pyamg.smoothed_aggregation_solver(sparse.csr_matrix(k), max_coarse=COARSEST)
    rhs = np.asarray(b, np.float64)
    rhs -= rhs.mean()
    times = {"one": [], "eight": [], "PyAMG": []}
    for _ in range(options.turns):
        for name, loads in (("one", b), ("eight", many)):
            took, (_, _, stats) = seconds(compiled[name], matrix, loads)
            times[name].append(took)
            result[f"iterations {name}"] = np.asarray(stats.iterations).tolist()
            result[f"residual {name}"] = float(np.max(stats.residual))
        history: list[float] = []
        started = time.perf_counter()
        found = theirs.solve(rhs, tol=1e-6, accel="cg", residuals=history)
        times["PyAMG"].append(time.perf_counter() - started)
        result["iterations PyAMG"] = len(history) - 1
        result["residual PyAMG"] = float(np.linalg.norm(rhs - k @ found) / np.linalg.norm(rhs))
    for name, values in times.items():
        result[f"s {name}"] = min(values)
    result["PyAMG over one"] = result["s PyAMG"] / result["s one"]
    result["eight over one"] = result["s eight"] / result["s one"]
    product = jax.jit(lambda m, x: m.matrix @ x)
    product(matrix, b)
    result["ms product"] = 1e3 * min(seconds(product, matrix, b)[0] for _ in range(9))
    big = np.ones(k.nnz * 2, np.float32)
    copies = []
    for _ in range(5):
        started = time.perf_counter()
        big.copy()
        copies.append(time.perf_counter() - started)
    result["ms floor of a product"] = 1e3 * min(copies) / 2
    result["peak memory, GB"] = record.peak_memory()
    record.write("tetrahedra", "solver", result)


def dipoles():
    element = jm.coil.Dipoles(jnp.asarray(POSITION), jnp.asarray(MOMENT), 0)
    return jm.coil.Coil((element,), None, jnp.asarray([jnp.nan]), {"name": "four dipoles"})


def exact(points, pose):
    """E at points (n, 3) mm, 1e6 A/s."""
    return dipole_field(points, POSITION @ pose[:3, :3].T + pose[:3, 3], 1e6 * MOMENT @ pose[:3, :3].T)


def accuracy(options):
    coil, pose = dipoles(), np.diag([1.0, -1, -1, 1])
    pose[2, 3] = 96.0
    random = np.random.default_rng(0)
    result = {}
    bounds = dict(
        zip(("white", "grey", "csf", "skull", "scalp"), zip([0, *RADII[:-1]], RADII, strict=True), strict=True)
    )
    points = {}
    for name, (low, high) in bounds.items():
        p = random.normal(size=(6000, 3))
        p *= (
            np.cbrt(random.uniform((low + 0.01) ** 3, (high - 0.01) ** 3, (6000, 1)))
            / np.linalg.norm(p, axis=1)[:, None]
        )
        points[name] = p[p[:, 2] > 30]

    def errors(sim, head):
        rows = {}
        for t, (name, p) in enumerate(points.items()):
            truth = exact(p, pose)
            found = np.asarray(sim.bind(coil, jm.efield.Points(p, np.full(len(p), t)))(pose))
            away, size = np.linalg.norm(found - truth, axis=1), np.sqrt((truth**2).sum(1).mean())
            rows[name] = {
                "L2 %": 100 * np.sqrt((away**2).mean()) / size,
                "95th %": 100 * np.percentile(away, 95) / size,
            }
            if isinstance(head, jm.head.MeshHead):
                raw = np.asarray(field.e)[head.locate(p)[0]]
                rows[name]["element-wise L2 %"] = 100 * np.sqrt(((raw - truth) ** 2).sum(1).mean()) / size
        return rows

    for spacing in (8.0, 5.0, 3.5):
        head = jm.head.sphere_mesh(spacing=spacing)
        sim = jm.efield.Simulator(head)
        field = sim(coil, pose)
        result[f"tetrahedra, {len(head.nodes)} nodes"] = errors(sim, head)
    for spacing in (4.0, 2.0):
        head = jm.head.sphere(spacing=spacing)
        result[f"voxels of {spacing:g} mm, {int(head.mask()[0].sum())}"] = errors(jm.efield.Simulator(head), head)
    record.write("tetrahedra", "accuracy", result)


def head(options):
    result = {}
    nodes, elements, shell = meshing.build_ball(RADII, options.head_spacing)
    names = dict(enumerate(("white", "grey", "csf", "skull", "scalp"), 1))
    result["s head"], made = seconds(jm.head.from_mesh, nodes, elements, shell + 1, names)
    result["nodes"], result["elements"] = len(made.nodes), len(made.elements)
    result["s simulator"], sim = seconds(jm.efield.Simulator, made)
    result["peak memory so far, GB"] = record.peak_memory()
    coil = jm.coil.tabulate(jm.coil.figure8())
    pose = jm.coil.place(made.scalp, target=(0, 0, 92.0), handle=(0, 1, 0), distance=4.0)
    result["s first field"], _ = seconds(lambda: sim(coil, pose).e)
    result["s field"], _ = seconds(lambda: sim(coil, pose).e)
    result["iterations"] = int(sim(coil, pose).stats.iterations)
    grid = jm.efield.Grid.around((0, 0, 72), (40, 40, 40), 1.0)
    result["s bind"], bound = seconds(lambda: sim.bind(coil, grid))
    value = jax.jit(jax.value_and_grad(lambda t: (bound(jm.coil.move(pose, t)) ** 2).sum()))
    result["s first gradient"], _ = seconds(value, jnp.zeros(6))
    result["s gradient"], _ = seconds(value, jnp.zeros(6))
    result["s value"] = min(seconds(bound, pose)[0] for _ in range(2))
    result["peak memory, GB"] = record.peak_memory()
    record.write("tetrahedra", "head", result)


if __name__ == "__main__":
    cases = {"solver": solver, "accuracy": accuracy, "head": head}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(cases))
    parser.add_argument("--spacing", type=float, default=2.1, help="mm, of the solver's mesh")
    parser.add_argument("--head-spacing", type=float, default=2.3, help="mm, of the head's mesh")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    for name in options.cases.split(","):
        cases[name](options)
