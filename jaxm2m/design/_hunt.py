"""The goal "threshold" of a loop: a motor threshold hunted at one pose."""

import warnings
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from jaxm2m.design._patch import measure_moves
from jaxm2m.design._threshold import ThresholdTracker, track_threshold

_MISSED = 5.0, 10.0  # mm and degrees, from where a stimulus tells nothing of the threshold at the pose


@dataclass(frozen=True, eq=False)
class Hunt:
    """A motor threshold that is hunted at one pose.

    Attributes
    ----------
    pose
        (4, 4) mm.
    muscle
        Index of the muscle.
    tracker
        What is known of its recruitment curve there.
    """

    pose: Float[np.ndarray, "4 4"]
    muscle: int
    tracker: ThresholdTracker

    def add(self, pose: np.ndarray, didt: float, meps: np.ndarray) -> "Hunt":
        """Return the hunt after one more stimulus; one far from the pose is left out aloud."""
        moved, turned = (float(a[0]) for a in measure_moves(self.pose, pose[None]))
        if moved > _MISSED[0] or turned > _MISSED[1]:
            warnings.warn(
                f"pose: the stimulus was {moved:.0f} mm and {turned:.0f} degrees from the pose of the threshold; it is "
                "left out of it.",
                stacklevel=3,
            )
            return self
        return replace(self, tracker=self.tracker.add(didt, float(meps[self.muscle])))

    def propose(self, key: Key[Array, ""]) -> float:
        """Propose the intensity, A/s, that tells most."""
        return float(self.tracker.propose(key))

    def find_reason(self, stop: float) -> str:
        """Say why enough is known, or ""."""
        mean, low, high = map(float, self.tracker.threshold())
        if high - low > 2 * stop * mean:
            return ""
        return f"the threshold is known: 90 % of its posterior within {(high - low) / mean / 2:.1%} of it"


def begin_hunt(
    pose: Float[np.ndarray, "4 4"], muscle: int, levels: Float[np.ndarray, " level"], key: Key[Array, ""], capacity: int
) -> Hunt:
    """Begin between the lowest and the highest intensity.

    Raises
    ------
    ValueError
        One intensity only.
    """
    if len(levels) < 2:
        raise ValueError('didt: one intensity; goal "threshold" needs the lowest and the highest, A/s.')
    tracker = track_threshold(
        float(levels[0]), float(levels[-1]), key=jax.random.fold_in(key, 2**31 - 1), capacity=capacity
    )  # fmt: skip
    return Hunt(np.asarray(pose, np.float64), muscle, tracker)
