"""The stimulator's waveform in a table beside a coil's file."""

import warnings
from pathlib import Path

import numpy as np

_LIMIT = 1 << 24  # bytes


def read_waveform(path: Path) -> tuple[tuple[float, float], ...] | None:
    """Read (time in s, signal) rows of a tab-separated table with the columns `time` and `signal`.

    None, with a warning, where the file is something else: fields do not depend on it.
    """
    wrong = ""
    if path.stat().st_size > _LIMIT:
        wrong = "it is larger than any waveform"
    else:
        lines = [line.split("\t") for line in path.read_text("utf-8-sig", "replace").splitlines() if line.strip()]
        header = [cell.strip().lower() for cell in lines[0]] if lines else []
        if not {"time", "signal"} <= set(header):
            wrong = f"it has the columns {', '.join(header)[:80]}"
        else:
            columns = header.index("time"), header.index("signal")
            try:
                values = np.array([[float(row[i]) for i in columns] for row in lines[1:]])
            except (ValueError, IndexError):
                values = np.full((1, 2), np.nan)
            if len(values) < 2 or not np.isfinite(values).all() or (np.diff(values[:, 0]) <= 0).any():
                wrong = "its rows are not two numbers each, at growing times"
            else:
                return tuple((float(t), float(x)) for t, x in values)
    warnings.warn(
        f"{path}: is no waveform with the columns time (s) and signal, {wrong}; the coil is loaded without it.",
        stacklevel=4,
    )
    return None
