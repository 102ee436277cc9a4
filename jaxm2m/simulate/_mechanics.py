"""What muscles move: twitches and joints as linear systems, stepped exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg


def twitch(mean, dt, tau):
    """Tension: two first-order low-passes of time constant tau, s, in a row, begun at the first value."""
    matrix = np.array([[0.0, 1.0], [-1 / tau**2, -2 / tau]])
    return _linear(matrix, np.array([0.0, 1 / tau**2]), mean - mean[:, :1], dt)[:, :, 0] + mean[:, :1]


def springs(torque, dt, w, damping):
    """Angle, velocity and acceleration of damped springs."""
    matrix = np.array([[0.0, 1.0], [-(w**2), -2 * damping * w]])
    states = _linear(matrix, np.array([0.0, 1.0]), torque, dt)
    angle, velocity = states[:, :, 0], states[:, :, 1]
    return angle, velocity, torque - 2 * damping * w * velocity - w**2 * angle


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
