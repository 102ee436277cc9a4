"""The field of a coil in a head: operator and preconditioner once a head, one solve a pose."""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check, fem
from jaxm2m._precision import full_precision
from jaxm2m._tree import Notes, tree
from jaxm2m.coil import Coil
from jaxm2m.efield._field import Field
from jaxm2m.efield._field_map import FieldMap, checked
from jaxm2m.efield._lattice import Lattice, edge_averages, lattice
from jaxm2m.efield._recovery import Recovery, dominant, recover, recovery
from jaxm2m.efield._roi import BRAIN, Grid, Points
from jaxm2m.head import Head

INTERFACES = ("tensor", "arithmetic", "harmonic", "hard")


class ConvergenceError(RuntimeError):
    """A solve did not reach its tolerance."""


@tree
class Discretisation:
    """What a solve needs of a head, on the device and padded.

    Attributes
    ----------
    fractions
        (n_tissue, nx, ny, nz) without air: they sum to 1 in active voxels, to 0 elsewhere.
    conductivity
        (n_tissue,) S/m.
    stiffness
        Operator, preconditioner and the voxels' conductivities.
    lattice
        Where the coil's potential is sampled.
    affine
        (4, 4) padded voxel index -> mm.
    tolerance
        Relative residual of a solve.
    """

    fractions: Float[Array, "tissue nx ny nz"]
    conductivity: Float[Array, " tissue"]
    stiffness: fem.Stiffness
    lattice: Lattice
    affine: Float[Array, "4 4"]
    tolerance: Float[Array, ""]


