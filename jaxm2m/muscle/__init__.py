"""From the field to the muscles: MEPs, synergies, networks, their comparison, and what is said of all of them."""

from jaxm2m.muscle._activate import MuscleObjective, ResponseModel, activate
from jaxm2m.muscle._compare import METRICS, Comparison, compare
from jaxm2m.muscle._compare_sources import SOURCE_PATHWAYS
from jaxm2m.muscle._load import load
from jaxm2m.muscle.maps._motor_map import MapBootstrap, MotorMap, motor_map
from jaxm2m.muscle.maps._recruitment import Recruitment, recruitment
from jaxm2m.muscle.maps._regression import RegressionMap, regression_map
from jaxm2m.muscle.networks._criteria import count_parameters, effective_dof, generalised_dof, information_criteria
from jaxm2m.muscle.networks._fit import fit
from jaxm2m.muscle.networks._inputs import INPUTS
from jaxm2m.muscle.networks._inverse import InverseModel, fit_inverse
from jaxm2m.muscle.networks._model import Model
from jaxm2m.muscle.networks._networks import NetworkConfig
from jaxm2m.muscle.networks._options import TrainingOptions
from jaxm2m.muscle.networks._penalties import COUNTS
from jaxm2m.muscle.networks._presets import PRESETS, NetworkPreset
from jaxm2m.muscle.networks._select import Selection, make_architectures, select
from jaxm2m.muscle.networks._training import TrainingConfig
from jaxm2m.muscle.networks._variants import PATHWAYS
from jaxm2m.muscle.responses._activity import Cycles, normalise_cycles
from jaxm2m.muscle.responses._clusters import SynergyClusters, cluster_synergies
from jaxm2m.muscle.responses._measure import measure, read_recorded
from jaxm2m.muscle.responses._meps import Meps
from jaxm2m.muscle.responses._ranks import BiCrossValidation, VafCurve, bi_cross_validation, vaf_curve
from jaxm2m.muscle.responses._scaling import Scaling
from jaxm2m.muscle.responses._scores import (
    VAF_DEFINITIONS,
    Interval,
    Scores,
    cosine,
    jackknife,
    paired_difference,
    scores,
    vaf,
)
from jaxm2m.muscle.responses._synergies import Matching, Synergies, match_synergies, synergies
from jaxm2m.muscle.sources._density import DensityPrior
from jaxm2m.muscle.sources._fit import fit_sources
from jaxm2m.muscle.sources._linear import LinearPosterior, LinearResponse
from jaxm2m.muscle.sources._sources import Sources
from jaxm2m.muscle.sources._tracker import SourceTracker, track_sources

__all__ = [
    "COUNTS",
    "INPUTS",
    "METRICS",
    "PATHWAYS",
    "PRESETS",
    "SOURCE_PATHWAYS",
    "VAF_DEFINITIONS",
    "BiCrossValidation",
    "Comparison",
    "Cycles",
    "DensityPrior",
    "Interval",
    "InverseModel",
    "LinearPosterior",
    "LinearResponse",
    "MapBootstrap",
    "Matching",
    "Meps",
    "Model",
    "MotorMap",
    "MuscleObjective",
    "NetworkConfig",
    "NetworkPreset",
    "Recruitment",
    "RegressionMap",
    "ResponseModel",
    "Scaling",
    "Scores",
    "Selection",
    "SourceTracker",
    "Sources",
    "Synergies",
    "SynergyClusters",
    "TrainingConfig",
    "TrainingOptions",
    "VafCurve",
    "activate",
    "bi_cross_validation",
    "cluster_synergies",
    "compare",
    "cosine",
    "count_parameters",
    "effective_dof",
    "fit",
    "fit_inverse",
    "fit_sources",
    "generalised_dof",
    "information_criteria",
    "jackknife",
    "load",
    "make_architectures",
    "match_synergies",
    "measure",
    "motor_map",
    "normalise_cycles",
    "paired_difference",
    "read_recorded",
    "recruitment",
    "regression_map",
    "scores",
    "select",
    "synergies",
    "track_sources",
    "vaf",
    "vaf_curve",
]
