"""MEPs: exact amplitudes and onsets, every reason to flag one, sources, files, scaling, and two real recordings."""

import csv
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from jaxm2m import muscle
from jaxm2m.session import Session, load_emg

pytestmark = pytest.mark.host

NAMES = ("FDI", "APB", "ECR")
SFREQ = 5000.0
PULSE = 0.12  # s into an epoch of 0.2 s


@pytest.fixture
def epochs():
    """Noise of 2 uV RMS, and biphasic MEPs from 22 ms on (a sine of 10 ms) of 100 (1 + trial) uV x 1, 2, 3."""
    rng = np.random.default_rng(0)
    t = np.arange(1000) / SFREQ - PULSE
    wave = np.where((t >= 0.022) & (t < 0.032), np.sin(2 * np.pi * (t - 0.022) / 0.01), 0)
    size = 50 * np.outer(1 + np.arange(6), [1, 2, 3])
    return wave[:, None] * size[:, None] + rng.normal(0, 2, (6, 1000, 3)), 2 * size


def measure(x, **how):
    return muscle.measure(x, SFREQ, **({"pulse": PULSE, "muscles": NAMES, "unit": "uV"} | how))


def test_amplitude_and_latency(epochs):
    x, size = epochs
    meps = measure(x)
    np.testing.assert_allclose(meps.amplitude, size, atol=15)
    assert meps.kept.all()
    assert meps.count_flags() == {}
    window = slice(round((PULSE + 0.02) * SFREQ), round((PULSE + 0.05) * SFREQ) + 1)
    np.testing.assert_array_equal(meps.amplitude, np.ptp(x[:, window], axis=1))
    # the sine passes 4 x 2 uV within 0.25 ms of its beginning
    np.testing.assert_allclose(meps.latency, 0.022, atol=5e-4)
    assert repr(meps) == "Meps(6 stimuli, 3 muscles, 6 stimuli kept)"


def test_onset_is_exact_without_noise():
    t = np.arange(1000) / SFREQ
    rest = np.where(np.arange(1000) % 2, 1.0, -1.0)  # SD 1 about 0
    x = np.where(t < PULSE + 0.0201, rest, 2000 * (t - PULSE - 0.0201) + 1)
    found = measure(x[None, :, None], muscles=["FDI"], onset=4.0)
    # a ramp of 2000 uV/s from 1 uV reaches 4 uV after 1.5 ms
    np.testing.assert_allclose(found.latency, 0.0201 + 0.0015, atol=1e-7)
    # a spike shorter than 1 ms is none, and what is there when the artefact ends has no onset
    spike = rest.copy()
    spike[round((PULSE + 0.03) * SFREQ)] = 500
    late = np.where(t > PULSE + 0.005, 100 + rest, rest)
    both = measure(np.stack([spike, late])[:, :, None], muscles=["FDI"])
    assert np.isnan(both.latency).all()


def test_offset_unit_and_source_change_nothing(epochs):
    x, _ = epochs
    meps = measure(x)
    in_volts = measure((x + 300) * 1e-6, unit="V")
    np.testing.assert_allclose(in_volts.amplitude, meps.amplitude, rtol=1e-9)
    np.testing.assert_allclose(in_volts.latency, meps.latency, rtol=1e-6)
    continuous = load_emg(x.reshape(-1, 3), SFREQ, channels=NAMES, unit="uV")
    found = muscle.measure(continuous, pulses=np.arange(6) * 0.2 + PULSE)
    np.testing.assert_array_equal(found.amplitude, meps.amplitude)
    np.testing.assert_allclose(found.latency, meps.latency, rtol=1e-9)
    turned = muscle.measure(continuous, pulses=PULSE + 0.2 * np.array([3, 1]), muscles=["ECR", "FDI"])
    np.testing.assert_array_equal(turned.amplitude, meps.amplitude[[3, 1]][:, [2, 0]])
    each = measure(x, pulse=np.full(6, PULSE))
    np.testing.assert_array_equal(each.amplitude, meps.amplitude)


