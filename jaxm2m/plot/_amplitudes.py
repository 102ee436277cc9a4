"""Measured MEPs as figures take them."""

import numpy as np

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle import Meps


def read_amplitudes(meps: Meps | ArrayLike, name: str) -> np.ndarray:
    """Return MEPs (n_stimulus, n_muscle), uV, NaN where there is none or it was flagged."""
    if isinstance(meps, Meps):
        return np.where(np.asarray(meps.reasons) != "", np.nan, np.asarray(meps.amplitude, np.float64))
    return np.asarray(_check.array(meps, name), np.float64)
