"""What a session that plans itself has given so far, and its file: all that it needs to go on, written whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxm2m import _check, files
from jaxm2m._types import ArrayLike
from jaxm2m.muscle import SourceTracker

NAME = "loop.h5"
_CONTENT = "jaxm2m design loop"


class Record(NamedTuple):
    """A session so far.

    Attributes
    ----------
    poses
        (n, 4, 4) mm, as they were recorded.
    didt
        (n,) A/s.
    spots
        (n, 3) mm, mm and rad in the patch.
    meps
        (n, n_muscle) uV, NaN where one is missing.
    features
        (n, n_bump) activity under each bump.
    standard, shared
        The mode of the posterior, from which the next one is sought.
    """

    poses: Float[np.ndarray, "n 4 4"]
    didt: Float[np.ndarray, " n"]
    spots: Float[np.ndarray, "n 3"]
    meps: Float[np.ndarray, "n muscle"]
    features: Float[np.ndarray, "n bump"]
    standard: Float[np.ndarray, "muscle number"]
    shared: Float[np.ndarray, " capacity"]

    def add(
        self,
        pose: Float[np.ndarray, "4 4"],
        didt: float,
        spot: Float[np.ndarray, "3"],
        meps: Float[np.ndarray, " muscle"],
        tracker: SourceTracker,
    ) -> "Record":
        """Return the record after one more stimulus, which the tracker has seen."""
        poses, didts, spots, rows = (
            np.concatenate([before, np.asarray(new)[None]])
            for before, new in zip(self[:4], (pose, didt, spot, meps), strict=True)
        )
        # cut by NumPy: JAX would compile each length
        features = np.asarray(tracker.data.features)[: len(self.poses) + 1]
        return Record(poses, didts, spots, rows, features, np.asarray(tracker.standard), np.asarray(tracker.shared))

    def table(self, muscles: tuple[str, ...]) -> pd.DataFrame:
        """Tabulate the stimuli, a row each."""
        index = pd.RangeIndex(1, len(self.poses) + 1, name="stimulus")
        table = pd.DataFrame(self.poses[:, :3, 3], columns=list("xyz"), index=index)
        table["turn"], table["didt"] = np.degrees(self.spots[:, 2]), self.didt
        for k, name in enumerate(muscles):
            table[f"mep_{name}_uv"] = self.meps[:, k]
        return table


def begin_record(tracker: SourceTracker) -> Record:
    """Make the record of a session without a stimulus."""
    return Record(
        np.zeros((0, 4, 4)),
        np.zeros(0),
        np.zeros((0, 3)),
        np.zeros((0, len(tracker.muscles))),
        np.asarray(tracker.data.features)[:0],
        np.asarray(tracker.standard),
        np.asarray(tracker.shared),
    )


def read_pose(pose: ArrayLike) -> Float[np.ndarray, "4 4"]:
    """Check one pose."""
    where = np.asarray(_check.pose(pose), np.float64)
    if where.shape != (4, 4):
        raise ValueError(f"pose: shape {where.shape}; give one pose (4, 4).")
    return where


def read_meps(meps: Any, muscles: tuple[str, ...]) -> Float[np.ndarray, " muscle"]:
    """Arrange the MEPs of a stimulus, uV, by muscle; NaN where a mapping has none."""
    if isinstance(meps, Mapping):
        for name in meps:
            _check.option(name, muscles, "meps")
        return np.array([float(meps.get(name, np.nan)) for name in muscles])
    values = np.asarray(meps, np.float64)
    if values.shape != (len(muscles),):
        raise ValueError(f"meps: shape {values.shape}; give one amplitude for each of {len(muscles)} muscles.")
    return values


_SHAPES = {
    "poses": "float n 4 4",
    "didt": "float n",
    "spots": "float n 3",
    "meps": "float n muscle",
    "features": "float n bump",
    "standard": "float muscle number",
    "shared": "float capacity",
}


def write_record(directory: Path, record: Record, settings: dict[str, Any]) -> None:
    """Replace the file; a kill leaves the one before."""
    with files.atomic(directory / NAME) as temporary, h5py.File(temporary, "w") as file:
        for name, values in record._asdict().items():
            file[name] = values
        file.attrs.update(content=_CONTENT, settings=json.dumps(settings))


def read_record(directory: Path, settings: dict[str, Any]) -> Record | None:
    """Read the session of a directory; None where it holds none.

    Raises
    ------
    ValueError
        Another session: other settings, another head, coil or candidates.
    """
    path = directory / NAME
    if not path.exists():
        return None
    with files.open_hdf5(path, name="directory") as file:
        if file.text("content") != _CONTENT:
            raise ValueError(f"directory: {path} is no session of a loop; choose another directory.")
        before = files.parse_json(file.text("settings"), f"{file.label}, settings")
        arrays = file.arrays(_SHAPES)
    differ = [name for name in settings if before.get(name) != json.loads(json.dumps(settings[name]))]
    if differ:
        raise ValueError(
            f"directory: {path} holds a session with another {', '.join(differ)}; go on as it was begun, or choose "
            "another directory."
        )
    return Record(**{name: np.asarray(arrays[name]) for name in _SHAPES})
