"""Surfaces of equal value in a volume."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from skimage import measure


def isosurface(
    volume: Float[np.ndarray, "nx ny nz"], level: float, *, gradient_direction: str = "descent"
) -> tuple[Float[np.ndarray, "vertex 3"], Int[np.ndarray, "triangle 3"]]:
    """Triangulate where a volume takes a value (marching cubes of scikit-image).

    Parameters
    ----------
    volume
        Values on a regular grid, in any unit.
    level
        The value, in the volume's unit.
    gradient_direction
        "descent" where what is enclosed has the larger values, "ascent" where it has the smaller ones.

    Returns
    -------
    vertices
        (n_vertex, 3) in index coordinates of the grid.
    triangles
        (n_triangle, 3) indices of vertices.
    """
    with warnings.catch_warnings():
        # scikit-image 0.26 sets an array's shape, which NumPy 2.5 tells users of
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="skimage")
        vertices, triangles, *_ = measure.marching_cubes(volume, level, gradient_direction=gradient_direction)
    return vertices, triangles
