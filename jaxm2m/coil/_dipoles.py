"""Magnetic dipoles: vector potential and its Jacobian as matrix products."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxm2m._pytree import tree

# mu0 / 4 pi = 1e-7 T m/A with r in metres; r / r^3 in millimetres brings 1e6.
SCALE = 1e-1
# Softening length: A is off by 1.5 (SOFTENING / r)^2, 2e-8 at 8 mm, and finite with all derivatives on a dipole.
SOFTENING = 1e-3


@tree
class Dipoles:
    """Magnetic dipoles.

    With r = x - position (mm), per ampere of coil current,

        A(x) = mu0/4pi  sum_i  moment_i x r_i / |r_i|^3

    Attributes
    ----------
    position
        (n, 3) mm, in the coil's frame.
    moment
        (n, 3) A m^2 per A.
    stimulator
        Index of the stimulator whose current drives them.
    """

    position: Float[Array, "n 3"]
    moment: Float[Array, "n 3"]
    stimulator: int = 0

    @property
    def size(self) -> int:
        """Number of elements in the sum."""
        return self.position.shape[0]

    def potential(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Compute A at a chunk of points; materialises an array of points x dipoles.

        Moments cross differences would need three arrays of that size; instead with w = |r|^-3
        sum w (m x (x - p)) = (w @ m) x x - w @ (m x p): one array and one product with six columns.

        Parameters
        ----------
        points
            (n, 3) mm in the coil's frame.

        Returns
        -------
        (n, 3) array
            A, T m per A.
        """
        w = self._weights(points)
        m, n = self.moment, jnp.cross(self.moment, self.position)
        s = w * jnp.sqrt(w) @ jnp.concatenate([m, n], axis=1)
        return SCALE * (jnp.cross(s[:, :3], points) - s[:, 3:])

    def potential_and_jacobian(self, points: Float[Array, "n 3"]) -> tuple[Float[Array, "n 3"], Float[Array, "n 3 3"]]:
        """Compute A and its Jacobian at a chunk of points, from the same sums.

        d(w)/dx_b = -3 |r|^-5 (x_b - p_b), so J needs |r|^-5 against m, m x p and their products with p: 24 columns.

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
        w = self._weights(points)
        p, m = self.position, self.moment
        n = jnp.cross(m, p)
        k = jnp.concatenate([m, n], axis=1)
        w3 = w * jnp.sqrt(w)
        s = w3 @ k
        a = jnp.cross(s[:, :3], points) - s[:, 3:]
        t = (w3 * w) @ jnp.concatenate([k, (k[:, :, None] * p[:, None, :]).reshape(-1, 18)], axis=1)
        # gradient[..., c, b] of the six sums s_c
        gradient = -3 * (t[:, :6, None] * points[:, None, :] - t[:, 6:].reshape(-1, 6, 3))
        rotation = jnp.cross(s[:, None, :3], jnp.eye(3, dtype=points.dtype))  # [..., b, a] = (s x e_b)_a
        j = rotation.swapaxes(-1, -2) - gradient[:, 3:]
        j = j + jnp.cross(gradient[:, :3], points[:, :, None], axis=1)
        return SCALE * a, SCALE * j

    def _weights(self, points: Array) -> Array:
        # Direct differences: |x|^2 + |p|^2 - 2 x.p loses half the digits in float32 near a dipole.
        x, y, z = (points[:, None, i] - self.position[None, :, i] for i in range(3))
        return 1 / (x * x + y * y + z * z + SOFTENING**2)
