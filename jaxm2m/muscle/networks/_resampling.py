"""Pooling and upsampling by two of volumes (batch, x, y, z, channel), and the convolutions beside them.

A convolution of an upsampled volume sees each coarse voxel several times. Where weights of the same voxel are added up
before, the eight fine voxels of a coarse one need 8 products of (k + 1)^3 / 8 neighbours in place of 8 k^3: 3.4 times
less arithmetic for k = 3, and no array of the fine grid but the result. A convolution of few channels that is pooled
after it is one product of the (k + 1)^3 neighbours of a block of 2 x 2 x 2, of which nothing but the pooled value is
kept. Both are exact: sums in another order.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m.muscle.networks._convolution import fit_cache

_MANY = 8  # filters from which neighbours are copied before the product, and not summed after it


def pool_blocks(x: Float[Array, "b x y z c"], how: str) -> Float[Array, "b u v w c"]:
    """Pool blocks of 2 x 2 x 2 by their largest value ("max") or their mean ("mean")."""
    batch, nx, ny, nz, channels = x.shape
    blocks = x.reshape(batch, nx // 2, 2, ny // 2, 2, nz // 2, 2, channels)
    # by reshaping: XLA's window reductions have slow gradients on CPUs
    return blocks.max((2, 4, 6)) if how == "max" else blocks.mean((2, 4, 6))


def upsample(x: Float[Array, "b u v w c"]) -> Float[Array, "b x y z c"]:
    """Repeat each voxel as 2 x 2 x 2 of the same value."""
    batch, nx, ny, nz, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None, :, None], (batch, nx, 2, ny, 2, nz, 2, channels))
    return wide.reshape(batch, 2 * nx, 2 * ny, 2 * nz, channels)


def convolve_pooled(
    x: Float[Array, "b x y z c"],
    kernel: Float[Array, "i j k c f"],
    pool: Callable[[Float[Array, "v w 8 f"]], Float[Array, "v w f"]],
) -> Float[Array, "b u v w f"]:
    """Convolve, zeros outside, and pool the eight voxels of each block of 2 x 2 x 2 by a function of them.

    For few channels. What the gradient needs of a block of planes is computed anew.
    """
    size, filters = kernel.shape[:3], kernel.shape[4]
    # neighbours of a block along an axis -> those of each of its voxels
    axes = [np.stack([np.eye(n, n + 1, i, dtype=kernel.dtype) for i in range(2)]) for n in size]
    matrix = jnp.einsum("ais,bjt,dku,ijkcf->stucabdf", *axes, kernel).reshape(-1, 8 * filters)
    batch, nx, ny, nz, _ = x.shape
    u, v, w = nx // 2, ny // 2, nz // 2
    plane = v * w * sum(matrix.shape) * x.dtype.itemsize
    depth = fit_cache(u, plane)
    padded = jnp.pad(x, [(0, 0), *((n // 2, n // 2) for n in size), (0, 0)])

    @jax.checkpoint
    def convolve_block(i: Array) -> Array:
        start, shape = (i // (u // depth), 2 * depth * (i % (u // depth)), 0, 0, 0), list(padded.shape)
        shape[:2] = 1, 2 * depth + size[0] - 1
        rows = jax.lax.dynamic_slice(padded, start, shape)[0]
        for axis, n in ((2, w), (1, v), (0, depth)):
            ends = [slice(None)] * axis
            shifted = [rows[*ends, j : j + 2 * n - 1 : 2] for j in range(size[axis] + 1)]
            rows = jax.lax.optimization_barrier(jnp.concatenate(shifted, axis=-1))
        return pool((rows @ matrix).reshape(depth, v, w, 8, filters))

    return jax.lax.map(convolve_block, jnp.arange(batch * u // depth)).reshape(batch, u, v, w, filters)


def convolve_upsampled(
    x: Float[Array, "b u v w c"], kernel: Float[Array, "i j k c f"], *args: Any, **others: Any
) -> Float[Array, "b x y z f"]:
    """Convolve what `upsample` makes of x, zeros outside, with an odd kernel; as `flax.nnx.Conv` asks for it."""
    size, (channels, filters) = kernel.shape[:3], kernel.shape[3:]
    sums = [_sum_weights(n, kernel.dtype) for n in size]
    batch, *coarse, _ = x.shape
    neighbours = list(product(*(range(a.shape[1]) for a in sums)))
    # along an axis: zeros beside the volume, and whether the second voxel's neighbours begin one after the first's
    border = [-(-(n // 2) // 2) for n in size]
    later = [n // 2 % 2 for n in size]
    wide = [(0, 0), *((n, n) for n in border), (0, 0)]

    def take(a: Array, start: tuple[int, ...], lengths: list[int]) -> Array:
        return a[:, *(slice(s, s + n) for s, n in zip(start, lengths, strict=True))]

    voxels = []
    if filters >= _MANY:
        matrix = jnp.einsum("asi,btj,duk,ijkcf->stucabdf", *sums, kernel).reshape(-1, 8 * filters)
        corners = [n + d for n, d in zip(coarse, later, strict=True)]
        padded = jnp.pad(x, wide)
        copies = jnp.concatenate([take(padded, s, corners) for s in neighbours], -1)
        values = jnp.split(jax.lax.optimization_barrier(copies) @ matrix, 8, -1)
        for part, which in zip(values, product(range(2), repeat=3), strict=True):
            start = tuple(a * d for a, d in zip(which, later, strict=True))
            voxels.append(take(part, start, coarse))
    else:
        matrix = jnp.einsum("asi,btj,duk,ijkcf->cabdstuf", *sums, kernel).reshape(channels, -1, filters)
        # volumes one after the other: neighbours of a plane are a plane
        values = jnp.einsum("buvwc,cnf->nfbuvw", x, matrix)
        values = jnp.pad(jax.lax.optimization_barrier(values), [(0, 0)] * 2 + wide[:-1])
        parts = iter(jnp.split(values, len(values)))
        for which in product(range(2), repeat=3):
            total = jnp.zeros((), x.dtype)
            for s in neighbours:
                start = (0, *(a * d + t for a, d, t in zip(which, later, s, strict=True)))
                total = total + take(next(parts)[0], start, [batch, *coarse])
            voxels.append(jnp.moveaxis(total, 0, -1))
    pairs = jnp.stack(voxels, 4).reshape(batch, *coarse, 2, 2, 2, filters)
    return pairs.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, *(2 * n for n in coarse), filters)


def _sum_weights(size: int, dtype: Any) -> np.ndarray:
    """Which coarse neighbour (second axis) each weight of a kernel (third) reads, for both voxels of a pair (first)."""
    first = [(a - size // 2) // 2 for a in range(2)]
    matrix = np.zeros((2, size // 2 + 1, size), dtype)
    for a, t in product(range(2), range(size)):
        matrix[a, (a + t - size // 2) // 2 - first[a], t] = 1
    return matrix
