r"""E-fields of any coil in any pose in milliseconds: a basis of solved fields.

With a = dA/dt at some hundred control points (`_basis_fit`), and the solved modes compressed to their principal
components F_k (orthogonal in the region, root mean square 1),

    E = sum_k z_k F_k ,     z = Z a .

A pose costs A at these points and two small products, and so does its derivative.
"""

import json
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from jaxm2m import _check, files
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress
from jaxm2m._tree import Notes, tree
from jaxm2m.coil import Coil
from jaxm2m.efield import _basis_fit, _basis_sources
from jaxm2m.efield._convergence import raise_if_failed
from jaxm2m.efield._expansion import LIMIT, TOGETHER, Expansion
from jaxm2m.efield._field_map import FieldMap
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._settings import simulator_settings
from jaxm2m.efield._simulator import Simulator
from jaxm2m.head import Surface

_PART = 10  # modes in a file of an unfinished build
_BLOCK = 1 << 16  # points compressed at once


@tree
class Basis:
    """E-fields in a region for any coil in any pose over it, in milliseconds.

    Build it once for a head and a region, or load it. It serves coils it has never seen: what it holds are responses to
    incident fields, not to coils. A pose whose field it does not hold is refused.

    Attributes
    ----------
    means
        The modes and the fit.
    scalp
        The head's.
    points
        (n_point, 3) mm: those of `roi`.
    own, tissue
        (n_own,) which points have a field, and the index of their tissue.
    notes
        "tissues", "space", "settings" (what it was built from), "accuracy" (the table of `check` at the end of the
        build, as JSON records), "grid" (affine and shape) where the region is a grid.
    """

    means: Expansion
    scalp: Surface
    points: Float[Array, "point 3"] | Float[np.ndarray, "point 3"]
    own: Int[Array, " own"]
    tissue: Int[Array, " own"]
    notes: Notes

    @staticmethod
    def build(
        sim: Simulator,
        roi: Points | Grid,
        path: str | os.PathLike[str] | None = None,
        *,
        modes: int = 200,
        rank: int = 80,
        show: bool | None = None,
    ) -> "Basis":
        """Solve for the modes and compress them.

        Parameters
        ----------
        sim
            What conducts.
        roi
            Where the field is wanted: the poses covered are those over the scalp within 60 mm of the point nearest to
            its centre, 2 to 30 mm off, tilted to 15 degrees.
        path
            `.h5`: the basis is saved there. A build with a path may be killed at any instant; the same call goes on
            and ends with the same numbers, and returns at once when the file is complete.
        modes
            Solves.
        rank
            Principal components that are kept.
        show
            A progress bar; by default on a terminal only.

        Raises
        ------
        ValueError
            Points outside the head; a `path` begun with something else: what differs is named.
        ConvergenceError
            A solve that failed.
        """
        _check.integer(modes, "modes", minimum=2)
        _check.integer(rank, "rank")
        if rank > modes:
            raise ValueError(f"rank: {rank}; no more components than solved modes ({modes}) can be kept.")
        if path is None:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                return _built(sim, roi, Path(folder) / "basis.h5", modes, rank, show)
        return _built(sim, roi, Path(path), modes, rank, show)

    def bind(self, coil: Coil, *, limit: float | int = LIMIT) -> FieldMap:
        """A function of the pose: the field of `coil` at the region's points.

        Parameters
        ----------
        coil
            Any. Differentiable in its elements; for poses alone `coil.tabulate` it first: a gradient then takes a
            millisecond.
        limit
            Estimated relative error above which a pose is refused with `CoverageError` (NaN under a transform). The
            estimate is twice the root mean square of the incident field that the modes leave, at points of the region
            that took no part in the fit, over that of E; more for coils more than 60 mm round the head.
        """
        _check.positive(limit, "limit")
        means = replace(self.means, limit=jnp.asarray(limit, self.means.modes.dtype))
        return FieldMap(means, coil, self.scalp, self.points, self.own, self.tissue, self.notes)

    def estimate(self, coil: Coil, poses: Any) -> Float[Array, "*batch"]:
        """Estimated relative error of E over the region, for poses (..., 4, 4) mm, covered or not."""
        poses = jnp.asarray(_check.pose(poses, "poses"))
        return _estimates(self.means, coil, poses)

    def check(
        self, sim: Simulator, coil: Coil | None = None, poses: Any = None, *, count: int = 5, show: bool | None = None
    ) -> pd.DataFrame:
        """Compare with full solves.

        Parameters
        ----------
        sim
            The simulator that the basis was built from.
        coil, poses
            A coil and its poses (n, 4, 4) mm; by default two computed coils that are not among the sources, in random
            poses of the region that the basis covers.
        count
            Poses of each default coil.
        show
            A progress bar; by default on a terminal only.

        Returns
        -------
        One row a pose: coil, error (relative L2 over the region's points, %), estimate (what `limit` is compared
        with, %).
        """
        self._refuse_other(sim)
        if (coil is None) != (poses is None):
            raise ValueError("poses: give a coil and its poses together, or neither.")
        if coil is not None:
            poses = np.asarray(_check.pose(poses, "poses"), np.float64)
            cases = {str(coil.notes.get("name", "coil")): (coil, poses.reshape(-1, 4, 4))}
        else:
            _check.integer(count, "count")
            cases = _basis_sources.judges(self.scalp, np.asarray(self.means.around, np.float64), count)
        return _compared(self, sim, cases, show)

    @property
    def roi(self) -> Points | Grid:
        """The region that it was built for."""
        grid = self.notes["grid"]
        if grid is None:
            return Points(self.points, self.tissue)
        return Grid(np.array(grid["affine"]), tuple(grid["shape"]))

    @property
    def accuracy(self) -> pd.DataFrame:
        """The table of `check` made at the end of the build."""
        return pd.DataFrame(json.loads(self.notes["accuracy"]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all of it to one HDF5 file; the modes as float16, each scaled to its largest value."""
        path = files.check_output(path)
        with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
            _write(file, self)
            file.attrs["settings"] = json.dumps(self.notes["settings"])
        return path

    @staticmethod
    def load(path: str | os.PathLike[str], sim: Simulator | None = None) -> "Basis":
        """Read what `save` or `build` wrote.

        Parameters
        ----------
        path
            `.h5`.
        sim
            Refuse a basis of another head or other settings.

        Raises
        ------
        ValueError
            No basis, a damaged one, or one that does not belong to `sim`: what differs is named.
        """
        path = _check.file(path, suffixes=(".h5", ".hdf5"))
        basis = _read(path)
        if sim is not None:
            basis._refuse_other(sim, f"path: {path}")
        return basis

    def _refuse_other(self, sim: Simulator, name: str = "sim") -> None:
        # numbers depend on versions and devices by rounding only
        named = ("head", "conductivity", "interfaces")
        then, now = self.notes["settings"], simulator_settings(sim)
        different = files.differences({k: then.get(k, {}) for k in named}, {k: now[k] for k in named})
        if different:
            raise ValueError(
                f"{name}: the basis was built with another {different}; build one for this simulator, or make the "
                "simulator that it was built with."
            )


@jax.jit
@full_precision
def _estimates(means: Expansion, coil: Coil, poses: Array) -> Array:
    flat = jax.lax.map(lambda p: means.coefficients(coil, p, 1e6)[1], poses.reshape(-1, 4, 4), batch_size=TOGETHER)
    return flat.reshape(poses.shape[:-2])


def _compared(basis: Basis, sim: Simulator, cases: dict[str, Any], show: bool | None) -> pd.DataFrame:
    rows = []
    # as in the build, whose program serves here too
    at_control = jnp.concatenate([basis.means.fit_points, basis.means.held_out]).astype(sim.dtype)
    with progress(sum(len(p) for _, p in cases.values()), "checking the basis", unit="solves", show=show) as advance:
        for name, (coil, poses) in cases.items():
            coil = replace(coil, casing=None)  # of any size: it would make programs compile anew
            exact_map = sim.bind(coil, basis.roi)
            estimates = np.asarray(basis.estimate(coil, jnp.asarray(poses)))
            for pose, estimate in zip(poses, estimates, strict=True):
                e, _, stats = _of_own(exact_map, jnp.asarray(pose, at_control.dtype), at_control)
                raise_if_failed(stats)
                exact = np.asarray(e, np.float64)
                found = np.asarray(_unlimited(basis.means, coil, jnp.asarray(pose)), np.float64)
                error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
                rows.append({"coil": name, "error": 100 * error, "estimate": 100 * float(estimate)})
                advance()
    return pd.DataFrame(rows)


@jax.jit
@full_precision
def _unlimited(means: Expansion, coil: Coil, pose: Array) -> Array:
    return means.at(means.coefficients(coil, pose, 1e6)[0])


def _built(sim: Simulator, roi: Points | Grid, path: Path, modes: int, rank: int, show: bool | None) -> Basis:
    path = files.check_output(path)
    head, dtype = sim.head, sim.dtype
    settings = {
        **simulator_settings(sim),
        "roi": files.setting(
            f"{type(roi).__name__} of {len(roi.positions())} points",
            np.asarray(roi.positions(), np.float64),
            None if isinstance(roi, Grid) else roi.tissue,
        ),
        "modes": files.setting(f"{modes} solves, rank {rank}"),
    }
    nothing = Coil((), None, jnp.asarray([jnp.nan], dtype), Notes())
    # a region outside the head is refused before a run is begun
    frame = None if path.exists() else sim.bind(nothing, roi)
    with files.parts(path, settings, count=modes, size=_PART, unit="modes", content="basis") as run:
        if run.finished:
            return _read(path)
        if frame is None:  # the file went away meanwhile
            frame = sim.bind(nothing, roi)
        own = np.asarray(frame.own)
        points = np.asarray(frame.points, np.float64)[own]
        occupied, affine = head.occupied()
        where = _basis_fit.control(occupied, affine, points)
        around = _basis_sources.middle(head.scalp, points, dtype)
        chosen = _basis_sources.sources(head.scalp, around, modes, dtype)
        at_control = jnp.asarray(where.points, dtype)
        missing = run.missing
        label = "basis" if len(missing) == len(run.indices) else "basis (continued)"
        with progress(modes, label, unit="solves", show=show) as advance:
            advance(run.stored)
            for index in missing:
                part = [_solved(frame, s, at_control, advance) for s in chosen[run.items(index)]]
                with run.store(index) as file:
                    file["e"], file["a"] = (np.stack(x) for x in zip(*part, strict=True))
                if index == missing[0]:
                    run.check_room(index)
        basis = _compressed(run, sim, frame, roi, where, around, rank)
        accuracy = basis.check(sim, show=show)
        basis = replace(basis, notes=Notes({**basis.notes, "accuracy": accuracy.to_json(orient="records")}))
        with run.finish() as file:
            _write(file, basis)
    return _read(path)


def _solved(frame: FieldMap, source: Any, at_control: Array, advance: Any) -> tuple[np.ndarray, np.ndarray]:
    """E (n_own, 3) and dA/dt (n_control, 3) of a source."""
    e, a, stats = _of_own(replace(frame, coil=source.coil), jnp.asarray(source.pose, at_control.dtype), at_control)
    raise_if_failed(stats)
    advance()
    return np.asarray(e, np.float32), np.asarray(a)


@jax.jit
@full_precision
def _of_own(bound: FieldMap, pose: Array, at_control: Array) -> Any:
    e, stats = bound.means.fields(bound.coil, pose[None], jnp.asarray(1e6), 1)
    a = coils.vector_potential(bound.coil, pose, at_control, 1e6)
    return e[0], a, jax.tree.map(lambda x: x[0], stats)


def _compressed(
    run: files.Parts, sim: Simulator, frame: FieldMap, roi: Any, where: Any, around: np.ndarray, rank: int
) -> Basis:
    """The principal components of the solved fields, weighted as the fit's singular vectors are."""
    a, opened = [], [run.open(i) for i in run.indices]
    try:
        for part in opened:
            a.append(part["a"][()])
        n_own = opened[0]["e"].shape[1]
        blocks = [slice(s, min(s + _BLOCK, n_own)) for s in range(0, n_own, _BLOCK)]

        def block(b: slice) -> np.ndarray:
            return np.concatenate([part["e"][:, b] for part in opened]).reshape(run.count, -1)

        fitted = _basis_fit.fit(where, np.concatenate(a))
        # the sources stand for all that will be asked for: principal components of their fields, each of size 1
        gram = sum((block(b).astype(np.float64) @ block(b).T.astype(np.float64) for b in blocks), np.zeros(())) / n_own
        size = np.sqrt(np.diagonal(gram))
        values, vectors = np.linalg.eigh(gram / np.outer(size, size))
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
        keep = values > 1e-12 * values[0]
        root, vectors = np.sqrt(values[keep]), vectors[:, keep]
        combine = vectors / size[:, None] / root
        expansion = (vectors * size[:, None] * root).T @ fitted.coefficients
        out = np.empty((combine.shape[1], n_own, 3), np.float32)
        for b in blocks:
            out[:, b] = (combine.T.astype(np.float32) @ block(b)).reshape(len(out), -1, 3)
    finally:
        for part in opened:
            part.close()
    dtype = sim.dtype
    n_fit = len(where.surface) + len(where.inside)
    means = Expansion(
        jnp.asarray(out, dtype),
        jnp.asarray(where.points[:n_fit], dtype),
        jnp.asarray(where.held_out, dtype),
        jnp.asarray(around, dtype),
        jnp.asarray(expansion, dtype),
        jnp.asarray(fitted.residual, dtype),
        jnp.asarray(LIMIT, dtype),
    )
    grid = {"affine": np.asarray(roi.affine).tolist(), "shape": list(roi.shape)} if isinstance(roi, Grid) else None
    notes = Notes(frame.notes, settings=run.settings, accuracy="[]", grid=grid)
    return Basis(means, frame.scalp, frame.points, frame.own, frame.tissue, notes)


_ARRAYS = ("fit_points", "held_out", "around", "expansion", "residual")
_SHAPES = {
    "modes": "float rank own 3",
    "scale": "float rank",
    "fit_points": "float fit 3",
    "held_out": "float held_out 3",
    "around": "float 3",
    "expansion": "float rank fit_components",
    "residual": "float held_out_components fit_components",
    "points": "float point 3",
    "own": "int own",
    "tissue": "int own",
    "scalp/coefficients": "float x y z",
    "scalp/affine": "float 4 4",
    "scalp/limits": "float 2 3",
}


def _write(file: h5py.File, basis: Basis) -> None:
    modes = np.asarray(basis.means.modes, np.float32)
    scale = np.maximum(np.abs(modes).max((1, 2)), 1e-30)
    file["modes"] = (modes / scale[:, None, None]).astype(np.float16)
    file["scale"] = scale
    for name in _ARRAYS:
        file[name] = np.asarray(getattr(basis.means, name))
    file["points"], file["own"], file["tissue"] = (np.asarray(x) for x in (basis.points, basis.own, basis.tissue))
    file["scalp/coefficients"] = np.asarray(basis.scalp.coefficients)
    file["scalp/affine"], file["scalp/limits"] = np.asarray(basis.scalp.affine), np.asarray(basis.scalp.limits)
    for name, unit in (("modes", "V/m, times scale"), ("points", "mm"), ("fit_points", "mm"), ("held_out", "mm")):
        file[name].attrs["unit"] = unit
    notes = {name: basis.notes[name] for name in ("tissues", "space", "accuracy", "grid")}
    file.attrs["notes"] = json.dumps(notes)
    file.attrs["content"] = "jaxm2m.efield.Basis"
    file.attrs["jaxm2m"] = version("jaxm2m")


def _read(path: Path) -> Basis:
    with files.open_hdf5(path, limit=1 << 36) as file:
        if file.text("content") != "jaxm2m.efield.Basis":
            raise ValueError(f"path: {path} holds no basis; make one with Basis.build.")
        settings = files.read_settings(file)
        notes = _notes(file.json("notes"), settings, file.told)
        found = file.arrays(_SHAPES)
    with np.errstate(over="ignore"):  # what single precision cannot hold is infinite from here on, and told
        found |= {name: found[name].astype(np.float32) for name in ("modes", "scale")}
        found["modes"] *= found["scale"][:, None, None]
    largest = np.finfo(np.float32).max
    for name, values in found.items():
        if not (np.abs(values) <= largest).all():
            raise ValueError(
                f"path: {path} is not a whole basis ({name} holds NaN, infinity or more than {largest:.0e}); build it "
                "again."
            )
    components = tuple(3 * len(found[name]) for name in ("held_out", "fit_points"))
    if found["residual"].shape != components:
        raise ValueError(f"path: {path} is not a whole basis (residual is not {components}); build it again.")
    n_point, own, tissue = len(found["points"]), found["own"], found["tissue"]
    for name, values, end in (("own", own, n_point), ("tissue", tissue, len(notes["tissues"]))):
        if len(values) and not 0 <= values.min() <= values.max() < end:
            raise ValueError(f"path: {path} is not a whole basis ({name} beyond {end}); build it again.")
    dtype = jnp.result_type(float)
    arrays = {name: jnp.asarray(found[name], dtype) for name in _ARRAYS}
    means = Expansion(jnp.asarray(found["modes"], dtype), **arrays, limit=jnp.asarray(LIMIT, dtype))
    scalp = Surface(*(jnp.asarray(found[f"scalp/{name}"]) for name in ("coefficients", "affine", "limits")))
    points = jnp.asarray(found["points"], dtype)
    return Basis(means, scalp, points, jnp.asarray(own, jnp.int32), jnp.asarray(tissue, jnp.int32), notes)


def _notes(found: Any, settings: files.Settings, told: str) -> Notes:
    try:
        kept = {name: found[name] for name in ("space", "accuracy", "grid")}
        grid, tissues = kept["grid"], tuple(found["tissues"])
        if grid is not None:
            affine, shape = np.array(grid["affine"], float), [_check.integer(n, "shape") for n in grid["shape"]]
            if affine.shape != (4, 4) or not np.isfinite(affine).all() or len(shape) != 3:
                raise ValueError("grid")
        pd.DataFrame(json.loads(kept["accuracy"]))
        if not all(isinstance(text, str) for text in (kept["space"], *tissues)):
            raise TypeError("space or tissues")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{told} is not a whole basis (notes: {error}); build it again.") from None
    return Notes({**kept, "tissues": tissues, "settings": settings})
