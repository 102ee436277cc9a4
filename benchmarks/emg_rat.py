"""Muscle activation of a walking rat, decoded beside filters and temporal context.

    python benchmarks/emg_rat.py [--file rat_locomotion.h5] [--seeds 3] [--samples 50]

Rectified EMG of 12 hindlimb muscles (Wimalasena et al. 2022), windows of 100 bins with margins of 6. The model never
sees the joints: preset "single", trained on the training windows, chosen by the validation windows. Then Ridge(1), 10
unshuffled folds in the order of the recording, zero lag, R^2 of hip, knee and ankle. Two decoders that see 80 ms on
both sides tell what temporal context alone is worth; the recipe of both is ours.

Bars: .67/.86/.76 for each seed, within 10 minutes on two cores; .70/.88/.79 is the goal. Prediction: a step of 50
windows is an eighth of the paper's 0.43 s for each member, 1080 steps of three members 3 minutes.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import h5py
import jax
import numpy as np
import record

from jaxm2m import emg

CHANNELS = ["BFpR", "GA", "GRr", "GS", "IL", "RF", "SM", "ST", "TA", "VI", "VL", "VM"]
MARGIN = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("../shared/data/emg/rat_locomotion.h5"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=50)
    options = parser.parse_args()
    with h5py.File(options.file) as file:
        kinds = [(file[f"{k}_inds"][()], file[f"{k}_data"][()], file[f"{k}_decode"][()]) for k in ("train", "valid")]
    order = np.argsort(np.concatenate([rows for rows, _, _ in kinds]))
    windows = np.concatenate([data for _, data, _ in kinds])[order]
    joints = np.concatenate([angles for _, _, angles in kinds])[order]
    data = emg.preprocess(windows, 500, channels=CHANNELS, rectified=True, screen=None, clip=None)
    train, valid = (data.pick(rows) for rows, _, _ in kinds)

    start = time.perf_counter()
    fit = emg.fit(
        train, valid=valid, key=jax.random.key(0), preset="single", population=options.seeds, padded=True, show=True
    )
    result = {
        "seeds": options.seeds,
        "seconds of training": time.perf_counter() - start,
        "steps": int(fit.run.history.step.max()),
    }
    result["validation NLL"] = fit.run.members.best.score.tolist()

    def r2(x):
        return emg.decode(x, joints, outputs=("hip", "knee", "ankle")).mean.round(4).tolist()

    inner = slice(MARGIN, -MARGIN)
    for member in range(options.seeds):
        found = fit.activation(data, key=jax.random.key(1), samples=options.samples, member=member, padded=True)
        result[f"model, seed {member}"] = r2(found.samples.reshape(joints.shape[0], -1, len(CHANNELS)))
    for cutoff in (10.0, 20.0, 40.0):
        result[f"low-pass {cutoff:g} Hz"] = r2(emg.lowpass(windows, 500, cutoff)[:, inner])
    alpha, beta = emg.bayes_grid()
    filtered = np.asarray(emg.bayes(windows, 500, alpha, beta))[:, :, inner]
    best = max(range(len(alpha)), key=lambda i: sum(r2(filtered[i])))
    result[f"Bayesian filter, the best of 44 (alpha {alpha[best]:g}, beta {beta[best]:g})"] = r2(filtered[best])
    smooth = emg.smooth(windows, 500, 0.002)
    result["12 principal components of 80 ms on both sides"] = r2(emg.context_pca(smooth, 500, margin=MARGIN))
    result["80 ms on both sides, lagged ridge"] = r2(emg.context(smooth, 500, every=0.008, margin=MARGIN))
    record.write("emg_rat", "single", result | {"bar": [0.67, 0.86, 0.76], "peak memory, GB": record.peak_memory()})


if __name__ == "__main__":
    main()
