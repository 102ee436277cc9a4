"""Which architecture: a family of them, cross-validated and penalised, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m._progress import progress_bar
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import Grid
from jaxm2m.muscle.networks._folds import draw_folds
from jaxm2m.muscle.networks._options import TrainingOptions, refuse_unused
from jaxm2m.muscle.networks._penalties import COUNTS, penalties, train_on_all
from jaxm2m.muscle.networks._presets import PRESETS, NetworkPreset
from jaxm2m.muscle.networks._trials import prepare_trials
from jaxm2m.muscle.networks._variants import PATHWAYS, predict_trials, train_variants
from jaxm2m.muscle.responses._meps import Meps
from jaxm2m.muscle.responses._scores import jackknife, paired_difference


def make_architectures(preset: str | NetworkPreset = "small") -> dict[str, NetworkPreset]:
    """Make ten architectures about a preset, as M2M-Net varied them.

    Parameters
    ----------
    preset
        The preset that is varied, or its name.

    Returns
    -------
    dict
        Presets by name: filters, kernels, codes, and mappers differ.
    """
    base = preset if isinstance(preset, NetworkPreset) else PRESETS[_check.option(preset, tuple(PRESETS), "preset")]
    config, filters, hidden = base.config, base.config.filters, base.config.hidden
    half, double = (tuple(max(1, int(f * k)) for f in filters[:-1]) + filters[-1:] for k in (0.5, 2))
    changes: dict[str, dict[str, Any]] = {
        "base": {},
        "half the filters": {"filters": half},
        "twice the filters": {"filters": double},
        "kernel 1": {"kernel": 1},
        "kernel 5": {"kernel": 5},
        "one channel of code": {"filters": (*filters[:-1], 1)},
        "four channels of code": {"filters": (*filters[:-1], 4)},
        "max pooling" if config.pool == "mean" else "mean pooling": {
            "pool": "max" if config.pool == "mean" else "mean"
        },
        "narrow mapper": {"hidden": tuple(max(2, h // 4) for h in hidden)},
        "convolutional mapper": {"convolutions": (8,), "activation": "relu"},
    }
    return {name: replace(base, config=replace(config, **change)) for name, change in changes.items()}


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Architectures compared.

    Attributes
    ----------
    table
        A row for each: cross-validated squared error (of MEPs scaled to [0, 1]) and NRMSE with the ends of its
        jackknife 90 % interval; fit_squared_error, the error of the trials that it was fitted to; and for each count of
        parameters k, "aic, k" and "bic, k".
    recommended
        Name of the recommended architecture.
    why
        The reason, in a sentence.
    predicted
        By name, (n_stimulus, n_muscle) predictions of left-out trials.
    """

    table: pd.DataFrame
    recommended: str
    why: str
    predicted: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        return f"Selection({len(self.table)} architectures; {self.recommended}: {self.why})"


