"""Sources as variants of a comparison: of the muscles, or of their synergies, fitted to each fold's training trials."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.optimize import nnls

from jaxm2m.cortex import FiringRate
from jaxm2m.efield import Grid
from jaxm2m.muscle.networks._folds import Fitted, Fold
from jaxm2m.muscle.sources._activity import read_activity
from jaxm2m.muscle.sources._cross_validate import FoldPrediction, predict_folds

SOURCE_PATHWAYS = ("sources", "synergy-sources")
_FLOOR = 10.0  # uV: MEPs without a response, as the prior of recruitment curves has it


def predict_by_sources(
    fields: Any,
    meps: Float[np.ndarray, "n muscle"],
    folds: Sequence[Fold],
    fitted: Sequence[Fitted],
    kinds: Sequence[str],
    pathways: Sequence[str],
    *,
    grid: Grid,
    rate: FiringRate | None,
    didt: Any,
    grey: Any,
    key: Key[Array, ""],
    progress: bool | None,
) -> dict[tuple[str, str], list[FoldPrediction]]:
    """Predict all trials by sources of each input and pathway, a list over folds; means scaled as the fold's are."""
    region = np.asarray(grid.positions(), np.float64)
    predictions = {}
    for k, kind in enumerate(kinds):
        responses, activity, assumed = read_activity(
            fields,
            grid,
            len(meps),
            rate=rate if kind == "rate" else None,
            normals=None,
            didt=didt if kind == "rate" else None,
            grey=grey,
            progress=progress,
        )
        if assumed and not k:
            warnings.warn(assumed, stacklevel=3)
        points = region[np.asarray(activity.grey)]
        for p, pathway in enumerate(pathways):
            make = _blank_held_out if pathway == "sources" else _compute_activations
            targets, back = make(meps, folds, fitted)
            branch = jax.random.fold_in(key, len(SOURCE_PATHWAYS) * k + p)
            results = predict_folds(
                responses, points, region.mean(0), targets, rates=kind == "rate", key=branch, progress=progress
            )
            predictions[kind, pathway] = [
                one._replace(mean=one.mean @ matrix) for one, matrix in zip(results, back, strict=True)
            ]
    return predictions


def _blank_held_out(
    meps: np.ndarray, folds: Sequence[Fold], fitted: Sequence[Fitted]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """MEPs (uV) of each fold, NaN where held out, and what leads from predictions to scaled MEPs."""
    targets = []
    for fold in folds:
        targets.append(np.full(meps.shape, np.nan))
        targets[-1][fold.known] = meps[fold.known]
    return targets, [np.diag(1 / one.largest) for one in fitted]


def _compute_activations(
    meps: np.ndarray, folds: Sequence[Fold], fitted: Sequence[Fitted]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Activations of each fold's synergies as if they were MEPs, NaN where held out; and what leads back.

    A synergy counts as a muscle whose MEPs are those of the muscle that it uses most, times the muscles' mean largest
    MEP: uV, as priors of recruitment curves expect. Folds with fewer synergies get columns without MEPs.
    """
    rank = max(one.synergies.shape[1] for one in fitted)
    targets, back = [], []
    for fold, one in zip(folds, fitted, strict=True):
        own_rank = one.synergies.shape[1]
        scale = one.synergies.max(0) * one.largest.mean()
        activations = np.array([nnls(one.synergies, row)[0] for row in meps[fold.known] / one.largest])
        targets.append(np.full((len(meps), rank), np.nan))
        targets[-1][fold.known, :own_rank] = np.maximum(activations * scale, _FLOOR)
        matrix = np.zeros((rank, meps.shape[1]))
        # a synergy that the factorisation left empty has no scale, and leads nowhere
        matrix[:own_rank] = (one.synergies / np.where(scale > 0, scale, 1)).T
        back.append(matrix)
    return targets, back
