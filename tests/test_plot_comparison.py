"""The figure of a comparison and that of predictions: the right numbers in the right panels."""

import numpy as np
import pandas as pd
import pytest

from jaxm2m import plot
from jaxm2m.muscle import Comparison

pytestmark = pytest.mark.host

PATHWAYS = ("direct", "synergy", "combined")


def made(kinds=("E-field", "firing rate"), heads=PATHWAYS, muscles=("FDI", "ADM", "APB"), count=60, folds=4):
    rng = np.random.default_rng(0)
    measured = rng.gamma(1.0, 200.0, (count, len(muscles)))
    fold = np.arange(count) % folds
    largest = np.stack([measured[fold != f].max(0) for f in range(folds)])
    variants = tuple(f"{kind}, {head}" for kind in kinds for head in heads)
    scatter = 1 + 0.3 * rng.normal(size=(len(variants), *measured.shape))
    predicted = np.clip(measured / largest[fold] * scatter, 0, 1)
    networks = pd.DataFrame({"variant": variants})
    return Comparison(variants, muscles, measured, predicted, largest, fold, np.full(folds, 2), networks)


def maps(figure):
    return [ax for ax in figure.axes if ax.images]


def panels(figure):
    """The panels of the scores, by the beginning of their label."""
    return {ax.get_xlabel().split(" ")[0]: ax for ax in figure.axes if ax.lines}


def test_maps_show_the_same_stimuli_on_one_scale():
    result = made()
    figure = plot.comparison(result)
    measured, predicted = result.values()
    first, *others = maps(figure)
    assert [ax.get_title(loc="left") for ax in others] == [*PATHWAYS, *PATHWAYS]
    shown = np.asarray(first.images[0].get_array()).T
    assert shown.shape == (30, 3)
    rows = [int(np.flatnonzero((measured == one).all(1))[0]) for one in shown]
    totals = measured.sum(1)[rows]
    assert (np.diff(totals) >= 0).all()
    assert (totals[0], totals[-1]) == (measured.sum(1).min(), measured.sum(1).max())
    for v, ax in enumerate(others):
        np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()).T, predicted[v][rows])
    for ax in maps(figure):
        assert ax.images[0].get_clim() == (0, 1)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["FDI", "ADM", "APB"]
    assert sum("largest in training" in ax.get_xlabel() for ax in figure.axes) == 1


def test_scores_and_intervals_are_those_of_the_table():
    result = made()
    table = result.table.xs(("scaled", "pooled"), level=("unit", "kind"))
    drawn = panels(plot.comparison(result))
    assert list(drawn) == ["cosine", "scale", "NRMSE"]
    for (name, ax), score in zip(drawn.items(), ("cosine", "s1", "nrmse"), strict=True):
        bars, dots = ax.lines[::2], ax.lines[1::2]
        np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], table[score])
        np.testing.assert_allclose([bar.get_xdata() for bar in bars], table[[f"{score}_low", f"{score}_high"]])
        low, high = ax.get_xlim()
        assert low < table[f"{score}_low"].min() < table[f"{score}_high"].max() < high, name
        assert len({dot.get_ydata()[0] for dot in dots}) == 6


def test_letters_follow_the_panels():
    def letters(figure):
        return [text.get_text() for text in figure.texts if len(text.get_text()) == 1]

    assert letters(plot.comparison(made())) == ["A", "B", "C", "D"]
    figure = plot.comparison(
        made(("firing rate",), ("direct",), ("FDI",), count=12, folds=2), title="One variant, one muscle"
    )
    assert letters(figure) == ["A", "B", "C"]
    assert len(maps(figure)) == 2
    assert np.asarray(maps(figure)[0].images[0].get_array()).shape == (1, 12)
    assert [text.get_text() for text in figure.texts if text.get_text().startswith("One")]


@pytest.mark.parametrize("count", [1, 15])
def test_nothing_overlaps(count):
    """Panels and their words, for few muscles and for many."""
    figure = plot.comparison(made(muscles=tuple(f"m{k}" for k in range(count))))
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for i, one in enumerate(boxes):
        assert figure.bbox.containsx(one.x0)
        assert figure.bbox.containsx(one.x1)
        assert figure.bbox.containsy(one.y0)
        assert figure.bbox.containsy(one.y1)
        assert not any(one.padded(-1).overlaps(other.padded(-1)) for other in boxes[:i])


def test_predictions_lie_over_what_was_measured():
    result = made()
    uv, found = result.values("uV")
    figure = plot.predictions(uv, found[0], muscles=result.muscles, title="others")
    drawn = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert list(drawn) == list(result.muscles)
    for k, name in enumerate(result.muscles):
        line, dots = drawn[name].lines
        np.testing.assert_array_equal(dots.get_xydata(), np.stack([uv[:, k], found[0, :, k]], -1))
        np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
        assert drawn[name].get_xlim() == drawn[name].get_ylim()
        nrmse = np.linalg.norm(uv[:, k] - found[0, :, k]) / np.linalg.norm(uv[:, k])
        assert drawn[name].get_title(loc="right") == f"NRMSE {nrmse:.2f}"
