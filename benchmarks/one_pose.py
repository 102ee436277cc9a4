"""One pose, and its gradient, by two builds in turns in one run, beside PyAMG's solve.

    python benchmarks/one_pose.py [--against FOLDER] [--cases 2mm,1mm] [--repeats 7]

Colin27, the shipped figure-8 tabulated, to a residual of 1e-5 in float32. Each build is a process of its own
that is told when to run, so that the two take turns; `--against` is the repository of another build.

- 2mm: the whole call (source, solve, field of every voxel), warm; the value of a target (mean |E|^2 on the 80^3 grid)
  and its value and gradient in the pose; PyAMG's solve of the same load with scalar conductivities. Bars: the call 1.6
  times faster than the other build's and 8 times faster than PyAMG's solve alone; value and gradient twice the value.
- 1mm: the whole call, and the largest memory of loading, set-up and calls. Bars: 1.6 GB, and not slower.

Floor of a call at 2 mm (two cores, 12 GB/s): an iteration reads 14 coefficients and moves some 40 arrays of 4 MB,
20 ms; 15 iterations, the source's 40 ms and the fields' 30 ms: .37 s.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import record

ROOT = Path(__file__).resolve().parents[1]
TARGET = (-40.0, -20.0, 52.0)


def serve(options):
    """Prepare what is timed, then run what each line of the input names and answer with seconds."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import pyamg_baseline

    import jaxm2m as jm

    record.check_build()
    spacing = float(options.serve)
    head = jm.head.load(options.labels, spacing=spacing)
    coil = jm.coil.tabulate(jm.coil.load(options.coil), spacing=4.0, reach=200.0)
    sim = jm.efield.Simulator(head)
    pose = jm.coil.place(head.scalp, TARGET, handle=(-1, -1, 0))
    runs = {"call": lambda: sim(coil, pose).e}
    if spacing > 1:
        at = sim.bind(coil, jm.efield.Grid.around(TARGET))

        def value(at, twist):
            e = at(jm.coil.move(pose, twist), didt=1e6)
            return (e * e).sum() / len(e)

        first, both = jax.jit(value), jax.jit(jax.value_and_grad(value, argnums=1))
        runs |= {"value": lambda: first(at, jnp.zeros(6)), "value and gradient": lambda: both(at, jnp.zeros(6))}
    facts = {}
    for name, run in runs.items():
        start = time.perf_counter()
        result = jax.block_until_ready(run())
        facts[f"first {name}, s"] = time.perf_counter() - start
        if name == "value and gradient":
            facts["value"], facts["gradient"] = float(result[0]), np.asarray(result[1]).tolist()
    facts["iterations"] = int(sim(coil, pose).stats.iterations)
    facts["peak memory, GB"] = record.peak_memory()
    if spacing > 1 and options.pyamg:
        sigma = np.asarray(sim.parts.stiffness.mixture.arithmetic, np.float64)
        matrix, active = pyamg_baseline.assemble(sigma, float(sim.parts.stiffness.h))
        source = jax.jit(lambda p, c, x: -p.stiffness.load_vector(p.lattice.edge_averages(c, x, 1e6)))
        b = np.asarray(source(sim.parts, coil, pose.astype(sim.parts.affine.dtype)), np.float64)
        runs["pyamg"], row = pyamg_baseline.prepare(matrix, b.ravel()[np.flatnonzero(np.asarray(active).ravel())])
        facts["pyamg"] = row
    print("READY", json.dumps(facts, default=float), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        jax.block_until_ready(runs[line.strip()]())
        print("READY", time.perf_counter() - start, flush=True)


def start_server(options, spacing, root, pyamg):
    words = [sys.executable, __file__, "--serve", str(spacing), "--labels", str(options.labels), "--coil"]
    process = subprocess.Popen(
        [*words, str(options.coil), *(["--pyamg"] if pyamg else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    return process, json.loads(_answer(process))


def _answer(process):
    for line in process.stdout:
        if line.startswith("READY"):
            return line[6:]
    raise SystemExit("a build ended without an answer.")


def compare(options, spacing):
    servers, row = {}, {}
    for name, root in (("before", options.against), ("now", ROOT)):
        if root is not None:
            servers[name], row[name] = start_server(options, spacing, root, name == "now" and spacing > 1)
    names = ["call"] if spacing == 1 else ["call", "value", "value and gradient", "pyamg"]
    for _ in range(options.repeats):
        for name in names:
            for build, server in servers.items():
                if name == "pyamg" and build == "before":
                    continue
                print(name, file=server.stdin, flush=True)
                row[build].setdefault(f"{name}, s", []).append(float(_answer(server)))
    for server in servers.values():
        server.stdin.close()
        server.wait()
    for build in row.values():
        build |= {key: min(times) for key, times in build.items() if isinstance(times, list) and key.endswith(", s")}
        if spacing > 1:
            build["value and gradient over value"] = build["value and gradient, s"] / build["value, s"]
    if "before" in row:
        row["call: before over now"] = row["before"]["call, s"] / row["now"]["call, s"]
    if spacing > 1:
        row["PyAMG's solve over the call"] = row["now"]["pyamg, s"] / row["now"]["call, s"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the repository of another build")
    parser.add_argument("--cases", default="2mm,1mm")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--labels", type=Path, default=record.DATA / "heads/colin27_labels_1mm.nii.gz")
    parser.add_argument("--coil", type=Path, default=record.DATA / "coils/Magstim_70mm_Fig8.ccd")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--pyamg", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    for case in options.cases.split(","):
        record.write("one_pose", case, compare(options, {"2mm": 2, "1mm": 1}[case]))


if __name__ == "__main__":
    main()
