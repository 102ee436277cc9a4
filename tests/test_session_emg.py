import sys
from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
import scipy.io

from jaxm2m import session
from jaxm2m.session import Recording, load_emg

pytestmark = pytest.mark.host

NAMES = ("BF", "GA", "TA")


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(400, 3)).round(6)


def write_csv(path, columns, delimiter=",", header=True, decimal="."):
    rows = [delimiter.join(columns)] if header else []
    rows += [
        delimiter.join(f"{v:.6f}".replace(".", decimal) for v in row) for row in np.stack(list(columns.values()), -1)
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def columns(x):
    return dict(zip(NAMES, x.T, strict=True))


def test_arrays(x):
    recording = load_emg(x, 2000)
    assert recording.channels == ("1", "2", "3")
    assert recording.sfreq == 2000
    assert recording.duration == 0.2
    np.testing.assert_array_equal(recording.samples, x)
    np.testing.assert_array_equal(recording.trials, [[0, 400]])
    trials = load_emg(x.reshape(4, 100, 3), 2000, channels=NAMES, unit="uV")
    assert (trials.channels, trials.unit) == (NAMES, "uV")
    np.testing.assert_array_equal(trials.samples, x)
    np.testing.assert_array_equal(trials.trials, [[0, 100], [100, 200], [200, 300], [300, 400]])
    np.testing.assert_array_equal(trials.segments, trials.trials)
    ragged = load_emg([x[:30], x[30:100]], 1000.0)
    np.testing.assert_array_equal(ragged.segments, [[0, 30], [30, 100]])
    np.testing.assert_array_equal(ragged.by_trial()[1], x[30:100])
    inside = load_emg(x, 2000, trials=[[10, 20], [300, 400]])
    np.testing.assert_array_equal(inside.segments, [[0, 400]])
    np.testing.assert_array_equal(inside.by_trial()[1], x[300:])
    turned = load_emg(np.moveaxis(x.reshape(4, 100, 3), 0, -1), 2000, axes="sample channel trial")
    np.testing.assert_array_equal(turned.samples, x)
    np.testing.assert_array_equal(load_emg(x.T, 2000, axes="channel sample").samples, x)
    assert "3 channels, 0.2 s at 2000 Hz, 4 trials" in repr(trials)


def test_bad_arrays(x):
    for problem, call in {
        "sfreq: not given": lambda: load_emg(x),
        "sfreq: -1": lambda: load_emg(x, -1),
        "3 samples of 400 channels; if the axes": lambda: load_emg(x.T, 2000),
        r"source: shape \(400,\)": lambda: load_emg(x[:, 0], 2000),
        "axes: 'time channel'": lambda: load_emg(x, 2000, axes="time channel"),
        "channels: 2 names, but": lambda: load_emg(x, 2000, channels=["a", "b"]),
        "channels: a named more than once": lambda: load_emg(x, 2000, channels=["a", "b", "a"]),
        "trials: trial 1 from 300 to 401": lambda: load_emg(x, 2000, trials=[[0, 1], [300, 401]]),
        "trials: trial 0 from 90 to 110": lambda: load_emg(x.reshape(4, 100, 3), 2000, trials=[[90, 110]]),
        "trials: float64": lambda: load_emg(x, 2000, trials=[[0.0, 1.5]]),
        "trial 1 has shape": lambda: load_emg([x, x[:, :2]], 2000),
    }.items():
        with pytest.raises(ValueError, match=problem):
            call()


def test_pick(x):
    recording = load_emg(x.reshape(4, 100, 3), 2000, channels=NAMES)
    picked = recording.pick(channels=("TA", "BF"), trials=np.array([True, False, False, True]))
    assert picked.channels == ("TA", "BF")
    np.testing.assert_array_equal(picked.by_trial()[1], x[300:][:, [2, 0]])
    assert len(recording.pick(trials=slice(1, None)).trials) == 3
    with pytest.raises(ValueError, match="channels: no XX; choose from BF, GA, TA"):
        recording.pick(channels=["XX"])


def test_own_file_comes_back(tmp_path, x):
    recording = load_emg(x.reshape(4, 100, 3), 1111.11, channels=NAMES, unit="mV").pick(trials=[0, 2])
    back = load_emg(recording.save(tmp_path / "emg.h5"))
    assert isinstance(back, Recording)
    assert (back.sfreq, back.channels, back.unit) == (1111.11, NAMES, "mV")
    for name in ("samples", "segments", "trials"):
        np.testing.assert_array_equal(getattr(back, name), getattr(recording, name))
    assert back.fingerprint() == recording.fingerprint()
    assert load_emg(x, 1111.11).fingerprint() != recording.fingerprint()


def test_hdf5_of_others(tmp_path, x):
    path = tmp_path / "emg.hdf5"
    with h5py.File(path, "w") as file:
        file["session/emg"] = x.astype(np.float32)
        file["session/emg"].attrs["Sampling_Rate"] = 2000
        file["session/channel_names"] = [n.encode() for n in NAMES]
        file["session/force"] = x[:, :2]
    found = load_emg(path)
    assert (found.sfreq, found.channels) == (2000, NAMES)
    np.testing.assert_allclose(found.samples, x, atol=1e-6)
    assert load_emg(path, name="session/force", sfreq=100, channels="ab").samples.shape == (400, 2)
    with pytest.raises(ValueError, match=r"sfreq: 1000 Hz, but .*emg.hdf5 tells 2000 Hz"):
        load_emg(path, 1000)
    with pytest.raises(ValueError, match=r"name: no 'emg' in .*; choose from session/emg, session/force"):
        load_emg(path, name="emg")
    with h5py.File(path, "w") as file:
        file["left"], file["right"] = x, x
    with pytest.raises(ValueError, match=r"name: .* has left \(400, 3\), right .*; say which"):
        load_emg(path, 1000)
    with h5py.File(path, "w") as file:
        file["emg"] = h5py.ExternalLink("other.h5", "x")
    with pytest.raises(ValueError, match="link to another file"):
        load_emg(path, 1000)


def test_mat_5(tmp_path, x):
    path = tmp_path / "emg.mat"
    scipy.io.savemat(path, {"EMG": x, "fs": 2000.0, "muscles": np.array(NAMES, dtype=object), "force": x[:, :2]})
    found = load_emg(path)
    assert (found.sfreq, found.channels) == (2000, NAMES)
    np.testing.assert_array_equal(found.samples, x)
    scipy.io.savemat(path, {"rec": {"data": x.reshape(4, 100, 3), "SamplingRate": 1000, "labels": list(NAMES)}})
    found = load_emg(path)
    assert (found.sfreq, found.channels, len(found.trials)) == (1000, NAMES, 4)
    np.testing.assert_array_equal(found.samples, x)
    with pytest.raises(ValueError, match=r"choose from rec\.data"):
        load_emg(path, name="data")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="not a readable MAT file"):
        load_emg(path)


