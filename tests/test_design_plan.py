"""Plans of poses: what they tell, where they may be, and in which order they come."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cheap_map import HEAD, TARGET, Bump, cheap_map

from jaxm2m import coil as coils
from jaxm2m import cortex, design
from jaxm2m._pytree import tree
from jaxm2m.design import _plan
from jaxm2m.design._patch import lay_patch, measure_moves
from jaxm2m.muscle import DensityPrior

RADIUS, N = 15.0, 8
ZONE = (TARGET / np.linalg.norm(TARGET) * HEAD + np.array([9.0, -12.0, 0.0]), 6.0)
PLACE = {"target": TARGET, "radius": RADIUS, "handle": (-1, -1, 0), "distance": 1.0, "avoid": [ZONE]}
PRIOR = DensityPrior(width=6.0)


@tree
class Oval(Bump):
    """Fields along the coil's y axis, narrower across it: a turn of the coil tells something."""

    def pick(self, active):
        return Oval(self.points[active])

    def fields(self, coil, poses, didt, batch_size):
        away = jnp.einsum("nji,npj->npi", poses[:, :3, :3], self.points - poses[:, None, :3, 3])
        size = 2e-4 * jnp.broadcast_to(jnp.asarray(didt, away.dtype), away.shape[:1])
        shape = jnp.exp(-((away[..., 0] / 9) ** 2) / 2 - (away[..., 1] / 14) ** 2 / 2 - away[..., 2] / 20)
        e = (size[:, None] * shape)[..., None] * poses[:, None, :3, 1]
        return e, jnp.zeros(len(poses), e.dtype)


@pytest.fixture(scope="module")
def oval(precision):
    """The map of a coil with a casing that would touch the head if it lay on it flat."""
    at_roi = cheap_map()
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ring = np.column_stack([22 * np.cos(angle), 22 * np.sin(angle), 0 * angle])
    coil = replace(at_roi.coil, casing=coils.offset_surface(ring, 4.0))
    return replace(at_roi, solver=Oval(at_roi.solver.points), coil=coil)


@pytest.fixture(scope="module")
def rate(precision):
    return cortex.FiringRate(cortex.threshold(60.0, "V/m"))


@pytest.fixture(scope="module")
def model(oval, rate):
    """The linear model of the sources, as `plan` makes it."""
    patch = lay_patch(oval, coil=oval.coil, scalp=oval.scalp, reach=3 * (PRIOR.reach + PRIOR.width), **PLACE)
    return _plan.linearise_sources(patch, rate, None, PRIOR)


@pytest.fixture(scope="module")
def greedy(model):
    return _plan.choose_greedily(model.rows(model.candidates), N)


# none of these is a point of the map
BAD = {"component": "normal", "normals": np.eye(3)}


def make_plan(oval, rate, **options):
    arguments = {"coil": oval.coil, "scalp": oval.scalp, "n": N, "rate": rate, "steps": 12, "prior": PRIOR} | PLACE
    return design.plan(oval, key=jax.random.key(0), progress=False, **(arguments | options))


@pytest.fixture(scope="module")
def poses(oval, rate):
    return make_plan(oval, rate)


def test_the_information_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 9))
    value, slope = _plan.measure_information(rows)
    np.testing.assert_allclose(value, np.linalg.slogdet(np.eye(9) + rows.T @ rows)[1] / 2)
    step = 1e-6 * rng.normal(size=rows.shape)
    change = _plan.measure_information(rows + step)[0] - _plan.measure_information(rows - step)[0]
    np.testing.assert_allclose(change / 2, (slope * step).sum(), rtol=1e-6)


def test_the_greedy_choice_adds_most_each_time():
    rows = np.random.default_rng(1).normal(size=(30, 5))
    chosen = _plan.choose_greedily(rows, 12)
    for k in range(12):
        gains = [_plan.measure_information(rows[[*chosen[:k], i]])[0] for i in range(30)]
        assert chosen[k] == np.argmax(gains)


def test_rows_are_the_first_order_of_the_drive(model):
    """Of weights softmax(log mean + F x), against differences; what all bumps answer alike tells nothing."""
    data = model.tracker.data
    log_mean, factor = np.asarray(data.log_mean, np.float64), np.asarray(data.factor, np.float64)

    def drive(x):
        weights = np.exp(log_mean + factor @ x)
        return model.candidates[:20] @ weights / weights.sum()

    x = np.random.default_rng(0).normal(size=factor.shape[1])
    largest = (model.candidates @ np.exp(log_mean) / np.exp(log_mean).sum()).max()
    expected = (drive(1e-5 * x) - drive(-1e-5 * x)) / 2e-5 / largest / _plan.NOISE
    rows = model.rows(model.candidates)
    np.testing.assert_allclose(rows[:20] @ x, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.rows(np.ones((1, factor.shape[0]))), 0, atol=1e-6 * np.abs(rows).max())


