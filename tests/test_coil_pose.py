"""Poses: placing on a scalp, moving by a twist, staying outside the head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from jaxm2m import coil as jc


class Ball:
    """A spherical scalp."""

    def __init__(self, radius=92.0, centre=(1.0, -2.0, 3.0)):
        self.radius, self.centre = radius, np.asarray(centre)

    def distance(self, points):
        return jnp.linalg.norm(points - self.centre, axis=-1) - self.radius

    def normal(self, points):
        away = points - self.centre
        return away / jnp.linalg.norm(away, axis=-1, keepdims=True)

    def nearest(self, points):
        return self.centre + self.radius * self.normal(points)


def hat(twist):
    u, w = twist[:3], twist[3:]
    matrix = np.zeros((4, 4))
    matrix[:3, :3] = [[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]]
    matrix[:3, 3] = u
    return matrix


def test_place_follows_the_convention(tolerance):
    scalp, target, handle = Ball(), (-40, -20, 52), (-1, -1, 0)
    pose = np.asarray(jc.place(scalp, target, handle, distance=4), float)
    atol = tolerance(1e-5, 1e-12)
    x, y, z, centre = (pose[:3, i] for i in range(4))
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=atol)
    np.testing.assert_allclose(np.cross(y, z), x, atol=atol)
    outward = np.asarray(target) - scalp.centre
    outward = outward / np.linalg.norm(outward)
    np.testing.assert_allclose(z, -outward, atol=atol)
    np.testing.assert_allclose(centre, scalp.centre + 96 * outward, atol=100 * atol)
    tangential = np.array([-1.0, -1, 0]) - (np.array([-1.0, -1, 0]) @ outward) * outward
    np.testing.assert_allclose(y, -tangential / np.linalg.norm(tangential), atol=atol)


def test_place_accepts_points_on_the_scalp_and_ignores_the_handles_length(tolerance):
    scalp = Ball()
    pose = jc.place(scalp, (-40, -20, 52), (-1, -1, 0))
    on = np.asarray(scalp.nearest(jnp.asarray([-40.0, -20.0, 52.0])))
    again = jc.place(scalp, on, np.array([-50.0, -50.0, 0.0]))
    np.testing.assert_allclose(pose, again, atol=tolerance(1e-4, 1e-11))


@pytest.mark.host
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"handle": (0, 0, 0)}, "handle: the zero vector"),
        ({"target": (1, -2, 80), "handle": (0, 0, 5)}, "handle: .* is along the scalp's normal"),
        ({"target": (1, 2)}, r"target: \(1, 2\); give three finite"),
        ({"target": (np.nan, 2, 3)}, "target: .*three finite"),
        ({"handle": "back"}, "handle: 'back' is not numeric"),
        ({"distance": -1.0}, "distance: -1.0 mm"),
        ({"distance": float("nan")}, "distance: nan mm"),
    ],
)
def test_place_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        jc.place(Ball(), **({"target": (-40, -20, 52)} | arguments))


def test_place_refuses_a_target_without_a_scalp_point():
    with pytest.raises(ValueError, match="target: no scalp point"):
        jc.place(Ball(), (1.0, -2.0, 3.0))  # the centre: every scalp point is as near


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 0.3, 0.499, 0.501, 2.0, 3.14159, 5.0])
def test_move_is_the_matrix_exponential(angle, tolerance):
    axis = np.array([0.6, -0.48, 0.64])
    twist = np.concatenate([[3.0, -20.0, 7.0], angle * axis])
    pose = np.asarray(jc.place(Ball(), (-40, -20, 52)), float)
    np.testing.assert_allclose(jax.jit(jc.move)(pose, twist), pose @ expm(hat(twist)), atol=tolerance(5e-5, 1e-11))


def test_move_is_smooth_through_zero_and_through_the_series(x64):
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))

    def value(twist):
        return jnp.sum(weight * jc.move(jnp.eye(4), twist)) + jnp.sum(jc.move(jnp.eye(4), twist)[:3, 3] ** 2)

    value = jax.jit(value)
    by_twist, twice = jax.jit(jax.grad(value)), jax.jit(jax.hessian(value))
    for twist in (np.zeros(6), np.array([1.0, 2.0, 3.0, 0.5, 0.0, 0.0]), np.array([1.0, 2, 3, 0.3, 0.39, 0.1])):
        twist = jnp.asarray(twist)
        gradient, hessian = by_twist(twist), twice(twist)
        for i in range(6):
            e = jnp.zeros(6).at[i].set(1e-4)
            np.testing.assert_allclose((value(twist + e) - value(twist - e)) / 2e-4, gradient[i], atol=2e-6)
            slope = (by_twist(twist + e) - by_twist(twist - e)) / 2e-4
            np.testing.assert_allclose(slope, hessian[i], atol=2e-6)


def test_derivatives_at_zero_twist_are_finite_and_exact(tolerance):
    jacobian = np.asarray(jax.jacfwd(lambda t: jc.move(jnp.eye(4), t))(jnp.zeros(6)))
    for i in range(6):
        np.testing.assert_allclose(jacobian[..., i], hat(np.eye(6)[i]), atol=tolerance(1e-6, 1e-14))
    assert np.isfinite(jax.jit(jax.hessian(lambda t: jnp.sum(jc.move(jnp.eye(4), t))))(jnp.zeros(6))).all()
    third = jax.jit(jax.jacfwd(jax.hessian(lambda t: jnp.sum(jc.move(jnp.eye(4), t)))))(jnp.zeros(6))
    assert np.isfinite(third).all()


def test_move_batches_and_stays_rigid(tolerance):
    rng = np.random.default_rng(0)
    pose, twists = jc.place(Ball(), (-40, -20, 52)), rng.normal(size=(5, 3, 6))
    moved = jc.move(pose, twists)
    assert moved.shape == (5, 3, 4, 4)
    np.testing.assert_allclose(moved[2, 1], jc.move(pose, twists[2, 1]), atol=tolerance(1e-4, 1e-12))
    r = np.asarray(moved[..., :3, :3], float)
    np.testing.assert_allclose(r.swapaxes(-1, -2) @ r, np.broadcast_to(np.eye(3), r.shape), atol=tolerance(1e-5, 1e-13))
    back = jc.move(jc.move(pose, twists[0, 0]), -twists[0, 0])
    np.testing.assert_allclose(back, pose, atol=tolerance(1e-4, 1e-12))


# -- outside the head --------------------------------------------------------------------------------------------------


def test_clearance_sees_the_middle_of_a_flat_face(tolerance):
    coil, scalp = jc.figure8(), Ball()
    pose = jc.place(scalp, (-40, -20, 52), distance=4.0)
    top = float(coil.casing.vertices[:, 2].max())
    # the casing's face is flat: its point over the target is the nearest one; vertices are at most 12 mm apart
    gap = float(jc.clearance(coil, pose, scalp))
    assert 4.0 - top - 0.01 <= gap <= 4.0 - top + 0.3
    jc.check_outside(coil, pose, scalp)


def test_clearance_rises_with_distance(tolerance):
    coil, scalp = jc.figure8(), Ball()
    pose = jc.place(scalp, (-40, -20, 52), distance=10.0)
    slope = jax.grad(lambda t: jc.clearance(coil, jc.move(pose, t), scalp))(jnp.zeros(6))
    assert abs(slope[2] + 1) < 0.02  # z points into the head
    assert np.isfinite(slope).all()


def test_a_coil_in_the_head_is_refused_with_its_depth():
    coil, scalp = jc.figure8(), Ball()
    outside = jc.place(scalp, (-40, -20, 52), distance=4.0)
    inside = jc.move(outside, jnp.asarray([0, 0, 9.0, 0, 0, 0]))
    depth = -float(jc.clearance(coil, inside, scalp))
    assert 4.5 < depth < 5.5
    with pytest.raises(ValueError, match=rf"pose: the coil's casing reaches {depth:.1f} mm into the head"):
        jc.check_outside(coil, inside, scalp)
    with pytest.raises(ValueError, match=r"poses: pose 1 of .*1 of 2 poses are inside"):
        jc.check_outside(coil, jnp.stack([outside, inside]), scalp, name="poses")


def test_wrong_poses_and_missing_casings_are_refused():
    coil, scalp = jc.figure8(), Ball()
    pose = np.array(jc.place(scalp, (-40, -20, 52)))
    sheared = pose.copy()
    sheared[:3, 0] += 0.1 * sheared[:3, 1]
    for wrong in (sheared, pose * np.array([-1, 1, 1, 1]), pose * np.nan):
        with pytest.raises(ValueError, match=r"^targets"):
            jc.check_outside(coil, wrong, scalp, name="targets")
    bare = jc.Coil(coil.elements, None, coil.didt_max, coil.metadata)
    with pytest.raises(ValueError, match="coil: has no casing"):
        jc.clearance(bare, pose, scalp)


@pytest.mark.host
def test_hull_encloses_its_points_and_is_closed():
    for points in (
        np.random.default_rng(0).normal(size=(30, 3)) * 20,
        np.array([[0.0, 0, 0], [50, 0, 0], [0, 50, 0]]),  # flat
        np.array([[0.0, 0, 0], [50, 0, 0]]),  # collinear
        np.zeros((1, 3)),
    ):
        casing = jc.hull(points, 3.0)
        v, t = np.asarray(casing.vertices, float), np.asarray(casing.triangles)
        edges = np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        assert np.linalg.norm(v[t] - v[np.roll(t, -1, axis=1)], axis=-1).max() <= 12.0
        normal = np.cross(v[t[:, 1]] - v[t[:, 0]], v[t[:, 2]] - v[t[:, 0]])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-30
        big = np.linalg.norm(normal, axis=1) > 0.5
        depth = np.einsum("ti,tpi->tp", normal[big], v[t[big, 0]][:, None] - points[None])
        assert depth.min() >= 3.0 - 1e-3
