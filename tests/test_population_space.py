"""Search spaces: what is drawn, what is perturbed, what is refused."""

import jax
import numpy as np
import pytest

from jaxm2m.population import Choice, LogUniform, SearchSpace, Uniform

SPACE = SearchSpace(
    dropout=Uniform(0, 0.7),
    learning_rate=LogUniform(1e-5, 5e-3, start=(1e-3, 4e-3), perturb=0.3),
    layers=Choice((1, 2, 4, 8)),
    clip=200,
)
KEY = 3


def draw(space, members, key=KEY):
    return space.draw(jax.random.key(key), members)


def strata(values, low, high):
    """In which of as many equal parts as there are values each lies, in ascending order."""
    return sorted(np.floor((values - low) / (high - low) * len(values)).astype(int))


def test_each_part_of_a_distribution_gives_one_value():
    members = 40
    space = SearchSpace(even=Uniform(-1, 3), log=LogUniform(1e-4, 1e2), choice=Choice((0.5, 1, 3, 7)))
    values = draw(space, members)
    assert strata(values["even"], -1, 3) == list(range(members))
    assert strata(np.log(values["log"]), np.log(1e-4), np.log(1e2)) == list(range(members))
    assert sorted(values["choice"]) == sorted([0.5, 1, 3, 7] * 10)
    for name in space:
        assert values[name].shape == (members,)
        assert values[name].dtype == np.float64
        assert list(values[name]) != sorted(values[name])
    # the parts of two hyperparameters are combined at random
    ranks = [np.argsort(np.argsort(values[name])) for name in ("even", "log")]
    assert (ranks[0] != ranks[1]).any()


def test_first_draws_keep_within_the_start_and_no_bound_is_left():
    for key in range(20):
        values = draw(SPACE, 3, key)
        assert ((values["learning_rate"] >= 1e-3) & (values["learning_rate"] <= 4e-3)).all()
        assert ((values["dropout"] >= 0) & (values["dropout"] <= 0.7)).all()
    point = draw(SearchSpace(a=LogUniform(1e-3, 1, start=(0.1, 0.1)), b=Uniform(0, 1, start=(0.3, 0.3))), 3)
    assert (point["a"] == 0.1).all()  # to the bit, though its logarithm is rounded
    assert (point["b"] == 0.3).all()


def test_fixed_numbers():
    values = draw(SearchSpace(a=Uniform(0, 1), clip=200, seed=[3, 1, 2]), 3)
    np.testing.assert_array_equal(values["clip"], [200, 200, 200])
    np.testing.assert_array_equal(values["seed"], [3, 1, 2])
    values["seed"][0] = 7  # nobody else has it
    assert draw(SearchSpace(seed=[3, 1, 2]), 3)["seed"][0] == 3


def test_another_key_draws_other_values():
    one, same, other = draw(SPACE, 40), draw(SPACE, 40), draw(SPACE, 40, key=4)
    for name in SPACE:
        np.testing.assert_array_equal(one[name], same[name])
        assert (one[name] != other[name]).any()


def test_values_depend_neither_on_the_other_names_nor_on_the_order():
    reordered = SearchSpace(
        clip=200, layers=SPACE["layers"], learning_rate=SPACE["learning_rate"], dropout=SPACE["dropout"]
    )
    fewer = SearchSpace(learning_rate=SPACE["learning_rate"])
    all_of_them = np.ones(40, bool)
    spaces = (SPACE, reordered, fewer)
    drawn = [draw(space, 40) for space in spaces]
    perturbed = [s.perturb(jax.random.key(1), d, all_of_them) for s, d in zip(spaces, drawn, strict=True)]
    for values in (drawn, perturbed):
        for name in SPACE.names:
            np.testing.assert_array_equal(values[0][name], values[1][name])
        np.testing.assert_array_equal(values[0]["learning_rate"], values[2]["learning_rate"])
    assert dict(sorted(SPACE.settings.items())) == dict(sorted(reordered.settings.items()))


def test_two_names_of_the_same_distribution_are_drawn_apart():
    values = draw(SearchSpace(a=Uniform(0, 1), b=Uniform(0, 1), ab=Uniform(0, 1)), 40)
    for one, other in (("a", "b"), ("a", "ab"), ("b", "ab")):
        assert abs(np.corrcoef(values[one], values[other])[0, 1]) < 0.5


