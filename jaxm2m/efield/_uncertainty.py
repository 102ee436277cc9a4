"""What uncertain conductivities make of a field: to first order, and by sampling.

Each tissue's conductivity is drawn by itself from a beta distribution with both parameters 3 over its range (Saturnino
et al. 2019, NeuroImage 188, 821), whose standard deviation is the range over sqrt(28). To first order (the delta
method)

    var |E| = sum_t (d|E| / d sigma_t)^2 var sigma_t ,

one solve a tissue by forward differentiation; sampling solves once a draw, and gives percentiles.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._norm import norm
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress
from jaxm2m._tree import Notes, tree
from jaxm2m.coil import Coil
from jaxm2m.efield._field_map import FieldMap, checked, evaluate
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import Simulator

Range = tuple[float | int, float | int]
Ranges = Mapping[str, Range]

RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "white": (0.1, 0.4),
        "grey": (0.1, 0.6),
        "csf": (1.2, 1.8),
        "skull": (0.003, 0.012),
        "compact_bone": (0.003, 0.012),
        "spongy_bone": (0.012, 0.04),
        "scalp": (0.2, 0.5),
    }
)
"""Ranges of conductivities, S/m; tissues that are not here are held."""

_TOGETHER = 8  # draws solved at once


@tree
class Uncertainty:
    """The magnitude of a field whose conductivities are uncertain.

    Attributes
    ----------
    magnitude
        (n_point,) V/m: at the head's own conductivities (first order), or the mean of the draws.
    deviation
        (n_point,) V/m, standard deviation.
    by_tissue
        (n_tissue, n_point) V/m, what a standard deviation of each tissue's conductivity changes, with its sign (first
        order); None after sampling.
    percentiles
        (n_percentile, n_point) V/m, in the order asked for; None to first order.
    notes
        "tissues", "ranges" (S/m, of the tissues that vary), "samples".
    """

    magnitude: Float[Array, " n_point"]
    deviation: Float[Array, " n_point"]
    by_tissue: Float[Array, "n_tissue n_point"] | None
    percentiles: Float[np.ndarray, "n_percentile n_point"] | None
    notes: Notes


def first_order_uncertainty(
    sim: Simulator,
    coil: Coil,
    pose: Any,
    roi: Points | Grid,
    *,
    ranges: Ranges | None = None,
    didt: Any = 1e6,
) -> Uncertainty:
    """Standard deviation of |E| to first order in the conductivities: as many solves as tissues vary, and one.

    Parameters
    ----------
    sim, coil, pose, roi, didt
        As in `Simulator.bind`; one pose (4, 4) mm.
    ranges
        S/m by tissue, over the usual ones (`RANGES`); `(s, s)` holds a tissue.

    Raises
    ------
    ValueError
        A range of a tissue that the head does not have, or that does not grow.
    """
    table = _table(sim, ranges)
    pose = _one(pose)
    sd = jnp.asarray([(b - a) / np.sqrt(28) for a, b in table.values()], sim.dtype)
    bound = _bound(sim, coil, pose, roi)
    held = np.asarray(sd) == 0
    own = jnp.asarray(sim.head.conductivity, sim.dtype)
    magnitude, some = _linear(bound, pose, jnp.asarray(didt), own, jnp.diag(sd)[~held])
    change = jnp.zeros((len(sd), len(magnitude)), some.dtype).at[np.flatnonzero(~held)].set(some)
    varied = {name: (a, b) for name, (a, b) in table.items() if b > a}
    notes = Notes(tissues=sim.head.tissues, ranges=varied, samples=0)
    return Uncertainty(magnitude, norm(jnp.moveaxis(change, 0, -1)), change, None, notes)


def sampled_uncertainty(
    sim: Simulator,
    coil: Coil,
    pose: Any,
    roi: Points | Grid,
    *,
    key: Array,
    samples: int = 100,
    percentiles: tuple[float | int, ...] = (5, 50, 95),
    ranges: Ranges | None = None,
    didt: Any = 1e6,
    show: bool | None = None,
) -> Uncertainty:
    """Mean, standard deviation and percentiles of |E| over draws of the conductivities, one solve a draw.

    Parameters
    ----------
    sim, coil, pose, roi, didt, ranges
        As in `first_order_uncertainty`.
    key
        Of the draws.
    samples
        Draws; percentiles far out need more.
    percentiles
        0 to 100.
    show
        A progress bar; by default on a terminal only.

    Raises
    ------
    ValueError
        As in `first_order_uncertainty`; percentiles outside 0 to 100.
    ConvergenceError
        A solve that fails.
    """
    table = _table(sim, ranges)
    pose = _one(pose)
    _check.integer(samples, "samples", minimum=2)
    shares = np.asarray(percentiles, float)
    if shares.size == 0 or shares.min() < 0 or shares.max() > 100:
        raise ValueError(f"percentiles: {percentiles}; numbers from 0 to 100 are needed.")
    low, high = jnp.asarray(list(table.values()), sim.dtype).T
    draws = low + (high - low) * jax.random.beta(key, 3.0, 3.0, (samples, len(table)), sim.dtype)
    bound = _bound(sim, coil, pose, roi)
    found = []
    with progress(samples, "conductivities", unit="draws", show=show) as advance:
        for start in range(0, samples, _TOGETHER):
            some = draws[start : start + _TOGETHER]
            # the last batch is filled up, so that one program serves all
            index = np.minimum(np.arange(_TOGETHER), len(some) - 1)
            magnitude = np.asarray(_drawn(bound, pose, jnp.asarray(didt), some[index], bound.means.together()))
            magnitude = magnitude[: len(some)]
            if not np.isfinite(magnitude).all():
                wrong = int(np.argmin(np.isfinite(magnitude).all(1)))
                sim.bind(coil, roi, conductivity=some[wrong])(pose, didt=didt)  # raises what failed
            found.append(magnitude)
            advance(len(some))
    values = np.concatenate(found)
    notes = Notes(tissues=sim.head.tissues, ranges={k: v for k, v in table.items() if v[1] > v[0]}, samples=samples)
    return Uncertainty(
        jnp.asarray(values.mean(0)),
        jnp.asarray(values.std(0, ddof=1)),
        None,
        np.percentile(values, shares, axis=0),
        notes,
    )


def _table(sim: Simulator, ranges: Ranges | None) -> dict[str, Range]:
    """The range of each tissue; one whose ends are its conductivity where it is held."""
    own = dict(zip(sim.head.tissues, np.asarray(sim.head.conductivity, float).tolist(), strict=True))
    for name, (low, high) in (ranges or {}).items():
        _check.option(name, own, "ranges")
        if not (np.isfinite([low, high]).all() and 0 < low <= high):
            raise ValueError(f"ranges: {name!r} is ({low}, {high}); two positive conductivities that grow, S/m.")
    wanted = {**RANGES, **(ranges or {})}
    return {name: wanted.get(name, (s, s)) for name, s in own.items()}


def _one(pose: Any) -> Array:
    pose = jnp.asarray(_check.pose(pose))
    if pose.ndim != 2:
        raise ValueError(f"pose: shape {pose.shape}; one pose (4, 4) is needed.")
    return pose


def _bound(sim: Simulator, coil: Coil, pose: Array, roi: Points | Grid) -> FieldMap:
    """The field at the points; the pose and the points are checked."""
    bound = sim.bind(coil, roi)
    checked(coil, pose, sim.head.scalp)
    return bound


def _magnitude(bound: FieldMap, pose: Array, didt: Array, conductivity: Array, together: int) -> Array:
    means = bound.means
    means = replace(means, parts=means.parts.conducting(conductivity))
    return norm(evaluate(replace(bound, means=means), pose, didt, together)[0])


# heads, coils and points are arguments: nothing large stands in a program, and another pose compiles nothing
@partial(jax.jit, static_argnames="together")
@full_precision
def _drawn(bound: FieldMap, pose: Array, didt: Array, draws: Array, together: int) -> Array:
    """|E| (draw, point) for each of some conductivities, as many at once as poses would be."""
    return jax.lax.map(lambda s: _magnitude(bound, pose, didt, s, 1), draws, batch_size=together)


@jax.jit
@full_precision
def _linear(bound: FieldMap, pose: Array, didt: Array, own: Array, directions: Array) -> tuple[Array, Array]:
    """|E| at the own conductivities, and its change along each direction (direction, point)."""
    magnitude, push = jax.linearize(lambda s: _magnitude(bound, pose, didt, s, 1), own)
    return magnitude, jax.lax.map(push, directions)
