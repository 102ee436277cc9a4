"""The points at which a field is known: where they are, which of them have a field, and in which tissue."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxm2m import _check
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m._types import ArrayLike
from jaxm2m.head import Surface


@tree
class Region:
    """Points of a head at which fields are computed.

    Attributes
    ----------
    scalp
        The head's scalp, which a coil's casing must not enter.
    points
        (n_point, 3) mm.
    active
        (n_active,) indices of the points that have a field; a grid's points outside grey and white matter have none.
    tissue
        (n_active,) index of their tissue in the head's `tissues`.
    metadata
        "tissues" and "space" of the head.
    """

    scalp: Surface
    points: Float[Array, "point 3"] | Float[np.ndarray, "point 3"]
    active: Int[Array, " active"]
    tissue: Int[Array, " active"]
    metadata: StaticMetadata

    @property
    def n_point(self) -> int:
        """Number of points."""
        return self.points.shape[0]

    def active_points(self) -> Float[np.ndarray, "active 3"]:
        """Return the points that have a field.

        Returns
        -------
        xyz
            (n_active, 3) mm.
        """
        return np.asarray(self.points, np.float64)[np.asarray(self.active)]

    def within(self, centre: ArrayLike, radius: float | int, tissues: tuple[str, ...]) -> Bool[np.ndarray, " point"]:
        """Select the points of given tissues in a ball, as `FieldMap.within` does.

        Parameters
        ----------
        centre
            (3,) mm.
        radius
            mm.
        tissues
            Names of the head's tissues.

        Returns
        -------
        mask
            (n_point,) True at the points that lie in the ball and in one of the tissues.

        Raises
        ------
        ValueError
            No such point, or a tissue that the head does not have.
        """
        centre = np.asarray(_check.points(centre, "centre"), np.float64)
        if centre.shape != (3,):
            raise ValueError(f"centre: shape {centre.shape}; give one point x, y, z in mm.")
        _check.positive(radius, "radius")
        names = list(self.metadata["tissues"])
        for name in tissues:
            _check.option(name, names, "tissues")
        distance = np.linalg.norm(self.active_points() - centre, axis=-1)
        inside = (distance <= radius) & np.isin(np.asarray(self.tissue), [names.index(name) for name in tissues])
        if not inside.any():
            raise ValueError(
                f"centre: no point of {' or '.join(tissues)} within {radius:g} mm of "
                f"({', '.join(f'{x:.1f}' for x in centre)}) mm; the nearest point with a field is "
                f"{distance.min(initial=np.inf):.1f} mm away. "
                "Move the target, take a larger radius, or points round it."
            )
        selected = np.zeros(self.n_point, bool)
        selected[np.asarray(self.active)[inside]] = True
        return selected

    def active_indices(self, where: ArrayLike) -> tuple[Int[np.ndarray, " picked"], Int[np.ndarray, " picked"]]:
        """Find points among all points and among the active ones.

        Parameters
        ----------
        where
            (n_point,) mask, or indices of points.

        Returns
        -------
        index
            (n_picked,) indices among all points.
        among_active
            (n_picked,) indices among the active points.

        Raises
        ------
        ValueError
            No point, or points that have no field.
        """
        where = np.asarray(where)
        n = self.n_point
        if where.dtype == bool and where.shape != (n,):
            raise ValueError(f"where: a mask of shape {where.shape} for {n} points; give one of shape ({n},).")
        index = np.flatnonzero(where) if where.dtype == bool else where
        if index.ndim != 1 or index.dtype.kind not in "iu" or (index < 0).any() or (index >= n).any():
            raise ValueError(f"where: give a mask of {n} points or a list of indices from 0 to {n - 1}.")
        position = np.full(n, -1)
        position[np.asarray(self.active)] = np.arange(self.active.shape[0])
        among_active = position[index]
        if among_active.size == 0 or (among_active < 0).any():
            raise ValueError(
                f"where: {int((among_active < 0).sum())} of {among_active.size} points have no field (they lie outside "
                "grey and white matter); choose one or more that have, as `within` does."
            )
        return index, among_active

    def pick(self, index: Int[np.ndarray, " picked"], among_active: Int[np.ndarray, " picked"]) -> "Region":
        """Return the region of some of the points, in their order.

        Parameters
        ----------
        index, among_active
            (n_picked,) indices, as `active_indices` returns them.

        Returns
        -------
        Region
            All its points are active.
        """
        return replace(
            self,
            points=jnp.asarray(self.points)[index],
            active=jnp.arange(len(among_active), dtype=jnp.int32),
            tissue=jnp.asarray(self.tissue)[among_active],
        )


class InRegion:
    """What a basis and a field map read off their `region`."""

    region: Region

    @property
    def scalp(self) -> Surface:
        """The head's scalp."""
        return self.region.scalp

    @property
    def points(self) -> Float[Array, "point 3"] | Float[np.ndarray, "point 3"]:
        """All points (n_point, 3), mm."""
        return self.region.points

    @property
    def active(self) -> Int[Array, " active"] | Int[np.ndarray, " active"]:
        """Indices (n_active,) of the points that have a field."""
        return self.region.active

    @property
    def tissue(self) -> Int[Array, " active"] | Int[np.ndarray, " active"]:
        """Index (n_active,) of the active points' tissues in the head's `tissues`."""
        return self.region.tissue

    @property
    def metadata(self) -> StaticMetadata:
        """What is known about the region and its head: "tissues", "space"."""
        return self.region.metadata

    @property
    def n_point(self) -> int:
        """Number of points."""
        return self.region.n_point
