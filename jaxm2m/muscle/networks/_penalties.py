"""What a fit to all trials costs: its error, its parameters counted in four ways, information criteria."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxm2m.muscle.networks._criteria import count_parameters, effective_dof, generalised_dof, information_criteria
from jaxm2m.muscle.networks._folds import Fold, fit_scaling, split
from jaxm2m.muscle.networks._options import TrainingOptions
from jaxm2m.muscle.networks._presets import NetworkPreset
from jaxm2m.muscle.networks._variants import PATHWAYS, TrainedMapper, VariantTrainer, predict_trials

COUNTS = ("parameters", "above", "generalised", "effective")


def train_on_all(
    inputs: Mapping[str, np.ndarray],
    preset: NetworkPreset,
    options: TrainingOptions,
    *,
    key: Key[Array, ""],
    progress: bool | None,
) -> VariantTrainer:
    """Train the encoders of all trials, a share of which stops the training."""
    x = next(iter(inputs.values()))
    train, validation = split(np.arange(len(x)), float(options.validation_fraction), jax.random.fold_in(key, 2))
    fold = Fold(train, validation, np.zeros(0, int))
    return VariantTrainer(
        inputs,
        [fold],
        preset,
        x.shape[-1],
        key=jax.random.fold_in(key, 3),
        chunk_size=options.chunk_size,
        progress=progress,
    )


def penalties(
    encoders: VariantTrainer,
    x: np.ndarray,
    values: np.ndarray,
    kind: str,
    pathway: str,
    *,
    rank: int | None,
    counts: Sequence[str],
    threshold: float | int,
    directions: int,
) -> dict[str, Any]:
    """Compute error, counts and criteria of one mapper behind encoders of all trials.

    Parameters
    ----------
    encoders
        Of `train_on_all`.
    x
        (n_stimulus, nx, ny, nz, channels) what of `kind` the encoders saw.
    values
        (n_stimulus, n_muscle) MEPs, uV.
    kind, pathway
        "field" or "rate"; of `PATHWAYS`.
    rank
        Number of synergies; None: the fewest with a VAF of 0.90.
    counts
        Of `COUNTS`.
    threshold
        Of "above".
    directions
        Of "generalised": so often the mapper is trained once more.

    Returns
    -------
    dict
        "fit_squared_error", and for each count k: "k", "aic, k", "bic, k". For "two-stage", "effective" is the sum over
        both networks, each with the other held: of linear smoothers H1 and then H2 of what H1 left, tr H1 + tr H2,
        which is above the trace of both together by tr H2 H1.
    """
    (fold,) = encoders.folds
    per_fold = [fit_scaling(values, fold.known, rank, bool(PATHWAYS[pathway][1]))]
    largest = per_fold[0].largest

    def fit(scaled: np.ndarray) -> TrainedMapper:
        meps = scaled * largest
        first = encoders.mappers(meps, per_fold, ["synergy"]) if pathway == "two-stage" else None
        return encoders.mappers(meps, per_fold, [pathway], first)[kind, pathway][0]

    def predict(model: TrainedMapper) -> np.ndarray:
        return predict_trials([model], x, [np.arange(len(x))])[0]

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
        k["effective"] = _effective_dof(model, x, encoders.preset, values.size)
    table = information_criteria(measured, predict(model), k)
    row: dict[str, Any] = {"fit_squared_error": float(((measured - predict(model)) ** 2).mean())}
    for name in k:
        row |= {name: k[name], f"aic, {name}": table.loc[name, "aic"], f"bic, {name}": table.loc[name, "bic"]}
    return row


def _effective_dof(model: TrainedMapper, x: np.ndarray, preset: NetworkPreset, n: int) -> float:
    """Count the weights that are trained, with the curvature of the criterion; of two stages, the sum."""
    params = jax.tree.map(lambda a: jnp.asarray(a[0]), model.params)
    stages = [params[name] for name in ("first",) if name in params] + [params]
    return sum(_stage_dof(stage, model, x, preset, n) for stage in stages)


def _stage_dof(params: PyTree, model: TrainedMapper, x: np.ndarray, preset: NetworkPreset, n: int) -> float:
    stepped = ("encoder", "mapper", "head") if preset.tuned else ("mapper", "head")
    trained = {name: params[name] for name in stepped}
    rest = {name: value for name, value in params.items() if name not in stepped}
    entropy = preset.mapper.criterion == "cross-entropy"

    def predict(params: PyTree, one: Any) -> Any:
        p = model.mapper.predict(params | rest, one[None])[0]
        # with this the Gauss-Newton matrix of the cross-entropy is J'J
        return 2 * jnp.arcsin(jnp.sqrt(jnp.clip(p, 1e-6, 1 - 1e-6))) if entropy else p

    decay = max(model.hyper["l2"], 1e-8)
    return float(effective_dof(predict, trained, jnp.asarray(x), (2 if entropy else 1) * n * decay))
