"""The sequential autoencoder as a population trains it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check
from jaxm2m.emg.lfads import _augment, _model
from jaxm2m.emg.lfads._model import LFADSConfig
from jaxm2m.emg.lfads._observation import observation_settings, parse_observation

_MODEL = "sequential_vae"  # in the settings of a run
_SCALE = 1e4  # of the loss, so that small gradients stay clear of rounding


@dataclass(frozen=True)
class SequentialVAE:
    """The sequential autoencoder as a `population.Trainable`.

    It takes windows (batch, time + 2 margin, channels) and these hyperparameters, all scalars:

    - "learning_rate" of Adam;
    - "dropout", the rate of it in the model;
    - "coordinated_dropout", the share of the inputs that is hidden, and alone counts for the gradient;
    - "l2_generator", "l2_controller", scales of the penalties of recurrent weights;
    - "kl_ic", "kl_co", scales of the divergences of the initial condition and of the inferred inputs.

    The loss is 1e4 (nll + ramp (l2 + kl_ic KL_ic + kl_co KL_co)); its terms are recorded without their scales, as
    "nll", "l2", "divergence_ic" and "divergence_co".

    Parameters
    ----------
    config
        The architecture.
    offset
        One number for each channel, by which the inputs are centred (see `init`): the mean over the training data of
        `config.observation.inputs(data)`. Empty: zeros.
    margin
        Bins of the windows on both sides that are there to shift into, and the largest shift.
    shift
        Standard deviation of the temporal shift, bins.
    ramp
        Steps of a member's life over which penalties and divergences grow linearly to their scales (the paper's 50
        epochs of about 10 steps).
    decay
        Steps over which the learning rate falls by a cosine to 3 % of itself, where it stays; 0: it is constant.
    trained
        The parts of the weights (names of `init`) that are trained, all others stay as they are; empty: all.
    compared
        What members are compared by, on windows that are not trained on: "likelihood", the negative logarithm at the
        posterior means; or "bound", that of a sample of the posterior and the divergences, both as large as they are, 1
        / (time x channels). The likelihood does not penalise codes that carry more than is there.

    Raises
    ------
    TypeError, ValueError
        ArrayLike out of range, or an offset of another number of channels.
    """

    config: LFADSConfig
    offset: tuple[float, ...] = ()
    margin: int = 6
    shift: float = 3.0
    ramp: int = 500
    decay: int = 0
    trained: tuple[str, ...] = ()
    compared: str = "likelihood"

    def __post_init__(self):
        _check.integer(self.margin, "margin", minimum=0)
        _check.integer(self.ramp, "ramp", minimum=0)
        _check.integer(self.decay, "decay", minimum=0)
        _check.positive(self.shift, "shift")
        _check.finite(self.offset, "offset")
        _check.option(self.compared, ("likelihood", "bound"), "compared")
        if self.offset and len(self.offset) != self.config.channels:
            raise ValueError(
                f"offset: {len(self.offset)} numbers for {self.config.channels} channels; pass one a channel, or none."
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes it this model, by name, as plain JSON values.

        A run that is continued must have the same.
        """
        config = asdict(self.config) | {"observation": observation_settings(self.config.observation)}
        lists = {"offset": [float(x) for x in self.offset], "trained": list(self.trained)}
        return {"model": _MODEL} | asdict(self) | {"config": config} | lists

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Draw the weights of a new member.

        Parameters
        ----------
        key
            Draws the weights.

        Returns
        -------
        PyTree
            Dicts of arrays, by part of the model.
        """
        return _model.init(key, self.config, jnp.asarray(self.offset) if self.offset else None)

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """Return Adam after clipping the gradient's norm at 200.

        Parameters
        ----------
        hyper
            Hyperparameters by name, scalars, no unit.

        Returns
        -------
        optax.GradientTransformation
            The optimiser of the `trained` parts.
        """
        rate = hyper["learning_rate"]

        def schedule(step: Array) -> Array:
            done = jnp.clip(step / max(self.decay, 1), 0, 1)
            return rate * (0.03 + 0.97 * 0.5 * (1 + jnp.cos(jnp.pi * done)))

        # a schedule even where the rate is constant: the state of a member is of one form
        by_step = schedule if self.decay else lambda step: rate
        clipped = optax.chain(optax.clip_by_global_norm(200.0), optax.adam(by_step, b1=0.9, b2=0.99, eps=1e-8))
        adam = optax.flatten(clipped)  # one vector: a quarter less to compile than leaf by leaf
        if not self.trained:
            return adam
        parts = {True: adam, False: optax.set_to_zero()}
        return optax.multi_transform(parts, lambda params: {name: name in self.trained for name in params})

    def loss(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: Float[Array, "batch wide channel"],
        key: Key[Array, ""],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Compute the loss of a batch of windows, shifted, masked and dropped at random.

        Parameters
        ----------
        params
            Weights.
        hyper
            Hyperparameters by name, scalars, no unit.
        batch
            Windows (batch, time + 2 margin, channels), normalised EMG.
        key
            Draws shifts, masks and noise.
        step
            Number of the optimiser's steps in the member's life, for the ramp.

        Returns
        -------
        loss : scalar
            The loss, no unit.
        terms : dict
            Its terms by name, scalars.
        """
        keys = jax.random.split(key, 6)
        source = _augment.shift_windows(keys[0], batch, self.margin, self.shift)
        target = _augment.shift_windows(keys[1], batch, self.margin, self.shift)
        hidden = hyper["coordinated_dropout"]
        bits = _augment.draw_mask_bits(keys[2], source.shape)
        inputs = _augment.drop_out(_model.prepare_inputs(params, self.config, source), bits, hidden)
        count, time, _ = source.shape
        terms = _model.loss_terms(
            params,
            self.config,
            inputs,
            target,
            noise=_model.draw_noise(keys[3], self.config, count, time),
            posterior_noise=jax.random.normal(keys[4], (time, count, self.config.co_dim)),
            masks=_model.draw_masks(keys[5], self.config, count, time),
            rate=hyper["dropout"],
            # where nothing is hidden, everything counts
            grad_mask=~_augment.keep_mask(bits, hidden) | (hidden == 0),
        )
        scales = {"generator": hyper["l2_generator"], "controller": hyper["l2_controller"]}
        terms["l2"] = _model.penalty(params, scales)
        ramp = jnp.clip(step / max(self.ramp, 1), 0, 1) if self.ramp else 1.0
        divergence = hyper["kl_ic"] * terms["kl_ic"] + hyper["kl_co"] * terms["kl_co"]
        loss = _SCALE * (terms["nll"] + ramp * (terms["l2"] + divergence))
        # the names of the scales are taken in a run's history
        recorded = {"divergence_ic": terms["kl_ic"], "divergence_co": terms["kl_co"]}
        return loss, {"nll": terms["nll"], "l2": terms["l2"]} | recorded

    def score(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: Float[Array, "batch wide channel"],
        key: Key[Array, ""],
    ) -> Float[Array, " batch"]:
        """Compute what members are `compared` by, of each window without its margins.

        Parameters
        ----------
        params
            Weights.
        hyper
            Hyperparameters, scalars, no unit; none is used.
        batch
            Windows (batch, time + 2 margin, channels), normalised EMG.
        key
            Draws the posterior sample of "bound".

        Returns
        -------
        array
            (batch,) scores, nats for each value of a window; the lower, the better.
        """
        del hyper
        data = _augment.crop_margins(batch, self.margin)
        count, time, channels = data.shape
        inputs = _model.prepare_inputs(params, self.config, data)
        if self.compared == "likelihood":
            raw = _model.decode(params, self.config, _model.encode(params, self.config, inputs))["raw"]
            return self.config.observation.nll(raw, data.swapaxes(0, 1)).mean((0, 2))
        one, two = jax.random.split(key)
        noise = _model.draw_noise(one, self.config, count, time)
        posterior_noise = jax.random.normal(two, (time, count, self.config.co_dim))
        terms = _model.window_terms(params, self.config, inputs, data, noise, posterior_noise)
        return terms["nll"] + (terms["kl_ic"] + terms["kl_co"]) / (time * channels)


def is_sequential_vae(model: Mapping[str, Any]) -> bool:
    """Tell whether a model's settings are those of a `SequentialVAE`."""
    return model.get("model") == _MODEL


def parse_settings(model: Mapping[str, Any]) -> SequentialVAE:
    """Read `SequentialVAE.settings`; `KeyError`, `TypeError` or `ValueError` if they are damaged."""
    settings = {name: value for name, value in model.items() if name != "model"}
    config = dict(settings.pop("config"))
    observation = parse_observation(config.pop("observation"))
    offset, trained = tuple(float(x) for x in settings.pop("offset")), tuple(settings.pop("trained"))
    return SequentialVAE(LFADSConfig(**config, observation=observation), offset=offset, trained=trained, **settings)
