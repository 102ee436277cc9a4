"""The electric field of a coil in a head, differentiable in the pose, the coil and the conductivities."""

from jaxm2m.efield._basis import Basis
from jaxm2m.efield._compute_fields import compute_fields
from jaxm2m.efield._convergence import ConvergenceError
from jaxm2m.efield._expansion import CAUTION, CoverageError
from jaxm2m.efield._field_map import FieldMap, FieldSolver, evaluate
from jaxm2m.efield._interpolate import interpolate
from jaxm2m.efield._mesh_field import MeshField
from jaxm2m.efield._poses import check_poses
from jaxm2m.efield._region import Region
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import Simulator
from jaxm2m.efield._uncertainty import RANGES, Uncertainty, first_order_uncertainty, sampled_uncertainty
from jaxm2m.efield._voxel_field import Field
from jaxm2m.efield._voxel_recovery import build_recovery
from jaxm2m.efield._voxel_solver import INTERFACES

__all__ = [
    "CAUTION",
    "INTERFACES",
    "RANGES",
    "Basis",
    "ConvergenceError",
    "CoverageError",
    "Field",
    "FieldMap",
    "FieldSolver",
    "Grid",
    "MeshField",
    "Points",
    "Region",
    "Simulator",
    "Uncertainty",
    "build_recovery",
    "check_poses",
    "compute_fields",
    "evaluate",
    "first_order_uncertainty",
    "interpolate",
    "sampled_uncertainty",
]
