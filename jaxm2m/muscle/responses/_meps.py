"""Motor evoked potentials: amplitudes, latencies and what speaks against them."""

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
    """

    amplitude: Float[np.ndarray, "n_stimulus n_muscle"]
    latency: Float[np.ndarray, "n_stimulus n_muscle"]
    reasons: Shaped[np.ndarray, "n_stimulus n_muscle"]
    muscles: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.muscles) != self.amplitude.shape[1] or len(set(self.muscles)) != len(self.muscles):
            raise ValueError(
                f"muscles: {', '.join(self.muscles)} for {self.amplitude.shape[1]} columns; give each its own name."
            )

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
        amplitude, latency, reasons = (v[rows][:, columns] for v in (self.amplitude, self.latency, self.reasons))
        return Meps(amplitude, latency, reasons, tuple(self.muscles[c] for c in columns))

    def table(self) -> pd.DataFrame:
        """Tabulate the MEPs.

        Returns
        -------
        pandas.DataFrame
            A row for each stimulus; for each muscle mep_FDI_uv (uV), latency_FDI_s (s), reason_FDI.
        """
        columns = {}
        for k, muscle in enumerate(self.muscles):
            columns[f"mep_{muscle}_uv"] = self.amplitude[:, k]
            columns[f"latency_{muscle}_s"] = self.latency[:, k]
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
            file["amplitude"], file["latency"] = self.amplitude, self.latency
            file.create_dataset("reasons", data=self.reasons.astype(object), dtype=h5py.string_dtype())
            file["muscles"] = list(self.muscles)
            file.attrs.update(content="meps", unit="uV, s")
        return path

    @classmethod
    def load(cls, path: PathLike) -> "Meps":
        """Read what `save` wrote, or any CSV with columns mep_FDI_uv, ... (`Session.table`): others are passed over.

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
            arrays = file.arrays(
                {"amplitude": f"float {shape}", "latency": f"float {shape}", "reasons": f"text {shape}"}
                | {"muscles": "text muscle"}
            )
        return _make_meps(
            path, arrays["amplitude"], arrays["latency"], arrays["reasons"].astype(str), arrays["muscles"]
        )


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
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OverflowError) as error:  # pandas' parser errors are ValueErrors
        line = str(error).splitlines()[0]
        raise ValueError(f"path: {path} is not a table with commas between ({line}); save it as CSV.") from None
    names = [c.removeprefix("mep_").removesuffix("_uv") for c in table if c.startswith("mep_") and c.endswith("_uv")]
    if not names:
        raise ValueError(f"path: {path} has no column of MEPs; name them mep_FDI_uv, mep_APB_uv, ...")

    def numbers(column: str) -> np.ndarray:
        if column not in table:
            return np.full(len(table), np.nan)
        try:
            return np.array([float(cell) if cell.strip() else np.nan for cell in table[column]])
        except ValueError as error:
            raise ValueError(f"path: {path}, column {column}: {error}; correct it.") from None

    amplitude = np.stack([numbers(f"mep_{n}_uv") for n in names], -1)
    latency = np.stack([numbers(f"latency_{n}_s") for n in names], -1)
    reasons = np.stack([np.array(table.get(f"reason_{n}", [""] * len(table)), str) for n in names], -1)
    reasons = np.where((reasons == "") & np.isnan(amplitude), "not recorded", reasons)
    return _make_meps(path, amplitude, latency, reasons, names)


def _make_meps(path: Path, amplitude: Any, latency: Any, reasons: Any, names: Any) -> Meps:
    if (amplitude < 0).any():
        row = int(np.argwhere(amplitude < 0)[0, 0])
        raise ValueError(f"path: {path}, row {row + 2}: a negative MEP; peak-to-peak amplitudes are zero or above.")
    try:
        return Meps(amplitude, latency, reasons, tuple(map(str, names)))
    except ValueError as error:
        raise ValueError(f"path: {path}, {error}") from None
