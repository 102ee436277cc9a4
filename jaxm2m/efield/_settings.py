"""What a simulator's numbers depend on."""

from importlib.metadata import version

import jax
import numpy as np

from jaxm2m import files
from jaxm2m.head import Head, MeshHead


def describe_simulator(
    head: Head | MeshHead, tolerance: float, interfaces: str, dtype: str
) -> dict[str, dict[str, str]]:
    """Return head, conductivity, solver, precision, device and versions, each a `files.make_setting`."""
    conductivity = np.asarray(head.conductivity)
    return {
        "head": _describe_head(head),
        "conductivity": files.make_setting(
            " ".join(f"{s:.4g}" for s in conductivity), np.asarray(conductivity, np.float64)
        ),
        "tolerance": files.make_setting(f"{tolerance:.3g}", tolerance),
        "interfaces": files.make_setting(interfaces),
        "dtype": files.make_setting(dtype),
        "device": files.make_setting(jax.default_backend()),
        "jaxm2m": files.make_setting(version("jaxm2m")),
        "jax": files.make_setting(jax.__version__),
    }


def _describe_head(head: Head | MeshHead) -> dict[str, str]:
    if isinstance(head, MeshHead):
        return files.make_setting(
            f"{len(head.elements)} tetrahedra",
            head.nodes,
            head.elements,
            head.tissue,
            head.anisotropy,
            list(head.tissues),
        )
    return files.make_setting(
        f"{'x'.join(map(str, head.shape))} voxels of {head.spacing:g} mm",
        head.fractions,
        head.affine,
        head.labels,
        head.labels_affine,
        list(head.tissues),
    )
