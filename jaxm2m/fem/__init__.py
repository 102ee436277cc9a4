"""Finite elements for a scalar elliptic problem: div(S grad phi) = f, insulated, on voxels or tetrahedra.

Potentials sit on nodes, what drives on edges, conductivities in elements; the solve is differentiable in all of them.
"""

from jaxm2m.fem import _stencil as stencil
from jaxm2m.fem._algebraic import Algebraic, build_algebraic
from jaxm2m.fem._conjugate_gradient import CONVERGED, MAX_ITERATIONS, MESSAGES, NOT_FINITE, Stats
from jaxm2m.fem._hexahedron import Edges, active_nodes, apply, at_centres, corner_nodes, gradient, load_vector
from jaxm2m.fem._mixture import Mixture, interface_normal, mix, tissue_fractions
from jaxm2m.fem._multigrid import Multigrid, pad_shape
from jaxm2m.fem._solve import Matrix, solve
from jaxm2m.fem._sparse import EllMatrix
from jaxm2m.fem._stiffness import Stiffness, assemble_stiffness
from jaxm2m.fem._tetrahedra import (
    PAIRS,
    Mesh,
    MeshStiffness,
    assemble_mesh_stiffness,
    build_mesh,
    element_mean,
    morton_order,
    precondition,
    shape_gradients,
    to_csr,
)

__all__ = [
    "CONVERGED",
    "MAX_ITERATIONS",
    "MESSAGES",
    "NOT_FINITE",
    "PAIRS",
    "Algebraic",
    "Edges",
    "EllMatrix",
    "Matrix",
    "Mesh",
    "MeshStiffness",
    "Mixture",
    "Multigrid",
    "Stats",
    "Stiffness",
    "active_nodes",
    "apply",
    "assemble_mesh_stiffness",
    "assemble_stiffness",
    "at_centres",
    "build_algebraic",
    "build_mesh",
    "corner_nodes",
    "element_mean",
    "gradient",
    "interface_normal",
    "load_vector",
    "mix",
    "morton_order",
    "pad_shape",
    "precondition",
    "shape_gradients",
    "solve",
    "stencil",
    "tissue_fractions",
    "to_csr",
]
