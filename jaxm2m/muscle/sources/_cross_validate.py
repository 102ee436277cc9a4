"""What sources predict of stimuli whose MEPs they never saw: a fit for each fold, all by the same programs."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from jaxm2m._progress import progress_bar
from jaxm2m.muscle.sources._density import DensityPrior, make_bumps
from jaxm2m.muscle.sources._fit import PRIORS, WIDE, find_centre, gather, read_meps, summarise
from jaxm2m.muscle.sources._posterior import describe_mode, draw_posterior, find_mode
from jaxm2m.muscle.sources._recruitment_curve import N_NUMBER, make_curve_prior

_N_DRAW = 32  # of which the mean is taken


class FoldPrediction(NamedTuple):
    """What one fit predicts.

    Attributes
    ----------
    mean
        (n_stimulus, n_muscle) posterior mean of the mean MEPs of all stimuli, uV.
    prior
        The prior that was taken, by evidence.
    n_number
        Numbers of the fit: of curves and densities.
    """

    mean: Float[np.ndarray, "stimulus muscle"]
    prior: DensityPrior
    n_number: int


def predict_folds(
    responses: Float[np.ndarray, "stimulus grey"],
    points: Float[np.ndarray, "grey 3"],
    middle: Float[np.ndarray, " 3"],
    meps: Sequence[Float[np.ndarray, "stimulus muscle"]],
    *,
    rates: bool,
    key: Key[Array, ""],
    progress: bool | None = None,
) -> list[FoldPrediction]:
    """Fit sources to the MEPs of each fold and predict all stimuli.

    Held-out MEPs are NaN: they count for nothing, and arrays have one shape in all folds. The centre, the prior and
    the posterior are each fold's own; the activity of held-out stimuli is known, as it is of any pose.

    Parameters
    ----------
    responses
        Activity of the grey points.
    points
        Where these are, mm.
    middle
        Where the muscles' common centre is looked for first, mm.
    meps
        Of each fold, uV; a column of NaN is predicted from the prior.
    rates
        Whether the activity is of firing rates, or the field itself.
    key
        Of the draws.
    progress
        Whether a progress bar is shown.
    """
    sessions = [read_meps(values, None)[:2] for values in meps]
    wide = make_bumps(points, middle, WIDE)
    curve = make_curve_prior(rates)
    results = []
    with progress_bar(2 * len(meps), "sources", unit="fits", enabled=progress) as advance:
        layouts = {prior: [] for prior in PRIORS}
        for y, usable in sessions:
            centre = find_centre(responses, y, usable, wide, curve)
            for prior, bumps in layouts.items():
                bumps.append(make_bumps(points, centre, prior))
            advance(1)
        for f, (y, usable) in enumerate(sessions):
            candidates = []
            for prior, bumps in layouts.items():
                data = gather(responses, y, usable, bumps[f], curve, len(wide.kernel))
                mode = describe_mode(find_mode(data), data)
                candidates.append((float(mode.evidence.sum()), data, mode, prior))
            _, data, mode, prior = max(candidates, key=lambda candidate: candidate[0])
            response = summarise(draw_posterior(jax.random.fold_in(key, f), mode, data, _N_DRAW), data)[3]
            n_number = int(usable.any(0).sum()) * (N_NUMBER + len(layouts[prior][f].kernel))
            results.append(FoldPrediction(np.asarray(response, np.float64).T, prior, n_number))
            advance(1)
    return results
