"""Rules for the next stimulus that the loop is held against: what users do, and what others have published.

A rule is a function of what is known so far. It returns a place and a turn of the patch.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxm2m.design._patch import Patch

GOALS = ("map", "hotspot", "select", "threshold")
RESPONSE = 50.0  # uV
_SCATTER, _TURNS = 12.0, 8.0  # mm and degrees, standard deviations of a user who keeps the handle
_NEAR = 5.0  # mm, of a user who looks round a response
_GRID = 7.0  # mm between the places of a grid
_FIRST = 12  # stimuli of a user before responses guide them
_MOST = 1024  # candidates that a Gaussian process draws jointly


@dataclass(frozen=True, eq=False)
class Situation:
    """What is known when the next stimulus is chosen.

    Attributes
    ----------
    patch
        Poses to choose from.
    allowed
        (n,) those that may be next.
    features
        (n, n_bump) activity under each bump.
    spots
        (k, 3) mm, mm, rad: where the stimuli so far were, in the patch.
    before
        (k, n_bump) their features.
    meps
        (k, n_muscle) uV, NaN where one is missing.
    goal
        "map", "hotspot" or "select".
    wanted, spared
        Indices of muscles.
    key
        All randomness follows from it.
    """

    patch: Patch
    allowed: Bool[np.ndarray, " n"]
    features: Float[Array, "n bump"]
    spots: Float[np.ndarray, "k 3"]
    before: Float[np.ndarray, "k bump"]
    meps: Float[np.ndarray, "k muscle"]
    goal: str
    wanted: tuple[int, ...]
    spared: tuple[int, ...]
    key: Key[Array, ""]

    @property
    def rng(self) -> np.random.Generator:
        """A generator that follows from the key."""
        return np.random.default_rng(np.asarray(jax.random.key_data(self.key), np.uint32))


# (x, y) mm in the patch, and a turn, rad
Spot = tuple[float, float, float]


def propose_random(now: Situation) -> Spot:
    """A place anywhere in the patch, turned anyhow."""
    rng = now.rng
    out, around, turn = now.patch.radius * np.sqrt(rng.uniform()), *rng.uniform(0, 2 * np.pi, 2)
    return out * np.cos(around), out * np.sin(around), turn


def propose_scatter(now: Situation) -> Spot:
    """About the middle, the handle kept: what a user does who has a target."""
    x, y = now.rng.normal(0, _SCATTER, 2)
    return x, y, np.radians(now.rng.normal(0, _TURNS))


def propose_grid(now: Situation) -> Spot:
    """The places of a square grid, in an order drawn once, again and again; the handle kept."""
    places = _make_grid(now.patch.radius)
    order = np.random.default_rng(0).permutation(len(places))
    return *places[order[len(now.spots) % len(places)]], 0.0


def propose_feedback(now: Situation) -> Spot:
    """As a user does who sees the responses: a coarse grid, then round the largest one and at the border."""
    rng = now.rng
    places = _make_grid(now.patch.radius, 2 * _GRID)
    if len(now.spots) < min(_FIRST, len(places)):
        return *places[np.random.default_rng(0).permutation(len(places))[len(now.spots)]], 0.0
    muscle = rng.choice(now.wanted)
    values = np.nan_to_num(now.meps[:, muscle])
    if rng.uniform() < 0.5:
        centre = now.spots[values.argmax(), :2]
    else:
        # where it begins to answer
        border = np.argsort(np.abs(np.log(np.maximum(values, 1) / RESPONSE)))[:5]
        centre = now.spots[rng.choice(border), :2]
    x, y = centre + rng.normal(0, _NEAR, 2)
    return x, y, np.radians(rng.normal(0, _TURNS))


def propose_gaussian_process(now: Situation) -> Spot:
    """By Gaussian processes of log MEPs over the patch, one a muscle.

    For maps where they know least, over places with the handle kept (Faghihpirayesh et al., 2021). Else by Thompson
    sampling over places and turns (Schultheiss et al., PLOS Comput. Biol., 2026): own implementation of the published
    rules with scikit-learn.
    """
    if len(now.spots) < 5:
        return propose_random(now) if now.goal != "map" else propose_grid(now)
    turning = now.goal != "map"
    every = _every(now)
    allowed = np.flatnonzero(now.allowed & (turning | (np.abs(every[:, 2]) < 1e-6)))
    allowed = now.rng.permutation(allowed)[:_MOST]
    known = now.spots
    muscles = now.wanted + now.spared
    seed = int(now.rng.integers(2**31))
    if not turning:
        spread = sum(fit_process(known, now.meps[:, m], False).predict(_inputs(every[allowed], False), True)[1]
                     for m in now.wanted)  # fmt: skip
        best = allowed[int(np.argmax(spread))]
    else:
        drawn = {
            m: fit_process(known, now.meps[:, m], True).sample_y(_inputs(every[allowed], True), random_state=seed)[:, 0]
            for m in muscles
        }
        best = allowed[int(np.argmax(combine(drawn, now.wanted, now.spared)))]
    x, y, turn = map(float, every[best])
    return x, y, turn


def fit_process(known: Float[np.ndarray, "k 3"], meps: Float[np.ndarray, " k"], turning: bool) -> Any:
    """Fit a Gaussian process of log10 MEPs over places (mm) and, where asked, turns (rad)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    usable = np.isfinite(meps)
    y = np.log10(np.maximum(meps[usable], 1.0))
    lengths = [10.0, 10.0, 1.0, 1.0] if turning else [10.0, 10.0]
    bounds = [(3.0, 60.0)] * 2 + ([(0.3, 10.0)] * 2 if turning else [])
    kernel = ConstantKernel(0.5, (0.01, 10)) * RBF(lengths, bounds) + WhiteKernel(0.1, (1e-3, 1))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        # a length at its bound is an answer
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(_inputs(known[usable], turning), y)


