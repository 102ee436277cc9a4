"""A tetrahedral head, discretised: the field of a coil by one solve."""

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial import cKDTree

from jaxm2m import fem
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m.coil import Coil
from jaxm2m.efield._convergence import raise_if_failed
from jaxm2m.efield._fits import check_fits
from jaxm2m.efield._mesh_field import MeshField
from jaxm2m.efield._mesh_recovery import MeshRecovery, build_mesh_recovery
from jaxm2m.efield._mesh_source import MeshLattice, build_mesh_lattice, edge_integrals
from jaxm2m.efield._roi import Grid, Points, select_points
from jaxm2m.head import MeshHead

BATCH_SIZE = 8  # poses whose solves share each pass over the matrix


@tree
class MeshOperator:
    """What a solve needs of a tetrahedral head, on the device.

    Nodes are in the numbers of `fem.Mesh`, elements in an order in which neighbours are near in memory.

    Attributes
    ----------
    place
        (n_element,) where each of the head's elements stands here.
    tissue
        (n_element,) index of each element's tissue.
    anisotropy
        (n_element, 3, 3) conductivity tensor over the tissue's conductivity, or None.
    conductivity
        (n_tissue,) S/m.
    stiffness
        Operator and preconditioner.
    lattice
        Where the coil's potential is sampled.
    tolerance
        Relative residual of a solve.
    """

    place: Int[Array, " element"]
    tissue: Int[Array, " element"]
    anisotropy: Float[Array, "element 3 3"] | None
    conductivity: Float[Array, " tissue"]
    stiffness: fem.MeshStiffness
    lattice: MeshLattice
    tolerance: Float[Array, ""]

    interfaces: ClassVar[str] = "conforming"

    @property
    def dtype(self) -> Any:
        return self.conductivity.dtype

    def with_conductivity(self, conductivity: Float[Array, " tissue"]) -> "MeshOperator":
        """The same with other conductivities (S/m), the operator assembled anew and preconditioned as before."""
        was = self.stiffness
        stiffness = _assemble(was.mesh, was.positions, self.tissue, self.anisotropy, conductivity, was.preconditioner)
        return replace(self, conductivity=conductivity, stiffness=stiffness)

    def field(self, head: MeshHead, coil: Coil, pose: Any, didt: Any, throw: bool) -> MeshField:
        """The field in the whole head, element by element."""
        e, phi, stats = _solve_head(self, coil, pose, didt, poison=throw)
        if throw:
            raise_if_failed(stats)
        return MeshField(e=e, phi=phi, stats=stats, didt=didt, head=head)

    def recovery_at(self, head: MeshHead, roi: Points | Grid) -> tuple[MeshRecovery, Array, np.ndarray]:
        """Weights at the points that lie in tissue, which those points are among all, and all points."""
        xyz, where, tissue = select_points(head, roi)
        element, barycentric = _locate(head, xyz[where], tissue[where])
        weights = build_mesh_recovery(head, element, barycentric, self.dtype)
        weights = replace(weights, elements=self.place[weights.elements])
        return weights, jnp.asarray(where, jnp.int32), xyz

    def solver(self, where: MeshRecovery) -> "MeshSolver":
        return MeshSolver(self, where)


