"""The six variants of the 2019 paper, cross-validated with everything fitted inside the folds."""

import io
import os
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
from jaxm2m.muscle._folds import drawn
from jaxm2m.muscle._inputs import INPUTS
from jaxm2m.muscle._penalties import COUNTS, penalties, whole
from jaxm2m.muscle._presets import Preset
from jaxm2m.muscle._scores import Interval, Scores, jackknife, paired_difference, scores
from jaxm2m.muscle._trials import trials
from jaxm2m.muscle._variants import HEADS, predicted, train_variants
from jaxm2m.population import Space

_LABELS = {"field": "E-field", "rate": "firing rate"}
METRICS = ("cosine", "s1", "s2", "s3", "nrmse")
UNITS = ("scaled", "uV")
_ARRAYS = ("measured", "predicted", "largest", "fold", "ranks")
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
    """Predictions of MEPs by several variants, each trial by networks that never saw its fold.

    Attributes
    ----------
    variants
        Such as "firing rate, combined": input and head.
    muscles
        Names.
    measured
        (n_stimulus, n_muscle) uV.
    predicted
        (n_variant, n_stimulus, n_muscle), scaled as the fold's training trials are: 1 is their largest MEP. Networks
        cannot exceed it.
    largest
        (n_fold, n_muscle) uV that are 1 in each fold.
    fold
        (n_stimulus,) the fold in which each stimulus was tested.
    ranks
        (n_fold,) synergies of each fold; zeros where no head uses them.
    networks
        A row for each variant and fold: score of the held-out trials, parameters, hyperparameters.
    criteria
        A row for each variant where `counts` were asked for: squared error of a fit to all trials (of MEPs scaled to
        [0, 1]), and for each count of parameters k: "k", "aic, k", "bic, k" (`information_criteria`).
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
        """Measured (n_stimulus, n_muscle) and predicted (n_variant, ...) MEPs, "scaled" or in "uV"."""
        _check.option(unit, UNITS, "unit")
        own = self.largest[self.fold]
        if unit == "uV":
            return self.measured, self.predicted * own
        return self.measured / own, self.predicted

    def scores(self, variant: str, unit: str = "scaled") -> Scores:
        """Of all trials, by trial, by muscle and pooled."""
        measured, found = self.values(unit)
        return scores(measured, found[self._index(variant)], muscles=self.muscles)

    def fold_scores(self, unit: str = "scaled", pooled: bool = True) -> Float[np.ndarray, "variant fold metric"]:
        """Scores in each fold: of all its trials and muscles together, or the mean of its trials'."""
        measured, found = self.values(unit)
        table = np.empty((len(self.variants), len(self.largest), len(METRICS)))
        for v in range(len(self.variants)):
            for f in range(len(self.largest)):
                rows = self.fold == f
                one = scores(measured[rows], found[v, rows])
                table[v, f] = (one.pooled if pooled else one.mean)[list(METRICS)]
        return table

    @property
    def table(self) -> pd.DataFrame:
        """A row for each variant, unit and kind of score ("pooled" over a fold's trials, or mean of "trial"s).

        Each score has the mean over folds and the ends of its jackknife 90 % interval: `nrmse`, `nrmse_low`,
        `nrmse_high`.
        """
        rows = []
        for unit in UNITS:
            for kind in ("pooled", "trial"):
                found = jackknife(np.moveaxis(self.fold_scores(unit, kind == "pooled"), 1, 0))
                for v, variant in enumerate(self.variants):
                    row: dict[str, Any] = {"variant": variant, "unit": unit, "kind": kind}
                    for m, metric in enumerate(METRICS):
                        row |= {
                            metric: found.estimate[v, m],
                            f"{metric}_low": found.low[v, m],
                            f"{metric}_high": found.high[v, m],
                        }
                    rows.append(row)
        return pd.DataFrame(rows).set_index(["variant", "unit", "kind"])

    def difference(self, first: str, second: str, metric: str = "nrmse", *, unit: str = "scaled") -> Interval:
        """Jackknife 90 % interval of first - second over paired folds: how variants are to be compared."""
        _check.option(metric, METRICS, "metric")
        values = self.fold_scores(unit)[..., METRICS.index(metric)]
        return paired_difference(values[self._index(first)], values[self._index(second)])

    def differences(self, metric: str = "nrmse", *, unit: str = "scaled") -> pd.DataFrame:
        """A row for each pair of variants: difference, low, high, and whether the interval is off zero."""
        rows = []
        for i, first in enumerate(self.variants):
            for second in self.variants[:i]:
                d = self.difference(first, second, metric, unit=unit)
                rows.append((first, second, float(d.estimate), float(d.low), float(d.high), bool(d.low * d.high > 0)))
        return pd.DataFrame(rows, columns=["first", "second", "difference", "low", "high", "off zero"])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to `.h5`; the file appears whole or not at all."""
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
    def load(cls, path: str | os.PathLike[str]) -> "Comparison":
        """Read what `save` wrote."""
        with files.open_hdf5(path) as file:
            if file.text("content") != "comparison":
                raise ValueError(f"path: {path} holds no comparison; it was not written by Comparison.save.")
            tables: dict[str, Any] = {name: _table(file.text(name), f"{file.told}, {name}") for name in _TABLES}
            found = file.arrays(_SHAPES)
        fold, folds = found["fold"], len(found["largest"])
        if fold.size and not 0 <= fold.min() <= fold.max() < folds:
            raise ValueError(f"path: {path} is damaged: it names folds beyond its {folds}; compare again.")
        names: dict[str, Any] = {name: tuple(map(str, found.pop(name))) for name in ("variants", "muscles")}
        return cls(**found, **names, **tables)

    def _index(self, variant: str) -> int:
        _check.option(variant, self.variants, "variant")
        return self.variants.index(variant)


def compare(
    fields: Any,
    meps: Any,
    *,
    grid: Any,
    key: Key[Array, ""],
    rate: Any = None,
    muscles: Sequence[str] | None = None,
    folds: int = 10,
    preset: str | Preset = "small",
    inputs: Sequence[str] = INPUTS,
    heads: Sequence[str] = ("direct", "synergy", "combined"),
    components: int = 1,
    mask: Any = None,
    didt: Any = None,
    rank: int | None = None,
    space: Space | None = None,
    candidates: int = 1,
    seeds: int = 1,
    counts: Sequence[str] = (),
    held: float | int = 0.1,
    directory: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    show: bool | None = None,
) -> Comparison:
    """Compare what predicts MEPs: {E-field, firing rate} x {direct, synergy, combined}, by cross-validation.

    Everything that is fitted (the range of the fields, the scaling of the MEPs, synergies and their number,
    autoencoders, mappers, when to stop, which candidate to keep) is fitted in each fold to its training trials. All
    autoencoders are trained as one population, all mappers as another.

    Parameters
    ----------
    fields
        (n_stimulus, n_point, 3) or (n_stimulus, nx, ny, nz, 3) V/m, or the path of an HDF5 file of `efield.stream`, of
        which a few stimuli are in memory at a time.
    meps
        `Meps` of which nothing is flagged, or (n_stimulus, n_muscle) peak-to-peak uV.
    grid
        `efield.Grid` of the fields.
    key
        All randomness follows from it.
    rate
        `cortex.FiringRate`; needed for the input "rate".
    muscles
        Names; those of `Meps`, or numbers, by default.
    folds
        How many.
    preset
        "paper": 80 x 80 x 80 voxels of 1 mm to a code of 10 x 10 x 10, 32 and 64 filters: a GPU's work. "m2m-net":
        64 x 64 x 64 to 16 x 16 x 16, and that work's mapper and recipes. "small": the middle 48 mm in blocks of 4 mm to
        a code of 6 x 6 x 6, 8 filters: minutes on two cores; it cannot tell what happens within 4 mm, nor beyond the
        48. Or a `Preset`.
    inputs
        "field" and "rate".
    heads
        Of "direct", "synergy", "combined" (trained jointly) and "two-stage" (the direct part trained on what a
        synergy network, which is then held, left).
    components
        1: the magnitude of the field; 3: its components.
    mask
        (nx, ny, nz) bool: which points count, such as those of motor cortex; None: all that have a field.
    didt
        A/s, one or one a stimulus, for thresholds that need it (`cortex.threshold`).
    rank
        Synergies; None: the fewest with a VAF of 0.90 in the fold's training trials.
    space, candidates
        Hyperparameters of the mapper that are tuned ("learning_rate", "l1", "l2", "dropout"), and how many draws each
        fold chooses from by its held-out trials.
    seeds
        Networks that differ by chance alone, whose predictions are averaged: a little better, and less noise between
        variants.
    counts
        How parameters are counted for AIC and BIC, which come from one more fit of each variant to all trials:
        "parameters", "above", "generalised", "effective", as in `select`. None by default: the last two take minutes
        for each variant.
    held
        Share of a fold's training trials that stop the training and choose candidates.
    directory
        Of the runs: the same call goes on after a kill. None keeps nothing.
    chunk
        Members that a device steps at once; by default what was measured to be fastest.
    show
        Progress; None: on a terminal only.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        Fields, grid, MEPs, preset that do not fit each other; no rate where one is needed; a muscle that is silent in
        the training trials of a fold.
    """
    kinds = tuple(_check.option(kind, INPUTS, "inputs") for kind in inputs)
    if "rate" in kinds and rate is None:
        raise ValueError('rate: none, and inputs have "rate"; pass cortex.FiringRate(...), or inputs=("field",).')
    for head in heads:
        _check.option(head, tuple(HEADS), "heads")
    counts = tuple(_check.option(c, COUNTS, "counts") for c in counts)
    for number, name in ((seeds, "seeds"), (candidates, "candidates")):
        _check.integer(number, name)
    given = trials(fields, meps, grid, preset, rate=rate, muscles=muscles, components=components, mask=mask, didt=didt)
    values, names = given.meps, given.muscles
    if rank is not None and _check.integer(rank, "rank") > len(names):
        raise ValueError(f"rank: {rank} synergies of {len(names)} muscles; take fewer.")
    parts = drawn(len(values), folds, float(held), jax.random.fold_in(key, 0))
    for fold in parts:
        silent = [name for name, m in zip(names, np.ptp(values[fold.known], axis=0), strict=True) if m == 0]
        if silent:
            raise ValueError(
                f"meps: {', '.join(silent)} never varies in the training trials of a fold; leave it out "
                "(meps.pick(muscles=...))."
            )
    seen = given.inputs(*kinds, show=show)
    trained = train_variants(
        seen,
        values,
        parts,
        heads,
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
    found = np.empty((len(trained), *values.shape))
    rows = []
    for v, ((kind, head), models) in enumerate(trained.items()):
        tested = predicted(models, seen[kind], [fold.test for fold in parts])
        for f, (model, part) in enumerate(zip(models, tested, strict=True)):
            found[v, parts[f].test] = part
            number = sum(int(np.size(leaf)) for leaf in model.size)
            rows.append({"variant": _named(kind, head), "fold": f, "held-out score": model.score, "parameters": number})
            rows[-1] |= model.hyper
    criteria = []
    for kind in kinds if counts else ():
        encoders = whole({kind: seen[kind]}, float(held), given.preset, key=key, chunk=chunk, show=show)
        for head in heads:
            row = penalties(
                encoders, seen[kind], values, kind, head, rank=rank, counts=counts, threshold=1e-3, directions=5
            )
            criteria.append({"variant": _named(kind, head)} | row)
    one = next(iter(trained.values()))
    tested_in = np.empty(len(values), int)
    for f, fold in enumerate(parts):
        tested_in[fold.test] = f
    return Comparison(
        tuple(_named(*which) for which in trained),
        names,
        values,
        found,
        np.stack([model.fitted.largest for model in one]),
        tested_in,
        np.array([model.fitted.synergies.shape[1] for model in one]),
        pd.DataFrame(rows),
        pd.DataFrame(criteria).set_index("variant") if criteria else pd.DataFrame(),
    )


def _table(text: str, told: str) -> pd.DataFrame:
    """What `to_json(orient="table")` wrote, its index too."""
    try:
        return pd.read_json(io.StringIO(text), orient="table")
    except Exception as error:  # pandas raises whatever its parser met
        line = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{told}: not a table ({line}); compare again.") from None


def _named(kind: str, head: str) -> str:
    return f"{_LABELS[kind]}, {head}"
