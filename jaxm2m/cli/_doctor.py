"""`jaxm2m doctor`: what this machine has, and how long things will take on it."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from jaxm2m._memory import memory

_EXTRAS = {
    "atlas": ("mne", "nilearn"),
    "tet": ("pyamg",),
    "emg": ("mne", "pynwb", "ezc3d"),
    "view": ("pyvista",),
    "tensorboard": ("tensorboardX",),
    "notebook": ("jupyterlab", "ipywidgets"),
    "cuda": ("jax-cuda12-plugin",),
    "test": ("pytest", "beartype", "nbclient"),
}
_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "nibabel", "h5py", "matplotlib", "scikit-image")
# a solve in float32 at 2 mm (a whole head, 1.3 million nodes with its padding) costs as much as so many applications
# of the scalar stencil to as many nodes: 440 to 600, measured on two busy cores
_NODES, _APPLICATIONS = 1.3e6, 500
_GRADIENT = 2.5  # solves


def doctor() -> None:
    """Devices, memory, precision, versions, what is installed, the cache, times to expect, and what to do next.

    Example: `jaxm2m doctor`
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    lines = report()
    for name, value in lines.items():
        table.add_row(name, value)
    console.print(table, soft_wrap=False)
    console.print(f"\nNext: {_find_next_step(lines)}", soft_wrap=True)


def report() -> dict[str, str]:
    """What doctor says, line by line."""
    import jax
    import jax.numpy as jnp

    import jaxm2m
    from jaxm2m import files
    from jaxm2m._jaxlib_check import sums_are_right

    lines = {
        "jaxm2m": f"{jaxm2m.__version__}, Python {sys.version.split()[0]} on {sys.platform}",
        "tried": "Python 3.11 with jax 0.10.1, Python 3.13 with jax 0.12",
        "packages": ", ".join(f"{name} {_find_version(name) or 'MISSING'}" for name in _PACKAGES),
    }
    for extra, packages in _EXTRAS.items():
        missing = [name for name in packages if _find_version(name) is None]
        lines[f"[{extra}]"] = (
            f'not installed ({", ".join(missing)}); python -m pip install "jaxm2m[{extra}]"'
            if missing
            else ", ".join(f"{name} {_find_version(name)}" for name in packages)
        )
    lines["cores"] = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
    total, free = memory()
    lines["memory"] = f"{_format_size(free)} free of {_format_size(total)}" if total else "unknown"
    lines["devices"] = "; ".join(_describe_device(d) for d in jax.devices())
    dtype = jnp.result_type(float)
    switch = "set JAX_ENABLE_X64=1 for float64" if dtype == jnp.float32 else "JAX_ENABLE_X64 is on"
    lines["precision"] = f"{dtype} ({switch})"
    lines["sums"] = (
        "right" if sums_are_right() else "WRONG in compiled programs (jax issue 39103): install another jax and jaxlib"
    )
    folder = files.cache_folder()
    lines["cache"] = f"{folder}, {_format_size(_measure_folder(folder))} (JAXM2M_CACHE moves it)"
    lines["programs"] = _describe_programs()
    seconds = _time_stencil()
    solve = _APPLICATIONS * seconds * _NODES
    lines["stencil"] = f"{seconds * 1e9:.2f} ns a node, measured just now in {dtype}"
    lines["estimate"] = (
        f"a whole head at 2 mm: {_format_seconds(solve)} a pose, {_format_seconds(_GRADIENT * solve)} with its "
        "gradient, and some tens of seconds once to compile; reckoned from the stencil, right to a factor of about two"
    )
    return lines


def _find_next_step(lines: dict[str, str]) -> str:
    """What to do on this machine: mend what is wrong, else install what the demo needs, else run it."""
    if "MISSING" in lines["packages"]:
        return 'python -m pip install --upgrade "jaxm2m", since packages that it needs are missing'
    if lines["sums"].startswith("WRONG"):
        return 'python -m pip install "jax!=0.10.2" "jaxlib!=0.10.2", before anything is computed'
    if lines.get("[atlas]", "").startswith("not installed"):
        return 'python -m pip install "jaxm2m[atlas]", the standard head, and then jaxm2m demo --quick'
    return "jaxm2m demo --quick (about two minutes on two cores), then jaxm2m demo"


def _find_version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _describe_device(device: Any) -> str:
    statistics = device.memory_stats() or {}
    limit = statistics.get("bytes_limit")
    return f"{device.platform}:{device.id} {device.device_kind}" + (f", {_format_size(limit)}" if limit else "")


def _describe_programs() -> str:
    """Where compiled programs are kept, as JAX has it now."""
    import jax

    settings = jax.config.values
    kept = settings["jax_compilation_cache_dir"]
    if not kept or not settings["jax_enable_compilation_cache"]:
        return "not kept: each start compiles anew"
    folder = Path(kept)
    return (
        f"compiled ones are kept in {folder}, {_format_size(_measure_folder(folder))}, for the next command (jaxm2m "
        "--no-compile-cache does without); notebooks and scripts use them too, where "
        f"JAX_COMPILATION_CACHE_DIR={folder} and TF_CPP_MIN_LOG_LEVEL=3 are set before they start"
    )


def _measure_folder(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
    except OSError:
        return 0


def _time_stencil(n: int = 100, repeats: int = 10) -> float:
    """Seconds to apply the scalar stencil, for each node: the best of five."""
    import jax
    import jax.numpy as jnp

    from jaxm2m import fem

    coefficients = jnp.ones((n + 2, n + 2, n + 2))
    potential = jnp.ones((n + 1, n + 1, n + 1))

    @jax.jit
    def run(c, u):
        return jax.lax.fori_loop(0, repeats, lambda _, u: 0.01 * fem.stencil.apply_scalar(c, fem.stencil.halo(u)), u)

    jax.block_until_ready(run(coefficients, potential))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(coefficients, potential))
        best = min(best, time.perf_counter() - start)
    return best / repeats / (n + 1) ** 3


def _format_size(count: float | int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _format_seconds(seconds: float | int) -> str:
    return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.2g} s"
