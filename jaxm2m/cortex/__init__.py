"""From the electric field to the firing rate of motor cortex, differentiable in the field and in every parameter."""

from jaxm2m.cortex._curves import hill, sigmoid, table, weibull
from jaxm2m.cortex._firing_rate import PRESETS, FiringRate, from_settings, preset
from jaxm2m.cortex._threshold import Threshold, threshold

__all__ = [
    "PRESETS",
    "FiringRate",
    "Threshold",
    "from_settings",
    "hill",
    "preset",
    "sigmoid",
    "table",
    "threshold",
    "weibull",
]
