"""Sources as variants of a comparison: nothing of a held-out MEP reaches its prediction, one table, one figure."""

import warnings

import h5py
import jax
import numpy as np
import pytest
from scipy.optimize import nnls

import jaxm2m as jm
from jaxm2m.muscle import NetworkConfig, NetworkPreset, TrainingConfig, TrainingOptions, _compare_sources
from jaxm2m.muscle.networks._folds import draw_folds, fit_scaling
from jaxm2m.muscle.sources import _cross_validate
from jaxm2m.muscle.sources._density import DensityPrior, make_bumps, pad_bumps, weigh_bumps
from jaxm2m.muscle.sources._posterior import draw_posterior, find_mode

pytestmark = pytest.mark.float32

GRID = jm.efield.Grid.around((-40.0, -20.0, 52.0), shape=(8, 8, 8), spacing=3.0)
COUNT, N_FOLDS = 60, 2
MUSCLES = ("FDI", "ADM", "APB")


def firing_rate():
    return jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))


def session(seed=0):
    """Blobs that move, and MEPs that follow the firing rate at three places."""
    rng = np.random.default_rng(seed)
    xyz = GRID.positions()
    shift = rng.uniform(-9, 9, (COUNT, 3))
    size = 110 * np.exp(-((xyz[None] - (xyz.mean(0) + shift)[:, None]) ** 2).sum(-1) / 2 / 9.0**2)
    e = (size[..., None] * np.array([0.6, 0.8, 0.0])).astype(np.float32)
    places = [np.linalg.norm(xyz - (xyz.mean(0) + d), axis=1).argmin() for d in ([-6, 0, 0], [6, 0, 0], [0, 6, 0])]
    rate = np.asarray(firing_rate()(e))[:, places]
    return e, 10 ** (1.2 + 2 * rate) * np.exp(0.1 * rng.normal(size=(COUNT, 3)))


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """A short fit: what is tested does not depend on its length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cross_validate, "_N_DRAW", 4)
        patch.setattr(_cross_validate, "find_mode", lambda data: find_mode(data, steps=60))
        patch.setattr(_cross_validate, "draw_posterior", lambda *a: draw_posterior(*a, n_warmup=10, thinning=1))
        yield


def compare(e, meps, **others):
    usual = {
        "grid": GRID, "rate": firing_rate(), "muscles": MUSCLES, "n_folds": N_FOLDS, "key": jax.random.key(0),
        "grey": np.ones(GRID.shape, bool), "progress": False, "inputs": ("rate",), "pathways": ("sources",),
    }  # fmt: skip
    return jm.muscle.compare(e, meps, **(usual | others))


BOTH = {"pathways": ("sources", "synergy-sources"), "options": TrainingOptions(rank=2)}


@pytest.fixture(scope="module")
def compared(precision):
    return compare(*session(), **BOTH)


def test_held_out_meps_do_not_reach_their_predictions(compared):
    """Neither through sources nor through synergies; those of the training do."""
    e, meps = session()
    one = compared
    held = one.fold == 1
    changed = meps.copy()
    changed[held] = np.random.default_rng(1).uniform(1, 20_000, (held.sum(), 3))
    two = compare(e, changed, **BOTH)
    np.testing.assert_array_equal(one.predicted[:, held], two.predicted[:, held])
    np.testing.assert_array_equal(one.largest[1], two.largest[1])
    assert (np.abs(one.predicted - two.predicted)[:, ~held].max((1, 2)) > 0.05).all()
    assert one.variants == ("firing rate, sources", "firing rate, synergy-sources")
    assert list(one.ranks) == [2, 2]


@pytest.mark.slow
def test_predictions_are_those_of_a_fit_to_the_training_trials(monkeypatch):
    """By `fit_sources` with the held-out MEPs left out; other draws of the same posterior, hence not to the digit."""
    for name, full in (("_N_DRAW", 64), ("find_mode", find_mode), ("draw_posterior", draw_posterior)):
        monkeypatch.setattr(_cross_validate, name, full)
    e, meps = session()
    result = compare(e, meps, inputs=("rate", "field"))
    assert result.variants == ("firing rate, sources", "E-field, sources")
    blank = np.where((result.fold == 0)[:, None], np.nan, meps)
    sources = jm.muscle.fit_sources(
        e, blank, grid=GRID, rate=firing_rate(), grey=np.ones(GRID.shape, bool), key=jax.random.key(0)
    )
    rows = result.fold == 0
    expected = np.asarray(sources(e[rows])) / result.largest[0]
    spread = np.asarray(sources.predict_members(e[rows])).std(1) * np.asarray(sources.largest) / result.largest[0]
    # means of 64 draws each, which follow each other
    assert np.sqrt((((result.predicted[0][rows] - expected) / spread) ** 2).mean()) < 0.5
    pooled = result.table.xs(("scaled", "pooled"), level=("unit", "kind"))
    assert pooled.nrmse["firing rate, sources"] < 0.5
    table = result.networks
    assert (len(table), set(table.reach)) == (2 * N_FOLDS, set(table.reach) & {9.0, 14.0})
    assert table["held-out score"].isna().all()


def test_the_comparison_is_kept_and_drawn(compared, tmp_path):
    result = compared
    again = jm.muscle.Comparison.load(result.save(tmp_path / "c.h5"))
    np.testing.assert_array_equal(again.predicted, result.predicted)
    assert again.networks["held-out score"].isna().all()
    assert len(jm.plot.comparison(result).axes) > 4
    assert len(result.differences()) == 1


def test_grey_matter_comes_from_the_mask_the_file_or_a_guess_that_is_told(tmp_path, monkeypatch):
    e, meps = session()
    seen = []

    def record(responses, points, middle, targets, **others):
        seen.append(len(points))
        return [_cross_validate.FoldPrediction(np.zeros(t.shape), DensityPrior(), 1) for t in targets]

    monkeypatch.setattr(_compare_sources, "predict_folds", record)
    with pytest.warns(UserWarning, match="grey: none was passed"):
        compare(e, meps, grey=None)
    half = np.zeros(GRID.shape, bool)
    half[:4] = True
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["e"], file["affine"] = e.reshape(COUNT, *GRID.shape, 3), GRID.affine
        file["tissue"], file.attrs["tissues"] = half.astype(np.int8), '["white", "grey"]'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(tmp_path / "e.h5", meps, grey=None)
        compare(e, meps, grey=None, options=TrainingOptions(mask=half))
        compare(e, meps, options=TrainingOptions(mask=half))
    assert seen == [512, 256, 256, 512]


def test_activations_lead_back_to_the_meps_that_they_explain():
    """NaN where held out, uV of the muscle that a synergy uses most, at least the floor."""
    _, meps = session()
    folds = draw_folds(COUNT, 3, 0.1, jax.random.key(0))
    fitted = [fit_scaling(meps, fold.known, rank, True) for fold, rank in zip(folds, (3, 2, 3), strict=True)]
    targets, back = _compare_sources._compute_activations(meps, folds, fitted)
    for fold, one, target, matrix in zip(folds, fitted, targets, back, strict=True):
        assert target.shape == (COUNT, 3)  # one shape in all folds
        assert np.isnan(target[fold.test]).all()
        rank = one.synergies.shape[1]
        assert np.isnan(target[:, rank:]).all()
        part = target[fold.known, :rank]
        assert part.min() >= 10
        expected = np.array([nnls(one.synergies, row)[0] for row in meps[fold.known] / one.largest]) @ one.synergies.T
        np.testing.assert_allclose(part @ matrix[:rank], expected, atol=0.03)
        # a synergy of one muscle alone would have that muscle's MEPs
        assert 0.3 < part.max() / one.largest.mean() < 3


def test_padded_bumps_weigh_nothing():
    points = np.random.default_rng(0).uniform(-15, 15, (400, 3))
    bumps = make_bumps(points, np.zeros(3), DensityPrior())
    padded = pad_bumps(bumps, len(bumps.kernel) + 7)
    z = jax.random.normal(jax.random.key(1), (len(padded.kernel),))
    weights = weigh_bumps(z, padded.log_mean, padded.factor)
    alone = weigh_bumps(z[:-7], bumps.log_mean, bumps.factor)
    np.testing.assert_allclose(weights[:-7], alone, rtol=1e-5)
    assert (np.asarray(weights[-7:]) == 0).all()


@pytest.mark.slow
def test_beside_networks_and_counts_that_sources_do_not_have():
    e, meps = session()
    tiny = NetworkPreset(
        NetworkConfig(shape=(4, 4, 4), filters=(3, 2), pools=1, kernel=1, pool="mean", hidden=(8,)),
        spacing=6.0,
        autoencoder=TrainingConfig("adagrad", learning_rate=3e-2, batch_size=9, epochs=10),
        mapper=TrainingConfig("adam", learning_rate=1e-2, batch_size=9, epochs=30, patience=2),
    )
    how = {"preset": tiny, "options": TrainingOptions(chunk_size=4), "counts": ("parameters",)}
    with pytest.warns(UserWarning, match="counts: AIC and BIC are of networks"):
        both = compare(e, meps, pathways=("sources", "direct"), **how)
    assert both.variants == ("firing rate, sources", "firing rate, direct")
    assert list(both.criteria.index) == ["firing rate, direct"]
    alone = compare(e, meps)
    np.testing.assert_array_equal(alone.predicted[0], both.predicted[0])  # the same folds, the same draws


@pytest.mark.host
def test_bad_input_is_named():
    e, meps = session()
    with pytest.raises(ValueError, match=r"counts: AIC and BIC are of networks.*leave it out"):
        compare(e, meps, counts=("parameters",))
    with pytest.raises(ValueError, match="pathways: 'source'"):
        compare(e, meps, pathways=("source",))
    with pytest.raises(ValueError, match="grey: "):
        compare(e, meps, grey=np.ones((3, 3, 3), bool))
