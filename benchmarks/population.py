"""Populations: what training many members in one program brings, and that a kill changes nothing.

    python benchmarks/population.py [--cases toy,rate,eight,compile,kills,gpu,memory] [--small]

Cases (all by default; `--small` runs them on small numbers and writes no result):

- toy: two members on 1.2 - a^2 - b^2, of which each climbs 1.2 - h0 a^2 - h1 b^2 with its own h (Jaderberg et al. 2017,
  figure 2), against the best fixed setting of the grid (1, 0), (0, 1).
- rate: linear regression whose Hessian has eigenvalues 1 to 100; the best fixed rate of gradient descent is 2/101.
  Sixteen members start between 1e-5 and 1.
- eight: 8 perceptrons 32-64-64-8 (512 examples, batch 64) as a population on one device a core, against the same 8
  members one after the other on one device that may use all cores: `train` with one member, and a loop over a jitted
  step as people write it. Compilation apart; the three take turns.
- compile: compilation for 2, 8 and 32 members, in processes of their own.
- kills: 20 kills at random instants in one run, against the uninterrupted run.
- gpu: the EMG model at the paper's sizes (batch 400, 100 bins, 12 channels), populations of 1, 5, 20 and 64.
- memory: a population of 20 of them on this machine, one device a core.

Floors and predictions (two cores):

- toy: no fixed setting of the grid moves both, so that its best is 1.2 - 0.81 = 0.39; the population that searches
  reaches 1.19 for every key.
- rate: within a factor of 2 for every key. A population looks no further than a generation, and above 2/100 the rate
  diverges: the rates found lie between 0.5 and 1.05 of the best.
- eight: two cores share the members evenly, so the floor is 0.5 of the sequential time where that uses one core. A step
  of a member is 2.6 MFLOP, 0.1 ms: small operators leave the second core idle, and a chunk is one loop without a return
  to Python. Prediction 0.52 of `train` with one member, bar 0.6; below 0.3 of the loop in Python.
- compile: the program holds one chunk, whatever there is in all: equal within the scatter of 10 %.
- kills: bit-equal. Checkpoints of this size take longer to write than generations to train: most kills strike a save.
- gpu: a step is a chain of 200 small kernels, latency bound for one member; 20 members cost at most 3 times as much.
- memory: 45 GFLOP a member and step; measured before for one member in a map, 0.45 s: 9 s a step, below 4 GB.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record

from jaxm2m import population

CASES = ("toy", "rate", "eight", "compile", "kills", "gpu", "memory")


@dataclass(frozen=True)
class Toy:
    """a and b from 0.9, by plain gradient ascent on the surrogate."""

    @property
    def settings(self):
        return {"start": 0.9}

    def init(self, key):
        return jnp.full(2, 0.9)

    def optimizer(self, hyper):
        return optax.sgd(0.01)

    def loss(self, params, hyper, batch, key, step):
        return hyper["h0"] * params[0] ** 2 + hyper["h1"] * params[1] ** 2 - 1.2, {}

    def score(self, params, hyper, batch, key):
        return jnp.broadcast_to((params**2).sum() - 1.2, batch.shape[:1])


@dataclass(frozen=True)
class Linear:
    """Half the mean square of x w - y."""

    inputs: int = 8

    @property
    def settings(self):
        return {"inputs": self.inputs}

    def init(self, key):
        return jnp.zeros(self.inputs)

    def optimizer(self, hyper):
        return optax.sgd(hyper["rate"])

    def loss(self, params, hyper, batch, key, step):
        return 0.5 * jnp.mean((batch["x"] @ params - batch["y"]) ** 2), {}

    def score(self, params, hyper, batch, key):
        return (batch["x"] @ params - batch["y"]) ** 2


@dataclass(frozen=True)
class Perceptron:
    """Two hidden layers with tanh; Adam; dropout of the inputs."""

    sizes: tuple[int, ...] = (32, 64, 64, 8)

    @property
    def settings(self):
        return {"sizes": str(self.sizes)}

    def init(self, key):
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        keys = jax.random.split(key, len(pairs))
        return [
            {"w": jax.random.normal(k, pair) / np.sqrt(pair[0]), "b": jnp.zeros(pair[1])}
            for k, pair in zip(keys, pairs, strict=True)
        ]

    def optimizer(self, hyper):
        return optax.adam(hyper["learning_rate"])

    def loss(self, params, hyper, batch, key, step):
        kept = jax.random.bernoulli(key, 1 - hyper["dropout"], batch["x"].shape)
        return jnp.mean((self._predicted(params, batch["x"] * kept) - batch["y"]) ** 2), {}

    def score(self, params, hyper, batch, key):
        return jnp.mean((self._predicted(params, batch["x"]) - batch["y"]) ** 2, axis=1)

    def _predicted(self, params, x):
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return x @ params[-1]["w"] + params[-1]["b"]


SPACE = population.SearchSpace(
    learning_rate=population.LogUniform(1e-4, 1e-2), dropout=population.Uniform(0.0, 0.3, perturb=0.3)
)


def perceptron_examples() -> population.Dataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(640, 32)).astype(np.float32)
    data = {"x": x, "y": np.sin(x @ rng.normal(size=(32, 8)) / 4).astype(np.float32)}
    return population.Dataset.holdout(jax.tree.map(lambda a: a[:512], data), jax.tree.map(lambda a: a[512:], data))


def toy(options) -> dict:
    nothing = population.Dataset.holdout(np.zeros((1, 1), np.float32))
    generations = 200

    def best(space, schedule, key):
        run = population.train(
            Toy(), space, nothing, key=jax.random.key(key), members=2, schedule=schedule, chunk_size=2
        )
        return -run.score

    corners = population.SearchSpace(h0=[1.0, 0.0], h1=[0.0, 1.0])
    tuned = population.SearchSpace(h0=population.Uniform(0.0, 1.0), h1=population.Uniform(0.0, 1.0))
    meeting = population.PBT(epochs=4, generations=generations, patience=generations, smoothing=0.0)
    keys = range(2 if options.small else 10)
    found = [best(tuned, meeting, key) for key in keys]
    return {
        "steps": 4 * generations,
        "optimum": 1.2,
        "best fixed setting of the grid": best(
            corners, population.Independent(epochs=4, generations=generations), key=0
        ),
        "population that exchanges weights between the settings of the grid": best(corners, meeting, key=0),
        "population that searches, keys": len(found),
        "worst": min(found),
        "median": float(np.median(found)),
    }


def rate(options) -> dict:
    rng = np.random.default_rng(0)
    eigenvalues = np.logspace(0, 2, 8)
    q, _ = np.linalg.qr(rng.normal(size=(64, 8)))
    x = q * np.sqrt(64 * eigenvalues)
    data = {"x": x.astype(np.float32), "y": (x @ rng.normal(size=8)).astype(np.float32)}
    examples = population.Dataset.holdout(data)
    best = 2 / (eigenvalues.min() + eigenvalues.max())
    space = population.SearchSpace(rate=population.LogUniform(1e-5, 1.0, perturb=0.3))
    schedule = population.PBT(epochs=20, generations=20, patience=20)
    factors, scores = [], []
    for key in range(2 if options.small else 10):
        run = population.train(
            Linear(), space, examples, key=jax.random.key(key), members=16, schedule=schedule, chunk_size=16
        )
        factors.append(run.hyper["rate"] / best)
        scores.append(run.score)
    steps = schedule.epochs * schedule.generations
    grid = np.append(np.logspace(-5, 0, 16), best)
    fixed = population.train(
        Linear(),
        population.SearchSpace(rate=grid),
        examples,
        key=jax.random.key(0),
        members=17,
        schedule=population.Independent(epochs=steps, generations=1),
        chunk_size=17,
    )
    final = fixed.history["score"].to_numpy()
    return {
        "best rate": best,
        "found over best, by key": factors,
        "largest factor": float(np.exp(np.abs(np.log(factors)).max())),
        "score, median": float(np.median(scores)),
        "score of the best fixed rate": float(final[-1]),
        "score of the best of 16 fixed rates from 1e-5 to 1": float(np.nanmin(final[:-1])),
    }


class Worker:
    """A process that does the same again and again when asked: `ask()` gives what it printed, a JSON object."""

    def __init__(self, what: str, devices: int, options):
        words = [sys.executable, __file__, "--worker", what] + ["--small"] * options.small
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self) -> dict:
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker ended with {self._process.wait()}; see above")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve(what: str, small: bool) -> None:
    """A worker's side: a generator makes one result after the other."""
    results = {"population": together, "sequential": one_by_one, "loop": in_a_loop, "memory": emg_memory}[
        what.split(":")[0]
    ](small)
    for _ in sys.stdin:
        print(json.dumps(next(results), default=float), flush=True)


