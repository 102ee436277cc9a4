"""Faults of recordings are named, channel by channel, and nothing else is."""

import warnings

import jax
import numpy as np
import pytest

from jaxm2m import emg, plot, simulate
from jaxm2m.session import load_emg

pytestmark = pytest.mark.host

SFREQ, N = 2000.0, 20000
NAMES = [f"M{i}" for i in range(12)]


@pytest.fixture(scope="module")
def x():
    """Twelve muscles that work in bursts, with a little mains, 10 s."""
    random = np.random.default_rng(0)
    time = np.arange(N) / SFREQ
    envelope = 0.1 + np.sin(2 * np.pi * (time[:, None] * 0.7 + random.uniform(0, 1, 12))).clip(0) ** 2
    mains = 0.05 * np.sin(2 * np.pi * 50 * time)[:, None]
    return (envelope * random.normal(size=(N, 12)) + mains) * random.uniform(20, 200, 12)


def problems(x, **options):
    return dict(
        zip(NAMES, emg.quality(load_emg(x, SFREQ, channels=NAMES[: x.shape[1]], **options)).flags, strict=False)
    )


def test_five_faults_are_named_and_nothing_else(x):
    assert not any(problems(x).values())
    bad = x.copy()
    bad[:, 1] = np.clip(bad[:, 1], *np.percentile(bad[:, 1], [7.5, 92.5]))
    bad[:, 3] = np.abs(bad[:, 3])
    bad[:, 5] = 50 * np.sin(2 * np.pi * 50 * np.arange(N) / SFREQ) + 0.5 * np.random.default_rng(1).normal(size=N)
    bad[:, 7] *= 1e-9
    flags = problems(bad)
    assert [text.split()[0] for text in flags["M1"]] == ["saturated"]
    assert [text.split()[0] for text in flags["M3"]] == ["rectified"]
    assert [text.split()[0] for text in flags["M5"]] == ["mains"]
    assert [text.split()[0] for text in flags["M7"]] == ["tiny"]
    assert not any(flags[name] for name in NAMES if name not in ("M1", "M3", "M5", "M7"))
    bad[9000:10000] = 0
    flags = problems(bad)
    assert all(any(text == "dropout (1 of 0.5 s in all)" for text in one) for one in flags.values())


def test_dead_doubled_flat_and_spiked_channels(x):
    bad = x[:, :6].copy()
    bad[:, 1] = 3.0
    bad[:, 2] = -2 * bad[:, 0] + 1
    bad[4000:5000, 3] = bad[4000, 3]
    bad[12345, 4] = 40 * np.abs(bad[:, 4]).max()
    flags = problems(bad)
    assert flags["M1"] == ("dead (never changes)",)
    assert (flags["M0"], flags["M2"]) == (("same as M2",), ("same as M0",))
    assert flags["M3"] == ("flat (for 0.5 s)",)
    assert flags["M4"] == ("artefacts (1)",)
    assert not flags["M5"]
    checked = emg.quality(bad, SFREQ)
    np.testing.assert_array_equal(checked.artefacts, [[12345, 4]])
    assert checked.table().artefacts.tolist() == [0, 0, 0, 0, 1, 0]
    assert problems(x[:, :3] * 1e-12, unit="V")["M0"][0].startswith("tiny")


def test_no_false_alarm_on_a_rat_and_on_generated_recordings(data):
    rat = load_emg(data("emg/rat_locomotion.h5"), 500, name="train_data")
    assert not any(emg.quality(rat).flags)
    for make in (simulate.gait_emg, simulate.isometric_emg, simulate.lorenz_emg):
        made = make(jax.random.key(0), trials=12)
        assert not any(emg.quality(np.asarray(made.emg, float), float(made.sfreq)).flags)


def test_preprocessing_warns_and_stores_what_it_saw(x, tmp_path):
    bad = x[:, :3].copy()
    bad[:, 1] = np.clip(bad[:, 1], *np.percentile(bad[:, 1], [5, 95]))
    with pytest.warns(UserWarning, match=r"recording: M1: saturated \(10.0 % of samples\). Nothing was left out"):
        made = emg.preprocess(bad, SFREQ, channels=NAMES[:3], line=50)
    notes = emg.Rectified.load(made.save(tmp_path / "emg.h5")).report().note.tolist()
    assert notes == ["", "saturated (10.0 % of samples)", ""]
    assert "1 trial, which there are no others to compare with" in repr(made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emg.preprocess(x[:, :3], SFREQ, line=50)


def test_the_figure_shows_what_is_flagged(x):
    bad = x.copy()
    bad[:, 1] = np.clip(bad[:, 1], *np.percentile(bad[:, 1], [5, 95]))
    bad[9000:10000] = 0
    checked = emg.quality(load_emg(bad, SFREQ, channels=NAMES))
    table, line = plot.quality(checked, title="session 1").axes
    assert [label.get_text() for label in table.get_yticklabels()] == [f"{n} *" for n in NAMES]
    assert "10.0%" in [text.get_text() for text in table.texts]
    assert line.get_xlim() == (0, 10)
    (span,) = line.patches
    assert span.get_x() == pytest.approx(8999 / SFREQ, abs=2 / SFREQ)


@pytest.mark.parametrize("order", ["C", "F"])
def test_looking_changes_nothing(x, order):
    samples = np.array(x, order=order)
    before = samples.copy()
    emg.quality(samples, SFREQ)
    np.testing.assert_array_equal(samples, before)
