"""Brainsight text exports, versions 7 to 14."""

import datetime
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxm2m import _check
from jaxm2m._types import PathLike
from jaxm2m.session._image_space import to_image_world
from jaxm2m.session._rigid import make_rigid
from jaxm2m.session._session import Session

_FIRST_VERSION, _LAST_VERSION = 7, 14
_SPARSE = 1 << 24  # samples that may be missing from the table of EMG
_MATRIX = [f"m{j}n{i}" for j in range(3) for i in range(3)]  # m0n0 m0n1 m0n2 is the first column
_LOCATION = ["Loc. X", "Loc. Y", "Loc. Z"]
_CORNER_AXES = "x=right->left,y=anterior->posterior,z=inferior->superior"
_SECTIONS = {"Target Name": "target", "Sample Name": "sample"}

# From Brainsight's coil axes to the pose convention: x and z turn round, z then points into the head
_TO_POSE = np.diag([-1.0, 1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Row:
    line: int
    kind: str
    cells: dict[str, str]


def is_brainsight(text: str) -> bool:
    """Whether `text` starts like an export of Brainsight."""
    return re.match(r"\s*#\s*Version:", text) is not None


def load_brainsight(text: str, path: Path, image: PathLike | None) -> Session:
    """Parse the `text` of the export `path`. See `jaxm2m.session.load`.

    Columns are found by name, since they differ between versions; sections other than targets and samples
    (electrodes, landmarks, sessions) are passed over.
    """
    header, rows = _parse(text, path)
    _check_header(header, path)

    poses = np.full((len(rows), 4, 4), np.nan)
    for i, row in enumerate(rows):
        values = np.array([_cell_number(row, name, path) for name in (*_MATRIX, *_LOCATION)])
        if np.isnan(values).all():
            continue
        if np.isnan(values).any():
            raise ValueError(f"path: {path}, line {row.line}: only a part of the position is there; export it again.")
        poses[i] = np.eye(4)
        poses[i, :3] = values.reshape(4, 3).T
    poses = make_rigid(poses, lambda i: f"path: {path}, line {rows[i].line}")
    poses, space = to_image_world(poses @ _TO_POSE, header["coordinate system"], image, path)

    channels = _find_channels(rows)
    emg, sfreq, start = _read_waveforms(rows, channels, path)
    return Session(
        poses=poses,
        space=space,
        source_space=header["coordinate system"],
        names=tuple(next(iter(row.cells.values())) for row in rows),
        kind=tuple(row.kind for row in rows),
        target=tuple(_cell_text(row, "Assoc. Target") for row in rows),
        time=_read_times(rows, path),
        intensity=np.array([_cell_number(row, "Stim. Power A", path, "Stim. Power") for row in rows]),
        didt=np.full(len(rows), np.nan),
        channels=channels,
        meps=_read_per_channel(rows, channels, "EMG Peak-to-peak", path),
        mep_latency=_read_per_channel(rows, channels, "EMG Latency", path) * 1e-3,
        emg=emg,
        sfreq=sfreq,
        emg_start=start,
    )


def _parse(text: str, path: Path) -> tuple[dict[str, str], list[_Row]]:
    header: dict[str, str] = {}
    rows: list[_Row] = []
    columns: list[str] = []
    kind: str | None = None
    section_seen = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if line.startswith("#") and not _is_row(line, columns):
            content = line[1:].strip()
            if "\t" not in content:
                key, _, value = content.partition(":")
                header.setdefault(key.strip().lower(), value.strip())
                continue
            columns = [name.strip() for name in content.split("\t")]
            kind = _SECTIONS.get(columns[0])
            section_seen = section_seen or kind is not None
            missing = [name for name in (*_LOCATION, *_MATRIX) if kind and name not in columns]
            if missing:
                raise ValueError(
                    f"path: {path}, line {number}: the columns {', '.join(missing)} are missing; export positions with "
                    "orientations (direction vectors)."
                )
        elif kind is not None:
            cells = [cell.strip() for cell in line.split("\t")]
            if len(cells) != len(columns):
                raise ValueError(
                    f"path: {path}, line {number}: {len(cells)} values under {len(columns)} columns; the file was "
                    "cut off or edited, export it again."
                )
            rows.append(_Row(number, kind, dict(zip(columns, cells, strict=True))))
        elif not columns:
            raise ValueError(f"path: {path}, line {number}: values without a row of column names; export it again.")
    if header and not section_seen:
        raise ValueError(f"path: {path} has neither targets nor samples; export at least one of them.")
    return header, rows


def _is_row(line: str, columns: list[str]) -> bool:
    """Whether a line that begins with # is a row whose name does ("#3 redo"): column names are no numbers."""
    cells = [cell.strip() for cell in line.split("\t")]
    if not columns or len(cells) != len(columns):
        return False
    return any(cell == "(null)" or _check.is_number(cell) for cell in cells[1:])


def _check_header(header: dict[str, str], path: Path) -> None:
    version = header.get("version", "")
    if not re.fullmatch("[0-9]{1,9}", version) or int(version) < _FIRST_VERSION:
        raise ValueError(
            f"path: {path} has version {version[:20] or 'none'} of the format; export it from Brainsight 2.3.5 or "
            f"later (versions {_FIRST_VERSION} to {_LAST_VERSION})."
        )
    if int(version) > _LAST_VERSION:
        warnings.warn(
            f"path: {path} has version {version} of the format, newer than {_LAST_VERSION}; its columns are read by "
            "name, check the result.",
            stacklevel=4,
        )
    if not header.get("coordinate system"):
        raise ValueError(f"path: {path} does not name its coordinate system; export it again.")
    axes = next((line for line in header if line.startswith("x=")), "")
    if axes and header["coordinate system"].lower() == "brainsight" and axes.replace(" ", "") != _CORNER_AXES:
        raise ValueError(
            f"path: {path} has axes {axes}, which are not known; export in NIfTI:Aligned or NIfTI:Scanner."
        )
    units = header.get("units", "millimetres, microvolts, milliseconds").lower()
    for unit in ("millimetres", "microvolts", "milliseconds"):
        if unit not in units:
            raise ValueError(f"path: {path} is in {units!r}; export in millimetres, milliseconds and microvolts.")


def _cell_text(row: _Row, name: str) -> str:
    value = row.cells.get(name, "(null)")
    return "" if value == "(null)" else value


def _cell_number(row: _Row, name: str, path: Path, other: str = "") -> float:
    value = _cell_text(row, name) or _cell_text(row, other)
    return _to_float(value, row, name, path) if value else math.nan


def _to_float(value: str, row: _Row, name: str, path: Path) -> float:
    try:
        return float(value)
    except ValueError:
        # a cell out of place may hold a name or a date, which no message tells
        content = repr(value) if re.fullmatch(r"[-+]?\d{1,9},\d{1,9}", value) else "something else"
        raise ValueError(
            f"path: {path}, line {row.line}: {name!r} holds {content}; it must be a number with a decimal point."
        ) from None


def _find_channels(rows: list[_Row]) -> tuple[str, ...]:
    """Channels with any value: those of 'EMG Peak-to-peak 1', 'EMG Data 2', ..."""
    numbers = set()
    for row in rows:
        for name in row.cells:
            match = re.fullmatch(r"EMG (?:Peak-to-peak|Latency|Data) ([0-9]{1,6})", name)
            if match and _cell_text(row, name):
                numbers.add(int(match[1]))
    return tuple(str(k) for k in sorted(numbers))


def _read_per_channel(rows: list[_Row], channels: tuple[str, ...], name: str, path: Path) -> np.ndarray:
    values = [[_cell_number(row, f"{name} {channel}", path) for channel in channels] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(channels))


def _read_waveforms(rows: list[_Row], channels: tuple[str, ...], path: Path) -> tuple[np.ndarray, float, float]:
    """EMG (n, n_channel, n_time) uV, samples a second, start in s."""
    waves: dict[tuple[int, int], list[float]] = {}
    steps, starts = set(), set()
    for i, row in enumerate(rows):
        for k, channel in enumerate(channels):
            name = f"EMG Data {channel}"
            if text := _cell_text(row, name):
                waves[i, k] = [_to_float(value, row, name, path) for value in text.strip("; ").split(";")]
                steps.add(_cell_number(row, "EMG Res.", path))
                starts.add(_cell_number(row, "EMG Start", path, "EMG Window Start"))
    if not waves:
        return np.empty((len(rows), len(channels), 0)), math.nan, math.nan
    if len(steps) > 1 or not 0 < min(steps) < math.inf:
        raise ValueError(f"path: {path} needs one positive 'EMG Res.' for all its EMG; it has {sorted(steps)}.")
    if len(starts) > 1 and not all(math.isnan(start) for start in starts):
        raise ValueError(
            f"path: {path} has EMG with different starts, {sorted(starts)} ms; export one protocol at a time."
        )
    shape = (len(rows), len(channels), max(map(len, waves.values())))
    if math.prod(shape) > _SPARSE + 16 * sum(map(len, waves.values())):
        raise ValueError(
            f"path: {path} has EMG of up to {shape[2]} values in few of its {len(rows)} rows; export one protocol at a "
            "time."
        )
    emg = np.full(shape, np.nan)
    for (i, k), wave in waves.items():
        emg[i, k, : len(wave)] = wave
    return emg, 1000 / steps.pop(), starts.pop() * 1e-3


def _read_times(rows: list[_Row], path: Path) -> np.ndarray:
    """Seconds since the first sample: the date is needed past midnight, and forgotten."""
    moments: list[datetime.datetime | None] = []
    for row in rows:
        date, time = _cell_text(row, "Date"), _cell_text(row, "Time")
        try:
            moment = datetime.datetime.fromisoformat(f"{date} {time}") if date and time else None
            moments.append(None if moment is None else moment.replace(tzinfo=None))
        except ValueError:
            raise ValueError(f"path: {path}, line {row.line}: the time cannot be read; export it again.") from None
    known = [moment for moment in moments if moment is not None]
    return np.array([(m - min(known)).total_seconds() if m is not None else np.nan for m in moments], dtype=np.float64)
