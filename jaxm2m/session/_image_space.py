"""From the coordinate spaces of Brainsight to the world of a NIfTI image."""

import os

import nibabel
import numpy as np
from jaxtyping import Float

from jaxm2m.files import check_nifti_size, nifti_affine

# NIfTI-1: qform_code and sform_code
_CODES = {"Scanner": 1, "Aligned": 2, "Talairach": 3, "MNI-152": 4}
_SPACES = {3: "Talairach", 4: "MNI152"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_image_world(
    source: str, image: str | os.PathLike[str] | None, path: str | os.PathLike[str]
) -> tuple[Float[np.ndarray, "4 4"], str]:
    """The matrix that takes mm of the Brainsight space `source` to mm of the image's world, and that world's name.

    - "NIfTI:Aligned", "NIfTI:S:Scanner", "NIfTI:Q:MNI-152", ...: the world of the image's sform (S) or qform (Q).
      Without an image it is taken as it is; with one whose two transforms differ, it is brought to the one that is
      read (the sform where there is one).
    - "Brainsight": x from right to left, y from anterior to posterior, z from inferior to superior along the image's
      edges, mm from the centre of the corner voxel. Rogue Research publishes no definition to half a voxel.
    - "World": the scanner's coordinates as DICOM has them (LPS), hence the image's world turned by half about z. It
      takes an image that was converted from DICOM with its coordinates kept.

    Parameters
    ----------
    source : str
        The "Coordinate system" of the export.
    image : path or None
        The NIfTI image that was loaded into Brainsight.
    path : path
        The export, for errors.

    Raises
    ------
    ValueError
        A space that is not known, that needs an image when none is given, or that the image does not have.

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
        return np.eye(4), _SPACES.get(codes[parts[-1].lower()], "subject")

    loaded = check_nifti_size(image, name="image")
    affine = nifti_affine(loaded, image, "image")
    header = loaded.header
    space = _SPACES.get(int(header["sform_code"]) or int(header["qform_code"]), "subject")
    if not nifti:
        matrix = _LPS_TO_RAS if source.lower() == "world" else _corner_to_world(affine, loaded.shape[:3])
        if matrix is None:
            raise ValueError(f"image: {image} has voxels with oblique edges; export in NIfTI:Aligned or NIfTI:Scanner.")
        return matrix, space

    code = codes[parts[-1].lower()]
    coded = {"S": header.get_sform(coded=True), "Q": header.get_qform(coded=True)}
    named = [coded[k][0] for k in ([letter] if letter else "SQ") if coded[k][1] == code]
    if not named:
        raise ValueError(
            f"image: {image} has no {'s' if letter == 'S' else 'q' if letter == 'Q' else 's- or q'}form with the code "
            f"{code} ({parts[-1]}), the space of {path}; pass the image that was loaded into Brainsight."
        )
    scale = affine[:3, :3] @ np.linalg.inv(loaded.affine[:3, :3])  # its unit, should it not be mm
    matrix = affine @ np.linalg.inv(np.block([[scale @ named[0][:3]], [np.array([0.0, 0.0, 0.0, 1.0])]]))
    if np.abs(matrix[:3, :3].T @ matrix[:3, :3] - np.eye(3)).max() > 5e-3:
        raise ValueError(f"image: {image} has an sform and a qform of different shape; remove the wrong one.")
    return matrix, space


def check_near_image(
    poses: Float[np.ndarray, "n 4 4"], image: str | os.PathLike[str], path: str | os.PathLike[str]
) -> None:
    """Refuse poses far from the image: then it is not the one that was loaded into Brainsight."""
    loaded = check_nifti_size(image, name="image")
    inverse = np.linalg.inv(nifti_affine(loaded, image, "image"))
    centres = poses[np.isfinite(poses).all(axis=(1, 2)), :3, 3]
    index = centres @ inverse[:3, :3].T + inverse[:3, 3]
    size = np.array(loaded.shape[:3])
    spacing = 1 / np.linalg.norm(inverse[:3, :3], axis=1)
    outside = np.maximum(np.maximum(-index, index - size), 0) * spacing
    if outside.size and outside.max() > 100:  # mm; a coil may well stand beyond an image cut at the scalp
        raise ValueError(
            f"image: poses of {path} lie up to {outside.max():.0f} mm outside {image}; pass the image that was loaded "
            "into Brainsight."
        )


def _corner_to_world(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    orientation = nibabel.orientations.io_orientation(affine)  # for each voxel axis: which of R, A, S, and its sign
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    index = np.zeros((4, 4))
    index[3, 3] = 1
    for axis, (world_axis, sign) in enumerate(orientation):
        # the corner axes grow to the left, posterior and superior
        forward = sign * (1 if world_axis == 2 else -1) > 0
        index[axis, int(world_axis)] = (1 if forward else -1) / spacing[axis]
        index[axis, 3] = 0 if forward else shape[axis] - 1
    matrix = affine @ index
    return None if np.abs(matrix[:3, :3].T @ matrix[:3, :3] - np.eye(3)).max() > 5e-3 else matrix
