"""What can be trained, and the examples that it is trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check
from jaxm2m._tree import tree


@runtime_checkable
class Trainable(Protocol):
    """A model, its loss and its optimiser, for one member; a population maps it over members.

    It is immutable and hashable (a frozen dataclass of numbers and text): equal ones share compiled programs. Every
    method is traced by JAX. Hyperparameters come as a dict of scalars, under the names of the `Space`.
    """

    def __hash__(self) -> int: ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes it this model, by name: numbers and text only. A run that is continued must have the same."""
        ...

    def init(self, key: Key[Array, ""]) -> PyTree:
        """The weights of a new member."""
        ...

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """The optimiser; its state may not depend on the numbers in `hyper`."""
        ...

    def loss(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: PyTree,
        key: Key[Array, ""],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """What is minimised in a batch of examples, and its terms by name, to be recorded.

        `step` counts the optimiser's steps in the member's life: ramps are functions of it.
        """
        ...

    def score(
        self, params: PyTree, hyper: dict[str, Float[Array, ""]], batch: PyTree, key: Key[Array, ""]
    ) -> Float[Array, " example"]:
        """What members are compared by, for each example of a batch; their mean counts, the lower the better."""
        ...


@tree
class Examples:
    """Data with one or several splits into training and validation examples.

    Attributes
    ----------
    data
        Arrays whose first axis is the example.
    train, valid
        (n_split, n) rows of `data`; -1 fills short splits.
    split
        (n_member,) the split of each member, or (1,) the one of all.
    """

    data: PyTree
    train: Int[Array | np.ndarray, "n_split n_train"]
    valid: Int[Array | np.ndarray, "n_split n_valid"]
    split: Int[Array | np.ndarray, " n_member"]

    @staticmethod
    def holdout(train: PyTree, valid: PyTree | None = None) -> "Examples":
        """All members train on `train` and are compared by `valid` (None: by `train`).

        Parameters
        ----------
        train, valid
            Arrays, or trees of them, with the example first.

        Raises
        ------
        ValueError
            The two differ in anything but the number of examples, or there are none.
        """
        count = _count(train, "train")
        rows = np.arange(count, dtype=np.int32)[None]
        if valid is None:
            return Examples(train, rows, rows, np.zeros(1, np.int32))
        more = _count(valid, "valid")
        one: Any = jax.tree.structure(train)
        other = jax.tree.structure(valid)
        if one != other:
            raise ValueError(f"valid: examples as {other}, in train as {one}; pass both alike.")
        shapes = [[np.shape(a)[1:] for a in jax.tree.leaves(data)] for data in (train, valid)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"valid: examples of shape {shapes[1]}, in train {shapes[0]}; pass both alike.")
        data = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), train, valid)
        return Examples(data, rows, np.arange(count, count + more, dtype=np.int32)[None], np.zeros(1, np.int32))

    @staticmethod
    def folds(data: PyTree, fold: Any, members: int | None = None) -> "Examples":
        """Cross-validation: member i is validated on fold i modulo the number of folds, and trained on the others.

        Parameters
        ----------
        data
            Arrays, or trees of them, with the example first.
        fold
            (n_example,) the fold of each example, counted from zero.
        members
            A multiple of the number of folds (several seeds a fold); None: one member a fold.

        Raises
        ------
        ValueError
            A fold is empty, or there is only one; members do not share the folds evenly.
        """
        count = _count(data, "data")
        fold = np.asarray(_check.array(fold, "fold"))
        if fold.shape != (count,):
            raise ValueError(f"fold: shape {fold.shape} for {count} examples; pass one number an example.")
        if not np.array_equal(fold, np.round(fold)):
            raise ValueError("fold: some values are not whole numbers; number the folds 0, 1, ...")
        folds = int(fold.max()) + 1
        sizes = np.bincount(fold.astype(int), minlength=folds) if fold.min() >= 0 else np.zeros(1)
        if folds < 2 or (sizes == 0).any():
            raise ValueError(f"fold: {len(np.unique(fold))} values up to {folds - 1}; number the folds 0, 1, ...")
        members = folds if members is None else _check.integer(members, "members")
        if members % folds:
            raise ValueError(f"members: {members} do not share {folds} folds evenly; pass a multiple of {folds}.")
        train = [np.flatnonzero(fold != i) for i in range(folds)]
        valid = [np.flatnonzero(fold == i) for i in range(folds)]
        return Examples.splits(data, train, valid, np.arange(members) % folds)

    @staticmethod
    def splits(data: PyTree, train: Sequence[Any], valid: Sequence[Any], split: Any) -> "Examples":
        """Any splits, such as nested ones.

        Parameters
        ----------
        data
            Arrays, or trees of them, with the example first.
        train, valid
            Of each split, the rows of its training and validation examples.
        split
            (n_member,) the split of each member.

        Raises
        ------
        ValueError
            Rows that are not there, a split without examples, a member without a split.
        """
        count = _count(data, "data")
        if len(train) != len(valid):
            raise ValueError(f"valid: {len(valid)} splits, train has {len(train)}; pass rows for each.")
        for name, rows in (("train", train), ("valid", valid)):
            for i, row in enumerate(rows):
                if not len(row) or np.min(row) < 0 or np.max(row) >= count:
                    raise ValueError(f"{name}[{i}]: no rows, or some outside 0 to {count - 1}; correct them.")
        split = np.asarray(split, np.int32)
        if split.ndim != 1 or not split.size or split.min() < 0 or split.max() >= len(train):
            raise ValueError(f"split: one number for each member, 0 to {len(train) - 1}, is needed; correct it.")
        return Examples(data, _filled(train), _filled(valid), split)


def _count(data: PyTree, name: str) -> int:
    leaves = jax.tree.leaves(data)
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"{name}: arrays with {sorted(counts)} examples; pass arrays whose first axis is the example.")
    return counts.pop()


def _filled(rows: Sequence[Any]) -> np.ndarray:
    filled = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = row
    return filled
