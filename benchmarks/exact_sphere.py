"""The exact E-field in a conducting sphere round the origin, whatever its layers: for tests and benchmarks alike.

For a magnetic dipole the closed form is that of L. Heller and D. B. van Hulsteyn, "Brain stimulation using
electromagnetic sources: theoretical aspects", Biophys. J. 63, 129 (1992). For any coil,

    E(r) = r x int_0^1 t dB/dt(t r) dt ,

by Gauss's rule: a second way to the same numbers, and one that JAX can differentiate.
"""

import jax.numpy as jnp
import numpy as np

import jaxm2m as jm

MU = 1e-7  # mu_0 / 4 pi, V s / (A m)


def dipole_field(points, positions, moments):
    """E (n, 3), V/m, at points (n, 3) mm of dipoles at positions (m, 3) mm whose moments (m, 3) change, A m^2/s."""
    r1, total = np.asarray(points) * 1e-3, np.zeros(np.shape(points))
    for r2, moment in zip(np.atleast_2d(positions) * 1e-3, np.atleast_2d(moments), strict=True):
        v = r2 - r1
        a = np.linalg.norm(v, axis=1, keepdims=True)
        size = np.linalg.norm(r2)
        dot = (v @ r2)[:, None]
        f = a * (size * a + dot)
        gradient = (a**2 / size + 2 * a + 2 * size + dot / a) * r2 - (a + 2 * size + dot / a) * r1
        total -= MU / f**2 * (f * np.cross(r1, moment) - (gradient @ moment)[:, None] * np.cross(r1, r2))
    return total


def dipole_field_by_quadrature(points, positions, moments, n_nodes=40):
    """Compute the same by Gauss's rule."""
    r1, total = np.asarray(points) * 1e-3, np.zeros(np.shape(points))
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    for r2, moment in zip(np.atleast_2d(positions) * 1e-3, np.atleast_2d(moments), strict=True):
        for t, w in zip((nodes + 1) / 2, weights / 2, strict=True):
            d = t * r1 - r2
            length = np.linalg.norm(d, axis=1, keepdims=True)
            total += w * t * MU * (3 * d * (d @ moment)[:, None] / length**5 - moment / length**3)
    return np.cross(r1, total)


def coil_field(coil, pose, points, didt=1e6, n_nodes=40):
    """Compute E (n, 3), V/m, of any coil at points (n, 3) mm by Gauss's rule, in JAX."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    points = jnp.asarray(points)
    t, w = (jnp.asarray(x, points.dtype) for x in ((nodes + 1) / 2, weights / 2))
    path = t[:, None, None] * points
    b = jm.coil.magnetic_field(coil, pose, path.reshape(-1, 3), didt).reshape(path.shape)
    return jnp.cross(points * 1e-3, jnp.tensordot(w * t, b, 1))
