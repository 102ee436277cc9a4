r"""A coil on a scalp: tangential at a distance, tilted, and lifted until its casing is clear of the head.

The lift L along the scalp's normal n solves  min_v d(x_v + L n) = gap  where the casing would touch, d the scalp's
signed distance and x_v the casing's vertices; elsewhere it is zero. Its derivative is that of this equation at the
vertex that touches.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m import coil as coils

GAP = 0.5  # mm kept between casing and scalp, for what the casing's mesh may overlook
_LIFTS = 12


def lay(scalp: Any, pose: Float[Array, "4 4"]) -> Float[Array, "4 4"]:
    """The pose brought onto the scalp point near its centre, tangentially; differentiable.

    Newton's steps on the signed distance find the point, not quite the nearest one. For a pose that lies on the scalp a
    small shift along it is kept as it is, and so the derivative is that of the last step.
    """

    def step(point):
        slope = scalp.gradient(point)
        return point - scalp.distance(point) * slope / jnp.maximum(slope @ slope, 0.25)

    centre = pose[:3, 3]
    found = jax.lax.fori_loop(0, 5, lambda _, x: step(x), jax.lax.stop_gradient(centre))
    point = step(found + centre - jax.lax.stop_gradient(centre))
    outward = scalp.normal(point)
    y = pose[:3, 1] - (pose[:3, 1] @ outward) * outward
    y = y / jnp.sqrt(y @ y)
    columns = jnp.stack([jnp.cross(y, -outward), y, -outward, point], -1)
    return jnp.concatenate([columns, jnp.asarray([[0, 0, 0, 1]], columns.dtype)])


def tilt(pose: Float[Array, "4 4"], angles: Float[Array, "2"]) -> Float[Array, "4 4"]:
    """The pose turned about its own x and y axes (rad)."""
    zero = jnp.zeros_like(angles[0])
    return coils.move(pose, jnp.stack([zero, zero, zero, angles[0], angles[1], zero]))


def shift(pose: Float[Array, "4 4"], along: Float[Array, "3"]) -> Float[Array, "4 4"]:
    """The pose moved by a vector of the world (mm)."""
    return pose.at[:3, 3].add(along)


def lift(
    pose: Float[Array, "4 4"], outward: Float[Array, "3"], vertices: Float[Array, "vertex 3"], scalp: Any
) -> Float[Array, "4 4"]:
    """The pose moved along `outward` (unit) by as little as keeps the casing's vertices `GAP` mm off the scalp."""
    still, up = jax.lax.stop_gradient((pose, outward))

    def deepest(height):
        x = _world(still, vertices) + height * up
        d = scalp.distance(x)
        where = jnp.argmin(d)
        slope = jnp.clip(scalp.gradient(x[where]) @ up, 0.3, 1.0)
        return where, d[where] - GAP, slope

    def go_on(state):
        count, _, _, gap, _ = state
        return (count < _LIFTS) & (gap < -1e-3)

    def rise(state):
        count, height, _, gap, slope = state
        height = height - gap / slope
        return count + 1, height, *deepest(height)

    start = jnp.zeros((), pose.dtype)
    _, height, where, _, slope = jax.lax.while_loop(go_on, rise, (0, start, *deepest(start)))
    # the last of Newton's steps, with its derivative
    touching = _world(pose, vertices[where][None])[0] + height * outward
    height = jnp.where(height > 0, height - (scalp.distance(touching) - GAP) / slope, 0.0)
    return shift(pose, height * outward)


def _world(pose: Array, points: Array) -> Array:
    return points @ pose[:3, :3].T + pose[:3, 3]
