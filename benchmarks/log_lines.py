"""How long a command that writes into a log is silent: the largest time between two lines, s.

    python benchmarks/log_lines.py [--cases demo,efield,place,basis]

Each command runs in a process of its own with an empty compilation cache, its output in a pipe; start and end of the
process count as lines. Prediction: eight seconds, and what one call into compiled code holds up.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record

POSES = 24


def measure(words: list[str]) -> dict:
    """Run a command and time its lines."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "jaxm2m.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        times, lines = [start], [""]
        for line in process.stdout:
            times.append(time.monotonic())
            lines.append(line.strip())
        status = process.wait()
        times.append(time.monotonic())
    gaps = np.diff(times)
    return {
        "seconds": times[-1] - start,
        "largest time between two lines, s": float(gaps.max()),
        "after the line": lines[int(gaps.argmax())][:80],
        "lines": len(lines) - 1,
        "status": status,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="demo,efield,place,basis")
    chosen = parser.parse_args().cases.split(",")
    with tempfile.TemporaryDirectory() as folder:
        import jaxm2m as jm

        head = jm.head.atlas(2.0)
        target = (-40.0, -20.0, 52.0)
        poses = np.stack(
            [jm.coil.place(head.scalp, target, (np.cos(a), np.sin(a), 0)) for a in np.linspace(0, 6, POSES)]
        )
        np.save(Path(folder) / "poses.npy", poses)
        common = ["--head", "atlas", "--coil", "figure8"]
        commands = {
            "demo": ["demo", "--quick", "--out", f"{folder}/demo"],
            "efield": [
                "efield",
                *common,
                "--poses",
                f"{folder}/poses.npy",
                "--roi",
                "-40,-20,52",
                "--out",
                f"{folder}/e.h5",
            ],
            "place": ["place", *common, "--target", "-40,-20,52", "--evaluations", "10", "--out", f"{folder}/place"],
            "basis": [
                *["basis", "build", "--head", "atlas", "--roi", "-40,-20,52", "--shape", "30,30,30", "--step", "2"],
                *["--modes", "100", "--rank", "60", "--out", f"{folder}/basis.h5"],
            ],
        }
        for name in chosen:
            record.write("log_lines", name, measure(commands[name]))


if __name__ == "__main__":
    main()
