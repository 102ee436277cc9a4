"""Tables of positions: three numbers a row, or columns x, y, z among others."""

import csv
from pathlib import Path

import numpy as np

from jaxm2m import _check

_LARGEST = 64 << 20  # bytes
_AXES = ("x", "y", "z")


def read_positions(path: Path) -> np.ndarray | None:
    """Return (n, 3) where a `.csv` or `.txt` file is such a table; None where it holds something else."""
    if path.suffix.lower() not in (".csv", ".txt", ".tsv") or path.stat().st_size > _LARGEST:
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None  # those who read poses say so
    rows = [(number, row) for number, row in enumerate(_split(text), 1) if any(cell.strip() for cell in row)]
    if not rows:
        return None
    names = [_name(cell) for cell in rows[0][1]]
    if set(_AXES) <= set(names):
        columns = [names.index(axis) for axis in _AXES]
        rows = rows[1:]
    elif len(rows[0][1]) == 3 and _check.is_number(rows[0][1][0]):
        columns, names = [0, 1, 2], list(_AXES)
    else:
        return None
    positions = np.empty((len(rows), 3))
    for i, (number, row) in enumerate(rows):
        try:
            if len(row) != len(names):
                raise ValueError
            positions[i] = [float(row[column]) for column in columns]
        except ValueError:
            raise ValueError(
                f"path: {path}, line {number}: {' '.join(row)[:60]!r}; a row of this table has {len(names)} cells, of "
                "which x, y and z are numbers (mm, with a decimal point)."
            ) from None
    if not len(positions):
        raise ValueError(f"path: {path} has no row under its column names; a row is x, y and z in mm.")
    return positions


def _split(text: str) -> list[list[str]]:
    """Split lines at the separator of the first one: a tab, semicolon, comma or spaces."""
    lines = [line.partition("#")[0] for line in text.splitlines()]
    first = next((line for line in lines if line.strip()), "")
    separator = next((mark for mark in "\t;," if mark in first), None)
    if separator is None:
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=separator))


def _name(cell: str) -> str:
    """Return "x" of "X", "x (mm)", "x_mm"."""
    name = cell.strip().lower().removesuffix("(mm)").removesuffix("[mm]").removesuffix("_mm")
    return name.strip()
