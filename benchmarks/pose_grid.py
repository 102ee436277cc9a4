"""All poses of a grid on the scalp, for searches to be held against."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxm2m as jm


def problem(field, objective, coil, scalp, didt=1e6):
    """What `placement.optimize` makes of its arguments."""
    scalp = jax.tree.map(jnp.asarray, scalp)
    return jm.placement.make_problem(field, objective, coil=coil, scalp=scalp, didt=didt)


def places(problem, scalp, target, radius, step, angle):
    """Tangential places on a disc of the scalp (n, 4, 4): positions x angles."""
    start = jm.coil.place(scalp, target, (-1, -1, 0), 0.0)
    ticks = np.arange(-np.floor(radius / step), np.floor(radius / step) + 1) * step
    x, y = (a.ravel() for a in np.meshgrid(ticks, ticks, indexing="ij"))
    inside = np.hypot(x, y) <= radius + 1e-9
    turns = np.radians(np.arange(0, 360, angle)) * jm.placement.SearchProblem.lever
    steps = np.array([(a, b, t) for a, b in zip(x[inside], y[inside], strict=True) for t in turns], np.float32)
    # across first, then turned where it stands, as a grid search does
    one = jax.jit(
        lambda s: problem.move(
            problem.move(start, jnp.zeros(0), s * jnp.array([1, 1, 0]))[0], jnp.zeros(0), s * jnp.array([0, 0, 1])
        )[0]
    )
    return int(inside.sum()), len(turns), jax.lax.map(one, jnp.asarray(steps), batch_size=64)


@jax.jit
def values(problem, bases):
    def one(base):
        pose, didt = problem.place(base, jnp.zeros(0))
        return problem.objective(problem.field(pose, didt=didt)), pose

    return jax.lax.map(one, bases, batch_size=problem.field.solver.batch_size())
