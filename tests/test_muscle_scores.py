"""Scores by hand, the sample jackknife, and criteria against linear regressions whose degrees of freedom are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m import muscle
from jaxm2m.muscle.networks import _criteria

SAMPLE = [0.694048, 0.54285, 0.636227, 0.591225, 0.708878, 0.572256, 0.800799, 0.800799, 0.573618, 0.592885]


@pytest.mark.host
def test_scores_by_hand():
    measured = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [2.0, 2.0]])
    predicted = np.array([[6.0, 8.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    got = muscle.scores(measured, predicted, muscles=["FDI", "APB"])
    np.testing.assert_allclose(got.trials.iloc[0], [1, 2, 0.5, 2, 1], rtol=1e-15)
    np.testing.assert_allclose(got.trials.iloc[1], [0.5**0.5, 1, 0.5, 2**0.5, 1], rtol=1e-15)
    assert got.trials.iloc[2:].isna().all(axis=None)  # neither a measured nor a predicted trial of zeros
    assert got.excluded == 2
    np.testing.assert_allclose(got.mean["cosine"], (1 + 0.5**0.5) / 2, rtol=1e-15)
    # <m, p> = 51, <m, m> = 34, <p, p> = 103, |m - p|^2 = 25 + 1 + 1 + 8: all trials count
    expected = [51 / (34 * 103) ** 0.5, 51 / 34, 51 / 103, (103 / 34) ** 0.5, (35 / 34) ** 0.5]
    np.testing.assert_allclose(got.pooled, expected, rtol=1e-15)
    assert list(got.muscles.index) == ["FDI", "APB"]
    np.testing.assert_allclose(got.muscles.loc["APB", "s1"], 32 / 20, rtol=1e-15)
    np.testing.assert_allclose(muscle.cosine(measured, predicted), got.trials["cosine"], rtol=1e-15)
    assert "2 excluded" in repr(got)


@pytest.mark.host
def test_the_ideal_prediction_is_calibrated_and_yet_small():
    rng = np.random.default_rng(0)
    ideal = rng.gamma(2, 1, (20_000, 5))
    got = muscle.scores(ideal * rng.gamma(4, 0.25, ideal.shape), ideal).pooled
    np.testing.assert_allclose(got["s2"], 1, atol=0.01)
    np.testing.assert_allclose(got["s1"], 1 - got["nrmse"] ** 2, atol=0.01)
    assert got["s1"] < 0.9


@pytest.mark.host
def test_a_silent_muscle_has_no_score_and_a_silent_prediction_has_some():
    measured = np.array([[1.0, 0.0], [2.0, 0.0]])
    got = muscle.scores(measured, measured)
    assert got.muscles.loc["2"].isna().all()
    assert got.excluded == 0
    silent = muscle.scores(measured, 0 * measured)
    np.testing.assert_allclose(silent.pooled[["s1", "s3", "nrmse"]], [0, 0, 1])
    assert silent.pooled[["cosine", "s2"]].isna().all()
    assert silent.excluded == 2


@pytest.mark.host
@pytest.mark.parametrize(
    ("problem", "arguments"),
    {
        r"predicted: shape \(3, 2\), but measured has \(2, 2\)": (np.ones((2, 2)), np.ones((3, 2))),
        "measured: all values are zero": (np.zeros((2, 2)), np.ones((2, 2))),
        "predicted: 4 of 4 values are NaN": (np.ones((2, 2)), np.full((2, 2), np.nan)),
        r"measured: shape \(2,\)": (np.ones(2), np.ones(2)),
    }.items(),
)
def test_bad_scores(problem, arguments):
    with pytest.raises(ValueError, match=problem):
        muscle.scores(*arguments)


@pytest.mark.host
def test_vaf_by_hand():
    meps = np.array([[1.0, 4.0], [3.0, 4.0]])
    predicted = np.array([[1.0, 3.0], [2.0, 4.0]])
    # RSS 2 (1 a muscle); sum m^2 42 (10 and 32); about the muscles' means 2; about the mean of all, 3, 6
    for definition, expected in (
        ("uncentred", 1 - 2 / 42),
        ("muscle", 1 - 2 / 2),
        ("grand", 1 - 2 / 6),
        ("minimum", 1 - 1 / 10),
    ):
        np.testing.assert_allclose(muscle.vaf(meps, predicted, definition), expected, atol=1e-15)
    with pytest.raises(ValueError, match="definition: 'centred'; choose one of 'uncentred'"):
        muscle.vaf(meps, predicted, "centred")
    with pytest.raises(ValueError, match="predicted: shape"):
        muscle.vaf(meps, predicted[:1])
    with pytest.raises(ValueError, match="meps: SST is zero, VAF 'minimum' does not exist"):
        muscle.vaf(meps * [1, 0], predicted, "minimum")


@pytest.mark.host
def test_the_sample_jackknife():
    got = muscle.jackknife(SAMPLE)
    np.testing.assert_allclose(got.estimate, 0.6514, atol=5e-5)
    np.testing.assert_allclose([got.low, got.high], [0.602, 0.701], atol=5e-4)
    np.testing.assert_allclose(got.se, np.std(SAMPLE, ddof=1) / 10**0.5, rtol=1e-12)
    assert str(got) == "0.6514 [0.602, 0.7007]"
    student = muscle.jackknife(SAMPLE, student=True)
    np.testing.assert_allclose((student.high - student.estimate) / student.se, 1.8331, atol=1e-4)
    two = muscle.jackknife(np.stack([SAMPLE, np.ones(10)], -1))
    np.testing.assert_allclose(two.estimate, [got.estimate, 1])
    np.testing.assert_allclose(two.se, [got.se, 0], atol=1e-15)


@pytest.mark.host
def test_the_jackknife_removes_the_bias_of_the_plug_in_variance():
    x = np.random.default_rng(1).normal(size=12)
    got = muscle.jackknife(x, lambda folds: folds.var())
    np.testing.assert_allclose(got.estimate, x.var(ddof=1), rtol=1e-12)


@pytest.mark.host
def test_paired_differences_see_what_intervals_of_their_own_hide():
    rng = np.random.default_rng(2)
    hard = rng.normal(0.6, 0.1, 10)
    first, second = hard + 0.02 + rng.normal(0, 0.005, 10), hard
    one, two = muscle.jackknife(first), muscle.jackknife(second)
    assert one.low < two.high
    difference = muscle.paired_difference(first, second)
    assert difference.low > 0
    np.testing.assert_allclose(difference.estimate, (first - second).mean())
    with pytest.raises(ValueError, match=r"second: shape \(9,\), but first has \(10,\)"):
        muscle.paired_difference(first, second[:9])
    with pytest.raises(ValueError, match="at least two folds"):
        muscle.jackknife([0.5])
    with pytest.raises(ValueError, match="folds: 1 of 2 values are NaN"):
        muscle.jackknife([0.5, np.nan])
    with pytest.raises(ValueError, match="confidence: 90"):
        muscle.jackknife(SAMPLE, confidence=90.0)


@pytest.fixture
def regression():
    """Ridge regression of 3 muscles on 6 columns, 40 trials: design, data, fit, degrees of freedom, penalty."""
    rng = np.random.default_rng(3)
    x, penalty = rng.normal(size=(40, 6)), 7.0
    y = x @ rng.normal(size=(6, 3)) + rng.normal(size=(40, 3))
    hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(6), x.T)
    return x, y, lambda v: hat @ v, 3 * np.trace(hat), penalty


@pytest.mark.host
def test_criteria_by_hand(regression):
    _, y, fit, dof, _ = regression
    rss, n = ((y - fit(y)) ** 2).sum(), y.size
    table = muscle.information_criteria(y, fit(y), {"raw": 18, "effective": dof, "network": 1e5})
    np.testing.assert_allclose(table.loc["raw", "aic"], n * np.log(rss / n) + 36, rtol=1e-12)
    np.testing.assert_allclose(table.loc["effective", "bic"], n * np.log(rss / n) + dof * np.log(n), rtol=1e-12)
    assert table.loc["network", "penalty_share"] > 0.99
    with pytest.raises(ValueError, match="perfect fit"):
        muscle.information_criteria(y, y, {"raw": 1})
    with pytest.raises(ValueError, match=r"counts\['raw'\]: -1"):
        muscle.information_criteria(y, fit(y), {"raw": -1})
    with pytest.raises(ValueError, match="predicted: shape"):
        muscle.information_criteria(y, y[:2], {"raw": 1})


@pytest.mark.host
def test_counts():
    params = {"w": np.array([[0.0, 1e-5], [-2.0, 0.5]]), "b": np.ones(3)}
    assert muscle.count_parameters(params) == 7
    assert muscle.count_parameters(params, 1e-4) == 5
    assert muscle.count_parameters(params, 0) == 6


@pytest.mark.host
def test_generalised_dof_are_the_trace_of_a_linear_smoother(regression):
    _, y, fit, dof, _ = regression
    exact, _ = muscle.generalised_dof(fit, y, directions=y.size)
    np.testing.assert_allclose(exact, dof, rtol=1e-9)
    many, error = muscle.generalised_dof(fit, y, directions=4 * y.size, size=0.1)
    np.testing.assert_allclose(many, dof, rtol=1e-9)
    few, error = muscle.generalised_dof(fit, y, directions=40, key=jax.random.key(1))
    assert abs(few - dof) < 3 * error
    # without bias
    mean = np.mean([muscle.generalised_dof(fit, y, directions=10, key=jax.random.key(s))[0] for s in range(200)])
    np.testing.assert_allclose(mean, dof, rtol=0.03)
    assert np.isnan(muscle.generalised_dof(fit, y, directions=1)[1])


@pytest.mark.host
def test_generalised_dof_count_the_choice_of_a_column():
    # the best of 20 columns of noise: one parameter, but it was chosen
    rng = np.random.default_rng(4)
    x, y = np.linalg.qr(rng.normal(size=(60, 20)))[0], rng.normal(size=(60, 1))

    def best(v):
        j = np.abs(x.T @ v).argmax()
        return x[:, [j]] * (x[:, [j]].T @ v)

    found, _ = muscle.generalised_dof(best, y, directions=1200, size=0.7)
    assert found > 2.5


@pytest.mark.host
def test_bad_generalised_dof(regression):
    _, y, fit, _, _ = regression
    with pytest.raises(ValueError, match="size: the fit is perfect"):
        muscle.generalised_dof(lambda v: v, y)
    with pytest.raises(ValueError, match=r"fit: returns shape \(40,\)"):
        muscle.generalised_dof(lambda v: fit(v)[:, 0], y)
    with pytest.raises(ValueError, match=r"fit\(measured\): 120 of 120 values are NaN"):
        muscle.generalised_dof(lambda v: v * np.nan, y)


def test_effective_dof_of_a_ridge_regression(regression, tolerance):
    x, _, _, dof, penalty = regression
    params = {"w": jnp.ones((6, 3))}
    got = muscle.effective_dof(lambda p, row: row @ p["w"], params, x, penalty)
    np.testing.assert_allclose(got, dof, rtol=tolerance(1e-5, 1e-12))
    several = muscle.effective_dof(lambda p, row: row @ p["w"], params, x, [1e-6, penalty, 1e9])
    np.testing.assert_allclose(several, [18, dof, 0], rtol=tolerance(1e-5, 1e-6), atol=1e-5)


def test_effective_dof_in_blocks_and_with_more_parameters_than_values(monkeypatch, tolerance):
    rng = np.random.default_rng(5)
    first, second = jnp.asarray(rng.normal(size=(7, 12))), jnp.asarray(rng.normal(size=(12, 2)))
    x = rng.normal(size=(11, 7))

    def predict(p, row):
        return jnp.tanh(row @ p[0]) @ p[1]

    jacobian = jax.jacobian(lambda p: predict(p, x))((first, second))
    j = np.concatenate([np.asarray(leaf, np.float64).reshape(22, -1) for leaf in jacobian], -1)
    k = j @ j.T
    expected = np.trace(k @ np.linalg.inv(k + 0.3 * np.eye(22)))
    assert j.shape[1] > 22
    whole = muscle.effective_dof(predict, (first, second), x, 0.3)
    np.testing.assert_allclose(whole, expected, rtol=tolerance(1e-5, 1e-12))
    monkeypatch.setattr(_criteria, "_MEMORY", 2 * j.shape[1] * 8 * 2 * 3)  # blocks of a few trials, the last one short
    np.testing.assert_allclose(
        muscle.effective_dof(predict, (first, second), x, 0.3), expected, rtol=tolerance(1e-5, 1e-12)
    )
    x = np.tile(x, (20, 1))  # now p < n
    k = np.tile(k, (1, 1))
    expected = np.sum(20 * np.linalg.eigvalsh(k) / (20 * np.linalg.eigvalsh(k) + 0.3))
    np.testing.assert_allclose(
        muscle.effective_dof(predict, (first, second), x, 0.3), expected, rtol=tolerance(1e-4, 1e-10)
    )


@pytest.mark.host
def test_bad_effective_dof():
    w = jnp.ones((6, 3))
    with pytest.raises(ValueError, match=r"predict: returns shape \(\)"):
        muscle.effective_dof(lambda p, row: (row @ p).sum(), w, np.ones((4, 6)), 1.0)
    with pytest.raises(ValueError, match="inputs: leaves of different lengths"):
        muscle.effective_dof(lambda p, row: row[0] @ p, w, (np.ones((4, 6)), np.ones(3)), 1.0)
    with pytest.raises(ValueError, match="penalty: 0; must be above zero"):
        muscle.effective_dof(lambda p, row: row @ p, w, np.ones((4, 6)), 0)
