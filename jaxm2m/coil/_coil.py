"""A coil: what carries current, what encloses it, and how fast its current can change."""

from typing import Any

from jax import Array
from jaxtyping import Float, Int

from jaxm2m._tree import Notes, tree


@tree
class Casing:
    """A closed triangulated surface round the windings, in the coil's own frame.

    Attributes
    ----------
    vertices
        (n, 3) mm.
    triangles
        (m, 3) indices into `vertices`, outward orientation.
    """

    vertices: Float[Array, "n 3"]
    triangles: Int[Array, "m 3"]


@tree
class Coil:
    """A TMS coil as current elements in its own frame.

    The frame is that of a pose: x and y span the coil's plane, y is the handle's prolongation (pointing away from the
    handle), z points into the head; the windings lie at z < 0.

    Attributes
    ----------
    elements
        Tuple of `Dipoles`, `Segments` and `Grid`; each belongs to one stimulator (its static `stimulator` index).
    casing
        The surface that must stay outside the head, or None.
    didt_max
        (n_stimulator,) largest dI/dt of each stimulator, A/s; NaN where unknown. Its length is the number of
        stimulators.
    notes
        "name", "brand", "version", "stimulators" (names), "source", "casing" (where it came from).
    """

    elements: Any
    casing: Any
    didt_max: Float[Array, " n_stimulator"]
    notes: Notes

    @property
    def n_stimulator(self) -> int:
        """Number of independent currents."""
        return self.didt_max.shape[0]
