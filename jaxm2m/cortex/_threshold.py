"""The field at which cortex responds, with its unit."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._tree import tree

PER_RATE = "V/m per A/us"
UNITS = ("V/m", "V/cm", PER_RATE)


@tree
class Threshold:
    """Of `threshold`.

    Attributes
    ----------
    value
        In `unit`; learnable.
    unit
        "V/m", "V/cm" or "V/m per A/us".
    """

    value: Float[Array, ""]
    unit: str

    def field(self, didt: Any = None) -> Array:
        """The threshold in V/m; `didt` (A/s, any shape) is used by "V/m per A/us" alone, which needs it."""
        if self.unit != PER_RATE:
            return self.value * (100 if self.unit == "V/cm" else 1)
        if didt is None:
            raise ValueError(
                f'didt: the threshold is in "{PER_RATE}"; pass the dI/dt that it is to be multiplied with, in A/s, '
                "or give a threshold in V/m."
            )
        return self.value * (_check.positive(didt, "didt") * 1e-6)


def threshold(value: Any, unit: str) -> Threshold:
    """The field at which cortex responds.

    Human motor thresholds are of the order of 50 to 100 V/m. "V/m per A/us" is a field for each A/us of dI/dt in the
    coil, which becomes V/m by the dI/dt given at the call. Two choices make sense, and differ:

    - dI/dt at motor threshold: the threshold is then one field in V/m, and stronger pulses raise the rate;
    - dI/dt of the pulse that made the field: it cancels, and only the coil's place counts. That suits fields computed
      for 1 A/us and sessions at a single intensity.

    Parameters
    ----------
    value
        Above zero.
    unit
        "V/m", "V/cm" or "V/m per A/us".

    Raises
    ------
    TypeError, ValueError
        Not one number above zero, or another unit.
    """
    _check.option(unit, UNITS, "unit")
    value = _check.positive(value, "value")
    if value.ndim:
        raise ValueError(f"value: shape {tuple(value.shape)}; give one number (several thresholds: jax.vmap).")
    return Threshold(jnp.asarray(value, jnp.result_type(float)), unit)
