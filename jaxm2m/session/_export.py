"""Coil poses written for neuronavigation, for other programs and for viewers: the counterpart of the readers."""

import contextlib
import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._types import PathLike
from jaxm2m.files import atomic
from jaxm2m.session import _brainsight, _localite
from jaxm2m.session._rigid import make_rigid
from jaxm2m.session._simnibs import format_simnibs

# each coordinate space of a session: the NIfTI form code, and what Brainsight up to version 12 of its format calls it
_CODES = {"subject": 1, "Talairach": 3, "MNI152": 4}
_SYSTEMS = {"subject": "NIfTI:Scanner", "Talairach": "NIfTI:Talairach", "MNI152": "NIfTI:MNI-152"}
_SUFFIXES = {".csv": "csv", ".txt": "txt", ".xml": "localite", ".json": "json", ".mat": "simnibs"}

_INTO_HEAD, _HANDLE = 60.0, 30.0
_LARGEST = 1 << 31  # bytes of a marker volume


def save_targets(
    path: PathLike,
    poses: Float[np.ndarray, "*n_pose 4 4"] | Float[Array, "*n_pose 4 4"],
    *,
    names: Sequence[str] | None = None,
    space: str,
    format: str | None = None,
    source_space: str | None = None,
) -> Path:
    """Write coil poses as targets that `load` or `load_poses` reads back to 1e-6 mm.

    - "csv": a row of column names, then a row a pose: its name and 16 numbers, row-major (the first four are the
      matrix's first row).
    - "txt": numbers alone, one pose as a 4x4 matrix, several as rows of 16. Neither names nor space are written.
    - "json": {"poses": ..., "space": ..., "names": ...}.
    - "brainsight": Brainsight's text export (version 12) with one section, Target Name. "subject" is written as
      "NIfTI:Scanner", the transform of the image whose NIfTI code is 1: where the head came from a transform with the
      code 2, pass `source_space="NIfTI:Aligned"`.
    - "simnibs": a SimNIBS TMSLIST (.mat, version 5) without a coil; "subject" only, the space of its head meshes.
    - "localite": InstrumentMarkers XML with the coordinate space RAS (the subject's image) or MNI; Talairach has no
      name there.

    `load_poses` gives the space back for "json", "brainsight", "localite" and "simnibs", the other two do not hold it.

    Parameters
    ----------
    path : path
        The file to make or replace; it appears whole or not at all. Its folder must exist.
    poses : (n, 4, 4) or (4, 4) array
        Rigid, mm, "matsimnibs" convention.
    names : sequence of str, optional
        A name for each pose. Default: "Target 1", "Target 2", ...
    space : "subject", "MNI152" or "Talairach"
        The coordinate space of `poses`, as in `Session.space`.
    format : str, optional
        One of the above. Default: by the suffix of `path`; .csv, .txt ("txt"), .xml ("localite"), .mat ("simnibs") or
        .json.
    source_space : str, optional
        What Brainsight's file shall call the space, such as that of an export that was read without an image
        (`Session.source_space`). Default: "NIfTI:Scanner", "NIfTI:MNI-152" or "NIfTI:Talairach", by `space`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        A format or space that is not known, a pose that is not rigid, another number of names than of poses, names or
        spaces that the format cannot hold.
    OSError
        A file or folder that cannot be written.
    """
    path = Path(path).expanduser()
    if format is None:
        if path.suffix.lower() not in _SUFFIXES:
            raise ValueError(
                f"path: {path} has none of the suffixes {', '.join(_SUFFIXES)}; rename it, or pass format=, one of "
                f"{', '.join(_WRITERS)}."
            )
        format = _SUFFIXES[path.suffix.lower()]
    write = _WRITERS[_check.option(format, _WRITERS, "format")]
    _check.option(space, _CODES, "space")
    matrices = _check_matrices(poses, "poses")
    if source_space is None:
        content = write(matrices, _check_names(names, len(matrices)), space)
    else:
        system = _check_system(source_space, space, format)
        content = _format_brainsight(matrices, _check_names(names, len(matrices)), space, system)
    with _write_atomically(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def save_marker(
    path: PathLike,
    pose: Float[np.ndarray, "4 4"] | Float[Array, "4 4"],
    image_affine: Float[np.ndarray, "4 4"] | Float[Array, "4 4"],
    image_shape: Sequence[int],
    *,
    space: str,
    radius: float | int = 2.0,
) -> Path:
    """Write a coil pose as a NIfTI label volume, to be laid over an image in a viewer.

    Labels: 1 a ball round the coil's centre; 2 a line from there along z, 60 mm into the head; 3 a line along -y, the
    handle, 30 mm. The lines' radius is half the ball's. All are at least as thick as the grid needs to show them
    without gaps: no radius is below half of a voxel's diagonal.

    Parameters
    ----------
    path : path
        The `.nii` or `.nii.gz` file to make or replace; it appears whole or not at all.
    pose : (4, 4) array
        Rigid, mm, "matsimnibs" convention.
    image_affine : (4, 4) array
        The image's voxel index -> mm, in the space of `pose`.
    image_shape : sequence of 3 int
        The image's voxels along each axis.
    space : "subject", "MNI152" or "Talairach"
        The space of `pose` and `image_affine`: the NIfTI form code is 1 (scanner), 4 or 3.
    radius : float
        Of the ball, mm.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        Another suffix, a space that is not known, a pose that is not rigid, an affine that is not invertible, a shape
        that is not that of a volume, a marker with no part inside the image.
    OSError
        A file or folder that cannot be written.
    """
    path = Path(path).expanduser()
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"path: {path} is not one of .nii, .nii.gz; rename it.")
    code = _CODES[_check.option(space, _CODES, "space")]
    (matrix,) = _check_matrices(pose, "pose")
    affine = np.asarray(_check.finite(image_affine, "image_affine"), np.float64)
    if not np.array_equal(affine[3], (0, 0, 0, 1)) or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ValueError("image_affine: not an invertible affine with the last row 0, 0, 0, 1; pass the image's own.")
    shape = tuple(_check.integer(n, "image_shape") for n in image_shape)
    if len(shape) != 3 or max(shape) > 32767 or np.prod(shape, dtype=float) > _LARGEST:
        raise ValueError(f"image_shape: {shape}; pass three numbers of voxels (at most 32767 each and 2 GB in all).")
    _check.positive(radius, "radius")

    # a voxel's centre lies no farther than this from any point of a line that crosses the voxel
    thinnest = max(float(np.linalg.norm(affine[:3, :3] @ (0.5, j, k))) for j in (-0.5, 0.5) for k in (-0.5, 0.5))
    ball, line = max(float(radius), thinnest), max(radius / 2, thinnest)
    centre = matrix[:3, 3]
    volume = np.zeros(shape, np.uint8)
    _draw_line(volume, affine, centre, centre - _HANDLE * matrix[:3, 1], line, 3)
    _draw_line(volume, affine, centre, centre + _INTO_HEAD * matrix[:3, 2], line, 2)
    _draw_line(volume, affine, centre, centre, ball, 1)
    if not volume.any():
        raise ValueError(
            f"pose: its centre ({', '.join(f'{x:.0f}' for x in centre)} mm) and all of its marker lie outside the "
            "image; pass the affine and shape of an image in the space of the pose."
        )

    image = nibabel.Nifti1Image(volume, affine)
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code)
    if not np.allclose(image.get_qform(), affine, rtol=0, atol=1e-3):
        image.set_qform(None)  # a qform holds no shear: none is better than one that differs from the sform
    image.header.set_xyzt_units("mm")
    with _write_atomically(path) as temporary:
        nibabel.save(image, temporary)
    return path


