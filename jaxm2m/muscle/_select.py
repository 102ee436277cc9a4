"""Which architecture: a family of them, cross-validated and penalised, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Key, PyTree

from jaxm2m import _check
from jaxm2m._progress import progress
from jaxm2m.muscle._criteria import count_parameters, effective_dof, generalised_dof, information_criteria
from jaxm2m.muscle._folds import Fold, drawn, fitted, split
from jaxm2m.muscle._presets import PRESETS, Preset
from jaxm2m.muscle._scores import jackknife, paired_difference
from jaxm2m.muscle._trials import trials
from jaxm2m.muscle._variants import HEADS, Encoders, Trained, predicted, train_variants

COUNTS = ("parameters", "above", "generalised", "effective")


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
        "direct", "synergy" or "combined".
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
    _check.option(head, tuple(h for h in HEADS if h != "two-stage"), "head")
    counts = tuple(_check.option(c, COUNTS, "counts") for c in counts)
    own = {"rate": rate, "muscles": muscles, "mask": mask, "didt": didt}
    given = {name: trials(fields, meps, grid, preset, **own) for name, preset in chosen.items()}
    values = next(iter(given.values())).meps
    kind = "field" if rate is None else "rate"
    parts = drawn(len(values), folds, float(held), jax.random.fold_in(key, 0))
    train, stop = split(np.arange(len(values)), float(held), jax.random.fold_in(key, 2))
    whole = Fold(train, stop, np.zeros(0, int))
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
            row |= _criteria(x, values, whole, kind, head, preset, rank, counts, threshold, directions, key, chunk)
            rows.append(row)
            advance(1, f"{name}: {interval.estimate:.3f}")
    table = pd.DataFrame(rows).set_index("architecture")
    recommended, why = _recommended(table, errors)
    return Selection(table, recommended, why, found)


def _criteria(
    x: np.ndarray,
    values: np.ndarray,
    whole: Fold,
    kind: str,
    head: str,
    preset: Preset,
    rank: int | None,
    counts: Sequence[str],
    threshold: float | int,
    directions: int,
    key: Array,
    chunk: int | None,
) -> dict[str, Any]:
    """What a fit to all trials tells: its error, its parameters counted, criteria."""
    encoders = Encoders(
        {kind: x}, [whole], preset, x.shape[-1], key=jax.random.fold_in(key, 3), chunk=chunk, show=False
    )
    per_fold = [fitted(values, whole.known, rank, bool(HEADS[head][1]))]
    largest = per_fold[0].largest

    def fit(scaled: np.ndarray) -> Trained:
        return encoders.mappers(scaled * largest, per_fold, [head])[kind, head][0]

    def predict(model: Trained) -> np.ndarray:
        return predicted([model], x, [np.arange(len(x))])[0]

    measured = values / largest
    model = fit(measured)
    k: dict[str, float] = {}
    if "parameters" in counts:
        k["parameters"] = count_parameters(model.size)
    if "above" in counts:
        k["above"] = count_parameters(model.size, threshold)
    if "generalised" in counts:
        k["generalised"] = max(0.0, generalised_dof(lambda y: predict(fit(y)), measured, directions=directions)[0])
    if "effective" in counts:
        k["effective"] = _effective(model, x, preset, values.size)
    table = information_criteria(measured, predict(model), k)
    row: dict[str, Any] = {"squared error of the fit": float(((measured - predict(model)) ** 2).mean())}
    for name in k:
        row |= {name: k[name], f"aic, {name}": table.loc[name, "aic"], f"bic, {name}": table.loc[name, "bic"]}
    return row


def _effective(model: Trained, x: np.ndarray, preset: Preset, n: int) -> float:
    """Of the weights that are trained, with the curvature of the criterion."""
    stepped = ("encoder", "mapper", "head") if preset.tuned else ("mapper", "head")
    params = jax.tree.map(lambda a: jnp.asarray(a[0]), model.params)
    own = {name: params[name] for name in stepped}
    rest = {name: value for name, value in params.items() if name not in stepped}
    entropy = preset.mapper.criterion == "cross-entropy"

    def predict(params: PyTree, one: Any) -> Any:
        p = model.mapper.predict(params | rest, one[None])[0]
        # with this the Gauss-Newton matrix of the cross-entropy is J'J
        return 2 * jnp.arcsin(jnp.sqrt(jnp.clip(p, 1e-6, 1 - 1e-6))) if entropy else p

    decay = max(model.hyper["l2"], 1e-8)
    return float(effective_dof(predict, own, jnp.asarray(x), (2 if entropy else 1) * n * decay))


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
