"""The file of a session that plans itself: all that it needs to go on, written whole after each stimulus."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from jaxtyping import Float

from jaxm2m import files

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
