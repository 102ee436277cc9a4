"""Sessions that plan themselves, on generated subjects: stimuli until the truth is met, by rule, and seconds.

    python benchmarks/design.py [--cases speed,map] [--rules ...] [--keys 3,4] [--draws 5] [--cache FOLDER]

The atlas head at 2 mm, the figure-8 that ships, a basis of the grid of 24^3 points of 2 mm round the left hand knob
(built once into the cache); cortices drawn by key, gain .33, 15 muscles, dI/dt 1.2 resting motor thresholds. MEPs of a
stimulus are drawn by the generator; all rules are read by the same tracker, whose every tenth posterior is judged.

- speed: `record` and `next` of a loop by information, warm, and what they compile. Bars: 1 s in the median, 2.5 s at
  most, nothing compiled after the third stimulus.
- map: median distance of the hot spots of muscles with one place to the truth, every ten stimuli, of each rule, and the
  90 % radii. Bar: 3 mm within half of the stimuli of grid and scatter, .7 of the best other rule.
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

RULES = ("information", "random", "scatter", "grid", "feedback", "gaussian process", "least alike")


def begin(at_roi, head, coil, made, rule, key, count):
    return jm.design.Loop(
        at_roi, coil=coil, scalp=head.scalp, target=TARGET, muscles=made.muscles, rate=RATE, rule=rule,
        didt=1.2 * float(made.rmt_didt), n_stimulus=count, key=key,
    )  # fmt: skip


def stimulate(at_roi, made, loop, key):
    pose, didt = loop.next()
    meps = made.draw_meps(jax.random.fold_in(key, len(loop)), at_roi(pose, didt=didt))
    loop.record(pose, didt, np.asarray(meps))


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
    for rule in options.rules.split(","):
        rows = []
        for key in options.keys:
            made = simulate(at_roi, key, gain=0.33, stimuli=40)
            for draw in range(options.draws):
                branch = jax.random.fold_in(jax.random.key(100 + key), draw)
                loop = begin(at_roi, head, coil, made, rule, branch, options.stimuli)
                row = []
                for number in range(1, options.stimuli + 1):
                    stimulate(at_roi, made, loop, jax.random.fold_in(branch, 1))
                    if number % 10 == 0:
                        row.append(judge(made, loop.draws))
                rows.append(row)
                print(rule, key, draw, np.round(np.array(row)[:, :2], 1).tolist(), flush=True)
        values = np.array(rows)
        record.write(
            "design",
            f"map by {rule}",
            {
                "keys": options.keys,
                "draws of noise": options.draws,
                "stimuli": list(range(10, options.stimuli + 1, 10)),
                "error, median, mm": np.median(values[..., 0], axis=0).tolist(),
                "90 % radius, median, mm": np.median(values[..., 1], axis=0).tolist(),
                "held by it": values[..., 2].mean(0).tolist(),
            },
        )


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
    cases = {"speed": speed, "map": study}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="speed,map")
    parser.add_argument("--rules", default=",".join(RULES))
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
