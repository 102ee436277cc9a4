"""Validators of arguments, in one error style: `name: what was found; the fix.`

Values that JAX is tracing have no numbers to look at: only their shape is checked.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

T = TypeVar("T")

_FARTHEST = 1e9  # of a pose's numbers: products of larger ones overflow


def is_traced(value: Any) -> bool:
    """Whether `value` is known to JAX by shape only."""
    return isinstance(value, Tracer)


def array(value: Any, name: str) -> Any:
    """`value` as a real numerical array: JAX arrays and tracers stay, all else becomes NumPy."""
    if isinstance(value, jax.Array):
        if not jnp.issubdtype(value.dtype, jnp.number) or jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise TypeError(f"{name}: found {value.dtype}; pass real numbers.")
        return value
    try:
        result = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: rows of different lengths; pass a rectangular array.") from None
    if result.dtype.kind not in "iuf":
        raise TypeError(f"{name}: found {type(value).__name__} of {result.dtype}; pass real numbers.")
    return result


def finite(value: Any, name: str) -> Any:
    """`value` as an array without NaN or infinity."""
    value = array(value, name)
    if not is_traced(value):
        wrong = ~np.isfinite(np.asarray(value))
        if wrong.any() and wrong.ndim == 0:
            raise ValueError(f"{name}: {value}; pass a finite number.")
        if wrong.any():
            raise ValueError(
                f"{name}: {int(wrong.sum())} of {wrong.size} values are NaN or infinite "
                f"(first at [{', '.join(map(str, np.argwhere(wrong)[0]))}]); remove them."
            )
    return value


def points(value: Any, name: str = "points") -> Any:
    """Finite coordinates (..., 3), mm."""
    value = array(value, name)
    if value.ndim == 0 or value.shape[-1] != 3:
        raise ValueError(f"{name}: shape {tuple(value.shape)}; the last axis must hold x, y, z (shape (..., 3), mm).")
    return finite(value, name)


def option(value: T, choices: Iterable[T], name: str) -> T:
    """`value`, one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: {value!r}; choose one of {', '.join(repr(c) for c in choices)}.")
    return value


def positive(value: Any, name: str, *, zero: bool = False) -> Any:
    """A number or array above zero (`zero=True`: not below zero)."""
    value = finite(value, name)
    if not is_traced(value):
        low = np.asarray(value, dtype=np.float64).min(initial=np.inf)
        if low < 0 or (low == 0 and not zero):
            raise ValueError(f"{name}: {low:g}; must be {'zero or above' if zero else 'above zero'}.")
    return value


def integer(value: Any, name: str, *, minimum: int = 1) -> int:
    """A whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: {value!r}; pass a whole number.")
    if value < minimum:
        raise ValueError(f"{name}: {value}; must be at least {minimum}.")
    return int(value)


def pose(value: Any, name: str = "pose", *, tolerance: float = 5e-3) -> Any:
    """Rigid coil poses (..., 4, 4): columns x, y, z (into the head), centre in mm.

    Neuronavigation files print three or four decimals: `tolerance` bounds what the columns' products may differ from
    the identity. A defect is named: wrong shape, NaN, last row, scaled, sheared, left-handed.
    """
    value = array(value, name)
    if value.ndim < 2 or value.shape[-2:] != (4, 4):
        raise ValueError(f"{name}: shape {tuple(value.shape)}; a pose is a 4x4 matrix (shape (..., 4, 4)).")
    if is_traced(value):
        return value
    matrices = np.asarray(value, dtype=np.float64)
    for where, defect in pose_defects(matrices.reshape(-1, 4, 4), tolerance=tolerance):
        place = (
            f"{name}[{', '.join(map(str, np.unravel_index(where, matrices.shape[:-2])))}]"
            if matrices.ndim > 2
            else name
        )
        raise ValueError(f"{place}: {defect}")
    return value


def pose_defects(matrices: np.ndarray, *, tolerance: float = 5e-3) -> list[tuple[int, str]]:
    """What keeps each of `matrices` (n, 4, 4) from being a rigid pose: (index, "what was found; the fix.")."""
    return [(i, text) for i, matrix in enumerate(matrices) if (text := _pose_defect(matrix, tolerance))]


def _pose_defect(matrix: np.ndarray, tolerance: float) -> str:
    if not np.isfinite(matrix).all():
        return "holds NaN or infinity; leave poses without a position out."
    if np.abs(matrix).max() > _FARTHEST:
        return f"holds {np.abs(matrix).max():.3g}; axes are unit vectors, centres are mm."
    if not np.allclose(matrix[3], (0, 0, 0, 1), rtol=0, atol=1e-6):
        if np.allclose(matrix[:3, 3], 0, rtol=0, atol=1e-6) and abs(matrix[3, 3] - 1) < 1e-6:
            return "the centre stands in the last row; transpose the matrix."
        return f"last row {_show(matrix[3])}; it must be 0, 0, 0, 1."
    axes = matrix[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if np.abs(lengths - 1).max() > tolerance:
        if lengths.max() - lengths.min() < tolerance * lengths.max() and lengths.min() > 0:
            hint = (
                "the axes are in metres? Only the centre has a unit, mm"
                if lengths.max() < 0.1
                else "divide by the length"
            )
            return f"scaled, its axes have length {lengths[0]:.4g}; {hint}."
        return f"axes of lengths {_show(lengths)}; x, y and z must be unit vectors."
    products = np.array([axes[:, 1] @ axes[:, 2], axes[:, 2] @ axes[:, 0], axes[:, 0] @ axes[:, 1]])
    if np.abs(products).max() > tolerance:
        angle = np.degrees(np.arccos(np.clip(products[np.abs(products).argmax()], -1, 1)))
        return f"sheared, two of its axes meet at {angle:.2f} degrees; they must be perpendicular."
    if np.linalg.det(axes) < 0:
        return "left-handed; x must be y cross z (the z axis points into the head, y along the handle's prolongation)."
    return ""


def file(path: Any, name: str = "path", *, suffixes: Sequence[str] = ()) -> Path:
    """An existing, readable, non-empty file whose name ends in one of `suffixes` (lower case, with the dot)."""
    try:
        path = Path(path).expanduser()
    except TypeError:
        raise TypeError(f"{name}: {type(path).__name__}; pass the path of a file.") from None
    if suffixes and not path.name.lower().endswith(tuple(suffixes)):
        raise ValueError(f"{name}: {path} is not one of {', '.join(suffixes)}; convert it or rename it.")
    if not path.exists():
        raise FileNotFoundError(f"{name}: {path} does not exist; check the path.")
    if path.is_dir():
        raise IsADirectoryError(f"{name}: {path} is a folder; name a file in it.")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{name}: {path} cannot be read; change its permissions.")
    if path.stat().st_size == 0:
        raise ValueError(f"{name}: {path} is empty; export or download it again.")
    return path


def is_number(text: str) -> bool:
    """Whether a cell of a table is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _show(values: np.ndarray) -> str:
    return ", ".join(f"{v:.4g}" for v in values)
