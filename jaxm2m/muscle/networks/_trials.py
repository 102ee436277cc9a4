"""Fields and MEPs of the same stimuli, checked against each other and a preset before anything long begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import Grid
from jaxm2m.muscle.networks._inputs import Reduction, count_stimuli, read_inputs
from jaxm2m.muscle.networks._options import TrainingOptions
from jaxm2m.muscle.networks._presets import PRESETS, NetworkPreset
from jaxm2m.muscle.responses._meps import Meps, amplitudes


@dataclass(frozen=True, eq=False)
class Trials:
    """Fields and MEPs that networks are trained on.

    Attributes
    ----------
    meps
        (n_stimulus, n_muscle) uV.
    muscles
        Names of the muscles.
    preset
        Architecture and training.
    reduce
        The part of the grid that the networks see.
    arguments
        Fields, grid, rate, components, mask, didt.
    """

    meps: Float[np.ndarray, "n_stimulus n_muscle"]
    muscles: tuple[str, ...]
    preset: NetworkPreset
    reduce: Reduction
    arguments: dict[str, Any]

    def inputs(self, *kinds: str, progress: bool | None = None) -> dict[str, Float[np.ndarray, "n_stimulus u v w c"]]:
        """Compute the inputs of "field" and "rate"; this reads all fields."""
        arguments = dict(self.arguments)
        return read_inputs(
            arguments.pop("fields"), arguments.pop("grid"), kinds, reduce=self.reduce, progress=progress, **arguments
        )


def prepare_trials(
    fields: PathLike | ArrayLike,
    meps: Meps | ArrayLike,
    grid: Grid,
    preset: str | NetworkPreset,
    options: TrainingOptions,
    *,
    rate: FiringRate | None,
    muscles: Sequence[str] | None,
    didt: ArrayLike | None,
) -> Trials:
    """Check the arguments of `compare` against each other, and put them together.

    Raises
    ------
    ValueError
        They do not fit each other.
    """
    chosen = preset if isinstance(preset, NetworkPreset) else PRESETS[_check.option(preset, tuple(PRESETS), "preset")]
    values, names = check_meps(fields, meps, muscles)
    reduce = Reduction.of(grid, chosen.config.shape, chosen.spacing)
    arguments = {"fields": fields, "grid": grid, "rate": rate, "didt": didt}
    arguments |= {"components": options.components, "mask": options.mask}
    return Trials(values, names, chosen, reduce, arguments)


def check_meps(
    fields: PathLike | ArrayLike, meps: Meps | ArrayLike, muscles: Sequence[str] | None
) -> tuple[Float[np.ndarray, "n_stimulus n_muscle"], tuple[str, ...]]:
    """Return MEPs (uV), as many as fields, and the muscles' names.

    Raises
    ------
    ValueError
        They do not fit each other.
    """
    values, n = amplitudes(meps), count_stimuli(fields)
    if len(values) != n:
        raise ValueError(f"meps: {len(values)} stimuli, fields has {n}; pass one row for each field.")
    if muscles is None:
        muscles = meps.muscles if isinstance(meps, Meps) else [str(k + 1) for k in range(values.shape[1])]
    names = tuple(muscles)
    if len(names) != values.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"muscles: {len(names)} names for {values.shape[1]} columns of meps; give each its own name.")
    return values, names
