"""The scaling of MEPs to [0, 1], fitted once and applied to others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle.responses._meps import Meps, amplitudes


@dataclass(frozen=True, eq=False, repr=False)
class Scaling:
    """Division of each muscle by its largest MEP, so that the trials it was fitted to lie in [0, 1].

    Zero stays zero, and so do the proportions between synergies. Other trials may come to lie above 1; nothing is
    clipped, so that `invert` undoes `apply`.

    Attributes
    ----------
    largest : (n_muscle,) float array
        uV that become 1.
    muscles : tuple of str
        Names of the muscles.
    """

    largest: Float[np.ndarray, " n_muscle"]
    muscles: tuple[str, ...]

    def __repr__(self) -> str:
        return "Scaling(" + ", ".join(f"{m}: {v:.4g} uV" for m, v in zip(self.muscles, self.largest, strict=True)) + ")"

    @classmethod
    def fit(cls, meps: Meps | ArrayLike) -> "Scaling":
        """Fit the scaling to training trials.

        Parameters
        ----------
        meps
            `Meps`, or (n_stimulus, n_muscle) uV.

        Returns
        -------
        Scaling
            The scaling by the largest MEP of each muscle.

        Raises
        ------
        ValueError
            A muscle that never varies.
        """
        names = meps.muscles if isinstance(meps, Meps) else None
        values = amplitudes(meps)
        names = tuple(str(k + 1) for k in range(values.shape[1])) if names is None else names
        same = [name for name, still in zip(names, np.ptp(values, 0) == 0, strict=True) if still]
        if same:
            raise ValueError(
                f"meps: {', '.join(same)} {'is' if len(same) == 1 else 'are'} the same in all {len(values)} trials; "
                "leave out what was not recorded."
            )
        return cls(values.max(0), names)

    def apply(self, meps: Meps | ArrayLike) -> Float[Array | np.ndarray, "*batch n_muscle"]:
        """Scale MEPs.

        Parameters
        ----------
        meps
            `Meps`, or (..., n_muscle) uV.

        Returns
        -------
        array
            (..., n_muscle), as fractions of the largest MEP in training; JAX arrays stay JAX arrays.
        """
        if isinstance(meps, Meps):
            if meps.muscles != self.muscles:
                raise ValueError(
                    f"meps: {', '.join(meps.muscles)}, but the scaling is of {', '.join(self.muscles)}; pass the same."
                )
            meps = amplitudes(meps)
        return self._check_shape(meps, "meps") / self.largest

    def invert(self, scaled: ArrayLike) -> Float[Array | np.ndarray, "*batch n_muscle"]:
        """Undo the scaling.

        Parameters
        ----------
        scaled
            (..., n_muscle), as fractions of the largest MEP in training.

        Returns
        -------
        array
            (..., n_muscle) uV; JAX arrays stay JAX arrays.
        """
        return self._check_shape(scaled, "scaled") * self.largest

    def _check_shape(self, values: Any, name: str) -> Any:
        values = _check.array(values, name)
        if not values.ndim or values.shape[-1] != len(self.largest):
            raise ValueError(
                f"{name}: shape {tuple(values.shape)}; the last axis must hold {len(self.largest)} muscles."
            )
        return values
