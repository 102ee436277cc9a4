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
    size, (channels, filters) = kernel.shape[:3], kernel.shape[3:]
    if channels <= filters:
        return _copies(x, size) @ kernel.reshape(-1, filters)
    parts = x @ jnp.moveaxis(kernel, -2, 0).reshape(channels, -1)
    parts = jax.lax.optimization_barrier(parts.reshape(*parts.shape[:-1], -1, filters))
    reach = [n // 2 for n in size]
    padded = jnp.pad(parts, [(0, 0), *((r, r) for r in reach), (0, 0), (0, 0)])
    shifted = (_window(padded[..., i, :], at, x.shape[1:4]) for i, at in enumerate(_offsets(size)))
    return sum(shifted, jnp.zeros((), parts.dtype))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolved(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size, (channels, filters) = kernel.shape[:3], kernel.shape[3:]
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(-1, -2)
    if channels <= filters:
        product = jnp.tensordot(_copies(x, size), slope, axes=([0, 1, 2, 3], [0, 1, 2, 3]))
        of_kernel = product.reshape(kernel.shape)
    else:
        product = jnp.tensordot(x, _copies(slope, size), axes=([0, 1, 2, 3], [0, 1, 2, 3]))
        of_kernel = jnp.flip(jnp.moveaxis(product.reshape(channels, *size, filters), 0, 3), (0, 1, 2))
    return _convolved(slope, mirrored), of_kernel


_convolved.defvjp(_forward, _backward)


def _copies(x: Float[Array, "b x y z c"], size: tuple[int, ...]) -> Float[Array, "b x y z copies"]:
    """Of each voxel its neighbourhood, offset after offset, channel after channel."""
    # without the barriers XLA computes what comes before anew for each copy, a hundred times slower
    padded = jnp.pad(jax.lax.optimization_barrier(x), [(0, 0), *((n // 2, n // 2) for n in size), (0, 0)])
    copies = jnp.concatenate([_window(padded, at, x.shape[1:4]) for at in _offsets(size)], -1)
    return jax.lax.optimization_barrier(copies)


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


def _offsets(size: tuple[int, ...]) -> list[tuple[int, int, int]]:
    return [(i, j, k) for i in range(size[0]) for j in range(size[1]) for k in range(size[2])]


def _window(x: Array, at: tuple[int, int, int], shape: tuple[int, ...]) -> Array:
    for axis, (start, length) in enumerate(zip(at, shape, strict=True), 1):
        x = jax.lax.slice_in_dim(x, start, start + length, axis=axis)
    return x
