"""A session that plans itself: the next stimulus, what it gave, and when enough is known."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Key

from jaxm2m import _check, files
from jaxm2m import coil as coils
from jaxm2m._types import ArrayLike, PathLike, ScalpSurface
from jaxm2m.coil import Coil
from jaxm2m.cortex import FiringRate
from jaxm2m.design._goal import Goal, compute_shares, read_goal
from jaxm2m.design._hunt import Hunt, begin_hunt
from jaxm2m.design._information import Information, screen_information
from jaxm2m.design._intensity import choose_didt, pick_rate
from jaxm2m.design._patch import Patch, lay_patch, measure_moves
from jaxm2m.design._record import Record, begin_record, read_meps, read_pose, read_record, write_record
from jaxm2m.design._rules import RULES, Situation
from jaxm2m.design._threshold import ThresholdEstimate
from jaxm2m.efield import FieldMap, Grid
from jaxm2m.muscle import DensityPrior, Sources, SourceTracker, track_sources
from jaxm2m.placement import Placement, optimize

INFORMATION, THOMPSON = "information", "thompson"
_DRAWS = 256
_REFINED, _EVALUATIONS = 2, 6  # candidates that climb, and values with gradients of each
_SEARCHED = 30  # of the search of a best pose
_FEWEST = 10  # stimuli before a session may end
_LIFTED = 1.0  # mm that a casing may lie in the head without a word: an error of registration


class Loop:
    """A session that plans itself, by the posterior of the sources of muscles.

    Parameters
    ----------
    at_roi
        The field map of the coil over motor cortex, from a basis: fields in milliseconds.
    coil, scalp
        The coil, and the head's scalp.
    target
        (3,) mm, under the middle of the patch of scalp that is searched.
    muscles
        Names of the muscles that are recorded.
    key
        All randomness follows from it.
    rate
        The firing rate as a function of the field; None: the field itself.
    goal
        "map": hot spots of muscles; "hotspot": the pose at which one muscle answers most; "select": the pose at which
        it answers and others do not; "threshold": its resting motor threshold at `pose`, by `track_threshold`.
    muscle
        The muscle, or those, of the goal; None: all, for maps.
    avoid_muscle
        Those that should not answer, for "select".
    didt
        dI/dt of the stimuli, A/s; or the lowest and the highest, between which "information" chooses, while "thompson"
        takes their geometric mean and other rules the highest. None: that at which the largest field of the candidates
        in grey matter is 1.5 thresholds of the rate, which is said.
    rule
        "information": where a stimulus is expected to tell most; "thompson": where a draw of the posterior has its
        best; or "grid", "random", "scatter", "feedback", "gaussian process", "least alike", to be held against. None:
        "thompson" for "hotspot" and "select", else "information"; thresholds have no other.
    radius
        Of the patch, mm.
    handle
        (3,) where the handle points at a turn of zero.
    distance
        From the scalp to the coil's frame, mm.
    avoid
        (centre, radius) of balls that the casing must not enter, mm.
    largest_move, largest_turn
        mm and degrees between two stimuli; None: any.
    pose
        (4, 4) mm, of goal "threshold"; None: over the target, at a turn of zero.
    stop
        "map": mm, the 90 % radius that all hot spots shall be under; "threshold": as a share of it, half of the width
        of its 90 % interval; else the share of the draws that agree that the pose reaches 95 % of the best. None: 5 mm,
        0.05, 0.9.
    minimal_interval
        s between two stimuli, which `seconds_left` counts; 0: none.
    n_stimulus
        At most.
    grid
        The grid of the map, where the posterior shall write maps; None: its points only.
    prior
        What is believed of a density beforehand.
    directory
        Where the session is kept after each stimulus, so that a loop that was killed goes on; None: nowhere.

    Raises
    ------
    ValueError
        Arguments that cannot be used, or a directory that holds another session.
    """

    def __init__(
        self,
        at_roi: FieldMap,
        *,
        coil: Coil,
        scalp: ScalpSurface,
        target: ArrayLike,
        muscles: Sequence[str],
        key: Key[Array, ""],
        rate: FiringRate | None = None,
        goal: str = "map",
        muscle: str | Sequence[str] | None = None,
        avoid_muscle: str | Sequence[str] = (),
        didt: ArrayLike | None = None,
        rule: str | None = None,
        radius: float | int = 20.0,
        handle: ArrayLike = (-1.0, -1.0, 0.0),
        distance: float | int = 4.0,
        avoid: Sequence[tuple[ArrayLike, float | int]] = (),
        largest_move: float | int | None = None,
        largest_turn: float | int | None = None,
        pose: ArrayLike | None = None,
        stop: float | int | None = None,
        minimal_interval: float | int = 0.0,
        n_stimulus: int = 300,
        grid: Grid | None = None,
        prior: DensityPrior | None = None,
        directory: PathLike | None = None,
    ):
        asked: Goal = read_goal(goal, tuple(muscles), muscle, avoid_muscle, stop)
        self.goal, self.muscles, self.wanted, self.spared = asked.name, asked.muscles, asked.wanted, asked.spared
        self.stop, self._asked = asked.stop, asked
        usual = THOMPSON if goal in ("hotspot", "select") else INFORMATION
        self.rule = usual if rule is None else _check.option(rule, (INFORMATION, THOMPSON, *RULES), "rule")
        hunts = goal == "threshold"
        for argument, unused in (("rule", hunts and self.rule != usual), ("pose", pose is not None and not hunts)):
            if unused:
                raise ValueError(f"{argument}: not used with goal {goal!r}; leave it out.")
        self.n_stimulus = _check.integer(n_stimulus, "n_stimulus", minimum=1)
        self._interval = float(_check.positive(minimal_interval, "minimal_interval", zero=True))
        self._recorded_at = -np.inf
        self._limits = tuple(
            np.inf if value is None else float(_check.positive(value, name))
            for name, value in (("largest_move", largest_move), ("largest_turn", largest_turn))
        )
        self._key, self._coil, self._scalp, self._grid = key, coil, scalp, grid
        self._distance, self._avoid = distance, tuple(avoid)
        prior = DensityPrior() if prior is None else prior
        self.patch: Patch = lay_patch(
            at_roi, coil=coil, scalp=scalp, target=target, radius=radius, handle=handle, distance=distance, avoid=avoid,
            reach=3 * (prior.reach + prior.width),
        )  # fmt: skip
        self.levels, self._of_didt = choose_didt(didt, rate, self.patch.fields, coil)
        self.didt = float(np.exp(np.log(self.levels).mean()))
        self._tracker: SourceTracker = track_sources(
            self.patch.field, self.patch.fields * (self.didt / 1e6), muscles=self.muscles,
            rate=pick_rate(rate, self.patch), centre=self.patch.centre, capacity=self.n_stimulus,
            didt=self._tell(self.didt), prior=prior,
        )  # fmt: skip
        self._features = [
            self._tracker.measure(self.patch.fields * (level / 1e6), didt=self._tell(level)) for level in self.levels
        ]
        self._hunt: Hunt | None = None
        if hunts:
            where = self.patch.place(0.0, 0.0, 0.0) if pose is None else self._check_pose(pose)
            self._hunt = begin_hunt(where, self.wanted[0], self.levels, key, self.n_stimulus)
        self._record: Record = begin_record(self._tracker)
        self._cache: dict[str, Any] = {}
        self.directory = None if directory is None else Path(directory)
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._go_on()

    def __repr__(self) -> str:
        return f"Loop({self.goal} by {self.rule}, {len(self)} of at most {self.n_stimulus} stimuli)"

    def __len__(self) -> int:
        return len(self._record.poses)

    def next(self) -> tuple[Float[np.ndarray, "4 4"], float]:
        """Choose the next stimulus; the same until another one is recorded.

        Returns
        -------
        pose, didt
            (4, 4) coil frame to world, mm, and A/s.
        """
        if "next" not in self._cache:
            self._cache["next"] = self._choose()
        return self._cache["next"]

    def record(self, pose: ArrayLike, didt: float | int, meps: ArrayLike | Mapping[str, float]) -> None:
        """Take what a stimulus gave; the pose is where the coil was, not where it should have been.

        A casing that lies in the head by an error of registration is lifted for the field; from 1 mm on that is said. A
        pose that the map does not cover counts as missed.

        Parameters
        ----------
        pose
            (4, 4) coil frame to world, mm.
        didt
            A/s.
        meps
            (n_muscle,) peak-to-peak, uV, NaN where one is missing or flagged; or muscle -> uV. Zero, "no response",
            counts as 10 uV, or as the muscle's smallest so far where that is less.

        Raises
        ------
        ValueError
            A pose that is not rigid, other muscles, negative amplitudes, or more stimuli than `n_stimulus`.
        """
        where = read_pose(pose)
        current = float(_check.positive(didt, "didt"))
        values = read_meps(meps, self.muscles)
        number = len(self) + 1
        lifted, heights = coils.clear_casing(self._coil, where[None], self._scalp)
        if float(heights[0]) > _LIFTED:
            warnings.warn(
                f"pose: the casing of stimulus {number} lies {float(heights[0]):.1f} mm in the head; it was lifted for "
                "the field. Check the registration.",
                stacklevel=2,
            )
        e = self.patch.compute_fields(np.asarray(lifted))[0]
        if not np.isfinite(e).all():
            warnings.warn(f"pose: the map has no field for stimulus {number}; it counts as missed.", stacklevel=2)
            e, values = np.zeros_like(e), np.full_like(values, np.nan)
        self._tracker = self._tracker.add(e * (current / 1e6), values, didt=self._tell(current))
        if self._hunt is not None:
            self._hunt = self._hunt.add(where, current, values)
        self._recorded_at = time.monotonic()
        self._record = self._record.add(where, current, self.patch.find_spot(where), values, self._tracker)
        self._cache = {}
        if self.directory is not None:
            write_record(self.directory, self._record, self._settings)

    def seconds_left(self) -> float:
        """Count down to the next stimulus.

        Returns
        -------
        float
            s until `minimal_interval` has passed since the last one was recorded; 0 where it may be given.
        """
        return max(0.0, self._interval - (time.monotonic() - self._recorded_at))

    @property
    def draws(self) -> Sources:
        """Quick draws of the posterior, by its curvature at the mode, at the grey points of the patch."""
        if "draws" not in self._cache:
            self._cache["draws"] = self._tracker.draw(jax.random.fold_in(self._key, 2 * len(self)), _DRAWS)
        return self._cache["draws"]

    @property
    def _drawn(self) -> Sources:
        """The draws as searches take them: reasons are part of a program, and each would be compiled."""
        return replace(self.draws, unidentified=())

    @property
    def posterior(self) -> Sources:
        """The posterior itself, which takes seconds: `Sources` for fields of the map that the loop was given."""
        if "posterior" not in self._cache:
            sources = self._tracker.fit(jax.random.fold_in(self._key, 2 * len(self)))
            activity = replace(
                sources.activity,
                grey=jnp.asarray(self.patch.chosen)[sources.activity.grey],
                n_point=self.patch.n_point,
            )
            affine = None if self._grid is None else jnp.asarray(self._grid.affine, sources.points.dtype)
            shape = () if self._grid is None else tuple(self._grid.shape)
            self._cache["posterior"] = replace(sources, activity=activity, affine=affine, shape=shape)
        return self._cache["posterior"]

    @property
    def done(self) -> bool:
        """Whether enough is known, or all stimuli were given; `reason` says which."""
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Why the loop is done; "" while it is not."""
        if "reason" not in self._cache:
            self._cache["reason"] = self._find_reason()
        return self._cache["reason"]

    def best(self) -> Placement:
        """Search for the pose that the goal asks for, by the expectation over the draws.

        Returns
        -------
        Placement
            Its `pose`, and the next best.

        Raises
        ------
        ValueError
            The goal asks for no pose, or no candidate from which a search goes on.
        """
        if self.goal in ("map", "threshold"):
            raise ValueError(
                f'goal: "{self.goal}" asks for no pose; make a loop of goal "hotspot" or "select", or use activate.'
            )
        if "best" not in self._cache:
            values = self._asked.value(self._shares(self._drawn)).mean(0)
            order = np.argsort(-values, kind="stable")[:4]
            self._cache["best"] = self._search(
                self._aim(self._drawn),
                np.asarray(self.patch.poses)[order],
                _SEARCHED,
                self.didt,
            )
        return self._cache["best"]

    def threshold(self) -> ThresholdEstimate:
        """Estimate the resting motor threshold that goal "threshold" asks for.

        Returns
        -------
        ThresholdEstimate
            Mean and the middle 90 % of the posterior, A/s.

        Raises
        ------
        ValueError
            Another goal.
        """
        if self._hunt is None:
            raise ValueError(f'goal: "{self.goal}" hunts no threshold; make a loop of goal "threshold".')
        return self._hunt.tracker.threshold()

    def table(self) -> pd.DataFrame:
        """Tabulate the stimuli so far.

        Returns
        -------
        pandas.DataFrame
            A row a stimulus: x, y, z (mm), turn (degrees against the handle), didt (A/s), and `mep_FDI_uv`, ... (uV).
        """
        return self._record.table(self.muscles)

    def _choose(self) -> tuple[np.ndarray, float]:
        allowed = self._allow()
        key = jax.random.fold_in(self._key, 2 * len(self) + 1)
        didt = float(self.levels[-1])
        if self._hunt is not None:
            return self._hunt.pose, self._hunt.propose(key)
        if self.rule == INFORMATION:
            objective, values, didt = self._expect()
        else:
            record = self._record
            now = Situation(
                self.patch, allowed, self._tracker.data.reference, record.spots, record.features,
                record.meps, self.goal, self.wanted, self.spared, key,
            )  # fmt: skip
            if self.rule in RULES:
                return self._keep_allowed(self.patch.place(*RULES[self.rule](now)), allowed), didt
            one = self._drawn.sample(key, 1)
            # of a map the best pose of one of its muscles
            wanted = (int(now.rng.choice(self.wanted)),) if self.goal == "map" else self.wanted
            # at the intensity at which poses are compared
            didt = self.didt
            objective, values = self._aim(one, wanted), self._asked.value(self._shares(one), wanted)[0]
        return self._climb(objective, values, allowed, didt), didt

    def _expect(self) -> tuple[Information, Float[np.ndarray, " n"], float]:
        """Find what stimuli tell: as an objective, of all candidates at the intensity that tells most, and that."""
        posterior = self._tracker.linearise()
        interest = self._asked.find_interest(posterior, self._tracker.data.reference, lambda: self.draws)
        values = np.array([np.asarray(screen_information(posterior, interest, f), np.float64) for f in self._features])
        level = int(np.where(self._allow(), values, -np.inf).max(1).argmax())
        didt = float(self.levels[level])
        of_rate = jnp.asarray(didt, posterior.weights.dtype) if self._of_didt else None
        return Information(posterior, interest, of_rate), values[level], didt

    def _climb(self, objective: Any, values: np.ndarray, allowed: np.ndarray, didt: float) -> np.ndarray:
        """The best pose to be reached from the best candidates, by gradient."""
        order = np.argsort(-np.where(allowed, values, -np.inf), kind="stable")[:_REFINED]
        start = np.asarray(self.patch.poses, np.float64)[order]
        try:
            ranked = self._search(objective, start, _EVALUATIONS, didt).ranked
        except ValueError:
            # no start ended where a coil may be: the operator gets the candidate that it began from
            ranked = ()
        for candidate in ranked:
            inside = np.hypot(*self.patch.find_spot(candidate.pose)[:2]) <= self.patch.radius
            if inside and self._within_reach(candidate.pose[None])[0]:
                return candidate.pose
        return start[0]

    def _keep_allowed(self, pose: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """The pose, or the nearest candidate where it enters a zone or is too far from the last one."""
        if self.patch.is_clear(pose[None])[0] and self._within_reach(pose[None])[0]:
            return pose
        poses = np.asarray(self.patch.poses)[allowed]
        return poses[np.argmin(np.add(*measure_moves(pose, poses)))]

    def _shares(self, sources: Sources) -> np.ndarray:
        return compute_shares(sources, self._tracker.data.reference)

    def _aim(self, sources: Sources, wanted: tuple[int, ...] | None = None) -> Any:
        """What a coil should do to muscles, as an objective of the field."""
        answers = self._shares(sources)[:, :, list(wanted or self.wanted)].mean((0, 2))
        strongest = jnp.asarray(self.patch.fields[int(answers.argmax())] * (self.didt / 1e6))
        return self._asked.make_objective(sources, strongest, self._tell(self.didt), wanted)

    def _search(self, objective: Any, start: np.ndarray, evaluations: int, didt: float) -> Placement:
        return optimize(
            self.patch.field, objective, coil=self._coil, scalp=self._scalp, initial_poses=start,
            distance=self._distance, didt=didt, avoid=self._avoid, evaluations=evaluations, progress=False,
        )  # fmt: skip

    def _find_reason(self) -> str:
        if len(self) >= _FEWEST:
            if self._hunt is not None:
                reason = self._hunt.find_reason(self.stop)
            else:
                reason = self._asked.find_reason(self.draws, self._tracker.data.reference)
            if reason:
                return reason
        return f"all {self.n_stimulus} stimuli were given" if len(self) >= self.n_stimulus else ""

    def _check_pose(self, pose: ArrayLike) -> Float[np.ndarray, "4 4"]:
        """One pose that the map covers and no zone forbids."""
        where = read_pose(pose)
        if not np.isfinite(self.patch.compute_fields(where[None])).all():
            raise ValueError("pose: the map has no field there; pass one over the target, or a map that covers it.")
        if not self.patch.is_clear(where[None])[0]:
            raise ValueError("pose: the casing is in a zone of `avoid`; pass another pose, or take the zone away.")
        return where

    def _tell(self, didt: float) -> float | None:
        """dI/dt for rates whose threshold needs it; None for others."""
        return didt if self._of_didt else None

    def _within_reach(self, poses: np.ndarray) -> np.ndarray:
        if not len(self):
            return np.ones(len(poses), bool)
        moved, turned = measure_moves(self._record.poses[-1], poses)
        return (moved <= self._limits[0]) & (turned <= self._limits[1])

    def _allow(self) -> np.ndarray:
        """Which candidates may be next; the nearest where none is near enough."""
        poses = np.asarray(self.patch.poses, np.float64)
        near = self._within_reach(poses)
        if not near.any():
            near[np.argmin(np.add(*measure_moves(self._record.poses[-1], poses)))] = True
        return near

    # -- what a kill must not lose -------------------------------------------------------------------------------------

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "goal": self.goal,
            "rule": self.rule,
            "muscles": list(self.muscles),
            "wanted": list(self.wanted),
            "spared": list(self.spared),
            "didt": self.levels.tolist(),
            "stop": self.stop,
            "pose": None if self._hunt is None else self._hunt.pose.tolist(),
            "n_stimulus": self.n_stimulus,
            "prior": {name: float(value) for name, value in vars(self._tracker.prior).items()},
            "key": np.asarray(jax.random.key_data(self._key)).tolist(),
            "candidates": files.fingerprint("candidates", [self._tracker.data.reference, self.patch.poses]),
        }

    def _go_on(self) -> None:
        assert self.directory is not None
        record = read_record(self.directory, self._settings)
        if record is None:
            return
        self._record = record
        self._tracker = self._tracker.restore(record.features, record.meps, record.standard, record.shared)
        if self._hunt is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they were raised when the stimuli were recorded
                for pose, didt, meps in zip(record.poses, record.didt, record.meps, strict=True):
                    self._hunt = self._hunt.add(pose, float(didt), meps)
