"""Signed distances made from volume fractions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxm2m as jm
from jaxm2m.head import _distance

CENTRE = np.array([4.3, -2.6, 8.1])
RADIUS = 60.0


@pytest.fixture(scope="module")
def fractions():
    head = jm.head.sphere((RADIUS,), 2.0, centre=tuple(CENTRE), tissues=("white",))
    return head.fractions[0], head.affine


@pytest.fixture(scope="module")
def scalp(fractions):
    return _distance.build_scalp(*fractions)[0]


def directions(n=300, seed=0):
    u = np.random.default_rng(seed).normal(size=(n, 3))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def angles(a, b):
    return np.degrees(np.arccos(np.clip((np.asarray(a) * b).sum(-1), -1, 1)))


def test_distance_and_normal_near_a_sphere(scalp):
    u = directions()
    for d in (-5.0, -2.0, 0.0, 2.0, 4.0, 6.0):
        points = CENTRE + u * (RADIUS + d)
        # 0.06 mm of it is the shift towards the centre that smoothing by one voxel makes
        np.testing.assert_allclose(scalp.distance(points), d, atol=0.13)
        assert angles(scalp.normal(points), u).max() < 1.0
        np.testing.assert_allclose(np.linalg.norm(scalp.gradient(points), axis=1), 1, atol=0.02)


def test_distance_far_away(scalp):
    u = directions()
    for d in (15.0, 30.0, 55.0):
        points = CENTRE + u * (RADIUS + d)
        np.testing.assert_allclose(scalp.distance(points), d, atol=0.5)
        assert angles(scalp.normal(points), u).max() < 4.0


def test_cortex_grid_and_distance(fractions):
    surface = _distance.build_cortex(*fractions)
    u = directions()
    for d in (-3.0, 0.0, 3.0):
        points = CENTRE + u * (RADIUS + d)
        np.testing.assert_allclose(surface.distance(points), d, atol=0.2)
        assert angles(surface.normal(points), u).max() < 2.5


def test_nearest_lies_on_the_surface_below_the_point(scalp, tolerance):
    u = directions()
    for d in (-3.0, 0.0, 5.0, 40.0):
        found = np.asarray(scalp.nearest(CENTRE + u * (RADIUS + d)))
        np.testing.assert_allclose(scalp.distance(found), 0, atol=tolerance(1e-4, 1e-6))
        np.testing.assert_allclose(found, CENTRE + u * RADIUS, atol=0.15 + 0.02 * abs(d))


def test_continuous_and_finite_beyond_the_grid(scalp):
    affine = np.asarray(scalp.affine)
    corner = affine[:3, 3] + affine[:3, :3] @ (np.array(scalp.coefficients.shape) - 1)
    edge = np.array([corner[0], CENTRE[1], CENTRE[2]])
    out = np.array([1.0, 0, 0])
    inner, outer = scalp.distance(np.stack([edge - 1e-3 * out, edge + 1e-3 * out]))
    assert abs(outer - inner) < 5e-3
    far = np.array([[1e4, 0, 0], [-500, 300, 900], CENTRE])
    assert np.isfinite(scalp.distance(far)).all()
    assert np.isfinite(scalp.normal(far)).all()
    # an upper bound by construction, and never far off
    exact = np.linalg.norm(far[:2] - CENTRE, axis=1) - RADIUS
    assert (np.asarray(scalp.distance(far[:2])) - exact < 0.1 * exact).all()


@pytest.mark.slow
def test_gradients_against_central_differences(scalp, x64):
    points = CENTRE + directions(20) * np.linspace(40, 110, 20)[:, None]
    gradient = np.asarray(scalp.gradient(points))
    jacobian = jax.jit(jax.jacfwd(scalp.nearest))
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-4
        numeric = (scalp.distance(points + step) - scalp.distance(points - step)) / 2e-4
        np.testing.assert_allclose(gradient[:, axis], numeric, atol=1e-6)
    p = jnp.asarray(points[8])
    columns = [(scalp.nearest(p + s) - scalp.nearest(p - s)) / 2e-4 for s in np.eye(3) * 1e-4]
    np.testing.assert_allclose(jacobian(p), np.stack(columns, -1), atol=1e-5)


@pytest.mark.slow
def test_transforms(scalp, tolerance):
    points = jnp.asarray(CENTRE + directions(8) * 64)
    value = scalp.distance(points)
    # the surface is an argument: nothing of it is baked into a program
    jitted = jax.jit(lambda s, p: s.distance(p))(scalp, points)
    np.testing.assert_allclose(jitted, value, atol=tolerance(1e-3, 1e-9))
    np.testing.assert_allclose(jax.vmap(scalp.distance)(points), value, atol=tolerance(1e-3, 1e-9))

    @jax.jit  # one program: op by op each of the many small pieces would be compiled alone
    def both(p):
        def square(p):
            return (scalp.nearest(p) ** 2).sum()

        return jax.grad(square)(p), jax.jvp(square, (p,), (jnp.ones_like(p),))[1]

    slope, forward = both(points)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope.sum(), forward, rtol=1e-3)
    assert np.isfinite(jax.jit(jax.hessian(scalp.distance))(points[0])).all()


@pytest.mark.host
def test_triangulation_is_closed_and_outward(scalp):
    v, t = scalp.vertices, scalp.triangles
    np.testing.assert_allclose(np.linalg.norm(v - CENTRE, axis=1), RADIUS, atol=0.2)
    a, b, c = (v[t[:, k]] for k in range(3))
    enclosed = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    np.testing.assert_allclose(enclosed, 4 / 3 * np.pi * RADIUS**3, rtol=0.01)
    edges = np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


@pytest.mark.host
def test_a_cut_head_is_continued_and_its_triangulation_open():
    x, y, z = np.meshgrid(*(np.arange(n) for n in (50, 50, 40)), indexing="ij")
    r = np.hypot(x - 24.5, y - 24.5)
    solid = np.clip(18 - np.where(z < 15, r, np.sqrt(r**2 + (z - 15.0) ** 2)) + 0.5, 0, 1).astype(np.float32)
    surface, remarks = _distance.build_scalp(solid, np.diag([2.0, 2, 2, 1]))
    assert any("cut" in r for r in remarks)
    # 10 mm beside the neck and 20 mm below the cut: the side counts, the cut does not
    beside = np.array([[2 * (24.5 + 18) + 10, 49, 4.0], [2 * (24.5 + 18) + 10, 49, -20.0]])
    np.testing.assert_allclose(surface.distance(beside), 10, atol=0.3)
    np.testing.assert_allclose(surface.normal(beside), [[1, 0, 0]] * 2, atol=0.05)
    assert surface.vertices[:, 2].min() > -1.5
    assert surface.vertices[:, 2].max() > 2 * (15 + 17)


@pytest.mark.host
def test_inner_air_counts_as_head():
    x, y, z = np.meshgrid(*(np.arange(40),) * 3, indexing="ij")
    r = np.sqrt((x - 19.5) ** 2 + (y - 19.5) ** 2 + (z - 19.5) ** 2)
    solid = (r < 17).astype(np.float32)
    solid[(r < 5)] = 0  # a sinus
    solid[19:21, 19:21, 20:] = 0  # an ear canal, 4 mm wide, leads to it
    surface, remarks = _distance.build_scalp(solid, np.diag([2.0, 2, 2, 1]))
    assert any("inner air" in r for r in remarks)
    middle = float(surface.distance(np.array([39.0, 39, 39])))
    assert -35 < middle < -28  # the cone of the distance is rounded; an open sinus would make it positive


@pytest.mark.host
def test_few_shapes():
    """Grids come in multiples of 16, so that heads of about one size share programs."""
    for n in (20, 22):
        solid = np.zeros((n + 6, n + 7, n + 5), np.float32)
        solid[3:-3, 3:-3, 3:-3] = 1
        surface, _ = _distance.build_scalp(solid, np.diag([2.0, 2, 2, 1]))
        assert all(s % 16 == 0 for s in surface.coefficients.shape)


@pytest.mark.host
def test_bad_points(scalp):
    with pytest.raises(ValueError, match="points"):
        scalp.distance(np.array([[0.0, np.nan, 0.0]]))


def test_one_point_by_numpy_is_the_same_point():
    for surface in (jm.head.sphere(spacing=6.0).scalp, jm.head.sphere(spacing=8.0).cortex):
        rng = np.random.default_rng(3)
        points = rng.normal(size=(12, 3))
        points *= (70 + 30 * rng.random((12, 1))) / np.linalg.norm(points, axis=1, keepdims=True)
        expected = np.asarray(surface.nearest(points))
        for point, nearest in zip(points, expected, strict=True):
            np.testing.assert_allclose(surface.find_nearest(point), nearest, atol=2e-3)