def test_every_reason(epochs):
    x, _ = epochs
    before, after = round((PULSE - 0.05) * SFREQ), round((PULSE + 0.025) * SFREQ)
    x[0, before : before + 200, 0] += np.resize([60.0, -60.0], 200)
    x[:, :, 1] = np.clip(x[:, :, 1], -90.5, 90.5)
    x[2, :, 2] = 7
    x[3, after, 0] = np.nan
    x[4, before, 1] = np.nan
    meps = measure(x)
    assert meps.reasons[0, 0].startswith("background: ")
    assert meps.reasons[0, 0].endswith(" uV RMS")
    assert meps.reasons[0, 2] == ""
    assert meps.reasons[1, 1] == "saturated: 90.5 uV"
    assert meps.reasons[2, 2] == "flat: 7 uV"
    assert meps.reasons[3, 0] == "not recorded: window"
    assert np.isnan(meps.amplitude[3, 0])
    assert meps.reasons[4, 1] == "saturated: 90.5 uV; not recorded: background"
    assert np.isfinite(meps.amplitude[4, 1])
    assert list(meps.kept) == [False, False, False, False, False, False]
    assert meps.count_flags() == {"background": 1, "saturated": 6, "flat": 1, "not recorded": 2}
    # nothing is dropped, and limits can be others
    assert len(meps) == 6
    assert measure(x, max_rms=None).reasons[0, 0] == ""
    assert measure(x, max_rms=None, max_peak_to_peak=100.0).reasons[0, 0].endswith(" uV peak-to-peak")
    assert measure(x, saturation=1000.0).reasons[1, 1] == ""
    assert measure(x, saturation=80.0).reasons[1, 1] == "saturated: 90.5 uV"


def test_an_extreme_at_the_end_of_the_window_is_flagged():
    t = np.arange(1000) / SFREQ - PULSE
    noise = np.random.default_rng(0).normal(0, 2, (4, 1000))
    late = 1300 * np.exp(-(((t - 0.055) / 0.004) ** 2))
    early = 1300 * np.exp(-(((t - 0.016) / 0.004) ** 2))
    inside = 1300 * np.exp(-(((t - 0.03) / 0.004) ** 2))
    x = noise + np.stack([late, early, inside, 0 * t])
    meps = measure(x[:, :, None], muscles=["FDI"])
    assert meps.reasons[0, 0].startswith("cut: ")
    assert meps.reasons[0, 0].endswith(" uV at the window's end, 50 ms")
    assert meps.reasons[1, 0].endswith("at the window's end, 20 ms")
    assert list(meps.reasons[2:, 0]) == ["", ""]
    assert measure(x[:1, :, None], muscles=["FDI"], background=None).reasons[0, 0].startswith("cut: ")
    wide = measure(x[:1, :, None], muscles=["FDI"], window=(0.02, 0.07))
    assert wide.kept.all()
    np.testing.assert_allclose(wide.amplitude, 1303, rtol=0.01)


def test_duration_and_area(epochs):
    x, size = epochs
    meps = measure(x, onset=6.0)
    # a sine of 10 ms; noise of 2 uV over 30 ms adds to the area of the small ones
    np.testing.assert_allclose(meps.duration[-1], 0.0095, atol=7e-4)
    np.testing.assert_allclose(meps.area[-1], size[-1] / np.pi * 0.01 + 0.02 * 2 * (2 / np.pi) ** 0.5, rtol=0.05)
    assert {"duration_FDI_s", "area_FDI_uvs"} <= set(meps.table())
    held = x.copy()
    held[:, round((PULSE + 0.03) * SFREQ) :] += 300  # has not come back at the window's end
    assert np.isnan(measure(held).duration).all()
    assert muscle.Meps(1.0 * size, 1.0 * size, np.full(size.shape, ""), NAMES).table().shape == (6, 9)


