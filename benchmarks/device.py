"""The main programs on one accelerator, with no network and little time.

    python benchmarks/device.py [--limit 8m] [--cases floors,efield,...] [--out FOLDER] [--small]

It prints as it goes. A row is written whenever it grows, so that a run that is cut leaves what it had measured; a case
is left out, and says so, where less than it is expected to take is left of the limit. `--small` runs small forms, to
see that each case works. `--out`: where the file of results goes. The head is the four-shell sphere, of the atlas
head's size, which needs no file.

- floors: bytes/s of a pass over memory, and float32 FLOP/s of a matrix product, as JAX does it and at full precision.
- efield: set-up; a pose to the 80^3 grid, its value with its gradient, and 64 poses at once; at 2 and at 1 mm. Floor:
  150 bytes a node and iteration, what a solve moves on a CPU. Aims on an H200: 5 ms, 50 ms (1 mm), 100 ms (64 poses).
- basis: 200 modes built; 1024 poses to 40^3 points; value and gradient of 64 poses.
- lfads: a step of populations of 1, 5, 20 and 64 of the EMG model at the paper's sizes. Aim: 20 cost 3 times 1.
- networks: seconds an epoch of all 20 autoencoders and 60 mappers of the paper's size, 300 trials in 10 folds.
- precision: fields, the EMG model's loss and the networks' against the CPU's float32 in the same process.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "")  # an accelerator and the CPU beside it

import jax
import jax.numpy as jnp
import numpy as np
import record
from population import emg_case

import jaxm2m as jm
from jaxm2m.muscle import PRESETS, NetworkConfig
from jaxm2m.muscle.networks import FieldAutoencoder, MuscleMapper
from jaxm2m.population import Dataset, Independent, SearchSpace, train

TARGET = (-40.0, -20.0, 52.0)  # mm; in grey and white matter of the sphere
NODE_BYTES = 150
SECONDS = {"floors": 15, "efield": 120, "basis": 60, "lfads": 120, "networks": 120, "precision": 40}  # expected


@dataclass(frozen=True)
class Size:
    """How large the cases are."""

    memory: int = 1 << 28  # numbers of a pass
    product: int = 8192
    spacings: tuple[float, ...] = (2.0, 1.0)
    grid: tuple[int, ...] = (80, 80, 80)
    poses: int = 64
    modes: int = 200
    region: tuple[int, ...] = (40, 40, 40)
    step: float = 2.0
    many: int = 1024
    members: tuple[int, ...] = (1, 5, 20, 64)
    steps: int = 5
    folds: int = 10
    trials: int = 300
    network: NetworkConfig = PRESETS["paper"].config
    emg: tuple[tuple[str, int], ...] = ()  # sizes that are not the paper's
    wires: tuple[tuple[str, int], ...] = ()


SMALL = Size(
    memory=1 << 16,
    product=64,
    spacings=(12.0,),
    grid=(5, 5, 5),
    poses=3,
    modes=12,
    region=(4, 4, 4),
    step=4.0,
    many=6,
    members=(1,),
    steps=1,
    folds=2,
    trials=12,
    network=NetworkConfig(shape=(8, 8, 8), filters=(2, 1), pools=1, kernel=1, hidden=(4,)),
    emg=(("generator", 8), ("controller", 6), ("ci_encoder", 5), ("ic_encoder", 6), ("ic_dim", 3), ("fac_dim", 3)),
    wires=(("sides", 8), ("layers", 1), ("turns", 1)),
)


class Report:
    """Rows of this run, written whenever one grows."""

    def __init__(self, name):
        self.name, self.row, self.start = name, {}, time.perf_counter()

    def add(self, **values):
        self.row |= {key.replace("_", " "): value for key, value in values.items()}
        memory = jax.devices()[0].memory_stats() or {}
        self.row["seconds of the case"] = time.perf_counter() - self.start
        self.row["peak memory of the device so far, GB"] = memory.get("peak_bytes_in_use", 0) / 1e9
        self.row["peak memory of the process so far, GB"] = record.peak_memory()
        record.write("device", self.name, self.row)


def both(first_and_best):
    return dict(zip(("first, s", "best, s"), first_and_best, strict=True))


def floors(size, report):
    x = jnp.ones(size.memory, jnp.float32)
    a = jnp.ones((size.product, size.product), jnp.float32)
    seconds = record.timed(jax.jit(lambda x: x * 1.5 + 1), x)[1]
    report.add(**{"pass over memory, GB/s": 2 * x.nbytes / seconds / 1e9})
    for precision in ("default", "highest"):
        seconds = record.timed(jax.jit(lambda a, p=precision: jnp.matmul(a, a, precision=p)), a)[1]
        report.add(**{f"product, {precision} precision, TFLOP/s": 2 * size.product**3 / seconds / 1e12})


def coil_over(head, size, count):
    """A coil's table and poses within 15 mm of the target."""
    wires = jm.coil.figure8(**dict(size.wires))
    coil = jm.coil.tabulate(wires) if not size.wires else jm.coil.tabulate(wires, spacing=20.0)
    pose = jm.coil.place(head.scalp, TARGET, (-1, -1, 0), 8.0)
    random = np.random.default_rng(0)
    twists = jnp.asarray(random.uniform(-1, 1, (count, 6)) * [12, 12, 0, 0, 0, 0.5], jnp.float32)
    return coil, jm.coil.clear_casing(coil, jax.vmap(lambda t: jm.coil.move(pose, t))(twists), head.scalp)[0]


