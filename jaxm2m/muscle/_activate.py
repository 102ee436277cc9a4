"""What a coil should do to the muscles, as an objective of the field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._pytree import register
from jaxm2m._types import ArrayLike

_STEEPNESS = 10.0  # of what a response below its least costs: a tenth below costs a tenth of the share


@runtime_checkable
class ResponseModel(Protocol):
    """What `activate` needs of a model: `Model` and `Sources` are such."""

    @property
    def muscles(self) -> tuple[str, ...]:
        """Names of the muscles."""
        ...

    @property
    def strongest(self) -> Any:
        """Return the (n_muscle,) largest predictions over the session, as shares of the largest MEPs."""
        ...

    def predict_members(self, e: ArrayLike, *, didt: ArrayLike | None = None) -> Float[Array, "*batch member muscle"]:
        """Predict (..., n_member, n_muscle) shares of the largest MEPs by each network, or each draw."""
        ...


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
    risk
        Share of the posterior that may be worse, 0 to 1; None: the expectation.
    didt
        dI/dt for firing rates whose threshold needs it, A/s; None where it does not.
    wanted, spared
        Indices of the muscles that should answer, and of those that should not.
    """

    model: ResponseModel
    weight: Any
    least: Any
    risk: Any
    didt: Any
    wanted: tuple[int, ...]
    spared: tuple[int, ...]

    def __call__(self, e: Float[Array, "point 3"]) -> Float[Array, ""]:
        p = self.model.predict_members(e, didt=self.didt)
        wanted = jnp.array(self.wanted)
        answer = p[:, wanted].mean(1)
        if not self.spared:
            return self._summarise(answer)
        tiny = jnp.finfo(p.dtype).tiny
        share = answer / (answer + self.weight * p[:, jnp.array(self.spared)].mean(1) + tiny)
        lack = jnp.maximum(self.least - (p / self.model.strongest)[:, wanted], 0)
        return self._summarise(share) - _STEEPNESS * self._summarise((lack**2).mean(1), upwards=True)

    def _summarise(self, members: Float[Array, " member"], upwards: bool = False) -> Float[Array, ""]:
        """Return the mean over members, or the quantile on the bad side."""
        if self.risk is None:
            return members.mean()
        return jnp.quantile(members, 1 - self.risk if upwards else self.risk)


def activate(
    model: ResponseModel,
    muscle: str | Sequence[str],
    avoid: str | Sequence[str] = (),
    *,
    weight: float | int = 1.0,
    least: float | int = 0.6,
    risk: float | int | None = None,
    didt: ArrayLike | None = None,
) -> MuscleObjective:
    """Make an objective for `placement.optimize` of what a coil should do to the muscles, to be raised.

    With p the predicted MEPs as shares of each muscle's largest, a their mean over `muscle` and b over `avoid`,

        a                                                                     where nothing is avoided,
        a / (a + weight b) - 10 mean over `muscle` of max(least - p / p_strongest, 0)^2    otherwise.

    A share, since a difference a - b favours poses where both answer. The second term keeps the share from being won
    where hardly anything answers: p_strongest is the largest prediction over the session that the model was fitted to.

    Both are computed for each member of the model, the draws of the posterior of `Sources` or the networks of a
    `Model` (whose spread is a posterior of sorts), and their expectation is taken, or by `risk` a quantile: a pose is
    then as good as the worst members say.

    Parameters
    ----------
    model
        From fields to muscles: `Sources` or a `Model`.
    muscle
        The muscle, or those, that should answer.
    avoid
        Those that should not.
    weight
        Weight of `avoid` in the share, no unit.
    least
        Share of its strongest predicted response that a muscle should keep, 0 to 1. The default leaves the model some
        room to be wrong where half is wanted.
    risk
        Share of the members that may be worse than what is raised, 0 to 1, such as 0.1; None: the expectation.
    didt
        dI/dt, A/s, a number, for firing rates whose threshold needs it.

    Returns
    -------
    MuscleObjective
        e (n_point, 3) V/m on the model's grid -> a number.

    Raises
    ------
    ValueError
        Muscles that the model does not have, of which it says that their session tells nothing, or that are wanted and
        avoided; `least` above 1; `risk` outside 0 to 1.
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
    if risk is not None and not 0 < float(_check.finite(risk, "risk")) < 1:
        raise ValueError(f"risk: {risk:g}; give the share of the members that may be worse, between 0 and 1.")
    reasons = dict(getattr(model, "unidentified", ()))
    for one in (*wanted, *spared):
        if one in reasons:
            raise ValueError(
                f"muscle: the session tells nothing of {one} ({reasons[one]}); take another, or map it anew."
            )
    index = model.muscles.index
    pulse = None if didt is None else jnp.asarray(_check.positive(didt, "didt"))
    avoid_weight, floor = (jnp.asarray(number, jnp.result_type(float)) for number in (weight, least))
    worst = None if risk is None else jnp.asarray(risk, jnp.result_type(float))
    return MuscleObjective(
        model, avoid_weight, floor, worst, pulse, tuple(map(index, wanted)), tuple(map(index, spared))
    )
