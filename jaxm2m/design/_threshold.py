r"""The resting motor threshold of one muscle at a fixed pose, hunted by the posterior of its recruitment curve.

The threshold T is the dI/dt at which the curve without excitability and noise, which is the median MEP to within a few
percent, is 50 uV. Drives are shares of it:

    v = v_50 + (dI/dt / T - 1) / h,    curve(v_50) = 50 uV

v in half-points of `RecruitmentCurve`, h the half-point as a share of the threshold. Beforehand log T is uniform
between the limits and the other numbers are normal about those of S. M. Goetz et al., IEEE Trans. Neural Syst. Rehabil.
Eng. 27, 1539 (2019). Particles carry the posterior: each MEP weighs them by its likelihood, excitability integrated
out; when fewer than half count, they are resampled and moved (W. R. Gilks, C. Berzuini, J. R. Stat. Soc. B 63, 127,
2001) by differences of others (C. J. F. ter Braak, Stat. Comput. 16, 239, 2006), half of them by those of the other
half.

The next intensity has the largest mutual information of MEP and threshold,

    I(x) = sum_g 1/4 sum_b p(b | g, x) log(p(b | g, x) / p(b | x))

b bins of the MEP's logarithm, g four equally probable classes of the threshold, p(b | g, x) the average over the
particles of the class: a nested estimate whose inner probabilities are integrals over excitability, less what the
averages over few particles add to it, to first order (1/2 sum_b of their variance over p(b | x)).
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxm2m import _check
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m.muscle.sources import RecruitmentCurve, log_likelihood, probability_below

RESPONSE = 50.0  # uV
_NO_RESPONSE = 10.0  # uV, of a table's zero: about where the noise of a recording lies
# log of the half-point over the threshold (23.2 of 72.55 %MSO), log power, decades, log10 floor, log excitability (4.88
# of 23.2 %MSO), log amplitude
_MIDDLE = np.array([np.log(0.32), np.log(2.67), 4.53, 1.0, np.log(0.21), np.log(0.11)])
_WIDTH = np.array([0.3, 0.1, 0.25, 0.2, 0.3, 0.3])
_MOVES = 4  # of each half after particles were resampled
_JUMP = 2.38 / np.sqrt(2 * (1 + len(_MIDDLE)))
_CLASSES, _EACH = 4, 64  # of the threshold, and particles in each, for the information
_EDGES = np.linspace(0.9, 3.1, 12)  # log10 uV, between bins of MEPs
# stronger stimuli than 1.3 thresholds are unpleasant, and tell of the plateau
_INTENSITIES, _WEAKER, _STRONGEST = 24, 0.2, 1.3


class ThresholdEstimate(NamedTuple):
    """A threshold, and between which limits it lies with 90 % probability.

    Attributes
    ----------
    mean, low, high
        A/s; the limits are NaN where a rule has none.
    """

    mean: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]


@runtime_checkable
class ThresholdRule(Protocol):
    """What hunts a threshold: the next intensity from the MEPs so far; a frozen pytree."""

    def add(self, didt: float | Array, mep: float | Array) -> "ThresholdRule":
        """Return the rule after one more stimulus of `didt` (A/s) with its MEP (uV, NaN counts for nothing)."""
        ...

    def propose(self, key: Key[Array, ""]) -> Float[Array, ""]:
        """Propose the next intensity, A/s."""
        ...

    def threshold(self) -> ThresholdEstimate:
        """Estimate the threshold, A/s."""
        ...


@tree
class ThresholdTracker:
    """The posterior of one muscle's recruitment curve at a fixed pose; made by `track_threshold`.

    Attributes
    ----------
    lowest, highest
        Limits of the intensity, A/s.
    standard
        (n_particle, 7) numbers that are standard normal beforehand: of the threshold, and of the curve.
    log_weight
        (n_particle,) logarithms of the particles' weights.
    didt, y
        (capacity,) A/s and log10 uV of the stimuli so far.
    count
        How many.
    key
        From which particles move.
    """

    lowest: Float[Array, ""]
    highest: Float[Array, ""]
    standard: Float[Array, "particle number"]
    log_weight: Float[Array, " particle"]
    didt: Float[Array, " capacity"]
    y: Float[Array, " capacity"]
    count: Array
    key: Key[Array, ""]

    def add(self, didt: float | Array, mep: float | Array) -> "ThresholdTracker":
        """Return the tracker after one more stimulus.

        Parameters
        ----------
        didt
            dI/dt, A/s.
        mep
            Peak-to-peak amplitude, uV; a NaN counts for nothing, and zero, "no response", as 10 uV.

        Returns
        -------
        ThresholdTracker
            With `count` one larger, unless the MEP is NaN.

        Raises
        ------
        ValueError
            An intensity that is not above zero, a negative amplitude, or more stimuli than there is room for.
        """
        x, amplitude = check_stimulus(didt, mep, self.didt.dtype)
        if not _check.is_traced(self.count) and int(self.count) >= len(self.y):
            raise ValueError(f"mep: there is room for {len(self.y)} stimuli; make a tracker of larger `capacity`.")
        return _add_stimulus(self, x, amplitude)

    def propose(self, key: Key[Array, ""]) -> Float[Array, ""]:
        """Propose the intensity whose MEP is expected to tell most about the threshold.

        Parameters
        ----------
        key
            Chooses the particles that the expectation is taken over.

        Returns
        -------
        didt
            () A/s, between the limits; one of 24 from a fifth below the 90 % interval of the threshold to 1.3 times its
            upper end.
        """
        _, low, high = self.threshold()
        ends = jnp.clip(jnp.stack([(1 - _WEAKER) * low, _STRONGEST * high]), self.lowest, self.highest)
        intensities = jnp.linspace(ends[0], ends[1], _INTENSITIES)
        return intensities[jnp.argmax(self.information(key, intensities))]

    def information(self, key: Key[Array, ""], didt: Float[Array, " n"]) -> Float[Array, " n"]:
        """Compute what MEPs are expected to tell about the threshold.

        Parameters
        ----------
        key
            Chooses the particles that the expectation is taken over.
        didt
            (n,) A/s.

        Returns
        -------
        information
            (n,) nats.
        """
        return _expect_information(self, key, didt)

    def threshold(self) -> ThresholdEstimate:
        """Estimate the threshold by the posterior.

        Returns
        -------
        ThresholdEstimate
            Mean and the middle 90 % of the posterior, A/s.
        """
        return _summarise(self)


def track_threshold(
    lowest: float | int,
    highest: float | int,
    *,
    key: Key[Array, ""],
    capacity: int = 200,
    n_particle: int = 2048,
) -> ThresholdTracker:
    """Begin to hunt the resting motor threshold of one muscle at a fixed pose.

    Parameters
    ----------
    lowest, highest
        Between which the threshold and the intensities lie, A/s.
    key
        All randomness but that of proposals follows from it.
    capacity
        Stimuli that there is room for.
    n_particle
        How many particles carry the posterior, an even number.

    Returns
    -------
    ThresholdTracker
        Without a stimulus.

    Raises
    ------
    ValueError
        Limits that do not grow, or fewer particles than the information needs.

    Examples
    --------
    >>> import jax
    >>> import jaxm2m as jm
    >>> hunt = jm.design.track_threshold(3e7, 1.5e8, key=jax.random.key(0), n_particle=256)
    >>> hunt = hunt.add(hunt.propose(jax.random.key(1)), 120.0)  # A/s, uV
    >>> low, high = (float(end) for end in hunt.threshold()[1:])
    >>> 3e7 < low < high < 1.5e8
    True
    """
    low, high = check_limits(lowest, highest)
    _check.integer(capacity, "capacity")
    if _check.integer(n_particle, "n_particle") < _CLASSES * _EACH or n_particle % 2:
        raise ValueError(f"n_particle: {n_particle}; give an even number of {_CLASSES * _EACH} or more.")
    first, later = jax.random.split(key)
    return ThresholdTracker(
        low,
        high,
        jax.random.normal(first, (n_particle, 1 + len(_MIDDLE)), low.dtype),
        jnp.zeros(n_particle, low.dtype),
        jnp.ones(capacity, low.dtype),
        jnp.ones(capacity, low.dtype),
        jnp.zeros((), jnp.int32),
        later,
    )


def check_stimulus(didt: float | Array, mep: float | Array, dtype: np.dtype) -> tuple[Array, Array]:
    x, amplitude = (jnp.asarray(_check.array(a, name), dtype) for a, name in ((didt, "didt"), (mep, "mep")))
    if x.shape or amplitude.shape:
        raise ValueError(f"mep: shapes {x.shape} of didt and {amplitude.shape}; give one stimulus, two numbers.")
    if not _check.is_traced(x):
        _check.positive(didt, "didt")
    if not _check.is_traced(amplitude) and (float(amplitude) < 0 or np.isinf(float(amplitude))):
        raise ValueError(f"mep: {float(amplitude):g}; give a peak-to-peak amplitude in uV, NaN where there is none.")
    return x, amplitude


def check_limits(lowest: float | int, highest: float | int) -> tuple[Array, Array]:
    low, high = (float(_check.positive(a, name)) for a, name in ((lowest, "lowest"), (highest, "highest")))
    if low >= high:
        raise ValueError(f"lowest: {low:g} is not below the highest intensity, {high:g}; give limits that grow, A/s.")
    dtype = jnp.result_type(float)
    return jnp.asarray(low, dtype), jnp.asarray(high, dtype)


class Subject(NamedTuple):
    """A threshold (A/s) with the numbers of a curve; or many, one a particle."""

    threshold: Array
    curve: RecruitmentCurve

    def drive(self, didt: Array) -> Array:
        return didt / self.threshold


def make_subject(standard: Array, lowest: Array, highest: Array) -> Subject:
    """Make thresholds and curves of numbers (particle, 7) that are standard normal beforehand."""
    share = jax.scipy.special.ndtr(standard[:, 0])
    threshold = lowest * (highest / lowest) ** share
    t = standard[:, 1:] * jnp.asarray(_WIDTH, standard.dtype) + jnp.asarray(_MIDDLE, standard.dtype)
    # noise alone is no response
    floor = jnp.minimum(t[:, 3], np.log10(RESPONSE) - 0.1)
    power = jnp.exp(t[:, 1])
    height = (jnp.log10(RESPONSE - 10**floor) + 1) / t[:, 2]
    at_threshold = (height / (1 - height)) ** (1 / power)
    gain = jnp.exp(-t[:, 0])
    curve = RecruitmentCurve(
        at_threshold - gain, gain, power, t[:, 2], floor, jnp.exp(t[:, 4]), jnp.exp(t[:, 5])
    )  # fmt: skip
    return Subject(threshold, curve)


def _weigh(subject: Subject, didt: Array, y: Array) -> Array:
    return log_likelihood(subject.curve, y, subject.drive(didt), jnp.zeros((), y.dtype))


@jax.jit
@full_precision
def _add_stimulus(tracker: ThresholdTracker, didt: Array, mep: Array) -> ThresholdTracker:
    known, i = jnp.isfinite(mep), tracker.count
    y = jnp.log10(jnp.where(known & (mep > 0), mep, _NO_RESPONSE))
    subject = make_subject(tracker.standard, tracker.lowest, tracker.highest)
    log_weight = tracker.log_weight + jnp.where(known, _weigh(subject, didt, y), 0)
    log_weight = log_weight - log_weight.max()
    # what is not known is written over by the next one
    xs, ys, count = tracker.didt.at[i].set(didt), tracker.y.at[i].set(y), i + known
    k_choose, k_move = jax.random.split(jax.random.fold_in(tracker.key, i))
    weight = jnp.exp(log_weight)
    few = known & (weight.sum() ** 2 < 0.5 * len(weight) * (weight**2).sum())

    def renew(standard, log_weight):
        chosen = standard[_resample(k_choose, weight, len(weight))]
        moved = _move(k_move, chosen, tracker, xs, ys, count)
        return moved, jnp.zeros_like(log_weight)

    standard, log_weight = jax.lax.cond(few, renew, lambda *a: a, tracker.standard, log_weight)
    return ThresholdTracker(tracker.lowest, tracker.highest, standard, log_weight, xs, ys, count, tracker.key)


def _resample(key: Array, weight: Array, count: int) -> Array:
    """Indices (count,), systematically, each as often as its weight asks."""
    ends = jnp.cumsum(weight) / weight.sum()
    at = (jnp.arange(count) + jax.random.uniform(key, (), weight.dtype)) / count
    return jnp.minimum(jnp.searchsorted(ends, at), len(weight) - 1)


def _move(key: Array, standard: Array, tracker: ThresholdTracker, xs: Array, ys: Array, count: Array) -> Array:
    """Move particles by Metropolis steps that leave the posterior as it is."""

    def log_posterior(standard):
        subject = make_subject(standard, tracker.lowest, tracker.highest)
        start = -0.5 * (standard**2).sum(-1)
        return jax.lax.fori_loop(0, count, lambda k, total: total + _weigh(subject, xs[k], ys[k]), start)

    def step(halves, key):
        still, moving, value = halves
        k_first, k_second, k_size, k_accept = jax.random.split(key, 4)
        n = len(moving)
        # two different ones of the half that stands still
        first = jax.random.randint(k_first, (n,), 0, n)
        second = (first + jax.random.randint(k_second, (n,), 1, n)) % n
        tremble = 1e-3 * jax.random.normal(k_size, moving.shape, moving.dtype)
        trial = moving + _JUMP * (still[first] - still[second]) + tremble
        new = log_posterior(trial)
        accepted = jnp.log(jax.random.uniform(k_accept, (n,), moving.dtype)) < new - value[1]
        moved = jnp.where(accepted[:, None], trial, moving)
        # the other half is next
        return (moved, still, jnp.stack([jnp.where(accepted, new, value[1]), value[0]])), None

    # neighbours after a systematic choice are alike: the halves take turns
    halves = standard[::2], standard[1::2]
    values = jnp.stack([log_posterior(half) for half in halves])
    (one, other, _), _ = jax.lax.scan(step, (*halves, values), jax.random.split(key, 2 * _MOVES))
    return jnp.stack([one, other], 1).reshape(standard.shape)


@jax.jit
@full_precision
def _expect_information(tracker: ThresholdTracker, key: Array, didt: Array) -> Array:
    weight = jnp.exp(tracker.log_weight - tracker.log_weight.max())
    chosen = tracker.standard[_resample(key, weight, _CLASSES * _EACH)]
    # ranks of the threshold are those of its coordinate
    subject = make_subject(chosen[jnp.argsort(chosen[:, 0])], tracker.lowest, tracker.highest)
    edges = jnp.asarray(_EDGES, didt.dtype)[:, None]

    def one(x):
        below = probability_below(subject.curve, edges, subject.drive(x), jnp.zeros((), x.dtype))
        ends = jnp.zeros((1, below.shape[1]), x.dtype)
        # rounding may turn a difference negative
        inside = jnp.maximum(jnp.diff(jnp.concatenate([ends, below, ends + 1]), axis=0), 0)
        particles = inside.reshape(-1, _CLASSES, _EACH)
        each = particles.mean(-1)
        every = each.mean(1)
        xlogx = jax.scipy.special.xlogy
        plain = xlogx(each, each).sum(0).mean() - xlogx(every, every).sum()
        # averages over few particles differ by chance, which would count as information
        chance = particles.var(-1, ddof=1).mean(1) / jnp.maximum(every, 1e-9)
        return plain - 0.5 * (1 - 1 / _CLASSES) / _EACH * chance.sum()

    return jax.lax.map(one, didt, batch_size=8)


@jax.jit
def _summarise(tracker: ThresholdTracker) -> ThresholdEstimate:
    values = make_subject(tracker.standard, tracker.lowest, tracker.highest).threshold
    weight = jnp.exp(tracker.log_weight - tracker.log_weight.max())
    return ThresholdEstimate((weight * values).sum() / weight.sum(), *find_quantiles(values, weight))


def find_quantiles(values: Array, weight: Array) -> tuple[Array, Array]:
    """The 5 and 95 % quantiles of weighted values (n,)."""
    order = jnp.argsort(values)
    ends = jnp.cumsum(weight[order]) / weight.sum()
    low, high = (values[order][jnp.minimum(jnp.searchsorted(ends, q), len(values) - 1)] for q in (0.05, 0.95))
    return low, high