def test_only_chosen_members_and_tuned_values_are_perturbed():
    values = draw(SPACE, 40)
    which = np.arange(40) % 2 == 0
    before = {name: number.copy() for name, number in values.items()}
    after = SPACE.perturb(jax.random.key(9), values, which)
    for name in SPACE.names:
        np.testing.assert_array_equal(values[name], before[name])
        np.testing.assert_array_equal(after[name][~which], values[name][~which])
    np.testing.assert_array_equal(after["clip"], values["clip"])
    moved = after["dropout"][which] / values["dropout"][which]
    assert (np.abs(moved - 1) <= 0.2).all()
    assert np.abs(moved - 1).max() > 0.1
    moved = np.log(after["learning_rate"][which] / values["learning_rate"][which])
    assert (np.abs(moved) <= 0.3 + 1e-12).all()
    assert moved.min() < -0.15 < 0.15 < moved.max()
    allowed = np.array(SPACE["layers"].values)
    steps = np.searchsorted(allowed, after["layers"]) - np.searchsorted(allowed, values["layers"])
    assert set(steps[which]) == {-1, 0, 1}
    assert np.isin(after["layers"], allowed).all()


def test_perturbed_values_stop_at_the_bounds():
    space = SearchSpace(a=Uniform(0, 1, perturb=0.9), b=LogUniform(0.1, 10, perturb=5), c=Choice((1, 2)))
    values = {"a": np.full(40, 0.9), "b": np.full(40, 5.0), "c": np.full(40, 2.0)}
    after = space.perturb(jax.random.key(0), values, np.ones(40, bool))
    assert after["a"].max() == 1
    assert after["a"].min() >= 0
    assert (after["b"].min(), after["b"].max()) == (0.1, 10)
    assert set(after["c"]) == {1, 2}
    still = SearchSpace(a=Uniform(0, 1, perturb=0)).perturb(jax.random.key(0), {"a": np.full(3, 0.9)}, np.ones(3, bool))
    assert (still["a"] == 0.9).all()


@pytest.mark.host
@pytest.mark.parametrize("u", [-1.0, -0.34, -0.33, 0.0, 0.33, 0.34, 1 - 2**-22])
def test_a_choice_moves_to_a_neighbour_at_most_and_each_way_as_often(u):
    moved = Choice((1, 2, 3, 4, 5))._perturb(np.array([3.0]), np.array([u]))
    assert moved == 3 + (u > 1 / 3) - (u < -1 / 3)


def test_a_value_of_single_precision_finds_its_choice():
    values = {"a": np.float32([0.1, 0.2, 0.3]).astype(float)}
    after = SearchSpace(a=Choice((0.1, 0.2, 0.3))).perturb(jax.random.key(2), values, np.ones(3, bool))
    assert np.isin(after["a"], [0.1, 0.2, 0.3]).all()


@pytest.mark.host
@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (Uniform(1, 0), "rate: low 1 is not below high 0"),
        (LogUniform(1, 1), "rate: low 1 is not below high 1"),
        (Uniform(0, float("nan")), "rate: nan"),
        (Uniform(0, float("inf")), "rate: inf"),
        (LogUniform(0, 1), "rate: low is 0; must be above zero, or use Uniform"),
        (LogUniform(-1, 1), "rate: low is -1"),
        (Uniform(0, 1, start=(-1, 0.5)), r"rate: start \(-1, 0.5\) does not ascend within \(0, 1\)"),
        (LogUniform(0.1, 1, start=(0.5, 2)), "rate: start"),
        (Uniform(0, 1, start=(0.6, 0.5)), "rate: start"),
        (Uniform(0, 1, start=(0.6, float("nan"))), "rate: start"),
        (Uniform(0, 1, perturb=1), "rate: perturb is 1; must be below 1"),
        (Uniform(0, 1, perturb=-0.1), "rate: perturb is -0.1"),
        (LogUniform(0.1, 1, perturb=float("nan")), "rate: perturb is nan"),
        (Choice((1,)), "rate: .* two numbers or more"),
        (Choice((1, 3, 2)), "rate: .* ascending order"),
        (Choice((1, 1)), "rate: .* ascending order"),
        (Choice((1, float("nan"))), "rate: "),
        (float("nan"), "rate: nan"),
        (np.zeros((2, 2)), r"rate: shape \(2, 2\)"),
    ],
)
def test_entries_that_make_no_sense_are_refused(entry, error):
    with pytest.raises(ValueError, match=error):
        SearchSpace(clip=1, rate=entry)


@pytest.mark.host
def test_fixed_numbers_for_another_population_are_refused():
    with pytest.raises(ValueError, match="seed: 3 values for 4 members"):
        draw(SearchSpace(seed=[1, 2, 3]), 4)


@pytest.mark.host
def test_what_is_tuned_and_what_is_fixed():
    assert list(SPACE) == ["dropout", "learning_rate", "layers"]
    assert SPACE.names == ["dropout", "learning_rate", "layers", "clip"]
    assert len(SPACE) == 3
    assert SPACE["dropout"] == Uniform(0, 0.7)
    assert SPACE.settings["clip"] == "200.0"
    assert SPACE.settings["dropout"] != SearchSpace(dropout=Uniform(0, 0.6)).settings["dropout"]
