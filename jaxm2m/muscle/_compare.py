"""The six variants of the 2019 paper, and sources, cross-validated with everything fitted inside the folds."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int, Key

from jaxm2m import _check, files
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import FieldMap, Grid
from jaxm2m.muscle._compare_sources import SOURCE_PATHWAYS, predict_by_sources
from jaxm2m.muscle.networks._folds import Fitted, Fold, draw_folds, fit_scaling
from jaxm2m.muscle.networks._inputs import INPUTS
from jaxm2m.muscle.networks._options import TrainingOptions
from jaxm2m.muscle.networks._penalties import COUNTS, penalties, train_on_all
from jaxm2m.muscle.networks._presets import NetworkPreset
from jaxm2m.muscle.networks._trials import check_meps, prepare_trials
from jaxm2m.muscle.networks._variants import PATHWAYS, predict_trials, train_variants
from jaxm2m.muscle.responses._meps import Meps
from jaxm2m.muscle.responses._scores import Interval, Scores, jackknife, paired_difference, scores

_LABELS = {"field": "E-field", "rate": "firing rate"}
METRICS = ("cosine", "s1", "s2", "s3", "nrmse")
UNITS = ("scaled", "uV")
_ARRAYS = ("measured", "predicted", "largest", "fold", "ranks")
_ERROR_0_1 = "squared error of the fit"  # a column, as version 0.1 called it
_TABLES = ("networks", "criteria")
_SHAPES = {
    "measured": "float stimulus muscle",
    "predicted": "float variant stimulus muscle",
    "largest": "float fold muscle",
    "fold": "int stimulus",
    "ranks": "int fold",
    "variants": "text variant",
    "muscles": "text muscle",
}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Predictions of MEPs by several variants, each trial by models that never saw its fold.

    Attributes
    ----------
    variants
        Names such as "firing rate, combined": input and pathway.
    muscles
        Names of the muscles.
    measured
        (n_stimulus, n_muscle) MEPs, uV.
    predicted
        (n_variant, n_stimulus, n_muscle), scaled as the fold's training trials are: 1 is their largest MEP. Networks
        cannot exceed it, sources can.
    largest
        (n_fold, n_muscle) uV that are 1 in each fold.
    fold
        (n_stimulus,) the fold in which each stimulus was tested.
    ranks
        (n_fold,) number of synergies of each fold; zeros where no pathway uses them.
    networks
        A row for each variant and fold: score of the held-out trials (NaN for sources, which hold none out),
        parameters, hyperparameters.
    criteria
        A row for each variant where `counts` were asked for: fit_squared_error, the squared error of a fit to all
        trials (of MEPs scaled to [0, 1]), and for each count of parameters k: "k", "aic, k", "bic, k"
        (`information_criteria`).
    """

    variants: tuple[str, ...]
    muscles: tuple[str, ...]
    measured: Float[np.ndarray, "n_stimulus n_muscle"]
    predicted: Float[np.ndarray, "n_variant n_stimulus n_muscle"]
    largest: Float[np.ndarray, "n_fold n_muscle"]
    fold: Int[np.ndarray, " n_stimulus"]
    ranks: Int[np.ndarray, " n_fold"]
    networks: pd.DataFrame
    criteria: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self.variants)} variants, {len(self.fold)} stimuli, {len(self.muscles)} muscles, "
            f"{len(self.largest)} folds)"
        )

    def values(self, unit: str = "scaled") -> tuple[np.ndarray, np.ndarray]:
        """Return measured and predicted MEPs in one unit.

        Parameters
        ----------
        unit
            "scaled", by the largest MEP of the fold's training trials, or "uV".

        Returns
        -------
        measured : array
            (n_stimulus, n_muscle), scaled or uV.
        predicted : array
            (n_variant, n_stimulus, n_muscle), scaled or uV.
        """
        _check.option(unit, UNITS, "unit")
        scale = self.largest[self.fold]
        if unit == "uV":
            return self.measured, self.predicted * scale
        return self.measured / scale, self.predicted

    def scores(self, variant: str, unit: str = "scaled") -> Scores:
        """Score a variant on all trials: by trial, by muscle and pooled.

        Parameters
        ----------
        variant
            Name of the variant.
        unit
            "scaled" or "uV".

        Returns
        -------
        Scores
            The scores of the variant's predictions.
        """
        measured, predicted = self.values(unit)
        return scores(measured, predicted[self._index(variant)], muscles=self.muscles)

    def fold_scores(self, unit: str = "scaled", pooled: bool = True) -> Float[np.ndarray, "variant fold metric"]:
        """Score each variant in each fold.

        Parameters
        ----------
        unit
            "scaled" or "uV".
        pooled
            Whether a fold's trials and muscles are scored together; else the mean over its trials is taken.

        Returns
        -------
        array
            (n_variant, n_fold, n_metric) scores in the order of `METRICS`, no unit.
        """
        measured, predicted = self.values(unit)
        table = np.empty((len(self.variants), len(self.largest), len(METRICS)))
        for v in range(len(self.variants)):
            for f in range(len(self.largest)):
                rows = self.fold == f
                one = scores(measured[rows], predicted[v, rows])
                table[v, f] = (one.pooled if pooled else one.mean)[list(METRICS)]
        return table

    @property
    def table(self) -> pd.DataFrame:
        """The scores of all variants, a row for each variant, unit and kind of score.

        The kind is "pooled" over a fold's trials, or the mean of "trial"s. Each score has the mean over folds and the
        ends of its jackknife 90 % interval: `nrmse`, `nrmse_low`, `nrmse_high`.
        """
        rows = []
        for unit in UNITS:
            for kind in ("pooled", "trial"):
                interval = jackknife(np.moveaxis(self.fold_scores(unit, kind == "pooled"), 1, 0))
                for v, variant in enumerate(self.variants):
                    row: dict[str, Any] = {"variant": variant, "unit": unit, "kind": kind}
                    for m, metric in enumerate(METRICS):
                        row |= {
                            metric: interval.estimate[v, m],
                            f"{metric}_low": interval.low[v, m],
                            f"{metric}_high": interval.high[v, m],
                        }
                    rows.append(row)
        return pd.DataFrame(rows).set_index(["variant", "unit", "kind"])

    def difference(self, first: str, second: str, metric: str = "nrmse", *, unit: str = "scaled") -> Interval:
        """Compute the jackknife 90 % interval of first - second over paired folds: how variants are to be compared.

        Parameters
        ----------
        first, second
            Names of two variants.
        metric
            "cosine", "s1", "s2", "s3" or "nrmse".
        unit
            "scaled" or "uV".

        Returns
        -------
        Interval
            The mean difference of the metric and its interval.
        """
        _check.option(metric, METRICS, "metric")
        values = self.fold_scores(unit)[..., METRICS.index(metric)]
        return paired_difference(values[self._index(first)], values[self._index(second)])

    def differences(self, metric: str = "nrmse", *, unit: str = "scaled") -> pd.DataFrame:
        """Compute the differences of all pairs of variants.

        Parameters
        ----------
        metric
            "cosine", "s1", "s2", "s3" or "nrmse".
        unit
            "scaled" or "uV".

        Returns
        -------
        pandas.DataFrame
            A row for each pair of variants: first, second, difference, low, high, and whether the interval is off zero.
        """
        rows = []
        for i, first in enumerate(self.variants):
            for second in self.variants[:i]:
                d = self.difference(first, second, metric, unit=unit)
                rows.append((first, second, float(d.estimate), float(d.low), float(d.high), bool(d.low * d.high > 0)))
        return pd.DataFrame(rows, columns=["first", "second", "difference", "low", "high", "off zero"])

    def save(self, path: PathLike) -> Path:
        """Write the comparison to `.h5`; the file appears whole or not at all.

        Parameters
        ----------
        path
            The file to be written.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = files.check_output(path)
        with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
            for name in _ARRAYS:
                file[name] = getattr(self, name)
            file["variants"], file["muscles"] = list(self.variants), list(self.muscles)
            file.attrs.update(content="comparison", unit="uV")
            for name in _TABLES:
                file.attrs[name] = getattr(self, name).to_json(orient="table")
        return path

    @classmethod
    def load(cls, path: PathLike) -> "Comparison":
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The HDF5 file.

        Returns
        -------
        Comparison
            The comparison of the file.

        Raises
        ------
        ValueError
            The file holds something else, or is damaged.
        """
        with files.open_hdf5(path) as file:
            if file.text("content") != "comparison":
                raise ValueError(f"path: {path} holds no comparison; it was not written by Comparison.save.")
            tables: dict[str, Any] = {name: _table(file.text(name), f"{file.label}, {name}") for name in _TABLES}
            arrays = file.arrays(_SHAPES)
        fold, n_folds = arrays["fold"], len(arrays["largest"])
        if fold.size and not 0 <= fold.min() <= fold.max() < n_folds:
            raise ValueError(f"path: {path} is damaged: it names folds beyond its {n_folds}; compare again.")
        names: dict[str, Any] = {name: tuple(map(str, arrays.pop(name))) for name in ("variants", "muscles")}
        tables["criteria"] = tables["criteria"].rename(columns=lambda c: "fit_squared_error" if c == _ERROR_0_1 else c)
        return cls(**arrays, **names, **tables)

    def _index(self, variant: str) -> int:
        _check.option(variant, self.variants, "variant")
        return self.variants.index(variant)


