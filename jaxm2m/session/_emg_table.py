"""EMG in tables: text files of any maker's layout, spreadsheets, DataFrames."""

import codecs
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from jaxm2m.session._emg_channels import channel_kind, rises_evenly
from jaxm2m.session._emg_contents import (
    EmgContents,
    ReportRow,
    check_size,
    check_unique,
    estimate_rate,
    first_line,
    import_package,
    quote_name,
)
from jaxm2m.session._emg_layout import HEAD, Layout, column_names, find_layout, find_text_layout
from jaxm2m.session._emg_units import SECONDS, is_counter, is_time, split_unit

_TRIALS = ("trial", "epoch", "trials", "epochs")


@dataclass(frozen=True, eq=False)
class TableOptions:
    """What the caller says of a table: lines above the names, the column of times ("": none), channels wanted."""

    skiprows: int | None = None
    time: str | None = None
    picks: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class _Column:
    name: str
    unit: str
    values: pd.Series


def read_text(path: Path, options: TableOptions) -> EmgContents:
    """Read a text file of columns."""
    encoding = _find_encoding(path)
    skip = options.skiprows or 0
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        lines = [line for i, line in zip(range(skip + HEAD), file, strict=False) if i >= skip]
    layout = find_text_layout(lines)
    if layout is None:
        if sum(1 for line in lines if line.strip() and line[0] not in "#%") == 0:
            raise ValueError(f"source: {path} has no row of numbers; save a column a channel.")
        raise ValueError(
            f"source: {path} is not a table of numbers in its first {len(lines)} lines; save a column a channel, or "
            "say by skiprows= how many lines stand above the names."
        )
    if layout.blocks and layout.header is None:
        raise ValueError(
            f"source: {path} does not begin with a block of Devices; export the analog channels, or say by skiprows= "
            "how many lines stand above theirs."
        )
    try:
        table = pd.read_csv(
            path,
            sep=layout.delimiter,
            decimal=layout.decimal,
            header=None,
            skiprows=skip + layout.start,
            nrows=_count_rows(path, encoding, skip + layout.start) if layout.blocks else None,
            encoding=encoding,
            encoding_errors="replace",
            skip_blank_lines=True,
            low_memory=False,
        )
    except (ValueError, UnicodeDecodeError, OverflowError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"source: {path} is not a table ({first_line(error)}); save a column a channel.") from None
    return _read_columns(table, layout, options, path)