def schedule_of_eight(small: bool) -> population.Independent:
    return population.Independent(epochs=30, generations=2 if small else 10)


def timed_run(**arguments) -> float:
    start = time.perf_counter()
    population.train(Perceptron(), dataset=perceptron_examples(), batch_size=64, progress=False, **arguments)
    return time.perf_counter() - start


def together(small):
    while True:
        yield {
            "s": timed_run(space=SPACE, key=jax.random.key(0), members=8, schedule=schedule_of_eight(small)),
            "devices": len(jax.devices()),
        }


def one_by_one(small):
    while True:
        seconds = [
            timed_run(space=SPACE, key=jax.random.key(key), members=1, schedule=schedule_of_eight(small), chunk_size=1)
            for key in range(8)
        ]
        yield {"s": sum(seconds), "devices": len(jax.devices())}


def in_a_loop(small):
    """What people write: a jitted step, called from Python, for one member after the other."""
    model, examples, schedule = Perceptron(), perceptron_examples(), schedule_of_eight(small)
    train_x, train_y = (jnp.asarray(examples.data[name][examples.train[0]]) for name in ("x", "y"))

    @jax.jit
    def step(params, state, hyper, rows, key, number):
        batch = {"x": train_x[rows], "y": train_y[rows]}
        (_, _), gradient = jax.value_and_grad(model.loss, has_aux=True)(params, hyper, batch, key, number)
        updates, state = model.optimizer(hyper).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    while True:
        start = time.perf_counter()
        drawn = SPACE.draw(jax.random.key(0), 8)
        for member in range(8):
            hyper = {name: jnp.float32(values[member]) for name, values in drawn.items()}
            rng = np.random.default_rng(member)
            key = jax.random.key(member)
            params = model.init(key)
            state = model.optimizer(hyper).init(params)
            number = 0
            for _ in range(schedule.epochs * schedule.generations):
                for rows in rng.permutation(512).reshape(8, 64):
                    params, state = step(params, state, hyper, rows, jax.random.fold_in(key, number), number)
                    number += 1
            jax.block_until_ready(params)
        yield {"s": time.perf_counter() - start, "devices": len(jax.devices())}