@jax.tree_util.register_pytree_node_class
class Simulator:
    """E-fields of coils in a head.

    Building it assembles the operator and its multigrid hierarchy; each pose then costs one solve. The simulator is a
    pytree: it passes through `jax.jit` as an argument, and a head whose padded shape has been seen compiles nothing.

    Parameters
    ----------
    head
        Of `jaxm2m.head`.
    interfaces
        What a voxel with several tissues conducts: "tensor" (`fem.mix`; the default and by far the most accurate),
        "arithmetic", "harmonic" or "hard".
    tolerance
        Relative residual; by default 1e-5 in float32, 1e-10 in float64.
    dtype
        By default `jnp.result_type(float)`: float32 unless 64-bit mode is on.
    """

    def __init__(
        self,
        head: Head,
        *,
        interfaces: str = "tensor",
        tolerance: float | None = None,
        dtype: Any = None,
    ):
        _check.option(interfaces, INTERFACES, "interfaces")
        dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        if tolerance is None:
            tolerance = 1e-5 if dtype == jnp.float32 else 1e-10
        _check.positive(tolerance, "tolerance")
        corner, fractions = _fitted(np.asarray(head.fractions))
        _check_memory(fractions.shape[1:], dtype)
        affine = np.array(head.affine, np.float64)
        affine[:3, 3] += affine[:3, :3] @ corner
        spacing = float(np.linalg.norm(affine[:3, 0]))
        nodes = affine.copy()
        nodes[:3, 3] -= affine[:3, :3] @ np.full(3, 0.5)
        padded = jnp.asarray(fractions, dtype)
        conductivity = jnp.asarray(head.conductivity, dtype)
        # two programs: what finding normals needs is gone before the coefficients, the largest arrays, are made
        fractions, normal = _fractions(padded, interfaces)
        del padded
        stiffness = _assemble(fractions, normal, conductivity, jnp.asarray(spacing * 1e-3, dtype), interfaces)
        self.head = head
        self.interfaces = interfaces
        self.corner = corner
        self.parts = Discretisation(
            fractions,
            conductivity,
            stiffness,
            lattice(fractions.shape[1:], nodes, dtype),
            jnp.asarray(affine, dtype),
            jnp.asarray(tolerance, dtype),
        )

    def tree_flatten(self):
        return (self.head, self.parts, self.corner), self.interfaces

    @classmethod
    def tree_unflatten(cls, interfaces, children):
        self = object.__new__(cls)
        self.head, self.parts, self.corner = children
        self.interfaces = interfaces
        return self

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.parts.fractions.shape[1:]))
        return f"Simulator({shape} voxels, {self.parts.affine.dtype}, interfaces={self.interfaces!r})"

    def __call__(self, coil: Coil, pose: Any, didt: Any = 1e6, *, throw: bool = True) -> Field:
        """The field in the whole head.

        Parameters
        ----------
        coil
            Of `jaxm2m.coil`.
        pose
            (4, 4) mm, coil frame -> world.
        didt
            A/s, one number or one for each stimulator of the coil.
        throw
            Raise `ConvergenceError` where the solve fails; otherwise the field is returned with its `stats`.

        Raises
        ------
        ValueError
            A pose that is not rigid, or a coil that reaches into the head.
        """
        pose = checked(coil, pose, self.head.scalp)
        if pose.ndim != 2:
            raise ValueError(f"pose: shape {pose.shape}; one field is one pose (4, 4). Bind points for many poses.")
        e, phi, stats = _whole(self.parts, coil, pose, jnp.asarray(didt), poison=throw)
        if throw:
            raise_if_failed(stats)
        e, tissue = _dominant(self.parts, e)
        start = jnp.asarray(self.corner, jnp.int32)
        shape = self.head.fractions.shape[1:]
        e, tissue = _unpadded(e, start, shape, 0), _unpadded(tissue, start, shape, -1)
        phi = _unpadded(phi, start, tuple(n + 1 for n in shape), 0)
        return Field(e=e, tissue=tissue, phi=phi, stats=stats, didt=jnp.asarray(didt), head=self.head)

    def bind(self, coil: Coil, roi: Points | Grid, *, conductivity: Any = None) -> FieldMap:
        """A function of the pose: the field of `coil` at points.

        Parameters
        ----------
        coil
            For many poses of a coil of many elements, `coil.tabulate` it first.
        roi
            `Points` inside the head, each in its own tissue; or a `Grid`, where the field of grey and white matter
            is kept and the rest is zero.
        conductivity
            (n_tissue,) S/m instead of the head's; differentiable (the operator is assembled anew).

        Raises
        ------
        ValueError
            Points outside the head.
        """
        parts = self.parts
        if conductivity is not None:
            sigma = jnp.asarray(_check.positive(conductivity, "conductivity"), parts.affine.dtype)
            if sigma.shape != parts.conductivity.shape:
                raise ValueError(f"conductivity: shape {sigma.shape}; give one value for each of {self.head.tissues}.")
            h, normal = parts.stiffness.h, parts.stiffness.mixture.normal
            stiffness = _assemble(parts.fractions, normal, sigma, h, self.interfaces)
            parts = Discretisation(parts.fractions, sigma, stiffness, parts.lattice, parts.affine, parts.tolerance)
        # of the head and the points alone: known also while conductivities are traced
        with jax.ensure_compile_time_eval():
            where, own, xyz = self._located(roi)
            points = jnp.asarray(xyz, self.parts.affine.dtype)
        notes = Notes(tissues=self.head.tissues, space=self.head.space)
        # on the device once, not at every call
        scalp = jax.tree.map(jnp.asarray, self.head.scalp)
        return FieldMap(Solves(parts, where), coil, scalp, points, own, where.tissue, notes)

    def _located(self, roi: Points | Grid) -> tuple[Recovery, Array, np.ndarray]:
        """Weights at the points that lie in tissue, which those points are among all, and all points."""
        xyz = np.asarray(roi.positions(), np.float64)
        tissue = np.asarray(self.head.tissue_at(xyz))
        if isinstance(roi, Grid):
            brain = [i for i, name in enumerate(self.head.tissues) if name in BRAIN]
            chosen = np.flatnonzero(np.isin(tissue, brain))
            if len(chosen) == 0:
                raise ValueError(
                    f"roi: none of the {len(xyz)} points of the grid lies in grey or white matter; check its centre "
                    f"({self.head.space} coordinates, mm)."
                )
        else:
            if roi.tissue is not None:
                tissue = np.asarray(roi.tissue)
                n = len(self.head.tissues)
                if (
                    tissue.shape != (len(xyz),)
                    or tissue.dtype.kind not in "iu"
                    or not ((tissue >= 0) & (tissue < n)).all()
                ):
                    raise ValueError(
                        f"tissue: found {tissue.dtype} of shape {tissue.shape}; give for each of {len(xyz)} points the "
                        f"number, 0 to {n - 1}, of one of {self.head.tissues}."
                    )
            chosen = np.arange(len(xyz))
            if (tissue < 0).any():
                first = xyz[np.argmax(tissue < 0)]
                raise ValueError(
                    f"roi: {int((tissue < 0).sum())} of {len(xyz)} points lie outside the head, the first at "
                    f"({first[0]:.1f}, {first[1]:.1f}, {first[2]:.1f}) mm in {self.head.space} coordinates; "
                    "leave them out."
                )
        dtype = self.parts.affine.dtype
        inverse = np.linalg.inv(np.asarray(self.parts.affine, np.float64))
        index = jnp.asarray(xyz[chosen] @ inverse[:3, :3].T + inverse[:3, 3], dtype)
        where = _recovery(self.parts.fractions, index, jnp.asarray(tissue[chosen], jnp.int32))
        served = np.asarray(where.served)
        if not isinstance(roi, Grid) and not served.all():
            first = xyz[chosen][np.argmin(served)]
            raise ValueError(
                f"roi: {int((~served).sum())} of {len(xyz)} points have no voxel of their tissue near, the first at "
                f"({first[0]:.1f}, {first[1]:.1f}, {first[2]:.1f}) mm; check `tissue`, or use a finer head."
            )
        return where, jnp.asarray(chosen, jnp.int32), xyz


