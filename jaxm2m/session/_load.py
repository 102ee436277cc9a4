"""Which reader a file of poses takes."""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._types import PathLike
from jaxm2m.files import parse_json, read_npy
from jaxm2m.session._brainsight import is_brainsight, load_brainsight
from jaxm2m.session._localite import load_localite
from jaxm2m.session._positions import read_positions
from jaxm2m.session._rigid import make_rigid
from jaxm2m.session._session import Session
from jaxm2m.session._simnibs import load_simnibs

_LARGEST = 512 << 20  # bytes; a text of that size takes a few GB once parsed
_MOST_FILES = 200
_MATRICES = (
    "write the coil's 4x4 matrices as rows of 16 numbers (.csv), mm, columns x, y (the handle's prolongation), z (into "
    "the head) and centre"
)
# navigators whose files nobody outside has described: suffix -> whose it is, and the way out
_UNREAD = {
    ".mrk": ("ANT Visor", f"read it with SimNIBS and save its session (.mat), or {_MATRICES}"),
    ".stmpx": ("SofTaxic", f"read it with SimNIBS and save its session (.mat), or {_MATRICES}"),
    ".nbe": ("Nexstim", f"export the session as text and {_MATRICES}"),
}


def load(
    path: PathLike,
    image: PathLike | None = None,
    *,
    channels: Sequence[str] | None = None,
) -> Session:
    """Load a neuronavigation export: Brainsight text, Localite XML, or the positions in a SimNIBS `.mat`.

    Parameters
    ----------
    path : path
        The export: a text, TriggerMarkers or InstrumentMarkers, a SimNIBS session or list. Localite writes one file for
        each coil, and one or both may lack positions: load the one you mean. A folder is a Localite session: the one
        TriggerMarkers file in it that has positions.
    image : path, optional
        The NIfTI image that was loaded into Brainsight. It is required for the spaces "Brainsight" and "World", which
        only the image can convert.
    channels : sequence of str, optional
        Names of the EMG channels (muscles), in the file's order, instead of "1", "2", ...

    Returns
    -------
    Session
        Targets and samples, with poses in the "matsimnibs" convention.

    Raises
    ------
    ValueError
        What is wrong with the file and where: another format or version, missing columns, a pose that is not rigid, a
        space that needs an image.
    """
    path = _find_export(path)
    session = _load_session(path, image)
    if session is None:
        raise ValueError(
            f"path: {path} is no Brainsight text export, Localite XML or SimNIBS .mat; for bare poses call load_poses."
        )
    if channels is not None:
        if len(channels) != len(session.channels):
            raise ValueError(
                f"channels: {len(channels)} names, but {path} has {len(session.channels)} EMG channels; match them."
            )
        session = replace(session, channels=tuple(channels))
    return session


def load_poses(path: PathLike, image: PathLike | None = None) -> tuple[Float[np.ndarray, "n 4 4"], str | None]:
    """Load coil poses from any file that holds them.

    - `.npy`: (n, 4, 4) or (4, 4).
    - `.csv`, `.txt`: a pose a row, 16 numbers, row-major (the first four are the matrix's first row), with or without
      a row of names; or one 4x4 matrix. Commas, semicolons, tabs or spaces between. Where the first column is called
      "name", its cells are passed over (commas, semicolons or tabs between).
    - `.json`: nested lists (n, 4, 4) or (4, 4), or {"poses": ..., "space": ...}.
    - Brainsight text and Localite XML: the samples with a position, or the targets where there are no samples.
    - SimNIBS `.mat` (session.mat, simnibs_simulation*.mat, a TMSLIST): every position.

    Parameters
    ----------
    path : path
        The file; poses in mm, "matsimnibs" convention (neuronavigation exports are converted).
    image : path, optional
        As in `load`.

    Returns
    -------
    poses : (n, 4, 4) array
        Rigid, float64, mm.
    space : str or None
        The coordinate space, where the file gives one.
    """
    path = _find_export(path)
    if path.suffix.lower() == ".npy":
        return _check_poses(read_npy(path), path), None
    if path.suffix.lower() == ".json":
        values, space = _load_json(_read(path), path)
        return _check_poses(values, path), space
    session = _load_session(path, image)
    if session is None:
        return _check_poses(_parse_numbers(_decode(_read(path), path), path), path), None
    rows = session.samples if "sample" in session.kind else session
    poses = rows.poses[rows.located]
    if not len(poses):
        raise ValueError(f"path: {path} has no row with a position; with two coils, try the other coil's file.")
    return poses, session.space


