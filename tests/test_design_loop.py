"""A session that plans itself: what it chooses, what it takes, that a kill loses nothing, and bad input."""

import re
import time
from dataclasses import replace
from itertools import pairwise

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cheap_map import TARGET, cheap_map

import jaxm2m as jm
from jaxm2m.design import _patch
from jaxm2m.design._choice import _whiten, find_best_poses, find_hot_spots, screen_shares, value_candidates
from jaxm2m.design._information import Information, _log_determinant, screen_information
from jaxm2m.design._patch import measure_moves

pytestmark = [pytest.mark.optimized, pytest.mark.float64]

RATE = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
PRIOR = jm.muscle.DensityPrior(width=7.0, correlation=10.0)
MUSCLES = ("FDI", "ADM", "ECR")
HUNT = {"goal": "threshold", "muscle": "FDI", "didt": (1e6, 2e6)}


@pytest.fixture(scope="module")
def subject(precision):
    at_roi = cheap_map((10, 10, 7), 5.0)
    made = jm.simulate.mapping_session(
        at_roi, key=jax.random.key(0), rate=RATE, target=TARGET, stimuli=20, gain=0.6, muscles=MUSCLES, synergies=2
    )
    return at_roi, made


@pytest.fixture(scope="module", autouse=True)
def few_candidates():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_patch, "N_PLACE", 9)
        patch.setattr(_patch, "N_TURN", 6)
        yield


def begin(subject, **settings):
    at_roi, made = subject
    usual = {
        "coil": at_roi.coil, "scalp": at_roi.scalp, "target": TARGET, "muscles": MUSCLES, "rate": RATE,
        "key": jax.random.key(3), "didt": float(made.didt.mean()), "n_stimulus": 20, "prior": PRIOR,
    }  # fmt: skip
    return jm.design.Loop(at_roi, **(usual | settings))


def stimulate(subject, loop, n):
    at_roi, made = subject
    proposals = []
    for _ in range(n):
        pose, didt = loop.next()
        proposals.append(pose)
        key = jax.random.fold_in(jax.random.key(9), len(loop))
        loop.record(pose, didt, np.asarray(made.draw_meps(key, at_roi(pose, didt=didt))))
    return np.array(proposals)


@pytest.fixture(scope="module")
def mapped(subject):
    loop = begin(subject)
    return loop, stimulate(subject, loop, 6)


@pytest.mark.slow
def test_it_proposes_poses_of_the_patch_and_learns(subject, mapped):
    loop, proposals = mapped
    at_roi, made = subject
    assert (len(loop), loop.done, loop.reason) == (6, False, "")
    np.testing.assert_array_equal(loop.next()[0], loop.next()[0])
    assert len({pose.tobytes() for pose in proposals}) == 6
    # tangential, at the distance from the scalp
    for pose in proposals:
        assert float(at_roi.scalp.distance(jnp.asarray(pose[:3, 3]))) == pytest.approx(4.0, abs=0.05)
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-9)
    table = loop.table()
    assert list(table.columns) == ["x", "y", "z", "turn", "didt", *(f"mep_{name}_uv" for name in MUSCLES)]
    np.testing.assert_allclose(table[["x", "y", "z"]], proposals[:, :3, 3])
    before = begin(subject).draws.centroids()
    after = loop.draws.centroids()
    assert after.std(0).sum() < before.std(0).sum()
    # fields of the whole map, as the loop was given it
    e = at_roi(made.poses[:2], didt=loop.didt)
    assert loop.posterior(e).shape == (2, 3)
    assert repr(loop) == "Loop(map by information, 6 of at most 20 stimuli)"


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["information", "thompson"])
def test_a_kill_loses_nothing(subject, tmp_path, rule):
    settings = {"rule": rule, "goal": "select", "muscle": "FDI", "avoid_muscle": "ADM"}
    whole = begin(subject, **settings)
    expected = stimulate(subject, whole, 4)
    for k in range(4):
        # another process each time
        loop = begin(subject, directory=tmp_path / "loop", **settings)
        assert len(loop) == k
        np.testing.assert_array_equal(stimulate(subject, loop, 1)[0], expected[k])
    last = begin(subject, directory=tmp_path / "loop", **settings)
    np.testing.assert_array_equal(last.next()[0], whole.next()[0])
    np.testing.assert_array_equal(last.best().pose, whole.best().pose)
    with pytest.raises(ValueError, match=r"loop\.h5 holds a session with another rule, key; go on as it was begun"):
        begin(subject, directory=tmp_path / "loop", **(settings | {"rule": "random", "key": jax.random.key(4)}))
    with h5py.File(tmp_path / "loop" / "loop.h5", "a") as file:
        del file["meps"]
    with pytest.raises(ValueError, match="it has no array 'meps'"):
        begin(subject, directory=tmp_path / "loop", **settings)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "loop.h5").write_text("no session")
    with pytest.raises(ValueError, match="directory"):
        begin(subject, directory=tmp_path / "other")


