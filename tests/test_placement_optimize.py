"""The search: known optima in a sphere, limits that hold, results that can be used."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ball_scalp import Ball
from exact_sphere import coil_field
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist

from jaxm2m import coil as coils
from jaxm2m import efield, head, placement, session
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m.efield import _basis_sources
from jaxm2m.placement import _search
from jaxm2m.placement._placement import group_poses, pose_difference
from jaxm2m.placement._search import PEAK, REASONS, STUCK

pytestmark = pytest.mark.slow

RADIUS, DEPTH, DISTANCE = 92.0, 24.0, 4.0  # mm: of the scalp; of the target under it; of the coil above it
AXIS = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
SIDE = np.cross(AXIS, [0, 0, 1]) / np.linalg.norm(np.cross(AXIS, [0, 0, 1]))
ALONG = np.cos(0.7) * SIDE + np.sin(0.7) * np.cross(AXIS, SIDE)
MIDDLE = np.array([False, True, False])


@tree
class Exact:
    r"""The field in a conducting ball, E(r) = r x int_0^1 t dB/dt(t r) dt."""

    points: Any
    coil: Any

    def __call__(self, pose, *, didt=1e6):
        return coil_field(self.coil, pose, self.points, didt)


def exact(axis, along, coil):
    """Points on a line through the target, 12 mm apart, at one depth."""
    line = (RADIUS - DEPTH) * axis + 12 * np.array([-1.0, 0, 1])[:, None] * along
    return Exact(jnp.asarray(line, float), coil)


def wish(along=ALONG, directed=1.0, size=0.0, where=MIDDLE):
    """One program for every test: E along a direction in the middle point, |E| in some."""
    return placement.weighted_sum([placement.along(along, MIDDLE), placement.magnitude(where)], [directed, size])


def top(axis=AXIS, along=ALONG):
    """The best pose over a target in a ball, by symmetry."""
    pose = np.eye(4)
    pose[:3] = np.stack([np.cross(along, -axis), along, -axis, (RADIUS + DISTANCE) * axis], 1)
    return pose


def off(poses, axis=AXIS, along=ALONG):
    """Of poses: mm along the scalp from an axis, and degrees between y and a direction."""
    up = poses[..., :3, 3] / np.linalg.norm(poses[..., :3, 3], axis=-1, keepdims=True)
    turn = np.arctan2(np.linalg.norm(np.cross(poses[..., :3, 1], along), axis=-1), poses[..., :3, 1] @ along)
    return RADIUS * np.linalg.norm(np.cross(up, axis), axis=-1), np.degrees(turn)


@pytest.fixture(scope="module")
def sphere(precision):
    coil = coils.figure8(sides=8, layers=1)
    # convex: whether it enters a head can then be asked of its corners
    coil = replace(coil, casing=coils.hull(np.asarray(coil.casing.vertices), 0.0))
    scalp = Ball(jnp.asarray(RADIUS, float))
    field = exact(AXIS, ALONG, coil)

    def search(objective, key=1, axis=AXIS, along=ALONG, **changes):
        arguments = {"coil": coil, "scalp": scalp, "target": (RADIUS - DEPTH) * axis, "n_starts": 16}
        arguments |= {"key": jax.random.key(key), "distance": DISTANCE} | changes
        return placement.optimize(exact(axis, along, coil), objective, **arguments)

    return SimpleNamespace(coil=coil, scalp=scalp, field=field, search=search, directed=search(wish()))


@pytest.mark.slow("float64")
def test_directed_field_from_anywhere(sphere):
    """From up to 30 mm away and any turn, also against the field, each start ends on the spot."""
    for found in (sphere.directed, sphere.search(wish(), 2)):
        moved, turned = off(found.history.poses[0])
        assert moved[0] < 0.01
        assert 25 < moved.max() < 30.5
        # those that were against the field have been turned
        assert set(found.history.evaluations[0]) == {1, 2}
        assert (found.history.values[0] > 0).all()
        moved, turned = off(found.history.poses[-1])
        assert moved.max() < 0.1
        assert turned.max() < 0.2
        # the one over the target is at the peak as soon as it is turned
        assert set(found.reasons) <= {REASONS[PEAK], REASONS[STUCK]}
        best = float(wish()(sphere.field(jnp.asarray(top(), float))))
        np.testing.assert_allclose(found.history.values[-1], best, rtol=1e-5)
        assert found.value == found.history.values[-1].max() == found.ranked[0].value
        assert found.ranked[0].starts == 16
        np.testing.assert_allclose(found.pose, top(), atol=0.1)


def test_size_of_the_field_at_one_point(sphere):
    """Over the target, and there every turn is as good."""
    found = sphere.search(wish(directed=0, size=1))
    moved, turned = off(found.history.poses[-1])
    assert moved.max() < 0.1
    assert np.ptp(turned) > 60
    np.testing.assert_allclose(found.history.values[-1], sphere.directed.value, rtol=1e-4)
    assert len(found.ranked) > 3


def test_two_ends_of_a_symmetric_coil(sphere):
    """|E| along a line: the coil and the coil turned by 180 degrees do the same."""
    found = sphere.search(wish(directed=0, size=1, where=~MIDDLE))
    assert len(found.ranked) == 2
    first, second = found.ranked
    assert second.value == pytest.approx(first.value, rel=1e-4)
    assert first.starts + second.starts == 16
    assert min(first.starts, second.starts) > 2
    table = found.table()
    assert table["mm from best"][1] < 0.1
    assert table["degrees from best"][1] == pytest.approx(180, abs=0.5)


def test_nothing_compiles_for_another_target_or_key(sphere, caplog):
    axis = np.array([-0.2, 0.7, 0.5]) / np.linalg.norm([-0.2, 0.7, 0.5])
    along = np.cross(axis, AXIS) / np.linalg.norm(np.cross(axis, AXIS))
    with jax.log_compiles(), caplog.at_level("WARNING"):
        found = sphere.search(wish(along), 7, axis, along, distance=6.0, radius=20, didt=2e6)
    assert [m for m in caplog.messages if m.startswith("Compiling")] == []
    moved, turned = off(found.pose, axis, along)
    assert moved < 0.1
    assert turned < 0.2
    assert np.linalg.norm(found.pose[:3, 3]) == pytest.approx(RADIUS + 6, abs=1e-3)
    assert found.didt == 2e6


def test_the_same_key_gives_the_same_numbers(sphere):
    again, other = sphere.search(wish()), sphere.search(wish(), 2)
    for name in ("poses", "values", "evaluations"):
        np.testing.assert_array_equal(getattr(again.history, name), getattr(sphere.directed.history, name))
    assert again.value == sphere.directed.value
    np.testing.assert_array_equal(again.pose, sphere.directed.pose)
    assert np.abs(other.history.poses[0] - again.history.poses[0]).max() > 1


def test_history(sphere):
    found = sphere.directed
    history = found.history
    steps = len(history.values)
    assert 6 < steps <= 60
    assert history.poses.shape == (steps, 16, 4, 4)
    assert history.values.shape == history.evaluations.shape == (steps, 16)
    # no start ever falls back, and each is evaluated once a step until it stops
    eps = np.finfo(history.values.dtype).eps
    assert (np.diff(history.values, axis=0) >= -8 * eps * np.abs(history.values[1:])).all()
    assert set(history.evaluations[0]) == {1, 2}
    more = np.diff(history.evaluations, axis=0)
    assert set(np.unique(more)) == {0, 1}
    assert (np.diff(more, axis=0) <= 0).all()
    assert history.evaluations[-1].max() in (steps, steps + 1)
    assert found.evaluations == history.evaluations[-1].sum()
    # at every step the coil lies tangentially at its distance
    centres = history.poses[..., :3, 3]
    np.testing.assert_allclose(np.linalg.norm(centres, axis=-1), RADIUS + DISTANCE, atol=2e-3)
    np.testing.assert_allclose(history.poses[..., :3, 2], -centres / (RADIUS + DISTANCE), atol=1e-4)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(sphere):
    """The same with all further coordinates, of which there is little tilt, and a zone far away."""

    def search(objective, **changes):
        arguments = {"n_starts": 8, "tilt": 0.01, "offset": 8.0, "didt": (0.5e6, 2e6)}
        arguments |= {"avoid": [(-100 * AXIS, 10)]} | changes
        return sphere.search(objective, **arguments)

    return SimpleNamespace(search=search, free=search(wish()))


def leans(poses):
    """Degrees between the coil's axis and the radius, of poses over a ball that were not moved along the tangent."""
    up = poses[..., :3, 3] / np.linalg.norm(poses[..., :3, 3], axis=-1, keepdims=True)
    return np.degrees(np.arcsin(np.clip(np.linalg.norm(np.cross(poses[..., :3, 2], up), axis=-1), 0, 1)))


