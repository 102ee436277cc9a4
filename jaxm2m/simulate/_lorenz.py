"""EMG that follows Lorenz's attractor."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m.simulate._simulated import SimulatedEMG, count_bins, draw_emg, draw_signs


def lorenz_emg(
    key: Key[Array, ""],
    *,
    trials: int = 200,
    conditions: int = 10,
    duration: float | int = 1.0,
    channels: int = 12,
    sfreq: float | int = 500.0,
    speed: float | int = 5.0,
    pulses: float | int = 1.0,
    modulation: float | int = 0.7,
    shape: float | int = 1.5,
) -> SimulatedEMG:
    """Simulate EMG that follows Lorenz's attractor, which brief inputs push at random times.

        dx/dt = c [10 (y - x)] + u,   dy/dt = c [x (28 - z) - y],   dz/dt = c [x y - 8/3 z]
        log m_j = b_j + w_j . s,      s = (x/7.9, y/9.0, (z - 23.5)/8.6)

    Rows w_j are random, of length `modulation`; b_j makes the mean of m_j about 1. The trials of a condition begin at
    the same state; each has inputs of its own, half-sine pulses of 20 ms which in all move x by -8 or 8.

    Parameters
    ----------
    key
        All randomness follows from it.
    trials, conditions
        Numbers of trials and conditions; trial i is of condition i modulo `conditions`.
    duration
        Duration of a trial, s.
    channels
        Number of muscles.
    sfreq
        Sampling rate, Hz.
    speed
        c, Lorenz's time units per second: one loop takes some 0.75 / c s.
    pulses
        Mean number of inputs per second.
    modulation
        Standard deviation of log m.
    shape
        Shape parameter a of the gamma distribution. Rectified EMG at 500 Hz has 0.6 to 2.

    Returns
    -------
    SimulatedEMG
        EMG with `state` (x, y, z), one input (u, in units of x per second), no behaviour.

    Notes
    -----
    E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20, 130 (1963), as a test of inferred dynamics after
    D. Sussillo et al., LFADS, arXiv 1608.06315 (2016).


    Examples
    --------
    >>> import jax
    >>> import jaxm2m as jm
    >>> simulated = jm.simulate.lorenz_emg(jax.random.key(0), trials=4, conditions=2, channels=3)
    >>> simulated.emg.shape, simulated.mean.shape
    ((4, 500, 3), (4, 500, 3))
    """
    n_time, dt = count_bins(duration, sfreq, trials, conditions, channels)
    _check.positive(speed, "speed")
    _check.positive(pulses, "pulses", zero=True)
    _check.positive(modulation, "modulation")
    _check.positive(shape, "shape")
    return _lorenz_emg(key, trials, conditions, n_time, channels, dt, float(speed), pulses, modulation, shape)


@partial(jax.jit, static_argnums=range(1, 7))
def _lorenz_emg(key, trials, conditions, n_time, channels, dt, speed, pulses, modulation, shape):
    k_normal, k_pulse, k_noise = jax.random.split(key, 3)
    normal = jax.random.normal(k_normal, (conditions + channels, 3))
    condition = jnp.arange(trials) % conditions

    width = max(2, round(0.02 / dt))
    kernel = jnp.sin(jnp.pi * (jnp.arange(width) + 0.5) / width)
    kernel = 8 * kernel / (kernel.sum() * dt)
    strikes = draw_signs(k_pulse, pulses * dt, (trials, n_time))
    inputs = jax.vmap(lambda v: jnp.convolve(v, kernel)[:n_time])(strikes)

    # points on the attractor: what is left of random ones after 10 of Lorenz's time units
    start = 8 * normal[:conditions] + jnp.array([0.0, 0.0, 24.0])
    still = jnp.zeros((1000, conditions))
    start = _lorenz(start, still, 0.01, 1.0)[-1]
    # several steps of the solver a bin, so that fast dynamics stay accurate
    fine = max(1, math.ceil(speed * dt / 0.01))
    driven = jnp.repeat(inputs.T, fine, axis=0)
    path = _lorenz(start[condition], driven, dt / fine, speed)
    state = jnp.moveaxis(path[::fine], 0, 1)

    rows = normal[conditions:]
    rows = modulation * rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)
    scaled = (state - jnp.array([0.0, 0.0, 23.5])) / jnp.array([7.9, 9.0, 8.6])
    mean = jnp.exp(scaled @ rows.T - 0.5 * modulation**2)
    return draw_emg(k_noise, mean, shape, dt, state, inputs[..., None], condition)


def _lorenz(start, inputs, dt, speed):
    """Path (n_step, n, 3) from start (n, 3) under inputs (n_step, n), by the classical Runge-Kutta method."""

    def slope(s, u):
        x, y, z = s[..., 0], s[..., 1], s[..., 2]
        return jnp.stack([speed * 10 * (y - x) + u, speed * (x * (28 - z) - y), speed * (x * y - 8 / 3 * z)], axis=-1)

    def step(s, u):
        a = slope(s, u)
        b = slope(s + dt / 2 * a, u)
        c = slope(s + dt / 2 * b, u)
        d = slope(s + dt * c, u)
        return s + dt / 6 * (a + 2 * b + 2 * c + d), s

    return jax.lax.scan(step, start, inputs)[1]
