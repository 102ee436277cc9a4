"""Where the numbers of a table begin, and what the rows above them are.

Makers write what they like above the numbers: nothing, names, units, rates, a page of settings. Names stand in the
last row of words above the numbers that is no row of units or rates.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jaxm2m.session._emg_units import is_time, is_unit, normalise_unit, split_unit

HEAD = 400  # lines that are looked at
_EMPTY = ("", "nan", "na", "n/a", "null", "none")
_CLOCK = re.compile(r"\d{1,4}[-/.:]\d{1,2}[-/.:]\d{1,4}\S*([ T]\d{1,2}:\d\d\S*)?")
_DELIMITERS = ("\t", ";", "|", ",", r"\s+")


@dataclass(frozen=True)
class Layout:
    """How a table is laid out: the line of its first numbers, its columns, and what stands above."""

    start: int
    width: int
    delimiter: str = ","
    decimal: str = "."
    header: tuple[str, ...] | None = None  # of the width, or one shorter where the first column has no name
    units: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # a row above the names
    sfreq: float | None = None
    blocks: bool = False  # other blocks may follow after an empty line
    integer_header: bool = False


def find_text_layout(lines: list[str]) -> Layout | None:
    """The layout of the first lines of a text; None where there are no numbers."""
    for share in (1.0, 0.5):  # columns of words beside the numbers are looked for last
        for delimiter in _DELIMITERS:
            rows = [_split(line, delimiter) for line in lines]
            if max(map(len, rows), default=0) < 2:
                continue
            for decimal in (".", ",") if delimiter != "," else (".",):
                layout = find_layout(rows, delimiter, decimal, share)
                if layout is not None:
                    return layout
    return find_layout([[line.strip()] for line in lines], ",", ".") or find_layout(
        [[line.strip()] for line in lines], ";", ","
    )


def find_layout(
    rows: Sequence[Sequence[str]], delimiter: str = ",", decimal: str = ".", share: float = 1.0
) -> Layout | None:
    """The layout of rows of cells; None where none of them are numbers, or at least two and a `share` of the cells."""
    numeric = [_is_row_of_numbers(row, decimal, share) for row in rows]
    widths = Counter((len(row), _count_filled(row)) for row, good in zip(rows, numeric, strict=True) if good)
    if not widths:
        return None
    (width, filled), _ = max(widths.items(), key=lambda item: (item[1], item[0]))
    start = next(
        i
        for i, row in enumerate(rows)
        if numeric[i]
        and len(row) == width
        and 2 * _count_filled(row) >= filled
        and (_count_filled(row) > 1 or filled == 1)
    )
    while start and numeric[start - 1] and _count_filled(rows[start - 1]) > 1:
        start -= 1  # rows of another width: the reader refuses them
    above = [row for row in rows[:start] if _count_filled(row)]
    words = [row for row in above if not _is_comment(row)]
    sfreq = _find_rate(above)
    blocks = any(row[0].strip() in ("Devices", "Trajectories", "Model Outputs", "Joints") for row in words)
    if blocks:
        at = [i for i, row in enumerate(words) if row[0].strip() == "Devices"]
        if not at:
            return Layout(start, width, delimiter, decimal, blocks=True)
        sfreq = _as_number(words[at[0] + 1][0]) if len(words) > at[0] + 1 else None
        words = words[at[0] + 2 :]
    units: Sequence[str] = ()
    while words and (_is_row_of_units(words[-1]) or _is_row_of_rates(words[-1])):
        if _is_row_of_units(words[-1]):
            units = words[-1]
        words = words[:-1]
    header = words[-1] if words else _find_commented_names(above, width, delimiter)
    integers = False
    if header is None and _is_row_of_indices(rows[start]):
        header, start, integers = rows[start], start + 1, True
    return Layout(
        start,
        width,
        delimiter,
        decimal,
        None if header is None else tuple(cell.strip() for cell in _trim(header, width)),
        tuple(cell.strip() for cell in units),
        tuple(cell.strip() for cell in words[-2]) if len(words) > 1 and len(words[-2]) == len(words[-1]) else (),
        sfreq,
        blocks,
        integers,
    )


def _split(line: str, delimiter: str) -> list[str]:
    if len(delimiter) > 1:
        return line.split()
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return [line]


def _count_filled(row: Sequence[str]) -> int:
    return sum(cell.strip() != "" for cell in row)


def _trim(header: Sequence[str], width: int) -> list[str]:
    """Without the empty cells beyond the columns."""
    cells = list(header)
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    return cells


def _as_number(cell: str, decimal: str = ".") -> float | None:
    text = cell.strip()
    if decimal == "," and "." in text:
        return None
    try:
        return float(text.replace(decimal, ".")) if "_" not in text else None
    except ValueError:
        return None


def _is_row_of_numbers(row: Sequence[str], decimal: str, share: float = 1.0) -> bool:
    """Numbers, and times of the day beside them."""
    cells = [cell.strip() for cell in row if cell.strip().lower() not in _EMPTY]
    cells = [cell for cell in cells if _as_number(cell, decimal) is not None or not _CLOCK.fullmatch(cell)]
    count = sum(_as_number(cell, decimal) is not None for cell in cells)
    return count == len(cells) > 0 or (share < 1 and count >= max(2, share * len(cells)))


def _is_row_of_units(row: Sequence[str]) -> bool:
    cells = [cell for cell in row if cell.strip()]
    return bool(cells) and all(is_unit(cell) for cell in cells) and len(cells) > (len(row) > 2)


def _is_row_of_rates(row: Sequence[str]) -> bool:
    cells = [cell.strip() for cell in row if cell.strip()]
    return bool(cells) and all(re.fullmatch(r"[\d.]+\s*k?hz", cell, re.I) for cell in cells)


def _is_row_of_indices(row: Sequence[str]) -> bool:
    """0, 1, 2, ... as pandas names columns, behind an empty cell where the index was written too."""
    cells = [cell.strip() for cell in row]
    cells = cells[1:] if cells and not cells[0] else cells
    return len(cells) > 1 and any(cells == [str(i + first) for i in range(len(cells))] for first in (0, 1))


def _is_comment(row: Sequence[str]) -> bool:
    return row[0].lstrip()[:1] in ("#", "%")


def _find_commented_names(above: Sequence[Sequence[str]], width: int, delimiter: str) -> list[str] | None:
    """Names in the last comment, as numpy.savetxt writes them."""
    if not above or not _is_comment(above[-1]):
        return None
    row = [above[-1][0].lstrip().lstrip("#%"), *above[-1][1:]]
    row = row if row[0].strip() or len(row) <= width else row[1:]
    named = len(row) == width and all(re.search(r"[A-Za-z]", cell) for cell in row)
    return [cell.strip() for cell in row] if named and width > 1 else None


def _find_rate(above: Sequence[Sequence[str]]) -> float | None:
    """A sampling rate that the rows above the numbers tell."""
    rates = set()
    for row in above:
        line = " ".join(row)
        if re.search(r"video|camera|marker|filter|pass|cut|notch|mains|line", line, re.I):
            continue
        match = re.search(r"(sampl\w*|rate|frequency)[^\d]{0,40}?(\d+(?:[.,]\d+)?)\s*(k?)hz", line, re.I) or re.search(
            r"(sampl\w*[ _-]?(?:rate|frequency|freq))\s*\[?\(?(k?)hz\)?\]?\D{0,5}?(\d+(?:[.,]\d+)?)", line, re.I
        )
        if match:
            number = next(g for g in match.groups()[1:] if g and g[0].isdigit())
            kilo = any(g and g.lower() == "k" for g in match.groups()[1:])
            rates.add(float(number.replace(",", ".")) * (1000 if kilo else 1))
    return rates.pop() if len(rates) == 1 else None


def column_names(layout: Layout, width: int) -> list[tuple[str, str]]:
    """Name and unit of each column; names are "" where the table has none."""
    if layout.header is None:
        return [("", "")] * width
    cells = [*layout.header]
    names = [split_unit(cell) for cell in cells]
    units = [*layout.units, *[""] * (width - len(layout.units))]
    names = [(n, normalise_unit(u or (units[i] if i < len(units) else ""))) for i, (n, u) in enumerate(names)]
    if layout.devices:
        names = _add_devices(names, layout.devices)
    return names


def _add_devices(names: list[tuple[str, str]], devices: tuple[str, ...]) -> list[tuple[str, str]]:
    """Put the device before names that several devices have."""
    texts = [n for n, _ in names]
    out, device = [], ""
    for i, (name, unit) in enumerate(names):
        device = devices[i] if i < len(devices) and devices[i] else device
        doubled = device and texts.count(name) > 1 and not is_time(name, unit)
        out.append((f"{device}: {name}" if doubled else name, unit))
    return out