def test_short_epochs_have_the_background_that_they_hold(epochs):
    x, size = epochs
    cut = round((PULSE - 0.05) * SFREQ)
    with pytest.warns(UserWarning, match=r"epochs begin 50 ms before their pulse; it is taken from -50 to -5 ms"):
        meps = measure(x[:, cut:], pulse=0.05)
    np.testing.assert_allclose(meps.amplitude, size, atol=15)
    assert np.isfinite(meps.latency).all()
    very = x[:, round((PULSE - 0.005) * SFREQ) :]
    with pytest.raises(ValueError, match=r"background: epochs begin 5 ms before .* background=None"):
        measure(very, pulse=0.005)
    without = measure(very, pulse=0.005, background=None)
    np.testing.assert_array_equal(without.amplitude, meps.amplitude)
    assert np.isnan(without.latency).all()
    assert without.kept.all()
    assert np.isfinite(without.area).all()


@pytest.mark.parametrize(
    ("problem", "turn"),
    [
        (r"source: shape \(1000, 6\); epochs are .*source\.T\[:, :, None\]", lambda x: x[:, :, 0].T),
        (r"source: shape \(6, 1000\); epochs", lambda x: x[:, :, 0]),
        (r"source: shape \(6, 3, 1000\) would be 1000 muscles of 3 samples", lambda x: np.moveaxis(x, 1, 2)),
        (r"no stimulus has samples .*1000 trials of 1.2 ms.*check the axes", lambda x: np.moveaxis(x, 0, 1)),
    ],
)
def test_axes_are_guarded(epochs, problem, turn):
    with pytest.raises(ValueError, match=problem):
        measure(turn(epochs[0]), muscles=None)


def test_tables_of_other_countries_and_ragged_rows(tmp_path):
    path = tmp_path / "a.csv"

    def read(text):
        path.write_text(text)
        return muscle.Meps.load(path).amplitude.tolist()

    assert read("mep_FDI_uv;mep_APB_uv\n63,25;5\n;7,5\n")[0] == [63.25, 5.0]
    assert read("mep_FDI_uv\tx\n63,25\ta\n") == [[63.25]]
    assert read("mep_FDI_uv;n\n63.25;1,5\n") == [[63.25]]
    assert read("mep_FDI_uv,note\n63.25,fine,\n\n") == [[63.25]]
    assert read('mep_FDI_uv,note\n63.25,"a, b"\n') == [[63.25]]
    for text, problem in (
        ("mep_FDI_uv\n63,239402\n", "row 2: 2 cells under 1 names.*decimal commas"),
        ("mep_FDI_uv,mep_APB_uv\n63,2,5,1\n", "row 2: 4 cells under 2"),
        ("mep_FDI_uv,mep_APB_uv\n1,2\n63\n", "row 3: 1 cells under 2"),
        ("mep_FDI_uv;n\n1.234,5;1\n", "points and commas"),
        ("mep_FDI_uv,mep_FDI_uv\n1,2\n", "two columns called 'mep_FDI_uv'"),
    ):
        with pytest.raises(ValueError, match=problem):
            read(text)


def test_a_smooth_peak_of_coarse_resolution_is_not_saturated():
    t = np.arange(1000) / SFREQ - PULSE
    x = np.where(np.arange(1000) % 2, 1.0, -1.0)
    x = np.where(t > 0.02, np.round(20 * np.sin(np.pi * (t - 0.02) / 0.02)), x)
    assert (np.diff(np.flatnonzero(x == x.max())) == 1).sum() > 3
    assert measure(x[None, :, None], muscles=["FDI"]).reasons[0, 0] == ""
    steep = np.where((t > 0.022) & (t < 0.025), 700.0, x)
    assert measure(steep[None, :, None], muscles=["FDI"]).reasons[0, 0] == "saturated: 700 uV"


def test_outside_the_recording(epochs):
    x, _ = epochs
    continuous = load_emg(x.reshape(-1, 3), SFREQ, channels=NAMES, unit="uV")
    meps = muscle.measure(continuous, pulses=[0.05, PULSE, 1.19])
    assert (meps.reasons[0] == "outside: background").all()
    assert np.isfinite(meps.amplitude[0]).all()
    assert (meps.reasons[1] == "").all()
    assert all(r.startswith("outside: window") for r in meps.reasons[2])
    assert np.isnan(meps.amplitude[2]).all()
    # a pause inside a stimulus's window counts as an end
    pieces = load_emg([x[0, :700], x[1]], SFREQ, channels=NAMES, unit="uV")
    assert list(muscle.measure(pieces, pulses=[PULSE, 0.14 + PULSE]).kept) == [False, True]


