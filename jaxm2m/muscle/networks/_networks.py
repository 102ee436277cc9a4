r"""The networks: fields to a code and back, and a code to muscles.

    encoder:  volume -> [convolution, ELU, (pooling)] ... -> code
    decoder:  code -> [(upsampling), convolution, ELU] ... -> convolution, linear -> volume
    mapper:   code -> [convolution, activation, (normalisation), pooling] ... -> dense layers -> features x
    head:     p = sigmoid(W_d x + S W_a x + b)

S are the muscles' synergies (not negative) and W_a x their activations, which have a sign: with both not negative no
muscle could fall below 1/2. "direct" has no S W_a x, "synergy" no W_d x. The 2019 paper prints the combined form
without the x behind W_r.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from jaxm2m import _check
from jaxm2m.muscle.networks._convolution import convolve
from jaxm2m.muscle.networks._resampling import convolve_pooled, convolve_upsampled, pool_blocks

_FEW = 8  # channels to which a convolution and its pooling are one product
_ACTIVATIONS = {"elu": jax.nn.elu, "relu": jax.nn.relu}


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of autoencoder and mapper; the defaults are those of the 2019 paper where it states them.

    Attributes
    ----------
    shape
        Voxels of a volume; what is pooled must be even.
    channels
        1: magnitude or rate; 3: the field's components.
    filters
        Filters of the encoder's convolutions, one after the other, each with an ELU; the last are the channels of the
        code. The decoder mirrors them.
    pools
        The first so many convolutions are followed by pooling.
    kernel
        Size of the convolutions' kernels, voxels, odd.
    pool
        "max" or "mean".
    convolutions
        Filters of the mapper's convolutions, each with an activation and pooling to a half, rounded down.
    hidden
        Units of the mapper's dense layers before the head, each with an activation.
    activation
        Activation of the mapper: "elu" or "relu".
    normalised
        Whether batches are normalised after the mapper's convolutions (batch normalisation).
    """

    shape: tuple[int, int, int] = (80, 80, 80)
    channels: int = 1
    filters: tuple[int, ...] = (32, 64, 1)
    pools: int = 3
    kernel: int = 3
    pool: str = "max"
    convolutions: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (128, 32)
    activation: str = "elu"
    normalised: bool = False

    def __post_init__(self):
        for name in ("shape", "filters", "convolutions", "hidden"):
            for size in getattr(self, name):
                _check.integer(size, name)
        if len(self.shape) != 3 or not self.filters or not self.hidden:
            raise ValueError("shape, filters, hidden: give three sizes, and at least one filter and one dense layer.")
        _check.integer(self.channels, "channels")
        _check.integer(self.pools, "pools", minimum=0)
        _check.integer(self.kernel, "kernel")
        _check.option(self.pool, ("max", "mean"), "pool")
        _check.option(self.activation, tuple(_ACTIVATIONS), "activation")
        if not self.kernel % 2:
            raise ValueError(f"kernel: {self.kernel}; take an odd number of voxels.")
        if self.pools > len(self.filters):
            raise ValueError(f"pools: {self.pools} of {len(self.filters)} convolutions; pool at most all of them.")
        if any(n % 2**self.pools for n in self.shape):
            raise ValueError(
                f"shape: {self.shape} cannot be halved {self.pools} times; take multiples of {2**self.pools}."
            )
        if min(self.code[:3]) < 2 ** len(self.convolutions):
            raise ValueError(
                f"convolutions: {len(self.convolutions)} poolings of a code of {self.code[:3]}; take fewer."
            )

    @property
    def code(self) -> tuple[int, int, int, int]:
        """Voxels and channels of the code."""
        nx, ny, nz = (n // 2**self.pools for n in self.shape)
        return nx, ny, nz, self.filters[-1]


class Encoder(nnx.Module):
    """Volumes (batch, x, y, z, channel) to codes (batch, u, v, w, channel)."""

    def __init__(self, config: NetworkConfig, *, rngs: nnx.Rngs):
        self.config = config
        widths = (config.channels, *config.filters)
        for i, (before, after) in enumerate(pairwise(widths)):
            setattr(self, f"conv{i}", _conv(config, before, after, rngs))

    def __call__(self, x: Float[Array, "b x y z c"]) -> Float[Array, "b u v w f"]:
        for i in range(len(self.config.filters)):
            conv = getattr(self, f"conv{i}")
            x = self._pool(conv, x) if i < self.config.pools else jax.nn.elu(conv(x))
        return x

    def _pool(self, conv: nnx.Conv, x: Array) -> Array:
        """Convolve, ELU, pool; the largest value before the ELU, which does not fall, is the largest after it."""
        if x.shape[-1] > _FEW:
            x = conv(x)
            if self.config.pool == "max":
                return jax.nn.elu(pool_blocks(x, "max"))
            return pool_blocks(jax.nn.elu(x), "mean")
        kernel, bias = (jnp.asarray(a) for a in (conv.kernel, conv.bias))
        if self.config.pool == "max":
            return jax.nn.elu(convolve_pooled(x, kernel, lambda block: block.max(-2)) + bias)
        return convolve_pooled(x, kernel, lambda block: jax.nn.elu(block + bias).mean(-2))


class Decoder(nnx.Module):
    """Codes to volumes: the encoder's mirror image, linear at its end."""

    def __init__(self, config: NetworkConfig, *, rngs: nnx.Rngs):
        self.config = config
        widths = (*reversed(config.filters), config.channels)
        for i, (before, after) in enumerate(pairwise(widths)):
            upsampled = len(config.filters) - 1 - i < config.pools
            setattr(self, f"conv{i}", _conv(config, before, after, rngs, convolve_upsampled if upsampled else convolve))

    def __call__(self, code: Float[Array, "b u v w f"]) -> Float[Array, "b x y z c"]:
        last, x = len(self.config.filters) - 1, code
        for i in range(last):
            x = jax.nn.elu(getattr(self, f"conv{i}")(x))
        return getattr(self, f"conv{last}")(x)


class Mapper(nnx.Module):
    """Codes to features (batch, hidden[-1])."""

    def __init__(self, config: NetworkConfig, *, rngs: nnx.Rngs):
        self.config = config
        *space, before = config.code
        for i, after in enumerate(config.convolutions):
            setattr(self, f"conv{i}", _conv(config, before, after, rngs))
            if config.normalised:
                setattr(self, f"norm{i}", nnx.BatchNorm(after, momentum=0.9, param_dtype=_dtype(), rngs=rngs))
            before, space = after, [n // 2 for n in space]
        before *= math.prod(space)
        for i, after in enumerate(config.hidden):
            setattr(self, f"dense{i}", nnx.Linear(before, after, param_dtype=_dtype(), rngs=rngs))
            before = after

    def __call__(
        self, code: Float[Array, "b u v w f"], drop: Callable[[int, Array], Array] | None = None, training: bool = False
    ) -> Float[Array, "b h"]:
        """Compute features; `drop(i, x)` acts behind dense layer i, `training` normalises by the batch, not by running
        means.
        """
        active = _ACTIVATIONS[self.config.activation]
        x = code
        for i in range(len(self.config.convolutions)):
            x = active(getattr(self, f"conv{i}")(x))
            if self.config.normalised:
                x = getattr(self, f"norm{i}")(x, use_running_average=not training)
            x = pool_blocks(x[:, *(slice(n // 2 * 2) for n in x.shape[1:4])], self.config.pool)
        x = x.reshape(len(x), -1)
        for i in range(len(self.config.hidden)):
            x = active(getattr(self, f"dense{i}")(x))
            x = x if drop is None else drop(i, x)
        return x


class Head(nnx.Module):
    """Features to logits: a direct part, and one through synergies that are given."""

    def __init__(self, features: int, muscles: int, synergies: int, *, rngs: nnx.Rngs):
        self.direct = nnx.Linear(features, muscles, param_dtype=_dtype(), rngs=rngs)
        self.activations = nnx.Linear(features, synergies, use_bias=False, param_dtype=_dtype(), rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h"],
        synergies: Float[Array, "muscle synergy"],
        parts: Float[Array, " 2"],
    ) -> Float[Array, "b muscle"]:
        """`parts`: 1 or 0 for the direct part and for the synergies'."""
        bias: Any = self.direct.bias
        bias = bias[...]
        return parts[0] * (self.direct(x) - bias) + parts[1] * (self.activations(x) @ synergies.T) + bias


def init(key: Key[Array, ""], module: Callable[..., nnx.Module], *config: Any) -> PyTree:
    """Draw new weights, as a dict of dicts of arrays."""
    return nnx.to_pure_dict(nnx.state(module(*config, rngs=nnx.Rngs(key)), nnx.Param))


def statistics(module: Callable[..., nnx.Module], *config: Any) -> PyTree:
    """Return running means and variances as they begin; empty where nothing is normalised."""
    _, _, kept = _outline(module, config, _dtype())
    begun = {"mean": jnp.zeros, "var": jnp.ones}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: begun[path[-1].key](leaf.shape, _dtype()), nnx.to_pure_dict(kept)
    )


def apply(
    params: PyTree, module: Callable[..., nnx.Module], *config: Any, kept: PyTree | None = None
) -> Callable[..., tuple[Array, PyTree]]:
    """Make a function of the module's inputs, which returns what it computes, and the new running `statistics`."""
    graph, outline, still = _outline(module, config, _dtype())
    nnx.replace_by_pure_dict(outline := nnx.clone(outline), params)
    nnx.replace_by_pure_dict(still := nnx.clone(still), {} if kept is None else kept)
    merged = nnx.merge(graph, outline, still)

    def function(*inputs: Any, **how: Any) -> tuple[Array, PyTree]:
        output = merged(*inputs, **how)
        return output, nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))

    return function


@lru_cache(maxsize=64)
def _outline(module: Callable[..., nnx.Module], config: tuple[Any, ...], dtype: Any) -> Any:
    """Return the graph and the shapes of weights and running statistics; they differ by precision."""
    return nnx.split(nnx.eval_shape(lambda: module(*config, rngs=nnx.Rngs(0))), nnx.Param, nnx.BatchStat)


def _conv(config: NetworkConfig, before: int, after: int, rngs: nnx.Rngs, how: Any = convolve) -> nnx.Conv:
    size = (config.kernel,) * 3
    return nnx.Conv(before, after, size, param_dtype=_dtype(), conv_general_dilated=how, rngs=rngs)


def _dtype() -> Any:
    return jnp.result_type(float)
