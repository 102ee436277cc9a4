"""Shapes and types of what a population will hold, and checks of trainables that its programs would fail at."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxm2m.population._compiled import begin_member
from jaxm2m.population._members import Layout, Members
from jaxm2m.population._trainable import Dataset, Trainable, evaluate_loss

# columns of the history beside hyperparameters and terms of the loss
_HISTORY = ("generation", "step", "member", "active", "score", "smoothed", "parent", "seconds")


def infer_shapes(trainable: Trainable, names: Sequence[str], members: int) -> Members:
    """Infer shapes and types of a population's arrays."""
    member = _infer_member_shapes(trainable, tuple(names), jnp.result_type(float))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((members, *a.shape), a.dtype), member)


@functools.lru_cache(maxsize=32)
def _infer_member_shapes(trainable: Trainable, names: tuple[str, ...], dtype: Any) -> Members:
    """Infer those of one member; to trace it takes longer than many a step."""
    one, number = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), dtype)
    new = functools.partial(begin_member, trainable, jax.random.key(0))
    return jax.eval_shape(new, one, one, dict.fromkeys(names, number))


def _infer_loss_shapes(
    trainable: Trainable, names: Sequence[str], dataset: Dataset, batch_size: int
) -> tuple[Any, tuple[dict, dict]]:
    """Infer shapes and types of the loss, its terms and the parts of the weights that it sets."""
    leaves, structure = jax.tree.flatten(_infer_batch_shapes(dataset, batch_size))
    shapes = tuple((a.shape, a.dtype) for a in leaves)
    return _trace_loss(trainable, tuple(names), structure, shapes, jnp.result_type(float))


@functools.lru_cache(maxsize=32)
def _trace_loss(
    trainable: Trainable, names: tuple[str, ...], structure: Any, shapes: tuple[tuple, ...], dtype: Any
) -> tuple[Any, tuple[dict, dict]]:
    member = _infer_member_shapes(trainable, names, dtype)
    rows = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    key, step = jax.random.key(0), jnp.zeros((), jnp.int32)
    return jax.eval_shape(lambda m, rows: evaluate_loss(trainable, m.params, m.hyper, rows, key, step), member, rows)


def _infer_batch_shapes(dataset: Dataset, batch_size: int) -> PyTree:
    """Infer shapes and types of a batch."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch_size, *np.shape(a)[1:]), jax.dtypes.canonicalize_dtype(a.dtype)),
        dataset.data,
    )


def check_initial_params(trainable: Trainable, names: Sequence[str], members: int, initial_params: PyTree) -> None:
    """Refuse weights that are not such as `init` gives to so many members.

    Raises
    ------
    ValueError
        What differs is named.
    """
    expected = dict(jax.tree_util.tree_leaves_with_path(infer_shapes(trainable, names, members).params))
    leaves = dict(jax.tree_util.tree_leaves_with_path(initial_params))
    for path in expected.keys() ^ leaves.keys():
        where = "lacks" if path in expected else "holds"
        raise ValueError(
            f"initial_params: {where} params{jax.tree_util.keystr(path)}; pass weights as init gives them."
        )
    for path, leaf in leaves.items():
        shape, dtype = np.shape(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)
        if (shape, dtype) != (expected[path].shape, expected[path].dtype):
            raise ValueError(
                f"initial_params: params{jax.tree_util.keystr(path)} are {dtype} of shape {shape}; pass "
                f"{expected[path].dtype} of shape {expected[path].shape}, members first."
            )


def check_trainable(trainable: Trainable, names: Sequence[str], dataset: Dataset, batch_size: int) -> None:
    """Refuse what the programs would fail at, or average over the wrong axis.

    Raises
    ------
    ValueError
        Weights, losses, their terms or scores are of a wrong shape or type, or two things have the same name.
    """
    member = _infer_member_shapes(trainable, tuple(names), jnp.result_type(float))
    for path, leaf in jax.tree_util.tree_leaves_with_path(member.params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"trainable: init gave {leaf.dtype} as params{jax.tree_util.keystr(path)}; weights are floating-point "
                "numbers, constants belong into the trainable."
            )
    for leaf in jax.tree.leaves(member.optimizer):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                "trainable: the optimiser's state holds a random key, the same in all members; use randomness in the "
                "loss, which gets a key of each member and step."
            )
    loss, (terms, parts) = _infer_loss_shapes(trainable, names, dataset, batch_size)
    for name, value in {"": loss, **terms}.items():
        if value.shape:
            raise ValueError(f"trainable: loss gave shape {value.shape} as {name or 'its value'}; give one number.")
    _check_parts(member.params, parts)
    key = jax.random.key(0)
    scores = jax.eval_shape(
        lambda m, rows: trainable.score(m.params, m.hyper, rows, key), member, _infer_batch_shapes(dataset, batch_size)
    )
    if scores.shape != (batch_size,):
        raise ValueError(f"trainable: score gave shape {scores.shape} for {batch_size} examples; give one number each.")
    columns = [*_HISTORY, "loss", "steps"]
    for name, origin in [*((n, "space") for n in names), *((n, "trainable: the loss's term") for n in terms)]:
        if name in columns:
            raise ValueError(f"{origin}: {name} is a column of the history already; choose another name.")
        columns.append(name)


def _check_parts(params: PyTree, parts: dict[str, PyTree]) -> None:
    """Refuse parts of the weights that the loss sets, but `init` does not have, or has in another shape."""
    for name, part in parts.items():
        if not isinstance(params, dict) or name not in params:
            raise ValueError(f"trainable: loss sets {name}, which is no part of the weights; name one that init gives.")
        shapes = [[a.shape for a in jax.tree.leaves(tree)] for tree in (part, params[name])]
        if jax.tree.structure(part) != jax.tree.structure(params[name]) or shapes[0] != shapes[1]:
            raise ValueError(f"trainable: loss sets {name} in another form than init gives it; keep its shapes.")


def make_zero_sums(trainable: Trainable, names: Sequence[str], layout: Layout, dataset: Dataset) -> dict[str, Array]:
    """Make the zeros that `advance` adds to."""
    _, (terms, _) = _infer_loss_shapes(trainable, names, dataset, layout.batch_size)
    columns = ["loss", *terms, "steps"]
    zeros = {name: np.zeros(layout.padded, jnp.result_type(float)) for name in columns}
    return jax.device_put(zeros, layout.by_member)
