"""Dose-response curves: firing rate r of the field x in thresholds, r(0) = 0, never falling, differentiable.

Each is a pytree and a function of x >= 0 (...,) -> r (...,). Its parameters are leaves, to be learnt with `jax.grad`;
nothing keeps them in their range meanwhile (learn their logarithms, or take small steps). Gradients are finite at
x = 0 and for saturated x. `r_max` carries the unit of the rate; by default rates are shares of the largest.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import PchipInterpolator

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike

_SATURATED = 200.0  # halvings of what is left to the largest rate: nothing is left in any precision


@tree
class Sigmoid:
    """The curve of `sigmoid`."""

    e50: Float[Array, ""]
    s: Float[Array, ""]
    r_max: Float[Array, ""]

    def __call__(self, x: Float[Array, "*point"]) -> Float[Array, "*point"]:
        # the docstring's quotient without its difference of nearly equal numbers, and zero at zero to the bit
        return self.r_max * jax.nn.sigmoid((x - self.e50) / self.s) * -jnp.expm1(-x / self.s)


@tree
class Weibull:
    """The curve of `weibull`."""

    e50: Float[Array, ""]
    k: Float[Array, ""]
    r_max: Float[Array, ""]

    def __call__(self, x: Float[Array, "*point"]) -> Float[Array, "*point"]:
        # an infinite power would meet a zero slope and make NaN
        x = jnp.minimum(x / self.e50, jax.lax.stop_gradient(_SATURATED ** (1 / self.k)))
        return self.r_max * -jnp.expm1(-np.log(2) * x**self.k)


@tree
class Hill:
    """The curve of `hill`."""

    e50: Float[Array, ""]
    n: Float[Array, ""]
    r_max: Float[Array, ""]

    def __call__(self, x: Float[Array, "*point"]) -> Float[Array, "*point"]:
        # powers of numbers up to 1 only, on either side of e50
        below = x < self.e50
        low = (jnp.where(below, x, self.e50) / self.e50) ** self.n
        high = (self.e50 / jnp.where(below, self.e50, x)) ** self.n
        return self.r_max * jnp.where(below, low / (1 + low), 1 / (1 + high))


@tree
class Table:
    """The curve of `table`."""

    x: Float[Array, " knot"]
    coefficients: Float[Array, "4 interval"]

    def __call__(self, x: Float[Array, "*point"]) -> Float[Array, "*point"]:
        # data, not parameters: a step along a gradient would tear the pieces apart
        knots, coefficients = jax.lax.stop_gradient((self.x, self.coefficients))
        x = jnp.clip(x, knots[0], knots[-1])
        piece = jnp.clip(jnp.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
        a, b, c, d = coefficients[:, piece]
        h = x - knots[piece]
        return ((a * h + b) * h + c) * h + d


CURVES: dict[str, Any] = {"sigmoid": Sigmoid, "weibull": Weibull, "hill": Hill, "table": Table}


def sigmoid(e50: ArrayLike = 1.05, s: ArrayLike = 0.08, r_max: ArrayLike = 1.0) -> Sigmoid:
    """Make a normalised sigmoid.

        r(x) = r_max (z(x) - z(0)) / (1 - z(0)),    z(x) = 1 / (1 + exp(-(x - e50) / s))

    The defaults are illustrative: they rise steeply about the threshold, and were fitted to nothing.

    Parameters
    ----------
    e50
        x of half the largest rate (to within z(0), 2e-6 for the defaults), a number in units of the threshold.
    s
        Width of the rise, a number in units of the threshold: from 12 % to 88 % of the largest rate in 4 s.
    r_max
        Largest rate, a number in any unit.

    Returns
    -------
    Sigmoid
        A function of x >= 0 (...,) -> r (...,), in the unit of `r_max`; a pytree.

    Raises
    ------
    TypeError, ValueError
        Not a number above zero.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> curve = jm.cortex.sigmoid()
    >>> x = jnp.array([0.0, 0.8, 1.1, 1.4])  # fields in thresholds
    >>> [round(float(r), 3) for r in curve(x)]
    [0.0, 0.042, 0.651, 0.988]
    """
    return Sigmoid(_positive(e50, "e50"), _positive(s, "s"), _positive(r_max, "r_max"))


def weibull(e50: ArrayLike, k: ArrayLike, r_max: ArrayLike = 1.0) -> Weibull:
    """Make a Weibull curve, r(x) = r_max (1 - 2^(-(x / e50)^k)).

    Parameters
    ----------
    e50
        x of half the largest rate, a number in units of the threshold.
    k
        Shape, a number of at least 1, no unit.
    r_max
        Largest rate, a number in any unit.

    Returns
    -------
    Weibull
        A function of x >= 0 (...,) -> r (...,), in the unit of `r_max`; a pytree.

    Raises
    ------
    TypeError, ValueError
        Not a number above zero, or a shape below 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> curve = jm.cortex.weibull(e50=1.1, k=4.0)
    >>> x = jnp.array([0.0, 0.8, 1.1, 1.4])  # fields in thresholds
    >>> [round(float(r), 3) for r in curve(x)]
    [0.0, 0.176, 0.5, 0.838]
    """
    return Weibull(_positive(e50, "e50"), _exponent(k, "k"), _positive(r_max, "r_max"))


def hill(e50: ArrayLike, n: ArrayLike, r_max: ArrayLike = 1.0) -> Hill:
    """Make a Hill curve, r(x) = r_max x^n / (e50^n + x^n).

    Parameters
    ----------
    e50
        x of half the largest rate, a number in units of the threshold.
    n
        Exponent, a number of at least 1, no unit.
    r_max
        Largest rate, a number in any unit.

    Returns
    -------
    Hill
        A function of x >= 0 (...,) -> r (...,), in the unit of `r_max`; a pytree.

    Raises
    ------
    TypeError, ValueError
        Not a number above zero, or an exponent below 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> curve = jm.cortex.hill(e50=1.1, n=6.0)
    >>> x = jnp.array([0.0, 0.8, 1.1, 1.4])  # fields in thresholds
    >>> [round(float(r), 3) for r in curve(x)]
    [0.0, 0.129, 0.5, 0.81]
    """
    return Hill(_positive(e50, "e50"), _exponent(n, "n"), _positive(r_max, "r_max"))


def table(x: ArrayLike, rate: ArrayLike) -> Table:
    """Make a curve of measured rates, interpolated monotonically and with a continuous slope; flat outside.

    Piecewise cubic (PCHIP; F. N. Fritsch and J. Butland, SIAM J. Sci. Stat. Comput. 5, 1984, 300), as in SciPy. A table
    is data: the gradient with respect to its own numbers is zero.

    Parameters
    ----------
    x
        (n,) rising from 0 or above, n >= 2, in units of the threshold (for a table in V/m take the threshold 1 V/m).
    rate
        (n,) never falling, from 0, in any unit.

    Returns
    -------
    Table
        A function of x >= 0 (...,) -> r (...,), in the unit of `rate`; a pytree.

    Raises
    ------
    TypeError, ValueError
        Lengths that differ, NaN, x that does not rise, or rates that fall or do not start from 0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> curve = jm.cortex.table(x=[0.0, 1.0, 1.5], rate=[0.0, 20.0, 50.0])
    >>> [round(float(r), 1) for r in curve(jnp.array([0.0, 1.0, 2.0]))]
    [0.0, 20.0, 50.0]
    """
    xs, rates = (np.asarray(_check.finite(v, name), np.float64) for v, name in ((x, "x"), (rate, "rate")))
    if xs.ndim != 1 or xs.shape != rates.shape or len(xs) < 2:
        raise ValueError(f"rate: shape {rates.shape} for x of shape {xs.shape}; give one rate for each of 2 or more x.")
    if xs[0] < 0 or (np.diff(xs) <= 0).any():
        raise ValueError("x: must rise from 0 or above, each above the last; sort the table and merge equal entries.")
    if (np.diff(rates) < 0).any():
        i = int(np.argmax(np.diff(rates) < 0))
        raise ValueError(f"rate: falls from {rates[i]:g} to {rates[i + 1]:g} at x = {xs[i + 1]:g}; smooth the table.")
    if rates[0] != 0:
        raise ValueError(f"rate: starts at {rates[0]:g}; no field gives no rate: take the baseline off, or add (0, 0).")
    dtype = jnp.result_type(float)
    return Table(jnp.asarray(xs, dtype), jnp.asarray(PchipInterpolator(xs, rates).c, dtype))


def _positive(value: ArrayLike, name: str) -> Array:
    number = _check.positive(value, name)
    if number.ndim:
        raise ValueError(f"{name}: shape {tuple(number.shape)}; give one number (several curves: jax.vmap).")
    return jnp.asarray(number, jnp.result_type(float))


def _exponent(value: ArrayLike, name: str) -> Array:
    number = _positive(value, name)
    if not _check.is_traced(number) and number < 1:
        raise ValueError(f"{name}: {number:g}; must be at least 1, else the slope at zero field has no bound.")
    return number
