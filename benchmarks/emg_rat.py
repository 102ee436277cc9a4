"""Muscle activation of a walking rat, decoded beside filters and temporal context.

    python benchmarks/emg_rat.py [--cases single,search] [--file rat_locomotion.h5] [--seeds 3] [--samples 50]

Rectified EMG of 12 hindlimb muscles (Wimalasena et al. 2022), windows of 100 bins with margins of 6. The model never
sees the joints: it is trained on the training windows and chosen by the validation windows. Then Ridge(1), 10
unshuffled folds in the order of the recording, zero lag, R^2 of hip, knee and ankle. Two decoders that see 80 ms on
both sides tell what temporal context alone is worth; the recipe of both is ours.

- single: preset "single", each seed for itself. Bars: .67/.86/.76 for each seed, within 10 minutes on two cores;
  .70/.88/.79 is the goal.
- search: preset "small", population-based training; the model of the best validation score. Bars: no worse than
  "single", within 60 minutes.

Predictions: a step of 50 windows takes .15 s of a core (an eighth of the paper's batch, and overheads), 1080 steps of
three members 4 minutes; the search, 1500 steps of 100 windows for 6 members, 20.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import h5py
import jax
import numpy as np
import record

from jaxm2m import emg

CHANNELS = ["BFpR", "GA", "GRr", "GS", "IL", "RF", "SM", "ST", "TA", "VI", "VL", "VM"]
MARGIN = 6


def rat(path):
    """All windows in the order of the recording, the rows to train on and to validate, the joints."""
    with h5py.File(path) as file:
        kinds = [(file[f"{k}_inds"][()], file[f"{k}_data"][()], file[f"{k}_decode"][()]) for k in ("train", "valid")]
    order = np.argsort(np.concatenate([rows for rows, _, _ in kinds]))
    windows = np.concatenate([data for _, data, _ in kinds])[order]
    joints = np.concatenate([angles for _, _, angles in kinds])[order]
    data = emg.preprocess(
        windows, 500, channels=CHANNELS, axes="trial sample channel", rectified=True, screen=None, clip=None
    )
    train, valid = (data.pick(rows) for rows, _, _ in kinds)
    return windows, data, train, valid, joints


def r2(x, joints):
    return emg.cross_validate_decoder(x, joints, outputs=("hip", "knee", "ankle")).mean.round(4).tolist()


def trained(data, train, valid, joints, samples, members, **how):
    """A run, and what the activation of each of `members` decodes."""
    fit = emg.fit(train, valid=valid, padded=True, progress=True, **how)
    history = fit.run.history
    result = {
        # without compilation; also right where a run went on after a kill
        "seconds of training": history.groupby("generation")["seconds"].first().sum(),
        "steps": int(history.step.max()),
        "stopped": fit.run.stopped,
        "validation NLL": fit.run.members.best.score.tolist(),
        "hyperparameters": fit.run.hyper,
    }
    for name, member in members.items():
        found = fit.activation(data, key=jax.random.key(1), samples=samples, member=member, padded=True)
        result[name] = r2(found.samples.reshape(joints.shape[0], -1, len(CHANNELS)), joints)
    return result


def single(options):
    windows, data, train, valid, joints = rat(options.file)
    members = {f"model, seed {i}": i for i in range(options.seeds)}
    how = {"key": jax.random.key(0), "preset": "single", "population": options.seeds}
    result = trained(data, train, valid, joints, options.samples, members, **how)
    inner = slice(MARGIN, -MARGIN)
    for cutoff in (10.0, 20.0, 40.0):
        result[f"low-pass {cutoff:g} Hz"] = r2(emg.lowpass(windows, 500, cutoff)[:, inner], joints)
    alpha, beta = emg.bayes_grid()
    filtered = np.asarray(emg.bayes(windows, 500, alpha, beta))[:, :, inner]
    best = max(range(len(alpha)), key=lambda i: sum(r2(filtered[i], joints)))
    name = f"Bayesian filter, the best of 44 (alpha {alpha[best]:g}, beta {beta[best]:g})"
    result[name] = r2(filtered[best], joints)
    smooth = emg.smooth(windows, 500, 0.002)
    parts = emg.context_pca(smooth, 500, margin=MARGIN)
    result["12 principal components of 80 ms on both sides"] = r2(parts, joints)
    beside = emg.context(smooth, 500, every=0.008, margin=MARGIN)
    result["80 ms on both sides, lagged ridge"] = r2(beside, joints)
    record.write("emg_rat", "single", result | {"bar": [0.67, 0.86, 0.76], "peak memory, GB": record.peak_memory()})


def search(options):
    _, data, train, valid, joints = rat(options.file)
    how = {"key": jax.random.key(0), "preset": "small", "directory": options.directory}
    result = trained(data, train, valid, joints, options.samples, {"the best by validation": None}, **how)
    record.write("emg_rat", "search", result | {"bar": "as single", "peak memory, GB": record.peak_memory()})


def main():
    cases = {"single": single, "search": search}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(cases))
    parser.add_argument("--file", type=Path, default=record.DATA / "emg/rat_locomotion.h5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--directory", type=Path, help="Of the search, which goes on there after a kill.")
    options = parser.parse_args()
    for name in options.cases.split(","):
        cases[name](options)


if __name__ == "__main__":
    main()
