"""The length of vectors, with derivatives where they vanish."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def norm(v: Float[Array, "*batch xyz"]) -> Float[Array, "*batch"]:
    """|v| along the last axis. Its gradient at zero is zero; NaN stays NaN, since a failed solve is no zero field."""
    square = (v * v).sum(-1)
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))
