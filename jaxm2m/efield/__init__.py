"""The electric field of a coil in a head, differentiable in the pose, the coil and the conductivities."""

from jaxm2m.efield._basis import Basis
from jaxm2m.efield._convergence import ConvergenceError
from jaxm2m.efield._expansion import CoverageError
from jaxm2m.efield._field import Field
from jaxm2m.efield._field_map import FieldMap
from jaxm2m.efield._mesh_field import MeshField
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import Simulator
from jaxm2m.efield._stream import stream
from jaxm2m.efield._uncertainty import RANGES, Uncertainty, first_order_uncertainty, sampled_uncertainty

__all__ = [
    "RANGES",
    "Basis",
    "ConvergenceError",
    "CoverageError",
    "Field",
    "FieldMap",
    "Grid",
    "MeshField",
    "Points",
    "Simulator",
    "Uncertainty",
    "first_order_uncertainty",
    "sampled_uncertainty",
    "stream",
]
