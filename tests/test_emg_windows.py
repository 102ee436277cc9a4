import numpy as np
import pytest

from jaxm2m import emg

pytestmark = pytest.mark.host


def trials(random, lengths, channels=2):
    return [random.normal(size=(n, channels)) for n in lengths]


@pytest.mark.parametrize("seed", range(60))
def test_merge_of_chop_is_the_identity(seed):
    random = np.random.default_rng(seed)
    bins = int(random.integers(1, 40))
    shared = int(random.integers(0, bins))
    margin = int(random.integers(0, min(bins, 9)))
    x = trials(random, random.integers(bins, 5 * bins + 3, size=random.integers(1, 6)))
    windows = emg.chop(x, bins / 500, shared / 500, sfreq=500, margin=margin)
    assert windows.values.shape[1] == bins + 2 * margin
    for values in (windows.values, windows.values[:, margin : margin + bins]):
        merged = emg.merge(values, windows)
        assert len(merged) == len(x)
        for one, other in zip(merged, x, strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_length_and_overlap():
    for bins in range(1, 9):
        for shared in range(bins):
            for n in range(bins, 4 * bins + 2):
                x = np.arange(n, dtype=float)[:, None]
                windows = emg.chop(x, bins, shared, sfreq=1)
                np.testing.assert_array_equal(emg.merge(windows.values, windows)[0], x)
                assert windows.start[-1] + bins == n
                assert (np.diff(windows.start) <= bins - shared).all()


def test_defaults_are_the_papers():
    x = np.random.default_rng(0).normal(size=(1010, 3))
    windows = emg.chop(x, sfreq=500)
    assert windows.values.shape == (14, 100, 3)
    np.testing.assert_array_equal(windows.start, [*range(0, 901, 75), 910])
    np.testing.assert_array_equal(windows.values[3], x[225:325])


def test_trials_never_mix():
    windows = emg.chop([np.full((n, 1), float(i)) for i, n in enumerate((130, 100, 257))], sfreq=500, margin=6)
    for values, trial in zip(windows.values, windows.trial, strict=True):
        assert (values == trial).all()
    np.testing.assert_array_equal(windows.trial, [0, 0, 1, 2, 2, 2, 2])


def test_margins_are_the_neighbouring_bins_and_mirrored_at_ends():
    x = np.arange(260.0)[:, None]
    windows = emg.chop(x, sfreq=500, margin=6)
    np.testing.assert_array_equal(windows.values[1, :, 0], np.arange(75 - 6, 175 + 6))
    np.testing.assert_array_equal(windows.values[0, :8, 0], [6, 5, 4, 3, 2, 1, 0, 1])
    np.testing.assert_array_equal(windows.values[-1, -8:, 0], [258, 259, 258, 257, 256, 255, 254, 253])


def test_trials_with_margins_of_their_own():
    x = np.random.default_rng(0).normal(size=(4, 112, 3))
    windows = emg.chop(x, sfreq=500, margin=6, padded=True)
    np.testing.assert_array_equal(windows.values, x)
    np.testing.assert_array_equal(np.stack(emg.merge(windows.values, windows)), x[:, 6:106])


def test_overlap_is_weighted_linearly():
    windows = emg.chop(np.zeros((175, 1)), sfreq=500)
    values = np.stack([np.zeros((100, 1)), np.ones((100, 1))])
    merged = emg.merge(values, windows)[0][:, 0]
    np.testing.assert_allclose(merged, np.concatenate([np.zeros(75), np.linspace(0, 1, 25), np.ones(75)]), atol=1e-15)


def test_merge_takes_other_trailing_axes():
    x = trials(np.random.default_rng(0), (130, 207))
    windows = emg.chop(x, sfreq=500)
    merged = emg.merge(windows.values[..., None] * np.arange(1.0, 4), windows)
    assert [m.shape for m in merged] == [(130, 2, 3), (207, 2, 3)]
    np.testing.assert_allclose(merged[1][..., 2], 3 * x[1], rtol=1e-14)


def test_bad_input():
    x = np.zeros((130, 2))
    windows = emg.chop(x, sfreq=500)
    for problem, call in {
        "emg: trial 1 has 99 bins, a window 100": lambda: emg.chop([x, x[:99]], sfreq=500),
        r"a window 100 \(2 trials are too short\)": lambda: emg.chop([x[:9], x[:99]], sfreq=500),
        "sfreq: not given": lambda: emg.chop(x),
        r"overlap: 0.2 s \(100 bins\)": lambda: emg.chop(x, overlap=0.2, sfreq=500),
        "emg: 1 of 260 values are NaN": lambda: emg.chop(np.where(np.eye(130, 2) * [0, 1], np.nan, x), sfreq=500),
        r"values: shape \(2, 99, 2\)": lambda: emg.merge(windows.values[:, 1:], windows),
        r"values: shape \(1, 100, 2\)": lambda: emg.merge(windows.values[1:], windows),
    }.items():
        with pytest.raises(ValueError, match=problem):
            call()
