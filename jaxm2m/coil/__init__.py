"""Coils: what drives the field, its files, its vector potential, its pulses and its poses."""

from jaxm2m.coil._casing import check_outside, clearance, hull
from jaxm2m.coil._coil import Casing, Coil
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import Grid
from jaxm2m.coil._load import load, save
from jaxm2m.coil._pose import move, place
from jaxm2m.coil._potential import magnetic_field, vector_potential
from jaxm2m.coil._segments import Segments

__all__ = [
    "Casing",
    "Coil",
    "Dipoles",
    "Grid",
    "Segments",
    "check_outside",
    "clearance",
    "hull",
    "load",
    "magnetic_field",
    "move",
    "place",
    "save",
    "vector_potential",
]
