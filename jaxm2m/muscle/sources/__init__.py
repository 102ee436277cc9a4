"""Where in cortex muscles are driven from: densities over grey matter with their posterior."""

from jaxm2m.muscle.sources._density import DensityPrior
from jaxm2m.muscle.sources._fit import PRIORS, fit_sources
from jaxm2m.muscle.sources._sources import Sources

__all__ = ["PRIORS", "DensityPrior", "Sources", "fit_sources"]
