"""Best poses of loops on generated subjects: stimuli until the pose for a muscle, or for a pair, is nearly the best.

    python benchmarks/design_poses.py [--cases hotspot,select] [--keys 3,4] [--draws 5] [--cache FOLDER]

Subjects, stimuli and rules as in `design.py`. Poses are those of the loop's candidates, judged at 1.2 motor thresholds
by the true mean MEPs, each muscle as a share of its largest over the candidates. What a rule chose is read by the
posterior of the sources: the candidate of the largest expected value.

- hotspot: the pose at which one muscle (FDI, ECU) answers most. The Gaussian process's stimuli are read by its own map
  as well. Bar: 95 % of the largest mean MEP within half of its stimuli.
- select: the pose for one muscle and not another, five pairs: its share over the best one that keeps half of the
  target's largest, zero where it does not keep it. Bar: 95 % within a third of what the generator's scatter takes.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")

import jax
import numpy as np
import record
from design import begin, stimulate
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sources import PAIRS, bind, simulate

INTENSITY = 1.2
TASKS = {"hotspot": [("FDI", None), ("ECU", None)], "select": list(PAIRS)}
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


def map_by_process(spots, meps, patch):
    """Mean of a Gaussian process of log10 MEPs over place and turn, at the candidates."""

    def inputs(spots):
        return np.column_stack([spots[:, :2], np.cos(spots[:, 2]), np.sin(spots[:, 2])])

    kernel = ConstantKernel(0.5, (0.01, 10)) * RBF([10, 10, 1, 1], [(3, 60)] * 2 + [(0.3, 10)] * 2)
    process = GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-3, 1)), normalize_y=True, random_state=0)
    process.fit(inputs(np.array(spots)), np.log10(np.maximum(meps, 1)))
    return process.predict(inputs(np.column_stack([patch.places, patch.turns])))


def run(setting, made, method, goal, tasks, branch, count):
    """Stimulate, and return what the candidates that are read are worth: reader -> (task, look)."""
    head, coil, at_roi = setting
    target, other = tasks[0]
    settings = {"goal": goal, "muscle": target, **({} if other is None else {"avoid_muscle": other})}
    loop = begin(at_roi, head, coil, made, method, branch, count, **settings)
    didt = INTENSITY * float(made.rmt_didt)
    truth = np.asarray(made.expected_meps(at_roi(loop.patch.poses, didt=didt)))
    spots, worth = [], {}
    for number in range(1, count + 1):
        spots.append(loop.patch.find_spot(stimulate(at_roi, made, loop, jax.random.fold_in(branch, 1))))
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


def study(options, goal):
    setting = bind(options)
    for method in METHODS[goal]:
        count = options.longest if method == "scatter" else options.stimuli
        # scatter knows no goal: one session serves all pairs
        groups = [TASKS[goal]] if method == "scatter" else [[task] for task in TASKS[goal]]
        rows = {}
        for key in options.keys:
            made = simulate(setting[2], key, gain=0.33, stimuli=40)
            for draw in range(options.draws):
                branch = jax.random.fold_in(jax.random.key(100 + key), draw)
                for tasks in groups:
                    for reader, worth in run(setting, made, method, goal, tasks, branch, count).items():
                        rows.setdefault(reader, []).extend(worth.values())
                        for task, row in worth.items():
                            print(goal, method, reader, key, draw, *task, np.round(row, 2).tolist(), flush=True)
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
            print(goal, method, reader, row, flush=True)
            record.write("design", f"{goal} by {method}, read by {reader}", row)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="hotspot,select")
    parser.add_argument("--keys", default="3,4")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--stimuli", type=int, default=40)
    parser.add_argument("--longest", type=int, default=300, help="stimuli of scatter")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "jaxm2m-benchmarks")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.keys = [int(key) for key in options.keys.split(",")]
    for goal in options.cases.split(","):
        study(options, goal)


if __name__ == "__main__":
    main()
