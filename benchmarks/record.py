"""Where benchmark results go, and on what they were measured."""

import json
import os
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp

RESULTS = Path(__file__).parent / "results"


def environment() -> dict:
    """Hardware, versions and precision of this process."""
    device = jax.devices()[0]
    model = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "dtype": str(jnp.result_type(float)),
        "versions": {n: version(n) for n in ("jaxm2m", "jax", "numpy", "scipy")}
        | {"python": platform.python_version()},
    }


def write(name: str, key: str, row: dict) -> None:
    """Put `row`, with its environment, under `key` of results/NAME.json; other keys stay."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    everything[key] = row | {"environment": environment()}
    path.write_text(json.dumps(everything, indent=1, default=float) + "\n")
    print(key, json.dumps(row, indent=1, default=float), flush=True)


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
