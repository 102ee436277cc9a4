"""
How long things take
====================

Measured on two cores by the scripts in ``benchmarks/``, and read from the stored results.
"""

import json
from pathlib import Path

from matplotlib.figure import Figure

root = next(folder for folder in Path.cwd().resolve().parents if (folder / "benchmarks" / "results").is_dir())
results = json.loads((root / "benchmarks" / "results" / "amd-epyc-2-cores.json").read_text())
speed, many = results["basis"]["speed"], results["many_poses"]["colin27_labels_1mm.nii.gz, 2 mm, 300 poses"]
seconds = {
    "value and gradient in a 5 mm target, basis": speed["5 mm target, value and gradient"]["best, ms"] / 1000,
    "field in 31 000 voxels, basis": speed["one field, 2mm brain voxels"]["best, ms"] / 1000,
    "field, full solve, 2 mm": results["solver"]["2mm"]["tensor"]["solve, s"],
    "value and gradient, full solve, 2 mm": results["solver"]["gradient"]["5 mm target"]["value and gradient, s"],
    "field, full solve, 1 mm": results["solver"]["1mm"]["tensor"]["solve, s"],
    "basis of 200 solves, 2 mm": results["basis"]["build"]["without interruption"]["build, s"],
    "300 poses to a file, 2 mm": many["uninterrupted"]["wall_s"],
    "training of an EMG model, three seeds": results["emg_rat"]["single"]["seconds of training"],
    "comparison of six muscle models, 10 folds": results["muscle"]["truth rate, gain 0.55"]["seconds"],
}

figure = Figure(figsize=(8.4, 3.8), layout="constrained")
ax = figure.subplots()
ax.barh(list(seconds), list(seconds.values()), color="#2456a6")
for k, value in enumerate(seconds.values()):
    ax.text(1.25 * value, k, f"{value:.2g} s" if value < 100 else f"{value:.0f} s", va="center", fontsize=9)
ax.set(xscale="log", xlim=(2e-4, 8e3), xlabel="seconds on two cores of an AMD EPYC, no GPU")
ax.invert_yaxis()
