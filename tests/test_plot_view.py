"""The interactive view: what is in the scene, where it is, and in which colours."""

import subprocess
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxm2m as jm
from jaxm2m import fem

pytestmark = pytest.mark.host

SHOWS = "import pyvista; p = pyvista.Plotter(off_screen=True); p.add_mesh(pyvista.Sphere()); p.screenshot()"
POSE = np.array([[0, 0, 1, -98.0], [0, 1, 0, 0], [-1, 0, 0, 20], [0, 0, 0, 1]])
STATS = fem.Stats(iterations=jnp.int32(1), residual=jnp.float32(0), status=jnp.int32(0))


@pytest.fixture(scope="module", autouse=True)
def _pyvista():
    pyvista = pytest.importorskip("pyvista", reason="needs PyVista (extra `view`)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyvista, "OFF_SCREEN", True)
        yield


@pytest.fixture(scope="module")
def coil(precision):
    return jm.coil.figure8(sides=12, layers=1, turns=3)


@pytest.fixture(scope="module")
def head(precision):
    return jm.head.sphere(spacing=6.0)


def made_field(head):
    """|E| = 2 V/m on the left, 0.5 elsewhere."""
    e = np.zeros((*head.shape, 3), np.float32)
    tissue = np.where(np.asarray(head.fractions).sum(0) > 0.5, np.asarray(head.fractions).argmax(0), -1)
    x = np.arange(head.shape[0]) * head.affine[0, 0] + head.affine[0, 3]
    e[..., 1] = np.where(x[:, None, None] < 0, 2.0, 0.5)
    phi = jnp.zeros([n + 1 for n in head.shape])
    return jm.efield.Field(
        e=jnp.asarray(e), tissue=jnp.asarray(tissue), phi=phi, stats=STATS, didt=jnp.asarray(1e6), head=head
    )


def mesh_of(plotter, name):
    return plotter.actors[name].mapper.dataset


def test_the_cortex_has_the_fields_values(head, coil):
    target = (-70.0, 0, 0)
    scene = jm.plot.view(head, coil, POSE, field=made_field(head), target=target, limit=1.5)
    cortex = mesh_of(scene, "cortex")
    radius = np.linalg.norm(cortex.points, axis=1)
    assert 70 < np.median(radius) < 78
    left, right = cortex.points[:, 0] < -12, cortex.points[:, 0] > 12
    np.testing.assert_allclose(cortex["|E|"][left], 2.0, rtol=1e-3)
    np.testing.assert_allclose(cortex["|E|"][right], 0.5, rtol=1e-3)
    assert tuple(scene.actors["cortex"].mapper.scalar_range) == (0, 1.5)
    scalp = mesh_of(scene, "scalp")
    np.testing.assert_allclose(np.linalg.norm(scalp.points, axis=1), 92, atol=1.5)
    assert 0 < scene.actors["scalp"].prop.opacity < 0.5


def test_the_coil_lies_at_its_pose(head, coil):
    scene = jm.plot.view(head, coil, POSE)
    wires = mesh_of(scene, "windings 0").points
    np.testing.assert_allclose(wires.mean(0), (POSE @ [*np.asarray(coil.elements[0].start).mean(0), 1])[:3], atol=0.5)
    casing = mesh_of(scene, "casing").points
    expected = np.asarray(coil.casing.vertices) @ POSE[:3, :3].T + POSE[:3, 3]
    np.testing.assert_allclose(casing, expected, atol=1e-3)
    for axis, name in enumerate("xyz"):
        arrow = mesh_of(scene, f"coil's {name}").points - POSE[:3, 3]
        np.testing.assert_allclose((arrow @ POSE[:3, axis]).max(), 40, atol=0.5)
    # the viewer is on the coil's side
    assert scene.camera.position[0] < -92


def test_a_head_alone(head):
    scene = jm.plot.view(head)
    assert {"scalp", "cortex"} <= set(scene.actors)
    assert not any(name.startswith(("windings", "coil", "target")) for name in scene.actors)


def test_tetrahedra(coil):
    head = jm.head.sphere_mesh(spacing=12.0)
    e = np.zeros((len(head.elements), 3))
    e[:, 2] = 1.25
    field = jm.efield.MeshField(
        e=jnp.asarray(e), phi=jnp.zeros(len(head.nodes)), stats=STATS, didt=jnp.asarray(1e6), head=head
    )
    scene = jm.plot.view(head, coil, POSE, field=field)
    np.testing.assert_allclose(mesh_of(scene, "cortex")["|E|"], 1.25, rtol=1e-3)


def test_dipoles_are_points(head, coil):
    position = np.array([[-20.0, 0, 0], [20.0, 0, 0]])
    coil = replace(coil, elements=(jm.coil.Dipoles(jnp.asarray(position), jnp.asarray([[0, 0, 1.0], [0, 0, -1]])),))
    scene = jm.plot.view(head, coil, POSE)
    np.testing.assert_allclose(mesh_of(scene, "dipoles 0").points, position @ POSE[:3, :3].T + POSE[:3, 3], atol=1e-4)


def test_what_does_not_fit_is_named(head, coil):
    with pytest.raises(ValueError, match="pose: a coil needs a pose"):
        jm.plot.view(head, coil)
    with pytest.raises(ValueError, match="one view shows one pose"):
        jm.plot.view(head, coil, np.stack([POSE, POSE]))
    other = jm.head.sphere(radii=(70, 78, 80, 86, 90), spacing=6.0)
    with pytest.raises(ValueError, match="field: of another head"):
        jm.plot.view(head, field=made_field(other))


def test_it_says_how_to_get_pyvista(head, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(ModuleNotFoundError, match=r"python -m pip install 'jaxm2m\[view\]'"):
        jm.plot.view(head)


def test_a_picture(head, coil, tmp_path):
    if subprocess.run([sys.executable, "-c", SHOWS], capture_output=True).returncode:
        pytest.skip("VTK cannot draw here")
    from matplotlib.image import imread

    field = made_field(head)
    jm.plot.view(head, coil, POSE, field=field).show(screenshot=str(tmp_path / "view.png"), window_size=(500, 400))
    picture = imread(tmp_path / "view.png")[..., :3]
    assert picture.shape == (400, 500, 3)
    red, green, blue = np.moveaxis(picture[:, :400], -1, 0)
    assert (np.ptp(picture, axis=-1) < 0.02).mean() > 0.2
    assert (picture.min(-1) > 0.99).mean() > 0.2
    assert ((red > green + 0.15) & (red > blue + 0.15)).mean() > 0.02
