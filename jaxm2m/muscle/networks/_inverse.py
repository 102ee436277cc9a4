r"""From muscles to fields: a variational decoder, in the direction of M2M-InvNet.

    y = log(m / largest + 0.01) of MEPs m, standardised
    y -> 16 -> 32 -> mean mu, log variance s of z (16)        z = mu + exp(s / 2) eps
    z -> code -> the autoencoder's decoder -> d, the volume x' = mean over the training trials + deviation d

    loss = mean (x' - x)^2 over the mask / 2 deviation^2 + beta KL(N(mu, exp s) | N(0, 1)) / voxels of the mask

with the deviation of the training trials from their mean, one number. MEPs are near log-normal; the decoder has the
same weights everywhere and cannot say what is always there; and an error that is not held against the deviation leaves
little but the prior (together they made it worse than the mean field). Many fields give the same MEPs: a draw of z is
one of those that the data make likely, the mean their average.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check
from jaxm2m._pytree import register
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import Grid
from jaxm2m.muscle.networks import _networks
from jaxm2m.muscle.networks._folds import measure_range, split
from jaxm2m.muscle.networks._networks import Decoder, NetworkConfig
from jaxm2m.muscle.networks._options import TrainingOptions, refuse_unused
from jaxm2m.muscle.networks._presets import NetworkPreset
from jaxm2m.muscle.networks._stored import load_folder, parse_network, save_folder
from jaxm2m.muscle.networks._training import TrainingConfig, make_optimizer, scale_volumes, step_parts
from jaxm2m.muscle.networks._trials import prepare_trials
from jaxm2m.muscle.responses._meps import Meps
from jaxm2m.muscle.responses._scaling import Scaling
from jaxm2m.population import Dataset, Independent, SearchSpace, train

CONTENT = "jaxm2m inverse muscle model"
_LEVEL = 0.01  # of the largest MEP
_SINCE_0_2 = ("mean", "deviation", "middle", "spread")  # which models of 0.1 lack


class Posterior(nnx.Module):
    """MEPs to the mean and the log variance of z."""

    def __init__(self, muscles: int, latent: int, *, rngs: nnx.Rngs):
        dtype = jnp.result_type(float)
        self.dense0 = nnx.Linear(muscles, 16, param_dtype=dtype, rngs=rngs)
        self.dense1 = nnx.Linear(16, 32, param_dtype=dtype, rngs=rngs)
        self.both = nnx.Linear(32, 2 * latent, param_dtype=dtype, rngs=rngs)

    def __call__(self, m: Float[Array, "b muscle"]) -> Float[Array, "b two_latent"]:
        return self.both(jax.nn.elu(self.dense1(jax.nn.elu(self.dense0(m)))))


class Expansion(nnx.Module):
    """z to a code."""

    def __init__(self, latent: int, config: NetworkConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.dense = nnx.Linear(latent, int(np.prod(config.code)), param_dtype=jnp.result_type(float), rngs=rngs)

    def __call__(self, z: Float[Array, "b latent"]) -> Float[Array, "b u v w f"]:
        return jax.nn.elu(self.dense(z)).reshape(len(z), *self.config.code)


@dataclass(frozen=True)
class FieldGenerator:
    """MEPs to volumes, as a `population.Trainable`: {"x": (batch, nx, ny, nz, channels), "y": (batch, muscles) uV}.

    Attributes
    ----------
    config
        Architecture of code and decoder.
    muscles, latent
        Numbers of muscles, and of dimensions of z.
    optimizer_name
        Optimiser of `TrainingConfig`.
    beta
        Weight of the divergence.
    log
        Whether MEPs enter by their logarithms; models of 0.1 took them as they are.
    """

    config: NetworkConfig
    muscles: int
    latent: int = 16
    optimizer_name: str = "adam"
    beta: float = 1.0
    log: bool = True

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes it this model, by name."""
        settings = asdict(self)
        return {"model": "field generator"} | {
            name: str(value) for name, value in (settings.pop("config") | settings).items()
        }

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Draw the weights of a new member; what is fixed is neutral."""
        keys = jax.random.split(key, 3)
        dtype = jnp.result_type(float)
        return {
            "posterior": _networks.init(keys[0], Posterior, self.muscles, self.latent),
            "expansion": _networks.init(keys[1], Expansion, self.latent, self.config),
            "decoder": _networks.init(keys[2], Decoder, self.config),
            "fixed": {
                "mask": jnp.ones((*self.config.shape, 1), dtype),
                "scale": jnp.ones((), dtype),
                "largest": jnp.ones(self.muscles, dtype),
                "mean": jnp.zeros((*self.config.shape, self.config.channels), dtype),
                "deviation": jnp.ones((), dtype),
                "middle": jnp.zeros(self.muscles, dtype),
                "spread": jnp.ones(self.muscles, dtype),
            },
        }

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """Step what is not fixed."""
        return step_parts(
            make_optimizer(self.optimizer_name, hyper["learning_rate"], ()), ("posterior", "expansion", "decoder")
        )

    def loss(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: dict[str, Array],
        key: Key[Array, ""],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Compute the squared error of a draw, and the divergence."""
        del hyper, step
        mean, spread = self.posterior(params, batch["y"])
        z = mean + jnp.exp(spread / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        error = self._errors(params, z, batch["x"]).mean()
        divergence = 0.5 * (jnp.exp(spread) + mean**2 - 1 - spread).sum(-1).mean()
        weight = self.beta / jnp.maximum(params["fixed"]["mask"].sum(), 1)
        loss = error / (2 * params["fixed"]["deviation"] ** 2) + weight * divergence
        return loss, {"error": error, "divergence": divergence}

    def score(
        self, params: PyTree, hyper: dict[str, Float[Array, ""]], batch: dict[str, Array], key: Key[Array, ""]
    ) -> Float[Array, " batch"]:
        """Compute the squared error at the mean of z, of each trial."""
        del hyper, key
        return self._errors(params, self.posterior(params, batch["y"])[0], batch["x"])

    def posterior(self, params: PyTree, meps: Float[Array, "b muscle"]) -> tuple[Array, Array]:
        """Compute mean and log variance of z, (batch, latent), for MEPs in uV."""
        fixed = params["fixed"]
        x = (self.scale_meps(meps, fixed["largest"]) - fixed["middle"]) / fixed["spread"]
        output, _ = _networks.apply(params["posterior"], Posterior, self.muscles, self.latent)(x)
        mean, spread = jnp.split(output, 2, axis=-1)
        return mean, jnp.clip(spread, -10, 10)

    def scale_meps(self, meps: Float[Array, "b muscle"], largest: Float[Array, " muscle"]) -> Float[Array, "b muscle"]:
        """Compute shares of the largest MEPs, or their logarithms; those of MEPs under a hundredth level off."""
        shares = meps / largest
        return jnp.log(shares + _LEVEL) if self.log else shares

    def decode(self, params: PyTree, z: Float[Array, "b latent"]) -> Float[Array, "b x y z c"]:
        """Decode volumes in the range of the training trials, zero outside their mask."""
        code, _ = _networks.apply(params["expansion"], Expansion, self.latent, self.config)(z)
        volume, _ = _networks.apply(params["decoder"], Decoder, self.config)(code)
        fixed = params["fixed"]
        return (fixed["mean"] + fixed["deviation"] * volume) * fixed["mask"]

    def _errors(self, params: PyTree, z: Array, x: Array) -> Array:
        fixed = params["fixed"]
        squares = ((self.decode(params, z) - scale_volumes(fixed, x)) ** 2).sum((1, 2, 3, 4))
        return squares / (jnp.maximum(fixed["mask"].sum(), 1) * self.config.channels)


@partial(register, static=["generator", "kind", "muscles", "score"])
@dataclass(frozen=True, eq=False, repr=False)
class InverseModel:
    """Fields that may have caused MEPs, as a function of the MEPs; a pytree.

    Attributes
    ----------
    params
        Weights, and what was fitted to the training trials.
    affine
        (4, 4) of the volumes, index -> mm.
    generator
        The networks.
    kind
        "field" (V/m) or "rate".
    muscles
        Names of the muscles.
    score
        Mean squared error of the held-out trials, in the range of the training trials.
    """

    params: PyTree
    affine: Any
    generator: FieldGenerator
    kind: str
    muscles: tuple[str, ...]
    score: float

    def __repr__(self) -> str:
        what = "E-field" if self.kind == "field" else "firing rate"
        shape = " x ".join(map(str, self.generator.config.shape))
        return f"InverseModel({len(self.muscles)} muscles to {what} of {shape})"

    def __call__(self, meps: ArrayLike, *, key: Key[Array, ""] | None = None) -> Float[Array, "*batch x y z c"]:
        """Compute volumes for MEPs.

        Parameters
        ----------
        meps
            (..., n_muscle) MEPs, uV.
        key
            Draws z; None: its mean is taken.

        Returns
        -------
        array
            (..., nx, ny, nz, channels), V/m or firing rates.
        """
        values = jnp.asarray(_check.positive(meps, "meps", zero=True), jnp.result_type(float))
        if not values.ndim or values.shape[-1] != len(self.muscles):
            raise ValueError(f"meps: shape {values.shape}; the last axis must hold {len(self.muscles)} muscles.")
        mean, spread = self.generator.posterior(self.params, values.reshape(-1, values.shape[-1]))
        if key is not None:
            mean = mean + jnp.exp(spread / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        volume = self.generator.decode(self.params, mean) * self.params["fixed"]["scale"]
        return volume.reshape(*values.shape[:-1], *volume.shape[1:])

    def save(self, path: PathLike) -> Path:
        """Write a folder: `model.json`, and the weights by Orbax. It appears whole or not at all.

        Parameters
        ----------
        path
            The folder to be made.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        FileExistsError
            There is something of that name.
        """
        text = {
            "generator": asdict(self.generator),
            "kind": self.kind,
            "muscles": list(self.muscles),
            "score": float(self.score),
            "precision": str(np.asarray(self.params["fixed"]["largest"]).dtype),
        }
        return save_folder(path, CONTENT, text, {"params": self.params, "affine": self.affine})

    @classmethod
    def load(cls, path: PathLike) -> "InverseModel":
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The folder. Models of version 0.1 are read too.

        Returns
        -------
        InverseModel
            The model of the folder.

        Raises
        ------
        FileNotFoundError, ValueError
            No model is there, or one of another kind or version.
        """
        return load_folder(path, CONTENT, _parse_model)


def _parse_model(text: dict[str, Any]) -> tuple[PyTree, Callable[[PyTree], InverseModel]]:
    """Return the shapes of the weights that `InverseModel.save` wrote with `text`, and the model that they make."""
    config, settings = parse_network(text["generator"])
    older = "log" not in settings
    generator = FieldGenerator(config, **{"log": not older, **settings})
    dtype = np.dtype(text["precision"])
    kind, muscles, score = str(text["kind"]), tuple(text["muscles"]), float(text["score"])
    start = jax.eval_shape(generator.init, jax.random.key(0))
    if older:
        start["fixed"] = {name: a for name, a in start["fixed"].items() if name not in _SINCE_0_2}
    like = {
        "params": jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), start),
        "affine": jax.ShapeDtypeStruct((4, 4), dtype),
    }

    def make(arrays: PyTree) -> InverseModel:
        neutral = generator.init(jax.random.key(0))["fixed"] if older else {}
        arrays["params"]["fixed"] = neutral | arrays["params"]["fixed"]
        return InverseModel(arrays["params"], arrays["affine"], generator, kind, muscles, score)

    return like, make


def fit_inverse(
    fields: PathLike | ArrayLike,
    meps: Meps | ArrayLike,
    *,
    grid: Grid,
    key: Key[Array, ""],
    rate: FiringRate | None = None,
    muscles: Sequence[str] | None = None,
    didt: ArrayLike | None = None,
    preset: str | NetworkPreset = "small",
    training: TrainingConfig | None = None,
    latent: int = 16,
    beta: float | int = 1.0,
    options: TrainingOptions | None = None,
    progress: bool | None = None,
) -> InverseModel:
    """Train the way back, from MEPs to the field or the firing rate.

    Parameters
    ----------
    fields
        (n_stimulus, n_point, 3) or (n_stimulus, nx, ny, nz, 3) V/m, or the path of an HDF5 file of
        `efield.compute_fields`, of which a few stimuli are in memory at a time.
    meps
        `Meps` of which nothing is flagged, or (n_stimulus, n_muscle) peak-to-peak uV.
    grid
        The grid of the fields.
    key
        All randomness follows from it.
    rate
        The firing rate as a function of the field: volumes of rates; None: of the field.
    muscles
        Names of the muscles; those of `Meps`, or numbers, by default.
    didt
        dI/dt of the stimuli, a number or (n_stimulus,), A/s, for thresholds that need it (`cortex.threshold`).
    preset
        "paper", "m2m-net", "small" or a `NetworkPreset`, as in `compare`.
    training
        Optimiser, learning rate, batch size, epochs and patience; by default Adam at 2e-3 with the mapper's batch size
        and epochs of the preset.
    latent
        Number of dimensions of z.
    beta
        Weight of the divergence; the larger, the more of a draw is prior. At 1 the loss is the evidence bound of
        voxels that differ from the answer by as much as the training trials do from their mean.
    options
        Options of the training, of which components, mask, validation_fraction, directory and chunk_size are used;
        None: the defaults of `TrainingOptions`.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    InverseModel
        Volumes as a function of the MEPs.

    Raises
    ------
    ValueError
        As `compare`; options that are not used here.
    """
    _check.integer(latent, "latent")
    _check.positive(beta, "beta", zero=True)
    options = options or TrainingOptions()
    refuse_unused(options, ("rank", "space", "candidates", "n_seeds"), "fit_inverse")
    data = prepare_trials(fields, meps, grid, preset, options, rate=rate, muscles=muscles, didt=didt)
    values, names = data.meps, data.muscles
    if training is None:
        training = replace(data.preset.mapper, optimizer="adam", learning_rate=2e-3, lr_decay=None)
    largest = Scaling.fit(values).largest
    rows, validation = split(np.arange(len(values)), float(options.validation_fraction), jax.random.fold_in(key, 0))
    kind = "field" if rate is None else "rate"
    x = data.inputs(kind, progress=progress)[kind]
    generator = FieldGenerator(
        replace(data.preset.config, channels=x.shape[-1]), len(names), latent, training.optimizer, float(beta)
    )
    where, scale = measure_range(x, np.arange(len(x)))
    start = generator.init(jax.random.fold_in(key, 1))
    mean = x.mean(0)
    shares = np.asarray(generator.scale_meps(jnp.asarray(values), jnp.asarray(largest)))
    fixed = {
        "mask": where,
        "scale": scale,
        "largest": largest,
        "mean": mean / scale,
        "deviation": _measure_deviation(x, mean, where) / scale,
        "middle": shares.mean(0),
        "spread": shares.std(0),
    }
    start["fixed"] = {name: jnp.asarray(value, x.dtype) for name, value in fixed.items()}
    run = train(
        generator,
        SearchSpace(learning_rate=training.learning_rate),
        Dataset.splits({"x": x, "y": values.astype(x.dtype)}, [rows], [validation], [0]),
        key=jax.random.fold_in(key, 2),
        schedule=Independent(epochs=-(-training.epochs // 10), generations=10, patience=training.patience),
        members=1,
        batch_size=training.batch_size,
        initial_params=jax.tree.map(lambda a: a[None], start),
        directory=options.directory,
        chunk_size=options.chunk_size,
        progress=progress,
    )
    params = jax.tree.map(jnp.asarray, run.params)
    affine = jnp.asarray(data.reduce.centres(grid.affine), x.dtype)
    return InverseModel(params, affine, generator, kind, names, run.score)


def _measure_deviation(x: np.ndarray, mean: np.ndarray, where: np.ndarray) -> float:
    """Measure the standard deviation of volumes about their mean, where they have a field; 1 where they are alike."""
    total = sum(float((((row - mean) * where) ** 2).sum(dtype=np.float64)) for row in x)
    return (total / (len(x) * where.sum() * x.shape[-1])) ** 0.5 or 1.0
