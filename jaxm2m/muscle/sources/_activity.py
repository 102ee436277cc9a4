"""How strongly each grey point answers a field: by its firing rate, |E|, or what of the field goes into cortex."""

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxm2m import _check, files
from jaxm2m._norm import norm
from jaxm2m._progress import progress_bar
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import FieldMap, Grid, Points

_BYTES = 64 << 20  # of fields that are read at once


@tree
class Activity:
    """What the grey points of a region make of a field.

    Attributes
    ----------
    grey
        (n_grey,) indices of the region's grey points.
    rate
        `cortex.FiringRate`, or None: the field itself.
    normals
        (n_grey, 3) into cortex, for the field itself; None: its magnitude.
    scale
        What fields are divided by, V/m; 1 for rates.
    n_point
        Points of the region.
    """

    grey: Array
    rate: Any
    normals: Any
    scale: Array
    n_point: int

    def __call__(self, e: Float[Array, "*batch point 3"], didt: Any = None) -> Float[Array, "*batch grey"]:
        """Compute the activity of the grey points in fields, V/m; differentiable."""
        e = e[..., self.grey, :]
        if self.rate is not None:
            return self.rate(e, didt=didt)
        if self.normals is None:
            return norm(e) / self.scale
        return jnp.maximum((e * self.normals).sum(-1), 0) / self.scale


def make_activity(
    rate: FiringRate | None, normals: ArrayLike | None, grey: np.ndarray, grid: Grid | Points, example: np.ndarray
) -> Activity:
    """Keep of rate and normals what the grey points need; fields are measured by the largest of an example."""
    dtype = jnp.result_type(float)
    n_point = example.shape[-2]
    if rate is not None:
        if normals is not None:
            raise ValueError("normals: given beside `rate`; put them into the rate, or leave `rate` out.")
        if rate.component == "scalar":
            raise ValueError('rate: component "scalar", but fields have three; take "magnitude" or "normal".')
        if rate.normals is not None:
            rate = replace(rate, normals=_check_normals(rate.normals, grid, n_point, "rate")[grey])
    elif normals is not None:
        normals = jnp.asarray(_check_normals(normals, grid, n_point, "normals")[grey], dtype)
        normals = normals / jnp.maximum(norm(normals), jnp.finfo(dtype).tiny)[:, None]
    scale = 1.0 if rate is not None else float(np.linalg.norm(example[..., grey, :], axis=-1).max()) or 1.0
    return Activity(jnp.asarray(grey), rate, normals, jnp.asarray(scale, dtype), n_point)


def select_grey(
    grey: FieldMap | ArrayLike | None,
    grid: Grid | Points,
    active: Bool[np.ndarray, " point"],
    from_file: Bool[np.ndarray, " point"] | None = None,
) -> tuple[np.ndarray, str]:
    """Select the points of grey matter that have a field, and say what was assumed of them.

    Where `grey` is None, what the file of the fields says of them is taken.

    Raises
    ------
    ValueError
        No such point, a mask of another shape, or a field map of other points.
    """
    assumed = ""
    if grey is None and from_file is not None:
        chosen = from_file & active
    elif grey is None:
        chosen = active
        assumed = (
            f"grey: none was passed; all {int(active.sum())} points with a field were taken for grey matter. Pass the "
            "field map, which knows its tissues, or a mask; a file of fields that is computed anew knows them too."
        )
    elif isinstance(grey, FieldMap):
        if grey.n_point != len(active) or not np.allclose(np.asarray(grey.points), grid.positions(), atol=1e-3):
            raise ValueError(
                f"grey: a field map of {grey.n_point} points that are not the {len(active)} of the grid; pass its map."
            )
        names = list(grey.metadata["tissues"])
        chosen = np.zeros(len(active), bool)
        if "grey" in names:
            chosen[np.asarray(grey.active)[np.asarray(grey.tissue) == names.index("grey")]] = True
        chosen &= active
    else:
        mask = np.asarray(grey)
        if mask.dtype != bool or mask.shape not in _shapes(grid, len(active)):
            raise ValueError(f"grey: {mask.dtype} of shape {mask.shape}; pass bool, {_name_shapes(grid, len(active))}.")
        chosen = mask.reshape(-1) & active
    if not chosen.any():
        raise ValueError(
            "grid: none of its points with a field is grey matter; lay it over cortex, or pass the mask of what counts "
            "as `grey=`."
        )
    return np.flatnonzero(chosen), assumed


def read_activity(
    fields: Any,
    grid: Grid | Points,
    count: int,
    *,
    rate: FiringRate | None,
    normals: ArrayLike | None,
    didt: ArrayLike | None,
    grey: FieldMap | ArrayLike | None,
    progress: bool | None,
) -> tuple[Float[np.ndarray, "stimulus grey"], Activity, str]:
    """Compute the activity of the grey points in the fields of `count` stimuli, and say what was assumed of them.

    Raises
    ------
    ValueError
        Fields, points and MEPs that do not fit each other; no grey matter; activity that does not vary.
    """
    with _open_fields(fields, grid) as rows:
        if len(rows) != count:
            raise ValueError(f"meps: {count} stimuli, fields has {len(rows)}; pass one row for each field.")
        rates = None
        if didt is not None:
            rates = np.broadcast_to(np.asarray(_check.positive(didt, "didt"), np.float64), count)
        chosen, assumed = select_grey(grey, grid, rows.find_active(), rows.grey)
        activity = make_activity(rate, normals, chosen, grid, rows.read(range(min(count, 8))))
        responses = rows.compute(activity, rates, progress)
    if not np.ptp(responses, axis=0).max() > 1e-6 * np.abs(responses).max():
        raise ValueError(
            "rate: the activity of the grey points does not vary over the stimuli; check the threshold against the "
            "fields, their dI/dt, and that the grid lies in cortex."
        )
    return responses, activity, assumed


