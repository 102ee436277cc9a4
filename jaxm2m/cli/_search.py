r"""A quasi-Newton ascent of a coil over a scalp, in the demo's three coordinates.

The coil's place is (x, y, s): it is moved by the twist (x, y, 0, 0, 0, s / L) from its start, then laid tangentially on
the scalp again at its distance. With B the inverse of the Hessian's estimate of -f and g the gradient,

    step d = B g, at most 15 mm;   f(x + d) <= f(x): d is cut back to the peak of the parabola through what is known,
    else accepted, and  B <- (I - r s y') B (I - r y s') + r s s',   s = d,  y = g - g_new,  r = 1 / (s . y)

(BFGS: J. Nocedal, S. J. Wright, Numerical Optimization, 2nd ed. 2006, eq. 6.17). An accepted step never lowers f.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxm2m import coil as coils

LEVER = 50.0  # mm: turning by 1 / LEVER moves the middle of a wing by 1 mm
_FIRST, _LONGEST = 6.0, 15.0  # mm
_ENOUGH = 1e-3  # of the objective: the search ends when no step promises more


class History(NamedTuple):
    """Accepted steps, the start first."""

    poses: np.ndarray  # (n, 4, 4) mm
    values: np.ndarray  # (n,)
    evaluations: int


def laid(scalp: Any, pose: Any, distance: Any) -> Any:
    """The pose (4, 4) laid tangentially on the scalp, its centre `distance` mm over it; differentiable.

    Newton's steps on the signed distance find the scalp point: it is near, and they compile in a third of the time of
    `scalp.nearest`.
    """
    point = pose[:3, 3]
    for _ in range(3):
        slope = scalp.gradient(point)
        point = point - scalp.distance(point) * slope / jnp.maximum(slope @ slope, 0.25)
    outward = scalp.normal(point)
    y = pose[:3, 1] - (pose[:3, 1] @ outward) * outward
    y = y / jnp.sqrt(y @ y)
    columns = jnp.stack([jnp.cross(y, -outward), y, -outward, point + distance * outward], -1)
    return jnp.concatenate([columns, jnp.asarray([[0, 0, 0, 1]], columns.dtype)])


def mean_magnitude(e: Any) -> Any:
    """Mean |E| over points (n, 3); its gradient is finite where the field is zero."""
    square = (e * e).sum(-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0).mean()


@jax.jit
def _value_and_gradient(field_map: Any, start: Any, place: Any, distance: Any, didt: Any) -> Any:
    def objective(place):
        zero = jnp.zeros_like(place[0])
        twist = jnp.stack([place[0], place[1], zero, zero, zero, place[2] / LEVER])
        pose = laid(field_map.scalp, coils.move(start, twist), distance)
        return mean_magnitude(field_map(pose, didt=didt)), pose

    return jax.value_and_grad(objective, has_aux=True)(place)


def ascend(
    field_map: Any,
    start: Any,
    *,
    distance: float,
    didt: float,
    evaluations: int,
    advance: Callable[[], object] = lambda: None,
) -> History:
    """Move and turn the coil on the scalp so that mean |E| at the points of `field_map` grows.

    Parameters
    ----------
    field_map
        From `sim.bind(coil, Points(...))`.
    start
        (4, 4) mm.
    distance
        mm from the scalp to the coil's frame.
    didt
        A/s.
    evaluations
        At most so many values with their gradients.
    advance
        Called after each.

    Raises
    ------
    RuntimeError
        A solve failed.
    """

    def evaluate(place: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        dtype = start.dtype
        (value, pose), gradient = _value_and_gradient(
            field_map, start, jnp.asarray(place, dtype), jnp.asarray(distance, dtype), jnp.asarray(didt, dtype)
        )
        advance()
        return float(value), np.asarray(gradient, np.float64), np.asarray(pose)

    def usable(pose: np.ndarray) -> bool:
        # a flat coil on a round head touches under its centre only, but a scalp has hollows
        if field_map.coil.casing is None:
            return True
        return float(coils.clearance(field_map.coil, jnp.asarray(pose), field_map.scalp)) > 0

    place = np.zeros(3)
    value, gradient, pose = evaluate(place)
    if not np.isfinite(value) or not np.isfinite(gradient).all():
        raise RuntimeError("the solve at the start of the search failed; check the head's conductivities.")
    poses, values, used = [pose], [value], 1
    estimate = np.eye(3) * _FIRST / max(float(np.linalg.norm(gradient)), 1e-12)
    step = estimate @ gradient
    while used < evaluations and gradient @ step > _ENOUGH * value:
        new_value, new_gradient, new_pose = evaluate(place + step)
        used += 1
        if new_value > value and usable(new_pose):
            change = gradient - new_gradient
            curvature = step @ change
            if curvature > 1e-6 * np.linalg.norm(step) * np.linalg.norm(change):
                keep = np.eye(3) - np.outer(step, change) / curvature
                estimate = keep @ estimate @ keep.T + np.outer(step, step) / curvature
            place, value, gradient = place + step, new_value, new_gradient
            poses.append(new_pose)
            values.append(value)
            step = estimate @ gradient
            step *= min(1.0, _LONGEST / max(float(np.linalg.norm(step)), 1e-12))
        else:
            slope = gradient @ step
            below = new_value - value - slope  # of the tangent; NaN where the solve failed
            step = step * (np.clip(-slope / (2 * below), 0.1, 0.5) if np.isfinite(below) and below < 0 else 0.3)
    return History(np.stack(poses), np.asarray(values), used)
