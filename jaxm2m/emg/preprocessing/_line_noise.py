"""Adaptive removal of the mains line."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import signal

from jaxm2m import _check
from jaxm2m.emg.preprocessing._steps import as_signal

_BAND = 2.0  # Hz to either side of the nominal frequency in which the line is looked for
_NOTCH = (50.0, 0.1, 1.0)  # Hz, Hz, s: notch bandwidth at the start, in the end, and time to 95 % of the way
_MEMORY = (0.1, 2.0, 1.0)  # s: settling time of the frequency at the start, in the end, and time to 95 % of the way
_WARM = 5.0  # s


def remove_line(
    x: Float[np.ndarray, "*batch n_time n_channel"],
    sfreq: float | int,
    frequency: float | int = 60.0,
    harmonics: int = 3,
    *,
    settling: float | int = 2.0,
) -> Float[np.ndarray, "*batch n_time n_channel"]:
    """Subtract the mains line and its harmonics, following their frequency, amplitudes and phases.

    A lattice notch filter estimates the frequency from the signal round the nominal one: with f_n = d_n - kappa (1 + a)
    f_{n-1} - a f_{n-2} (d: band-passed and differenced), kappa = -cos(omega) = -C/D, where C and D average f_{n-1} (f_n
    + f_{n-2}) and 2 f_{n-1}^2 with a forgetting factor, here over the channels too, since they share the mains.
    Oscillators at k omega are fitted by a recursive least-squares step with one weight each for sine and cosine, and
    subtracted. The rest of the spectrum stays, at the line as well.

    Unlike the source, which is made for real time, the recursion first runs backwards over the opening 5 s (to and fro
    where there is less), so that it has settled at the first sample.

    Parameters
    ----------
    x
        Signals (..., n_time, n_channel), in any unit; each batch item by itself.
    sfreq
        Sampling rate, Hz.
    frequency
        Nominal mains frequency, 50 or 60 Hz; it is looked for within 2 Hz of that.
    harmonics
        Number of sinusoids: 3 removes 60, 120 and 180 Hz.
    settling
        Time in which amplitudes and phases are followed, s; long values touch less of the signal.

    Returns
    -------
    array
        The signals without the line, (..., n_time, n_channel), float64, in the unit of `x`.

    Raises
    ------
    ValueError
        A harmonic is not below half the sampling rate, or there are fewer than four periods of the line.

    Notes
    -----
    M. R. Keshtkaran and Z. Yang, A fast, robust algorithm for power line interference cancellation in neural recording,
    J. Neural Eng. 11, 026017 (2014), arXiv:1402.6862.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> time = np.arange(0, 10, 1 / 1000)
    >>> line = np.sin(2 * np.pi * 60.2 * time)[:, None]
    >>> left = jm.emg.remove_line(line, sfreq=1000.0)
    >>> print(f"{np.std(left[5000:]):.2f}")
    0.00
    """
    x = as_signal(x, "x")
    flat = x.reshape(-1, *x.shape[-2:])
    return np.stack(remove_line_of_pieces(list(flat), sfreq, frequency, harmonics, settling)).reshape(x.shape)


def remove_line_of_pieces(
    pieces: Sequence[np.ndarray],
    sfreq: float | int,
    frequency: float | int,
    harmonics: int,
    settling: float | int,
) -> list[np.ndarray]:
    """Apply `remove_line` to (n_time, n_channel) arrays of any lengths."""
    sfreq = float(_check.positive(sfreq, "sfreq"))
    frequency = float(_check.positive(frequency, "frequency"))
    _check.integer(harmonics, "harmonics")
    settling = float(_check.positive(settling, "settling"))
    if harmonics * frequency >= sfreq / 2 or frequency + _BAND >= sfreq / 2:
        raise ValueError(
            f"harmonics: {harmonics} x {frequency:g} Hz is not below half the rate of {sfreq:g} Hz; take fewer."
        )
    shortest = min(map(len, pieces))
    if shortest < 4 * sfreq / frequency:
        raise ValueError(
            f"x: {shortest} samples at {sfreq:g} Hz are less than four periods of {frequency:g} Hz; pass longer pieces."
        )
    # pieces of like lengths go together, filled up with steps that do nothing, since every length compiles anew
    settings = (sfreq, frequency, harmonics, settling)
    groups: dict[int, list[int]] = {}
    for i, piece in enumerate(pieces):
        groups.setdefault((len(piece) - 1).bit_length(), []).append(i)
    result: list[np.ndarray] = [np.empty(0)] * len(pieces)
    for members in groups.values():
        for i, clean in zip(members, _remove([pieces[i] for i in members], *settings), strict=True):
            result[i] = clean
    return result


def _remove(
    pieces: list[np.ndarray], sfreq: float, frequency: float, harmonics: int, settling: float
) -> list[np.ndarray]:
    longest, warm = max(map(len, pieces)), round(_WARM * sfreq)
    band = signal.butter(2, (frequency - _BAND, frequency + _BAND), "bandpass", fs=sfreq, output="sos")
    shape = (warm + longest, len(pieces), pieces[0].shape[1])
    values, differences, direction = np.zeros(shape), np.zeros(shape), np.full(shape[:2], np.nan)
    for i, x in enumerate(pieces):
        # to and fro over the opening, or the whole of a short piece, until the first sample
        last = len(x) - 1
        path = np.abs((np.arange(-warm, len(x)) + last) % (2 * last) - last)
        steps = slice(0, len(path))
        direction[steps, i] = np.diff(path, prepend=path[0] + 1)
        # one channel after the other: copies of a long recording are what a small machine cannot hold
        for k in range(x.shape[1]):
            column, size = x[:, k], x[:, k].std()
            column = (column - column.mean()) / (size if size > 0 else 1)
            narrow = signal.sosfiltfilt(band, column, padlen=min(last, round(sfreq)))
            values[steps, i, k], differences[steps, i, k] = column[path], np.gradient(narrow)[path]
    # the notch is a thousandth of a hertz wide at thousands of samples a second: float32 cannot hold its poles
    with jax.enable_x64(True):
        lines = np.asarray(
            _follow(
                jnp.asarray(values),
                jnp.asarray(differences),
                jnp.asarray(direction),
                jnp.asarray([sfreq, frequency, settling]),
                jnp.arange(1.0, harmonics + 1),
            )
        )
    return [x - x.std(0) * lines[warm : warm + len(x), i] for i, x in enumerate(pieces)]


@jax.jit
def _follow(x, d, direction, settings, orders):
    """Estimate the line in x (n_time, n_piece, n_channel).

    `direction` (n_time, n_piece): the step in time since the sample before, 1 or -1; NaN where there is no sample.
    """
    sfreq, frequency, settling = settings
    omega0 = 2 * jnp.pi * frequency / sfreq
    low, high = (2 * jnp.pi * (frequency + s * _BAND) / sfreq for s in (-1, 1))

    def factor(seconds):
        return jnp.exp(jnp.log(0.05) / (seconds * sfreq))

    def approach(start, end, seconds, n):
        return end + (start - end) * factor(seconds) ** n

    memory = factor(settling)

    def step(state, inputs):
        n, f1, f2, c, e, omega, phase, cosine, sine, weight = state
        value, difference, way, turned = inputs
        active = ~jnp.isnan(way)
        # the notch narrows and its memory lengthens with the steps that were taken
        width = jnp.tan(jnp.pi * approach(*_NOTCH, n) / sfreq)
        a = ((1 - width) / (1 + width))[:, None]
        keep = factor(approach(*_MEMORY, n))
        # at the turn the phase jumps, to which a narrow notch would ring for seconds: it fills anew
        f1, f2 = (jnp.where(turned[:, None], 0.0, past) for past in (f1, f2))
        f = difference + jnp.cos(omega)[:, None] * (1 + a) * f1 - a * f2
        c_new = keep * c + (1 - keep) * (f1 * (f + f2)).sum(-1)
        e_new = keep * e + (1 - keep) * 2 * (f1 * f1).sum(-1)
        estimate = jnp.arccos(jnp.clip(c_new / jnp.maximum(e_new, 1e-300), -1, 1))
        omega_new = jnp.where(e_new > 0, jnp.clip(estimate, low, high), omega)
        phase_new = jnp.mod(phase + jnp.where(active, way, 0) * omega_new, 2 * jnp.pi)
        angles = orders * phase_new[:, None]
        rest, lines, cosines, sines = value, 0.0, [], []
        weight_new = memory * weight + 0.5  # the mean of sine squared; its ripple at twice the line only adds noise
        for k in range(orders.size):
            u, v = jnp.cos(angles[:, k, None]), jnp.sin(angles[:, k, None])
            line = cosine[k] * u + sine[k] * v
            rest = rest - line
            lines = lines + line
            gain = 1 / weight_new[:, None]
            cosines.append(cosine[k] + gain * u * rest)
            sines.append(sine[k] + gain * v * rest)
        new = (n + 1, f, f1, c_new, e_new, omega_new, phase_new, jnp.stack(cosines), jnp.stack(sines), weight_new)

        def keep_state(then, now):
            mask = active if now.ndim == 1 else active[:, None]
            return jnp.where(mask, now, then)

        return jax.tree.map(keep_state, state, new), lines

    pieces, channels = x.shape[1:]
    zero, wide = jnp.zeros(pieces), jnp.zeros((pieces, channels))
    lines = jnp.zeros((orders.size, pieces, channels))
    # a few periods' worth of weight keeps the first steps from jumping
    begin = (zero, wide, wide, zero, zero, zero + omega0, zero, lines, lines, zero + sfreq / frequency)
    turned = jnp.concatenate([zero[None] > 0, direction[1:] * direction[:-1] < 0])
    return jax.lax.scan(step, begin, (x, d, direction, turned))[1]
