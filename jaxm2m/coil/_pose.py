"""Poses: placing a coil on a scalp, and moving it by a twist in its own frame.

A pose is the (4, 4) matrix, mm, of the coil's frame in the world: columns x, y, z, centre. y is the handle's
prolongation (it points away from the handle), z points into the head, x = y x z.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Real

from jaxm2m._precision import full_precision
from jaxm2m._types import ArrayLike, ScalpSurface


def place(
    scalp: ScalpSurface,
    target: ArrayLike,
    handle: ArrayLike = (-1.0, -1.0, 0.0),
    distance: float | int = 4.0,
) -> Float[Array, "4 4"]:
    """Compute the pose of a coil that lies tangentially on the scalp over a target.

    Parameters
    ----------
    scalp
        A surface with `.nearest(points)` (mm) and `.normal(points)` (unit, outward).
    target
        (3,) mm: a point in the head or on the scalp; the coil's centre goes over the scalp point nearest to it.
    handle
        (3,) the direction in which the handle points, of any length (no unit); (-1, -1, 0) is back and to the left in
        RAS, the 45 degrees used over the left hand knob. Its part along the scalp's normal is removed.
    distance
        mm from the scalp to the origin of the coil's frame, along the normal; 4 mm stands for hair and casing.

    Returns
    -------
    (4, 4) array
        The pose, mm: z is the inward normal, y = -handle in the tangent plane.

    Raises
    ------
    ValueError
        Target or handle not three finite numbers; handle zero or (within 0.6 degrees) along the scalp's normal;
        negative distance.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> head = jm.head.sphere(spacing=8.0)
    >>> pose = jm.coil.place(head.scalp, target=(0.0, 0.0, 92.0), handle=(0.0, -1.0, 0.0), distance=4.0)
    >>> [round(float(v)) for v in pose[:3, 3]]
    [0, 0, 96]
    """
    target, handle = _vector(target, "target"), _vector(handle, "handle")
    if not np.isfinite(distance) or distance < 0:
        raise ValueError(f"distance: {distance} mm; give a distance of the coil frame from the scalp >= 0 mm.")
    length = np.linalg.norm(handle)
    if length == 0:
        raise ValueError("handle: the zero vector; give the direction in which the handle points, e.g. (-1, -1, 0).")
    dtype = jnp.result_type(float)
    point = np.asarray(scalp.nearest(jnp.asarray(target, dtype)), float)
    outward = np.asarray(scalp.normal(jnp.asarray(point, dtype)), float)
    if not (np.isfinite(point).all() and np.isfinite(outward).all() and np.linalg.norm(outward) > 0.5):
        raise ValueError(f"target: no scalp point with a normal near {_show(target)} mm; choose a point on the head.")
    outward = outward / np.linalg.norm(outward)  # a new array: JAX's own is read-only
    y = -handle / length
    y = y - (y @ outward) * outward
    if np.linalg.norm(y) < 0.01:
        raise ValueError(
            f"handle: {_show(handle)} is along the scalp's normal {_show(outward)} at the target, so it gives no "
            "direction on the scalp; give one that points along it."
        )
    y /= np.linalg.norm(y)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = np.cross(y, -outward), y, -outward
    pose[:3, 3] = point + distance * outward
    return jnp.asarray(pose, dtype)


@full_precision
def move(
    pose: Real[Array, "*#batch 4 4"] | Real[np.ndarray, "*#batch 4 4"],
    twist: Real[Array, "*#batch 6"] | Real[np.ndarray, "*#batch 6"],
) -> Float[Array, "*batch 4 4"]:
    """Move a pose by a twist in the coil's own frame: pose @ expm([twist]).

    With twist = (u, w), theta = |w| and W the cross-product matrix of w,

        expm = [[R, V u], [0, 1]],  R = I + a W + b W^2,  V = I + b W + c W^2,
        a = sin(theta)/theta,  b = (1 - cos(theta))/theta^2,  c = (theta - sin(theta))/theta^3

    (R. M. Murray, Z. Li, S. Sastry, A Mathematical Introduction to Robotic Manipulation, 1994, eq. 2.36). a, b, c are
    functions of theta^2, by their series below theta = 0.5, so that all derivatives exist at zero.

    Parameters
    ----------
    pose
        (..., 4, 4) mm.
    twist
        (..., 6): translation along the coil's x, y, z (mm), rotation about them (rad).

    Returns
    -------
    (..., 4, 4) array
        The moved pose, mm, rigid to rounding.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> twist = jnp.array([5.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # 5 mm along the coil's x axis
    >>> jm.coil.move(jnp.eye(4), twist)[:3, 3].tolist()
    [5.0, 0.0, 0.0]
    >>> turn = jnp.array([0.0, 0.0, 0.0, 0.0, 0.0, jnp.pi / 2])  # a quarter turn about its z axis
    >>> [abs(round(float(v), 3)) for v in jm.coil.move(jnp.eye(4), turn)[:3, 0]]
    [0.0, 1.0, 0.0]
    """
    pose, twist = jnp.asarray(pose), jnp.asarray(twist)
    dtype = jnp.result_type(pose, twist, jnp.float32)
    pose, u, w = pose.astype(dtype), twist[..., :3].astype(dtype), twist[..., 3:].astype(dtype)
    a, b, c = _coefficients(jnp.sum(w**2, axis=-1))
    zero = jnp.zeros_like(w[..., 0])
    cross = jnp.stack(
        [
            jnp.stack([zero, -w[..., 2], w[..., 1]], axis=-1),
            jnp.stack([w[..., 2], zero, -w[..., 0]], axis=-1),
            jnp.stack([-w[..., 1], w[..., 0], zero], axis=-1),
        ],
        axis=-2,
    )
    square, one = cross @ cross, jnp.eye(3, dtype=dtype)
    a, b, c = (x[..., None, None] for x in (a, b, c))
    rotation = one + a * cross + b * square
    shift = ((one + b * cross + c * square) @ u[..., None])[..., 0]
    turned = pose[..., :3, :3] @ rotation
    centre = pose[..., :3, 3] + (pose[..., :3, :3] @ shift[..., None])[..., 0]
    top = jnp.concatenate([turned, centre[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.asarray([0, 0, 0, 1], dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def _coefficients(square: Array) -> tuple[Array, Array, Array]:
    """sin(t)/t, (1 - cos t)/t^2, (t - sin t)/t^3 as smooth functions of t^2."""
    small = square < 0.25
    near = jnp.where(small, square, 0.0)
    t = jnp.sqrt(jnp.where(small, 1.0, square))
    far = jnp.sin(t) / t, (1 - jnp.cos(t)) / t**2, (t - jnp.sin(t)) / t**3
    # Taylor in t^2, first term 1/k!; nine terms reach 1e-17 at t = 0.5 with room for derivatives
    series = []
    for k in (1, 2, 3):
        term = 1.0 / (1, 1, 2, 6)[k]
        terms = []
        for i in range(9):
            terms.append(term)
            term /= -(2 * i + k + 1) * (2 * i + k + 2)
        value = jnp.full_like(near, terms[-1])
        for coefficient in terms[-2::-1]:
            value = value * near + coefficient
        series.append(value)
    a, b, c = (jnp.where(small, s, f) for s, f in zip(series, far, strict=True))
    return a, b, c


def _vector(value: ArrayLike, name: str) -> np.ndarray:
    try:
        vector = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {value!r} is not numeric; give three numbers.") from None
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"{name}: {value!r}; give three finite numbers (x, y, z).")
    return vector


def _show(vector: np.ndarray) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in vector) + ")"
