"""Motor evoked potentials: amplitudes, latencies and what speaks against them."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from jaxm2m import _check, files
from jaxm2m._types import ArrayLike, PathLike

_FIELDS = ("amplitude", "latency", "duration", "area")


@dataclass(frozen=True, eq=False, repr=False)
class Meps:
    """MEPs, a row for each stimulus. Nothing is dropped: what should not be used says why.

    Attributes
    ----------
    amplitude : (n_stimulus, n_muscle) float array
        Peak-to-peak, uV; NaN where there is none.
    latency : (n_stimulus, n_muscle) float array
        Onset after the pulse, s; NaN where there is none.
    reasons : (n_stimulus, n_muscle) array of str
        Why an MEP should not be used ("background: 31.2 uV RMS"), several with "; " between; "" where it may.
    muscles : tuple of str
        Names of the muscles.
    duration : (n_stimulus, n_muscle) float array
        From the onset to the last time above the background, s; NaN where there is none, or it was not measured.
    area : (n_stimulus, n_muscle) float array
        Of the rectified MEP in the window, uV s; NaN where it was not measured.
    """

    amplitude: Float[np.ndarray, "n_stimulus n_muscle"]
    latency: Float[np.ndarray, "n_stimulus n_muscle"]
    reasons: Shaped[np.ndarray, "n_stimulus n_muscle"]
    muscles: tuple[str, ...]
    duration: Float[np.ndarray, "n_stimulus n_muscle"] | None = None
    area: Float[np.ndarray, "n_stimulus n_muscle"] | None = None

    def __post_init__(self) -> None:
        if len(self.muscles) != self.amplitude.shape[1] or len(set(self.muscles)) != len(self.muscles):
            raise ValueError(
                f"muscles: {', '.join(self.muscles)} for {self.amplitude.shape[1]} columns; give each its own name."
            )
        for name in ("duration", "area"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(self.amplitude.shape, np.nan))

    def __len__(self) -> int:
        return len(self.amplitude)

    def __repr__(self) -> str:
        return f"Meps({len(self)} stimuli, {len(self.muscles)} muscles, {int(self.kept.sum())} stimuli kept)"

    @property
    def kept(self) -> Bool[np.ndarray, " n_stimulus"]:
        """Mask of the stimuli of which no muscle is flagged, (n_stimulus,) bool, no unit."""
        return (self.reasons == "").all(1)

    def count_flags(self) -> dict[str, int]:
        """Count the flagged MEPs by kind of reason.

        Returns
        -------
        dict
            Number of MEPs by reason.
        """
        return dict(Counter(part.split(":")[0] for r in self.reasons.flat if r for part in r.split("; ")))

    def pick(self, where: slice | ArrayLike | None = None, *, muscles: Sequence[str] | None = None) -> "Meps":
        """Keep some of the stimuli and muscles.

        Parameters
        ----------
        where
            Mask, slice or indices of the stimuli; None: all.
        muscles
            Names of the muscles, in the order wanted; None: all.

        Returns
        -------
        Meps
            The MEPs of those stimuli and muscles.
        """
        rows = slice(None) if where is None else where if isinstance(where, slice) else np.asarray(where)
        columns = [_column(self.muscles, m) for m in (self.muscles if muscles is None else muscles)]
        fields = (self.amplitude, self.latency, self.reasons, self.duration, self.area)
        amplitude, latency, reasons, duration, area = (np.asarray(v)[rows][:, columns] for v in fields)
        return Meps(amplitude, latency, reasons, tuple(self.muscles[c] for c in columns), duration, area)

    def table(self) -> pd.DataFrame:
        """Tabulate the MEPs.

        Returns
        -------
        pandas.DataFrame
            A row for each stimulus; for each muscle mep_FDI_uv (uV), latency_FDI_s (s), duration_FDI_s (s),
            area_FDI_uvs (uV s; these two where they were measured), reason_FDI.
        """
        columns = {}
        duration, area = np.asarray(self.duration), np.asarray(self.area)
        measured = np.isfinite(area).any()
        for k, muscle in enumerate(self.muscles):
            columns[f"mep_{muscle}_uv"] = self.amplitude[:, k]
            columns[f"latency_{muscle}_s"] = self.latency[:, k]
            if measured:
                columns[f"duration_{muscle}_s"], columns[f"area_{muscle}_uvs"] = duration[:, k], area[:, k]
            columns[f"reason_{muscle}"] = self.reasons[:, k]
        return pd.DataFrame(columns)

    def save(self, path: PathLike) -> Path:
        """Write the table to `.csv`, or the arrays to `.h5`; the file appears whole or not at all.

        Parameters
        ----------
        path
            The file to be written.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() == ".csv":
            with files.atomic(path) as temporary:
                self.table().to_csv(temporary, index=False)
            return path
        path = files.check_output(path)
        with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
            for name in _FIELDS:
                file[name] = getattr(self, name)
            file.create_dataset("reasons", data=self.reasons.astype(object), dtype=h5py.string_dtype())
            file["muscles"] = list(self.muscles)
            file.attrs.update(content="meps", unit="uV, s")
        return path

    @classmethod
    def load(cls, path: PathLike) -> "Meps":
        """Read what `save` wrote, or any CSV with columns mep_FDI_uv, ... (`Session.table`): others are passed over.

        Commas, or semicolons or tabs with a decimal comma or point, stand between the cells.

        Parameters
        ----------
        path
            The `.csv` or `.h5` file.

        Returns
        -------
        Meps
            The MEPs of the file.

        Raises
        ------
        ValueError
            The file holds no MEPs, or negative ones.
        """
        path = _check.file(path, suffixes=(".csv", ".h5", ".hdf5"))
        if path.suffix.lower() == ".csv":
            return _from_csv(path)
        with files.open_hdf5(path) as file:
            if file.text("content") != "meps":
                raise ValueError(f"path: {path} holds no MEPs; it was not written by Meps.save.")
            shape = "stimulus muscle"
            names = [name for name in _FIELDS if name in file or name in _FIELDS[:2]]  # older files have two
            arrays = file.arrays(
                dict.fromkeys(names, f"float {shape}") | {"reasons": f"text {shape}", "muscles": "text muscle"}
            )
        amplitude, latency, duration, area = (arrays.get(name) for name in _FIELDS)
        reasons = arrays["reasons"].astype(str)
        return _make_meps(path, amplitude, latency, reasons, arrays["muscles"], duration, area)


