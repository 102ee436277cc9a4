"""What is observed given what the model holds to be there: gamma, Gaussian and Poisson, by one interface."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LIMIT = 15.0  # of logarithms, so that no product of their exponentials overflows


@runtime_checkable
class Observation(Protocol):
    """A distribution of the data at each time and channel, with parameters that a linear readout gives.

    It is immutable and hashable.
    """

    @property
    def parameters(self) -> int:
        """Parameters of each channel."""
        ...

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The data as the encoders see them, before they are centred."""
        ...

    def mean(self, raw: Float[Array, "*shape parameters"]) -> Float[Array, "*shape"]:
        """The expected data: the model's output."""
        ...

    def nll(self, raw: Float[Array, "*shape parameters"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The negative log-likelihood."""
        ...


@dataclass(frozen=True)
class Gamma:
    """Rectified EMG: p(y) = b^a y^(a-1) exp(-b y) / Gamma(a), a and b the exponentials of the readout.

    Parameters
    ----------
    floor
        Values below it are taken for it, in units of the data: log y has to be finite.
    """

    floor: float = 1e-4

    @property
    def parameters(self) -> int:
        """log a, log b."""
        return 2

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """log y."""
        return jnp.log(jnp.maximum(data, self.floor))

    def mean(self, raw: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
        """a/b."""
        log_a, log_b = _limited(raw)
        return jnp.exp(log_a - log_b)

    def nll(self, raw: Float[Array, "*shape 2"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """With the ratio t of y to its mean: log y - a (log t - t + 1) - (a log a - a - log Gamma(a)).

        Its terms do not cancel for large a, unlike those of the textbook's form.
        """
        log_a, log_b = _limited(raw)
        log_y = self.inputs(data)
        a, log_t = jnp.exp(log_a), log_y + log_b - log_a
        return log_y - a * (log_t - jnp.expm1(log_t)) - stirling(a, log_a)


@dataclass(frozen=True)
class Gaussian:
    """Data of any sign: mean and log variance are the readout."""

    @property
    def parameters(self) -> int:
        """Mean, log variance."""
        return 2

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The data."""
        return data

    def mean(self, raw: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
        """The mean."""
        return raw[..., 0]

    def nll(self, raw: Float[Array, "*shape 2"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """[log(2 pi v) + (y - mean)^2 / v] / 2."""
        log_variance = jnp.clip(raw[..., 1], -_LIMIT, _LIMIT)
        return 0.5 * (math.log(2 * math.pi) + log_variance + (data - raw[..., 0]) ** 2 * jnp.exp(-log_variance))


@dataclass(frozen=True)
class Poisson:
    """Counts: the log rate in a bin is the readout."""

    @property
    def parameters(self) -> int:
        """Log rate."""
        return 1

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The counts."""
        return data

    def mean(self, raw: Float[Array, "*shape 1"]) -> Float[Array, "*shape"]:
        """The rate."""
        return jnp.exp(jnp.clip(raw[..., 0], -_LIMIT, _LIMIT))

    def nll(self, raw: Float[Array, "*shape 1"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """rate - y log(rate) + log(y!)."""
        log_rate = jnp.clip(raw[..., 0], -_LIMIT, _LIMIT)
        return jnp.exp(log_rate) - data * log_rate + jax.lax.lgamma(data + 1)


def stirling(a: Float[Array, "*shape"], log_a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """a log a - a - log Gamma(a), a > 0, by Stirling's series; below 8 by its value at a + 7.

    Cheaper than the general log Gamma, in value and derivative, to 1e-12 in double precision.
    """
    small = a < 8
    # each side of the choice sees arguments that are good for it, so that its gradient is finite
    low = jnp.where(small, a, 1)
    log_low = jnp.where(small, log_a, 0)
    x = jnp.where(small, low + 7, a)
    log_x = jnp.where(small, jnp.log(low + 7), log_a)
    y = 1 / x
    q = y * y
    series = y * (1 / 12 + q * (-1 / 360 + q * (1 / 1260 + q * (-1 / 1680 + q * (1 / 1188 - q * (691 / 360360))))))
    large = 0.5 * log_x - 0.5 * math.log(2 * math.pi) - series
    rising = low * (low + 1) * (low + 2) * (low + 3) * (low + 4) * (low + 5) * (low + 6)
    # log Gamma(a) = log Gamma(a + 7) - log(a ... (a + 6))
    below = low * log_low - low - (x * log_x - x) + jnp.log(rising)
    return large + jnp.where(small, below, 0)


def _limited(raw: Array) -> tuple[Array, Array]:
    raw = jnp.clip(raw, -_LIMIT, _LIMIT)
    return raw[..., 0], raw[..., 1]
