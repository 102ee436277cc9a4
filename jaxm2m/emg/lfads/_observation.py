"""What is observed given what the model holds to be there: gamma, Gaussian and Poisson, by one interface."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Protocol, runtime_checkable

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
        """Number of parameters of each channel."""
        ...

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Transform the data to what the encoders see, before it is centred."""
        ...

    def mean(self, raw: Float[Array, "*shape parameters"]) -> Float[Array, "*shape"]:
        """Compute the expected data: the model's output."""
        ...

    def nll(self, raw: Float[Array, "*shape parameters"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Compute the negative log-likelihood."""
        ...


@dataclass(frozen=True)
class Gamma:
    """The gamma distribution, for rectified EMG.

    p(y) = b^a y^(a-1) exp(-b y) / Gamma(a), a and b the exponentials of the readout.

    Parameters
    ----------
    floor
        Values below it are taken for it, in units of the data: log y has to be finite.
    """

    floor: float = 1e-4

    @property
    def parameters(self) -> int:
        """Number of parameters of each channel: log a, log b."""
        return 2

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Compute log y, what the encoders see.

        Parameters
        ----------
        data
            Data y, array of any shape, in any unit.

        Returns
        -------
        array
            The logarithm of each value, at least that of the floor.
        """
        return jnp.log(jnp.maximum(data, self.floor))

    def mean(self, raw: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
        """Compute the mean a/b.

        Parameters
        ----------
        raw
            The readout (..., 2): log a and log b.

        Returns
        -------
        array
            The mean (...), in the unit of the data.
        """
        log_a, log_b = _clip_logs(raw)
        return jnp.exp(log_a - log_b)

    def nll(self, raw: Float[Array, "*shape 2"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Compute the negative log-likelihood.

        With the ratio t of y to its mean: log y - a (log t - t + 1) - (a log a - a - log Gamma(a)). These terms do not
        cancel for large a, unlike those of the textbook's form.

        Parameters
        ----------
        raw
            The readout (..., 2): log a and log b.
        data
            Data y (...), in the unit of the training data.

        Returns
        -------
        array
            The negative log-likelihood (...) of each value, nats.
        """
        log_a, log_b = _clip_logs(raw)
        log_y = self.inputs(data)
        a, log_t = jnp.exp(log_a), log_y + log_b - log_a
        return log_y - a * (log_t - jnp.expm1(log_t)) - stirling(a, log_a)


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution, for data of any sign: mean and log variance are the readout."""

    @property
    def parameters(self) -> int:
        """Number of parameters of each channel: mean, log variance."""
        return 2

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the data, which the encoders see as they are.

        Parameters
        ----------
        data
            Data, array of any shape, in any unit.

        Returns
        -------
        array
            The data, in the same unit.
        """
        return data

    def mean(self, raw: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
        """Return the mean.

        Parameters
        ----------
        raw
            The readout (..., 2): mean and log variance.

        Returns
        -------
        array
            The mean (...), in the unit of the data.
        """
        return raw[..., 0]

    def nll(self, raw: Float[Array, "*shape 2"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Compute the negative log-likelihood, [log(2 pi v) + (y - mean)^2 / v] / 2.

        Parameters
        ----------
        raw
            The readout (..., 2): mean and log variance log v.
        data
            Data y (...), in the unit of the training data.

        Returns
        -------
        array
            The negative log-likelihood (...) of each value, nats.
        """
        log_variance = jnp.clip(raw[..., 1], -_LIMIT, _LIMIT)
        return 0.5 * (math.log(2 * math.pi) + log_variance + (data - raw[..., 0]) ** 2 * jnp.exp(-log_variance))


@dataclass(frozen=True)
class Poisson:
    """The Poisson distribution, for counts: the log rate in a bin is the readout."""

    @property
    def parameters(self) -> int:
        """Number of parameters of each channel: log rate."""
        return 1

    def inputs(self, data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the counts, which the encoders see as they are.

        Parameters
        ----------
        data
            Number of events in each bin, array of any shape.

        Returns
        -------
        array
            The number of events in each bin.
        """
        return data

    def mean(self, raw: Float[Array, "*shape 1"]) -> Float[Array, "*shape"]:
        """Compute the rate.

        Parameters
        ----------
        raw
            The readout (..., 1): logarithm of the rate.

        Returns
        -------
        array
            The expected number of events in a bin, (...).
        """
        return jnp.exp(jnp.clip(raw[..., 0], -_LIMIT, _LIMIT))

    def nll(self, raw: Float[Array, "*shape 1"], data: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Compute the negative log-likelihood, rate - y log(rate) + log(y!).

        Parameters
        ----------
        raw
            The readout (..., 1): logarithm of the rate.
        data
            Number y of events in each bin, (...).

        Returns
        -------
        array
            The negative log-likelihood (...) of each value, nats.
        """
        log_rate = jnp.clip(raw[..., 0], -_LIMIT, _LIMIT)
        return jnp.exp(log_rate) - data * log_rate + jax.lax.lgamma(data + 1)


_BY_NAME = {kind.__name__: kind for kind in (Gamma, Gaussian, Poisson)}


def observation_settings(observation: Observation) -> dict[str, Any]:
    """An observation as plain JSON values: its name, and its numbers by name."""
    if is_dataclass(observation) and not isinstance(observation, type):
        return {"name": type(observation).__name__, **asdict(observation)}
    return {"name": type(observation).__name__, "description": repr(observation)}


def parse_observation(settings: Mapping[str, Any]) -> Observation:
    """Make the observation of `observation_settings`; `KeyError` or `TypeError` for an unknown one."""
    return _BY_NAME[settings["name"]](**{name: float(number) for name, number in settings.items() if name != "name"})


def stirling(a: Float[Array, "*shape"], log_a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Compute a log a - a - log Gamma(a), a > 0, by Stirling's series; below 8 by its value at a + 7.

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


def _clip_logs(raw: Array) -> tuple[Array, Array]:
    raw = jnp.clip(raw, -_LIMIT, _LIMIT)
    return raw[..., 0], raw[..., 1]
