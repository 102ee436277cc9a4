"""Which architecture: a family of them, cross-validated and penalised, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m._progress import progress
from jaxm2m.muscle._folds import drawn
from jaxm2m.muscle._penalties import COUNTS, penalties, whole
from jaxm2m.muscle._presets import PRESETS, Preset
from jaxm2m.muscle._scores import jackknife, paired_difference
from jaxm2m.muscle._trials import trials
from jaxm2m.muscle._variants import HEADS, predicted, train_variants


def family(preset: str | Preset = "small") -> dict[str, Preset]:
    """Ten architectures about a preset, by name: filters, kernels, codes, and mappers, as M2M-Net varied them."""
    base = preset if isinstance(preset, Preset) else PRESETS[_check.option(preset, tuple(PRESETS), "preset")]
    sizes, filters, hidden = base.sizes, base.sizes.filters, base.sizes.hidden
    half, double = (tuple(max(1, int(f * k)) for f in filters[:-1]) + filters[-1:] for k in (0.5, 2))
    changes: dict[str, dict[str, Any]] = {
        "base": {},
        "half the filters": {"filters": half},
        "twice the filters": {"filters": double},
        "kernel 1": {"kernel": 1},
        "kernel 5": {"kernel": 5},
        "one channel of code": {"filters": (*filters[:-1], 1)},
        "four channels of code": {"filters": (*filters[:-1], 4)},
        "max pooling" if sizes.pool == "mean" else "mean pooling": {"pool": "max" if sizes.pool == "mean" else "mean"},
        "narrow mapper": {"hidden": tuple(max(2, h // 4) for h in hidden)},
        "convolutional mapper": {"convolutions": (8,), "activation": "relu"},
    }
    return {name: replace(base, sizes=replace(sizes, **change)) for name, change in changes.items()}


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Architectures compared.

    Attributes
    ----------
    table
        A row for each: cross-validated squared error (of MEPs scaled to [0, 1]) and NRMSE with the ends of its
        jackknife 90 % interval; the error of the trials that it was fitted to; and for each count of parameters k,
        "aic, k" and "bic, k".
    recommended
        Name.
    why
        A sentence.
    predicted
        Name -> (n_stimulus, n_muscle) predictions of left-out trials.
    """

    table: pd.DataFrame
    recommended: str
    why: str
    predicted: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        return f"Selection({len(self.table)} architectures; {self.recommended}: {self.why})"


def select(
    fields: Any,
    meps: Any,
    *,
    grid: Any,
    key: Key[Array, ""],
    rate: Any = None,
    muscles: Sequence[str] | None = None,
    architectures: Mapping[str, Preset] | None = None,
    head: str = "combined",
    folds: int = 5,
    counts: Sequence[str] = COUNTS,
    threshold: float | int = 1e-3,
    directions: int = 5,
    mask: Any = None,
    didt: Any = None,
    rank: int | None = None,
    held: float | int = 0.1,
    chunk: int | None = None,
    show: bool | None = None,
) -> Selection:
    r"""Compare architectures by what they predict and by what their parameters cost (M2M-Net's model selection).

    Each architecture is trained as a population of folds, and once more on all trials, from which the criteria come.
    Recommended is the architecture of the fewest parameters among those whose cross-validated error is not above the
    lowest by more than the paired 90 % interval tells: the criteria are shown beside it, but take trials of one session
    for independent and, with raw parameters, decide by their number alone.

    Parameters
    ----------
    architectures
        Name -> `Preset`; None: `family("small")`.
    head
        Of `compare`.
    counts
        How parameters are counted: "parameters", all of the encoder, the mapper and the head in use; "above", those
        with abs(w) > `threshold`; "generalised", generalised degrees of freedom from `directions` perturbations of the
        MEPs, with the encoder, the scaling and the synergies held; "effective", of the linearised network. The last two
        take minutes each for an architecture.
    fields, meps, grid, key, rate, muscles, folds, mask, didt, rank, held, chunk, show
        Of `compare`.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        As `compare`; a count or head that is not there.
    """
    chosen = family() if architectures is None else dict(architectures)
    if not chosen:
        raise ValueError("architectures: none; name at least one Preset, or leave it out for the family.")
    _check.option(head, tuple(HEADS), "head")
    counts = tuple(_check.option(c, COUNTS, "counts") for c in counts)
    own = {"rate": rate, "muscles": muscles, "mask": mask, "didt": didt}
    given = {name: trials(fields, meps, grid, preset, **own) for name, preset in chosen.items()}
    values = next(iter(given.values())).meps
    kind = "field" if rate is None else "rate"
    parts = drawn(len(values), folds, float(held), jax.random.fold_in(key, 0))
    rows, errors, found = [], {}, {}
    kept: dict[tuple, np.ndarray] = {}
    with progress(len(chosen), "architectures", unit="trained", show=show) as advance:
        for name, preset in chosen.items():
            where = (given[name].reduce.shape, given[name].reduce.block)
            if where not in kept:
                kept[where] = given[name].inputs(kind, show=False)[kind]
            x = kept[where]
            one = train_variants(
                {kind: x}, values, parts, (head,), preset, key=jax.random.fold_in(key, 1), rank=rank, chunk=chunk,
                show=False,
            )[kind, head]  # fmt: skip
            tested = predicted(one, x, [fold.test for fold in parts])
            found[name] = np.empty_like(values)
            squares = np.empty((folds, 2))
            for f, (model, fold, part) in enumerate(zip(one, parts, tested, strict=True)):
                found[name][fold.test] = part
                measured = values[fold.test] / model.fitted.largest
                squares[f] = ((measured - part) ** 2).mean(), (measured**2).mean()
            errors[name] = np.sqrt(squares[:, 0] / squares[:, 1])
            interval = jackknife(errors[name])
            row: dict[str, Any] = {"architecture": name, "squared error": squares[:, 0].mean()}
            row |= {"nrmse": float(interval.estimate), "nrmse_low": float(interval.low)}
            row |= {"nrmse_high": float(interval.high)}
            encoders = whole({kind: x}, float(held), preset, key=key, chunk=chunk, show=False)
            row |= penalties(
                encoders, x, values, kind, head, rank=rank, counts=counts, threshold=threshold, directions=directions
            )
            rows.append(row)
            advance(1, f"{name}: {interval.estimate:.3f}")
    table = pd.DataFrame(rows).set_index("architecture")
    recommended, why = _recommended(table, errors)
    return Selection(table, recommended, why, found)


def _recommended(table: pd.DataFrame, errors: Mapping[str, np.ndarray]) -> tuple[str, str]:
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
    own, lowest = (table.loc[name, "nrmse"] for name in (chosen, best))
    return chosen, (
        f"{number} parameters, the fewest of {len(close)} whose cross-validated NRMSE ({own:.3f}) cannot be told from "
        f"the lowest ({lowest:.3f}, {best})"
    )
