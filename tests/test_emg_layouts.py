"""EMG files as laboratories bring them: read right, or refused with the fix, never wrong in silence."""

import h5py
import numpy as np
import pandas as pd
import pytest
import recording_layouts as layouts
import scipy.io

from jaxm2m import emg, muscle, session
from jaxm2m.session import load_emg

pytestmark = pytest.mark.host

X, NAMES, SFREQ = layouts.X, layouts.NAMES, layouts.SFREQ


@pytest.mark.parametrize("name", layouts.CASES)
def test_layouts(tmp_path, name):
    verdict = layouts.judge(name, tmp_path)
    assert verdict in ("right", "refused"), verdict


def load(source, *words, **options):
    """Load, and check that what is left out is told."""
    if not words:
        return load_emg(source, **options)
    with pytest.warns(UserWarning, match="left out|marked") as told:
        loaded = load_emg(source, **options)
    text = " ".join(str(one.message) for one in told)
    assert all(word in text for word in words), text
    return loaded


def test_frames_keep_their_names():
    frame = pd.DataFrame({"time": layouts.TIME, "FDI [mV]": X[:, 0], "ADM [mV]": X[:, 1]})
    loaded = load(frame)
    assert (loaded.channels, loaded.unit) == (("FDI", "ADM"), "mV")
    assert loaded.sfreq == pytest.approx(SFREQ)
    np.testing.assert_array_equal(loaded.samples, X[:, :2])
    indexed = load(pd.DataFrame(X, columns=list(NAMES), index=pd.Index(layouts.TIME, name="time")))
    assert (indexed.channels, round(indexed.sfreq)) == (NAMES, 2000)
    stamps = pd.Timestamp("2026-01-01") + pd.to_timedelta(layouts.TIME, unit="s")
    assert load(pd.DataFrame(X, columns=list(NAMES), index=stamps)).sfreq == pytest.approx(SFREQ, rel=1e-4)
    with pytest.raises(ValueError, match="channels: FDI named more than once"):
        load_emg(pd.DataFrame(X, columns=["FDI", "FDI", "ADM"]), SFREQ)
    with pytest.raises(ValueError, match="column ADM is numbers"):
        load_emg(pd.DataFrame({"FDI": X[:, 0], "ADM": "x"}), SFREQ)


def test_a_list_of_frames_is_a_list_of_trials():
    frames = [pd.DataFrame(X[:300], columns=list(NAMES)), pd.DataFrame(X[300:], columns=list(NAMES))]
    loaded = load_emg(frames, SFREQ)
    assert loaded.channels == NAMES
    np.testing.assert_array_equal(loaded.by_trial()[1], X[300:])
    with pytest.raises(ValueError, match="source: frame 1 has the columns"):
        load_emg([frames[0], frames[1][["ADM", "FDI", "APB"]]], SFREQ)


def test_time_and_picks_say_what_a_table_does_not(tmp_path):
    columns = {"clock": layouts.TIME**1.0, "t2": layouts.TIME, "FDI": X[:, 0], "ADM": X[:, 1], "note": "x"}
    path = tmp_path / "a.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    path.write_text("".join(line.replace(",x", ",1") for line in path.open()))
    loaded = load(path, "clock (rises by 0.0005", time="t2", picks=["ADM", "FDI"])
    assert (loaded.channels, round(loaded.sfreq)) == (("ADM", "FDI"), 2000)
    assert load(path, "t2", sfreq=SFREQ, time="", picks=["FDI"]).channels == ("FDI",)
    with pytest.raises(ValueError, match=r"time: no column 'zeit' in .*; choose from clock, t2, FDI"):
        load_emg(path, time="zeit")
    with pytest.raises(ValueError, match=r"picks: no XX in .*choose from FDI, ADM"):
        load_emg(path, time="t2", picks=["XX"])