@pytest.mark.float64
def test_the_gradient_is_that_of_central_differences(model, greedy):
    poses = np.asarray(model.patch.poses, np.float64)[greedy]
    apart = 0.7 * np.random.default_rng(0).normal(size=(N, 3))
    climb = _plan.PoseAscent(model, poses, model.candidates[greedy], apart)
    assert not climb.frozen.any()
    assert climb.stiffness > 0
    for seed in range(3):
        step = np.random.default_rng(seed).normal(size=(N, 3))
        merits = [climb.judge(climb.evaluate(climb.at.base, sign * 1e-4 * step))[1] for sign in (1, -1)]
        np.testing.assert_allclose((merits[0] - merits[1]) / 2e-4, (climb.gradient * step).sum(), rtol=2e-4)


def test_a_plan_tells_more_than_greedy_and_random_poses(model, greedy, poses):
    assert poses.shape == (N, 4, 4)
    information = model.information(model.measure(poses))
    alone = model.information(model.candidates[greedy])
    rng = np.random.default_rng(0)
    random = [model.information(model.candidates[rng.choice(len(model.patch), N)]) for _ in range(20)]
    assert information > alone + 0.02
    assert alone > max(random)


def test_poses_are_where_they_may_be(oval, poses, tolerance):
    casing = np.asarray(coils.refine(oval.coil.casing, 2.0).vertices, np.float64)
    world = np.einsum("nij,vj->nvi", poses[:, :3, :3], casing) + poses[:, None, :3, 3]
    clear = np.asarray(oval.scalp.distance(jnp.asarray(world.reshape(-1, 3)))).reshape(len(poses), -1)
    assert clear.min() > 0
    assert clear.min(1).max() < 1.0  # and no farther than need be
    assert (np.linalg.norm(world - ZONE[0], axis=-1) > ZONE[1]).all()
    middle = np.asarray(coils.place(oval.scalp, TARGET, (-1, -1, 0), 0.0))[:3, 3]
    on_scalp = np.asarray(oval.scalp.nearest(jnp.asarray(poses[:, :3, 3])))
    assert np.linalg.norm(on_scalp - middle, axis=1).max() < RADIUS + 0.1
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1, atol=tolerance(1e-5, 1e-12))


def test_the_same_key_gives_the_same_poses(oval, rate, poses):
    np.testing.assert_array_equal(make_plan(oval, rate), poses)


def test_no_step_is_the_greedy_choice(oval, rate, model, greedy):
    poses = make_plan(oval, rate, steps=0)
    expected = np.asarray(model.patch.poses, np.float64)[greedy]
    order = [np.lexsort(p[:, :3, 1:].reshape(len(p), -1).round(3).T) for p in (poses, expected)]
    np.testing.assert_allclose(poses[order[0]], expected[order[1]], atol=1e-6)


def test_the_order_moves_the_arm_less(model, greedy):
    for poses in (np.asarray(model.patch.poses, np.float64)[greedy], np.asarray(model.patch.poses, np.float64)[::9]):
        order = _plan.order_poses(poses)
        assert sorted(order) == list(range(len(poses)))
        lengths = [
            sum(float(np.add(*measure_moves(a, b[None]))[0]) for a, b in itertools.pairwise(path))
            for path in (poses[order], poses)
        ]
        assert lengths[0] <= lengths[1] + 1e-6
    assert lengths[0] < 0.9 * lengths[1]
    assert list(_plan.order_poses(poses[:1])) == [0]
    assert sorted(_plan.order_poses(poses[:2])) == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_no_two_turns_make_the_path_shorter(seed):
    """The best order of seven points on a line and in the plane, by trying all."""
    from itertools import permutations

    poses = np.tile(np.eye(4), (7, 1, 1))
    poses[:, :2, 3] = np.random.default_rng(seed).uniform(0, 50, (7, 2)) * [1, seed > 0]
    cost = _plan.move_costs(poses)
    order = _plan.order_poses(poses)
    best = min(sum(cost[a, b] for a, b in itertools.pairwise(p)) for p in permutations(range(7)))
    assert sum(cost[a, b] for a, b in itertools.pairwise(order)) <= 1.1 * best


def test_normals_are_those_of_all_points_of_the_map(oval, rate, model):
    normals = np.asarray(oval.points) / np.linalg.norm(np.asarray(oval.points), axis=1, keepdims=True)
    along = cortex.FiringRate(rate.threshold, component="normal", normals=jnp.asarray(normals))
    one = _plan.linearise_sources(model.patch, along, None, PRIOR)
    points = np.asarray(one.tracker.points)
    expected = points / np.linalg.norm(points, axis=1, keepdims=True)
    np.testing.assert_allclose(one.tracker.activity.rate.normals, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "n: 0"),
        ({"steps": -1}, "steps: -1"),
        ({"radius": -3.0}, "radius: -3"),
        ({"didt": 0.0}, "didt: 0"),
        ({"target": (1.0, 2.0)}, "target"),
        ({"avoid": [(TARGET, 80.0)]}, "target: no pose over it"),
        ({"rate": cortex.FiringRate(cortex.threshold(0.8, "V/m per A/us"))}, "didt: missing"),
        (
            {"rate": cortex.FiringRate(cortex.threshold(60.0, "V/m"), component="normal", normals=np.eye(3))},
            "rate: norm",
        ),
    ],
)
def test_bad_input(oval, rate, options, match):
    with pytest.raises(ValueError, match=match):
        make_plan(oval, **({"rate": rate} | options))
