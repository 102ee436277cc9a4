"""What a trained model infers from data."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m.emg.lfads import _model
from jaxm2m.emg.lfads._model import LFADSConfig

_BATCH_SIZE = 512  # windows times samples that are decoded at once: memory is bounded, and small batches are not slow


@tree
class Posterior:
    """Inferred quantities, averaged over samples of the latent variables.

    Attributes
    ----------
    rates
        (batch, time, channels) expected data: the muscle activation.
    factors
        (batch, time, factors) that the data are read out from.
    inputs
        (batch, time, inputs) u(t) of the generator.
    start
        (batch, generator) the generator's initial state.
    """

    rates: Float[Array, "batch time channel"]
    factors: Float[Array, "batch time factor"]
    inputs: Float[Array, "batch time input"]
    start: Float[Array, "batch unit"]


@partial(jax.jit, static_argnames="config")
def posterior_means(params: PyTree, config: LFADSConfig, data: Float[Array, "batch time channel"]) -> Posterior:
    """Infer with all latent variables at their means, in one pass.

    Parameters
    ----------
    params, config
        The model.
    data
        Windows (batch, time, channels) without margins, in the unit of the training data.

    Returns
    -------
    Posterior
        Rates, factors, inputs and initial states.
    """
    return _decode_code(
        params, config, _model.encode(params, config, _model.prepare_inputs(params, config, data)), None
    )


def posterior(
    params: PyTree,
    config: LFADSConfig,
    data: Float[Array, "batch time channel"],
    key: Key[Array, ""],
    samples: int = 200,
) -> Posterior:
    """Infer means over samples of the latent variables; the encoders run once.

    Parameters
    ----------
    params, config
        The model.
    data
        Windows (batch, time, channels) without margins, in the unit of the training data. Memory grows with their
        number: pass many in parts.
    key
        Draws the samples.
    samples
        Number of samples (the paper's 200).

    Returns
    -------
    Posterior
        Rates, factors, inputs and initial states.

    Raises
    ------
    TypeError, ValueError
        `samples` is not a whole number above zero.
    """
    return _sample_posterior(params, config, data, key, _check.integer(samples, "samples"))


@partial(jax.jit, static_argnames=("config", "samples"))
def _sample_posterior(params: PyTree, config: LFADSConfig, data: Array, key: Array, samples: int) -> Posterior:
    batch, time, _ = data.shape
    code = _model.encode(params, config, _model.prepare_inputs(params, config, data))
    batch_size = max(1, min(samples, _BATCH_SIZE // batch))

    def one(number: Array) -> Posterior:
        noise = _model.draw_noise(jax.random.fold_in(key, number), config, batch, time)
        out = _decode_code(params, config, code, noise)
        # the last part may be larger than what is left
        return jax.tree.map(lambda a: jnp.where(number < samples, a / samples, 0), out)

    def part(i: Array, total: Posterior) -> Posterior:
        several = jax.vmap(one)(i * batch_size + jnp.arange(batch_size))
        return jax.tree.map(lambda a, b: a + b.sum(0), total, several)

    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(one, jnp.zeros((), jnp.int32)))
    return jax.lax.fori_loop(0, -(-samples // batch_size), part, nothing)


def _decode_code(
    params: PyTree, config: LFADSConfig, code: dict[str, Array], noise: dict[str, Array] | None
) -> Posterior:
    out = _model.decode(params, config, code, noise)
    return Posterior(
        rates=config.observation.mean(out["raw"]).swapaxes(0, 1),
        factors=out["factors"].swapaxes(0, 1),
        inputs=out["mean"].swapaxes(0, 1),
        start=out["start"],
    )