def read_sheet(path: Path, name: str | None, options: TableOptions) -> EmgContents:
    """Read a sheet of a spreadsheet (.xlsx)."""
    import_package("openpyxl", path, "openpyxl")
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(sum(part.file_size for part in archive.infolist()) // 8, f"source: {path}")
        sheets = pd.read_excel(path, sheet_name=None, header=None, engine="openpyxl")
    except Exception as error:  # whatever its parsers met
        if str(error).startswith("source:"):
            raise
        raise ValueError(
            f"source: {path} is not a readable spreadsheet ({first_line(error)}); save it again."
        ) from None
    sheets = {str(k): v for k, v in sheets.items() if v.size}
    layouts = {k: _find_sheet_layout(v, options) for k, v in sheets.items()}
    fit = [k for k, layout in layouts.items() if layout is not None]
    if name is not None:
        if name not in fit:
            raise ValueError(
                f"name: no sheet of numbers {name!r} in {path}; choose from {', '.join(fit) or 'nothing'}."
            )
        fit = [name]
    if len(fit) != 1:
        raise ValueError(
            f"name: {path} has the sheets {', '.join(fit)}; say which holds the EMG."
            if fit
            else f"source: {path} has no sheet with rows of numbers; save a column a channel."
        )
    layout = layouts[fit[0]]
    assert layout is not None
    table = sheets[fit[0]].iloc[(options.skiprows or 0) + layout.start :].reset_index(drop=True)
    return _read_columns(table.apply(_as_numbers), layout, options, path)


def from_frame(table: pd.DataFrame, options: TableOptions) -> EmgContents:
    """The columns of a DataFrame, whose index may hold times."""
    if isinstance(table.columns, pd.MultiIndex):
        raise ValueError("source: a DataFrame with names of several levels; join them into one name a column.")
    pairs = [split_unit(str(name)) for name in table.columns]
    columns = [_Column(n, u, table.iloc[:, i]) for i, (n, u) in enumerate(pairs)]
    index = table.index
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        elapsed = (index - index[0]).total_seconds() if isinstance(index, pd.DatetimeIndex) else index.total_seconds()
        columns.insert(0, _Column("time", "s", pd.Series(np.asarray(elapsed, float))))
    elif index.name is not None and is_time(*split_unit(str(index.name))):
        columns.insert(0, _Column(*split_unit(str(index.name)), pd.Series(index.to_numpy())))
    return _sort_columns(columns, options, "source", named=True)


def from_frames(tables: Sequence[pd.DataFrame], options: TableOptions) -> EmgContents:
    """A list of DataFrames, a trial each, of the same columns."""
    parts = [from_frame(table, options) for table in tables]
    first = parts[0]
    for i, part in enumerate(parts):
        if part.channels != first.channels or part.units != first.units:
            raise ValueError(
                f"source: frame {i} has the columns {part.channels}, the first {first.channels}; match them."
            )
        if part.sfreq and first.sfreq and abs(part.sfreq / first.sfreq - 1) > 1e-3:
            raise ValueError(f"source: frame {i} is of {part.sfreq:.6g} Hz, the first of {first.sfreq:.6g} Hz.")
        if part.breaks is not None or part.trials is not None:
            raise ValueError(f"source: frame {i} has gaps or trials of its own; pass one frame with a column `trial`.")
    return replace(first, values=[part.values for part in parts])


def _find_encoding(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _count_rows(path: Path, encoding: str, start: int) -> int:
    """Rows until an empty line."""
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        count = 0
        for i, line in enumerate(file):
            if i >= start:
                if not line.strip(" \t\r\n,;"):
                    break
                count += 1
    return count


def _find_sheet_layout(table: pd.DataFrame, options: TableOptions) -> Layout | None:
    rows = table.iloc[options.skiprows or 0 :].head(HEAD)
    cells = [["" if pd.isna(v) else str(v) for v in row] for row in rows.itertuples(index=False)]
    return find_layout(cells)


def _as_numbers(column: pd.Series) -> pd.Series:
    """Numbers where all cells are such."""
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column


def _read_columns(table: pd.DataFrame, layout: Layout, options: TableOptions, path: Path) -> EmgContents:
    """Give columns their names, and leave out those that hold nothing."""
    where = f"source: {path}"
    empty = table.isna().all().to_numpy()
    names = column_names(layout, table.shape[1])
    if len(names) > table.shape[1]:
        raise ValueError(
            f"{where} has {len(names)} names for {table.shape[1]} columns (names with blanks, between blanks?); save "
            "it with commas or tabs."
        )
    if layout.header is not None and len(names) < table.shape[1]:
        filled = np.flatnonzero(~empty)
        if not empty[len(names) :].all():
            if len(filled) != len(names) + 1 or not rises_evenly(_as_floats(table.iloc[:, 0])):
                raise ValueError(
                    f"{where} names {len(names)} of its {len(filled)} columns (decimal commas between commas, or "
                    "names with blanks?); give each column one name."
                )
            names = [("", ""), *names]
        names += [("", "")] * (table.shape[1] - len(names))
    columns = [
        _Column(name, unit, table.iloc[:, i])
        for i, (name, unit) in enumerate(names[: table.shape[1]])
        if not (empty[i] and not name)  # a delimiter at every row's end
    ]
    contents = _sort_columns(columns, options, where, named=layout.header is not None)
    if contents.sfreq is None and layout.sfreq is not None:
        contents = replace(contents, sfreq=layout.sfreq)
    if layout.integer_header:
        row = ReportRow("", "names", "", "used", "the first row, whole numbers one after the other, was taken as names")
        contents = replace(contents, rows=(*contents.rows, row))
    return contents


def _sort_columns(columns: list[_Column], options: TableOptions, where: str, named: bool) -> EmgContents:
    """Tell times, counters, trials and channels from each other."""
    rows: list[ReportRow] = []
    times: list[int] = []
    trial: int | None = None
    channels: list[int] = []
    step: float | None = None
    picked = set(options.picks or ())
    for i, column in enumerate(columns):
        name, numbers = column.name, column.values.dtype.kind in "iuf"
        if name in picked:
            channels.append(i)
        elif options.time != "" and (name == options.time if options.time else is_time(name, column.unit)):
            times.append(i)
        elif name.lower() in _TRIALS and trial is None:
            trial = i
        elif numbers and _counts(column):
            note = f"rises by {_step(column.values):.6g} every row" if rises_evenly(_as_floats(column.values)) else ""
            step = _step(column.values) if note else None
            rows.append(ReportRow(name or f"column {i + 1}", "counter", column.unit, "left out", note or "counts"))
        elif named and not name:
            raise ValueError(f"{where}: column {i + 1} has no name; give it one, or leave the column out.")
        else:
            channels.append(i)
    if options.time and not times:
        listed = ", ".join(quote_name(c.name) for c in columns[:60])
        raise ValueError(f'time: no column {options.time!r} in {where}; choose from {listed}, or pass "" for none.')
    words = [i for i in times if columns[i].values.dtype.kind not in "iuf"]
    if words and len(words) < len(times):
        rows += [ReportRow(columns[i].name, "time", "", "left out", "words, beside another time") for i in words]
        times = [i for i in times if i not in words]
    for i in times:
        if columns[i].values.dtype.kind not in "iuf":
            columns[i] = _read_clock(columns[i], where)
    ends = [*times[1:], len(columns)]
    blocks = [(t, [c for c in channels if t < c < end]) for t, end in zip(times, ends[: len(times)], strict=True)]
    kept = channels
    if picked <= {columns[i].name for i in channels} and picked:
        kept = [i for i in channels if columns[i].name in picked]
        rows += [
            ReportRow(columns[i].name, "", columns[i].unit, "left out", "not picked") for i in channels if i not in kept
        ]
        blocks = [(t, [c for c in part if c in kept]) for t, part in blocks]
    if len(times) > 1 and times[0] > min(channels, default=0):
        listed = ", ".join(quote_name(columns[i].name) for i in times)
        raise ValueError(f"time: {where} has several columns of times ({listed}); say which holds those of the EMG.")
    if len(times) > 1:
        kept = _choose_block(columns, blocks, kept, rows, where)
        used = next((t for t, part in blocks if set(part) & set(kept)), times[0])
        rows += [
            ReportRow(columns[t].name, "time", columns[t].unit, "left out", "beside another")
            for t in times
            if t != used
        ]
        times = [used]
    _check_numbers(columns, [*kept, *times[:1], *([] if trial is None else [trial])], where)
    check_unique([columns[i].name for i in kept if named], where)
    length = _shortest(columns, kept, where) if len(blocks) > 1 else len(columns[kept[0]].values) if kept else 0
    if not kept or not length:
        raise ValueError(
            f"{where} has {'no rows' if kept else 'no column but times and counters'}; save a column a channel."
        )
    rate = breaks = trials = None
    if times:
        at = columns[times[0]]
        rate, breaks = estimate_rate(SECONDS[at.unit] * _as_floats(at.values)[:length], where)
        rows.append(ReportRow(at.name, "time", at.unit or "s", "used", f"the rate: {rate:.6g} Hz"))
    if trial is not None:
        cuts = np.flatnonzero(np.diff(_as_floats(columns[trial].values)[:length]) != 0) + 1
        bounds = np.array([0, *cuts, length])
        trials = np.stack([bounds[:-1], bounds[1:]], -1)
        rows.append(ReportRow(columns[trial].name, "trial", "", "used", f"{len(trials)} trials"))
        breaks = cuts if rate is None else breaks
    values = np.column_stack([_as_floats(columns[i].values)[:length] for i in kept])
    units = [columns[i].unit for i in kept]
    return EmgContents(
        values,
        rate,
        [columns[i].name for i in kept] if named else None,
        trials,
        breaks,
        units=units,
        kinds=[channel_kind(columns[i].name, columns[i].unit) for i in kept],
        rows=tuple(rows),
        step=step,
    )


def _read_clock(column: _Column, where: str) -> _Column:
    """Times of the day as seconds."""
    try:
        moments = pd.to_datetime(column.values, format="mixed")
        return _Column(column.name, "s", (moments - moments.iloc[0]).dt.total_seconds())
    except (ValueError, TypeError, AttributeError):
        raise ValueError(
            f"{where}: not all of column {quote_name(column.name)} is numbers or times; leave it out, or say by time= "
            'which column holds the times ("": none).'
        ) from None


def _counts(column: _Column) -> bool:
    """Whether a column counts rows: by its numbers, or by its name and whole numbers that rise or start anew."""
    values = _as_floats(column.values)
    if rises_evenly(values):
        return True
    if not (is_counter(column.name) or not column.name) or not np.isfinite(values).all() or len(values) < 3:
        return False
    steps = np.diff(values)
    whole = bool((values == np.rint(values)).all())
    return whole and bool(((steps >= 0) & (steps <= 1)).mean() > 0.5)


def _step(values: pd.Series) -> float:
    return float(np.diff(_as_floats(values[:1000])).mean())


def _choose_block(
    columns: list[_Column], blocks: list[tuple[int, list[int]]], channels: list[int], rows: list[ReportRow], where: str
) -> list[int]:
    """Channels of the blocks (a column of times and those behind it) that go together."""
    known: dict[int, float] = {}
    for t, part in blocks:
        if part:
            at = columns[t]
            _check_numbers(columns, [t], where)
            values = _as_floats(at.values)
            known[t] = estimate_rate(SECONDS[at.unit] * values[np.isfinite(values)], where)[0]
    if not known:
        return channels
    kinds = {t: {channel_kind(columns[c].name, columns[c].unit) for c in part} for t, part in blocks if part}
    wanted = {t for t, k in kinds.items() if "EMG" in k} or {t for t, k in kinds.items() if "" in k} or set(known)
    rates = sorted({round(known[t], 6) for t in wanted})
    if rates[-1] > rates[0] * 1.001:
        listed = "; ".join(
            f"{known[t]:.6g} Hz: {', '.join(quote_name(columns[c].name) for c in part[:8])}"
            for t, part in blocks
            if part
        )
        raise ValueError(f"picks: {where} has channels of several rates ({listed}); name those of one rate.")
    kept = [c for t, part in blocks for c in part if t in wanted]
    for t, part in blocks:
        for c in part:
            if t not in wanted:
                kind = channel_kind(columns[c].name, columns[c].unit)
                note = f"{known[t]:.6g} Hz, not the {rates[0]:.6g} Hz of the EMG"
                rows.append(ReportRow(columns[c].name, kind, columns[c].unit, "left out", note))
    return kept


def _shortest(columns: list[_Column], kept: list[int], where: str) -> int:
    """Rows that all channels have, where those of blocks end at different rows."""
    ends = []
    for i in kept:
        rows = np.flatnonzero(~columns[i].values.isna().to_numpy())
        ends.append(0 if not len(rows) else int(rows[-1]) + 1)
    if max(ends) - min(ends) > max(2, 0.01 * max(ends)):
        short = columns[kept[int(np.argmin(ends))]].name
        raise ValueError(
            f"{where}: column {quote_name(short)} ends after {min(ends)} of {max(ends)} rows; leave it out by picks, "
            "or export it again."
        )
    return min(ends)


def _check_numbers(columns: list[_Column], indices: Sequence[int], where: str) -> None:
    for i in indices:
        values = columns[i].values
        if values.dtype.kind not in "iufb":
            text = next((str(v) for v in values if isinstance(v, str) and _is_word(v)), "")
            raise ValueError(
                f"{where}: not all of column {quote_name(columns[i].name or str(i + 1))} is numbers"
                f"{f' ({quote_name(text)})' if text else ''}; save a column a channel, one row of names at most, or "
                "leave it out by picks."
            )


def _is_word(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return True
    return False


def _as_floats(values: pd.Series) -> np.ndarray:
    return values.to_numpy(np.float64) if values.dtype.kind in "iufb" else np.zeros(0)
