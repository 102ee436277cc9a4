"""The file of sources: HDF5, whole or not at all."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np

from jaxm2m import cortex, files
from jaxm2m._types import PathLike
from jaxm2m.muscle.sources._activity import Activity
from jaxm2m.muscle.sources._density import DensityPrior
from jaxm2m.muscle.sources._recruitment_curve import RecruitmentCurve

CONTENT = "jaxm2m muscle sources"
_ARRAYS = ("weights", "kernel", "points", "largest", "strongest", "usual", "checks")
_SHAPES = {
    "weights": "float draw muscle bump",
    "kernel": "float bump grey",
    "points": "float grey 3",
    "largest": "float muscle",
    "strongest": "float muscle",
    "usual": "float 2 draw muscle",
    "checks": "float muscles 3",
    "grey": "int grey",
    "scale": "float",
} | dict.fromkeys(RecruitmentCurve._fields, "float draw muscle")
_OPTIONAL = {"normals": "float grey 3", "affine": "float 4 4"}


def write_sources(path: PathLike, parts: dict[str, Any]) -> Path:
    """Write the parts of sources, by name; see `Sources.save`."""
    path = files.check_output(path)
    activity = parts["activity"]
    rate = activity.rate
    settings = {
        "muscles": list(parts["muscles"]),
        "shape": list(parts["shape"]),
        "n_point": activity.n_point,
        "prior": {name: float(value) for name, value in vars(parts["prior"]).items()},
        "unidentified": [list(pair) for pair in parts["unidentified"]],
        "rate": None if rate is None else rate.settings,
    }
    arrays = {name: parts[name] for name in _ARRAYS} | parts["curves"]._asdict()
    arrays |= {"grey": activity.grey, "scale": activity.scale, "affine": parts["affine"]}
    arrays |= {"normals": activity.normals if rate is None else rate.normals}
    with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file[name] = np.asarray(array)
        file.attrs.update(content=CONTENT, settings=json.dumps(settings), jaxm2m=version("jaxm2m"))
    return path


def read_sources(path: PathLike) -> dict[str, Any]:
    """Read the parts of sources, by name; see `Sources.load`."""
    with files.open_hdf5(path) as file:
        if file.text("content") != CONTENT:
            raise ValueError(f"path: {path} holds no sources; it was not written by Sources.save.")
        settings = files.parse_json(file.text("settings"), f"{file.label}, settings")
        shapes = dict(_SHAPES) | {name: s for name, s in _OPTIONAL.items() if name in file}
        arrays = file.arrays(shapes)
    dtype = jnp.result_type(float)
    arrays = {name: jnp.asarray(a, None if name == "grey" else dtype) for name, a in arrays.items()}
    try:
        rate, normals = settings["rate"], arrays.pop("normals", None)
        firing_rate = None if rate is None else cortex.from_settings(rate, normals)
        n_point, muscles = int(settings["n_point"]), tuple(map(str, settings["muscles"]))
        activity = Activity(
            arrays.pop("grey"), firing_rate, None if rate is not None else normals, arrays.pop("scale"), n_point
        )
        if not len(muscles) == arrays["weights"].shape[1] == len(arrays["checks"]) - 1 or (
            len(activity.grey) and int(activity.grey.max()) >= n_point
        ):
            raise ValueError("its parts do not fit each other")
        others = {
            "curves": RecruitmentCurve(*(arrays.pop(name) for name in RecruitmentCurve._fields)),
            "activity": activity,
            "affine": arrays.pop("affine", None),
            "shape": tuple(map(int, settings["shape"])),
            "muscles": muscles,
            "prior": DensityPrior(**settings["prior"]),
            "unidentified": tuple((str(a), str(b)) for a, b in settings["unidentified"]),
        }
        return arrays | others
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: {path} is damaged ({str(error).splitlines()[0][:200]}); fit again.") from None
