"""A recorded session as the widget scrubs it: stimulus after stimulus, with its pose, intensity and MEPs."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m.session import Session


class Stimulus(NamedTuple):
    """One stimulus: pose (4, 4) mm, dI/dt A/s (None where not recorded), MEPs uV by muscle."""

    pose: Float[np.ndarray, "4 4"]
    didt: float | None
    meps: dict[str, float]


@dataclass(frozen=True, eq=False)
class Recording:
    """The stimuli of a session that have a position."""

    poses: Float[np.ndarray, "n 4 4"]
    didt: Float[np.ndarray, " n"]
    meps: Float[np.ndarray, "n n_muscle"]
    muscles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.poses)

    def look_up(self, index: int) -> Stimulus:
        """Return one stimulus; MEPs that are missing are left out."""
        row = zip(self.muscles, self.meps[index].tolist(), strict=True)
        didt = float(self.didt[index])
        meps = {name: value for name, value in row if np.isfinite(value)}
        return Stimulus(self.poses[index], didt if np.isfinite(didt) else None, meps)


def read_session(session: Any, space: str) -> Recording:
    """Take a recorded `Session`, or whatever has poses, didt, meps and muscles, such as a simulated one.

    Raises
    ------
    ValueError
        No stimulus with a position, or a session in another space than the head's.
    """
    if isinstance(session, Session):
        if session.space != space:
            raise ValueError(
                f"session: in {session.space!r} space, the head in {space!r}; load it with the head's image, or take a "
                "head in its space."
            )
        samples = session.pick(kind="sample", located=True)
        poses, didt, meps, muscles = samples.poses, samples.didt, samples.meps, samples.channels
    else:
        poses, didt, meps, muscles = session.poses, session.didt, session.meps, session.muscles
    if not len(poses):
        raise ValueError("session: no stimulus has a position; give one that was navigated.")
    matrices = np.asarray(_check.pose(poses, "session"), np.float64)
    return Recording(matrices, np.asarray(didt, np.float64), np.asarray(meps, np.float64), tuple(muscles))
