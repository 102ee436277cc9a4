"""From a TMS coil to the muscles as one differentiable JAX program.

The rooms, in the order of the signal: `head` and `coil`, `efield` (on `fem`), `placement`, `cortex`; `session` reads
recordings, `muscle` measures responses and finds synergies, `design` says which stimulus to give next,
`emg` infers muscle activation, `population` trains models, `simulate` makes data of known truth, `plot` draws.
Lengths are mm, fields V/m, conductivities S/m, dI/dt A/s, times s.
"""

import warnings as _warnings
from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

__version__ = _version("jaxm2m")

if _version("jaxlib") == "0.10.2":
    _warnings.warn(
        "jaxlib: found 0.10.2, which computes wrong sums on CPUs (jax issue 39103); install another: "
        "python -m pip install 'jax!=0.10.2' 'jaxlib!=0.10.2'.",
        RuntimeWarning,
        stacklevel=2,
    )

if TYPE_CHECKING:
    from jaxm2m import (
        coil,
        cortex,
        design,
        efield,
        emg,
        fem,
        files,
        head,
        muscle,
        placement,
        plot,
        population,
        session,
        simulate,
    )

__all__ = [
    "coil",
    "cortex",
    "design",
    "efield",
    "emg",
    "fem",
    "files",
    "head",
    "muscle",
    "placement",
    "plot",
    "population",
    "session",
    "simulate",
]


def __getattr__(name: str):
    # rooms load on first use, so that `import jaxm2m` and `jaxm2m --help` are quick
    if name in __all__:
        return import_module(f"jaxm2m.{name}")
    raise AttributeError(f"module 'jaxm2m' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
