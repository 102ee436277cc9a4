"""Coil files with magnetic dipoles as text (`.ccd`)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxm2m.coil._didt import check_largest_didt

# Numbers of dipoles: the published coils have at most some ten thousand.
LIMIT = 1_000_000


def read_ccd(path: Path) -> dict[str, Any]:
    """Parse a `.ccd` file.

    Line 1 `# name version x.y;key=value;...`, line 2 the count, then comments and `x y z mx my mz` (m, A m^2 per A).

    Returns
    -------
    Dictionary with `position` (n, 3) mm, `moment` (n, 3) A m^2 per A, `didt_max` A/s (NaN where not given; the file
    holds A/us), `limits` (3, 2) mm or None, and `metadata` (dict).

    Raises
    ------
    ValueError
        Not text, no or wrong count, rows that are not six finite numbers, a dI/dt that no stimulator reaches.
    """
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path}: not a text file; a .ccd holds dipoles as text, six numbers a line.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # a brand's name in the first line; the numbers are the same in both
    lines = text.splitlines()
    metadata: dict[str, Any] = {}
    if lines and lines[0].lstrip().startswith("#"):
        first, *pairs = lines[0].lstrip().lstrip("#").strip().split(";")
        metadata["header"] = first.strip()
        metadata |= {k.strip(): v.strip() for k, _, v in (pair.partition("=") for pair in pairs) if k.strip()}
    rows = [(i, text) for i, line in enumerate(lines, 1) if (text := line.strip()) and not text.startswith("#")]
    if not rows:
        raise ValueError(f"{path}: holds no numbers; a .ccd has a count on its second line and then the dipoles.")
    line, text = rows.pop(0)
    try:
        count = int(text)
    except ValueError:
        raise ValueError(f"{path}: line {line} is {text[:40]!r}; expected the number of dipoles.") from None
    if not 0 < count <= LIMIT:
        raise ValueError(f"{path}: announces {count} dipoles; expected between 1 and {LIMIT}.")
    if len(rows) != count:
        state = "truncated" if len(rows) < count else "not consistent"
        raise ValueError(
            f"{path}: announces {count} dipoles but holds {len(rows)}; the file is {state}: fetch it again or correct "
            "the count on its second line."
        )
    table = np.empty((count, 6))
    for row, (line, text) in zip(table, rows, strict=True):
        try:
            values = [float(x) for x in text.split()]
        except ValueError:
            raise ValueError(f"{path}: line {line} holds {text[:60]!r}; expected six numbers.") from None
        if len(values) != 6:
            raise ValueError(f"{path}: line {line} holds {len(values)} numbers; expected x y z mx my mz.")
        if not all(math.isfinite(x) for x in values):
            raise ValueError(f"{path}: line {line} holds NaN or infinite numbers; the coil is unusable as it is.")
        row[:] = values
    farthest = np.abs(table[:, :3]).max()
    if farthest > 2:
        raise ValueError(
            f"{path}: a dipole lies {farthest:.3g} m from the origin; positions in a .ccd are in "
            "metres: divide them by 1000 if they are in millimetres."
        )
    if not np.any(table[:, 3:]):
        raise ValueError(f"{path}: every dipole moment is zero; the coil would induce nothing.")
    return {
        "position": table[:, :3] * 1e3,
        "moment": table[:, 3:],
        "didt_max": _read_number(metadata, "dIdtmax", path) * 1e6,
        "limits": _read_limits(metadata),
        "metadata": metadata,
    }


def write_ccd(position: np.ndarray, moment: np.ndarray, didt_max: float, metadata: Mapping[str, Any]) -> str:
    """The text of a `.ccd` file; positions mm, moments A m^2 per A, dI/dt A/s."""
    pairs = [str(metadata.get("header") or f"{metadata.get('name') or 'coil'} version 1.1")]
    if math.isfinite(didt_max):
        pairs.append(f"dIdtmax={didt_max / 1e6!r}")
    pairs += [
        f"{k}={metadata[k]}"
        for k in ("x", "y", "z", "resolution", "stimulator", "brand", "coilname")
        if metadata.get(k)
    ]
    text = ";".join(x.replace("\n", " ") for x in pairs)
    rows = "\n".join(" ".join(repr(float(x)) for x in row) for row in np.hstack([position / 1e3, moment]))
    comment = "# centers and weighted directions of the elements (magnetic dipoles)"
    return f"# {text}\n{len(position)}\n{comment}\n{rows}\n"


def _read_number(metadata: Mapping[str, Any], key: str, path: Path) -> float:
    text = metadata.get(key, "None")
    if text in ("", "None", "none"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{path}: header has {key}={text!r}; expected a number (A/us) or None.") from None
    if not 0 < value < math.inf:
        raise ValueError(f"{path}: header has {key}={text!r}; expected a positive number (A/us) or None.")
    check_largest_didt(value * 1e6, f"{path}: {key}={text} (A/us in a .ccd)")
    return value


def _read_limits(metadata: Mapping[str, Any]) -> np.ndarray | None:
    try:
        return np.array([[float(x) for x in metadata[k].split(",")] for k in "xyz"]).reshape(3, 2)
    except (KeyError, ValueError):
        return None
