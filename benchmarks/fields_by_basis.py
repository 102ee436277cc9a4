"""Many poses to a file through a basis, and the building of one, against a solve a pose and another build.

    python benchmarks/fields_by_basis.py [--cases fields,build] [--against FOLDER] [--poses 300] [--cache FOLDER]

Colin27 at 2 mm, the 80^3 grid of 1 mm round the left hand knob, poses as in `many_poses.py`. `--against` is the
repository of another build, whose command goes in turns with ours; by default it is our own without a basis. Each
command is a process of its own, with its start, the head, the compilation and the file on disk.

- fields: `jaxm2m efield --basis FILE` against `jaxm2m efield`. Bars: ten times faster; the stored estimate of each
  pose at most 1 %, and the error of 20 of them against the solves' file at most 1 %.
- build: `jaxm2m basis build`, 200 modes, to 24^3 points of 2 mm, in turns. Bar: 1.5 times faster than the other build.

Floors and predictions (two cores): the numbers of a pose are 6.1 MB, 2.5 of them when compressed: 45 ms a core; 300
poses 7 s. A field reads 80 modes of 250 k points, 240 MB, once for 16 poses: 3 s in all. Start, head, table of the coil
and the basis' file: 8 s. 18 s, where 300 solves take 150.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import record
from many_poses import TARGET, random_poses

import jaxm2m as jm

ROOT = Path(__file__).resolve().parents[1]
WHERE = f"--roi={','.join(map(str, TARGET))}"


def run(words, root):
    """Seconds of a command of the build in a folder, in a new process."""
    start = time.perf_counter()
    # from the build's own folder: where Python is started comes before all other paths
    code = f"import jaxm2m; assert jaxm2m.__file__.startswith({str(root)!r}); from jaxm2m.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, *map(str, words)], env=environment, cwd=root, check=True)
    return time.perf_counter() - start


def fields(options, folder):
    head = jm.head.load(options.labels, 2.0)
    poses = random_poses(head, jm.coil.load(options.coil), options.poses)
    np.save(folder / "poses.npy", poses)
    file = options.cache / "basis-1mm.h5"
    if not file.exists():
        run(["basis", "build", "--head", options.labels, WHERE, "--out", file], ROOT)
    words = ["efield", "--head", options.labels, "--coil", options.coil, "--poses", folder / "poses.npy"]
    seconds = {"solves": [], "basis": []}
    for _ in range(options.rounds):
        for name, how, root in (("basis", ["--basis", file], ROOT), ("solves", [WHERE], options.against)):
            (folder / f"{name}.h5").unlink(missing_ok=True)
            seconds[name].append(run([*words, *how, "--out", folder / f"{name}.h5"], root))
            print(name, round(seconds[name][-1], 1), flush=True)
    with h5py.File(folder / "basis.h5") as ours, h5py.File(folder / "solves.h5") as theirs:
        estimate = ours["estimate"][()]
        errors = []
        for i in np.linspace(0, len(poses) - 1, 20).astype(int):
            exact = theirs["e"][i]
            errors.append(float(np.linalg.norm(ours["e"][i] - exact) / np.linalg.norm(exact)))
    best = {f"{name}, s": min(values) for name, values in seconds.items()}
    return best | {
        "poses": len(poses),
        "times faster": best["solves, s"] / best["basis, s"],
        "poses that were solved": int(np.isnan(estimate).sum()),
        "largest estimate, %": 100 * float(np.nanmax(estimate)),
        "largest error of 20, %": 100 * max(errors),
        "median error of 20, %": 100 * float(np.median(errors)),
    }


def build(options, folder):
    seconds = {"other": [], "ours": []}
    words = ["basis", "build", "--head", options.labels, WHERE, "--shape", "24,24,24", "--step", "2"]
    for number in range(options.rounds):
        for name, root in (("other", options.against), ("ours", ROOT)):
            seconds[name].append(run([*words, "--out", folder / f"{name}-{number}.h5"], root))
            print(name, round(seconds[name][-1], 1), flush=True)
    best = {f"{name}, s": min(values) for name, values in seconds.items()}
    return best | {"times faster": best["other, s"] / best["ours, s"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="fields,build")
    parser.add_argument("--against", type=Path, default=ROOT, help="the repository of another build")
    parser.add_argument("--labels", type=Path, default=record.DATA / "heads/colin27_labels_1mm.nii.gz")
    parser.add_argument("--coil", type=Path, default=record.DATA / "coils/Magstim_70mm_Fig8.ccd")
    parser.add_argument("--poses", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "jaxm2m-benchmarks")
    options = parser.parse_args()
    options.against, options.cache = options.against.resolve(), options.cache.resolve()
    options.cache.mkdir(parents=True, exist_ok=True)
    for case in options.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            row = {"fields": fields, "build": build}[case](options, Path(folder))
        record.write("fields_by_basis", case, row)


if __name__ == "__main__":
    main()
