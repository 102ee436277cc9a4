"""The search space: distribution, bounds and perturbation of each hyperparameter, in one place."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxm2m import _check

Hyper: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True)
class Uniform:
    """A hyperparameter tuned between two bounds, uniformly distributed.

    Parameters
    ----------
    low, high
        Bounds that no value leaves.
    start
        Narrower bounds of the first draw; None draws from all.
    perturb
        Relative width w of a perturbation, below 1: a value is multiplied by a factor from U(1 - w, 1 + w).
    """

    low: float | int
    high: float | int
    start: tuple[float | int, float | int] | None = None
    perturb: float | int = 0.2

    def _check(self, name: str) -> None:
        _check_bounds(self, name)
        if self.perturb >= 1:
            raise ValueError(f"{name}: perturb is {self.perturb:g}; must be below 1, or values change their sign.")

    def _quantile(self, q: np.ndarray) -> np.ndarray:
        low, high = self.start or (self.low, self.high)
        return np.clip(low + q * (high - low), low, high)

    def _perturb(self, value: np.ndarray, u: np.ndarray) -> np.ndarray:
        return np.clip(value * (1 + self.perturb * u), self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """A hyperparameter tuned between two bounds, uniformly distributed in its logarithm.

    Parameters
    ----------
    low, high
        Bounds that no value leaves, above zero.
    start
        Narrower bounds of the first draw; None draws from all.
    perturb
        Width w of a perturbation, in natural logarithms: a value is multiplied by exp(u), u from U(-w, w).
    """

    low: float | int
    high: float | int
    start: tuple[float | int, float | int] | None = None
    perturb: float | int = 0.2

    def _check(self, name: str) -> None:
        _check_bounds(self, name)
        if self.low <= 0:
            raise ValueError(f"{name}: low is {self.low:g}; must be above zero, or use Uniform.")

    def _quantile(self, q: np.ndarray) -> np.ndarray:
        low, high = self.start or (self.low, self.high)
        return np.clip(np.exp(np.log(low) + q * (np.log(high) - np.log(low))), low, high)

    def _perturb(self, value: np.ndarray, u: np.ndarray) -> np.ndarray:
        return np.clip(value * np.exp(self.perturb * u), self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """A hyperparameter tuned among some numbers; a perturbed value stays or becomes a neighbour.

    Parameters
    ----------
    values
        The numbers, two or more, in ascending order.
    """

    values: tuple[float | int, ...]

    def _check(self, name: str) -> None:
        values = _check.finite(self.values, name)
        if np.ndim(values) != 1 or len(values) < 2 or (np.diff(values) <= 0).any():
            raise ValueError(f"{name}: {self.values}; pass two numbers or more, in ascending order.")

    def _quantile(self, q: np.ndarray) -> np.ndarray:
        count = len(self.values)
        return np.asarray(self.values)[np.minimum((q * count).astype(int), count - 1)]

    def _perturb(self, value: np.ndarray, u: np.ndarray) -> np.ndarray:
        nearest = np.abs(np.asarray(self.values) - np.asarray(value)[:, None]).argmin(axis=1)
        moved = nearest + np.floor(1.5 * (u + 1)).astype(int) - 1  # u is below 1
        return np.asarray(self.values)[np.clip(moved, 0, len(self.values) - 1)]


Distribution: TypeAlias = Uniform | LogUniform | Choice


@dataclass(frozen=True, init=False)
class SearchSpace(Mapping[str, Distribution]):
    """The hyperparameters of a population: those that are tuned, and those that are fixed.

    Parameters
    ----------
    **entries
        By name, a distribution; or a number, which is fixed; or one number for each member, fixed as well. The loss and
        the optimiser of a `Trainable` get the values as arrays, under the same names.

    Raises
    ------
    ValueError
        Crossed bounds, a start outside them, a perturbation that is not a number from zero upwards.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> rate = jm.population.LogUniform(1e-5, 5e-3, start=(1e-3, 4e-3), perturb=0.3)
    >>> space = jm.population.SearchSpace(learning_rate=rate, dropout=jm.population.Uniform(0, 0.7), clip=200)
    >>> list(space.tuned), list(space.fixed)
    (['learning_rate', 'dropout'], ['clip'])
    """

    tuned: dict[str, Distribution] = field(hash=False)
    fixed: dict[str, np.ndarray] = field(hash=False)

    def __init__(self, **entries: Distribution | float | int | np.ndarray | list):
        tuned: dict[str, Distribution] = {}
        fixed: dict[str, np.ndarray] = {}
        for name, entry in entries.items():
            if isinstance(entry, Distribution):
                entry._check(name)
                tuned[name] = entry
            else:
                fixed[name] = np.asarray(_check.finite(entry, name), float)
                if fixed[name].ndim > 1:
                    raise ValueError(f"{name}: shape {fixed[name].shape}; pass a number, or one for each member.")
        object.__setattr__(self, "tuned", tuned)
        object.__setattr__(self, "fixed", fixed)

    def __getitem__(self, name: str) -> Distribution:
        return self.tuned[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tuned)

    def __len__(self) -> int:
        return len(self.tuned)

    @property
    def names(self) -> list[str]:
        """Names of all hyperparameters, the tuned ones first."""
        return [*self.tuned, *self.fixed]

    @property
    def settings(self) -> dict[str, str]:
        """Text that describes each hyperparameter, by name."""
        words = {name: _describe(entry) for name, entry in self.tuned.items()}
        return words | {name: str(value.tolist()) for name, value in self.fixed.items()}

    def draw(self, key: Key[Array, ""], members: int) -> Hyper:
        """Draw the first values of each member.

        The draw is stratified: each of `members` equal parts of a distribution gives one value (Latin hypercube).

        Parameters
        ----------
        key
            PRNG key of the draw.
        members
            Number of members.

        Returns
        -------
        dict
            By name, (members,) float64 values; each hyperparameter in the unit of its bounds.

        Raises
        ------
        ValueError
            A fixed hyperparameter has values for another number of members.
        """
        values = {}
        for name, entry in self.tuned.items():
            order, inside = jax.random.split(_fold_in_name(key, name))
            strata = np.asarray(jax.random.permutation(order, members), float)
            values[name] = entry._quantile((strata + _draw_uniform(inside, members)) / members)
        for name, number in self.fixed.items():
            if number.ndim and len(number) != members:
                raise ValueError(f"{name}: {len(number)} values for {members} members; pass one number, or one each.")
            values[name] = np.broadcast_to(number, members).copy()
        return values

    def perturb(self, key: Key[Array, ""], hyper: Hyper, which: Bool[np.ndarray, " member"]) -> Hyper:
        """Perturb the tuned values of some members, within their bounds.

        Parameters
        ----------
        key
            PRNG key of the perturbation.
        hyper
            By name, (members,) values; each hyperparameter in the unit of its bounds.
        which
            (members,) bool, the mask of the members to perturb.

        Returns
        -------
        dict
            By name, (members,) values, in the units of `hyper`.
        """
        changed = dict(hyper)
        for name, entry in self.tuned.items():
            u = 2 * _draw_uniform(_fold_in_name(key, name), len(which)) - 1
            changed[name] = np.where(which, entry._perturb(hyper[name], u), hyper[name])
        return changed


def _check_bounds(entry: Uniform | LogUniform, name: str) -> None:
    low, high = (float(_check.finite(bound, name)) for bound in (entry.low, entry.high))
    if low >= high:
        raise ValueError(f"{name}: low {low:g} is not below high {high:g}; exchange them.")
    if not np.isfinite(entry.perturb) or entry.perturb < 0:
        raise ValueError(f"{name}: perturb is {entry.perturb}; pass a number from zero upwards.")
    if entry.start is not None:
        first, last = entry.start
        if not low <= first <= last <= high:
            raise ValueError(
                f"{name}: start ({first:g}, {last:g}) does not ascend within ({low:g}, {high:g}); correct it."
            )


def _describe(entry: Distribution) -> str:
    """Describe a distribution, 0 and 0.0 alike."""
    numbers = ", ".join(f"{name} {np.asarray(value, float).tolist()}" for name, value in asdict(entry).items())
    return f"{type(entry).__name__} ({numbers.replace('nan', 'all')})"


def _fold_in_name(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Derive the key of a name, whatever other names there are."""
    for byte in name.encode():
        key = jax.random.fold_in(key, byte)
    return key


def _draw_uniform(key: Key[Array, ""], count: int) -> Float[np.ndarray, " member"]:
    return np.asarray(jax.random.uniform(key, (count,), jnp.float32), float)
