"""A cubic voxel box about zero, cut out of an unbounded exact solution of nested media."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from . import voxels


class Box(ABC):
    """What exact cases share; `size` (edge, mm), `sigma` (n_medium, S/m), `levels` and `field` are the case's own."""

    size: float
    sigma: tuple[float, ...]
    cell: ClassVar[float]  # largest edge in mm of the cubes in which an interface counts as plane
    margin: ClassVar[float]  # mm that samples keep from the faces

    @property
    def origin(self) -> np.ndarray:
        """Outer corner of the box, mm, (3,)."""
        return np.full(3, -self.size / 2)

    def shape(self, spacing: float) -> tuple[int, int, int]:
        """Voxels along each axis."""
        n = round(self.size / spacing)
        if abs(n * spacing - self.size) > 1e-9:
            raise ValueError(f"spacing: {spacing} mm does not divide the box of {self.size} mm; take 4, 2, 1.")
        return n, n, n

    @abstractmethod
    def levels(self, points: np.ndarray) -> np.ndarray:
        """Signed distance (n_point, n_medium - 1) to the interfaces in mm, positive in the media before."""

    @abstractmethod
    def field(self, points: np.ndarray, layer: np.ndarray | None = None) -> np.ndarray:
        """Exact E (n, 3) in V/m; with `layer` (n,) or an int, the continuation of that medium's field."""

    def layer(self, points: np.ndarray) -> np.ndarray:
        """Medium index at points (n, 3)."""
        return (self.levels(points) <= 0).sum(-1)

    def fractions(self, spacing: float, from_labels: float | None = None) -> np.ndarray:
        """Volume fractions (n_medium, nx, ny, nz): exact, or counted from hard labels of `from_labels` mm."""
        if from_labels is None:
            return voxels.fractions(self.levels, self.shape(spacing), spacing, self.origin, self.cell)
        fine = voxels.labels(self.levels, self.shape(from_labels), from_labels, self.origin)
        return voxels.fractions_of_labels(fine, round(spacing / from_labels), len(self.sigma))

    def current_density(self, points: np.ndarray) -> np.ndarray:
        """Exact J (n, 3) in A/m^2."""
        return np.asarray(self.sigma)[self.layer(points)][:, None] * self.field(points)

    def samples(self, n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Uniform random points (n, 3), at least `margin` mm inside the box's faces, and their media (n,)."""
        half = self.size / 2 - self.margin
        points = np.random.default_rng(seed).uniform(-half, half, (n, 3))
        return points, self.layer(points)
