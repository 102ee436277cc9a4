"""MEPs and how well they are predicted: measured and scaled, factorised into synergies, scored, and penalised."""

from jaxm2m.muscle._criteria import count_parameters, effective_dof, generalised_dof, information_criteria
from jaxm2m.muscle._meps import Meps, Scaling, measure, recorded
from jaxm2m.muscle._scores import VAF_DEFINITIONS, Interval, Scores, cosine, jackknife, paired_difference, scores, vaf
from jaxm2m.muscle._synergies import (
    BiCrossValidation,
    Matching,
    Synergies,
    VafCurve,
    bi_cross_validation,
    match_synergies,
    synergies,
    vaf_curve,
)

__all__ = [
    "VAF_DEFINITIONS",
    "BiCrossValidation",
    "Interval",
    "Matching",
    "Meps",
    "Scaling",
    "Scores",
    "Synergies",
    "VafCurve",
    "bi_cross_validation",
    "cosine",
    "count_parameters",
    "effective_dof",
    "generalised_dof",
    "information_criteria",
    "jackknife",
    "match_synergies",
    "measure",
    "paired_difference",
    "recorded",
    "scores",
    "synergies",
    "vaf",
    "vaf_curve",
]
