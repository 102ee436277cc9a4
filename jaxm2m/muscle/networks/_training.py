"""Autoencoder and mapper as a population trains them.

What is fitted to a fold's own trials before (the range of the fields, the mask, the largest MEPs, the synergies) lies
in the weights under "fixed", member by member, and is never stepped.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check
from jaxm2m.muscle.networks import _networks
from jaxm2m.muscle.networks._networks import Decoder, Encoder, Head, Mapper, NetworkConfig

OPTIMIZERS = ("adagrad", "adam", "adadelta", "sgd")
CRITERIA = ("cross-entropy", "squared error")


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Attributes
    ----------
    optimizer
        "adagrad", "adam", "adadelta", or "sgd" with a momentum of 0.9.
    learning_rate, l1, l2, dropout
        Hyperparameters; penalties are of the kernels (of mapper and head, or of the autoencoder), dropout is behind the
        mapper's dense layers.
    batch_size
        Trials of a step.
    epochs
        Largest number of epochs.
    patience
        Tenths of the epochs without improvement, by trials of the fold's training set that are held out for it, that
        end the training of a member; its best weights are taken in any case. None: all epochs.
    lr_decay
        (every, factor): the learning rate is multiplied by the factor every so many epochs; None: it is constant.
    criterion
        Criterion of the mapper: "cross-entropy" or "squared error" of MEPs scaled to [0, 1]. Autoencoders: squared
        error.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    batch_size: int = 16
    epochs: int = 100
    patience: int | None = None
    l1: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0
    lr_decay: tuple[int, float] | None = None
    criterion: str = "cross-entropy"

    def __post_init__(self):
        _check.option(self.optimizer, OPTIMIZERS, "optimizer")
        _check.option(self.criterion, CRITERIA, "criterion")
        _check.positive(self.learning_rate, "learning_rate")
        _check.integer(self.batch_size, "batch_size")
        _check.integer(self.epochs, "epochs")
        for name in ("l1", "l2", "dropout"):
            _check.positive(getattr(self, name), name, zero=True)
        if self.dropout >= 1:
            raise ValueError(f"dropout: {self.dropout:g}; must be below 1.")

    @property
    def hyper(self) -> dict[str, float]:
        """The hyperparameters by name, as weights, rates and fractions without unit."""
        return {name: getattr(self, name) for name in ("learning_rate", "l1", "l2", "dropout")}


@dataclass(frozen=True)
class FieldAutoencoder:
    """Volumes to a code and back, as a `population.Trainable`: {"x": (batch, nx, ny, nz, channels)}.

    The loss is the mean squared error of x / scale over the voxels of the mask.

    Attributes
    ----------
    config
        Architecture of encoder and decoder.
    optimizer_name
        Optimiser of `TrainingConfig`.
    lr_decay
        (steps, factor) of the learning rate; empty: constant.
    """

    config: NetworkConfig
    optimizer_name: str = "adagrad"
    lr_decay: tuple[float, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes it this model, by name."""
        return {"model": "field autoencoder"} | _settings(self)

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Draw the weights of a new member; the range is 1, the mask everywhere."""
        one, two = jax.random.split(key)
        dtype = jnp.result_type(float)
        return {
            "encoder": _networks.init(one, Encoder, self.config),
            "decoder": _networks.init(two, Decoder, self.config),
            "fixed": {"mask": jnp.ones((*self.config.shape, 1), dtype), "scale": jnp.ones((), dtype)},
        }

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """Step what is not fixed."""
        return step_parts(
            make_optimizer(self.optimizer_name, hyper["learning_rate"], self.lr_decay), ("encoder", "decoder")
        )

    def loss(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: dict[str, Array],
        key: Key[Array, ""],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Compute squared error and penalties."""
        del key, step
        error = self._errors(params, batch["x"]).mean()
        return error + _penalty({k: params[k] for k in ("encoder", "decoder")}, hyper), {"error": error}

    def score(
        self, params: PyTree, hyper: dict[str, Float[Array, ""]], batch: dict[str, Array], key: Key[Array, ""]
    ) -> Float[Array, " batch"]:
        """Compute the mean squared error of each trial."""
        del hyper, key
        return self._errors(params, batch["x"])

    def _errors(self, params: PyTree, x: Array) -> Array:
        mask, x = params["fixed"]["mask"], scale_volumes(params["fixed"], x)
        code, _ = _networks.apply(params["encoder"], Encoder, self.config)(x)
        volume, _ = _networks.apply(params["decoder"], Decoder, self.config)(code)
        squares = ((volume * mask - x) ** 2).sum((1, 2, 3, 4))
        return squares / (jnp.maximum(mask.sum(), 1) * self.config.channels)


