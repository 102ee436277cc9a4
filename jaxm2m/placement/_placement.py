"""The result of a search: its poses, ranked, and how it came to them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxm2m import _check, session
from jaxm2m._types import ArrayLike


@dataclass(frozen=True, eq=False)
class Candidate:
    """A pose that a search found.

    Attributes
    ----------
    pose
        (4, 4) mm.
    value
        The objective's value.
    didt
        A/s.
    start
        Which start led there first.
    starts
        How many starts led there.
    reason
        Why that start stopped.
    """

    pose: Float[np.ndarray, "4 4"]
    value: float
    didt: float
    start: int
    starts: int
    reason: str


@dataclass(frozen=True, eq=False)
class History:
    """Every start at every step: where it stood, what it had reached.

    Attributes
    ----------
    poses
        (n_step + 1, n_start, 4, 4) mm.
    values
        (n_step + 1, n_start).
    evaluations
        (n_step + 1, n_start) values with their gradients so far.
    """

    poses: Float[np.ndarray, "step start 4 4"]
    values: Float[np.ndarray, "step start"]
    evaluations: Int[np.ndarray, "step start"]


@dataclass(frozen=True, eq=False, repr=False)
class Placement:
    """The poses that a search found, the best first.

    Attributes
    ----------
    ranked
        Distinct poses: more than 2 mm or 5 degrees apart.
    history
        Every start at every step.
    reasons
        Why each start stopped.
    evaluations
        Values with their gradients, in all.
    space
        Coordinate space of the poses.
    checked
        The best pose's value by the map given as `check`; NaN without one.
    seconds
        What the search took, compilation included.
    """

    ranked: tuple[Candidate, ...]
    history: History
    reasons: tuple[str, ...]
    evaluations: int
    space: str
    checked: float
    seconds: float

    @property
    def pose(self) -> Float[np.ndarray, "4 4"]:
        """The best pose, mm."""
        return self.ranked[0].pose

    @property
    def value(self) -> float:
        """The objective's value at the best pose, in the objective's unit."""
        return self.ranked[0].value

    @property
    def didt(self) -> float:
        """dI/dt of the best pose, A/s."""
        return self.ranked[0].didt

    def __repr__(self) -> str:
        return (
            f"Placement(value={self.value:.5g}, {len(self.ranked)} distinct poses from {len(self.reasons)} starts, "
            f"{self.evaluations} evaluations, {self.seconds:.1f} s)"
        )

    def table(self) -> pd.DataFrame:
        """Tabulate the distinct poses, the best first.

        Returns
        -------
        table
            A row a pose: "value", "x", "y", "z" (mm), "mm from best", "degrees from best", "didt" (A/s), "starts" (how
            many led there), "stopped" (why).
        """
        rows = []
        for candidate in self.ranked:
            moved, turned = pose_difference(self.pose, candidate.pose)
            x, y, z = candidate.pose[:3, 3]
            rows.append(
                {
                    "value": candidate.value,
                    "x": x,
                    "y": y,
                    "z": z,
                    "mm from best": moved,
                    "degrees from best": turned,
                    "didt": candidate.didt,
                    "starts": candidate.starts,
                    "stopped": candidate.reason,
                }
            )
        return pd.DataFrame(rows)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        count: int = 1,
        name: str = "jaxm2m",
    ) -> Path:
        """Write the best poses for a neuronavigator or a script.

        Parameters
        ----------
        path
            The file to make.
        format
            "csv", "txt", "json", "brainsight" or "localite"; by default of the name's ending.
        count
            Number of poses, the best first.
        name
            Names the targets: name, name 2, ...

        Returns
        -------
        Path
            The file.
        """
        chosen = self.ranked[: _check.integer(count, "count")]
        names = [name if i == 0 else f"{name} {i + 1}" for i in range(len(chosen))]
        poses = np.stack([c.pose for c in chosen])
        return session.save_targets(path, poses, names=names, space=self.space, format=format)


def pose_difference(first: ArrayLike, last: ArrayLike) -> tuple[float, float]:
    """Measure how far two poses are apart.

    Parameters
    ----------
    first, last
        (4, 4) coil frame to world, mm.

    Returns
    -------
    distance
        mm between their centres.
    angle
        Degrees by which one is turned against the other.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> first, last = np.eye(4), np.eye(4)
    >>> last[:3, 3] = 3.0, 4.0, 0.0
    >>> distance, angle = jm.placement.pose_difference(first, last)
    >>> print(f"{distance:.1f} mm, {angle:.1f} degrees")
    5.0 mm, 0.0 degrees
    """
    first, last = np.asarray(first, np.float64), np.asarray(last, np.float64)
    cosine = (np.trace(first[:3, :3].T @ last[:3, :3]) - 1) / 2
    return float(np.linalg.norm(last[:3, 3] - first[:3, 3])), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def group_poses(poses: Any, values: Any, *, apart: float = 2.0, turned: float = 5.0) -> list[list[int]]:
    """Group poses within `apart` mm and `turned` degrees of the best of the group; the best group first."""
    groups: list[list[int]] = []
    for i in np.argsort(-np.asarray(values)):
        for group in groups:
            near, angle = pose_difference(poses[group[0]], poses[i])
            if near <= apart and angle <= turned:
                group.append(int(i))
                break
        else:
            groups.append([int(i)])
    return groups
