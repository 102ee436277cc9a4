"""Sources that follow a session: the same mode as a fit to all of it, draws, what is missing, and going on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cheap_map import TARGET, cheap_map

import jaxm2m as jm
from jaxm2m.muscle.sources._density import weigh_bumps
from jaxm2m.muscle.sources._drift import make_drift, make_no_drift
from jaxm2m.muscle.sources._posterior import (
    describe_mode,
    draw_posterior,
    find_mode,
    measure_drive,
    measure_scores,
    weigh_shared,
)
from jaxm2m.muscle.sources._recruitment_curve import N_NUMBER, curve_from, log_moments
from jaxm2m.muscle.sources._tracker import _shrink

pytestmark = [pytest.mark.optimized, pytest.mark.float64]

RATE = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
PRIOR = jm.muscle.DensityPrior(width=7.0, correlation=10.0)
MUSCLES = ("FDI", "ADM", "ECR")
CAPACITY = 24


@pytest.fixture(scope="module")
def session(precision):
    at_roi = cheap_map((10, 10, 7), 5.0)
    made = jm.simulate.mapping_session(
        at_roi, key=jax.random.key(0), rate=RATE, target=TARGET, stimuli=CAPACITY, gain=0.6, muscles=MUSCLES,
        synergies=2, turn=60.0,
    )  # fmt: skip
    return at_roi, made, np.asarray(at_roi(made.poses, didt=1e6) * made.didt[:, None, None] / 1e6)


def begin(session, **settings):
    at_roi, _, fields = session
    return jm.muscle.track_sources(
        at_roi,
        fields,
        **{"muscles": MUSCLES, "rate": RATE, "centre": TARGET, "capacity": CAPACITY, "prior": PRIOR} | settings,
    )


@pytest.fixture(scope="module")
def trackers(session):
    """After 0, 1, ... stimuli; an MEP is missing here and there, and stimulus 5 was missed."""
    _, made, fields = session
    meps = np.array(made.meps, float)
    meps[5] = meps[7, 1] = meps[18, 0] = np.nan
    trackers = [begin(session)]
    for e, row in zip(fields, meps, strict=True):
        trackers.append(trackers[-1].add(e, row))
    return trackers, meps


@pytest.mark.slow
def test_the_mode_follows_that_of_the_whole_session(trackers):
    last = trackers[0][-1]
    assert int(last.count) == CAPACITY

    def climb(steps, start=None):
        _, shared, each = find_mode(last.data, steps=steps, start=start)
        return float(each.sum() + 0.5 * (shared @ shared))

    # the posterior may have other modes: as likely a one as that which a fit of the whole session finds
    assert climb(200, (last.standard, last.shared)) < climb(400) + 2.0
    # and no far climb is left
    assert climb(1, (last.standard, last.shared)) < climb(400, (last.standard, last.shared)) + 3.0


def test_missing_meps_count_for_nothing(session, trackers):
    _, _, fields = session
    before, after = trackers[0][5], trackers[0][6]
    assert not np.asarray(after.data.usable[5]).any()
    # the mode may climb on, but what it climbs is the same
    np.testing.assert_array_equal(before.data.usable[:5], after.data.usable[:5])
    other = trackers[0][7].add(fields[7], np.array([100.0, np.nan, 30.0]))
    assert np.asarray(other.data.usable[7]).tolist() == [True, False, True]


def test_no_response_is_no_amplitude_of_zero(session, trackers):
    """Zero is at the noise of the recording, or the smallest so far: not decades below it."""
    fields = session[2]
    empty = begin(session)
    rows = np.array([[0.0, 200.0, 4.0], [0.0, 0.0, 0.0], [6.0, 0.0, np.nan], [0.0, 0.0, 0.0]])
    tracker = empty
    for e, row in zip(fields, rows, strict=False):
        tracker = tracker.add(e, row)
    expected = [[10, 200, 4], [10, 10, 4], [6, 10, 4], [6, 10, 4]]
    usable = np.asarray(tracker.data.usable[:4])
    np.testing.assert_allclose(np.where(usable, 10 ** np.asarray(tracker.data.y[:4]), 4), expected)
    again = empty.restore(
        np.asarray(tracker.data.features[:4]), rows, np.asarray(tracker.standard), np.asarray(tracker.shared)
    )
    np.testing.assert_array_equal(np.where(usable, again.data.y[:4], 0), np.where(usable, tracker.data.y[:4], 0))


def test_draws_have_the_curvature_of_the_mode():
    rng = np.random.default_rng(0)
    for n in (4, 30):
        scores = rng.normal(size=(2, n, 6))
        noise = rng.normal(size=(40_000, 2, 6))
        spread = _shrink(noise, scores)
        for m in range(2):
            expected = np.linalg.inv(np.eye(6) + scores[m].T @ scores[m])
            np.testing.assert_allclose(np.cov(spread[:, m].T), expected, atol=0.03 * expected.max())


def test_draws_become_sure_and_near_the_truth(session, trackers):
    _, made, fields = session
    first, last = (trackers[0][k].draw(jax.random.key(1), 128) for k in (0, -1))
    assert first.muscles == MUSCLES
    assert set(first.hotspots()["reason"]) != {""}
    assert np.isnan(np.asarray(first.checks)).all()
    wide, narrow = (np.linalg.norm(s.centroids() - s.centroids().mean(0), axis=2).mean() for s in (first, last))
    assert narrow < 0.8 * wide
    truth = made.hotspots().groupby("muscle", sort=False).first()[["x", "y", "z"]].to_numpy()
    error = [np.linalg.norm(s.centroids().mean(0) - truth, axis=1).mean() for s in (first, last)]
    assert error[1] < error[0]
    predicted, true = np.log(np.asarray(last(fields))), np.log(np.asarray(made.mean))
    assert np.corrcoef(predicted.ravel(), true.ravel())[0, 1] > 0.85


@pytest.mark.slow
def test_the_posterior_itself_is_that_of_a_fit(session, trackers):
    fields = session[2]
    # a fit knows of no drift
    tracker, meps = trackers[0][-1], trackers[1]
    tracker = replace(tracker, data=tracker.data._replace(drift=make_no_drift(CAPACITY)))
    grid = jm.efield.Grid.around(TARGET, (10, 10, 7), 5.0)
    fit = jm.muscle.fit_sources(
        fields, meps, grid=grid, grey=session[0], rate=RATE, muscles=MUSCLES, centre=TARGET, prior=PRIOR,
        key=jax.random.key(2),
    )  # fmt: skip
    own = tracker.fit(jax.random.key(2))
    away = np.linalg.norm(own.centroids().mean(0) - fit.centroids().mean(0), axis=1)
    radius = np.quantile(np.linalg.norm(fit.centroids() - fit.centroids().mean(0), axis=2), 0.9, axis=0)
    assert (away < 0.6 * radius).all()
    np.testing.assert_allclose(np.log(own(fields)), np.log(fit(fields)), atol=0.5)
    assert np.isfinite(np.asarray(own.checks)).all()


def test_it_goes_on_from_what_it_held(session, trackers):
    _, _, fields = session
    tracker, meps = trackers
    half = tracker[20]
    again = begin(session).restore(
        np.asarray(half.data.features[:20]), meps[:20], np.asarray(half.standard), np.asarray(half.shared)
    )
    for one, other in zip(jax.tree.leaves(half), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    one, other = (t.add(fields[20], meps[20]) for t in (half, again))
    np.testing.assert_array_equal(one.standard, other.standard)


def test_bad_input(session, trackers):
    _, _, fields = session
    tracker = trackers[0][3]
    with pytest.raises(ValueError, match=r"meps: shape \(2,\); give one amplitude for each of 3 muscles"):
        tracker.add(fields[0], np.ones(2))
    with pytest.raises(ValueError, match="meps: negative or infinite"):
        tracker.add(fields[0], np.array([1.0, -2.0, 3.0]))
    with pytest.raises(ValueError, match="meps: there is room for 24 stimuli"):
        trackers[0][-1].add(fields[0], np.ones(3))
    with pytest.raises(ValueError, match="features: of other bumps"):
        tracker.restore(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 4)), np.zeros(24))
    with pytest.raises(ValueError, match="muscles: FDI, FDI"):
        begin(session, muscles=("FDI", "FDI"))
    with pytest.raises(ValueError, match=r"centre: shape \(2,\)"):
        begin(session, centre=np.zeros(2))
    with pytest.raises(ValueError, match="reference: shape"):
        jm.muscle.track_sources(session[0], fields[:, :5], muscles=MUSCLES, centre=TARGET)


def test_linear_about_the_mode(session, trackers):
    """Slopes are those of the model, and the covariance that of the curvature which draws have."""
    fields = session[2]
    tracker = trackers[0][8]
    posterior = tracker.linearise()
    features = tracker.measure(fields[9])
    np.testing.assert_allclose(posterior.measure(jnp.asarray(fields[9])), features, rtol=1e-9)
    response = posterior.respond(features)

    def moments(standard):
        data = tracker.data
        curve = curve_from(standard[:N_NUMBER], data.curve)
        weights = weigh_bumps(standard[N_NUMBER:], data.log_mean, data.factor)
        drive, _ = measure_drive(features, weights, data.reference)
        centroid = weights @ tracker.kernel @ tracker.points
        return (*log_moments(curve, drive), centroid)

    for m in range(len(MUSCLES)):
        mean, variance, _ = moments(tracker.standard[m])
        assert float(response.mean[m]) == pytest.approx(float(mean), rel=1e-9)
        assert float(response.variance[m]) == pytest.approx(float(variance), rel=1e-9)
        slope, _, centroid = jax.jacrev(moments)(tracker.standard[m])
        np.testing.assert_allclose(response.slope[m], slope, atol=1e-9 * np.abs(slope).max())
        np.testing.assert_allclose(posterior.centroid_slopes()[m], centroid, atol=1e-9 * np.abs(centroid).max())
    scores = np.asarray(measure_scores(tracker.standard, tracker.shared, tracker.data))
    n_number = scores.shape[2]
    covariance = posterior.spread(np.broadcast_to(np.eye(n_number), (len(MUSCLES), n_number, n_number)))
    for m, rows in enumerate(scores):
        np.testing.assert_allclose(covariance[m], np.linalg.inv(np.eye(n_number) + rows.T @ rows), atol=1e-9)
    # before the first stimulus what is believed beforehand
    first = trackers[0][0].linearise()
    assert np.abs(np.asarray(first.known)).max() == 0


def test_drift_is_a_prior_of_what_muscles_share():
    """Its components are orthogonal, and the potential is that of the normal distribution with their covariance."""
    drift = np.asarray(make_drift(60))
    square = drift.T @ drift
    np.testing.assert_allclose(square, np.diag(np.diag(square)), atol=1e-9 * square.max())
    # the whole variance in the middle of the session, and alike over a few stimuli
    covariance = drift @ drift.T
    assert covariance[30, 30] == pytest.approx(1, abs=0.02)
    assert covariance[30, 40] > 0.95
    assert covariance[10, 50] < 0.8
    shared = np.random.default_rng(0).normal(size=60)
    expected = 0.5 * shared @ np.linalg.solve(np.eye(60) + covariance, shared)
    assert float(weigh_shared(jnp.asarray(shared), jnp.asarray(drift))) == pytest.approx(expected)
    assert float(weigh_shared(jnp.asarray(shared), make_no_drift(60))) == pytest.approx(0.5 * shared @ shared)


@pytest.mark.slow
def test_draws_of_a_drift_have_its_covariance(trackers):
    """Where nothing was measured the draws are those of the prior."""
    data = trackers[0][0].data._replace(drift=jnp.asarray(make_drift(CAPACITY)))
    mode = describe_mode(find_mode(data, steps=20), data)
    draws = np.concatenate(
        [np.asarray(draw_posterior(jax.random.key(k), mode, data, 1000, thinning=3).shared) for k in range(2)]
    )
    drift = np.asarray(data.drift)
    expected = np.eye(CAPACITY) + drift @ drift.T
    np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.3)
    assert draws.var(0).mean() == pytest.approx(expected.diagonal().mean(), rel=0.1)
