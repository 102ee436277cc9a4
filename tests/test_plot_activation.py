"""The figure of inferred activation: the right samples at the right seconds."""

import numpy as np
import pytest

from jaxm2m import emg, plot
from jaxm2m.emg import Activation

pytestmark = pytest.mark.host

NAMES = ("TA", "GM", "VL")


@pytest.fixture(scope="module")
def data():
    """Three trials of 1 s at 500 Hz."""
    rng = np.random.default_rng(0)
    return emg.preprocess(rng.gamma(1.5, 1.0, (3, 500, 3)), 500, channels=list(NAMES), rectified=True, screen=None)


def inferred(data, margin=0):
    samples = [0.5 * trial[margin : len(trial) - margin] for trial in data.by_trial()]
    edges = np.cumsum([0, *map(len, samples)])
    whole = np.concatenate(samples)
    return Activation(whole, whole[:, :2], whole[:, :1], 500.0, data.channels, np.stack([edges[:-1], edges[1:]], -1))


def rows(figure):
    return {ax.get_ylabel(): ax for ax in figure.axes}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_rows_are_channels_over_seconds_of_the_trial(data):
    found = inferred(data)
    figure = plot.activation(found, data, trial=1, channels=("VL", "TA"), time=(0.2, 0.6), title="walking")
    drawn = rows(figure)
    assert list(drawn) == ["VL", "TA"]
    assert drawn["TA"].get_xlabel() == "time (s)"
    assert drawn["VL"].get_xlim() == (0.2, 0.6)
    for name, ax in drawn.items():
        (line,) = ax.lines
        x, y = line.get_data()
        np.testing.assert_allclose(x, np.arange(100, 301) / 500)
        np.testing.assert_array_equal(y, found.samples[600:801, NAMES.index(name)])
        # the recording behind it, of the same samples
        corners = ax.collections[0].get_paths()[0].vertices
        own = data.samples[600:801, NAMES.index(name)]
        assert set(np.round(own, 6)) <= set(np.round(corners[:, 1], 6))
        assert ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] >= y.max()
    assert legend(figure) == ["recording", "inferred"]


def test_truth_and_filters_in_each_layout(data):
    found = inferred(data)
    by_trial = np.stack(data.by_trial()) + 1
    figure = plot.activation(
        found,
        data,
        trial=2,
        truth=by_trial,
        filters={"whole": data.samples + 2, "list": [trial + 3 for trial in data.by_trial()]},
    )
    assert legend(figure) == ["recording", "whole", "list", "inferred", "truth"]
    for k, ax in enumerate(rows(figure).values()):
        whole, listed, _, truth = (line.get_ydata() for line in ax.lines)
        own = data.by_trial()[2][:, k]
        np.testing.assert_allclose(whole, own + 2)
        np.testing.assert_allclose(listed, own + 3)
        np.testing.assert_allclose(truth, own + 1)
        assert len({line.get_color() for line in ax.lines}) == 4


def test_margins_that_the_model_used_stay_empty(data):
    found = inferred(data, margin=6)
    for truth in (data.samples, found.samples):
        figure = plot.activation(found, data, trial=1, truth=truth)
        line, true = rows(figure)["GM"].lines
        values = line.get_ydata()
        assert np.isnan(values[:6]).all()
        assert np.isnan(values[-6:]).all()
        np.testing.assert_array_equal(values[6:-6], found.by_trial()[1][:, 1])
        np.testing.assert_allclose(true.get_ydata()[6:-6], truth[506 if truth is data.samples else 488 :][:488, 1])


def test_picked_trials_are_found_in_the_whole_recording(data):
    some = data.pick([2, 0])
    figure = plot.activation(inferred(some), some, filters={"itself": data.samples})
    np.testing.assert_array_equal(rows(figure)["TA"].lines[0].get_ydata(), data.samples[1000:1500, 0])


def test_a_long_trial_shows_its_beginning():
    rng = np.random.default_rng(0)
    long = emg.preprocess(rng.gamma(1.5, 1.0, (4000, 1)), 500, channels=["TA"], rectified=True)
    figure = plot.activation(inferred(long), long)
    assert rows(figure)["TA"].get_xlim() == (0, 3)


def test_nothing_overlaps(data):
    figure = plot.activation(
        inferred(data), data, truth=data.samples, filters={"low-pass 10 Hz": data.samples}, title="x"
    )
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    boxes += [text.get_window_extent() for text in figure.texts]
    for i, one in enumerate(boxes):
        assert figure.bbox.x0 <= one.x0
        assert one.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= one.y0
        assert one.y1 <= figure.bbox.y1
        assert not any(one.padded(-2).overlaps(other.padded(-2)) for other in boxes[:i])


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"channels": ("SOL",)}, "channels: 'SOL'"),
        ({"channels": ()}, "channels: none"),
        ({"trial": 3}, "trial: 3; there are 3"),
        ({"time": (0.5, 0.2)}, "time: "),
        ({"time": (0.5, 1.2)}, "lasts from 0 to 1 s"),
        ({"time": (0.5, 0.5001)}, "hold no two samples"),
        ({"truth": np.ones((10, 3))}, "truth: shape"),
        ({"filters": {"odd": np.ones((3, 400, 3))}}, r"filters\['odd'\]: shape"),
        ({"filters": {str(k): np.ones((1500, 3)) for k in range(5)}}, "filters: 5"),
    ],
)
def test_what_cannot_be_drawn_is_named(data, how, named):
    with pytest.raises(ValueError, match=named):
        plot.activation(inferred(data), data, **how)


def test_another_recording_is_refused(data):
    with pytest.raises(ValueError, match="emg: Rectified"):
        plot.activation(inferred(data), data.pick([0]))
    short = inferred(data)
    shifted = Activation(
        short.samples, short.factors, short.inputs, 500.0, short.channels, short.trials + np.array([0, -3])
    )
    with pytest.raises(ValueError, match="trial 0 has 500 samples"):
        plot.activation(shifted, data)
