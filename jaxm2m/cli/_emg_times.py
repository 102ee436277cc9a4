"""Times out of files for `jaxm2m emg preprocess`: trials (start, stop) and cycles (beginnings), in s."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from jaxm2m.session import Recording

_STARTS = ("start", "begin", "onset", "start_s", "start_time", "onset_s")
_STOPS = ("stop", "end", "offset", "stop_s", "stop_time", "end_s")


def choose_trials(recording: "Recording", trials: Path | None, cycles: Path | None, events: str | None) -> "Recording":
    """Set the trials of a recording by what the options name, of which there may be one."""
    if sum(option is not None for option in (trials, cycles, events)) > 1:
        raise ValueError("--trials, --cycles, --events: given together; keep one of them.")
    if trials is not None:
        times = _read_table(trials, "--trials", _STARTS, _STOPS)
        try:
            return recording.with_trials(times)
        except ValueError as error:
            raise ValueError(f"--trials: {trials}: {error}") from None
    if cycles is not None:
        times = _read_table(cycles, "--cycles", _STARTS)
        try:
            return recording.with_cycles(times[:, 0])
        except ValueError as error:
            raise ValueError(f"--cycles: {cycles}: {error}") from None
    if events is not None:
        try:
            return recording.with_events(events)
        except ValueError as error:
            raise ValueError(f"--events: {error}") from None
    return recording


def _read_table(path: Path, option: str, *columns: tuple[str, ...]) -> "np.ndarray":
    """Read one number a row for each of `columns`: by their names, else of a table of so many columns."""
    import numpy as np
    import pandas as pd

    from jaxm2m import _check, files

    path = _check.file(path, option, suffixes=(".csv", ".tsv", ".txt", ".npy"))
    wanted = " and ".join(names[0] for names in columns)
    if path.suffix.lower() == ".npy":
        values = np.asarray(files.read_npy(path, option), float)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or values.shape[1] != len(columns):
            raise ValueError(f"{option}: {path} has the shape {values.shape}; give a row of {wanted} (s) each.")
        return values
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip() and not line.startswith("#")), "")
        separator = next((d for d in "\t;," if d in first), r"\s+")
        table = pd.read_csv(path, sep=separator, header=None, dtype=str, comment="#", encoding="utf-8-sig")
        names = [str(cell).strip().lower() for cell in table.iloc[0]]
        if not all(_check.is_number(cell) for cell in names):
            table = table.iloc[1:]
            at = [next((i for i, n in enumerate(names) if n in choices), None) for choices in columns]
            indices = [i for i in at if i is not None]
            if len(indices) < len(columns) and table.shape[1] != len(columns):
                raise ValueError(f"no columns {wanted}")
            table = table.iloc[:, indices] if len(indices) == len(columns) else table
        values = table.to_numpy(float)
    except Exception as error:  # whatever pandas' parsers met
        line = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{option}: {path} is not a table of {wanted} in s ({line}); save it as CSV.") from None
    if not len(values) or values.shape[1] != len(columns) or not np.isfinite(values).all():
        raise ValueError(f"{option}: {path} has the shape {values.shape}; give a row of {wanted} (s) each.")
    return values
