"""Concentric shells: exact fractions whatever the grid."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import jaxm2m as jm

RADII = (20.0, 26.0, 30.0, 33.0, 37.0)
CENTRE = (3.3, -1.7, 20.6)


def volumes(head):
    return np.cumsum(list(head.volumes().values()))


@pytest.mark.host
@pytest.mark.parametrize("turn", [None, Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()])
def test_volumes_are_the_balls(turn):
    head = jm.head.sphere(RADII, 2.5, centre=CENTRE, rotation=turn)
    exact = 4 / 3 * np.pi * np.array(RADII) ** 3 / 1000
    np.testing.assert_allclose(volumes(head), exact, rtol=2e-5)
    np.testing.assert_allclose(head.spacing, 2.5)
    assert np.linalg.det(head.affine[:3, :3]) > 0


@pytest.mark.host
def test_default_volumes_within_1e_5():
    head = jm.head.sphere(spacing=4.0, centre=(0.3, -0.7, 1.1))
    np.testing.assert_allclose(volumes(head), 4 / 3 * np.pi * np.array((70, 78, 80, 86, 92)) ** 3 / 1000, rtol=1e-5)


@pytest.mark.host
def test_fraction_of_each_voxel_against_fine_sampling():
    head = jm.head.sphere(RADII[:1], 4.0, centre=CENTRE, tissues=("white",))
    cut = np.argwhere((head.fractions[0] > 0.001) & (head.fractions[0] < 0.999))
    t = (np.arange(60) + 0.5) / 60 - 0.5
    sub = np.stack(np.meshgrid(t, t, t, indexing="ij"), -1).reshape(-1, 3)
    chosen = cut[:: max(1, len(cut) // 40)]
    for voxel in chosen:
        p = (voxel + sub) * 4.0 + head.affine[:3, 3] - CENTRE
        expected = (np.linalg.norm(p, axis=1) < 20.0).mean()
        assert abs(head.fractions[0][tuple(voxel)] - expected) < 1.5e-3  # 5e-4 of it is the sampling's


@pytest.mark.host
def test_centroid_is_the_centre_and_grid_stays_on_its_lattice():
    head = jm.head.sphere(RADII, 3.0, centre=CENTRE)
    total = head.fractions.sum(0)
    index = np.argwhere(total > 0)
    centroid = (index * total[tuple(index.T)][:, None]).sum(0) / total.sum()
    np.testing.assert_allclose(head.affine[:3, :3] @ centroid + head.affine[:3, 3], CENTRE, atol=1e-3)
    np.testing.assert_allclose(head.affine[:3, 3] / 3.0, np.rint(head.affine[:3, 3] / 3.0), atol=1e-9)


def test_surfaces_are_exact(tolerance):
    head = jm.head.sphere(RADII, 3.0, centre=CENTRE)
    u = np.random.default_rng(0).normal(size=(100, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for surface, radius in ((head.scalp, 37.0), (head.cortex, 20.0)):
        for d in (-5.0, 0.0, 20.0):
            points = CENTRE + u * (radius + d)
            np.testing.assert_allclose(surface.distance(points), d, atol=6e-3)
            np.testing.assert_allclose(surface.normal(points), u, atol=2e-3)


@pytest.mark.host
def test_tissue_at():
    head = jm.head.sphere(RADII, 2.0, centre=CENTRE)
    r = np.array([0, 19, 23, 28, 31.5, 35, 39, 500.0])
    points = np.array(CENTRE) + r[:, None] * np.array([0.6, 0, 0.8])
    np.testing.assert_array_equal(head.tissue_at(points), [0, 0, 1, 2, 3, 4, -1, -1])
    assert head.tissues == ("white", "grey", "csf", "skull", "scalp")
    assert "white" in head.summary()


@pytest.mark.host
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"radii": (20, 18, 30, 33, 37)}, "inside to outside"),
        ({"radii": (20, 30)}, "one radius for each tissue"),
        ({"spacing": 0}, "above zero"),
        ({"spacing": 0.1}, "coarser"),
        ({"rotation": 2 * np.eye(3)}, "rotation"),
        ({"rotation": np.diag([1.0, 1, -1])}, "left-handed"),
        ({"centre": (0, np.nan, 0)}, "centre"),
        ({"tissues": ("white", "grey", "csf", "skull", "armour")}, "armour"),
        ({"conductivity": {"white": -1.0}}, "positive"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        jm.head.sphere(**{"radii": (20, 26, 30, 33, 37), "spacing": 4.0, **kwargs})
