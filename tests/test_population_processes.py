"""A population trained by two processes of four devices each, on one machine."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from population_process import Regression, environment, train

from jaxm2m import population

pytestmark = pytest.mark.host

GENERATIONS = 4


class Pair:
    """Two processes under `jax.distributed`; `wait` gives their exit codes and what they said."""

    def __init__(self, folder, path, generations):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.results = [folder / f"{number}.npz" for number in range(2)]
        script = str(Path(__file__).with_name("population_process.py"))
        self.processes = [
            subprocess.Popen(
                [sys.executable, script, *map(str, (path, generations, self.results[number], number, 2, port))],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment(devices=4),
            )
            for number in range(2)
        ]

    def until(self, condition):
        end = time.monotonic() + 90
        while not condition():
            assert all(process.poll() is None for process in self.processes), self.wait()
            assert time.monotonic() < end
            time.sleep(0.01)

    def wait(self):
        said = [process.communicate(timeout=120)[0] for process in self.processes]
        return [process.returncode for process in self.processes], said

    def numbers(self):
        """What each process returned: leaves by name, and the history."""
        return [(dict(np.load(path)), pd.read_json(f"{path}.json")) for path in self.results]


@pytest.fixture
def pair(tmp_path):
    pairs = []

    def start(path, generations=GENERATIONS):
        pairs.append(Pair(tmp_path, path, generations))
        return pairs[-1]

    yield start
    for processes in pairs:
        for process in processes.processes:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=60)


def close(history, other):
    """Equal but for rounding, and who went on from whom to the last one."""
    ours, theirs = (h.sort_values(["generation", "member"]).reset_index(drop=True) for h in (history, other))
    exact = ["generation", "step", "member", "parent"]
    pd.testing.assert_frame_equal(ours[exact], theirs[exact], check_dtype=False)
    for name in ("score", "smoothed", "loss", "penalty", "learning_rate", "dropout"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, pair):
    """One process begins the run, two go on with it, one ends it."""
    train(tmp_path / "run", 1)
    both = pair(tmp_path / "run")
    codes, said = both.wait()
    assert codes == [0, 0], said
    one = train(None, GENERATIONS)
    # separated scores: rounding decides nothing
    for _, generation in one.history.groupby("generation"):
        assert np.diff(np.sort(generation["smoothed"])).min() > 1e-5
    (first, history), (second, other) = both.numbers()
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), other.drop(columns="seconds"))
    close(history, one.history)
    np.testing.assert_allclose(first[".best.score"], one.members.best.score, rtol=1e-4)
    np.testing.assert_allclose(first[".params['out']"], one.members.params["out"], rtol=1e-3, atol=1e-4)
    # what the first process wrote is whole, and anybody's
    rows = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert [(json.loads(row)["generation"], json.loads(row)["member"]) for row in rows] == [
        (generation, member) for generation in range(GENERATIONS) for member in range(8)
    ]
    sessions = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    assert [len(session["devices"]) for session in sessions] == [1, 8]
    stored = population.load(tmp_path / "run", Regression())
    np.testing.assert_array_equal(stored.members.params["out"], first[".params['out']"])
    close(stored.history, history)
    close(train(tmp_path / "run", GENERATIONS + 1).history, train(None, GENERATIONS + 1).history)


@pytest.mark.slow
def test_a_refusal_ends_both(tmp_path, pair):
    train(tmp_path / "run", 2, batch_size=16)
    codes, said = pair(tmp_path / "run").wait()
    assert codes[0] > 0
    assert codes[1] > 0
    assert "ValueError: directory: the run in" in said[0]
    assert "process 0 of 2 stopped: directory: the run in" in said[1]
    for words in said:
        assert "was begun with another batch (16 then, 8 now)" in words


@pytest.mark.slow
def test_a_failure_of_the_first_process_ends_both(tmp_path, pair):
    path = tmp_path / "run"
    both = pair(path, 10_000)
    both.until(lambda: _whole(path))
    subprocess.run(["rm", "-r", path / "history.jsonl"], check=True)
    (path / "history.jsonl").mkdir()  # which nobody can append to
    codes, said = both.wait()
    assert codes[0] > 0
    assert codes[1] > 0
    assert "IsADirectoryError" in said[0]
    assert "process 0 of 2 stopped: " in said[1]


@pytest.mark.slow
def test_the_end_of_one_process_ends_the_other(tmp_path, pair):
    path = tmp_path / "run"
    both = pair(path, 10_000)
    both.until(lambda: _whole(path))
    both.processes[1].send_signal(signal.SIGKILL)
    codes, _ = both.wait()
    assert all(codes)
    history = population.load(path, Regression()).history
    assert len(history) == 8 * max(int(folder.name) for folder in _whole(path))
    close(history[history["generation"] < 1], train(None, 1).history)


def _whole(path):
    return [folder for folder in path.glob("checkpoints/*") if folder.name.isdigit()]
