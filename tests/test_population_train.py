"""Populations in training: what they find, what each member does, what changes no number, what is refused."""

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from population_cases import NOTHING, SPACE, Diary, Line, Surrogate, Tracking, leaves, points

from jaxm2m.population import (
    PBT,
    Dataset,
    Halving,
    Independent,
    LogUniform,
    SearchSpace,
    Uniform,
    _chunking,
    _train,
    train,
)
from jaxm2m.population._compiled import compile_programs as programs_of

LINE = Line()

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Plans are kept here and not where the user's are."""
    monkeypatch.setenv("JAXM2M_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trained(**changes):
    """Four members for four generations; `changes` replace arguments."""
    arguments: dict[str, Any] = {
        "trainable": Line(),
        "space": SPACE,
        "dataset": points(),
        "key": jax.random.key(5),
        "schedule": PBT(epochs=2, generations=4, patience=9),
        "members": 4,
        "batch_size": 8,
        "chunk_size": 4,
        "progress": False,
    } | changes
    return train(arguments.pop("trainable"), arguments.pop("space"), arguments.pop("dataset"), **arguments)


def assert_equal(one, other):
    """To the bit."""
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_close(one, other, tolerance, members=slice(None)):
    """To rounding; of `one` those `members`."""
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for name in one:
        scale = np.abs(other[name][np.isfinite(other[name])]).max(initial=1e-3)
        np.testing.assert_allclose(one[name][members], other[name], rtol=0, atol=tolerance * scale, err_msg=name)


# what it finds


@pytest.mark.parametrize("seed", [0, 1])
def test_pbt_solves_the_toy_that_no_setting_of_the_grid_solves(seed, tolerance):
    steps = {"epochs": 4, "generations": 100}
    arguments: dict[str, Any] = {"key": jax.random.key(seed), "members": 2, "chunk_size": 2, "progress": False}
    grid = train(Surrogate(), SearchSpace(h0=[1, 0], h1=[0, 1]), NOTHING, schedule=Independent(**steps), **arguments)
    left = 0.9 * 0.98**400  # of the weight whose gradient a setting of the grid follows
    np.testing.assert_allclose(grid.members.best.score, 0.9**2 + left**2 - 1.2, rtol=tolerance(1e-5, 1e-12))
    tuned = LogUniform(1e-3, 1, perturb=1)
    found = train(
        Surrogate(), SearchSpace(h0=tuned, h1=tuned), NOTHING, schedule=PBT(patience=100, **steps), **arguments
    )
    assert found.score < -1.19
    assert found.score == found.scores().min()


def test_pbt_finds_the_best_rate():
    model = Tracking(drift=0.01)
    rates = np.geomspace(1e-4, 1, 4001)
    best = rates[np.argmin(model.error(rates))]
    run = train(
        model,
        SearchSpace(rate=LogUniform(1e-4, 1, start=(1e-3, 1e-2))),
        NOTHING,
        key=jax.random.key(2),
        schedule=PBT(epochs=60, generations=40, patience=40),
        members=10,
        chunk_size=10,
        progress=False,
    )
    last = run.history[run.history.generation == 39]
    assert run.history.rate[run.history.generation == 0].max() < best / 6
    assert best / 2 < last.rate.min()
    assert last.rate.max() < 2 * best
    assert best / 2 < run.hyper["rate"] < 2 * best
    assert last.score.median() == pytest.approx(model.error(best), rel=0.15)


def test_the_best_weights_belong_to_the_best_score(tolerance):
    run = trained()
    data = points()
    valid = jax.tree.map(lambda a: a[data.valid[0]], data.data)
    again = float(np.mean(Line().score(jax.tree.map(jnp.asarray, run.params), {}, valid, None)))
    assert run.score == pytest.approx(again, rel=tolerance(1e-5, 1e-12))
    # score and smoothed of the history and the best of each member
    scores = run.scores()
    np.testing.assert_array_equal(scores.min(axis=0), run.members.best.score)
    assert run.score == scores.min()
    assert run.best == scores.min(axis=0).argmin()
    then = run.history[(run.history.member == run.best) & (run.history.score == run.score)].iloc[0]
    assert run.members.best.step[run.best] == then.step
    assert run.hyper == {name: then[name] for name in SPACE.names}


# what changes no number


def test_the_same_key_gives_the_same_run_and_another_one_another():
    one, again, other = trained(), trained(), trained(key=jax.random.key(6))
    assert_equal(one, again)
    columns = [name for name in one.history if name != "seconds"]
    assert one.history[columns].equals(again.history[columns])
    assert (leaves(one)[".params['w']"] != leaves(other)[".params['w']"]).any()


def test_members_are_unlike_each_other():
    run = trained(space=SearchSpace(rate=1e-2, dropout=0.2), schedule=Independent(epochs=2, generations=1))
    assert len({row.tobytes() for row in run.members.params["w"]}) == 4
    assert len(set(run.history.loss)) == 4


@pytest.mark.float64
def test_a_member_is_the_same_in_a_population_of_any_size(tolerance):
    rates = np.geomspace(1e-3, 1e-1, 8)
    schedule = Independent(epochs=2, generations=2)
    few = trained(space=SearchSpace(rate=rates[:4], dropout=0.2), schedule=schedule)
    many = trained(space=SearchSpace(rate=rates, dropout=0.2), schedule=schedule, members=8, chunk_size=8)
    assert_close(many, few, tolerance(1e-4, 1e-12), members=slice(4))


@pytest.mark.float64
@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing(chunk, monkeypatch):
    """Chunks of three leave two places in the second empty."""
    monkeypatch.setattr(_train, "plan_chunks", lambda *_: _chunking.Plan(chunk, {}, {}))
    whole, parts = trained(), trained(chunk_size=None)
    assert parts.plan["chunk"] == chunk
    assert list(whole.history.parent) == list(parts.history.parent)
    assert_close(parts, whole, 1e-11)
    np.testing.assert_allclose(parts.history.penalty, whole.history.penalty, rtol=1e-11)


def test_a_chunk_is_never_larger_than_the_population():
    assert_equal(trained(chunk_size=100), trained())


class Pair(NamedTuple):
    x: Any
    y: Any


class LineOfPairs(Line):
    def loss(self, params, hyper, batch, key, step):
        return super().loss(params, hyper, batch._asdict(), key, step)

    def score(self, params, hyper, batch, key):
        return super().score(params, hyper, batch._asdict(), key)


@pytest.mark.float32
def test_examples_of_any_kind():
    """JAX's arrays in a named tuple, of whole numbers and of more digits than the precision has."""
    data = points().data
    pairs = Pair(jnp.asarray(data["x"]), data["y"].astype(np.float64))
    half = jax.tree.map(lambda a: a[:32], pairs), jax.tree.map(lambda a: a[32:], pairs)
    run = trained(trainable=LineOfPairs(), dataset=Dataset.holdout(*half))
    assert list(run.history.parent) == list(trained().history.parent)
    assert_close(run, trained(), 1e-3)


DEVICES = """
import sys
import jax, numpy as np
from jaxm2m.population import Dataset, PBT, train
from population_cases import SPACE, Line, leaves, points
assert jax.device_count() == 8
run = train(Line(), SPACE, points(), key=jax.random.key(5), schedule=PBT(epochs=2, generations=4, patience=9),
            members=11, batch_size=8, chunk_size=2, progress=False)
np.savez(sys.argv[1], parent=run.history.parent, score=run.history.score, **leaves(run))
"""


@pytest.mark.slow
@pytest.mark.float64
def test_eight_devices_give_the_same_members_as_one(tmp_path, precision, tolerance):
    """Eleven members, two to a device: one for the sixth, none for the last two."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "8",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(int(precision == "float64")),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    place = tmp_path / "found.npz"
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, str(place)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = trained(members=11, chunk_size=11)
    with np.load(place) as found:
        np.testing.assert_array_equal(found["parent"], run.history.parent)
        np.testing.assert_allclose(found["score"], run.history.score, rtol=tolerance(1e-3, 1e-11))
        for name, values in leaves(run).items():
            scale = np.abs(values[np.isfinite(values)]).max(initial=1e-3)
            np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance(1e-3, 1e-11) * scale, err_msg=name)


# rows of the examples


@pytest.fixture(scope="module")
def diary(precision):
    """Six members, two for each of three folds of 3, 4 and 3 examples; four epochs of three steps in two generations.

    Row r counts 2^r in the score, so that a mean tells which rows were in it.
    """
    fold = np.array([0, 1, 2, 0, 1, 1, 2, 0, 1, 2])
    data = {"row": np.arange(10), "value": 2.0 ** np.arange(10)}
    run = train(
        Diary(12, 10),
        SearchSpace(),
        Dataset.folds(data, fold, members=6),
        key=jax.random.key(1),
        schedule=Independent(epochs=2, generations=2),
        batch_size=2,
        chunk_size=6,
        progress=False,
    )
    return fold, run


def test_each_example_is_validated_once(diary):
    fold, run = diary
    np.testing.assert_allclose(run.scores()[-1], run.members.best.score)
    sums = run.members.best.score * np.bincount(fold)[run.members.split]
    for member, total in enumerate(sums):
        assert total == pytest.approx(sum(2.0**row for row in range(10) if fold[row] == member % 3), rel=1e-6)
    assert sums[:3].sum() == pytest.approx(2**10 - 1, rel=1e-6)


def test_no_fold_is_trained_on_what_it_is_validated_on(diary):
    fold, run = diary
    used = run.members.params["diary"]
    assert set(np.unique(used)) == {0, 1}
    np.testing.assert_array_equal(used.sum(axis=2), 2)
    for member in range(6):
        assert used[member][:, fold == member % 3].sum() == 0
        assert (used[member][:, fold != member % 3].sum(axis=0) > 0).all()


def test_an_epoch_uses_each_row_once_and_leaves_others_out_each_time(diary):
    fold, run = diary
    epochs = run.members.params["diary"].reshape(6, 4, 3, 10)
    used = epochs.sum(axis=2)
    assert used.max() == 1
    # six rows in batches of two: all of them
    for member in (1, 4):
        assert (used[member][:, fold != 1] == 1).all()
    # seven rows: one is left out, not always the same
    left = [np.flatnonzero((row == 0) & (fold != m % 3)) for m in (0, 2, 3, 5) for row in used[m]]
    assert {len(rows) for rows in left} == {1}
    assert all(len({int(rows[0]) for rows in left[4 * i : 4 * i + 4]}) > 1 for i in range(4))
    # the order differs from epoch to epoch and from member to member
    assert len({tuple(epoch.argmax(axis=0)) for epoch in epochs[1]}) > 1
    assert (epochs[1] != epochs[4]).any()


def test_terms_of_the_loss_are_means_over_a_generation(diary):
    _, run = diary
    np.testing.assert_allclose(run.history.clock, np.repeat([2.5, 8.5], 6))
    np.testing.assert_allclose(run.history["first"], np.repeat([1 / 6, 0], 6), rtol=1e-6)
    np.testing.assert_array_equal(run.history.step, np.repeat([6, 12], 6))
    assert list(run.history.member) == [0, 1, 2, 3, 4, 5] * 2
    assert len(run.members.split) == 6


@dataclass(frozen=True)
class Running:
    """Fits `weight` to the data; `mean` follows them without a gradient, as running statistics do."""

    settings = {"begins": 0.0}  # noqa: RUF012

    def init(self, key):
        return {"weight": jnp.zeros(3), "mean": jnp.zeros(3)}

    def optimizer(self, hyper):
        return optax.sgd(hyper["rate"])

    def loss(self, params, hyper, batch, key, step):
        new = 0.9 * params["mean"] + 0.1 * batch.mean(0)
        return ((params["weight"] - batch) ** 2).mean() + params["mean"].sum(), {}, {"mean": new}

    def score(self, params, hyper, batch, key):
        return ((params["weight"] - batch) ** 2).mean(-1)


@pytest.mark.float32
def test_a_loss_may_set_what_no_gradient_gives():
    data = np.tile(np.float32([1.0, 2.0, 3.0]), (4, 1))
    schedule = Independent(epochs=5, generations=2)
    arguments = {"key": jax.random.key(0), "schedule": schedule, "members": 2, "batch_size": 4, "chunk_size": 1}
    run = train(Running(), SearchSpace(rate=0.3), Dataset.holdout(data), **arguments)
    # the gradient of `mean` in the loss is one, which the optimiser would follow
    np.testing.assert_allclose(run.members.params["mean"], np.tile(data[:1] * (1 - 0.9**10), (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(run.members.params["weight"], np.tile(data[:1] * (1 - 0.8**10), (2, 1)), rtol=1e-5)


# who goes on from whom


def test_who_goes_on_from_another_takes_all_it_has():
    run = trained()
    last = run.history[run.history.generation == 3]
    parent = last.parent.to_numpy()
    copied = [(i, p) for i, p in enumerate(parent) if i != p and parent[p] == p]
    assert copied
    members = leaves(run)
    exact = [n for n in members if n.startswith((".params", ".optimizer", ".smoothed"))]
    assert {".optimizer[0].count", ".optimizer[0].mu['w']", ".optimizer[0].nu['offset']['c']", ".smoothed"} <= set(
        exact
    )
    for one, other in copied:
        for name in exact:
            np.testing.assert_array_equal(members[name][one], members[name][other], err_msg=name)
        # but its own number, and its own best
        assert members[".index"][one] == one
        assert members[".best.score"][one] == run.scores()[:, one].min()
        # and perturbed hyperparameters
        rates = members[".hyper['rate']"]
        assert rates[one] != rates[other]
        assert abs(math.log(rates[one] / rates[other])) < 0.2 + 1e-6
    stayed = [i for i, p in enumerate(parent) if i == p]
    for one in stayed:
        assert members[".hyper['rate']"][one] == last.rate.iloc[one]


def test_scores_are_smoothed_along_the_line_of_parents(tolerance):
    run = trained(schedule=PBT(epochs=2, generations=4, patience=9, smoothing=0.4))
    table = run.history.pivot(index="generation", columns="member")
    smoothed = table["score"].loc[0].to_numpy()
    for generation in range(4):
        if generation:
            parent = table["parent"].loc[generation - 1].to_numpy()
            smoothed = 0.4 * smoothed[parent] + 0.6 * table["score"].loc[generation].to_numpy()
        np.testing.assert_allclose(table["smoothed"].loc[generation], smoothed, rtol=tolerance(1e-6, 1e-14))
    assert (table["parent"].to_numpy() != np.arange(4)).any()


def test_a_member_without_a_score_is_replaced_and_fixed_numbers_stay(tolerance):
    """Adam with such a rate has no finite weights after a step or two."""
    run = trained(space=SearchSpace(rate=[1e-2, 2e-2, tolerance(1e38, 1e300), 3e-2], dropout=Uniform(0, 0.5)))
    table = run.history.pivot(index="generation", columns="member")
    assert table["score"][2].isna().all()
    assert table["smoothed"][2].isna().all()
    assert (table["parent"][2] != 2).all()
    assert not (table["parent"] == 2).any(axis=None)
    assert table["score"][[0, 1, 3]].notna().all(axis=None)
    assert (table["rate"][2] > 1e37).all()
    assert run.members.best.score[2] == math.inf
    assert run.best != 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    # it stands at its parent's weights now
    assert np.isfinite(run.members.params["w"]).all()
    assert np.isfinite(run.members.smoothed).all()


def test_members_that_have_stopped_do_not_change():
    space = SearchSpace(rate=LogUniform(1e-3, 1e-1), dropout=0.2)
    one, more = (trained(space=space, schedule=Halving(epochs=2, generations=n, factor=2)) for n in (1, 3))
    table = more.history.pivot(index="generation", columns="member")
    np.testing.assert_array_equal(table["active"].sum(axis=1), [4, 2, 1])
    kept = set(np.argsort(table["score"].loc[0])[:2])
    assert set(np.flatnonzero(table["active"].loc[1])) == kept
    assert list(np.flatnonzero(table["active"].loc[2])) == [min(kept, key=lambda m: table["score"].loc[1][m])]
    before, after = leaves(one), leaves(more)
    for member in range(4):
        for name in before:
            if name.startswith((".params", ".optimizer", ".best", ".hyper")):
                same = (before[name][member] == after[name][member]).all()
                if member not in kept:
                    assert same, (name, member)
                elif name.startswith((".params", ".optimizer")):
                    assert not same, (name, member)
    # nor have they a loss
    np.testing.assert_array_equal(table["loss"].notna(), table["active"])


@pytest.mark.float64
def test_a_chunk_whose_members_have_all_stopped_stays_as_it_is():
    schedule = Halving(epochs=2, generations=3, factor=4)
    one, four = (trained(schedule=schedule, chunk_size=chunk) for chunk in (1, 4))
    assert_close(one, four, 1e-11)


def test_independent_members_stop_one_by_one():
    """A rate of zero brings no improvement after the first generation."""
    space = SearchSpace(rate=[0, 0, 1e-3, 1e-3], dropout=0.0)
    run = trained(space=space, schedule=Independent(epochs=2, generations=4, patience=1, tolerance=0.0))
    table = run.history.pivot(index="generation", columns="member")
    assert list(table["active"].loc[1]) == [True] * 4
    assert list(table["active"].loc[2]) == [False, False, True, True]
    assert run.stopped == "all 4 generations done"
    run = trained(space=SearchSpace(rate=0, dropout=0.0), schedule=Independent(epochs=2, generations=9, patience=1))
    assert run.stopped == "no member improved by 0.0005 in 1 generations"
    assert len(run.history) == 2 * 4
    assert not run.members.active.any()


# programs


def compiled(caplog):
    return [m.split()[1] for m in caplog.messages if re.match("Compiling", m)]


@pytest.mark.float32
def test_an_equal_model_compiles_nothing(caplog):
    trained()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        trained(trainable=Line(3), key=jax.random.key(9), schedule=PBT(epochs=3, generations=2, smoothing=0.7))
    assert compiled(caplog) == []


@pytest.mark.float32
def test_each_program_is_compiled_once(tmp_path, caplog):
    """Weights of weak type as well (`jnp.full`, a number of Python's), which come from a disk with a strong one."""

    class Weak(Line):
        def init(self, key):
            return super().init(key) | {"weak": jnp.full(2, 0.5), "number": 1.0}

    with jax.log_compiles(), caplog.at_level("WARNING"):
        for generations in (2, 3):
            schedule = PBT(epochs=2, generations=generations)
            trained(trainable=Weak(), schedule=schedule, directory=tmp_path / "run")
    once = [name for name in compiled(caplog) if name in ("jit(advance)", "jit(score)", "jit(exchange)")]
    assert sorted(once) == ["jit(advance)", "jit(exchange)", "jit(score)"]


@pytest.mark.float32
def test_no_program_holds_the_examples():
    """A thousand of them are passed as an argument."""
    data = jax.device_put(points(1000))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("member",))
    layout = _chunking.Layout(mesh, 2, 2, 8)
    made = programs_of(Line(), layout)
    hyper = {name: np.full(2, 0.1, np.float32) for name in SPACE.names}
    members = made.begin(jax.random.key(0), np.zeros(2, np.int32), hyper)
    sums = _chunking.make_zero_sums(Line(), SPACE.names, layout, data)
    traced = made.advance.trace(jax.random.key(0), members, data, np.int32(0), np.int32(1), sums)
    assert max((np.asarray(c).nbytes for c in traced.jaxpr.consts), default=0) < 1000


# plans


def measured():
    """The plan of four members, measured."""
    hyper = {name: np.full(4, 0.1, np.float32) for name in SPACE.names}
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("member",))
    return _chunking._measure(Line(), hyper, points(), 4, _chunking.Layout(mesh, 1, 1, 8))