@pytest.mark.parametrize(
    "goal", ["map", pytest.param("hotspot", marks=pytest.mark.slow), pytest.param("select", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("rule", list(jm.design.RULES))
def test_rules_that_it_is_held_against(subject, goal, rule):
    names = {"map": {}, "hotspot": {"muscle": "FDI"}, "select": {"muscle": "FDI", "avoid_muscle": "ECR"}}[goal]
    loops = [begin(subject, goal=goal, rule=rule, **names) for _ in range(2)]
    first, again = (stimulate(subject, loop, 7) for loop in loops)
    np.testing.assert_array_equal(first, again)
    spots = np.array(loops[0].patch.find_spot(first[-1]))
    assert np.isfinite(spots).all()
    if rule == "grid":
        # the handle is kept
        assert np.abs(loops[0].table()["turn"]).max() < 10
    if rule not in ("scatter", "feedback"):
        assert max(np.hypot(*loops[0].patch.find_spot(pose)[:2]) for pose in first) < 23


def test_spots_are_places_and_turns_of_the_patch(subject):
    patch = begin(subject).patch
    for spot in ((0.0, 0.0, 0.0), (6.0, -9.0, 0.4), (-12.0, 3.0, -2.0)):
        np.testing.assert_allclose(patch.find_spot(patch.place(*spot)), spot, atol=0.35)


def test_moves_of_the_arm_are_kept_short(subject):
    loop = begin(subject, largest_move=8.0, largest_turn=45.0)
    proposals = stimulate(subject, loop, 5)
    for one, other in pairwise(proposals):
        moved, turned = measure_moves(one, other[None])
        # the nearest candidate, where none is as near as that
        assert moved[0] < 15
        assert turned[0] < 75


@pytest.mark.parametrize("rule", ["random", "thompson"])
def test_zones_hold_for_every_rule(subject, rule):
    at_roi, _ = subject
    cube = jm.coil.offset_surface(np.array([[x, y, 0.0] for x in (-8.0, 8.0) for y in (-8.0, 8.0)]))
    coil = replace(at_roi.coil, casing=cube)
    # half of the patch
    middle = np.asarray(begin(subject).patch.place(12.0, 0.0, 0.0))[:3, 3]
    loop = begin(subject, coil=coil, rule=rule, goal="hotspot", muscle="FDI", avoid=[(middle, 12.0)])
    assert 0 < len(loop.patch) < 54
    proposals = stimulate(subject, loop, 6)
    for pose in proposals:
        away = np.linalg.norm(np.asarray(cube.vertices) @ pose[:3, :3].T + pose[:3, 3] - middle, axis=1)
        assert away.min() > 11.9


def test_an_intensity_beyond_the_coil_is_refused(subject):
    coil = replace(subject[0].coil, didt_max=jnp.full(1, 1e6))
    with pytest.raises(ValueError, match=r"didt: .* is more than the coil's largest"):
        jm.design.Loop(
            replace(subject[0], coil=coil), coil=coil, scalp=subject[0].scalp, target=TARGET, muscles=MUSCLES,
            rate=RATE, key=jax.random.key(0), didt=2e6,
        )  # fmt: skip


def test_stimuli_are_apart(subject, monkeypatch):
    loop = begin(subject, rule="random", minimal_interval=4.0)
    assert loop.seconds_left() == 0
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    loop.record(*loop.next(), np.full(3, 50.0))
    assert loop.seconds_left() == 4.0
    clock[0] += 3.0
    assert loop.seconds_left() == pytest.approx(1.0)
    clock[0] += 3.0
    assert loop.seconds_left() == 0
    assert begin(subject, rule="random").seconds_left() == 0


def test_the_recorded_pose_counts_and_missing_meps_do_not(subject):
    at_roi, _ = subject
    loop = begin(subject)
    pose, didt = loop.next()
    other = np.asarray(jm.coil.move(jnp.asarray(pose), jnp.asarray([3.0, -2.0, 0.0, 0.0, 0.0, 0.1])))
    loop.record(other, 1.1 * didt, {"FDI": 300.0, "ECR": 20.0})
    np.testing.assert_allclose(loop.table()[["x", "y", "z"]], other[None, :3, 3])
    assert loop.table()["didt"].iloc[0] == pytest.approx(1.1 * didt)
    assert np.isnan(loop.table()["mep_ADM_uv"].iloc[0])
    expected = loop._tracker.measure(at_roi.pick(loop.patch.chosen)(other, didt=1.1 * didt))
    np.testing.assert_allclose(loop._tracker.data.features[0], expected, rtol=1e-9)


def test_best_pose_of_a_muscle(subject):
    at_roi, made = subject
    loop = begin(subject, goal="hotspot", muscle="FDI", rule="thompson")
    stimulate(subject, loop, 12)
    best = loop.best()
    every = np.asarray(made.expected_meps(at_roi(loop.patch.poses, didt=loop.didt)))[:, 0]
    reached = float(made.expected_meps(at_roi(best.pose, didt=loop.didt))[0])
    assert reached > 0.5 * every.max()
    assert reached > np.median(every)


@pytest.mark.slow
def test_it_ends_when_enough_is_known(subject):
    loop = begin(subject, stop=100.0)
    stimulate(subject, loop, 10)
    assert loop.reason == "all hot spots are known within 100 mm (90 % of their posterior)"
    loop = begin(subject, n_stimulus=2, stop=1e-3)
    stimulate(subject, loop, 2)
    assert loop.reason == "all 2 stimuli were given"
    with pytest.raises(ValueError, match="there is room for 2 stimuli"):
        loop.record(*loop.next(), np.ones(3))


def exact_information(posterior, quantities, features):
    """Mutual information of normal quantities {muscle: derivatives} and the MEPs of a stimulus, muscle by muscle."""
    _, variance, slope = (np.asarray(a, float) for a in posterior.respond(features))
    known = np.asarray(posterior.known, float)
    covariance = np.eye(known.shape[2]) - known.swapaxes(1, 2) @ known
    before = sum(rows @ covariance[m] @ rows.T for m, rows in quantities.items())
    after = before.copy()
    for m, rows in quantities.items():
        shared = rows @ covariance[m] @ slope[m]
        after -= np.outer(shared, shared) / (slope[m] @ covariance[m] @ slope[m] + variance[m])
    return 0.5 * (np.linalg.slogdet(before)[1] - np.linalg.slogdet(after)[1])


@pytest.mark.slow
def test_information_is_the_mutual_information_of_normals(subject, mapped):
    loop = mapped[0]
    posterior, features = loop._tracker.linearise(), loop._tracker.data.reference
    slopes = posterior.centroid_slopes()
    told = screen_information(posterior, find_hot_spots(posterior, (0, 2)), features[:4])
    expected = [sum(exact_information(posterior, {m: slopes[m]}, f) for m in (0, 2)) for f in features[:4]]
    np.testing.assert_allclose(told, expected, rtol=1e-6)
    assert min(expected) > 1e-3
    # what is best of all candidates: up to three numbers, of both muscles together
    shares = np.asarray(screen_shares(loop.draws, features), float)
    interest = find_best_poses(posterior, features, shares, loop.draws.largest, (0,), (1,))
    told = np.asarray(screen_information(posterior, interest, features))
    assert (told >= 0).all()
    assert told.max() > 1e-3
    directions = np.asarray(interest.directions, float)
    assert np.abs(directions[2]).max() == 0
    known = np.asarray(posterior.known, float)
    covariance = np.eye(known.shape[2]) - known.swapaxes(1, 2) @ known
    quantities = {m: directions[m] @ np.linalg.pinv(covariance[m]) for m in (0, 1)}
    expected = [exact_information(posterior, quantities, f) for f in features[:4]]
    np.testing.assert_allclose(told[:4], expected, rtol=1e-5)


@pytest.mark.slow
def test_information_of_a_field_and_its_gradient(subject, mapped):
    loop = mapped[0]
    at_grey, sources = loop.patch.field, loop.draws
    features = loop._tracker.data.reference
    posterior = loop._tracker.linearise()
    objective = Information(posterior, find_hot_spots(posterior, (0, 1, 2)), None)
    fields = at_grey(loop.patch.poses[:5], didt=loop.didt)
    each = np.array([float(objective(e)) for e in fields])
    np.testing.assert_allclose(screen_information(posterior, objective.interest, features)[:5], each, rtol=1e-6)
    # read off between drives, against each field by itself
    shares = np.asarray(screen_shares(sources, features), float)
    predicted = np.asarray(sources.predict_members(fields), float).swapaxes(0, 1)
    np.testing.assert_allclose(shares[:, :5], predicted, rtol=0.02)

    def value(twist):
        return objective(at_grey(jm.coil.move(jnp.asarray(loop.patch.poses[7]), twist), didt=loop.didt))

    slope = np.asarray(jax.grad(value)(jnp.zeros(6)))
    steps = 1e-5 * np.eye(6)
    differences = np.array([(value(jnp.asarray(s)) - value(jnp.asarray(-s))) / 2e-5 for s in steps])
    np.testing.assert_allclose(slope, differences, atol=1e-6 * np.abs(slope).max())


def test_small_determinants_and_whitening():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 3))
    matrix = a @ a.T / np.linalg.norm(a @ a.T) * 0.9 + 0.05 * np.eye(3)
    assert float(_log_determinant(jnp.asarray(matrix))) == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-12)
    np.testing.assert_allclose(_whiten(matrix) @ matrix @ _whiten(matrix).T, np.eye(3), atol=1e-12)
    # nothing is told of what is known
    assert np.abs(_whiten(np.zeros((3, 3)))).max() == 0


