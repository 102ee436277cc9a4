"""Coils placed by gradient: objectives of the field, constraints of the coil, and the search."""

from jaxm2m.placement._explore import Explorer, explore
from jaxm2m.placement._objectives import along, focality, magnitude, ratio, weakest, weighted_sum
from jaxm2m.placement._optimize import check_didt, check_zones, make_problem, optimize
from jaxm2m.placement._placement import Candidate, History, Placement, pose_difference
from jaxm2m.placement._pose_report import Controls, PoseReport
from jaxm2m.placement._search import SearchProblem
from jaxm2m.placement._target import target

__all__ = [
    "Candidate",
    "Controls",
    "Explorer",
    "History",
    "Placement",
    "PoseReport",
    "SearchProblem",
    "along",
    "check_didt",
    "check_zones",
    "explore",
    "focality",
    "magnitude",
    "make_problem",
    "optimize",
    "pose_difference",
    "ratio",
    "target",
    "weakest",
    "weighted_sum",
]
