"""Decoding: against scikit-learn, known answers, lags, generalisation, and the published recording."""

import h5py
import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from jaxm2m import emg

pytestmark = pytest.mark.host


@pytest.fixture
def pair(rng):
    x = rng.gamma(1.5, size=(12, 60, 4)) * [1, 2, 5, 0.1] + [0, 3, 0, 0]
    y = x @ rng.normal(size=(4, 2)) * [1, 100] + rng.normal(size=(12, 60, 2)) * [3, 50]
    return x, y


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_equals_scikit_learn(pair):
    x, y = pair
    got = emg.cross_validate_decoder(x, y, alpha=3.0)
    a, b = x.reshape(-1, 4), y.reshape(-1, 2)
    vaf, predicted = [], np.empty_like(b)
    for train, test in KFold(10).split(a):
        sx, sy = StandardScaler().fit(a[train]), StandardScaler().fit(b[train])
        model = Ridge(3.0).fit(sx.transform(a[train]), sy.transform(b[train]))
        predicted[test] = sy.inverse_transform(model.predict(sx.transform(a[test])))
        vaf.append(r2_score(b[test], predicted[test], multioutput="raw_values"))
    np.testing.assert_allclose(got.vaf, vaf, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got.prediction.reshape(-1, 2), predicted, rtol=1e-10)
    np.testing.assert_allclose(got.mean, np.mean(vaf, 0), atol=1e-11)
    np.testing.assert_allclose(got.sem, np.std(vaf, 0, ddof=1) / 10**0.5, atol=1e-11)
    assert list(got.table().columns) == ["output", "vaf", "sem", "lag"]


def test_units_and_a_silent_channel_change_nothing(pair):
    x, y = pair
    plain = emg.cross_validate_decoder(x, y)
    scaled = emg.cross_validate_decoder(np.concatenate([1e6 + 1e3 * x, np.full((12, 60, 1), 7.0)], -1), 1e-4 * y - 3)
    np.testing.assert_allclose(scaled.vaf, plain.vaf, atol=1e-6)
    # without a penalty too
    np.testing.assert_allclose(
        emg.cross_validate_decoder(np.concatenate([x, np.zeros((12, 60, 1))], -1), y, alpha=0).vaf,
        emg.cross_validate_decoder(x, y, alpha=0).vaf,
        atol=1e-10,
    )


def test_folds(pair):
    x, y = pair
    as_list = emg.cross_validate_decoder(list(x), tuple(y))
    np.testing.assert_array_equal(as_list.vaf, emg.cross_validate_decoder(x.reshape(-1, 4), y.reshape(-1, 2)).vaf)
    assert isinstance(as_list.prediction, tuple)
    one, two = (emg.cross_validate_decoder(x, y, key=jax.random.key(s)) for s in (0, 1))
    assert not np.allclose(one.vaf, two.vaf)
    np.testing.assert_array_equal(one.vaf, emg.cross_validate_decoder(x, y, key=jax.random.key(0)).vaf)
    # 12 whole trials in 12 folds: each is left out by itself
    whole = emg.cross_validate_decoder(x, y, n_folds=12, whole_trials=True)
    rest = emg.fit_decoder(np.delete(x, 3, 0), np.delete(y, 3, 0))
    np.testing.assert_allclose(whole.vaf[3], rest.vaf(x[3], y[3]), atol=1e-10)
    np.testing.assert_allclose(whole.prediction[3], rest.predict(x[3]), rtol=1e-9)


