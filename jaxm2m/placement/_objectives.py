r"""What a coil should do: functions of the field at the points of a map, e (n_point, 3) V/m -> a number to be raised.

Any JAX function of that kind is an objective; these are the usual ones. `where` is a mask over the map's points, such
as of `FieldMap.within`; points that do not matter are better left out by `FieldMap.pick`, which makes a search faster.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._norm import norm
from jaxm2m._tree import tree


def _mean(values: Array, weights: Any) -> Array:
    if weights is None:
        return values.mean()
    _same_points(len(weights), len(values), "where")
    return (values * weights).sum()


def _same_points(found: int, wanted: int, name: str) -> None:
    # broadcasting and indexing would take some masks of another map and give wrong numbers
    if found != wanted:
        raise ValueError(f"{name}: {found} points, the field has {wanted}; make it for the map that is searched.")


@tree
class Magnitude:
    """Of `magnitude`."""

    weights: Any
    index: Any
    percentile: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        if self.percentile is None:
            return _mean(norm(e), self.weights)
        if self.index is not None:
            _same_points(len(self.weights), len(e), "where")
            e = e[self.index]
        return jnp.percentile(norm(e), self.percentile)


@tree
class Along:
    """Of `along`."""

    direction: Any
    weights: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        if self.direction.ndim == 2:
            _same_points(len(self.direction), len(e), "direction")
        return _mean((e * self.direction).sum(-1), self.weights)


@tree
class Ratio:
    """Of `ratio`."""

    target: Any
    rest: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        size = norm(e)
        inside, outside = _mean(size, self.target), _mean(size, self.rest)
        return inside / jnp.where(outside > 0, outside, 1)


@tree
class Focality:
    """Of `focality`."""

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
    """Of `weighted`."""

    objectives: Any
    weights: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        return sum((w * f(e) for f, w in zip(self.objectives, self.weights, strict=True)), jnp.zeros((), e.dtype))


@tree
class Weakest:
    """Of `weakest`."""

    objectives: Any

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        return jnp.min(jnp.stack([f(e) for f in self.objectives]))


WIDTH = 0.05  # of a threshold: over so much a point passes from below to above


def magnitude(where: Any = None, percentile: float | int | None = None) -> Magnitude:
    """|E| in the target: its mean, or a percentile (V/m).

    Parameters
    ----------
    where
        (n_point,) mask; all points by default.
    percentile
        0 to 100; by default the mean.
    """
    if percentile is None:
        return Magnitude(_weights(where), None, None)
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile: {percentile}; give a number from 0 to 100.")
    return Magnitude(_weights(where), None if where is None else np.flatnonzero(where), float(percentile))


def along(direction: Any, where: Any = None) -> Along:
    """Mean of E along a direction (V/m), for example the normal of a sulcal wall; its sign counts.

    Parameters
    ----------
    direction
        (3,), or (n_point, 3) for one at each point; any length but zero.
    where
        (n_point,) mask; all points by default.
    """
    d = np.asarray(_check.points(direction, "direction"), np.float64)
    length = np.linalg.norm(d, axis=-1, keepdims=True)
    if d.ndim > 2 or (length == 0).any():
        raise ValueError(f"direction: shape {d.shape}, shortest {length.min():g}; give (3,) or (n_point, 3), not zero.")
    return Along(d / length, _weights(where))


def ratio(target: Any, rest: Any = None) -> Ratio:
    """Mean |E| in the target over mean |E| in the rest.

    Parameters
    ----------
    target, rest
        (n_point,) masks; the rest is by default all that is not target.
    """
    target, rest = _two(target, rest)
    return Ratio(_weights(target), _weights(rest))


def focality(target: Any, thresholds: tuple[float | int, float | int], rest: Any = None) -> Focality:
    r"""How well a field tells the target from the rest, 0 to 1: a differentiable point of a ROC curve.

    With p the share of the target above the higher threshold and q the share of the rest below the lower one,

        1 - sqrt(((1 - p)^2 + (1 - q)^2) / 2) ,

    the distance to the ideal corner, as in K. Weise et al., "A leadfield-free optimization framework for
    transcranially applied electric currents", Comput. Biol. Med. 192, 2025. A point passes a threshold over 5 % of it.

    Parameters
    ----------
    target, rest
        (n_point,) masks; the rest is by default all that is not target.
    thresholds
        V/m: the rest should stay below the first, the target rise above the second.
    """
    target, rest = _two(target, rest)
    low, high = (float(_check.positive(t, "thresholds")) for t in thresholds)
    if low > high:
        raise ValueError(f"thresholds: {low:g} above {high:g} V/m; give the rest's first.")
    return Focality(_weights(target), _weights(rest), (low, high))


def weighted(objectives: Sequence[Any], weights: Sequence[float | int] | None = None) -> Weighted:
    """Sum of objectives, each times its weight (by default 1); a negative weight spares.

    Parameters
    ----------
    objectives, weights
        As many of one as of the other.
    """
    weights = [1.0] * len(objectives) if weights is None else [float(w) for w in weights]
    if not objectives or len(objectives) != len(weights):
        raise ValueError(f"weights: {len(weights)} for {len(objectives)} objectives; give one for each.")
    return Weighted(tuple(objectives), tuple(weights))


def weakest(objectives: Sequence[Any]) -> Weakest:
    """The smallest of several objectives, so that no target is left behind."""
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


def _two(target: Any, rest: Any) -> tuple[np.ndarray, np.ndarray]:
    target = _mask(target)
    rest = _mask(~target if rest is None else rest)
    if rest.shape != target.shape:
        raise ValueError(f"rest: a mask of {len(rest)} points, the target's has {len(target)}.")
    return target, rest
