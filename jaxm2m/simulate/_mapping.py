"""A mapping session whose truth is known: from fields at many poses to MEPs of many muscles.

D = W_d r,   Y = S W_s r,    each muscle divided by the 98th percentile of its stimuli
u = alpha Y + (1 - alpha) D
V ~ mep((0.75 + gain u) / threshold)
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress_bar
from jaxm2m._types import ArrayLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import FieldMap
from jaxm2m.simulate._mep import CURVES, expected_mep, mep
from jaxm2m.simulate._motor_cortex import (
    DIRECT,
    SYNERGY,
    draw_centres,
    find_motor_cortex,
    gaussians,
    line_centres,
    n_uniform,
)
from jaxm2m.simulate._session_poses import session_poses, tangent_axes
from jaxm2m.simulate._simulated_session import SimulatedSession, stimulus_strength, weighted_drive

# those of the 2019 paper, in its order
MUSCLES = ("FDI", "3DI", "3Lum", "EI", "AbPB", "AdPB", "ADM", "FDM", "FCR", "FCU", "FDS", "EDC", "ECR", "ECU", "BRD")
TRUTHS = ("rate", "field")
CORTICES = ("drawn", "line")

_STRONGEST = 95  # percentile of x in the hot spot that is 1 at the motor threshold
_PERCENTILE = 98
_THRESHOLDS = (0.95, 1.08)  # of the muscles, over the average one's
_REFERENCE = 1e6  # A/s at which fields are computed
_BATCH_SIZE = 16  # fields in memory at once, 100 MB on the usual grid


def mapping_session(
    field_map: FieldMap,
    *,
    key: Key[Array, ""],
    rate: FiringRate,
    target: ArrayLike | None = None,
    handle: ArrayLike = (-1.0, -1.0, 0.0),
    stimuli: int = 300,
    intensity: float | int | tuple[float | int, float | int] = 1.2,
    alpha: float | int = 0.6,
    truth: str = "rate",
    cortex: str = "drawn",
    second_places: int | None = None,
    curve: str = "goetz",
    synergies: int = 9,
    muscles: Sequence[str] = MUSCLES,
    distance: float | int = 4.0,
    turn: float | int = 8.0,
    gain: float | int = 0.33,
    progress: bool | None = None,
) -> SimulatedSession:
    """Simulate a motor mapping session, from poses over the hot spot to MEPs.

    The stimuli: a square grid of 7 x 7 cm on the scalp round the target, 49 of 300 (the largest square within a sixth
    of all), then places scattered by 12 mm (standard deviation along each direction). The handle turns by `turn`
    (standard deviation). A pose whose casing would touch the head stands off by as much as it takes.

    The cortex, its grey matter within the map (all points where there is none):

        x   = |E| / threshold of the rate,     r = rate(x)  or, truth "field",  r = x
        D   = W_d r,   Y = S W_s r,            each muscle divided by its 98th percentile over the stimuli
        u   = alpha Y + (1 - alpha) D
        V   ~ mep((0.75 + gain u) / t_m),      t_m uniform in 0.95 to 1.08

    Rows of W_d are Gaussians of 5 mm (standard deviation) about centres that are drawn, for each key anew, from a
    square of 25 x 25 mm (to the side and to the front of the grey point nearest to the target, along the scalp over
    it); those of W_s are of 7 mm, about centres from the same square. Each centre goes to the nearest grey matter. A
    few muscles have two places, at least 12 mm from each other where the cortex is that wide, with half of the weight
    each. Columns of S hold 3 to 6 muscles (more only where few synergies must reach all muscles), Gamma(2, 1) variates
    that sum to 1.

    With `cortex` "line", muscles' centres lie side by side over 20 mm, from lateral to medial in the order of
    `muscles`, those of synergies over 22 mm, both scattered by 2 mm to the front: somatotopy as in textbooks, where a
    guess that knows the order is nearly right.

    Intensities are in resting motor thresholds: the dI/dt at which, with the coil over the target and the handle as
    given, x is 1 at the 95th percentile of the grey matter within 15 mm of the grey point nearest to the target: at the
    threshold the crowns under the coil are about to respond, and little else. (A threshold for the average of the hot
    spot would have most of the motor cortex saturated at 120 %.)

    Parameters
    ----------
    field_map
        Of `Simulator.bind` or `Basis.bind`; the region should hold the cortex within 25 mm of the target.
    key
        All randomness follows from it. What the cortex is does not depend on the stimuli.
    rate
        With a threshold in V/m or V/cm, in truth "field" as the unit of the field. If it takes the normal component, it
        must hold the normals, (n_point, 3).
    target
        (3,) hot spot, mm; by default the middle of the map's points.
    handle
        (3,) direction in which the handle points on average, no unit.
    stimuli
        Number of stimuli, 10 or more.
    intensity
        In units of the resting motor threshold: one number, or (lowest, highest), between which intensities are drawn
        uniformly.
    alpha
        Share of the synergies in u, 0 to 1.
    truth
        "rate": muscles follow the firing rate. "field": they are linear in the field, so that a model of the firing
        rate has nothing to gain.
    cortex
        "drawn": another cortex for each key. "line": muscles side by side, in their order.
    second_places
        Number of muscles that have two places; None: two of 15 of a drawn cortex.
    curve
        Family of the recruitment curve, as in `mep`: "goetz" or "boltzmann".
    synergies
        Number of synergies.
    muscles
        Names of the muscles.
    distance
        Distance from the scalp to the coil's frame, mm.
    turn
        Standard deviation of the handle, degrees. A model that should know what turning the coil does needs more than
        the few degrees of a session at one orientation.
    gain
        How strongly u acts, no unit. By default about a quarter of the MEPs exceed 50 uV (18 to 30 % with five keys on
        the atlas head; 16 to 36 % in real maps), in truth "field" more, since fields fall off less than rates. Most of
        what is seen is then noise (`ceiling` 0.67 to 0.71). 0.55, that of the published model of MEPs, leaves less of
        it (0.45 to 0.53), with 54 to 65 % over 50 uV.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    SimulatedSession
        The stimuli, their MEPs and everything these came from.

    Raises
    ------
    ValueError
        Arguments that cannot be used; a target far from the map's cortex; poses that the map refuses.
    ConvergenceError
        A solve that fails.

    Notes
    -----
    Since D and Y are relative to the session's own stimuli, intensity acts by what it does to the shape of the maps,
    not to their height. Numbers are ours, after the session of M. Yarossi et al., "An experimental and computational
    framework for modeling multi-muscle responses to transcranial magnetic stimulation of the human motor cortex", IEEE
    EMBS Conf. Neural Eng., 2019; MEPs after S. M. Goetz et al., IEEE Trans. Neural Syst. Rehabil. Eng. 27, 1539 (2019).
    Such data show whether the firing rate or the field drives the muscles: ridge regressions on the rate come closer to
    the ceiling under truth "rate" (NRMSE lower by 0.013 to 0.027 on the atlas head, muscles on a line, gains 0.28 to
    0.55) and no closer under truth "field". They hardly tell synergies from direct projections, whose maps overlap.
    """
    _check_arguments(field_map, rate, stimuli, alpha, truth, synergies, muscles, turn, gain)
    _check.option(cortex, CORTICES, "cortex")
    _check.option(curve, CURVES, "curve")
    doubled = _count_doubled(second_places, cortex, len(muscles))
    lowest, highest = _range(intensity)
    area = find_motor_cortex(field_map, target)
    drawn = _draw_session(key, stimuli, len(muscles), synergies)
    poses = session_poses(field_map, area.target, handle, distance, drawn.places, float(turn) * drawn.turns)
    dtype = poses.dtype
    relative = lowest + (highest - lowest) * drawn.intensity

    if cortex == "line":
        centres = line_centres(drawn.depths, len(muscles), area)
    else:
        uniform = _draw_places(key, n_uniform(len(muscles), synergies))
        centres = draw_centres(uniform, tangent_axes(np.asarray(poses[0])), len(muscles), doubled, area)
    direct_weights = jnp.asarray(gaussians(centres.direct, DIRECT.width, area, centres.second), dtype)
    synergy_weights = jnp.asarray(gaussians(centres.synergy, SYNERGY.width, area), dtype)

    linear = replace(rate, curve=jax.tree_util.Partial(_same))
    taken = rate if truth == "rate" else linear
    with progress_bar(stimuli, "mapping session", unit="stimuli", enabled=progress) as advance:
        weights = jnp.concatenate([direct_weights, synergy_weights])
        activity, rmt = _activity(field_map, taken, linear, poses, relative, area, weights, advance)
    answer = _answer(drawn, activity, alpha, gain, curve)
    if not (answer.largest > 0).all():
        raise ValueError(
            f"rate: {int((~(answer.largest > 0)).any(0).sum())} of {len(muscles)} muscles get no drive from any "
            "stimulus; raise `intensity`, or take a curve that rises near the threshold."
        )
    return SimulatedSession(
        poses=poses[1:],
        didt=relative * rmt,
        intensity=relative,
        meps=answer.meps,
        mean=answer.mean,
        drive=answer.drive,
        direct=answer.direct,
        synergy=answer.synergy,
        activations=answer.activations,
        synergies=drawn.synergies,
        direct_weights=direct_weights,
        synergy_weights=synergy_weights,
        direct_centres=jnp.asarray(centres.direct, dtype),
        synergy_centres=jnp.asarray(centres.synergy, dtype),
        second_centres=jnp.asarray(centres.second, dtype),
        thresholds=drawn.thresholds,
        rmt_didt=jnp.asarray(rmt, dtype),
        largest=answer.largest,
        alpha=jnp.asarray(alpha, dtype),
        gain=jnp.asarray(gain, dtype),
        rate=taken,
        active=jnp.asarray(field_map.active),
        points=jnp.asarray(area.points, dtype),
        n_point=field_map.n_point,
        muscles=tuple(muscles),
        curve=curve,
    )


def _check_arguments(
    field_map: FieldMap,
    rate: FiringRate,
    stimuli: int,
    alpha: float | int,
    truth: str,
    synergies: int,
    muscles: Sequence[str],
    turn: float | int,
    gain: float | int,
) -> None:
    if rate.threshold.unit not in ("V/m", "V/cm"):
        raise ValueError(
            f'rate: its threshold is in "{rate.threshold.unit}", which cancels against the intensity; give a field, '
            'such as cortex.threshold(60.0, "V/m").'
        )
    if rate.component == "scalar":
        raise ValueError('rate: component "scalar", but fields have three; take "magnitude" or "normal".')
    if rate.component == "normal" and rate.normals is None:
        raise ValueError("rate: its component is the normal one and it holds no normals; build it with normals=...")
    # shapes only: what does not fit is told before a solve
    jax.eval_shape(rate, jax.ShapeDtypeStruct((1, field_map.n_point, 3), jnp.result_type(float)))
    _check.integer(stimuli, "stimuli", minimum=10)
    _check.integer(synergies, "synergies")
    _check.option(truth, TRUTHS, "truth")
    _check.positive(gain, "gain")
    _check.positive(turn, "turn", zero=True)
    if not 0 <= float(_check.finite(alpha, "alpha")) <= 1:
        raise ValueError(f"alpha: {alpha:g}; the share of the synergies lies between 0 and 1.")
    if not muscles or len(set(muscles)) != len(muscles):
        raise ValueError(f"muscles: {', '.join(muscles) or 'none'}; give one or more, each a name of its own.")


def _count_doubled(second_places: int | None, cortex: str, n_muscle: int) -> int:
    if second_places is None:
        return round(n_muscle * 2 / 15) if cortex == "drawn" else 0
    _check.integer(second_places, "second_places", minimum=0)
    if second_places > n_muscle:
        raise ValueError(f"second_places: {second_places}, of {n_muscle} muscles; give a number of these.")
    if second_places and cortex == "line":
        raise ValueError(
            f'second_places: {second_places}, but each muscle of a line has one place; take cortex="drawn".'
        )
    return second_places


def _range(intensity: Any) -> tuple[float, float]:
    values = np.asarray(_check.positive(intensity, "intensity"), np.float64)
    if values.ndim == 0:
        return float(values), float(values)
    if values.shape != (2,) or values[0] > values[1]:
        raise ValueError(f"intensity: {intensity}; give one number, or the lowest and the highest.")
    return float(values[0]), float(values[1])


class _Draws(NamedTuple):
    """What is random, but for the noise of the MEPs, of which it holds the key."""

    places: Array  # (stimulus, 2) standard normal, as are the next two
    turns: Array  # (stimulus,)
    depths: Array  # (muscle + synergy,)
    intensity: Array  # (stimulus,) uniform in 0 to 1
    thresholds: Array  # (muscle,)
    synergies: Array  # S (muscle, synergy)
    key: Array


@partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_session(key: Array, stimuli: int, n_muscle: int, n_synergy: int) -> _Draws:
    # the cortex does not depend on the number of stimuli; and few draws, since each compiles anew
    k_cortex, k_stimuli, k_meps = jax.random.split(key, 3)
    size = n_muscle * n_synergy
    places, turns, level = jnp.split(jax.random.normal(k_stimuli, (stimuli, 4)), [2, 3], axis=1)
    lengths = (n_muscle + n_synergy, n_muscle, n_muscle, n_synergy, size, 2 * size)
    normal = jax.random.normal(k_cortex, (sum(lengths),))
    depths, *rest = jnp.split(normal, np.cumsum(lengths)[:-1])
    threshold, home, count, choice, amount = map(jax.scipy.special.ndtr, rest)
    # each muscle has a home, so that no one is left out
    place = home.argsort()
    at_home = place[:, None] % n_synergy == jnp.arange(n_synergy)
    count = jnp.maximum(3 + jnp.minimum(jnp.floor(4 * count), 3), at_home.sum(0))
    rank = (choice.reshape(at_home.shape) - at_home).argsort(0).argsort(0)
    # Gamma(2, 1) is the sum of two exponentials
    amount = -jnp.log(jnp.maximum(amount, jnp.finfo(amount.dtype).tiny)).reshape(2, *at_home.shape).sum(0)
    s = jnp.where(rank < count, amount, 0)
    low, high = _THRESHOLDS
    return _Draws(
        places,
        turns[:, 0],
        depths,
        jax.scipy.special.ndtr(level[:, 0]),
        low + (high - low) * threshold,
        s / s.sum(0),
        k_meps,
    )


@partial(jax.jit, static_argnums=1)
def _draw_places(key: Array, size: int) -> Array:
    """Draw the uniform variates of a drawn cortex, apart from all others: what else a key gives is that of a line."""
    return jax.random.uniform(jax.random.fold_in(key, 3), (size,))  # 0 to 2 are the keys of `_draw_session`


def _activity(field_map, taken, linear, poses, relative, area, weights, advance) -> tuple[Array, float]:
    """Compute weighted rates (stimulus, row) at poses[1:], and dI/dt at the motor threshold from poses[0]."""
    stimuli = len(poses) - 1
    batch_size = min(field_map.solver.batch_size(), _BATCH_SIZE, stimuli)
    # one shape of batch for all, so that nothing compiles twice
    poses, relative = np.asarray(poses), np.asarray(relative)
    e = field_map(np.tile(poses[0], (batch_size, 1, 1)), didt=_REFERENCE)
    x = float(np.percentile(np.asarray(linear(e)[0, field_map.active], np.float64)[area.spot()], _STRONGEST))
    if not x > 0:
        raise ValueError(
            f"rate: with the coil over the target, the field at the hot spot is {x:g} thresholds, so that there is no "
            "motor threshold; turn the handle by 180 degrees, or the normals, which must point into the cortex."
        )
    rates = []
    for begin in range(0, stimuli, batch_size):
        at = np.minimum(np.arange(begin, begin + batch_size), stimuli - 1)
        e = field_map(poses[1 + at], didt=_REFERENCE)
        count = min(batch_size, stimuli - begin)
        scale = (relative[at] / x).astype(relative.dtype)
        rates.append(np.asarray(_weigh_rates(taken, e, scale, field_map.active, weights))[:count])
        advance(count)
    return jnp.asarray(np.concatenate(rates)), _REFERENCE / x


@jax.jit
@full_precision
def _weigh_rates(rate: FiringRate, e: Array, scale: Array, active: Array, weights: Array) -> Array:
    """Weigh rates of the fields e (pose, point, 3) times scale (pose,), at the map's own points: (pose, row)."""
    return rate(e * scale[:, None, None])[:, active] @ weights.T


def _same(x: Array) -> Array:
    return x


class _Answer(NamedTuple):
    """As in `SimulatedSession`; and the percentiles (2, muscle) that D and Y were divided by."""

    meps: Array
    mean: Array
    drive: Array
    direct: Array
    synergy: Array
    activations: Array
    largest: Array


@partial(jax.jit, static_argnums=4)
@full_precision
def _answer(drawn: _Draws, activity: Array, alpha: Any, gain: Any, curve: str) -> _Answer:
    n_muscle = len(drawn.thresholds)
    activations = activity[:, n_muscle:]
    parts = jnp.stack([activity[:, :n_muscle], activations @ drawn.synergies.T])
    largest = jnp.percentile(parts, _PERCENTILE, axis=1)
    direct, synergy = parts / largest[:, None]
    strength = stimulus_strength(direct, synergy, alpha, gain, drawn.thresholds)
    drive = weighted_drive(direct, synergy, alpha)
    meps, mean = mep(drawn.key, strength, curve=curve), expected_mep(strength, curve=curve)
    return _Answer(meps, mean, drive, direct, synergy, activations, largest)
