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
from jaxtyping import Array, Float

from jaxm2m import _check, files
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress_bar
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.efield import _basis_fit, _basis_sources
from jaxm2m.efield._convergence import raise_if_failed
from jaxm2m.efield._expansion import BATCH_SIZE, LIMIT, Expansion
from jaxm2m.efield._field_map import FieldMap
from jaxm2m.efield._poses import clearances
from jaxm2m.efield._region import InRegion, Region
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._simulator import Simulator
from jaxm2m.head import Surface

_MODES_PER_FILE = 10  # modes in a file of an unfinished build
_BATCH_SIZE = 1 << 16  # points compressed at once
_TOLERANCE = 1e-4  # residual of a mode's solve: its field is then right to 2e-5, and is stored to 5e-4


@tree
class Basis(InRegion):
    """E-fields in a region for any coil in any pose over it, in milliseconds.

    Build it once for a head and a region, or load it. It serves coils it has never seen: what it holds are responses to
    incident fields, not to coils. A pose whose field it does not hold is refused.

    Attributes
    ----------
    solver
        The modes and the fit.
    region
        The points of `roi`. Its metadata also hold "settings" (what the basis was built from), "accuracy" (the table of
        `check` at the end of the build, as JSON records) and "grid" (affine and shape, where the region is a grid).
    """

    solver: Expansion
    region: Region

    @staticmethod
    def build(
        sim: Simulator,
        roi: Points | Grid,
        path: str | os.PathLike[str] | None = None,
        *,
        modes: int = 200,
        rank: int = 80,
        progress: bool | None = None,
    ) -> "Basis":
        """Solve for the modes of a region and compress them.

        Modes are solved to a residual of 1e-4, or to the simulator's tolerance where that is larger: their fields are
        then right to 2e-5, a hundredth of what a basis is. What `accuracy` tells comes from solves to the simulator's.

        Parameters
        ----------
        sim
            The simulator of the head.
        roi
            Where the field is wanted: points (n, 3) mm, or a grid. The poses covered are those over the scalp within
            60 mm of the point nearest to its centre, 2 to 30 mm off, tilted to 15 degrees.
        path
            `.h5`: the basis is saved there. A build with a path may be killed at any instant; the same call goes on
            and ends with the same numbers, and returns at once when the file is complete. The processes of
            `jax.distributed`, which all make this call, share the solves; `path` must be on a disk that they share.
        modes
            Number of solves.
        rank
            Number of principal components that are kept.
        progress
            Whether to show a progress bar; by default on a terminal only.

        Returns
        -------
        Basis
            The basis, as `Basis.load` reads it from `path`.

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
                return _build(sim, roi, Path(folder) / "basis.h5", modes, rank, progress)
        return _build(sim, roi, Path(path).expanduser(), modes, rank, progress)

    def bind(self, coil: Coil, *, limit: float | int = LIMIT) -> FieldMap:
        """Return the field of a coil at the region's points as a function of the pose.

        Parameters
        ----------
        coil
            Any coil. The map is differentiable in its elements; for poses alone `coil.tabulate` it first: a gradient
            then takes a millisecond.
        limit
            Estimated relative error (no unit) above which a pose is refused with `CoverageError` (NaN under a
            transform). The estimate is twice the root mean square of the incident field that the modes leave, at points
            of the region that took no part in the fit, over that of E; more for coils more than 60 mm round the head.

        Returns
        -------
        FieldMap
            Poses (..., 4, 4) mm -> E (..., n_point, 3) V/m.
        """
        _check.positive(limit, "limit")
        solver = replace(self.solver, limit=jnp.asarray(limit, self.solver.modes.dtype))
        return FieldMap(solver, coil, self.region)

    def estimate(self, coil: Coil, poses: ArrayLike) -> Float[Array, "*batch"]:
        """Estimate the relative error of E over the region, for poses that are covered or not.

        Parameters
        ----------
        coil
            Any coil.
        poses
            (..., 4, 4) coil frame to world, mm.

        Returns
        -------
        error
            (...) estimated relative L2 error of E over the region, as a fraction.
        """
        poses = jnp.asarray(_check.pose(poses, "poses"))
        return _estimate_errors(self.solver, coil, poses)

    def check(
        self,
        sim: Simulator,
        coil: Coil | None = None,
        poses: ArrayLike | None = None,
        *,
        count: int = 5,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Compare the basis with full solves.

        Parameters
        ----------
        sim
            The simulator that the basis was built from.
        coil, poses
            A coil and its poses (n, 4, 4) mm; by default two computed coils that are not among the sources, in random
            poses of the region that the basis covers.
        count
            Number of poses of each default coil.
        progress
            Whether to show a progress bar; by default on a terminal only.

        Returns
        -------
        table
            A row a pose: "coil", "error" (relative L2 over the region's points, %), "estimate" (what `limit` is
            compared with, %).
        """
        self.check_simulator(sim)
        if (coil is None) != (poses is None):
            raise ValueError("poses: give a coil and its poses together, or neither.")
        if coil is not None:
            poses = np.asarray(_check.pose(poses, "poses"), np.float64)
            cases = {str(coil.metadata.get("name", "coil")): (coil, poses.reshape(-1, 4, 4))}
        else:
            _check.integer(count, "count")
            cases = _basis_sources.draw_test_cases(self.scalp, np.asarray(self.solver.around, np.float64), count)
        return _compare_with_solves(self, sim, cases, progress)

    def draw_poses(self, coil: Coil, count: int = 5) -> Float[np.ndarray, "count 4 4"]:
        """Draw random poses that the basis covers and in which a coil's casing is outside the head.

        Parameters
        ----------
        coil
            The coil; one without a casing is free everywhere.
        count
            Number of poses.

        Returns
        -------
        poses
            (count, 4, 4) coil frame to world, mm; the same at every call.

        Raises
        ------
        ValueError
            The casing is in the head in nearly all poses.
        """
        around = _basis_sources.scalp_centre(self.scalp, self.region.active_points(), self.solver.modes.dtype)
        cover = (_basis_sources.COVER, _basis_sources.TEST_OFF, _basis_sources.TEST_TILT)
        random = np.random.default_rng(3)
        poses: list[np.ndarray] = []
        for _ in range(10):
            drawn = np.stack([_basis_sources.draw_pose(random, self.scalp, around, *cover) for _ in range(2 * count)])
            free = np.ones(len(drawn), bool)
            if coil.casing is not None:
                free = np.asarray(clearances(coil, drawn, self.scalp)) > 0
            poses += list(drawn[free])
            if len(poses) >= count:
                return np.stack(poses[:count])
        raise ValueError("coil: its casing is in the head in nearly all poses that a basis covers; give poses.")

    @property
    def roi(self) -> Points | Grid:
        """The points or the grid (mm) that the basis was built for."""
        grid = self.metadata["grid"]
        if grid is None:
            return Points(self.points, self.tissue)
        return Grid(np.array(grid["affine"]), tuple(grid["shape"]))

    @property
    def accuracy(self) -> pd.DataFrame:
        """The table of `check` that was made at the end of the build (errors in %)."""
        return pd.DataFrame(json.loads(self.metadata["accuracy"]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the basis to one HDF5 file.

        The modes are stored as float16, each scaled to its largest value. The file appears whole or not at all.

        Parameters
        ----------
        path
            `.h5`; its folder exists.

        Returns
        -------
        Path
            The file.
        """
        path = files.check_output(path)
        with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
            _write(file, self)
            file.attrs["settings"] = json.dumps(self.metadata["settings"])
        return path

    @staticmethod
    def load(path: str | os.PathLike[str], sim: Simulator | None = None) -> "Basis":
        """Read a basis that `save` or `build` wrote.

        Parameters
        ----------
        path
            `.h5`.
        sim
            Where given, a basis of another head or of other settings than this simulator's is refused.

        Returns
        -------
        Basis
            In the precision that JAX runs in.

        Raises
        ------
        ValueError
            No basis, a damaged one, or one that does not belong to `sim`: what differs is named.
        """
        path = _check.file(path, suffixes=(".h5", ".hdf5"))
        basis = _read(path)
        if sim is not None:
            basis.check_simulator(sim, f"path: {path}")
        return basis

    def check_simulator(self, sim: Simulator, name: str = "sim") -> None:
        """Refuse a simulator of another head or other settings than the basis was built with.

        Parameters
        ----------
        sim
            The simulator in question.
        name
            What the message calls it.

        Raises
        ------
        ValueError
            What differs is named.
        """
        # numbers depend on versions and devices by rounding only
        named = ("head", "conductivity", "interfaces")
        then, now = self.metadata["settings"], sim.settings
        different = files.describe_differences({k: then.get(k, {}) for k in named}, {k: now[k] for k in named})
        if different:
            raise ValueError(
                f"{name}: the basis was built with another {different}; build one for this simulator, or make the "
                "simulator that it was built with."
            )


@jax.jit
@full_precision
def _estimate_errors(solver: Expansion, coil: Coil, poses: Array) -> Array:
    flat = jax.lax.map(lambda p: solver.coefficients(coil, p, 1e6)[1], poses.reshape(-1, 4, 4), batch_size=BATCH_SIZE)
    return flat.reshape(poses.shape[:-2])


def _compare_with_solves(basis: Basis, sim: Simulator, cases: dict[str, Any], progress: bool | None) -> pd.DataFrame:
    rows = []
    # as in the build, whose program serves here too
    at_control = jnp.concatenate([basis.solver.fit_points, basis.solver.held_out]).astype(sim.dtype)
    with progress_bar(
        sum(len(p) for _, p in cases.values()), "checking the basis", unit="solves", enabled=progress
    ) as advance:
        for name, (coil, poses) in cases.items():
            coil = replace(coil, casing=None)  # of any size: it would make programs compile anew
            exact_map = sim.bind(coil, basis.roi)
            estimates = np.asarray(basis.estimate(coil, jnp.asarray(poses)))
            for pose, estimate in zip(poses, estimates, strict=True):
                e, _, stats = _active_field(exact_map, jnp.asarray(pose, at_control.dtype), at_control)
                raise_if_failed(stats)
                exact = np.asarray(e, np.float64)
                expanded = np.asarray(_expand_unlimited(basis.solver, coil, jnp.asarray(pose)), np.float64)
                error = np.linalg.norm(expanded - exact) / np.linalg.norm(exact)
                rows.append({"coil": name, "error": 100 * error, "estimate": 100 * float(estimate)})
                advance()
    return pd.DataFrame(rows)


@jax.jit
@full_precision
def _expand_unlimited(solver: Expansion, coil: Coil, pose: Array) -> Array:
    return solver.at(solver.coefficients(coil, pose, 1e6)[0])


def _build(sim: Simulator, roi: Points | Grid, path: Path, modes: int, rank: int, progress: bool | None) -> Basis:
    path = files.check_output(path)
    head, dtype = sim.head, sim.dtype
    settings = {
        **sim.settings,
        "roi": files.make_setting(
            f"{type(roi).__name__} of {len(roi.positions())} points",
            np.asarray(roi.positions(), np.float64),
            None if isinstance(roi, Grid) else roi.tissue,
        ),
        "modes": files.make_setting(f"{modes} solves, rank {rank}"),
    }
    nothing = Coil((), None, jnp.asarray([jnp.nan], dtype), StaticMetadata())
    relaxed = sim.with_tolerance(max(_TOLERANCE, float(sim.parts.tolerance)))
    # a region outside the head is refused before a run is begun
    frame = None if path.exists() else relaxed.bind(nothing, roi)
    with files.open_parts(path, settings, count=modes, size=_MODES_PER_FILE, unit="modes", content="basis") as run:
        if run.finished:
            return _read(path)
        if frame is None:  # the file went away meanwhile
            frame = relaxed.bind(nothing, roi)
        points = frame.region.active_points()
        occupied, affine = head.mask()
        where = _basis_fit.choose_control_points(occupied, affine, points)
        around = _basis_sources.scalp_centre(head.scalp, points, dtype)
        chosen = _basis_sources.draw_sources(head.scalp, around, modes, dtype)
        at_control = jnp.asarray(where.points, dtype)
        share = run.share()
        with run.report_progress("basis", share, progress) as advance:
            for index in share:
                part = [_solve_source(frame, s, at_control, advance) for s in chosen[run.items(index)]]
                with run.store(index) as file:
                    file["e"], file["a"] = (np.stack(x) for x in zip(*part, strict=True))
                if index == share[0]:
                    run.check_room(index)
        if run.wait():
            basis = _compress(run, sim, frame, roi, where, around, rank)
            accuracy = basis.check(sim, progress=progress)
            metadata = StaticMetadata({**basis.metadata, "accuracy": accuracy.to_json(orient="records")})
            basis = replace(basis, region=replace(basis.region, metadata=metadata))
            with run.finish() as file:
                _write(file, basis)
    return _read(path)


def _solve_source(frame: FieldMap, source: Any, at_control: Array, advance: Any) -> tuple[np.ndarray, np.ndarray]:
    """E (n_active, 3) and dA/dt (n_control, 3) of a source."""
    e, a, stats = _active_field(
        replace(frame, coil=source.coil), jnp.asarray(source.pose, at_control.dtype), at_control
    )
    raise_if_failed(stats)
    advance()
    return np.asarray(e, np.float32), np.asarray(a)


@jax.jit
@full_precision
def _active_field(bound: FieldMap, pose: Array, at_control: Array) -> Any:
    e, stats = bound.solver.fields(bound.coil, pose[None], jnp.asarray(1e6), 1)
    a = coils.vector_potential(bound.coil, pose, at_control, 1e6)
    return e[0], a, jax.tree.map(lambda x: x[0], stats)


def _compress(
    run: files.Parts, sim: Simulator, frame: FieldMap, roi: Any, where: Any, around: np.ndarray, rank: int
) -> Basis:
    """The principal components of the solved fields, weighted as the fit's singular vectors are."""
    a, opened = [], [run.open(i) for i in run.indices]
    try:
        for part in opened:
            a.append(part["a"][()])
        n_active = opened[0]["e"].shape[1]
        blocks = [slice(s, min(s + _BATCH_SIZE, n_active)) for s in range(0, n_active, _BATCH_SIZE)]

        def block(b: slice) -> np.ndarray:
            return np.concatenate([part["e"][:, b] for part in opened]).reshape(run.count, -1)

        fitted = _basis_fit.fit(where, np.concatenate(a))
        # the sources stand for all that will be asked for: principal components of their fields, each of size 1
        gram = (
            sum((block(b).astype(np.float64) @ block(b).T.astype(np.float64) for b in blocks), np.zeros(())) / n_active
        )
        size = np.sqrt(np.diagonal(gram))
        values, vectors = np.linalg.eigh(gram / np.outer(size, size))
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
        keep = values > 1e-12 * values[0]
        root, vectors = np.sqrt(values[keep]), vectors[:, keep]
        combine = vectors / size[:, None] / root
        expansion = (vectors * size[:, None] * root).T @ fitted.coefficients
        out = np.empty((combine.shape[1], n_active, 3), np.float32)
        for b in blocks:
            out[:, b] = (combine.T.astype(np.float32) @ block(b)).reshape(len(out), -1, 3)
    finally:
        for part in opened:
            part.close()
    dtype = sim.dtype
    n_fit = len(where.surface) + len(where.inside)
    solver = Expansion(
        jnp.asarray(out, dtype),
        jnp.asarray(where.points[:n_fit], dtype),
        jnp.asarray(where.held_out, dtype),
        jnp.asarray(around, dtype),
        jnp.asarray(expansion, dtype),
        jnp.asarray(fitted.residual, dtype),
        jnp.asarray(LIMIT, dtype),
    )
    grid = {"affine": np.asarray(roi.affine).tolist(), "shape": list(roi.shape)} if isinstance(roi, Grid) else None
    metadata = StaticMetadata(frame.metadata, settings=run.settings, accuracy="[]", grid=grid)
    return Basis(solver, replace(frame.region, metadata=metadata))


_ARRAYS = ("fit_points", "held_out", "around", "expansion", "residual")
_SHAPES = {
    "modes": "float rank active 3",
    "scale": "float rank",
    "fit_points": "float fit 3",
    "held_out": "float held_out 3",
    "around": "float 3",
    "expansion": "float rank fit_components",
    "residual": "float held_out_components fit_components",
    "points": "float point 3",
    "active": "int active",
    "tissue": "int active",
    "scalp/coefficients": "float x y z",
    "scalp/affine": "float 4 4",
    "scalp/limits": "float 2 3",
}


def _write(file: h5py.File, basis: Basis) -> None:
    modes = np.asarray(basis.solver.modes, np.float32)
    scale = np.maximum(np.abs(modes).max((1, 2)), 1e-30)
    file["modes"] = (modes / scale[:, None, None]).astype(np.float16)
    file["scale"] = scale
    for name in _ARRAYS:
        file[name] = np.asarray(getattr(basis.solver, name))
    file["points"], file["active"], file["tissue"] = (np.asarray(x) for x in (basis.points, basis.active, basis.tissue))
    file["scalp/coefficients"] = np.asarray(basis.scalp.coefficients)
    file["scalp/affine"], file["scalp/limits"] = np.asarray(basis.scalp.affine), np.asarray(basis.scalp.limits)
    for name, unit in (("modes", "V/m, times scale"), ("points", "mm"), ("fit_points", "mm"), ("held_out", "mm")):
        file[name].attrs["unit"] = unit
    metadata = {name: basis.metadata[name] for name in ("tissues", "space", "accuracy", "grid")}
    file.attrs["notes"] = json.dumps(metadata)
    file.attrs["content"] = "jaxm2m.efield.Basis"
    file.attrs["jaxm2m"] = version("jaxm2m")


def _read(path: Path) -> Basis:
    with files.open_hdf5(path, limit=1 << 36) as file:
        if file.text("content") != "jaxm2m.efield.Basis":
            raise ValueError(f"path: {path} holds no basis; make one with Basis.build.")
        settings = files.read_settings(file)
        metadata = _parse_metadata(file.json("notes"), settings, file.label)
        # version 0.1 called the active points "own"
        before = {"active": "own"} if "own" in file and "active" not in file else {}
        arrays = file.arrays({before.get(name, name): axes for name, axes in _SHAPES.items()})
        arrays |= {now: arrays.pop(then) for now, then in before.items()}
    with np.errstate(over="ignore"):  # what single precision cannot hold is infinite from here on, and told
        arrays |= {name: arrays[name].astype(np.float32) for name in ("modes", "scale")}
        arrays["modes"] *= arrays["scale"][:, None, None]
    largest = np.finfo(np.float32).max
    for name, values in arrays.items():
        if not (np.abs(values) <= largest).all():
            raise ValueError(
                f"path: {path} is not a whole basis ({name} holds NaN, infinity or more than {largest:.0e}); build it "
                "again."
            )
    components = tuple(3 * len(arrays[name]) for name in ("held_out", "fit_points"))
    if arrays["residual"].shape != components:
        raise ValueError(f"path: {path} is not a whole basis (residual is not {components}); build it again.")
    n_point, active, tissue = len(arrays["points"]), arrays["active"], arrays["tissue"]
    for name, values, end in (("active", active, n_point), ("tissue", tissue, len(metadata["tissues"]))):
        if len(values) and not 0 <= values.min() <= values.max() < end:
            raise ValueError(f"path: {path} is not a whole basis ({name} beyond {end}); build it again.")
    dtype = jnp.result_type(float)
    fit = {name: jnp.asarray(arrays[name], dtype) for name in _ARRAYS}
    solver = Expansion(jnp.asarray(arrays["modes"], dtype), **fit, limit=jnp.asarray(LIMIT, dtype))
    scalp = Surface(*(jnp.asarray(arrays[f"scalp/{name}"]) for name in ("coefficients", "affine", "limits")))
    points = jnp.asarray(arrays["points"], dtype)
    region = Region(scalp, points, jnp.asarray(active, jnp.int32), jnp.asarray(tissue, jnp.int32), metadata)
    return Basis(solver, region)


def _parse_metadata(stored: Any, settings: files.Settings, label: str) -> StaticMetadata:
    try:
        kept = {name: stored[name] for name in ("space", "accuracy", "grid")}
        grid, tissues = kept["grid"], tuple(stored["tissues"])
        if grid is not None:
            affine, shape = np.array(grid["affine"], float), [_check.integer(n, "shape") for n in grid["shape"]]
            if affine.shape != (4, 4) or not np.isfinite(affine).all() or len(shape) != 3:
                raise ValueError("grid")
        pd.DataFrame(json.loads(kept["accuracy"]))
        if not all(isinstance(text, str) for text in (kept["space"], *tissues)):
            raise TypeError("space or tissues")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{label} is not a whole basis (notes: {error}); build it again.") from None
    return StaticMetadata({**kept, "tissues": tissues, "settings": settings})
