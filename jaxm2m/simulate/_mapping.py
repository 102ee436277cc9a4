"""A mapping session whose truth is known: from fields at many poses to MEPs of many muscles.

D = W_d r,   Y = S W_s r,    each muscle divided by the 98th percentile of its stimuli
u = alpha Y + (1 - alpha) D
V ~ mep((0.75 + gain u) / threshold)
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key
from scipy.spatial.distance import cdist

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress
from jaxm2m._tree import tree
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import FieldMap
from jaxm2m.simulate._mep import expected_mep, mep

# those of the 2019 paper, in its order
MUSCLES = ("FDI", "3DI", "3Lum", "EI", "AbPB", "AdPB", "ADM", "FDM", "FCR", "FCU", "FDS", "EDC", "ECR", "ECU", "BRD")
TRUTHS = ("rate", "field")

_EXTENT = 70.0  # mm, edge of the square of the first stimuli
_SCATTER = 12.0  # mm, standard deviation of the places of all others
_TURN = 8.0  # degrees, standard deviation of the handle
_CLEAR = 0.5  # mm kept between casing and scalp, for what the casing's mesh may overlook
_REACH = 20.0  # mm from the target to the nearest point of cortex, at most
_SPOT = 15.0  # mm, radius of the hot spot
_STRONGEST = 95  # percentile of x in the hot spot that is 1 at the motor threshold
_DEPTH = 2.0  # mm, standard deviation of the centres from front to back
_PERCENTILE = 98
_REST, _THRESHOLDS = 0.75, (0.95, 1.08)  # strength without drive, and what it is divided by
_REFERENCE = 1e6  # A/s at which fields are computed
_TOGETHER = 16  # fields in memory at once, 100 MB on the usual grid


class _Spread(NamedTuple):
    extent: float  # mm, of centres to either side
    width: float  # mm, standard deviation of the weights


_DIRECT, _SYNERGY = _Spread(10.0, 5.0), _Spread(11.0, 7.0)


@tree
class SimulatedSession:
    """MEPs of a mapping session with everything they came from.

    Attributes
    ----------
    poses : (n, 4, 4) array
        mm.
    didt : (n,) array
        A/s.
    intensity : (n,) array
        In resting motor thresholds.
    meps : (n, n_muscle) array
        Peak-to-peak, uV.
    mean : (n, n_muscle) array
        E[V | u], uV: the best that a prediction of `meps` can be.
    drive : (n, n_muscle) array
        u.
    direct, synergy : (n, n_muscle) arrays
        D and Y, divided by their 98th percentiles: u is their weighted sum.
    activations : (n, n_synergy) array
        W_s r, of the synergies.
    synergies : (n_muscle, n_synergy) array
        S; columns sum to 1.
    direct_weights, synergy_weights : (n_muscle, n_own), (n_synergy, n_own) arrays
        W_d and W_s, over the points of the map that have a field (`FieldMap.own`); rows sum to 1.
    direct_centres, synergy_centres : (n_muscle, 3), (n_synergy, 3) arrays
        mm.
    thresholds : (n_muscle,) array
        Motor threshold of each muscle, where 0.75 + gain u is 1 for the average one.
    rmt_didt : array
        dI/dt at resting motor threshold, A/s.
    muscles : tuple of str
    """

    poses: Float[Array, "n 4 4"]
    didt: Float[Array, " n"]
    intensity: Float[Array, " n"]
    meps: Float[Array, "n n_muscle"]
    mean: Float[Array, "n n_muscle"]
    drive: Float[Array, "n n_muscle"]
    direct: Float[Array, "n n_muscle"]
    synergy: Float[Array, "n n_muscle"]
    activations: Float[Array, "n n_synergy"]
    synergies: Float[Array, "n_muscle n_synergy"]
    direct_weights: Float[Array, "n_muscle n_own"]
    synergy_weights: Float[Array, "n_synergy n_own"]
    direct_centres: Float[Array, "n_muscle 3"]
    synergy_centres: Float[Array, "n_synergy 3"]
    thresholds: Float[Array, " n_muscle"]
    rmt_didt: Float[Array, ""]
    muscles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.meps)

    def ceiling(self, *, scaled: bool = True) -> Float[Array, ""]:
        """NRMSE of the true means, sqrt(mean (V - E[V|u])^2 / mean V^2).

        But for chance, no prediction from the field comes below it.

        Parameters
        ----------
        scaled
            Each muscle divided by its largest MEP first, as models are trained; else in uV.
        """
        largest = self.meps.max(0) if scaled else jnp.ones_like(self.meps[0])
        return jnp.sqrt((((self.meps - self.mean) / largest) ** 2).mean() / ((self.meps / largest) ** 2).mean())


def mapping_session(
    field_map: FieldMap,
    *,
    key: Key[Array, ""],
    rate: FiringRate,
    target: Any = None,
    handle: Any = (-1.0, -1.0, 0.0),
    stimuli: int = 300,
    intensity: float | int | tuple[float | int, float | int] = 1.2,
    alpha: float | int = 0.6,
    truth: str = "rate",
    synergies: int = 9,
    muscles: Sequence[str] = MUSCLES,
    distance: float | int = 4.0,
    gain: float | int = 0.33,
    show: bool | None = None,
) -> SimulatedSession:
    r"""Simulate a motor mapping session, from poses over the hot spot to MEPs.

    The stimuli: a square grid of 7 x 7 cm on the scalp round the target, 49 of 300 (the largest square within a sixth
    of all), then places scattered by 12 mm (standard deviation along each direction). The handle turns by 8 degrees
    (standard deviation). A pose whose casing would touch the head stands off by as much as it takes.

    The cortex, its grey matter within the map (all points where there is none):

        x   = |E| / threshold of the rate,     r = rate(x)  or, truth "field",  r = x
        D   = W_d r,   Y = S W_s r,            each muscle divided by its 98th percentile over the stimuli
        u   = alpha Y + (1 - alpha) D
        V   ~ mep((0.75 + gain u) / t_m),      t_m uniform in 0.95 to 1.08

    Rows of W_d are Gaussians of 5 mm (standard deviation) about centres that lie side by side over 20 mm, from lateral
    to medial in the order of `muscles`; those of W_s are of 7 mm, over 22 mm. From front to back centres scatter by
    2 mm; each goes to the nearest grey matter. Columns of S hold 3 to 6 muscles (more only where few synergies must
    reach all muscles), Gamma(2, 1) variates that sum to 1.

    Intensities are in resting motor thresholds: the dI/dt at which, with the coil over the target and the handle as
    given, x is 1 at the 95th percentile of the grey matter within 15 mm of the grey point nearest to the target: at
    the threshold the crowns under the coil are about to respond, and little else. (A threshold for the average of the
    hot spot would have most of the motor cortex saturated at 120 %.)

    Parameters
    ----------
    field_map
        Of `Simulator.bind` or `Basis.bind`; the region should hold the cortex within 25 mm of the target.
    key
        Random. What the cortex is does not depend on the stimuli.
    rate
        With a threshold in V/m or V/cm, in truth "field" as the unit of the field. If it takes the normal component,
        it must hold the normals, (n_point, 3).
    target
        (3,) mm, the hot spot; by default the middle of the map's points.
    handle
        (3,) where the handle points, on average.
    stimuli
        Number, 10 or more.
    intensity
        Resting motor thresholds: one number, or (lowest, highest), between which they are drawn uniformly.
    alpha
        Share of the synergies in u, 0 to 1.
    truth
        "rate": muscles follow the firing rate. "field": they are linear in the field, so that a model of the firing
        rate has nothing to gain.
    synergies
        Number.
    muscles
        Names.
    distance
        mm from the scalp to the coil's frame.
    gain
        How strongly u acts. By default about a quarter of the MEPs exceed 50 uV (28 % with one key on the atlas head;
        16 to 36 % in real maps), in truth "field" more, since fields fall off less than rates. Most of what is seen is
        then noise (`ceiling` 0.66). 0.55, that of the published model of MEPs, leaves less of it (0.45), with 61 %
        over 50 uV.
    show
        A progress bar; by default on a terminal only.

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
    Such data tell whether the firing rate or the field drives the muscles: linear models of the rate come closer to
    the ceiling under truth "rate" (NRMSE lower by some 0.02 for magnitudes in a sphere, at any gain) and no closer
    under truth "field". They do not tell synergies from direct projections, whose maps overlap too much.

    """
    _checked(field_map, rate, stimuli, alpha, truth, synergies, muscles, gain)
    lowest, highest = _range(intensity)
    cortex = _cortex(field_map, target)
    drawn = _drawn(key, stimuli, len(muscles), synergies)
    poses = _poses(field_map, cortex.target, handle, distance, drawn)
    dtype = poses.dtype
    relative = lowest + (highest - lowest) * drawn.intensity

    direct_centres = _centres(drawn.depths[: len(muscles)], _DIRECT.extent, cortex)
    synergy_centres = _centres(drawn.depths[len(muscles) :], _SYNERGY.extent, cortex)
    direct_weights = jnp.asarray(_gaussians(direct_centres, _DIRECT.width, cortex), dtype)
    synergy_weights = jnp.asarray(_gaussians(synergy_centres, _SYNERGY.width, cortex), dtype)

    with progress(stimuli, "mapping session", unit="stimuli", show=show) as told:
        weights = jnp.concatenate([direct_weights, synergy_weights])
        activity, rmt = _activity(field_map, rate, truth, poses, relative, cortex, weights, told)
    answer = _answer(drawn, activity, alpha, gain)
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
        direct_centres=jnp.asarray(direct_centres, dtype),
        synergy_centres=jnp.asarray(synergy_centres, dtype),
        thresholds=drawn.thresholds,
        rmt_didt=jnp.asarray(rmt, dtype),
        muscles=tuple(muscles),
    )


def _checked(field_map, rate, stimuli, alpha, truth, synergies, muscles, gain) -> None:
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
    if not 0 <= float(_check.finite(alpha, "alpha")) <= 1:
        raise ValueError(f"alpha: {alpha:g}; the share of the synergies lies between 0 and 1.")
    if not muscles or len(set(muscles)) != len(muscles):
        raise ValueError(f"muscles: {', '.join(muscles) or 'none'}; give one or more, each a name of its own.")


def _range(intensity: Any) -> tuple[float, float]:
    values = np.asarray(_check.positive(intensity, "intensity"), np.float64)
    if values.ndim == 0:
        return float(values), float(values)
    if values.shape != (2,) or values[0] > values[1]:
        raise ValueError(f"intensity: {intensity}; give one number, or the lowest and the highest.")
    return float(values[0]), float(values[1])


class _Cortex(NamedTuple):
    """Where the truth lives.

    Attributes
    ----------
    points
        (n_own, 3) mm.
    grey
        (n_own,) which of them count.
    target
        (3,) mm, as asked for.
    middle
        (3,) mm, the grey point nearest to it.
    """

    points: Float[np.ndarray, "own 3"]
    grey: Bool[np.ndarray, " own"]
    target: Float[np.ndarray, "3"]
    middle: Float[np.ndarray, "3"]

    def nearest(self, places: np.ndarray) -> np.ndarray:
        """The grey points nearest to places (n, 3)."""
        points = self.points[self.grey]
        return points[cdist(places, points).argmin(1)]

    def spot(self) -> np.ndarray:
        """(n_own,) bool: the hot spot."""
        return self.grey & (np.linalg.norm(self.points - self.middle, axis=1) <= _SPOT)


def _cortex(field_map: FieldMap, target: Any) -> _Cortex:
    everywhere = np.asarray(field_map.points, np.float64)
    points = everywhere[np.asarray(field_map.own)]
    names = list(field_map.notes["tissues"])
    grey = np.asarray(field_map.tissue) == (names.index("grey") if "grey" in names else -1)
    if not grey.any():
        grey = np.ones(len(points), bool)
    found = everywhere.mean(0) if target is None else np.asarray(_check.points(target, "target"), np.float64)
    if found.shape != (3,):
        raise ValueError(f"target: shape {found.shape}; give one point x, y, z in mm.")
    cortex = _Cortex(points, grey, found, found)
    middle = cortex.nearest(found[None])[0]
    away = float(np.linalg.norm(middle - found))
    if away > _REACH:
        raise ValueError(
            f"target: ({', '.join(f'{x:.1f}' for x in found)}) mm lies {away:.0f} mm from the nearest point of cortex "
            "in the map; give the hot spot, in the map's coordinates, and a map that holds the cortex round it."
        )
    return cortex._replace(middle=middle)


class _Drawn(NamedTuple):
    """What is random, but for the noise of the MEPs, of which it holds the key."""

    places: Array  # (stimulus, 2) standard normal, as are the next two
    turns: Array  # (stimulus,)
    depths: Array  # (muscle + synergy,)
    intensity: Array  # (stimulus,) uniform in 0 to 1
    thresholds: Array  # (muscle,)
    synergies: Array  # S (muscle, synergy)
    key: Array


@partial(jax.jit, static_argnums=(1, 2, 3))
def _drawn(key: Array, stimuli: int, n_muscle: int, n_synergy: int) -> _Drawn:
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
    return _Drawn(
        places,
        turns[:, 0],
        depths,
        jax.scipy.special.ndtr(level[:, 0]),
        low + (high - low) * threshold,
        s / s.sum(0),
        k_meps,
    )


def _poses(field_map: FieldMap, target: np.ndarray, handle: Any, distance: float | int, drawn: _Drawn) -> Array:
    """(1 + stimulus, 4, 4): that of the threshold, those of the session."""
    scalp, stimuli = field_map.scalp, len(drawn.turns)
    middle = coils.place(scalp, target, handle, distance)
    side = max(1, math.isqrt(stimuli // 6))
    lines = np.linspace(-_EXTENT / 2, _EXTENT / 2, side) if side > 1 else np.zeros(1)
    square = np.stack(np.meshgrid(lines, lines, indexing="ij"), -1).reshape(-1, 2)
    scattered = _SCATTER * np.asarray(drawn.places, np.float64)[len(square) :]
    # the square's sides point to the front and to the side, where the scalp's slope lets them
    frame = np.asarray(middle, np.float64)
    up = -frame[:3, 2]
    one = np.eye(3)[np.abs(up[:2]).argmin()]
    one -= (one @ up) * up
    one /= np.linalg.norm(one)
    plane = np.stack([one, np.cross(up, one)])
    places = frame[:3, 3] - distance * up + np.concatenate([square, scattered]) @ plane
    poses = jnp.stack([middle, *(coils.place(scalp, place, handle, distance) for place in places)])
    poses = _move(poses, jnp.zeros((stimuli + 1, 6), poses.dtype).at[1:, 5].set(math.radians(_TURN) * drawn.turns))
    return _clear(field_map.coil, poses, scalp)


# one program instead of many small ones
_move = jax.jit(coils.move)


def _clear(coil: coils.Coil, poses: Array, scalp: Any) -> Array:
    """The same poses, drawn back along their axes where the casing would touch."""
    if coil.casing is None:
        return poses
    for _ in range(30):
        gap = coils.clearance(coil, poses, scalp)
        low = gap < _CLEAR / 10
        if not low.any():
            return poses
        rise = jnp.where(low, _CLEAR - gap, 0)
        poses = _move(poses, jnp.zeros((len(poses), 6), poses.dtype).at[:, 2].set(-rise))
    raise ValueError(
        f"distance: the casing touches the head in {int(low.sum())} of {len(poses)} poses however far they are drawn "
        "back; move the target away from ears and nose, or take a smaller coil."
    )


def _centres(depths: Array, extent: float, cortex: _Cortex) -> np.ndarray:
    """(n, 3) mm: side by side, the first one lateral."""
    n = len(depths)
    places = np.zeros((n, 3))
    places[:, 0] = np.linspace(-extent, extent, n) if n > 1 else 0.0
    if cortex.target[0] > 0:
        places[:, 0] *= -1
    places[:, 1] = _DEPTH * np.asarray(depths, np.float64)
    return cortex.nearest(cortex.middle + places)


def _gaussians(centres: np.ndarray, width: float, cortex: _Cortex) -> np.ndarray:
    """(n, n_own), rows sum to 1."""
    weights = np.exp(-0.5 * (cdist(centres, cortex.points) / width) ** 2) * cortex.grey
    return weights / weights.sum(1, keepdims=True)


def _activity(field_map, rate, truth, poses, relative, cortex, weights, told) -> tuple[Array, float]:
    """Weighted rates (stimulus, row) at poses[1:], and dI/dt at the motor threshold that is found at poses[0]."""
    linear = replace(rate, curve=jax.tree_util.Partial(_same))
    stimuli = len(poses) - 1
    together = min(field_map.means.together(), _TOGETHER, stimuli)
    # one shape of batch for all, so that nothing compiles twice
    e = field_map(jnp.tile(poses[0], (together, 1, 1)), didt=_REFERENCE)
    x = float(np.percentile(np.asarray(linear(e)[0, field_map.own], np.float64)[cortex.spot()], _STRONGEST))
    if not x > 0:
        raise ValueError(
            f"rate: with the coil over the target, the field at the hot spot is {x:g} thresholds, so that there is no "
            "motor threshold; turn the handle by 180 degrees, or the normals, which must point into the cortex."
        )
    taken = rate if truth == "rate" else linear
    found = []
    for begin in range(0, stimuli, together):
        at = np.minimum(np.arange(begin, begin + together), stimuli - 1)
        e = field_map(poses[1 + at], didt=_REFERENCE)
        count = min(together, stimuli - begin)
        found.append(_weighted(taken, e, relative[at] / x, field_map.own, weights)[:count])
        told(count)
    return jnp.concatenate(found), _REFERENCE / x


@jax.jit
@full_precision
def _weighted(rate: FiringRate, e: Array, scale: Array, own: Array, weights: Array) -> Array:
    """(pose, row): rates of the fields e (pose, point, 3) times scale (pose,), at the map's own points."""
    return rate(e * scale[:, None, None])[:, own] @ weights.T


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


@jax.jit
@full_precision
def _answer(drawn: _Drawn, activity: Array, alpha: Any, gain: Any) -> _Answer:
    n_muscle = len(drawn.thresholds)
    activations = activity[:, n_muscle:]
    parts = jnp.stack([activity[:, :n_muscle], activations @ drawn.synergies.T])
    largest = jnp.percentile(parts, _PERCENTILE, axis=1)
    direct, synergy = parts / largest[:, None]
    drive = alpha * synergy + (1 - alpha) * direct
    strength = (_REST + gain * drive) / drawn.thresholds
    return _Answer(mep(drawn.key, strength), expected_mep(strength), drive, direct, synergy, activations, largest)
