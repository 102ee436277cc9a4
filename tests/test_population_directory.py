"""The directory of a run: found, refused, locked, cut, full, killed."""

import errno
import getpass
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from population_process import SPACE, Regression, environment, examples, leaves, train

from jaxm2m import population
from jaxm2m.population import _run_files, _train

pytestmark = pytest.mark.host


@dataclass(frozen=True)
class Deeper(Regression):
    """Another model under the same name and settings: a version of this package that changed."""

    def init(self, key):
        return super().init(key) | {"bias": jax.numpy.zeros(2)}


Deeper.__name__ = "Regression"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, precision):
    """A run of five generations; tests copy it."""
    path = tmp_path_factory.mktemp("population") / "run"
    return path, train(path, 5)


@pytest.fixture
def run(finished, tmp_path):
    path = tmp_path / "run"
    subprocess.run(["cp", "-r", finished[0], path], check=True)
    return path


@pytest.fixture
def no_steps(monkeypatch):
    """Nothing may be trained."""

    def refused(*_):
        raise AssertionError("a generation was trained")

    monkeypatch.setattr(_train._Training, "_advance", refused)


@pytest.fixture
def largest_file():
    """`largest_file(bytes)`: files cannot grow beyond, as on a full disk; None: they can again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def record(path):
    return json.loads((path / "run.json").read_text())


def checkpoints(path):
    return sorted(int(folder.name) for folder in (path / "checkpoints").iterdir())


def numbers(history):
    """All of a history but how long it took."""
    return history.drop(columns="seconds")


def same(run, other):
    """Equal to the bit: weights, hyperparameters, scores, history."""
    ours, theirs = leaves(run), leaves(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    pd.testing.assert_frame_equal(numbers(run.history), numbers(other.history), check_exact=True)


def test_a_directory_is_made_and_changes_no_number(finished):
    path, run = finished
    assert record(path)["stopped"] == run.stopped == "all 5 generations done"
    assert record(path)["config"] == {
        "model": {"width": 4},
        "space": SPACE.settings,
        "schedule": population.PBT(epochs=2, patience=1000).settings,
        "members": 8,
        "batch": 8,
        "hyper": ["learning_rate", "dropout"],
        "notes": {},
    }
    assert len((path / "history.jsonl").read_text().splitlines()) == 40
    assert {f.name for f in path.iterdir()} == {".lock", "run.json", "history.jsonl", "checkpoints"}
    same(run, train(None, 5))


def test_a_missing_or_empty_directory_is_begun(tmp_path):
    same(train(tmp_path, 1), train(tmp_path / "below" / "another", 1))


def test_a_directory_in_the_home_folder(tmp_path, monkeypatch):
    """It became a folder called ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train("~/below/run", 1)
    assert (tmp_path / "below" / "run" / "run.json").exists()
    assert not (tmp_path / "~").exists()
    assert len(population.load("~/below/run", Regression()).history) == 8


def test_a_finished_run_is_returned_without_a_step(finished, run, no_steps):
    same(train(run, 5), finished[1])
    same(train(run, 4), finished[1])


def test_more_generations_go_on(run):
    longer = train(run, 7)
    assert longer.stopped == record(run)["stopped"] == "all 7 generations done"
    same(longer, train(None, 7))


def test_chunks_of_a_run_stay(run):
    assert train(run, 6, chunk_size=4).plan["chunk"] == 2


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (r"model width \(4 then, 5 now\)", {"trainable": Regression(5)}),
        (
            r"space learning_rate \(LogUniform \(low 0.001, high 0.1.*then, LogUniform \(low 0.001, high 0.2.*now\)",
            {
                "space": population.SearchSpace(
                    learning_rate=population.LogUniform(1e-3, 2e-1), dropout=population.Uniform(0.0, 0.5)
                )
            },
        ),
        (
            r"space dropout \(Uniform.* then, 0.1 now\)",
            {"space": population.SearchSpace(learning_rate=population.LogUniform(1e-3, 1e-1), dropout=0.1)},
        ),
        (
            r"space clip \(unknown then, 1.0 now\)",
            {"space": population.SearchSpace(**SPACE, clip=1.0)},
        ),
        (r"examples;", {"dataset": examples(seed=1)}),
        (r"examples \(set of float32\[64, 3\].* then, set of float32\[96, 3\]", {"dataset": examples(48)}),
        (r"key;", {"key": jax.random.key(6)}),
        (r"members \(8 then, 9 now\)", {"members": 9}),
        (r"batch \(8 then, 16 now\)", {"batch_size": 16}),
        (
            r"schedule epochs \(2 then, 3 now\)",
            {"schedule": population.PBT(epochs=3, generations=5, patience=1000)},
        ),
        (
            r"schedule schedule \(PBT then, Halving now\), .*schedule factor",
            {"schedule": population.Halving(epochs=2, generations=5)},
        ),
    ],
)
def test_another_run_is_refused_by_what_differs(run, no_steps, words, changes):
    before = {f: f.read_bytes() for f in run.rglob("*") if f.is_file() and f.name != ".lock"}
    with pytest.raises(ValueError, match=rf"^directory: the run in .* was begun with another {words}"):
        train(run, 5, **changes)
    assert before == {f: f.read_bytes() for f in before}


