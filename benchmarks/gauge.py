"""Gauge: a source that is a gradient, A = grad psi, must leave no field. Five-shell sphere at 2 mm.

    python benchmarks/gauge.py [--spacing 2]

psi is linear, quadratic, or a pole 150 mm from the centre (58 mm over the scalp). A is sampled on the lattice and
goes through the whole chain; |E| / |A| is over the centres of the voxels inside the head (L2).
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import record

import jaxm2m as jm
from jaxm2m import fem


def sources():
    pole = jnp.array([90.0, -60.0, 104.0])
    matrix = jnp.array([[1.0, 0.3, -0.2], [0.3, -0.5, 0.4], [-0.2, 0.4, 0.7]]) / 50
    return {
        "linear": lambda x: jnp.broadcast_to(jnp.array([0.6, -0.3, 0.74]), x.shape),
        "quadratic": lambda x: x @ matrix,
        "pole": lambda x: (x - pole) / jnp.linalg.norm(x - pole, axis=-1, keepdims=True) ** 3 * 1e4,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacing", type=float, default=2.0)
    options = parser.parse_args()
    head = jm.head.sphere(spacing=options.spacing, centre=(0.3, -0.7, 0.5))
    parts = jm.efield.Simulator(head, tolerance=1e-6).parts

    @jax.jit
    def leak(parts, a):
        edges = parts.lattice.interpolate(a)
        matrix = parts.stiffness
        phi, remainder, stats = fem.solve(matrix, -matrix.load_vector(edges), parts.tolerance)
        gradients = (fem.gradient(u, matrix.h) for u in (phi, remainder))
        e = fem.at_centres(jax.tree.map(lambda a, *g: a + sum(g), edges, *gradients))
        inside = (parts.fractions.sum(0) > 0)[..., None]
        return jnp.linalg.norm(e * inside) / jnp.linalg.norm(fem.at_centres(edges) * inside), stats.residual

    row = {}
    for name, source in sources().items():
        ratio, residual = leak(parts, source(parts.lattice.points()))
        row[name] = {"E / A": float(ratio), "true residual": float(residual)}
    row["bar"] = 1e-4
    record.write("gauge", f"{options.spacing:g} mm", row)
    assert all(np.isfinite(v["E / A"]) for k, v in row.items() if k != "bar")


if __name__ == "__main__":
    main()
