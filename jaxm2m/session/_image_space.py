"""From the coordinate spaces of Brainsight to the world of a NIfTI image."""

from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float
from nibabel.spatialimages import HeaderDataError

from jaxm2m._types import PathLike
from jaxm2m.files import check_nifti_size, nifti_affine, nifti_unit

# NIfTI-1: qform_code and sform_code
_CODES = {"Scanner": 1, "Aligned": 2, "Talairach": 3, "MNI-152": 4}
_SPACES = {3: "Talairach", 4: "MNI152"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_image_world(
    poses: Float[np.ndarray, "n 4 4"],
    source: str,
    image: PathLike | None,
    path: PathLike,
) -> tuple[Float[np.ndarray, "n 4 4"], str]:
    """Bring `poses` from the Brainsight space `source` to the image's world (mm), and name that world.

    - "NIfTI:Aligned", "NIfTI:S:Scanner", "NIfTI:Q:MNI-152", ...: the world of the image's sform (S) or qform (Q).
      Without an image it is taken as it is; with one whose two transforms differ, it is brought to the one that is
      read (the sform where there is one).
    - "Brainsight": x from right to left, y from anterior to posterior, z from inferior to superior along the image's
      edges, mm from the centre of the corner voxel (a count from its outer corner would differ by half a voxel).
    - "World": the scanner's coordinates as DICOM has them (LPS), hence the image's world turned by half about z. It
      takes an image that was converted from DICOM with its coordinates kept.

    Parameters
    ----------
    poses : (n, 4, 4) array
        Rigid, mm; rows of NaN stay.
    source : str
        The "Coordinate system" of the export.
    image : path or None
        The NIfTI image that was loaded into Brainsight.
    path : path
        The export, for errors.

    Raises
    ------
    ValueError
        A space that is not known, that needs an image when none is given, or that the image does not have; poses far
        from the image.
    """
    parts = source.split(":")
    nifti = parts[0].lower() == "nifti"
    codes = {name.lower(): code for name, code in _CODES.items()}
    letter = parts[1].upper() if nifti and len(parts) == 3 else ""
    if nifti:
        known = len(parts) in (2, 3) and letter in ("", "S", "Q") and parts[-1].lower() in codes
    else:
        known = source.lower() in ("brainsight", "world")
    if not known:
        raise ValueError(
            f"path: {path} is in {source!r}, which is not known; export in NIfTI:Aligned or NIfTI:Scanner."
        )
    if image is None:
        if not nifti:
            raise ValueError(
                f"image: {path} is in the {source!r} space, which only the image can convert; pass image= (the NIfTI "
                "file that was loaded into Brainsight), or export in NIfTI:Aligned or NIfTI:Scanner."
            )
        return poses, _SPACES.get(codes[parts[-1].lower()], "subject")

    loaded = check_nifti_size(image, name="image")
    affine = nifti_affine(loaded, image, "image")
    space = _SPACES.get(int(loaded.header["sform_code"]) or int(loaded.header["qform_code"]), "subject")
    if nifti:
        matrix = affine @ np.linalg.inv(_find_transform(loaded, letter, codes[parts[-1].lower()], image, path))
    elif source.lower() == "world":
        matrix = _LPS_TO_RAS
    else:
        matrix = _corner_to_world(affine, loaded.shape[:3])
    if np.abs(matrix[:3, :3].T @ matrix[:3, :3] - np.eye(3)).max() > 5e-3:
        what = "an sform and a qform of different shape" if nifti else "voxels with oblique edges"
        raise ValueError(f"image: {image} has {what}; correct its header, or export in another space.")
    poses = matrix @ poses
    _check_near(poses, affine, loaded.shape[:3], image, path)
    return poses, space


def _find_transform(loaded: Any, letter: str, code: int, image: Any, path: Any) -> np.ndarray:
    """The image's transform (voxel to mm) into the space of `code`: its sform (letter S), qform (Q), or either."""
    try:
        coded = {"S": loaded.header.get_sform(coded=True), "Q": loaded.header.get_qform(coded=True)}
    except (ValueError, HeaderDataError) as error:
        raise ValueError(f"image: {image} has a broken qform ({error}); correct its header.") from None
    for key in letter or "SQ":
        if coded[key][1] == code:
            transform = np.array(coded[key][0], dtype=np.float64)
            transform[:3] *= nifti_unit(loaded)
            return transform
    kind = {"S": "sform", "Q": "qform", "": "transform"}[letter]
    raise ValueError(
        f"image: {image} has no {kind} with the code {code}, the space of {path}; pass the image that was loaded into "
        "Brainsight."
    )


def _check_near(poses: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], image: Any, path: Any) -> None:
    """Refuse poses far from the image: then it is not the one that was loaded into Brainsight."""
    inverse = np.linalg.inv(affine)
    centres = poses[np.isfinite(poses).all(axis=(1, 2)), :3, 3]
    index = centres @ inverse[:3, :3].T + inverse[:3, 3]
    outside = np.maximum(np.maximum(-index, index - np.array(shape)), 0) * np.linalg.norm(affine[:3, :3], axis=0)
    if outside.size and outside.max() > 100:  # mm; a coil may well stand beyond an image cut at the scalp
        raise ValueError(
            f"image: poses of {path} lie up to {outside.max():.0f} mm outside {image}; pass the image that was loaded "
            "into Brainsight."
        )


def _corner_to_world(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """From mm along the image's edges, from its right anterior inferior corner, to the image's world."""
    orientation = nibabel.orientations.io_orientation(affine)  # for each voxel axis: which of R, A, S, and its sign
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    index = np.zeros((4, 4))
    index[3, 3] = 1
    for axis, (world_axis, sign) in enumerate(orientation):
        # the corner axes grow to the left, posterior and superior
        forward = sign * (1 if world_axis == 2 else -1) > 0
        index[axis, int(world_axis)] = (1 if forward else -1) / spacing[axis]
        index[axis, 3] = 0 if forward else shape[axis] - 1
    return affine @ index