def test_mat_73(tmp_path, x):
    path = tmp_path / "emg.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        data = file.create_dataset("rec/emg", data=x.T)  # MATLAB's (400, 3)
        data.attrs["MATLAB_class"] = np.bytes_("double")
        file["rec/fs"] = np.array([[2000.0]])
        cells = []
        for i, name in enumerate(NAMES):
            text = file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in name], np.uint16))
            text.attrs["MATLAB_class"] = np.bytes_("char")
            cells.append([text.ref])
        names = file.create_dataset("rec/labels", data=np.array(cells, dtype=h5py.ref_dtype))
        names.attrs["MATLAB_class"] = np.bytes_("cell")
    found = load_emg(path)
    assert (found.sfreq, found.channels) == (2000, NAMES)
    np.testing.assert_array_equal(found.samples, x)


@pytest.mark.parametrize(("delimiter", "decimal"), [(",", "."), (";", "."), ("\t", "."), (" ", "."), (";", ",")])
def test_csv(tmp_path, x, delimiter, decimal):
    time = np.arange(400) / 2000
    path = write_csv(tmp_path / "emg.csv", {"time": time, **columns(x)}, delimiter, decimal=decimal)
    found = load_emg(path)
    assert found.channels == NAMES
    assert found.sfreq == pytest.approx(2000, rel=1e-6)
    np.testing.assert_allclose(found.samples, x, atol=1e-6)
    bare = load_emg(write_csv(tmp_path / "bare.txt", columns(x), delimiter, header=False, decimal=decimal), 500)
    assert bare.channels == ("1", "2", "3")
    np.testing.assert_allclose(bare.samples, x, atol=1e-6)


