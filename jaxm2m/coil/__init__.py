"""Coils: what drives the field, its files, its vector potential, its pulses and its poses."""

from jaxm2m.coil._casing import TOUCH, check_outside, clear_casing, clearance, hull, offset_surface, refine
from jaxm2m.coil._coil import Casing, Coil
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import PotentialGrid
from jaxm2m.coil._load import SUFFIXES, load, save
from jaxm2m.coil._pose import move, place
from jaxm2m.coil._potential import magnetic_field, vector_potential
from jaxm2m.coil._pulse import Pulse, pulse
from jaxm2m.coil._segments import Segments
from jaxm2m.coil._stimulator import Stimulator, calibrate
from jaxm2m.coil._tabulate import cluster, tabulate
from jaxm2m.coil._threshold import resting_motor_threshold
from jaxm2m.coil._windings import circular, figure8

__all__ = [
    "SUFFIXES",
    "TOUCH",
    "Casing",
    "Coil",
    "Dipoles",
    "PotentialGrid",
    "Pulse",
    "Segments",
    "Stimulator",
    "calibrate",
    "check_outside",
    "circular",
    "clear_casing",
    "clearance",
    "cluster",
    "figure8",
    "hull",
    "load",
    "magnetic_field",
    "move",
    "offset_surface",
    "place",
    "pulse",
    "refine",
    "resting_motor_threshold",
    "save",
    "tabulate",
    "vector_potential",
]