def compare(
    fields: PathLike | ArrayLike,
    meps: Meps | ArrayLike,
    *,
    grid: Grid,
    key: Key[Array, ""],
    rate: FiringRate | None = None,
    muscles: Sequence[str] | None = None,
    didt: ArrayLike | None = None,
    n_folds: int = 10,
    preset: str | NetworkPreset = "small",
    inputs: Sequence[str] = INPUTS,
    pathways: Sequence[str] = ("direct", "synergy", "combined"),
    grey: FieldMap | ArrayLike | None = None,
    counts: Sequence[str] = (),
    options: TrainingOptions | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Compare what predicts MEPs by cross-validation: {E-field, firing rate} x {direct, synergy, combined}.

    Everything that is fitted (the range of the fields, the scaling of the MEPs, synergies and their number,
    autoencoders, mappers, when to stop, which candidate to keep) is fitted in each fold to its training trials. All
    autoencoders are trained as one population, all mappers as another. Sources (`fit_sources`) are further variants,
    each fitted to the same training trials; what is scored is the mean of their posterior.

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
        The firing rate as a function of the field; needed for the input "rate".
    muscles
        Names of the muscles; those of `Meps`, or numbers, by default.
    didt
        dI/dt of the stimuli, a number or (n_stimulus,), A/s, for thresholds that need it (`cortex.threshold`).
    n_folds
        Number of folds.
    preset
        "paper": 80 x 80 x 80 voxels of 1 mm to a code of 10 x 10 x 10, 32 and 64 filters: a GPU's work. "m2m-net": 64 x
        64 x 64 to 16 x 16 x 16, and that work's mapper and training. "small": the middle 48 mm in blocks of 4 mm to a
        code of 6 x 6 x 6, 8 filters: minutes on two cores; it cannot tell what happens within 4 mm, nor beyond the 48.
        Or a `NetworkPreset`.
    inputs
        "field" and "rate".
    pathways
        Of "direct", "synergy", "combined" (trained jointly) and "two-stage" (the direct part trained on what a synergy
        network, which is then held, left); and of "sources", a density over grey matter and a recruitment curve for
        each muscle, and "synergy-sources", the same for each synergy of the fold's training trials, whose predicted
        activations lead to the muscles as the synergies do. Of the field, sources see the magnitude.
    grey
        For sources, as in `fit_sources`: the field map, or a mask of the points that are grey matter. None: the mask of
        the options, else what the file of the fields says.
    counts
        How parameters are counted for AIC and BIC, which come from one more fit of each variant to all trials:
        "parameters", "above", "generalised", "effective", as in `select`. None by default: the last two take minutes
        for each variant. Sources have none.
    options
        Options of the training; None: the defaults of `TrainingOptions`.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    Comparison
        Measured MEPs, and the predictions of all variants.

    Raises
    ------
    ValueError
        Fields, grid, MEPs, preset that do not fit each other; no rate where one is needed; a muscle that is silent in
        the training trials of a fold; `counts` for sources alone.

    Warns
    -----
    UserWarning
        Sources without a word of what is grey matter; `counts`, which sources do not have.
    """
    kinds = tuple(dict.fromkeys(_check.option(kind, INPUTS, "inputs") for kind in inputs))
    pathways = tuple(dict.fromkeys(pathways))
    if "rate" in kinds and rate is None:
        raise ValueError('rate: none, and inputs have "rate"; pass cortex.FiringRate(...), or inputs=("field",).')
    for pathway in pathways:
        _check.option(pathway, (*PATHWAYS, *SOURCE_PATHWAYS), "pathways")
    by_networks = [pathway for pathway in pathways if pathway in PATHWAYS]
    by_sources = [pathway for pathway in pathways if pathway in SOURCE_PATHWAYS]
    counts = tuple(_check.option(c, COUNTS, "counts") for c in counts)
    if counts and by_sources:
        reason = "counts: AIC and BIC are of networks, whose parameters can be counted"
        if not by_networks:
            raise ValueError(f"{reason}; leave it out with sources.")
        warnings.warn(f"{reason}; sources are not in `criteria`.", stacklevel=2)
    options = options or TrainingOptions()
    data = None
    if by_networks:
        data = prepare_trials(fields, meps, grid, preset, options, rate=rate, muscles=muscles, didt=didt)
        values, names = data.meps, data.muscles
    else:
        values, names = check_meps(fields, meps, muscles)
    if options.rank is not None and options.rank > len(names):
        raise ValueError(f"rank: {options.rank} synergies of {len(names)} muscles; take fewer.")
    parts = draw_folds(len(values), n_folds, float(options.validation_fraction), jax.random.fold_in(key, 0))
    for fold in parts:
        silent = [name for name, m in zip(names, np.ptp(values[fold.known], axis=0), strict=True) if m == 0]
        if silent:
            raise ValueError(
                f"meps: {', '.join(silent)} never varies in the training trials of a fold; leave it out "
                "(meps.pick(muscles=...))."
            )
    rows: list[dict[str, Any]] = []
    predicted: dict[tuple[str, str], np.ndarray] = {}
    criteria: list[dict[str, Any]] = []
    fitted: list[Fitted] = []
    if data is not None:
        seen = data.inputs(*kinds, progress=progress)
        trained = train_variants(
            seen,
            values,
            parts,
            by_networks,
            data.preset,
            key=jax.random.fold_in(key, 1),
            options=options,
            progress=progress,
        )
        for (kind, pathway), models in trained.items():
            tested = predict_trials(models, seen[kind], [fold.test for fold in parts])
            predicted[kind, pathway] = _join_folds(tested, parts, values.shape)
            for f, model in enumerate(models):
                number = sum(int(np.size(leaf)) for leaf in model.size)
                rows.append(_describe(kind, pathway, f, model.score, number) | model.hyper)
        for kind in kinds if counts else ():
            encoders = train_on_all({kind: seen[kind]}, data.preset, options, key=key, progress=progress)
            for pathway in by_networks:
                row = penalties(
                    encoders,
                    seen[kind],
                    values,
                    kind,
                    pathway,
                    rank=options.rank,
                    counts=counts,
                    threshold=1e-3,
                    directions=5,
                )
                criteria.append({"variant": _name_variant(kind, pathway)} | row)
        fitted = [model.fitted for model in next(iter(trained.values()))]
    needed = "synergy-sources" in by_sources
    if not fitted or (needed and not fitted[0].synergies.shape[1]):
        fitted = [fit_scaling(values, fold.known, options.rank, needed) for fold in parts]
    by_fold = predict_by_sources(
        fields,
        values,
        parts,
        fitted,
        kinds if by_sources else (),
        by_sources,
        grid=grid,
        rate=rate,
        didt=didt,
        grey=options.mask if grey is None else grey,
        key=jax.random.fold_in(key, 2),
        progress=progress,
    )
    for (kind, pathway), results in by_fold.items():
        tested = [one.mean[fold.test] for one, fold in zip(results, parts, strict=True)]
        predicted[kind, pathway] = _join_folds(tested, parts, values.shape)
        for f, one in enumerate(results):
            rows.append(_describe(kind, pathway, f, np.nan, one.n_number) | {"reach": float(one.prior.reach)})
    order = [(kind, pathway) for kind in kinds for pathway in pathways]
    names_of_variants = tuple(_name_variant(*which) for which in order)
    rows.sort(key=lambda row: names_of_variants.index(row["variant"]))
    tested_in = np.empty(len(values), int)
    for f, fold in enumerate(parts):
        tested_in[fold.test] = f
    return Comparison(
        names_of_variants,
        names,
        values,
        np.stack([predicted[which] for which in order]),
        np.stack([one.largest for one in fitted]),
        tested_in,
        np.array([one.synergies.shape[1] for one in fitted]),
        pd.DataFrame(rows),
        pd.DataFrame(criteria).set_index("variant") if criteria else pd.DataFrame(),
    )


def _join_folds(tested: Sequence[np.ndarray], folds: Sequence[Fold], shape: tuple[int, ...]) -> np.ndarray:
    """Predictions of each fold's test trials in the order of the trials."""
    joined = np.empty(shape)
    for fold, part in zip(folds, tested, strict=True):
        joined[fold.test] = part
    return joined


def _describe(kind: str, pathway: str, fold: int, score: float, parameters: int) -> dict[str, Any]:
    return {
        "variant": _name_variant(kind, pathway),
        "fold": fold,
        "held-out score": score,
        "parameters": parameters,
    }


def _table(text: str, place: str) -> pd.DataFrame:
    """Read what `to_json(orient="table")` wrote, its index too."""
    try:
        return pd.read_json(io.StringIO(text), orient="table")
    except Exception as error:  # pandas raises whatever its parser met
        line = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{place}: not a table ({line}); compare again.") from None


def _name_variant(kind: str, pathway: str) -> str:
    return f"{_LABELS[kind]}, {pathway}"
