"""Decisions of schedules against a plain reading of their rules."""

import math

import jax
import numpy as np
import pytest

from jaxm2m.population import PBT, Halving, Independent

NAN = math.nan


def decide(schedule, scores, key=0):
    return schedule.decide(jax.random.key(key), np.atleast_2d(np.asarray(scores, float)))


def parents(schedule, scores, keys):
    """(key, member)."""
    return np.array([decide(schedule, scores, key).parent for key in range(keys)])


def stale(scores, patience, tolerance):
    """Whether `patience` scores in a row did not improve on the best before."""
    best, since = math.inf, 0
    for score in scores:
        if math.isfinite(score) and (math.isinf(best) or score < best - tolerance * abs(best)):
            best, since = score, 0
        else:
            since += 1
        if since == patience:
            return True
    return False


# population-based training


@pytest.mark.float32
def test_a_member_goes_on_from_a_better_rival_and_from_no_other():
    scores = [0.3, -1.0, 0.7, 0.5, 0.3]
    keys = 300
    found = parents(PBT(exploit="rival"), scores, keys)
    for member, score in enumerate(scores):
        better = {rival for rival, other in enumerate(scores) if other < score}
        assert set(found[:, member]) == (better | {member} if len(better) < 4 else better)
        # each of the four others is its rival equally often
        replaced = (found[:, member] != member).mean()
        spread = math.sqrt(0.25 / keys)
        assert replaced == pytest.approx(len(better) / 4, abs=5 * spread)
        for rival in better:
            assert (found[:, member] == rival).mean() == pytest.approx(1 / 4, abs=5 * spread)


@pytest.mark.float32
def test_the_worst_fifth_goes_on_from_the_best_fifth():
    scores = np.random.default_rng(0).permutation(10.0 * np.arange(10))
    best, worst = set(np.argsort(scores)[:2]), set(np.argsort(scores)[-2:])
    found = parents(PBT(exploit="truncation"), scores, 40)
    for member in range(10):
        assert set(found[:, member]) == (best if member in worst else {member})
    # of three, one
    assert set(map(tuple, parents(PBT(exploit="truncation"), [2, 3, 1], 9))) == {(0, 2, 2)}


