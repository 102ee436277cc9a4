r"""A coil on a scalp: tangential at a distance, tilted, and lifted until its casing is clear of the head.

The lift L along the scalp's normal n solves  min_v d(x_v + L n) = gap  where the casing would touch, d the scalp's
signed distance and x_v the casing's vertices; elsewhere it is zero. Its derivative is that of this equation at the
vertex that touches.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m import coil as coils
from jaxm2m._types import ScalpSurface

GAP = 0.5  # mm kept between casing and scalp, for what the casing's mesh may overlook
_LIFTS = 12


def project_to_scalp(scalp: ScalpSurface, pose: Float[Array, "4 4"]) -> Float[Array, "4 4"]:
    """Bring a pose onto the scalp point near its centre, tangentially.

    Newton's steps on the signed distance find the point, not quite the nearest one. For a pose that lies on the scalp a
    small shift along it is kept as it is, and that is the derivative, the first one; the normal turns by the scalp's
    curvature.
    """
    centre = pose[:3, 3]

    def step(_, point):
        value, slope = jax.value_and_grad(scalp.distance)(point)
        return point - value * slope / jnp.maximum(slope @ slope, 0.25)

    nearest = jax.lax.fori_loop(0, 6, step, jax.lax.stop_gradient(centre))
    # derivatives by hand: those of the steps and of the spline would be most of what a search compiles
    slope, hessian = jax.lax.stop_gradient(_slope_and_hessian(scalp, nearest))
    length = jnp.sqrt(jnp.maximum(slope @ slope, 1e-12))
    outward = slope / length
    shifted = centre - jax.lax.stop_gradient(centre)
    along = shifted - (shifted @ outward) * outward
    turned = hessian @ along / length
    point = nearest + along
    outward = outward + turned - (turned @ outward) * outward
    y = pose[:3, 1] - (pose[:3, 1] @ outward) * outward
    y = y / jnp.sqrt(y @ y)
    columns = jnp.stack([jnp.cross(y, -outward), y, -outward, point], -1)
    return jnp.concatenate([columns, jnp.asarray([[0, 0, 0, 1]], columns.dtype)])


def _slope_and_hessian(scalp: ScalpSurface, point: Array) -> tuple[Array, Array]:
    def slope(x):
        g = jax.grad(scalp.distance)(x)
        return g, g

    hessian, value = jax.jacfwd(slope, has_aux=True)(point)
    return value, hessian


def tilt(pose: Float[Array, "4 4"], angles: Float[Array, "2"]) -> Float[Array, "4 4"]:
    """Turn a pose about its own x and y axes (rad)."""
    zero = jnp.zeros_like(angles[0])
    return coils.move(pose, jnp.stack([zero, zero, zero, angles[0], angles[1], zero]))


def shift(pose: Float[Array, "4 4"], along: Float[Array, "3"]) -> Float[Array, "4 4"]:
    """Move a pose by a vector of the world (mm)."""
    return pose.at[:3, 3].add(along)


def clear_casing(
    pose: Float[Array, "4 4"], outward: Float[Array, "3"], vertices: Float[Array, "vertex 3"], scalp: ScalpSurface
) -> Float[Array, "4 4"]:
    """Move a pose along `outward` (unit) by as little as keeps the casing's vertices `GAP` mm off the scalp."""
    still, up = jax.lax.stop_gradient((pose, outward))
    lowest = _world(still, vertices)
    # what is left of the gap is an error of the derivative too; single precision carries no less over a head
    tolerance = max(1e4 * jnp.finfo(pose.dtype).eps, 1e-6)

    def go_on(state):
        count, _, _, _, gap, *_ = state
        return (count < _LIFTS) & (jnp.abs(gap) > tolerance)

    def rise(state):
        count, low, high, *_, height = state
        x = lowest + height * up
        d = scalp.distance(x)
        where = jnp.argmin(d)
        gap, slope = d[where] - GAP, jax.grad(scalp.distance)(x[where])
        low, high = jnp.where(gap < 0, height, low), jnp.where(gap < 0, high, height)
        # over a bump Newton's step goes too far, and the next one comes back
        following = height - gap / jnp.maximum(slope @ up, 0.3)
        following = jnp.where((low < following) & (following < high), following, (low + high) / 2)
        clear = (count == 0) & (gap >= 0)
        return count + 1, low, high, height, jnp.where(clear, 0, gap), where, slope, following

    zero = jnp.zeros((), pose.dtype)
    begin = (0, zero, zero + jnp.inf, zero, zero + jnp.inf, jnp.argmin(lowest[:, 0]), up, zero)
    _, _, _, height, _, where, slope, _ = jax.lax.while_loop(go_on, rise, begin)
    # the derivative of Newton's last step
    touching = _world(pose, vertices[where][None])[0] + height * outward
    change = slope @ (touching - jax.lax.stop_gradient(touching)) / jnp.maximum(slope @ up, 0.3)
    return shift(pose, jnp.where(height > 0, height - change, 0) * outward)


def _world(pose: Array, points: Array) -> Array:
    return points @ pose[:3, :3].T + pose[:3, 3]