@pytest.mark.parametrize(
    ("problem", "how"),
    {
        "unit: ''; pass 'uV'": {"unit": None},
        "unit: 'kV'": {"unit": "kV"},
        "pulse, pulses: pass one of them": {"pulse": None},
        "pulse, pulses: pass one": {"pulses": [0.1]},
        r"pulse: shape \(2,\) for 6 trials": {"pulse": [0.1, 0.1]},
        r"pulses: shape \(1, 1\)": {"pulse": None, "pulses": [[0.1]]},
        "window: 0.05 to 0.02 s": {"window": (0.05, 0.02)},
        "window: -0.01 to": {"window": (-0.01, 0.02)},
        "background: -0.1 to 0.01": {"background": (-0.1, 0.01)},
        "background: no stimulus has samples from -0.2": {"background": (-0.2, -0.01)},
        "window: no stimulus has samples from 0.02 to 0.2": {"window": (0.02, 0.2)},
        "max_rms: -1": {"max_rms": -1.0},
        "onset: 0": {"onset": 0},
    }.items(),
)
def test_bad_input(epochs, problem, how):
    with pytest.raises(ValueError, match=problem):
        measure(epochs[0], **how)


def make_session(epochs, meps):
    n = len(epochs)
    pose = np.tile(np.eye(4), (n, 1, 1))
    pose[1] = np.nan
    return Session(
        poses=pose,
        space="subject",
        source_space="World",
        names=tuple(f"Sample {i}" for i in range(n)),
        kind=("sample",) * n,
        target=("",) * n,
        time=np.arange(float(n)),
        intensity=np.full(n, 60.0),
        didt=np.full(n, np.nan),
        channels=NAMES,
        meps=meps,
        mep_latency=np.full((n, 3), 0.021),
        emg=np.moveaxis(epochs, 1, 2),
        sfreq=SFREQ,
        emg_start=-PULSE,
    )


def test_sessions(epochs, tmp_path):
    x, size = epochs
    listed = size.astype(float)
    listed[4, 1], listed[5, 2] = np.nan, -3
    session = make_session(x, listed)
    np.testing.assert_array_equal(muscle.measure(session).amplitude, measure(x).amplitude)
    assert muscle.measure(session, muscles=["APB"]).muscles == ("APB",)
    meps = muscle.read_recorded(session)
    assert meps.count_flags() == {"not recorded": 1, "negative": 1}
    assert np.isnan(meps.amplitude[5, 2])
    assert meps.muscles == NAMES
    # rows are those of the session: poses and MEPs stay together
    stimuli = session.samples.pick(located=True)
    kept = muscle.read_recorded(stimuli)
    assert len(stimuli.poses[kept.kept]) == len(kept.pick(kept.kept)) == 3
    np.testing.assert_array_equal(kept.pick(kept.kept).amplitude, size[[0, 2, 3]])
    # the session's table is a table of MEPs
    session.table().to_csv(tmp_path / "session.csv")
    with pytest.raises(ValueError, match="row 7: a negative MEP"):
        muscle.Meps.load(tmp_path / "session.csv")
    session.pick([0, 1, 2, 3, 4]).table().to_csv(tmp_path / "session.csv")
    read = muscle.Meps.load(tmp_path / "session.csv")
    np.testing.assert_array_equal(read.amplitude, listed[:5])
    np.testing.assert_array_equal(read.latency, np.full((5, 3), 0.021))
    assert read.count_flags() == {"not recorded": 1}
    empty = make_session(x[:, :0], np.full((6, 3), np.nan))
    with pytest.raises(ValueError, match="lists no MEP"):
        muscle.read_recorded(empty)
    with pytest.raises(ValueError, match="has no waveforms"):
        muscle.measure(empty)
    with pytest.raises(ValueError, match="a Session has its own"):
        muscle.measure(session, pulse=0.1)