def test_lags_of_each_output(rng):
    # the first output follows the muscles by 4 bins, the second precedes them by 6
    x = rng.gamma(1.5, size=(5, 212, 3))
    inner = slice(10, 200)
    y = np.zeros((5, 212, 2))
    y[:, 4:, 0] = x[:, :-4, 0] - x[:, :-4, 2]
    y[:, :-6, 1] = 5 * x[:, 6:, 1]
    lags = np.arange(-0.016, 0.0161, 0.002)
    got = emg.cross_validate_decoder(x, y, 500, lags=lags, alpha=1e-9)
    np.testing.assert_allclose(got.lag, [0.008, -0.012])
    np.testing.assert_allclose(got.mean, 1, atol=1e-12)
    np.testing.assert_allclose(got.lags, lags, atol=1e-12)
    assert got.sweep.shape == (17, 2)
    assert np.sort(got.sweep, axis=0)[-2].max() < 0.1
    # bins that some lag does not reach have no prediction
    assert np.isnan(got.prediction[:, :8]).all()
    assert np.isnan(got.prediction[:, -8:]).all()
    np.testing.assert_allclose(got.prediction[:, inner], y[:, inner], atol=1e-6)
    # with margins, all have one
    margin = emg.cross_validate_decoder(x, y[:, 8:-8], 500, lags=lags, alpha=1e-9, margin=8)
    np.testing.assert_allclose(margin.vaf, got.vaf, atol=1e-12)
    assert np.isfinite(margin.prediction).all()
    # a decoder finds the same lags, and carries them to other data
    decoder = emg.fit_decoder(x[:4], y[:4], 500, lags=lags, alpha=1e-9)
    np.testing.assert_allclose(decoder.lag, [0.008, -0.012])
    np.testing.assert_allclose(decoder.weights, [[1, 0], [0, 5], [-1, 0]], atol=1e-8)
    np.testing.assert_allclose(decoder.vaf(x[4], y[4]), 1, atol=1e-12)
    predicted = decoder.predict(x[4])
    assert np.isnan(predicted[:4, 0]).all()
    assert np.isfinite(predicted[4:, 0]).all()
    assert np.isnan(predicted[-6:, 1]).all()


def test_vaf_of_the_mean_is_zero(rng):
    x, y = rng.normal(size=(1000, 3)), rng.normal(size=(1000, 1))
    decoder = emg.fit_decoder(x, y, alpha=1e12)
    np.testing.assert_allclose(decoder.vaf(x, y), 0, atol=1e-8)
    np.testing.assert_allclose(decoder.predict(x), np.broadcast_to(y.mean(), (1000, 1)), atol=1e-6)


def test_choose_takes_any_candidates(pair):
    x, y = pair
    noisy = x + 5 * np.random.default_rng(0).normal(size=x.shape)
    choice = emg.select_by_decoding({("noise", 1): noisy, ("plain", 0): x, "silent": 0 * x}, y, outputs=("a", "b"))
    assert choice.best == ("plain", 0)
    assert len(choice.table) == 6
    assert list(choice.table.columns) == ["method", "output", "vaf", "sem", "lag"]
    np.testing.assert_array_equal(choice.decodings["plain", 0].vaf, emg.cross_validate_decoder(x, y).vaf)
    assert choice.decodings["silent"].mean.max() < 0
    assert "plain" in repr(choice)


def test_ttest_by_hand(pair):
    x, y = pair
    one, two = emg.cross_validate_decoder(x, y), emg.cross_validate_decoder(x[..., :2], y)
    table = emg.ttest(one, two)
    d = one.vaf - two.vaf
    np.testing.assert_allclose(table["t"], d.mean(0) / (d.std(0, ddof=1) / 10**0.5))
    np.testing.assert_allclose(table["difference"], d.mean(0))
    assert (table["p"] < 0.01).all()


def test_cortical_channels(rng):
    # 30 channels fire before the muscles act, each with its own lead
    drive = emg.smooth(rng.normal(size=(10, 400, 3)), 500, 0.02)
    drive /= drive.std()
    lead = rng.integers(0, 40, 30)
    rates = np.exp(np.stack([np.roll(drive, -k, 1)[..., i % 3] for i, k in enumerate(lead)], -1))
    counts = rng.poisson(0.5 * rates)
    lags = -np.arange(0, 0.1, 0.004)
    target = emg.smooth(counts, 500)
    good = emg.cross_validate_decoder(np.exp(drive), target, 500, lags=lags)
    poor = emg.cross_validate_decoder(np.exp(drive) * rng.gamma(1, size=drive.shape), target, 500, lags=lags)
    assert good.lag.shape == (30,)
    assert np.median(np.abs(-good.lag - lead / 500)) < 0.012
    result = emg.signed_rank(good, poor)
    # all 30 differences are positive: W = 30 31 / 2, p = 2^-30
    assert result["w"] == 465
    assert result["p"] == pytest.approx(2**-30)
    assert result["first"] == pytest.approx(good.mean.mean())
    assert result["second"] == pytest.approx(poor.mean.mean())
    assert emg.signed_rank(poor, good)["p"] == pytest.approx(1)