def test_another_precision_is_refused(run, no_steps):
    with jax.enable_x64(not jax.config.jax_enable_x64):
        with pytest.raises(ValueError, match=r"begun with another precision \(float(32|64) then, float(32|64) now\)"):
            train(run, 5)
        with pytest.raises(ValueError, match=r"was computed in float.*start with JAX_ENABLE_X64=[01]\.$"):
            population.load(run, Regression())


def test_other_packages_are_told(run):
    changed = record(run)
    changed["sessions"][0]["versions"]["jax"] = "0.1"
    (run / "run.json").write_text(json.dumps(changed))
    with pytest.warns(UserWarning, match=r"goes on with other packages \(jax 0.1 then, .* now\)"):
        train(run, 6)
    assert [session["versions"]["jax"] for session in record(run)["sessions"]] == ["0.1", jax.__version__]


def test_foreign_directories_are_left_alone(tmp_path, run, no_steps):
    (tmp_path / "thesis.tex").write_text("keep")
    with pytest.raises(FileExistsError, match=r"holds no run, but run, thesis.tex; choose a new directory"):
        train(tmp_path, 5)
    for file in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "run"):
        with pytest.raises(FileExistsError, match=r"^directory: .* is a file, or lies below one; name a directory\.$"):
            train(file, 5)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["run", "thesis.tex"]
    (run / "run.json").unlink()
    with pytest.raises(FileExistsError, match=r"holds checkpoints or a history, but no run\.json"):
        train(run, 5)
    assert checkpoints(run)


