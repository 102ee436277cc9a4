"""Inputs, folds, the six variants, the model: known truth, no leakage, files."""

import dataclasses
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxm2m as jm
from jaxm2m.muscle import NetworkConfig, NetworkPreset, TrainingConfig, TrainingOptions
from jaxm2m.muscle.networks import _folds, _inputs, _penalties, _variants

pytestmark = pytest.mark.slow

GRID = jm.efield.Grid.around((-40.0, -20.0, 52.0), shape=(9, 8, 8), spacing=2.0)
SIZES = NetworkConfig(
    shape=(4, 4, 4), filters=(3, 2), pools=1, kernel=1, pool="mean", hidden=(8,)
)  # kernel 1 compiles soon
TINY = NetworkPreset(
    SIZES,
    spacing=4.0,
    autoencoder=TrainingConfig("adagrad", learning_rate=3e-2, batch_size=9, epochs=10),
    mapper=TrainingConfig("adam", learning_rate=1e-2, batch_size=9, epochs=30, patience=2),
)
MUSCLES = ("FDI", "ADM", "APB")


def firing_rate():
    return jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))


def session(count=40, seed=0):
    """Fields of blobs that move, and MEPs that follow the firing rate at three places."""
    rng = np.random.default_rng(seed)
    xyz = GRID.positions()
    centre = xyz.mean(0) + rng.uniform(-6, 6, (count, 3))
    size = 90 * np.exp(-((xyz[None] - centre[:, None]) ** 2).sum(-1) / 2 / 8.0**2)
    e = size[..., None] * np.array([0.6, 0.8, 0.0])
    places = [np.linalg.norm(xyz - (xyz.mean(0) + d), axis=1).argmin() for d in ([-5, 0, 0], [5, 0, 0], [0, 4, 0])]
    mep = 20 + 1000 * np.asarray(firing_rate()(e))[:, places]
    return e.astype(np.float32), mep * np.exp(0.1 * rng.normal(size=mep.shape))


def options(**others):
    """Arguments of `compare` and the like; what `TrainingOptions` has goes into them."""
    names = {f.name for f in dataclasses.fields(TrainingOptions)}
    training = {"chunk_size": 4} | {name: value for name, value in others.items() if name in names}
    return {
        "grid": GRID,
        "rate": firing_rate(),
        "preset": TINY,
        "key": jax.random.key(0),
        "progress": False,
        "options": TrainingOptions(**training),
    } | {name: value for name, value in others.items() if name not in names}


def meps(values):
    blank = np.full(values.shape, "", dtype=str)
    return jm.muscle.Meps(values, np.full(values.shape, np.nan), blank, MUSCLES)


# inputs


def test_reduction_averages_blocks_of_the_middle(tolerance):
    reduce = _inputs.Reduction.of(GRID, (4, 4, 4), 4.0)
    volume = np.random.default_rng(0).normal(size=(2, 9, 8, 8, 1))
    found = reduce(jnp.asarray(volume))
    wanted = volume[:, 0 + 2 : 0 + 4, 4:6, 6:8].mean((1, 2, 3))  # the first of nine planes is kept, the last is not
    np.testing.assert_allclose(found[:, 1, 2, 3], wanted, atol=tolerance(1e-6, 1e-13))
    index = np.array([1, 2, 3, 1.0])
    inside = np.stack(np.meshgrid([2, 3], [4, 5], [6, 7], indexing="ij"), -1).reshape(-1, 3).mean(0)
    np.testing.assert_allclose(
        reduce.centres(GRID.affine) @ index, np.asarray(GRID.affine) @ np.append(inside, 1), atol=1e-9
    )


@pytest.mark.host
def test_grids_that_do_not_fit():
    with pytest.raises(ValueError, match="at least 12 x 12 x 12"):
        _inputs.Reduction.of(GRID, (6, 6, 6), 4.0)
    with pytest.raises(ValueError, match="2 mm apart"):
        _inputs.Reduction.of(GRID, (4, 4, 4), 3.0)
    with pytest.raises(ValueError, match="blocks of 1 mm"):
        _inputs.Reduction.of(GRID, (4, 4, 4), 1.0)


