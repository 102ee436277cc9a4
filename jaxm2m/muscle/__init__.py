"""MEPs and how well they are predicted: measured and scaled, factorised into synergies, scored, and penalised."""

from jaxm2m.muscle._criteria import count_parameters, effective_dof, generalised_dof, information_criteria
from jaxm2m.muscle._measure import measure, recorded
from jaxm2m.muscle._meps import Meps
from jaxm2m.muscle._ranks import BiCrossValidation, VafCurve, bi_cross_validation, vaf_curve
from jaxm2m.muscle._scaling import Scaling
from jaxm2m.muscle._scores import VAF_DEFINITIONS, Interval, Scores, cosine, jackknife, paired_difference, scores, vaf
from jaxm2m.muscle._synergies import Matching, Synergies, match_synergies, synergies

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