def load_positions(
    path: PathLike, image: PathLike | None = None, *, axes: str = "RAS"
) -> tuple[Float[np.ndarray, "n 3"], str | None]:
    """Load positions of the coil from any file that holds them, or its poses.

    Beside what `load_poses` reads, of which the centres are taken: `.npy` (n, 3), `.json` [[x, y, z], ...] or
    {"positions": ..., "space": ...}, and `.csv` or `.txt` with three numbers a row, or with columns called x, y and z
    among others.

    Parameters
    ----------
    path : path
        The file; mm.
    image : path, optional
        As in `load`.
    axes : str, optional
        Where x, y and z of a table point: three of R or L, A or P, S or I. "RAS" (right, front, up) as in NIfTI and
        MNI; "LPS" as in DICOM; "RSA" where y is up and z front. They are turned into RAS; the file does not say which.

    Returns
    -------
    positions : (n, 3) array
        Float64, mm.
    space : str or None
        The coordinate space, where the file gives one.

    Raises
    ------
    ValueError
        The file holds neither positions nor poses; a row that is not three numbers; axes of a file of poses.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import jaxm2m as jm
    >>> path = Path(tempfile.mkdtemp()) / "sites.csv"
    >>> _ = path.write_text("-40,-20,52")
    >>> positions, space = jm.session.load_positions(path)
    >>> positions.tolist()
    [[-40.0, -20.0, 52.0]]
    """
    order = _parse_axes(axes)
    path = _find_export(path)
    positions, space = read_positions(path), None
    if positions is None and path.suffix.lower() == ".npy":
        values = _check.array(read_npy(path), f"path: {path}")
        positions = values if values.ndim == 2 and values.shape[1] == 3 else None
    elif positions is None and path.suffix.lower() == ".json":
        content = parse_json(_decode(_read(path), path), f"path: {path}")
        space = content.get("space") if isinstance(content, dict) else None
        rows = content.get("positions") if isinstance(content, dict) else content
        if isinstance(rows, list) and rows and all(isinstance(row, list) and len(row) == 3 for row in rows):
            positions = _check.array(rows, f"path: {path}")
    if positions is None:
        if axes != "RAS":
            raise ValueError(f"axes: {axes!r}, but {path} holds poses, whose axes are known; leave it out.")
        poses, space = load_poses(path, image)
        return poses[:, :3, 3], space
    return np.asarray(_check.finite(positions, f"path: {path}"), np.float64) @ order, space


def _parse_axes(axes: str) -> np.ndarray:
    """Return the matrix that takes rows along `axes` to RAS."""
    pairs = ("RL", "AP", "SI")
    rows = [[(letter == pair[0]) - (letter == pair[1]) for pair in pairs] for letter in axes]
    matrix = np.array(rows, float)
    if matrix.shape != (3, 3) or (np.abs(matrix).sum(0) != 1).any():
        raise ValueError(f"axes: {axes!r}; pass three letters, one of R and L, A and P, S and I each, such as 'RAS'.")
    return matrix


def _find_export(path: PathLike) -> Path:
    """The file of an export: itself, or that of a Localite session's folder; formats without a reader are refused."""
    path = Path(path).expanduser()
    if path.is_dir():
        return _find_in_session(path)
    for suffix, (maker, way) in _UNREAD.items():
        if path.name.lower().endswith(suffix):
            raise ValueError(f"path: {path} is a file of {maker}, which is not read; {way}.")
    return _check.file(path)


def _find_in_session(folder: Path) -> Path:
    """The one TriggerMarkers file in a Localite session's folder whose stimuli have positions."""
    files = sorted(folder.rglob("TriggerMarkers_*.xml"))[:_MOST_FILES]
    if not files:
        raise ValueError(
            f"path: {folder} is a folder without a TriggerMarkers_*.xml, which a Localite session has in TMSTrigger/; "
            "name the file."
        )
    counts = {}
    for file in files:
        located = int(load_localite(_read(file), file).located.sum())
        if located:
            counts[file] = located
    if len(counts) != 1:
        listed = "; ".join(f"{file.relative_to(folder)}: {count}" for file, count in counts.items())
        raise ValueError(
            f"path: {folder} holds {len(files)} TriggerMarkers files, {len(counts) or 'none'} with positions"
            f"{f' ({listed})' if listed else ''}; name the one you mean."
        )
    return next(iter(counts))


