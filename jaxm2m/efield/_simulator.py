"""The field of a coil in a head: operator and preconditioner once a head, one solve a pose."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxm2m import _check
from jaxm2m._pytree import StaticMetadata
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil
from jaxm2m.efield._field_map import FieldMap, check_pose
from jaxm2m.efield._mesh_field import MeshField
from jaxm2m.efield._mesh_solver import MeshOperator, discretize_mesh
from jaxm2m.efield._region import Region
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._settings import describe_simulator
from jaxm2m.efield._voxel_field import Field
from jaxm2m.efield._voxel_solver import discretize
from jaxm2m.head import Head, MeshHead


@jax.tree_util.register_pytree_node_class
class Simulator:
    """E-fields of coils in a head.

    Building it assembles the operator and its multigrid hierarchy; each pose then costs one solve. The simulator is a
    pytree: it passes through `jax.jit` as an argument, and a voxel head whose padded shape has been seen compiles
    nothing.

    Parameters
    ----------
    head
        What conducts: voxels or tetrahedra (`jaxm2m.head`).
    interfaces
        What a voxel with several tissues conducts: "tensor" (`fem.mix`; the default and by far the most accurate),
        "arithmetic", "harmonic" or "hard". A tetrahedron has one tissue.
    tolerance
        Relative residual; by default 1e-5 in float32, 1e-10 in float64.
    dtype
        By default `jnp.result_type(float)`: float32 unless 64-bit mode is on.

    Raises
    ------
    ValueError
        An option that does not exist, or `interfaces` for tetrahedra.
    MemoryError
        A head that does not fit.
    ModuleNotFoundError
        Tetrahedra without PyAMG.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> head = jm.head.sphere(spacing=8.0)  # coarse, so that this is quick
    >>> sim = jm.efield.Simulator(head)
    >>> at_point = sim.bind(jm.coil.figure8(), jm.efield.Points([[0.0, 0.0, 72.0]]))
    >>> pose = jm.coil.place(head.scalp, target=(0.0, 0.0, 92.0))
    >>> e = at_point(pose, didt=100e6)  # V/m, (1, 3)
    >>> print(f"{float(abs(e).max()):.0f} V/m")
    70 V/m
    """

    # a kind of head belongs to a kind of parts, which types cannot say
    head: Any
    parts: Any

    def __init__(
        self,
        head: Head | MeshHead,
        *,
        interfaces: str | None = None,
        tolerance: float | None = None,
        dtype: Any = None,
    ):
        dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        if tolerance is None:
            tolerance = 1e-5 if dtype == jnp.float32 else 1e-10
        _check.positive(tolerance, "tolerance")
        self.head = head
        if isinstance(head, MeshHead):
            if interfaces is not None:
                raise ValueError(
                    f"interfaces: {interfaces!r} says what voxels of several tissues conduct, and this head is made of "
                    "tetrahedra of one tissue each; leave it out."
                )
            self.parts = discretize_mesh(head, tolerance, dtype)
        else:
            self.parts = discretize(head, "tensor" if interfaces is None else interfaces, tolerance, dtype)

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        """Return the parts that JAX sees of the pytree.

        Returns
        -------
        children, static
            The head and what was assembled for it; nothing is static.
        """
        return (self.head, self.parts), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, Any]) -> "Simulator":
        """Put a simulator together again.

        Parameters
        ----------
        _
            Nothing is static.
        children
            What `tree_flatten` returned first.

        Returns
        -------
        Simulator
            The same one.
        """
        self = object.__new__(cls)
        self.head, self.parts = children
        return self

    @property
    def interfaces(self) -> str:
        """What a voxel with several tissues conducts; "conforming" for tetrahedra."""
        return self.parts.interfaces

    @property
    def dtype(self) -> Any:
        """Precision of the solves."""
        return self.parts.dtype

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """What the fields depend on: head, conductivity, solver, precision, device and versions, with fingerprints."""
        return describe_simulator(self.head, float(self.parts.tolerance), self.interfaces, str(self.dtype))

    def __repr__(self) -> str:
        if isinstance(self.parts, MeshOperator):
            return f"Simulator({len(self.head.nodes)} nodes, {len(self.head.elements)} tetrahedra, {self.dtype})"
        shape = " x ".join(map(str, self.parts.fractions.shape[1:]))
        return f"Simulator({shape} voxels, {self.dtype}, interfaces={self.interfaces!r})"

    def __call__(self, coil: Coil, pose: ArrayLike, didt: ArrayLike = 1e6, *, throw: bool = True) -> Field | MeshField:
        """Compute the field of one pose in the whole head.

        Parameters
        ----------
        coil
            The coil that drives the field.
        pose
            (4, 4) coil frame to world, mm.
        didt
            A/s, one number or one for each stimulator of the coil.
        throw
            Whether to raise `ConvergenceError` where the solve fails; otherwise the field comes with its `stats`.

        Returns
        -------
        Field or MeshField
            E in V/m at the voxels' centres or in the elements.

        Raises
        ------
        ValueError
            A pose that is not rigid, or a coil that reaches into the head.
        """
        pose = check_pose(coil, pose, self.head.scalp)
        if pose.ndim != 2:
            raise ValueError(f"pose: shape {pose.shape}; one field is one pose (4, 4). Bind points for many poses.")
        return self.parts.field(self.head, coil, pose, jnp.asarray(didt), throw)

    def with_tolerance(self, tolerance: float) -> "Simulator":
        """Return the simulator with another tolerance; nothing is assembled or compiled anew.

        Parameters
        ----------
        tolerance
            Largest relative residual of a solve (no unit).

        Returns
        -------
        Simulator
            The same head, conductivities and precision.
        """
        _check.positive(tolerance, "tolerance")
        parts = replace(self.parts, tolerance=jnp.asarray(tolerance, self.dtype))
        return Simulator.tree_unflatten(None, (self.head, parts))

    def bind(self, coil: Coil, roi: Points | Grid, *, conductivity: ArrayLike | None = None) -> FieldMap:
        """Return the field of a coil at points as a function of the pose.

        Parameters
        ----------
        coil
            The coil. For many poses of a coil of many elements, `coil.tabulate` it first.
        roi
            Where, mm: `Points` inside the head, each in its own tissue; or a `Grid`, where the field of grey and white
            matter is kept and the rest is zero.
        conductivity
            (n_tissue,) S/m instead of the head's; differentiable (the operator is assembled anew; tetrahedra keep
            their preconditioner).

        Returns
        -------
        FieldMap
            Poses (..., 4, 4) mm -> E (..., n_point, 3) V/m.

        Raises
        ------
        ValueError
            Points outside the head.
        """
        parts = self.parts
        if conductivity is not None:
            sigma = jnp.asarray(_check.positive(conductivity, "conductivity"), parts.dtype)
            if sigma.shape != parts.conductivity.shape:
                raise ValueError(f"conductivity: shape {sigma.shape}; give one value for each of {self.head.tissues}.")
            parts = parts.with_conductivity(sigma)
        # of the head and the points alone: known also while conductivities are traced
        with jax.ensure_compile_time_eval():
            where, active, xyz = self.parts.recovery_at(self.head, roi)
            points = jnp.asarray(xyz, self.parts.dtype)
        metadata = StaticMetadata(tissues=self.head.tissues, space=self.head.space)
        # on the device once, not at every call
        scalp = jax.tree.map(jnp.asarray, self.head.scalp)
        return FieldMap(parts.solver(where), coil, Region(scalp, points, active, where.tissue, metadata))
