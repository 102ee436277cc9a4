"""A voxel head, discretised: the field of a coil by one solve."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxm2m import _check, fem
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m.coil import Coil
from jaxm2m.efield._convergence import raise_if_failed
from jaxm2m.efield._fits import check_fits
from jaxm2m.efield._roi import Grid, Points, select_points
from jaxm2m.efield._voxel_field import Field
from jaxm2m.efield._voxel_recovery import Recovery, build_recovery, dominant_field
from jaxm2m.efield._voxel_source import VoxelLattice, build_lattice
from jaxm2m.head import Head

INTERFACES = ("tensor", "arithmetic", "harmonic", "hard")


@tree
class VoxelOperator:
    """What a solve needs of a voxel head, on the device and padded.

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
    corner
        (3,) the head's voxel that is the first here.
    tolerance
        Relative residual of a solve.
    interfaces
        What a voxel with several tissues conducts.
    """

    fractions: Float[Array, "tissue nx ny nz"]
    conductivity: Float[Array, " tissue"]
    stiffness: fem.Stiffness
    lattice: VoxelLattice
    affine: Float[Array, "4 4"]
    corner: Int[Array, "3"]
    tolerance: Float[Array, ""]
    interfaces: str

    @property
    def dtype(self) -> Any:
        return self.affine.dtype

    def with_conductivity(self, conductivity: Float[Array, " tissue"]) -> "VoxelOperator":
        """The same with other conductivities (S/m), the operator assembled anew."""
        normal, h = self.stiffness.mixture.normal, self.stiffness.h
        stiffness = _assemble(self.fractions, normal, conductivity, h, self.interfaces)
        return VoxelOperator(
            self.fractions,
            conductivity,
            stiffness,
            self.lattice,
            self.affine,
            self.corner,
            self.tolerance,
            self.interfaces,
        )

    def field(self, head: Head, coil: Coil, pose: Any, didt: Any, throw: bool) -> Field:
        """The field in the whole head."""
        e, phi, stats = _solve_head(self, coil, pose, didt, poison=throw)
        if throw:
            raise_if_failed(stats)
        e, tissue = _dominant_tissue_field(self, e)
        shape = head.fractions.shape[1:]
        e, tissue = _unpad(e, self.corner, shape, 0), _unpad(tissue, self.corner, shape, -1)
        phi = _unpad(phi, self.corner, tuple(n + 1 for n in shape), 0)
        return Field(e=e, tissue=tissue, phi=phi, stats=stats, didt=didt, head=head)

    def recovery_at(self, head: Head, roi: Points | Grid) -> tuple[Recovery, Array, np.ndarray]:
        """Weights at the points that lie in tissue, which those points are among all, and all points."""
        xyz, where, tissue = select_points(head, roi)
        inverse = np.linalg.inv(np.asarray(self.affine, np.float64))
        index = jnp.asarray(xyz[where] @ inverse[:3, :3].T + inverse[:3, 3], self.dtype)
        weights = _build_recovery(self.fractions, index, jnp.asarray(tissue[where], jnp.int32))
        served = np.asarray(weights.served)
        if not isinstance(roi, Grid) and not served.all():
            first = xyz[where][np.argmin(served)]
            raise ValueError(
                f"roi: {int((~served).sum())} of {len(xyz)} points have no voxel of their tissue near, the first at "
                f"({first[0]:.1f}, {first[1]:.1f}, {first[2]:.1f}) mm; check `tissue`, or use a finer head."
            )
        return weights, jnp.asarray(where, jnp.int32), xyz

    def solver(self, where: Recovery) -> "VoxelSolver":
        return VoxelSolver(self, where)


@tree
class VoxelSolver:
    """A solve a pose (`FieldSolver` of a `FieldMap`)."""

    parts: VoxelOperator
    recovery: Recovery

    def batch_size(self) -> int:
        return choose_batch_size(self.parts)

    def fields(self, coil: Coil, poses: Array, didt: Any, batch_size: int) -> tuple[Array, fem.Stats]:
        mixture = self.parts.stiffness.mixture

        def one(pose):
            e, _, stats = _solve(self.parts, coil, pose, didt, poison=True)
            e = self.recovery(e, mixture.across, mixture.normal, self.parts.conductivity)
            return _rotate(self.parts, e), stats

        if len(poses) == 1:
            return jax.tree.map(lambda a: a[None], one(poses[0]))
        return jax.lax.map(one, poses, batch_size=batch_size)

    def raise_for_status(self, report: fem.Stats) -> None:
        raise_if_failed(report)

    def pick(self, active: np.ndarray) -> "VoxelSolver":
        where = self.recovery
        return VoxelSolver(self.parts, Recovery(where.weights[:, active], where.voxels[active], where.tissue[active]))


def discretize(head: Head, interfaces: str, tolerance: float, dtype: Any) -> VoxelOperator:
    """Discretise a head; see `Simulator`."""
    _check.option(interfaces, INTERFACES, "interfaces")
    corner, fractions = _crop_and_pad(np.asarray(head.fractions))
    # about 50 arrays of the grid's size, measured at 1 and 2 mm
    shape = fractions.shape[1:]
    check_fits(
        50 * int(np.prod(shape)) * dtype.itemsize,
        f"{' x '.join(map(str, shape))} voxels",
        "take a larger `spacing`, or crop the head",
    )
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
    return VoxelOperator(
        fractions,
        conductivity,
        stiffness,
        build_lattice(fractions.shape[1:], nodes, dtype),
        jnp.asarray(affine, dtype),
        jnp.asarray(corner, jnp.int32),
        jnp.asarray(tolerance, dtype),
        interfaces,
    )


def choose_batch_size(parts: VoxelOperator) -> int:
    """How many poses are solved at once: one on a CPU (its caches hold one), what memory allows elsewhere."""
    if jax.default_backend() == "cpu":
        return 1
    statistics = jax.local_devices()[0].memory_stats() or {}
    free = statistics.get("bytes_limit", 8 << 30) - statistics.get("bytes_in_use", 0)
    nodes = int(np.prod(parts.fractions.shape[1:])) * parts.dtype.itemsize
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
    return fem.assemble_stiffness(mixture, h, scalar=interfaces != "tensor")


_build_recovery = jax.jit(full_precision(build_recovery))


def _solve(parts: VoxelOperator, coil: Coil, pose: Any, didt: Any, poison: bool):
    """Field at the voxels' centres in the grid's axes (V/m), potential, stats."""
    dadt = parts.lattice.edge_averages(coil, pose.astype(parts.dtype), didt)
    load = -parts.stiffness.load_vector(dadt)
    phi, remainder, stats = fem.solve(parts.stiffness, load, parts.tolerance, poison=poison)
    h = parts.stiffness.h
    gradients = (fem.gradient(u, h) for u in (phi, remainder))
    total = jax.tree.map(lambda a, *g: -(a + sum(g)), dadt, *gradients)
    return fem.at_centres(total), phi, stats


def _rotate(parts: VoxelOperator, e: Float[Array, "*shape 3"]) -> Float[Array, "*shape 3"]:
    """From the grid's axes to the world's: so many rows times so small a matrix take five times as long."""
    axes = parts.affine[:3, :3]
    rotation = axes / jnp.linalg.norm(axes[:, 0])
    return jnp.stack([sum(e[..., j] * row[j] for j in range(3)) for row in rotation], axis=-1)


# two programs for a whole head: what a solve needs is gone before the voxels' fields are made
@partial(jax.jit, static_argnames="poison")
@full_precision
def _solve_head(parts: VoxelOperator, coil: Coil, pose: Any, didt: Any, poison: bool):
    return _solve(parts, coil, pose, didt, poison)


@jax.jit
@full_precision
def _dominant_tissue_field(parts: VoxelOperator, e: Array):
    mixture = parts.stiffness.mixture
    e, tissue = dominant_field(parts.fractions, e, mixture.across, mixture.normal, parts.conductivity)
    return _rotate(parts, e), tissue


def _crop_and_pad(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box of the conducting voxels and its first voxel, padded with air to a bucket of shapes."""
    active = fractions.sum(0) >= 0.5
    low, high = [], []
    for axis in range(3):
        along = np.flatnonzero(active.any(tuple(a for a in range(3) if a != axis)))
        low.append(along[0])
        high.append(along[-1] + 1)
    x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
    shape = fem.pad_shape(tuple(int(b - a) for a, b in zip(low, high, strict=True)))
    inner = fractions[:, x, y, z]
    out = np.zeros((len(fractions), *shape), fractions.dtype)
    out[:, : inner.shape[1], : inner.shape[2], : inner.shape[3]] = inner
    return np.array(low), out


@partial(jax.jit, static_argnames="shape")
def _unpad(a: Array, start: Array, shape: tuple[int, ...], fill: Any) -> Array:
    """`a` at its place in an array of the head's own `shape`; what is padding beyond it is dropped."""
    for axis, n in enumerate(shape):
        index = jnp.arange(n) - start[axis]
        known = (index >= 0) & (index < a.shape[axis])
        known = known.reshape(-1, *(1,) * (a.ndim - axis - 1))
        a = jnp.where(known, jnp.take(a, jnp.clip(index, 0, a.shape[axis] - 1), axis=axis), fill)
    return a
