"""The electric field of a coil in a head, differentiable in the pose, the coil and the conductivities."""

from jaxm2m.efield._basis import Basis
from jaxm2m.efield._expansion import CoverageError
from jaxm2m.efield._field import Field
from jaxm2m.efield._field_map import FieldMap
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import ConvergenceError, Simulator
from jaxm2m.efield._stream import stream

__all__ = ["Basis", "ConvergenceError", "CoverageError", "Field", "FieldMap", "Grid", "Points", "Simulator", "stream"]
