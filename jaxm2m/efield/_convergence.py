"""Solves that fail, told to people."""

import numpy as np

from jaxm2m import _check, fem


class ConvergenceError(RuntimeError):
    """A solve did not reach its tolerance."""


def raise_if_failed(stats: fem.Stats) -> None:
    """Raise what known statuses tell."""
    if _check.is_traced(stats.status):
        return
    status = np.asarray(stats.status).ravel()
    failed = np.flatnonzero(status != fem.CONVERGED)
    if len(failed):
        first = failed[0]
        raise ConvergenceError(
            f"{len(failed)} of {len(status)} solves failed; the first (number {first}) after "
            f"{np.asarray(stats.iterations).ravel()[first]} iterations, relative residual "
            f"{np.asarray(stats.residual).ravel()[first]:.2g}: {fem.MESSAGES[int(status[first])]}. "
            "Check the pose and the conductivities, or raise `tolerance`."
        )