@pytest.mark.slow("float64")
def test_the_coil_stays_near_and_its_current_grows(sphere, limited):
    found = limited.free
    assert found.didt == pytest.approx(2e6, rel=1e-3)
    assert found.didt <= 2e6 * (1 + 1e-6)
    heights = np.linalg.norm(found.history.poses[..., :3, 3], axis=-1) - RADIUS - DISTANCE
    assert heights.min() > -2e-3
    assert heights.max() < 8 + 2e-3
    assert heights.max() > 0.5
    assert np.linalg.norm(found.pose[:3, 3]) - RADIUS == pytest.approx(DISTANCE, abs=0.02)
    moved, turned = off(found.pose)
    assert moved < 0.2
    assert turned < 0.3
    assert found.value == pytest.approx(2 * sphere.directed.value, rel=2e-3)
    assert leans(found.history.poses).max() < 0.05


def test_tilt_within_its_limit(sphere, limited):
    """A wing comes nearer: more than without tilt, and never within the head."""
    found = limited.search(wish(), tilt=10)
    lean = leans(found.history.poses)
    assert lean.max() < 10.01
    assert leans(found.pose) > 3
    assert found.ranked[0].reason == REASONS[PEAK]  # a limit that is reached ends a search
    assert found.value > 1.01 * limited.free.value
    assert found.value < 1.2 * limited.free.value
    clear = np.asarray(coils.clearance(sphere.coil, found.history.poses.reshape(-1, 4, 4), sphere.scalp))
    assert clear.min() > 0.4
    # what the zone's weight takes is counted
    assert set(found.history.evaluations[0]) == {2, 3}
    assert found.history.evaluations[-1].max() <= 60


