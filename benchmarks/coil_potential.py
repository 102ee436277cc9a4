"""Cost and error of a coil's vector potential: direct sum, clustered dipoles, tabulated grid, computed windings.

    python benchmarks/coil_potential.py [--coil FILE.ccd] [--points N]

Times are the best of five, on `--points` nodes of a 4 mm lattice in an 80 mm ball, the coil 96 mm from its centre;
errors are relative to the largest |A| (|B|) at that distance.
Threads: run it again under `taskset -c 0` for one core; results are kept per number of usable cores.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import record
from scipy.spatial.transform import Rotation

from jaxm2m import coil as jc


def milliseconds(function, *arguments):
    function = jax.jit(function)
    jax.block_until_ready(function(*arguments))
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        best = min(best, time.perf_counter() - start)
    return round(1e3 * best, 2)


def cost(coil, pose, points, **options):
    weight = jnp.ones_like(points)

    def a(twist, coil):
        return jc.vector_potential(coil, jc.move(pose, twist), points, didt=1e6, **options)

    zero = jnp.zeros(6)
    return {
        "value_ms": milliseconds(a, zero, coil),
        "jvp_ms": milliseconds(lambda t, c: jax.jvp(lambda s: a(s, c), (t,), (jnp.ones(6),)), zero, coil),
        "value_and_grad_ms": milliseconds(
            lambda t, c: jax.value_and_grad(lambda s: jnp.vdot(weight, a(s, c)))(t), zero, coil
        ),
        "elements": [
            int(getattr(e, "size", e.coefficients.shape[0] if hasattr(e, "coefficients") else 0)) for e in coil.elements
        ],
    }


def errors(coil, reference):
    rng = np.random.default_rng(0)
    table = {}
    for distance in (5.0, 7.3, 10.0, 15.0, 21.7, 30.0, 40.0, 60.0):
        x = np.column_stack([rng.uniform([-100, -60], [100, 60], (2000, 2)), np.full(2000, distance)])
        row = {}
        for name, field in (("a", jc.vector_potential), ("b", jc.magnetic_field)):
            exact = np.asarray(field(reference, np.eye(4), x), float)
            error = np.linalg.norm(np.asarray(field(coil, np.eye(4), x), float) - exact, axis=1)
            error /= np.linalg.norm(exact, axis=1).max()
            row[f"{name}_rms_percent"] = float(f"{100 * np.sqrt((error**2).mean()):.3g}")
            row[f"{name}_max_percent"] = float(f"{100 * error.max():.3g}")
        table[f"{distance:g} mm"] = row
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coil", type=Path, help="a .ccd with many dipoles; default: dipole twin of figure8()")
    parser.add_argument("--points", type=int, default=60_000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    def reference():
        return jc.load(arguments.coil) if arguments.coil else jc.figure8(sides=64, layers=3)

    variants = {
        "direct": lambda c: c,
        "cluster 5 mm": lambda c: jc.cluster(c, 5.0),
        "cluster 6 mm": lambda c: jc.cluster(c, 6.0),
        "cluster 8 mm": lambda c: jc.cluster(c, 8.0),
        "tabulated 5 mm": lambda c: jc.tabulate(c),
        "tabulated 4 mm": lambda c: jc.tabulate(c, spacing=4.0, reach=200.0),
        "figure8()": lambda c: jc.figure8(),
    }
    lattice = 4.0 * np.stack(np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = lattice[np.linalg.norm(lattice, axis=1) < 80]
    points = jnp.asarray(np.resize(points, (arguments.points, 3)), jnp.float32)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", [150, 20, 30], degrees=True).as_matrix()
    pose[:3, 3] = -96 * pose[:3, 2]
    pose = jnp.asarray(pose, jnp.float32)

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    result = {name: cost(make(reference()), pose, points) for name, make in variants.items()}
    chunks = {}
    for power in range(16, 23):
        chunks[f"2^{power}"] = cost(reference(), pose, points, batch_size=1 << power)["value_ms"]

    x = np.random.default_rng(0).uniform([-80, -80, 4], [80, 80, 150], (5000, 3)).astype(np.float32)
    single = [np.asarray(f(reference(), np.eye(4), x), float) for f in (jc.vector_potential, jc.magnetic_field)]
    jax.config.update("jax_enable_x64", True)
    double = [np.asarray(f(reference(), np.eye(4), x), float) for f in (jc.vector_potential, jc.magnetic_field)]
    rounding = [float(f"{np.abs(a - b).max() / np.abs(b).max():.3g}") for a, b in zip(single, double, strict=True)]
    for name, make in variants.items():
        result[name]["error"] = errors(make(reference()), reference())

    record.write(
        "coil_potential",
        f"{jax.default_backend()}, {record.cores()} cores",
        {
            "load_average_at_start": load,
            "dtype": "float32 (costs), float64 (errors)",
            "coil": arguments.coil.name if arguments.coil else "figure8(sides=64, layers=3)",
            "points": arguments.points,
            "variants": result,
            "direct_value_ms_by_pairs_in_flight": chunks,
            "float32_error_of_the_direct_sum_relative_to_the_largest": {"a": rounding[0], "b": rounding[1]},
        },
    )
    for name, row in result.items():
        times = " ".join(f"{row[key]:8.1f}" for key in ("value_ms", "jvp_ms", "value_and_grad_ms"))
        print(f"{name:16s} {times} ms  {row['error']['10 mm']}")
    print("chunks", chunks, "float32", rounding)


if __name__ == "__main__":
    main()