@pytest.mark.parametrize("shape", [(1000, 3, 20), (60, 8, 1000), (1000, 20, 3), (20, 3, 1000)])
def test_doubtful_axes_are_refused_with_axes_as_the_fix(shape):
    x = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(ValueError, match=r'axes: .*say the order, axes="trial sample channel"'):
        load_emg(x, SFREQ)
    with pytest.raises(ValueError, match="axes"):
        emg.preprocess(x, SFREQ)
    order = [("trial", "channel")[n < 10] if n < 1000 else "sample" for n in shape]
    loaded = load_emg(x, SFREQ, axes=" ".join(order))
    turned = np.transpose(x, [order.index(a) for a in ("trial", "sample", "channel")])
    np.testing.assert_array_equal(loaded.by_trial(), turned)
    assert load_emg(x, SFREQ, axes="trial sample channel").by_trial()[0].shape == shape[1:]
    trials = list(turned.transpose(0, 2, 1))
    with pytest.raises(ValueError, match='pass axes="channel sample"'):
        load_emg(trials, SFREQ)
    np.testing.assert_array_equal(load_emg(trials, SFREQ, axes="channel sample").samples, loaded.samples)


def test_rows_that_count_are_no_muscle_in_arrays():
    counted = np.column_stack([np.arange(600) / SFREQ, X])
    assert load(counted, "1 (rises by 0.0005", sfreq=SFREQ).channels == ("2", "3", "4")
    with pytest.raises(ValueError, match=r"rises by 0.0005 every sample: 2000 Hz if that is s"):
        load_emg(counted)
    with pytest.raises(ValueError, match="correct one of them"):
        load_emg(counted, 500)


def edf(path, labels, units, values):
    """EDF of one record."""

    def words(*entries, width):
        return b"".join(str(v).encode("latin-1").ljust(width)[:width] for v in entries)

    n, count = len(labels), values.shape[1]
    head = (
        words("0", width=8) + words("X X X X", "Startdate X X X X", width=80) + words("01.01.20", "00.00.00", width=8)
    )
    head += words(256 * (n + 1), width=8) + words("", width=44) + words(1, count / SFREQ, width=8) + words(n, width=4)
    head += words(*labels, width=16) + words(*[""] * n, width=80) + words(*units, width=8)
    head += words(*[-1000] * n, width=8) + words(*[1000] * n, width=8) + words(*[-32768] * n, width=8)
    head += words(*[32767] * n, width=8) + words(*[""] * n, width=80) + words(*[count] * n, width=8)
    head += words(*[""] * n, width=32)
    digital = np.rint((values + 1000) / 2000 * 65535 - 32768).astype("<i2")
    path.write_bytes(head + digital.tobytes())
    return path


@pytest.mark.parametrize(
    ("unit", "scale", "known"),
    [("uV", 1e-6, "V"), ("uv", 1.0, "uV"), ("", 1.0, ""), (".V", 1.0, ""), ("mV", 1e-3, "V")],
)
def test_edf_units(tmp_path, unit, scale, known):
    pytest.importorskip("mne")
    path = edf(tmp_path / "sub-1_emg.edf", ["EMG FDI", "EMG ADM"], [unit] * 2, X[:, :2].T)
    loaded = load_emg(path)
    assert (loaded.unit, loaded.channels) == (known, ("EMG FDI", "EMG ADM"))
    np.testing.assert_allclose(loaded.samples, X[:, :2] * scale, atol=0.05 * scale)
    # BIDS says what the file does not
    (tmp_path / "sub-1_channels.tsv").write_text("name\ttype\tunits\nEMG FDI\tEMG\tuV\nEMG ADM\tEMG\tuV\n")
    loaded = load_emg(path)
    assert loaded.unit == (known or "uV")
    np.testing.assert_allclose(loaded.samples, X[:, :2] * scale, atol=0.05 * scale)


