"""Vector potential and magnetic field of a coil in any pose, in bounded memory."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float, Real

from jaxm2m._precision import full_precision
from jaxm2m._types import ArrayLike
from jaxm2m.coil._coil import Coil, Element
from jaxm2m.coil._grid import PotentialGrid

T = TypeVar("T")

# Pairs (points x current elements) in flight. With 2^20 one chunk's array is 4 MB in float32; sizes from 2^19 to
# 2^21 were about equal on a busy two-core machine (benchmarks/coil_potential.json), the smaller take less memory.
PAIRS = 1 << 20
# Grid points in flight: 64 spline taps of 3 components each.
GRID_POINTS = 1 << 14


@full_precision
def vector_potential(
    coil: Coil,
    pose: Real[Array, "*batch 4 4"] | Real[np.ndarray, "*batch 4 4"],
    points: Real[Array, "... 3"] | Real[np.ndarray, "... 3"],
    didt: ArrayLike = 1.0,
    *,
    batch_size: int = PAIRS,
) -> Float[Array, "*batch n 3"]:
    """Compute dA/dt of a coil at points in the world.

    The primary electric field is its negative, E0 = -dA/dt. The sum over current elements is exact up to rounding
    (float32: at most 6e-6 of the largest |A|, 4 to 150 mm off a coil of 2712 dipoles), runs over chunks of points,
    and carries an analytical Jacobian: a gradient stores nine numbers a point and costs 2 to 3 times the value.

    Parameters
    ----------
    coil
        The coil, of any elements.
    pose
        (..., 4, 4) mm, coil frame -> world. Leading axes are poses; prefer them to `jax.vmap`, which multiplies the
        memory of a chunk.
    points
        (n, 3) mm, or (..., n, 3) with the pose's leading axes.
    didt
        Rate of change of the current, A/s: one number for every stimulator, or (n_stimulator,).
    batch_size
        Number of pairs of a point and a current element in memory at once; tables of A have a size of their own.

    Returns
    -------
    (..., n, 3) array
        V/m. With `didt=1`, A in V s/m per ampere.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> coil = jm.coil.circular()
    >>> points = jnp.array([[40.0, 0.0, 10.0], [0.0, 0.0, 10.0]])  # mm: beside the coil's axis, and on it
    >>> a = jm.coil.vector_potential(coil, jnp.eye(4), points, didt=1e6)  # V/m
    >>> [f"{jnp.linalg.norm(v):.1f}" for v in a]
    ['2.9', '0.0']
    """
    local, rotation, shape = _to_coil_frame(pose, points)
    total = jnp.zeros_like(local)
    for element, rate in _pair_with_rates(coil, didt):
        total = total + rate * potential(element, local, batch_size)
    return (total.reshape(shape) @ rotation.swapaxes(-1, -2)).astype(local.dtype)


@full_precision
def magnetic_field(
    coil: Coil,
    pose: Real[Array, "*batch 4 4"] | Real[np.ndarray, "*batch 4 4"],
    points: Real[Array, "... 3"] | Real[np.ndarray, "... 3"],
    didt: ArrayLike = 1.0,
) -> Float[Array, "*batch n 3"]:
    """Compute dB/dt = curl dA/dt of a coil at points in the world.

    It comes from the analytical Jacobian of the kernels of `vector_potential`. In float32 its error is at most 2.3e-4
    of the largest |B| (2712 dipoles, 4 to 150 mm off the coil).

    Parameters
    ----------
    coil
        The coil, of any elements.
    pose
        (..., 4, 4) mm, coil frame -> world.
    points
        (n, 3) mm, or (..., n, 3) with the pose's leading axes.
    didt
        Rate of change of the current, A/s: one number for every stimulator, or (n_stimulator,).

    Returns
    -------
    (..., n, 3) array
        T/s. With `didt=1`, B in T per ampere.
    """
    local, rotation, shape = _to_coil_frame(pose, points)
    total = jnp.zeros_like(local)
    for element, rate in _pair_with_rates(coil, didt):
        j = potential_and_jacobian(element, local, PAIRS)[1]
        curl = jnp.stack([j[:, 2, 1] - j[:, 1, 2], j[:, 0, 2] - j[:, 2, 0], j[:, 1, 0] - j[:, 0, 1]], axis=-1)
        total = total + 1e3 * rate * curl  # per mm -> per m
    return (total.reshape(shape) @ rotation.swapaxes(-1, -2)).astype(local.dtype)


def potential_and_jacobian(element: Element, points: Float[Array, "n 3"], batch_size: int) -> tuple[Array, Array]:
    """A (n, 3) and dA_a/dx_b (n, 3, 3) of one element at points in the coil's frame, chunk by chunk."""
    return _map_chunks(lambda e, x: e.potential_and_jacobian(x), element, points, batch_size)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def potential(element: Element, points: Float[Array, "n 3"], batch_size: int = PAIRS) -> Float[Array, "n 3"]:
    """A (n, 3) of one element at points in the coil's frame (mm), T m per A, chunk by chunk."""
    return _compute_potential(element, points, batch_size)