@pytest.mark.float32
def test_a_chunk_fits_the_memory(monkeypatch):
    monkeypatch.setattr(_chunking, "_compute_budget", lambda *_: math.inf)
    free = measured()
    assert list(free.bytes) == list(free.seconds) == [1, 4]
    assert free.seconds[free.chunk_size] <= 1.1 * min(free.seconds.values())
    # the members that wait count as well
    member = sum(leaf.nbytes for leaf in leaves(trained()).values()) / 4
    assert free.bytes[1] > 11 * member
    monkeypatch.setattr(_chunking, "_compute_budget", lambda *_: 10.0)
    words = r"members: 4 stepped one by one need .* GB with 8 examples a step.* has .* smaller, or train fewer"
    with pytest.raises(MemoryError, match=words):
        trained(chunk_size=None)


@pytest.mark.host
def test_the_fastest_chunk_that_fits(monkeypatch):
    """Sixteen are no faster than four; the twenty of all are a little, for four times the memory."""

    class Step:
        def __init__(self, trainable, layout, *_):
            self.chunk = layout.chunk_size
            self.bytes = 100 * layout.chunk_size

        def measure_seconds(self):
            return {1: 1.0, 4: 2.0, 16: 9.0, 20: 9.5}[self.chunk]

    monkeypatch.setattr(_chunking, "_Step", Step)
    layout = _chunking.Layout(jax.sharding.Mesh(np.array(jax.devices()[:1]), ("member",)), 1, 1, 8)
    chosen = {}
    for budget in (5000, 1700, 110):
        monkeypatch.setattr(_chunking, "_compute_budget", lambda *_, budget=budget: budget)
        plan = _chunking._measure(Line(), {}, NOTHING, 20, layout)
        chosen[budget] = plan.chunk_size, plan.seconds
    every = {1: 20.0, 4: 10.0, 16: 18.0, 20: 9.5}
    assert chosen[5000] == (4, every)
    assert chosen[1700] == (4, {chunk: every[chunk] for chunk in (1, 4, 16)})
    assert chosen[110] == (1, {1: 20.0})