def test_edf_labels_and_mixed_units(tmp_path):
    pytest.importorskip("mne")
    x = np.stack([X[:, 0], X[:, 1], X[:, 2], X[:, 0]])
    path = edf(tmp_path / "a.edf", ["EMG FDI", "ECG", "Resp chest", "ADM"], ["uV", "mV", "", "uV"], x)
    loaded = load(path, "ECG (ECG, by its name", "Resp chest (respiration")
    assert (loaded.channels, loaded.unit) == (("EMG FDI", "ADM"), "V")
    assert loaded.report().status.tolist() == ["used", "used", "left out", "left out"]
    assert load_emg(path, picks=["ECG"]).channels == ("ECG",)
    path = edf(tmp_path / "b.edf", ["FDI", "ADM"], ["uV", ""], x[:2])
    with pytest.raises(ValueError, match=r"unit: .* no unit that is known for ADM, and V for others; pass unit="):
        load_emg(path)
    mixed = load_emg(path, unit="mV")
    assert mixed.unit == "mV"
    np.testing.assert_allclose(mixed.samples, np.stack([x[0] * 1e-3, x[1]], -1), atol=0.05)
    with pytest.raises(ValueError, match=r"channels: FDI named more than once"):
        load_emg(edf(tmp_path / "c.edf", ["FDI", "FDI"], ["uV", "uV"], x[:2]))


def test_what_is_marked_bad(tmp_path):
    mne = pytest.importorskip("mne")
    raw = mne.io.RawArray(X.T * 1e-6, mne.create_info(list(NAMES), SFREQ, "emg"), verbose="ERROR")
    raw.info["bads"] = ["ADM"]
    raw.set_annotations(mne.Annotations([0.05, 0.1, 0.2], [0.02, 0, 0], ["BAD_cable", "go", "go"]))
    loaded = load(raw, "ADM (marked bad)", "1 stretches are marked as bad (BAD_cable")
    assert loaded.channels == ("FDI", "APB")
    np.testing.assert_array_equal(loaded.bad_spans, [[100, 140]])
    np.testing.assert_array_equal(loaded.trials, [[0, 100], [140, 600]])
    np.testing.assert_array_equal(loaded.with_events("go").trials, [[200, 400]])
    assert set(loaded.report().status) == {"used", "left out", "marked"}
    kept = load(raw, "marked as bad", bads="keep")
    assert kept.channels == NAMES
    np.testing.assert_array_equal(kept.trials, [[0, 600]])
    assert load(raw, "marked as bad", picks=["ADM"]).channels == ("ADM",)
    back = load_emg(loaded.save(tmp_path / "emg.h5"))
    pd.testing.assert_frame_equal(back.report(), loaded.report())
    np.testing.assert_array_equal(back.bad_spans, loaded.bad_spans)
    assert back.events == loaded.events
    epochs = mne.Epochs(
        raw,
        np.array([[50, 0, 1], [90, 0, 1], [300, 0, 1]]),
        tmin=0,
        tmax=0.0495,
        baseline=None,
        preload=False,
        verbose="ERROR",
    )
    loaded = load(epochs, "ADM (marked bad)")
    assert len(loaded.trials) == 1  # MNE drops those that overlap with what is bad
    np.testing.assert_allclose(loaded.by_trial()[0], X[300:400, [0, 2]] * 1e-6)


def test_bids_tables_by_inheritance(tmp_path):
    pytest.importorskip("mne")
    folder = tmp_path / "sub-1" / "emg"
    folder.mkdir(parents=True)
    path = edf(folder / "sub-1_task-grip_run-1_emg.edf", ["FDI", "ADM", "APB"], ["uV"] * 3, X.T)
    (tmp_path / "task-grip_channels.tsv").write_text(
        "name\ttype\tunits\tstatus\tstatus_description\nFDI\tEMG\tuV\tgood\tn/a\n"
        "ADM\tEMG\tuV\tbad\tloose\nAPB\tTRIG\tV\tgood\tn/a\n"
    )
    (folder / "sub-1_task-grip_run-1_events.tsv").write_text(
        "onset\tduration\ttrial_type\n0.05\t0.1\tgrip\n0.2\t0.05\tgrip\n0.01\t0\tcue\n"
    )
    loaded = load(path, "ADM (marked bad (loose))", "APB (trigger, not EMG)")
    assert loaded.channels == ("FDI",)
    np.testing.assert_array_equal(loaded.with_events("grip").trials, [[100, 300], [400, 500]])
    with pytest.raises(ValueError, match="name: no event 'rest'; the recording has grip, cue"):
        loaded.with_events("rest")


