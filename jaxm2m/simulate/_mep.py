"""Motor evoked potentials about a known mean: the statistical model of Goetz et al., and its noise about another curve.

S. M. Goetz, S. M. M. Alavi, Z.-D. Deng, A. V. Peterchev, Statistical model of motor-evoked potentials, IEEE Trans.
Neural Syst. Rehabil. Eng. 27, 1539 (2019), with the parameters of one muscle.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxm2m import _check

_MT = 72.55  # %MSO at the motor threshold
_FLOOR = 0.1  # uV
_DECADES, _HALF, _POWER, _FROM = 4.5323, 10**3.64655, 2.669, 46.397
_EXCITABILITY, _AMPLITUDE = 4.88, 0.1085  # %MSO, decades
_NOISE, _NOISE_WIDTH, _NOISE_SHAPE = 10 ** (6 - 5.0818), 1.55, 0.14  # uV, uV, 1
# a Boltzmann sigmoid with the same plateau, and the same median of 50 uV at the motor threshold
_PLATEAU, _MIDDLE, _AT_MT = 0.1 * 10**4.5323, 1.35 * 72.55, 50.0  # uV, %MSO, uV
_SLOPE = math.log(_PLATEAU / _AT_MT - 1) / (_MIDDLE - _MT)  # 1 over %MSO
CURVES = ("goetz", "boltzmann")
_NODES = 32  # the mean is then right to 1e-6 of itself

Strength = Float[Array, "*stimulus muscle"] | Float[np.ndarray, "*stimulus muscle"]


def mep(
    key: Key[Array, ""], strength: Strength, *, correlation: float | int = 0.5, curve: str = "goetz"
) -> Float[Array, "*stimulus muscle"]:
    """Draw peak-to-peak amplitudes of motor evoked potentials.

        V   = G + 0.1 uV 10^(eta + p2 y^p4 / (y^p4 + p3)),    y = max(x + xi - p5, 0),    x = 72.55 %MSO strength
        xi  = 4.88 %MSO (sqrt(rho) shared + sqrt(1 - rho) private),    eta ~ N(0, 0.1085^2)
        G   ~ GEV(location 8.28 uV, scale 1.55 uV, shape 0.14)

    with p2 = 4.5323, p3 = 10^3.64655, p4 = 2.669, p5 = 46.397 %MSO; shared and private are standard normal, the first
    one number for each stimulus. xi is the excitability of the moment, eta what varies behind it, G the noise of the
    recording. Both xi and eta take either sign. Medians at a strength of 1, 1.1, 1.2 and 1.4: 51, 201, 504 and 1314 uV.

    With `curve` "boltzmann" the recruitment curve is of another family,

        V   = G + 10^eta A / (1 + exp(m (s50 - x - xi))),    A = 3406 uV, s50 = 97.9 %MSO, m = 0.166 / %MSO

    for models that assume the first one to be tried on. Plateau, median at the threshold, noise and excitability are
    the same; medians at a strength of 1, 1.1, 1.2 and 1.4: 59, 170, 488 and 2139 uV.

    Parameters
    ----------
    key
        Draws the amplitudes.
    strength
        (..., n_muscle) strength of stimulation, in units of the motor threshold of the muscle; zero and below give
        noise.
    correlation
        rho, the correlation of xi between muscles, 0 to 1. The model is of one muscle; that muscles share part of their
        excitability is our addition.
    curve
        Family of the recruitment curve, "goetz" or "boltzmann".

    Returns
    -------
    array
        V, (..., n_muscle), uV.

    Raises
    ------
    ValueError
        NaN, a correlation outside 0 to 1, another curve.

    Notes
    -----
    S. M. Goetz et al., IEEE Trans. Neural Syst. Rehabil. Eng. 27, 1539 (2019). Boltzmann sigmoids describe averaged
    MEPs in H. Devanne, B. A. Lavoie, C. Capaday, Exp. Brain Res. 114, 329 (1997); their parameters here are ours.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> jm.simulate.mep(jax.random.key(0), jnp.full((20, 3), 1.2)).shape  # uV: 20 stimuli, 3 muscles
    (20, 3)
    """
    strength = jnp.asarray(_check.finite(strength, "strength"))
    rho = float(_check.finite(correlation, "correlation"))
    if not 0 <= rho <= 1:
        raise ValueError(f"correlation: {rho:g}; it must lie between 0 and 1.")
    return _draw_meps(key, strength, rho, _check.option(curve, CURVES, "curve"))


@partial(jax.jit, static_argnums=3)
def _draw_meps(key: Array, strength: Array, rho: Array | float, curve: str) -> Array:
    k_normal, k_noise = jax.random.split(key)
    shape, dtype = strength.shape, strength.dtype
    n = shape[-1]
    normal = jax.random.normal(k_normal, (*shape[:-1], 2 * n + 1), dtype)
    private, amplitude, shared = jnp.split(normal, [n, 2 * n], axis=-1)
    xi = _EXCITABILITY * (jnp.sqrt(rho) * shared + jnp.sqrt(1 - rho) * private)
    # a generalised extreme value is this function of a Gumbel variate
    noise = jnp.expm1(_NOISE_SHAPE * jax.random.gumbel(k_noise, shape, dtype)) / _NOISE_SHAPE
    size = 10 ** (_AMPLITUDE * amplitude + _decades(_MT * strength + xi, curve))
    return _NOISE + _NOISE_WIDTH * noise + _FLOOR * size


def expected_mep(strength: Strength, *, curve: str = "goetz") -> Float[Array, "*stimulus muscle"]:
    """Compute the mean E[V | strength] of `mep`: the best of all predictors of single amplitudes.

    G and eta in closed form, xi by Gauss-Hermite quadrature. It does not depend on the correlation.

    Parameters
    ----------
    strength
        (..., n_muscle) strength of stimulation, in units of the motor threshold of the muscle.
    curve
        Family of the recruitment curve, as in `mep`.

    Returns
    -------
    array
        The mean, (..., n_muscle), uV.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> [round(float(v)) for v in jm.simulate.expected_mep(np.array([0.5, 1.2]))]  # uV, half and 1.2 of threshold
    [10, 550]
    """
    return _mean_mep(jnp.asarray(_check.finite(strength, "strength")), _check.option(curve, CURVES, "curve"))


@partial(jax.jit, static_argnums=1)
def _mean_mep(strength: Array, curve: str) -> Array:
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    xi, share = (jnp.asarray(v, strength.dtype) for v in (_EXCITABILITY * nodes, weights / weights.sum()))
    size = (10 ** _decades(_MT * strength[..., None] + xi, curve) * share).sum(-1)
    spread = math.exp((math.log(10) * _AMPLITUDE) ** 2 / 2)
    noise = _NOISE + _NOISE_WIDTH * (math.gamma(1 - _NOISE_SHAPE) - 1) / _NOISE_SHAPE
    return noise + _FLOOR * spread * size


def _decades(x: Array, curve: str) -> Array:
    """Compute the recruitment curve: decades above 0.1 uV at x %MSO."""
    if curve == "boltzmann":
        return math.log10(_PLATEAU / _FLOOR) - jax.nn.softplus(_SLOPE * (_MIDDLE - x)) / math.log(10)
    y = jnp.maximum(x - _FROM, 0) ** _POWER
    return _DECADES * y / (y + _HALF)
