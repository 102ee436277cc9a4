"""Speed, memory, compilation and gradients of the solver on a real head, against PyAMG in the same run.

    python benchmarks/solver.py [--labels FILE.nii.gz] [--coil FILE.ccd] [--cases 2mm,1mm,accuracy,gradient,compile]

Floors (two cores at about 20 GB/s): at 2 mm a scalar stencil moves 1.0 M nodes x 3 arrays x 4 B = 12 MB, 0.6 ms from
memory and less from cache; a V-cycle of degree 2 applies five on the finest level and a seventh more below, and an
iteration adds the 14-coefficient stencil (64 MB, 3 ms): about 8 ms an iteration, 0.11 s for 14. At 1 mm everything is
out of cache and eight times larger: 90 ms an iteration, 1.6 s for 18.

Every case runs in a process of its own, so that peak memory is its own. At 2 mm our solves and PyAMG's take turns and
each row tells its repeats, dtype and threads: "threads" is how many it may use, "busy threads" how many it used.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyamg_baseline
import record

import jaxm2m as jm
from jaxm2m import fem

CASES = ("2mm", "1mm", "accuracy", "gradient", "compile")
TARGET = (-40.0, -20.0, 52.0)


def setting(options, spacing, interfaces="tensor"):
    head = jm.head.load(options.labels, spacing=spacing)
    coil = jm.coil.load(options.coil) if options.coil else jm.coil.figure8()
    start = time.perf_counter()
    sim = jm.efield.Simulator(head, interfaces=interfaces)
    jax.block_until_ready(sim.parts)
    first = time.perf_counter() - start
    again = None
    if spacing > 1:  # a second simulator beside the first would count in the peak memory of a fine head
        start = time.perf_counter()
        jax.block_until_ready(jm.efield.Simulator(head, interfaces=interfaces).parts)
        again = time.perf_counter() - start
    pose = jm.coil.place(head.scalp, TARGET, handle=(-1, -1, 0))
    return head, coil, sim, pose, {"set-up with compilation, s": first, "set-up, s": again}


def load(sim, coil, pose):
    parts = sim.parts
    source = jax.jit(lambda p, c, x: -p.stiffness.load_vector(p.lattice.edge_averages(c, x, 1e6)))
    return source(parts, coil, pose.astype(parts.affine.dtype))


def prepare(sim, coil, pose):
    """The load, the solve as a call that ends when its result is there, and what its first run tells."""
    b = load(sim, coil, pose)
    solve = jax.jit(lambda k, b: fem.solve(k, b, 1e-5))

    def run():
        return jax.block_until_ready(solve(sim.parts.stiffness, b))

    start = time.perf_counter()
    x, _, stats = run()
    first = time.perf_counter() - start
    return (
        b,
        run,
        {
            "first solve with compilation, s": first,
            "iterations": int(stats.iterations),
            "true residual": float(stats.residual),
            "active nodes": int(sim.parts.stiffness.active.sum()),
            "dtype": str(x.dtype),
            "threads": pyamg_baseline.cores(),
        },
    )


def two_mm(options):
    row, runs = {}, {}
    for kind in ("arithmetic", "tensor"):
        _, coil, sim, pose, row[kind] = setting(options, 2.0, kind)
        b, runs[kind], figures = prepare(sim, coil, pose)
        row[kind] |= figures
        if kind == "arithmetic":
            runs["pyamg"], row["pyamg"] = pyamg(sim, b)
    for kind, figures in pyamg_baseline.interleaved(runs).items():
        row[kind] |= figures
    for kind in ("arithmetic", "tensor"):
        row[kind]["times faster than PyAMG's solve"] = row["pyamg"]["solve, s"] / row[kind]["solve, s"]
    return row


def pyamg(sim, b):
    """Ruge-Stuben-CG on the scalar matrix that our own operator applies, to the same true residual."""
    sigma = np.asarray(sim.parts.stiffness.mixture.arithmetic, np.float64)
    start = time.perf_counter()
    matrix, active = pyamg_baseline.assemble(sigma, float(sim.parts.stiffness.h))
    assembled = time.perf_counter() - start
    rhs = np.asarray(b, np.float64).ravel()[np.flatnonzero(np.asarray(active).ravel())]
    run, row = pyamg_baseline.prepare(matrix, rhs)
    return run, {"assembly, s": assembled} | row


def one_mm(options):
    row = {}
    for kind in ("arithmetic", "tensor"):
        # each treatment in a process of its own: the peak is the larger one's
        words = [sys.executable, __file__, "--cases", f"1mm-{kind}", "--labels", str(options.labels)]
        words += ["--coil", str(options.coil)] if options.coil else []
        row[kind] = json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    return row


def one_mm_kind(options, kind):
    before = record.peak_memory()
    _, coil, sim, pose, row = setting(options, 1.0, kind)
    built = record.peak_memory()
    _, run, figures = prepare(sim, coil, pose)
    return (
        row
        | figures
        | pyamg_baseline.interleaved({kind: run}, repeats=3)[kind]
        | {
            "memory after imports, GB": before,
            "peak memory after loading and set-up, GB": built,
            "peak memory, GB": record.peak_memory(),
        }
    )


def accuracy(options):
    """E of the 1 mm head in float32 against float64."""
    here = Path("accuracy-e.npy")
    words = [sys.executable, __file__, "--labels", str(options.labels)]
    words += ["--coil", str(options.coil)] if options.coil else []
    fields = []
    for x64 in ("0", "1"):
        environment = {**os.environ, "JAX_ENABLE_X64": x64}
        subprocess.run([*words, "--cases", f"field:{here}"], check=True, env=environment, stdout=subprocess.DEVNULL)
        fields.append(np.load(here).astype(np.float64))
        here.unlink()
    inside = np.abs(fields[1]).sum(-1) > 0
    a, b = fields[0][inside], fields[1][inside]
    size = np.linalg.norm(b, axis=1)
    return {
        "E of float32 against float64, relative L2": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        "largest difference over largest field": float(np.linalg.norm(a - b, axis=1).max() / size.max()),
    }


def field(options, path):
    _, coil, sim, pose, _ = setting(options, 1.0)
    np.save(path, np.asarray(sim(coil, pose).e))
    return {}


def gradient(options):
    head, coil, sim, pose, _ = setting(options, 2.0)
    coil = jm.coil.tabulate(coil, spacing=4.0, reach=200.0)
    rng = np.random.default_rng(0)
    ball = rng.uniform(-5, 5, (4000, 3))
    points = ball[np.linalg.norm(ball, axis=1) < 5] + TARGET
    points = points[np.isin(head.tissue_at(points), [head.tissues.index(t) for t in ("grey", "white")])]
    row = {}
    grid = jm.efield.Grid.around(TARGET)
    for name, roi in (("5 mm target", jm.efield.Points(points)), ("80^3 grid", grid)):
        at = sim.bind(coil, roi)

        @jax.jit
        def value(at, pose, twist):
            e = at(jm.coil.move(pose, twist), didt=1e6)
            return (e * e).sum() / len(e)

        both = jax.jit(jax.value_and_grad(value, argnums=2))
        zero = jnp.zeros(6)
        first, forward = record.timed(value, at, pose, zero, repeats=7)
        first_both, backward = record.timed(both, at, pose, zero, repeats=7)
        row[name] = {
            "value, s": forward,
            "value and gradient, s": backward,
            "ratio": backward / forward,
            "compile value, s": first - forward,
            "compile value and gradient, s": first_both - backward,
        }
    return row


def compilation(options):
    from jax import monitoring

    events = []
    monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: events.append(seconds) if name.endswith("backend_compile_duration") else None
    )
    head, coil, sim, pose, _ = setting(options, 2.0)
    roi = jm.efield.Points(np.array([TARGET, np.add(TARGET, 2.0)]), np.zeros(2, int))
    events.clear()
    start = time.perf_counter()
    at = sim.bind(coil, roi)
    jax.block_until_ready(at(pose, didt=1e6))
    cold = time.perf_counter() - start
    compiled = sum(events)
    # a second head: the same volume mirrored, other conductivities and its own labels
    labels = np.asarray(head.labels)[::-1].copy()
    second = jm.head.from_labels(labels, head.labels_affine, head.tissues, spacing=2.0)
    placed = jm.coil.place(second.scalp, TARGET, handle=(-1, -1, 0))
    events.clear()
    other = jm.efield.Simulator(second)
    same = other.parts.fractions.shape == sim.parts.fractions.shape
    jax.block_until_ready(other.bind(coil, roi)(placed, didt=1e6))
    program = jm.efield.evaluate.trace(at, pose, jnp.asarray(1e6), batch_size=1)
    constants = [np.asarray(c).nbytes for c in program.jaxpr.consts]
    return {
        "first field at points, s": cold,
        "of it compiling, s": compiled,
        "second head has the same padded shape": bool(same),
        "programs compiled for the second head": len(events),
        "largest constant in the program, bytes": max(constants, default=0),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=record.DATA / "heads/colin27_labels_1mm.nii.gz")
    parser.add_argument("--coil", type=Path, default=None, help="a coil file; the computed figure-8 otherwise")
    parser.add_argument("--cases", default=",".join(CASES))
    options = parser.parse_args()
    if options.cases.startswith("1mm-"):
        print(json.dumps(one_mm_kind(options, options.cases[4:])))
    elif options.cases.startswith("field:"):
        field(options, options.cases[6:])
    elif "," in options.cases:
        for case in options.cases.split(","):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--cases", case], check=True)
    else:
        run = {"2mm": two_mm, "1mm": one_mm, "accuracy": accuracy, "gradient": gradient, "compile": compilation}
        record.write("solver", options.cases, run[options.cases](options))


if __name__ == "__main__":
    main()
