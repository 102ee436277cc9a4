"""Convolution of volumes (batch, x, y, z, channel), for members with their own kernels.

XLA turns a convolution whose kernels are mapped over members into one with groups, and has no fast one for few channels
in three dimensions on CPUs. Here a convolution is a sum of matrix products, one for each shift, a block of planes after
the other, which stays in the cache; to few filters, shifted sums of one product. So are its two gradients. For members
it is a batch of products. Nothing is kept for the gradient but the inputs.
"""

import math
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m.muscle.networks._winograd import convolve_tiles

_MANY = 8  # filters from which their sums cost more than copies of the channels
_FEW = 48  # channels below which a product is given more of them
_CACHED = 4 << 20  # bytes of a block with its copies


def convolve(inputs: Any, kernel: Any, *args: Any, **others: Any) -> Any:
    """Convolve as `flax.nnx.Conv` asks `jax.lax.conv_general_dilated` to: stride 1, zeros outside, odd kernels.

    Parameters
    ----------
    inputs
        (batch, x, y, z, channel).
    kernel
        (k, k, k, channel, filter).
    args, others
        Strides, padding, ...: those of the default.

    Returns
    -------
    array
        (batch, x, y, z, filter).
    """
    channels, filters = kernel.shape[3:]
    if kernel.shape[:3] == (3, 3, 3) and channels >= _MANY <= filters and not (inputs.shape[1] | inputs.shape[2]) % 2:
        return convolve_tiles(inputs, kernel)
    return _convolve(inputs, kernel)


@jax.custom_vjp
def _convolve(x: Float[Array, "b x y z c"], kernel: Float[Array, "i j k c f"]) -> Float[Array, "b x y z f"]:
    channels, filters = kernel.shape[3:]
    if channels <= filters or filters >= _MANY:
        return _multiply_neighbours(x, kernel)
    parts = x @ jnp.moveaxis(kernel, 3, 0).reshape(channels, -1)
    return _sum_neighbours(parts.reshape(*x.shape[:4], *kernel.shape[:3], filters))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, (channels, filters) = kernel.shape[:3], kernel.shape[3:]
    if channels <= filters:
        of_kernel = _correlate_neighbours(x, slope, size)
    else:
        of_kernel = jnp.flip(_correlate_neighbours(slope, x, size), (0, 1, 2)).swapaxes(3, 4)
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    return _convolve(slope, mirrored), of_kernel


_convolve.defvjp(_forward, _backward)


def _multiply_neighbours(x: Float[Array, "b x y z c"], kernel: Float[Array, "i j k c f"]) -> Float[Array, "b x y z f"]:
    """Multiply each voxel's neighbourhood by the kernel."""
    filters = kernel.shape[4]
    blocks = _Blocks.of(x, kernel.shape[:3])
    matrices = kernel.reshape(len(blocks.shifts), -1, filters)

    def multiply(i: Array) -> Array:
        copies, total = blocks.copy_neighbours(i), jnp.zeros((), x.dtype)
        for shift, matrix in zip(blocks.shifts, matrices, strict=True):
            total = total + blocks.move(copies, shift) @ matrix
        return total

    return jax.lax.map(multiply, jnp.arange(blocks.n_block)).reshape(*x.shape[:4], filters)


def _correlate_neighbours(
    x: Float[Array, "b x y z c"], y: Float[Array, "b x y z f"], size: tuple[int, ...]
) -> Float[Array, "i j k c f"]:
    """Sum over all voxels the products of x in the neighbourhood and y."""
    blocks = _Blocks.of(x, size)
    right = y.reshape(blocks.n_block, blocks.planes, *y.shape[2:])

    def add(total: Array, i: Array) -> tuple[Array, None]:
        copies, voxels = blocks.copy_neighbours(i), ([0, 1, 2], [0, 1, 2])
        products = [jnp.tensordot(blocks.move(copies, shift), right[i], axes=voxels) for shift in blocks.shifts]
        return total + jnp.stack(products), None

    n_row = math.prod(size) * x.shape[-1] // len(blocks.shifts)
    zero = jnp.zeros((len(blocks.shifts), n_row, y.shape[-1]), jnp.result_type(x, y))
    total, _ = jax.lax.scan(add, zero, jnp.arange(blocks.n_block))
    return total.reshape(*size, x.shape[-1], y.shape[-1])


