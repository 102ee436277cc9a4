"""Rectified EMG with its truth: gamma variates about a known mean.

y ~ Gamma(shape a, rate a / m),    mean m, the muscle activation, variance m^2 / a.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxm2m import _check
from jaxm2m._pytree import tree


@tree
class SimulatedEMG:
    """Rectified EMG with everything it came from.

    Attributes
    ----------
    emg : (n_trial, n_time, n_channel) array
        Rectified EMG, above zero.
    mean : (n_trial, n_time, n_channel) array
        The true activation, in the same unit.
    shape : (n_channel,) array
        Shape parameter a of the gamma distributions: the signal-to-noise ratio m^2 / variance.
    state : (n_trial, n_time, n_state) array
        Latent state.
    inputs : (n_trial, n_time, n_input) array
        What drove the state.
    behaviour : (n_trial, n_time, n_variable) array
        What the muscles did; no variable for Lorenz's dynamics.
    condition : (n_trial,) int array
        Condition of each trial.
    stance : (n_trial, n_time) bool array
        Whether the foot is on the ground; all False where nobody walks.
    onset : (n_trial,) array
        When the drive sets in, s from the first bin; NaN where nothing does.
    sfreq : array
        Sampling rate, Hz.
    names : tuple of str
        Names of the variables of the behaviour.
    channels : tuple of str
        Names of the channels (muscles).
    """

    emg: Float[Array, "n_trial n_time n_channel"]
    mean: Float[Array, "n_trial n_time n_channel"]
    shape: Float[Array, " n_channel"]
    state: Float[Array, "n_trial n_time n_state"]
    inputs: Float[Array, "n_trial n_time n_input"]
    behaviour: Float[Array, "n_trial n_time n_variable"]
    condition: Int[Array, " n_trial"]
    stance: Bool[Array, "n_trial n_time"]
    onset: Float[Array, " n_trial"]
    sfreq: Float[Array, ""]
    names: tuple[str, ...]
    channels: tuple[str, ...]

    def pick(self, *names: str) -> Float[Array, "n_trial n_time n_picked"]:
        """Return some variables of the behaviour.

        Parameters
        ----------
        *names
            Names of the variables.

        Returns
        -------
        array
            (n_trial, n_time, n_picked), each in the unit that its generator states.

        Raises
        ------
        ValueError
            A name that the behaviour does not have.
        """
        for name in names:
            _check.option(name, self.names, "names")
        return self.behaviour[..., jnp.array([self.names.index(n) for n in names], int)]


def count_bins(duration, sfreq, trials, conditions, channels) -> tuple[int, float]:
    """Return the bins of a trial, and their width in s."""
    for value, name in ((trials, "trials"), (conditions, "conditions"), (channels, "channels")):
        _check.integer(value, name)
    rate = float(_check.positive(sfreq, "sfreq"))
    n_time = round(float(_check.positive(duration, "duration")) * rate)
    if n_time < 2:
        raise ValueError(f"duration: {duration:g} s hold {n_time} bins at {rate:g} Hz; take longer trials.")
    return n_time, 1 / rate


def draw_signs(key, chance, size):
    """Draw 1 or -1, each with half of the chance, or 0."""
    drawn = jax.random.uniform(key, size)
    return jnp.where(drawn < chance / 2, 1.0, jnp.where(drawn < chance, -1.0, 0.0))


def draw_emg(
    key, mean, shape, dt, state, inputs, condition, behaviour=None, names=(), channels=None, stance=None, onset=None
):
    """Draw EMG about `mean` (trial, time, channel) and put it together with its truth; see `SimulatedEMG`."""
    emg = _gamma(key, shape, mean.shape, mean.dtype) * mean / shape
    trials, n_time = mean.shape[:2]
    return SimulatedEMG(
        # small shapes draw zeros, which have no logarithm
        jnp.maximum(emg, jnp.asarray(1e-6, mean.dtype)),
        mean,
        jnp.full(mean.shape[-1:], shape, mean.dtype),
        state,
        inputs,
        jnp.zeros((trials, n_time, 0), mean.dtype) if behaviour is None else behaviour,
        condition,
        jnp.zeros((trials, n_time), bool) if stance is None else stance,
        jnp.full(trials, jnp.nan, mean.dtype) if onset is None else onset,
        jnp.asarray(1 / dt, mean.dtype),
        tuple(names),
        tuple(str(i + 1) for i in range(mean.shape[-1])) if channels is None else channels,
    )


def _gamma(key, shape, size, dtype):
    """Draw standard gamma variates, all at once: `jax.random.gamma` draws one by one on CPUs.

    Marsaglia and Tsang's rejection, for shape + 1, and x U^(1/shape) of what it gives, which is right for all shapes: A
    simple method for generating gamma variables, ACM Trans. Math. Softw. 26, 363 (2000).
    """
    d = shape + 2 / 3
    c = 1 / jnp.sqrt(9 * d)

    def propose(carry):
        value, missing, i = carry
        # one draw for all three numbers, since each call compiles anew
        drawn = jax.random.uniform(jax.random.fold_in(key, i), (3, *size), dtype, minval=jnp.finfo(dtype).tiny)
        x = math.sqrt(2) * jax.lax.erf_inv(2 * drawn[0] - 1)
        v = (1 + c * x) ** 3
        safe = jnp.where(v > 0, v, 1)
        good = (v > 0) & (jnp.log(drawn[1]) < 0.5 * x * x + d * (1 - v + jnp.log(safe)))
        return jnp.where(missing & good, d * v * drawn[2] ** (1 / shape), value), missing & ~good, i + 1

    start = (jnp.ones(size, dtype), jnp.ones(size, bool), 0)
    return jax.lax.while_loop(lambda carry: carry[1].any(), propose, start)[0]
