"""Preconditioned conjugate gradients for one or many right-hand sides, with an honest account of convergence."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CONVERGED, MAX_ITERATIONS, NOT_FINITE = 0, 1, 2
MESSAGES = {
    CONVERGED: "converged",
    MAX_ITERATIONS: "the residual stayed above the tolerance within the allowed iterations",
    NOT_FINITE: "the right-hand side or the operator holds values that are not finite",
}
RESTARTS = 4  # recomputed residuals before giving up on the tolerance


class Stats(NamedTuple):
    """What a solve did, one entry for each right-hand side.

    Attributes
    ----------
    iterations
        (...) number of iterations.
    residual
        (...) ||b - K x|| / ||b||, recomputed from the solution.
    status
        (...) `CONVERGED`, `MAX_ITERATIONS` or `NOT_FINITE`; `MESSAGES` says what they mean.
    """

    iterations: Int[Array, "*batch"]
    residual: Float[Array, "*batch"]
    status: Int[Array, "*batch"]


def conjugate_gradient(
    operator: Callable[[Any], Any],
    exact: Callable[[Any, Any], Any],
    preconditioner: Callable[[Any], Any],
    project: Callable[[Any], Any],
    inner: Callable[[Any, Any], Any],
    b: Float[Array, "..."],
    tolerance: Float[Array, ""] | float,
    max_iterations: int,
) -> tuple[Float[Array, "..."], Float[Array, "..."], Stats]:
    """Solve K x = b to ||b - K x|| <= tolerance ||b|| for symmetric positive (semi)definite K.

    The recurrence's residual drifts from the true one in float32: it is recomputed when the recurrence says that it
    has converged, and the iteration starts again from there if it has not. On a fine grid the mere rounding of x to
    float32 leaves more than 1e-5 of the load; so x is kept as a sum of two numbers, x + remainder, and
    `exact(x, remainder)` evaluates K of that sum (from differences of neighbours, which are exact, instead of a sum
    over the neighbours).

    K may have a null space if `project` removes it: rounding puts a little of it into every residual, no step takes it
    out again, and once it dominates a direction p, the rounding of K p makes p.Kp negative. (On a head of 1 mm that is
    after 15 iterations. Directions need no projection of their own: they get it from the residuals.)

    `inner` is the inner product over the unknowns; it keeps their axes, at length 1, so that it scales what it is of.

    Members of a batch stop on their own: a member that has converged takes steps of length zero, so that its solution
    does not depend on its neighbours.

    Returns
    -------
    x, the remainder, and `Stats`, whose entries keep the unknowns' axes too.
    """

    def divide(a, c):
        return jnp.where(c > 0, a / jnp.where(c > 0, c, 1), 0)

    target = (tolerance**2 * inner(b, b)).astype(b.dtype)

    def step(state):
        # the preconditioner comes first: it stands in the program once, and the last step does not apply it in vain
        x, r, p, rz, running, count = state
        z = preconditioner(r)
        rz, last = inner(r, z), rz
        p = z + divide(rz, last) * p
        q = jax.lax.optimization_barrier(operator(p))  # two results need it, and each would compute it
        curvature = inner(p, q)
        running = running & (rz > 0) & (curvature > 0)
        alpha = jnp.where(running, divide(rz, curvature), 0)
        x = x + alpha * p
        r = project(r - alpha * q)
        count = count + running
        running = running & (inner(r, r) > target) & (count < max_iterations)
        return x, r, p, rz, running, count

    def sweep(state):
        x, remainder, r, count, running, sweeps = state
        start = (jnp.zeros_like(x), r, jnp.zeros_like(x), jnp.zeros_like(size), running, count)
        dx, _, _, _, _, count = jax.lax.while_loop(lambda s: jnp.any(s[4]), step, start)
        total = x + dx
        remainder = remainder + (dx - (total - x))
        r = project(b - exact(total, remainder))
        running = running & (inner(r, r) > target) & (count < max_iterations) & (sweeps + 1 < RESTARTS)
        return total, remainder, r, count, running, sweeps + 1

    size = inner(b, b)
    zero = jnp.zeros_like(b)
    state = (zero, zero, b, jnp.zeros(size.shape, jnp.int32), size > 0, jnp.int32(0))
    x, remainder, r, count, _, _ = jax.lax.while_loop(lambda s: jnp.any(s[4]), sweep, state)
    left = inner(r, r)
    finite = jnp.isfinite(size) & jnp.isfinite(left)
    status = jnp.where(finite, jnp.where(left <= target, CONVERGED, MAX_ITERATIONS), NOT_FINITE)
    residual = jnp.where(finite, jnp.sqrt(divide(left, size)), jnp.nan)
    return x, remainder, Stats(count, residual, status.astype(jnp.int32))
