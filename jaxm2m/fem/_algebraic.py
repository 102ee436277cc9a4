"""Algebraic multigrid: one V-cycle as a preconditioner of meshes without a grid.

PyAMG makes the hierarchy on the host (smoothed aggregation, Vanek et al. 1996), once a mesh. Here it is arrays: the
smoother is Chebyshev on the Jacobi-scaled matrix of each level, the coarsest level is solved with its pseudo-inverse.
(PyAMG's own Chebyshev is not scaled, and fails on heads, where conductivities differ a hundredfold.)

The cycle runs in float32 also for a float64 solve.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import sparse
from scipy.sparse.linalg import eigsh

from jaxm2m._pytree import tree
from jaxm2m.fem import _sparse
from jaxm2m.fem._sparse import EllMatrix

DEGREE = 2
FRACTION = 8.0  # the smoother works on [spectrum / FRACTION, spectrum]
COARSEST = 500  # unknowns, at most, on the coarsest level
SAFETY = 1.05  # of the estimated spectrum


@tree
class Level:
    """One level.

    Attributes
    ----------
    matrix
        Without its diagonal.
    diagonal
        (n,).
    spectrum
        Upper bound of the eigenvalues of the Jacobi-scaled matrix.
    prolongation, restriction
        From and to the next coarser level.
    """

    matrix: EllMatrix
    diagonal: Float[Array, " n"]
    spectrum: Float[Array, ""]
    prolongation: EllMatrix
    restriction: EllMatrix


@tree
class Algebraic:
    """Hierarchy of sparse matrices and the pseudo-inverse of the coarsest one.

    Called with a residual, it applies one V-cycle: an approximate inverse of the matrix.

    Attributes
    ----------
    levels
        From the finest to the coarsest but one.
    coarse_inverse
        (n, n) pseudo-inverse of the coarsest matrix.
    """

    levels: list[Level]
    coarse_inverse: Float[Array, "n n"]

    def __call__(self, residual: Float[Array, "n *rhs"]) -> Float[Array, "n *rhs"]:
        return _cycle(self, 0, residual.astype(self.coarse_inverse.dtype)).astype(residual.dtype)


def _cycle(grid: Algebraic, index: int, b: Array) -> Array:
    if index == len(grid.levels):
        return jnp.matmul(grid.coarse_inverse, b, precision=jax.lax.Precision.HIGHEST)
    level = grid.levels[index]
    zero = jnp.zeros_like(b)
    x, residual = _smooth(level, zero, b, None)
    correction = level.prolongation @ _cycle(grid, index + 1, level.restriction @ residual)
    return _smooth(level, x, residual, correction)[0]


def _smooth(level: Level, x: Array, residual: Array, correction: Array | None) -> tuple[Array, Array]:
    """`DEGREE` Chebyshev steps on K x = b, from x and its residual, after a `correction` of x if there is one.

    Returns x and its residual; after a correction the residual lacks the last step, for which nobody asks.
    """
    high, low = level.spectrum, level.spectrum / FRACTION
    centre, radius = (high + low) / 2, (high - low) / 2
    ratio, rho = centre / radius, radius / centre
    wide = (-1,) + (1,) * (x.ndim - 1)
    diagonal = level.diagonal.reshape(wide)
    # a direction is keep * the last one + turn * the scaled residual
    keep, turn = [jnp.zeros_like(high)], [1 / centre]
    for _ in range(DEGREE - 1):
        rho, previous = 1 / (2 * ratio - rho), rho
        keep.append(rho * previous)
        turn.append(2 * rho / radius)
    if correction is None:
        direction = residual / diagonal * turn[0]
        keep, turn = [*keep[1:], jnp.zeros_like(high)], [*turn[1:], jnp.zeros_like(high)]
    else:
        direction = correction

    # one loop, so that the product stands once in the program
    def step(state: Any, factors: Any) -> Any:
        x, residual, direction = state
        # what two results need would be computed for each of them
        product = jax.lax.optimization_barrier(level.matrix @ direction)
        residual = residual - (diagonal * direction + product)
        return (x + direction, residual, factors[0] * direction + factors[1] * (residual / diagonal)), None

    (x, residual, direction), _ = jax.lax.scan(step, (x, residual, direction), (jnp.stack(keep), jnp.stack(turn)))
    return (x if correction is None else x + direction), residual


def build_levels(matrix: sparse.csr_array) -> list[Any]:
    """The levels that PyAMG makes of a symmetric matrix whose rows add up to zero.

    Raises
    ------
    ModuleNotFoundError
        PyAMG is not installed.
    """
    try:
        import pyamg
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "PyAMG makes the multigrid of tetrahedral heads and is not installed; pip install 'jaxm2m[tet]'."
        ) from None
    # PyAMG estimates eigenvalues from NumPy's global random state: the same hierarchy each time, and the caller's
    # state as it was
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        return pyamg.smoothed_aggregation_solver(sparse.csr_matrix(matrix), max_coarse=COARSEST).levels
    finally:
        np.random.set_state(state)  # noqa: NPY002


def build_algebraic(matrix: sparse.csr_array) -> Algebraic:
    """Build the algebraic multigrid preconditioner of a stiffness matrix.

    Parameters
    ----------
    matrix
        A symmetric matrix (float64) whose rows add up to zero, as `to_csr` makes it.

    Returns
    -------
    Algebraic
        Its hierarchy, which PyAMG makes by smoothed aggregation, in float32.

    Raises
    ------
    ModuleNotFoundError
        PyAMG is not installed.
    """
    levels = build_levels(matrix)
    result = []
    for fine in levels[:-1]:
        a, p = sparse.csr_array(fine.A), sparse.csr_array(fine.P)
        diagonal = a.diagonal()
        result.append(
            Level(
                _sparse.from_csr(_drop_diagonal(a)),
                jnp.asarray(diagonal, jnp.float32),
                jnp.asarray(SAFETY * _largest_eigenvalue(a, diagonal), jnp.float32),
                _sparse.from_csr(p),
                _sparse.from_csr(sparse.csr_array(p.T)),
            )
        )
    return Algebraic(result, jnp.asarray(_pseudo_inverse(levels[-1].A.toarray()), jnp.float32))


def _drop_diagonal(a: sparse.csr_array) -> sparse.csr_array:
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    keep = rows != a.indices
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[keep], minlength=a.shape[0]))])
    return sparse.csr_array((a.data[keep], a.indices[keep], indptr), a.shape)


def _largest_eigenvalue(a: sparse.csr_array, diagonal: np.ndarray) -> float:
    """Largest eigenvalue of the Jacobi-scaled matrix."""
    scale = sparse.dia_array((1 / np.sqrt(diagonal)[None], [0]), shape=a.shape)
    start = np.random.default_rng(0).standard_normal(a.shape[0])
    scaled = sparse.csr_array(scale @ a @ scale)
    return float(eigsh(scaled, k=1, which="LA", v0=start, tol=1e-2, return_eigenvectors=False)[0])


def _pseudo_inverse(a: np.ndarray) -> np.ndarray:
    scale = 1 / np.sqrt(np.diagonal(a))
    values, vectors = np.linalg.eigh(scale[:, None] * (a + a.T) / 2 * scale)
    keep = values > 1e-6 * values[-1]
    return scale[:, None] * ((vectors[:, keep] / values[keep]) @ vectors[:, keep].T) * scale
