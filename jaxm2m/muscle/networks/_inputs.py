"""What the networks see of fields: magnitudes, components or firing rates, cropped and averaged in blocks."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check, files
from jaxm2m._norm import norm
from jaxm2m._progress import progress_bar
from jaxm2m._pytree import tree

INPUTS = ("field", "rate")
_BYTES = 64 << 20  # of fields that are read at once


@tree
class Reduction:
    """The middle of a grid, averaged over blocks of voxels.

    Rates are computed before they are averaged: they are not linear in the field.

    Attributes
    ----------
    grid
        Voxels of the whole grid.
    shape
        Voxels of what comes out.
    block
        Voxels of a block along each axis.
    """

    grid: tuple[int, int, int]
    shape: tuple[int, int, int]
    block: int

    @classmethod
    def of(cls, grid: Any, shape: tuple[int, int, int], spacing: float | int | None) -> "Reduction":
        """Reduce an `efield.Grid` to `shape` voxels of about `spacing` mm; None: voxels as they are.

        Raises
        ------
        ValueError
            The grid is too small or too coarse.
        """
        point_spacing = float(np.linalg.norm(np.asarray(grid.affine, np.float64)[:3, 0]))
        whole: Any = tuple(grid.shape)
        block = 1 if spacing is None else round(spacing / point_spacing)
        if block < 1 or (spacing is not None and abs(block * point_spacing / spacing - 1) > 0.1):
            raise ValueError(
                f"grid: points {point_spacing:g} mm apart, the networks need blocks of {spacing:g} mm; take a grid of "
                f"{spacing:g} mm or a whole fraction of it."
            )
        if any(n < block * m for n, m in zip(grid.shape, shape, strict=True)):
            raise ValueError(
                f"grid: {_by(grid.shape)} points of {point_spacing:g} mm, the networks need {_by(shape)} of "
                f"{block * point_spacing:g} mm; take a grid of at least {_by(tuple(block * m for m in shape))}, or "
                "another preset."
            )
        return cls(whole, shape, block)

    def __call__(self, volume: Float[Array, "*b x y z c"]) -> Float[Array, "*b u v w c"]:
        """(..., grid, channels) to (..., shape, channels)."""
        lead = volume.shape[:-4]
        for axis, (whole, part) in enumerate(zip(self.grid, self.shape, strict=True)):
            start = (whole - part * self.block) // 2
            volume = jax.lax.slice_in_dim(volume, start, start + part * self.block, axis=len(lead) + axis)
        nx, ny, nz = self.shape
        k = self.block
        return volume.reshape(*lead, nx, k, ny, k, nz, k, volume.shape[-1]).mean((-6, -4, -2))

    def centres(self, affine: Any) -> Float[np.ndarray, "4 4"]:
        """Compute the affine of the reduced grid (index -> mm) from the grid's."""
        start = [(w - p * self.block) // 2 for w, p in zip(self.grid, self.shape, strict=True)]
        change = np.diag([*(float(self.block),) * 3, 1.0])
        change[:3, 3] = np.array(start) + (self.block - 1) / 2
        return np.asarray(affine, np.float64) @ change


def compute_inputs(
    e: Float[Array, "*b x y z 3"], kind: str, components: int, rate: Any, reduce: Reduction, mask: Any, didt: Any
) -> Float[Array, "*b u v w c"]:
    """Compute one kind of input of fields on the grid; differentiable."""
    if kind == "rate":
        values = rate(e, didt=didt)[..., None]
    else:
        values = e if components == 3 else norm(e)[..., None]
    return reduce(values if mask is None else values * mask[..., None])


def read_inputs(
    fields: Any,
    grid: Any,
    kinds: tuple[str, ...],
    *,
    rate: Any,
    reduce: Reduction,
    components: int = 1,
    mask: Any = None,
    didt: Any = None,
    progress: bool | None = None,
) -> dict[str, Float[np.ndarray, "n_stimulus u v w c"]]:
    """Compute the inputs of all stimuli; of fields in a file, a few are in memory at a time.

    Parameters
    ----------
    fields
        (n_stimulus, n_point, 3) or (n_stimulus, nx, ny, nz, 3) V/m, or the path of an HDF5 file that holds them as `e`
        (`efield.compute_fields`).
    grid
        `efield.Grid` of the points.
    kinds
        Of "field" and "rate".
    rate, didt
        `cortex.FiringRate` for "rate", and the dI/dt (one, or one for each stimulus, A/s) that its unit may need.
    reduce
        The part of the grid that is kept.
    components
        1: magnitude; 3: all of "field".
    mask
        (nx, ny, nz) bool: where cortex is; None: everywhere.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Raises
    ------
    ValueError
        Fields that do not fit the grid, are not finite, or are zero everywhere.
    """
    mask = None if mask is None else check_mask(mask, grid)
    if isinstance(fields, (str, os.PathLike)):
        with files.open_hdf5(_check.file(fields, "fields", suffixes=(".h5", ".hdf5")), name="fields") as file:
            return _read(
                _dataset(file, Path(fields).expanduser(), grid),
                grid,
                kinds,
                rate,
                reduce,
                components,
                mask,
                didt,
                progress,
            )
    return _read(_check.array(fields, "fields"), grid, kinds, rate, reduce, components, mask, didt, progress)


def check_mask(mask: Any, grid: Any) -> Array:
    """Convert a mask (nx, ny, nz) to numbers."""
    values = np.asarray(mask)
    if values.shape != tuple(grid.shape) or values.dtype != bool or not values.any():
        raise ValueError(
            f"mask: {values.dtype} of shape {values.shape}; pass bool of the grid's shape {tuple(grid.shape)}, some "
            "of it True."
        )
    return jnp.asarray(values, jnp.result_type(float))


def count_stimuli(fields: Any) -> int:
    """Count the stimuli of fields in memory or in a file."""
    if isinstance(fields, (str, os.PathLike)):
        with files.open_hdf5(_check.file(fields, "fields", suffixes=(".h5", ".hdf5")), name="fields") as file:
            return len(file["e"]) if "e" in file else 0
    return len(fields)


def _read(
    fields: Any,
    grid: Any,
    kinds: tuple[str, ...],
    rate: Any,
    reduce: Reduction,
    components: int,
    mask: Any,
    didt: Any,
    progress: bool | None,
) -> dict[str, np.ndarray]:
    shape, points = tuple(grid.shape), int(np.prod(grid.shape))
    if fields.ndim not in (3, 5) or fields.shape[1:] not in ((points, 3), (*shape, 3)):
        raise ValueError(
            f"fields: shape {tuple(fields.shape)}; for this grid pass (n_stimulus, {points}, 3), or "
            f"(n_stimulus, {', '.join(map(str, shape))}, 3)."
        )
    total = len(fields)
    rates = None if didt is None else np.broadcast_to(np.asarray(_check.positive(didt, "didt"), float), total)
    size = int(np.clip(_BYTES // (12 * points), 1, total))
    inputs = {
        kind: np.empty((total, *reduce.shape, 1 if kind == "rate" else components), jnp.result_type(float))
        for kind in kinds
    }
    bad: list[int] = []
    with progress_bar(total, "reading fields", unit="stimuli", enabled=progress) as advance:
        for start in range(0, total, size):
            rows = np.minimum(np.arange(start, start + size), total - 1)  # one shape, one program
            few = np.asarray(fields[start : start + size], jnp.result_type(float))
            few = few[rows - start].reshape(size, *shape, 3)
            batch_didt = None if rates is None else jnp.asarray(rates[rows])
            made, sound = _compute_inputs(jnp.asarray(few), rate, mask, batch_didt, reduce, kinds, components)
            stop = min(start + size, total)
            for kind in kinds:
                inputs[kind][start:stop] = made[kind][: stop - start]
            bad += [start + int(i) for i in np.flatnonzero(~np.asarray(sound)[: stop - start])]
            advance(stop - start)
    if bad:
        raise ValueError(
            f"fields: {len(bad)} of {total} are not finite or zero everywhere ([{'], ['.join(map(str, bad[:20]))}]); "
            "leave these stimuli out of fields and meps."
        )
    return inputs


@partial(jax.jit, static_argnames=("kinds", "components"))
def _compute_inputs(e, rate, mask, didt, reduce, kinds, components):
    made = {kind: compute_inputs(e, kind, components, rate, reduce, mask, didt) for kind in kinds}
    flat = e.reshape(len(e), -1)
    return made, jnp.isfinite(flat).all(1) & (flat != 0).any(1)


def _dataset(file: h5py.File, path: Path, grid: Any) -> Any:
    if "e" not in file or not isinstance(file["e"], h5py.Dataset):
        raise ValueError(f"fields: {path} holds no data set `e`; write it by efield.compute_fields, or pass an array.")
    if "affine" in file and not np.allclose(file["affine"][()], np.asarray(grid.affine), atol=1e-3):
        raise ValueError(f"fields: {path} was computed on another grid; pass the grid that it was computed on.")
    return file["e"]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