def gradient_of(at_roi):
    """Value and gradient of the field's size in twists of poses."""
    value = jax.value_and_grad(lambda t, pose: (at_roi(jm.coil.move(pose, t), didt=1e8) ** 2).mean())
    return jax.jit(lambda poses: jax.lax.map(lambda p: value(jnp.zeros(6), p), poses))


def efield(size, report):
    for spacing in size.spacings:
        head = jm.head.sphere(spacing=spacing)
        start = time.perf_counter()
        sim = jm.efield.Simulator(head)
        jax.block_until_ready(jax.tree.leaves(sim.parts))
        first = time.perf_counter() - start
        start = time.perf_counter()
        sim = jm.efield.Simulator(head)
        jax.block_until_ready(jax.tree.leaves(sim.parts))
        row = {"set-up": {"first, s": first, "second, s": time.perf_counter() - start}}
        nodes = int(np.prod(sim.parts.fractions.shape[1:]))
        coil, poses = coil_over(head, size, size.poses)
        at_roi = sim.bind(coil, jm.efield.Grid.around(TARGET, size.grid))
        row["nodes"] = nodes
        name = f"{spacing:g} mm"
        report.add(**{name: row})
        row["a pose"] = both(record.timed(at_roi, poses[0]))
        _, stats = jm.efield.evaluate(at_roi, poses[:1], 1e6, batch_size=1)
        row["iterations"] = int(stats.iterations[0])
        row["bytes of a solve"] = NODE_BYTES * nodes * row["iterations"]
        report.add(**{name: row})
        row[f"{size.poses} poses"] = both(record.timed(at_roi, poses, repeats=2))
        report.add(**{name: row})
        row["value and gradient of a pose"] = both(record.timed(gradient_of(at_roi), poses[:1], repeats=3))
        report.add(**{name: row})


def basis(size, report):
    head = jm.head.sphere(spacing=size.spacings[0])
    sim = jm.efield.Simulator(head)
    start = time.perf_counter()
    made = jm.efield.Basis.build(
        sim, jm.efield.Grid.around(TARGET, size.region, size.step), modes=size.modes, rank=min(80, size.modes)
    )
    row = {"build, s": time.perf_counter() - start, "modes": size.modes, "points": len(made.active)}
    report.add(**row, **{"largest error of the check, %": float(made.accuracy["error"].max())})
    coil, poses = coil_over(head, size, size.many)
    at_roi = made.bind(coil, limit=1e9)
    report.add(**{f"{size.many} poses": both(record.timed(at_roi, poses))})
    some = poses[: size.poses]
    report.add(**{f"value and gradient of {len(some)} poses": both(record.timed(gradient_of(at_roi), some))})


def lfads(size, report):
    seconds = {}
    for members in size.members:
        row = emg_case(members, size is SMALL, size.steps, **dict(size.emg))
        seconds[members] = row["s a step"]
        report.add(**{f"{members} members": row, f"step of {members} over step of 1": row["s a step"] / seconds[1]})