@pytest.mark.host
def test_what_was_measured_is_recalled(monkeypatch, cache):
    calls = []

    def measured(*arguments):
        calls.append(arguments)
        return _chunking.Plan(3, {3: 0.1}, {3: 100})

    def plan(model=LINE, members=4, batch=8):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("member",))
        plan = _chunking.plan_chunks(model, {}, points(), members, batch, mesh)
        assert plan.chunk_size == 3
        return len(calls)

    monkeypatch.setattr(_chunking, "_measure", measured)
    assert [plan(), plan(), plan()] == [1, 1, 1]
    assert [file.name for file in cache.iterdir()] == ["population-plans.json"]
    # another model, size or batch is another; none is forgotten for it
    assert [plan(members=5), plan(batch=4), plan(Line(2)), plan(), plan(members=5)] == [2, 3, 4, 4, 4]
    for damaged in ("{", "[]", '{"x": 1}'):
        (cache / "population-plans.json").write_text(damaged)
        count = len(calls)
        assert [plan(), plan()] == [count + 1, count + 1]


@pytest.mark.host
def test_one_member_a_device_leaves_nothing_to_measure(monkeypatch, cache):
    monkeypatch.setattr(_chunking, "_measure", None)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("member",))
    assert _chunking.plan_chunks(LINE, {}, points(), 1, 8, mesh) == _chunking.Plan(1, {}, {})
    assert not cache.exists()


