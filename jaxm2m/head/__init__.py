"""What conducts: tissues on a voxel grid or a tetrahedral mesh, their conductivities and surfaces."""

from jaxm2m.head import meshing
from jaxm2m.head._atlas import atlas
from jaxm2m.head._electrodes import electrode, electrode_source
from jaxm2m.head._head import Head, from_fractions
from jaxm2m.head._head_model import HeadModel
from jaxm2m.head._label_tables import LabelTable, label_tables
from jaxm2m.head._load import SUFFIXES, from_labels, load
from jaxm2m.head._mesh_head import MeshHead, from_mesh
from jaxm2m.head._mesh_sphere import sphere_mesh
from jaxm2m.head._sphere import sphere
from jaxm2m.head._surface import Surface
from jaxm2m.head._tetrahedralise import tetrahedralise
from jaxm2m.head._tissues import conductivities

__all__ = [
    "SUFFIXES",
    "Head",
    "HeadModel",
    "LabelTable",
    "MeshHead",
    "Surface",
    "atlas",
    "conductivities",
    "electrode",
    "electrode_source",
    "from_fractions",
    "from_labels",
    "from_mesh",
    "label_tables",
    "load",
    "meshing",
    "sphere",
    "sphere_mesh",
    "tetrahedralise",
]