def networks(size, report):
    config, preset = size.network, PRESETS["paper"]
    random = np.random.default_rng(0)
    data = {
        "x": random.uniform(size=(size.trials, *config.shape, 1)).astype(np.float32),
        "y": random.uniform(size=(size.trials, 15)).astype(np.float32),
    }
    folds = np.arange(size.trials) % size.folds
    rows = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(size.folds)]
    for name, trainable, of_each in (
        ("autoencoders", FieldAutoencoder(config, preset.autoencoder.optimizer), 2),
        ("mappers", MuscleMapper(config, 15, 9, preset.mapper.optimizer), 6),
    ):
        members = of_each * size.folds
        dataset = Dataset.splits(data, *zip(*rows, strict=True), split=np.arange(members) % size.folds)
        run = train(
            trainable, SearchSpace(**preset.mapper.hyper), dataset, members=members, batch_size=4,
            schedule=Independent(epochs=1, generations=2), key=jax.random.key(0), progress=False,
        )  # fmt: skip
        seconds = run.history.groupby("generation")["seconds"].first().to_numpy()
        row = {"first epoch, s": float(seconds[0]), "epoch, s": float(seconds[-1]), "plan": dict(run.plan)}
        report.add(**{f"{members} {name}": row})


def precision(size, report):
    """Relative differences of the accelerator from the CPU; a CPU alone is only seen to compute."""
    cpu = jax.devices("cpu")[0]

    def compute():
        head = jm.head.sphere(spacing=size.spacings[0])
        coil, poses = coil_over(head, size, 1)
        sim = jm.efield.Simulator(head)
        e = sim.bind(coil, jm.efield.Grid.around(TARGET, size.grid))(poses[0])
        yield "field of a pose", np.asarray(e)
        model = jm.emg.SequentialVAE(jm.emg.LFADSConfig(12, **dict(size.emg)))
        hyper = {name: jnp.float32(value) for name, value in PRECISION_HYPER.items()}
        windows = np.random.default_rng(0).gamma(1.0, 0.3, (20, 112, 12)).clip(1e-3).astype(np.float32)
        loss = jax.jit(lambda *a: model.loss(*a)[0])
        params = model.init(jax.random.key(0))
        yield "loss of the EMG model", np.asarray(loss(params, hyper, windows, jax.random.key(1), jnp.int32(0)))
        networks = FieldAutoencoder(size.network, "adam")
        x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, *size.network.shape, 1)), jnp.float32)
        hyper = {"l1": jnp.float32(0), "l2": jnp.float32(0), "learning_rate": jnp.float32(1e-3)}
        params = networks.init(jax.random.key(0))
        loss = jax.jit(
            jax.value_and_grad(lambda p: networks.loss(p, hyper, {"x": x}, jax.random.key(1), jnp.int32(0))[0])
        )
        value, gradient = loss(params)
        yield "loss of an autoencoder", np.asarray(value)
        largest = max(jax.tree.leaves(gradient), key=lambda g: g.size)
        yield "its gradient in the largest kernel", np.asarray(largest)

    with jax.default_device(cpu):
        expected = dict(compute())
    if jax.default_backend() == "cpu":
        report.add(**{"no accelerator; finite": all(np.isfinite(value).all() for value in expected.values())})
        return
    for name, value in compute():
        other = expected[name]
        report.add(**{name: float(np.linalg.norm(value - other) / np.linalg.norm(other))})


PRECISION_HYPER = {
    "learning_rate": 2e-3, "dropout": 0.0, "coordinated_dropout": 0.0, "l2_generator": 1e-2, "l2_controller": 1e-2,
    "kl_ic": 1e-4, "kl_co": 1e-4,
}  # fmt: skip
CASES = {f.__name__: f for f in (floors, efield, basis, lfads, networks, precision)}


def parse_limit(text):
    """Seconds of "8m", "480s" or "480"."""
    return float(text.removesuffix("s").removesuffix("m")) * (60 if text.endswith("m") else 1)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", default="8m", type=parse_limit, help="of all cases, such as 8m or 480s")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--out", type=Path, help="folder of the results; by default that of all benchmarks")
    parser.add_argument("--small", action="store_true", help="small forms, to see that each case works")
    options = parser.parse_args(words)
    end = time.monotonic() + options.limit
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        record.RESULTS = options.out
    size = SMALL if options.small else Size()
    if options.small and options.out is None:
        parser.error("--small: its numbers are none to keep beside others; give --out FOLDER.")
    print(jax.devices(), flush=True)
    for name in options.cases.split(","):
        left = end - time.monotonic()
        needed = 0 if options.small else SECONDS[name]
        if left < needed:
            print(f"{name}: left out; {left:.0f} s are left, it is expected to take {needed}", flush=True)
            continue
        report = Report(name)
        try:
            CASES[name](size, report)
        except Exception as error:  # what one case meets must not take the others' time
            report.add(failed=f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main()