def combine(log_meps: dict[int, np.ndarray], wanted: tuple[int, ...], spared: tuple[int, ...]) -> np.ndarray:
    """What is to be raised, of log10 MEPs (n,): the wanted's, or its share where muscles are spared."""
    answer, other = (
        np.sum([10 ** np.minimum(log_meps[m], 5) for m in muscles], axis=0) for muscles in (wanted, spared)
    )
    if not spared:
        return answer
    share = answer / (answer + other)
    return np.where(answer >= answer.max() / 2, share, 0)


def propose_least_alike(now: Situation) -> Spot:
    """Where the field is least like those of the stimuli so far: its largest correlation with one is smallest."""
    if not len(now.before):
        return 0.0, 0.0, 0.0
    features = np.asarray(now.features, np.float64)
    one, other = (_standardise(rows) for rows in (features, now.before))
    worst = (one @ other.T).max(1)
    worst[~now.allowed] = np.inf
    best = int(np.argmin(worst))
    x, y, turn = map(float, _every(now)[best])
    return x, y, turn


RULES: dict[str, Callable[[Situation], Spot]] = {
    "random": propose_random,
    "scatter": propose_scatter,
    "grid": propose_grid,
    "feedback": propose_feedback,
    "gaussian process": propose_gaussian_process,
    "least alike": propose_least_alike,
}


def _make_grid(radius: float, step: float = _GRID) -> Float[np.ndarray, "n 2"]:
    ticks = np.arange(-np.floor(radius / step), np.floor(radius / step) + 1) * step
    places = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1).reshape(-1, 2)
    return places[np.linalg.norm(places, axis=1) <= radius + 1e-9]


def _every(now: Situation) -> Float[np.ndarray, "n 3"]:
    """Place and turn of each candidate."""
    return np.column_stack([now.patch.places, now.patch.turns])


def _inputs(spots: Float[np.ndarray, "n 3"], turning: bool) -> np.ndarray:
    """Places, and turns as points of a circle."""
    return np.column_stack([spots[:, :2], np.cos(spots[:, 2]), np.sin(spots[:, 2])]) if turning else spots[:, :2]


def _standardise(rows: np.ndarray) -> np.ndarray:
    away = rows - rows.mean(1, keepdims=True)
    return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