class _Blocks(NamedTuple):
    """Volumes with a border of zeros, cut into blocks of planes that stay in the cache.

    Neighbours along the last axes are put beside each voxel, so that a product has enough channels; along the others
    each shift is a product of its own.
    """

    padded: Float[Array, "b px py pz c"]
    size: tuple[int, ...]
    planes: int
    copied: tuple[int, ...]

    @staticmethod
    def of(x: Float[Array, "b x y z c"], size: tuple[int, ...]) -> "_Blocks":
        (nx, ny, nz), channels, copied = x.shape[1:4], x.shape[-1], ()
        for axis in (2, 1, 0):
            if channels < _FEW:
                copied, channels = (*copied, axis), channels * size[axis]
        plane = ny * nz * channels * x.dtype.itemsize
        planes = fit_cache(nx, plane)
        border = [(0, 0), *((n // 2, n // 2) for n in size), (0, 0)]
        return _Blocks(jnp.pad(x, border), size, planes, copied)

    @property
    def n_block(self) -> int:
        """Of all volumes."""
        return len(self.padded) * self._of_volume

    @property
    def _of_volume(self) -> int:
        return (self.padded.shape[1] - self.size[0] + 1) // self.planes

    @property
    def shifts(self) -> list[tuple[int, ...]]:
        """Along the axes whose neighbours are not copied, in the kernel's order."""
        return list(product(*(range(1 if axis in self.copied else n) for axis, n in enumerate(self.size))))

    def copy_neighbours(self, index: Array) -> Float[Array, "px y z kc"]:
        """Put beside each voxel of a block its neighbours along the copied axes."""
        shape = (1, self.planes + self.size[0] - 1, *self.padded.shape[2:])
        volume, block = index // self._of_volume, index % self._of_volume
        x = jax.lax.dynamic_slice(self.padded, (volume, block * self.planes, 0, 0, 0), shape)[0]
        for axis in self.copied:
            n = self.size[axis]
            length = x.shape[axis] - n + 1
            # the barriers keep XLA from computing what comes before anew for each copy, a hundred times slower
            x = jax.lax.optimization_barrier(x)
            x = jnp.concatenate([jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(n)], -1)
        return jax.lax.optimization_barrier(x)

    def move(self, copies: Float[Array, "px py pz kc"], shift: tuple[int, ...]) -> Float[Array, "planes y z kc"]:
        """Return the neighbours at a shift of each voxel of a block."""
        lengths = (self.planes, *(n - s + 1 for n, s in zip(self.padded.shape[2:4], self.size[1:], strict=True)))
        for axis, (start, length) in enumerate(zip(shift, lengths, strict=True)):
            copies = jax.lax.slice_in_dim(copies, start, start + length, axis=axis)
        return copies


def fit_cache(count: int, plane: int) -> int:
    """How many of `count` planes of so many bytes make a block: a divisor of their number."""
    return max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n * plane <= _CACHED))


def _sum_neighbours(parts: Float[Array, "b x y z i j k f"]) -> Float[Array, "b x y z f"]:
    """Sum each neighbour's part in each voxel."""
    for axis in (1, 2, 3):
        parts = jax.lax.optimization_barrier(parts)
        neighbours = _shift_copies(parts, axis, parts.shape[4])
        parts = sum((n[:, :, :, :, i] for i, n in enumerate(neighbours)), jnp.zeros((), parts.dtype))
    return parts


def _shift_copies(x: Array, axis: int, n: int) -> list[Array]:
    """Shift by -(n // 2) to n // 2 voxels along an axis, zeros from outside."""
    width = [(0, 0)] * x.ndim
    width[axis] = (n // 2, n // 2)
    padded = jnp.pad(x, width)
    return [jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(n)]
