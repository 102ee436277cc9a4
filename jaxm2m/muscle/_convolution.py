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


def convolved(inputs: Any, kernel: Any, *args: Any, **others: Any) -> Any:
    """What `flax.nnx.Conv` calls for `jax.lax.conv_general_dilated`: stride 1, zeros outside, odd kernels.

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
    (batch, x, y, z, filter)
    """
    return _convolved(inputs, kernel)


@jax.custom_vjp
def _convolved(x: Float[Array, "b x y z c"], kernel: Float[Array, "i j k c f"]) -> Float[Array, "b x y z f"]:
    channels, filters = kernel.shape[3:]
    if channels <= filters:
        return _copies(x, kernel.shape[:3]) @ kernel.transpose(2, 1, 0, 3, 4).reshape(-1, filters)
    parts = x @ jnp.moveaxis(kernel, 3, 0).reshape(channels, -1)
    return _summed(parts.reshape(*x.shape[:4], *kernel.shape[:3], filters))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolved(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, (channels, filters) = kernel.shape[:3], kernel.shape[3:]
    voxels = ([0, 1, 2, 3], [0, 1, 2, 3])
    if channels <= filters:
        product = jnp.tensordot(_copies(x, size), slope, axes=voxels)
        of_kernel = product.reshape(*size[::-1], channels, filters).transpose(2, 1, 0, 3, 4)
    else:
        product = jnp.tensordot(x, _copies(slope, size), axes=voxels)
        of_kernel = jnp.flip(product.reshape(channels, *size[::-1], filters).transpose(3, 2, 1, 0, 4), (0, 1, 2))
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    return _convolved(slope, mirrored), of_kernel


_convolved.defvjp(_forward, _backward)


# The barriers keep XLA from computing what comes before anew for each copy, which is a hundred times slower.


def _copies(x: Float[Array, "b x y z c"], size: tuple[int, ...]) -> Float[Array, "b x y z kjic"]:
    """Of each voxel its neighbourhood."""
    for axis, n in enumerate(size, 1):
        x = jax.lax.optimization_barrier(x)
        x = jnp.concatenate(_shifted(x, axis, n), -1)
    return jax.lax.optimization_barrier(x)


def _summed(parts: Float[Array, "b x y z i j k f"]) -> Float[Array, "b x y z f"]:
    """Each neighbour's part in each voxel."""
    for axis in (1, 2, 3):
        parts = jax.lax.optimization_barrier(parts)
        neighbours = _shifted(parts, axis, parts.shape[4])
        parts = sum((n[:, :, :, :, i] for i, n in enumerate(neighbours)), jnp.zeros((), parts.dtype))
    return parts


def _shifted(x: Array, axis: int, n: int) -> list[Array]:
    """By -(n // 2) to n // 2 voxels along an axis, zeros from outside."""
    width = [(0, 0)] * x.ndim
    width[axis] = (n // 2, n // 2)
    padded = jnp.pad(x, width)
    return [jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(n)]


def pooled(x: Float[Array, "b x y z c"], how: str) -> Float[Array, "b u v w c"]:
    """Blocks of 2 x 2 x 2 by their largest value ("max") or their mean ("mean")."""
    batch, nx, ny, nz, channels = x.shape
    blocks = x.reshape(batch, nx // 2, 2, ny // 2, 2, nz // 2, 2, channels)
    # by reshaping: XLA's window reductions have slow gradients on CPUs
    return blocks.max((2, 4, 6)) if how == "max" else blocks.mean((2, 4, 6))


def upsampled(x: Float[Array, "b u v w c"]) -> Float[Array, "b x y z c"]:
    """Each voxel becomes 2 x 2 x 2 of the same value."""
    batch, nx, ny, nz, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None, :, None], (batch, nx, 2, ny, 2, nz, 2, channels))
    return wide.reshape(batch, 2 * nx, 2 * ny, 2 * nz, channels)
