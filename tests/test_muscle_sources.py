"""Sources: recovery, derivatives, what a quantile changes, files, and input that goes wrong."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cheap_map import TARGET, cheap_map

import jaxm2m as jm
from jaxm2m.muscle.sources import make_bumps, rank_truths
from jaxm2m.muscle.sources._density import weigh_bumps
from jaxm2m.muscle.sources._drift import make_no_drift
from jaxm2m.muscle.sources._posterior import (
    Measured,
    describe_mode,
    draw_posterior,
    draw_prior,
    find_mode,
    measure_drive,
)
from jaxm2m.muscle.sources._posterior_check import check_posterior
from jaxm2m.muscle.sources._recruitment_curve import (
    N_NUMBER,
    RecruitmentCurve,
    curve_from,
    draw_response,
    log_likelihood,
    make_curve_prior,
    mean_response,
    probability_below,
)

SHAPE, SPACING = (10, 10, 7), 5.0
# they climb and walk for longer than they compile
pytestmark = pytest.mark.optimized

GRID = jm.efield.Grid.around(TARGET, SHAPE, SPACING)
RATE = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
PRIOR = jm.muscle.DensityPrior(width=7.0, correlation=10.0)


def make_session(n=90, seed=0, muscles=("FDI", "ADM", "ECR")):
    """A map, and a session on it."""
    at_roi = cheap_map(SHAPE, SPACING)
    made = jm.simulate.mapping_session(
        at_roi, key=jax.random.key(seed), rate=RATE, target=TARGET, stimuli=n, gain=0.6, muscles=muscles, synergies=2
    )
    fields = np.asarray(at_roi(made.poses, didt=1e6) * made.didt[:, None, None] / 1e6)
    return at_roi, made, fields


def fit(session, meps=None, **settings):
    at_roi, made, fields = session
    settings = {"grey": at_roi, "rate": RATE, "muscles": made.muscles, "prior": PRIOR, "n_draw": 32} | settings
    meps = np.asarray(made.meps) if meps is None else meps
    return jm.muscle.fit_sources(fields, meps, grid=GRID, key=jax.random.key(1), **settings)


@pytest.fixture(scope="module")
def session(precision):
    return make_session()


@pytest.fixture(scope="module")
def sources(session):
    return fit(session)


def test_hot_spots_are_near_the_truth(session, sources):
    truth = session[1].hotspots()
    truth = truth[truth["place"] == 0][["x", "y", "z"]].to_numpy()
    table = sources.hotspots()
    error = np.linalg.norm(table[["x", "y", "z"]].to_numpy() - truth, axis=1)
    assert np.median(error) < 6
    draws = sources.centroids()
    spread = np.quantile(np.linalg.norm(draws - draws.mean(0), axis=2), [0.5, 0.9], axis=0)
    assert (error < 2 * spread[1]).all()
    # and 1 mm along each axis: chi-square of three degrees of freedom
    for name, own, more in zip(("radius_50", "radius_90"), spread, (2.366, 6.251), strict=True):
        np.testing.assert_allclose(table[name] ** 2, own**2 + more, rtol=1e-3)
    assert (table["reason"] == "").all()
    np.testing.assert_allclose(sources.density()[0].sum(1), 1, rtol=1e-5)


def test_mean_responses_follow_the_truth(session, sources):
    _, made, fields = session
    predicted, true = np.log(np.asarray(sources(fields))), np.log(np.asarray(made.mean))
    assert np.corrcoef(predicted.ravel(), true.ravel())[0, 1] > 0.95
    assert np.sqrt(np.mean((predicted - true) ** 2)) < 0.5
    low, high = np.asarray(sources.interval(fields, 0.9))
    assert (low < high).all()
    assert ((low < np.exp(true)) & (np.exp(true) < high)).mean() > 0.6


def test_fields_alone_and_on_the_grid(session, sources, tolerance):
    fields = session[2][:4]
    many = np.asarray(sources(fields))
    np.testing.assert_allclose(many, np.stack([sources(e) for e in fields]), rtol=tolerance(2e-5, 1e-12))
    np.testing.assert_allclose(sources(fields.reshape(4, *SHAPE, 3)), many, rtol=1e-6)
    members = np.asarray(sources.predict_members(fields))
    np.testing.assert_allclose(members.mean(1) * np.asarray(sources.largest), many, rtol=tolerance(2e-5, 1e-12))
    with pytest.raises(ValueError, match=r"e: shape \(4, 12, 3\)"):
        sources(np.zeros((4, 12, 3)))


@pytest.mark.slow
@pytest.mark.float64
def test_gradient_in_the_pose(session, sources):
    at_roi, made, _ = session
    objective = jm.muscle.activate(sources, "FDI", avoid="ADM", risk=0.25)
    didt = float(made.didt[0])

    def value(twist):
        return objective(at_roi(jm.coil.move(made.poses[3], twist), didt=didt))

    slope = np.asarray(jax.grad(value)(jnp.zeros(6)))
    h = 1e-5
    steps = h * np.eye(6)
    differences = np.array([(value(jnp.asarray(s)) - value(jnp.asarray(-s))) / (2 * h) for s in steps])
    np.testing.assert_allclose(slope, differences, atol=1e-6 * np.abs(slope).max())


@pytest.mark.float32
def test_gradient_in_the_pose_in_single_precision(session, sources):
    at_roi, made, _ = session
    objective = jm.muscle.activate(sources, "FDI", avoid="ADM")
    didt = float(made.didt[0])

    def value(twist):
        return objective(at_roi(jm.coil.move(made.poses[3], twist), didt=didt))

    slope = np.asarray(jax.grad(value)(jnp.zeros(6)))
    # mm, and as much of a turn at the coil's edge
    h = np.array([0.3, 0.3, 0.3, 0.003, 0.003, 0.003])
    steps = [np.eye(6, dtype=np.float32)[i] * h[i] for i in range(6)]
    slopes = slope * h
    central = np.array([float(value(jnp.asarray(s)) - value(jnp.asarray(-s))) / 2 for s in steps])
    wide = np.array([float(value(jnp.asarray(2 * s)) - value(jnp.asarray(-2 * s))) / 4 for s in steps])
    # Richardson's step removes what the curvature adds
    np.testing.assert_allclose(slopes, (4 * central - wide) / 3, atol=1e-3 * np.abs(slopes).max())


def choose_bumps(sources):
    """Three bumps far from each other."""
    places = np.asarray(sources.kernel) @ np.asarray(sources.points)
    away = np.linalg.norm(places - places[:, None], axis=2)
    second = away[0].argmax()
    return 0, int(second), int(np.minimum(away[0], away[second]).argmax())


def two_opinions(sources):
    """Four draws: three say that one bump drives A, one that another does; B is at a third."""
    first, second, third = choose_bumps(sources)
    weights = np.zeros((4, 2, sources.weights.shape[2]))
    weights[:3, 0, first] = weights[3, 0, second] = weights[:, 1, third] = 1
    curve = curve_from(jnp.zeros(N_NUMBER), make_curve_prior(rates=True))
    curves = RecruitmentCurve(*(jnp.broadcast_to(number, (4, 2)) for number in curve))
    return replace(
        sources, weights=jnp.asarray(weights, curve.rest.dtype), curves=curves, muscles=("A", "B"),
        largest=jnp.full(2, 1000.0), strongest=jnp.full(2, 0.01), unidentified=(),
    )  # fmt: skip


def test_risk_leads_elsewhere_than_the_expectation(sources):
    model = two_opinions(sources)
    kernel, grey = np.asarray(model.kernel), np.asarray(model.activity.grey)

    def field(*strength):
        e = np.zeros((model.activity.n_point, 3), np.asarray(kernel).dtype)
        for bump, size in zip(choose_bumps(sources), strength, strict=True):
            e[grey[kernel[bump] > 0.1 * kernel[bump].max()], 0] = size
        return jnp.asarray(e)

    # the first answers by far the most if three draws in four are right; the second does a little, whoever is
    bold, cautious = field(90.0, 0.0, 58.0), field(63.0, 63.0, 58.0)
    answers = np.asarray(model.responses(bold))[:, 0], np.asarray(model.responses(cautious))[:, 0]
    assert answers[0][0] > 1.5 * answers[1][0]
    assert answers[1][3] > 3 * answers[0][3]
    expectation = jm.muscle.activate(model, "A", avoid="B")
    careful = jm.muscle.activate(model, "A", avoid="B", risk=0.1)
    assert expectation(bold) > expectation(cautious)
    assert careful(bold) < careful(cautious)


def test_a_reference_is_what_the_least_is_a_share_of(session, sources):
    fields = session[2]
    strongest = int(np.asarray(sources(fields))[:, 0].argmax())
    objective = jm.muscle.activate(sources, "FDI", avoid="ADM", reference=jnp.asarray(fields[strongest]))
    expected = sources.predict_members(fields[strongest])[:, [0]]
    np.testing.assert_allclose(objective.strongest, expected, rtol=1e-6)
    # there nothing is lacking
    p = sources.predict_members(fields[strongest])
    share = (p[:, 0] / (p[:, 0] + p[:, 1])).mean()
    np.testing.assert_allclose(objective(jnp.asarray(fields[strongest])), share, rtol=1e-5)
    with pytest.raises(ValueError, match="risk: 1; give the share"):
        jm.muscle.activate(sources, "FDI", risk=1.0)


def test_meps_tell_which_stimulus_it_was(session, sources):
    _, made, fields = session
    meps = np.asarray(made.meps, float)
    heights = np.asarray(sources.log_likelihood(meps[:30], fields))
    assert heights.shape == (30, 90)
    rank = (heights > heights[np.arange(30), np.arange(30)][:, None]).mean(1)
    # by chance 0.5
    assert rank.mean() < 0.35
    with pytest.raises(ValueError, match="meps: 0; must be above zero"):
        sources.log_likelihood(np.zeros((1, 3)), fields)


def test_samples_are_draws(session, sources):
    few = sources.sample(jax.random.key(0), 5)
    assert few.weights.shape[0] == 5
    rows = np.asarray(sources.weights).reshape(len(sources.weights), -1)
    for row in np.asarray(few.weights).reshape(5, -1):
        assert (rows == row).all(1).any()
    assert len(sources.sample(jax.random.key(0), 100).weights) == 100
    assert few(session[2][0]).shape == (3,)


def test_files(session, sources, tmp_path):
    path = sources.save(tmp_path / "sources.h5")
    for load in (jm.muscle.Sources.load, jm.muscle.load):
        again = load(path)
        np.testing.assert_array_equal(again(session[2][:3]), sources(session[2][:3]))
        assert again.hotspots().equals(sources.hotspots())
        assert (again.muscles, again.prior, again.grid.shape) == (sources.muscles, sources.prior, SHAPE)
    with pytest.raises(ValueError, match="holds no sources"):
        jm.muscle.Sources.load(_other(tmp_path))


def _other(folder):
    import h5py

    with h5py.File(folder / "other.h5", "w") as file:
        file.attrs["content"] = "comparison"
    return folder / "other.h5"


def test_maps(sources, tmp_path):
    import nibabel

    image = nibabel.load(sources.maps(tmp_path / "density.nii.gz"))
    volume = image.get_fdata()
    assert volume.shape == (*SHAPE, 3)
    np.testing.assert_allclose(volume.sum((0, 1, 2)) * SPACING**3, 1, rtol=1e-4)
    deviation = nibabel.load(sources.maps(tmp_path / "deviation.nii.gz", "deviation")).get_fdata()
    assert (deviation >= 0).all()
    assert deviation.max() > 0


@pytest.mark.slow
@pytest.mark.float32
def test_missing_and_flagged_meps_count_for_nothing(session):
    _, made, _ = session
    meps = np.asarray(made.meps, float)
    rng = np.random.default_rng(0)
    lost = rng.uniform(size=meps.shape) < 0.2
    empty = np.where(lost, np.nan, meps)
    reasons = np.where(lost, "background: 99 uV RMS", "")
    flagged = jm.muscle.Meps(np.where(lost, 1e5, meps), np.full(meps.shape, np.nan), reasons, made.muscles)
    one, other = fit(session, empty), fit(session, flagged, muscles=None)
    np.testing.assert_array_equal(one.weights, other.weights)
    assert other.muscles == made.muscles
    assert float(other.largest.max()) < 1e5


@pytest.mark.slow
@pytest.mark.float32
def test_units_of_the_field_do_not_matter_without_a_rate(session):
    _, made, fields = session
    one = fit(session, rate=None)
    other = fit((session[0], made, 1e3 * fields), rate=None)
    np.testing.assert_allclose(one.hotspots()["x"], other.hotspots()["x"], atol=0.5)
    np.testing.assert_allclose(one(fields[:3]), other(1e3 * fields[:3]), rtol=0.05)
    normals = np.broadcast_to([0.0, 1.0, 0.0], fields.shape[1:])
    along = fit(session, rate=None, normals=normals)
    e = fields[:1].copy()
    e[..., 1] = np.maximum(e[..., 1], 0)
    e[..., [0, 2]] = 0
    np.testing.assert_allclose(along(fields[:1]), along(e), rtol=1e-4)


@pytest.mark.float32
def test_muscles_of_which_nothing_is_known_say_so(session):
    _, made, _ = session
    meps = np.asarray(made.meps, float)
    meps[:, 1] = 8 + 0.3 * np.random.default_rng(0).normal(size=len(meps))
    meps[5:, 2] = np.nan
    model = fit(session, meps)
    table = model.hotspots()
    assert table["reason"].str.contains("never answered").tolist() == [False, True, False]
    assert table["reason"].str.contains("5 MEPs that may be used").tolist() == [False, False, True]
    assert table["x"].isna().tolist() == [False, True, True]
    with pytest.raises(ValueError, match="muscle: the session tells nothing of ADM"):
        jm.muscle.activate(model, "FDI", avoid="ADM")


def test_input_that_goes_wrong(session):
    at_roi, made, fields = session
    meps = np.asarray(made.meps, float)
    cases = [
        ({"meps": meps[:3], "fields": fields[:3]}, "meps: 3 stimuli of 3 muscles; a source needs more"),
        ({"meps": np.full(meps.shape, 9.0)}, "meps: none of 270 reaches 50 uV"),
        ({"meps": -meps}, "meps: negative or infinite"),
        ({"meps": meps[:-1]}, "meps: 89 stimuli, fields has 90"),
        ({"fields": np.broadcast_to(fields[:1], fields.shape)}, "rate: the activity of the grey points does not vary"),
        ({"grey": np.zeros(fields.shape[1], bool)}, "grid: none of its points with a field is grey matter"),
        ({"grey": cheap_map(SHAPE, SPACING, grey=False)}, "grid: none of its points with a field is grey matter"),
        ({"grey": np.ones(5, bool)}, "grey: bool of shape"),
        (
            {"grey": np.ones(SHAPE[::-1], bool)},
            r"grey: bool of shape \(7, 10, 10\); pass bool, \(700,\) or \(10, 10, 7\)",
        ),
        (
            {"grey": cheap_map(SHAPE, SPACING, target=TARGET + 3)},
            "grey: a field map of 700 points that are not the 700",
        ),
        ({"fields": fields.reshape(90, *SHAPE[::-1], 3)}, r"fields: shape \(90, 7, 10, 10, 3\); for this grid"),
        ({"rate": None, "normals": np.ones((*SHAPE[::-1], 3))}, r"normals: normals of shape \(7, 10, 10, 3\); pass"),
        ({"centre": (0.0, 0.0, -500.0)}, "grid: no grey matter within"),
        ({"muscles": ("a", "b")}, "muscles: 2 names for 3 columns"),
        ({"fields": np.where(np.arange(90)[:, None, None] == 4, np.nan, fields)}, r"fields: 1 of 90 hold NaN .* \(4\)"),
        ({"normals": np.ones((4, 3))}, "normals: given beside `rate`"),
    ]
    for change, message in cases:
        arguments = {"fields": fields, "meps": meps} | change
        settings = {"grey": at_roi, "rate": RATE, "muscles": made.muscles, "prior": PRIOR} | {
            k: v for k, v in change.items() if k not in ("fields", "meps")
        }
        with pytest.raises(ValueError, match=message):
            jm.muscle.fit_sources(arguments["fields"], arguments["meps"], grid=GRID, key=jax.random.key(0), **settings)
    with pytest.raises(ValueError, match="spread: 0; must be above zero"):
        jm.muscle.DensityPrior(spread=0.0)


@pytest.mark.slow
@pytest.mark.float32
def test_grey_matter_that_nobody_told_is_assumed_aloud(session):
    with pytest.warns(UserWarning, match="grey: none was passed; all .* points with a field"):
        fit(session, grey=None, n_draw=2)


@pytest.mark.float64
def test_noise_and_mean_are_those_of_the_curve():
    curve = curve_from(jnp.zeros(N_NUMBER), make_curve_prior(rates=True))
    drive = jnp.asarray([0.0, 0.4, 0.8, 1.2])
    y = jnp.linspace(-0.5, 5, 4001)
    density = np.exp(np.asarray(log_likelihood(curve, y[:, None], drive[None], jnp.zeros(1)))) / np.sqrt(2 * np.pi)
    # what quadrature leaves out is a thousandth
    np.testing.assert_allclose(np.trapezoid(density, np.asarray(y), axis=0), 1, rtol=3e-3)
    below = np.asarray(probability_below(curve, y[:, None], drive[None], jnp.zeros(1)))
    np.testing.assert_allclose(below[-1], 1, rtol=1e-6)
    running = np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(np.asarray(y))[:, None], axis=0)
    np.testing.assert_allclose(below[1:], running, atol=3e-3)
    # everything that varies, drawn
    keys = jax.random.split(jax.random.key(0))
    shared = 0.148 * jax.random.normal(keys[0], (200_000, 1))
    drawn = 10 ** np.asarray(draw_response(curve, jnp.broadcast_to(drive, (200_000, 4)), shared, keys[1]))
    np.testing.assert_allclose(drawn.mean(0), mean_response(curve, drive), rtol=0.02)


@pytest.mark.slow
@pytest.mark.float32
def test_truths_rank_evenly_among_the_draws():
    rng = np.random.default_rng(0)
    points = rng.uniform(-15, 15, (200, 3))
    bumps = make_bumps(points, np.zeros(3), PRIOR)
    centres = rng.normal(0, 12, (60, 3))
    away = np.linalg.norm(points[None] - centres[:, None], axis=2)
    features = jnp.asarray(1 / (1 + np.exp((away - 14) / 2)) @ bumps.kernel.T, jnp.float32)
    ranks = [rank_truths(jax.random.key(k), features, bumps, 20) for k in range(10)]
    for name in ranks[0]:
        counts = np.histogram(np.concatenate([r[name] for r in ranks]), bins=5, range=(0, 1))[0]
        # chi-square of four degrees of freedom: one in a thousand lies beyond 18.5
        assert ((counts - 40) ** 2 / 40).sum() < 18.5, (name, counts)


@pytest.mark.slow
@pytest.mark.float32
def test_checks_tell_meps_that_follow_the_field_in_another_way(session, sources):
    """Of draws that were fitted to other MEPs, so that no density can bend after them."""
    assert (sources.check().loc["all"] > 0.02).all()
    _, _, fields = session
    bumps = make_bumps(np.asarray(sources.points, float), TARGET, PRIOR)
    features = sources.activity(jnp.asarray(fields)) @ jnp.asarray(bumps.kernel.T, jnp.float32)
    prior = make_curve_prior(rates=True)
    _, _, y = draw_prior(jax.random.key(0), features, bumps.log_mean, bumps.factor, prior, 4)
    data = Measured(
        y, jnp.ones(y.shape, bool), features, bumps.log_mean, bumps.factor, prior, features, make_no_drift(len(y))
    )
    draws = draw_posterior(jax.random.key(1), describe_mode(find_mode(data), data), data, 64)
    honest = np.asarray(check_posterior(jax.random.key(2), draws, data))
    # of all muscles together; one of fifteen numbers may be small by chance
    assert (honest[-1] > 0.1).all()
    assert np.median(honest) > 0.1
    middle = np.asarray(features) - np.asarray(features).mean(0)
    pattern = np.linalg.svd(middle, full_matrices=False)[0][:, 0]
    other = data._replace(y=y + 0.3 * jnp.asarray(pattern / pattern.std(), y.dtype)[:, None])
    other_checks = np.asarray(check_posterior(jax.random.key(2), draws, other))
    assert (other_checks[:, 2] < honest[:, 2]).all()
    assert other_checks[-1, 2] < 0.02
    # MEPs that grow with the drive in another way than the curve, the same mean and spread
    weights = jax.vmap(weigh_bumps, (0, None, None))(draws.standard.mean(0)[:, N_NUMBER:], bumps.log_mean, bumps.factor)
    drive = jax.vmap(measure_drive, (None, 0, None))(features, weights, features)[0].T
    bent = data._replace(y=y + 0.4 * jnp.cos(3 * jnp.pi * drive))
    assert check_posterior(jax.random.key(2), draws, bent)[-1, 1] < 0.02
