"""The field of a coil in a head: operator and preconditioner once a head, one solve a pose."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxm2m import _check
from jaxm2m._tree import Notes
from jaxm2m.coil import Coil
from jaxm2m.efield._field import Field
from jaxm2m.efield._field_map import FieldMap, checked
from jaxm2m.efield._mesh_field import MeshField
from jaxm2m.efield._roi import Grid, Points
from jaxm2m.efield._tetrahedra import Tetrahedra, tetrahedra
from jaxm2m.efield._voxels import voxels
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
        Of `jaxm2m.head`: voxels or tetrahedra.
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
            self.parts = tetrahedra(head, tolerance, dtype)
        else:
            self.parts = voxels(head, "tensor" if interfaces is None else interfaces, tolerance, dtype)

    def tree_flatten(self):
        return (self.head, self.parts), None

    @classmethod
    def tree_unflatten(cls, _, children):
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

    def __repr__(self) -> str:
        if isinstance(self.parts, Tetrahedra):
            return f"Simulator({len(self.head.nodes)} nodes, {len(self.head.elements)} tetrahedra, {self.dtype})"
        shape = " x ".join(map(str, self.parts.fractions.shape[1:]))
        return f"Simulator({shape} voxels, {self.dtype}, interfaces={self.interfaces!r})"

    def __call__(self, coil: Coil, pose: Any, didt: Any = 1e6, *, throw: bool = True) -> Field | MeshField:
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
        return self.parts.field(self.head, coil, pose, jnp.asarray(didt), throw)

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
            (n_tissue,) S/m instead of the head's; differentiable (the operator is assembled anew; tetrahedra keep
            their preconditioner).

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
            parts = parts.conducting(sigma)
        # of the head and the points alone: known also while conductivities are traced
        with jax.ensure_compile_time_eval():
            where, own, xyz = self.parts.at(self.head, roi)
            points = jnp.asarray(xyz, self.parts.dtype)
        notes = Notes(tissues=self.head.tissues, space=self.head.space)
        # on the device once, not at every call
        scalp = jax.tree.map(jnp.asarray, self.head.scalp)
        return FieldMap(parts.solves(where), coil, scalp, points, own, where.tissue, notes)