def test_smooth_keeps_sums():
    spike = np.zeros((200, 1))
    spike[100] = 1
    out = emg.smooth(spike, 500, 0.035)
    t = np.arange(-100, 100) / 500
    np.testing.assert_allclose(
        out[:, 0], np.exp(-0.5 * (t / 0.035) ** 2) / (0.035 * 500 * (2 * np.pi) ** 0.5), atol=1e-4
    )
    assert emg.smooth(np.ones((30, 2)), 500, 0.5) == pytest.approx(1)


def test_generalise(rng):
    x = rng.gamma(1.5, size=(20, 50, 2))
    w = np.array([[1.0, 0], [0, 1]])
    y = x @ w + 0.01 * rng.normal(size=(20, 50, 2))
    conditions = np.array(["slow"] * 10 + ["fast"] * 10)
    y[10:, :, 1] = x[10:, :, 0]
    table = emg.generalise(x, y, conditions, n_folds=5, outputs=("same", "other")).set_index("output")
    assert list(zip(table["train"], table["test"], strict=True)) == [("slow", "fast")] * 2 + [("fast", "slow")] * 2
    assert table.loc["same", "loss"].abs().max() < 1e-3
    assert table.loc["other", "loss"].min() > 1
    assert (table["within"] > 0.99).all()
    np.testing.assert_allclose(table["loss"], table["within"] - table["vaf"])
    # of two conditions, one is all others
    others = emg.generalise(x, y, conditions, n_folds=5, outputs=("same", "other"), train="others")
    assert (others["train"] == "others").all()
    assert sorted(others["vaf"]) == pytest.approx(sorted(table["vaf"]))


def test_learning_curve(rng):
    x = rng.gamma(1.5, size=(40, 20, 6))
    y = x @ rng.normal(size=(6, 1)) + 8 * rng.normal(size=(40, 20, 1))
    key = jax.random.key(3)
    table = emg.learning_curve(x, y, [1, 4, 32], key=key, repeats=6)
    vaf = table.groupby("trials")["vaf"].mean()
    assert vaf[1] < vaf[4] < vaf[32]
    assert len(table) == 18
    assert table.equals(emg.learning_curve(x, y, [1, 4, 32], key=key, repeats=6))
    with pytest.raises(ValueError, match=r"sizes: 33 of 40 trials, of which 8 are for testing; at most 32"):
        emg.learning_curve(x, y, [33], key=key)


def test_context_by_hand():
    x = np.arange(12.0).reshape(6, 2)
    got = emg.context(x, 1000, reach=0.002, every=0.002)
    np.testing.assert_array_equal(got[3], [2, 3, 6, 7, 10, 11])
    # mirrored ends: bin -2 is bin 1
    np.testing.assert_array_equal(got[0], [2, 3, 0, 1, 4, 5])
    np.testing.assert_array_equal(got[-1], [6, 7, 10, 11, 8, 9])
    np.testing.assert_array_equal(emg.context(x, 1000, reach=0.002, every=0.002, margin=2), got[2:-2])
    batch = emg.context(np.stack([x, x + 100]), 1000, reach=0.002, every=0.002)
    np.testing.assert_array_equal(batch[0], got)


def test_context_components_are_uncorrelated(rng):
    x = emg.smooth(rng.normal(size=(4, 100, 3)), 500, 0.01)
    got = emg.context_pca(x, 500, 5)
    flat = got.reshape(-1, 5)
    covariance = flat.T @ flat / len(flat)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
    assert (np.diff(np.diag(covariance)) < 0).all()


@pytest.fixture(scope="module")
def rat(data):
    with h5py.File(data("emg/rat_locomotion.h5")) as file:
        order = np.argsort(np.concatenate([file["train_inds"], file["valid_inds"]]))
        x = np.concatenate([file["train_data"], file["valid_data"]])[order].astype(float)
        y = np.concatenate([file["train_decode"], file["valid_decode"]])[order].astype(float)
    return x, y


INNER = slice(6, 106)


