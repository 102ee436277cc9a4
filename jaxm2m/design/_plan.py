r"""Poses before the first stimulus: those whose fields tell most about where in cortex muscles are driven from.

Sources have weights w = softmax(log mean + z) over bumps, z ~ N(0, F F'). To first order in z the drive of stimulus i,
a share of the largest one, is

    u_i = r_i (m + J z) / max_j (r_j m),    m = softmax(log mean),    J = diag(m) - m m'

r_i (n_bump,) the activity under each bump. J centres a row: what all bumps answer alike tells nothing of the places.
With R the rows r_i J over that maximum, K = F F' and noise of standard deviation s, the information about z is

    I = 1/2 log det(1 + R K R' / s^2)

in nats: the criterion of Bayesian D-optimal designs (K. Chaloner, I. Verdinelli, Bayesian experimental design: a
review, Stat. Sci. 10, 273, 1995, section 2.2). The start is greedy, a candidate after the other (of a submodular
function: at least 1 - 1/e of what candidates can give; G. L. Nemhauser, L. A. Wolsey, M. L. Fisher, Math. Program. 14,
265, 1978). Then all poses climb at once, in the coordinates of a search, by L-BFGS (J. Nocedal, S. J. Wright, Numerical
Optimization, 2nd ed. 2006, algorithm 7.4) with

    dI/dR = (1 + R K R' / s^2)^-1 R K / s^2

and dR/dpose through the field map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.linalg import cho_factor, cho_solve

from jaxm2m import _check
from jaxm2m import coil as coils
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress_bar
from jaxm2m._types import ArrayLike, ScalpSurface
from jaxm2m.coil import Coil
from jaxm2m.cortex import FiringRate
from jaxm2m.design._intensity import choose_didt, pick_rate
from jaxm2m.design._patch import Patch, lay_patch, measure_moves
from jaxm2m.efield import FieldMap, evaluate
from jaxm2m.muscle import DensityPrior, SourceTracker, track_sources
from jaxm2m.placement import SearchProblem

# of a drive that is 1 for the strongest stimuli: excitability of 4.9 %MSO, where those add 37 %MSO (S. M. Goetz et al.,
# IEEE Trans. Neural Syst. Rehabil. Eng. 27, 1539, 2019)
NOISE = 0.13
_MARGIN = 0.5  # mm that limits are narrowed by; what the penalty gives way is less
_FIRST, _LONGEST, _FINE = 2.0, 8.0, 0.02  # mm that a pose moves: in the first step, at most, and at the end
_APART = 1.5  # mm between poses that the greedy start takes twice
_MEMORY = 12  # steps that the curvature is taken from
_BATCH_SIZE = 64  # poses whose fields are held at once


def plan(
    at_roi: FieldMap,
    *,
    coil: Coil,
    scalp: ScalpSurface,
    target: ArrayLike,
    n: int = 50,
    key: Key[Array, ""],
    rate: FiringRate | None = None,
    didt: float | int | None = None,
    radius: float | int = 20.0,
    handle: ArrayLike = (-1.0, -1.0, 0.0),
    distance: float | int = 4.0,
    avoid: Sequence[tuple[ArrayLike, float | int]] = (),
    steps: int = 60,
    prior: DensityPrior | None = None,
    progress: bool | None = None,
) -> Float[np.ndarray, "n 4 4"]:
    r"""Plan the poses of a session before its first stimulus, so that their fields tell most about the sources.

    What is maximised is the information of the MEPs about where the muscles' sources are, in nats,

        I = 1/2 log det(1 + R K R' / s^2)

    R (n, n_bump) the activity of cortex under each bump of the prior, centred over the bumps and as a share of the
    largest drive, K the covariance of the logarithms of the bumps' weights, s = 0.13 what excitability varies by, in
    the same shares. It is the information of the model's linear part: Bayesian D-optimality. A greedy choice among
    candidates all over the patch comes first; then all poses climb at once by the gradient through the field map, the
    casing outside the head, and only what is better is kept. At the end they are put into an order of short moves of
    the arm, mm and degrees added up.

    Parameters
    ----------
    at_roi
        The field map of the coil over motor cortex, from a basis: fields in milliseconds.
    coil, scalp
        The coil, and the head's scalp.
    target
        (3,) mm, under the middle of the patch of scalp.
    n
        Number of poses.
    key
        Sets poses apart that the greedy choice takes more than once; the same key gives the same poses.
    rate
        The firing rate as a function of the field; None: the magnitude of the field itself.
    didt
        dI/dt of the stimuli, A/s, for `rate`. None: that at which the largest field of the candidates in grey matter is
        1.5 thresholds of the rate.
    radius
        Of the patch, mm.
    handle
        (3,) where the handle points at a turn of zero, a direction in any unit.
    distance
        From the scalp to the coil's frame, mm.
    avoid
        (centre, radius) of balls that the casing must not enter, mm.
    steps
        How many times the fields of all poses are computed with their gradients, at most; 0: the greedy choice.
    prior
        What is believed of a density beforehand; None: `DensityPrior()`.
    progress
        Whether to show a progress bar; by default on a terminal only.

    Returns
    -------
    poses
        (n, 4, 4) coil frame to world, mm, in the order in which they are best given.

    Raises
    ------
    ValueError
        Arguments that cannot be used, no grey matter near the target, no pose that the map covers outside the zones, or
        a rate whose threshold needs `didt`.

    Notes
    -----
    K. Chaloner, I. Verdinelli, Bayesian experimental design: a review, Stat. Sci. 10, 273 (1995).
    """
    count = _check.integer(n, "n")
    evaluations = _check.integer(steps, "steps", minimum=0)
    prior = DensityPrior() if prior is None else prior
    patch = lay_patch(
        at_roi, coil=coil, scalp=scalp, target=target, radius=float(_check.positive(radius, "radius")), handle=handle,
        distance=distance, avoid=avoid, reach=3 * (prior.reach + prior.width),
    )  # fmt: skip
    model = linearise_sources(patch, rate, didt, prior)
    chosen = choose_greedily(model.rows(model.candidates), count)
    poses = climb_poses(model, chosen, key, evaluations, progress)
    return poses[order_poses(poses)]


@dataclass(frozen=True, eq=False)
class LinearSources:
    """What the fields of poses tell of sources, to first order.

    Attributes
    ----------
    patch
        Where poses may be.
    tracker
        Of the activity under each bump.
    share
        Fields of the session over those at 1 A/us.
    didt
        A/s, for rates whose threshold needs it; else None.
    factor
        (n_bump, n_number) a row of features times it are the coordinates in which the prior is standard normal.
    candidates
        (n_candidate, n_bump) features of the patch's poses.
    """

    patch: Patch
    tracker: SourceTracker
    share: float
    didt: float | None
    factor: Float[np.ndarray, "bump number"]
    candidates: Float[np.ndarray, "candidate bump"]

    def measure(self, poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n bump"]:
        """Compute the features of poses: the activity under each bump; a block of fields at a time."""
        return np.concatenate(
            [
                _measure_fields(self.tracker, self.patch.compute_fields(block), self.share, self.didt)
                for block in np.split(poses, range(_BATCH_SIZE, len(poses), _BATCH_SIZE))
            ]
        )

    def rows(self, features: Float[np.ndarray, "n bump"]) -> Float[np.ndarray, "n number"]:
        """Return R F / s of features (n, n_bump), so that the information is 1/2 log det(1 + rows rows')."""
        return features @ self.factor

    def information(self, features: Float[np.ndarray, "n bump"]) -> float:
        """Compute the information of stimuli with these features, nats."""
        return measure_information(self.rows(features))[0]


def linearise_sources(
    patch: Patch, rate: FiringRate | None, didt: float | int | None, prior: DensityPrior
) -> LinearSources:
    """Make the linear model of sources under a patch.

    Raises
    ------
    ValueError
        A rate whose threshold needs `didt`, or one of other points.
    """
    # without a rate the field itself is only compared with others
    taken = 1e6 if didt is None and rate is None else didt
    levels, of_didt = choose_didt(taken, rate, patch.fields, patch.field.coil)
    if len(levels) > 1:
        raise ValueError(f"didt: {didt}; give one dI/dt, A/s: a plan's stimuli are of one intensity.")
    share, rate_didt = float(levels[0]) / 1e6, float(levels[0]) if of_didt else None
    rate = pick_rate(rate, patch)
    few = np.unique(np.linspace(0, len(patch) - 1, _BATCH_SIZE).astype(int))
    tracker = track_sources(
        patch.field, patch.fields[few] * share, muscles=("any",), rate=rate, centre=patch.centre, capacity=1,
        didt=rate_didt, prior=prior,
    )  # fmt: skip
    features = np.concatenate(
        [
            _measure_fields(tracker, patch.fields[start : start + _BATCH_SIZE], share, rate_didt)
            for start in range(0, len(patch), _BATCH_SIZE)
        ]
    )
    log_mean, spread = (np.asarray(a, np.float64) for a in (tracker.data.log_mean, tracker.data.factor))
    mean = np.exp(log_mean - log_mean.max())
    mean /= mean.sum()
    factor = mean[:, None] * (spread - mean @ spread)
    largest = float((features @ mean).max())
    return LinearSources(patch, tracker, share, rate_didt, factor / (NOISE * largest), features)


def measure_information(rows: Float[np.ndarray, "n number"]) -> tuple[float, Float[np.ndarray, "n number"]]:
    """Compute 1/2 log det(1 + rows rows'), nats, and its derivative by the rows."""
    triangle = cho_factor(np.eye(len(rows)) + rows @ rows.T, lower=True)
    return float(np.log(np.diag(triangle[0])).sum()), cho_solve(triangle, rows)


def choose_greedily(rows: Float[np.ndarray, "candidate number"], n: int) -> Int[np.ndarray, " n"]:
    """Choose candidates one after the other, each the one that adds most information; the same may be chosen twice."""
    left = (rows**2).sum(1)  # variance of each candidate's response under the posterior of those chosen
    basis = np.zeros((n, len(rows)))
    chosen = np.zeros(n, int)
    for i in range(n):
        chosen[i] = best = int(np.argmax(left))
        # a step of Cholesky's factorisation with its pivot
        basis[i] = (rows @ rows[best] - basis[:i, best] @ basis[:i]) / np.sqrt(left[best] + 1)
        left = np.maximum(left - basis[i] ** 2, 0)
    return chosen


def climb_poses(
    model: LinearSources, chosen: Int[np.ndarray, " n"], key: Array, steps: int, progress: bool | None
) -> Float[np.ndarray, "n 4 4"]:
    """Move all poses of a choice at once to where their information is larger; what they end at is allowed."""
    greedy = np.asarray(model.patch.poses, np.float64)[chosen]
    best, most = greedy, model.information(model.candidates[chosen])
    if not steps:
        return best
    ascent = PoseAscent(model, greedy, model.candidates[chosen], _set_apart(chosen, key))
    with progress_bar(steps, "plan", unit="steps", enabled=progress) as advance:
        advance()
        for step in range(steps):
            if ascent.information > most:
                best, most = ascent.poses, ascent.information
            if step == steps - 1 or ascent.ended:
                break
            ascent.move()
            advance(1, f"{most:.2f} nats")
    return best


def order_poses(poses: Float[np.ndarray, "n 4 4"]) -> Int[np.ndarray, " n"]:
    """Order poses so that the arm moves little: nearest neighbours, or as they come, then 2-opt; mm + degrees."""
    cost = move_costs(poses)
    border = int(cost.sum(1).argmax())
    orders = [_improve_order(cost, order) for order in (np.arange(len(poses)), _visit_nearest(cost, border))]
    return min(orders, key=lambda order: cost[order[:-1], order[1:]].sum())


def move_costs(poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n n"]:
    """Compute what the arm moves between poses, mm + degrees."""
    return np.stack([np.add(*measure_moves(pose, poses)) for pose in poses])


def _visit_nearest(cost: np.ndarray, first: int) -> np.ndarray:
    order, left = [first], np.ones(len(cost), bool)
    left[first] = False
    while left.any():
        order.append(int(np.where(left, cost[order[-1]], np.inf).argmin()))
        left[order[-1]] = False
    return np.array(order)


def _improve_order(cost: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Turn pieces of an open path round while that makes it shorter."""
    # a stop that is no way from anywhere makes the path a tour
    n = len(order)
    wide = np.pad(cost, (0, 1))
    tour = np.append(order, n)
    first, last = np.triu_indices(n + 1, 2)
    while n > 2:
        a, b = tour[first], tour[first + 1]
        c, d = tour[last], tour[(last + 1) % (n + 1)]
        change = wide[a, c] + wide[b, d] - wide[a, b] - wide[c, d]
        k = int(change.argmin())
        if change[k] >= -1e-9:
            break
        i, j = first[k] + 1, last[k] + 1
        tour = np.concatenate([tour[:i], tour[i:j][::-1], tour[j:]])
    at = int(np.flatnonzero(tour == n)[0])
    return np.concatenate([tour[at + 1 :], tour[:at]])


def _measure_fields(tracker: SourceTracker, fields: np.ndarray, share: float, didt: float | None) -> np.ndarray:
    missing = _BATCH_SIZE - len(fields)
    # one shape, one program
    full = np.concatenate([fields, np.repeat(fields[-1:], missing, axis=0)]) if missing > 0 else fields
    return np.asarray(tracker.measure(full * share, didt=didt), np.float64)[: len(fields)]


def _set_apart(chosen: np.ndarray, key: Array) -> Float[np.ndarray, "n 3"]:
    """Steps (mm) that are zero for the first of equal choices and random for the others."""
    again = np.ones(len(chosen), bool)
    again[np.unique(chosen, return_index=True)[1]] = False
    return again[:, None] * _APART * np.asarray(jax.random.normal(key, (len(chosen), 3)), np.float64)


class Evaluation(NamedTuple):
    """Poses with their features, limits, and the derivatives of both by steps in the coil's own frame.

    Attributes
    ----------
    base, pose
        (n, 4, 4) on the scalp, and as the coil stands, mm.
    features
        (n, n_bump)
    excess
        (n, 1 + n_zone) mm by which a pose is beyond the patch, and its casing in each zone; negative where it is not.
    features_slope, excess_slope
        The same with a last axis of 3, a mm.
    """

    base: Any
    pose: Any
    features: Any
    excess: Any
    features_slope: Any
    excess_slope: Any


class PoseAscent:
    """All poses on their way; each step either makes the whole better, or is shorter the next time."""

    def __init__(self, model: LinearSources, poses: np.ndarray, features: np.ndarray, apart: np.ndarray):
        self.model, patch = model, model.patch
        dtype = patch.problem.distance.dtype
        middle = coils.place(patch.problem.scalp, patch.target, patch.handle, 0.0)[:3, 3]
        self._run = partial(
            _evaluate_poses, patch.problem, patch.field, model.tracker, middle=jnp.asarray(middle, dtype),
            radius=jnp.asarray(patch.radius, dtype), share=jnp.asarray(model.share, dtype),
            didt=None if model.didt is None else jnp.asarray(model.didt, dtype),
            batch_size=min(len(poses), patch.field.solver.batch_size()),
        )  # fmt: skip
        at = self.evaluate(poses, apart)
        usable = _find_usable(at)
        if not usable.all():
            # what cannot be set apart stays as it was chosen
            at = self.evaluate(poses, np.where(usable[:, None], apart, 0))
        self.frozen = ~_find_usable(at)
        still = (np.zeros_like(slope) for slope in (at.features_slope, at.excess_slope))
        stay = Evaluation(at.base, poses, features, np.full_like(at.excess, -_MARGIN), *still)
        self.at = _take(~self.frozen, at, stay)
        # of limits: as steep at the margin's end as the information is where it is steepest
        self.stiffness = 0.0
        self.stiffness = float(np.linalg.norm(self.judge(self.at)[2], axis=1).max(initial=0)) / (2 * _MARGIN)
        self.information, self.merit, self.gradient = self.judge(self.at)
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        self.step = self._direct()
        self.ended = not np.abs(self.gradient).max(initial=0) > 0

    @property
    def poses(self) -> np.ndarray:
        return self.at.pose

    def move(self) -> None:
        trial = self.evaluate(self.at.base, self.step)
        moved = _find_usable(trial) & ~self.frozen
        trial = _take(moved, trial, self.at)
        step = self.step * moved[:, None]
        information, merit, gradient = self.judge(trial)
        slope = float((self.gradient * step).sum())
        if slope > 0 and merit - self.merit >= 1e-4 * slope:
            change = self.gradient - gradient
            if float((step * change).sum()) > 1e-8 * np.linalg.norm(step) * np.linalg.norm(change):
                self.history = [*self.history, (step, change)][-_MEMORY:]
            self.at, self.information, self.merit, self.gradient = trial, information, merit, gradient
            self.step = self._direct()
        else:
            below = merit - self.merit - slope
            self.step = self.step * (np.clip(-slope / (2 * below), 0.1, 0.5) if below < 0 else 0.3)
        if self.history and np.abs(self.step).max() < _FINE:
            self.history = []  # what is remembered of the curvature leads nowhere
            self.step = self._direct()
        self.ended = bool(np.abs(self.step).max() < _FINE)

    def _direct(self) -> np.ndarray:
        """The step along the gradient, turned by the curvature of the steps before; no pose leaps."""
        direction = self.gradient.copy()
        if not self.history:
            return direction * (_FIRST / max(np.linalg.norm(direction, axis=1).max(), 1e-30))
        parts = []
        for s, y in reversed(self.history):
            parts.append((s * direction).sum() / (s * y).sum())
            direction -= parts[-1] * y
        s, y = self.history[-1]
        direction *= (s * y).sum() / (y * y).sum()
        for (s, y), part in zip(self.history, reversed(parts), strict=True):
            direction += s * (part - (y * direction).sum() / (s * y).sum())
        length = np.linalg.norm(direction, axis=1, keepdims=True)
        return direction * np.minimum(1, _LONGEST / np.maximum(length, 1e-30))

    def evaluate(self, base: np.ndarray, step: np.ndarray) -> Evaluation:
        dtype = self.model.patch.problem.distance.dtype
        at = self._run(jnp.asarray(base, dtype), jnp.asarray(step, dtype))
        return jax.tree.map(lambda a: np.asarray(a, np.float64), at)

    def judge(self, at: Evaluation) -> tuple[float, float, np.ndarray]:
        """Information, the same less the penalty, and the gradient (n, 3) of that."""
        information, by_rows = measure_information(self.model.rows(at.features))
        gradient = np.einsum("nb,nbk->nk", by_rows @ self.model.factor.T, at.features_slope)
        inside = np.maximum(at.excess + _MARGIN, 0)
        gradient -= 2 * self.stiffness * np.einsum("nl,nlk->nk", inside, at.excess_slope)
        gradient[self.frozen] = 0
        return information, information - self.stiffness * float((inside**2).sum()), gradient


def _find_usable(at: Evaluation) -> Bool[np.ndarray, " n"]:
    """Which poses have a field, and are within the patch and outside the zones."""
    slopes = np.concatenate([at.features_slope, at.excess_slope], 1)
    known = np.isfinite(at.features).all(1) & np.isfinite(slopes).all((1, 2))
    return np.asarray(known & (at.excess <= 0).all(1))


def _take(which: np.ndarray, new: Evaluation, old: Evaluation) -> Evaluation:
    return jax.tree.map(lambda a, b: np.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


@partial(jax.jit, static_argnames="batch_size")
@full_precision
def _evaluate_poses(
    problem: SearchProblem, field: FieldMap, tracker: SourceTracker, base: Array, step: Array, *, middle: Array,
    radius: Array, share: Array, didt: Any, batch_size: int,
) -> Evaluation:  # fmt: skip
    extra = problem.start()

    def one(arguments):
        base = problem.move(arguments[0], extra, arguments[1])[0]

        def measure(small):
            moved = problem.move(base, extra, small)[0]
            pose = problem.place(moved, extra)[0]
            e, _ = evaluate(field, pose, jnp.asarray(1e6), 1)
            features = tracker.activity(e * share, didt) @ tracker.kernel.T
            away = moved[:3, 3] - middle
            # smooth in the middle, where it does not matter
            beyond = jnp.sqrt(away @ away + 1e-6) - radius
            limits = [beyond[None], *([problem.constraint_violation(pose)] if len(problem.zones) else [])]
            values = features.astype(base.dtype), jnp.concatenate(limits).astype(base.dtype)
            return values, (pose, *values)

        # forward: three directions, however many features
        slopes, (pose, *values) = jax.jacfwd(measure, has_aux=True)(jnp.zeros(3, base.dtype))
        return Evaluation(base, pose, *values, *slopes)

    return jax.lax.map(one, (base, step), batch_size=batch_size)
