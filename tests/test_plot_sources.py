"""Figures of sources: densities, circles and curves where the numbers put them."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from matplotlib.patches import Circle

import jaxm2m as jm
from jaxm2m import plot

pytestmark = pytest.mark.host

MUSCLES = ("FDI", "ADM", "BRD")


@pytest.fixture(scope="module")
def session():
    """Fields at sixty points of grey matter, and MEPs of three muscles that three of them drive."""
    random = np.random.default_rng(0)
    points = np.array([-40.0, -20, 50]) + random.uniform(-12, 12, (60, 3))
    sites = points.mean(0) + 10 * random.normal(size=(40, 3))
    size = 100 * np.exp(-((points - sites[:, None]) ** 2).sum(-1) / (2 * 15.0**2))
    drive = size[:, [5, 20, 40]]
    meps = jm.simulate.mep(jax.random.key(0), 0.75 + 0.55 * drive / np.percentile(drive, 98, axis=0))
    fields = size[..., None] * np.array([0.6, 0.8, 0])
    return points, fields, np.asarray(meps)


@pytest.fixture(scope="module")
def sources(session):
    points, fields, meps = session
    return jm.muscle.fit_sources(
        fields,
        meps,
        grid=jm.efield.Points(points),
        grey=np.ones(len(points), bool),
        muscles=MUSCLES,
        centre=points.mean(0),
        prior=jm.muscle.DensityPrior(),
        key=jax.random.key(1),
        n_draw=16,
    )


def panels(figure):
    """Axes with a picture: six a muscle, three of the mean, three of the standard deviation."""
    return [ax for ax in figure.axes if ax.images]


def test_densities_keep_their_sum_and_their_place(sources):
    drawn = panels(plot.sources(sources, "ADM"))
    assert len(drawn) == 6
    mean, _ = sources.density("ADM")
    points = np.asarray(sources.points, float)
    for ax, (right, up) in zip(drawn[:3], ((1, 2), (0, 2), (0, 1)), strict=True):
        image = np.asarray(ax.images[0].get_array().data)
        x0, x1, y0, y1 = ax.images[0].get_extent()
        pixel = (x1 - x0) / image.shape[1]
        assert (y1 - y0) / image.shape[0] == pytest.approx(pixel)
        assert image.sum() / 100 * (pixel / 10) ** 2 == pytest.approx(1, abs=1e-3)
        x = x0 + pixel * (np.arange(image.shape[1]) + 0.5)
        y = y0 + pixel * (np.arange(image.shape[0]) + 0.5)
        middle = (image.sum(0) @ x / image.sum(), image.sum(1) @ y / image.sum())
        np.testing.assert_allclose(middle, mean @ points[:, [right, up]], atol=pixel / 2)


def test_deviations_are_those_of_the_projected_draws(sources):
    top = panels(plot.sources(sources, "FDI"))[5]
    one = sources.sample(jax.random.key(0), 1)
    assert np.asarray(top.images[0].get_array().data).max() > 0.1
    assert np.asarray(panels(plot.sources(one, "FDI"))[5].images[0].get_array().data).max() < 1e-6


def test_hot_spots_and_circles_are_those_of_the_table(sources):
    figure = plot.sources(sources, ("BRD", "FDI"), title="Left")
    table = sources.hotspots()
    for row, name in enumerate(("BRD", "FDI")):
        spot = table.loc[name]
        for ax, axes in zip(panels(figure)[6 * row : 6 * row + 3], ("yz", "xz", "xy"), strict=True):
            place = [spot[axis] for axis in axes]
            np.testing.assert_allclose(ax.lines[0].get_xydata()[0], place)
            circles = [patch for patch in ax.patches if isinstance(patch, Circle)]
            assert {round(c.radius, 9) for c in circles} == {round(spot[r], 9) for r in ("radius_50", "radius_90")}
            for circle in circles:
                np.testing.assert_allclose(circle.center, place)
            (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
            assert left + spot["radius_90"] < place[0] < right - spot["radius_90"]
            assert low + spot["radius_90"] < place[1] < high - spot["radius_90"]


def test_panels_have_one_scale(sources):
    figure = plot.sources(sources)
    figure.draw_without_rendering()
    scales = [
        length / np.ptp(limits)
        for ax in panels(figure)
        for length, limits in zip(ax.get_window_extent().size, (ax.get_xlim(), ax.get_ylim()), strict=True)
    ]
    assert len(scales) == 36
    np.testing.assert_allclose(scales, scales[0], rtol=1e-6)


def test_muscles_without_sources_are_left_out_or_refused(sources):
    silent = replace(sources, unidentified=(("ADM", "it never answered"),))
    assert len(panels(plot.sources(silent))) == 12
    with pytest.raises(ValueError, match=r"muscles: the session says nothing of ADM \(it never answered\)"):
        plot.sources(silent, ["FDI", "ADM"])
    with pytest.raises(ValueError, match="muscles: 'EDC'"):
        plot.sources(sources, "EDC")
    with pytest.raises(ValueError, match="muscles: none"):
        plot.sources(sources, [])
    nothing = replace(sources, unidentified=tuple((name, "silent") for name in MUSCLES))
    with pytest.raises(ValueError, match="sources: the session says nothing of any muscle"):
        plot.sources(nothing)


def test_curves_bands_and_dots(session, sources):
    _, fields, meps = session
    drive = np.asarray(sources.drive(fields))
    figure = plot.source_recruitment(sources, drive=drive, meps=meps, title="Curves")
    thresholds = sources.describe_curves()["threshold"]
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(MUSCLES)
    for k, ax in enumerate(figure.axes):
        level, dots, mean, middle, bar, mark = ax.lines
        assert set(level.get_ydata()) == {50}
        np.testing.assert_array_equal(dots.get_xydata(), np.stack([drive[:, k], meps[:, k]], -1))
        np.testing.assert_allclose(mean.get_ydata(), sources.evaluate_curves(mean.get_xdata())[:, k].mean(0), rtol=1e-6)
        rises = mean.get_ydata() < 500
        assert (middle.get_ydata() < mean.get_ydata())[rises].all()
        low, high = ax.collections[0].get_datalim(ax.transData).intervaly
        assert low < mean.get_ydata().min()
        assert high > mean.get_ydata().max()
        np.testing.assert_allclose(bar.get_xdata(), np.quantile(thresholds[:, k], [0.05, 0.95]))
        np.testing.assert_allclose(mark.get_xydata()[0], [np.median(thresholds[:, k]), 50])
        bottom, top = ax.get_ylim()
        assert bottom < meps.min()
        assert top > meps.max()


def test_drives_lead_to_the_responses_by_each_draws_curve(session, sources):
    _, fields, _ = session
    for one in (sources.sample(jax.random.key(k), 1) for k in range(2)):
        drive = np.asarray(one.drive(fields[:5]))
        responses = np.asarray(one(fields[:5]))
        for k in range(len(MUSCLES)):
            np.testing.assert_allclose(one.evaluate_curves(drive[:, k])[0, k], responses[:, k], rtol=2e-3)
        np.testing.assert_allclose(np.percentile(one.drive(fields), 98, axis=0), 1, rtol=1e-4)
    with pytest.raises(ValueError, match="e: shape"):
        sources.drive(fields[:, :7])
    with pytest.raises(ValueError, match="drive: -1; must be zero or above"):
        sources.evaluate_curves([-1.0, 1])


def test_thresholds_are_those_of_the_generator(sources):
    thresholds = sources.describe_curves()["threshold"]
    # the strongest drive adds 0.55 to 0.75, and the mean reaches 50 uV just below 1
    strength = np.linspace(0.8, 1.1, 301)
    truth = (np.interp(50, np.asarray(jm.simulate.expected_mep(strength)), strength) - 0.75) / 0.55
    np.testing.assert_allclose(thresholds.mean(0), truth, atol=0.12)
    # in units of its own strongest drive each draw says about the same
    assert (thresholds.std(0) < 0.12).all()


def test_flagged_missing_and_unidentified_have_no_dots_or_curves(session, sources):
    _, fields, amplitude = session
    amplitude = amplitude.copy()
    amplitude[0, 0] = np.nan
    reasons = np.full(amplitude.shape, "")
    reasons = reasons.astype("<U8")
    reasons[1, 0] = "artefact"
    meps = jm.muscle.Meps(amplitude, np.full(amplitude.shape, np.nan), reasons, MUSCLES)
    silent = replace(sources, unidentified=(("ADM", "it never answered"),))
    figure = plot.source_recruitment(silent, drive=sources.drive(fields), meps=meps)
    missing = np.isnan(figure.axes[0].lines[1].get_ydata())
    assert missing[:2].all()
    assert not missing[2:].any()
    assert [text.get_text() for text in figure.axes[1].texts] == ["not identified"]
    assert not figure.axes[1].collections
    assert len(plot.source_recruitment(sources).axes[0].lines) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"meps": np.ones((4, 3))}, r"drive: missing; pass both drive=sources\.drive\(fields\)"),
        ({"drive": np.ones((4, 3))}, "meps: missing"),
        ({"drive": np.ones((4, 2)), "meps": np.ones((4, 3))}, r"drive: shape \(4, 2\)"),
        ({"drive": np.ones((4, 3)), "meps": np.ones((5, 3))}, "the same for drive and meps"),
        ({"share": 1.0}, "share: 1; it must lie between 0 and 1"),
    ],
)
def test_bad_input_is_named(sources, options, words):
    with pytest.raises(ValueError, match=words):
        plot.source_recruitment(sources, **options)


def test_predictions_leave_out_what_is_missing_or_flagged(session, sources):
    _, fields, amplitude = session
    amplitude = amplitude.copy()
    amplitude[0, 0] = np.nan
    reasons = np.full(amplitude.shape, "", dtype="<U8")
    reasons[1, 0] = "artefact"
    meps = jm.muscle.Meps(amplitude, np.full(amplitude.shape, np.nan), reasons, MUSCLES)
    predicted = np.asarray(sources(fields))
    for measured, left_out in ((meps, 2), (amplitude, 1)):
        first, second, _ = plot.predictions(measured, predicted, muscles=MUSCLES).axes
        np.testing.assert_array_equal(
            first.lines[1].get_xydata(), np.stack([amplitude[left_out:, 0], predicted[left_out:, 0]], -1)
        )
        assert len(second.lines[1].get_xydata()) == len(amplitude)
        nrmse = np.linalg.norm((predicted - amplitude)[left_out:, 0]) / np.linalg.norm(amplitude[left_out:, 0])
        assert first.get_title(loc="right") == f"NRMSE {nrmse:.2f}"
    amplitude[:, 1] = np.nan
    with pytest.raises(ValueError, match="measured: no MEP of ADM"):
        plot.predictions(amplitude, predicted, muscles=MUSCLES)
    with pytest.raises(ValueError, match=r"predicted: shape \(40, 2\)"):
        plot.predictions(amplitude, predicted[:, :2], muscles=MUSCLES)


def test_predictions_of_sources_beside_measured(session, sources):
    _, fields, meps = session
    figure = plot.predictions(meps, sources(fields), muscles=MUSCLES)
    predicted = np.asarray(sources(fields))
    for k, ax in enumerate(figure.axes):
        np.testing.assert_allclose(ax.lines[1].get_xydata(), np.stack([meps[:, k], predicted[:, k]], -1))
