"""Multi-muscle EMG from dynamics that are known: Lorenz's, a gait cycle, an isometric task.

All three draw rectified EMG at 500 Hz or so from gamma distributions whose mean, the muscle activation m, is a known
function of a low-dimensional state:

    y ~ Gamma(shape a, rate a / m),    mean m, variance m^2 / a.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Bool, Float, Int, Key

from jaxm2m import _check
from jaxm2m._tree import tree


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
        What drove it.
    behaviour : (n_trial, n_time, n_variable) array
        What the muscles did; no variable for Lorenz's dynamics.
    condition : (n_trial,) int array
        Condition of each trial.
    stance : (n_trial, n_time) bool array
        Whether the foot is on the ground; all False where nobody walks.
    onset : (n_trial,) array
        When the drive sets in, s from the first bin; NaN where nothing does.
    sfreq : array
        Hz.
    names : tuple of str
        Variables of the behaviour.
    channels : tuple of str
        Muscles.

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
        """Some variables of the behaviour, by name."""
        for name in names:
            _check.option(name, self.names, "names")
        return self.behaviour[..., jnp.array([self.names.index(n) for n in names], int)]


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
    """EMG that follows Lorenz's attractor, which brief inputs push at random times.

        dx/dt = c [10 (y - x)] + u,   dy/dt = c [x (28 - z) - y],   dz/dt = c [x y - 8/3 z]
        log m_j = b_j + w_j . s,      s = (x/7.9, y/9.0, (z - 23.5)/8.6)

    Rows w_j are random, of length `modulation`; b_j makes the mean of m_j about 1. The trials of a condition begin at
    the same state; each has inputs of its own, half-sine pulses of 20 ms which in all move x by -8 or 8.

    Parameters
    ----------
    key
        Random.
    trials, conditions
        Numbers; trial i is of condition i modulo `conditions`.
    duration
        Of a trial, s.
    channels
        Number of muscles.
    sfreq
        Hz.
    speed
        c, Lorenz's time units a second: one loop takes some 0.75 / c s.
    pulses
        Mean number of inputs a second.
    modulation
        Standard deviation of log m.
    shape
        a. Rectified EMG at 500 Hz has 0.6 to 2.

    Returns
    -------
    SimulatedEMG
        With `state` (x, y, z), one input (u, in units of x a second), no behaviour.

    Notes
    -----
    E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20, 130 (1963), as a test of inferred dynamics after
    D. Sussillo et al., LFADS, arXiv 1608.06315 (2016).

    """
    n_time, dt = _sizes(duration, sfreq, trials, conditions, channels)
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
    strikes = _signs(k_pulse, pulses * dt, (trials, n_time))
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
    return _simulated(k_noise, mean, shape, dt, state, inputs[..., None], condition)


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
    """EMG of the twelve muscles of a rat's hindlimb that walks on a treadmill, and the joints that they move.

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
        Random.
    trials, conditions
        Numbers; trial i is of condition i modulo `conditions`.
    duration
        Of a trial, s.
    sfreq
        Hz.
    stance, swing
        Durations in the slowest condition, s: those of the source's rat.
    variability
        Standard deviation of the relative speed.
    perturbations
        Mean number of pushes a second.
    shape
        a.

    Returns
    -------
    SimulatedEMG
        With `state` (r cos p, r sin p), inputs (u_p, u_r), `stance`, and as behaviour "hip", "knee", "ankle" (rad),
        "hip velocity" ... (rad/s), "hip acceleration" ... (rad/s^2), and "forward", where the foot is before the pelvis
        (mm): it goes back with the belt in stance, from 40 to -40.

    Notes
    -----
    Muscles, durations and the variables that are decoded: L. N. Wimalasena et al., J. Neural Eng. 19, 036013 (2022).
    Bursts and lever arms are made up: extensors in stance, flexors in swing.

    """
    n_time, dt = _sizes(duration, sfreq, trials, conditions, 1)
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
    push = 0.3 * _signs(k_push, perturbations * dt, (n_time, trials))

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
    torque = 100 * _twitch(mean, dt, 0.02) @ arms
    angle, velocity, acceleration = _joints(torque - torque.mean((0, 1)), dt, 2 * math.pi * 3, 0.6)
    rest = jnp.array([1.6, 1.9, 1.7])
    forward = jnp.where(p < jnp.pi, 40 - 80 * p / jnp.pi, 40 * jnp.cos(p))
    behaviour = jnp.concatenate([rest + angle, velocity, acceleration, forward[..., None]], axis=-1)
    joints = ("hip", "knee", "ankle")
    return _simulated(
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
    """EMG of fourteen forearm channels in an isometric wrist task, with oscillations that the muscles share.

    The target appears after `before` s; the drive d (two directions) sets in some 0.2 s later, goes to the target g and
    a little beyond it, and holds. Flexion (g_x > 0) kicks an oscillator o of frequency f that dies away in 80 ms:

        d^2 d/dt^2 = w^2 (g(t) - d) - 2 0.7 w d d/dt,          w = 2 pi 3 Hz
        d^2 o/dt^2 = -(2 pi f)^2 o - (2 / 0.08) do/dt + kick
        p = d + 2 / w dd/dt
        m_j = [0.2 + log(1 + exp(3 (p . n_j - 0.5)))] exp(strength h_j o),   h_j = max(n_jx, 0)

    Drive and rate make a phasic and a tonic part; n_j is the direction in which muscle j pulls. The force is the sum of
    n_j m_j through a critically damped twitch of 40 ms, so that dF/dt oscillates with the flexors.

    Parameters
    ----------
    key
        Random.
    trials, conditions
        Numbers; trial i is of condition (target) i modulo `conditions`. Targets lie on a circle, the first to the right
        (flexion).
    before, after
        Extent of a trial around the appearance of the target, s; `after` at least 0.5.
    sfreq
        Hz.
    oscillation
        f, Hz. Each trial's differs by some 5 % (standard deviation).
    strength
        Height of the first swing of log m; 0 for none.
    jitter
        Standard deviation of the onset, s.
    shape
        a.

    Returns
    -------
    SimulatedEMG
        With `state` (d_x, d_y, their rates / w, o, its rate / (2 pi f)), inputs (g_x, g_y, kick in 1/s^2), `onset`, and
        "force x", "force y" (a unit of its own), "rate x", "rate y" (dF/dt, per s) as behaviour.

    Notes
    -----
    The task, muscles and 10-50 Hz oscillations: L. N. Wimalasena et al., J. Neural Eng. 19, 036013 (2022). Numbers are
    made up.

    """
    _check.positive(before, "before")
    if float(_check.positive(after, "after")) < 0.5:
        raise ValueError(f"after: {after:g} s; the drive sets in 0.2 s after the target: take at least 0.5.")
    n_time, dt = _sizes(float(before) + float(after), sfreq, trials, conditions, 1)
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
    own = 2 * jnp.pi * frequency
    height = jnp.maximum(goal[:, 0], 0) * (1 + 0.2 * normal[3])
    since = (jnp.arange(n_time) - first[:, None] - round(0.03 / dt)) * dt
    kick = jnp.where(jnp.abs(since) < dt / 2, (height * own)[:, None] / dt, 0.0)

    drive, speed, _ = _joints(target * (2 * math.pi * 3) ** 2, dt, 2 * math.pi * 3, 0.7)
    swing, rate = _ringing(jnp.maximum(since, 0), own[:, None], 1 / 0.08)
    swing, rate = height[:, None] * swing, jnp.where(since < 0, 0, height[:, None] * rate)
    pull = jnp.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in _FOREARM.values()])
    burst = drive + 2 * speed / (2 * math.pi * 3)
    tonic = 0.2 + jax.nn.softplus(3 * (burst @ pull.T - 0.5))
    mean = tonic * jnp.exp(strength * swing[..., None] * jnp.maximum(pull[:, 0], 0))
    tension = _twitch(mean - mean[:, :1], dt, 0.04)
    force = tension @ pull / 8
    gradient = jnp.asarray(jnp.gradient(force, dt, axis=1))
    state = jnp.concatenate([drive, speed / (2 * math.pi * 3), swing[..., None], rate[..., None]], -1)
    return _simulated(
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


def _sizes(duration, sfreq, trials, conditions, channels) -> tuple[int, float]:
    for value, name in ((trials, "trials"), (conditions, "conditions"), (channels, "channels")):
        _check.integer(value, name)
    rate = float(_check.positive(sfreq, "sfreq"))
    n_time = round(float(_check.positive(duration, "duration")) * rate)
    if n_time < 2:
        raise ValueError(f"duration: {duration:g} s hold {n_time} bins at {rate:g} Hz; take longer trials.")
    return n_time, 1 / rate


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


def _linear(matrix, gain, inputs, dt):
    """States (n, n_time, n_state, n_variable) of ds/dt = matrix s + gain u with u held over each bin, from rest.

    The step is exact: exp([[A, b], [0, 0]] dt) holds both its factors.
    """
    n = len(matrix)
    block = np.zeros((n + 1, n + 1))
    block[:n, :n], block[:n, n] = matrix, gain
    exact = jnp.asarray(scipy.linalg.expm(block * dt), inputs.dtype)
    forward, drive = exact[:n, :n], exact[:n, n]

    def step(s, u):
        return jnp.einsum("ij,...jv->...iv", forward, s) + drive[:, None] * u[..., None, :], s

    start = jnp.zeros((inputs.shape[0], n, inputs.shape[2]), inputs.dtype)
    return jnp.moveaxis(jax.lax.scan(step, start, jnp.moveaxis(inputs, 1, 0))[1], 0, 1)


def _twitch(mean, dt, tau):
    """Tension: two first-order low-passes of time constant tau, s, in a row, begun at the first value."""
    matrix = np.array([[0.0, 1.0], [-1 / tau**2, -2 / tau]])
    return _linear(matrix, np.array([0.0, 1 / tau**2]), mean - mean[:, :1], dt)[:, :, 0] + mean[:, :1]


def _joints(torque, dt, w, damping):
    """Angle, velocity and acceleration of damped springs."""
    matrix = np.array([[0.0, 1.0], [-(w**2), -2 * damping * w]])
    states = _linear(matrix, np.array([0.0, 1.0]), torque, dt)
    angle, velocity = states[:, :, 0], states[:, :, 1]
    return angle, velocity, torque - 2 * damping * w * velocity - w**2 * angle


def _ringing(time, w, decay):
    """Position and velocity / w of an oscillator of angular frequency w, at rest until it gets velocity w at time 0.

    Its swings die away at rate `decay`.
    """
    own = jnp.sqrt(w**2 - decay**2)
    wave, fall = jnp.sin(own * time), jnp.exp(-decay * time)
    return w / own * fall * wave, fall * (jnp.cos(own * time) - decay / own * wave)


def _signs(key, chance, size):
    """1 or -1, each with half of the chance, or 0."""
    drawn = jax.random.uniform(key, size)
    return jnp.where(drawn < chance / 2, 1.0, jnp.where(drawn < chance, -1.0, 0.0))


def _gamma(key, shape, size, dtype):
    """Standard gamma variates, all at once: `jax.random.gamma` draws one by one on CPUs.

    Marsaglia and Tsang's rejection, for shape + 1, and x U^(1/shape) of what it gives, which is right for all shapes:
    A simple method for generating gamma variables, ACM Trans. Math. Softw. 26, 363 (2000).
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


def _simulated(
    key, mean, shape, dt, state, inputs, condition, behaviour=None, names=(), channels=None, stance=None, onset=None
):
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