def test_trials_and_cycles_by_times():
    loaded = load_emg(X, SFREQ, channels=NAMES)
    np.testing.assert_array_equal(loaded.with_trials([[0.01, 0.05], [0.1, 0.3]]).trials, [[20, 100], [200, 600]])
    np.testing.assert_array_equal(loaded.with_cycles([0.1, 0.15, 0.25]).trials, [[200, 300], [300, 500]])
    for problem, call in {
        "spans: trial 0 from 0 to 800": lambda: loaded.with_trials([[0, 0.4]]),
        "times: shape .* that increase": lambda: loaded.with_cycles([0.1, 0.1]),
        "reach beyond": lambda: loaded.with_cycles([0.1, 0.9]),
    }.items():
        with pytest.raises(ValueError, match=problem):
            call()


def test_preprocessed_files_are_no_recordings(tmp_path):
    rectified = emg.preprocess(np.random.default_rng(0).normal(size=(4000, 2)), SFREQ, line=None)
    path = rectified.save(tmp_path / "emg.h5")
    with pytest.raises(ValueError, match=r"source: .*emg.h5 holds preprocessed EMG; emg.Rectified.load reads it"):
        load_emg(path)


def test_spreadsheet(tmp_path):
    pytest.importorskip("openpyxl")
    path = tmp_path / "a.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"subject": ["S01"]}).to_excel(book, sheet_name="notes", index=False)
        frame = pd.DataFrame(np.column_stack([layouts.TIME, X]), columns=["Time (s)", *[f"{n} (mV)" for n in NAMES]])
        frame.to_excel(book, sheet_name="emg")
    loaded = load(path, "rises by 1")
    assert (loaded.channels, loaded.unit, round(loaded.sfreq)) == (NAMES, "mV", 2000)
    np.testing.assert_allclose(loaded.samples, X)


def test_c3d_leaves_force_plates_out(tmp_path):
    ezc3d = pytest.importorskip("ezc3d")
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [100]
    file["parameters"]["POINT"]["LABELS"]["value"] = ["m"]
    file["data"]["points"] = np.zeros((4, 1, 30))
    file["parameters"]["ANALOG"]["RATE"]["value"] = [SFREQ]
    file["parameters"]["ANALOG"]["LABELS"]["value"] = ["FP1_Fx", "a", "FDI", "ADM"]
    file["parameters"]["ANALOG"]["UNITS"]["value"] = ["N", "V", "V", "V"]
    file["data"]["analogs"] = np.stack([700 + X[:, 0], X[:, 1], X[:, 0] * 1e-3, X[:, 1] * 1e-3])[None]
    file.add_parameter("FORCE_PLATFORM", "CHANNEL", [1, 2])
    file.write(str(tmp_path / "a.c3d"))
    loaded = load(tmp_path / "a.c3d", "FP1_Fx (force plate", "a (force plate")
    assert (loaded.channels, loaded.unit, loaded.sfreq) == (("FDI", "ADM"), "V", SFREQ)
    np.testing.assert_allclose(loaded.samples, X[:, :2] * 1e-3, rtol=1e-5)


def test_preprocessing_keeps_the_report_and_leaves_bad_stretches_out(tmp_path):
    random = np.random.default_rng(1)
    x = random.normal(size=(8000, 2))
    artefact = x.copy()
    artefact[1000:2000] *= 100
    clean = load_emg(x, SFREQ, channels=("FDI", "ADM"))
    spans = np.array([[1000, 2000]])
    trials = np.array([[0, 2000], [2000, 4000], [4000, 8000]])
    marked = session.Recording(
        artefact,
        SFREQ,
        clean.channels,
        clean.segments,
        trials,
        "mV",
        bad_spans=spans,
        left_out=(("ECG", "ECG", "mV", "left out", "no EMG"),),
    )
    options = {"line": None, "screen": None}
    scale = emg.preprocess(clean, **options).preprocessing["normalise"]["scale"]
    loud = emg.preprocess(marked, **options)
    np.testing.assert_allclose(loud.preprocessing["normalise"]["scale"], scale, rtol=0.05)
    np.testing.assert_array_equal(loud.flagged, [True, False, False])
    back = emg.Rectified.load(loud.save(tmp_path / "emg.h5"))
    assert back.report().channel.tolist() == ["FDI", "ADM", "ECG"]
    assert back.report().status.tolist() == ["used", "used", "left out"]
    assert emg.preprocess(
        X.reshape(3, 200, 3).transpose(0, 2, 1), SFREQ, line=None, axes="trial channel sample"
    ).trials.shape == (3, 2)


