"""The members of a population as one pytree, and how they lie on the devices."""

from dataclasses import dataclass

from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxm2m._pytree import tree


@tree
class Best:
    """The weights of each member when its score was lowest.

    Attributes
    ----------
    score
        (member,) lowest score; infinite before the first.
    step
        (member,) the step of that score.
    hyper
        By name, (member,) hyperparameters at that step.
    params
        Weights at that step, the member first.
    """

    score: Float[Array, " member"]
    step: Int[Array, " member"]
    hyper: dict[str, Float[Array, " member"]]
    params: PyTree


@tree
class Members:
    """The state of a population, member by member.

    Attributes
    ----------
    index
        (member,) the member's number, from which its random numbers follow.
    split
        (member,) index of its split of the dataset.
    active
        (member,) whether it is still trained.
    broken
        (member,) the step at which its loss was not finite for the first time, or -1.
    smoothed
        (member,) its smoothed score; NaN before the first.
    hyper
        By name, (member,) hyperparameters.
    params, optimizer
        Weights, and the state of the optimiser, the member first.
    best
        Weights and hyperparameters when the score was lowest.
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
        Number of members.
    chunk_size
        Number of members that a device steps at once.
    batch_size
        Number of examples of a step.
    """

    mesh: Mesh
    members: int
    chunk_size: int
    batch_size: int

    @property
    def padded(self) -> int:
        """Number of members with those that only fill the last chunks."""
        unit = self.chunk_size * self.mesh.size
        return -(-self.members // unit) * unit

    @property
    def by_member(self) -> NamedSharding:
        """The sharding of arrays whose first axis is the member."""
        return NamedSharding(self.mesh, PartitionSpec("member"))

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of what every device has."""
        return NamedSharding(self.mesh, PartitionSpec())
