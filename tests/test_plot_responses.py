"""The figure of all muscles' MEPs at one pose."""

import pytest
from matplotlib.colors import to_hex

import jaxm2m as jm

pytestmark = pytest.mark.host

MUSCLES = ("FDI", "ADM", "FCR")


def test_bars_dots_and_colours():
    figure = jm.plot.responses(
        [810.0, 95.0, 230.0], muscles=MUSCLES, wanted=("FDI",), spared=("ADM",), marks=[700.0, 900.0, 10.0],
        label="by a full solve", title="at the best pose",
    )  # fmt: skip
    (ax,) = figure.axes
    assert [bar.get_height() for bar in ax.patches] == [810, 95, 230]
    colours = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colours[:2] == [jm.plot.style.AXES["y"], jm.plot.style.AXES["x"]]
    assert len(set(colours)) == 3
    assert list(ax.lines[0].get_ydata()) == [700, 900, 10]
    assert ax.get_ylim()[1] > 900
    assert [text.get_text() for text in ax.get_xticklabels()] == list(MUSCLES)
    assert to_hex(ax.get_xticklabels()[0].get_color()) == colours[0]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["should answer", "should not", "others", "by a full solve"]
    assert figure.texts[0].get_text() == "at the best pose"
    # a muscle alone, and silence
    (ax,) = jm.plot.responses([0.0], muscles=("FDI",)).axes
    assert ax.get_ylim()[1] > 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^meps: shape \(2,\); give one MEP for each of 3 muscles"):
        jm.plot.responses([1.0, 2.0], muscles=MUSCLES)
    with pytest.raises(ValueError, match=r"^marks: shape \(1,\)"):
        jm.plot.responses([1.0, 2.0, 3.0], muscles=MUSCLES, marks=[1.0])
    with pytest.raises(ValueError, match=r"^wanted: BRD; the muscles are FDI, ADM, FCR"):
        jm.plot.responses([1.0, 2.0, 3.0], muscles=MUSCLES, wanted=("BRD",))
