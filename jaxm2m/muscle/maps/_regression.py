r"""Where in the brain a muscle's MEPs follow the field: a sigmoid of MEP on |E| in each voxel.

    y = y0 + (amp - y0) / (1 + exp(-r (x - x0))) ,    x = |E| in the voxel, over the stimuli.

If a muscle is driven from one place, MEPs of all coil poses are one function of the field there, and R^2 is largest
there (K. Weise et al., NeuroImage 209, 116486 (2020); O. Numssen et al., NeuroImage 245, 118654 (2021)).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Key
from scipy import stats

from jaxm2m import _check, files
from jaxm2m._progress import progress_bar
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.efield import Grid, Points
from jaxm2m.muscle._random import numpy_generator
from jaxm2m.muscle._volumes import save_volumes
from jaxm2m.muscle.maps._maps import name_muscles
from jaxm2m.muscle.maps._sigmoid import fit
from jaxm2m.muscle.responses._meps import Meps

QUANTITIES = {"r2": "", "spearman": "", "y0": "uV", "amp": "uV", "r": "m/V", "x0": "V/m"}
_BYTES = 1 << 28  # bytes of magnitudes that are in memory at once
_BATCH_SIZE = 4096  # voxels of one call


@dataclass(frozen=True, eq=False, repr=False)
class RegressionMap:
    """A sigmoid for each muscle and voxel; NaN where the field does not vary, or the muscle.

    Attributes
    ----------
    r2 : (n_muscle, n_voxel) float array
        Share of the variance of the MEPs that the field in the voxel explains; 0 where MEPs do not rise with it.
    y0, amp : (n_muscle, n_voxel) float arrays
        Floor and plateau, uV.
    r, x0 : (n_muscle, n_voxel) float arrays
        Steepness, m/V, not negative; midpoint, V/m, NaN where MEPs do not rise.
    spearman : (n_muscle, n_voxel) float array
        Rank correlation of MEP and field, negative where MEPs fall.
    bounded : (n_muscle, n_voxel) bool array
        The data cover a foot, a straight line or a step, and do not determine all four parameters; R^2 holds.
    muscles : tuple of str
        Names of the muscles.
    grid : Grid, Points or None
        Where the voxels are.
    chance : (n_shuffle, n_muscle) float array
        The largest R^2 of all voxels, of MEPs shuffled between stimuli.
    """

    r2: Float[np.ndarray, "n_muscle n_voxel"]
    y0: Float[np.ndarray, "n_muscle n_voxel"]
    amp: Float[np.ndarray, "n_muscle n_voxel"]
    r: Float[np.ndarray, "n_muscle n_voxel"]
    x0: Float[np.ndarray, "n_muscle n_voxel"]
    spearman: Float[np.ndarray, "n_muscle n_voxel"]
    bounded: Bool[np.ndarray, "n_muscle n_voxel"]
    muscles: tuple[str, ...]
    grid: Grid | Points | None
    chance: Float[np.ndarray, "n_shuffle n_muscle"]

    def __repr__(self) -> str:
        count = int(np.isfinite(self.r2).any(0).sum())
        best = np.nanmax(np.nan_to_num(self.r2), initial=0)
        return f"RegressionMap({len(self.muscles)} muscles, {count} of {self.r2.shape[1]} voxels, R^2 to {best:.2f})"

    @property
    def best(self) -> np.ndarray:
        """Index of the voxel of largest R^2, (n_muscle,); -1 for a muscle without one."""
        r2 = np.where(np.isfinite(self.r2), self.r2, -1)
        return np.where(r2.max(1) > 0, r2.argmax(1), -1)

    def table(self, share: float | int = 0.9) -> pd.DataFrame:
        """Tabulate where each muscle's representation lies.

        R^2 tells neighbours apart only by how differently the coil's poses reach them: `volume` says how well.

        Parameters
        ----------
        share
            Share of the best R^2, 0 to 1, that a voxel needs to belong to the representation.

        Returns
        -------
        pandas.DataFrame
            A row for each muscle: `voxel` (index of the best one) and `r2`, `spearman`, `y0`, `amp`, `r`, `x0`,
            `bounded` there; with a grid its place `x`, `y`, `z`, and `centre_x`, `centre_y`, `centre_z`, the mean of
            the voxels whose R^2 is at least `share` of the best, weighted by R^2 (mm); `voxels`, their number, and on a
            `Grid` `volume` (mm^3); with shuffles `chance` (95th percentile) and `p`, corrected for the number of
            voxels.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share: {share:g}; it must lie above zero, at most 1.")
        best, rows = self.best, np.arange(len(self.muscles))
        there = best >= 0
        columns: dict[str, Any] = {"voxel": best}
        for name in (*QUANTITIES, "bounded"):
            value = getattr(self, name)[rows, best]
            columns[name] = value & there if name == "bounded" else np.where(there, value, np.nan)
        weight = np.where(self.r2 >= share * np.nan_to_num(columns["r2"], nan=np.inf)[:, None], self.r2, 0)
        if self.grid is not None:
            xyz = np.asarray(self.grid.positions(), np.float64)
            centre = weight @ xyz / np.where(there, weight.sum(1), np.nan)[:, None]
            columns |= {axis: np.where(there, xyz[best, i], np.nan) for i, axis in enumerate("xyz")}
            columns |= {f"centre_{axis}": centre[:, i] for i, axis in enumerate("xyz")}
        columns["voxels"] = (weight > 0).sum(1)
        if isinstance(self.grid, Grid):
            columns["volume"] = columns["voxels"] * abs(np.linalg.det(np.asarray(self.grid.affine, np.float64)[:3, :3]))
        if len(self.chance):
            columns["chance"] = np.quantile(self.chance, 0.95, axis=0)
            exceeded = (self.chance >= columns["r2"]).sum(0)
            columns["p"] = np.where(there, (1 + exceeded) / (1 + len(self.chance)), np.nan)
        return pd.DataFrame(columns, index=pd.Index(self.muscles, name="muscle"))

    def volume(self, quantity: str = "r2") -> Float[np.ndarray, "n_muscle nx ny nz"]:
        """Return a quantity on the `Grid`.

        Parameters
        ----------
        quantity
            "r2", "spearman", "y0", "amp", "r" or "x0".

        Returns
        -------
        array
            (n_muscle, nx, ny, nz): r2 and spearman have no unit, y0 and amp are in uV, r in m/V, x0 in V/m.

        Raises
        ------
        ValueError
            The voxels are not on a `Grid`.
        """
        values = getattr(self, _check.option(quantity, QUANTITIES, "quantity"))
        if not isinstance(self.grid, Grid):
            raise ValueError(f"grid: {type(self.grid).__name__}; volumes need regression_map(..., grid=efield.Grid).")
        return values.reshape(len(values), *self.grid.shape)

    def save(self, path: PathLike, quantity: str = "r2") -> Path:
        """Write a quantity to `.nii` or `.nii.gz`: (nx, ny, nz, n_muscle), 0 where there is none.

        The muscles' names are in a comment of the header: {"quantity": "r2", "unit": "", "muscles": ["FDI", ...]}. The
        file appears whole or not at all.

        Parameters
        ----------
        path
            The file to be written.
        quantity
            "r2", "spearman", "y0", "amp", "r" or "x0".

        Returns
        -------
        pathlib.Path
            The file.
        """
        volume = self.volume(quantity)
        assert isinstance(self.grid, Grid)
        affine = np.asarray(self.grid.affine, np.float64)
        return save_volumes(path, volume, affine, self.muscles, quantity, QUANTITIES[quantity])


