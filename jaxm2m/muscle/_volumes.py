"""A volume for each muscle in one NIfTI file."""

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Extension

from jaxm2m import _check, files
from jaxm2m._types import PathLike


def save_volumes(
    path: PathLike,
    volumes: Float[np.ndarray, "n_muscle nx ny nz"],
    affine: Float[np.ndarray, "4 4"],
    muscles: Sequence[str],
    quantity: str,
    unit: str,
) -> Path:
    """Write a 4-D volume, muscles last, whose names are in a comment of the header (JSON); NaN becomes 0."""
    path = Path(path).expanduser()
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    _check.option(suffix, (".nii.gz", ".nii"), "path")
    values = np.nan_to_num(np.moveaxis(volumes, 0, -1).astype(np.float32))
    image = nibabel.Nifti1Image(values, np.asarray(affine, np.float64))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"{quantity}{', ' * bool(unit)}{unit}, a volume a muscle".encode()
    comment = json.dumps({"quantity": quantity, "unit": unit, "muscles": list(muscles)})
    image.header.extensions.append(Nifti1Extension("comment", comment.encode()))
    with files.atomic(path) as temporary:
        nibabel.save(image, temporary)
    return path