@tree
class MeshSolver:
    """A solve a pose (`FieldSolver` of a `FieldMap`), several sharing each pass over the matrix."""

    parts: MeshOperator
    recovery: MeshRecovery

    def batch_size(self) -> int:
        return BATCH_SIZE

    def fields(self, coil: Coil, poses: Array, didt: Any, batch_size: int) -> tuple[Array, fem.Stats]:
        def some(poses):
            samples, phi, remainder, stats = _solve(self.parts, coil, poses, didt, poison=True)
            active = self.recovery.elements

            def one(samples, phi, remainder):
                return self.recovery(_element_field(self.parts, active, samples, phi, remainder))

            return jax.vmap(one, (0, -1, -1))(samples, phi, remainder), stats

        count = len(poses)
        if count <= batch_size:
            return some(poses)
        # the last batch is filled up with its last pose
        index = jnp.minimum(jnp.arange(-(-count // batch_size) * batch_size), count - 1)
        e, stats = jax.lax.map(some, poses[index].reshape(-1, batch_size, 4, 4))
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], (e, stats))

    def raise_for_status(self, report: fem.Stats) -> None:
        raise_if_failed(report)

    def pick(self, active: np.ndarray) -> "MeshSolver":
        return MeshSolver(self.parts, self.recovery.pick(active))


def discretize_mesh(head: MeshHead, tolerance: float, dtype: Any) -> MeshOperator:
    """Discretise a head; see `Simulator`."""
    # about 300 numbers an element with a gradient, measured on four million
    count = len(head.elements)
    check_fits(300 * count * dtype.itemsize, f"{count} tetrahedra", "take a coarser mesh, or cut it to what matters")
    order = fem.morton_order(head.centroids())
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    mesh = fem.build_mesh(np.asarray(head.elements)[order], np.asarray(head.nodes))
    nodes = np.asarray(head.nodes, np.float64)[np.asarray(mesh.nodes)]
    conductivity = jnp.asarray(head.conductivity, dtype)
    tissue = jnp.asarray(np.asarray(head.tissue)[order], jnp.int32)
    anisotropy = None if head.anisotropy is None else jnp.asarray(np.asarray(head.anisotropy)[order], dtype)
    # about their middle: float32 keeps micrometres
    positions = jnp.asarray((nodes - (nodes.min(0) + nodes.max(0)) / 2) * 1e-3, dtype)
    stiffness = _assemble(mesh, positions, tissue, anisotropy, conductivity, None)
    stiffness = fem.precondition(stiffness)
    return MeshOperator(
        jnp.asarray(place),
        tissue,
        anisotropy,
        conductivity,
        stiffness,
        build_mesh_lattice(nodes, dtype),
        jnp.asarray(tolerance, dtype),
    )


def _locate(head: MeshHead, points: np.ndarray, tissue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elements and barycentric coordinates of points, each in an element of its tissue: the nearest if it is another's.

    Raises
    ------
    ValueError
        Points with no element of their tissue near.
    """
    element, barycentric = head.locate(points)
    of = np.asarray(head.tissue)
    for t in np.unique(tissue[(element < 0) | (of[element] != tissue)]):
        astray = np.flatnonzero((tissue == t) & ((element < 0) | (of[element] != t)))
        members = np.flatnonzero(of == t)
        corners = head.nodes[head.elements[members]]
        distance, nearest = cKDTree(corners.mean(1)).query(points[astray])
        corners = corners[nearest]
        size = np.linalg.norm(corners[:, 1:] - corners[:, :1], axis=-1).max(1)
        if (distance > 2 * size).any():
            first = points[astray[np.argmax(distance > 2 * size)]]
            raise ValueError(
                f"roi: {int((distance > 2 * size).sum())} of {len(points)} points have no {head.tissues[t]} near, the "
                f"first at ({first[0]:.1f}, {first[1]:.1f}, {first[2]:.1f}) mm; check `tissue`."
            )
        edges = np.swapaxes(corners[:, 1:] - corners[:, :1], 1, 2)
        inner = np.linalg.solve(edges, (points[astray] - corners[:, 0])[..., None])[..., 0]
        # to the nearest of its element's points, about
        share = np.clip(np.concatenate([1 - inner.sum(1, keepdims=True), inner], 1), 0, 1)
        element[astray], barycentric[astray] = members[nearest], share / share.sum(1, keepdims=True)
    return element, barycentric


@jax.jit
@full_precision
def _assemble(mesh, positions, tissue, anisotropy, conductivity, preconditioner):
    # a gather would do, but its transpose adds millions of numbers into five
    sigma = sum((jnp.where(tissue == t, s, 0) for t, s in enumerate(conductivity)), jnp.zeros((), conductivity.dtype))
    if anisotropy is not None:
        sigma = sigma[:, None, None] * anisotropy
    return fem.assemble_mesh_stiffness(mesh, positions, sigma, preconditioner)


def _solve(parts: MeshOperator, coil: Coil, poses: Array, didt: Any, poison: bool):
    """Samples of dA/dt at the nodes (pose, node, 9), potentials and remainders (node, pose), stats."""
    stiffness = parts.stiffness

    def source(pose):
        samples = parts.lattice.sample(coil, pose.astype(parts.dtype), didt)
        load = stiffness.load_vector(lambda corners: edge_integrals(stiffness.positions[corners], samples[corners]))
        return samples, -load

    if len(poses) == 1:
        samples, load = source(poses[0])
        phi, remainder, stats = fem.solve(stiffness, load, parts.tolerance, poison=poison)
        return samples[None], phi[:, None], remainder[:, None], jax.tree.map(lambda a: a[None], stats)
    samples, loads = jax.lax.map(source, poses)
    return samples, *fem.solve(stiffness, loads.T, parts.tolerance, poison=poison)


def _element_field(parts: MeshOperator, elements: Array, samples: Array, phi: Array, remainder: Array) -> Array:
    """E (V/m) of some elements."""
    corners = parts.stiffness.mesh.elements[elements]
    positions = parts.stiffness.positions[corners]
    gradients, _ = fem.shape_gradients(positions)
    dadt = fem.element_mean(gradients, edge_integrals(positions, samples[corners]))
    # differences first: rounding is then relative to the field
    steps = sum((u[corners[:, 1:]] - u[corners[:, :1]] for u in (phi, remainder)), jnp.zeros((), phi.dtype))
    return -(dadt + (steps[..., None] * gradients[:, 1:]).sum(1))


@partial(jax.jit, static_argnames="poison")
@full_precision
def _solve_head(parts: MeshOperator, coil: Coil, pose: Any, didt: Any, poison: bool):
    samples, phi, remainder, stats = _solve(parts, coil, pose[None], didt, poison)
    count = len(parts.tissue)

    def one(element):
        return _element_field(parts, element[None], samples[0], phi[:, 0], remainder[:, 0])[0]

    e = jax.lax.map(one, jnp.arange(count), batch_size=1 << 16)[parts.place]
    phi = jnp.zeros_like(phi[:, 0]).at[parts.stiffness.mesh.nodes].set(phi[:, 0])
    return e, phi, jax.tree.map(lambda a: a[0], stats)