def read(fields, kinds=("field", "rate"), **how):
    reduce = _inputs.Reduction.of(GRID, (4, 4, 4), 4.0)
    return _inputs.read_inputs(fields, GRID, kinds, rate=firing_rate(), reduce=reduce, **how)


def test_rates_are_averaged_not_rates_of_averages(tolerance):
    e, _ = session(3)
    found = read(e)
    reduce = _inputs.Reduction.of(GRID, (4, 4, 4), 4.0)
    size = jnp.linalg.norm(jnp.asarray(e, jnp.result_type(float)), axis=-1).reshape(3, 9, 8, 8, 1)
    np.testing.assert_allclose(found["field"], reduce(size), rtol=tolerance(1e-5, 1e-12))
    scalar = dataclasses.replace(firing_rate(), component="scalar")
    np.testing.assert_allclose(found["rate"], reduce(scalar(size[..., 0])[..., None]), atol=tolerance(1e-5, 1e-12))
    assert np.abs(found["rate"] - scalar(reduce(size)[..., 0])[..., None]).max() > 0.01
    three = read(e, ("field",), components=3)["field"]
    np.testing.assert_allclose(three[..., 0], 0.6 * found["field"][..., 0], rtol=tolerance(1e-4, 1e-6))


def test_a_file_gives_what_memory_gives(tmp_path, monkeypatch):
    e, _ = session(7)
    path = tmp_path / "e.h5"
    with h5py.File(path, "w") as file:
        file["e"], file["affine"] = e.reshape(7, 9, 8, 8, 3), GRID.affine
    whole = read(e)
    monkeypatch.setattr(_inputs, "_BYTES", 3 * 12 * 576)  # three stimuli at a time
    pieces = read(path)
    for kind, values in whole.items():
        np.testing.assert_array_equal(values, pieces[kind])
    assert _inputs.count_stimuli(path) == 7
    with h5py.File(path, "a") as file:
        file["affine"][0, 3] += 5
    with pytest.raises(ValueError, match="another grid"):
        read(path)


def test_the_mask_cuts():
    e, _ = session(3)
    mask = np.zeros((9, 8, 8), bool)
    mask[:4] = True
    cut = read(e, mask=mask)["field"]
    assert (cut[:, 2:] == 0).all()
    np.testing.assert_array_equal(cut[:, :2], read(e)["field"][:, :2])
    with pytest.raises(ValueError, match="mask"):
        read(e, mask=mask[:3])


def test_stimuli_that_are_not_finite_are_named():
    e, _ = session(6)
    e[4, 3] = np.nan
    e[5] = 0
    with pytest.raises(ValueError, match=r"\[4\], \[5\]"):
        read(e)
    with pytest.raises(ValueError, match="n_stimulus, 576, 3"):
        read(e[:, :-1])


# folds


@pytest.mark.host
def test_folds_part_the_trials():
    folds = _folds.draw_folds(43, 5, 0.2, jax.random.key(3))
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(43))
    for fold in folds:
        assert sorted([*fold.train, *fold.validation, *fold.test]) == list(range(43))
        assert len(fold.test) in (8, 9)
        assert len(fold.validation) == 7
        np.testing.assert_array_equal(fold.known, np.setdiff1d(np.arange(43), fold.test))
    with pytest.raises(ValueError, match="n_folds"):
        _folds.draw_folds(10, 6, 0.1, jax.random.key(0))


@pytest.mark.host
def test_options_out_of_range():
    for name, value in {"validation_fraction": 1.5, "candidates": 0, "n_seeds": 0, "rank": 0, "components": 2}.items():
        with pytest.raises(ValueError, match=f"^{name}: "):
            TrainingOptions(**{name: value})


