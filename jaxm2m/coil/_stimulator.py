"""Intensity of a stimulator: percent of maximum output to peak dI/dt and back."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._tree import tree
from jaxm2m.coil._coil import Coil


@tree
class Stimulator:
    """Calibration of a stimulator with its coil, linear between the points of a table.

    Attributes
    ----------
    percent
        (n,) % of maximum stimulator output (MSO), ascending.
    rate
        (n,) peak dI/dt at these, A/s, ascending.
    """

    percent: Float[Array, " n"]
    rate: Float[Array, " n"]

    def didt(self, percent: Any) -> Array:
        """Peak dI/dt (A/s) at an intensity in % MSO, any shape."""
        percent = self._inside(percent, self.percent, "percent", "% MSO")
        return jnp.interp(percent, self.percent, self.rate)

    def intensity(self, didt: Any) -> Array:
        """% MSO that gives a peak dI/dt (A/s), any shape."""
        didt = self._inside(didt, self.rate, "didt", "A/s")
        return jnp.interp(didt, self.rate, self.percent)

    @staticmethod
    def _inside(value: Any, table: Array, name: str, unit: str) -> Array:
        value = _check.finite(value, name)
        if not (_check.traced(value) or _check.traced(table)):
            low, high = float(table[0]), float(table[-1])
            found = np.asarray(value, float)
            slack = 1e-6 * abs(high)
            if found.size and (found.min() < low - slack or found.max() > high + slack):
                raise ValueError(
                    f"{name}: {found.min():g} to {found.max():g} {unit} is outside the calibration, {low:g} to "
                    f"{high:g}; extend its table or correct the intensity (is it in A/us?)."
                )
        return jnp.asarray(value, table.dtype)


def calibrate(source: Coil | Mapping[Any, Any] | float | int, stimulator: int = 0) -> Stimulator:
    """The calibration of a stimulator.

    Parameters
    ----------
    source
        Peak dI/dt at 100 % MSO (A/s); or a table {% MSO: A/s}; or a coil whose file gives the largest dI/dt.
    stimulator
        Which of the coil's stimulators.

    Raises
    ------
    ValueError
        The coil's file carries no largest dI/dt; a table that does not rise, or has negative or single entries.
    """
    dtype = jnp.result_type(float)
    if isinstance(source, Coil):
        if not 0 <= stimulator < source.n_stimulator:
            raise ValueError(
                f"stimulator: {stimulator}; the coil has {source.n_stimulator}: choose 0 to {source.n_stimulator - 1}."
            )
        value = float(source.didt_max[stimulator])
        if not np.isfinite(value):
            raise ValueError(
                f"coil: {source.notes.get('name', 'this coil')!r} carries no largest dI/dt, so % MSO means "
                "nothing yet; give it from the stimulator's data sheet: calibrate(A/s at 100 %), or a table."
            )
        source = value
    if not isinstance(source, Mapping):
        value = float(_check.positive(source, "source"))
        return Stimulator(jnp.asarray([0.0, 100.0], dtype), jnp.asarray([0.0, value], dtype))
    table = np.array(sorted((float(k), float(v)) for k, v in source.items())).reshape(-1, 2)
    if not np.isfinite(table).all() or (table < 0).any():
        raise ValueError("source: the table holds NaN or negative numbers; give {% MSO: A/s} with both >= 0.")
    if not len(table) or table[0, 0] > 0:
        table = np.concatenate([[[0.0, 0.0]], table])  # no output without charge
    if len(table) < 2 or (np.diff(table, axis=0) <= 0).any():
        raise ValueError("source: dI/dt must rise with % MSO from one entry to the next; correct the table.")
    return Stimulator(jnp.asarray(table[:, 0], dtype), jnp.asarray(table[:, 1], dtype))
