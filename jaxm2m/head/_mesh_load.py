"""Heads from the mesh files of Gmsh and SimNIBS."""

from collections.abc import Mapping
from pathlib import Path

from jaxm2m.head._gmsh import read_gmsh
from jaxm2m.head._label_tables import LabelTable
from jaxm2m.head._mesh_head import MeshHead, from_mesh


def load_mesh(
    path: Path,
    *,
    labels: LabelTable | None,
    conductivity: Mapping[str, float | int] | None,
    spacing: float | int | None,
    space: str | None,
) -> MeshHead:
    """A head from a `.msh`; arguments as in `load`."""
    mesh = read_gmsh(path)
    return from_mesh(
        mesh.nodes,
        mesh.elements,
        mesh.tags,
        labels,
        tensors=mesh.tensors,
        conductivity=conductivity,
        spacing=spacing,
        space=space or "subject",
        source=path.name,
        numbers=mesh.numbers,
        name=str(path),
    )