def regression_map(
    fields: PathLike | ArrayLike,
    meps: Meps | ArrayLike,
    *,
    grid: Grid | Points | None = None,
    muscles: Sequence[str] | None = None,
    stimuli: ArrayLike | None = None,
    shuffles: int = 0,
    key: Key[Array, ""] | None = None,
    progress: bool | None = None,
) -> RegressionMap:
    """Fit a sigmoid of MEP on the field's magnitude for each muscle and voxel, all at once.

        y = y0 + (amp - y0) / (1 + exp(-r (x - x0))) ,    r >= 0, amp >= y0.

    Least squares from several starts by a fixed number of damped Gauss-Newton steps. Voxels whose field is constant
    over the stimuli (outside the brain: zero) are left out. x0 ends a little above the fields that occurred: of a curve
    that is seen up to its foot only, R^2 holds and the parameters do not (`bounded`).

    Parameters
    ----------
    fields
        Fields x, V/m: magnitudes (n_stimulus, n_voxel) or (n_stimulus, nx, ny, nz); vectors, with a last axis of 3; or
        the path of an HDF5 file of `efield.compute_fields`, of which only some voxels are held at a time. At the dI/dt
        of each stimulus: if intensities differ, so must the fields.
    meps
        `Meps`, or (n_stimulus, n_muscle) uV.
    grid
        Where the voxels are; None: as a file says.
    muscles
        Names, for arrays; else which to take.
    stimuli
        (n_stimulus,) mask, or indices, of the fields that the MEPs belong to, such as `meps.kept` of the MEPs before
        they were picked.
    shuffles
        Number of times that MEPs shuffled between stimuli, all muscles alike, are fitted: the largest R^2 over the
        voxels is what chance reaches. Each takes as long as the map itself.
    key
        Draws the shuffles; None: `jax.random.key(0)`.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    RegressionMap
        The fitted curves of all muscles and voxels.

    Raises
    ------
    ValueError
        Numbers of stimuli or voxels that differ, fewer than five stimuli, NaN, fields that are constant everywhere, a
        file that is not of `efield.compute_fields`.
    """
    values, names = name_muscles(meps, muscles)
    if _check.integer(shuffles, "shuffles", minimum=0) and len(values) < 7:
        raise ValueError(f"shuffles: {len(values)} stimuli have too few orders; leave it at 0.")
    with _open_fields(fields, grid) as (rows, where):
        chosen = _choose_rows(stimuli, len(rows), len(values))
        varies = _find_varying(rows, chosen)
        n_voxel, n_muscle = len(varies), len(names)
        if where is not None and len(where.positions()) != n_voxel:
            raise ValueError(f"grid: {len(where.positions())} points, but fields has {n_voxel} voxels; pass theirs.")
        active = np.flatnonzero(varies)
        if not len(active):
            raise ValueError("fields: the same for all stimuli in every voxel; there is nothing to regress on.")
        dtype = jnp.result_type(float)
        rng = numpy_generator(key)
        shuffled = [values[rng.permutation(len(values))] for _ in range(shuffles)]
        maps = {name: np.full((n_muscle, n_voxel), np.nan, dtype) for name in QUANTITIES}
        bounded, chance = np.zeros((n_muscle, n_voxel), bool), np.zeros((shuffles, n_muscle))
        silent = np.ptp(values, 0) == 0
        with progress_bar(len(active) * (1 + shuffles), "Regression", unit="voxels", enabled=progress) as advance:
            for block, x in _blocks(rows, chosen, active):
                fits = fit(_pad_voxels(x, dtype), jnp.asarray(values, dtype))
                for name in ("y0", "amp", "r", "x0", "r2"):
                    maps[name][:, block] = _part(getattr(fits, name), block)
                bounded[:, block] = _part(fits.bounded, block)
                maps["spearman"][:, block] = _spearman(x, values)
                advance(len(block))
                for i, mixed in enumerate(shuffled):
                    r2 = _part(fit(_pad_voxels(x, dtype), jnp.asarray(mixed, dtype)).r2, block)
                    chance[i] = np.fmax(chance[i], np.fmax.reduce(r2, axis=1))
                    advance(len(block))
    for value in maps.values():
        value[silent] = np.nan
    return RegressionMap(**maps, bounded=bounded & ~silent[:, None], muscles=names, grid=where, chance=chance)


