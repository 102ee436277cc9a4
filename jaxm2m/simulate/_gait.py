"""EMG of a hindlimb that walks, and its joints."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m.simulate._mechanics import springs, twitch
from jaxm2m.simulate._simulated import SimulatedEMG, count_bins, draw_emg, draw_signs


def gait_emg(
    key: Key[Array, ""],
    *,
    trials: int = 12,
    duration: float | int = 5.0,
    conditions: int = 3,
    sfreq: float | int = 500.0,
    stance: float | int = 0.52,
    swing: float | int = 0.155,
    variability: float | int = 0.1,
    perturbations: float | int = 0.3,
    shape: float | int = 1.5,
) -> SimulatedEMG:
    """Simulate EMG of the twelve muscles of a rat's hindlimb that walks on a treadmill, and the joints they move.

    An oscillator with phase p (stance: 0 to pi, swing: pi to 2 pi) and amplitude r,

        dp/dt = (1 + u_p) pi / T_phase,   dr/dt = 8 (1 - r) + u_r,

    runs through stance in T_stance and through swing in T_swing; condition c (belt speed) divides T_stance by
    1 + c/4. u_p fluctuates (an Ornstein-Uhlenbeck process of 0.2 s, sd `variability`), u_r makes brief pushes of +-0.3.
    Muscle j bursts at phase q_j, measured in time within the stride,

        m_j = 0.15 + 2 r exp(k_j (cos(2 pi (f - f_j)) - 1)),    f: share of the stride that has gone by,

    and its tension, m_j passed through a critically damped twitch of 20 ms, turns hip, knee and ankle:

        d^2 angle / dt^2 = torque - 2 g w d angle / dt - w^2 (angle - rest),   w = 2 pi 3 Hz, g = 0.6.

    Parameters
    ----------
    key
        All randomness follows from it.
    trials
        Number of trials; trial i is of condition i modulo `conditions`.
    duration
        Duration of a trial, s.
    conditions
        Number of conditions.
    sfreq
        Sampling rate, Hz.
    stance, swing
        Durations in the slowest condition, s: those of the source's rat.
    variability
        Standard deviation of the relative speed.
    perturbations
        Mean number of pushes per second.
    shape
        Shape parameter a of the gamma distribution.

    Returns
    -------
    SimulatedEMG
        EMG with `state` (r cos p, r sin p), inputs (u_p, u_r), `stance`, and as behaviour "hip", "knee", "ankle" (rad),
        "hip velocity" ... (rad/s), "hip acceleration" ... (rad/s^2), and "forward", where the foot is before the pelvis
        (mm): it goes back with the belt in stance, from 40 to -40.

    Notes
    -----
    Muscles, durations and the variables that are decoded: L. N. Wimalasena et al., J. Neural Eng. 19, 036013 (2022).
    Bursts and lever arms are made up: extensors in stance, flexors in swing.

    """
    n_time, dt = count_bins(duration, sfreq, trials, conditions, 1)
    _check.positive(stance, "stance")
    _check.positive(swing, "swing")
    _check.positive(variability, "variability", zero=True)
    _check.positive(perturbations, "perturbations", zero=True)
    _check.positive(shape, "shape")
    return _gait_emg(key, trials, conditions, n_time, dt, stance, swing, variability, perturbations, shape)


@partial(jax.jit, static_argnums=range(1, 5))
def _gait_emg(key, trials, conditions, n_time, dt, stance, swing, variability, perturbations, shape):
    k_phase, k_speed, k_push, k_noise = jax.random.split(key, 4)
    condition = jnp.arange(trials) % conditions
    long = stance / (1 + condition / 4)

    keep = math.exp(-dt / 0.2)
    shocks = variability * jax.random.normal(k_speed, (n_time, trials))
    shocks = shocks.at[1:].multiply((1 - keep**2) ** 0.5)
    u_speed = jax.lax.scan(lambda u, e: (keep * u + e,) * 2, jnp.zeros(trials), shocks)[1]
    # a phase that ran backwards would set the foot down twice
    u_speed = jnp.maximum(u_speed, -0.8)
    push = 0.3 * draw_signs(k_push, perturbations * dt, (n_time, trials))

    def step(carry, now):
        p, r = carry
        faster, kick = now
        standing = p < jnp.pi
        rate = (1 + faster) * jnp.pi / jnp.where(standing, long, swing)
        after = p + rate * dt
        # what is left of the bin when the phase changes goes at the new phase's speed
        other = (1 + faster) * jnp.pi / jnp.where(standing, swing, long)
        edge = jnp.where(standing, jnp.pi, 2 * jnp.pi)
        after = jnp.where(after > edge, edge + (after - edge) * other / rate, after)
        return (jnp.mod(after, 2 * jnp.pi), jnp.maximum(r + 8 * (1 - r) * dt + kick, 0.1)), (p, r)

    begin = jax.random.uniform(k_phase, (trials,), maxval=2 * jnp.pi)
    _, (p, r) = jax.lax.scan(step, (begin, jnp.ones(trials)), (u_speed, push))
    p, r = p.T, r.T
    share = (long / (long + swing))[:, None]
    done = jnp.where(p < jnp.pi, share * p / jnp.pi, share + (1 - share) * (p / jnp.pi - 1))

    burst = jnp.array([v[0] for v in _RAT.values()])
    sharp = jnp.array([v[1] for v in _RAT.values()])
    # bursts are told for the slowest condition; they stay with their phase in all
    base = stance / (stance + swing)
    slow = share[:, :, None]
    at = jnp.where(burst < base, slow * burst / base, slow + (1 - slow) * (burst - base) / (1 - base))
    mean = 0.15 + 2 * r[..., None] * jnp.exp(sharp * (jnp.cos(2 * jnp.pi * (done[..., None] - at)) - 1))

    arms = jnp.array([v[2] for v in _RAT.values()])
    torque = 100 * twitch(mean, dt, 0.02) @ arms
    angle, velocity, acceleration = springs(torque - torque.mean((0, 1)), dt, 2 * math.pi * 3, 0.6)
    rest = jnp.array([1.6, 1.9, 1.7])
    forward = jnp.where(p < jnp.pi, 40 - 80 * p / jnp.pi, 40 * jnp.cos(p))
    behaviour = jnp.concatenate([rest + angle, velocity, acceleration, forward[..., None]], axis=-1)
    joints = ("hip", "knee", "ankle")
    return draw_emg(
        k_noise,
        mean,
        shape,
        dt,
        jnp.stack([r * jnp.cos(p), r * jnp.sin(p)], -1),
        jnp.stack([u_speed.T, push.T / dt], -1),
        condition,
        behaviour,
        (*joints, *(f"{j} velocity" for j in joints), *(f"{j} acceleration" for j in joints), "forward"),
        tuple(_RAT),
        stance=p < jnp.pi,
    )


# burst (share of the stride), sharpness, lever arms at hip, knee, ankle (extension positive)
_RAT = {
    "BFpR": (0.25, 3.0, (0.6, -0.5, 0.0)),
    "GA": (0.35, 4.0, (0.0, -0.3, 1.0)),
    "GRr": (0.15, 5.0, (0.5, -0.4, 0.0)),
    "GS": (0.20, 4.0, (0.8, 0.0, 0.0)),
    "IL": (0.84, 12.0, (-1.2, 0.0, 0.0)),
    "RF": (0.94, 14.0, (-0.5, 0.8, 0.0)),
    "SM": (0.05, 6.0, (0.8, -0.6, 0.0)),
    "ST": (0.78, 12.0, (0.3, -1.2, 0.0)),
    "TA": (0.82, 10.0, (0.0, 0.0, -1.4)),
    "VI": (0.40, 4.0, (0.0, 0.7, 0.0)),
    "VL": (0.30, 4.0, (0.0, 0.9, 0.0)),
    "VM": (0.33, 5.0, (0.0, 0.8, 0.0)),
}