def test_csv_times_and_trials(tmp_path, x):
    gap = np.arange(400) / 2000
    gap[250:] += 1.0
    found = load_emg(write_csv(tmp_path / "gap.csv", {"Time (ms)": 1e3 * gap, **columns(x)}))
    np.testing.assert_array_equal(found.segments, [[0, 250], [250, 400]])
    assert found.sfreq == pytest.approx(2000, rel=1e-6)
    trial = np.repeat([1, 1, 2, 4], 100)
    found = load_emg(write_csv(tmp_path / "trials.csv", {"trial": trial, **columns(x)}), 2000)
    np.testing.assert_array_equal(found.trials, [[0, 200], [200, 300], [300, 400]])
    np.testing.assert_array_equal(found.segments, found.trials)
    again = np.tile(np.arange(100) / 2000, 4)
    found = load_emg(write_csv(tmp_path / "again.csv", {"trial": np.arange(400) // 100, "t": again, **columns(x)}))
    np.testing.assert_array_equal(found.segments, found.trials)
    assert len(found.trials) == 4
    coarse = np.floor(np.arange(400) / 2) / 1000  # 2 kHz, times printed in whole ms
    found = load_emg(write_csv(tmp_path / "coarse.csv", {"time": coarse, **columns(x)}))
    assert found.sfreq == pytest.approx(2000, rel=0.01)
    assert len(found.segments) == 1


def test_bad_csv(tmp_path, x):
    path = tmp_path / "emg.csv"
    for content, problem in {
        "a,b\n1,2\nx,3\n": "not all of column a is numbers",
        "# only\n": "no row of numbers",
        "time,a,b\n0,1,2\n0,1,2\n0,1,2\n": "times do not increase",
        "a,b\n1,2\n1,2,3\n": "is not a table",
    }.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=problem):
            load_emg(path, 1000)
    write_csv(path, {"time": np.arange(400) / 2000, **columns(x)})
    with pytest.raises(ValueError, match="sfreq: 1000 Hz, but"):
        load_emg(path, 1000)
    with pytest.raises(FileNotFoundError, match="source:"):
        load_emg(tmp_path / "none.csv")


def test_mne(tmp_path, x):
    mne = pytest.importorskip("mne")
    info = mne.create_info([*NAMES, "EEG1", "STI"], 1000.0, ["emg"] * 3 + ["eeg", "stim"])
    values = np.column_stack([x * 1e-4, x[:, 0], np.zeros(400)]).T
    raw = mne.io.RawArray(values, info, verbose="ERROR")
    raw.set_annotations(mne.Annotations([0.1, 0.25, 0.2], [0.1, 0.15, 0.0], ["trial", "trial 2", "EDGE boundary"]))
    found = load_emg(raw)
    assert (found.channels, found.sfreq, found.unit) == (NAMES, 1000, "V")
    np.testing.assert_allclose(found.samples, x * 1e-4)
    np.testing.assert_array_equal(found.trials, [[100, 200], [250, 400]])
    np.testing.assert_array_equal(found.segments, [[0, 200], [200, 400]])
    raw.save(tmp_path / "sub-1_emg.fif", verbose="ERROR", overwrite=True)
    np.testing.assert_allclose(load_emg(tmp_path / "sub-1_emg.fif").samples, x * 1e-4, rtol=1e-5)
    (tmp_path / "sub-1_channels.tsv").write_text("name\ttype\tunits\nGA\tEMG\tV\nEEG1\tEMG\tV\nBF\tMISC\tV\n")
    assert load_emg(tmp_path / "sub-1_emg.fif").channels == ("GA", "EEG1")
    events = np.array([[0, 0, 1], [100, 0, 1], [200, 0, 1]])
    epochs = mne.Epochs(raw, events, tmin=0, tmax=0.099, baseline=None, preload=True, verbose="ERROR", picks="emg")
    found = load_emg(epochs)
    np.testing.assert_allclose(found.by_trial()[1], x[100:200] * 1e-4)
    assert len(found.segments) == 3
    (tmp_path / "emg.edf").write_bytes(b"0       broken")
    with pytest.raises(ValueError, match=r"emg.edf cannot be read"):
        load_emg(tmp_path / "emg.edf")


@pytest.mark.filterwarnings("ignore")
def test_nwb(tmp_path, x):
    pynwb = pytest.importorskip("pynwb")
    content = pynwb.NWBFile("made", "1", datetime(2020, 1, 1, tzinfo=UTC))
    device = content.create_device("amplifier")
    group = content.create_electrode_group("muscles", "", "leg", device)
    for name in (*NAMES, "XX"):
        content.add_electrode(location=name, group=group)
    region = content.create_electrode_table_region([2, 0, 1], "emg")
    counts = np.rint(x * 1000).astype(np.int16)
    content.add_acquisition(
        pynwb.ecephys.ElectricalSeries("EMG", counts, region, starting_time=10.0, rate=2000.0, conversion=1e-3)
    )
    times = np.arange(400) / 1000
    times[300:] += 0.5
    content.add_acquisition(pynwb.TimeSeries("force", data=x[:, :2], unit="N", timestamps=times))
    for start in (10.01, 10.1, 50.0):
        content.add_trial(start_time=start, stop_time=start + 0.05)
    path = tmp_path / "emg.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(content)
    found = load_emg(path)
    assert (found.sfreq, found.unit, found.channels) == (2000, "V", ("TA", "BF", "GA"))
    np.testing.assert_allclose(found.samples, counts / 1000, atol=1e-12)
    np.testing.assert_array_equal(found.trials, [[20, 120], [200, 300]])
    force = load_emg(path, name="force", trials=[[0, 5]])
    assert force.sfreq == pytest.approx(1000)
    np.testing.assert_array_equal(force.segments, [[0, 300], [300, 400]])


def test_c3d(tmp_path, x):
    ezc3d = pytest.importorskip("ezc3d")
    content = ezc3d.c3d()
    content["parameters"]["POINT"]["RATE"]["value"] = [100]
    content["parameters"]["POINT"]["LABELS"]["value"] = []
    content["data"]["points"] = np.zeros((4, 0, 40))
    content["parameters"]["ANALOG"]["RATE"]["value"] = [1000]
    content["parameters"]["ANALOG"]["LABELS"]["value"] = list(NAMES)
    content["data"]["analogs"] = x.T[None]
    path = tmp_path / "gait.c3d"
    content.write(str(path))
    found = load_emg(path)
    assert (found.sfreq, found.channels) == (1000, NAMES)
    np.testing.assert_allclose(found.samples, x, atol=1e-5)


@pytest.mark.parametrize(("suffix", "package"), [(".nwb", "pynwb"), (".c3d", "ezc3d"), (".edf", "mne")])
def test_missing_package_is_told(tmp_path, monkeypatch, suffix, package):
    path = tmp_path / f"emg{suffix}"
    path.write_bytes(b"something")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"needs {package}; python -m pip install {package}"):
        load_emg(path)


def test_real_windows(data):
    path = data("emg/rat_locomotion.h5")
    found = session.load_emg(path, 500, name="train_data")
    assert (len(found.trials), found.samples.shape) == (151, (151 * 112, 12))
    assert found.samples.min() > 0
    with pytest.raises(ValueError, match="say which holds the EMG"):
        session.load_emg(path, 500)
