"""Where benchmark results go, one file a machine, and on what they were measured."""

import json
import os
import platform
import re
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxm2m
from jaxm2m import files

RESULTS = Path(__file__).parent / "results"
# real recordings, heads and coils, which are not ours to hand out; tests look in the same folder
DATA = Path(os.environ.get("JAXM2M_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def processor() -> str:
    """Model of the CPU."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Usable by this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict:
    """Hardware, versions and precision of this process."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "cpu": processor(),
        "cores": cores(),
        # well above the script's own use, something else was running and times are upper bounds
        "load": os.getloadavg()[0],
        "dtype": str(jnp.result_type(float)),
        "versions": {n: version(n) for n in ("jaxm2m", "jax", "numpy", "scipy")}
        | {"python": platform.python_version()},
    }


def path() -> Path:
    """The file of this machine: CPU, cores, and the accelerator where there is one."""
    device = jax.devices()[0]
    parts = [processor(), f"{cores()} cores", *([device.device_kind] if device.platform != "cpu" else [])]
    return RESULTS / (re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-") + ".json")


def write(name: str, key: str, row: dict) -> None:
    """Put `row`, with its environment, under script `name` and case `key` of this machine's file; others stay."""
    everything = json.loads(path().read_text()) if path().exists() else {}
    everything.setdefault(name, {})[key] = row | {"environment": environment()}
    with files.atomic(path()) as temporary:
        temporary.write_text(json.dumps(everything, indent=1, default=float, sort_keys=True) + "\n")
    print(key, json.dumps(row, indent=1, default=float), flush=True)


def check_build() -> None:
    """Refuse to run for another build, which PYTHONPATH names, with any other than it."""
    root = os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]
    if root and not Path(jaxm2m.__file__).resolve().is_relative_to(Path(root).resolve()):
        raise SystemExit(f"{jaxm2m.__file__} is not the build in {root}.")


def peak_memory() -> float:
    """Largest resident size of this process so far, GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def timed(function, *arguments, repeats: int = 5) -> tuple[float, float]:
    """First call (with compilation) and the best of `repeats` more, s."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    first = time.perf_counter() - start
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        best = min(best, time.perf_counter() - start)
    return first, best
