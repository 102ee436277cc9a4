"""Firing rates: their numbers by hand, their derivatives, the units of the threshold, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.interpolate import PchipInterpolator

from jaxm2m import cortex

KNOTS, RATES = np.array([0.2, 0.6, 1.0, 1.3, 2.0]), np.array([0.0, 0.0, 0.4, 2.5, 3.0])


def by_hand_sigmoid(x, e50=1.05, s=0.08, r_max=1.0):
    z, zero = 1 / (1 + np.exp(-(x - e50) / s)), 1 / (1 + np.exp(e50 / s))
    return r_max * (z - zero) / (1 - zero)


CURVES = {
    "sigmoid": (lambda: cortex.sigmoid(), by_hand_sigmoid, 1.0),
    "broad sigmoid": (lambda: cortex.sigmoid(0.8, 0.5, 3), lambda x: by_hand_sigmoid(x, 0.8, 0.5, 3), 3.0),
    "weibull": (lambda: cortex.weibull(1.1, 4, 2), lambda x: 2 - 2 * 0.5 ** ((x / 1.1) ** 4), 2.0),
    "hill": (lambda: cortex.hill(0.9, 6.5, 2), lambda x: 2 * x**6.5 / (0.9**6.5 + x**6.5), 2.0),
    "hill of exponent 1": (lambda: cortex.hill(0.9, 1), lambda x: x / (0.9 + x), 1.0),
    "table": (
        lambda: cortex.table(KNOTS, RATES),
        lambda x: PchipInterpolator(KNOTS, RATES)(np.clip(x, 0.2, 2.0)),
        3.0,
    ),
}


@jax.jit
def run(function, *arguments, **options):
    """One program instead of one for each operation."""
    return function(*arguments, **options)


@jax.jit
def gradient_of(function, x):
    """Of the sum of a curve or rate, in itself and in its argument."""
    return jax.grad(lambda function, x: function(x).sum(), (0, 1))(function, x)


@pytest.fixture(params=CURVES)
def curve(request, precision):
    return CURVES[request.param][0]()


@pytest.fixture
def rate(precision):
    return cortex.FiringRate(threshold=cortex.threshold(60.0, "V/m"))


@pytest.fixture
def e(precision):
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 7, 3)) * 45, float)


# curves


@pytest.mark.parametrize("name", CURVES)
def test_curve_by_hand(name, tolerance):
    make, by_hand, largest = CURVES[name]
    x = np.linspace(0, 3, 301)
    r = np.asarray(run(make(), jnp.asarray(x, float)))
    np.testing.assert_allclose(r, by_hand(x), atol=largest * tolerance(3e-6, 1e-13))
    assert r[0] == 0
    assert np.diff(r).min() > -largest * tolerance(1e-6, 1e-14)
    assert float(run(make(), jnp.asarray(1e30))) == pytest.approx(largest, rel=1e-6)


def test_defaults():
    curve = cortex.sigmoid()
    assert [float(v) for v in (curve.e50, curve.s, curve.r_max)] == pytest.approx([1.05, 0.08, 1.0])
    assert float(curve(jnp.asarray(1.05))) == pytest.approx(0.5, abs=1e-5)


def test_e50_is_where_half_the_rate_is():
    for curve in (cortex.weibull(1.3, 3, 4), cortex.hill(1.3, 3, 4)):
        assert float(curve(jnp.asarray(1.3))) == pytest.approx(2)


def test_derivatives_match_central_differences(curve, x64):
    x = jnp.asarray([0.05, 0.4, 0.9, 1.02, 1.28, 1.7, 2.5])  # between the table's knots, where slopes bend
    h = 1e-6
    leaves, structure = jax.tree.flatten(curve)
    central = (run(curve, x + h) - run(curve, x - h)) / (2 * h)
    np.testing.assert_allclose(gradient_of(curve, x)[1], central, rtol=1e-6, atol=1e-8)
    jacobian = jax.tree.leaves(jax.jit(jax.jacobian(run))(curve, x))
    for i, found in enumerate(jacobian):
        if leaves[i].ndim:  # a table is held
            assert not found.any()
            continue
        up, down = (structure.unflatten([v + d * (j == i) for j, v in enumerate(leaves)]) for d in (h, -h))
        np.testing.assert_allclose(found, (run(up, x) - run(down, x)) / (2 * h), rtol=1e-6, atol=1e-8)


def test_derivatives_are_finite_everywhere(curve, tolerance):
    x = jnp.asarray([0, 1e-30, 1e-6, 0.9, 1.1, 2.0, 10, 1e6, 1e15, tolerance(1e30, 1e300)], float)
    of_curve, of_x = jax.jit(jax.vmap(gradient_of, (None, 0)))(curve, x)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves((of_curve, of_x)))
    assert float(of_x.min()) > -1e-6
    assert np.allclose(of_x[-3:], 0, atol=1e-11)


def test_exponent_one_rises_from_zero_with_its_slope():
    assert float(jax.grad(lambda x: cortex.hill(0.5, 1)(x))(0.0)) == pytest.approx(2)
    assert float(jax.grad(lambda x: cortex.weibull(0.5, 1)(x))(0.0)) == pytest.approx(2 * np.log(2))


def test_table_meets_its_points_and_is_flat_outside(tolerance):
    curve = cortex.table(KNOTS, RATES)
    np.testing.assert_allclose(run(curve, jnp.asarray(KNOTS, float)), RATES, atol=tolerance(1e-6, 1e-14))
    outside = jnp.asarray([0.0, 0.1, 2.1, 50.0], float)
    np.testing.assert_allclose(run(curve, outside), [0, 0, 3, 3], atol=tolerance(1e-6, 1e-14))
    assert not gradient_of(curve, outside)[1].any()


@pytest.mark.host
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cortex.sigmoid(s=0), r"^s: 0; must be above zero"),
        (lambda: cortex.sigmoid(e50=float("nan")), "^e50: nan; pass a finite number"),
        (lambda: cortex.sigmoid(r_max=[1, 2]), r"^r_max: shape \(2,\); give one number"),
        (lambda: cortex.hill(1, 0.5), r"^n: 0.5; must be at least 1"),
        (lambda: cortex.weibull(1, 0.99), r"^k: 0.99; must be at least 1"),
        (lambda: cortex.table([0, 1, 2], [0, 1]), r"^rate: shape \(2,\) for x of shape \(3,\)"),
        (lambda: cortex.table([0], [0]), "2 or more x"),
        (lambda: cortex.table([0, 1, 1], [0, 1, 2]), "^x: must rise"),
        (lambda: cortex.table([-1, 1, 2], [0, 1, 2]), "^x: must rise from 0"),
        (lambda: cortex.table([0, 1, 2], [0, 2, 1.5]), r"^rate: falls from 2 to 1.5 at x = 2; smooth"),
        (lambda: cortex.table([0, 1, 2], [0.5, 1, 2]), "^rate: starts at 0.5; .* add"),
        (lambda: cortex.table([0, 1, 2], [0, np.nan, 2]), "^rate: 1 of 3 values are NaN"),
    ],
)
def test_bad_curves(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# threshold


def test_units_agree(e, tolerance):
    fields = [
        cortex.FiringRate(threshold=cortex.threshold(value, unit))(e, didt=75e6)
        for value, unit in [(60.0, "V/m"), (0.6, "V/cm"), (0.8, "V/m per A/us")]
    ]
    assert 0.1 < float(fields[0].mean()) < 0.9
    for found in fields[1:]:
        np.testing.assert_allclose(found, fields[0], atol=tolerance(1e-5, 1e-12))


def test_preset_cancels_the_intensity_of_a_field(e, tolerance):
    (name,) = cortex.PRESETS
    rate = cortex.preset(name)
    assert name == "yarossi2019"
    assert (
        cortex.preset("0.8 V/m per A/us (our reading of the 2019 paper)").settings == rate.settings
    )  # as 0.1 called it
    expected = by_hand_sigmoid(np.linalg.norm(np.asarray(e, float), axis=-1) / 45 / 0.8)
    np.testing.assert_allclose(rate(e, didt=45e6), expected, atol=tolerance(1e-5, 1e-12))
    np.testing.assert_allclose(rate(2 * e, didt=90e6), expected, atol=tolerance(1e-5, 1e-12))
    with pytest.raises(ValueError, match=r"^name: 'paper'; choose one of 'yarossi2019'"):
        cortex.preset("paper")
    with pytest.raises(ValueError, match=r"^didt: the threshold is in .* pass the dI/dt"):
        rate(e)
    with pytest.raises(ValueError, match=r"^didt: 0; must be above zero"):
        rate(e, didt=0)


def test_one_rate_of_change_for_each_field(e):
    rate = cortex.preset(*cortex.PRESETS)
    didt = jnp.asarray([20e6, 60e6, 80e6, 120e6])
    each = jnp.stack([rate(f, didt=d) for f, d in zip(e, didt, strict=True)])
    np.testing.assert_allclose(rate(e, didt=didt), each, rtol=1e-5)
    for wrong in (didt[:3], jnp.ones((4, 7, 1))):
        with pytest.raises(ValueError, match=r"^didt: .* for points \(4, 7\); give one number"):
            rate(e, didt=wrong)


@pytest.mark.host
@pytest.mark.parametrize("bare", [0.8, 60, np.float32(60), np.ones(3), "60 V/m"])
def test_a_threshold_without_unit_is_refused(bare):
    with pytest.raises(TypeError, match=r'^threshold: .* without a unit; pass cortex.threshold\(60.0, "V/m"\).*2019'):
        cortex.FiringRate(threshold=bare)


@pytest.mark.host
def test_bad_thresholds():
    with pytest.raises(TypeError):
        cortex.FiringRate()
    with pytest.raises(TypeError):
        cortex.threshold(60.0)
    with pytest.raises(ValueError, match=r"^unit: 'V'; choose one of 'V/m', 'V/cm', 'V/m per A/us'"):
        cortex.threshold(60.0, "V")
    with pytest.raises(ValueError, match=r"^value: -60; must be above zero"):
        cortex.threshold(-60.0, "V/m")
    with pytest.raises(ValueError, match=r"^value: shape \(2,\); give one number"):
        cortex.threshold([50.0, 60.0], "V/m")


# rates of fields


def test_magnitude_by_hand(rate, e, tolerance):
    expected = by_hand_sigmoid(np.linalg.norm(np.asarray(e, float), axis=-1) / 60)
    np.testing.assert_allclose(rate(e), expected, atol=tolerance(1e-5, 1e-13))
    np.testing.assert_allclose(rate(np.asarray(e)), expected, atol=tolerance(1e-5, 1e-13))
    volumes = jnp.tile(e[:, :6].reshape(4, 1, 2, 3, 3), (1, 5, 1, 1, 1))
    assert rate(volumes).shape == (4, 5, 2, 3)
    np.testing.assert_allclose(rate(volumes)[:, 2], expected[:, :6].reshape(4, 2, 3), atol=tolerance(1e-5, 1e-13))


def test_normal_is_positive_into_the_cortex(rate, tolerance):
    e = jnp.asarray([[0, 0, -80.0], [0, 0, 80.0], [300, 0, 0], [36, 0, -48], [0, 0, -80.0]])
    into = np.array([[0, 0, -1.0], [0, 0, -1], [0, 0, -1], [0.6, 0, -0.8], [0, 0, 0]])  # the last point has none
    expected = by_hand_sigmoid(np.array([80, 0, 0, 60, 0]) / 60)
    held = cortex.FiringRate(threshold=rate.threshold, component="normal", normals=jnp.asarray(into, float))
    free = cortex.FiringRate(threshold=rate.threshold, component="normal")
    for found in (
        held(e),
        run(free, e, normals=into),
        run(free, e, normals=7 * into),
        run(held, jnp.stack([e, e]))[1],
    ):
        np.testing.assert_allclose(found, expected, atol=tolerance(1e-6, 1e-14))
        assert list(np.asarray(found) == 0) == [False, True, True, False, True]
    np.testing.assert_allclose(run(free, e, normals=-into)[1], expected[0], atol=tolerance(1e-6, 1e-14))
    gradient = gradient_of(held, e)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
    assert not gradient[0].normals.any()  # held


def test_scalar_takes_magnitudes(rate, e, tolerance):
    scalar = cortex.FiringRate(threshold=rate.threshold, component="scalar")
    size = jnp.linalg.norm(e, axis=-1)
    np.testing.assert_allclose(scalar(size), rate(e), atol=tolerance(1e-6, 1e-14))
    assert not scalar(-size).any()


@pytest.mark.parametrize("component", ["magnitude", "normal", "scalar"])
def test_padded_points_have_no_rate_and_no_gradient(curve, component):
    rate = cortex.FiringRate(cortex.threshold(60.0, "V/m"), curve, component)
    e = np.zeros((5, 3))
    e[0] = 50
    options = {"normals": 0 * e + [[1], [1], [0], [0], [0]]} if component == "normal" else {}

    @jax.jit
    def both(e):
        r, pull = jax.vjp(lambda e: rate(e, **options), e)
        return r, *pull(jnp.ones_like(r))

    r, gradient = map(np.asarray, both(jnp.asarray(e, float)))
    assert not r[1:].any()
    assert r[:1].max() > 0
    assert np.isfinite(gradient).all()
    assert not gradient[1:].any()


def test_nan_stays_nan(curve):
    # a field that failed is NaN; it must not pass for one without response
    e = np.full((2, 3), np.nan)
    for component in ("magnitude", "normal", "scalar"):
        normals = np.ones((2, 3)) if component == "normal" else None
        rate = cortex.FiringRate(cortex.threshold(60.0, "V/m"), curve, component, normals)
        assert np.isnan(run(rate, e)).all()


@pytest.mark.parametrize("component", ["magnitude", "normal"])
def test_gradient_of_the_whole_matches_central_differences(e, component, x64):
    normals = np.random.default_rng(1).normal(size=(7, 3))
    rate = cortex.FiringRate(
        threshold=cortex.threshold(0.8, "V/m per A/us"),
        curve=cortex.hill(1.1, 3.0),
        component=component,
        normals=normals if component == "normal" else None,
    )
    weight = np.random.default_rng(2).normal(size=(4, 7))

    @jax.jit
    def loss(value, e, didt):
        moved = cortex.FiringRate(cortex.Threshold(value, rate.threshold.unit), rate.curve, component, rate.normals)
        return (weight * moved(e, didt=didt)).sum()

    at = (rate.threshold.value, e, jnp.asarray(70e6))
    along = (jnp.asarray(0.3), jnp.asarray(np.random.default_rng(3).normal(size=e.shape)), jnp.asarray(5e6))
    _, slope = jax.jvp(loss, at, along)
    gradient = jax.jit(jax.grad(loss, (0, 1, 2)))(*at)
    up, down = (loss(*(a + h * d for a, d in zip(at, along, strict=True))) for h in (1e-5, -1e-5))
    assert float(slope) == pytest.approx(float((up - down) / 2e-5), rel=1e-7)
    assert float(slope) == pytest.approx(sum(float((g * d).sum()) for g, d in zip(gradient, along, strict=True)))


def test_gradient_is_finite_for_huge_fields(curve):
    rate = cortex.FiringRate(cortex.threshold(60.0, "V/m"), curve)
    gradient = gradient_of(rate, jnp.full((2, 3), 1e12))
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))


def test_vmap_is_a_loop_over_fields_and_over_rates(e, tolerance):
    rates = [cortex.FiringRate(cortex.threshold(t, "V/m"), cortex.sigmoid(1.0, s)) for t, s in [(50, 0.1), (70, 0.2)]]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *rates)
    looped = jnp.stack([jnp.stack([rate(f) for f in e]) for rate in rates])
    mapped = jax.vmap(lambda rate: jax.vmap(rate)(e))(stacked)
    np.testing.assert_allclose(mapped, looped, atol=tolerance(1e-6, 1e-14))
    np.testing.assert_allclose(jax.vmap(lambda rate: rate(e))(stacked), looped, atol=tolerance(1e-6, 1e-14))


def test_another_threshold_compiles_nothing(e, tolerance):
    traced = []

    @jax.jit
    def program(rate, e):
        traced.append(rate)
        return rate(e)

    for value, e50 in [(60.0, 1.0), (75, 1.2), (np.float32(50), 0.9)]:
        rate = cortex.FiringRate(cortex.threshold(value, "V/m"), cortex.sigmoid(e50))
        np.testing.assert_allclose(program(rate, e), rate(e), atol=tolerance(1e-6, 1e-14))
    assert len(traced) == 1


def test_built_inside_a_transform(e):
    def loss(least):
        return cortex.FiringRate(threshold=cortex.threshold(least, "V/m"))(e).sum()

    assert float(jax.jit(jax.grad(loss))(60.0)) < 0


def test_parameters_are_learnt_from_data(precision):
    e = jnp.asarray(np.random.default_rng(4).normal(size=(400, 3)) * 40, float)
    least = cortex.threshold(60.0, "V/m")
    measured = cortex.FiringRate(least, cortex.sigmoid(1.15, 0.12))(e)

    def loss(curve):
        return ((cortex.FiringRate(least, curve)(e) - measured) ** 2).mean()

    adam = optax.adam(0.02)

    def step(state, _):
        curve, moments = state
        updates, moments = adam.update(jax.grad(loss)(curve), moments)
        return (optax.apply_updates(curve, updates), moments), None

    start = cortex.sigmoid()
    (found, _), _ = jax.jit(lambda s: jax.lax.scan(step, s, None, length=400))((start, adam.init(start)))
    assert [float(v) for v in (found.e50, found.s, found.r_max)] == pytest.approx([1.15, 0.12, 1.0], rel=0.01)


@pytest.mark.host
def test_what_does_not_fit_is_refused():
    least = cortex.threshold(60.0, "V/m")
    normal = cortex.FiringRate(least, component="normal")
    e = jnp.ones((5, 3))
    with pytest.raises(TypeError, match=r"^curve: 'hill'; pass cortex.sigmoid"):
        cortex.FiringRate(least, "hill")
    with pytest.raises(ValueError, match=r"^component: 'x'; choose one of 'magnitude', 'normal', 'scalar'"):
        cortex.FiringRate(least, component="x")
    with pytest.raises(ValueError, match=r'^normals: not used by component=.magnitude.; build with component="normal"'):
        cortex.FiringRate(least, normals=e)
    with pytest.raises(ValueError, match=r"^normals: not used by component=.magnitude."):
        cortex.FiringRate(least)(e, normals=e)
    with pytest.raises(ValueError, match=r"^normals: none, and .* pass normals="):
        normal(e)
    with pytest.raises(ValueError, match=r"^normals: shape \(4, 3\) for a field of shape \(5, 3\)"):
        normal(e, normals=e[:4])
    with pytest.raises(ValueError, match=r"^normals: shape \(1, 5, 3\) for a field of shape \(5, 3\)"):
        normal(e, normals=e[None])
    with pytest.raises(ValueError, match=r'^e: shape \(5,\); the last axis .* component="scalar"'):
        cortex.FiringRate(least)(e[:, 0])


def test_any_pytree_is_a_curve(rate, e, tolerance):
    curve = jax.tree_util.Partial(lambda gain, x: gain * x, jnp.asarray(2.0))
    linear = cortex.FiringRate(rate.threshold, curve)
    np.testing.assert_allclose(
        jax.jit(lambda rate, e: rate(e))(linear, e), jnp.linalg.norm(e, axis=-1) / 30, rtol=tolerance(1e-5, 1e-12)
    )
