"""Objectives: their numbers by hand, their derivatives, and the masks that they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m import placement

# |e| = 5, 2, 3, 0, 13
FIELD = np.array([[3.0, 4, 0], [0, 0, -2], [1, 2, 2], [0, 0, 0], [5, 0, 12]])
FIRST = np.array([True, False, True, False, False])
ALL = {
    "magnitude": lambda: placement.magnitude(),
    "magnitude in a mask": lambda: placement.magnitude(FIRST),
    "percentile": lambda: placement.magnitude(percentile=70),
    "percentile in a mask": lambda: placement.magnitude(~FIRST, percentile=40),
    "along": lambda: placement.along((1, 2, -1)),
    "along in a mask": lambda: placement.along(FIELD + 0.1, FIRST),
    "ratio": lambda: placement.ratio(FIRST),
    "focality": lambda: placement.focality(FIRST, (3.0, 4.0)),
    "weighted": lambda: placement.weighted_sum([placement.magnitude(FIRST), placement.ratio(~FIRST)], [1, -2]),
    "weakest": lambda: placement.weakest([placement.magnitude(FIRST), placement.along((0, 0, 1))]),
}


@pytest.fixture(scope="module")
def e(precision):
    return jnp.asarray(FIELD, float)


def test_magnitude(e):
    assert float(placement.magnitude()(e)) == pytest.approx(23 / 5)
    assert float(placement.magnitude(FIRST)(e)) == pytest.approx(4)
    assert float(placement.magnitude(list(FIRST))(e)) == pytest.approx(4)


@pytest.mark.parametrize("percentile", [0, 25.0, 50, 99.9, 100])
def test_percentile(e, percentile):
    size = np.array([5.0, 2, 3, 0, 13])
    assert float(placement.magnitude(percentile=percentile)(e)) == pytest.approx(np.percentile(size, percentile))
    inside = placement.magnitude(~FIRST, percentile=percentile)
    assert float(inside(e)) == pytest.approx(np.percentile(size[~FIRST], percentile))


def test_along(e):
    assert float(placement.along((0, 0, 7))(e)) == pytest.approx(12 / 5)
    assert float(placement.along((0, 0, -0.1))(e)) == pytest.approx(-12 / 5)
    assert float(placement.along((3, 4, 0), FIRST)(e)) == pytest.approx((5 + 11 / 5) / 2)
    # a direction at each point
    each = np.array([[3.0, 4, 0], [0, 0, 1], [0, 2, 0], [1, 1, 1], [0, 0, 3]])
    assert float(placement.along(each)(e)) == pytest.approx((5 - 2 + 2 + 0 + 12) / 5)
    assert float(placement.along(each, ~FIRST)(e)) == pytest.approx((-2 + 0 + 12) / 3)


def test_ratio(e):
    assert float(placement.ratio(FIRST)(e)) == pytest.approx(4 / 5)
    last = np.arange(5) == 4
    assert float(placement.ratio(FIRST, last)(e)) == pytest.approx(4 / 13)
    # the intensity makes no difference
    assert float(placement.ratio(FIRST)(3 * e)) == pytest.approx(4 / 5)


def test_focality(e):
    def passed(x):
        return 1 / (1 + np.exp(-x / 0.05))

    hit = (passed(5 / 4.0 - 1) + passed(3 / 4.0 - 1)) / 2
    spared = (passed(1 - 2 / 3.0) + passed(1 - 0 / 3.0) + passed(1 - 13 / 3.0)) / 3
    expected = 1 - np.sqrt(((1 - hit) ** 2 + (1 - spared) ** 2) / 2)
    assert 0.4 < expected < 0.9
    assert float(placement.focality(FIRST, (3.0, 4.0))(e)) == pytest.approx(expected, rel=1e-5)
    rest = np.array([False, True, False, True, False])  # both far below the threshold
    only_hit = 1 - np.sqrt(((1 - hit) ** 2 + (1 - 1) ** 2) / 2)
    assert float(placement.focality(FIRST, (3.0, 4.0), rest)(e)) == pytest.approx(only_hit, abs=2e-3)


def test_focality_is_a_share_and_rises_with_the_targets_field():
    objective = jax.jit(placement.focality(FIRST, (3.0, 4.0)))
    rest = jnp.asarray(np.where(FIRST, 0, 2.9)[:, None] * [0.0, 1, 0], float)
    values = [float(objective(rest.at[FIRST, 0].set(x))) for x in np.linspace(3.0, 5.0, 21)]
    assert (np.diff(values) > 0).all()
    # nothing hit, a third of the rest in doubt; all hit
    assert values[0] < 0.35
    assert 0.7 < values[-1] < 1
    random = np.random.default_rng(0)
    for scale in (0.0, 1e-3, 1.0, 3.0, 10.0, 1e4):
        assert 0 <= float(objective(jnp.asarray(scale * random.normal(size=(5, 3)), float))) <= 1
    ideal, worst = (jnp.asarray(np.where(where, 100.0, 0)[:, None] * [0.0, 1, 0], float) for where in (FIRST, ~FIRST))
    assert float(objective(ideal)) == pytest.approx(1, abs=1e-5)
    assert float(objective(worst)) == pytest.approx(0, abs=1e-5)


def test_weighted_and_weakest(e):
    first, second = placement.magnitude(FIRST), placement.along((0, 0, 1))  # 4 and 2.4
    assert float(placement.weighted_sum([first, second])(e)) == pytest.approx(6.4)
    assert float(placement.weighted_sum([first, second], [2, -0.5])(e)) == pytest.approx(6.8)
    assert float(placement.weighted_sum([lambda e: e[0, 0]], [3])(e)) == pytest.approx(9)
    assert float(placement.weakest([first, second])(e)) == pytest.approx(2.4)
    assert float(placement.weakest([first])(e)) == pytest.approx(4)
    # only the weakest is raised
    np.testing.assert_allclose(jax.grad(placement.weakest([first, second]))(e), jax.grad(second)(e), atol=1e-7)


@pytest.mark.float32
@pytest.mark.parametrize("name", ALL)
def test_gradient_is_finite_without_field(name):
    objective = ALL[name]()
    value, gradient = jax.jit(jax.value_and_grad(objective))(jnp.zeros((5, 3)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    # also where there is none at one point only
    assert np.isfinite(jax.jit(jax.grad(objective))(jnp.asarray(FIELD, float))).all()


@pytest.mark.float32
@pytest.mark.parametrize("name", ALL)
def test_a_field_that_failed_is_no_zero_field(name):
    assert jnp.isnan(ALL[name]()(jnp.full((5, 3), jnp.nan)))


@pytest.mark.float64
@pytest.mark.parametrize("name", ALL)
def test_gradient_is_that_of_the_value(name):
    objective = jax.jit(ALL[name]())
    random = np.random.default_rng(1)
    x, d = jnp.asarray(3 * random.normal(size=(5, 3))), jnp.asarray(random.normal(size=(5, 3)))
    slope = float((jax.grad(objective)(x) * d).sum())
    assert abs(slope) > 1e-3
    difference = float(objective(x + 1e-5 * d) - objective(x - 1e-5 * d)) / 2e-5
    assert difference == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.float32
@pytest.mark.parametrize("name", ALL)
def test_another_mask_or_weight_is_the_same_program(name):
    """Objectives are pytrees: what they hold is an argument of the program."""
    traced = []

    @jax.jit
    def value(objective, e):
        traced.append(1)
        return objective(e)

    leaves, structure = jax.tree.flatten(ALL[name]())
    other = jax.tree.unflatten(structure, [leaf[::-1] if np.ndim(leaf) else leaf * 1.1 for leaf in leaves])
    e = jnp.asarray(FIELD, float)
    assert np.isfinite(float(value(ALL[name](), e)))
    assert float(value(ALL[name](), e)) == pytest.approx(float(ALL[name]()(e)), rel=1e-5)
    value(other, e)
    assert len(traced) == 1


@pytest.mark.host
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: placement.magnitude(np.arange(5)), "where: int64 of shape .5,.; give a mask"),
        (lambda: placement.magnitude(np.ones((5, 3), bool)), r"where: bool of shape .5, 3."),
        (lambda: placement.magnitude(np.zeros(5, bool)), "where: no point is chosen"),
        (lambda: placement.magnitude(np.zeros(5, bool), percentile=50), "where: no point is chosen"),
        (lambda: placement.magnitude(percentile=101), "percentile: 101; give a number from 0 to 100"),
        (lambda: placement.magnitude(percentile=float("nan")), "percentile: nan"),
        (lambda: placement.along((0, 0, 0)), "direction: .*not zero"),
        (lambda: placement.along(np.array([[1.0, 0, 0], [0, 0, 0]])), "direction: .*not zero"),
        (lambda: placement.along((1, 2)), "direction: shape"),
        (lambda: placement.along(np.ones((2, 2, 3))), r"direction: shape \(2, 2, 3\)"),
        (lambda: placement.along((1, 0, 0), np.zeros(5, bool)), "where: no point"),
        (lambda: placement.ratio(np.ones(5, bool)), "no point is chosen"),
        (lambda: placement.ratio(FIRST, np.ones(4, bool)), "rest: a mask of 4 points, the target's has 5"),
        (lambda: placement.focality(FIRST, (4.0, 3.0)), "thresholds: 4 above 3 V/m"),
        (lambda: placement.focality(FIRST, (0.0, 3.0)), "thresholds: 0; must be above zero"),
        (lambda: placement.weighted_sum([], []), "weights: 0 for 0 objectives"),
        (lambda: placement.weighted_sum([placement.magnitude()], [1, 2]), "weights: 2 for 1 objectives"),
        (lambda: placement.weakest([]), "objectives: none"),
    ],
)
def test_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (placement.magnitude, "where"),
        (lambda mask: placement.magnitude(mask, percentile=50), "where"),
        (lambda mask: placement.along((1, 0, 0), mask), "where"),
        (lambda mask: placement.along(np.ones((len(mask), 3))), "direction"),
        (lambda mask: placement.ratio(mask, mask), "where"),
        (lambda mask: placement.focality(mask, (1.0, 2.0), mask), "where"),
    ],
)
@pytest.mark.float32
@pytest.mark.parametrize("count", [1, 9])
def test_a_mask_of_another_map_is_refused(e, make, name, count):
    """One point would be broadcast, and an index beyond the end taken for the last point."""
    with pytest.raises(ValueError, match=f"{name}: {count} points, the field has 5"):
        make(np.ones(count, bool))(e)
