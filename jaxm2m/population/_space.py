"""What is tuned: the distribution, the bounds and the perturbation of each hyperparameter, in one place."""

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
    """Tuned between `low` and `high`, evenly.

    Parameters
    ----------
    low, high
        Bounds that no value leaves.
    start
        Narrower bounds of the first draw; None draws from all.
    perturb
        w: a perturbed value is multiplied by a factor from U(1 - w, 1 + w).
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

    def _perturbed(self, value: np.ndarray, u: np.ndarray) -> np.ndarray:
        return np.clip(value * (1 + self.perturb * u), self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """Tuned between `low` and `high`, evenly in its logarithm.

    Parameters
    ----------
    low, high
        Bounds that no value leaves, above zero.
    start
        Narrower bounds of the first draw; None draws from all.
    perturb
        w: a perturbed value is multiplied by exp(u), u from U(-w, w).
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

    def _perturbed(self, value: np.ndarray, u: np.ndarray) -> np.ndarray:
        return np.clip(value * np.exp(self.perturb * u), self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """Tuned among some numbers in ascending order; a perturbed value is the same or a neighbour of it.

    Parameters
    ----------
    values
        The numbers.
    """

    values: tuple[float | int, ...]

    def _check(self, name: str) -> None:
        values = _check.finite(self.values, name)
        if np.ndim(values) != 1 or len(values) < 2 or (np.diff(values) <= 0).any():
            raise ValueError(f"{name}: {self.values}; pass two numbers or more, in ascending order.")

    def _quantile(self, q: np.ndarray) -> np.ndarray:
        count = len(self.values)
        return np.asarray(self.values)[np.minimum((q * count).astype(int), count - 1)]

    def _perturbed(self, value: np.ndarray, u: np.ndarray) -> np.ndarray:
        nearest = np.abs(np.asarray(self.values) - np.asarray(value)[:, None]).argmin(axis=1)
        moved = nearest + np.floor(1.5 * (u + 1)).astype(int) - 1  # u is below 1
        return np.asarray(self.values)[np.clip(moved, 0, len(self.values) - 1)]


Distribution: TypeAlias = Uniform | LogUniform | Choice


@dataclass(frozen=True, init=False)
class Space(Mapping[str, Distribution]):
    """The hyperparameters of a population: those that are tuned, and those that are fixed.

        Space(learning_rate=LogUniform(1e-5, 5e-3, start=(1e-3, 4e-3), perturb=0.3), dropout=Uniform(0, 0.7), clip=200)

    Parameters
    ----------
    **entries
        A distribution; or a number, which is fixed; or one number for each member, fixed as well. Numbers are what the
        loss and the optimiser of a `Trainable` get, as arrays, under the same names.

    Raises
    ------
    ValueError
        Crossed bounds, a start outside them, a perturbation that is not a number above zero.
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
        """All hyperparameters, the tuned ones first."""
        return [*self.tuned, *self.fixed]

    @property
    def settings(self) -> dict[str, str]:
        """Each hyperparameter in words."""
        words = {name: _worded(entry) for name, entry in self.tuned.items()}
        return words | {name: str(value.tolist()) for name, value in self.fixed.items()}

    def draw(self, key: Key[Array, ""], members: int) -> Hyper:
        """First values of each member.

        The draw is stratified: each of `members` equal parts of a distribution gives one value (Latin hypercube).

        Parameters
        ----------
        key
            Of the draw.
        members
            How many.

        Returns
        -------
        dict
            For each name (members,) float64.

        Raises
        ------
        ValueError
            A fixed hyperparameter has values for another number of members.
        """
        values = {}
        for name, entry in self.tuned.items():
            order, inside = jax.random.split(_named(key, name))
            strata = np.asarray(jax.random.permutation(order, members), float)
            values[name] = entry._quantile((strata + _uniform(inside, members)) / members)
        for name, number in self.fixed.items():
            if number.ndim and len(number) != members:
                raise ValueError(f"{name}: {len(number)} values for {members} members; pass one number, or one each.")
            values[name] = np.broadcast_to(number, members).copy()
        return values

    def perturb(self, key: Key[Array, ""], hyper: Hyper, which: Bool[np.ndarray, " member"]) -> Hyper:
        """`hyper` with the tuned values of the members `which` perturbed, within their bounds.

        Parameters
        ----------
        key
            Of the perturbation.
        hyper
            For each name (members,).
        which
            (members,) those to perturb.

        Returns
        -------
        dict
            Like `hyper`.
        """
        changed = dict(hyper)
        for name, entry in self.tuned.items():
            u = 2 * _uniform(_named(key, name), len(which)) - 1
            changed[name] = np.where(which, entry._perturbed(hyper[name], u), hyper[name])
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


def _worded(entry: Distribution) -> str:
    """The same for 0 and 0.0."""
    numbers = ", ".join(f"{name} {np.asarray(value, float).tolist()}" for name, value in asdict(entry).items())
    return f"{type(entry).__name__} ({numbers.replace('nan', 'all')})"


def _named(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """A key of this name, whatever other names there are."""
    for byte in name.encode():
        key = jax.random.fold_in(key, byte)
    return key


def _uniform(key: Key[Array, ""], count: int) -> Float[np.ndarray, " member"]:
    return np.asarray(jax.random.uniform(key, (count,), jnp.float32), float)