def _compute_potential(element: Element, points: Array, batch_size: int) -> Array:
    return _map_chunks(lambda e, x: e.potential(x), element, points, batch_size)


@partial(potential.defjvp, symbolic_zeros=True)
def _potential_jvp(batch_size, primals, tangents):
    element, points = primals
    by_element, by_points = tangents
    leaves = jax.tree.leaves(by_element, is_leaf=lambda x: isinstance(x, SymbolicZero))
    fixed = all(isinstance(x, SymbolicZero) for x in leaves)
    if isinstance(element, PotentialGrid) and fixed:
        # the spline's own derivative is cheaper than three columns of a Jacobian
        return jax.jvp(lambda x: _compute_potential(element, x, batch_size), (points,), (_to_dense(by_points),))
    if fixed:
        # linear in the tangent with a stored Jacobian: reverse mode keeps 9 numbers a point instead of its sums
        value, jacobian = potential_and_jacobian(element, points, batch_size)
        return value, jnp.einsum("nab,nb->na", jacobian, _to_dense(by_points))
    by_element = jax.tree.map(_to_dense, by_element, is_leaf=lambda x: isinstance(x, SymbolicZero))
    return jax.jvp(
        lambda e, x: _compute_potential(e, x, batch_size), (element, points), (by_element, _to_dense(by_points))
    )


def _to_dense(tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    zero = tangent.aval
    assert isinstance(zero, ShapedArray)
    return jnp.zeros(zero.shape, zero.dtype)


def _map_chunks(function: Callable[[Any, Array], T], element: Element, points: Array, batch_size: int) -> T:
    """`function(element, points)` over chunks of points; each chunk is recomputed, not stored, in reverse mode."""
    count = points.shape[0]
    chunk = GRID_POINTS if isinstance(element, PotentialGrid) else max(batch_size // max(element.size, 1), 8)
    if count <= chunk:
        return function(element, points)
    # equal chunks: the last one is not mostly padding
    n_chunk = -(-count // chunk)
    chunk = -(-count // n_chunk)
    padded = jnp.concatenate([points, jnp.broadcast_to(points[-1:], (n_chunk * chunk - count, 3))])
    body = jax.checkpoint(lambda x: function(element, x))
    result = jax.lax.map(body, padded.reshape(n_chunk, chunk, 3))
    return jax.tree.map(lambda x: x.reshape(n_chunk * chunk, *x.shape[2:])[:count], result)


def _to_coil_frame(pose: ArrayLike, points: ArrayLike) -> tuple[Array, Array, tuple[int, ...]]:
    pose, points = jnp.asarray(pose), jnp.asarray(points)
    if points.ndim < 2:
        raise ValueError(f"points: shape {points.shape}; give (n, 3) positions in mm.")
    dtype = jnp.result_type(pose, points, jnp.float32)
    pose, points = pose.astype(dtype), points.astype(dtype)
    rotation, centre = pose[..., :3, :3], pose[..., None, :3, 3]
    # in the coil's frame: a world position can be far from the coil, and float32 keeps what the difference keeps
    local = (points - centre) @ rotation
    return local.reshape(-1, 3), rotation, local.shape


def _pair_with_rates(coil: Coil, didt: ArrayLike) -> list[tuple[Element, Array]]:
    didt = jnp.asarray(didt)
    if didt.ndim > 1 or (didt.ndim == 1 and didt.shape[0] != coil.n_stimulator):
        raise ValueError(
            f"didt: shape {didt.shape} for a coil with {coil.n_stimulator} stimulator(s); "
            "give one number (A/s) or one for each stimulator."
        )
    return [(element, didt if didt.ndim == 0 else didt[element.stimulator]) for element in coil.elements]
