from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from jaxm2m import emg
from jaxm2m.session import load_emg

pytestmark = pytest.mark.host

RATE = 2000
NAMES = ("BF", "GA", "TA")


def noise(n, channels=3, seed=0, band=(20, 450), rate=RATE):
    """Like surface EMG at rest: band-limited noise of unit size."""
    sos = signal.butter(2, band, "bandpass", fs=rate, output="sos")
    x = signal.sosfilt(sos, np.random.default_rng(seed).normal(size=(n, channels)), axis=0)
    return x / x.std(0)


def bursts(n, channels=3, seed=0, rate=RATE):
    t = np.arange(n) / rate
    size = 0.1 + np.maximum(0, np.sin(2 * np.pi * (0.7 * t[:, None] + np.arange(channels) / channels)))
    return size * noise(n, channels, seed, rate=rate)


def mains(n, frequency=60.0, harmonics=(1.0, 0.4, 0.5), rate=RATE):
    """(n, 1), `frequency` a number or one for each sample."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(frequency, n)) / rate
    return sum(a * np.sin(k * phase + k) for k, a in enumerate(harmonics, start=1))[:, None]


def recording(n=8 * RATE, trials=None, **changes):
    x = bursts(n) * np.array([1.0, 30.0, 0.2]) + 0.5 * mains(n)
    return load_emg(x, RATE, channels=NAMES, trials=trials, unit="mV", **changes)


# the line


@pytest.mark.parametrize("frequency", [60.0, 59.7, 50.0])
def test_line_is_removed_from_the_first_sample(frequency):
    n = 8 * RATE
    clean, sizes = noise(n), np.array([2.0, 0.1, 5.0])
    line = mains(n, frequency) * sizes
    left = emg.remove_line(clean + line, RATE, round(frequency, -1)) - clean
    # three sinusoids fitted to two seconds of unit noise leave some 8 % of it; of the line under 3 %
    assert (left.std(0) < 0.1 + 0.03 * sizes).all()
    assert (left[:RATE].std(0) < 0.15 + 0.03 * sizes).all()


def test_line_is_followed():
    n = 20 * RATE
    frequency = 60 + 0.05 * np.sin(2 * np.pi * np.arange(n) / RATE / 40)
    size = np.linspace(1, 3, n)[:, None]
    clean = noise(n, 2)
    left = emg.remove_line(clean + size * mains(n, frequency), RATE) - clean
    assert (left.std(0) < 0.2).all()


def test_line_removal_leaves_the_rest():
    x = noise(8 * RATE, 2)
    changed = emg.remove_line(x, RATE) - x
    assert (changed.std(0) < 0.1).all()
    frequency, before = signal.welch(x, RATE, nperseg=RATE, axis=0)
    after = signal.welch(x + changed, RATE, nperseg=RATE, axis=0)[1]
    away = (np.abs(frequency[:, None] - [60, 120, 180]) > 4).all(1)
    np.testing.assert_allclose(after[away], before[away], rtol=0.1, atol=1e-3 * before.max())


def test_line_of_short_and_ragged_trials():
    n = 6 * RATE
    clean = noise(n, 2)
    x = clean + 2 * mains(n, 60.1)
    batch = emg.remove_line(x.reshape(6, RATE, 2), RATE).reshape(n, 2)
    assert ((batch - clean).std(0) < 0.5).all()
    pieces = [x[:1100], x[1100:3000]]  # one group, filled up
    together = emg.preprocess(pieces, RATE, highpass=None, to=RATE, clip=None, normalise=100, floor=1e-12, screen=None)
    alone = [np.abs(emg.remove_line(piece, RATE)) for piece in pieces]
    scale = np.concatenate(alone).max(0)
    for one, other in zip(together.by_trial(), alone, strict=True):
        np.testing.assert_allclose(one, np.maximum(other / scale, 1e-12), atol=1e-9)


# the other steps


def test_notch_and_highpass():
    t = np.arange(4 * RATE) / RATE
    tones = {f: np.sin(2 * np.pi * f * t)[:, None] for f in (20.0, 65.0, 94.0, 150.0)}

    def gain(step, f):
        inner = slice(RATE, 3 * RATE)
        return step(tones[f])[inner].std() / tones[f][inner].std()

    for f, expected in {94.0: 0.0, 65.0: 1.0, 150.0: 1.0}.items():
        assert gain(lambda x: emg.notch(x, RATE, [94, 300]), f) == pytest.approx(expected, abs=0.02)
    for f, expected in {20.0: 0.0, 65.0: 0.5, 150.0: 1.0}.items():
        assert gain(lambda x: emg.highpass(x, RATE), f) == pytest.approx(expected, abs=0.02)


def test_resample():
    for rate in (5000, 2000, 1111.25, 1234.56789, 500):
        t = np.arange(round(rate)) / rate
        x = np.stack([np.sin(2 * np.pi * 30 * t), np.full(len(t), 2.0)], -1)
        y = emg.resample(x, rate)
        assert len(y) == pytest.approx(500, abs=1)
        np.testing.assert_allclose(y[50:-50, 0], np.sin(2 * np.pi * 30 * np.arange(len(y)) / 500)[50:-50], atol=2e-3)
        np.testing.assert_allclose(y[:, 1], 2, rtol=1e-3)  # no fall towards the ends
    with pytest.raises(ValueError, match="sfreq: 300 Hz is below 500 Hz"):
        emg.resample(x, 300)


def test_clip_and_normalise():
    x = np.abs(noise(4000, 2))
    clipped, threshold = emg.clip(x.reshape(4, 1000, 2), [99, 90])
    np.testing.assert_allclose(threshold, [np.percentile(x[:, 0], 99), np.percentile(x[:, 1], 90)])
    np.testing.assert_array_equal(clipped.reshape(-1, 2), np.minimum(x, threshold))
    normal, scale = emg.normalise(clipped)
    np.testing.assert_allclose(np.percentile(normal.reshape(-1, 2), 95, axis=0), 1)
    np.testing.assert_allclose(normal * scale, clipped)
    with pytest.raises(ValueError, match="negative"):
        emg.clip(x - 1)
    with pytest.raises(ValueError, match=r"percentile: \[99, 99, 99\]"):
        emg.clip(x, [99, 99, 99])


def test_screening_flags_isolated_spikes_only():
    random = np.random.default_rng(0)
    size = 0.2 + np.exp(-(((np.arange(500) - 250) / 80) ** 2))
    x = np.abs(random.normal(size=(40, 500, 3))) * size[:, None]
    x[::8, :, 1] *= 4  # one target of eight takes this muscle further
    assert not emg.screen(x, 500).flagged.any()
    x[13, 100:105, 2] += 15
    x[22, 300:, 0] = 30  # large and long: not a brief spike
    found = emg.screen(x, 500)
    np.testing.assert_array_equal(np.flatnonzero(found.flagged), [13])
    assert found.excess[13, 2] > 3
    assert found.time[13, 2] == pytest.approx(0.2, abs=0.01)
    assert not emg.screen(x[:1], 500).flagged.any()


# all of it


def test_steps_in_order_with_parameters():
    found = emg.preprocess(recording(), notches=[94], clip=[99.9, 99, 99.9])
    steps = found.preprocessing.steps
    assert [name for name, _ in steps] == [
        *("line", "notch", "highpass", "rectify", "resample", "screen", "clip", "normalise", "floor")
    ]
    assert found.preprocessing["clip"]["percentile"] == [99.9, 99, 99.9]
    assert (found.sfreq, found.channels, found.samples.shape) == (500, NAMES, (4000, 3))
    np.testing.assert_allclose(np.percentile(found.samples, 95, axis=0), 1)
    assert found.samples.min() >= 1e-4
    assert (found.floored < 0.01).all()
    text = found.preprocessing.describe()
    for part in ("60 Hz, 3 sinusoids", "94 Hz", "order 4, 65 Hz", "500 Hz", "percentile 99.9, 99", "percentile 95"):
        assert part in text
    assert list(found.preprocessing.table()["channel"]) == list(NAMES)
    # the same, step by step
    x = recording().samples
    x = emg.rectify(emg.highpass(emg.notch(emg.remove_line(x, RATE), RATE, 94), RATE))
    x = np.maximum(emg.resample(x, RATE), 0)
    x = np.maximum(emg.normalise(emg.clip(x, [99.9, 99, 99.9])[0])[0], 1e-4)
    np.testing.assert_allclose(found.samples, x, rtol=1e-9)


def test_transform_repeats_it_unchanged(tmp_path):
    first = recording()
    fitted = emg.preprocess(first)
    np.testing.assert_array_equal(fitted.transform(first).samples, fitted.samples)
    louder = load_emg(3 * first.samples, RATE, channels=NAMES, unit="mV")
    again = fitted.transform(louder)
    assert again.preprocessing.fingerprint() == fitted.preprocessing.fingerprint()
    ceiling = np.array(fitted.preprocessing["clip"]["threshold"]) / fitted.preprocessing["normalise"]["scale"]
    # 3 x, under the thresholds of the first
    expected = np.minimum(3 * fitted.samples, ceiling)
    inside = (fitted.samples < ceiling * (1 - 1e-9)) & (fitted.samples > 1e-4)
    np.testing.assert_allclose(again.samples[inside], expected[inside], rtol=1e-6)
    loaded = emg.Rectified.load(fitted.save(tmp_path / "emg.h5"))
    np.testing.assert_array_equal(loaded.transform(louder).samples, again.samples)
    for problem, other in {
        r"recording: channels BF, GA, but .*; it lacks TA": louder.pick(channels=NAMES[:2]),
        r"pass recording.pick\(channels=\['BF', 'GA', 'TA'\]\)": louder.pick(channels=NAMES[::-1]),
        "recording: in uV, but the preprocessing was fitted to mV": load_emg(
            first.samples, RATE, channels=NAMES, unit="uV"
        ),
    }.items():
        with pytest.raises(ValueError, match=problem):
            fitted.transform(other)


def test_file_holds_everything(tmp_path):
    found = emg.preprocess(recording(trials=[[0, 4000], [6000, 10_000]]))
    loaded = emg.Rectified.load(found.save(tmp_path / "emg.h5"))
    assert loaded.fingerprint() == found.fingerprint()
    assert (loaded.channels, loaded.sfreq) == (found.channels, found.sfreq)
    assert loaded.preprocessing.steps == found.preprocessing.steps
    for name in ("samples", "segments", "trials", "flagged", "floored"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(found, name))
    recording().save(tmp_path / "raw.h5")
    with pytest.raises(ValueError, match="holds no preprocessed EMG; for recordings"):
        emg.Rectified.load(tmp_path / "raw.h5")


def test_trials_move_with_the_rate():
    trials = np.array([[0, 4001], [4003, 8004], [9001, 13_002]])
    found = emg.preprocess(recording(trials=trials))
    np.testing.assert_array_equal(found.segments, [[0, 4000]])
    np.testing.assert_array_equal(np.diff(found.trials)[:, 0], 1000)
    np.testing.assert_allclose(found.trials[:, 0], trials[:, 0] / 4, atol=0.5)
    picked = found.pick([True, False, True])
    np.testing.assert_array_equal(picked.trials, found.trials[[0, 2]])
    np.testing.assert_array_equal(picked.by_trial()[0], found.samples[:1000])


def test_segments_stay_apart():
    x = recording().samples.reshape(4, 4000, 3)
    other = x.copy()
    other[2] *= 2
    keep = {"clip": None, "screen": None, "line": None}
    one, two = (emg.preprocess(v, RATE, normalise=100, **keep) for v in (x, other))
    scale = [np.array(v.preprocessing["normalise"]["scale"]) for v in (one, two)]
    for i in (0, 1, 3):
        np.testing.assert_allclose(one.by_trial()[i] * scale[0], two.by_trial()[i] * scale[1], rtol=1e-9, atol=1e-2)


def test_flagged_trials_are_kept_and_can_be_dropped():
    x = bursts(20 * RATE, 2).reshape(20, RATE, 2)
    x = np.random.default_rng(0).permuted(x, axis=1)
    x[7, 500:504, 1] = [40, -40, 40, -40]
    found = emg.preprocess(x, RATE, line=None)
    np.testing.assert_array_equal(np.flatnonzero(found.flagged), [7])
    assert len(found.pick(~found.flagged).trials) == 19
    assert not emg.preprocess(x, RATE, line=None, screen=None).flagged.any()


def test_rectified_windows():
    x = np.abs(noise(40 * 112, 2)).reshape(40, 112, 2)
    x[3, 5, 1] = 0
    found = emg.preprocess(x, 500, channels=["a", "b"])
    assert [name for name, _ in found.preprocessing.steps] == ["resample", "screen", "clip", "normalise", "floor"]
    assert found.samples.min() == 1e-4
    assert (found.floored < 1e-3).all()
    assert found.floored[1] > 0
    np.testing.assert_array_equal(found.trials, 112 * np.arange(40)[:, None] + [0, 112])
    # normalised data stay as they are
    again = emg.preprocess(np.stack(found.by_trial()), 500, clip=None, channels=["a", "b"])
    np.testing.assert_allclose(again.samples, found.samples, rtol=1e-12)
    raw = load_emg(noise(4000, 2), RATE, channels=["a", "b"])
    with pytest.raises(ValueError, match=r"is negative .*; raw EMG goes through emg.preprocess"):
        found.transform(raw)


def test_real_windows(data):
    found = emg.preprocess(load_emg(data("emg/rat_locomotion.h5"), 500, name="train_data"), clip=None)
    np.testing.assert_allclose(found.preprocessing["normalise"]["scale"], 1, atol=0.02)
    assert (found.floored < 1e-3).all()
    windows = emg.chop(found, margin=6, padded=True)
    assert windows.values.shape == (151, 112, 12)


def test_to_mne():
    pytest.importorskip("mne")
    found = emg.preprocess(recording(trials=[[0, 4000], [6000, 10_000]]))
    raw = found.to_mne(2 * found.samples)
    assert (raw.ch_names, raw.info["sfreq"], set(raw.get_channel_types())) == (list(NAMES), 500, {"emg"})
    back = load_emg(raw)
    np.testing.assert_array_equal(back.samples, 2 * found.samples)
    np.testing.assert_array_equal(back.trials, found.trials)
    with pytest.raises(ValueError, match="samples: shape"):
        found.to_mne(found.samples[1:])


# bad input


def test_bad_channels():
    x = bursts(4 * RATE)
    gap, still = x.copy(), x.copy()
    gap[10:50, 1], still[:, 2] = np.nan, 3.0
    rectified = np.abs(x)
    mostly_zero = rectified * (np.random.default_rng(0).uniform(size=x.shape) < [1, 0.02, 1])
    half_zero = rectified * (np.random.default_rng(0).uniform(size=x.shape) < [1, 0.3, 1])
    for problem, call in {
        r"recording: 0.5% of channel 'GA' is NaN": lambda: emg.preprocess(gap, RATE, channels=NAMES),
        "recording: channel 'TA' is constant": lambda: emg.preprocess(still, RATE, channels=NAMES),
        "recording: 50.* of channel 'BF' is negative.*rectified EMG is not": lambda: emg.preprocess(
            x, RATE, channels=NAMES, rectified=True
        ),
        "95 % of channel 'GA' is zero": lambda: emg.preprocess(mostly_zero, 500, channels=NAMES),
        r"7\d% of channel 'GA' is zero, or below": lambda: emg.preprocess(half_zero, 500, channels=NAMES),
        "is negative: too little for raw EMG": lambda: emg.preprocess(rectified - 0.002, RATE),
        "no sample is negative, but none is near zero": lambda: emg.preprocess(x + 20, RATE),
        "sfreq: not given": lambda: emg.preprocess(x),
        "sfreq, channels, axes: a Recording has its own": lambda: emg.preprocess(load_emg(x, RATE), RATE),
        "floor: 0; must be above zero": lambda: emg.preprocess(x, RATE, floor=0),
        "highpass: 1200 Hz is not below half": lambda: emg.preprocess(x, RATE, highpass=1200),
        "harmonics: 20 x 60 Hz is not below": lambda: emg.preprocess(x, RATE, harmonics=20),
    }.items():
        with pytest.raises(ValueError, match=problem):
            call()
    assert emg.preprocess(x + 20, RATE, rectified=False).samples.shape == (2000, 3)


def test_rate_against_the_spectrum():
    n = 10 * RATE
    x = bursts(n) + 0.5 * mains(n)
    emg.preprocess(x, RATE)
    with pytest.raises(ValueError, match=r"sharp lines at 30, 60, 90 Hz, .* 1666.67 Hz .* or 2000 Hz"):
        emg.preprocess(x, RATE / 2)
    with pytest.raises(ValueError, match=r"sharp lines at 45, 90, 135 Hz"):
        emg.preprocess(x, 0.75 * RATE)
    emg.preprocess(x, RATE / 2, line=None)
    with pytest.raises(ValueError, match=r"line: 50 Hz, but the spectrum has sharp lines at 60.*pass line=60"):
        emg.preprocess(x, RATE, line=50)
    lone = bursts(n) + 0.5 * mains(n, harmonics=(1.0,))
    with pytest.warns(UserWarning, match=r"sharp lines at 30 Hz and none at 60 Hz; .* 2000 Hz"):
        emg.preprocess(lone, RATE / 2)
    # noise peaks that hardware notches left: 94 Hz beside the mains; even harmonics alone
    emg.preprocess(bursts(n) + 0.5 * mains(n) + 0.3 * mains(n, 94.0, (1.0,)), RATE)
    emg.preprocess(bursts(n) + 0.5 * mains(n, 120.0), RATE)
    # an envelope, or a rate ten times too low
    smooth = signal.sosfiltfilt(signal.butter(4, 20, fs=RATE, output="sos"), bursts(n), axis=0)
    with pytest.raises(ValueError, match=r"of the power over 10 Hz lies above the high-pass of 65 Hz"):
        emg.preprocess(smooth, RATE)
    fitted = emg.preprocess(load_emg(x, RATE))
    with pytest.raises(ValueError, match="sharp lines at 30"):
        fitted.transform(load_emg(x, RATE / 2))


# trials


def test_parts_of_trials_around_events():
    x = np.random.default_rng(0).gamma(2.0, size=(3, 400, 2)) + 0.1
    data = emg.preprocess(x, 500, channels=["A", "B"], rectified=True, screen=None, clip=None)
    whole = data.by_trial()
    found = data.around([0.2, 0.3, 0.25], 0.1, 0.3).by_trial()
    for trial, part, first in zip(whole, found, (50, 100, 75), strict=True):
        np.testing.assert_array_equal(part, trial[first : first + 200])
    later = data.pick([2]).around([0.25], 0.1, 0.3)
    np.testing.assert_array_equal(later.by_trial()[0], found[2])
    for events, before, match in (
        ([0.2, 0.2], 0.1, "events: shape \\(2,\\) for 3 trials"),
        ([0.2, 0.05, 0.2], 0.1, "beyond the trial, or is empty \\(trial 1, 1 in all\\)"),
        ([0.2, 0.2, np.nan], 0.1, "events"),
        ([0.2, 0.2, 0.2], -0.1, "before"),
    ):
        with pytest.raises(ValueError, match=match):
            data.around(events, before, 0.3)


def contractions(unit="uV", channels=("TA", "GM")):
    """Rest, then a contraction of each muscle in turn: the first twice as strong as the second."""
    rng = np.random.default_rng(4)
    level = np.full((12_000, 2), 5.0)
    level[2000:6000, 0], level[7000:11_000, 1] = 400.0, 200.0
    return load_emg(rng.normal(size=level.shape) * level, 2000, channels=channels, unit=unit)


def test_maximal_contractions_become_one():
    rng = np.random.default_rng(5)
    movement = load_emg(rng.normal(size=(8000, 2)) * (100.0, 100.0), 2000, channels=("TA", "GM"), unit="uV")
    done = emg.preprocess(movement, line=None, clip=None, normalise="mvc", mvc=contractions())
    usual = emg.preprocess(movement, line=None, clip=None)
    scale = np.asarray(done.preprocessing["normalise"]["scale"])
    # the mean of |x| after the high-pass, of all contractions alike: twice for the first muscle
    assert scale[0] / scale[1] == pytest.approx(2, rel=0.05)
    assert scale[0] == pytest.approx(400 * np.sqrt(2 / np.pi) * np.sqrt(1 - 65 / 1000), rel=0.07)
    np.testing.assert_allclose(
        done.samples[1000] * scale, usual.samples[1000] * usual.preprocessing["normalise"]["scale"], rtol=1e-4
    )
    assert "the largest mean of 0.5 s of a maximal voluntary contraction" in done.preprocessing.describe()
    np.testing.assert_allclose(done.transform(movement).samples, done.samples, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalise": "mvc"}, 'normalise: "mvc" needs mvc='),
        ({"mvc": True}, "mvc: given, but normalise is a percentile"),
        ({"normalise": "max"}, "normalise: 'max'"),
        ({"normalise": "mvc", "mvc": ("mV", ("TA", "GM"))}, "mvc: in mV, but the recording is in uV"),
        ({"normalise": "mvc", "mvc": ("uV", ("TA", "SOL"))}, "mvc: it lacks the channels GM"),
    ],
)
def test_contractions_that_do_not_fit_are_refused(changes, words):
    if "mvc" in changes:
        changes = changes | {
            "mvc": contractions(*changes["mvc"]) if isinstance(changes["mvc"], tuple) else contractions()
        }
    with pytest.raises(ValueError, match=words):
        emg.preprocess(contractions(), line=None, **changes)


def test_rectified_contractions_of_raw_emg_are_refused():
    movement = contractions()
    half = replace(movement, samples=np.abs(movement.samples) + 1e-3)
    with pytest.raises(ValueError, match="mvc: it is rectified and the recording is not"):
        emg.preprocess(movement, line=None, normalise="mvc", mvc=half)
    with pytest.raises(ValueError, match="mvc: it is raw and the recording is not"):
        emg.preprocess(half, line=None, rectified=True, normalise="mvc", mvc=movement)


def test_bad_stretches_are_no_contraction():
    mvc = contractions()
    strange = mvc.samples.copy()
    strange[11_200:11_900] *= 1000
    usual = emg.preprocess(mvc, line=None, clip=None, normalise="mvc", mvc=mvc)
    marked = replace(mvc, samples=strange, bad_spans=np.array([[11_000, 12_000]]))
    done = emg.preprocess(mvc, line=None, clip=None, normalise="mvc", mvc=marked)
    np.testing.assert_allclose(
        done.preprocessing["normalise"]["scale"], usual.preprocessing["normalise"]["scale"], rtol=0.02
    )
