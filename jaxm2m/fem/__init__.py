"""Finite elements for a scalar elliptic problem on voxels: div(S grad phi) = f, insulated.

Potentials sit on nodes, fields on edges, conductivities in voxels; the solve is differentiable in all of them.
"""

from jaxm2m.fem import _ell as ell
from jaxm2m.fem import _stencil as stencil
from jaxm2m.fem._conjugate_gradient import CONVERGED, MAX_ITERATIONS, MESSAGES, NOT_FINITE, Stats
from jaxm2m.fem._hexahedron import Edges, active_nodes, apply, centre, gradient, load
from jaxm2m.fem._mixture import Mixture, interface_normal, mix, tissue_fractions
from jaxm2m.fem._multigrid import Multigrid, padded
from jaxm2m.fem._stiffness import Stiffness, solve, stiffness

__all__ = [
    "CONVERGED",
    "MAX_ITERATIONS",
    "MESSAGES",
    "NOT_FINITE",
    "Edges",
    "Mixture",
    "Multigrid",
    "Stats",
    "Stiffness",
    "active_nodes",
    "apply",
    "centre",
    "ell",
    "gradient",
    "interface_normal",
    "load",
    "mix",
    "padded",
    "solve",
    "stencil",
    "stiffness",
    "tissue_fractions",
]