def eight(options) -> dict:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = {
        "population": Worker("population", cores, options),
        "one after the other": Worker("sequential", 1, options),
        "loop over a jitted step": Worker("loop", 1, options),
    }
    row: dict[str, Any] = {
        name: {"first, with compilation, s": (answer := worker.ask())["s"], "devices": answer["devices"]}
        for name, worker in workers.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(2 if options.small else 7):
        for name, worker in workers.items():
            taken[name].append(worker.ask()["s"])
    for name, worker in workers.items():
        worker.close()
        row[name] |= {"s": min(taken[name]), "median, s": float(np.median(taken[name])), "repeats": len(taken[name])}
    steps = schedule_of_eight(options.small)
    ours = row["population"]["s"]
    return row | {
        "steps": 8 * steps.epochs * steps.generations,
        "cores": cores,
        "population over one after the other": ours / row["one after the other"]["s"],
        "population over the loop": ours / row["loop over a jitted step"]["s"],
    }


def compilation(options) -> dict:
    row: dict[str, Any] = {}
    for chunk in (1, 2):
        for members in (2, 8, 32):
            repeats = []
            for _ in range(1 if options.small else 5):
                words = [sys.executable, __file__, "--worker", f"compile:{members}:{chunk}"]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                repeats.append(json.loads(done.stdout.splitlines()[-1]))
            row[f"chunk {chunk}, {members} members"] = {
                name: min(repeat[name] for repeat in repeats) for name in repeats[0]
            } | {"repeats": len(repeats)}
    for chunk in (1, 2):
        two, most = (row[f"chunk {chunk}, {n} members"]["compiling, s"] for n in (2, 32))
        row[f"32 members over 2, chunk {chunk}"] = most / two
    return row


def compile_once(members: int, chunk: int) -> None:
    from jax import monitoring

    events = []
    monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: events.append(seconds) if name.endswith("backend_compile_duration") else None
    )
    schedule = population.Independent(epochs=1, generations=1)
    arguments: dict[str, Any] = {"space": SPACE, "key": jax.random.key(0), "members": members, "schedule": schedule}
    first = timed_run(**arguments, chunk_size=chunk)
    compiled, programs = sum(events), len(events)
    events.clear()
    second = timed_run(**arguments, chunk_size=chunk)
    if events:
        raise RuntimeError(f"{len(events)} programs were compiled again")
    row = {"compiling, s": compiled, "programs": programs, "tracing and compiling, s": first - second}
    print(json.dumps(row))


def train_for_kills(directory: Path | None, generations: int) -> population.Run:
    schedule = population.PBT(epochs=2, generations=generations, patience=generations)
    return population.train(
        Perceptron(),
        SPACE,
        perceptron_examples(),
        key=jax.random.key(0),
        members=8,
        batch_size=64,
        schedule=schedule,
        directory=directory,
        chunk_size=4,
        progress=False,
    )


