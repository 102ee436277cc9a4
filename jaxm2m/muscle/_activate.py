"""What a coil should do to the muscles, as an objective of the field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m.muscle._model import Model


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "weight", "didt"],
    meta_fields=["wanted", "spared"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Activation:
    """Of `activate`."""

    model: Model
    weight: Any
    didt: Any
    wanted: tuple[int, ...]
    spared: tuple[int, ...]

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        found = self.model.scaled(e, didt=self.didt)
        value = found[jnp.array(self.wanted)].mean()
        if self.spared:
            value = value - self.weight * found[jnp.array(self.spared)].mean()
        return value


def activate(
    model: Model,
    muscle: str | Sequence[str],
    avoid: str | Sequence[str] = (),
    *,
    weight: float | int = 1.0,
    didt: Any = None,
) -> Activation:
    """What a coil should do to the muscles: an objective for `placement.optimize`, to be raised.

        mean over `muscle` of p - weight x mean over `avoid` of p,    p MEPs as shares of each muscle's largest

    Parameters
    ----------
    model
        From fields to muscles.
    muscle
        The one, or those, that should answer.
    avoid
        Those that should not.
    weight
        Of `avoid`.
    didt
        A/s, for firing rates whose threshold needs it.

    Returns
    -------
    Activation
        e (n_point, 3) V/m on the model's grid -> a number.

    Raises
    ------
    ValueError
        Muscles that the model does not have, or that are wanted and avoided.
    """
    wanted, spared = ((m,) if isinstance(m, str) else tuple(m) for m in (muscle, avoid))
    for name, given in (("muscle", wanted), ("avoid", spared)):
        for one in given:
            _check.option(one, model.muscles, name)
    both = sorted(set(wanted) & set(spared))
    if both or not wanted:
        what = f"{', '.join(both)} should answer too" if both else "no muscle should answer"
        raise ValueError(f"avoid: {what}; name different muscles in muscle and avoid.")
    _check.positive(weight, "weight", zero=True)
    index = model.muscles.index
    pulse = None if didt is None else jnp.asarray(_check.positive(didt, "didt"))
    dtype = jnp.result_type(float)
    return Activation(model, jnp.asarray(weight, dtype), pulse, tuple(map(index, wanted)), tuple(map(index, spared)))