@dataclass(frozen=True)
class MuscleMapper:
    """Volumes, or codes, to MEPs, as a `population.Trainable`: {"x": (batch, ...), "y": (batch, muscles) uV}.

    Attributes
    ----------
    config
        Architecture of encoder and mapper.
    muscles, synergies
        Numbers of muscles and synergies of the head.
    optimizer_name, lr_decay, criterion
        Of `TrainingConfig`.
    tuned
        Whether x are volumes, and the encoder is trained with the mapper; else x are codes.
    residual
        Whether the logits of a first network, under "first" in the weights, are added, which stay as they are: the
        two-stage form, in which the direct part is fitted to what the synergies left.
    """

    config: NetworkConfig
    muscles: int
    synergies: int
    optimizer_name: str = "adam"
    lr_decay: tuple[float, ...] = ()
    criterion: str = "cross-entropy"
    tuned: bool = True
    residual: bool = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes it this model, by name."""
        return {"model": "muscle mapper"} | _settings(self)

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Draw the weights of a new member; what is fixed is neutral."""
        keys = jax.random.split(key, 3)
        dtype = jnp.result_type(float)
        config = (self.config.hidden[-1], self.muscles, self.synergies)
        params = {
            "mapper": _networks.init(keys[1], Mapper, self.config),
            "head": _networks.init(keys[2], Head, *config),
            "statistics": _networks.statistics(Mapper, self.config),
            "fixed": {
                "code": jnp.array([0.0, 1.0], dtype),
                "largest": jnp.ones(self.muscles, dtype),
                "synergies": jnp.full((self.muscles, self.synergies), 1 / self.muscles, dtype),
                "parts": jnp.ones(2, dtype),
            },
        }
        if self.tuned:
            params["encoder"] = _networks.init(keys[0], Encoder, self.config)
            params["fixed"] |= {"mask": jnp.ones((*self.config.shape, 1), dtype), "scale": jnp.ones((), dtype)}
        if self.residual:
            params["first"] = {name: params[name] for name in params if name != "first"}
        return params

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """Step encoder, mapper and head; all else stays, and running statistics are set by `loss`."""
        return step_parts(
            make_optimizer(self.optimizer_name, hyper["learning_rate"], self.lr_decay), ("encoder", "mapper", "head")
        )

    def loss(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: dict[str, Array],
        key: Key[Array, ""],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], dict[str, PyTree]]:
        """Compute criterion and penalties; and the running statistics, which follow the batch."""
        del step
        rate = hyper["dropout"]

        def drop(i: int, x: Array) -> Array:
            keep = jax.random.uniform(jax.random.fold_in(key, i), x.shape, x.dtype) >= rate
            return jnp.where(keep, x / (1 - rate), 0)

        logits, statistics = self._logits(params, batch["x"], drop, training=True)
        error = self._errors(params, logits, batch["y"]).mean()
        total = error + _penalty({k: params[k] for k in ("mapper", "head")}, hyper)
        return total, {"error": error}, {"statistics": statistics}

    def score(
        self, params: PyTree, hyper: dict[str, Float[Array, ""]], batch: dict[str, Array], key: Key[Array, ""]
    ) -> Float[Array, " batch"]:
        """Compute the criterion of each trial."""
        del hyper, key
        return self._errors(params, self._logits(params, batch["x"])[0], batch["y"])

    def predict(self, params: PyTree, x: Array) -> Float[Array, "batch muscle"]:
        """Predict MEPs scaled to [0, 1]."""
        return jax.nn.sigmoid(self._logits(params, x)[0])

    def average(self, params: PyTree, x: Array) -> Float[Array, "batch muscle"]:
        """Average the predictions of several networks: weights with the network first."""
        return jax.vmap(self.predict, (0, None))(params, x).mean(0)

    def _logits(self, params: PyTree, x: Array, drop: Any = None, training: bool = False) -> tuple[Array, PyTree]:
        fixed = params["fixed"]
        if self.tuned:
            code, _ = _networks.apply(params["encoder"], Encoder, self.config)(scale_volumes(fixed, x))
        else:
            code = x
        low, high = fixed["code"]
        code = (code - low) / (high - low)
        mapper = _networks.apply(params["mapper"], Mapper, self.config, kept=params["statistics"])
        features, statistics = mapper(code, drop, training)
        head = _networks.apply(params["head"], Head, self.config.hidden[-1], self.muscles, self.synergies)
        logits, _ = head(features, fixed["synergies"], fixed["parts"])
        if "first" in params:
            logits = logits + jax.lax.stop_gradient(self._logits(params["first"], x)[0])
        return logits, statistics

    def _errors(self, params: PyTree, logits: Array, y: Array) -> Array:
        target = y / params["fixed"]["largest"]
        if self.criterion == "squared error":
            return ((jax.nn.sigmoid(logits) - target) ** 2).mean(-1)
        return (jax.nn.softplus(logits) - target * logits).mean(-1)


def scale_volumes(fixed: PyTree, x: Float[Array, "*b x y z c"]) -> Float[Array, "*b x y z c"]:
    """Scale volumes to what the networks see: the range of the fold's training trials, zero outside its mask."""
    return x * fixed["mask"] / fixed["scale"]


def make_optimizer(name: str, rate: Array, lr_decay: tuple[float, ...]) -> optax.GradientTransformation:
    """Make the optimiser of that name; `lr_decay` as in `FieldAutoencoder`."""

    def schedule(step: Array) -> Array:
        # a schedule even where the rate is constant: the state of a member is of one form
        return rate * lr_decay[1] ** (step // int(lr_decay[0])) if lr_decay else rate * jnp.ones_like(rate)

    match name:
        case "adagrad":
            return optax.adagrad(schedule)
        case "adadelta":
            return optax.adadelta(schedule)
        case "sgd":
            return optax.sgd(schedule, momentum=0.9)
    return optax.adam(schedule)


def step_parts(stepping: optax.GradientTransformation, stepped: tuple[str, ...]) -> optax.GradientTransformation:
    """Step some parts of the weights; all others stay."""
    rules = {"stepped": optax.flatten(stepping), "still": optax.set_to_zero()}
    return optax.multi_transform(
        rules, lambda params: {name: "stepped" if name in stepped else "still" for name in params}
    )


def _penalty(params: PyTree, hyper: dict[str, Array]) -> Array | int:
    """Penalise kernels, not biases."""
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]
    return sum(hyper["l1"] * jnp.abs(k).sum() + hyper["l2"] * (k**2).sum() for k in kernels)


def _settings(trainable: "FieldAutoencoder | MuscleMapper") -> dict[str, Any]:
    settings = asdict(trainable)
    # under its name of version 0.1, so that runs that this began go on
    settings["fall"] = settings.pop("lr_decay")
    return {name: str(value) for name, value in (settings.pop("config") | settings).items()}
