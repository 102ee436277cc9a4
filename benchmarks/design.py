"""Sessions that plan themselves, on generated subjects: stimuli until the truth is met, by rule, and seconds.

    python benchmarks/design.py [--cases speed,map,robust,plan] [--methods ...] [--keys 3,4] [--draws 5] [--cache DIR]

The atlas head at 2 mm, the figure-8 that ships, a basis of the grid of 24^3 points of 2 mm round the left hand knob
(built once into the cache); cortices drawn by key, gain .33, 15 muscles. MEPs of a stimulus are drawn by the generator;
what a rule chose is read by the same posterior, every ten stimuli. Intensities are in resting motor thresholds: rules
that choose none have 1.2, as the generator's sessions; "information" chooses between 1 and 1.5, and "random, 1.5" has
the strongest of these.

- speed: `record` and `next` of a loop by information, warm, and what they compile. Bars: 1 s in the median, 2.5 s at
  most, nothing compiled after the third stimulus.
- map: median distance of the hot spots of muscles with one place to the truth, of each method, and the 90 % radii. Bar:
  3 mm within half of the stimuli of grid and scatter, .7 of the best other rule; radii hold 85 to 95 %.
- robust: the same by information, with excitability that drifts by 5 % of the threshold either way, coils that miss by
  3 mm and 5 degrees, and 5 % of the trials flagged. Bar: 30 % worse at most.
- plan: hot spots after 50 poses of a plan, of the greedy choice alone, and of random poses. Recorded.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")

import jax
import numpy as np
import record
from sources import RATE, TARGET, bind, simulate

import jaxm2m as jm

PLANNED = 50
DRIFT, FLAGGED = 0.05, 0.05  # motor thresholds either way within 40 stimuli; of the trials
# name -> rule, intensities in resting motor thresholds
METHODS = {
    "information": ("information", (1.0, 1.5)),
    "information, 1.2": ("information", 1.2),
    "thompson": ("thompson", 1.2),
    "random": ("random", 1.2),
    "random, 1.5": ("random", 1.5),
    "scatter": ("scatter", 1.2),
    "grid": ("grid", 1.2),
    "feedback": ("feedback", 1.2),
    "gaussian process": ("gaussian process", 1.2),
    "least alike": ("least alike", 1.2),
}


def begin(at_roi, head, coil, made, method, key, count, **goal):
    rule, intensity = METHODS[method]
    return jm.design.Loop(
        at_roi, coil=coil, scalp=head.scalp, target=TARGET, muscles=made.muscles, rate=RATE, rule=rule,
        didt=np.multiply(intensity, float(made.rmt_didt)), n_stimulus=count, key=key, **goal,
    )  # fmt: skip


def stimulate(at_roi, made, loop, key, rough=None):
    """Give the next stimulus, and return its pose; `rough`, coil and scalp, where trials are as in `robust`."""
    pose, didt = loop.next()
    key = jax.random.fold_in(key, len(loop))
    if rough is None:
        loop.record(pose, didt, np.asarray(made.draw_meps(key, at_roi(pose, didt=didt))))
        return pose
    k_miss, k_flag = jax.random.split(jax.random.fold_in(key, 1))
    miss = np.array([3.0, 3.0, 0, 0, 0, np.radians(5)]) * np.array(jax.random.normal(k_miss, (6,)))
    pose, _ = jm.coil.clear_casing(rough[0], jm.coil.move(pose, miss)[None], rough[1])
    drift = DRIFT * np.cos(np.pi * len(loop) / 40)
    meps = np.array(made.draw_meps(key, at_roi(pose[0], didt=didt), excitability=drift))
    meps[float(jax.random.uniform(k_flag)) < FLAGGED] = np.nan
    loop.record(np.asarray(pose[0]), didt, meps)
    return pose


def judge(made, sources):
    """Median distance of hot spots to the truth and median 90 % radius, mm, of muscles with one place; share held."""
    truth = made.hotspots()
    single = truth.groupby("muscle", sort=False).size() == 1
    names = list(single[single].index)
    draws = sources.centroids()[:, [made.muscles.index(name) for name in names]]
    error = np.linalg.norm(draws.mean(0) - truth.loc[names, ["x", "y", "z"]].to_numpy(), axis=1)
    radius = np.quantile(np.linalg.norm(draws - draws.mean(0), axis=2), 0.9, axis=0)
    return float(np.median(error)), float(np.median(radius)), float((error <= radius).mean())


def study(options):
    head, coil, at_roi = bind(options)
    for method in options.methods.split(";"):
        rows = []
        for key in options.keys:
            made = simulate(at_roi, key, gain=0.33, stimuli=40)
            for draw in range(options.draws):
                branch = jax.random.fold_in(jax.random.key(100 + key), draw)
                loop = begin(at_roi, head, coil, made, method, branch, options.stimuli)
                row = []
                for number in range(1, options.stimuli + 1):
                    stimulate(at_roi, made, loop, jax.random.fold_in(branch, 1))
                    if number % 10 == 0:
                        row.append(judge(made, loop.posterior))
                rows.append(row)
                print(method, key, draw, np.round(np.array(row)[:, :2], 1).tolist(), flush=True)
        write_errors(f"map by {method}", options, np.array(rows))


def write_errors(name, options, values):
    """Write errors, radii and shares held (run, look, 3) of a study of hot spots."""
    error = np.median(values[..., 0], axis=0)
    near = error <= 3.0
    row = {
        "keys": options.keys,
        "draws of noise": options.draws,
        "stimuli": list(range(10, options.stimuli + 1, 10)),
        "error, median, mm": error.tolist(),
        "error of each run, mm": values[..., 0].tolist(),
        "90 % radius, median, mm": np.median(values[..., 1], axis=0).tolist(),
        "held by it": values[..., 2].mean(0).tolist(),
        "stimuli until 3 mm": int(10 * (near.argmax() + 1)) if near.any() else f"more than {options.stimuli}",
    }
    print(name, row, flush=True)
    record.write("design", name, row)


def robust(options):
    head, coil, at_roi = bind(options)
    rows = []
    for key in options.keys:
        made = simulate(at_roi, key, gain=0.33, stimuli=40)
        for draw in range(options.draws):
            branch = jax.random.fold_in(jax.random.key(100 + key), draw)
            loop = begin(at_roi, head, coil, made, "information", branch, options.stimuli)
            row = []
            for number in range(1, options.stimuli + 1):
                stimulate(at_roi, made, loop, jax.random.fold_in(branch, 1), (coil, head.scalp))
                if number % 10 == 0:
                    row.append(judge(made, loop.posterior))
            rows.append(row)
            print("robust", key, draw, np.round(np.array(row)[:, :2], 1).tolist(), flush=True)
    write_errors("map by information, with drift, misses and flags", options, np.array(rows))


def plan(options):
    head, coil, at_roi = bind(options)
    rows = {"plan": [], "greedy": [], "random": []}
    for key in options.keys:
        made = simulate(at_roi, key, gain=0.33, stimuli=40)
        for draw in range(options.draws):
            branch = jax.random.fold_in(jax.random.key(100 + key), draw)
            for name, row in rows.items():
                loop = begin(at_roi, head, coil, made, "random", branch, PLANNED)
                poses = None
                if name != "random":
                    poses = jm.design.plan(
                        at_roi, coil=coil, scalp=head.scalp, target=TARGET, n=PLANNED, key=branch, rate=RATE,
                        didt=loop.didt, steps=60 if name == "plan" else 0, progress=False,
                    )  # fmt: skip
                for number in range(PLANNED):
                    pose = loop.next()[0] if poses is None else poses[number]
                    e = at_roi(pose, didt=loop.didt)
                    loop.record(pose, loop.didt, np.asarray(made.draw_meps(jax.random.fold_in(branch, number), e)))
                row.append(judge(made, loop.posterior))
                print(name, key, draw, np.round(row[-1], 2).tolist(), flush=True)
    columns = ("error, median, mm", "90 % radius, median, mm", "held by it")
    row = {name: dict(zip(columns, np.mean(values, axis=0).tolist(), strict=True)) for name, values in rows.items()}
    record.write("design", "plan of 50", {"keys": options.keys, "draws of noise": options.draws, **row})


def speed(options):
    head, coil, at_roi = bind(options)
    made = simulate(at_roi, options.keys[0], gain=0.33, stimuli=40)
    loop = begin(at_roi, head, coil, made, "information", jax.random.key(0), 300)
    compiled, seconds = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(len(loop)) if "backend_compile" in name else None
    )
    for _ in range(options.stimuli):
        pose, didt = loop.next()
        meps = np.asarray(made.draw_meps(jax.random.fold_in(jax.random.key(1), len(loop)), at_roi(pose, didt=didt)))
        start = time.perf_counter()
        loop.record(pose, didt, meps)
        loop.next()
        seconds.append(time.perf_counter() - start)
    warm = np.array(seconds[3:])
    row = {
        "record and next, median, s": float(np.median(warm)),
        "largest, s": float(warm.max()),
        "first, s": seconds[0],
        "compiled after the third stimulus": int(sum(number > 3 for number in compiled)),
        "bar": "1 s, 2.5 s, 0",
    }
    print(row)
    record.write("design", "speed", row)


def main():
    cases = {"speed": speed, "map": study, "robust": robust, "plan": plan}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="speed,map,robust,plan")
    parser.add_argument(
        "--methods", default=";".join(m for m in METHODS if m != "thompson"), help="names, with semicolons between them"
    )
    parser.add_argument("--keys", default="3,4")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--stimuli", type=int, default=60)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "jaxm2m-benchmarks")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.keys = [int(key) for key in options.keys.split(",")]
    for name in options.cases.split(","):
        cases[name](options)


if __name__ == "__main__":
    main()
