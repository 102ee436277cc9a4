"""What a posterior says of many candidates at once: responses, values, and what is to be known."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m._precision import full_precision
from jaxm2m.design._information import Interest
from jaxm2m.muscle import LinearPosterior, Sources

LEAST = 0.5  # of the largest response, that a pose must keep to count as one that spares others
_NODES = 48
_NUMBERS, _TOP = 3, 16  # of what is to be known of a best pose; candidates that may be it, twice
_TINY = 1e-12  # of a variance: a quantity that is known


@jax.jit
@full_precision
def screen_shares(sources: Sources, features: Float[Array, "n bump"]) -> Float[Array, "draw n muscle"]:
    """Compute the mean MEPs of each draw at candidates, as shares of the largest MEPs, to a percent."""
    drive = jnp.einsum("nb,dmb->ndm", features, sources.weights)
    # many candidates share the curves of each draw: these are evaluated at a few drives, and read off between them
    nodes = jnp.linspace(0, 1, _NODES, dtype=drive.dtype)[:, None, None] * drive.max(0)
    table = jnp.log(sources.respond(nodes))
    at = drive / jnp.maximum(drive.max(0), jnp.finfo(drive.dtype).tiny) * (_NODES - 1)
    below = jnp.clip(at.astype(jnp.int32), 0, _NODES - 2)
    low, high = (jnp.take_along_axis(table, below + k, axis=0) for k in (0, 1))
    return (jnp.exp(low + (at - below) * (high - low)) / sources.largest).swapaxes(0, 1)


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


def find_hot_spots(posterior: LinearPosterior, wanted: tuple[int, ...]) -> Interest:
    """Find what is to be known of a map: the centroid of each wanted muscle's density."""
    slopes = posterior.centroid_slopes()
    spread = posterior.spread(slopes)
    directions = np.zeros_like(spread)
    for m in wanted:
        directions[m] = _whiten(spread[m] @ slopes[m].T) @ spread[m]
    return Interest(jnp.asarray(directions, posterior.weights.dtype), False)


def find_best_poses(
    posterior: LinearPosterior,
    features: Float[Array, "n bump"],
    shares: Float[np.ndarray, "draw n muscle"],
    largest: Float[Array, " muscle"],
    wanted: tuple[int, ...],
    spared: tuple[int, ...],
) -> Interest:
    """Find what is to be known of a best pose: how much better one is than others, of those that may be it.

    The first components of the logarithms of their values, for all muscles that it is about.
    """
    values = value_candidates(shares, wanted, spared)
    top = _pick_candidates(values)
    mean, _, slope = (np.asarray(a, np.float64) for a in _respond(posterior, features[top]))
    answer = 10**mean / np.asarray(largest, np.float64)
    by_muscle = np.zeros_like(mean)  # of the logarithm of the value, in log10 MEPs
    by_muscle[:, list(wanted)] = answer[:, list(wanted)] / answer[:, list(wanted)].sum(1, keepdims=True)
    if spared:
        other = answer[:, list(spared)].sum(1, keepdims=True)
        lost = other / (other + answer[:, list(wanted)].sum(1, keepdims=True))
        by_muscle[:, list(wanted)] *= lost
        by_muscle[:, list(spared)] = -lost * answer[:, list(spared)] / other
    # what all of them gain or lose tells of none
    slopes = np.moveaxis(by_muscle[..., None] * slope, 0, 1)
    slopes -= slopes.mean(1, keepdims=True)
    spread = posterior.spread(slopes)
    covariance = np.einsum("mqn,mpn->qp", spread, slopes)
    directions = np.einsum("qp,mpn->mqn", _whiten(covariance)[-_NUMBERS:], spread)
    return Interest(jnp.asarray(directions, posterior.weights.dtype), True)


def _pick_candidates(values: Float[np.ndarray, "draw n"]) -> np.ndarray:
    """Indices of the candidates that are best on the average, and of those that are most often; as many each time."""
    often = np.bincount(values.argmax(1), minlength=values.shape[1])
    return np.concatenate([np.argsort(-rank, kind="stable")[:_TOP] for rank in (values.mean(0), often)])


def _whiten(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Rows that make a quantity's components of variance 1, the largest last; zeros for what does not vary."""
    variance, axes = np.linalg.eigh(covariance)
    usable = variance > _TINY * max(1.0, float(variance.max(initial=0)))
    return np.where(usable, axes / np.sqrt(np.where(usable, variance, 1)), 0).T


_respond = jax.jit(lambda posterior, features: posterior.respond(features))
