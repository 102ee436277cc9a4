"""One variant, trained on all trials."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m.muscle._folds import Fold, checked_meps, split
from jaxm2m.muscle._inputs import Reduction, checked_mask, count, read
from jaxm2m.muscle._model import Model
from jaxm2m.muscle._presets import PRESETS, Preset
from jaxm2m.muscle._variants import HEADS, train_variants
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
    _check.option(components, (1, 3), "components")
    chosen = preset if isinstance(preset, Preset) else PRESETS[_check.option(preset, tuple(PRESETS), "preset")]
    values, names = checked_meps(meps, count(fields), muscles)
    train, stop = split(np.arange(len(values)), float(held), jax.random.fold_in(key, 0))
    reduce = Reduction.of(grid, chosen.sizes.shape, chosen.spacing)
    kind = "field" if rate is None else "rate"
    x = read(
        fields,
        grid,
        (kind,),
        rate=rate,
        reduce=reduce,
        components=components,
        mask=mask,
        didt=didt,
        show=show,
    )
    made = train_variants(
        x,
        values,
        [Fold(train, stop, np.zeros(0, int))],
        (variant,),
        chosen,
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
    return Model(
        jax.tree.map(jnp.asarray, best.params),
        rate,
        None if mask is None else checked_mask(mask, grid),
        jnp.asarray(grid.affine, jnp.result_type(float)),
        reduce,
        best.mapper,
        variant,
        names,
        x[kind].shape[-1],
    )
