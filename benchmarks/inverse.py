"""From the MEPs of one stimulus to its field: `fit_inverse` at the full size of preset "small", on known truth.

    python benchmarks/inverse.py [--keys 0,1,2] [--folds 5] [--cache FOLDER]

The atlas head at 2 mm, the figure-8 that ships, a basis of the grid of 24^3 points of 2 mm round the left hand knob
(built once into the cache, the file of muscle.py); 300 stimuli at 120 % of the resting motor threshold, handle 8
degrees, 15 muscles on a cortex drawn by the key, alpha .6, gain .55. The networks see 12^3 voxels of 4 mm, means of the
field's magnitude.

Each stimulus is held out once. All answers are given its MEPs and learn from the other folds:

- mean field: of the training stimuli, whatever the MEPs. The guess that must be beaten.
- nearest: the field of the training stimulus whose MEPs are most alike (correlation of their logarithms).
- ridge: a linear map from logarithms of MEPs to the field; its penalty by leave-one-out among the training stimuli.
- sources: the posterior over place, of sources that are fitted to the training stimuli: the mean of their fields, by
  how likely the MEPs are for each.
- fit_inverse: the variational decoder at the mean of z, as the call's defaults train it.

Scores, over voxels with a field: the correlation of answer and truth (median over stimuli); the same of what is left
when the training mean is taken from both, which tells whether the answer knows how this field differs from others (zero
for the mean field); the root mean squared error over the truth's (median); the distance from the answer's largest voxel
to the truth's (mean, since half of all lie in the same crown), and between the centres of their strongest twentieth of
voxels (median), mm. Bar: better than the mean field in each, for three keys.

Another answer is one more entry of `ANSWERS`.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import jax
import numpy as np
import record

import jaxm2m as jm

TARGET = (-40.0, -20.0, 52.0)
GRID = jm.efield.Grid.around(TARGET, shape=(24, 24, 24), spacing=2.0)
RATE = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
BLOCK = 2  # points of the grid along an edge of the networks' voxels
STRONGEST = 0.05  # of the voxels, of which the centre is taken


class Case(NamedTuple):
    """What an answer learns from: all arrays but `test_meps` are of the training stimuli."""

    fields: np.ndarray  # (n, n_point, 3) V/m
    volumes: np.ndarray  # (n, voxel) magnitudes in blocks
    meps: np.ndarray  # (n, n_muscle) uV
    test_meps: np.ndarray
    muscles: tuple[str, ...]
    key: jax.Array
    at_grid: jm.efield.FieldMap


def mean_field(case):
    return np.tile(case.volumes.mean(0), (len(case.test_meps), 1))


def _features(case):
    """Logarithms of MEPs, standardised by the training stimuli."""
    known, asked = np.log10(case.meps), np.log10(case.test_meps)
    return (known - known.mean(0)) / known.std(0), (asked - known.mean(0)) / known.std(0)


def nearest(case):
    known, asked = _features(case)
    likeness = (asked / np.linalg.norm(asked, axis=1)[:, None]) @ (known / np.linalg.norm(known, axis=1)[:, None]).T
    return case.volumes[likeness.argmax(1)]


def ridge(case):
    known, asked = _features(case)
    mean = case.volumes.mean(0)
    u, s, vt = np.linalg.svd(known, full_matrices=False)
    y = case.volumes - mean
    errors, penalties = [], np.logspace(-1, 4, 16)
    for penalty in penalties:
        shrink = s**2 / (s**2 + penalty)
        left = (y - (u * shrink) @ (u.T @ y)) / (1 - (u**2 @ shrink))[:, None]
        errors.append((left**2).mean())
    penalty = penalties[int(np.argmin(errors))]
    return mean + asked @ (vt.T @ ((s / (s**2 + penalty))[:, None] * (u.T @ y)))


def decoder(case):
    model = jm.muscle.fit_inverse(
        case.fields, case.meps, grid=GRID, muscles=case.muscles, key=case.key, progress=False,
        options=jm.muscle.TrainingOptions(chunk_size=1),
    )  # fmt: skip
    return np.asarray(model(case.test_meps), float).reshape(len(case.test_meps), -1)


def place(case):
    """Mean over the training stimuli, by how likely the MEPs are for the field of each under fitted sources."""
    model = jm.muscle.fit_sources(
        case.fields, case.meps, grid=GRID, grey=case.at_grid, rate=RATE, muscles=case.muscles, key=case.key, n_draw=8
    )
    heights = np.asarray(model.log_likelihood(case.test_meps, case.fields), float)
    weights = np.exp(heights - heights.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ case.volumes


# takes what it may learn from, returns magnitudes (n_test, voxel)
ANSWERS = {"mean field": mean_field, "nearest": nearest, "ridge": ridge, "fit_inverse": decoder, "sources": place}


def session(cache, key):
    """A session, its fields (n, n_point, 3), and their magnitudes in blocks (n, voxel)."""
    head = jm.head.atlas(spacing=2.0)
    basis = jm.efield.Basis.build(jm.efield.Simulator(head), GRID, cache / "basis-24.h5", progress=True)
    at_grid = basis.bind(jm.coil.tabulate(jm.coil.figure8()))
    made = jm.simulate.mapping_session(at_grid, key=jax.random.key(key), rate=RATE, target=TARGET, gain=0.55)
    fields = np.concatenate(
        [
            np.asarray(at_grid(made.poses[i : i + 20], didt=1e6)) * np.asarray(made.didt[i : i + 20, None, None]) / 1e6
            for i in range(0, len(made), 20)
        ]
    )
    size = np.linalg.norm(fields, axis=-1).reshape(-1, *(n for m in GRID.shape for n in (m // BLOCK, BLOCK)))
    return at_grid, made, fields, size.mean((2, 4, 6)).reshape(len(fields), -1)


def scores(answer, truth, mean, centres):
    """Scores over stimuli, of all voxels that have a field."""

    def alike(a, b):
        a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
        length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.divide((a * b).sum(1), length, out=np.zeros(len(a)), where=length > 1e-9 * np.linalg.norm(b))

    def middle(x):
        strong = x >= np.quantile(x, 1 - STRONGEST, axis=1, keepdims=True)
        return (strong @ centres) / strong.sum(1, keepdims=True)

    def away(a, b):
        return np.linalg.norm(a - b, axis=1)

    peak = away(centres[answer.argmax(1)], centres[truth.argmax(1)])
    rows = {
        "correlation": alike(answer, truth),
        "correlation of what differs from the mean field": alike(answer - mean, truth - mean),
        "error over truth": np.linalg.norm(answer - truth, axis=1) / np.linalg.norm(truth, axis=1),
        "centre of the strongest, mm": away(middle(answer), middle(truth)),
    }
    return {name: float(np.median(values)) for name, values in rows.items()} | {"peak, mm": float(peak.mean())}


def judge(options, key):
    at_grid, made, fields, volumes = session(options.cache, key)
    meps = np.asarray(made.meps, float)
    fold = np.random.default_rng(key).permutation(len(made)) % options.folds
    seen = (volumes > 0).any(0)
    affine = np.asarray(GRID.affine, float)
    index = np.stack(np.meshgrid(*(np.arange(n // BLOCK) for n in GRID.shape), indexing="ij"), -1).reshape(-1, 3)
    centres = ((index * BLOCK + (BLOCK - 1) / 2) @ affine[:3, :3].T + affine[:3, 3])[seen]
    row = {"stimuli": len(made), "folds": options.folds, "voxels with a field": int(seen.sum())}
    answers, mean = {name: np.zeros_like(volumes) for name in options.answers}, np.zeros_like(volumes)
    for f in range(options.folds):
        known, asked = fold != f, fold == f
        train = fields[known], volumes[known], meps[known]
        case = Case(*train, meps[asked], made.muscles, jax.random.key(100 + f), at_grid)
        mean[asked] = case.volumes.mean(0)
        for name in options.answers:
            start = time.perf_counter()
            answers[name][asked] = ANSWERS[name](case)
            row.setdefault("seconds of a fold", {})[name] = time.perf_counter() - start
    for name, answer in answers.items():
        row[name] = scores(answer[:, seen], volumes[:, seen], mean[:, seen], centres)
        print(key, name, row[name], flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", default="0,1,2", help="Of the sessions.")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--answers", default=",".join(ANSWERS), help=f"Of {', '.join(ANSWERS)}.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "jaxm2m-benchmarks")
    options = parser.parse_args()
    options.answers = options.answers.split(",")
    options.cache.mkdir(parents=True, exist_ok=True)
    for key in map(int, options.keys.split(",")):
        row = judge(options, key)
        if set(options.answers) == set(ANSWERS):
            record.write("inverse", f"key {key}", row | {"peak memory, GB": record.peak_memory()})


if __name__ == "__main__":
    main()
