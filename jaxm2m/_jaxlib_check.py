"""Whether JAX's compiled programs give the numbers that they should.

jaxlib 0.10.2 computes wrong sums on CPUs, without a word: a product that is summed over a short last axis and then
scaled is right in its first rows only, from some ten thousand rows on (jax issue 39103).
"""

import jax
import jax.numpy as jnp
import numpy as np


def sums_are_right() -> bool:
    """Compare such a program, compiled, with NumPy."""
    rows = 40_000
    a = np.stack([np.arange(rows) % 7, np.ones(rows), np.zeros(rows)], 1).astype(np.float32)
    many = np.stack([a, 2 * a, 3 * a])
    scale = (1 + np.arange(rows) % 3).astype(np.float32)
    computed = jax.jit(jax.vmap(lambda b: jnp.asarray(scale) * (jnp.asarray(a) * b).sum(-1)))(jnp.asarray(many))
    norms = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3, dtype=row.dtype) @ row) ** 2)))(jnp.asarray(a))
    expected = scale * (a * many).sum(-1)
    return bool(np.allclose(computed, expected, rtol=1e-5) and np.allclose(norms, (a**2).sum(-1), rtol=1e-5))
