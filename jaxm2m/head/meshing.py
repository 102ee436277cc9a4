"""The steps of `tetrahedralise` and `sphere_mesh`, for geometries of other kinds: lattice, levels, fit, repair.

nodes, elements = build_lattice(fine, used)
nodes, elements, material = conform(Levels(levels_of_labels(labels, count), affine), nodes * edge, elements)
nodes = repair(nodes, elements)
"""

from jaxm2m.head._bisection import build_lattice
from jaxm2m.head._mesh_repair import repair
from jaxm2m.head._mesh_sphere import build_ball
from jaxm2m.head._tetrahedralise import REACH, Levels, conform, levels_of_fractions, levels_of_labels

__all__ = [
    "REACH",
    "Levels",
    "build_ball",
    "build_lattice",
    "conform",
    "levels_of_fractions",
    "levels_of_labels",
    "repair",
]
