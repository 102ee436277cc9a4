"""What a simulator's numbers depend on."""

from importlib.metadata import version

import jax
import numpy as np

from jaxm2m import files
from jaxm2m.efield._simulator import Simulator
from jaxm2m.head import Head, MeshHead


def simulator_settings(sim: Simulator) -> dict[str, dict[str, str]]:
    """Head, conductivity, solver, precision, device and versions, each a `files.setting`."""
    head = sim.head
    conductivity = np.asarray(head.conductivity)
    return {
        "head": _head(head),
        "conductivity": files.setting(" ".join(f"{s:.4g}" for s in conductivity), np.asarray(conductivity, np.float64)),
        "tolerance": files.setting(f"{float(sim.parts.tolerance):.3g}", float(sim.parts.tolerance)),
        "interfaces": files.setting(sim.interfaces),
        "dtype": files.setting(str(sim.dtype)),
        "device": files.setting(jax.default_backend()),
        "jaxm2m": files.setting(version("jaxm2m")),
        "jax": files.setting(jax.__version__),
    }


def _head(head: Head | MeshHead) -> dict[str, str]:
    if isinstance(head, MeshHead):
        return files.setting(
            f"{len(head.elements)} tetrahedra",
            head.nodes,
            head.elements,
            head.tissue,
            head.anisotropy,
            list(head.tissues),
        )
    return files.setting(
        f"{'x'.join(map(str, head.shape))} voxels of {head.spacing:g} mm",
        head.fractions,
        head.affine,
        head.labels,
        head.labels_affine,
        list(head.tissues),
    )