@tree
class Solves:
    """A solve a pose (`Means` of a `FieldMap`)."""

    parts: Discretisation
    recovery: Recovery

    def together(self) -> int:
        return batch(self.parts)

    def fields(self, coil: Coil, poses: Array, didt: Any, together: int) -> tuple[Array, fem.Stats]:
        mixture = self.parts.stiffness.mixture

        def one(pose):
            e, _, stats = _solve(self.parts, coil, pose, didt, poison=True)
            e = recover(self.recovery, e, mixture.across, mixture.normal, self.parts.conductivity)
            return e @ _rotation(self.parts).T, stats

        if len(poses) == 1:
            return jax.tree.map(lambda a: a[None], one(poses[0]))
        return jax.lax.map(one, poses, batch_size=together)

    def refuse(self, report: fem.Stats) -> None:
        raise_if_failed(report)

    def pick(self, own: np.ndarray) -> "Solves":
        where = self.recovery
        return Solves(self.parts, Recovery(where.weights[:, own], where.voxels[own], where.tissue[own]))


def _memory() -> int:
    """Bytes of the device, or of the machine."""
    if jax.default_backend() != "cpu":
        statistics = jax.local_devices()[0].memory_stats() or {}
        return statistics.get("bytes_limit", 8 << 30)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 62


