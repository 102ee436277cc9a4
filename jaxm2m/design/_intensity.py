"""The intensity of stimuli, and the firing rate of the points that a session is about."""

import warnings
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.cortex import FiringRate
from jaxm2m.design._patch import Patch
from jaxm2m.placement import check_didt

_STRONGEST = 1.5  # thresholds of the largest field in grey matter, where no dI/dt is known
_LEVELS = 4  # intensities that are weighed against each other, where they may vary


def choose_didt(
    didt: ArrayLike | None, rate: FiringRate | None, fields: Float[np.ndarray, "n grey 3"], coil: Coil
) -> tuple[Float[np.ndarray, " level"], bool]:
    """Return the dI/dt that stimuli may have, A/s, rising, and whether the rate's threshold needs it.

    One, or some from the lowest to the highest where two are passed. Without any it is that at which the largest field
    of the candidates is 1.5 thresholds, which is said.

    Raises
    ------
    ValueError
        No dI/dt, and no rate that tells one; limits that are none; more than the coil can do.
    """
    if didt is None:
        if rate is None or rate.threshold.unit not in ("V/m", "V/cm"):
            raise ValueError("didt: missing; give that of the stimuli, A/s, such as 1.2 times that at motor threshold.")
        field = _STRONGEST * float(np.asarray(rate.threshold.field()))
        didt = field / float(np.linalg.norm(fields, axis=-1).max()) * 1e6
        warnings.warn(
            f"didt: none was passed; {didt / 1e6:.3g} A/us was taken, at which the largest field in grey matter is "
            f"{_STRONGEST:g} thresholds ({field:.3g} V/m). Better pass 1.2 times that at motor threshold.",
            stacklevel=4,
        )
    limits = np.asarray(_check.positive(didt, "didt"), np.float64)
    if limits.shape not in ((), (2,)) or (limits.ndim and not limits[0] < limits[1]):
        raise ValueError(f"didt: {didt}; give one dI/dt in A/s, or the lowest and the highest.")
    check_didt(float(limits.max()), coil)
    levels = np.geomspace(limits.min(), limits.max(), _LEVELS) if limits.ndim else limits[None]
    return levels, rate is not None and rate.threshold.unit not in ("V/m", "V/cm")


def pick_rate(rate: FiringRate | None, patch: Patch) -> FiringRate | None:
    """Return the rate of the grey points of a patch: of normals, theirs.

    Raises
    ------
    ValueError
        Normals of other points.
    """
    if rate is None or rate.normals is None:
        return rate
    normals = np.asarray(rate.normals)
    if normals.size != 3 * patch.n_point:
        raise ValueError(f"rate: normals of shape {normals.shape}; the map has {patch.n_point} points, one for each.")
    return replace(rate, normals=jnp.asarray(normals.reshape(-1, 3)[patch.chosen]))
