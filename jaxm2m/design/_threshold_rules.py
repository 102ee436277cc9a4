"""Rules for the motor threshold that the posterior is held against: relative frequency, and maximum likelihood."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxm2m._pytree import tree
from jaxm2m.design._threshold import RESPONSE, ThresholdEstimate, check_limits, check_stimulus, find_quantiles

_STEP, _LARGE = 0.01, 0.05  # of the largest intensity
_OF, _NEEDED = 10, 5
_SPREAD = 0.07  # of the threshold: of the cumulative normal of yes and no
_TICKS = 400


@tree
class RelativeFrequency:
    """The relative-frequency rule: the lowest intensity at which five of ten MEPs reach 50 uV.

    Up by 5 % of the largest intensity until there is a response; ten stimuli there, and on down by 1 % until an
    intensity fails. Ten are cut short when five are reached or cannot be any more. If already the first intensity
    fails, the response was chance, and it goes on upwards.

    Attributes
    ----------
    lowest, highest, intensity
        The limits, and the next one, A/s.
    best
        The lowest intensity that passed, A/s; NaN: none yet.
    hits, misses
        At this intensity.
    testing, finished
        Whether intensities are tested; whether the threshold is reached.

    Notes
    -----
    P. M. Rossini et al., Clin. Neurophysiol. 126, 1071 (2015); S. Groppa et al., Clin. Neurophysiol. 123, 858 (2012).
    """

    lowest: Float[Array, ""]
    highest: Float[Array, ""]
    intensity: Float[Array, ""]
    best: Float[Array, ""]
    hits: Array
    misses: Array
    testing: Array
    finished: Array

    def add(self, didt: float | Array, mep: float | Array) -> "RelativeFrequency":
        """Return the rule after one more stimulus, which must be of the intensity that it proposed.

        Parameters
        ----------
        didt
            dI/dt, A/s.
        mep
            Peak-to-peak amplitude, uV; a NaN counts for nothing.

        Returns
        -------
        RelativeFrequency
            The next state.

        Raises
        ------
        ValueError
            An intensity that is not above zero, or a negative amplitude.
        """
        return _count_response(self, *check_stimulus(didt, mep, self.lowest.dtype))

    def propose(self, key: Key[Array, ""]) -> Float[Array, ""]:
        """Propose the next intensity; at the end the threshold.

        Parameters
        ----------
        key
            Not used.

        Returns
        -------
        didt
            () A/s.
        """
        return self.intensity

    def threshold(self) -> ThresholdEstimate:
        """Return the lowest intensity that passed so far.

        Returns
        -------
        ThresholdEstimate
            A/s; the intensity that is being tested where none passed yet, and no limits.
        """
        none = jnp.full_like(self.best, jnp.nan)
        return ThresholdEstimate(jnp.where(jnp.isnan(self.best), self.intensity, self.best), none, none)


def track_relative_frequency(lowest: float | int, highest: float | int) -> RelativeFrequency:
    """Begin the relative-frequency rule.

    Parameters
    ----------
    lowest, highest
        Of the intensities, A/s; it begins at the lowest.

    Returns
    -------
    RelativeFrequency
        Without a stimulus.

    Raises
    ------
    ValueError
        Limits that do not grow.
    """
    low, high = check_limits(lowest, highest)
    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return RelativeFrequency(low, high, low, jnp.full_like(low, jnp.nan), zero, zero, no, no)


@tree
class MaximumLikelihood:
    """Threshold tracking by maximum likelihood of yes and no: each stimulus is at the present estimate.

    A response of 50 uV has probability Phi((x - T) / 0.07 T); as in F. Awiszus, a response at the highest and none at
    the lowest intensity are assumed beforehand.

    Attributes
    ----------
    ticks
        (400,) thresholds, A/s.
    log_likelihood
        (400,)

    Notes
    -----
    F. Awiszus, TMS and threshold hunting, Suppl. Clin. Neurophysiol. 56, 13 (2003).
    """

    ticks: Float[Array, " tick"]
    log_likelihood: Float[Array, " tick"]

    def add(self, didt: float | Array, mep: float | Array) -> "MaximumLikelihood":
        """Return the tracker after one more stimulus.

        Parameters
        ----------
        didt
            dI/dt, A/s.
        mep
            Peak-to-peak amplitude, uV; a NaN counts for nothing.

        Returns
        -------
        MaximumLikelihood
            The next state.

        Raises
        ------
        ValueError
            An intensity that is not above zero, or a negative amplitude.
        """
        x, amplitude = check_stimulus(didt, mep, self.ticks.dtype)
        change = _log_answer(self.ticks, x, amplitude >= RESPONSE)
        return MaximumLikelihood(self.ticks, self.log_likelihood + jnp.where(jnp.isnan(amplitude), 0, change))

    def propose(self, key: Key[Array, ""]) -> Float[Array, ""]:
        """Propose the present estimate.

        Parameters
        ----------
        key
            Not used.

        Returns
        -------
        didt
            () A/s.
        """
        return self.threshold().mean

    def threshold(self) -> ThresholdEstimate:
        """Return the threshold of the largest likelihood.

        Returns
        -------
        ThresholdEstimate
            A/s; its limits are those of the normalised likelihood.
        """
        value = self.log_likelihood - self.log_likelihood.max()
        best = value > -1e-5
        mean = (self.ticks * best).sum() / best.sum()
        return ThresholdEstimate(mean, *find_quantiles(self.ticks, jnp.exp(value)))


def track_maximum_likelihood(lowest: float | int, highest: float | int) -> MaximumLikelihood:
    """Begin maximum-likelihood threshold tracking.

    Parameters
    ----------
    lowest, highest
        Between which the threshold lies, A/s.

    Returns
    -------
    MaximumLikelihood
        Without a stimulus.

    Raises
    ------
    ValueError
        Limits that do not grow.
    """
    low, high = check_limits(lowest, highest)
    ticks = jnp.linspace(low, high, _TICKS)
    return MaximumLikelihood(ticks, _log_answer(ticks, high, True) + _log_answer(ticks, low, False))


def _log_answer(ticks: Array, didt: Array, answered: bool | Array) -> Array:
    z = (didt - ticks) / (_SPREAD * ticks)
    return jax.scipy.special.log_ndtr(jnp.where(answered, z, -z))


@jax.jit
def _count_response(rule: RelativeFrequency, didt: Array, mep: Array) -> RelativeFrequency:
    hit, known = mep >= RESPONSE, ~(jnp.isnan(mep) | rule.finished)
    hits, misses = rule.hits + (rule.testing & hit), rule.misses + (rule.testing & ~hit)
    passed, failed = rule.testing & (hits >= _NEEDED), rule.testing & (misses > _OF - _NEEDED)
    best = jnp.where(passed, rule.intensity, rule.best)
    finished = (failed & ~jnp.isnan(best)) | (passed & (rule.intensity <= rule.lowest))
    up = (failed & jnp.isnan(best)) | (~rule.testing & ~hit)
    # at the largest intensity there is nothing left but to test it
    testing = (rule.testing & ~up) | (~rule.testing & hit) | (rule.intensity >= rule.highest)
    step = jnp.where(up, _LARGE, jnp.where(passed, -_STEP, 0)) * rule.highest
    intensity = jnp.where(finished, best, jnp.clip(rule.intensity + step, rule.lowest, rule.highest))
    anew = passed | failed
    new = RelativeFrequency(
        rule.lowest, rule.highest, intensity, best, jnp.where(anew, 0, hits), jnp.where(anew, 0, misses), testing,
        finished,
    )  # fmt: skip
    return jax.tree.map(lambda a, b: jnp.where(known, a, b), new, rule)
