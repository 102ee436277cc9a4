"""The sequential autoencoder as a population trains it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check
from jaxm2m.emg import _augment, _model
from jaxm2m.emg._model import Sizes

_SCALE = 1e4  # of the loss, so that small gradients stay clear of rounding


@dataclass(frozen=True)
class SequentialVAE:
    """A `population.Trainable`: windows (batch, time + 2 margin, channels) and these hyperparameters, all scalars:

    - "learning_rate" of Adam;
    - "dropout", the rate of it in the model;
    - "coordinated_dropout", the share of the inputs that is hidden, and alone counts for the gradient;
    - "l2_generator", "l2_controller", scales of the penalties of recurrent weights;
    - "kl_ic", "kl_co", scales of the divergences of the initial condition and of the inferred inputs.

    The loss is 1e4 (nll + ramp (l2 + kl_ic KL_ic + kl_co KL_co)); its terms are recorded without their scales, as
    "nll", "l2", "divergence_ic" and "divergence_co".

    Parameters
    ----------
    sizes
        The architecture.
    offset
        One number a channel, by which the inputs are centred (see `init`): the mean over the training data of
        `sizes.observation.inputs(data)`. Empty: zeros.
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
        posterior means; or "bound", that of a sample of the posterior and the divergences, both as large as they are,
        1 / (time x channels). The likelihood tells nothing of codes that carry more than is there.

    Raises
    ------
    TypeError, ValueError
        Numbers out of range, or an offset of another number of channels.
    """

    sizes: Sizes
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
        if self.offset and len(self.offset) != self.sizes.channels:
            raise ValueError(
                f"offset: {len(self.offset)} numbers for {self.sizes.channels} channels; pass one a channel, or none."
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes it this model, by name: numbers and text."""
        own = asdict(self)
        sizes = own.pop("sizes") | {"observation": repr(self.sizes.observation)}
        own |= {"offset": " ".join(repr(float(x)) for x in self.offset), "trained": " ".join(self.trained)}
        return {"model": "sequential VAE", **sizes, **own}

    def init(self, key: Key[Array, ""]) -> PyTree:
        """The weights of a new member."""
        return _model.init(key, self.sizes, jnp.asarray(self.offset) if self.offset else None)

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """Adam after clipping the gradient's norm at 200."""
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
        """The loss of a batch of windows, shifted, masked and dropped at random, and its terms by name."""
        keys = jax.random.split(key, 6)
        source = _augment.shifted(keys[0], batch, self.margin, self.shift)
        target = _augment.shifted(keys[1], batch, self.margin, self.shift)
        hidden = hyper["coordinated_dropout"]
        bits = _augment.masks(keys[2], source.shape)
        inputs = _augment.dropped(_model.encoded(params, self.sizes, source), bits, hidden)
        count, time, _ = source.shape
        terms = _model.loss_terms(
            params,
            self.sizes,
            inputs,
            target,
            noise=_model.draw_noise(keys[3], self.sizes, count, time),
            fresh=jax.random.normal(keys[4], (time, count, self.sizes.inputs)),
            masks=_model.draw_masks(keys[5], self.sizes, count, time),
            rate=hyper["dropout"],
            # where nothing is hidden, everything counts
            graded=~_augment.kept(bits, hidden) | (hidden == 0),
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
        """What members are `compared` by, of each window without its margins."""
        del hyper
        data = _augment.central(batch, self.margin)
        count, time, channels = data.shape
        inputs = _model.encoded(params, self.sizes, data)
        if self.compared == "likelihood":
            raw = _model.decode(params, self.sizes, _model.encode(params, self.sizes, inputs))["raw"]
            return self.sizes.observation.nll(raw, data.swapaxes(0, 1)).mean((0, 2))
        one, two = jax.random.split(key)
        noise = _model.draw_noise(one, self.sizes, count, time)
        fresh = jax.random.normal(two, (time, count, self.sizes.inputs))
        terms = _model.window_terms(params, self.sizes, inputs, data, noise, fresh)
        return terms["nll"] + (terms["kl_ic"] + terms["kl_co"]) / (time * channels)
