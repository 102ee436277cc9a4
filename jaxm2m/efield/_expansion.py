"""E as a sum of modes for any coil in any pose, with an estimate of what they cannot represent."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._pytree import tree
from jaxm2m.coil import Coil
from jaxm2m.efield import _basis_sources

# The residual at the held-out points, divided by E, is 0.3 to 2.5 times the error over the cover, and farther round the
# head, where it sees less and less of the error's cause, down to 0.2 times (benchmarks/basis.py).
CAUTION = 2.0  # what the residual is multiplied by to estimate the error
FADE = 30.0  # mm beyond the cover that double the caution
LIMIT = 0.01
BATCH_SIZE = 16  # poses: few enough for their spline taps to stay in the cache


class CoverageError(ValueError):
    """A pose or coil whose field a basis does not hold."""


@tree
class Expansion:
    """E as a sum of modes (`FieldSolver` of a `FieldMap`).

    Attributes
    ----------
    modes
        (rank, n_active, 3) V/m in world axes; before `pick` orthogonal with root mean square 1.
    fit_points, held_out
        (n_fit, 3), (n_held_out, 3) mm.
    around
        (3,) mm: the middle of the cover, on the scalp.
    expansion
        Z (rank, 3 n_fit).
    residual
        R (3 n_held_out, 3 n_fit): what the fit makes of dA/dt at the held-out points.
    limit
        Largest estimated relative error that is let pass.
    """

    modes: Float[Array, "rank active 3"]
    fit_points: Float[Array, "fit 3"]
    held_out: Float[Array, "held_out 3"]
    around: Float[Array, "3"]
    expansion: Float[Array, "rank fit_components"]
    residual: Float[Array, "held_out_components fit_components"]
    limit: Float[Array, ""]

    def batch_size(self) -> int:
        return BATCH_SIZE if jax.default_backend() == "cpu" else 1024

    def coefficients(self, coil: Coil, pose: Array, didt: Any) -> tuple[Array, Array]:
        """z (rank,) of a pose (4, 4), and the estimated relative error of E over the basis' whole region."""
        dtype = self.modes.dtype
        points = jnp.concatenate([self.fit_points, self.held_out])
        a = coils.vector_potential(coil, pose.astype(dtype), points, didt).astype(dtype)
        fitted, held_out = a[: len(self.fit_points)].ravel(), a[len(self.fit_points) :].ravel()
        z = self.expansion @ fitted
        left = jax.lax.stop_gradient(held_out - self.residual @ fitted)
        size = jax.lax.stop_gradient(z @ z)
        # no current, no error; NaN stays
        ratio = jnp.where(size == 0, 0, 3 * (left @ left) / left.size / jnp.where(size == 0, 1, size))
        away = jax.lax.stop_gradient(pose[:3, 3].astype(dtype) - self.around)
        beyond = jnp.maximum(jnp.sqrt(away @ away) - _basis_sources.COVER, 0)
        return z, CAUTION * (1 + (beyond / FADE) ** 2) * jnp.sqrt(ratio)

    def at(self, z: Float[Array, " rank"]) -> Float[Array, "active 3"]:
        """E (V/m) at the points."""
        # one row by a matrix that is read once, in the order it lies in memory: 20 times faster than by components
        return (z @ self.modes.reshape(len(z), -1)).reshape(-1, 3)

    def fields(self, coil: Coil, poses: Array, didt: Any, batch_size: int) -> tuple[Array, Array]:
        def one(pose):
            z, error = self.coefficients(coil, pose, didt)
            # also where the error is NaN; as a factor it reaches the derivatives, which a choice would make zero
            return self.at(z * jnp.where(error <= self.limit, 1, jnp.nan)), error

        if len(poses) == 1:
            return jax.tree.map(lambda x: x[None], one(poses[0]))
        return jax.lax.map(one, poses, batch_size=batch_size)

    def raise_for_status(self, report: Array) -> None:
        if _check.is_traced(report) or _check.is_traced(self.limit):
            return
        error, limit = np.asarray(report).ravel(), float(self.limit)
        outside = np.flatnonzero(~(error <= limit))
        if len(outside):
            worst = outside[np.argmax(np.nan_to_num(error[outside], nan=np.inf))]
            raise CoverageError(
                f"pose: {len(outside)} of {len(error)} poses are not covered by the basis (number {worst} with an "
                f"estimated error of {100 * error[worst]:.2g} %, limit {100 * limit:.2g} %): the coil is too close, "
                "too far round the head, or too small. Use a full solve for them (Simulator.bind), build a basis round "
                "another region, or raise `limit` in Basis.bind."
            )

    def pick(self, active: np.ndarray) -> "Expansion":
        return replace(self, modes=jnp.asarray(self.modes)[:, active])