def kills(options) -> dict:
    count, generations = (3, 60) if options.small else (20, 400)
    chance = random.Random(0)
    path = Path(tempfile.mkdtemp()) / "run"
    row: dict[str, Any] = {
        "kills": 0,
        "generations": generations,
        "in the middle of a save": 0,
        "before a new generation": 0,
    }
    at = []

    def last() -> int:
        """The last whole checkpoint."""
        return max((int(f.name) for f in path.glob("checkpoints/*") if f.name.isdigit()), default=0)

    while row["kills"] < count:
        process = subprocess.Popen([sys.executable, __file__, "--worker", f"kill:{path}:{generations}"])
        begun = last()
        early = chance.random() < 0.15
        if not early:
            while last() == begun and process.poll() is None:
                time.sleep(0.001)
        time.sleep(chance.uniform(0, 3 if early else 0.4))
        if process.poll() is not None:
            raise RuntimeError(f"the run ended after {row['kills']} kills with {process.returncode}; add generations")
        process.send_signal(signal.SIGKILL)
        process.wait()
        row["kills"] += 1
        row["in the middle of a save"] += bool(list(path.glob("checkpoints/*orbax-checkpoint-tmp*")))
        row["before a new generation"] += last() == begun
        at.append(last())
    row["last checkpoint after each kill"] = at
    subprocess.run([sys.executable, __file__, "--worker", f"kill:{path}:{generations}"], check=True)
    broken, whole = train_for_kills(path, generations), train_for_kills(None, generations)
    pairs = zip(jax.tree.leaves(broken.members), jax.tree.leaves(whole.members), strict=True)
    row["weights, optimiser and hyperparameters equal to the bit"] = all(np.array_equal(a, b) for a, b in pairs)
    without = [run.history.drop(columns="seconds") for run in (broken, whole)]
    row["history equal to the bit"] = without[0].equals(without[1])
    row["rows of the history"] = [len(history) for history in without]
    shutil.rmtree(path.parent)
    return row


def emg_case(members: int, small: bool, steps: int, **sizes: int) -> dict:
    """Seconds of a step of so many members at the paper's sizes, but for those given."""
    try:
        from jaxm2m.emg import PRESETS, LFADSConfig, SequentialVAE
    except ImportError as error:
        raise SystemExit(f"the EMG model is not there yet ({error}); leave gpu and memory out") from None
    # windows as the paper's: 100 bins with 6 more on both sides, 12 channels; rectified EMG is close to gamma
    count, time_, channels = (40, 20, 12) if small else (400, 100, 12)
    rng = np.random.default_rng(0)
    data = rng.gamma(2.0, 0.5, size=(count + 20, time_ + 12, channels)).astype(np.float32)
    run = population.train(
        SequentialVAE(LFADSConfig(channels=channels, **sizes)),
        PRESETS["paper"].space,
        population.Dataset.holdout(data[:count], data[count:]),
        key=jax.random.key(0),
        members=members,
        batch_size=count,
        schedule=population.Independent(epochs=steps, generations=3),
        progress=False,
    )
    seconds = run.history.groupby("generation")["seconds"].first().to_numpy()
    step = float(seconds[1:].min()) / steps  # the first generation compiles
    return {"members": members, "s a step": step, "members/s": members / step, "plan": dict(run.plan)}


def gpu(options) -> dict:
    device = jax.devices()[0]
    if device.platform != "gpu" and not options.small:
        raise SystemExit(f"gpu: there is none (JAX found {device.device_kind}); nothing was measured")
    rows = {
        n: emg_case(n, options.small, 2 if options.small else 10) for n in ((1, 2) if options.small else (1, 5, 20, 64))
    }
    statistics = device.memory_stats() or {}
    result: dict[str, Any] = {f"{n} members": row for n, row in rows.items()}
    result |= {f"step of {n} over step of 1": row["s a step"] / rows[1]["s a step"] for n, row in rows.items() if n > 1}
    return result | {"peak memory of the device, GB": statistics.get("peak_bytes_in_use", 0) / 1e9}


def memory(options) -> dict:
    worker = Worker("memory", len(os.sched_getaffinity(0)), options)
    row = worker.ask()
    worker.close()
    return row


def emg_memory(small):
    before = record.peak_memory()
    row = emg_case(3 if small else 20, small, 2)
    yield (
        {"devices": len(jax.devices()), "memory after imports, GB": before}
        | row
        | {"peak memory, GB": record.peak_memory()}
    )


def work(what: str, small: bool) -> None:
    kind, *rest = what.split(":")
    if kind == "compile":
        compile_once(int(rest[0]), int(rest[1]))
    elif kind == "kill":
        train_for_kills(Path(rest[0]), int(rest[1]))
    else:
        serve(kind, small)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--small", action="store_true", help="small numbers, to see that a case works; nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.small)
        return
    cases = options.cases.split(",")
    if len(cases) > 1:
        for case in cases:
            words = [sys.executable, __file__, "--cases", case] + ["--small"] * options.small
            subprocess.run(words, check=case != "gpu")
        return
    functions = dict(zip(CASES, (toy, rate, eight, compilation, kills, gpu, memory), strict=True))
    row = functions[cases[0]](options)
    if options.small:
        print(cases[0], json.dumps(row, indent=1, default=float))
    else:
        record.write("population", cases[0], row)


if __name__ == "__main__":
    main()
