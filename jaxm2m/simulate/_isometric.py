"""EMG of a forearm in an isometric task, and its force."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m.simulate._mechanics import springs, twitch
from jaxm2m.simulate._simulated import SimulatedEMG, count_bins, draw_emg


def isometric_emg(
    key: Key[Array, ""],
    *,
    trials: int = 160,
    conditions: int = 8,
    before: float | int = 0.5,
    after: float | int = 1.5,
    sfreq: float | int = 500.0,
    oscillation: float | int = 20.0,
    strength: float | int = 0.7,
    jitter: float | int = 0.02,
    shape: float | int = 1.5,
) -> SimulatedEMG:
    """Simulate EMG of a forearm in an isometric wrist task, with oscillations that the muscles share.

    There are fourteen channels. The target appears after `before` s; the drive d (two directions) sets in some 0.2 s
    later, goes to the target g and a little beyond it, and holds. Flexion (g_x > 0) kicks an oscillator o of frequency
    f that dies away in 80 ms:

        d^2 d/dt^2 = w^2 (g(t) - d) - 2 0.7 w d d/dt,          w = 2 pi 3 Hz
        d^2 o/dt^2 = -(2 pi f)^2 o - (2 / 0.08) do/dt + kick
        p = d + 2 / w dd/dt
        m_j = [0.2 + log(1 + exp(3 (p . n_j - 0.5)))] exp(strength h_j o),   h_j = max(n_jx, 0)

    Drive and rate make a phasic and a tonic part; n_j is the direction in which muscle j pulls. The force is the sum of
    n_j m_j through a critically damped twitch of 40 ms, so that dF/dt oscillates with the flexors.

    Parameters
    ----------
    key
        All randomness follows from it.
    trials, conditions
        Numbers of trials and conditions; trial i is of condition (target) i modulo `conditions`. Targets lie on a
        circle, the first to the right (flexion).
    before, after
        Extent of a trial around the appearance of the target, s; `after` at least 0.5.
    sfreq
        Sampling rate, Hz.
    oscillation
        Frequency f of the oscillation, Hz. Each trial's differs by some 5 % (standard deviation).
    strength
        Height of the first swing of log m; 0 for none.
    jitter
        Standard deviation of the onset, s.
    shape
        Shape parameter a of the gamma distribution.

    Returns
    -------
    SimulatedEMG
        EMG with `state` (d_x, d_y, their rates / w, o, its rate / (2 pi f)), inputs (g_x, g_y, kick in 1/s^2), `onset`,
        and "force x", "force y" (a unit of its own), "rate x", "rate y" (dF/dt, per s) as behaviour.

    Notes
    -----
    The task, muscles and 10-50 Hz oscillations: L. N. Wimalasena et al., J. Neural Eng. 19, 036013 (2022). Numbers are
    made up.

    """
    _check.positive(before, "before")
    if float(_check.positive(after, "after")) < 0.5:
        raise ValueError(f"after: {after:g} s; the drive sets in 0.2 s after the target: take at least 0.5.")
    n_time, dt = count_bins(float(before) + float(after), sfreq, trials, conditions, 1)
    if not 0 < float(oscillation) < float(sfreq) / 4:
        raise ValueError(f"oscillation: {oscillation:g} Hz at {sfreq:g} Hz; it must be below a quarter of that.")
    _check.positive(strength, "strength", zero=True)
    _check.positive(jitter, "jitter", zero=True)
    _check.positive(shape, "shape")
    return _isometric_emg(key, trials, conditions, n_time, dt, before, oscillation, strength, jitter, shape)


@partial(jax.jit, static_argnums=range(1, 5))
def _isometric_emg(key, trials, conditions, n_time, dt, before, oscillation, strength, jitter, shape):
    k_normal, k_noise = jax.random.split(key)
    normal = jax.random.normal(k_normal, (4, trials))
    condition = jnp.arange(trials) % conditions
    delay = 0.2 + jitter * jnp.clip(normal[0], -3, 3)
    # on a bin, so that the onset that is told is the one that happened
    first = jnp.round((before + jnp.maximum(delay, 0)) / dt)
    onset = first * dt
    angle = 2 * jnp.pi * condition / conditions
    distance = 1 + 0.05 * normal[1][:, None]
    goal = distance * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    on = jnp.arange(n_time) >= first[:, None]
    target = jnp.where(on[..., None], goal[:, None], 0.0)

    frequency = oscillation * (1 + 0.05 * jnp.clip(normal[2], -2, 2))
    omega = 2 * jnp.pi * frequency
    height = jnp.maximum(goal[:, 0], 0) * (1 + 0.2 * normal[3])
    since = (jnp.arange(n_time) - first[:, None] - round(0.03 / dt)) * dt
    kick = jnp.where(jnp.abs(since) < dt / 2, (height * omega)[:, None] / dt, 0.0)

    drive, speed, _ = springs(target * (2 * math.pi * 3) ** 2, dt, 2 * math.pi * 3, 0.7)
    swing, rate = _ringing(jnp.maximum(since, 0), omega[:, None], 1 / 0.08)
    swing, rate = height[:, None] * swing, jnp.where(since < 0, 0, height[:, None] * rate)
    pull = jnp.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in _FOREARM.values()])
    burst = drive + 2 * speed / (2 * math.pi * 3)
    tonic = 0.2 + jax.nn.softplus(3 * (burst @ pull.T - 0.5))
    mean = tonic * jnp.exp(strength * swing[..., None] * jnp.maximum(pull[:, 0], 0))
    tension = twitch(mean - mean[:, :1], dt, 0.04)
    force = tension @ pull / 8
    gradient = jnp.asarray(jnp.gradient(force, dt, axis=1))
    state = jnp.concatenate([drive, speed / (2 * math.pi * 3), swing[..., None], rate[..., None]], -1)
    return draw_emg(
        k_noise,
        mean,
        shape,
        dt,
        state,
        jnp.concatenate([target, kick[..., None]], -1),
        condition,
        jnp.concatenate([force, gradient], -1),
        ("force x", "force y", "rate x", "rate y"),
        tuple(_FOREARM),
        onset=onset,
    )


# direction of pull, degrees: 0 flexion, 90 radial
_FOREARM = {
    "FCR": 30.0,
    "FCU": -40.0,
    "FDP 1": -10.0,
    "FDP 2": -20.0,
    "FDS 1": 10.0,
    "FDS 2": 0.0,
    "EDC": 170.0,
    "ECU": 220.0,
    "ECR": 130.0,
    "PL": 15.0,
    "PT": 55.0,
    "APB": 80.0,
    "FPL": -65.0,
    "BR": 100.0,
}


def _ringing(time, w, decay):
    """Position and velocity / w of an oscillator of angular frequency w, at rest until it gets velocity w at time 0.

    Its swings die away at rate `decay`.
    """
    damped = jnp.sqrt(w**2 - decay**2)
    wave, envelope = jnp.sin(damped * time), jnp.exp(-decay * time)
    return w / damped * envelope * wave, envelope * (jnp.cos(damped * time) - decay / damped * wave)
