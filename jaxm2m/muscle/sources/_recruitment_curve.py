r"""The recruitment curve of a muscle, with what varies before and behind it, and priors of its numbers.

    log10 V = log10(10^floor + 10^(-1 + decades v^power / (1 + v^power))) + amplitude noise,
    v       = max(rest + gain u + shared + private, 0)

V in uV; u the drive, 1 for the strongest stimuli of the session; v in half-points of the curve. `shared` is the
excitability of the moment, one number for all muscles, `private` each muscle's part. Shape, numbers and both kinds of
noise after S. M. Goetz et al., Statistical model of motor-evoked potentials, IEEE Trans. Neural Syst. Rehabil. Eng. 27,
1539 (2019), in whose fit the half-point lies 23.2 %MSO above the curve's foot; the widths of the priors are ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SHARED = 0.148  # half-points: 4.88 of 23.2 %MSO, half of whose variance muscles share

# of quadrature over a standard normal
NODES = np.linspace(-3.5, 3.5, 15)
WEIGHTS = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()
_LN10 = float(np.log(10))


class RecruitmentCurve(NamedTuple):
    """The numbers of one curve, or of many (leading axes).

    Attributes
    ----------
    rest
        Where the curve stands without drive, half-points.
    gain
        Half-points that the drive of the strongest stimuli adds.
    power
        Steepness, no unit.
    decades
        Height of the plateau above 0.1 uV, decades.
    floor
        log10 of the amplitude without a response, uV.
    excitability
        Standard deviation of the private part, half-points.
    amplitude
        Standard deviation of what varies behind the curve, decades.
    """

    rest: Array
    gain: Array
    power: Array
    decades: Array
    floor: Array
    excitability: Array
    amplitude: Array


N_NUMBER = len(RecruitmentCurve._fields)


class CurvePrior(NamedTuple):
    """What is believed of a curve before MEPs are seen: its numbers are normal in the coordinates of `_MIDDLE`.

    Attributes
    ----------
    mean, deviation
        (7,)
    """

    mean: Float[Array, " number"]
    deviation: Float[Array, " number"]


# rest, log gain, log power, decades, floor, log excitability, log amplitude
_MIDDLE = np.array([0.30, np.log(1.6), np.log(2.67), 4.53, 1.0, np.log(0.148), np.log(0.11)])
_WIDTH = np.array([0.15, 0.3, 0.1, 0.25, 0.3, 0.3, 0.3])
# Firing rates leave weak fields out, so that without drive the curve stands near its foot. The field itself grows with
# the stimulator's output, so that MEPs may begin far above zero drive (23.2 %MSO a half-point, and a foot at two of
# them), or where the drive of much else keeps the curve near its foot, not: wide, and ending where rates end.
_MIDDLE_OF_FIELDS = np.array([-0.4, np.log(2.2), *_MIDDLE[2:]])
_WIDTH_OF_FIELDS = np.array([1.0, 0.4, *_WIDTH[2:]])


def make_curve_prior(rates: bool) -> CurvePrior:
    """Make the prior of curves over drives by firing rates, or by the field itself."""
    numbers = (_MIDDLE, _WIDTH) if rates else (_MIDDLE_OF_FIELDS, _WIDTH_OF_FIELDS)
    return CurvePrior(*(jnp.asarray(values, jnp.result_type(float)) for values in numbers))


def curve_from(standard: Float[Array, " number"], prior: CurvePrior) -> RecruitmentCurve:
    """Make a curve of numbers that are standard normal under the prior."""
    t = prior.mean + prior.deviation * standard
    return RecruitmentCurve(t[0], jnp.exp(t[1]), jnp.exp(t[2]), t[3], t[4], jnp.exp(t[5]), jnp.exp(t[6]))


def evaluate_curve(curve: RecruitmentCurve, v: Array) -> Array:
    """log10 uV at v half-points, without what varies behind the curve."""
    # below a thousandth the curve is flat to all digits, and its logarithm has a gradient
    height = jax.nn.sigmoid(curve.power * jnp.log(jnp.maximum(v, 1e-3)))
    return jnp.logaddexp(curve.floor * _LN10, (curve.decades * height - 1) * _LN10) / _LN10


def log_likelihood(curve: RecruitmentCurve, y: Array, drive: Array, shared: Array) -> Array:
    """Log density of log10 MEPs y, each; what is private is integrated out."""
    v = curve.rest + curve.gain * drive + shared
    residual = (y[..., None] - _at_nodes(curve, v, curve.excitability)) / jnp.expand_dims(curve.amplitude, -1)
    weights = jnp.asarray(WEIGHTS, v.dtype)
    return jax.scipy.special.logsumexp(-0.5 * residual**2, b=weights, axis=-1) - jnp.log(curve.amplitude)


def probability_below(curve: RecruitmentCurve, y: Array, drive: Array, shared: Array) -> Array:
    """Probability that an MEP is smaller than y (log10 uV), each."""
    v = curve.rest + curve.gain * drive + shared
    z = (y[..., None] - _at_nodes(curve, v, curve.excitability)) / jnp.expand_dims(curve.amplitude, -1)
    return jax.scipy.special.ndtr(z) @ jnp.asarray(WEIGHTS, v.dtype)


def mean_response(curve: RecruitmentCurve, drive: Array) -> Array:
    """Mean MEP, uV, over everything that varies."""
    spread = jnp.sqrt(curve.excitability**2 + SHARED**2)
    size = 10 ** _at_nodes(curve, curve.rest + curve.gain * drive, spread)
    return size @ jnp.asarray(WEIGHTS, size.dtype) * jnp.exp((_LN10 * curve.amplitude) ** 2 / 2)


def log_moments(curve: RecruitmentCurve, drive: Array) -> tuple[Array, Array]:
    """Mean and variance of log10 MEPs (uV), over everything that varies."""
    spread = jnp.sqrt(curve.excitability**2 + SHARED**2)
    values = _at_nodes(curve, curve.rest + curve.gain * drive, spread)
    weights = jnp.asarray(WEIGHTS, values.dtype)
    mean = values @ weights
    return mean, ((values - mean[..., None]) ** 2) @ weights + curve.amplitude**2


def draw_response(curve: RecruitmentCurve, drive: Array, shared: Array, key: Array) -> Array:
    """Draw log10 MEPs (uV) of drives."""
    private, later = jax.random.normal(key, (2, *drive.shape), drive.dtype)
    v = curve.rest + curve.gain * drive + shared + curve.excitability * private
    return evaluate_curve(curve, v) + curve.amplitude * later


def _at_nodes(curve: RecruitmentCurve, v: Array, spread: Array) -> Array:
    wide = RecruitmentCurve(*(jnp.expand_dims(number, -1) for number in curve))
    return evaluate_curve(wide, v[..., None] + jnp.expand_dims(spread, -1) * jnp.asarray(NODES, v.dtype))
