r"""From muscles to fields: a variational decoder, in the direction of M2M-InvNet.

    MEPs m -> 16 -> 32 -> mean mu, log variance s of z (16)        z = mu + exp(s / 2) eps
    z -> code -> the autoencoder's decoder -> volume x'

    loss = mean (x' - x)^2 over the mask + beta KL(N(mu, exp s) | N(0, 1)) / voxels of the mask

Many fields give the same MEPs: a draw of z is one of those that the data make likely, the mean their average.
"""

import os
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
from jaxm2m.muscle import _networks
from jaxm2m.muscle._folds import seen_range, split
from jaxm2m.muscle._networks import Architecture, Decoder
from jaxm2m.muscle._presets import Preset
from jaxm2m.muscle._scaling import Scaling
from jaxm2m.muscle._stored import store, stored, tuples
from jaxm2m.muscle._training import Recipe, by_part, rule, scaled
from jaxm2m.muscle._trials import trials
from jaxm2m.population import Examples, Independent, Space, train

CONTENT = "jaxm2m inverse muscle model"


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

    def __init__(self, latent: int, sizes: Architecture, *, rngs: nnx.Rngs):
        self.sizes = sizes
        self.dense = nnx.Linear(latent, int(np.prod(sizes.code)), param_dtype=jnp.result_type(float), rngs=rngs)

    def __call__(self, z: Float[Array, "b latent"]) -> Float[Array, "b u v w f"]:
        return jax.nn.elu(self.dense(z)).reshape(len(z), *self.sizes.code)


@dataclass(frozen=True)
class FieldGenerator:
    """A `population.Trainable`: {"x": (batch, nx, ny, nz, channels), "y": (batch, muscles) uV}.

    Attributes
    ----------
    sizes
        Of code and decoder.
    muscles, latent
        Numbers of muscles, and of z.
    optimizer_name
        Of `Recipe`.
    beta
        Of the divergence.
    """

    sizes: Architecture
    muscles: int
    latent: int = 16
    optimizer_name: str = "adam"
    beta: float = 1.0

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes it this model, by name."""
        own = asdict(self)
        return {"model": "field generator"} | {name: str(value) for name, value in (own.pop("sizes") | own).items()}

    def init(self, key: Key[Array, ""]) -> PyTree:
        """The weights of a new member; what is fixed is neutral."""
        keys = jax.random.split(key, 3)
        dtype = jnp.result_type(float)
        return {
            "posterior": _networks.init(keys[0], Posterior, self.muscles, self.latent),
            "expansion": _networks.init(keys[1], Expansion, self.latent, self.sizes),
            "decoder": _networks.init(keys[2], Decoder, self.sizes),
            "fixed": {
                "mask": jnp.ones((*self.sizes.shape, 1), dtype),
                "scale": jnp.ones((), dtype),
                "largest": jnp.ones(self.muscles, dtype),
            },
        }

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """Steps what is not fixed."""
        return by_part(rule(self.optimizer_name, hyper["learning_rate"], ()), ("posterior", "expansion", "decoder"))

    def loss(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: dict[str, Array],
        key: Key[Array, ""],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Squared error of a draw, and the divergence."""
        del hyper, step
        mean, spread = self.posterior(params, batch["y"])
        z = mean + jnp.exp(spread / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        error = self._errors(params, z, batch["x"]).mean()
        divergence = 0.5 * (jnp.exp(spread) + mean**2 - 1 - spread).sum(-1).mean()
        weight = self.beta / jnp.maximum(params["fixed"]["mask"].sum(), 1)
        return error + weight * divergence, {"error": error, "divergence": divergence}

    def score(
        self, params: PyTree, hyper: dict[str, Float[Array, ""]], batch: dict[str, Array], key: Key[Array, ""]
    ) -> Float[Array, " batch"]:
        """Squared error at the mean of z, of each trial."""
        del hyper, key
        return self._errors(params, self.posterior(params, batch["y"])[0], batch["x"])

    def posterior(self, params: PyTree, meps: Float[Array, "b muscle"]) -> tuple[Array, Array]:
        """Mean and log variance of z, (batch, latent), for MEPs in uV."""
        found, _ = _networks.apply(params["posterior"], Posterior, self.muscles, self.latent)(
            meps / params["fixed"]["largest"]
        )
        mean, spread = jnp.split(found, 2, axis=-1)
        return mean, jnp.clip(spread, -10, 10)

    def decode(self, params: PyTree, z: Float[Array, "b latent"]) -> Float[Array, "b x y z c"]:
        """Volumes in the range of the training trials, zero outside their mask."""
        code, _ = _networks.apply(params["expansion"], Expansion, self.latent, self.sizes)(z)
        volume, _ = _networks.apply(params["decoder"], Decoder, self.sizes)(code)
        return volume * params["fixed"]["mask"]

    def _errors(self, params: PyTree, z: Array, x: Array) -> Array:
        fixed = params["fixed"]
        squares = ((self.decode(params, z) - scaled(fixed, x)) ** 2).sum((1, 2, 3, 4))
        return squares / (jnp.maximum(fixed["mask"].sum(), 1) * self.sizes.channels)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "affine"],
    meta_fields=["generator", "kind", "muscles", "score"],
)
@dataclass(frozen=True, eq=False, repr=False)
class InverseModel:
    """Fields that may have caused MEPs; a pytree.

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
        Names.
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
        return (
            f"InverseModel({len(self.muscles)} muscles to {what} of {' x '.join(map(str, self.generator.sizes.shape))})"
        )

    def __call__(self, meps: Any, *, key: Key[Array, ""] | None = None) -> Float[Array, "*batch x y z c"]:
        """Volumes (..., nx, ny, nz, channels) for MEPs (..., n_muscle) uV; with a key a draw, else at the mean of z."""
        values = jnp.asarray(_check.positive(meps, "meps", zero=True), jnp.result_type(float))
        if not values.ndim or values.shape[-1] != len(self.muscles):
            raise ValueError(f"meps: shape {values.shape}; the last axis must hold {len(self.muscles)} muscles.")
        mean, spread = self.generator.posterior(self.params, values.reshape(-1, values.shape[-1]))
        if key is not None:
            mean = mean + jnp.exp(spread / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        found = self.generator.decode(self.params, mean) * self.params["fixed"]["scale"]
        return found.reshape(*values.shape[:-1], *found.shape[1:])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: `model.json`, and the weights by Orbax. It appears whole or not at all.

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
        return store(path, CONTENT, text, {"params": self.params, "affine": self.affine})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "InverseModel":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            No model is there, or one of another kind or version.
        """
        return stored(path, CONTENT, _described)