@pytest.mark.host
def test_a_cache_that_cannot_be_written_is_none(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXM2M_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(_chunking, "_measure", lambda *_: _chunking.Plan(4, {}, {}))
    assert (
        _chunking.plan_chunks(
            Line(), {}, points(), 4, 8, jax.sharding.Mesh(np.array(jax.devices()[:1]), "member")
        ).chunk_size
        == 4
    )


# interrupted


@pytest.mark.parametrize("where", ["_advance", "_end_generation"])
def test_an_interrupted_run_goes_on(where, tmp_path, monkeypatch):
    whole = trained()
    original = getattr(_train._Training, where)
    calls = []

    def interrupted(self, *arguments):
        calls.append(where)
        if len(calls) == 3 and where == "_end_generation":
            raise KeyboardInterrupt
        found = original(self, *arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(_train._Training, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(directory=tmp_path / "run")
    again = trained(directory=tmp_path / "run")
    assert_equal(again, whole)
    columns = [name for name in whole.history if name != "seconds"]
    assert whole.history[columns].equals(again.history[columns])


# what is refused


def broken(**parts):
    """A regression with other methods."""
    return type("Broken", (Line,), parts)()


HALF = jax.tree.map(lambda a: a[:32], points().data)
NAN_DATA = Dataset.holdout({"x": np.ones((32, 3), np.float32), "y": np.full(32, np.nan, np.float32)})


@pytest.mark.float32
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": NAN_DATA}, r"generation 0 \(step 8\); the first loss.* at step 0; the examples hold .*'y'"),
        (
            {"space": SearchSpace(rate=1e38, dropout=Uniform(0, 0.5))},
            r"at step 1; the examples are finite: .* learning rate\. Hyperparameters: dropout 0\..* rate 1e\+38",
        ),
        (
            {"dataset": Dataset.holdout(HALF, jax.tree.map(lambda a: a * np.float32(np.nan), HALF))},
            r"every loss was finite; the examples hold NaN or infinity \(\['x'\], \['y'\]\)",
        ),
    ],
)
def test_no_member_with_a_score_is_explained(changes, words):
    with pytest.raises(FloatingPointError, match=f"score: not finite in any of the 4 active members .*{words}"):
        trained(**changes)


FOLDS = Dataset.folds({"x": np.ones((8, 3), np.float32), "y": np.ones(8, np.float32)}, np.arange(8) % 4)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"members": 1}, ValueError, "members: 1; must be at least 2"),
        ({"members": 1, "schedule": Halving()}, ValueError, "members: 1"),
        ({"members": 0, "schedule": Independent()}, ValueError, "members: 0"),
        ({"dataset": FOLDS, "members": None}, ValueError, "schedule: members on different folds.* Independent"),
        ({"dataset": FOLDS, "members": 5, "schedule": Independent()}, ValueError, "members: 5, but .* split for 4"),
        ({"batch_size": 0}, ValueError, "batch_size: 0"),
        ({"chunk_size": 0}, ValueError, "chunk_size: 0"),
        ({"keep": 0}, ValueError, "keep: 0"),
        ({"space": SearchSpace(rate=[1, 2, 3], dropout=0)}, ValueError, "rate: 3 values for 4 members"),
        ({"space": SearchSpace(rate=1, dropout=0, score=1)}, ValueError, "space: score is a column of the history"),
        ({"space": SearchSpace(rate=1, dropout=0, penalty=1)}, ValueError, "loss's term: penalty is a column"),
        (
            {"trainable": broken(score=lambda s, p, h, b, k: (b["x"]) ** 2)},
            ValueError,
            r"score gave shape \(8, 3\) for 8 examples",
        ),
        ({"trainable": broken(score=lambda *_: jnp.ones(()))}, ValueError, r"score gave shape \(\) for 8 examples"),
        ({"trainable": broken(loss=lambda *_: (jnp.ones(3), {}))}, ValueError, r"loss gave shape \(3,\) as its value"),
        (
            {"trainable": broken(loss=lambda *_: (jnp.ones(()), {}, {"other": jnp.ones(2)}))},
            ValueError,
            "loss sets other, which is no part of the weights",
        ),
        (
            {"trainable": broken(loss=lambda *_: (jnp.ones(()), {"parts": jnp.ones(2)}))},
            ValueError,
            r"loss gave shape \(2,\) as parts",
        ),
        ({"trainable": broken(init=lambda s, k: {"n": jnp.arange(3)})}, ValueError, r"int32 as params\['n'\]"),
        (
            {"trainable": broken(optimizer=lambda s, h: optax.add_noise(0.1, 0.5, jax.random.key(0)))},
            ValueError,
            "optimiser's state holds a random key",
        ),
        ({"tensorboard": True}, ValueError, "tensorboard: there is no directory"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        trained(**changes)


@pytest.mark.host
def test_keys():
    """Annotations are checked in tests before `train` can look at its arguments."""
    key = _train._check_key(jax.random.key(3))
    for other in (jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3))):
        np.testing.assert_array_equal(jax.random.key_data(_train._check_key(other)), jax.random.key_data(key))
    for wrong in (3, None, np.zeros(2, int), "key"):
        with pytest.raises(TypeError, match=r"key: found \w+; pass jax.random.key\(0\)"):
            _train._check_key(wrong)
    with pytest.raises(ValueError, match="key: found 4 of them; pass one"):
        _train._check_key(jax.random.split(key, 4))


