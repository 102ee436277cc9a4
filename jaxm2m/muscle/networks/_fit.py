"""One variant, trained on all trials."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import Grid
from jaxm2m.muscle.networks._folds import Fold, split
from jaxm2m.muscle.networks._inputs import check_mask
from jaxm2m.muscle.networks._model import Model
from jaxm2m.muscle.networks._options import TrainingOptions
from jaxm2m.muscle.networks._presets import NetworkPreset
from jaxm2m.muscle.networks._trials import prepare_trials
from jaxm2m.muscle.networks._variants import PATHWAYS, predict_trials, train_variants
from jaxm2m.muscle.responses._meps import Meps


def fit(
    fields: PathLike | ArrayLike,
    meps: Meps | ArrayLike,
    *,
    grid: Grid,
    key: Key[Array, ""],
    rate: FiringRate | None = None,
    muscles: Sequence[str] | None = None,
    didt: ArrayLike | None = None,
    variant: str = "combined",
    preset: str | NetworkPreset = "small",
    options: TrainingOptions | None = None,
    progress: bool | None = None,
) -> Model:
    """Train one variant on all trials.

    `compare` shows how well such a model predicts trials that it never saw.

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
        The firing rate as a function of the field; None: the networks see the field itself.
    muscles
        Names of the muscles; those of `Meps`, or numbers, by default.
    didt
        dI/dt of the stimuli, a number or (n_stimulus,), A/s, for thresholds that need it (`cortex.threshold`).
    variant
        The pathway: "direct", "synergy", "combined" or "two-stage", as in `compare`.
    preset
        "paper", "m2m-net", "small" or a `NetworkPreset`, as in `compare`.
    options
        Options of the training; None: the defaults of `TrainingOptions`.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    Model
        MEPs as a function of the field.

    Raises
    ------
    ValueError
        As `compare`.
    """
    _check.option(variant, tuple(PATHWAYS), "variant")
    options = options or TrainingOptions()
    data = prepare_trials(fields, meps, grid, preset, options, rate=rate, muscles=muscles, didt=didt)
    values, names = data.meps, data.muscles
    train, validation = split(np.arange(len(values)), float(options.validation_fraction), jax.random.fold_in(key, 0))
    kind = "field" if rate is None else "rate"
    x = data.inputs(kind, progress=progress)
    made = train_variants(
        x,
        values,
        [Fold(train, validation, np.zeros(0, int))],
        (variant,),
        data.preset,
        key=jax.random.fold_in(key, 1),
        options=options,
        progress=progress,
    )
    (best,) = made[kind, variant]
    (predictions,) = predict_trials([best], x[kind], [np.arange(len(values))])
    return Model(
        jax.tree.map(jnp.asarray, best.params),
        jnp.asarray(predictions.max(0)),
        rate,
        None if options.mask is None else check_mask(options.mask, grid),
        jnp.asarray(grid.affine, jnp.result_type(float)),
        data.reduce,
        best.mapper,
        variant,
        names,
        x[kind].shape[-1],
    )