@pytest.mark.host
def test_options_without_use_are_refused():
    e, y = session(20)
    how = options(candidates=2)
    del how["preset"]
    with pytest.raises(ValueError, match="options: select makes no use of candidates; leave it out"):
        jm.muscle.select(e, y, **how)
    with pytest.raises(ValueError, match="options: fit_inverse makes no use of rank; leave it out"):
        jm.muscle.fit_inverse(e, y, **options(rank=2))


@pytest.mark.host
def test_fields_that_leave_nothing_are_told():
    with pytest.raises(ValueError, match="threshold of the firing"):
        _folds.measure_range(np.zeros((3, 2, 2, 2, 1)), np.arange(3))


# variants


@pytest.mark.float32
def test_nothing_of_a_fold_depends_on_its_test_trials():
    """Fields and muscles of the test fold replaced: all that was trained for it stays the same to the bit."""
    e, y = session()
    inputs = read(e)
    folds = _folds.draw_folds(len(y), 4, 0.15, jax.random.key(0))
    heads = ("direct", "synergy", "combined", "two-stage")

    def trained(inputs, y):
        space = jm.population.SearchSpace(learning_rate=jm.population.LogUniform(3e-3, 3e-2))
        choice = TrainingOptions(space=space, candidates=2, chunk_size=4)
        return _variants.train_variants(
            inputs, y, folds, heads, TINY, key=jax.random.key(1), options=choice, progress=False
        )

    rng = np.random.default_rng(1)
    clean = trained(inputs, y)
    test = folds[2].test
    dirty = {kind: x.copy() for kind, x in inputs.items()}
    for x in dirty.values():
        x[test] = 1e6 * rng.uniform(size=x[test].shape)
    other = y.copy()
    other[test] = 1e7 * rng.uniform(size=other[test].shape)
    changed = trained(dirty, other)
    for which, models in clean.items():
        one, two = models[2], changed[which][2]
        assert (one.score, one.hyper) == (two.score, two.hyper)
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.fitted.synergies, two.fitted.synergies)
        # and the other folds do see them
        assert any(
            (np.asarray(a) != np.asarray(b)).any()
            for a, b in zip(jax.tree.leaves(models[0].params), jax.tree.leaves(changed[which][0].params), strict=True)
        )
    # model choice had a choice
    assert len({model.hyper["learning_rate"] for models in clean.values() for model in models}) == 2


@pytest.mark.float32
def test_two_stages_leave_the_first_alone():
    e, y = session(30)
    folds = _folds.draw_folds(30, 2, 0.2, jax.random.key(0))
    made = _variants.train_variants(
        read(e, ("rate",)),
        y,
        folds,
        ("synergy", "two-stage"),
        TINY,
        key=jax.random.key(1),
        options=TrainingOptions(chunk_size=2),
        progress=False,
    )
    for first, second in zip(made["rate", "synergy"], made["rate", "two-stage"], strict=True):
        for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params["first"]), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(second.params["fixed"]["parts"], [[1, 0]])
        one, two = (sum(leaf.size for leaf in trained.size) for trained in (first, second))
        head = second.params["head"]["direct"]["kernel"][0].size - first.fitted.synergies.shape[1] * SIZES.hidden[-1]
        assert two == one + (one + head)
        assert second.score < first.score + 0.01


@pytest.mark.float32
def test_codes_may_be_held():
    """Not tuned: mappers are trained on codes, and the whole gives the same from volumes."""
    e, y = session(30)
    folds = _folds.draw_folds(30, 2, 0.2, jax.random.key(0))
    preset = dataclasses.replace(TINY, tuned=False)
    x = read(e, ("rate",))
    made = _variants.train_variants(
        x, y, folds, ("direct",), preset, key=jax.random.key(1), options=TrainingOptions(chunk_size=2), progress=False
    )["rate", "direct"]
    for model, fold, found in zip(
        made, folds, _variants.predict_trials(made, x["rate"], [f.validation for f in folds]), strict=True
    ):
        target = y[fold.validation] / model.fitted.largest
        entropy = -(target * np.log(found) + (1 - target) * np.log(1 - found)).mean()
        assert entropy == pytest.approx(model.score, rel=1e-3)


