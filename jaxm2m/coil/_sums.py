"""A of a coil's elements at points of its own frame, for tables and checks: exact, from afar, with its poles cut.

Sums run over blocks of one size, so that every coil shares a program whatever it consists of.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import ndimage

from jaxm2m._precision import full_precision
from jaxm2m.coil._coil import Coil, Element
from jaxm2m.coil._dipoles import SCALE as DIPOLE_SCALE
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import PotentialGrid
from jaxm2m.coil._potential import potential
from jaxm2m.coil._segments import SCALE as SEGMENT_SCALE
from jaxm2m.coil._segments import Segments

_POINTS, _SOURCES = 1 << 14, 1 << 11
_LONGEST = 20.0  # mm: of a segment that two points stand for; at 50 mm they are off by (20/50)^4 / 4320 = 6e-6


def merge_elements(coil: Coil, stimulator: int) -> list[Element]:
    """A stimulator's elements with all dipoles as one element, and all segments."""
    elements = [e for e in coil.elements if e.stimulator == stimulator]
    merged: list[Element] = []
    for kind in (Dipoles, Segments):
        parts = [e for e in elements if isinstance(e, kind)]
        if parts:
            merged.append(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts))
    return merged + [e for e in elements if isinstance(e, PotentialGrid)]


def sum_potential(element: Element, points: np.ndarray) -> np.ndarray:
    """A (n, 3) of one element at points in the coil's frame (mm), T m per A."""
    if isinstance(element, PotentialGrid):
        return _sum_blocks(_potential_of_block, [element], points)
    return _sum_blocks(_potential_of_block, _split(element), points)


def sum_far_potential(element: Element, points: np.ndarray) -> np.ndarray:
    """The same at points that are 50 mm or more away: segments as two points each, a third of the work."""
    if not isinstance(element, Segments):
        return sum_potential(element, points)
    start, end = np.asarray(element.start, float), np.asarray(element.end, float)
    along = (end - start) * np.asarray(element.turns, float)[:, None]
    count = np.maximum(np.ceil(np.linalg.norm(end - start, axis=1) / _LONGEST), 1).astype(int)
    which = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    nodes, weights = np.polynomial.legendre.leggauss(2)
    share = (step[:, None] + (1 + nodes) / 2) / count[which][:, None]
    position = (start[which][:, None] + share[..., None] * (end - start)[which][:, None]).reshape(-1, 3)
    current = (weights[:, None] / 2 * (along[which] / count[which][:, None])[:, None]).reshape(-1, 3)
    dtype = np.dtype(jnp.result_type(float))
    blocks = [
        (_pad(position[i : i + _SOURCES].astype(dtype)), _pad(current[i : i + _SOURCES].astype(dtype)))
        for i in range(0, len(position), _SOURCES)
    ]
    return SEGMENT_SCALE * _sum_blocks(_far_potential_of_block, blocks, points)


def sum_clamped_potential(element: Dipoles | Segments, points: np.ndarray, clamp: float) -> np.ndarray:
    """The same with the poles of dipoles and wires kept at `clamp` mm."""
    function = partial(_clamped_potential_of_block, clamp=clamp)
    return _sum_blocks(function, _split(element), points)


def compute_potential(element: Element, point: np.ndarray) -> np.ndarray:
    """A (3,) at one point (3,), by NumPy: compiles nothing."""
    if not isinstance(element, PotentialGrid):
        numbers = jax.tree.map(lambda leaf: np.asarray(leaf, float), element)
        return _clamped_potential(np, numbers, point[None], 1e-3)[0]
    affine = np.linalg.inv(np.asarray(element.affine, float))
    index = affine[:3, :3] @ point + affine[:3, 3]
    index = np.clip(index, 0, np.array(element.coefficients.shape[:3]) - 1)[:, None]
    components = np.moveaxis(np.asarray(element.coefficients, float), 3, 0)
    return np.array([ndimage.map_coordinates(c, index, order=3, prefilter=False, mode="mirror")[0] for c in components])


def _clamped_potential(xp: Any, element: Any, x: Any, clamp: float) -> Any:
    """A (n, 3) by NumPy or JAX."""
    if isinstance(element, Dipoles):
        m, n = element.moment, xp.cross(element.moment, element.position)
        s = xp.maximum(_distances(xp, x, element.position), clamp) ** -3 @ xp.concatenate([m, n], axis=1)
        return DIPOLE_SCALE * (xp.cross(s[:, :3], x) - s[:, 3:])
    a, b = element.start, element.end
    length = xp.sqrt(xp.sum((b - a) ** 2, axis=1))
    direction = (b - a) * (element.turns / xp.where(length > 0, length, 1))[:, None]
    total = xp.maximum(_distances(xp, x, a), clamp) + xp.maximum(_distances(xp, x, b), clamp)
    return SEGMENT_SCALE * 2 * xp.arctanh(xp.minimum(length / total, 0.9)) @ direction


def _distances(xp: Any, x: Any, positions: Any) -> Any:
    away = [x[:, None, i] - positions[None, :, i] for i in range(3)]
    return xp.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2)


def _split(element: Dipoles | Segments) -> list[Dipoles | Segments]:
    """Blocks of one size."""
    leaves, structure = jax.tree.flatten(element)
    blocks = [
        jax.tree.unflatten(structure, [_pad(np.asarray(leaf)[i : i + _SOURCES]) for leaf in leaves])
        for i in range(0, element.size, _SOURCES)
    ]
    # the stimulator is no part of the sum, and would be one of the program
    return [replace(block, stimulator=0) for block in blocks]


def _sum_blocks(function: Callable[[Any, Any], Array], blocks: Sequence[Any], points: np.ndarray) -> np.ndarray:
    padded = np.resize(points, (-(-len(points) // _POINTS) * _POINTS, 3)).astype(jnp.result_type(float))
    parts = [
        sum(np.asarray(function(block, padded[i : i + _POINTS]), float) for block in blocks)
        for i in range(0, len(padded), _POINTS)
    ]
    return np.concatenate(parts)[: len(points)]


def _pad(rows: np.ndarray) -> np.ndarray:
    """Rows of zeros: neither a moment nor a segment of no length adds anything."""
    return np.concatenate([rows, np.zeros((_SOURCES - len(rows), *rows.shape[1:]), rows.dtype)])


_potential_of_block = jax.jit(full_precision(potential))


@partial(jax.jit, static_argnames="clamp")
@full_precision
def _clamped_potential_of_block(block: Dipoles | Segments, points: Array, clamp: float) -> Array:
    return _map_chunks(lambda x: _clamped_potential(jnp, block, x, clamp), points)


@jax.jit
@full_precision
def _far_potential_of_block(block: tuple[Array, Array], points: Array) -> Array:
    position, current = block

    def chunk(x):
        away = [x[:, None, i] - position[None, :, i] for i in range(3)]
        # a block's padding has no current, wherever it is
        return jax.lax.rsqrt(sum(a * a for a in away) + 1e-6) @ current

    return _map_chunks(chunk, points)


def _map_chunks(function: Callable[[Array], Array], points: Array) -> Array:
    return jax.lax.map(function, points.reshape(-1, 512, 3)).reshape(-1, 3)
