"""What a coil should do to the muscles, as an objective of the field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._pytree import register
from jaxm2m._types import ArrayLike
from jaxm2m.muscle.networks._model import Model

_STEEPNESS = 10.0  # of what a response below its least costs: a tenth below costs a tenth of the share


@partial(register, static=["wanted", "spared"])
@dataclass(frozen=True, eq=False, repr=False)
class MuscleObjective:
    """An objective of the field at the coil's pose, made by `activate`; a pytree.

    It takes e (n_point, 3), V/m, on the model's grid and returns a number to be raised.

    Attributes
    ----------
    model
        From fields to muscles.
    weight
        Weight of the muscles to be spared.
    least
        Share of its strongest predicted response that a wanted muscle should keep, 0 to 1.
    didt
        dI/dt for firing rates whose threshold needs it, A/s; None where it does not.
    wanted, spared
        Indices of the muscles that should answer, and of those that should not.
    """

    model: Model
    weight: Any
    least: Any
    didt: Any
    wanted: tuple[int, ...]
    spared: tuple[int, ...]

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        p = self.model.predict_scaled(e, didt=self.didt)
        wanted = jnp.array(self.wanted)
        answer = p[wanted].mean()
        if not self.spared:
            return answer
        tiny = jnp.finfo(p.dtype).tiny
        share = answer / (answer + self.weight * p[jnp.array(self.spared)].mean() + tiny)
        lack = jnp.maximum(self.least - (p / self.model.strongest)[wanted], 0)
        return share - _STEEPNESS * (lack**2).mean()


def activate(
    model: Model,
    muscle: str | Sequence[str],
    avoid: str | Sequence[str] = (),
    *,
    weight: float | int = 1.0,
    least: float | int = 0.6,
    didt: ArrayLike | None = None,
) -> MuscleObjective:
    """Make an objective for `placement.optimize` of what a coil should do to the muscles, to be raised.

    With p the predicted MEPs as shares of each muscle's largest, a their mean over `muscle` and b over `avoid`,

        a                                                                     where nothing is avoided,
        a / (a + weight b) - 10 mean over `muscle` of max(least - p / p_strongest, 0)^2    otherwise.

    A share, since a difference a - b favours poses where both answer. The second term keeps the share from being won
    where hardly anything answers: p_strongest is the largest prediction over the session that the model was fitted to.

    Parameters
    ----------
    model
        From fields to muscles.
    muscle
        The muscle, or those, that should answer.
    avoid
        Those that should not.
    weight
        Weight of `avoid` in the share, no unit.
    least
        Share of its strongest predicted response that a muscle should keep, 0 to 1. The default leaves the model some
        room to be wrong where half is wanted.
    didt
        dI/dt, A/s, a number, for firing rates whose threshold needs it.

    Returns
    -------
    MuscleObjective
        e (n_point, 3) V/m on the model's grid -> a number.

    Raises
    ------
    ValueError
        Muscles that the model does not have, or that are wanted and avoided; `least` above 1.
    """
    wanted, spared = ((m,) if isinstance(m, str) else tuple(m) for m in (muscle, avoid))
    for name, names in (("muscle", wanted), ("avoid", spared)):
        for one in names:
            _check.option(one, model.muscles, name)
    both = sorted(set(wanted) & set(spared))
    if both or not wanted:
        what = f"{', '.join(both)} should answer too" if both else "no muscle should answer"
        raise ValueError(f"avoid: {what}; name different muscles in muscle and avoid.")
    _check.positive(weight, "weight", zero=True)
    if _check.positive(least, "least", zero=True) > 1:
        raise ValueError(f"least: {least:g}; give a share of the strongest response, 0 to 1.")
    index = model.muscles.index
    pulse = None if didt is None else jnp.asarray(_check.positive(didt, "didt"))
    avoid_weight, floor = (jnp.asarray(number, jnp.result_type(float)) for number in (weight, least))
    return MuscleObjective(model, avoid_weight, floor, pulse, tuple(map(index, wanted)), tuple(map(index, spared)))