@pytest.fixture(scope="module")
def compared(precision):
    e, y = session(60)
    return jm.muscle.compare(e, meps(y), n_folds=3, counts=("parameters", "above"), **options())


@pytest.mark.float32
def test_variants_learn_and_firing_rates_win(compared):
    assert compared.variants[:3] == ("E-field, direct", "E-field, synergy", "E-field, combined")
    measured, found = compared.values()
    assert ((found >= 0) & (found <= 1)).all()
    blind = np.sqrt(((measured - measured.mean(0)) ** 2).mean() / (measured**2).mean())
    table = compared.table.xs(("scaled", "pooled"), level=("unit", "kind"))
    assert table.loc["firing rate, direct", "nrmse"] < 0.7 * blind
    assert set(compared.networks.variant) == set(compared.variants)
    d = compared.difference("E-field, direct", "firing rate, direct")
    row = compared.differences().set_index(["first", "second"]).loc["firing rate, direct", "E-field, direct"]
    assert row.difference == pytest.approx(-float(d.estimate))


@pytest.mark.float32
def test_units_and_tables(compared):
    scaled, found = compared.values()
    uv, in_uv = compared.values("uV")
    own = compared.largest[compared.fold]
    np.testing.assert_allclose(uv, scaled * own)
    np.testing.assert_allclose(in_uv, found * own)
    for f in range(3):
        np.testing.assert_allclose(compared.largest[f], uv[compared.fold != f].max(0))
    name = "firing rate, combined"
    one = jm.muscle.scores(uv, in_uv[compared.variants.index(name)], muscles=MUSCLES)
    np.testing.assert_allclose(compared.scores(name, "uV").pooled, one.pooled)
    row = compared.table.loc[name, "scaled", "trial"]
    assert row.cosine_low < row.cosine < row.cosine_high
    with pytest.raises(ValueError, match="variant"):
        compared.scores("E-field")


@pytest.mark.float32
def test_criteria_penalise_what_was_fitted_to_all_trials(compared):
    table, n = compared.criteria, compared.measured.size
    assert tuple(table.index) == compared.variants
    for k in ("parameters", "above"):
        fit = n * np.log(table["fit_squared_error"])
        np.testing.assert_allclose(table[f"aic, {k}"], fit + 2 * table[k], rtol=1e-6)
        np.testing.assert_allclose(table[f"bic, {k}"], fit + np.log(n) * table[k], rtol=1e-6)
    # heads that are not used cost nothing, and numbers are those of the folds' networks
    assert table.loc["E-field, direct", "parameters"] < table.loc["E-field, combined", "parameters"]
    in_folds = compared.networks.groupby("variant")["parameters"].first()
    assert (table["parameters"] == in_folds[list(table.index)].to_numpy())["E-field, direct"]


@pytest.mark.float32
def test_two_stages_cost_both_networks():
    e, y = session(30)
    x = read(e, ("rate",))["rate"]
    encoders = _penalties.train_on_all(
        {"rate": x}, TINY, TrainingOptions(chunk_size=4), key=jax.random.key(0), progress=False
    )
    how = {"rank": None, "counts": ("parameters", "effective"), "threshold": 1e-3, "directions": 1}
    first, both = (_penalties.penalties(encoders, x, y, "rate", head, **how) for head in ("synergy", "two-stage"))
    # the first stage is the synergy network itself
    assert both["parameters"] > 1.5 * first["parameters"]
    assert both["effective"] > first["effective"] > 0
    error = both["fit_squared_error"]
    assert error <= first["fit_squared_error"] + 1e-6
    assert both["aic, effective"] == pytest.approx(90 * np.log(error) + 2 * both["effective"])


