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
from jaxm2m._progress import progress_bar
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.efield._field_map import FieldMap, check_pose, evaluate
from jaxm2m.efield._mesh_solver import MeshSolver
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import Simulator
from jaxm2m.efield._voxel_solver import VoxelSolver

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

_BATCH_SIZE = 8  # draws solved at once


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
    metadata
        "tissues", "ranges" (S/m, of the tissues that vary), "samples".
    """

    magnitude: Float[Array, " n_point"]
    deviation: Float[Array, " n_point"]
    by_tissue: Float[Array, "n_tissue n_point"] | None
    percentiles: Float[np.ndarray, "n_percentile n_point"] | None
    metadata: StaticMetadata


def first_order_uncertainty(
    sim: Simulator,
    coil: Coil,
    pose: ArrayLike,
    roi: Points | Grid,
    *,
    ranges: Ranges | None = None,
    didt: ArrayLike = 1e6,
) -> Uncertainty:
    """Estimate the standard deviation of |E| to first order in the conductivities.

    It takes one solve, and one more a tissue that varies.

    Parameters
    ----------
    sim
        The simulator of the head.
    coil
        The coil.
    pose
        (4, 4) coil frame to world, mm.
    roi
        Where the field is wanted: points or a grid, mm.
    ranges
        (lowest, highest) S/m by tissue, over the usual ones (`RANGES`); `(s, s)` holds a tissue.
    didt
        A/s: a number, or one for each of the coil's stimulators.

    Returns
    -------
    Uncertainty
        Magnitude, standard deviation and each tissue's part in it, V/m.

    Raises
    ------
    ValueError
        A range of a tissue that the head does not have, or that does not grow.
    """
    table = _complete_ranges(sim, ranges)
    pose = _check_one_pose(pose)
    sd = jnp.asarray([(b - a) / np.sqrt(28) for a, b in table.values()], sim.dtype)
    bound = _bind(sim, coil, pose, roi)
    fixed = np.asarray(sd) == 0
    conductivity = jnp.asarray(sim.head.conductivity, sim.dtype)
    magnitude, some = _linearize_magnitude(bound, pose, jnp.asarray(didt), conductivity, jnp.diag(sd)[~fixed])
    change = jnp.zeros((len(sd), len(magnitude)), some.dtype).at[np.flatnonzero(~fixed)].set(some)
    varied = {name: (a, b) for name, (a, b) in table.items() if b > a}
    metadata = StaticMetadata(tissues=sim.head.tissues, ranges=varied, samples=0)
    return Uncertainty(magnitude, norm(jnp.moveaxis(change, 0, -1)), change, None, metadata)


def sampled_uncertainty(
    sim: Simulator,
    coil: Coil,
    pose: ArrayLike,
    roi: Points | Grid,
    *,
    key: Array,
    samples: int = 100,
    percentiles: tuple[float | int, ...] = (5, 50, 95),
    ranges: Ranges | None = None,
    didt: ArrayLike = 1e6,
    progress: bool | None = None,
) -> Uncertainty:
    """Compute mean, standard deviation and percentiles of |E| over draws of the conductivities.

    It takes one solve a draw.

    Parameters
    ----------
    sim
        The simulator of the head.
    coil
        The coil.
    pose
        (4, 4) coil frame to world, mm.
    roi
        Where the field is wanted: points or a grid, mm.
    key
        Key of the draws.
    samples
        Number of draws; percentiles far out need more.
    percentiles
        Percentiles to return, 0 to 100 %.
    ranges
        (lowest, highest) S/m by tissue, over the usual ones (`RANGES`); `(s, s)` holds a tissue.
    didt
        A/s: a number, or one for each of the coil's stimulators.
    progress
        Whether to show a progress bar; by default on a terminal only.

    Returns
    -------
    Uncertainty
        Mean, standard deviation and percentiles over the draws, V/m.

    Raises
    ------
    ValueError
        As in `first_order_uncertainty`; percentiles outside 0 to 100.
    ConvergenceError
        A solve that fails.
    """
    table = _complete_ranges(sim, ranges)
    pose = _check_one_pose(pose)
    _check.integer(samples, "samples", minimum=2)
    shares = np.asarray(percentiles, float)
    if shares.size == 0 or shares.min() < 0 or shares.max() > 100:
        raise ValueError(f"percentiles: {percentiles}; numbers from 0 to 100 are needed.")
    low, high = jnp.asarray(list(table.values()), sim.dtype).T
    draws = low + (high - low) * jax.random.beta(key, 3.0, 3.0, (samples, len(table)), sim.dtype)
    bound = _bind(sim, coil, pose, roi)
    batches = []
    with progress_bar(samples, "conductivities", unit="draws", enabled=progress) as advance:
        for start in range(0, samples, _BATCH_SIZE):
            some = draws[start : start + _BATCH_SIZE]
            # the last batch is filled up, so that one program serves all
            index = np.minimum(np.arange(_BATCH_SIZE), len(some) - 1)
            magnitude = np.asarray(
                _draw_magnitudes(bound, pose, jnp.asarray(didt), some[index], bound.solver.batch_size())
            )
            magnitude = magnitude[: len(some)]
            if not np.isfinite(magnitude).all():
                wrong = int(np.argmin(np.isfinite(magnitude).all(1)))
                sim.bind(coil, roi, conductivity=some[wrong])(pose, didt=didt)  # raises what failed
            batches.append(magnitude)
            advance(len(some))
    values = np.concatenate(batches)
    metadata = StaticMetadata(
        tissues=sim.head.tissues, ranges={k: v for k, v in table.items() if v[1] > v[0]}, samples=samples
    )
    return Uncertainty(
        jnp.asarray(values.mean(0)),
        jnp.asarray(values.std(0, ddof=1)),
        None,
        np.percentile(values, shares, axis=0),
        metadata,
    )


def _complete_ranges(sim: Simulator, ranges: Ranges | None) -> dict[str, Range]:
    """The range of each tissue; one whose ends are its conductivity where it is held."""
    conductivities = dict(zip(sim.head.tissues, np.asarray(sim.head.conductivity, float).tolist(), strict=True))
    for name, (low, high) in (ranges or {}).items():
        _check.option(name, conductivities, "ranges")
        if not (np.isfinite([low, high]).all() and 0 < low <= high):
            raise ValueError(f"ranges: {name!r} is ({low}, {high}); two positive conductivities that grow, S/m.")
    wanted = {**RANGES, **(ranges or {})}
    return {name: wanted.get(name, (s, s)) for name, s in conductivities.items()}


def _check_one_pose(pose: Any) -> Array:
    pose = jnp.asarray(_check.pose(pose))
    if pose.ndim != 2:
        raise ValueError(f"pose: shape {pose.shape}; one pose (4, 4) is needed.")
    return pose


def _bind(sim: Simulator, coil: Coil, pose: Array, roi: Points | Grid) -> FieldMap:
    """The field at the points; the pose and the points are checked."""
    bound = sim.bind(coil, roi)
    check_pose(coil, pose, sim.head.scalp)
    return bound


def _magnitude(bound: FieldMap, pose: Array, didt: Array, conductivity: Array, batch_size: int) -> Array:
    solver: VoxelSolver | MeshSolver = bound.solver  # type: ignore[assignment]
    solver = replace(solver, parts=solver.parts.with_conductivity(conductivity))  # type: ignore[arg-type]
    return norm(evaluate(replace(bound, solver=solver), pose, didt, batch_size)[0])


# heads, coils and points are arguments: nothing large stands in a program, and another pose compiles nothing
@partial(jax.jit, static_argnames="batch_size")
@full_precision
def _draw_magnitudes(bound: FieldMap, pose: Array, didt: Array, draws: Array, batch_size: int) -> Array:
    """|E| (draw, point) for each of some conductivities, as many at once as poses would be."""
    return jax.lax.map(lambda s: _magnitude(bound, pose, didt, s, 1), draws, batch_size=batch_size)


@jax.jit
@full_precision
def _linearize_magnitude(
    bound: FieldMap, pose: Array, didt: Array, conductivity: Array, directions: Array
) -> tuple[Array, Array]:
    """Compute |E| at the conductivities, and its change along each direction (direction, point)."""
    magnitude, push = jax.linearize(lambda s: _magnitude(bound, pose, didt, s, 1), conductivity)
    return magnitude, jax.lax.map(push, directions)
