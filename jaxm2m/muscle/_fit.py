"""One variant, trained on all trials."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m.muscle._folds import Fold, split
from jaxm2m.muscle._inputs import checked_mask
from jaxm2m.muscle._model import Model
from jaxm2m.muscle._presets import Preset
from jaxm2m.muscle._trials import trials
from jaxm2m.muscle._variants import HEADS, predicted, train_variants
from jaxm2m.population import Space


def fit(
    fields: Any,
    meps: Any,
    *,
    grid: Any,
    key: Key[Array, ""],
    rate: Any = None,
    muscles: Sequence[str] | None = None,
    variant: str = "combined",
    preset: str | Preset = "small",
    components: int = 1,
    mask: Any = None,
    didt: Any = None,
    rank: int | None = None,
    space: Space | None = None,
    candidates: int = 1,
    seeds: int = 1,
    held: float | int = 0.1,
    directory: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    show: bool | None = None,
) -> Model:
    """Train one variant on all trials.

    Parameters
    ----------
    variant
        "direct", "synergy", "combined" or "two-stage".
    rate
        `cortex.FiringRate`; None: the networks see the field itself.
    held
        Share of the trials that stop the training and choose the candidate.
    fields, meps, grid, key, muscles, preset, components, mask, didt, rank, space, candidates, seeds, directory, chunk,
    show
        Of `compare`, which tells how well such a model predicts trials that it never saw.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        As `compare`.
    """
    _check.option(variant, tuple(HEADS), "variant")
    given = trials(fields, meps, grid, preset, rate=rate, muscles=muscles, components=components, mask=mask, didt=didt)
    values, names = given.meps, given.muscles
    train, stop = split(np.arange(len(values)), float(held), jax.random.fold_in(key, 0))
    kind = "field" if rate is None else "rate"
    x = given.inputs(kind, show=show)
    made = train_variants(
        x,
        values,
        [Fold(train, stop, np.zeros(0, int))],
        (variant,),
        given.preset,
        key=jax.random.fold_in(key, 1),
        rank=rank,
        space=space,
        candidates=candidates,
        seeds=seeds,
        directory=directory,
        chunk=chunk,
        show=show,
    )
    (best,) = made[kind, variant]
    (found,) = predicted([best], x[kind], [np.arange(len(values))])
    return Model(
        jax.tree.map(jnp.asarray, best.params),
        jnp.asarray(found.max(0)),
        rate,
        None if mask is None else checked_mask(mask, grid),
        jnp.asarray(grid.affine, jnp.result_type(float)),
        given.reduce,
        best.mapper,
        variant,
        names,
        x[kind].shape[-1],
    )
