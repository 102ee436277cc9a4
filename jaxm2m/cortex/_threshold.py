"""The field at which cortex responds, with its unit."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike

PER_RATE = "V/m per A/us"
UNITS = ("V/m", "V/cm", PER_RATE)


@tree
class Threshold:
    """The field at which cortex responds, of `threshold`.

    Attributes
    ----------
    value
        The field in `unit`; learnable.
    unit
        "V/m", "V/cm" or "V/m per A/us".
    """

    value: Float[Array, ""]
    unit: str

    def field(self, didt: ArrayLike | None = None) -> Array:
        """Return the threshold in V/m.

        Parameters
        ----------
        didt
            dI/dt, A/s, a number or an array of any shape; used by "V/m per A/us" alone, which needs it.

        Returns
        -------
        array
            The threshold, V/m, in the shape of `didt` where that is used.

        Raises
        ------
        ValueError
            No dI/dt where it is needed.
        """
        if self.unit != PER_RATE:
            return self.value * (100 if self.unit == "V/cm" else 1)
        if didt is None:
            raise ValueError(
                f'didt: the threshold is in "{PER_RATE}"; pass the dI/dt that it is to be multiplied with, in A/s, '
                "or give a threshold in V/m."
            )
        return self.value * (_check.positive(didt, "didt") * 1e-6)


def threshold(value: ArrayLike, unit: str) -> Threshold:
    """State the field at which cortex responds, with its unit.

    Human motor thresholds are of the order of 50 to 100 V/m. "V/m per A/us" is a field for each A/us of dI/dt in the
    coil, which becomes V/m by the dI/dt given at the call. Two choices make sense, and differ:

    - dI/dt at motor threshold: the threshold is then one field in V/m, and stronger pulses raise the rate;
    - dI/dt of the pulse that made the field: it cancels, and only the coil's place counts. That suits fields computed
    for 1 A/us and sessions at a single intensity.

    Parameters
    ----------
    value
        The field, a number above zero, in V/m or as `unit` says.
    unit
        "V/m", "V/cm" or "V/m per A/us".

    Returns
    -------
    Threshold
        The threshold with its unit; a pytree.

    Raises
    ------
    TypeError, ValueError
        Not one number above zero, or another unit.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> threshold = jm.cortex.threshold(0.6, "V/cm")
    >>> print(f"{float(threshold.field()):.1f} V/m")
    60.0 V/m
    """
    _check.option(unit, UNITS, "unit")
    number = _check.positive(value, "value")
    if number.ndim:
        raise ValueError(f"value: shape {tuple(number.shape)}; give one number (several thresholds: jax.vmap).")
    return Threshold(jnp.asarray(number, jnp.result_type(float)), unit)
