"""Kept poses as files: for navigators, for scripts, and for `efield.compute_fields`."""

import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np

from jaxm2m._types import PathLike
from jaxm2m.files import atomic
from jaxm2m.session import save_targets

_NAMES = {"brainsight": "targets.txt", "localite": "targets.xml", "json": "targets.json", "npy": "poses.npy"}
_WORDS = {"brainsight": "Brainsight", "localite": "Localite", "json": "JSON", "npy": "poses (.npy)"}
_SPACES = {"brainsight": ("subject", "MNI152", "Talairach"), "localite": ("subject", "MNI152")}
_SPACES |= {"json": _SPACES["brainsight"]}


def list_formats(space: str) -> dict[str, str]:
    """List the formats that have a name for the head's space, with what they are called."""
    return {name: words for name, words in _WORDS.items() if name not in _SPACES or space in _SPACES[name]}


def write_poses(path: PathLike, poses: np.ndarray, names: list[str], space: str, format: str | None) -> Path:
    """Write poses (n, 4, 4), mm, to a file."""
    target = Path(path).expanduser()
    if not len(poses):
        raise ValueError("kept: no pose was kept; press keep, or call keep(), before an export.")
    if format == "npy" or (format is None and target.suffix.lower() == ".npy"):
        with atomic(target) as temporary:
            temporary.write_bytes(_format_npy(poses))
        return target
    return save_targets(target, poses, names=names, space=space, format=format)


def format_poses(poses: np.ndarray, names: list[str], space: str, format: str) -> tuple[str, bytes]:
    """Return the name and the content of a file of poses, for a browser to keep."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_poses(Path(folder) / _NAMES[format], poses, names, space, format)
        return path.name, path.read_bytes()


def _format_npy(poses: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, poses, allow_pickle=False)
    return file.getvalue()