def test_matlab_73_cells_and_structures(tmp_path):
    """Cells of trials, and an array of structures with a name each, as MATLAB stores them in HDF5."""
    for kind in ("trials", "channels"):
        path = tmp_path / f"{kind}.mat"
        parts = [X[:250], X[250:]] if kind == "trials" else [x[:, None] for x in X.T]
        with h5py.File(path, "w", userblock_size=512) as file:
            file["fs"] = np.array([[SFREQ]])
            references, texts = [], []
            for i, part in enumerate(parts):
                data = file.create_dataset(f"#refs#/x{i}", data=part.T)
                data.attrs["MATLAB_class"] = np.bytes_("double")
                references.append([data.ref])
            for i, name in enumerate(NAMES):
                text = file.create_dataset(f"#refs#/n{i}", data=np.array([[ord(c)] for c in name], np.uint16))
                text.attrs["MATLAB_class"] = np.bytes_("char")
                texts.append([text.ref])
            file.create_dataset(
                f"{kind}/data" if kind == "channels" else "emg", data=np.array(references, h5py.ref_dtype)
            )
            file.create_dataset(
                f"{kind}/labels" if kind == "channels" else "labels", data=np.array(texts, h5py.ref_dtype)
            )
        loaded = load_emg(path)
        assert (loaded.channels, loaded.sfreq) == (NAMES, SFREQ)
        np.testing.assert_array_equal(loaded.samples, X)
        assert len(loaded.trials) == (2 if kind == "trials" else 1)


def test_rows_of_numbers_without_names_are_trials_or_channels(tmp_path):
    cells = np.empty(3, object)
    cells[:] = list(X.T)
    scipy.io.savemat(tmp_path / "a.mat", {"c": cells, "fs": SFREQ})
    with pytest.raises(ValueError, match="nothing says whether they are trials or channels"):
        load_emg(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "a.mat", {"emg": X[:, :1], "fs": SFREQ})
    np.testing.assert_array_equal(load_emg(tmp_path / "a.mat").samples, X[:, :1])
    scipy.io.savemat(tmp_path / "a.mat", {"emg": X, "fs": SFREQ, "rate": 500.0})
    with pytest.raises(ValueError, match=r"sfreq: not given, .*tells fs: 2000 Hz, rate: 500 Hz"):
        load_emg(tmp_path / "a.mat")
    assert load_emg(tmp_path / "a.mat", 2000).sfreq == 2000


@pytest.mark.parametrize("suffix", [".otb+", ".rhd", ".hpf", ".smrx", ".acq", ".xls", ".parquet"])
def test_other_formats_are_refused_with_what_converts_them(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="is not read here; convert it to HDF5, CSV or EDF by "):
        load_emg(path)


def test_an_envelope_that_rings_below_zero_has_one_way_out():
    envelope = np.abs(np.random.default_rng(0).normal(size=(4000, 2))) + 0.1
    envelope[::50] = -0.01
    for options in ({}, {"rectified": True}):
        with pytest.raises(ValueError, match=r"np\.maximum"):
            emg.preprocess(envelope, SFREQ, **options)
    assert emg.preprocess(np.maximum(envelope, 0), SFREQ, rectified=True).samples.min() > 0


def test_epochs_of_meps_have_their_axes():
    """More trials than samples are no doubt where the axes are documented: epochs are (n_trial, n_time, n_muscle)."""
    epochs = np.random.default_rng(0).normal(size=(500, 300, 2))
    meps = muscle.measure(epochs, 1000, pulse=0.12, muscles=("FDI", "ADM"), unit="uV")
    assert meps.amplitude.shape == (500, 2)
