"""Types that rooms share without importing each other."""

import os
from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import jax.typing
import numpy as np
from jaxtyping import Array, Float

PathLike: TypeAlias = str | os.PathLike[str]

ArrayLike: TypeAlias = jax.typing.ArrayLike | Sequence
"""What becomes an array: a number, an array of NumPy or JAX, or sequences of numbers, nested or not."""

DTypeLike: TypeAlias = str | type | np.dtype
"""A floating-point type of NumPy or JAX, or its name."""


@runtime_checkable
class ScalpSurface(Protocol):
    """A scalp that coils are placed on: `head.Surface`, or anything that answers as it does (mm)."""

    def distance(self, points: Float[Array, "*batch 3"], /) -> Float[Array, "*batch"]:
        """Signed distance (mm) of points, positive outside."""
        ...

    def normal(self, points: Float[Array, "*batch 3"], /) -> Float[Array, "*batch 3"]:
        """Outward unit normals."""
        ...

    def nearest(self, points: Float[Array, "*batch 3"], /) -> Float[Array, "*batch 3"]:
        """The points of the surface (mm) that are nearest."""
        ...
