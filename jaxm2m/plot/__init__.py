"""Figures: one function a figure, each returning a `matplotlib.figure.Figure` and changing nothing else.

Two are to be turned with the mouse: `view` (PyVista), and `live`, in which the coil is moved.

Save them with `figure.savefig("name.png")`; a notebook shows them by itself.
"""

from jaxm2m.plot import style
from jaxm2m.plot._activation import activation
from jaxm2m.plot._ascent import ascent
from jaxm2m.plot._comparison import comparison
from jaxm2m.plot._cortex import cortex
from jaxm2m.plot._live import live
from jaxm2m.plot._motor_map import motor_map
from jaxm2m.plot._population import hyperparameters, lineage
from jaxm2m.plot._pose import pose
from jaxm2m.plot._predictions import predictions
from jaxm2m.plot._quality import quality
from jaxm2m.plot._recruitment import recruitment
from jaxm2m.plot._responses import responses
from jaxm2m.plot._search import search
from jaxm2m.plot._slices import slices
from jaxm2m.plot._source_recruitment import source_recruitment
from jaxm2m.plot._sources import sources
from jaxm2m.plot._synergies import synergies
from jaxm2m.plot._view import view

__all__ = [
    "activation",
    "ascent",
    "comparison",
    "cortex",
    "hyperparameters",
    "lineage",
    "live",
    "motor_map",
    "pose",
    "predictions",
    "quality",
    "recruitment",
    "responses",
    "search",
    "slices",
    "source_recruitment",
    "sources",
    "style",
    "synergies",
    "view",
]
