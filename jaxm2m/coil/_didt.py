"""Which rates of current a stimulator can have."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxm2m._types import DTypeLike

_SMALLEST, _LARGEST = 1e4, 2e9  # A/s; stimulators for people reach some 5e7 to 2e8


def check_largest_didt(value: float, what: str) -> float:
    """A largest dI/dt in A/s, if it may be one: a million off is A/us taken for A/s, or the other way round.

    Raises
    ------
    ValueError
        A value that no stimulator has; the message begins with `what`.
    """
    if not _SMALLEST <= value <= _LARGEST:
        meant = value * 1e6 if value < _SMALLEST else value / 1e6
        raise ValueError(
            f"{what} is {value:.3g} A/s, {value / 1e6:.3g} A/us, and stimulators reach some 50 to 200 A/us; correct "
            f"its unit ({meant:.3g} A/s?)."
        )
    return value


def make_limits(didt_max: Sequence[float | int] | np.ndarray, dtype: DTypeLike) -> Array:
    """(n_stimulator,) A/s as an array of JAX, NaN where unknown, also where `jax_debug_nans` watches for accidents."""
    with jax.debug_nans(False):
        return jnp.asarray(np.asarray(didt_max, float).astype(dtype))
