"""Straight current filaments of finite length: closed-form vector potential and Jacobian."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxm2m._pytree import tree

# mu0 / 4 pi in T m/A; the potential of a segment has no length unit.
SCALE = 1e-7
# Softening length, mm: far thinner than any wire, finite on it.
SOFTENING = 1e-2


@tree
class Segments:
    """Straight line segments that carry the coil's current from `start` to `end`.

    With R1, R2 the distances from a segment's two ends, l its length and u its direction, per ampere,

        A(x) = mu0/4pi  sum_i  u_i ln((R1 + R2 + l) / (R1 + R2 - l))

    (the exact integral of dl/|x - l| along the segment; J. D. Jackson, Classical Electrodynamics, sec. 5.4).
    A is in the Coulomb gauge only for closed paths: open wires give curl A correct, div A not zero.

    Attributes
    ----------
    start, end
        (n, 3) mm, in the coil's frame.
    turns
        (n,) current per ampere of coil current, no unit (the number of turns that a segment stands for; its sign is the
        direction).
    stimulator
        Index of the stimulator whose current drives them.
    """

    start: Float[Array, "n 3"]
    end: Float[Array, "n 3"]
    turns: Float[Array, " n"]
    stimulator: int = 0

    @property
    def size(self) -> int:
        """Number of elements in the sum."""
        return self.start.shape[0]

    def potential(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Compute A at a chunk of points; materialises an array of points x segments.

        Parameters
        ----------
        points
            (n, 3) mm in the coil's frame.

        Returns
        -------
        (n, 3) array
            A, T m per A.
        """
        length, direction = self._geometry()
        total, _, _, q = self._distances(points)
        return SCALE * (jnp.log1p(2 * length * (total + length) / q) @ direction)

    def potential_and_jacobian(self, points: Float[Array, "n 3"]) -> tuple[Float[Array, "n 3"], Float[Array, "n 3 3"]]:
        """Compute A and its Jacobian at a chunk of points.

        d ln(.) = c (r1/R1 + r2/R2), c = -2 l / ((R1 + R2)^2 - l^2); written for the softened q, of which it is exact.

        Parameters
        ----------
        points
            (n, 3) mm in the coil's frame.

        Returns
        -------
        potential
            (n, 3) A, T m per A.
        jacobian
            (n, 3, 3) J[..., a, b] = dA_a / dx_b, T m per A per mm.
        """
        length, direction = self._geometry()
        total, r1, r2, q = self._distances(points)
        gain = 2 * length * (total + length)
        a = jnp.log1p(gain / q) @ direction
        c = 2 * length * (q - 2 * total * (total + length)) / (q * (q + gain))
        j = jnp.zeros((points.shape[0], 3, 3), a.dtype)
        for w, p in ((c / r1, self.start), (c / r2, self.end)):
            s = w @ jnp.concatenate([direction, (direction[:, :, None] * p[:, None, :]).reshape(-1, 9)], axis=1)
            j = j + s[:, :3, None] * points[:, None, :] - s[:, 3:].reshape(-1, 3, 3)
        return SCALE * a, SCALE * j

    def _geometry(self) -> tuple[Array, Array]:
        along = self.end - self.start
        squared = jnp.sum(along**2, axis=1)
        length = jnp.sqrt(jnp.where(squared > 0, squared, 1))
        direction = self.turns[:, None] * along / length[:, None]  # zero for a segment of no length
        return jnp.where(squared > 0, length, 0), direction

    def _distances(self, points: Array) -> tuple[Array, Array, Array, Array]:
        # component by component: an array with an axis of three would be written out and read again
        ax, ay, az = (points[:, None, i] - self.start[None, :, i] for i in range(3))
        bx, by, bz = (points[:, None, i] - self.end[None, :, i] for i in range(3))
        r1 = jnp.sqrt(ax * ax + ay * ay + az * az + SOFTENING**2)
        r2 = jnp.sqrt(bx * bx + by * by + bz * bz + SOFTENING**2)
        # (R1 + R2)^2 - l^2 = 2 (R1 R2 + r1.r2): no difference of two large squares, so float32 holds near the wire
        q = 2 * jnp.maximum(r1 * r2 + ax * bx + ay * by + az * bz, 0) + SOFTENING**2
        return r1 + r2, r1, r2, q