def _format_csv(matrices: np.ndarray, names: list[str], space: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *(f"m{i}{j}" for i in range(4) for j in range(4))])
    writer.writerows([name, *matrix.ravel().tolist()] for name, matrix in zip(names, matrices, strict=True))
    return text.getvalue()


def _format_txt(matrices: np.ndarray, names: list[str], space: str) -> str:
    rows = matrices[0] if len(matrices) == 1 else matrices.reshape(-1, 16)
    return "".join(" ".join(map(repr, row)) + "\n" for row in rows.tolist())


def _format_json(matrices: np.ndarray, names: list[str], space: str) -> str:
    content = {"poses": matrices.tolist(), "space": space, "names": names}
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _format_brainsight(matrices: np.ndarray, names: list[str], space: str, system: str | None = None) -> str:
    lines = [
        "# Version: 12",
        f"# Coordinate system: {system or _SYSTEMS[space]}",
        "# Created by: jaxm2m",
        "# Units: millimetres, degrees, milliseconds, and microvolts",
        "# Encoding: UTF-8",
        "# Notes: Each column is delimited by a tab. Each value within a column is delimited by a semicolon.",
        "# " + "\t".join(["Target Name", *_brainsight._LOCATION, *_brainsight._MATRIX]),
    ]
    matrices = matrices @ np.linalg.inv(_brainsight._TO_POSE)
    for i, (name, matrix) in enumerate(zip(names, matrices, strict=True)):
        if not name.strip() or name.startswith("#"):
            raise ValueError(f"names[{i}]: {name!r} would be no target in Brainsight's file; begin it with a letter.")
        # the centre, then column after column; adding zero takes the sign from -0
        values = np.concatenate([matrix[:3, 3], matrix[:3, :3].T.ravel()]) + 0.0
        lines.append("\t".join([name, *(f"{value:.9f}" for value in values)]))
    return "\n".join(lines) + "\n"


