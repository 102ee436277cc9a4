"""A scalp whose geometry is known."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxm2m._pytree import tree


@tree
class Ball:
    """A spherical scalp round the origin, of a radius in mm."""

    radius: Any

    def distance(self, points):
        return jnp.sqrt((points * points).sum(-1)) - self.radius

    def normal(self, points):
        return points / jnp.sqrt((points * points).sum(-1, keepdims=True))

    def nearest(self, points):
        return self.radius * self.normal(points)

    gradient = normal

    @property
    def vertices(self):
        points = np.random.default_rng(0).normal(size=(1000, 3))
        return np.asarray(self.radius) * points / np.linalg.norm(points, axis=1, keepdims=True)
