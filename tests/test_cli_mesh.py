"""Commands on a tetrahedral head."""

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxm2m import head
from jaxm2m.cli import app

pytestmark = pytest.mark.float32


@pytest.fixture(scope="module")
def mesh(tmp_path_factory, precision):
    """A ball as SimNIBS would write it, in a folder of its own."""
    import meshio

    made = head.sphere_mesh((50, 60, 70), 14.0, tissues=("white", "grey", "scalp"))
    tags = np.array([1, 2, 5], np.int32)[np.asarray(made.tissue)]
    folder = tmp_path_factory.mktemp("m2m_ball")
    cells = [("tetra", np.asarray(made.elements))]
    data = {"gmsh:physical": [tags], "gmsh:geometrical": [tags]}
    meshio.write(folder / "ball.msh", meshio.Mesh(made.nodes, cells, cell_data=data), "gmsh22", binary=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("what", ["file", "folder"])
def test_fields_of_a_mesh(mesh, tmp_path, what):
    pose = np.diag([1.0, -1, -1, 1])
    pose[2, 3] = 80.0
    np.savetxt(tmp_path / "poses.csv", pose.reshape(1, 16), delimiter=",")
    source = mesh / "ball.msh" if what == "file" else mesh
    out = tmp_path / "fields.h5"
    done = CliRunner().invoke(
        app,
        [
            "efield",
            "--head",
            str(source),
            "--coil",
            "figure8",
            "--poses",
            str(tmp_path / "poses.csv"),
            "--roi",
            "0,0,54",
            "--shape",
            "6,6,4",
            "--step",
            "2",
            "--out",
            str(out),
        ],
    )
    assert done.exit_code == 0, done.output
    with h5py.File(out) as file:
        size = np.linalg.norm(file["e"][()], axis=-1)
        assert size.shape == (1, 6, 6, 4)
        assert 0.3 < size.max() < 3  # V/m at 1 A/us


def test_voxels_options_are_refused(mesh, tmp_path):
    np.savetxt(tmp_path / "poses.csv", np.eye(4).reshape(1, 16), delimiter=",")
    done = CliRunner().invoke(
        app,
        [
            "efield",
            "--head",
            str(mesh),
            "--coil",
            "figure8",
            "--poses",
            str(tmp_path / "poses.csv"),
            "--roi",
            "0,0,54",
            "--out",
            str(tmp_path / "f.h5"),
            "--interfaces",
            "hard",
        ],
    )
    assert done.exit_code != 0
