"""Small systems against NumPy's, and that no batched LAPACK call is left in the package."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxm2m
from jaxm2m import _linear


def test_inverse_and_solve_are_those_of_numpy(tolerance):
    random = np.random.default_rng(0)
    m = random.normal(size=(50, 4, 4)) + 4 * np.eye(4)
    right = random.normal(size=(50, 4))
    dtype = jnp.result_type(float)
    found = jax.vmap(_linear.solve)(jnp.asarray(m, dtype), jnp.asarray(right, dtype))
    np.testing.assert_allclose(found, np.linalg.solve(m, right[..., None])[..., 0], atol=tolerance(5e-6, 1e-14))
    found = jax.vmap(_linear.inverse)(jnp.asarray(m[:, :3, :3], dtype))
    np.testing.assert_allclose(found, np.linalg.inv(m[:, :3, :3]), atol=tolerance(5e-6, 1e-14))


def test_a_corner_of_zero_is_no_trouble(tolerance):
    # the conditions of a nearest point: [[1 + m H, g], [g', 0]]
    g = jnp.asarray([0.6, 0.0, 0.8])
    m = jnp.eye(4).at[:3, 3].set(g).at[3, :3].set(g).at[3, 3].set(0)
    x = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(_linear.solve(m, m @ x), x, atol=tolerance(1e-5, 1e-13))


def test_programs_hold_no_lapack_call_that_is_batched():
    """Two of them at once wait for each other for ever on two cores; `eigh` is of one matrix, at set-up."""
    sources = Path(jaxm2m.__file__).parent.rglob("*.py")
    calls = [
        (path.name, name)
        for path in sources
        for name in re.findall(r"jnp\.linalg\.(\w+)", path.read_text())
        if name not in ("norm",)
    ]
    assert calls == [("_multigrid.py", "eigh")]