def _format_localite(matrices: np.ndarray, names: list[str], space: str) -> str:
    if space not in _localite.SPACE_NAMES:
        raise ValueError(
            f"space: {space!r}, but Localite's file has no name for it; bring the poses into the space of the "
            "subject's image, or choose the format 'json' or 'brainsight'."
        )
    root = ElementTree.Element("InstrumentMarkerList", coordinateSpace=_localite.SPACE_NAMES[space])
    matrices = matrices @ np.linalg.inv(_localite._TO_POSE)
    for i, (name, matrix) in enumerate(zip(names, matrices, strict=True)):
        if np.array_equal(matrix, np.eye(4)):
            raise ValueError(f"poses[{i}]: it stands for 'no position' in Localite's file; move it off the origin.")
        outer = ElementTree.SubElement(root, "InstrumentMarker", alwaysVisible="false", index=str(i), selected="false")
        inner = ElementTree.SubElement(
            outer, "Marker", additionalInformation="", color="#ff0000", description=name, set="true"
        )
        numbers = {f"data{j}{k}": repr(float(matrix[j, k])) for j in range(4) for k in range(4)}
        ElementTree.SubElement(inner, "Matrix4D", numbers)
    ElementTree.indent(root, "    ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _format_simnibs(matrices: np.ndarray, names: list[str], space: str) -> bytes:
    if space != "subject":
        raise ValueError(
            f"space: {space!r}, but SimNIBS's positions are in the space of the subject's head mesh; bring the poses "
            "there, or choose the format 'json'."
        )
    return format_simnibs(matrices, names)


_WRITERS = {
    "csv": _format_csv,
    "txt": _format_txt,
    "json": _format_json,
    "brainsight": _format_brainsight,
    "localite": _format_localite,
    "simnibs": _format_simnibs,
}


def _check_system(source_space: str, space: str, format: str) -> str:
    """Refuse a name that stands for another space in Brainsight's file, or in a file that holds none."""
    if format != "brainsight":
        raise ValueError(f"source_space: only Brainsight's file has one, not format {format!r}; leave it out.")
    end = source_space.rpartition(":")[2].lower()
    spaces = {"scanner": "subject", "aligned": "subject", "talairach": "Talairach", "mni-152": "MNI152"}
    if not source_space.lower().startswith("nifti:") or spaces.get(end) != space or not source_space.isprintable():
        raise ValueError(
            f"source_space: {source_space!r} is none of Brainsight's names for {space!r}; pass one such as "
            f"{_SYSTEMS[space]!r}, or leave it out."
        )
    return source_space


def _check_matrices(poses: object, name: str) -> np.ndarray:
    """(n, 4, 4) float64, rigid to the last digit."""
    poses = np.asarray(_check.pose(poses, name), np.float64)
    if poses.ndim > 3 or not poses.size:
        raise ValueError(f"{name}: shape {poses.shape}; pass (n, 4, 4) with n of at least 1, or (4, 4).")
    return make_rigid(poses.reshape(-1, 4, 4), lambda i: f"{name}[{i}]")


def _check_names(names: Sequence[str] | None, n: int) -> list[str]:
    if names is None:
        return [f"Target {i + 1}" for i in range(n)]
    if isinstance(names, str):
        raise TypeError(f"names: the text {names!r}; pass a list with a name for each pose.")
    if len(names) != n:
        raise ValueError(f"names: {len(names)} names for {n} poses; pass one for each.")
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"names[{i}]: {name!r}; pass text.")
        if not name.isprintable():
            raise ValueError(f"names[{i}]: {name!r} holds a tab, a line end or another control character; remove it.")
    return list(names)


def _draw_line(
    volume: np.ndarray, affine: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float, label: int
) -> None:
    """Set `label` where a voxel's centre lies within `radius` of the line from `start` to `end`, mm."""
    inverse = np.linalg.inv(affine)
    ends = np.stack([start, end]) @ inverse[:3, :3].T + inverse[:3, 3]
    reach = radius * np.linalg.norm(inverse[:3, :3], axis=1)
    low = np.clip(np.floor(ends.min(0) - reach), 0, volume.shape).astype(int)
    high = np.clip(np.ceil(ends.max(0) + reach) + 1, 0, volume.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    points = np.moveaxis(np.mgrid[box], 0, -1) @ affine[:3, :3].T + affine[:3, 3] - start
    along = end - start
    share = np.clip(points @ along / (along @ along or 1.0), 0, 1)
    volume[box][np.linalg.norm(points - share[..., None] * along, axis=-1) <= radius] = label


@contextlib.contextmanager
def _write_atomically(path: Path) -> Iterator[Path]:
    try:
        with atomic(path) as temporary:
            yield temporary
    except OSError as error:
        if error.errno is None:  # says it all already
            raise
        raise type(error)(f"path: {path} cannot be written ({error.strerror}); choose a folder that can be.") from error
