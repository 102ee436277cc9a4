"""A trained model from the field to the muscles: one function, differentiable."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxm2m import cortex
from jaxm2m._pytree import register
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.efield import Grid
from jaxm2m.muscle.networks._inputs import Reduction, compute_inputs
from jaxm2m.muscle.networks._stored import load_folder, parse_network, save_folder
from jaxm2m.muscle.networks._training import MuscleMapper

CONTENT = "jaxm2m muscle model"


@partial(register, static=["mapper", "variant", "muscles", "components"])
@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """MEPs as a function of the field; a pytree.

    Attributes
    ----------
    params
        Weights, and what was fitted to the training trials; the first axis is the seed.
    strongest
        (n_muscle,) the largest predictions over the trials that it was fitted to, as shares of the largest MEPs.
    rate
        `cortex.FiringRate`, or None where the networks see the field itself.
    mask
        (nx, ny, nz) which points of the grid count; None: all.
    affine
        (4, 4) of the grid that fields must be on, index -> mm.
    reduce
        The part of the grid that the networks see.
    mapper
        The networks.
    variant
        "direct", "synergy", "combined" or "two-stage".
    muscles
        Names of the muscles.
    components
        Components of the field that are seen: 1 (magnitude) or 3.
    """

    params: PyTree
    strongest: Any
    rate: Any
    mask: Any
    affine: Any
    reduce: Reduction
    mapper: MuscleMapper
    variant: str
    muscles: tuple[str, ...]
    components: int

    def __repr__(self) -> str:
        what = "E-field" if self.rate is None else "firing rate"
        return f"Model({what}, {self.variant}, {len(self.muscles)} muscles: {', '.join(self.muscles)})"

    def __call__(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch muscle"]:
        """Predict the MEPs of fields.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m on the model's grid.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_muscle) MEPs, uV peak-to-peak.
        """
        return self.predict_scaled(e, didt=didt) * self.largest

    def predict_scaled(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch muscle"]:
        """Predict MEPs as shares of the largest in training.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m on the model's grid.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_muscle) shares, 0 to 1.
        """
        return _predict_scaled(self, self._arrange(e), didt)

    def _arrange(self, e: ArrayLike) -> Array:
        """Fields (..., nx, ny, nz, 3)."""
        shape = self.reduce.grid
        e = jnp.asarray(e)
        points = int(np.prod(shape))
        if e.ndim >= 2 and e.shape[-2:] == (points, 3):
            e = e.reshape(*e.shape[:-2], *shape, 3)
        if e.ndim < 4 or e.shape[-4:] != (*shape, 3):
            raise ValueError(
                f"e: shape {tuple(e.shape)}; this model needs the field on its grid, (..., {points}, 3) or "
                f"(..., {', '.join(map(str, shape))}, 3)."
            )
        return e

    @property
    def grid(self) -> Grid:
        """The grid that fields must be on, mm."""
        return Grid(np.asarray(self.affine, np.float64), self.reduce.grid)

    def predict_members(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch member muscle"]:
        """Predict MEPs by each of the networks that differ by chance alone, as shares of the largest in training.

        Parameters
        ----------
        e
            (..., n_point, 3) or (..., nx, ny, nz, 3) V/m on the model's grid.
        didt
            dI/dt, A/s, a number or one for each field (...), for firing rates whose threshold needs it.

        Returns
        -------
        array
            (..., n_seed, n_muscle) shares, 0 to 1.
        """
        return _predict_members(self, self._arrange(e), didt)

    @property
    def largest(self) -> Float[Array, " muscle"]:
        """The largest MEPs of the training trials, (n_muscle,), uV: what becomes 1."""
        return self.params["fixed"]["largest"][0]

    @property
    def synergies(self) -> Float[np.ndarray, "muscle synergy"]:
        """Synergies of the training trials, (n_muscle, n_synergy), shares; without columns in a direct model."""
        vectors = np.asarray(self.params["fixed"]["synergies"][0])
        return vectors[:, vectors.any(0)]

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
        TypeError
            A firing rate with a curve of the user's own.
        """
        tree = self._arrays()
        text = {
            "mapper": asdict(self.mapper),
            "variant": self.variant,
            "muscles": list(self.muscles),
            "components": self.components,
            "seeds": len(self.params["fixed"]["largest"]),
            "grid": list(self.reduce.grid),
            "shape": list(self.reduce.shape),
            "block": self.reduce.block,
            "rate": None if self.rate is None else self.rate.settings,
            "arrays": {name: list(np.shape(a)) for name, a in tree.items() if name != "params"},
            "precision": str(np.asarray(self.params["fixed"]["largest"]).dtype),
        }
        return save_folder(path, CONTENT, text, tree)

    def _arrays(self) -> dict[str, Any]:
        tree = {"params": self.params, "strongest": self.strongest, "affine": self.affine, "mask": self.mask}
        tree["normals"] = None if self.rate is None else self.rate.normals
        return {name: jax.tree.map(np.asarray, part) for name, part in tree.items() if part is not None}


@jax.jit
def _predict_members(model: Model, e: Array, didt: Any) -> Array:
    # as one program, also where it is called outside of one
    kind = "field" if model.rate is None else "rate"
    x = compute_inputs(e, kind, model.components, model.rate, model.reduce, model.mask, didt)
    shares = jax.vmap(model.mapper.predict, (0, None))(model.params, x.reshape(-1, *x.shape[-4:]))
    return jnp.moveaxis(shares, 0, 1).reshape(*x.shape[:-4], -1, len(model.muscles))


@jax.jit
def _predict_scaled(model: Model, e: Array, didt: Any) -> Array:
    return _predict_members(model, e, didt).mean(-2)


def _parse_model(text: dict[str, Any]) -> tuple[PyTree, Callable[[PyTree], Model]]:
    """Return the shapes of the weights that `Model.save` wrote with `text`, and the model that they make."""
    config, settings = parse_network(text["mapper"])
    mapper = MuscleMapper(config, **settings)
    dtype, seeds = np.dtype(text["precision"]), int(text["seeds"])
    arrays = {name: jax.ShapeDtypeStruct(tuple(shape), dtype) for name, shape in text["arrays"].items()}
    reduce = Reduction(tuple(text["grid"]), tuple(text["shape"]), int(text["block"]))
    rate, names = text["rate"], tuple(text["muscles"])
    variant, components = text["variant"], int(text["components"])
    params = jax.eval_shape(mapper.init, jax.random.key(0))
    like = {"params": jax.tree.map(lambda a: jax.ShapeDtypeStruct((seeds, *a.shape), dtype), params), **arrays}

    def make(tree: PyTree) -> Model:
        firing_rate = None if rate is None else cortex.from_settings(rate, tree.get("normals"))
        return Model(
            tree["params"],
            tree["strongest"],
            firing_rate,
            tree.get("mask"),
            tree["affine"],
            reduce,
            mapper,
            variant,
            names,
            components,
        )

    return like, make


def load_networks(path: PathLike) -> Model:
    """Read what `Model.save` wrote.

    Raises
    ------
    FileNotFoundError, ValueError
        No model is there, or one of another kind or version.
    """
    return load_folder(path, CONTENT, _parse_model)