def _load_session(path: Path, image: PathLike | None) -> Session | None:
    if path.suffix.lower() == ".mat":
        return load_simnibs(path)
    return _from_bytes(_read(path), path, image)


def _read(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"path: {path} has {path.stat().st_size / 2**20:.0f} MB; this is no table of poses.")
    return path.read_bytes()


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"path: {path} is not UTF-8 text (byte {error.start}); export or save it as UTF-8.") from None


def _from_bytes(data: bytes, path: Path, image: PathLike | None) -> Session | None:
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") or path.suffix.lower() == ".xml":
        return load_localite(data, path)
    text = _decode(data, path)
    return load_brainsight(text, path, image) if is_brainsight(text) else None


def _load_json(data: bytes, path: Path) -> tuple[Any, str | None]:
    content = parse_json(_decode(data, path), f"path: {path}")
    if not isinstance(content, dict):
        return content, None
    if "poses" not in content:
        raise ValueError(f'path: {path} has no key \'poses\'; write {{"poses": [[[...]]], "space": ...}}.')
    space = content.get("space")
    if space is not None and not isinstance(space, str):
        raise ValueError(f"path: {path}: 'space' is {repr(space)[:40]}; it must be text.")
    return content["poses"], space


def _parse_numbers(text: str, path: Path) -> list[Any]:
    if named := re.match(r'\s*"?name"?\s*([,;\t])', text, re.IGNORECASE):
        return _parse_named(text, named[1], path)
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        cells = [cell for cell in re.split(r"\s*[,;\t]\s*|\s+", line) if cell]
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError:
            if rows:
                raise ValueError(f"path: {path}, line {number}: not all of it is numbers; correct it.") from None
            continue  # the row of names
        if len(cells) not in (4, 16) or len(cells) != len(rows[0]):
            raise ValueError(
                f"path: {path}, line {number}: {len(cells)} numbers; a pose is 16 numbers in one row (row-major), or a "
                "single 4x4 matrix."
            )
    if not rows:
        raise ValueError(f"path: {path} has no row of numbers; a pose is 16 numbers in one row (row-major).")
    if len(rows[0]) == 4:
        if len(rows) != 4:
            raise ValueError(
                f"path: {path} has {len(rows)} rows of four numbers; one pose is 4x4, several are rows of 16."
            )
        return rows
    return [[row[0:4], row[4:8], row[8:12], row[12:16]] for row in rows]


def _parse_named(text: str, delimiter: str, path: Path) -> list[Any]:
    """Rows of a name, which may hold anything (quoted as in any CSV), and 16 numbers."""
    rows: list[list[float]] = []
    reader = csv.reader(text.strip().splitlines(), delimiter=delimiter)
    try:
        next(reader)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != 17:
                raise ValueError(
                    f"path: {path}, row {reader.line_num}: {len(cells)} cells; a row is a name and 16 numbers "
                    "(row-major)."
                )
            try:
                rows.append([float(cell) for cell in cells[1:]])
            except ValueError:
                raise ValueError(
                    f"path: {path}, row {reader.line_num}: not all cells after the name are numbers; correct it."
                ) from None
    except csv.Error as error:
        raise ValueError(f"path: {path}, row {reader.line_num}: not a row of CSV ({error}); correct it.") from None
    if not rows:
        raise ValueError(f"path: {path} has no row under its column names; a row is a name and 16 numbers.")
    return [[row[0:4], row[4:8], row[8:12], row[12:16]] for row in rows]


def _check_poses(values: Any, path: Path) -> np.ndarray:
    values = _check.array(values, f"path: {path}")
    if values.ndim not in (2, 3) or values.shape[-2:] != (4, 4) or not values.size:
        raise ValueError(f"path: {path} holds an array of shape {values.shape}; poses are (n, 4, 4) or (4, 4).")
    values = np.asarray(values, dtype=np.float64).reshape(-1, 4, 4)
    for i in np.flatnonzero(np.isnan(values).any(axis=(1, 2))):
        raise ValueError(f"path: {path}, pose {i + 1}: holds NaN; leave poses without a position out.")
    return make_rigid(values, lambda i: f"path: {path}, pose {i + 1}")
