"""Coils placed by gradient: objectives of the field, constraints of the coil, and the search."""

from jaxm2m.placement._objectives import along, focality, magnitude, ratio, weakest, weighted
from jaxm2m.placement._optimize import optimize
from jaxm2m.placement._placement import Placement
from jaxm2m.placement._target import target

__all__ = ["Placement", "along", "focality", "magnitude", "optimize", "ratio", "target", "weakest", "weighted"]