def test_the_intensity_is_chosen_too(subject):
    low = float(subject[1].didt.mean())
    loop = begin(subject, didt=(0.5 * low, low), n_stimulus=4)
    assert loop.levels == pytest.approx(low * np.array([0.5, 0.5 ** (2 / 3), 0.5 ** (1 / 3), 1.0]))
    assert loop.didt == pytest.approx(low * 0.5**0.5)
    _, didt = loop.next()
    assert didt in loop.levels
    posterior = loop._tracker.linearise()
    interest = find_hot_spots(posterior, (0, 1, 2))
    most = [float(screen_information(posterior, interest, features).max()) for features in loop._features]
    assert didt == loop.levels[int(np.argmax(most))]
    # rules that choose none, and draws that look for the best pose
    loop = begin(subject, didt=(0.5 * low, low), goal="hotspot", muscle="FDI")
    assert (loop.rule, loop.next()[1]) == ("thompson", loop.didt)
    assert begin(subject, didt=(0.5 * low, low), rule="random").next()[1] == low


def test_values_are_shares_of_poses_that_keep_the_response():
    shares = np.array([[[1.0, 0.5], [0.6, 0.1], [0.2, 0.0]]])
    np.testing.assert_allclose(value_candidates(shares, (0,), ()), [[1.0, 0.6, 0.2]])
    np.testing.assert_allclose(value_candidates(shares, (0,), (1,)), [[2 / 3, 6 / 7, 0.0]])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"goal": "best"}, "goal: 'best'"),
        ({"rule": "best"}, "rule: 'best'"),
        ({"goal": "hotspot"}, 'muscle: missing; goal "hotspot" asks for the muscle'),
        ({"goal": "select", "muscle": "FDI"}, 'avoid_muscle: goal "select" asks for those'),
        ({"goal": "map", "avoid_muscle": "ADM"}, 'avoid_muscle: goal "map" does not ask'),
        ({"goal": "select", "muscle": "FDI", "avoid_muscle": "FDI"}, "avoid_muscle: FDI should answer too"),
        ({"muscle": "FDJ"}, "muscle: 'FDJ'"),
        ({"didt": -1.0}, "didt"),
        ({"didt": (2e6, 1e6)}, "didt: (2000000.0, 1000000.0); give one dI/dt in A/s, or the lowest and the highest"),
        ({"stop": 0.0}, "stop"),
        ({"goal": "hotspot", "muscle": "FDI", "stop": 2.0}, "stop: 2; goal 'hotspot' ends at a share"),
        (
            {"goal": "threshold", "muscle": "FDI"},
            'didt: one intensity; goal "threshold" needs the lowest and the highest',
        ),
        ({"goal": "threshold", "muscle": ("FDI", "ADM"), "didt": (1e6, 2e6)}, "muscle: FDI, ADM; a threshold is that"),
        ({"goal": "threshold", "muscle": "FDI", "didt": (1e6, 2e6), "rule": "grid"}, "rule: not used with goal"),
        ({"pose": np.eye(4)}, "pose: not used with goal 'map'"),
        (HUNT | {"pose": np.stack([np.eye(4)] * 2)}, "pose: shape (2, 4, 4); give one pose"),
        ({"radius": -1.0}, "radius"),
        ({"minimal_interval": -1.0}, "minimal_interval"),
        ({"target": (0.0, 0.0)}, "target"),
        ({"n_stimulus": 0}, "n_stimulus"),
        ({"rate": None, "didt": None}, "didt: missing"),
    ],
)
def test_bad_arguments(subject, settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        begin(subject, **settings)


def test_a_threshold_is_hunted_at_one_pose(subject, tmp_path):
    usual = float(subject[1].didt.mean())
    settings = {"goal": "threshold", "muscle": "FDI", "didt": (0.2 * usual, 2 * usual), "n_stimulus": 40}
    loop = begin(subject, directory=tmp_path / "loop", **settings)
    where = loop.patch.place(0.0, 0.0, 0.0)
    rng = np.random.default_rng(0)
    true, proposed = 0.8 * usual, []
    while not loop.done:
        pose, didt = loop.next()
        np.testing.assert_array_equal(pose, where)
        proposed.append(didt)
        amplitude = float(jm.simulate.mep(jax.random.key(int(rng.integers(2**31))), np.array([didt / true]))[0])
        loop.record(pose, didt, [amplitude, np.nan, np.nan])
    assert loop.reason.startswith("the threshold is known: 90 % of its posterior within")
    mean, low, high = map(float, loop.threshold())
    assert (high - low) / mean <= 0.1
    assert low < true < high
    assert 10 <= len(loop) < 40
    assert all(0.2 * usual <= didt <= 2 * usual for didt in proposed)
    # another process goes on with the same, to the bit
    again = begin(subject, directory=tmp_path / "loop", **settings)
    assert again.threshold() == loop.threshold()
    assert again.next()[1] == loop.next()[1]
    # a stimulus elsewhere says nothing of it
    with pytest.warns(UserWarning, match="10 mm and . degrees from the pose of the threshold"):
        loop.record(loop.patch.place(10.0, 0.0, 0.0), didt, [500.0, 20.0, 20.0])
    assert loop.threshold() == again.threshold()
    with pytest.raises(ValueError, match='goal: "threshold" asks for no pose'):
        loop.best()
    with pytest.raises(ValueError, match='goal: "map" hunts no threshold'):
        begin(subject).threshold()


def test_a_threshold_needs_a_pose_that_the_map_covers(subject, monkeypatch):
    where = begin(subject).patch.place(3.0, 0.0, 0.0)
    monkeypatch.setattr(_patch.Patch, "compute_fields", lambda self, poses: np.full((len(poses), 1, 3), np.nan))
    with pytest.raises(ValueError, match="pose: the map has no field there; pass one over the target"):
        begin(subject, pose=where, **HUNT)


def test_a_threshold_needs_a_pose_outside_the_zones(subject):
    at_roi, _ = subject
    cube = jm.coil.offset_surface(np.array([[x, y, 0.0] for x in (-8.0, 8.0) for y in (-8.0, 8.0)]))
    where = begin(subject).patch.place(12.0, 0.0, 0.0)
    settings = HUNT | {"coil": replace(at_roi.coil, casing=cube), "avoid": [(where[:3, 3], 12.0)]}
    with pytest.raises(ValueError, match="pose: the casing is in a zone of `avoid`; pass another pose"):
        begin(subject, pose=where, **settings)


def test_bad_records(subject):
    loop = begin(subject, rule="random")
    pose, didt = loop.next()
    with pytest.raises(ValueError, match="meps: shape"):
        loop.record(pose, didt, np.ones(2))
    with pytest.raises(ValueError, match="meps: 'FDJ'"):
        loop.record(pose, didt, {"FDJ": 3.0})
    with pytest.raises(ValueError, match="meps: negative"):
        loop.record(pose, didt, -np.ones(3))
    with pytest.raises(ValueError, match="pose"):
        loop.record(2 * pose, didt, np.ones(3))
    with pytest.raises(ValueError, match="pose: shape"):
        loop.record(np.stack([pose, pose]), didt, np.ones(3))
    assert len(loop) == 0
    with pytest.raises(ValueError, match='goal: "map" asks for no pose'):
        loop.best()


def test_an_intensity_is_chosen_by_the_rate_and_said(subject):
    with pytest.warns(UserWarning, match=r"didt: none was passed; .* is 1.5 thresholds \(90 V/m\)"):
        loop = begin(subject, didt=None)
    largest = np.linalg.norm(loop.patch.fields, axis=-1).max() * loop.didt / 1e6
    assert largest == pytest.approx(90.0)


def test_a_rate_of_normals_is_that_of_the_grey_points(subject):
    at_roi, _ = subject
    points = np.asarray(at_roi.points)
    normals = -points / np.linalg.norm(points, axis=1, keepdims=True) + np.array([0.0, 0.7, 0.0])
    rate = jm.cortex.FiringRate(RATE.threshold, component="normal", normals=jnp.asarray(normals))
    loop = begin(subject, rate=rate)
    stimulate(subject, loop, 1)
    e = at_roi(loop.patch.poses[:3], didt=loop.didt)
    few = at_roi.pick(loop.patch.chosen)(loop.patch.poses[:3], didt=loop.didt)
    np.testing.assert_allclose(loop.draws(few), replace(loop.draws, activity=loop.posterior.activity)(e), rtol=1e-9)
    with pytest.raises(ValueError, match=r"rate: normals of shape \(5, 3\); the map has 700 points"):
        begin(subject, rate=replace(rate, normals=rate.normals[:5]))


def test_a_map_without_grey_matter_is_refused(subject):
    at_roi, _ = subject
    without = replace(at_roi, region=cheap_map((10, 10, 7), 5.0, grey=False).region)
    with pytest.raises(ValueError, match="at_roi: none of its points is grey matter"):
        begin((without, subject[1]))
