"""`emg.fit` from end to end on small made data: presets, directories, activation of data it never saw."""

import inspect
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxm2m import emg, files, population
from jaxm2m.emg import Activation, LFADSConfig
from jaxm2m.population import _chunking, _train

CONFIG = LFADSConfig(
    3, generator=8, controller=6, ci_encoder=5, ic_encoder=6, ic_dim=3, co_dim=1, fac_dim=3, observation=emg.Gamma()
)
KEY = jax.random.key(0)
NAMES = ("FDI", "ADM", "APB")


def made(trials=12, time=70, seed=0, channels=NAMES, sfreq=500.0):
    """Bursts of one oscillation, gamma distributed, in trials."""
    random = np.random.default_rng(seed)
    phase = random.uniform(0, 2 * np.pi, (trials, 1, 1)) + np.arange(time)[:, None] / 8
    mean = 0.2 + np.cos(phase - np.arange(len(channels))).clip(0)
    data = random.gamma(2.0, mean / 2)
    return emg.preprocess(data, sfreq, channels=channels, rectified=True, screen=None, clip=None, to=sfreq)


def fitted(data, directory=None, **changes):
    arguments = {
        "key": KEY,
        "config": CONFIG,
        "preset": "single",
        "batch_size": 8,
        "length": 0.06,
        "overlap": 0.02,
        "population": 2,
    }
    arguments |= {"schedule": population.Independent(epochs=4, generations=5), "directory": directory} | changes
    return emg.fit(data, **arguments)


