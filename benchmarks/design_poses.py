"""Best poses of loops on generated subjects: stimuli until the pose for a muscle, or for a pair, is nearly the best.

    python benchmarks/design_poses.py [--cases hotspot,select,robust] [--keys 3,4] [--draws 5] [--cache FOLDER]

Subjects, stimuli and rules as in `design.py`. Poses are those of the loop's candidates, judged at 1.2 motor thresholds
by the true mean MEPs, each muscle as a share of its largest over the candidates. What a rule chose is read by the
posterior of the sources: the candidate of the largest expected value.

- hotspot: the pose at which one muscle (FDI, ECU) answers most. The Gaussian process's stimuli are read by its own map
  as well. Bar: 95 % of the largest mean MEP within half of its stimuli.
- select: the pose for one muscle and not another, five pairs: its share over the best one that keeps half of the
  target's largest, zero where it does not keep it. Bar: 95 % within a third of what the generator's scatter takes.
- robust: the pairs by Thompson sampling, the usual rule, with excitability that drifts by 5 % of the threshold either
  way, coils that miss by 3 mm and 5 degrees, and 5 % of the trials flagged. Bar: 30 % worse at most.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")

import jax
import numpy as np
import record
from design import begin, map_by_process, stimulate
from sources import PAIRS, bind, simulate

INTENSITY = 1.2
TASKS = {"hotspot": [("FDI", None), ("ECU", None)], "select": list(PAIRS)}
ROBUST = "thompson"
METHODS = {"hotspot": ("information", "thompson", "gaussian process"), "select": ("information", "thompson", "scatter")}
LOOKS = (5, 10, 15, 20, 30, 40, 60, 100, 150, 200, 300)


def value(responses, wanted, spared):
    """Value (..., n) of candidates, of responses (..., n, muscle)."""
    responses = responses / responses.max(-2, keepdims=True)
    answer = responses[..., wanted]
    if spared is None:
        return answer
    return np.where(answer >= 0.5, answer / (answer + responses[..., spared]), 0)


def predict(loop, fields):
    """Mean MEPs (draw, n, muscle) of the candidates' fields under the posterior."""
    whole = np.zeros((len(fields), loop.patch.n_point, 3), np.float32)
    rows = []
    for start in range(0, len(fields), 64):
        block = whole[: len(fields[start : start + 64])]
        block[:, loop.patch.chosen] = fields[start : start + 64]
        rows.append(np.asarray(loop.posterior.predict_members(block)))
    return np.concatenate(rows).swapaxes(0, 1)


def run(setting, made, method, goal, tasks, branch, count, rough=False):
    """Stimulate, and return what the candidates that are read are worth: reader -> (task, look)."""
    head, coil, at_roi = setting
    target, other = tasks[0]
    settings = {"goal": goal, "muscle": target, **({} if other is None else {"avoid_muscle": other})}
    loop = begin(at_roi, head, coil, made, method, branch, count, **settings)
    didt = INTENSITY * float(made.rmt_didt)
    truth = np.asarray(made.expected_meps(at_roi(loop.patch.poses, didt=didt)))
    spots, worth = [], {}
    for number in range(1, count + 1):
        pose = stimulate(at_roi, made, loop, jax.random.fold_in(branch, 1), (coil, head.scalp) if rough else None)
        spots.append(loop.patch.find_spot(pose))
        if number not in LOOKS:
            continue
        responses = predict(loop, loop.patch.fields * (didt / 1e6))
        for target, other in tasks:
            which = [None if name is None else made.muscles.index(name) for name in (target, other)]
            true = value(truth, *which)
            readers = {"sources": value(responses, *which).mean(0)}
            if method == "gaussian process":
                readers["its own map"] = map_by_process(spots, loop.table()[f"mep_{target}_uv"], loop.patch)
            for reader, values in readers.items():
                worth.setdefault(reader, {}).setdefault((target, other), []).append(true[values.argmax()] / true.max())
    return worth


def study(options, case):
    setting = bind(options)
    rough = case == "robust"
    goal = "select" if rough else case
    for method in (ROBUST,) if rough else options.methods.split(";") if options.methods else METHODS[goal]:
        count = options.longest if method == "scatter" else options.stimuli
        # scatter knows no goal: one session serves all pairs
        groups = [TASKS[goal]] if method == "scatter" else [[task] for task in TASKS[goal]]
        rows = {}
        for key in options.keys:
            made = simulate(setting[2], key, gain=0.33, stimuli=40)
            for draw in range(options.draws):
                branch = jax.random.fold_in(jax.random.key(100 + key), draw)
                for tasks in groups:
                    for reader, worth in run(setting, made, method, goal, tasks, branch, count, rough).items():
                        rows.setdefault(reader, []).extend(worth.values())
                        for task, row in worth.items():
                            print(case, method, reader, key, draw, *task, np.round(row, 2).tolist(), flush=True)
        looks = [n for n in LOOKS if n <= count]
        for reader, values in rows.items():
            values = np.array(values)
            share = (values >= 0.95).mean(0)
            row = {
                "keys": options.keys,
                "draws of noise": options.draws,
                "runs": len(values),
                "stimuli": looks,
                "share of the best, median": np.median(values, axis=0).tolist(),
                "of runs at 95 %": share.tolist(),
                "stimuli until 95 % in half of the runs": looks[int((share >= 0.5).argmax())]
                if (share >= 0.5).any()
                else f"more than {count}",
            }
            name = f"{goal} by {method}{', with drift, misses and flags' if rough else ''}, read by {reader}"
            print(name, row, flush=True)
            record.write("design", name, row)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="hotspot,select,robust")
    parser.add_argument("--methods", help="names, with semicolons between them, for all cases; default: each case's")
    parser.add_argument("--keys", default="3,4")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--stimuli", type=int, default=40)
    parser.add_argument("--longest", type=int, default=300, help="stimuli of scatter")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "jaxm2m-benchmarks")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.keys = [int(key) for key in options.keys.split(",")]
    for case in options.cases.split(","):
        study(options, case)


if __name__ == "__main__":
    main()