class FieldRows:
    """Fields (n_stimulus, n_point, 3) in memory or in a file, read a few at a time.

    `grey` (n_point,) says which points are grey matter, where the file does; else it is None.
    """

    def __init__(self, source: Any, grid: Grid | Points, grey: Bool[np.ndarray, " point"] | None = None):
        shape, n_point = tuple(source.shape), len(grid.positions())
        # as many points in another order of axes would be other places
        if shape[-1:] != (3,) or shape[1:-1] not in _shapes(grid, n_point) or not shape[0]:
            raise ValueError(
                f"fields: shape {shape}; for this grid pass n_stimulus times {_name_shapes(grid, n_point)}, times 3."
            )
        self.source, self.n_point, self.grey = source, n_point, grey

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read fields (n, n_point, 3), V/m."""
        return np.stack([np.asarray(self.source[int(i)]).reshape(self.n_point, 3) for i in rows])

    def find_active(self) -> Bool[np.ndarray, " point"]:
        """Find the points that have a field in a stimulus or more."""
        active = np.zeros(self.n_point, bool)
        bad = []
        for i in range(len(self)):
            row = self.read([i])[0]
            if not np.isfinite(row).all():
                bad.append(i)
            active |= (row != 0).any(-1)
        if bad:
            raise ValueError(
                f"fields: {len(bad)} of {len(self)} hold NaN or infinity ({', '.join(map(str, bad[:20]))}); leave "
                "these stimuli out of fields and meps."
            )
        return active

    def compute(
        self, activity: Activity, didt: np.ndarray | None, progress: bool | None
    ) -> Float[np.ndarray, "stimulus grey"]:
        """Compute the activity of the grey points."""
        n = len(self)
        size = int(np.clip(_BYTES // (12 * self.n_point), 1, n))
        dtype = jnp.result_type(float)
        parts = []
        with progress_bar(n, "reading fields", unit="stimuli", enabled=progress) as advance:
            for start in range(0, n, size):
                rows = np.minimum(np.arange(start, start + size), n - 1)  # one shape, one program
                batch_didt = None if didt is None else jnp.asarray(didt[rows], dtype)
                part = _compute(activity, jnp.asarray(self.read(rows), dtype), batch_didt)
                parts.append(np.asarray(part)[: n - start])
                advance(len(parts[-1]))
        return np.concatenate(parts)


@contextmanager
def _open_fields(fields: Any, grid: Grid | Points):
    """Open fields on a grid or at points in memory, or in the HDF5 file of `efield.compute_fields`."""
    if isinstance(fields, (str, os.PathLike)):
        with files.open_hdf5(_check.file(fields, "fields", suffixes=(".h5", ".hdf5")), name="fields") as file:
            if getattr(file.get("e"), "ndim", 0) not in (3, 5):
                raise ValueError(f"fields: {fields} holds no fields `e`; compute it by efield.compute_fields.")
            rows = FieldRows(file["e"], grid, _read_grey(file))
            _check_place(file, fields, np.asarray(grid.positions(), np.float64))
            yield rows
    else:
        yield FieldRows(np.asarray(_check.array(fields, "fields")), grid)


def _read_grey(file: files.Hdf5) -> Bool[np.ndarray, " point"] | None:
    """Read which points are grey matter; files of version 0.1 do not say it."""
    if "tissue" not in file:
        return None
    shape = file["e"].shape[1:-1]
    tissue = file.arrays({"tissue": f"int {' '.join(map(str, shape))}"})["tissue"].reshape(-1)
    names = files.parse_json(file.text("tissues"), f"{file.label}, tissues")
    if not isinstance(names, list) or tissue.min() < -1 or tissue.max() >= len(names):
        raise ValueError(f"{file.label} is damaged: its tissues are not those that it names; compute it again.")
    return tissue == names.index("grey") if "grey" in names else np.zeros(len(tissue), bool)


def _check_place(file: files.Hdf5, path: Any, points: Float[np.ndarray, "point 3"]) -> None:
    """Refuse a file of fields at other points."""
    if "affine" in file and file["e"].ndim == 5:
        nx, ny, nz = map(int, file["e"].shape[1:4])
        places = Grid(np.asarray(file.arrays({"affine": "float 4 4"})["affine"]), (nx, ny, nz)).positions()
    elif "points" in file:
        places = file.arrays({"points": f"float {len(points)} 3"})["points"]
    else:
        return
    if not np.allclose(np.asarray(places), points, atol=1e-3):
        raise ValueError(f"grid: {path} is of other points; pass the grid that its fields were computed on.")


@jax.jit
def _compute(activity: Activity, e: Array, didt: Any) -> Array:
    return activity(e, didt)


def _shapes(grid: Grid | Points, n_point: int) -> tuple[tuple[int, ...], ...]:
    """Shapes in which one value a point may come."""
    return ((n_point,), tuple(grid.shape)) if isinstance(grid, Grid) else ((n_point,),)


def _name_shapes(grid: Grid | Points, n_point: int) -> str:
    return " or ".join(str(shape) for shape in _shapes(grid, n_point))


def _check_normals(normals: Any, grid: Grid | Points, n_point: int, name: str) -> np.ndarray:
    values = np.asarray(_check.finite(normals, name), np.float64)
    if values.shape[-1:] != (3,) or values.shape[:-1] not in _shapes(grid, n_point):
        raise ValueError(
            f"{name}: normals of shape {values.shape}; pass {_name_shapes(grid, n_point)} times 3, one for each point."
        )
    return values.reshape(n_point, 3)