def test_rat_smoothed(rat):
    x, y = rat
    # the best width, and the movement 12 ms ahead of the muscles
    got = emg.cross_validate_decoder(emg.smooth(x, 500, 0.010), y, 500, lags=np.arange(-0.012, 0.0121, 0.002), margin=6)
    assert got.vaf.shape == (10, 3)
    joint = got.sweep[got.sweep.mean(1).argmax()]
    np.testing.assert_allclose(joint, (0.60, 0.72, 0.58), atol=0.01)
    assert (got.mean >= joint - 1e-12).all()


def test_rat_cutoffs(rat):
    x, y = rat
    cutoffs = (10, 20, 40)
    filtered = dict(zip(cutoffs, emg.lowpass(x, 500, cutoffs)[..., INNER, :], strict=True))
    choice = emg.select_by_decoding(filtered, y, 500)
    known = {10: (0.584, 0.673, 0.539), 20: (0.570, 0.712, 0.575), 40: (0.529, 0.618, 0.453)}
    for cutoff in cutoffs:
        np.testing.assert_allclose(choice.decodings[cutoff].mean, known[cutoff], atol=0.004)
    assert choice.best == 20


def test_rat_context(rat):
    # what context is worth alone; how densely the known figures sampled it is not told
    x, y = rat
    x = emg.smooth(x, 500, 0.002)
    unsupervised = emg.cross_validate_decoder(emg.context_pca(x, 500, 12, margin=6), y, 500)
    np.testing.assert_allclose(unsupervised.mean, (0.64, 0.82, 0.70), atol=0.01)
    supervised = emg.cross_validate_decoder(emg.context(x, 500, every=0.008, margin=6), y, 500)
    np.testing.assert_allclose(supervised.mean, (0.73, 0.90, 0.85), atol=0.01)


def test_refusals(pair):
    x, y = pair
    with pytest.raises(ValueError, match=r"y: 11 trials, but x has 12; pass the same\."):
        emg.cross_validate_decoder(x, y[1:])
    with pytest.raises(ValueError, match=r"y: trial 0 has 59 bins, x 60; they must be as long"):
        emg.cross_validate_decoder(x, y[:, 1:])
    with pytest.raises(ValueError, match=r"n_folds: 13, but there are 12 trials; take fewer\."):
        emg.cross_validate_decoder(x, y, n_folds=13, whole_trials=True)
    with pytest.raises(ValueError, match=r"lags: up to 100 bins, but a trial has 60; take shorter lags\."):
        emg.cross_validate_decoder(x, y, 500, lags=(0, 0.2))
    with pytest.raises(
        ValueError, match=r"y: output b is constant in fold 0, where VAF is undefined; use fewer folds, or key"
    ):
        emg.cross_validate_decoder(
            x, np.where((np.arange(12)[:, None, None] < 2) & (np.arange(2) == 1), 1.0, y), outputs=("a", "b")
        )
    with pytest.raises(ValueError, match=r"x: 1 of 2880 values are NaN or infinite"):
        emg.cross_validate_decoder(np.where(np.arange(2880).reshape(x.shape) == 7, np.nan, x), y)
    with pytest.raises(ValueError, match=r"outputs: 3 names for 2 outputs; match them\."):
        emg.cross_validate_decoder(x, y, outputs="abc")
    with pytest.raises(ValueError, match=r"x: 3 channels, the decoder was fitted to 4; pass the same\."):
        emg.fit_decoder(x, y).predict(x[..., :3])
    with pytest.raises(ValueError, match=r"conditions: 3 labels for 12 trials; pass one a trial\."):
        emg.generalise(x, y, [1, 2, 3])
    with pytest.raises(ValueError, match=r"second: 5 folds against 10; decode both in the same folds\."):
        emg.ttest(emg.cross_validate_decoder(x, y), emg.cross_validate_decoder(x, y, n_folds=5))
    with pytest.raises(ValueError, match=r"candidates: empty; pass at least one"):
        emg.select_by_decoding({}, y)
    with pytest.raises(ValueError, match=r"components: 500, but windows have 164 numbers; take fewer\."):
        emg.context_pca(np.tile(x, (1, 2, 1)), 500, 500)
