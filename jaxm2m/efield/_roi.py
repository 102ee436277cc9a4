"""Where the field is wanted: any points, or a regular grid round a target."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike
from jaxm2m.head import Head, MeshHead

BRAIN = ("white", "grey")  # the tissues in which a grid holds a field


@tree
class Points:
    """Any points inside the head.

    Attributes
    ----------
    xyz
        (n, 3) mm.
    tissue
        (n,) index into the head's `tissues` for each point, where it is known better than from the head's labels.
    """

    xyz: ArrayLike
    tissue: ArrayLike | None = None

    def positions(self) -> Float[Array, "n 3"] | Float[np.ndarray, "n 3"] | Int[np.ndarray, "n 3"]:
        """Return the points after checking them.

        Returns
        -------
        xyz
            (n, 3) mm.

        Raises
        ------
        ValueError
            Coordinates that are not finite, or not three a point.
        """
        xyz = _check.points(self.xyz, "xyz")
        if xyz.ndim != 2:
            raise ValueError(f"xyz: shape {tuple(xyz.shape)}; give points as (n, 3), mm.")
        return xyz


@tree
class Grid:
    """A regular grid of points; the field is that of grey and white matter, zero elsewhere.

    Attributes
    ----------
    affine
        (4, 4) index -> mm.
    shape
        Points along each axis.
    """

    affine: Float[Array, "4 4"] | Float[np.ndarray, "4 4"]
    shape: tuple[int, int, int]

    @classmethod
    def around(
        cls,
        centre: ArrayLike,
        shape: tuple[int, ...] = (80, 80, 80),  # three, as `(n,) * 3` is too, of which checkers know less
        spacing: float | int = 1.0,
        axes: ArrayLike | None = None,
    ) -> "Grid":
        """Make a grid centred on a point.

        Parameters
        ----------
        centre
            (3,) mm.
        shape
            Number of points along each axis; 80 x 80 x 80 of 1 mm are the field of view of the networks.
        spacing
            mm between neighbours.
        axes
            (3, 3) unit vectors (no unit) of the grid's axes as columns; by default those of the world.

        Returns
        -------
        Grid
            Its centre is halfway between its first and last points.

        Raises
        ------
        ValueError
            No single centre, not three lengths, axes that are not orthonormal.

        Examples
        --------
        >>> import jaxm2m as jm
        >>> grid = jm.efield.Grid.around((-40, -20, 52), shape=(8, 8, 8), spacing=5.0)
        >>> grid.affine[:3, 3].tolist()  # its first point, mm
        [-57.5, -37.5, 34.5]
        """
        centre = np.asarray(_check.points(centre, "centre"), np.float64)
        if centre.shape != (3,):
            raise ValueError(f"centre: shape {centre.shape}; give one point x, y, z in mm.")
        _check.positive(spacing, "spacing")
        if len(shape) != 3:
            raise ValueError(f"shape: {shape}; give the number of points along three axes.")
        nx, ny, nz = (_check.integer(int(n), "shape") for n in shape)
        axes = np.eye(3) if axes is None else np.asarray(_check.finite(axes, "axes"), np.float64)
        if axes.shape != (3, 3) or np.abs(axes.T @ axes - np.eye(3)).max() > 1e-5:
            raise ValueError("axes: not orthonormal; give three unit vectors as columns.")
        affine = np.eye(4)
        affine[:3, :3] = axes * spacing
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.array((nx, ny, nz)) - 1) / 2)
        return cls(affine, (nx, ny, nz))

    def positions(self) -> Float[np.ndarray, "n 3"]:
        """Return the grid's points.

        Returns
        -------
        xyz
            (n, 3) mm, the last axis of the grid fastest.
        """
        index = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1).reshape(-1, 3)
        affine = np.asarray(self.affine, np.float64)
        return index @ affine[:3, :3].T + affine[:3, 3]

    def volume(
        self, e: Float[Array, "*batch n c"] | Float[np.ndarray, "*batch n c"]
    ) -> Float[Array, "*batch nx ny nz c"]:
        """Arrange values at the grid's points as volumes.

        Parameters
        ----------
        e
            (..., n, c) values at the points in the order of `positions`, in any unit.

        Returns
        -------
        volume
            (..., nx, ny, nz, c) in the same unit.

        Raises
        ------
        ValueError
            Another number of points than the grid has.
        """
        n = int(np.prod(self.shape))
        if e.ndim < 2 or e.shape[-2] != n:
            raise ValueError(f"e: shape {tuple(e.shape)}; this grid has {n} points: (..., {n}, 3) is needed.")
        return jnp.reshape(e, (*e.shape[:-2], *self.shape, e.shape[-1]))


def select_points(head: Head | MeshHead, roi: "Points | Grid") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All points (n, 3) of a region (mm), which of them have a field, and the tissue of all.

    Raises
    ------
    ValueError
        Points outside the head, a grid without grey and white matter, tissues that the head does not have.
    """
    xyz = np.asarray(roi.positions(), np.float64)
    tissue = np.asarray(head.tissue_at(xyz))
    if isinstance(roi, Grid):
        brain = [i for i, name in enumerate(head.tissues) if name in BRAIN]
        where = np.flatnonzero(np.isin(tissue, brain))
        if len(where) == 0:
            raise ValueError(
                f"roi: none of the {len(xyz)} points of the grid lies in grey or white matter; check its centre "
                f"({head.space} coordinates, mm)."
            )
    else:
        if roi.tissue is not None:
            tissue = np.asarray(roi.tissue)
            n = len(head.tissues)
            if tissue.shape != (len(xyz),) or tissue.dtype.kind not in "iu" or not ((tissue >= 0) & (tissue < n)).all():
                raise ValueError(
                    f"tissue: found {tissue.dtype} of shape {tissue.shape}; give for each of {len(xyz)} points the "
                    f"number, 0 to {n - 1}, of one of {head.tissues}."
                )
        where = np.arange(len(xyz))
        if (tissue < 0).any():
            first = xyz[np.argmax(tissue < 0)]
            raise ValueError(
                f"roi: {int((tissue < 0).sum())} of {len(xyz)} points lie outside the head, the first at "
                f"({first[0]:.1f}, {first[1]:.1f}, {first[2]:.1f}) mm in {head.space} coordinates; "
                "leave them out."
            )
    return xyz, where, tissue
