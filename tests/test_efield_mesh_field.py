"""A field in tetrahedra: its numbers against NumPy, its files read back, its figures."""

from types import SimpleNamespace

import h5py
import jax.numpy as jnp
import meshio
import nibabel
import numpy as np
import pytest
from failing_writer import check_failing_writer
from mesh_cases import cube

import jaxm2m as jm
from jaxm2m import efield, fem
from jaxm2m.placement import _target
from jaxm2m.plot import style

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def made(precision):
    """A field that no solver made: numbers to be found again."""
    nodes, elements, middle = cube(8, 64.0)
    far = np.abs(middle).max(1)
    tags = np.select([far < 8, far < 16, far < 24], [1, 2, 3], 5)
    head = jm.head.from_mesh(nodes, elements, tags, spacing=2.0)
    rng = np.random.default_rng(0)
    e = (rng.normal(size=(len(elements), 3)) * 50).astype(np.float32)
    phi = rng.normal(size=len(nodes)).astype(np.float32)
    field = efield.MeshField(
        e=jnp.asarray(e),
        phi=jnp.asarray(phi),
        stats=fem.Stats(jnp.asarray(7), jnp.asarray(3e-6), jnp.asarray(0)),
        didt=jnp.asarray(1e6),
        head=head,
    )
    return SimpleNamespace(field=field, head=head, e=e, phi=phi, tags=tags, nodes=nodes, elements=elements)


def test_summary(made):
    target, radius = np.array([3.0, 5.0, 8.0]), 9.0
    table = made.field.summary(target=target, radius=radius)
    assert list(table.index) == ["white", "grey", "csf", "scalp"]
    assert table.index.name == "tissue"
    magnitude = np.linalg.norm(made.e.astype(float), axis=-1)
    places = made.nodes[made.elements].mean(1)
    for tag, name in zip((1, 2, 3, 5), table.index, strict=True):
        row, inside = table.loc[name], made.tags == tag
        value, ml = magnitude[inside], 8.0**3 / 6 / 1000
        assert row["volume"] == pytest.approx(inside.sum() * ml)
        assert row["peak"] == pytest.approx(value.max(), rel=1e-5)
        np.testing.assert_allclose(
            row[["peak_x", "peak_y", "peak_z"]].astype(float), places[inside][value.argmax()], atol=1e-9
        )
        assert np.percentile(value, 98.5) <= row["p99.9"] <= value.max() * (1 + 1e-6)
        for part in (50, 75):
            assert row[f"volume_{part}"] == pytest.approx((value >= part / 100 * row["p99.9"]).sum() * ml)
        near = np.linalg.norm(places[inside] - target, axis=-1) <= radius
        if near.any():
            assert row["target"] == pytest.approx(value[near].mean(), rel=1e-5)
        else:
            assert np.isnan(row["target"])
    assert "target" not in made.field.summary()
    with pytest.raises(ValueError, match="target: shape"):
        made.field.summary(target=np.zeros((2, 3)))


def test_both_fields_tell_the_same_numbers(made):
    ball = jm.head.sphere((12, 15, 18), 4.0, tissues=("white", "grey", "scalp"))
    tissue = np.where(np.asarray(ball.fractions).sum(0) >= 0.5, np.asarray(ball.fractions).argmax(0), -1)
    voxels = efield.Field(
        e=jnp.ones((*ball.shape, 3)),
        tissue=jnp.asarray(tissue),
        phi=jnp.zeros([n + 1 for n in ball.shape]),
        stats=made.field.stats,
        didt=jnp.asarray(1e6),
        head=ball,
    )
    columns = made.field.summary(target=(0, 0, 0)).columns
    assert list(voxels.summary(target=(0, 0, 0)).columns) == list(columns)


def test_in_voxels(made):
    value, tissue, affine = made.field.in_voxels()
    assert value.shape == made.head.labels.shape == (32, 32, 32)
    np.testing.assert_array_equal(tissue, made.head.labels.astype(int) - 1)
    index = np.array([[3, 4, 5], [16, 17, 18], [31, 0, 12]])
    element, _ = made.head.locate(index @ affine[:3, :3].T + affine[:3, 3] + 1e-4)
    # a centre may lie on the face of two elements
    close = np.abs(value[tuple(index.T)] - np.linalg.norm(made.e[element], axis=-1)) < 1e-4
    assert close.any()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti(made, tmp_path, suffix):
    image = nibabel.nifti1.load(made.field.save(tmp_path / f"sub-1.run{suffix}"))
    assert image.get_data_dtype() == np.float32
    assert image.shape == (32, 32, 32, 3)
    np.testing.assert_allclose(image.affine, made.head.labels_affine)
    element = made.head.voxel_elements()
    assert (element >= 0).all()
    np.testing.assert_array_equal(np.asarray(image.dataobj), made.e[element])
    assert image.header.get_xyzt_units()[0] == "mm"


