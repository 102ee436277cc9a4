"""What a trained model infers from data."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from jaxm2m import _check
from jaxm2m._tree import tree
from jaxm2m.emg import _model
from jaxm2m.emg._model import Sizes

_TOGETHER = 512  # windows times samples that are decoded at once: memory is bounded, and small batches are not slow


@tree
class Posterior:
    """What was inferred, averaged over samples of the latent variables.

    Attributes
    ----------
    rates
        (batch, time, channels) expected data: the muscle activation.
    factors
        (batch, time, factors)
    inputs
        (batch, time, inputs) u(t) of the generator.
    start
        (batch, generator) the generator's initial state.
    """

    rates: Float[Array, "batch time channel"]
    factors: Float[Array, "batch time factor"]
    inputs: Float[Array, "batch time input"]
    start: Float[Array, "batch unit"]


@partial(jax.jit, static_argnames="sizes")
def posterior_means(params: PyTree, sizes: Sizes, data: Float[Array, "batch time channel"]) -> Posterior:
    """One pass with all latent variables at their means.

    Parameters
    ----------
    params, sizes
        The model.
    data
        Windows, without margins.
    """
    return _decoded(params, sizes, _model.encode(params, sizes, _model.encoded(params, sizes, data)), None)


def posterior(
    params: PyTree, sizes: Sizes, data: Float[Array, "batch time channel"], key: Key[Array, ""], samples: int = 200
) -> Posterior:
    """Means over samples of the latent variables; the encoders run once.

    Parameters
    ----------
    params, sizes
        The model.
    data
        Windows, without margins. Memory grows with their number: pass many in parts.
    key
        Random.
    samples
        How many (the paper's 200).

    Raises
    ------
    TypeError, ValueError
        `samples` is not a whole number above zero.
    """
    return _sampled(params, sizes, data, key, _check.integer(samples, "samples"))


@partial(jax.jit, static_argnames=("sizes", "samples"))
def _sampled(params: PyTree, sizes: Sizes, data: Array, key: Array, samples: int) -> Posterior:
    batch, time, _ = data.shape
    code = _model.encode(params, sizes, _model.encoded(params, sizes, data))
    together = max(1, min(samples, _TOGETHER // batch))

    def one(number: Array) -> Posterior:
        noise = _model.draw_noise(jax.random.fold_in(key, number), sizes, batch, time)
        out = _decoded(params, sizes, code, noise)
        # the last part may be larger than what is left
        return jax.tree.map(lambda a: jnp.where(number < samples, a / samples, 0), out)

    def part(i: Array, total: Posterior) -> Posterior:
        several = jax.vmap(one)(i * together + jnp.arange(together))
        return jax.tree.map(lambda a, b: a + b.sum(0), total, several)

    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(one, jnp.zeros((), jnp.int32)))
    return jax.lax.fori_loop(0, -(-samples // together), part, nothing)


def _decoded(params: PyTree, sizes: Sizes, code: dict[str, Array], noise: dict[str, Array] | None) -> Posterior:
    out = _model.decode(params, sizes, code, noise)
    return Posterior(
        rates=sizes.observation.mean(out["raw"]).swapaxes(0, 1),
        factors=out["factors"].swapaxes(0, 1),
        inputs=out["mean"].swapaxes(0, 1),
        start=out["start"],
    )