@pytest.mark.parametrize("exploit", ["rival", "truncation"])
@pytest.mark.parametrize(
    "scores",
    [
        [NAN, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [NAN, NAN, NAN, NAN, NAN, NAN, 3, NAN, NAN, NAN],
        [1, NAN, math.inf, -math.inf, 2, NAN, NAN, NAN, NAN, NAN],
    ],
)
@pytest.mark.float32
def test_members_without_a_score_always_go_on_from_one_that_has_one(exploit, scores):
    sound = np.isfinite(scores)
    found = parents(PBT(exploit=exploit), scores, 30)
    assert sound[found].all()
    # and not all from the same, if there are several
    lost = found[:, np.flatnonzero(~sound)[0]]
    assert len(set(lost)) > 1 or sound.sum() == 1 or exploit == "truncation"


@pytest.mark.float32
@pytest.mark.parametrize("exploit", ["rival", "truncation"])
def test_where_no_member_has_a_score_all_stay(exploit):
    decision = decide(PBT(exploit=exploit), [NAN] * 10)
    np.testing.assert_array_equal(decision.parent, np.arange(10))
    assert decision.active.all()
    assert decision.stop == ""


@pytest.mark.float32
def test_the_run_ends_when_the_best_score_does_not_improve():
    rng = np.random.default_rng(1)
    ends = 0
    for case in range(60):
        history = rng.normal(size=(8, 3)).cumsum(axis=0) - case % 5
        history[rng.random(history.shape) < 0.2] = NAN
        schedule = PBT(patience=3, tolerance=0.1)
        best = [min((s for s in row if math.isfinite(s)), default=NAN) for row in history]
        stop = decide(schedule, history).stop
        assert bool(stop) == stale(best, 3, 0.1)
        ends += bool(stop)
    assert 10 < ends < 50


@pytest.mark.float32
def test_patience_of_negative_scores():
    schedule = PBT(patience=2, tolerance=0.01)
    falling = [[-1.0, 0], [-1.02, 0], [-1.04, 0], [-1.06, 0]]
    assert not decide(schedule, falling).stop
    crawling = [[-1.0, 0], [-1.005, 0], [-1.009, 0]]
    assert decide(schedule, crawling).stop == "no improvement by 0.01 in 2 generations"
    # small steps add up: what counts is the best when it last improved
    assert not decide(schedule, [*crawling[:2], [-1.011, 0]]).stop


@pytest.mark.float32
def test_the_run_ends_when_all_generations_are_done():
    for schedule in (PBT(generations=2), Halving(generations=2), Independent(generations=2)):
        assert not decide(schedule, [[1.0, 2]]).stop
        assert decide(schedule, [[1.0, 2], [0.5, 1]]).stop == "all 2 generations done"


@pytest.mark.float32
@pytest.mark.parametrize("exploit", ["rival", "truncation"])
def test_a_decision_follows_from_the_key_and_the_scores_alone(exploit):
    scores = np.random.default_rng(2).normal(size=(3, 10))
    given = scores.copy()
    schedule = PBT(exploit=exploit, patience=50)
    first = decide(schedule, scores)
    decide(schedule, scores[:1], key=5)
    again = decide(PBT(exploit=exploit, patience=50), scores)
    np.testing.assert_array_equal(first.parent, again.parent)
    assert len({tuple(row) for row in parents(schedule, scores, 5)}) > 1
    np.testing.assert_array_equal(scores, given)
    # parents follow from the last generation
    np.testing.assert_array_equal(decide(schedule, scores[-1]).parent, first.parent)


# halving


@pytest.mark.float32
@pytest.mark.parametrize(("members", "factor"), [(9, 3), (10, 3), (7, 2), (2, 4)])
def test_at_each_rung_the_best_part_goes_on(members, factor):
    scores = np.random.default_rng(members).normal(size=(10, members))
    schedule = Halving(factor=factor)
    left, rung = list(range(members)), 1
    for generation in range(1, 11):
        if generation == rung:
            left = sorted(left, key=lambda m: scores[rung - 1, m])[: math.ceil(len(left) / factor)]
            rung *= factor
        decision = decide(schedule, scores[:generation])
        assert sorted(np.flatnonzero(decision.active)) == sorted(left)
        np.testing.assert_array_equal(decision.parent, np.arange(members))
        # what a stopped member's scores do afterwards changes nothing
        changed = scores[:generation].copy()
        changed[-1, [m for m in range(members) if m not in left]] += 100.0
        np.testing.assert_array_equal(decide(schedule, changed).active, decision.active)
    assert len(left) == 1


@pytest.mark.float32
def test_members_without_a_score_stop_first():
    assert list(decide(Halving(factor=2), [NAN, 3.0, NAN, 9.0]).active) == [False, True, False, True]


# members that never meet


@pytest.mark.float32
def test_a_member_stops_when_it_does_not_improve_and_never_starts_again():
    rng = np.random.default_rng(3)
    schedule = Independent(patience=2, tolerance=0.05)
    for case in range(20):
        scores = rng.normal(size=(7, 5)).cumsum(axis=0) - case % 3
        scores[rng.random(scores.shape) < 0.1] = NAN
        active = np.ones(5, bool)
        for generation in range(1, 8):
            decision = decide(schedule, scores[:generation])
            expected = [not stale(scores[:generation, m], 2, 0.05) for m in range(5)]
            assert list(decision.active) == expected
            assert (decision.active <= active).all()
            np.testing.assert_array_equal(decision.parent, np.arange(5))
            active = decision.active
            assert bool(decision.stop) == (not active.any())


@pytest.mark.float32
def test_without_patience_none_stops():
    decision = decide(Independent(), np.ones((50, 3)))
    assert decision.active.all()
    assert not decision.stop


# arguments


@pytest.mark.host
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: PBT(epochs=0), "epochs: 0"),
        (lambda: PBT(generations=0), "generations: 0"),
        (lambda: PBT(patience=0), "patience: 0"),
        (lambda: PBT(tolerance=-1.0), "tolerance: -1"),
        (lambda: PBT(smoothing=1.0), "smoothing: 1"),
        (lambda: PBT(smoothing=-0.1), "smoothing: -0.1"),
        (lambda: PBT(smoothing=NAN), "smoothing: nan"),
        (lambda: PBT(exploit="best"), "exploit: 'best'; choose one of 'rival', 'truncation'"),
        (lambda: Halving(factor=1), "factor: 1"),
        (lambda: Halving(epochs=0), "epochs: 0"),
        (lambda: Independent(patience=0), "patience: 0"),
        (lambda: Independent(generations=0), "generations: 0"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(make, error):
    with pytest.raises(ValueError, match=error):
        make()


@pytest.mark.host
def test_a_run_may_get_more_generations_and_nothing_else():
    assert PBT(generations=5).settings == PBT(generations=50).settings
    for other in (PBT(epochs=1), PBT(patience=1), PBT(smoothing=0.0), PBT(exploit="truncation"), Independent()):
        assert other.settings != PBT().settings
