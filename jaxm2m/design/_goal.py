"""What a session is for: the goal, the muscles that it is about, and when enough is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m.design._choice import find_best_poses, find_hot_spots, screen_shares, value_candidates
from jaxm2m.design._information import Interest
from jaxm2m.muscle import LinearPosterior, Sources, activate

GOALS = ("map", "hotspot", "select", "threshold")
_REACHED = 0.95  # of a draw's best
_STOP = {"map": 5.0, "hotspot": 0.9, "select": 0.9, "threshold": 0.05}


@dataclass(frozen=True)
class Goal:
    """A goal and its muscles.

    Attributes
    ----------
    name
        Of `GOALS`.
    muscles
        All that are recorded.
    wanted, spared
        Indices of those that it is about, and of those that should not answer.
    stop
        mm, or a share: when enough is known.
    """

    name: str
    muscles: tuple[str, ...]
    wanted: tuple[int, ...]
    spared: tuple[int, ...]
    stop: float

    def value(
        self, shares: Float[np.ndarray, "draw n muscle"], wanted: tuple[int, ...] | None = None
    ) -> Float[np.ndarray, "draw n"]:
        """Compute how good candidates are under each draw, for other muscles where they are passed."""
        return value_candidates(shares, self.wanted if wanted is None else wanted, self.spared)

    def find_interest(
        self,
        posterior: LinearPosterior,
        features: Float[Array, "n bump"],
        draw: Callable[[], Sources],
    ) -> Interest:
        """Find what is to be known, as directions in the numbers of muscles; of poses, draws say which may be best."""
        if self.name == "map":
            return find_hot_spots(posterior, self.wanted)
        sources = draw()
        shares = compute_shares(sources, features)
        return find_best_poses(posterior, features, shares, sources.largest, self.wanted, self.spared)

    def make_objective(
        self,
        sources: Sources,
        strongest: Float[Array, "point 3"],
        didt: float | None,
        wanted: tuple[int, ...] | None = None,
    ) -> Any:
        """Make what a coil should do to muscles an objective of the field; `strongest` is one where these answer."""
        one, other = ([self.muscles[k] for k in which] for which in (wanted or self.wanted, self.spared))
        if not other:
            return activate(sources, one, didt=didt)
        return activate(sources, one, other, reference=strongest, didt=didt)

    def find_reason(self, sources: Sources, features: Float[Array, "n bump"]) -> str:
        """Say why enough is known, or ""."""
        if self.name == "map":
            radii = sources.hotspots()["radius_90"].to_numpy(float)[list(self.wanted)]
            if (radii <= self.stop).all():
                return f"all hot spots are known within {self.stop:g} mm (90 % of their posterior)"
            return ""
        values = self.value(compute_shares(sources, features))
        sure = float((values[:, values.mean(0).argmax()] >= _REACHED * values.max(1)).mean())
        if sure >= self.stop:
            return f"{sure:.0%} of the posterior agrees on a pose that reaches {_REACHED:.0%} of the best"
        return ""


def compute_shares(sources: Sources, features: Float[Array, "n bump"]) -> Float[np.ndarray, "draw n muscle"]:
    """Compute the mean MEPs of each draw at candidates, as shares of the largest MEPs."""
    # reasons are part of a program, and each would be compiled
    return np.asarray(screen_shares(replace(sources, unidentified=()), features), np.float64)


def read_goal(goal: str, muscles: tuple[str, ...], muscle: Any, avoid_muscle: Any, stop: float | int | None) -> Goal:
    """Check a goal and its muscles.

    Raises
    ------
    ValueError
        Another goal, muscles that are not recorded or do not go with it, or a share that is none.
    """
    _check.option(goal, GOALS, "goal")
    wanted, spared = _read_muscles(muscles, goal, muscle, avoid_muscle)
    limit = _STOP[goal] if stop is None else float(_check.positive(stop, "stop"))
    if goal != "map" and limit >= 1:
        raise ValueError(f"stop: {stop:g}; goal {goal!r} ends at a share, between 0 and 1.")
    return Goal(goal, muscles, wanted, spared, limit)


def _read_muscles(
    muscles: tuple[str, ...], goal: str, muscle: Any, avoid_muscle: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the muscles that the goal is about, and of those to be spared."""
    wanted, spared = (
        () if names is None else (names,) if isinstance(names, str) else tuple(names)
        for names in (muscle, avoid_muscle)
    )
    for argument, names in (("muscle", wanted), ("avoid_muscle", spared)):
        for name in names:
            _check.option(name, muscles, argument)
    if set(wanted) & set(spared):
        raise ValueError(f"avoid_muscle: {', '.join(set(wanted) & set(spared))} should answer too; name others.")
    if goal == "map":
        wanted = wanted or muscles
    elif goal == "threshold" and len(wanted) > 1:
        raise ValueError(f"muscle: {', '.join(wanted)}; a threshold is that of one muscle.")
    elif not wanted:
        raise ValueError(f'muscle: missing; goal "{goal}" asks for the muscle that should answer.')
    if bool(spared) != (goal == "select"):
        what = "asks for those that should not answer" if goal == "select" else "does not ask for muscles to be spared"
        raise ValueError(f'avoid_muscle: goal "{goal}" {what}.')
    return tuple(map(muscles.index, wanted)), tuple(map(muscles.index, spared))
