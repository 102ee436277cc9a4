"""From the field to the muscles: MEPs, synergies, networks, their comparison, and what is said of all of them."""

from jaxm2m.muscle._activate import Activation, activate
from jaxm2m.muscle._compare import METRICS, Comparison, compare
from jaxm2m.muscle._criteria import count_parameters, effective_dof, generalised_dof, information_criteria
from jaxm2m.muscle._fit import fit
from jaxm2m.muscle._inputs import INPUTS
from jaxm2m.muscle._inverse import InverseModel, fit_inverse
from jaxm2m.muscle._measure import measure, recorded
from jaxm2m.muscle._meps import Meps
from jaxm2m.muscle._model import Model, load
from jaxm2m.muscle._motor_map import MapBootstrap, MotorMap, motor_map
from jaxm2m.muscle._networks import Architecture
from jaxm2m.muscle._penalties import COUNTS
from jaxm2m.muscle._presets import PRESETS, Preset
from jaxm2m.muscle._ranks import BiCrossValidation, VafCurve, bi_cross_validation, vaf_curve
from jaxm2m.muscle._recruitment import Recruitment, recruitment
from jaxm2m.muscle._regression import RegressionMap, regression_map
from jaxm2m.muscle._scaling import Scaling
from jaxm2m.muscle._scores import VAF_DEFINITIONS, Interval, Scores, cosine, jackknife, paired_difference, scores, vaf
from jaxm2m.muscle._select import Selection, family, select
from jaxm2m.muscle._synergies import Matching, Synergies, match_synergies, synergies
from jaxm2m.muscle._training import Recipe
from jaxm2m.muscle._variants import HEADS

__all__ = [
    "COUNTS",
    "HEADS",
    "INPUTS",
    "METRICS",
    "PRESETS",
    "VAF_DEFINITIONS",
    "Activation",
    "Architecture",
    "BiCrossValidation",
    "Comparison",
    "Interval",
    "InverseModel",
    "MapBootstrap",
    "Matching",
    "Meps",
    "Model",
    "MotorMap",
    "Preset",
    "Recipe",
    "Recruitment",
    "RegressionMap",
    "Scaling",
    "Scores",
    "Selection",
    "Synergies",
    "VafCurve",
    "activate",
    "bi_cross_validation",
    "compare",
    "cosine",
    "count_parameters",
    "effective_dof",
    "family",
    "fit",
    "fit_inverse",
    "generalised_dof",
    "information_criteria",
    "jackknife",
    "load",
    "match_synergies",
    "measure",
    "motor_map",
    "paired_difference",
    "recorded",
    "recruitment",
    "regression_map",
    "scores",
    "select",
    "synergies",
    "vaf",
    "vaf_curve",
]
