"""What can be trained, and the dataset that it is trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike


@runtime_checkable
class Trainable(Protocol):
    """A model, its loss and its optimiser, for one member; a population maps it over members.

    It must be immutable and hashable, such as a frozen dataclass of numbers and text: equal ones share compiled
    programs. Every method is traced by JAX. Hyperparameters come as a dict of scalars, under the names of the
    `SearchSpace`.
    """

    def __hash__(self) -> int: ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the model, JSON values by name; a run can only be continued with the same."""
        ...

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Draw the weights of a new member.

        Parameters
        ----------
        key
            PRNG key of the member.

        Returns
        -------
        PyTree
            Floating-point arrays.
        """
        ...

    def optimizer(self, hyper: dict[str, Float[Array, ""]]) -> optax.GradientTransformation:
        """Make the optimiser.

        Parameters
        ----------
        hyper
            Hyperparameters, scalars by name, on whose values the state of the optimiser must not depend.

        Returns
        -------
        optax.GradientTransformation
            The optimiser of a member.
        """
        ...

    def loss(
        self,
        params: PyTree,
        hyper: dict[str, Float[Array, ""]],
        batch: PyTree,
        key: Key[Array, ""],
        step: Int[Array, ""],
    ) -> (
        tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
        | tuple[Float[Array, ""], dict[str, Float[Array, ""]], dict[str, PyTree]]
    ):
        """Compute the loss of a batch of examples, and its terms.

        Parameters
        ----------
        params
            Weights of a member.
        hyper
            Hyperparameters, scalars by name.
        batch
            Examples of the step: `Dataset.data`, with the example first.
        key
            PRNG key of the member and the step.
        step
            Number of the step in the run, counted from zero; ramps are functions of it.

        Returns
        -------
        loss
            What is minimised, a scalar.
        terms
            Scalars by name, which the history records.
        parts
            May follow: parts of the weights by name, as they are after this step. They are what no gradient gives, such
            as the running statistics of a normalisation, and replace whatever the optimiser made of these parts.
        """
        ...

    def score(
        self, params: PyTree, hyper: dict[str, Float[Array, ""]], batch: PyTree, key: Key[Array, ""]
    ) -> Float[Array, " example"]:
        """Compute the scores of a batch, by whose mean members are compared.

        Parameters
        ----------
        params
            Weights of a member.
        hyper
            Hyperparameters, scalars by name.
        batch
            Validation examples: `Dataset.data`, with the example first.
        key
            PRNG key of the member, the step and the batch.

        Returns
        -------
        Float[Array, " example"]
            (n_example,) scores, the lower the better.
        """
        ...


def evaluate_loss(
    trainable: Trainable, params: PyTree, hyper: dict[str, Array], batch: PyTree, key: Key[Array, ""], step: Array
) -> tuple[Array, tuple[dict[str, Array], dict[str, PyTree]]]:
    """Compute the loss; its terms and the parts of the weights that it sets, none where it gives no third value."""
    value, terms, *rest = trainable.loss(params, hyper, batch, key, step)
    return value, (terms, rest[0] if rest else {})


@tree
class Dataset:
    """Examples with one or several splits into training and validation.

    Attributes
    ----------
    data
        Array, or tree of arrays, whose first axis is the example.
    train, valid
        (n_split, n_train) and (n_split, n_valid) row indices of `data`; -1 fills short splits.
    split
        (n_member,) index of the split of each member, or (1,) of the one of all members.
    """

    data: PyTree
    train: Int[Array | np.ndarray, "n_split n_train"]
    valid: Int[Array | np.ndarray, "n_split n_valid"]
    split: Int[Array | np.ndarray, " n_member"]

    @staticmethod
    def holdout(train: PyTree, valid: PyTree | None = None) -> "Dataset":
        """Make a dataset of one split, the same for all members.

        Parameters
        ----------
        train
            Examples to train on: an array, or a tree of arrays, with the example first.
        valid
            Examples that members are compared by, of the same structure; None: those of `train`.

        Returns
        -------
        Dataset
            All examples, those of `train` first, with one split.

        Raises
        ------
        ValueError
            The two differ in anything but the number of examples, or there are none.

        Examples
        --------
        >>> import numpy as np
        >>> import jaxm2m as jm
        >>> dataset = jm.population.Dataset.holdout(np.zeros((8, 3)), np.ones((2, 3)))
        >>> dataset.data.shape, dataset.train.shape, dataset.valid.shape
        ((10, 3), (1, 8), (1, 2))
        """
        count = _count_examples(train, "train")
        rows = np.arange(count, dtype=np.int32)[None]
        if valid is None:
            return Dataset(train, rows, rows, np.zeros(1, np.int32))
        more = _count_examples(valid, "valid")
        one: Any = jax.tree.structure(train)
        other = jax.tree.structure(valid)
        if one != other:
            raise ValueError(f"valid: examples as {other}, in train as {one}; pass both alike.")
        shapes = [[np.shape(a)[1:] for a in jax.tree.leaves(data)] for data in (train, valid)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"valid: examples of shape {shapes[1]}, in train {shapes[0]}; pass both alike.")
        data = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), train, valid)
        return Dataset(data, rows, np.arange(count, count + more, dtype=np.int32)[None], np.zeros(1, np.int32))

    @staticmethod
    def folds(data: PyTree, fold: ArrayLike, members: int | None = None) -> "Dataset":
        """Make a dataset for cross-validation, with a split for each fold.

        Member i is validated on fold i modulo the number of folds, and trained on the others.

        Parameters
        ----------
        data
            An array, or a tree of arrays, with the example first.
        fold
            (n_example,) number of the fold of each example, counted from zero.
        members
            Number of members, a multiple of the number of folds (several seeds a fold); None: one member a fold.

        Returns
        -------
        Dataset
            The examples, with a split for each fold.

        Raises
        ------
        ValueError
            A fold is empty, or there is only one; members do not share the folds evenly.
        """
        count = _count_examples(data, "data")
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
        return Dataset.splits(data, train, valid, np.arange(members) % folds)

    @staticmethod
    def splits(data: PyTree, train: Sequence[ArrayLike], valid: Sequence[ArrayLike], split: ArrayLike) -> "Dataset":
        """Make a dataset with any splits, such as nested ones.

        Parameters
        ----------
        data
            An array, or a tree of arrays, with the example first.
        train, valid
            For each split, (n,) row indices of its training and validation examples.
        split
            (n_member,) index of the split of each member.

        Returns
        -------
        Dataset
            The examples with these splits.

        Raises
        ------
        ValueError
            Rows that do not exist, a split without examples, a member without a split.
        """
        count = _count_examples(data, "data")
        if len(train) != len(valid):
            raise ValueError(f"valid: {len(valid)} splits, train has {len(train)}; pass rows for each.")
        for name, rows in (("train", train), ("valid", valid)):
            for i, row in enumerate(rows):
                if not np.size(row) or np.min(row) < 0 or np.max(row) >= count:
                    raise ValueError(f"{name}[{i}]: no rows, or some outside 0 to {count - 1}; correct them.")
        of_member = np.asarray(split, np.int32)
        if of_member.ndim != 1 or not of_member.size or of_member.min() < 0 or of_member.max() >= len(train):
            raise ValueError(f"split: one number for each member, 0 to {len(train) - 1}, is needed; correct it.")
        return Dataset(data, _fill_rows(train), _fill_rows(valid), of_member)


def _count_examples(data: PyTree, name: str) -> int:
    leaves = jax.tree.leaves(data)
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"{name}: arrays with {sorted(counts)} examples; pass arrays whose first axis is the example.")
    return counts.pop()


def _fill_rows(rows: Sequence[ArrayLike]) -> np.ndarray:
    filled = np.full((len(rows), max(map(np.size, rows))), -1, np.int32)
    for i, row in enumerate(rows):
        filled[i, : np.size(row)] = row
    return filled