class _Rows:
    """Magnitudes of one stimulus after the other."""

    def __init__(self, source: Any, vectors: bool):
        self.source, self.vectors = source, vectors

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> np.ndarray:
        row = np.asarray(self.source[index])
        if not self.vectors:
            return row.ravel()
        x, y, z = row.reshape(-1, 3).T
        return np.sqrt(x * x + y * y + z * z)


@contextmanager
def _open_fields(
    fields: PathLike | ArrayLike, grid: Grid | Points | None
) -> Iterator[tuple[_Rows, Grid | Points | None]]:
    if isinstance(fields, (str, os.PathLike)):
        with files.open_hdf5(fields, name="fields") as file:
            e = file.get("e")
            place = {3: "points", 5: "affine"}.get(getattr(e, "ndim", 0))
            if place is None or e.shape[-1] != 3 or place not in file:
                raise ValueError(f"fields: {fields} holds no fields of efield.compute_fields; compute it by that.")
            if grid is None and e.ndim == 3:
                grid = Points(file["points"][()])
            elif grid is None:
                nx, ny, nz = (int(n) for n in e.shape[1:4])
                grid = Grid(file["affine"][()], (nx, ny, nz))
            yield _Rows(e, vectors=True), grid
        return
    fields = np.asarray(_check.array(fields, "fields"))
    if fields.ndim not in (2, 3, 4, 5) or (fields.ndim in (3, 5) and fields.shape[-1] != 3) or not fields.size:
        raise ValueError(
            f"fields: shape {fields.shape}; pass (n_stimulus, n_voxel) or (n_stimulus, nx, ny, nz), or either with a "
            "last axis of 3."
        )
    yield _Rows(fields, vectors=fields.ndim in (3, 5)), grid