@pytest.fixture(scope="module", autouse=True)
def unmeasured():
    """One member after the other, without measuring what is fastest, which would compile more programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_train, "plan_chunks", lambda *_: _chunking.Plan(1, {}, {}))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, precision):
    folder = tmp_path_factory.mktemp("fit") / "run"
    data = made()
    return SimpleNamespace(folder=folder, data=data, fit=fitted(data, folder))


@pytest.mark.float32
def test_training_lowers_the_validation_score(trained):
    scores = trained.fit.run.scores()
    assert np.isfinite(scores).all()
    assert (scores[-1] < scores[0]).all()
    assert trained.fit.run.score == scores.min()
    assert trained.fit.trainable.shift == 3.0  # bins: 6 ms at 500 Hz
    assert {"nll", "l2", "divergence_ic", "divergence_co"} <= set(trained.fit.run.history)


@pytest.mark.float32
def test_a_run_is_loaded_and_gives_the_same_activation(trained):
    again = emg.load(trained.folder)
    assert again.channels == NAMES
    assert again.trainable == trained.fit.trainable
    one, other = (fit.activation(trained.data, key=KEY, samples=3) for fit in (trained.fit, again))
    np.testing.assert_array_equal(one.samples, other.samples)


def as_version_0_1(folder):
    """Rewrite `run.json` as version 0.1 wrote it: sizes under other names, the observation as its `repr`."""
    record = json.loads((folder / "run.json").read_text())
    model = record["config"]["model"]
    sizes = model.pop("config") | {"observation": repr(CONFIG.observation)}
    for new, old in {"ic_dim": "initial", "co_dim": "inputs", "fac_dim": "factors"}.items():
        sizes[old] = sizes.pop(new)
    offset = " ".join(repr(x) for x in model["offset"])
    old_model = {"model": "sequential VAE"} | sizes
    old_model |= {name: model[name] for name in ("margin", "shift", "ramp", "decay", "compared")}
    old_model |= {"offset": offset, "trained": ""}
    record["config"]["model"] = old_model
    kept = {name: entry for name, entry in record["settings"].items() if not name.startswith("model")}
    words = {name if name == "model" else f"model {name}": files.make_setting(str(v)) for name, v in old_model.items()}
    record["settings"] = words | kept
    (folder / "run.json").write_text(json.dumps(record))


@pytest.mark.float32
def test_a_run_of_version_0_1_is_loaded_and_continued(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    as_version_0_1(folder)
    loaded = emg.load(folder)
    assert loaded.trainable == trained.fit.trainable
    jax.tree.map(np.testing.assert_array_equal, loaded.params, trained.fit.params)
    again = fitted(trained.data, folder)
    assert again.trainable == trained.fit.trainable
    jax.tree.map(np.testing.assert_array_equal, again.params, trained.fit.params)
    with pytest.raises(ValueError, match="begun with another model initial"):
        fitted(trained.data, folder, config=replace(CONFIG, ic_dim=4))


@pytest.mark.float32
def test_settings_are_plain_values(trained):
    model = population.read_config(trained.folder)["model"]
    assert model["config"]["observation"] == {"name": "Gamma", "floor": 1e-4}
    assert model["config"]["ic_dim"] == 3
    assert model["offset"] == list(trained.fit.trainable.offset)


@pytest.mark.float32
def test_the_same_call_finds_its_run(trained):
    again = fitted(trained.data, trained.folder)
    np.testing.assert_array_equal(again.run.scores(), trained.fit.run.scores())
    with pytest.raises(ValueError, match="begun with another"):
        fitted(made(seed=1), trained.folder)


@pytest.mark.float32
def test_activation_of_new_data(trained, tmp_path):
    new = made(trials=3, time=101, seed=5)
    found = trained.fit.activation(new, key=KEY, samples=4)
    assert found.samples.shape == new.samples.shape
    assert found.factors.shape == (len(new.samples), 3)
    assert found.inputs.shape == (len(new.samples), 1)
    assert (found.samples > 0).all()
    np.testing.assert_array_equal(found.trials, new.trials)
    back = Activation.load(found.save(tmp_path / "activation.h5"))
    np.testing.assert_array_equal(back.samples, found.samples)
    assert back.channels == NAMES
    # more samples come nearer to their mean
    means = [trained.fit.activation(new, key=jax.random.key(k), samples=40).samples for k in (1, 2)]
    few = [trained.fit.activation(new, key=jax.random.key(k), samples=1).samples for k in (1, 2)]
    assert np.abs(means[0] - means[1]).mean() < 0.4 * np.abs(few[0] - few[1]).mean()
    certain = trained.fit.activation(new, key=KEY, samples=0)
    assert np.corrcoef(certain.samples.ravel(), means[0].ravel())[0, 1] > 0.9


@pytest.mark.float32
def test_trials_with_margins(trained):
    data = made(trials=4, time=42, seed=3)  # one window of 30 bins between margins of 6
    found = trained.fit.activation(data, key=KEY, samples=2, padded=True)
    assert found.samples.shape == (4 * 30, 3)
    # margins are data as well: nothing but the rest of the same estimate is left out
    whole = trained.fit.activation(data, key=KEY, samples=2).by_trial()
    np.testing.assert_array_equal(found.samples, np.concatenate([trial[6:-6] for trial in whole]))


@pytest.mark.float32
def test_seeds_are_members(trained):
    a, b = (trained.fit.activation(trained.data, key=KEY, samples=0, member=m).samples for m in (0, 1))
    assert np.abs(a - b).max() > 1e-3
    with pytest.raises(ValueError, match="member: 2; the population has members 0 to 1"):
        trained.fit.activation(trained.data, key=KEY, member=2)


@pytest.mark.host
@pytest.mark.host
def test_the_published_schedule_says_beforehand_what_it_takes(monkeypatch):
    assert inspect.signature(emg.fit).parameters["preset"].default == "single"

    def stop(*_, **__):
        raise ValueError("training begins")

    monkeypatch.setattr(population, "train", stop)
    words = r'preset: "paper" trains 20 members for up to 100 generations, .* h on two cores .*"single" takes minutes'
    with pytest.warns(UserWarning, match=words), pytest.raises(ValueError, match="training begins"):
        fitted(made(), preset="paper", population=None, schedule=None)


def test_presets_hold_the_published_schedule():
    paper = emg.PRESETS["paper"]
    schedule = paper.make_schedule(epoch=2)
    assert isinstance(schedule, population.PBT)
    assert (paper.members, paper.batch_size, schedule.epochs, schedule.patience) == (20, 400, 30, 10)
    assert schedule.tolerance == 5e-4
    drawn = paper.space.draw(KEY, 20)
    assert (drawn["coordinated_dropout"] == 0.5).all()
    assert drawn["learning_rate"].min() >= 1e-3
    # a small set has few steps an epoch, the single model as many steps as ever
    single = emg.PRESETS["single"].make_schedule(epoch=3)
    assert 1000 <= single.epochs * single.generations * 3 <= 1200


@pytest.mark.float32
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"preset": "best"}, "preset: 'best'; choose one of"),
        ({"config": LFADSConfig(4)}, "config: for 4 channels, emg has 3"),
        ({"shift": 0.0}, "shift: 0"),
        ({"length": 0.3}, "trial 0 has 70 bins, a window 150"),
        ({"valid": made(channels=("A", "B", "C"))}, "valid: channels A, B, C, the model was trained on FDI, ADM, APB"),
    ],
)
def test_bad_input(change, match):
    with pytest.raises(ValueError, match=match):
        fitted(made(), **change)


@pytest.mark.float32
def test_data_that_a_model_cannot_take(trained):
    with pytest.raises(ValueError, match="emg: channels X, ADM, APB, the model was trained on FDI"):
        trained.fit.activation(made(channels=("X", "ADM", "APB")), key=KEY)
    with pytest.raises(TypeError, match=r"emg: ndarray; pass what emg\.preprocess"):
        trained.fit.activation(np.ones((100, 3)), key=KEY)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        emg.load(trained.folder.parent)


@pytest.fixture(scope="module")
def transferred(trained, tmp_path_factory):
    """The same oscillation in other muscles, one of which the source knows."""
    folder = tmp_path_factory.mktemp("transfer") / "run"
    data = made(seed=9, channels=("ADM", "BR", "EDC", "FCR"))
    fit = fitted(data, folder, config=None, source=trained.fit, schedule=population.Independent(8, 5))
    return SimpleNamespace(folder=folder, data=data, fit=fit)


@pytest.mark.float32
@pytest.mark.slow
def test_a_transfer_keeps_the_dynamics_and_fits_the_rest(trained, transferred):
    scores = transferred.fit.run.scores()
    assert (scores[-1] < scores[0]).all()
    before, after = trained.fit.params, transferred.fit.run.members.params
    for name in before.keys() - {"readout", "offset"}:
        for a, b in zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True):
            np.testing.assert_array_equal(a, b[0], err_msg=name)
            np.testing.assert_array_equal(a, b[1], err_msg=name)
    assert after["readin"].shape == (2, 4, 3)
    assert (np.abs(after["readin"][0] - after["readin"][1]) > 0).all()


@pytest.mark.slow
@pytest.mark.float32
def test_a_transferred_run_is_loaded_and_transferred_again(transferred):
    again = emg.load(transferred.folder)
    assert again.trainable == transferred.fit.trainable
    one, other = (f.activation(transferred.data, key=KEY, samples=2).samples for f in (transferred.fit, again))
    np.testing.assert_array_equal(one, other)
    # no step: muscles of the same name are as the source has them
    still = fitted(
        transferred.data,
        config=None,
        source=again,
        space=population.SearchSpace(**emg.PRESETS["single"].space.fixed | {"learning_rate": 1e-30}),
    )
    np.testing.assert_allclose(still.params["readin"], again.params["readin"], rtol=1e-6)
    np.testing.assert_allclose(still.activation(transferred.data, key=KEY, samples=2).samples, one, rtol=1e-4)


@pytest.mark.float32
def test_a_source_that_does_not_fit(trained):
    with pytest.raises(ValueError, match="source: trained at 500 Hz, emg has 1000 Hz"):
        fitted(made(sfreq=1000.0), config=None, source=trained.fit, length=0.12, overlap=0.04)
    with pytest.raises(ValueError, match="config: given together with a source"):
        fitted(made(), source=trained.fit)
