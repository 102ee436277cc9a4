"""Seconds of commands on a machine that has run none, and on the same machine the next time.

    python benchmarks/first_minute.py [--cases efield,demo] [--against FOLDER] [--rounds 1]

Each round has a cache folder of its own that holds the atlas head, which is fetched once and no part of this, and
nothing that was compiled. `--against` is the repository of another build, whose first run goes in turns with ours.

- efield: one pose over the atlas head, the shipped figure-8. Bar: the second start within half of the first.
- demo: `demo --quick`. Bars: the second start within .6 of the first; the first within .75 of the other build's.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record

import jaxm2m as jm

ROOT = Path(__file__).resolve().parents[1]
CODE = "import jaxm2m; assert jaxm2m.__file__.startswith({root!r}); from jaxm2m.cli import main; main()"
COMMANDS = {
    "efield": ["efield", "--head", "atlas", "--coil", "figure8", "--poses", "poses.csv", "--roi=-40,-20,52"],
    "demo": ["demo", "--quick"],
}


def write_pose(folder):
    """A pose over the left hand knob, in the poses file of the commands."""
    head = jm.head.atlas()
    pose = jm.coil.place(head.scalp, target=(-40, -20, 52), handle=(-1, -1, 0), distance=8.0)
    jm.session.save_targets(folder / "poses.csv", np.asarray(pose), space="MNI152")


def run(command, folder, cache, root):
    """Seconds of a command in a new process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "TF_", "PYTHONPATH"))}
    environment |= {"JAXM2M_CACHE": str(cache), "PYTHONPATH": str(root)}
    out = tempfile.mkdtemp(dir=folder)
    target = str(Path(out) / ("fields.h5" if command == "efield" else "demo"))
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(root=str(root.resolve())), *COMMANDS[command], "--out", target],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    shutil.rmtree(out)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="efield,demo")
    parser.add_argument("--against", type=Path, help="the repository of another build")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    for command in options.cases.split(","):
        seconds = {"first": [], "second": [], "first, other build": []}
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_pose(folder)
                for case, cache, root in (
                    ("first, other build", "other", options.against),
                    ("first", "ours", ROOT),
                    ("second", "ours", ROOT),
                ):
                    if root is None:
                        continue
                    if not (folder / cache).exists():
                        (folder / cache).mkdir()
                        for path in jm.files.cache_folder().glob("atlas-*"):
                            shutil.copy(path, folder / cache)
                    seconds[case].append(run(command, folder, folder / cache, root))
                    print(command, case, round(seconds[case][-1], 1), flush=True)
                kept = sum(p.stat().st_size for p in (folder / "ours" / "programs").rglob("*") if p.is_file())
        best = {f"{case}, s": min(values) for case, values in seconds.items() if values}
        row = best | {"second / first": best["second, s"] / best["first, s"], "programs, MB": kept / 1e6}
        if options.against:
            row["first / first of the other build"] = best["first, s"] / best["first, other build, s"]
        print(command, row)
        record.write("first_minute", command, row)


if __name__ == "__main__":
    main()
