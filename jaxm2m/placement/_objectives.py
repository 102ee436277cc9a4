r"""What a coil should do: functions of the field at the points of a map, e (n_point, 3) V/m -> a number to be raised.

Any JAX function of that kind is an objective; these are the usual ones. `where` is a mask over the map's points, such
as of `FieldMap.within`; points that do not matter are better left out by `FieldMap.pick`, which makes a search faster.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._norm import norm
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike


def _mean(values: Array, weights: Any) -> Array:
    if weights is None:
        return values.mean()
    _check_n_points(len(weights), len(values), "where")
    return (values * weights).sum()


def _check_n_points(count: int, wanted: int, name: str) -> None:
    # broadcasting and indexing would take some masks of another map and give wrong numbers
    if count != wanted:
        raise ValueError(f"{name}: {count} points, the field has {wanted}; make it for the map that is searched.")


@tree
class Magnitude:
    """Mean or percentile of |E|; made by `magnitude`."""

    weights: Any
    index: Any
    percentile: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        if self.percentile is None:
            return _mean(norm(e), self.weights)
        if self.index is not None:
            _check_n_points(len(self.weights), len(e), "where")
            e = e[self.index]
        return jnp.percentile(norm(e), self.percentile)


@tree
class Along:
    """Mean of E along a direction; made by `along`."""

    direction: Any
    weights: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        if self.direction.ndim == 2:
            _check_n_points(len(self.direction), len(e), "direction")
        return _mean((e * self.direction).sum(-1), self.weights)


@tree
class Ratio:
    """|E| in the target over |E| in the rest; made by `ratio`."""

    target: Any
    rest: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        size = norm(e)
        inside, outside = _mean(size, self.target), _mean(size, self.rest)
        return inside / jnp.where(outside > 0, outside, 1)


@tree
class Focality:
    """Distance from the ideal corner of a ROC curve; made by `focality`."""

    target: Any
    rest: Any
    thresholds: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        size = norm(e)
        low, high = self.thresholds
        hit = _mean(jax.nn.sigmoid((size / high - 1) / WIDTH), self.target)
        spared = _mean(jax.nn.sigmoid((1 - size / low) / WIDTH), self.rest)
        missed = (1 - hit) ** 2 + (1 - spared) ** 2
        return 1 - jnp.sqrt(jnp.maximum(missed, 1e-12) / 2)


@tree
class Weighted:
    """Weighted sum of objectives; made by `weighted_sum`."""

    objectives: Any
    weights: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        return sum((w * f(e) for f, w in zip(self.objectives, self.weights, strict=True)), jnp.zeros((), e.dtype))


@tree
class Weakest:
    """The smallest of several objectives; made by `weakest`."""

    objectives: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        return jnp.min(jnp.stack([f(e) for f in self.objectives]))


WIDTH = 0.05  # of a threshold: over so much a point passes from below to above


def magnitude(where: ArrayLike | None = None, percentile: float | int | None = None) -> Magnitude:
    """Return the objective "|E| in the target", its mean or a percentile (V/m).

    Parameters
    ----------
    where
        (n_point,) mask; all points by default.
    percentile
        0 to 100 %; by default the mean.

    Returns
    -------
    Magnitude
        e (n_point, 3) V/m -> a number, V/m.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> objective = jm.placement.magnitude()
    >>> print(f"{float(objective(jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 7.0]]))):.2f} V/m")
    6.00 V/m
    """
    if percentile is None:
        return Magnitude(_weights(where), None, None)
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile: {percentile}; give a number from 0 to 100.")
    return Magnitude(_weights(where), None if where is None else np.flatnonzero(np.asarray(where)), float(percentile))


def along(direction: ArrayLike, where: ArrayLike | None = None) -> Along:
    """Return the objective "mean E along a direction" (V/m), such as the normal of a sulcal wall.

    The sign counts.

    Parameters
    ----------
    direction
        (3,), or (n_point, 3) for one at each point; of any unit and any length but zero.
    where
        (n_point,) mask; all points by default.

    Returns
    -------
    Along
        e (n_point, 3) V/m -> a number, V/m.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> objective = jm.placement.along((0.0, 2.0, 0.0))
    >>> print(f"{float(objective(jnp.array([[3.0, 4.0, 0.0], [0.0, -2.0, 7.0]]))):.2f} V/m")
    1.00 V/m
    """
    d = np.asarray(_check.points(direction, "direction"), np.float64)
    length = np.linalg.norm(d, axis=-1, keepdims=True)
    if d.ndim > 2 or (length == 0).any():
        raise ValueError(f"direction: shape {d.shape}, shortest {length.min():g}; give (3,) or (n_point, 3), not zero.")
    return Along(d / length, _weights(where))


def ratio(target: ArrayLike, rest: ArrayLike | None = None) -> Ratio:
    """Return the objective "mean |E| in the target over mean |E| in the rest" (no unit).

    Parameters
    ----------
    target, rest
        (n_point,) masks; the rest is by default all that is not target.

    Returns
    -------
    Ratio
        e (n_point, 3) V/m -> a number, no unit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> objective = jm.placement.ratio(target=jnp.array([True, False]))
    >>> print(f"{float(objective(jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]))):.2f}")
    2.50
    """
    inside, outside = _two_masks(target, rest)
    return Ratio(_weights(inside), _weights(outside))


def focality(target: ArrayLike, thresholds: tuple[float | int, float | int], rest: ArrayLike | None = None) -> Focality:
    r"""Return the objective "how well the field tells the target from the rest", 0 to 1.

    It is a differentiable point of a ROC curve.

    With p the share of the target above the higher threshold and q the share of the rest below the lower one,

        1 - sqrt(((1 - p)^2 + (1 - q)^2) / 2) ,

    the distance to the ideal corner, as in K. Weise et al., "A leadfield-free optimization framework for
    transcranially applied electric currents", Comput. Biol. Med. 192, 2025. A point passes a threshold over 5 % of it.

    Parameters
    ----------
    target
        (n_point,) mask.
    thresholds
        V/m: the rest should stay below the first, the target rise above the second.
    rest
        (n_point,) mask; by default all that is not target.

    Returns
    -------
    Focality
        e (n_point, 3) V/m -> a number from 0 to 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> objective = jm.placement.focality(target=jnp.array([True, False]), thresholds=(50.0, 80.0))
    >>> e = jnp.array([[100.0, 0.0, 0.0], [0.0, 20.0, 0.0]])  # V/m: the target well above, the rest well below
    >>> print(f"{float(objective(e)):.2f}")
    1.00
    """
    inside, outside = _two_masks(target, rest)
    low, high = (float(_check.positive(t, "thresholds")) for t in thresholds)
    if low > high:
        raise ValueError(f"thresholds: {low:g} above {high:g} V/m; give the rest's first.")
    return Focality(_weights(inside), _weights(outside), (low, high))


def weighted_sum(
    objectives: Sequence[Callable[[Array], Array]], weights: Sequence[float | int] | None = None
) -> Weighted:
    """Return the weighted sum of objectives; a negative weight spares.

    Parameters
    ----------
    objectives
        Functions e (n_point, 3) V/m -> a number.
    weights
        One for each (no unit); 1 by default.

    Returns
    -------
    Weighted
        e (n_point, 3) V/m -> a number.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> target = jnp.array([True, False])
    >>> terms = [jm.placement.magnitude(target), jm.placement.magnitude(~target)]
    >>> objective = jm.placement.weighted_sum(terms, weights=(1.0, -0.5))
    >>> print(f"{float(objective(jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]))):.1f}")
    4.0
    """
    weights = [1.0] * len(objectives) if weights is None else [float(w) for w in weights]
    if not objectives or len(objectives) != len(weights):
        raise ValueError(f"weights: {len(weights)} for {len(objectives)} objectives; give one for each.")
    return Weighted(tuple(objectives), tuple(weights))


def weakest(objectives: Sequence[Callable[[Array], Array]]) -> Weakest:
    """Return the smallest of several objectives, so that no target is left behind.

    Parameters
    ----------
    objectives
        Functions e (n_point, 3) V/m -> a number.

    Returns
    -------
    Weakest
        e (n_point, 3) V/m -> a number.
    """
    if not objectives:
        raise ValueError("objectives: none; give one or more.")
    return Weakest(tuple(objectives))


def _mask(where: Any) -> np.ndarray:
    where = np.asarray(where)
    if where.dtype != bool or where.ndim != 1:
        raise ValueError(f"where: {where.dtype} of shape {where.shape}; give a mask over the map's points.")
    if not where.any():
        raise ValueError("where: no point is chosen; give a larger radius or another centre.")
    return where


def _weights(where: Any) -> np.ndarray | None:
    if where is None:
        return None
    where = _mask(where)
    return where / where.sum()


def _two_masks(target: Any, rest: Any) -> tuple[np.ndarray, np.ndarray]:
    target = _mask(target)
    rest = _mask(~target if rest is None else rest)
    if rest.shape != target.shape:
        raise ValueError(f"rest: a mask of {len(rest)} points, the target's has {len(target)}.")
    return target, rest
