"""Synergies: factors of known truth found again, VAF by hand, ranks, matching, and what is warned of."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from jaxm2m import muscle
from jaxm2m.muscle.responses import _synergies

pytestmark = pytest.mark.host


def known(n_synergy, seed=0, *, noise=0.02, n_stimulus=300):
    """MEPs of known synergies (3 to 6 muscles each, Gamma(2, 1)), each active in 60 % of the trials.

    Synergies are drawn again until no pair has a cosine over 0.7, and none lies within the muscles of another (then
    they would not be unique).
    """
    rng = np.random.default_rng(seed)
    columns = []
    while len(columns) < n_synergy:
        new = np.zeros(15)
        new[rng.choice(15, rng.integers(3, 7), replace=False)] = 1
        new *= rng.gamma(2, 1, 15)
        alike = [new @ c / np.linalg.norm(new) / np.linalg.norm(c) > 0.7 for c in columns]
        within = [((new > 0) <= (c > 0)).all() or ((c > 0) <= (new > 0)).all() for c in columns]
        if not any(alike + within):
            columns.append(new / new.sum())
    vectors = np.array(columns).T
    activations = rng.gamma(1, 1, (n_stimulus, n_synergy)) * (rng.random((n_stimulus, n_synergy)) < 0.6)
    clean = activations @ vectors.T
    return np.maximum(clean + noise * clean.std() * rng.normal(size=clean.shape), 0), vectors, activations


@pytest.mark.parametrize("n_synergy", range(3, 10))
def test_known_synergies_are_found_again(n_synergy):
    meps, vectors, activations = known(n_synergy, seed=n_synergy)
    for noise in (0.02, 0.05):
        assert muscle.bi_cross_validation(known(n_synergy, seed=n_synergy, noise=noise)[0]).rank == n_synergy
    found = muscle.synergies(meps, n_synergy)
    matching = muscle.match_synergies(vectors, found)
    assert (matching.cosine >= 0.98).all()
    assert (matching.cosine > matching.chance).all()
    assert (matching.p < 0.02).all()
    np.testing.assert_allclose(found.vectors.sum(0), 1, rtol=1e-12)
    order = matching.pairs[:, 1]
    again = found.activations(meps)[:, order]
    assert np.corrcoef(again.ravel(), activations.ravel())[0, 1] > 0.98
    # the customary rule says how many suffice, not how many there are
    assert muscle.vaf_curve(meps, range(1, n_synergy + 1), resamples=10, n_starts=1).rank(0.9) <= n_synergy


def test_the_rule_of_vaf_counts_too_few():
    meps, *_ = known(9)
    curve = muscle.vaf_curve(meps, range(1, 10), resamples=50, n_starts=2)
    assert curve.rank() < 7
    assert (np.diff(curve.vaf) > 0).all()
    assert ((curve.low <= curve.vaf) & (curve.vaf <= curve.high)).all()
    assert (curve.high - curve.low)[0] > (curve.high - curve.low)[-1]
    assert list(curve.table().columns) == ["rank", "vaf", "low", "high"]
    with pytest.raises(ValueError, match=r"threshold: 1\.5, but VAF reaches 1\.000"):
        curve.rank(1.5)


def test_an_exact_factorisation_is_exact():
    # each synergy has a muscle of its own, and each is active alone in some trial: unique
    vectors = np.array([[0.6, 0.0], [0.0, 0.7], [0.4, 0.3]])
    activations = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 0.5]])
    found = muscle.synergies(activations @ vectors.T, 2, tolerance=1e-10)
    np.testing.assert_allclose(found.vectors, vectors, atol=1e-4)  # in order of total activation, 6 and 2.5
    np.testing.assert_allclose(found.activations(activations @ vectors.T), activations, atol=1e-3)
    np.testing.assert_allclose(found.reconstruct(activations), activations @ found.vectors.T)
    np.testing.assert_allclose(found.reconstruct(jnp.ones(2)), found.vectors.sum(1), rtol=1e-6)
    assert found.vaf > 1 - 1e-6
    assert found.converged
    assert repr(found) == "Synergies(2 of 3 muscles, VAF 1.000)"


def test_new_meps_and_the_unit():
    meps, *_ = known(4)
    found, in_uv = muscle.synergies(meps[:200], 4), muscle.synergies(1000 * meps[:200], 4)
    assert muscle.vaf(meps[200:], found.reconstruct(found.activations(meps[200:]))) > 0.99
    assert (found.activations(meps[200:]) >= 0).all()
    assert muscle.match_synergies(found, in_uv).cosine.min() > 0.9999
    np.testing.assert_array_equal(muscle.synergies(meps[:200], 4).vectors, found.vectors)
    names = tuple("ABCDEFGHIJKLMNO")
    whole = muscle.Meps(meps, np.full(meps.shape, np.nan), np.full(meps.shape, ""), names)
    assert muscle.synergies(whole, 2).muscles == names


def test_the_interval_is_that_of_resampled_trials():
    meps, *_ = known(3, n_stimulus=60)
    for definition in muscle.VAF_DEFINITIONS:
        curve = muscle.vaf_curve(meps + 1e-3, [2], definition=definition, resamples=400, n_starts=1)
        rng = np.random.default_rng(1)
        a, h, _ = _synergies.factorise(meps + 1e-3, 2, 1, None, 2000, 1e-4)[0]
        fit = a @ h
        rows = [rng.integers(60, size=60) for _ in range(400)]
        by_hand = [muscle.vaf((meps + 1e-3)[r], fit[r], definition) for r in rows]
        width = curve.high[0] - curve.low[0]
        np.testing.assert_allclose([curve.low[0], curve.high[0]], np.quantile(by_hand, [0.05, 0.95]), atol=0.2 * width)


def test_bi_cross_validation_by_hand():
    rng = np.random.default_rng(0)
    exact = rng.gamma(1, 1, (20, 2)) @ rng.gamma(1, 1, (2, 6))
    meps = np.maximum(exact + 0.01 * rng.normal(size=(20, 6)), 0)
    got = muscle.bi_cross_validation(meps, [1, 2], trial_folds=20, muscle_folds=6)
    assert got.error.shape == (2, 120)
    errors = []
    for i in range(20):
        for j in range(6):
            rows, columns = np.delete(np.arange(20), i), np.delete(np.arange(6), j)
            u, s, vh = np.linalg.svd(meps[np.ix_(rows, columns)], full_matrices=False)
            for k in (1, 2):
                kept = np.linalg.pinv(u[:, :k] * s[:k] @ vh[:k])
                errors.append((meps[i, j] - meps[i, columns] @ kept @ meps[rows, j]) ** 2)
    expected = np.reshape(errors, (120, 2)).T / (meps**2).mean()
    np.testing.assert_allclose(np.sort(got.error, 1), np.sort(expected, 1), rtol=1e-6, atol=1e-12)
    assert list(got.table().columns) == ["rank", "error", "se"]
    # a muscle that is silent all the time takes nothing away
    silent = np.concatenate([meps, np.zeros((20, 2))], 1)
    assert muscle.bi_cross_validation(silent).rank == muscle.bi_cross_validation(exact).rank == 2


def test_matching():
    rng = np.random.default_rng(0)
    vectors = rng.gamma(0.5, 1, (15, 6))
    matching = muscle.match_synergies(vectors, 3 * vectors[:, [4, 2, 0, 5]])
    assert sorted(map(tuple, matching.pairs)) == [(0, 2), (2, 1), (4, 0), (5, 3)]
    np.testing.assert_allclose(matching.cosine, 1)
    strangers = muscle.match_synergies(vectors, rng.gamma(0.5, 1, (15, 6)))
    assert strangers.p.mean() > 0.2
    assert strangers.cosine.mean() < strangers.chance
    with pytest.raises(ValueError, match=r"second: shape \(14, 6\), but first has \(15, 6\)"):
        muscle.match_synergies(vectors, vectors[1:])


def test_what_is_warned_of(monkeypatch):
    meps, *_ = known(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.warns(UserWarning, match="10 of 10 starts, the best among them, had not converged"):
            found = muscle.synergies(meps, 6, iterations=30)
    assert not found.converged
    assert repr(found).endswith("not converged)")
    factorise = _synergies._factorise

    def one_dead(*arguments):
        a, h, converged = factorise(*arguments)
        a[:, 1] = 0
        return a, h, converged

    monkeypatch.setattr(_synergies, "_factorise", one_dead)
    with pytest.warns(UserWarning, match="1 of 3 are empty, the data hold no more"):
        found = muscle.synergies(meps, 3)
    np.testing.assert_allclose(found.vectors.sum(0), [1, 1, 0])
    assert (found.activations(meps)[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("problem", "call"),
    {
        "n_synergy: 16; 1 to 15 is what": lambda m: muscle.synergies(m, 16),
        "n_synergy: 0; must be at least 1": lambda m: muscle.synergies(m, 0),
        "n_synergy: 5; 1 to 4 is what": lambda m: muscle.synergies(m[:4], 5),
        "meps: all are zero": lambda m: muscle.synergies(0 * m, 2),
        r"meps: 100\.0% of the values are negative, down to -1": lambda m: muscle.synergies(m * 0 - 1, 2),
        "meps: 4500 of 4500 values are NaN": lambda m: muscle.synergies(m * np.nan, 2),
        r"meps: shape \(15,\)": lambda m: muscle.synergies(m[0], 2),
        "meps: 14 muscles, the synergies have 15": lambda m: muscle.synergies(m, 2).activations(m[:, 1:]),
        "ranks: 13; 1 to 12 is what": lambda m: muscle.bi_cross_validation(m, [13]),
        "muscle_folds: 1 of 15": lambda m: muscle.bi_cross_validation(m, muscle_folds=1),
    }.items(),
)
def test_bad_input(problem, call):
    with pytest.raises(ValueError, match=problem):
        call(known(3)[0])