@pytest.mark.parametrize("name", ["meps.csv", "meps.h5"])
def test_files(epochs, tmp_path, name):
    x, _ = epochs
    x[2, 100:300, 0] += np.resize([60.0, -60.0], 200)
    x[3, :, 1] = np.nan
    meps = measure(x)
    read = muscle.Meps.load(meps.save(tmp_path / name))
    assert read.muscles == NAMES
    for field in ("amplitude", "latency", "reasons", "duration", "area"):
        np.testing.assert_array_equal(getattr(read, field), getattr(meps, field))
    assert read.count_flags() == {"background": 1, "not recorded": 2}
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_bad_files(tmp_path, epochs):
    for problem, name, text in (
        ("has no column of MEPs", "a.csv", "x,y\n1,2\n"),
        ("column mep_A_uv: could not convert", "b.csv", "mep_A_uv\nlarge\n"),
        ("row 3: a negative MEP", "c.csv", "mep_A_uv\n1\n-1\n"),
        ("is not one of .csv", "d.txt", "mep_A_uv\n1\n"),
        ("is not an HDF5 file", "e.h5", "mep_A_uv\n1\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=problem):
            muscle.Meps.load(tmp_path / name)
    path = load_emg(epochs[0], SFREQ, unit="uV").save(tmp_path / "f.h5")
    with pytest.raises(ValueError, match="holds no MEPs"):
        muscle.Meps.load(path)
    with pytest.raises(ValueError, match=r"does not end in \.h5"):
        measure(epochs[0]).save(tmp_path / "g.npy")


def test_pick_and_names(epochs):
    meps = measure(epochs[0])
    part = meps.pick([4, 0], muscles=["ECR", "FDI"])
    assert part.muscles == ("ECR", "FDI")
    np.testing.assert_array_equal(part.amplitude, meps.amplitude[[4, 0]][:, [2, 0]])
    with pytest.raises(ValueError, match="no BRD; choose from FDI, APB, ECR"):
        meps.pick(muscles=["BRD"])
    with pytest.raises(ValueError, match="give each its own name"):
        muscle.Meps(meps.amplitude, meps.latency, meps.reasons, ("FDI", "FDI", "ECR"))


def test_scaling_is_that_of_the_training_trials(epochs):
    meps = measure(epochs[0])
    train, test = meps.pick(slice(0, 4)), meps.pick(slice(4, 6))
    scaling = muscle.Scaling.fit(train)
    scaled = scaling.apply(train)
    np.testing.assert_allclose(scaled.max(0), 1, rtol=1e-15)
    assert scaled.min() >= 0
    assert (scaling.apply(test) > 1).all()  # larger than any in training: neither clipped nor scaled anew
    np.testing.assert_allclose(scaling.invert(scaling.apply(test)), test.amplitude, rtol=1e-15)
    np.testing.assert_allclose(
        scaling.apply(jnp.ones((2, 5, 3))), np.broadcast_to(1 / scaling.largest, (2, 5, 3)), rtol=1e-6
    )
    assert repr(scaling).startswith("Scaling(FDI: ")
    with pytest.raises(ValueError, match="meps: APB, FDI, ECR, but the scaling is of FDI"):
        scaling.apply(meps.pick(muscles=["APB", "FDI", "ECR"]))
    with pytest.raises(ValueError, match="the last axis must hold 3 muscles"):
        scaling.apply(np.ones((4, 2)))


def test_what_cannot_be_scaled(epochs):
    meps = measure(epochs[0])
    values = meps.amplitude.copy()
    values[:, 1] = 0
    with pytest.raises(ValueError, match="meps: 2 is the same in all 6 trials"):
        muscle.Scaling.fit(values)
    with pytest.raises(ValueError, match="meps: -1; must be zero or above"):
        muscle.Scaling.fit(values - 1)
    values[0, 0] = np.nan
    with pytest.raises(ValueError, match="meps: 1 of 18 values are NaN"):
        muscle.Scaling.fit(values)
    flagged = measure(epochs[0], max_rms=0.1)
    with pytest.raises(ValueError, match=r"6 of 6 stimuli are flagged \(background\); pass meps.pick\(meps.kept\)"):
        muscle.Scaling.fit(flagged)


def test_real_meps_match_listed_features(data):
    # ID01, a hand muscle: 20-50 ms; ID02, 32 ms latency (a leg): its MEPs end after 50 ms.
    # Where the tool found no MEP it lists 0; peak-to-peak of the remaining noise is never 0.
    for name, window, flagged in (("ID01", (0.02, 0.05), 0), ("ID02", (0.02, 0.08), 18)):
        waves = scipy.io.loadmat(data(f"mep/{name}.mat"))["meps"]
        with open(data(f"mep/{name}_features.csv")) as file:
            rows = list(csv.DictReader(file))
        listed, latency = (np.array([float(r[key]) for r in rows]) for key in ("Amplitude", "Latency"))
        meps = muscle.measure(
            waves.T[:, :, None], 3000.0, pulse=0.05, unit="uV", window=window, background=(-0.045, -0.005)
        )
        there = listed > 0
        np.testing.assert_allclose(meps.amplitude[there, 0], listed[there], rtol=0.01)
        assert (meps.amplitude[~there] < 15).all()
        # before the silent trials the muscle was active, and hardly before the others
        assert meps.count_flags().get("background", 0) == flagged
        assert meps.kept[there].all()
        delay = 1e3 * meps.latency[there, 0] - latency[there]
        assert abs(np.nanmedian(delay)) < 0.5
        assert np.mean(np.abs(delay) < 1) > 0.65
    # the usual window cuts the leg's MEPs short
    cut = muscle.measure(waves.T[:, :, None], 3000.0, pulse=0.05, unit="uV", background=(-0.045, -0.005))
    assert cut.count_flags()["cut"] >= 4
    assert np.median(cut.amplitude[there, 0] / listed[there]) < 0.9


def continuous(step=4.0, noise=0.01):
    """Three MEPs 22 ms after the edges of a trigger channel that rises for 10 ms."""
    sfreq, edges = 4000, np.array([2000, 8000, 15_000])
    samples = np.random.default_rng(6).normal(size=(20_000, 2)) * (1.0, noise)
    for edge, size in zip(edges, (200.0, 400.0, 800.0), strict=True):
        samples[edge : edge + 40, 1] += step
        at = edge + 88
        samples[at : at + 40, 0] += size / 2 * np.sin(2 * np.pi * np.arange(40) / 40)
    recording = load_emg(samples, sfreq, channels=("FDI", "TRIG"), unit="uV")
    return recording, edges / sfreq


@pytest.mark.parametrize("step", [4.0, -4.0])
def test_a_channel_of_triggers_gives_the_pulses(step):
    recording, times = continuous(step)
    meps = muscle.measure(recording, pulses="TRIG")
    expected = muscle.measure(recording, pulses=times, muscles=("FDI",))
    assert meps.muscles == ("FDI",)
    np.testing.assert_array_equal(meps.amplitude, expected.amplitude)
    np.testing.assert_allclose(meps.amplitude[:, 0], [200, 400, 800], rtol=0.06)


def test_events_give_the_pulses_by_name():
    recording, times = continuous()
    events = tuple(("TMS", int(t * 4000), int(t * 4000)) for t in times)
    meps = muscle.measure(replace(recording, events=events), pulses="TMS", muscles=("FDI",))
    np.testing.assert_allclose(meps.amplitude[:, 0], [200, 400, 800], rtol=0.06)


def test_triggers_that_do_not_stand_out_are_refused():
    recording, _ = continuous(step=0.0)
    with pytest.raises(ValueError, match="pulses: no step of the channel 'TRIG' stands out"):
        muscle.measure(recording, pulses="TRIG")
    with pytest.raises(ValueError, match=r"pulses: 'STIM' is no event \(none\) and no channel \(FDI, TRIG\)"):
        muscle.measure(recording, pulses="STIM")
    with pytest.raises(ValueError, match="pulses: 'TRIG' names events or a channel of a Recording"):
        muscle.measure(np.zeros((20_000, 2)), sfreq=4000, pulses="TRIG", unit="uV")
