"""What keeps the model from copying its input: temporal shift, coordinated dropout, dropout."""

import jax
import jax.numpy as jnp
from jax.extend import random as random_bits
from jaxtyping import Array, Bool, Float, Key, UInt16


def draw_mask_bits(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt16[Array, "*shape"]:
    """Draw random 16-bit numbers for `keep_mask`.

    They cost half of what threefry's words cost one by one, and a quarter of JAX's own. A rate is met to 1/65536.
    """
    count = 1
    for n in shape:
        count *= n
    pair = jax.random.bits(key, (2,), jnp.uint32)
    words = random_bits.threefry_2x32(pair, jnp.arange((count + 1) // 2, dtype=jnp.uint32))
    return jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:count].reshape(shape)


def keep_mask(masks: UInt16[Array, "*shape"], rate: Float[Array, ""]) -> Bool[Array, "*shape"]:
    """Mark the numbers of `masks` that stand for what is kept: a share of 1 - rate."""
    return masks.astype(jnp.int32) >= jnp.round(rate * 65536).astype(jnp.int32)


def drop_out(
    values: Float[Array, "*shape"], masks: UInt16[Array, "*shape"] | None, rate: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Keep values with probability 1 - rate, divided by it, or set them to zero; without masks, return the values."""
    if masks is None:
        return values
    return jnp.where(keep_mask(masks, rate), values / (1 - rate), 0)


def shift_windows(
    key: Key[Array, ""], windows: Float[Array, "batch wide channel"], margin: int, deviation: float
) -> Float[Array, "batch time channel"]:
    """Remove the margins of windows, each channel of each window moved by some bins.

    The shift is drawn from a normal distribution, drawn anew where it leaves the margin, and rounded.

    Parameters
    ----------
    key
        Draws the shifts.
    windows
        Windows with `margin` more bins on both sides.
    margin
        The largest shift, bins.
    deviation
        Standard deviation of the shifts, bins.
    """
    batch, wide, channels = windows.shape
    if margin == 0:
        return windows
    limit = margin / deviation
    drawn = jax.random.truncated_normal(key, -limit, limit, (batch, 1, channels), jnp.float32)
    shift = margin + jnp.round(drawn * deviation).astype(jnp.int32)
    # a choice among all shifts: a gather would take longer
    moved = windows[:, : wide - 2 * margin]
    for bins in range(1, 2 * margin + 1):
        moved = jnp.where(shift == bins, windows[:, bins : bins + wide - 2 * margin], moved)
    return moved


def crop_margins(windows: Float[Array, "batch wide channel"], margin: int) -> Float[Array, "batch time channel"]:
    """Remove the margins of windows."""
    return windows[:, margin : windows.shape[1] - margin]
