"""Small linear systems in closed form.

LAPACK would do, but on CPUs each of its batched calls holds a thread until others have done its share: two such calls
at once on a machine of two cores wait for each other for ever (seen with jaxlib 0.10.2).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def inverse(m: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Invert a 3x3 matrix by cross products."""
    columns = jnp.stack([jnp.cross(m[1], m[2]), jnp.cross(m[2], m[0]), jnp.cross(m[0], m[1])], axis=1)
    return columns / (m[0] @ columns[:, 0])


def solve(m: Float[Array, "4 4"], right: Float[Array, "4"]) -> Float[Array, "4"]:
    """Solve m x = right by the inverse of the leading 3x3 block, which must be regular, and its Schur complement."""
    leading = inverse(m[:3, :3])
    column = leading @ m[:3, 3]
    rest = leading @ right[:3]
    last = (right[3] - m[3, :3] @ rest) / (m[3, 3] - m[3, :3] @ column)
    return jnp.append(rest - last * column, last)