def _choose_rows(stimuli: ArrayLike | None, n_field: int, n_mep: int) -> np.ndarray:
    """Return the rows of the fields, one for each row of the MEPs."""
    rows = np.arange(n_field)
    if stimuli is not None:
        selection = np.asarray(stimuli)
        if (
            selection.ndim != 1
            or selection.dtype.kind not in "biu"
            or (selection.dtype.kind == "b" and len(selection) != n_field)
        ):
            raise ValueError(
                f"stimuli: {selection.dtype}{list(selection.shape)} for {n_field} fields; pass a mask or indices."
            )
        if (
            selection.dtype.kind != "b"
            and selection.size
            and not -n_field <= selection.min() <= selection.max() < n_field
        ):
            raise ValueError(f"stimuli: index {selection.max()} for {n_field} fields; they count from 0.")
        rows = rows[selection]
    if len(rows) != n_mep:
        raise ValueError(
            f"fields: {len(rows)} stimuli, meps has {n_mep}; pass one for each, or say by `stimuli` which ones."
        )
    if n_mep < 5:
        raise ValueError(f"meps: {n_mep} stimuli; a curve of four parameters needs at least five.")
    return rows


def _find_varying(rows: _Rows, chosen: np.ndarray) -> Bool[np.ndarray, " n_voxel"]:
    low = high = rows[chosen[0]]
    for i in chosen:
        row = rows[i]
        if not np.isfinite(row).all():
            raise ValueError(f"fields: stimulus {i} holds NaN or infinity; leave it out (`stimuli`).")
        low, high = np.minimum(low, row), np.maximum(high, row)
    return high - low > 1e-6 * np.maximum(np.abs(low), np.abs(high))


def _blocks(rows: _Rows, chosen: np.ndarray, active: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield voxels and their magnitudes (n_stimulus, n_voxel), a block after the other.

    A file is compressed stimulus by stimulus, so that it is read as a whole for all voxels that fit into memory.
    """
    sample = rows[chosen[0]]
    n_voxel = max(_BATCH_SIZE, _BYTES // (len(chosen) * sample.itemsize) // _BATCH_SIZE * _BATCH_SIZE)
    for start in range(0, len(active), n_voxel):
        voxels = active[start : start + n_voxel]
        x = np.empty((len(chosen), len(voxels)), sample.dtype)
        for target, i in zip(x, chosen, strict=True):
            target[:] = rows[i][voxels]
        for first in range(0, len(voxels), _BATCH_SIZE):
            yield voxels[first : first + _BATCH_SIZE], x[:, first : first + _BATCH_SIZE]


def _pad_voxels(x: np.ndarray, dtype: Any) -> jax.Array:
    """Fill up with constant voxels: few shapes are few programs."""
    n = x.shape[1]
    size = min(_BATCH_SIZE, 1 << (n - 1).bit_length())
    return jnp.asarray(np.pad(x, ((0, 0), (0, size - n))), dtype)


def _part(value: jax.Array, block: np.ndarray) -> np.ndarray:
    return np.asarray(value)[: len(block)].T


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute rank correlations, (n_muscle, n_voxel)."""
    # ranks come in the precision of the values (SciPy 1.18)
    a, b = (stats.rankdata(v, axis=0).astype(np.float64) for v in (x, y))
    a, b = a - a.mean(0), b - b.mean(0)
    length = np.sqrt((b * b).sum(0))[:, None] * np.sqrt((a * a).sum(0))
    return b.T @ a / np.where(length > 0, length, np.nan)
