"""Which muscles a map is of."""

from collections.abc import Sequence

import numpy as np

from jaxm2m._types import ArrayLike
from jaxm2m.muscle.responses._meps import Meps, amplitudes


def name_muscles(meps: Meps | ArrayLike, muscles: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return amplitudes (n_stimulus, n_muscle) and names; `muscles` names columns of arrays, or picks from `Meps`."""
    if isinstance(meps, Meps):
        meps = meps.pick(muscles=muscles)
        return amplitudes(meps), meps.muscles
    values = amplitudes(meps)
    names = tuple(str(k + 1) for k in range(values.shape[1])) if muscles is None else tuple(muscles)
    if len(names) != values.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"muscles: {', '.join(names)} for {values.shape[1]} columns; give each its own name.")
    return values, names
