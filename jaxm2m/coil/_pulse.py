"""TMS pulses: dI/dt of a stimulator's circuit over time."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike

KINDS = ("monophasic", "biphasic", "half-sine")


@tree
class Pulse:
    """One pulse of an LC circuit, discharged at t = 0 s; omega = 2 pi / period.

    - biphasic: one damped period of current,  I ~ exp(-t/decay) sin(omega t);
    - half-sine: its first half;
    - monophasic: a quarter period of sin(omega t), then the damping branch,
      I ~ (1 + s/decay) exp(-s/decay), s = t - period/4, which ends in about ten `decay`.

    dI/dt is largest at t = 0 in all three, and continuous after it but for the switching-off of the half sine and the
    damped biphasic pulse.

    Attributes
    ----------
    period
        s, of the undamped circuit.
    decay
        s, time constant.
    peak
        Peak dI/dt, A/s.
    kind
        "monophasic", "biphasic" or "half-sine".
    """

    period: Float[Array, ""]
    decay: Float[Array, ""]
    peak: Float[Array, ""]
    kind: str

    @property
    def duration(self) -> Array:
        """Time until dI/dt is zero (s); of a monophasic pulse, until it is below 1e-3 of its peak."""
        if self.kind == "monophasic":
            return self.period / 4 + 10 * self.decay
        return self.period if self.kind == "biphasic" else self.period / 2

    def didt(self, t: ArrayLike) -> Array:
        """Compute dI/dt relative to its peak at times after the start of the pulse.

        Parameters
        ----------
        t
            (...) times, s.

        Returns
        -------
        (...) array
            No unit: 1 at t = 0, 0 before; times `peak` it is dI/dt in A/s.
        """
        t = jnp.asarray(t, jnp.result_type(float))
        omega = 2 * jnp.pi / self.period
        if self.kind == "monophasic":
            # clipped times: where() alone would let the other branch overflow and turn gradients into NaN
            s = jnp.maximum(t - self.period / 4, 0)
            later = -s / (omega * self.decay**2) * jnp.exp(-s / self.decay)
            value = jnp.where(t < self.period / 4, jnp.cos(omega * t), later)
            return jnp.where(t < 0, 0, value)
        inside = (t >= 0) & (t <= self.duration)
        s = jnp.where(inside, t, 0)
        value = jnp.exp(-s / self.decay) * (jnp.cos(omega * s) - jnp.sin(omega * s) / (omega * self.decay))
        return jnp.where(inside, value, 0)


def pulse(
    kind: str = "monophasic",
    period: float | int | None = None,
    decay: float | int | None = None,
    peak: float | int = 1.0,
) -> Pulse:
    """Build a pulse from its circuit's parameters.

    Parameters
    ----------
    kind
        "monophasic", "biphasic" or "half-sine".
    period
        s; by default 330 us (monophasic, current peak after 82 us) and 280 us (the others): typical orders of
        magnitude, not a measured stimulator; give your own where the waveform matters.
    decay
        s; by default 100 us for the branch of a monophasic pulse and 700 us for the damping of the others.
    peak
        Peak dI/dt, A/s.

    Returns
    -------
    Pulse
        The pulse, as a function of time.

    Raises
    ------
    ValueError
        Unknown kind, non-positive period or decay, NaN.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> pulse = jm.coil.pulse("biphasic", period=280e-6)
    >>> [round(float(v), 2) for v in pulse.didt([0.0, 70e-6, 140e-6])]  # relative to the peak
    [1.0, -0.06, -0.82]
    """
    _check.option(kind, KINDS, "kind")
    single = kind == "monophasic"
    period = _check.positive((330e-6 if single else 280e-6) if period is None else period, "period")
    decay = _check.positive((100e-6 if single else 700e-6) if decay is None else decay, "decay")
    if not np.isfinite(peak):
        raise ValueError(f"peak: {peak}; give the peak dI/dt in A/s.")
    dtype = jnp.result_type(float)
    return Pulse(jnp.asarray(period, dtype), jnp.asarray(decay, dtype), jnp.asarray(peak, dtype), kind)
