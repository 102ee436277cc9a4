"""The members of a population as one pytree, and how they lie on the devices."""

from dataclasses import dataclass

from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxm2m._tree import tree


@tree
class Best:
    """The weights of a member when its score was lowest.

    Attributes
    ----------
    score
        (member,); infinite before the first.
    step
        (member,) when.
    hyper
        For each name (member,).
    params
        Weights.
    """

    score: Float[Array, " member"]
    step: Int[Array, " member"]
    hyper: dict[str, Float[Array, " member"]]
    params: PyTree


@tree
class Members:
    """All that a population is, member by member.

    Attributes
    ----------
    index
        (member,) the member's number: its random numbers follow from it.
    split
        (member,) its split of the examples.
    active
        (member,) whether it is still trained.
    broken
        (member,) the step at which its loss was not finite for the first time, or -1.
    smoothed
        (member,) its smoothed score; NaN before the first.
    hyper
        For each name (member,).
    params, optimizer
        Weights, and the state of the optimiser.
    best
        The weights when the score was lowest.
    """

    index: Int[Array, " member"]
    split: Int[Array, " member"]
    active: Bool[Array, " member"]
    broken: Int[Array, " member"]
    smoothed: Float[Array, " member"]
    hyper: dict[str, Float[Array, " member"]]
    params: PyTree
    optimizer: PyTree
    best: Best


@dataclass(frozen=True)
class Layout:
    """How a population lies on the devices.

    Attributes
    ----------
    mesh
        One axis, "member".
    members
        How many members there are.
    chunk
        Members that a device steps at once.
    batch
        Examples of a step.
    """

    mesh: Mesh
    members: int
    chunk: int
    batch: int

    @property
    def padded(self) -> int:
        """Members with those that only fill the last chunks."""
        unit = self.chunk * self.mesh.size
        return -(-self.members // unit) * unit

    @property
    def by_member(self) -> NamedSharding:
        """The sharding of arrays whose first axis is the member."""
        return NamedSharding(self.mesh, PartitionSpec("member"))

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of what every device has."""
        return NamedSharding(self.mesh, PartitionSpec())