def begun(w, c=0.0, members=4):
    """Weights for `Line` to begin with."""
    offset = jnp.full(members, c)
    return {"w": jnp.broadcast_to(jnp.asarray(w, offset.dtype), (members, 3)), "offset": {"c": offset}}


@pytest.mark.parametrize("chunk", [2, 3])
def test_members_begin_where_they_are_told(chunk, tmp_path):
    still = {
        "space": SearchSpace(rate=1e-30, dropout=0.1),
        "schedule": Independent(epochs=1, generations=1),
        "chunk_size": chunk,
    }
    weights = np.arange(12.0).reshape(4, 3)
    run = trained(initial_params=begun(weights, 0.5), directory=tmp_path, **still)
    np.testing.assert_allclose(run.members.params["w"], weights, atol=1e-6)
    np.testing.assert_allclose(run.members.params["offset"]["c"], 0.5)
    # they are part of what a run was begun with
    assert_equal(trained(initial_params=begun(weights, 0.5), directory=tmp_path, **still), run)
    with pytest.raises(ValueError, match="another start"):
        trained(initial_params=begun(weights, 0.6), directory=tmp_path, **still)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"w": jnp.ones((4, 3))}, r"initial_params: lacks params\['offset'\]\['c'\]"),
        (begun(1.0) | {"b": jnp.ones(4)}, r"initial_params: holds params\['b'\]"),
        (begun(1.0, members=3), r"are float32 of shape \(3,\); pass float32 of shape \(4,\), members first"),
        (begun(1.0) | {"w": jnp.ones((4, 3), int)}, r"params\['w'\] are int32"),
    ],
)
def test_weights_to_begin_with_that_do_not_fit(start, words):
    with pytest.raises(ValueError, match=words):
        trained(initial_params=start)