def _check_memory(shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse a grid on which a solve cannot fit: about 50 arrays of its size, measured at 1 and 2 mm."""
    needed, there = 50 * int(np.prod(shape)) * dtype.itemsize, _memory()
    if needed > there:
        raise MemoryError(
            f"head: {' x '.join(map(str, shape))} voxels need about {needed / 1e9:.0f} GB for a solve, and there are "
            f"{there / 1e9:.0f} GB; take a larger `spacing`, or crop the head."
        )


def batch(parts: Discretisation) -> int:
    """How many poses are solved at once: one on a CPU (its caches hold one), what memory allows elsewhere."""
    if jax.default_backend() == "cpu":
        return 1
    statistics = jax.local_devices()[0].memory_stats() or {}
    free = statistics.get("bytes_limit", 8 << 30) - statistics.get("bytes_in_use", 0)
    nodes = int(np.prod(parts.fractions.shape[1:])) * parts.affine.dtype.itemsize
    # a power of two: memory in use changes from call to call, and each other number is another program
    return 2 ** int(np.log2(np.clip(free / 2 / (60 * nodes), 1, 64)))


@partial(jax.jit, static_argnames="interfaces")
@full_precision
def _fractions(fractions, interfaces):
    fractions = fem.tissue_fractions(fractions)
    if interfaces == "hard":
        return fractions, jnp.zeros((3, *fractions.shape[1:]), fractions.dtype)
    return fractions, fem.interface_normal(fractions)


@partial(jax.jit, static_argnames="interfaces")
@full_precision
def _assemble(fractions, normal, conductivity, h, interfaces):
    mixture = fem.mix(fractions, normal, conductivity, interfaces)
    return fem.stiffness(mixture, h, scalar=interfaces != "tensor")


_recovery = jax.jit(full_precision(recovery))


def _solve(parts: Discretisation, coil: Coil, pose: Any, didt: Any, poison: bool):
    """Field at the voxels' centres in the grid's axes (V/m), potential, stats."""
    dadt = edge_averages(parts.lattice, coil, pose.astype(parts.affine.dtype), didt)
    load = -parts.stiffness.load(dadt)
    phi, remainder, stats = fem.solve(parts.stiffness, load, parts.tolerance, poison=poison)
    h = parts.stiffness.h
    gradients = (fem.gradient(u, h) for u in (phi, remainder))
    total = jax.tree.map(lambda a, *g: -(a + sum(g)), dadt, *gradients)
    return fem.centre(total), phi, stats


def _rotation(parts: Discretisation) -> Float[Array, "3 3"]:
    axes = parts.affine[:3, :3]
    return axes / jnp.linalg.norm(axes[:, 0])


# two programs for a whole head: what a solve needs is gone before the voxels' fields are made
@partial(jax.jit, static_argnames="poison")
@full_precision
def _whole(parts: Discretisation, coil: Coil, pose: Any, didt: Any, poison: bool):
    return _solve(parts, coil, pose, didt, poison)


@jax.jit
@full_precision
def _dominant(parts: Discretisation, e: Array):
    mixture = parts.stiffness.mixture
    e, tissue = dominant(parts.fractions, e, mixture.across, mixture.normal, parts.conductivity)
    return e @ _rotation(parts).T, tissue


def raise_if_failed(stats: fem.Stats) -> None:
    if _check.traced(stats.status):
        return
    status = np.asarray(stats.status).ravel()
    failed = np.flatnonzero(status != fem.CONVERGED)
    if len(failed):
        first = failed[0]
        raise ConvergenceError(
            f"{len(failed)} of {len(status)} solves failed; the first (number {first}) after "
            f"{np.asarray(stats.iterations).ravel()[first]} iterations, relative residual "
            f"{np.asarray(stats.residual).ravel()[first]:.2g}: {fem.MESSAGES[int(status[first])]}. "
            "Check the pose and the conductivities, or raise `tolerance`."
        )


def _fitted(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box of the conducting voxels and its first voxel, padded with air to a bucket of shapes."""
    active = fractions.sum(0) >= 0.5
    low, high = [], []
    for axis in range(3):
        along = np.flatnonzero(active.any(tuple(a for a in range(3) if a != axis)))
        low.append(along[0])
        high.append(along[-1] + 1)
    x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
    shape = fem.padded(tuple(int(b - a) for a, b in zip(low, high, strict=True)))
    inner = fractions[:, x, y, z]
    out = np.zeros((len(fractions), *shape), fractions.dtype)
    out[:, : inner.shape[1], : inner.shape[2], : inner.shape[3]] = inner
    return np.array(low), out


@partial(jax.jit, static_argnames="shape")
def _unpadded(a: Array, start: Array, shape: tuple[int, ...], fill: Any) -> Array:
    """`a` at its place in an array of the head's own `shape`; what is padding beyond it is dropped."""
    for axis, n in enumerate(shape):
        index = jnp.arange(n) - start[axis]
        known = (index >= 0) & (index < a.shape[axis])
        known = known.reshape(-1, *(1,) * (a.ndim - axis - 1))
        a = jnp.where(known, jnp.take(a, jnp.clip(index, 0, a.shape[axis] - 1), axis=axis), fill)
    return a