@pytest.fixture
def read_only():
    """A directory that this process may not write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        root = os.geteuid() == 0
        if root:  # who may write everywhere becomes somebody else
            os.seteuid(65534)
        yield Path(name)
        if root:
            os.seteuid(0)


def test_directories_that_cannot_be_written_to(read_only, no_steps):
    with pytest.raises(PermissionError, match=r"^directory: .* cannot be written to \(.*\); choose another one\.$"):
        train(read_only, 5)
    with pytest.raises(PermissionError, match=r"^directory: .*new cannot be made \(.*\); choose another one\.$"):
        train(read_only / "new", 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged, or not of this package"),
        ('{"format": 1, "settings', "is damaged, or not of this package"),
        ("[]", "is damaged, or not of this package"),
        ('{"name": "another program\'s"}', "is damaged, or not of this package"),
        ('{"format": 1, "settings": {}, "config": {}, "sessions": {}, "plan": null}', "is damaged, or not of this"),
        ('{"format": 2, "sessions": []}', "has format 2, this version of jaxm2m reads format 1; go on with"),
        ('{"format": 0}', "has format 0"),
    ],
)
def test_what_run_json_may_hold(run, no_steps, text, words):
    (run / "run.json").write_text(text)
    for call in (lambda: train(run, 5), lambda: population.load(run, Regression())):
        with pytest.raises(ValueError, match=rf"^directory: .*{words}"):
            call()
    assert checkpoints(run) == [3, 4, 5]
    assert (run / "run.json").read_text() == text


def test_a_checkpoint_of_another_version_is_refused(run, no_steps):
    before = checkpoints(run)
    message = r"checkpoint .*/5 holds nothing as .*bias.*, this version needs float32\[8, 2\]; go on with the version"
    with pytest.raises(ValueError, match=message):
        train(run, 6, trainable=Deeper())
    with pytest.raises(ValueError, match=message):
        population.load(run, Deeper())
    assert checkpoints(run) == before
    assert len(population.load(run, Regression()).history) == 40


def test_a_history_that_was_lost_is_told(run, no_steps):
    (run / "history.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"history.jsonl has 0 rows up to the last checkpoint, there were 40; bring"):
        train(run, 6)


def test_two_writers_are_refused(run):
    inside = []

    class Nosy(population.PBT):
        def decide(self, key, smoothed):
            with pytest.raises(RuntimeError, match=rf"in use by process {os.getpid()} on "):
                train(run, 6)
            inside.append(population.load(run, Regression()))
            return super().decide(key, smoothed)

    Nosy.__name__ = "PBT"
    train(run, 6, schedule=Nosy(epochs=2, generations=6, patience=1000))
    # also while it trains, anybody may read it
    assert [(len(seen.history), seen.stopped) for seen in inside] == [(40, "unfinished")] * 2


def test_load(finished, run, tmp_path, no_steps):
    same(population.load(run, Regression()), finished[1])
    with pytest.raises(ValueError, match=r"trained another model width \(4 then, 5 now\); pass what it trained\.$"):
        population.load(run, Regression(5))
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no run.json\); name the directory of a run"):
        population.load(tmp_path, Regression())
    for remove in ("checkpoints/*", "checkpoints"):
        subprocess.run(f"rm -r {run / remove}", shell=True, check=True)
        with pytest.raises(FileNotFoundError, match="has no checkpoint yet; wait for its first generation"):
            population.load(run, Regression())


def test_load_reads_what_has_come_since(finished, run, monkeypatch):
    """A checkpoint that the writer replaces between the look and the reading."""
    from jaxm2m.population import _run

    restore = _run.Checkpoints.restore

    def late(self, number, like):
        if number == 5:
            monkeypatch.setattr(_run.Checkpoints, "restore", restore)
            train(run, 6, keep=1)
            subprocess.run(["rm", "-r", run / "checkpoints" / "5"], check=True)
        return restore(self, number, like)

    monkeypatch.setattr(_run.Checkpoints, "restore", late)
    loaded = population.load(run, Regression())
    assert len(loaded.history) == 48


def test_history_and_checkpoint_agree_after_a_kill(finished, run):
    # the checkpoint of generation 5 was not finished, and a later row was cut short
    subprocess.run(["rm", "-r", run / "checkpoints" / "5"], check=True)
    text = (run / "history.jsonl").read_text()
    (run / "history.jsonl").write_text(text + text.splitlines()[-1][:50])
    leftover = run / "checkpoints" / "5.orbax-checkpoint-tmp"
    leftover.mkdir()
    (run / ".abc~run.json").write_text("{")
    loaded = population.load(run, Regression())
    assert len(loaded.history) == 32
    same(train(run, 5), finished[1])
    assert not leftover.exists()
    assert not (run / ".abc~run.json").exists()
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    pd.testing.assert_frame_equal(numbers(pd.DataFrame(rows)), numbers(finished[1].history), check_exact=True)


@pytest.mark.parametrize("lost", ["default/_METADATA", "default/d"])
def test_a_damaged_last_checkpoint_is_set_aside(finished, run, lost):
    """A disk that filled while it was written: "'NoneType' object has no attribute 'tree'"."""
    place = run / "checkpoints" / "5" / lost
    subprocess.run(["rm", "-r", place], check=True)
    older = checkpoints(run)[-2]
    message = rf"checkpoints/5 cannot be read .* Checkpoint {older}, the last whole one, was read instead"
    with pytest.warns(UserWarning, match=message):
        loaded = population.load(run, Regression())
    assert len(loaded.history) == 8 * older
    with pytest.warns(UserWarning, match=message):
        same(train(run, 5), finished[1])
    assert (run / "damaged-checkpoint-5").is_dir()
    same(train(run, 5), finished[1])


def test_scores_that_are_not_finite_return_as_they_were(tmp_path):
    """A member that diverges: infinite losses, scores that are NaN."""

    @dataclass(frozen=True)
    class Diverging(Regression):
        def loss(self, params, hyper, batch, key, step):
            value, terms = super().loss(params, hyper, batch, key, step)
            far = jax.numpy.where(hyper["dropout"] > 0.3, jax.numpy.inf, 0.0)
            return value + far, terms | {"far": -far}

        def score(self, params, hyper, batch, key):
            return super().score(params, hyper, batch, key) + jax.numpy.where(hyper["dropout"] > 0.3, jax.numpy.nan, 0)

    schedule = population.Independent(epochs=2, generations=2)
    before = train(tmp_path, 2, trainable=Diverging(), schedule=schedule)
    assert np.isinf(before.history["loss"]).any()
    assert (before.history["far"] == -np.inf).any()
    assert before.history["score"].isna().any()
    after = train(tmp_path, 2, trainable=Diverging(), schedule=schedule)
    same(after, before)
    for line in (tmp_path / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path):
    @dataclass(frozen=True)
    class Ageing(Regression):
        """Its score is best after the second generation."""

        def optimizer(self, hyper):
            import optax

            return optax.chain(optax.sgd(0.0), optax.add_decayed_weights(0.0), optax.scale(0.0), _counting())

        def init(self, key):
            return {"age": jax.numpy.zeros(())}

        def loss(self, params, hyper, batch, key, step):
            return params["age"], {}

        def score(self, params, hyper, batch, key):
            return jax.numpy.broadcast_to((params["age"] - 16) ** 2, batch["y"].shape)

    def begin(generations):
        return train(
            tmp_path,
            generations,
            trainable=Ageing(),
            schedule=population.Independent(epochs=2, generations=generations),
            keep=2,
        )

    begin(4)
    assert checkpoints(tmp_path) == [2, 3, 4]
    begin(6)  # what was best is known after a new start
    assert checkpoints(tmp_path) == [2, 5, 6]
    (tmp_path / "checkpoints" / "5" / "metrics").rename(tmp_path / "gone")  # killed while it was removed
    (tmp_path / "gone").rename(tmp_path / "run~gone")
    run = begin(8)
    assert checkpoints(tmp_path) == [2, 7, 8]
    assert run.params["age"] == 16


def _counting():
    """Weights that count the steps."""
    import optax

    return optax.GradientTransformation(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None: (jax.tree.map(jax.numpy.ones_like, updates), state),
    )


def test_a_full_disk_keeps_the_last_checkpoint(run, largest_file):
    path, wide = run.parent / "wide", Regression(4000)
    train(path, 2, trainable=wide)
    largest_file(50_000)  # the weights are larger, all else is smaller
    with pytest.raises(OSError, match=r"no space left on the disk of .*; checkpoint 2 is kept: make room") as told:
        train(path, 6, trainable=wide)
    assert told.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="checkpoint 2 is kept"):  # at the end of a run there is no save that would tell
        train(path, 3, trainable=wide)
    largest_file(None)
    assert record(path)["stopped"] == "unfinished"
    same(train(path, 6, trainable=wide), train(None, 6, trainable=wide))


def test_a_full_disk_in_the_middle_of_the_history(run, largest_file):
    train(run, 12)  # until the history is longer than all other files
    largest_file((run / "history.jsonl").stat().st_size + 100)
    with pytest.raises(OSError, match="checkpoint 12 is kept: make room and repeat the call"):
        train(run, 14)
    largest_file(None)
    same(train(run, 14), train(None, 14))


def test_a_full_disk_before_the_first_checkpoint(tmp_path, largest_file):
    largest_file(2000)
    with pytest.raises(OSError, match="no checkpoint is kept yet"):
        train(tmp_path / "run", 1)
    largest_file(None)
    same(train(tmp_path / "run", 1), train(None, 1))


def test_other_failures_stay_what_they_are(run, monkeypatch):
    def broken(self, *_):
        raise RuntimeError("something else")

    with monkeypatch.context() as patch:
        patch.setattr(_run_files.Checkpoints, "save", broken)
        with pytest.raises(RuntimeError, match=r"^something else$"):
            train(run, 6)
    same(train(run, 6), train(None, 6))


def test_no_person_or_place_enters(finished):
    path, _ = finished
    for file in ("run.json", "history.jsonl"):
        text = (path / file).read_text()
        for word in (str(path), str(Path.home()), f'"{getpass.getuser()}"', f'"{socket.gethostname()}"'):
            assert word not in text
    assert (path / ".lock").read_text() == ""
    assert set(record(path)) == {"format", "settings", "config", "plan", "sessions", "stopped"}
    assert set(record(path)["sessions"][0]) == {"versions", "devices"}


class Child:
    """A process that trains in a directory."""

    def __init__(self, path, generations):
        self.path = path
        words = [sys.executable, str(Path(__file__).with_name("population_process.py")), str(path), str(generations)]
        self.process = subprocess.Popen(
            [*words, f"{path}.npz"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def when(self, condition):
        """Wait for a condition, as long as it lives."""
        until = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.001)

    @property
    def rows(self):
        history = self.path / "history.jsonl"
        return history.read_bytes().count(b"\n") if history.exists() else 0

    @property
    def saving(self):
        return list((self.path / "checkpoints").glob("*orbax-checkpoint-tmp*"))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.fixture
def child():
    children = []

    def start(*words):
        children.append(Child(*words))
        return children[-1]

    yield start
    for one in children:
        if one.process.poll() is None:
            one.kill()


@pytest.mark.slow
def test_three_kills_change_no_number(tmp_path, child):
    path, generations = tmp_path / "run", 40
    chance = random.Random(0)
    middle = 0
    for kill in range(3):
        one = child(path, generations)
        one.when(lambda one=one: one.rows >= 8)
        if kill == 0:
            with pytest.raises(RuntimeError, match=f"in use by process {one.process.pid} on "):
                train(path, generations)
        begun, more = one.rows, 8 * chance.randint(1, 9)
        one.when(lambda one=one, begun=begun, more=more: one.rows >= begun + more)
        if kill == 1:
            one.when(lambda one=one: one.saving)
        else:
            time.sleep(chance.uniform(0, 0.05))
        one.kill()
        middle += bool(one.saving)
        assert checkpoints_whole(path)
    assert middle
    interrupted = train(path, generations)
    assert one.rows == 8 * generations
    same(interrupted, train(None, generations))


def checkpoints_whole(path):
    return [f.name for f in (path / "checkpoints").iterdir() if f.name.isdigit()]
