"""Where the coil is in a mapping session: a square grid over the target, then places scattered round it."""

import math

import jax
import numpy as np
from jaxtyping import Array

from jaxm2m import coil as coils
from jaxm2m._types import ArrayLike
from jaxm2m.efield import FieldMap

_EXTENT = 70.0  # mm, edge of the square of the first stimuli
_SCATTER = 12.0  # mm, standard deviation of the places of all others


def session_poses(
    field_map: FieldMap, target: np.ndarray, handle: ArrayLike, distance: float | int, places: Array, turns: Array
) -> Array:
    """Place the coil: (1 + stimulus, 4, 4), the pose of the threshold and those of the session.

    Handles are turned by `turns` (degrees).
    """
    scalp, stimuli = field_map.scalp, len(turns)
    middle = coils.place(scalp, target, handle, distance)
    side = max(1, math.isqrt(stimuli // 6))
    lines = np.linspace(-_EXTENT / 2, _EXTENT / 2, side) if side > 1 else np.zeros(1)
    square = np.stack(np.meshgrid(lines, lines, indexing="ij"), -1).reshape(-1, 2)
    scattered = _SCATTER * np.asarray(places, np.float64)[len(square) :]
    frame = np.asarray(middle, np.float64)
    over = frame[:3, 3] + distance * frame[:3, 2] + np.concatenate([square, scattered]) @ tangent_axes(frame)
    poses = np.stack([middle, *(coils.place(scalp, place, handle, distance) for place in over)])
    twists = np.zeros((stimuli + 1, 6), poses.dtype)
    twists[1:, 5] = np.radians(turns)
    poses = _move(poses, twists)
    return coils.clear_casing(field_map.coil, poses, scalp)[0]


def tangent_axes(pose: np.ndarray) -> np.ndarray:
    """Compute axes (2, 3) along the scalp under a coil, to the front and to the side where its slope lets them."""
    up = -np.asarray(pose, np.float64)[:3, 2]
    one = np.eye(3)[np.abs(up[:2]).argmin()]
    one -= (one @ up) * up
    one /= np.linalg.norm(one)
    return np.stack([one, np.cross(up, one)])


# one program instead of many small ones
_move = jax.jit(coils.move)
