"""Figures of motor maps and recruitment curves: marks and curves where the numbers put them."""

import numpy as np
import pytest

from jaxm2m import plot
from jaxm2m.muscle import motor_map, recruitment

pytestmark = pytest.mark.host

LATTICE = np.stack(np.meshgrid(np.arange(-20, 21, 5.0), np.arange(-25, 26, 5.0)), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def maps():
    centres = np.array([[5.0, -8.0], [-4.0, 3.0], [0.0, 0.0]])
    z = np.array([900.0, 300, 20]) * np.exp(-((LATTICE[:, None] - centres) ** 2).sum(-1) / 100)
    return motor_map(LATTICE, z, muscles=("FDI", "ADM", "silent"))


def panels(figure):
    return {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_title(loc="left") not in ("", "µV")}


def test_maps_and_marks_lie_at_their_millimetres(maps):
    drawn = panels(plot.motor_map(maps))
    assert list(drawn) == ["FDI", "ADM", "silent"]
    for k, name in enumerate(("FDI", "ADM")):
        image = drawn[name].images[0]
        values = np.asarray(image.get_array())
        left, right, bottom, top = image.get_extent()
        row, column = np.unravel_index(np.nanargmax(values), values.shape)
        at = (
            left + (column + 0.5) * (right - left) / values.shape[1],
            bottom + (row + 0.5) * (top - bottom) / len(values),
        )
        np.testing.assert_allclose(at, maps.hotspot[k], atol=1e-9)
        marks = {line.get_marker(): line.get_xydata()[0] for line in drawn[name].lines[1:]}
        np.testing.assert_allclose(marks["+"], maps.centre[k])
        np.testing.assert_allclose(marks["o"], maps.hotspot[k])
        assert image.get_clim() == (0, pytest.approx(np.nanmax(maps.maps[k])))
        assert drawn[name].get_xlim() == (left, right)
        np.testing.assert_array_equal(drawn[name].lines[0].get_xydata(), maps.sites)


def test_a_silent_muscle_has_an_empty_panel(maps):
    ax = panels(plot.motor_map(maps, title="Left"))["silent"]
    assert ax.images[0].get_clim() == (0, 50)
    assert np.isnan(ax.lines[1].get_xydata()).all()


def test_bars_are_in_microvolt_and_panels_of_equal_scale(maps):
    figure = plot.motor_map(maps)
    assert sum(ax.get_title(loc="left") == "µV" for ax in figure.axes) == 3
    for ax in panels(figure).values():
        figure.draw_without_rendering()
        box = ax.get_window_extent()
        assert box.width / np.ptp(ax.get_xlim()) == pytest.approx(box.height / np.ptp(ax.get_ylim()), rel=0.02)


@pytest.mark.parametrize("log", [False, True])
def test_curves_and_thresholds(log):
    x = np.linspace(30, 90, 40)
    y = 10 + np.array([500.0, 800]) / (1 + np.exp(-0.2 * (x[:, None] - [55, 65])))
    curves = recruitment(x, y, log=log, muscles=("FDI", "ADM"))
    figure = plot.recruitment(curves, label="intensity (%MSO)", title="Before")
    for k, ax in enumerate(panels(figure).values()):
        level, points, line, mark = ax.lines
        np.testing.assert_array_equal(points.get_xydata(), np.stack([x, y[:, k]], -1))
        np.testing.assert_allclose(line.get_ydata(), curves.predict(line.get_xdata())[:, k])
        np.testing.assert_allclose(mark.get_xydata()[0], [curves.threshold[k], 50])
        assert set(level.get_ydata()) == {50}
        assert ax.get_yscale() == ("log" if log else "linear")
        assert ax.get_xlabel() == "intensity (%MSO)"


def test_a_muscle_without_threshold_has_no_mark():
    x = np.linspace(30, 90, 40)
    y = np.stack([np.linspace(1, 20, 40), 100 - x], -1)
    figure = plot.recruitment(recruitment(x, y))
    assert [len(ax.lines) for ax in panels(figure).values()] == [3, 3]
