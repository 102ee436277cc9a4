"""E in a five-shell sphere against the exact solution: 20 poses of a Magstim 70 mm coil, three spacings, the order.

    python benchmarks/sphere.py [--coil FILE.ccd] [--spacings 4,2,1.333333] [--poses 20]

Every pose has its own sphere centre off the grid, 2 to 20 mm off the scalp (more where a tilted casing would touch it),
tilted by up to 15 degrees. Points are drawn uniformly in white matter (r < 66 mm) and grey matter (70 to 78 mm); E has
no gauge, so nothing is fitted.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import record
from exact_sphere import dipole_field

import jaxm2m as jm

RADII = (70, 78, 80, 86, 92)


def as_dipoles(coil):
    """Positions (mm) and moments of a coil's elements; a segment loop is not a set of dipoles, so only dipoles."""
    element = coil.elements[0]
    return np.asarray(element.position, float), np.asarray(element.moment, float)


def shell(rng, low, high, n):
    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * (rng.random(n) * (high**3 - low**3) + low**3)[:, None] ** (1 / 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coil", type=Path, default=record.DATA / "coils/Magstim_70mm_Fig8.ccd")
    parser.add_argument("--spacings", default="4,2,1.3333333")
    parser.add_argument("--poses", type=int, default=20)
    parser.add_argument("--points", type=int, default=1000)
    options = parser.parse_args()
    if not options.coil.exists():
        raise SystemExit(f"--coil: {options.coil} does not exist; name a .ccd file of dipoles.")
    coil = jm.coil.load(options.coil)
    position, moment = as_dipoles(coil)
    table = jm.coil.tabulate(coil, spacing=4.0, reach=200.0)
    for spacing in map(float, options.spacings.split(",")):
        rng = np.random.default_rng(0)
        rows = []
        for _ in range(options.poses):
            centre = rng.uniform(-spacing / 2, spacing / 2, 3)
            head = jm.head.sphere(RADII, spacing=spacing, centre=centre)
            sim = jm.efield.Simulator(head)
            direction = rng.standard_normal(3)
            direction[2] = abs(direction[2]) + 0.5
            off = rng.uniform(2, 20)
            handle = np.cross(direction, rng.standard_normal(3))
            tilt = rng.uniform(-1, 1, 2) * np.deg2rad(15) / np.sqrt(2)
            # a tilted coil reaches deeper: step back until its casing is outside the scalp
            while True:
                pose = jm.coil.place(head.scalp, centre + direction * 92, handle, distance=off)
                pose = jm.coil.move(pose, jnp.array([0, 0, 0, *tilt, 0.0]))
                if float(jm.coil.clearance(coil, pose, head.scalp)) > 0:
                    break
                off += 1.0
            pose = np.asarray(pose, float)
            p = position @ pose[:3, :3].T + pose[:3, 3] - centre
            m = moment @ pose[:3, :3].T * 1e6
            row = {"distance": off}
            for tissue, low, high in (("white", 0, 66), ("grey", 70, 78)):
                x = shell(rng, low, high, options.points)
                index = np.full(len(x), head.tissues.index(tissue))
                e = np.asarray(sim.bind(table, jm.efield.Points(x + centre, index))(pose, didt=1e6), float)
                truth = dipole_field(x, p, m)
                row[tissue] = np.linalg.norm(e - truth) / np.linalg.norm(truth)
                size, size_true = np.linalg.norm(e, axis=1), np.linalg.norm(truth, axis=1)
                row[f"{tissue} p99.9"] = np.percentile(size, 99.9) / np.percentile(size_true, 99.9) - 1
            rows.append(row)
            print(spacing, row, flush=True)
        worst = {k: float(max(abs(r[k]) for r in rows)) for k in rows[0] if k != "distance"}
        mean = {k: float(np.mean([abs(r[k]) for r in rows])) for k in worst}
        record.write("sphere", f"{spacing:.3g} mm", {"worst": worst, "mean": mean, "poses": rows})


if __name__ == "__main__":
    main()
