"""The six variants on mapping sessions of known truth, and one step at the paper's size.

    python benchmarks/muscle.py [--cases rate,field,target,paper,gpu] [--cache FOLDER]

Colin27 at 2 mm, the figure-8 that ships, a basis of the grid of 24^3 points of 2 mm round the left hand knob (built
once into the cache); 300 stimuli at 120 % of the resting motor threshold, 15 muscles on a line, alpha .6; 10 folds. The
generator's gain is .55, that of the published model: most MEPs exceed 50 uV. With .33, about as in real maps, noise
hides nearly all.

- rate: the truth follows firing rates. Bars: preset "small", six variants x 10 folds within 30 minutes and 8 GB on two
  cores; firing-rate variants better than E-field variants by a paired 90 % interval off zero; the best within 20 % of
  the noise ceiling's NRMSE.
- field: the truth follows the field. Bar: the advantage vanishes.
- target: coils for one muscle that spare another (`muscle.activate`), found by gradient through basis, rate and a
  model of the session; judged by the generator's truth: the target's mean response over (target + avoided), the target
  over half its largest. Bar: 95 % of the best of a grid (20 mm, every 2 mm, every 10 degrees). The session's handles
  turn by 60 degrees (standard deviation), since a model of one orientation does not know what turning the coil does.
  Measured with `--seeds 8`.
- paper: one fold of preset "paper", a few steps of autoencoder and mapper. Bar: 8 GB. Floor: 48 GFLOP a sample and
  step of the autoencoder (16 forward), 24 of the mapper, at the rate of a large matrix product in the same run. And
  whether bfloat16 would pay: its largest convolution with both gradients, over float32, in turns.
- gpu: 100 epochs of the 20 autoencoders and all 60 mappers at the paper's size. Bar: 15 minutes, and those of "rate".

Predictions: 20 autoencoders x 60 epochs x 243 stimuli at .3 ms, 60 mappers x 100 x 243 at .2 ms: 6 minutes on two
cores.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import jax
import jax.numpy as jnp
import numpy as np
import pose_grid
import record

import jaxm2m as jm
from jaxm2m.muscle import PRESETS
from jaxm2m.muscle.networks import FieldAutoencoder, MuscleMapper, convolve
from jaxm2m.placement import pose_difference
from jaxm2m.population import Dataset, Independent, SearchSpace, train

TARGET = (-40.0, -20.0, 52.0)
RATE = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))


def session(options, truth, grid, turn=8.0):
    """The head, the map from poses to fields, MEPs, their fields, and the seconds that these took."""
    head = jm.head.atlas(spacing=2.0)
    sim = jm.efield.Simulator(head)
    basis = jm.efield.Basis.build(sim, grid, options.cache / f"basis-{grid.shape[0]}.h5", progress=True)
    at_roi = basis.bind(jm.coil.tabulate(jm.coil.figure8()))
    made = jm.simulate.mapping_session(
        at_roi,
        key=jax.random.key(0),
        rate=RATE,
        target=TARGET,
        truth=truth,
        gain=options.gain,
        turn=turn,
        cortex="line",
    )
    start = time.perf_counter()
    fields = np.concatenate(
        [
            np.asarray(at_roi(made.poses[i : i + 20], didt=1e6)) * np.asarray(made.didt[i : i + 20, None, None]) / 1e6
            for i in range(0, len(made), 20)
        ]
    )
    return head, at_roi, made, fields, time.perf_counter() - start


def compared(options, truth):
    grid = jm.efield.Grid.around(TARGET, shape=(24, 24, 24), spacing=2.0)
    _, _, made, fields, seconds = session(options, truth, grid)
    meps = np.asarray(made.meps, float)
    start = time.perf_counter()
    result = jm.muscle.compare(
        fields,
        meps,
        grid=grid,
        rate=RATE,
        muscles=made.muscles,
        key=jax.random.key(1),
        preset=options.preset,
        options=jm.muscle.TrainingOptions(n_seeds=options.seeds),
        progress=True,
    )
    taken = time.perf_counter() - start
    scaled, found = result.values()
    own = result.largest[result.fold]
    ceiling = np.sqrt(((scaled - np.asarray(made.mean) / own) ** 2).mean() / (scaled**2).mean())
    mean = np.stack([(meps / own[:1])[result.fold != f].mean(0) for f in range(10)])[result.fold]
    row = {
        "seconds": taken,
        "seconds of the fields": seconds,
        "peak memory, GB": record.peak_memory(),
        "share of MEPs above 50 uV": float((meps > 50).mean()),
        "NRMSE of the noise ceiling": float(ceiling),
        "NRMSE of the mean of the training trials": float(np.sqrt(((scaled - mean) ** 2).mean() / (scaled**2).mean())),
        "synergies by fold": result.ranks.tolist(),
    }
    for v, name in enumerate(result.variants):
        error = np.sqrt(((scaled - found[v]) ** 2).mean() / (scaled**2).mean())
        row[name] = {"NRMSE, all trials": float(error), "above the ceiling": float(error / ceiling - 1)}
        table = result.table.loc[name, "scaled", "pooled"]
        row[name] |= {
            metric: [float(table[metric]), float(table[f"{metric}_low"]), float(table[f"{metric}_high"])]
            for metric in ("cosine", "s1", "s2", "s3", "nrmse")
        }
    for head in ("direct", "synergy", "combined"):
        d = result.difference(f"E-field, {head}", f"firing rate, {head}")
        row[f"NRMSE, E-field - firing rate, {head}"] = [float(d.estimate), float(d.low), float(d.high)]
    for one, two in (("direct", "synergy"), ("direct", "combined"), ("synergy", "combined")):
        d = result.difference(f"firing rate, {one}", f"firing rate, {two}")
        row[f"NRMSE, {one} - {two}, firing rate"] = [float(d.estimate), float(d.low), float(d.high)]
    record.write("muscle", f"truth {truth}, gain {options.gain:g}", row)
    result.save(options.cache / f"comparison-{truth}.h5")


PAIRS = (("FDI", "BRD"), ("BRD", "FDI"), ("FDI", "FCU"), ("FCU", "FDI"), ("ECU", "ADM"))


def _true(made, wanted, spared, e):
    """Mean MEPs of both, uV."""
    return made.expected_meps(e)[jnp.stack([wanted, spared])]


def target(options):
    grid = jm.efield.Grid.around(TARGET, shape=(24, 24, 24), spacing=2.0)
    head, at_roi, made, fields, _ = session(options, "rate", grid, turn=options.turn)
    coil, didt = jm.coil.tabulate(jm.coil.figure8()), float(made.didt[0])
    start = time.perf_counter()
    model = jm.muscle.fit(
        fields,
        np.asarray(made.meps),
        grid=grid,
        rate=RATE,
        muscles=made.muscles,
        variant="combined",
        preset=options.preset,
        options=jm.muscle.TrainingOptions(n_seeds=options.seeds),
        key=jax.random.key(1),
        progress=True,
    )
    row = {"seconds of the fit": time.perf_counter() - start, "networks averaged": options.seeds}

    def search(objective):
        return jm.placement.optimize(
            at_roi, objective, coil=coil, scalp=head.scalp, target=TARGET, n_starts=16, key=jax.random.key(2),
            radius=20.0, didt=didt, progress=True,
        )  # fmt: skip

    for names in PAIRS:
        pair = [jnp.asarray(made.muscles.index(name)) for name in names]
        true = jax.tree_util.Partial(_true, made, *pair)
        problem = pose_grid.problem(at_roi, true, coil, head.scalp, didt)
        positions, angles, places = pose_grid.places(problem, head.scalp, TARGET, 20.0, 2.0, 10.0)
        every, poses = map(np.asarray, pose_grid.values(problem, places))
        largest = np.nanmax(every[:, 0])  # NaN: a pose that the basis does not cover
        share = np.where(every[:, 0] >= largest / 2, every[:, 0] / every.sum(1), 0)
        best = int(share.argmax())
        start = time.perf_counter()
        found = search(jm.muscle.activate(model, names[0], avoid=names[1]))
        one = {"seconds of the search": time.perf_counter() - start, "poses of the grid": positions * angles}
        strongest = search(jm.muscle.activate(model, names[0]))
        for name, pose in (("selective", found.pose), ("strongest", strongest.pose)):
            both = np.asarray(true(at_roi(pose, didt=didt)))
            moved, turned = pose_difference(poses[best], np.asarray(pose))
            one[name] = {
                "share": float(both[0] / both.sum()),
                "over the best of the grid": float(both[0] / both.sum() / share[best]),
                "target over its largest": float(both[0] / largest),
                "from the best of the grid, mm and degrees": [moved, turned],
            }
        row[f"{names[0]}, not {names[1]}"] = one | {
            "best share of the grid": float(share[best]),
            "share where the target is strongest": float(share[np.nanargmax(every[:, 0])]),
        }
        print(names, row[f"{names[0]}, not {names[1]}"], flush=True)
    name = "target" if options.turn == 60 else f"target, handle {options.turn:g} degrees"
    record.write("muscle", f"{name}, gain {options.gain:g}", row)


def half_over_single(turns=5):
    """Of the convolution of 40^3 from 32 channels to 64, with its gradients: least seconds in bfloat16 over float32."""
    keys = jax.random.split(jax.random.key(0))
    x, kernel = jax.random.normal(keys[0], (2, 40, 40, 40, 32)), jax.random.normal(keys[1], (3, 3, 3, 32, 64)) / 29

    @jax.jit
    def gradients(x, kernel):
        return jax.grad(lambda *a: (convolve(*a).astype(jnp.float32) ** 2).mean(), (0, 1))(x, kernel)

    seconds = {dtype: [] for dtype in (jnp.float32, jnp.bfloat16)}
    for _ in range(turns):
        for dtype, taken in seconds.items():
            taken.append(record.timed(gradients, x.astype(dtype), kernel.astype(dtype))[1])
    single, half = map(min, seconds.values())
    return half / single


def paper(options):
    """Seconds of a step, beside a matrix product's rate."""
    preset = PRESETS["paper"]
    config, n, batch = preset.config, 8, preset.mapper.batch_size
    rng = np.random.default_rng(0)
    data = {
        "x": rng.uniform(size=(n, *config.shape, 1)).astype(np.float32),
        "y": rng.uniform(size=(n, 15)).astype(np.float32),
    }
    a = jnp.ones((2048, 2048))
    _, best = record.timed(jax.jit(lambda a: a @ a), a)
    rate = 2 * 2048**3 / best
    examples = Dataset.splits(data, [np.arange(n)], [np.arange(n)[:1]], [0])
    row = {"GFLOP/s of a product of 2048": rate / 1e9, "batch": batch, "bfloat16 over float32": half_over_single()}
    # 27 offsets, two flops: convolutions of encoder and decoder, forward; backward is twice that
    forward = 54e-9 * np.array([80**3 * 32 + 40**3 * 32 * 64 + 20**3 * 64, 20**3 * 64 + 40**3 * 64 * 32 + 80**3 * 32])
    for name, trainable, flops in (
        ("autoencoder", FieldAutoencoder(config, preset.autoencoder.optimizer), 3 * forward.sum()),
        ("mapper", MuscleMapper(config, 15, 9, preset.mapper.optimizer), 3 * forward[0]),
    ):
        space = SearchSpace(**preset.mapper.hyper)
        how = {"members": 1, "batch": batch, "chunk": 1, "key": jax.random.key(0), "progress": True}
        seconds = []
        for generations in (1, 2):
            start = time.perf_counter()
            run = train(trainable, space, examples, schedule=Independent(epochs=1, generations=generations), **how)
            seconds.append(time.perf_counter() - start)
        step = float(run.history.seconds.iloc[-1]) / (n // batch)
        floor = flops * batch * 1e9 / rate
        row[name] = {"seconds of a step": step, "GFLOP a sample": flops, "floor, seconds": floor, "ratio": step / floor}
        row[name]["seconds with compilation"] = seconds
    record.write("muscle", "paper", row | {"peak memory, GB": record.peak_memory(), "bar": "8 GB"})


def gpu(options):
    if jax.default_backend() == "cpu":
        raise SystemExit("gpu: JAX sees no accelerator here.")
    grid = jm.efield.Grid.around(TARGET, shape=(80, 80, 80), spacing=1.0)
    _, _, made, fields, _ = session(options, "rate", grid)
    start = time.perf_counter()
    result = jm.muscle.compare(
        fields, np.asarray(made.meps), grid=grid, rate=RATE, key=jax.random.key(1), preset="paper", progress=True
    )
    row = {"seconds": time.perf_counter() - start, "table": result.table.reset_index().to_dict("records")}
    row["differences"] = result.differences().to_dict("records")
    record.write("muscle", "gpu", row | {"bar": "15 minutes"})


def main():
    cases = {
        "rate": lambda options: compared(options, "rate"),
        "field": lambda options: compared(options, "field"),
        "target": target,
        "paper": paper,
        "gpu": gpu,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="rate,field,target,paper")
    parser.add_argument("--preset", default="small", help="Of `rate` and `field`.")
    parser.add_argument("--seeds", type=int, default=3, help="Networks of each kind whose predictions are averaged.")
    parser.add_argument("--turn", type=float, default=60.0, help="Of the handle in `target`, degrees; real maps: 8.")
    parser.add_argument("--gain", type=float, default=0.55, help="Of the generator; .33 is as weak as real maps.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "jaxm2m-benchmarks")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.cases.split(","):
        cases[name](options)


if __name__ == "__main__":
    main()
