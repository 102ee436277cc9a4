"""Convolution, pooling and upsampling of volumes (batch, x, y, z, channel), for members with their own kernels.

XLA turns a convolution whose kernels are mapped over members into one with groups, and has no fast one for few channels
in three dimensions on CPUs. Here a convolution is one matrix product over shifted copies of its input, or shifted sums
of one product, whichever has fewer channels to copy; so are its two gradients. With 1 to 64 channels on two cores that
is 1.2 to 8 times as fast, and for members it is a batch of products. Copies are not kept for the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    return _convolve(inputs, kernel)


@jax.custom_vjp
def _convolve(x: Float[Array, "b x y z c"], kernel: Float[Array, "i j k c f"]) -> Float[Array, "b x y z f"]:
    channels, filters = kernel.shape[3:]
    if channels <= filters:
        return _copy_neighbours(x, kernel.shape[:3]) @ kernel.transpose(2, 1, 0, 3, 4).reshape(-1, filters)
    parts = x @ jnp.moveaxis(kernel, 3, 0).reshape(channels, -1)
    return _sum_neighbours(parts.reshape(*x.shape[:4], *kernel.shape[:3], filters))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, (channels, filters) = kernel.shape[:3], kernel.shape[3:]
    voxels = ([0, 1, 2, 3], [0, 1, 2, 3])
    if channels <= filters:
        product = jnp.tensordot(_copy_neighbours(x, size), slope, axes=voxels)
        of_kernel = product.reshape(*size[::-1], channels, filters).transpose(2, 1, 0, 3, 4)
    else:
        product = jnp.tensordot(x, _copy_neighbours(slope, size), axes=voxels)
        of_kernel = jnp.flip(product.reshape(channels, *size[::-1], filters).transpose(3, 2, 1, 0, 4), (0, 1, 2))
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    return _convolve(slope, mirrored), of_kernel


_convolve.defvjp(_forward, _backward)


# The barriers keep XLA from computing what comes before anew for each copy, which is a hundred times slower.


def _copy_neighbours(x: Float[Array, "b x y z c"], size: tuple[int, ...]) -> Float[Array, "b x y z kjic"]:
    """Put beside each voxel its neighbourhood."""
    for axis, n in enumerate(size, 1):
        x = jax.lax.optimization_barrier(x)
        x = jnp.concatenate(_shift_copies(x, axis, n), -1)
    return jax.lax.optimization_barrier(x)


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
