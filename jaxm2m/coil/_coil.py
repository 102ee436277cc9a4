"""A coil: what carries current, what encloses it, and how fast its current can change."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jax import Array
from jaxtyping import Float, Int

from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import PotentialGrid
from jaxm2m.coil._segments import Segments

Element: TypeAlias = Dipoles | Segments | PotentialGrid
"""What carries current in a coil."""


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
        Tuple of `Dipoles`, `Segments` and `PotentialGrid`; each belongs to one stimulator (its static `stimulator`
        index).
    casing
        The surface that must stay outside the head, or None.
    didt_max
        (n_stimulator,) largest dI/dt of each stimulator, A/s; NaN where unknown. Its length is the number of
        stimulators.
    metadata
        Any mapping: "name", "brand", "version", "stimulators" (names), "source", "casing" (where it came from).
    """

    elements: tuple[Element, ...]
    casing: Casing | None
    didt_max: Float[Array, " n_stimulator"]
    metadata: Mapping[str, Any]

    def __post_init__(self):
        # any mapping will do: as a part of the tree it must be hashable and compare equal
        if not isinstance(self.metadata, StaticMetadata):
            object.__setattr__(self, "metadata", StaticMetadata(self.metadata))

    @property
    def n_stimulator(self) -> int:
        """Number of independent currents."""
        return self.didt_max.shape[0]
