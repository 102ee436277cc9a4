"""One field: its numbers against NumPy, its files read back."""

from types import SimpleNamespace

import h5py
import jax.numpy as jnp
import meshio
import nibabel
import numpy as np
import pytest
from failing_writer import check_failing_writer

import jaxm2m
from jaxm2m import efield, fem, head

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def made(precision):
    """A field that no solver made: numbers to be found again."""
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    ball = head.sphere((12, 15, 18), 4.0, tissues=("white", "grey", "scalp"), centre=(3.0, 5, -2), rotation=turn)
    fractions = np.asarray(ball.fractions)
    tissue = np.where(fractions.sum(0) >= 0.5, fractions.argmax(0), -1)
    rng = np.random.default_rng(0)
    e = np.where(tissue[..., None] >= 0, rng.normal(size=(*ball.shape, 3)) * 50, 0).astype(np.float32)
    phi = rng.normal(size=tuple(n + 1 for n in ball.shape)).astype(np.float32)
    stats = fem.Stats(jnp.asarray(7), jnp.asarray(3e-6), jnp.asarray(0))
    field = efield.Field(
        e=jnp.asarray(e),
        tissue=jnp.asarray(tissue),
        phi=jnp.asarray(phi),
        stats=stats,
        didt=jnp.asarray(1e6),
        head=ball,
    )
    index = np.stack(np.meshgrid(*map(np.arange, ball.shape), indexing="ij"), -1)
    places = index @ ball.affine[:3, :3].T + ball.affine[:3, 3]
    return SimpleNamespace(field=field, head=ball, e=e, tissue=tissue, phi=phi, places=places, fractions=fractions)


def test_summary(made):
    target, radius = np.array([3.0, 5.0, 8.0]), 9.0
    table = made.field.summary(target=target, radius=radius)
    assert list(table.index) == ["white", "grey", "scalp"]
    assert table.index.name == "tissue"
    magnitude = np.linalg.norm(made.e.astype(float), axis=-1)
    for t, name in enumerate(table.index):
        row = table.loc[name]
        inside = made.tissue == t
        weight = made.fractions[t][inside].astype(float) * 0.064
        value = magnitude[inside]
        assert row["volume"] == pytest.approx(weight.sum(), rel=1e-5)
        assert row["peak"] == pytest.approx(value.max(), rel=1e-5)
        np.testing.assert_allclose(
            row[["peak_x", "peak_y", "peak_z"]].astype(float), made.places[inside][value.argmax()]
        )
        order = np.argsort(value)
        share = np.cumsum(weight[order]) / weight.sum()
        # between the neighbours in the distribution by volume
        high = np.searchsorted(share, 0.999)
        assert value[order][max(high - 2, 0)] <= row["p99.9"] <= value.max() * (1 + 1e-6)
        for part in (50, 75):
            above = value >= part / 100 * row["p99.9"]
            assert row[f"volume_{part}"] == pytest.approx(weight[above].sum(), rel=1e-5)
        near = np.linalg.norm(made.places[inside] - target, axis=-1) <= radius
        if near.any():
            assert row["target"] == pytest.approx(np.average(value[near], weights=weight[near]), rel=1e-5)
        else:
            assert np.isnan(row["target"])
    assert "target" not in made.field.summary()
    far = made.field.summary(target=(500.0, 0, 0))
    assert far["target"].isna().all()


def test_summary_arguments(made):
    with pytest.raises(ValueError, match="radius"):
        made.field.summary(target=(0, 0, 0), radius=0.0)
    with pytest.raises(ValueError, match="target: shape"):
        made.field.summary(target=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="target: 1 of 3 values are NaN"):
        made.field.summary(target=(0, np.nan, 0))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti(made, tmp_path, suffix):
    path = made.field.save(tmp_path / f"sub-1.run{suffix}")
    image = nibabel.nifti1.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), made.e)
    np.testing.assert_allclose(image.affine, made.head.affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
    with open(path, "rb") as file:
        assert (file.read(2) == b"\x1f\x8b") == suffix.endswith("gz")


def test_hdf5(made, tmp_path):
    path = made.field.save(str(tmp_path / "field.h5"))
    with h5py.File(path) as file:
        for name in ("e", "tissue", "phi"):
            np.testing.assert_array_equal(file[name], getattr(made, name))
        np.testing.assert_allclose(file["affine"], made.head.affine)
        assert float(file["didt"][()]) == 1e6
        assert file["e"].attrs["unit"] == "V/m"
        assert file.attrs["jaxm2m"] == jaxm2m.__version__
        assert file.attrs["tissues"] == '["white", "grey", "scalp"]'
        assert file.attrs["status"] == 0
        assert file.attrs["residual"] == pytest.approx(3e-6)


def test_msh(made, tmp_path):
    mesh = meshio.read(made.field.save(tmp_path / "field.msh"))
    cells = mesh.cells_dict["hexahedron"]
    active = made.tissue >= 0
    assert len(cells) == active.sum()
    corners = mesh.points[cells]
    np.testing.assert_allclose(corners.mean(1), made.places[active], atol=1e-9)
    np.testing.assert_allclose(mesh.cell_data_dict["E"]["hexahedron"], made.e[active], rtol=1e-6)
    np.testing.assert_array_equal(mesh.cell_data_dict["gmsh:physical"]["hexahedron"], made.tissue[active] + 1)
    # 0-1-2-3 is a face in order, 4-7 lies over it: edges of 4 mm, positive volume
    a, b, c = (corners[:, i] - corners[:, 0] for i in (1, 3, 4))
    np.testing.assert_allclose(np.einsum("ij,ij->i", np.cross(a, b), c), 64, rtol=1e-9)
    np.testing.assert_allclose(corners[:, 2] - corners[:, 0], a + b, atol=1e-9)
    np.testing.assert_allclose(corners[:, 6] - corners[:, 0], a + b + c, atol=1e-9)
    # the potential stands on its nodes
    nodes = np.linalg.solve(made.head.affine[:3, :3], (mesh.points - made.head.affine[:3, 3]).T).T + 0.5
    index = np.round(nodes).astype(int)
    np.testing.assert_allclose(nodes, index, atol=1e-6)
    np.testing.assert_allclose(mesh.point_data["phi"], made.phi[tuple(index.T)], rtol=1e-6)


def test_unknown_suffix(made, tmp_path):
    for name in ("field.vtk", "field", "field.gz"):
        with pytest.raises(ValueError, match="path: "):
            made.field.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["f.nii.gz", "f.h5", "f.msh"])
def test_a_writer_that_fails_leaves_what_was_there(made, tmp_path, monkeypatch, name):
    check_failing_writer(made.field, tmp_path / name, monkeypatch)


def test_a_folder_that_does_not_exist(made, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        made.field.save(tmp_path / "nowhere" / "f.h5")


def test_magnitude(made):
    np.testing.assert_allclose(made.field.magnitude, np.linalg.norm(made.e, axis=-1), rtol=1e-5)