def select(
    fields: PathLike | ArrayLike,
    meps: Meps | ArrayLike,
    *,
    grid: Grid,
    key: Key[Array, ""],
    rate: FiringRate | None = None,
    muscles: Sequence[str] | None = None,
    didt: ArrayLike | None = None,
    architectures: Mapping[str, NetworkPreset] | None = None,
    pathway: str = "combined",
    n_folds: int = 5,
    counts: Sequence[str] = COUNTS,
    threshold: float | int = 1e-3,
    directions: int = 5,
    options: TrainingOptions | None = None,
    progress: bool | None = None,
) -> Selection:
    """Compare architectures by what they predict and by what their parameters cost (M2M-Net's model selection).

    Each architecture is trained as a population of folds, and once more on all trials, from which the criteria come.
    Recommended is the architecture of the fewest parameters among those whose cross-validated error is not above the
    lowest by more than the paired 90 % interval: the criteria stand beside it, but take trials of one session for
    independent and, with raw parameters, decide by their number alone.

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
    architectures
        `NetworkPreset` by name; None: `make_architectures("small")`.
    pathway
        "direct", "synergy", "combined" or "two-stage", as in `compare`.
    n_folds
        Number of folds.
    counts
        How parameters are counted: "parameters", all of the encoder, the mapper and the head in use; "above", those
        with abs(w) > `threshold`; "generalised", generalised degrees of freedom from `directions` perturbations of the
        MEPs, with the encoder, the scaling and the synergies held; "effective", of the linearised network. The last two
        take minutes each for an architecture.
    threshold
        Absolute value of a weight over which "above" counts it.
    directions
        Number of perturbations for "generalised".
    options
        Options of the training, of which components, mask, rank, validation_fraction and chunk_size are used; None: the
        defaults of `TrainingOptions`.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    Selection
        The table of all architectures, and the recommended one.

    Raises
    ------
    ValueError
        As `compare`; a count or pathway that is not there; options that are not used here.
    """
    chosen = make_architectures() if architectures is None else dict(architectures)
    if not chosen:
        raise ValueError("architectures: none; name at least one NetworkPreset, or leave it out for the family.")
    _check.option(pathway, tuple(PATHWAYS), "pathway")
    counts = tuple(_check.option(c, COUNTS, "counts") for c in counts)
    options = options or TrainingOptions()
    refuse_unused(options, ("space", "candidates", "n_seeds", "directory"), "select")
    inputs = {"rate": rate, "muscles": muscles, "didt": didt}
    data = {name: prepare_trials(fields, meps, grid, preset, options, **inputs) for name, preset in chosen.items()}
    values = next(iter(data.values())).meps
    kind = "field" if rate is None else "rate"
    parts = draw_folds(len(values), n_folds, float(options.validation_fraction), jax.random.fold_in(key, 0))
    rows, errors, predictions = [], {}, {}
    kept: dict[tuple, np.ndarray] = {}
    with progress_bar(len(chosen), "architectures", unit="trained", enabled=progress) as advance:
        for name, preset in chosen.items():
            where = (data[name].reduce.shape, data[name].reduce.block)
            if where not in kept:
                kept[where] = data[name].inputs(kind, progress=False)[kind]
            x = kept[where]
            one = train_variants(
                {kind: x}, values, parts, (pathway,), preset, key=jax.random.fold_in(key, 1), options=options,
                progress=False,
            )[kind, pathway]  # fmt: skip
            tested = predict_trials(one, x, [fold.test for fold in parts])
            predictions[name] = np.empty_like(values)
            squares = np.empty((n_folds, 2))
            for f, (model, fold, part) in enumerate(zip(one, parts, tested, strict=True)):
                predictions[name][fold.test] = part
                measured = values[fold.test] / model.fitted.largest
                squares[f] = ((measured - part) ** 2).mean(), (measured**2).mean()
            errors[name] = np.sqrt(squares[:, 0] / squares[:, 1])
            interval = jackknife(errors[name])
            row: dict[str, Any] = {"architecture": name, "squared error": squares[:, 0].mean()}
            row |= {"nrmse": float(interval.estimate), "nrmse_low": float(interval.low)}
            row |= {"nrmse_high": float(interval.high)}
            encoders = train_on_all({kind: x}, preset, options, key=key, progress=False)
            row |= penalties(
                encoders,
                x,
                values,
                kind,
                pathway,
                rank=options.rank,
                counts=counts,
                threshold=threshold,
                directions=directions,
            )
            rows.append(row)
            advance(1, f"{name}: {interval.estimate:.3f}")
    table = pd.DataFrame(rows).set_index("architecture")
    recommended, why = _recommend(table, errors)
    return Selection(table, recommended, why, predictions)


def _recommend(table: pd.DataFrame, errors: Mapping[str, np.ndarray]) -> tuple[str, str]:
    best = str(table["nrmse"].idxmin())
    close = [best]
    for name, values in errors.items():
        if name != best and paired_difference(values, errors[best]).low <= 0:
            close.append(name)
    if "parameters" not in table:
        return best, f"the lowest cross-validated NRMSE, {table.loc[best, 'nrmse']:.3f}"
    chosen = str(table.loc[close, "parameters"].idxmin())
    number = int(table.loc[chosen, "parameters"])
    if chosen == best:
        return best, f"the lowest cross-validated NRMSE, {table.loc[best, 'nrmse']:.3f}, with {number} parameters"
    error, lowest = (table.loc[name, "nrmse"] for name in (chosen, best))
    return chosen, (
        f"{number} parameters, the fewest of {len(close)} whose cross-validated NRMSE ({error:.3f}) cannot be told "
        f"from the lowest ({lowest:.3f}, {best})"
    )
