"""Fields and MEPs of the same stimuli, checked against each other and a preset before anything long begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m.muscle._inputs import Reduction, count, read
from jaxm2m.muscle._meps import Meps, amplitudes
from jaxm2m.muscle._presets import PRESETS, Preset


@dataclass(frozen=True, eq=False)
class Trials:
    """What networks are trained on.

    Attributes
    ----------
    meps
        (n_stimulus, n_muscle) uV.
    muscles
        Names.
    preset
        Sizes and recipes.
    reduce
        What of the grid the networks see.
    given
        Fields, grid, rate, components, mask, didt.
    """

    meps: Float[np.ndarray, "n_stimulus n_muscle"]
    muscles: tuple[str, ...]
    preset: Preset
    reduce: Reduction
    given: dict[str, Any]

    def inputs(self, *kinds: str, show: bool | None = None) -> dict[str, Float[np.ndarray, "n_stimulus u v w c"]]:
        """Of "field" and "rate"; this reads all fields."""
        own = dict(self.given)
        return read(own.pop("fields"), own.pop("grid"), kinds, reduce=self.reduce, show=show, **own)


def trials(
    fields: Any,
    meps: Any,
    grid: Any,
    preset: str | Preset,
    *,
    rate: Any,
    muscles: Sequence[str] | None,
    components: int = 1,
    mask: Any,
    didt: Any,
) -> Trials:
    """Put together what `compare` is given; see there.

    Raises
    ------
    ValueError
        They do not fit each other.
    """
    chosen = preset if isinstance(preset, Preset) else PRESETS[_check.option(preset, tuple(PRESETS), "preset")]
    _check.option(components, (1, 3), "components")
    values, n = amplitudes(meps), count(fields)
    if len(values) != n:
        raise ValueError(f"meps: {len(values)} stimuli, fields has {n}; pass one row for each field.")
    if muscles is None:
        muscles = meps.muscles if isinstance(meps, Meps) else [str(k + 1) for k in range(values.shape[1])]
    names = tuple(muscles)
    if len(names) != values.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"muscles: {len(names)} names for {values.shape[1]} columns of meps; give each its own name.")
    reduce = Reduction.of(grid, chosen.sizes.shape, chosen.spacing)
    given = {"fields": fields, "grid": grid, "rate": rate, "components": components, "mask": mask, "didt": didt}
    return Trials(values, names, chosen, reduce, given)
