"""A computed field as a file: the same for voxels and tetrahedra."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import meshio
import nibabel
import numpy as np

from jaxm2m import _check, files
from jaxm2m._types import PathLike


@runtime_checkable
class Writable(Protocol):
    """A field that knows itself as a volume, as arrays and as a mesh: `HeadField` says of what kind."""

    stats: Any
    head: Any

    def _volume(self) -> tuple[np.ndarray, np.ndarray]: ...

    def _arrays(self) -> dict[str, tuple[Any, str | None]]: ...

    def _mesh(self) -> meshio.Mesh: ...


def save(field: Writable, path: PathLike) -> Path:
    """`.nii.gz`/`.nii`, `.h5` or `.msh` by the suffix; the file appears whole or not at all."""
    path = Path(path).expanduser()
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    _check.option(suffix, (".nii.gz", ".nii", ".h5", ".msh"), "path")
    write = {".h5": _hdf5, ".msh": _msh}.get(suffix, _nifti)
    with files.atomic(path) as temporary:
        write(field, temporary)
    return path


def _nifti(field: Writable, path: Path) -> None:
    image = nibabel.Nifti1Image(*field._volume())
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"E-field, V/m"
    nibabel.save(image, path)


def _hdf5(field: Writable, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, (array, unit) in field._arrays().items():
            value = np.asarray(array)
            pressed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if value.ndim else {}
            file.create_dataset(name, data=value, **pressed)
            if unit is not None:
                file[name].attrs["unit"] = unit
        file.attrs["jaxm2m"] = version("jaxm2m")
        file.attrs["space"] = field.head.space
        file.attrs["tissues"] = json.dumps(field.head.tissues)
        for name, value in field.stats._asdict().items():
            file.attrs[name] = np.asarray(value)


def _msh(field: Writable, path: Path) -> None:
    meshio.write(path, field._mesh(), file_format="gmsh22", binary=True)
