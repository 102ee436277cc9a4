"""Recordings as laboratories bring them: read right or refused, faults named, and how long preprocessing takes.

Cases (`--cases`, all by default):

- layouts: small files in the layouts of makers and laboratories (`recording_layouts.py`), values known: how many are
  read right, refused with the fix, or silently wrong. The tests do the same.
- faults: five faults planted in a made recording of 12 channels: which are named, and false alarms on it without them.
- speed: `jaxm2m emg preprocess` of 300 s of 16 channels at 2 kHz from CSV, as a process of its own; seconds beyond
  those of the same command on 1 s, and the largest resident size.

Prediction: none silently wrong; parsing 90 MB of text takes 3 s, filters 2 s, writing 1 s; the table, its copy and
a filter's state are 0.25 GB beside 0.3 GB of the libraries.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import record
import recording_layouts

import jaxm2m as jm

SFREQ, CHANNELS = 2000, 16


def layouts() -> None:
    verdicts = {}
    for name in recording_layouts.CASES:
        with tempfile.TemporaryDirectory() as folder:
            verdicts[name] = recording_layouts.judge(name, Path(folder))
    counts = Counter(v if v in ("right", "refused") else "wrong" for v in verdicts.values())
    wrong = {name: v for name, v in verdicts.items() if v not in ("right", "refused")}
    row = {"files": len(verdicts), "right": counts["right"], "refused with the fix": counts["refused"]}
    record.write("recordings", "layouts", row | {"wrong": counts["wrong"], "which": wrong})


def make_emg(seconds: float, channels: int) -> np.ndarray:
    """Muscles that work in bursts, with a little mains (uV)."""
    random = np.random.default_rng(0)
    when = np.arange(round(seconds * SFREQ)) / SFREQ
    bursts = 0.1 + np.sin(2 * np.pi * (0.7 * when[:, None] + random.uniform(0, 1, channels))).clip(0) ** 2
    return 80 * bursts * random.normal(size=bursts.shape) + 4 * np.sin(2 * np.pi * 50 * when)[:, None]


def faults() -> None:
    good = make_emg(20, 12)
    bad = good.copy()
    bad[:, 1] = bad[:, 1].clip(*np.percentile(bad[:, 1], [7.5, 92.5]))
    bad[:, 3] = np.abs(bad[:, 3])
    bad[:, 5] = 80 * np.sin(2 * np.pi * 50 * np.arange(len(bad)) / SFREQ) + np.random.default_rng(1).normal(
        size=len(bad)
    )
    bad[:, 7] *= 1e-9
    bad[20_000:21_000] = 0
    planted = {1: "saturated", 3: "rectified", 5: "mains", 7: "tiny"}
    flags = [[text.split()[0] for text in one] for one in jm.emg.quality(bad, SFREQ).flags]
    named = sum(word in flags[i] for i, word in planted.items()) + all("dropout" in one for one in flags)
    false = sum(word not in ("dropout", planted.get(i)) for i, one in enumerate(flags) for word in one)
    false += sum(map(len, jm.emg.quality(good, SFREQ).flags))
    record.write("recordings", "faults", {"planted": 5, "named": named, "false alarms": false})


def speed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        short, seconds_short, _ = _preprocess(Path(folder), 1.0)
        size, seconds, memory = _preprocess(Path(folder), 300.0)
    row = {"s beyond starting": seconds - seconds_short, "s of starting": seconds_short, "peak GB": memory}
    record.write("recordings", "speed", row | {"MB of text": size / 1e6, "MB of the short one": short / 1e6})


def _preprocess(folder: Path, seconds: float) -> tuple[int, float, float]:
    """Bytes of a CSV, seconds and peak memory (GB) of the command on it."""
    x = make_emg(seconds, CHANNELS)
    path = folder / f"{seconds:g}.csv"
    names = ",".join(["time", *(f"M{i + 1} (uV)" for i in range(CHANNELS))])
    table = np.column_stack([np.arange(len(x)) / SFREQ, x])
    np.savetxt(path, table, fmt=["%.4f"] + ["%.5f"] * CHANNELS, delimiter=",", header=names, comments="")
    command = [sys.executable, "-m", "jaxm2m.cli", "emg", "preprocess", str(path), "--line", "50"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder / "out.h5")], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    if status:
        raise RuntimeError(f"the command ended with {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return path.stat().st_size, elapsed, usage.ru_maxrss * unit / 1e9


CASES = {"layouts": layouts, "faults": faults, "speed": speed}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    for case in parser.parse_args().cases:
        CASES[case]()
