"""`jaxm2m emg`: the line from a recording to a comparison, and what it says about bad input."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.population import _chunking, _train

pytestmark = pytest.mark.host

NAMES = ("FDI", "ADM", "APB")


def call(*words):
    return CliRunner().invoke(cli.app, ["emg", *map(str, words)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve trials of raw EMG whose size follows an oscillation, and the oscillation at 500 Hz."""
    folder = tmp_path_factory.mktemp("emg")
    random = np.random.default_rng(0)
    time = np.arange(700) / 1000
    drive = 0.2 + np.cos(2 * np.pi * 4 * time[:, None] - np.arange(3) + random.uniform(0, 6, (12, 1, 1))).clip(0)
    samples = (drive * random.normal(size=(12, 700, 3))).reshape(-1, 3)
    trials = np.stack([np.arange(12) * 700, np.arange(1, 13) * 700], -1)
    jm.session.Recording(samples, 1000.0, NAMES, trials[:1] * 0 + [[0, len(samples)]], trials, "mV").save(
        folder / "raw.h5"
    )
    pd.DataFrame(drive[:, ::2].reshape(-1, 3)[:, :2], columns=["hip", "knee"]).to_csv(
        folder / "joints.csv", index=False
    )
    pd.DataFrame({"hip": [1.0, 2.0]}).to_csv(folder / "short.csv", index=False)
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A few steps of the single model, one member after the other."""
    with pytest.MonkeyPatch.context() as patch:
        few = replace(jm.emg.PRESETS["single"], batch_size=8, generation=4, generations=2)
        patch.setitem(jm.emg.PRESETS, "single", few)
        patch.setattr(_train, "plan_chunks", lambda *_: _chunking.Plan(1, {}, {}))
        yield


@pytest.fixture(scope="module")
def made(folder):
    """What the first three commands made and said."""
    said = [
        call("preprocess", folder / "raw.h5", "--out", folder / "emg.h5", "--keep-flagged", "--line", 0),
        call("fit", folder / "emg.h5", "--out", folder / "run", "--preset", "single", "--population", 2),
        call("activation", folder / "emg.h5", "--run", folder / "run", "--out", folder / "a.h5", "--samples", 2),
    ]
    assert [one.exit_code for one in said] == [0, 0, 0], [one.output for one in said]
    return said


def test_preprocess_tells_its_methods(folder, made):
    assert "zero-phase Butterworth high-pass" in made[0].output
    assert "FDI" in made[0].output
    emg = jm.emg.Rectified.load(folder / "emg.h5")
    assert emg.sfreq == 500
    assert emg.channels == NAMES
    assert len(emg.trials) == 12


def test_fit_leaves_a_run_with_table_and_figures(folder, made):
    assert {"run.json", "history.csv", "history.jsonl", "lineage.png", "checkpoints"} <= {
        file.name for file in (folder / "run").iterdir()
    }
    assert len(pd.read_csv(folder / "run" / "history.csv")) == 4
    rate = float(jm.emg.PRESETS["single"].space.fixed["learning_rate"])
    assert f"learning_rate {rate:.4g}" in made[1].output
    again = call("fit", folder / "emg.h5", "--out", folder / "run", "--preset", "single", "--population", 2)
    assert again.exit_code == 0
    assert "holds a run; going on with it" in again.output
    words = ("--preset", "single", "--population", 2, "--shift", 0.002)
    other = call("fit", folder / "emg.h5", "--out", folder / "run", *words)
    assert other.exit_code != 0
    assert "shift" in other.output


def test_activation_has_the_shape_of_the_emg(folder, made):
    found, emg = jm.emg.Activation.load(folder / "a.h5"), jm.emg.Rectified.load(folder / "emg.h5")
    assert found.samples.shape == emg.samples.shape
    assert found.channels == NAMES


def test_new_recordings_take_the_same_numbers(folder, made):
    one = call("preprocess", folder / "raw.h5", "--out", folder / "b.h5", "--like", folder / "emg.h5", "--keep-flagged")
    assert one.exit_code == 0, one.output
    first, second = (jm.emg.Rectified.load(folder / name) for name in ("emg.h5", "b.h5"))
    np.testing.assert_array_equal(first.samples, second.samples)


def test_compare_puts_model_filters_and_context_in_one_table(folder, made):
    words = ("--targets", folder / "joints.csv", "--run", folder / "run", "--samples", 0, "--lag", 0.004)
    one = call("compare", folder / "emg.h5", *words, "--out", folder / "table.csv")
    assert one.exit_code == 0, one.output
    table = pd.read_csv(folder / "table.csv")
    methods = table.method.unique()
    assert methods[0] == "model"
    assert [m.split()[0] for m in methods[1:]] == ["low-pass", "Bayes,", "80", "its"]
    assert list(table.output.unique()) == ["hip", "knee"]
    # the amplitude follows the drive: any smoothing shows it
    assert table[table.method.str.startswith("low-pass")].vaf.min() > 0.3


def test_preprocess_takes_channels_trials_and_notches(folder):
    random = np.random.default_rng(2)
    table = pd.DataFrame(random.normal(size=(4000, 4)), columns=["FDI", "ADM", "ECG", "APB"])
    table.insert(0, "time", np.arange(4000) / 2000)
    table.to_csv(folder / "own.csv")
    pd.DataFrame({"stop": [0.9, 1.9], "start": [0.1, 1.0], "who": [1, 2]}).to_csv(folder / "spans.csv", index=False)
    np.savetxt(folder / "strides.txt", [0.0, 0.5, 1.0, 1.9])
    words = ("preprocess", folder / "own.csv", "--out", folder / "own.h5", "--line", 50, "--keep-flagged")
    one = call(*words, "--unit", "mV", "--trials", folder / "spans.csv", "--notches", "150,250", "--harmonics", 2)
    assert one.exit_code == 0, one.output
    assert "left out: ECG (ECG, by its name or unit), column 1 (rises by 1 every row)" in one.output.replace("\n", " ")
    emg = jm.emg.Rectified.load(folder / "own.h5")
    assert (emg.channels, emg.preprocessing.unit) == (("FDI", "ADM", "APB"), "mV")
    np.testing.assert_array_equal(emg.trials, [[50, 450], [500, 950]])
    assert emg.preprocessing["line"]["harmonics"] == 2
    assert emg.preprocessing["notch"]["frequencies"] == [150, 250]
    assert emg.report().status.tolist() == ["used"] * 3 + ["left out", "left out", "used"]
    one = call(*words, "--channels", "ECG,FDI", "--cycles", folder / "strides.txt")
    assert one.exit_code == 0, one.output
    emg = jm.emg.Rectified.load(folder / "own.h5")
    assert emg.channels == ("ECG", "FDI")
    np.testing.assert_array_equal(emg.trials, [[0, 250], [250, 500], [500, 950]])


def test_preprocess_takes_the_order_of_axes(folder):
    np.save(folder / "epochs.npy", np.random.default_rng(3).normal(size=(20, 3, 1500)))
    words = ("preprocess", folder / "epochs.npy", "--out", folder / "epochs.h5", "--sfreq", 1000, "--line", 0)
    one = call(*words)
    assert one.exit_code == 2
    assert "axes: source" in one.output
    one = call(*words, "--keep-flagged", "--axes", "trial channel sample")
    assert one.exit_code == 0, one.output
    assert len(jm.emg.Rectified.load(folder / "epochs.h5").trials) == 20


def test_compare_refuses_folds_without_both_values_before_work(folder, made):
    contact = np.zeros((12, 350))
    contact[:, 100:200] = 1
    pd.DataFrame({"contact": contact.ravel()}).to_csv(folder / "contact.csv", index=False)
    words = ("compare", folder / "emg.h5", "--targets", folder / "contact.csv", "--run", folder / "run", "--lag", 0.004)
    one = call(*words, "--folds", 40)
    assert one.exit_code == 2
    said = " ".join(one.output.split())
    assert "output 'contact' is constant in fold 3 of 40, where VAF is undefined; pass --folds" in said
    fewer = said.rpartition("--folds ")[2].rstrip(".")
    one = call(*words, "--samples", 0, "--folds", fewer)
    assert one.exit_code == 0, one.output


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("preprocess", "raw.h5", "--out", "x.h5", "--events", "go"), "--events: name: no event 'go'"),
        (
            ("preprocess", "raw.h5", "--out", "x.h5", "--channels", "XX"),
            "picks: no XX in source: raw.h5; choose from FDI",
        ),
        (("preprocess", "raw.h5", "--out", "x.h5", "--trials", "joints.csv", "--events", "a"), "keep one of them"),
        (("preprocess", "raw.h5", "--out", "x.h5", "--trials", "joints.csv"), "--trials: joints.csv"),
        (("preprocess", "raw.h5", "--out", "x.h5", "--unit", "V"), "unit: 'V', but source: raw.h5 says 'mV'"),
        (("preprocess", "none.h5", "--out", "x.h5"), "none.h5 does not exist"),
        (("preprocess", "raw.h5", "--out", "x.txt"), "does not end in .h5"),
        (("fit", "raw.h5", "--out", "other"), "holds no preprocessed EMG"),
        (("fit", "emg.h5", "--out", "other", "--preset", "best"), "preset: 'best'; choose one of"),
        (("fit", "emg.h5", "--out", "run", "--preset", "single", "--seed", "1"), "was begun with another"),
        (("fit", "emg.h5", "--out", "other", "--preset", "single", "--source", "none"), "holds no run"),
        (("activation", "emg.h5", "--run", "none", "--out", "x.h5"), "holds no run"),
        (("compare", "emg.h5", "--targets", "short.csv", "--run", "run"), "short.csv has 2 rows, the EMG 4200 bins"),
    ],
)
def test_bad_input_is_one_line(folder, made, monkeypatch, words, match):
    monkeypatch.chdir(folder)
    one = call(*words)
    assert one.exit_code == 2
    assert match in one.output.replace("\n", " ")
    assert "Traceback" not in one.output
