"""Poses checked before long work: rigid, and the coil outside the head."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.head import Surface

_FARTHEST = 60.0  # mm from the scalp to the coil's frame


def check_poses(poses: ArrayLike, coil: Coil, scalp: Surface) -> Float[np.ndarray, "pose 4 4"]:
    """Check many poses at once, and name every one that cannot be used.

    Parameters
    ----------
    poses
        (n_pose, 4, 4) coil frame to world, mm.
    coil
        Its casing must be outside the head; it may touch it (0.1 mm).
    scalp
        `head.scalp`.

    Returns
    -------
    poses
        (n_pose, 4, 4) float64, mm.

    Raises
    ------
    ValueError
        Poses that are not rigid, or in which the casing reaches into the head.

    Warns
    -----
    UserWarning
        Poses that point away from the head, or are farther than 60 mm from it.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> head = jm.head.sphere(spacing=8.0)
    >>> coil = jm.coil.figure8()
    >>> pose = jm.coil.place(head.scalp, (0.0, 0.0, 92.0))
    >>> jm.efield.check_poses(pose[None], coil, head.scalp).shape
    (1, 4, 4)
    """
    matrices = np.asarray(_check.array(poses, "poses"), np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or not len(matrices):
        raise ValueError(f"poses: shape {matrices.shape}; give (n_pose, 4, 4), one or more.")
    defects = _check.pose_defects(matrices)
    if defects:
        raise ValueError(f"poses: {_list_entries(defects, len(matrices))}")
    if coil.casing is not None:
        gap = np.asarray(clearances(coil, matrices, scalp))
        inside = [(int(i), f"{-gap[i]:.1f} mm") for i in np.flatnonzero(~(gap >= -coils.TOUCH))]
        if inside:
            raise ValueError(
                f"poses: in {_list_entries(inside, len(matrices))} the coil's casing reaches that far into the head; "
                "move the coil outwards (-z in its own frame; coil.clear_casing, --clear-casing) or leave these out."
            )
    _warn_of_doubts(matrices, scalp)
    return matrices


def _warn_of_doubts(matrices: np.ndarray, scalp: Surface) -> None:
    """Poses that no coil over this head has: another head's, another unit's, or with an axis turned round."""
    centre, forward = matrices[:, :3, 3], matrices[:, :3, 2]
    distance = np.asarray(scalp.distance(jnp.asarray(centre)), float)
    beyond = np.asarray(scalp.distance(jnp.asarray(centre + 5 * forward)), float)
    far = [(int(i), f"{distance[i]:.0f} mm") for i in np.flatnonzero(distance > _FARTHEST)]
    if far:
        warnings.warn(
            f"poses: in {_list_entries(far, len(matrices))} the coil is that far from the scalp; are they of this "
            "head, in its coordinate space, in mm?",
            stacklevel=3,
        )
    away = [(int(i), "z outwards") for i in np.flatnonzero(beyond > distance + 1)]
    if away:
        warnings.warn(
            f"poses: {_list_entries(away, len(matrices))}; z must point into the head and y along the handle's "
            "prolongation. Poses of another convention, and LPS coordinates taken for RAS, look like this.",
            stacklevel=3,
        )


def clearances(coil: Coil, poses: np.ndarray, scalp: Surface) -> Array:
    """Compute the smallest distance (mm) of a coil's casing from the head, negative inside, in each pose (n, 4, 4)."""
    # without its elements, so that a coil and its table share a program
    return _clearances(replace(coil, elements=()), jnp.asarray(poses), scalp)


@jax.jit
def _clearances(coil: Coil, poses: Array, scalp: Surface) -> Array:
    return jax.lax.map(lambda pose: coils.clearance(coil, pose, scalp), poses, batch_size=8)


def _list_entries(entries: list[tuple[int, str]], count: int) -> str:
    """List all indices, and what is wrong with each of the first ones."""
    most = 20
    words = ", ".join(f"[{i}] {text}" for i, text in entries[:most])
    more = f", and [{'], ['.join(str(i) for i, _ in entries[most:])}]" if len(entries) > most else ""
    return f"{len(entries)} of {count} (counted from 0): {words}{more}"
