"""The sequential variational autoencoder: encoders, a controller and a generator of dynamics, and its loss.

What a generator, a recurrent network that sees no data, makes of an initial condition and of inferred inputs is read
out as the distribution of the data (LFADS; Pandarinath et al. 2018, for EMG Wimalasena et al. 2022). Parameters are
plain dicts, functions are pure; inside the recurrent layers time comes first and the batch last.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from jaxm2m import _check
from jaxm2m.emg.lfads import _augment, _priors
from jaxm2m.emg.lfads._gru import cell, gru, gru_last, init_gru, pack_weights, recurrence
from jaxm2m.emg.lfads._observation import Gamma, Observation

_SPREAD = 15.0  # of log variances, so that their exponentials stay finite


@dataclass(frozen=True)
class LFADSConfig:
    """The architecture of the sequential autoencoder; the defaults are the paper's.

    Parameters
    ----------
    channels
        Channels of the data.
    generator, controller, ci_encoder, ic_encoder
        Units of the recurrent layers; the encoders, of controller input and initial condition, have as many in each
        direction.
    ic_dim
        Dimensions of the initial condition's distribution.
    co_dim
        Inferred inputs of the generator.
    fac_dim
        Dimensions that the data are read out from.
    readin
        Dimensions that a linear map reads the data into, before the encoders; 0: they see the channels themselves. With
        it, other muscles can be read into the same model (`fit` with a `source`).
    observation
        The distribution of the data: `Gamma`, `Gaussian` or `Poisson`.
    clip
        The bound of all recurrent states.
    lag
        Bins by which the controller's input keeps away from the bin that it is for.

    Raises
    ------
    TypeError, ValueError
        A size that is no whole number above zero.
    """

    channels: int
    generator: int = 64
    controller: int = 64
    ci_encoder: int = 64
    ic_encoder: int = 128
    ic_dim: int = 30
    co_dim: int = 3
    fac_dim: int = 10
    readin: int = 0
    observation: Observation = field(default_factory=Gamma)
    clip: float = 5.0
    lag: int = 1

    def __post_init__(self):
        for size in fields(self):
            if size.type is int:
                _check.integer(getattr(self, size.name), size.name, minimum=0 if size.name in ("lag", "readin") else 1)
        _check.positive(self.clip, "clip")
        if not isinstance(self.observation, Observation):
            raise TypeError(f"observation: {self.observation!r}; pass Gamma(), Gaussian() or Poisson().")


def init(key: Key[Array, ""], config: LFADSConfig, offset: Float[Array, " channel"] | None = None) -> PyTree:
    """Draw the parameters of a new model: weights N(0, 1/fan-in), biases of gates 1, all else zero.

    Parameters
    ----------
    key
        Draws the weights.
    config
        The architecture.
    offset
        What the inputs of the encoders are centred by, so that a dropped input stands for a mean one: the mean over the
        data of `config.observation.inputs(data)`; None: zero. It is kept, not trained.

    Returns
    -------
    PyTree
        Dicts of arrays: "offset"; "readin" (channels, readin) where there is one; "ic_encoder", "ci_encoder" with
        "forward", "backward" and their "start" (2, units); "ic", "start", "inputs", "readout" (affine: "kernel" (n_in,
        n_out), "bias"); "controller", "generator" (recurrent); "controller_start"; "factors" (generator, factors),
        whose columns are divided by their norms where they are used; "ic_prior" ("mean"), "inputs_prior" ("log_tau",
        "log_variance").
    """
    keys = iter(jax.random.split(key, 16))
    seen = config.readin or config.channels
    sizes_out = config.channels * config.observation.parameters

    def encoder(units: int) -> dict[str, Any]:
        return {
            "forward": init_gru(next(keys), seen, units),
            "backward": init_gru(next(keys), seen, units),
            "start": jnp.zeros((2, units)),
        }

    def affine(n_in: int, n_out: int) -> dict[str, Array]:
        return {"kernel": jax.random.normal(next(keys), (n_in, n_out)) / n_in**0.5, "bias": jnp.zeros(n_out)}

    zeros = jnp.zeros(config.channels)
    params = {
        "offset": zeros if offset is None else zeros + jnp.asarray(offset),
        "ic_encoder": encoder(config.ic_encoder),
        "ci_encoder": encoder(config.ci_encoder),
        "ic": affine(2 * config.ic_encoder, 2 * config.ic_dim),
        "start": affine(config.ic_dim, config.generator),
        "controller": init_gru(next(keys), 2 * config.ci_encoder + config.fac_dim, config.controller),
        "controller_start": jnp.zeros(config.controller),
        "inputs": affine(config.controller, 2 * config.co_dim),
        "generator": init_gru(next(keys), config.co_dim, config.generator),
        "factors": affine(config.generator, config.fac_dim)["kernel"],
        "readout": affine(config.fac_dim, sizes_out),
        "ic_prior": {"mean": jnp.zeros(config.ic_dim)},
        "inputs_prior": {
            "log_tau": jnp.full(config.co_dim, math.log(10.0)),
            "log_variance": jnp.full(config.co_dim, math.log(0.1)),
        },
    }
    if config.readin:
        params["readin"] = affine(config.channels, config.readin)["kernel"]
    return params


def prepare_inputs(
    params: PyTree, config: LFADSConfig, data: Float[Array, "batch time channel"]
) -> Float[Array, "batch time channel"]:
    """Transform data by the observation and centre them, as the encoders see them."""
    return config.observation.inputs(data) - jax.lax.stop_gradient(params["offset"])


def draw_masks(key: Key[Array, ""], config: LFADSConfig, batch: int, time: int) -> dict[str, Array]:
    """Draw random 16-bit numbers that dropout compares with its rate, for one pass through the model."""
    keys = jax.random.split(key, 4)
    return {
        "ic": _augment.draw_mask_bits(keys[0], (2 * config.ic_encoder, batch)),
        "start": _augment.draw_mask_bits(keys[1], (config.generator, batch)),
        "controller": _augment.draw_mask_bits(keys[2], (time, 2 * config.ci_encoder + config.fac_dim, batch)),
        "generator": _augment.draw_mask_bits(keys[3], (time, config.generator, batch)),
    }


def draw_noise(key: Key[Array, ""], config: LFADSConfig, batch: int, time: int) -> dict[str, Array]:
    """Draw the standard normal numbers behind one sample of the latent variables."""
    one, two = jax.random.split(key)
    return {
        "initial": jax.random.normal(one, (batch, config.ic_dim)),
        "inputs": jax.random.normal(two, (time, batch, config.co_dim)),
    }


def encode(
    params: PyTree,
    config: LFADSConfig,
    inputs: Float[Array, "batch time channel"],
    masks: dict[str, Array] | None = None,
    rate: Float[Array, ""] | float = 0.0,
) -> dict[str, Array]:
    """Infer the initial condition's distribution, and the controller's input.

    Parameters
    ----------
    params, config
        The model.
    inputs
        Of `prepare_inputs`.
    masks, rate
        Dropout: of `draw_masks`, and its rate; None for none.

    Returns
    -------
    dict
        "mean", "variance" (batch, ic_dim); "ci_forward", "ci_backward" (time, ci_encoder, batch), what the encoder of
        the controller's input knows from before and from after each bin.
    """
    fixed = "readin" not in params  # data need no derivative
    x = (inputs if fixed else inputs @ params["readin"]).transpose(1, 2, 0)

    def start(encoder: PyTree, way: int) -> Array:
        return _repeat_columns(encoder["start"][way], x.shape[2])

    encoder = params["ic_encoder"]
    ends = [
        gru_last(encoder["forward"], start(encoder, 0), x, clip=config.clip, data=fixed),
        gru_last(encoder["backward"], start(encoder, 1), x, clip=config.clip, reverse=True, data=fixed),
    ]
    known = _augment.drop_out(jnp.concatenate(ends), None if masks is None else masks["ic"], jnp.asarray(rate))
    mean, log_variance = jnp.split(_affine(params["ic"], known.T), 2, -1)
    encoder = params["ci_encoder"]
    ci_forward = gru(encoder["forward"], start(encoder, 0), x, clip=config.clip, data=fixed)
    ci_backward = gru(encoder["backward"], start(encoder, 1), x, clip=config.clip, reverse=True, data=fixed)
    nothing = jnp.zeros_like(ci_forward[: config.lag])
    length = x.shape[0]
    return {
        "mean": mean,
        "variance": jnp.exp(_clip_log_variance(log_variance)) + 1e-4,
        "ci_forward": jnp.concatenate([nothing, ci_forward])[:length],
        "ci_backward": jnp.concatenate([ci_backward, nothing])[-length:],
    }


def decode(
    params: PyTree,
    config: LFADSConfig,
    code: dict[str, Array],
    noise: dict[str, Array] | None = None,
    masks: dict[str, Array] | None = None,
    rate: Float[Array, ""] | float = 0.0,
    keep: tuple[str, ...] = (),
) -> dict[str, Array]:
    """Run controller and generator.

    Parameters
    ----------
    params, config
        The model.
    code
        Of `encode`.
    noise
        Of `draw_noise`; None for posterior means.
    masks, rate
        Dropout: of `draw_masks`, and its rate; None for none.
    keep
        More entries of the state that are returned: "controller", "generator" (time, batch, units).

    Returns
    -------
    dict
        "start" (batch, generator), the generator's initial state; "mean", "log_variance" (time, batch, inputs) of the
        inferred inputs; "factors" (time, batch, factors); "raw" (time, batch, channels, parameters of the observation).
    """
    rate = jnp.asarray(rate, code["mean"].dtype)
    initial = code["mean"]
    if noise is not None:
        initial = initial + jnp.sqrt(code["variance"]) * noise["initial"].astype(initial.dtype)
    start = _affine(params["start"], initial)
    batch = start.shape[0]
    controller, controller_back = pack_weights(params["controller"])
    generator, generator_back = pack_weights(params["generator"])
    weights = {
        "controller": controller,
        "generator": generator,
        "inputs": {"kernel": params["inputs"]["kernel"].T, "bias": params["inputs"]["bias"][:, None]},
        "factors": (params["factors"] / jnp.maximum(jnp.linalg.norm(params["factors"], axis=0), 1e-12)).T,
    }
    shared = {"controller": controller_back, "generator": generator_back, "clip": config.clip, "rate": rate}
    nothing = jnp.zeros((config.co_dim, batch), start.dtype)
    state = {
        "controller": _repeat_columns(params["controller_start"], batch),
        "generator": start.T,
        "factors": weights["factors"] @ _augment.drop_out(start.T, None if masks is None else masks["start"], rate),
        # what follows is written by each step and read by none
        "mean": nothing,
        "log_variance": nothing,
    }
    fixed = {
        "noise": None if noise is None else noise["inputs"].astype(start.dtype).swapaxes(1, 2),
        "controller": None if masks is None else masks["controller"],
        "generator": None if masks is None else masks["generator"],
    }
    names = ("mean", "log_variance", "factors", *keep)
    _, states = recurrence(
        _decode_step, names, False, weights, shared, state, (code["ci_forward"], code["ci_backward"]), fixed
    )
    states = {name: a.swapaxes(1, 2) for name, a in states.items()}
    raw = _affine(params["readout"], states["factors"])
    parts = raw.reshape(*raw.shape[:-1], config.observation.parameters, config.channels)
    return {"start": start, "raw": jnp.moveaxis(parts, -2, -1), **states}


def _decode_step(
    params: PyTree,
    shared: PyTree,
    state: dict[str, Array],
    inputs: tuple[Array, Array],
    fixed: dict[str, Array | None],
    after: dict[str, Array] | None,
) -> dict[str, Array]:
    rate, clip = shared["rate"], shared["clip"]
    known: dict[str, Any] = after or {"controller": None, "generator": None}
    seen = jnp.concatenate([*inputs, state["factors"]])
    seen = _augment.drop_out(seen, fixed["controller"], rate)
    controller = cell(params["controller"], shared["controller"], state["controller"], seen, clip, known["controller"])
    mean, log_variance = jnp.split(params["inputs"]["kernel"] @ controller + params["inputs"]["bias"], 2)
    log_variance = _clip_log_variance(log_variance)
    drawn = mean if fixed["noise"] is None else mean + jnp.exp(0.5 * log_variance) * fixed["noise"]
    generator = cell(params["generator"], shared["generator"], state["generator"], drawn, clip, known["generator"])
    return {
        "controller": controller,
        "generator": generator,
        "factors": params["factors"] @ _augment.drop_out(generator, fixed["generator"], rate),
        "mean": mean,
        "log_variance": log_variance,
    }


def window_terms(
    params: PyTree,
    config: LFADSConfig,
    inputs: Float[Array, "batch time channel"],
    target: Float[Array, "batch time channel"],
    noise: dict[str, Array] | None = None,
    posterior_noise: Float[Array, "time batch n_input"] | None = None,
    masks: dict[str, Array] | None = None,
    rate: Float[Array, ""] | float = 0.0,
    grad_mask: Bool[Array, "batch time channel"] | None = None,
) -> dict[str, Float[Array, " batch"]]:
    """Compute the terms of the loss, without their scales.

    Parameters
    ----------
    params, config
        The model.
    inputs
        Of `prepare_inputs`.
    target
        The data that are to be explained.
    noise
        Of `draw_noise`; None for posterior means.
    posterior_noise
        Standard normal numbers behind the sample by which the divergence of the inputs is estimated; None puts the
        sample at the mean.
    masks, rate
        Dropout: of `draw_masks`, and its rate; None for none.
    grad_mask
        Where the likelihood has a gradient; None: everywhere.

    Returns
    -------
    dict
        Of each window "nll", the mean over its data, and "kl_ic", "kl_co", the divergences of initial condition and
        inputs from their priors, summed over dimensions and time.
    """
    code = encode(params, config, inputs, masks, rate)
    out = decode(params, config, code, noise, masks, rate)
    nll = config.observation.nll(out["raw"], target.swapaxes(0, 1))
    if grad_mask is not None:
        nll = jnp.where(grad_mask.swapaxes(0, 1), nll, jax.lax.stop_gradient(nll))
    sample = out["mean"]
    if posterior_noise is not None:
        sample = sample + jnp.exp(0.5 * out["log_variance"]) * posterior_noise.astype(sample.dtype)
    posterior = _priors.gaussian_log(sample, out["mean"], out["log_variance"]).sum((0, 2))
    prior = _priors.autoregressive_log(sample, **params["inputs_prior"])
    kl_ic = _priors.gaussian_kl(code["mean"], code["variance"], params["ic_prior"]["mean"], 0.1)
    return {"nll": nll.mean((0, 2)), "kl_ic": kl_ic, "kl_co": posterior - prior}


def loss_terms(
    params: PyTree, config: LFADSConfig, inputs: Array, target: Array, **options: Any
) -> dict[str, Float[Array, ""]]:
    """Average `window_terms` over the batch."""
    return jax.tree.map(jnp.mean, window_terms(params, config, inputs, target, **options))


def penalty(params: PyTree, scales: dict[str, Any]) -> Float[Array, ""]:
    """Compute sum_k s_k |U_k|^2 / 2, over the number of weights, for recurrent kernels U_k with a scale s_k above zero.

    Parameters
    ----------
    params
        Weights of the model.
    scales
        For "generator", "controller", "ci_encoder", "ic_encoder" or some of them.
    """
    total, count = jnp.zeros(()), jnp.zeros(())
    for name, scale in scales.items():
        layer = params[name]
        layers = [layer] if "recurrent" in layer else [layer["forward"], layer["backward"]]
        for kernel in (one["recurrent"] for one in layers):
            total = total + 0.5 * scale * (kernel**2).sum()
            count = count + jnp.where(jnp.asarray(scale) > 0, kernel.size, 0)
    return total / (count + 1e-8)


def _affine(params: dict[str, Array], x: Array) -> Array:
    return x @ params["kernel"] + params["bias"]


def _repeat_columns(values: Array, batch: int) -> Array:
    return jnp.broadcast_to(values[:, None], (len(values), batch))


def _clip_log_variance(log_variance: Array) -> Array:
    return jnp.clip(log_variance, -_SPREAD, _SPREAD)
