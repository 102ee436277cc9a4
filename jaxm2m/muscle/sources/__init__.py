"""Where in cortex muscles are driven from: densities over grey matter with their posterior."""

from jaxm2m.muscle.sources._calibration import rank_truths
from jaxm2m.muscle.sources._density import Bumps, DensityPrior, make_bumps
from jaxm2m.muscle.sources._fit import PRIORS, fit_sources
from jaxm2m.muscle.sources._linear import LinearPosterior, LinearResponse
from jaxm2m.muscle.sources._recruitment_curve import (
    RecruitmentCurve,
    evaluate_curve,
    log_likelihood,
    probability_below,
)
from jaxm2m.muscle.sources._sources import Sources
from jaxm2m.muscle.sources._tracker import SourceTracker, track_sources

__all__ = [
    "PRIORS",
    "Bumps",
    "DensityPrior",
    "LinearPosterior",
    "LinearResponse",
    "RecruitmentCurve",
    "SourceTracker",
    "Sources",
    "evaluate_curve",
    "fit_sources",
    "log_likelihood",
    "make_bumps",
    "probability_below",
    "rank_truths",
    "track_sources",
]
