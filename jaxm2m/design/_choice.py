"""What the draws of a posterior say of many candidates at once: responses, values, and what is to be known."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m._precision import full_precision
from jaxm2m.design._information import whiten
from jaxm2m.muscle import Sources

LEAST = 0.5  # of the largest response, that a pose must keep to count as one that spares others
_NODES = 48
_NUMBERS, _TOP = 3, 16  # of what is to be known of a best pose; candidates that may be it


@jax.jit
@full_precision
def screen_moments(
    sources: Sources, features: Float[Array, "n bump"]
) -> tuple[Float[Array, "n draw muscle"], Float[Array, "n draw muscle"]]:
    """Compute mean and variance of log10 MEPs at candidates, for each draw, to a hundredth of a decade."""
    drive = _drive(sources, features)
    mean, variance = (_interpolate(drive, table) for table in sources.respond_log(_make_nodes(drive)))
    return mean, variance


@jax.jit
@full_precision
def screen_shares(sources: Sources, features: Float[Array, "n bump"]) -> Float[Array, "draw n muscle"]:
    """Compute the mean MEPs of each draw at candidates, as shares of the largest MEPs, to a percent."""
    drive = _drive(sources, features)
    response = jnp.exp(_interpolate(drive, jnp.log(sources.respond(_make_nodes(drive)))))
    return (response / sources.largest).swapaxes(0, 1)


def _drive(sources: Sources, features: Array) -> Array:
    return jnp.einsum("nb,dmb->ndm", features, sources.weights)


# many candidates share the curves of each draw: these are evaluated at a few drives, and read off between them
def _make_nodes(drive: Float[Array, "n draw muscle"]) -> Float[Array, "node draw muscle"]:
    return jnp.linspace(0, 1, _NODES, dtype=drive.dtype)[:, None, None] * drive.max(0)


def _interpolate(drive: Float[Array, "n draw muscle"], table: Float[Array, "node draw muscle"]) -> Array:
    at = drive / jnp.maximum(drive.max(0), jnp.finfo(drive.dtype).tiny) * (_NODES - 1)
    below = jnp.clip(at.astype(jnp.int32), 0, _NODES - 2)
    low, high = (jnp.take_along_axis(table, below + k, axis=0) for k in (0, 1))
    return low + (at - below) * (high - low)


def value_candidates(
    shares: Float[np.ndarray, "draw n muscle"], wanted: tuple[int, ...], spared: tuple[int, ...]
) -> Float[np.ndarray, "draw n"]:
    """Compute how good candidates are under each draw.

    The response of the wanted muscles; or their share in those and the spared ones, where they keep half of their
    largest.
    """
    answer = shares[:, :, list(wanted)].mean(-1)
    if not spared:
        return answer
    share = answer / (answer + shares[:, :, list(spared)].mean(-1))
    return np.where(answer >= LEAST * answer.max(1, keepdims=True), share, 0.0)


def find_hot_spots(sources: Sources, wanted: tuple[int, ...]) -> Float[np.ndarray, "draw muscle number"]:
    """Find what is to be known of a map: the centroid of each wanted muscle's density, whitened; zeros for others."""
    quantity = whiten(sources.centroids())
    interest = np.zeros_like(quantity)
    interest[:, list(wanted)] = quantity[:, list(wanted)]
    return interest


def find_best_poses(
    shares: Float[np.ndarray, "draw n muscle"], wanted: tuple[int, ...], spared: tuple[int, ...]
) -> Float[np.ndarray, "draw muscle number"]:
    """Find what is to be known of a best pose: how good the poses are that may be it.

    The first components of their values, whitened, for all muscles that it is about; zeros for others.
    """
    n_draw, _, n_muscle = shares.shape
    values = value_candidates(shares, wanted, spared)
    top = np.unique(np.concatenate([values.argmax(1), np.argsort(-values.mean(0), kind="stable")[:_TOP]]))
    left, size, _ = np.linalg.svd(values[:, top] - values[:, top].mean(0), full_matrices=False)
    scores = whiten(left[:, :_NUMBERS] * size[:_NUMBERS])
    interest = np.zeros((n_draw, n_muscle, scores.shape[1]))
    interest[:, list(wanted + spared)] = scores[:, None]
    return interest