def _described(text: dict[str, Any]) -> tuple[PyTree, Callable[[PyTree], InverseModel]]:
    """Shapes of the weights that `InverseModel.save` wrote with `text`, and the model that they make."""
    own = tuples(text["generator"])
    generator = FieldGenerator(Architecture(**tuples(own.pop("sizes"))), **own)
    dtype = np.dtype(text["precision"])
    kind, muscles, score = str(text["kind"]), tuple(text["muscles"]), float(text["score"])
    like = {
        "params": jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, dtype), jax.eval_shape(generator.init, jax.random.key(0))
        ),
        "affine": jax.ShapeDtypeStruct((4, 4), dtype),
    }

    def make(found: PyTree) -> InverseModel:
        return InverseModel(found["params"], found["affine"], generator, kind, muscles, score)

    return like, make


def fit_inverse(
    fields: Any,
    meps: Any,
    *,
    grid: Any,
    key: Key[Array, ""],
    rate: Any = None,
    muscles: Sequence[str] | None = None,
    preset: str | Preset = "small",
    recipe: Recipe | None = None,
    latent: int = 16,
    beta: float | int = 1.0,
    components: int = 1,
    mask: Any = None,
    didt: Any = None,
    held: float | int = 0.1,
    directory: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    show: bool | None = None,
) -> InverseModel:
    """Train the way back, from MEPs to the field or the firing rate.

    Parameters
    ----------
    recipe
        How it is trained: optimiser, learning rate, batch, epochs, patience; by default Adam at 2e-3 with the mapper's
        batch and epochs of the preset.
    latent
        Numbers of z.
    beta
        Weight of the divergence; the larger, the more of a draw is prior.
    rate
        `cortex.FiringRate`: volumes of rates; None: of the field.
    fields, meps, grid, key, muscles, preset, components, mask, didt, held, directory, chunk, show
        Of `compare`.

    Returns
    -------
    InverseModel

    Raises
    ------
    ValueError
        As `compare`.
    """
    _check.integer(latent, "latent")
    _check.positive(beta, "beta", zero=True)
    given = trials(fields, meps, grid, preset, rate=rate, muscles=muscles, components=components, mask=mask, didt=didt)
    values, names = given.meps, given.muscles
    if recipe is None:
        recipe = replace(given.preset.mapper, optimizer="adam", learning_rate=2e-3, fall=None)
    largest = Scaling.fit(values).largest
    rows, stop = split(np.arange(len(values)), float(held), jax.random.fold_in(key, 0))
    kind = "field" if rate is None else "rate"
    x = given.inputs(kind, show=show)[kind]
    generator = FieldGenerator(
        replace(given.preset.sizes, channels=x.shape[-1]), len(names), latent, recipe.optimizer, float(beta)
    )
    where, scale = seen_range(x, np.arange(len(x)))
    start = generator.init(jax.random.fold_in(key, 1))
    start["fixed"] = {
        "mask": jnp.asarray(where, x.dtype),
        "scale": jnp.asarray(scale, x.dtype),
        "largest": jnp.asarray(largest, x.dtype),
    }
    run = train(
        generator,
        Space(learning_rate=recipe.learning_rate),
        Examples.splits({"x": x, "y": values.astype(x.dtype)}, [rows], [stop], [0]),
        key=jax.random.fold_in(key, 2),
        schedule=Independent(epochs=-(-recipe.epochs // 10), generations=10, patience=recipe.patience),
        members=1,
        batch=recipe.batch,
        start=jax.tree.map(lambda a: a[None], start),
        directory=directory,
        chunk=chunk,
        show=show,
    )
    params = jax.tree.map(jnp.asarray, run.params)
    affine = jnp.asarray(given.reduce.centres(grid.affine), x.dtype)
    return InverseModel(params, affine, generator, kind, names, run.score)
