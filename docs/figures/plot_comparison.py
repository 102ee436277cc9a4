"""
A comparison of variants
========================

`jm.plot.comparison` draws measured MEPs, what each variant predicted of stimuli that it never saw, and scores with
jackknife intervals. The predictions are made up here; a real comparison is `jm.muscle.compare`, as in
:doc:`/notebooks/03_muscles`.
"""

import numpy as np
import pandas as pd

import jaxm2m as jm

random = np.random.default_rng(0)
muscles = ("APB", "FDI", "ADM", "FCR", "FCU", "EDC", "BRD")
variants = tuple(f"{kind}, {way}" for kind in ("E-field", "firing rate") for way in ("direct", "synergy", "combined"))
n_stimuli, n_folds = 60, 5
fold = np.arange(n_stimuli) % n_folds
drive = np.clip(random.normal(0.5, 0.3, (n_stimuli, 1)) + random.normal(0, 0.15, (1, len(muscles))), 0.02, 1)
measured = 1500 * drive * np.exp(0.35 * random.normal(size=drive.shape))  # uV
largest = np.stack([measured[fold != k].max(0) for k in range(n_folds)])
error = np.array([0.30, 0.36, 0.30, 0.20, 0.25, 0.19])
scatter = error[:, None, None] * random.normal(size=(len(variants), *drive.shape))
predicted = np.clip(1500 * drive / largest[fold] * np.exp(scatter), 0, 1)
result = jm.muscle.Comparison(
    variants, muscles, measured, predicted, largest, fold, np.full(n_folds, 3), pd.DataFrame({"variant": variants})
)
figure = jm.plot.comparison(result)