@pytest.mark.host
def test_a_batch_is_no_larger_than_the_smallest_split():
    folds = Dataset.folds(np.ones(10), [0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert [_train._check_batch_size(batch, folds) for batch in (None, 3, 4, 1000)] == [4, 3, 4, 4]


@pytest.mark.host
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dataset.holdout({"x": np.ones((3, 2)), "y": np.ones(4)}), r"train: arrays with \[3, 4\] examples"),
        (lambda: Dataset.holdout(np.ones((0, 2))), r"train: arrays with \[0\] examples"),
        (lambda: Dataset.holdout({}), r"train: arrays with \[\] examples"),
        (lambda: Dataset.holdout(np.float64(1)), "train: arrays with"),
        (lambda: Dataset.holdout(np.ones((3, 2)), np.ones((0, 2))), "valid: arrays with"),
        (lambda: Dataset.holdout(np.ones((3, 2)), np.ones((3, 3))), r"valid: examples of shape \[\(3,\)\], in train"),
        (lambda: Dataset.holdout({"x": np.ones(3)}, {"y": np.ones(3)}), "valid: examples as .*'y'.*'x'.*alike"),
        (lambda: Dataset.folds(np.ones(3), [0, 1]), r"fold: shape \(2,\) for 3 examples"),
        (lambda: Dataset.folds(np.ones(3), [0, 0, 0]), "fold: 1 values up to 0"),
        (lambda: Dataset.folds(np.ones(3), [0, 2, 2]), "fold: 2 values up to 2; number the folds 0, 1"),
        (lambda: Dataset.folds(np.ones(3), [-1, 0, 1]), "fold: 3 values"),
        (lambda: Dataset.folds(np.ones(3), [0, 0.5, 1]), "fold: some values are not whole"),
        (lambda: Dataset.folds(np.ones(3), [0, math.nan, 1]), "fold: some values are not whole"),
        (lambda: Dataset.folds(np.ones(4), [0, 1, 0, 1], members=3), "members: 3 do not share 2 folds evenly"),
    ],
)
def test_examples_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.host
def test_examples_without_others_are_validated_on_themselves():
    alone = Dataset.holdout(np.ones((3, 2)))
    np.testing.assert_array_equal(alone.valid, [[0, 1, 2]])
    split = Dataset.holdout(Pair(np.zeros((3, 2)), np.zeros(3)), Pair(np.ones((2, 2)), np.ones(2)))
    np.testing.assert_array_equal(split.valid, [[3, 4]])
    np.testing.assert_array_equal(split.data.y, [0, 0, 0, 1, 1])


@pytest.mark.float32
def test_scalars_for_tensorboard(tmp_path):
    run = trained(directory=tmp_path / "run", tensorboard=True)
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    written = file.read_bytes()
    generations = run.history.generation.nunique()
    assert written.count(b"score/best") == generations
    assert written.count(b"rate/member_0") == generations