@pytest.mark.parametrize("radius", [14.0, 2.0])
def test_a_zone_pushes_the_coil_out(sphere, limited, radius):
    """A ball at the face of a wing, and one that is smaller than a triangle of the casing."""
    best = top()
    centre = best[:3, 3] + 30 * best[:3, 0]
    found = limited.search(wish(), avoid=[(centre, radius)], offset=1e-3)
    fine = np.asarray(coils.refine(sphere.coil.casing, 1.0).vertices, np.float64)

    def away(pose):
        return np.linalg.norm(fine @ pose[:3, :3].T + pose[:3, 3] - centre, axis=1).min()

    assert away(best) < radius
    for candidate in found.ranked:
        assert away(candidate.pose) > radius
    # no farther than needed, but for what the casing's mesh and the penalty take
    assert away(found.pose) < np.hypot(radius, 6 / 3**0.5) + 2.5
    far = best @ np.array([[1, 0, 0, 60.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert found.value < 0.999 * limited.free.value
    assert found.value > 2 * float(wish()(sphere.field(jnp.asarray(far, float))))


@pytest.mark.float64
@pytest.mark.parametrize(("distance", "offset", "lifted"), [(0.0, 0.8, True), (8.0, 8.0, False)])
def test_gradient_of_a_search_with_everything_switched_on(sphere, limited, monkeypatch, distance, offset, lifted):
    """Against central differences in all coordinates: place, turn, tilt, offset and intensity; within a zone."""
    seen = []

    def recorded(*arguments):
        seen.append((arguments, evaluate_step(*arguments)))
        return seen[-1][1]

    evaluate_step = _search.evaluate_step
    monkeypatch.setattr(_search, "evaluate_step", recorded)
    best = top()
    centre = best[:3, 3] + 30 * best[:3, 0]
    with pytest.raises(ValueError, match="avoid: no start ended outside the zones"):
        limited.search(
            wish(), tilt=10, radius=15, distance=distance, offset=offset, evaluations=2, avoid=[(centre, 20)]
        )
    # the first with the zone's weight
    dynamic, static, active, base, extra, step, scale, batch_size = next(a for a, _ in seen if np.asarray(a[6]).any())
    # away from the symmetric place, where two vertices touch at once
    trial = evaluate_step(
        dynamic, static, active, base, extra, step + np.array([2, -1, 3, 4, -3, 2, 5.0]), scale, batch_size
    )
    assert (np.asarray(trial.merit) < np.asarray(trial.value)).all()  # within the zone
    height = np.linalg.norm(np.asarray(trial.pose)[:, :3, 3], axis=1) - RADIUS - distance
    assert (height > offset).all() if lifted else (height < offset).all()

    def differences(h):
        sides = []
        for i in range(7):
            low, high = (
                evaluate_step(
                    dynamic, static, active, trial.base, trial.extra, step.at[:, i].set(d), scale, batch_size
                ).merit
                for d in (-h, h)
            )
            sides.append((high - low) / (2 * h))
        return np.stack(sides, -1)

    exact, coarse, found = differences(1e-4), differences(2e-4), np.asarray(trial.gradient)
    size = np.linalg.norm(found, axis=1)
    # where another vertex comes to touch, a difference says nothing
    smooth = np.abs(exact - coarse).max(1) < 1e-5 * size
    assert smooth.sum() >= 3
    matters = (np.abs(found[smooth]) > 1e-4 * size[smooth, None]).any(0)
    # where the coil is lifted, what is added to its height is taken from the lift
    np.testing.assert_array_equal(matters, [True] * 5 + [not lifted, True])
    assert (np.abs(found - exact)[smooth].max(1) < 3e-5 * size[smooth]).all()


# -- a scalp with a nose and an ear ------------------------------------------------------------------------------------


def bumpy():
    """A ball with an ear on +x and a nose on +y, on a grid of the sphere's size."""
    axis = (np.arange(64) - 31.5) * 4
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    labels = x**2 + y**2 + z**2 < RADIUS**2
    labels |= (np.abs(x - 94) < 14) & (np.abs(y) < 6) & (np.abs(z) < 18)
    labels |= (np.abs(y - 96) < 16) & (np.abs(x) < 9) & (np.abs(z - 10) < 18)
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = axis[0]
    return head.from_labels(labels.astype(np.uint8), affine, ["scalp"], 4.0).scalp


@pytest.mark.optimized
@pytest.mark.float32
def test_scalps_of_heads(sphere):
    """The spline of a head's scalp does what the ball does; over bumps no start leaves the coil in the head."""
    scalp = head.sphere(spacing=8.0).scalp
    found = sphere.search(wish(), scalp=scalp)
    moved, turned = off(found.pose)
    assert moved < 0.1
    assert turned < 0.2
    assert found.value == pytest.approx(sphere.directed.value, rel=1e-4)

    scalp = bumpy()
    axis = np.array([1.0, 0, 0])
    along = np.array([0.0, 0.6, 0.8])
    casing = Delaunay(np.asarray(sphere.coil.casing.vertices, np.float64))  # it is convex
    triangulated = scalp.vertices

    def enters(pose, by=0.0):
        points = (triangulated - pose[:3, 3]) @ pose[:3, :3] + [0, 0, by]
        return (casing.find_simplex(points) >= 0).any()

    lifted = 0
    for key, radius in ((1, np.inf), (2, 40.0)):
        found = sphere.search(wish(along), key, axis, along, scalp=scalp, radius=radius)
        poses = np.asarray(found.history.poses, np.float64)
        spread = np.linalg.norm(poses[0, :, :3, 3] - poses[0, :1, :3, 3], axis=1).max()
        assert spread > (120 if np.isinf(radius) else 30)
        for pose in poses[[0, len(poses) // 2, -1]].reshape(-1, 4, 4):
            assert not enters(pose)
            height = float(scalp.distance(jnp.asarray(pose[:3, 3], jnp.float32)))
            if height > DISTANCE + 2:
                lifted += 1
                # as low as a coil without a lift would be, it would be in the head
                assert enters(pose, DISTANCE - height)
        assert np.asarray(coils.clearance(sphere.coil, found.pose, scalp)) > 0.4
    assert lifted > 10


# -- calls and results -------------------------------------------------------------------------------------------------


@tree
class Toy:
    """A field along y that falls off with the distance from a place; NaN where the coil's centre is above a height."""

    place: Any
    strength: Any
    height: Any

    def __call__(self, pose, *, didt=1e6):
        away = pose[:3, 3] - self.place
        size = self.strength * didt * 1e-6 / (1 + away @ away / 900)
        return jnp.where(pose[2, 3] > self.height, jnp.nan, size) * pose[None, :3, 1]


@tree
class Counted:
    """The same, computed for one start after the other, each counted."""

    toy: Any
    solver = SimpleNamespace(batch_size=lambda: 1)

    def __call__(self, pose, *, didt=1e6):
        jax.debug.callback(lambda: CALLS.append(1))
        return self.toy(pose, didt=didt)


CALLS: list[int] = []
PLACE = (RADIUS + DISTANCE) * AXIS


def made(strength=1.0, height=np.inf):
    return Counted(Toy(*(jnp.asarray(x, float) for x in (PLACE, strength, height))))


def bare(didt_max=np.nan):
    """A coil without a casing; the toy field does not ask what it is made of."""
    dtype = jnp.result_type(float)
    return coils.Coil((), None, jnp.full(1, didt_max, dtype), StaticMetadata(name="bare"))


def quick(field=None, objective=None, **changes):
    arguments = {"coil": bare(), "scalp": Ball(jnp.asarray(RADIUS, float)), "target": 80 * AXIS, "n_starts": 6}
    arguments |= {"key": jax.random.key(3)} | changes
    return placement.optimize(field or made(), objective or placement.along(ALONG), **arguments)


@pytest.mark.float32
def test_values_are_counted_and_what_has_stopped_costs_nothing():
    CALLS.clear()
    found = quick()
    jax.effects_barrier()
    assert len(CALLS) == found.evaluations == found.history.evaluations[-1].sum()
    assert found.evaluations < 6 * len(found.history.values)
    assert found.value == pytest.approx(1, abs=1e-5)
    CALLS.clear()
    found = quick(evaluations=3)
    jax.effects_barrier()
    turned = int((found.history.evaluations[0] == 2).sum())
    assert 0 < turned < 6
    assert len(CALLS) == found.evaluations == 12 + turned
    assert found.history.values.shape == (2, 6)
    assert set(found.reasons) == {"evaluations spent"}
    assert quick(evaluations=1).history.values.shape == (1, 6)


@pytest.mark.float32
def test_result():
    found = quick()
    assert repr(found).startswith("Placement(value=1, ")
    assert f"{len(found.ranked)} distinct pose" in repr(found)
    assert f"from 6 starts, {found.evaluations} evaluations, " in repr(found)
    table = found.table()
    assert isinstance(table, pd.DataFrame)
    assert list(table) == [
        *("value", "x", "y", "z", "mm from best", "degrees from best", "didt", "starts", "stopped"),
    ]
    assert len(table) == len(found.ranked)
    assert table["starts"].sum() == 6
    assert (np.diff(table["value"]) <= 0).all()
    np.testing.assert_array_equal(table.loc[0, ["x", "y", "z"]].to_numpy(float), found.pose[:3, 3])
    assert table["mm from best"][0] == table["degrees from best"][0] == 0
    assert found.pose.dtype == np.float64
    assert np.isnan(found.checked)
    assert found.seconds > 0
    assert found.space == "subject"
    best = found.ranked[0]
    np.testing.assert_array_equal(best.pose, found.history.poses[-1, best.start])
    assert best.reason == found.reasons[best.start]
    for i, candidate in enumerate(found.ranked):
        for other in found.ranked[:i]:
            moved, turned = pose_difference(candidate.pose, other.pose)
            assert moved > 2 or turned > 5


@pytest.mark.host
def test_groups_of_poses():
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[1, 0, 3] = 1.9
    poses[2, 0, 3] = 2.1
    c, s = np.cos(np.radians([4.9, 5.1])), np.sin(np.radians([4.9, 5.1]))
    for i in range(2):
        poses[3 + i, :2, :2] = [[c[i], -s[i]], [s[i], c[i]]]
    assert pose_difference(poses[0], poses[2]) == pytest.approx((2.1, 0))
    assert pose_difference(poses[0], poses[4]) == pytest.approx((0, 5.1))
    assert group_poses(poses, [5, 4, 3, 2, 1]) == [[0, 1, 3], [2], [4]]
    # the best of a group stands for it
    assert group_poses(poses, [1, 2, 3, 4, 5]) == [[4, 3], [2, 1], [0]]


@pytest.mark.float32
def test_starts_that_have_no_value(tolerance):
    """They are named and left out; where none is left, the reason is told."""
    height = PLACE[2] + 1
    found = quick(made(height=height))
    lost = found.history.poses[0, :, 2, 3] > height
    assert 0 < lost.sum() < 6
    np.testing.assert_array_equal([r.startswith("no value at the start") for r in found.reasons], lost)
    assert sum(c.starts for c in found.ranked) == 6 - lost.sum()
    assert (found.history.evaluations[-1][lost] == 1).all()
    assert np.isfinite(found.value)
    with pytest.raises(ValueError, match=r"n_starts: the objective has no finite value and gradient at any of 6 "):
        quick(made(height=-200.0))


@pytest.mark.float32
def test_no_slope_is_told():
    found = quick(made(strength=0.0))
    assert set(found.reasons) == {"no rise along the gradient, within rounding"}
    assert found.evaluations == 6
    assert found.value == 0


@pytest.mark.float32
def test_check_is_called_once_with_the_best_pose():
    calls = []

    def check(pose, *, didt):
        calls.append((np.asarray(pose), didt))
        return 3.0 * pose[None, :3, 1]

    found = quick(check=check, didt=0.7e6)
    ((pose, didt),) = calls
    np.testing.assert_allclose(pose, found.pose, atol=1e-6)
    assert didt == pytest.approx(0.7e6)
    assert found.checked == pytest.approx(3, rel=1e-4)
    assert found.value == pytest.approx(0.7, rel=1e-4)


@pytest.mark.float32
def test_any_functions_of_pose_and_field():
    place, along = jnp.asarray(PLACE), jnp.asarray(ALONG)

    def field(pose, *, didt):
        away = pose[:3, 3] - place
        return didt * 1e-6 / (1 + away @ away / 900) * pose[None, :3, 1]

    found = quick(field, lambda e: -((e[0] - along) ** 2).sum())
    assert found.value == pytest.approx(0, abs=1e-4)
    moved, turned = off(found.pose)
    assert moved < 0.5
    assert turned < 0.5


@pytest.mark.float32
def test_starts_as_poses():
    """Laid on the scalp, whatever their height and lean; no key and no target are needed."""
    poses = np.tile(top(), (6, 1, 1))
    random = np.random.default_rng(0)
    poses = np.asarray(coils.move(jnp.asarray(poses), random.uniform(-10, 10, (6, 6)) / [1, 1, 1, 40, 40, 10]), float)
    found = quick(initial_poses=poses, key=None, target=None)
    initial_state = np.asarray(found.history.poses[0], np.float64)
    up = poses[:, :3, 3] / np.linalg.norm(poses[:, :3, 3], axis=1, keepdims=True)
    np.testing.assert_allclose(initial_state[:, :3, 3], (RADIUS + DISTANCE) * up, atol=1e-3)
    np.testing.assert_allclose(initial_state[:, :3, 2], -up, atol=1e-5)
    assert (np.einsum("pi,pi->p", initial_state[:, :3, 1], poses[:, :3, 1]) > 0.9).all()
    assert found.value == pytest.approx(1, abs=1e-5)
    assert [c.starts for c in found.ranked] == [6]


@pytest.mark.float32
def test_starts_over_the_whole_scalp():
    found = quick(target=None, radius=np.inf, evaluations=1)
    up = found.history.poses[0, :, :3, 3] / (RADIUS + DISTANCE)
    assert np.linalg.norm(up, axis=1) == pytest.approx(np.ones(6), abs=1e-4)
    assert (up @ up.T).min() < -0.3


@pytest.mark.float32
def test_export_is_read_back(tmp_path):
    found = quick(evaluations=2)
    assert len(found.ranked) > 2
    poses = np.stack([c.pose for c in found.ranked])
    for name, kind in (("t.csv", None), ("t.json", None), ("t.txt", "brainsight"), ("t.xml", "localite")):
        read, space = session.load_poses(found.export(tmp_path / name, format=kind, count=3))
        np.testing.assert_allclose(read, poses[:3], atol=1e-5)
        assert space == (None if name == "t.csv" else "subject")
    targets = session.load(tmp_path / "t.xml").targets
    assert list(targets.names) == ["jaxm2m", "jaxm2m 2", "jaxm2m 3"]
    one = found.export(tmp_path / "one.json", name="M1")
    assert json.loads(one.read_text())["names"] == ["M1"]
    np.testing.assert_allclose(session.load_poses(one)[0], poses[:1], atol=1e-6)
    everything = session.load_poses(found.export(tmp_path / "all.csv", count=100))[0]
    assert len(everything) == len(found.ranked)
    with pytest.raises(ValueError, match="count: 0"):
        found.export(tmp_path / "none.csv", count=0)
    other = quick(evaluations=2, space="MNI152").export(tmp_path / "mni.json")
    assert session.load_poses(other)[1] == "MNI152"


@pytest.mark.float32
def test_intensity_is_that_of_the_coil():
    assert quick(coil=bare(1e6), didt=0.9e6, evaluations=1).didt == pytest.approx(0.9e6)
    for didt in (1.1e6, (0.5e6, 1.1e6)):
        with pytest.raises(ValueError, match=r"didt: 1.1e\+06 A/s is more than the coil's largest, 1e\+06 A/s"):
            quick(coil=bare(1e6), didt=didt)


@pytest.mark.host
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": None}, r"key: missing; give jax.random.key\(0\)"),
        ({"target": None}, "target: missing; the starts lie round it"),
        ({"target": [[1.0, 2, 3], [4, 5, 6]]}, r"target: shape \(2, 3\); give one point"),
        ({"target": (1.0, np.nan, 0)}, "target: 1 of 3 values are NaN"),
        ({"n_starts": 0}, "n_starts: 0; must be at least 1"),
        ({"initial_poses": np.eye(4)}, r"initial_poses: shape \(4, 4\); give one or more poses"),
        ({"initial_poses": np.zeros((0, 4, 4))}, "initial_poses: shape"),
        ({"initial_poses": np.tile(np.diag([2.0, 1, 1, 1]), (2, 1, 1))}, r"initial_poses\[0\]: .*axes"),
        ({"radius": 0.0}, "radius: 0; must be above zero"),
        ({"radius": float("nan")}, "radius: nan"),
        ({"distance": -1.0}, "distance: -1"),
        ({"didt": 0.0}, "didt: 0; must be above zero"),
        ({"didt": (2e6, 1e6)}, "didt: .*the lowest and the highest"),
        ({"didt": (1e6, 2e6, 3e6)}, "didt: .*one number"),
        ({"tilt": -1.0}, "tilt: -1"),
        ({"tilt": 61.0}, "tilt: 61 degrees"),
        ({"offset": -1.0}, "offset: -1"),
        ({"evaluations": 0}, "evaluations: 0; must be at least 1"),
        ({"avoid": [((0, 0, 90), 5.0)]}, "avoid: the coil has no casing"),
        ({"avoid": [((0, 0), 5.0)]}, "avoid: shape"),
        ({"avoid": [((0, 0, 90), 0.0)]}, "avoid: 0; must be above zero"),
    ],
)
def test_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        quick(**changes)


# -- the fields of solver and basis ------------------------------------------------------------------------------------


def small_coil():
    """Four dipoles in two wings."""
    dtype = jnp.result_type(float)
    position = np.array([[-14.0, 6, -4], [-14, -6, -4], [14, 6, -4], [14, -6, -4]])
    moment = np.array([[0, 0, -2e-3]] * 2 + [[0, 0, 2e-3]] * 2)
    element = coils.Dipoles(jnp.asarray(position, dtype), jnp.asarray(moment, dtype))
    return coils.Coil((element,), None, jnp.full(1, jnp.nan, dtype), StaticMetadata(name="small"))


def quick_sources(patch):
    """A basis of few and rough sources, tabulated by NumPy: what it gives is of no interest here."""

    def tabulated(coil):
        wire = coil.elements[0]
        start, end, turns = (np.asarray(x, np.float64) for x in (wire.start, wire.end, wire.turns))
        axis = np.arange(-160.0, 161, 20)
        nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
        distance = np.maximum(cdist(nodes.reshape(-1, 3), (start + end) / 2), 15)
        affine = np.diag([20.0, 20, 20, 1])
        affine[:3, 3] = axis[0]
        table = coils._grid.quasi_interpolate(
            (1e-7 / distance @ (turns[:, None] * (end - start))).reshape(nodes.shape), affine
        )
        return coils.Coil((table,), coil.casing, coil.didt_max, coil.metadata)

    patch.setattr(_basis_sources, "coils", SimpleNamespace(**{**vars(coils), "tabulate": tabulated}))


@pytest.mark.float32
def test_through_the_solver_and_a_basis(monkeypatch):
    """A `FieldMap` of either kind is a field; the solver checks what the basis found."""
    quick_sources(monkeypatch)
    sphere = head.sphere((26, 32, 34, 37, 42), 12.0)
    sim, coil = efield.Simulator(sphere), small_coil()
    roi = efield.Points(np.array([[0, 0, 24.0], [0, 3, 24], [0, -3, 24]]))
    at = sim.bind(coil, roi)
    objective = placement.along((0, 1, 0))
    arguments = {"coil": coil, "scalp": Ball(jnp.asarray(42.0)), "target": (0, 0, 24), "n_starts": 2}
    arguments |= {"key": jax.random.key(0), "radius": 10.0, "distance": 6.0}
    solved = placement.optimize(at, objective, evaluations=5, **arguments)
    assert solved.evaluations <= 10
    assert solved.value > solved.history.values[0].max()
    by_hand = float(objective(at(np.asarray(solved.pose, np.float32))))
    assert solved.value == pytest.approx(by_hand, rel=1e-3)

    basis = efield.Basis.build(sim, roi, modes=6, rank=6)
    found = placement.optimize(basis.bind(coil, limit=100), objective, check=at, **arguments)
    assert found.value > found.history.values[0].max()
    assert found.checked == pytest.approx(float(objective(at(np.asarray(found.pose, np.float32)))), rel=1e-4)
    # what a basis does not cover is no value
    with pytest.raises(ValueError, match=r"n_starts: the objective has no finite value .* the basis does not cover"):
        placement.optimize(basis.bind(coil, limit=1e-3), objective, **arguments)


# -- targets -----------------------------------------------------------------------------------------------------------


def ellipsoid(tissues=("grey", "scalp"), space="MNI152"):
    """An ellipsoid within 5 mm of Colin27's scalp, grey within 70 % of its radii."""
    axes = [np.arange(a, b, 4.0) for a, b in ((-100, 101), (-134, 101), (-58, 117))]
    centre, radii = np.array([0.9, -16.3, -9.4]), np.array([88.1, 105.3, 112.3])
    r = sum(((x - c) / a) ** 2 for x, c, a in zip(np.meshgrid(*axes, indexing="ij"), centre, radii, strict=True))
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [x[0] for x in axes]
    inside, inner = (np.clip(0.5 + (share - np.sqrt(r)) * 90 / 8, 0, 1).astype(np.float32) for share in (1, 0.7))
    fractions = {"grey": inner, "white": inner, "scalp": inside - inner}
    return head.from_fractions(np.stack([fractions[t] for t in tissues]), affine, list(tissues), space=space)


@pytest.mark.host
def test_target_by_coordinates():
    made = ellipsoid()
    inside = placement.target(made, (-40, -20, 52))
    np.testing.assert_array_equal(inside, [-40, -20, 52])
    assert inside.dtype == np.float64
    with pytest.raises(ValueError, match=r"target: \(-40.0, -20.0, 110.0\) mm lies outside the head; give MNI152"):
        placement.target(made, (-40, -20, 110))
    with pytest.raises(ValueError, match=r"target: shape \(2, 3\); give x, y, z in mm, or a name such as 'C3'"):
        placement.target(made, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"target: .*NaN"):
        placement.target(made, (np.nan, 0, 0))


@pytest.mark.host
def test_target_by_name():
    """The grey matter nearest to the electrode: the foot of the scalp's radius on the inner ellipsoid."""
    pytest.importorskip("mne")
    made = ellipsoid()
    found = placement.target(made, "C3")
    assert made.tissues[int(made.tissue_at(found))] == "grey"
    electrode = head.electrode(made, "C3")
    assert 20 < np.linalg.norm(found - electrode) < 40
    # nothing grey is nearer
    grid = np.stack(np.meshgrid(*[np.arange(-32.0, 33, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grey = grid[made.tissue_at(grid + electrode) == made.tissues.index("grey")]
    assert np.linalg.norm(grey, axis=1).min() > np.linalg.norm(found - electrode) - 4
    assert found[0] < -40
    np.testing.assert_allclose(placement.target(made, "c3"), found)
    with pytest.raises(ValueError, match="'subject'"):
        placement.target(ellipsoid(space="subject"), "C3")
    with pytest.raises(ValueError, match="target: 'C3' means the grey matter below it, and the head has none"):
        placement.target(ellipsoid(("white", "scalp")), "C3")
    with pytest.raises(ValueError, match="no standard position"):
        placement.target(made, "hotspot")
