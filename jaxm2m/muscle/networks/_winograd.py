"""Convolution with kernels of 3 x 3 x 3 and many channels, by tiles (Winograd; A. Lavin and S. Gray, CVPR 2016).

Two neighbouring outputs need four products of sums of inputs and of weights in place of six, along an axis; 2.25 times
fewer along two. The third axis keeps its three neighbours beside each voxel, which makes the products long enough. The
result is exact but for rounding, some four units of the last place.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_ROWS = 1600  # of a product, at least: shorter ones keep two cores half busy, longer ones leave the cache
# of three weights along an axis, those of the four products
_WEIGHTS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def convolve_tiles(x: Float[Array, "b x y z c"], kernel: Float[Array, "3 3 3 c f"]) -> Float[Array, "b x y z f"]:
    """Convolve, zeros outside; x and y are even. What the gradient needs of a block is computed anew."""
    batch, nx, ny, nz, channels = x.shape
    filters, weights = kernel.shape[-1], _WEIGHTS.astype(kernel.dtype)
    matrices = jnp.einsum("ai,bj,ijkcf->abkcf", weights, weights, kernel).reshape(16, 3 * channels, filters)
    n_pair, rows = nx // 2, (ny // 2) * nz
    depth = min(n for n in range(1, n_pair + 1) if n_pair % n == 0 and (n == n_pair or n * rows >= _ROWS))
    padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)])
    # the barriers keep XLA from computing what comes before anew for each use
    keep = jax.lax.optimization_barrier

    @jax.checkpoint
    def convolve_block(i: Array) -> Array:
        start = (i // (n_pair // depth), 2 * depth * (i % (n_pair // depth)), 0, 0, 0)
        planes = jax.lax.dynamic_slice(padded, start, (1, 2 * depth + 2, *padded.shape[2:]))[0]
        tiles = [keep(jnp.concatenate([planes[:, :, k : k + nz] for k in range(3)], axis=-1))]
        for axis in (0, 1):
            tiles = [part for tile in tiles for part in keep(_split(tile, axis))]
        products = keep([tile @ matrix for tile, matrix in zip(tiles, matrices, strict=True)])
        columns = [_join(products[i::4]) for i in range(4)]
        pairs = [_join(column) for column in zip(*columns, strict=True)]
        return jnp.stack([jnp.stack(row, axis=2) for row in pairs], axis=1).reshape(2 * depth, ny, nz, filters)

    return jax.lax.map(convolve_block, jnp.arange(batch * n_pair // depth)).reshape(*x.shape[:-1], filters)


def _split(x: Array, axis: int) -> list[Array]:
    """The four sums of inputs of each pair of outputs along an axis, which has one more at both ends."""
    n = x.shape[axis] - 2
    a, b, c, d = (jax.lax.slice_in_dim(x, i, i + n - 1, stride=2, axis=axis) for i in range(4))
    return [a - c, b + c, c - b, b - d]


def _join(products: Sequence[Array]) -> list[Array]:
    """Both outputs of a pair from its four products."""
    a, b, c, d = products
    return [a + b + c, b - c - d]
