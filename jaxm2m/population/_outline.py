"""Shapes and types of what a population will hold, and refusal of trainables that its programs would fail at."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxm2m.population._members import Layout, Members
from jaxm2m.population._programs import begun
from jaxm2m.population._trainable import Examples, Trainable

# the columns of the history beside hyperparameters and what the loss tells
_HISTORY = ("generation", "step", "member", "active", "score", "smoothed", "parent", "seconds")


def outline(trainable: Trainable, names: Sequence[str], members: int) -> Members:
    """Shapes and types of a population's arrays."""
    member = _outline(trainable, tuple(names), jnp.result_type(float))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((members, *a.shape), a.dtype), member)


@functools.lru_cache(maxsize=32)
def _outline(trainable: Trainable, names: tuple[str, ...], dtype: Any) -> Members:
    """Of one member; to trace it takes longer than many a step."""
    one, number = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), dtype)
    new = functools.partial(begun, trainable, jax.random.key(0))
    return jax.eval_shape(new, one, one, dict.fromkeys(names, number))


def _loss_outline(trainable: Trainable, names: Sequence[str], examples: Examples, batch: int) -> tuple[Any, dict]:
    """Shapes and types of the loss and its terms."""
    leaves, structure = jax.tree.flatten(_rows(examples, batch))
    shapes = tuple((a.shape, a.dtype) for a in leaves)
    return _loss_outline_of(trainable, tuple(names), structure, shapes, jnp.result_type(float))


@functools.lru_cache(maxsize=32)
def _loss_outline_of(
    trainable: Trainable, names: tuple[str, ...], structure: Any, shapes: tuple[tuple, ...], dtype: Any
) -> tuple[Any, dict]:
    member = _outline(trainable, names, dtype)
    rows = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    key, step = jax.random.key(0), jnp.zeros((), jnp.int32)
    return jax.eval_shape(lambda m, rows: trainable.loss(m.params, m.hyper, rows, key, step), member, rows)


def _rows(examples: Examples, batch: int) -> PyTree:
    """Shapes and types of a batch."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch, *np.shape(a)[1:]), jax.dtypes.canonicalize_dtype(a.dtype)), examples.data
    )


def check_start(trainable: Trainable, names: Sequence[str], members: int, start: PyTree) -> None:
    """Refuse weights that are not such as `init` gives to so many members.

    Raises
    ------
    ValueError
        What differs is named.
    """
    wanted = dict(jax.tree_util.tree_leaves_with_path(outline(trainable, names, members).params))
    found = dict(jax.tree_util.tree_leaves_with_path(start))
    for path in wanted.keys() ^ found.keys():
        where = "lacks" if path in wanted else "holds"
        raise ValueError(f"start: {where} params{jax.tree_util.keystr(path)}; pass weights as init gives them.")
    for path, leaf in found.items():
        shape, dtype = np.shape(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)
        if (shape, dtype) != (wanted[path].shape, wanted[path].dtype):
            raise ValueError(
                f"start: params{jax.tree_util.keystr(path)} are {dtype} of shape {shape}; pass {wanted[path].dtype} of "
                f"shape {wanted[path].shape}, members first."
            )


def check(trainable: Trainable, names: Sequence[str], examples: Examples, batch: int) -> None:
    """Refuse what the programs would fail at, or average over the wrong axis.

    Raises
    ------
    ValueError
        Weights, losses, their terms or scores are of a wrong shape or type, or two things have the same name.
    """
    member = _outline(trainable, tuple(names), jnp.result_type(float))
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
    loss, terms = _loss_outline(trainable, names, examples, batch)
    for name, value in {"": loss, **terms}.items():
        if value.shape:
            raise ValueError(f"trainable: loss gave shape {value.shape} as {name or 'its value'}; give one number.")
    key = jax.random.key(0)
    scores = jax.eval_shape(
        lambda m, rows: trainable.score(m.params, m.hyper, rows, key), member, _rows(examples, batch)
    )
    if scores.shape != (batch,):
        raise ValueError(f"trainable: score gave shape {scores.shape} for {batch} examples; give one number each.")
    columns = [*_HISTORY, "loss", "steps"]
    for name, origin in [*((n, "space") for n in names), *((n, "trainable: the loss's term") for n in terms)]:
        if name in columns:
            raise ValueError(f"{origin}: {name} is a column of the history already; choose another name.")
        columns.append(name)


def zero_sums(trainable: Trainable, names: Sequence[str], layout: Layout, examples: Examples) -> dict[str, Array]:
    """What `advance` adds up, at zero."""
    _, terms = _loss_outline(trainable, names, examples, layout.batch)
    columns = ["loss", *terms, "steps"]
    zeros = {name: np.zeros(layout.padded, jnp.result_type(float)) for name in columns}
    return jax.device_put(zeros, layout.by_member)
