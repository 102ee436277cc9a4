"""Standard EEG positions on a head's scalp: the head's own, else those of MNI space."""

import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxm2m.head._head_model import HeadModel

_FOLDER, _DEFAULT_CAP = "eeg_positions", "EEG10-10_UI_Jurak_2007.csv"
_LARGEST = 1000.0  # mm
_FARTHEST = 25.0  # mm; a name is then no help to find the place


def electrode(head: HeadModel, name: str) -> Float[np.ndarray, "3"]:
    """Find the point of the scalp nearest to a standard electrode position.

    A head that was loaded from a SimNIBS folder has positions of its own (`eeg_positions/*.csv`), which are taken where
    they hold the name. Else the head must be in MNI152 space, or come with a transform from it; `electrode_source` says
    which it was.

    These positions are those of the 10-05 system (10-20 and 10-10 are part of it; Oostenveld & Praamstra 2001) on
    Colin27's scalp, which the package mne carries. mne calls their frame "mri", but they are in Colin27's own MNI space
    and are taken as they are: over the whole montage they lie 0.8 mm under that scalp, standard deviation 0.7 mm
    (1.4 mm if they were moved from MNI305 to MNI152). On another head in MNI152 they are guesses: from the scalp of
    `atlas`, C3 lies 0.5 mm away, 95 of 100 positions less than 7 mm, the mastoid M1 15 mm.

    Parameters
    ----------
    head : Head or MeshHead
        It came from a SimNIBS folder with positions or with a transform from MNI space (`head.from_mni`), or its
        `space` is "MNI152".
    name : str
        "C3", "Cz", "FCz", "T7", ...; upper and lower case are the same.

    Returns
    -------
    (3,) float64 array
        mm.

    Raises
    ------
    ImportError
        mne is missing.
    ValueError
        A head in another space, a name that is not known, a position farther than 25 mm from the scalp or where the
        head is cut.
    """
    position, _ = _find_own(head, name)
    if position is not None:
        return head.scalp.find_nearest(position)
    if head.space != "MNI152" and "mni" not in head.metadata:
        raise ValueError(
            f"head: its space is {head.space!r}, and standard positions are known in MNI152 only; give the electrode's "
            'coordinates on this head (x, y, z in mm), or load it with space="MNI152" (--space MNI152) if it is in '
            "that space."
        )
    positions = _positions()
    known = {key.lower(): key for key in positions}
    if name.lower() not in known:
        close = difflib.get_close_matches(name.lower(), known, n=5)
        hint = ", ".join(known[key] for key in close) or "a name of the 10-20 or 10-10 system such as C3, Cz or FCz"
        raise ValueError(f"name: {name!r} is no standard position; did you mean {hint}?")
    name = known[name.lower()]

    position = head.from_mni(positions[name])
    point = head.scalp.find_nearest(position)
    distance = float(np.linalg.norm(point - position))
    affine, limits = np.asarray(head.scalp.affine, np.float64), np.asarray(head.scalp.limits)
    index = np.linalg.solve(affine, [*point, 1])[:3]
    if distance > _FARTHEST or (index < limits[0]).any() or (index > limits[1]).any():
        where = f"{distance:.0f} mm from the scalp" if distance > _FARTHEST else "where the head is cut"
        raise ValueError(
            f"name: {name} lies {where}; take a head that is really in MNI152 space and reaches that far, or give "
            "coordinates."
        )
    return point


def electrode_source(head: HeadModel, name: str) -> str:
    """Say where the position of an electrode comes from.

    Parameters
    ----------
    head : Head or MeshHead
        As in `electrode`.
    name : str
        "C3", "Cz", ...

    Returns
    -------
    str
        The file of the head's own positions, or the 10-05 system in MNI space.
    """
    position, file = _find_own(head, name)
    return "the 10-05 system in MNI space" if position is None else f"the head's own positions, {_FOLDER}/{file}"


def find_positions(folder: Path) -> Mapping[str, Mapping[str, tuple[float, float, float]]]:
    """The positions in `eeg_positions/` of a SimNIBS folder, file -> name -> mm; the default cap's file first.

    Rows are `Electrode,x,y,z,name` (or `ReferenceElectrode`); fiducials and other rows are passed over.

    Raises
    ------
    ValueError
        A row of an electrode that is no position in mm.
    """
    files: dict[str, dict[str, tuple[float, float, float]]] = {}
    for path in sorted((folder / _FOLDER).glob("*.csv"), key=lambda p: (p.name != _DEFAULT_CAP, p.name)):
        positions: dict[str, tuple[float, float, float]] = {}
        for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
            cells = [cell.strip() for cell in line.split(",")]
            if cells[0] not in ("Electrode", "ReferenceElectrode") or len(cells) < 5 or not cells[4]:
                continue
            try:
                x, y, z = (float(cell) for cell in cells[1:4])
            except ValueError:
                x = y = z = np.nan
            if not np.abs([x, y, z]).max() < _LARGEST:
                raise ValueError(f"path: {path}, line {number}: no position in mm; remove the row or the file.")
            positions.setdefault(cells[4].lower(), (x, y, z))
        if positions:
            files[path.name] = positions
    return files


def _find_own(head: HeadModel, name: str) -> tuple[np.ndarray | None, str]:
    for file, positions in head.metadata.get("eeg_positions", {}).items():
        if name.lower() in positions:
            return np.array(positions[name.lower()]), file
    return None, ""


def _positions() -> dict[str, np.ndarray]:
    """mm in MNI space, by name."""
    try:
        import mne
    except ImportError as e:
        raise ImportError(f'head.electrode: {e}; python -m pip install "jaxm2m[atlas]".') from e

    # mne 1.13 gave the montage a new name
    kind = "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"
    # without a head size the coordinates stay as measured, in m
    montage = mne.channels.make_standard_montage(kind, head_size=None)
    return {key: np.asarray(value, np.float64) * 1e3 for key, value in montage.get_positions()["ch_pos"].items()}