def test_air_is_zero_in_a_nifti(tmp_path, made):
    nodes, elements, middle = cube(4, 32.0)
    kept = elements[np.abs(middle).max(1) > 8]  # a hole in the middle
    head = jm.head.from_mesh(nodes, kept, np.full(len(kept), 5), spacing=2.0)
    field = efield.MeshField(
        e=jnp.ones((len(kept), 3)), phi=jnp.zeros(len(nodes)), stats=made.field.stats, didt=1e6, head=head
    )
    volume = np.asarray(nibabel.nifti1.load(field.save(tmp_path / "f.nii")).dataobj)
    np.testing.assert_array_equal(volume, np.broadcast_to((head.labels > 0)[..., None], volume.shape))
    assert not volume[8, 8, 8].any()


def test_hdf5(made, tmp_path):
    with h5py.File(made.field.save(str(tmp_path / "field.h5"))) as file:
        for name, value in (("e", made.e), ("phi", made.phi), ("tissue", made.head.tissue)):
            np.testing.assert_array_equal(file[name], value)
        np.testing.assert_array_equal(file["nodes"], made.nodes)
        np.testing.assert_array_equal(file["elements"], made.elements)
        assert float(file["didt"][()]) == 1e6
        assert file["e"].attrs["unit"] == "V/m"
        assert file["nodes"].attrs["unit"] == "mm"
        assert file.attrs["tissues"] == '["white", "grey", "csf", "scalp"]'
        assert file.attrs["space"] == "subject"
        assert file.attrs["status"] == 0
        assert file.attrs["residual"] == pytest.approx(3e-6)


def test_msh(made, tmp_path):
    path = made.field.save(tmp_path / "field.msh")
    assert path.read_bytes().startswith(b"$MeshFormat\n2.2 1 8\n")
    mesh = meshio.read(path)
    np.testing.assert_array_equal(mesh.points, made.nodes)
    np.testing.assert_array_equal(mesh.cells_dict["tetra"], made.elements)
    np.testing.assert_array_equal(mesh.cell_data_dict["gmsh:physical"]["tetra"], made.tags)
    np.testing.assert_allclose(mesh.cell_data_dict["E"]["tetra"], made.e, rtol=1e-6)
    magnitude = np.linalg.norm(made.e.astype(float), axis=-1)
    np.testing.assert_allclose(np.ravel(mesh.cell_data_dict["magnE"]["tetra"]), magnitude, rtol=1e-5)
    np.testing.assert_allclose(np.ravel(mesh.point_data["v"]), made.phi, rtol=1e-6)
    # and it is a head again
    head = jm.head.load(path, 4.0)
    assert head.tissues == made.head.tissues
    np.testing.assert_array_equal(head.elements, made.elements)


def test_unknown_suffix(made, tmp_path):
    with pytest.raises(ValueError, match="path: "):
        made.field.save(tmp_path / "field.vtk")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["f.nii.gz", "f.h5", "f.msh"])
def test_a_writer_that_fails_leaves_what_was_there(made, tmp_path, monkeypatch, name):
    check_failing_writer(made.field, tmp_path / name, monkeypatch)


def test_figures(made):
    """Each pixel of the slice of a field that differs by tissue has its tissue's colour."""
    level = np.array([10.0, 20.0, 30.0, 40.0])[made.head.tissue]
    field = efield.MeshField(
        e=jnp.asarray(level[:, None] * np.array([1.0, 0, 0])),
        phi=made.field.phi,
        stats=made.field.stats,
        didt=made.field.didt,
        head=made.head,
    )
    figure = jm.plot.slices(field, (0.0, 0, 0), limit=40.0)
    picture = np.asarray(figure.axes[0].images[0].get_array())
    middle = np.array(picture.shape[:2]) // 2
    for mm, value in ((0, 10), (12, 20), (20, 30)):
        pixel = picture[middle[0], middle[1] + 2 * mm]
        np.testing.assert_allclose(pixel, style.FIELD(value / 40)[:3], atol=0.02)
    assert jm.plot.cortex(field).axes
    coil = jm.coil.figure8()
    pose = jm.coil.place(made.head.scalp, (0, 0, 10), (0, 1, 0), 4.0)
    assert jm.plot.pose(made.head, coil, pose).axes


def test_targets(made):
    """Targets are found as in a head of voxels."""
    np.testing.assert_array_equal(_target.target(made.head, (1.0, 2, 3)), (1, 2, 3))
    with pytest.raises(ValueError, match="outside the head"):
        _target.target(made.head, (100.0, 2, 3))