@pytest.mark.float32
def test_a_comparison_is_stored_whole(compared, tmp_path):
    again = jm.muscle.Comparison.load(compared.save(tmp_path / "c.h5"))
    for name in ("measured", "predicted", "largest", "fold", "ranks"):
        np.testing.assert_array_equal(getattr(again, name), getattr(compared, name))
    assert (again.variants, again.muscles) == (compared.variants, compared.muscles)
    assert again.table.equals(compared.table)
    for name in ("networks", "criteria"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(compared, name))
    with h5py.File(tmp_path / "no.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match="holds no comparison"):
        jm.muscle.Comparison.load(tmp_path / "no.h5")


@pytest.mark.float32
def test_a_run_that_is_killed_goes_on(tmp_path):
    e, y = session(20)
    how = options(n_folds=2, inputs=("rate",), pathways=("direct",), directory=tmp_path / "run")
    first = jm.muscle.compare(e, y, **how)
    again = jm.muscle.compare(e, y, **how)  # finished runs are read
    np.testing.assert_array_equal(first.predicted, again.predicted)
    with pytest.raises(ValueError, match="examples"):
        jm.muscle.compare(e, y * 2, **how)


@pytest.mark.host
def test_refusals_come_before_the_work():
    e, y = session(20)
    for how, match in (
        ({"rate": None}, "rate"),
        ({"preset": "large"}, "preset"),
        ({"pathways": ("both",)}, "pathways"),
        ({"inputs": ("current",)}, "inputs"),
        ({"preset": "paper"}, "80 x 80 x 80|blocks of 1 mm"),
        ({"n_folds": 15}, "n_folds"),
    ):
        with pytest.raises(ValueError, match=match):
            jm.muscle.compare(e, y, **options(**how))
    with pytest.raises(ValueError, match="one row for each field"):
        jm.muscle.compare(e[:-1], y, **options())
    with pytest.raises(ValueError, match="never varies"):
        jm.muscle.compare(e, y * [1, 1, 0], **options(n_folds=2))


# the model


@pytest.fixture(scope="module")
def fitted(precision):
    e, y = session(60)
    return e, y, jm.muscle.fit(e, meps(y), variant="combined", **options())


@pytest.mark.float32
def test_a_model_is_a_function_of_the_field(fitted, tolerance):
    e, y, model = fitted
    found = model(e[:4])
    np.testing.assert_allclose(found, model(e[:4].reshape(4, 9, 8, 8, 3)), rtol=tolerance(1e-5, 1e-12))
    np.testing.assert_allclose(found[1], model(e[1]), rtol=tolerance(1e-4, 1e-10))
    np.testing.assert_allclose(found, model.predict_scaled(e[:4]) * y.max(0), rtol=tolerance(1e-4, 1e-6))
    all_of_them = np.asarray(model.predict_scaled(e)) * y.max(0)
    assert np.corrcoef(all_of_them[:, 0], y[:, 0])[0, 1] > 0.8
    np.testing.assert_allclose(model.synergies.sum(0), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="on its grid"):
        model(e[:, :-1])


@pytest.mark.float64
def test_gradient_of_a_muscle_is_that_of_central_differences(fitted):
    e, _, model = fitted
    objective = jm.muscle.activate(model, "FDI", avoid=("ADM", "APB"), weight=0.5)
    point = jnp.asarray(e[3], jnp.float64)
    direction = jax.random.normal(jax.random.key(0), point.shape)
    slope = float((jax.grad(objective)(point) * direction).sum())
    h = 1e-4
    wanted = float(objective(point + h * direction) - objective(point - h * direction)) / (2 * h)
    assert slope == pytest.approx(wanted, rel=1e-5)
    p = np.asarray(model.predict_scaled(point))
    share = p[0] / (p[0] + 0.5 * (p[1] + p[2]) / 2)
    lack = max(0.6 - p[0] / float(model.strongest[0]), 0)
    assert float(objective(point)) == pytest.approx(share - 10 * lack**2, rel=1e-9)
    assert np.isfinite(jax.grad(objective)(jnp.zeros_like(point))).all()
    np.testing.assert_allclose(jm.muscle.activate(model, ("FDI", "ADM"))(point), p[:2].mean(), rtol=1e-9)


@pytest.mark.float64
def test_what_should_answer_may_not_fall_silent(fitted):
    e, _, model = fitted
    strong = jnp.asarray(e[int(np.asarray(model.predict_scaled(e))[:, 0].argmax())], jnp.float64)
    np.testing.assert_allclose(model.predict_scaled(strong)[0], model.strongest[0], rtol=1e-5)
    for weak in (0.3 * strong, 0 * strong):
        p, both = np.asarray(model.predict_scaled(weak)), jm.muscle.activate(model, "FDI", "ADM", least=0)
        assert float(both(weak)) == pytest.approx(p[0] / (p[0] + p[1]), rel=1e-9)
        lack = 1 - p[0] / float(model.strongest[0])
        found = float(jm.muscle.activate(model, "FDI", "ADM", least=1)(weak))
        assert found == pytest.approx(float(both(weak)) - 10 * lack**2, rel=1e-9)


@pytest.mark.float32
def test_models_are_arguments_of_compiled_functions(fitted):
    e, _, model = fitted
    traces = []

    @jax.jit
    def call(model, e):
        traces.append(1)
        return model(e)

    call(model, e[0])
    call(jax.tree.map(lambda a: a * 1.01, model), e[1])
    assert len(traces) == 1


@pytest.mark.float32
def test_models_are_stored_and_loaded(fitted, tmp_path):
    e, _, model = fitted
    again = jm.muscle.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(again(e[:3]), model(e[:3]))
    np.testing.assert_array_equal(again.strongest, model.strongest)
    assert (again.muscles, again.variant) == (MUSCLES, "combined")
    with pytest.raises(FileExistsError, match="another name"):
        model.save(tmp_path / "model")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    text = (tmp_path / "model" / "model.json").read_text()
    (tmp_path / "model" / "model.json").write_text(text.replace("jaxm2m muscle model", "else"))
    with pytest.raises(ValueError, match="not a model of this version"):
        jm.muscle.load(tmp_path / "model")
    with pytest.raises(ValueError, match="it holds a else, and a jaxm2m inverse muscle model was asked for"):
        jm.muscle.InverseModel.load(tmp_path / "model")


@pytest.mark.float32
def test_models_of_version_0_1_are_loaded(fitted, tmp_path):
    e, _, model = fitted
    place = model.save(tmp_path / "model") / "model.json"
    text = json.loads(place.read_text())
    text["mapper"]["sizes"] = text["mapper"].pop("config")
    text["mapper"]["fall"] = text["mapper"].pop("lr_decay")
    place.write_text(json.dumps(text))
    np.testing.assert_array_equal(jm.muscle.load(tmp_path / "model")(e[:3]), model(e[:3]))


@pytest.mark.float32
def test_comparisons_of_version_0_1_are_loaded(compared, tmp_path):
    old = compared.criteria.rename(columns={"fit_squared_error": "squared error of the fit"})
    path = dataclasses.replace(compared, criteria=old).save(tmp_path / "c.h5")
    pd.testing.assert_frame_equal(jm.muscle.Comparison.load(path).criteria, compared.criteria)


@pytest.mark.float32
def test_a_curve_of_ones_own_cannot_be_stored(fitted, tmp_path):
    _, _, model = fitted
    rate = dataclasses.replace(firing_rate(), curve=jax.tree_util.Partial(jnp.tanh))
    with pytest.raises(TypeError, match="cannot be stored"):
        dataclasses.replace(model, rate=rate).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.float32
def test_field_models_need_no_rate(tmp_path):
    e, y = session(20)
    mask = np.ones((9, 8, 8), bool)
    mask[0] = False
    model = jm.muscle.fit(e, y, variant="direct", **options(rate=None, components=3, mask=mask))
    again = jm.muscle.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(again(e[:2]), model(e[:2]))
    assert model.muscles == ("1", "2", "3")
    assert model.synergies.shape == (3, 0)


@pytest.mark.float32
def test_objectives_that_cannot_be(fitted):
    _, _, model = fitted
    cases = [("BRD", (), "muscle"), ("FDI", "BRD", "avoid"), ("FDI", ("FDI",), "FDI"), ((), (), "no muscle")]
    for muscle, avoid, match in cases:
        with pytest.raises(ValueError, match=match):
            jm.muscle.activate(model, muscle, avoid)
    with pytest.raises(ValueError, match=r"least: 1\.5"):
        jm.muscle.activate(model, "FDI", "ADM", least=1.5)


# model selection


@pytest.mark.float32
def test_families_are_compared_in_one_table():
    e, y = session(40)
    names = ("narrow mapper",)
    chosen = {name: jm.muscle.make_architectures(TINY)[name] for name in names} | {"base": TINY}
    how = {name: value for name, value in options().items() if name != "preset"}
    found = jm.muscle.select(e, y, architectures=chosen, n_folds=2, directions=1, **how)
    table = found.table
    assert list(table.index) == [*names, "base"]
    for k in ("parameters", "above", "generalised", "effective"):
        assert (table[f"bic, {k}"] - table[f"aic, {k}"] - (np.log(y.size) - 2) * table[k]).abs().max() < 1e-6
    assert table.loc["narrow mapper", "parameters"] < table.loc["base", "parameters"]
    assert (table["above"] <= table["parameters"]).all()
    assert (table["effective"] < np.minimum(table["parameters"], y.size)).all()
    assert found.recommended in table.index
    assert ((table.nrmse_low < table.nrmse) & (table.nrmse < table.nrmse_high)).all()
    assert found.predicted["base"].shape == y.shape


@pytest.mark.host
def test_the_family_has_distinct_members():
    family = jm.muscle.make_architectures()
    assert len(family) >= 8
    assert len({preset.config for preset in family.values()}) == len(family)


# the way back


@pytest.mark.float32
def test_fields_are_found_from_muscles(tmp_path):
    e, y = session(80)
    how = options(preset=dataclasses.replace(TINY, config=dataclasses.replace(SIZES, filters=(6, 4), pools=0)))
    training = TrainingConfig("adam", learning_rate=1e-2, batch_size=24, epochs=200)
    model = jm.muscle.fit_inverse(e, meps(y), training=training, latent=4, beta=0.1, **how)
    reduce = _inputs.Reduction.of(GRID, (4, 4, 4), 4.0)
    x = _inputs.read_inputs(e, GRID, ("rate",), rate=firing_rate(), reduce=reduce)["rate"]
    found = np.asarray(model(y))
    assert found.shape == x.shape
    assert ((found - x) ** 2).mean() < 0.5 * ((x - x.mean(0)) ** 2).mean()
    one, two = (np.asarray(model(y[0], key=jax.random.key(k))) for k in (0, 1))
    assert (one != two).any()
    np.testing.assert_allclose(model(y[3]), found[3], atol=1e-4)
    assert np.isfinite(jax.grad(lambda m: model(m).sum())(jnp.asarray(y[0]))).all()
    with pytest.raises(ValueError, match="3 muscles"):
        model(y[:, :2])
    again = jm.muscle.InverseModel.load(model.save(tmp_path / "back"))
    np.testing.assert_array_equal(again(y[:3]), model(y[:3]))
    assert (again.muscles, again.kind, again.score) == (model.muscles, model.kind, model.score)
    with pytest.raises(ValueError, match="jaxm2m muscle model was asked for"):
        jm.muscle.load(tmp_path / "back")
