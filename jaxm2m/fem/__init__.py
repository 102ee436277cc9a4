"""Finite elements for a scalar elliptic problem: div(S grad phi) = f, insulated, on voxels or tetrahedra.

Potentials sit on nodes, what drives on edges, conductivities in elements; the solve is differentiable in all of them.
"""

from jaxm2m.fem import _stencil as stencil
from jaxm2m.fem._algebraic import Algebraic
from jaxm2m.fem._conjugate_gradient import CONVERGED, MAX_ITERATIONS, MESSAGES, NOT_FINITE, Stats
from jaxm2m.fem._hexahedron import Edges, active_nodes, apply, centre, corners, gradient, load
from jaxm2m.fem._mixture import Mixture, interface_normal, mix, tissue_fractions
from jaxm2m.fem._multigrid import Multigrid, padded
from jaxm2m.fem._solve import Matrix, solve
from jaxm2m.fem._sparse import Rows
from jaxm2m.fem._stiffness import Stiffness, stiffness
from jaxm2m.fem._tetrahedra import (
    PAIRS,
    Mesh,
    MeshStiffness,
    along_a_curve,
    csr,
    mean,
    mesh,
    mesh_stiffness,
    preconditioned,
    shape_gradients,
)

__all__ = [
    "CONVERGED",
    "MAX_ITERATIONS",
    "MESSAGES",
    "NOT_FINITE",
    "PAIRS",
    "Algebraic",
    "Edges",
    "Matrix",
    "Mesh",
    "MeshStiffness",
    "Mixture",
    "Multigrid",
    "Rows",
    "Stats",
    "Stiffness",
    "active_nodes",
    "along_a_curve",
    "apply",
    "centre",
    "corners",
    "csr",
    "gradient",
    "interface_normal",
    "load",
    "mean",
    "mesh",
    "mesh_stiffness",
    "mix",
    "padded",
    "preconditioned",
    "shape_gradients",
    "solve",
    "stencil",
    "stiffness",
    "tissue_fractions",
]
