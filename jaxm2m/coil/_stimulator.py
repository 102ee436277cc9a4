"""Intensity of a stimulator: percent of maximum output to peak dI/dt and back."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike
from jaxm2m.coil._coil import Coil
from jaxm2m.coil._didt import check_largest_didt


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

    def didt(self, percent: ArrayLike) -> Array:
        """Compute the peak dI/dt at an intensity.

        Parameters
        ----------
        percent
            (...) % MSO.

        Returns
        -------
        (...) array
            A/s.

        Raises
        ------
        ValueError
            An intensity outside the table.
        """
        percent = self._check_inside(percent, self.percent, "percent", "% MSO")
        return jnp.interp(percent, self.percent, self.rate)

    def intensity(self, didt: ArrayLike) -> Array:
        """Compute the intensity that gives a peak dI/dt.

        Parameters
        ----------
        didt
            (...) A/s.

        Returns
        -------
        (...) array
            % MSO.

        Raises
        ------
        ValueError
            A rate outside the table.
        """
        didt = self._check_inside(didt, self.rate, "didt", "A/s")
        return jnp.interp(didt, self.rate, self.percent)

    @staticmethod
    def _check_inside(value: ArrayLike, table: Array, name: str, unit: str) -> Array:
        value = _check.finite(value, name)
        if not (_check.is_traced(value) or _check.is_traced(table)):
            low, high = float(table[0]), float(table[-1])
            values = np.asarray(value, float)
            slack = 1e-6 * abs(high)
            if values.size and (values.min() < low - slack or values.max() > high + slack):
                raise ValueError(
                    f"{name}: {values.min():g} to {values.max():g} {unit} is outside the calibration, {low:g} to "
                    f"{high:g}; extend its table or correct the intensity (is it in A/us?)."
                )
        return jnp.asarray(value, table.dtype)


def calibrate(
    source: Coil | Mapping[float, float | int] | Mapping[int, float | int] | float | int, stimulator: int = 0
) -> Stimulator:
    """Calibrate a stimulator: percent of its output against peak dI/dt.

    Parameters
    ----------
    source
        Peak dI/dt at 100 % MSO (A/s); or a table {% MSO: A/s}; or a coil whose file gives the largest dI/dt.
    stimulator
        Index of the coil's stimulator.

    Returns
    -------
    Stimulator
        Linear between the points of the table; of one number, between 0 and 100 % MSO.

    Raises
    ------
    ValueError
        The coil's file carries no largest dI/dt; a table that does not rise, or has negative or single entries.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> stimulator = jm.coil.calibrate({25: 40e6, 100: 160e6})
    >>> print(f"{float(stimulator.didt(50.0)):.3g} A/s")
    8e+07 A/s
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
                f"coil: {source.metadata.get('name', 'this coil')!r} carries no largest dI/dt, so % MSO means "
                "nothing yet; give it from the stimulator's data sheet: calibrate(A/s at 100 %), or a table."
            )
        source = value
    if not isinstance(source, Mapping):
        value = check_largest_didt(float(_check.positive(source, "source")), "source")
        return Stimulator(jnp.asarray([0.0, 100.0], dtype), jnp.asarray([0.0, value], dtype))
    table = np.array(sorted((float(k), float(v)) for k, v in source.items())).reshape(-1, 2)
    if not np.isfinite(table).all() or (table < 0).any():
        raise ValueError("source: the table holds NaN or negative numbers; give {% MSO: A/s} with both >= 0.")
    if not len(table) or table[0, 0] > 0:
        table = np.concatenate([[[0.0, 0.0]], table])  # no output without charge
    if len(table) < 2 or (np.diff(table, axis=0) <= 0).any():
        raise ValueError("source: dI/dt must rise with % MSO from one entry to the next; correct the table.")
    return Stimulator(jnp.asarray(table[:, 0], dtype), jnp.asarray(table[:, 1], dtype))
