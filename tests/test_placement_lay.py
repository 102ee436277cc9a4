"""A coil laid on a scalp and lifted off it: tangential, clear of it, with the derivatives that a search needs."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ball_scalp import Ball

from jaxm2m import coil as coils
from jaxm2m import head
from jaxm2m.placement._scalp import GAP, clear_casing, project_to_scalp

RADIUS = 92.0


def bumpy():
    """A ball of 92 mm with an ear on +x and a nose on +y."""
    axis = (np.arange(64) - 31.5) * 4
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    labels = x**2 + y**2 + z**2 < RADIUS**2
    labels |= (np.abs(x - 94) < 14) & (np.abs(y) < 6) & (np.abs(z) < 18)
    labels |= (np.abs(y - 96) < 16) & (np.abs(x) < 9) & (np.abs(z - 10) < 18)
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = axis[0]
    return head.from_labels(labels.astype(np.uint8), affine, ["scalp"], 4.0).scalp


def rough(seed=0):
    """(24, 4, 4) poses about 5 mm off a ball, leaning by some 10 degrees; by the ear, the nose and elsewhere."""
    random = np.random.default_rng(seed)
    result = np.zeros((24, 4, 4))
    for i, pose in enumerate(result):
        a, b = random.uniform(-40, 40, 2)
        up = ([RADIUS, a, b], [a, RADIUS, 10 + b], random.normal(size=3))[i % 3]
        up = np.array(up) / np.linalg.norm(up)
        z = -up + 0.15 * random.normal(size=3)
        z /= np.linalg.norm(z)
        x = np.cross(random.normal(size=3), z)
        x /= np.linalg.norm(x)
        pose[:3] = np.stack([x, np.cross(z, x), z, (RADIUS + random.uniform(2, 8)) * up], 1)
        pose[3, 3] = 1
    return result


@jax.jit
def place_starts(scalp, poses):
    return jax.vmap(lambda p: project_to_scalp(scalp, p))(poses)


@jax.jit
def lifted(scalp, poses, vertices):
    return jax.vmap(lambda p: clear_casing(p, -p[:3, 2], vertices, scalp))(poses)


@jax.jit
def clearance(scalp, poses, vertices):
    return jax.lax.map(lambda p: scalp.distance(vertices @ p[:3, :3].T + p[:3, 3]).min(), poses)


@pytest.fixture(scope="module")
def case(precision):
    dtype = jnp.result_type(float)
    scalp = bumpy()
    windings = coils.figure8(sides=8, layers=1)
    # few vertices that take turns in touching: differences across such a turn say nothing
    casing = coils.refine(coils.hull(np.asarray(windings.casing.vertices), 0.0), 6.0)
    poses = jnp.asarray(rough(), dtype)
    return SimpleNamespace(
        scalp=scalp,
        ball=Ball(jnp.asarray(RADIUS, dtype)),
        # of a quarter of the vertices: what is asked here does not depend on how many there are
        vertices=jnp.asarray(np.asarray(casing.vertices)[::4], dtype),
        rough=poses,
        on=place_starts(scalp, poses),
    )


def twisted(pose, t):
    zero = jnp.zeros_like(t[0])
    return coils.move(pose, jnp.stack([t[0], t[1], zero, zero, zero, t[2] / 50]))


def differences(function, n, h):
    """Jacobian of a function of n numbers at zero, the last axis theirs."""
    steps = h * np.eye(n)
    return np.stack([(np.asarray(function(s)) - np.asarray(function(-s))) / (2 * h) for s in steps], -1)


def test_laid_poses_lie_on_the_scalp_and_are_tangential(case, tolerance):
    poses = np.asarray(case.on, np.float64)
    assert np.abs(np.asarray(case.scalp.distance(case.on[:, :3, 3]))).max() < 1e-3
    outward = np.asarray(case.scalp.normal(case.on[:, :3, 3]), np.float64)
    np.testing.assert_allclose(poses[:, :3, 2], -outward, atol=tolerance(2e-4, 1e-6))
    turns = poses[:, :3, :3]
    np.testing.assert_allclose(
        turns.swapaxes(1, 2) @ turns, np.tile(np.eye(3), (24, 1, 1)), atol=tolerance(2e-6, 1e-12)
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-5)
    np.testing.assert_array_equal(poses[:, 3], np.tile([0, 0, 0, 1], (24, 1)))
    # the handle keeps its direction: y, the old y and the normal lie in one plane, the ys on one side
    before = np.asarray(case.rough, np.float64)[:, :3, 1]
    assert np.abs(np.einsum("pi,pi->p", np.cross(before, outward), poses[:, :3, 1])).max() < 1e-3
    assert (np.einsum("pi,pi->p", before, poses[:, :3, 1]) > 0).all()
    # no far place is taken
    assert np.linalg.norm(poses[:, :3, 3] - np.asarray(case.rough)[:, :3, 3], axis=1).max() < 20


def test_what_is_laid_stays(case, tolerance):
    again = np.asarray(place_starts(case.scalp, case.on))
    np.testing.assert_allclose(again, np.asarray(case.on), atol=tolerance(1e-3, 1e-6))


def test_lay_on_a_ball(case, tolerance):
    """The foot of the radius, and y as near to the old one as the tangent plane allows."""
    pose = case.rough[4]
    centre, y = np.asarray(pose, np.float64)[:3, 3], np.asarray(pose, np.float64)[:3, 1]
    up = centre / np.linalg.norm(centre)
    y = y - (y @ up) * up
    y /= np.linalg.norm(y)
    found = np.asarray(place_starts(case.ball, case.rough)[4])
    np.testing.assert_allclose(found[:3, 3], RADIUS * up, atol=tolerance(1e-4, 1e-10))
    np.testing.assert_allclose(found[:3, :3], np.stack([np.cross(y, -up), y, -up], 1), atol=tolerance(1e-5, 1e-12))


def of_twist(scalp, pose, vertices, t):
    pose = coils.move(pose, t)
    return clear_casing(pose, -pose[:3, 2], vertices, scalp)


def both(function):
    """Value and Jacobian in the first argument, compiled once."""
    return jax.jit(jax.jacrev(lambda *args: (function(*args),) * 2, has_aux=True))


laying = both(lambda t, scalp, pose: project_to_scalp(scalp, twisted(pose, t)))
lifting = both(lambda t, scalp, pose, vertices: of_twist(scalp, pose, vertices, t))


@pytest.mark.float64
@pytest.mark.parametrize(("surface", "atol"), [("ball", 1e-6), ("scalp", 2e-4)])
def test_derivative_of_lay(case, surface, atol):
    """On the scalp, in the three coordinates of a search; on the ear, beside it and elsewhere."""
    scalp = getattr(case, surface)
    places = np.array([[RADIUS, 3.0, 2.0], [RADIUS, 14.0, -20.0], [-40.0, 30.0, 70.0]])
    poses = jnp.tile(case.rough[0], (24, 1, 1)).at[:3, :3, 3].set(places)
    for pose in place_starts(scalp, poses)[:3]:
        found = np.asarray(laying(jnp.zeros(3), scalp, pose)[0])
        exact = differences(lambda t, pose=pose: laying(jnp.asarray(t), scalp, pose)[1], 3, 1e-4)
        assert np.abs(exact).max() > 0.5
        np.testing.assert_allclose(found, exact, atol=atol)


def test_lift_clears_the_scalp_and_no_more(case):
    low = case.on.at[:, :3, 3].add(-4 * case.on[:, :3, 2])
    high = lifted(case.scalp, low, case.vertices)
    before, after = (np.asarray(clearance(case.scalp, p, case.vertices)) for p in (low, high))
    moved = np.asarray(high - low, np.float64)
    touching = before < GAP
    assert 4 <= touching.sum() <= 20
    assert before.min() < -3
    np.testing.assert_array_equal(moved[~touching], 0)
    assert after.min() > GAP - 5e-3
    assert after[touching].max() < GAP + 0.05
    # straight out, without turning
    np.testing.assert_array_equal(moved[:, :, :3], 0)
    up = -np.asarray(low)[:, :3, 2]
    height = np.einsum("pi,pi->p", moved[:, :3, 3], up)
    np.testing.assert_allclose(moved[:, :3, 3], height[:, None] * up, atol=1e-4)
    assert (height[touching] > 0).all()


@pytest.mark.slow
@pytest.mark.float64
@pytest.mark.parametrize(("surface", "down", "atol"), [("ball", 2.0, 0.01), ("scalp", -4.0, 0.1)])
def test_derivative_of_lift(case, surface, down, atol):
    """In all six coordinates of the pose: that of the vertex which touches (mm for 1 mm, and for 1 rad)."""
    scalp = getattr(case, surface)
    low = place_starts(scalp, case.rough)
    low = low.at[:, :3, 3].add(down * low[:, :3, 2])
    # leaning, so that one vertex touches and not a face
    low = coils.move(low, np.random.default_rng(1).uniform(0.04, 0.12, (24, 6)) * [0, 0, 0, 1, 1, 0])
    before = np.asarray(clearance(scalp, low, case.vertices))
    compared = 0
    for i in np.flatnonzero(before < -1)[:8]:
        up = -np.asarray(low)[i, :3, 2]

        def height(t, i=i, up=up):
            return up @ np.asarray(lifting(jnp.asarray(t), scalp, low[i], case.vertices)[1])[:3, 3]

        exact, coarse = (differences(height, 6, h) for h in (1e-3, 2e-3))
        if np.abs(exact - coarse).max() > atol / 2:
            continue  # another vertex comes to touch
        compared += 1
        found = up @ np.asarray(lifting(jnp.zeros(6), scalp, low[i], case.vertices)[0])[:3, 3]
        # moved along the normal alone, the coil is lifted by as much less
        assert abs(exact[2]) < atol
        assert np.abs(exact).max() > 1
        np.testing.assert_allclose(found, exact, atol=atol)
    assert compared >= 4


@pytest.mark.float64
def test_no_lift_no_derivative(case):
    high = case.on[2].at[:3, 3].add(-60 * case.on[2][:3, 2])
    slope, value = lifting(jnp.zeros(6), case.scalp, high, case.vertices)
    np.testing.assert_array_equal(np.asarray(value), np.asarray(high))
    moved = jax.jit(jax.jacrev(coils.move, argnums=1))(high, jnp.zeros(6))
    np.testing.assert_allclose(np.asarray(slope), np.asarray(moved), atol=1e-5)


# -- casings -----------------------------------------------------------------------------------------------------------


def edges(casing):
    triangles = np.asarray(casing.triangles)
    sides = np.stack([triangles, np.roll(triangles, -1, axis=1)], -1).reshape(-1, 2)
    points = np.asarray(casing.vertices, np.float64)
    return np.linalg.norm(points[sides[:, 0]] - points[sides[:, 1]], axis=1), sides


def area_and_volume(casing):
    a, b, c = (np.asarray(casing.vertices, np.float64)[np.asarray(casing.triangles)[:, i]] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2, np.einsum("ti,ti->", a, np.cross(b, c)) / 6


@pytest.mark.parametrize("edge", [6.0, 4])
def test_refine_keeps_the_surface(edge):
    casing = coils.figure8(sides=8, layers=1).casing
    fine = coils.refine(casing, edge)
    assert edges(casing)[0].max() > edge
    length, sides = edges(fine)
    assert length.max() <= edge * (1 + 1e-6)
    assert length.min() > 0
    # closed and of one orientation: every edge once in each direction
    unique, times = np.unique(sides, axis=0, return_counts=True)
    assert (times == 1).all()
    assert {tuple(s) for s in unique} == {tuple(s) for s in unique[:, ::-1]}
    np.testing.assert_allclose(area_and_volume(fine), area_and_volume(casing), rtol=1e-5)
    assert fine.vertices.dtype == casing.vertices.dtype
    n = len(casing.vertices)
    np.testing.assert_array_equal(np.asarray(fine.vertices)[:n], np.asarray(casing.vertices))


def test_refine_leaves_a_fine_casing():
    casing = coils.refine(coils.figure8(sides=8, layers=1).casing, 8)
    again = coils.refine(casing, 8.5)
    np.testing.assert_array_equal(np.asarray(again.vertices), np.asarray(casing.vertices))
    np.testing.assert_array_equal(np.asarray(again.triangles), np.asarray(casing.triangles))