def amplitudes(meps: Meps | ArrayLike, name: str = "meps") -> Float[np.ndarray, "n_stimulus n_muscle"]:
    """Return `Meps` of which nothing is flagged, or an array, as finite values that are not negative."""
    if isinstance(meps, Meps):
        if not meps.kept.all():
            raise ValueError(
                f"{name}: {int((~meps.kept).sum())} of {len(meps)} stimuli are flagged "
                f"({', '.join(meps.count_flags())}); pass {name}.pick({name}.kept), or {name}.amplitude to use all."
            )
        meps = meps.amplitude
    values = np.asarray(_check.positive(meps, name, zero=True), np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name}: shape {values.shape}; pass (n_stimulus, n_muscle).")
    return values


def _column(muscles: tuple[str, ...], name: str) -> int:
    if name not in muscles:
        raise ValueError(f"muscles: no {name}; choose from {', '.join(muscles)}.")
    return muscles.index(name)


def _from_csv(path: Path) -> Meps:
    table, separator = _read_table(path)
    names = [c.removeprefix("mep_").removesuffix("_uv") for c in table if c.startswith("mep_") and c.endswith("_uv")]
    if not names:
        raise ValueError(f"path: {path} has no column of MEPs; name them mep_FDI_uv, mep_APB_uv, ...")

    def numbers(column: str) -> np.ndarray:
        cells = table.get(column, [""] * len(table[f"mep_{names[0]}_uv"]))
        if separator != "," and any("," in cell for cell in cells):
            if any("." in cell for cell in cells):
                raise ValueError(f"path: {path}, column {column}: points and commas; keep one as the decimal mark.")
            cells = [cell.replace(",", ".") for cell in cells]
        try:
            return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
        except ValueError as error:
            raise ValueError(f"path: {path}, column {column}: {error}; correct it.") from None

    amplitude = np.stack([numbers(f"mep_{n}_uv") for n in names], -1)
    latency = np.stack([numbers(f"latency_{n}_s") for n in names], -1)
    duration = np.stack([numbers(f"duration_{n}_s") for n in names], -1)
    area = np.stack([numbers(f"area_{n}_uvs") for n in names], -1)
    reasons = np.stack([np.array(table.get(f"reason_{n}", [""] * len(amplitude)), str) for n in names], -1)
    reasons = np.where((reasons == "") & np.isnan(amplitude), "not recorded", reasons)
    return _make_meps(path, amplitude, latency, reasons, names, duration, area)


def _read_table(path: Path) -> tuple[dict[str, list[str]], str]:
    """Return the cells of each column, and what stands between them; rows are as long as the header."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"path: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    header = text.lstrip().partition("\n")[0]
    separator = "," if "," in header else next((mark for mark in ";\t" if mark in header), ",")
    reader = csv.reader(text.splitlines(), delimiter=separator)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row) or len(row) == 1]
    except csv.Error as error:
        raise ValueError(f"path: {path}, row {reader.line_num}: not a row of CSV ({error}); correct it.") from None
    if not rows:
        raise ValueError(f"path: {path} is empty; it must have columns mep_FDI_uv, mep_APB_uv, ...")
    names = [cell.strip() for cell in rows[0][1]]
    columns: dict[str, list[str]] = {name: [] for name in names}
    if len(columns) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"path: {path} has two columns called {twice!r}; give each its own name.")
    for number, row in rows[1:]:
        if len(row) < len(names) or any(cell.strip() for cell in row[len(names) :]):
            raise ValueError(
                f"path: {path}, row {number}: {len(row)} cells under {len(names)} names; correct it (decimal commas: "
                "save with decimal points, or with semicolons between cells)."
            )
        for name, cell in zip(names, row, strict=False):
            columns[name].append(cell)
    return columns, separator


def _make_meps(
    path: Path, amplitude: Any, latency: Any, reasons: Any, names: Any, duration: Any = None, area: Any = None
) -> Meps:
    if (amplitude < 0).any():
        row = int(np.argwhere(amplitude < 0)[0, 0])
        raise ValueError(f"path: {path}, row {row + 2}: a negative MEP; peak-to-peak amplitudes are zero or above.")
    try:
        return Meps(amplitude, latency, reasons, tuple(map(str, names)), duration, area)
    except ValueError as error:
        raise ValueError(f"path: {path}, {error}") from None
