"""The programs that begin, step, score and exchange the members of a population.

Every array of `Members` has the member as its first axis, which is sharded over the devices. Within a device members
go in chunks: vmapped inside a chunk, one chunk after the other. What a member draws depends on the run's key, on its
number and on the step alone, so that neither chunks nor devices change it.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Key, PyTree

from jaxm2m.population._members import Best, Layout, Members
from jaxm2m.population._trainable import Examples, Trainable

# what a key is drawn for
_INIT, _STEP, _ORDER, _SCORE = range(4)


class Programs(NamedTuple):
    """What is compiled for a trainable in a layout; see `programs`."""

    begin: Callable[..., Members]
    advance: Callable[..., tuple[Members, dict[str, Array]]]
    score: Callable[..., tuple[Members, Array]]
    exchange: Callable[..., Members]
    spread: Callable[..., Members]
    gather: Callable[..., PyTree]


@functools.lru_cache(maxsize=32)
def programs(trainable: Trainable, layout: Layout) -> Programs:
    """The programs of a population; equal arguments share them.

    - `begin(key, split, hyper, start=None) -> members`: with new weights, or with those in `start`, by member.
    - `advance(key, members, examples, start, count, sums) -> (members, sums)`: so many steps more. `sums` adds up the
      loss, its terms and the steps ("steps") of each member.
    - `score(key, members, examples, step, smoothing) -> (members, scores)`: on the validation examples.
    - `exchange(members, parent, hyper, active) -> members`: member i goes on from the weights, the optimiser's state
      and the smoothed score of `parent[i]`, with new hyperparameters.
    - `spread(members)`: members of the first `layout.members` numbers, from any device, laid out.
    - `gather(tree)`: the first `layout.members` of everything, on every device.

    Parameters
    ----------
    trainable
        What is trained.
    layout
        Where.

    Returns
    -------
    Programs
        Jitted; `advance`, `score` and `exchange` overwrite the members that they are given.
    """
    by_member, everywhere = layout.by_member, layout.everywhere

    def mapped(function: Callable, idle: Callable | None = None) -> Callable:
        """`function(member, *shared)` over all members: devices, then chunks, then members."""

        def on_device(members: PyTree, *shared: Any) -> PyTree:
            run = jax.vmap(lambda member: function(member, *shared))

            def chunk(part: PyTree) -> PyTree:
                if idle is None:
                    return run(part)
                still = idle
                # nothing is computed for a chunk whose members have all stopped
                rest = jax.vmap(lambda member: still(member, *shared))
                return jax.lax.cond(part[0].active.any(), run, rest, part)

            count = jax.tree.leaves(members)[0].shape[0]
            if count == layout.chunk:
                return chunk(members)
            parts = jax.tree.map(lambda a: a.reshape(-1, layout.chunk, *a.shape[1:]), members)
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(chunk, parts))

        def everywhere_mapped(members: PyTree, *shared: Any) -> PyTree:
            specs = (PartitionSpec("member"),) + (PartitionSpec(),) * len(shared)
            return jax.shard_map(
                on_device, mesh=layout.mesh, in_specs=specs, out_specs=PartitionSpec("member"), check_vma=False
            )(members, *shared)

        return everywhere_mapped

    def begin(key, split, hyper, start=None):
        index = jnp.arange(layout.padded, dtype=jnp.int32)
        given = jax.tree.map(lambda a: _padded(a, layout), (split, hyper, start))
        first = (index, *given)
        members = mapped(lambda member, key: begun(trainable, key, *member))(first, key)
        return replace(members, active=index < layout.members)  # nobody asked for those that fill up

    def advance(key, members, examples, start, count, sums):
        def one(both, key, examples, start, count):
            member, sums = both
            return _advanced(trainable, layout, key, member, sums, examples, start, count)

        return mapped(one, idle=lambda both, *shared: both)((members, sums), key, examples, start, count)

    def score(key, members, examples, step, smoothing):
        def one(member, key, examples, step, smoothing):
            return _scored(trainable, layout, key, member, examples, step, smoothing)

        members, scores = mapped(one)(members, key, examples, step, smoothing)
        return members, scores[: layout.members]

    def exchange(members, parent, hyper, active):
        # the members that fill up follow themselves
        parent = jnp.concatenate([parent, jnp.arange(layout.members, layout.padded, dtype=parent.dtype)])

        def taken(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda a: a[parent], tree)

        return Members(
            index=members.index,
            split=members.split,
            active=_padded(active, layout, fill=False),
            broken=jnp.where(parent == members.index, members.broken, -1),
            smoothed=taken(members.smoothed),
            hyper={name: _padded(h, layout) for name, h in hyper.items()},
            params=taken(members.params),
            optimizer=taken(members.optimizer),
            best=members.best,
        )

    def spread(members):
        spread = jax.tree.map(lambda a: _padded(a, layout), members)
        return replace(
            spread,
            index=jnp.arange(layout.padded, dtype=jnp.int32),
            active=_padded(members.active, layout, fill=False),
        )

    def gather(tree):
        return jax.tree.map(lambda a: a[: layout.members], tree)

    return Programs(
        begin=jax.jit(begin, out_shardings=by_member),
        advance=jax.jit(advance, out_shardings=by_member, donate_argnums=(1, 5)),
        score=jax.jit(score, out_shardings=(by_member, everywhere), donate_argnums=1),
        exchange=jax.jit(exchange, out_shardings=by_member, donate_argnums=0),
        spread=jax.jit(spread, out_shardings=by_member),
        gather=jax.jit(gather, out_shardings=everywhere),
    )


def begun(
    trainable: Trainable, key: Array, index: Array, split: Array, hyper: dict[str, Array], start: PyTree | None = None
) -> Members:
    """A member with new weights, or with those in `start`."""
    # Python's numbers and arrays made of them are weakly typed: the first step would turn them into others
    params = jax.tree.map(_strong, trainable.init(_drawn(key, _INIT, index, 0)) if start is None else start)
    smoothed = jnp.asarray(jnp.nan, jnp.result_type(float))
    return Members(
        index=index,
        split=split,
        active=jnp.ones((), bool),
        broken=jnp.full((), -1, jnp.int32),
        smoothed=smoothed,
        hyper=hyper,
        params=params,
        optimizer=jax.tree.map(_strong, trainable.optimizer(hyper).init(params)),
        best=Best(jnp.full_like(smoothed, jnp.inf), jnp.zeros((), jnp.int32), hyper, params),
    )


def _advanced(
    trainable: Trainable,
    layout: Layout,
    key: Array,
    member: Members,
    sums: dict[str, Array],
    examples: Examples,
    start: Array,
    count: Array,
) -> tuple[Members, dict[str, Array]]:
    rows = examples.train[member.split]
    # of the smallest split; what is left over changes from epoch to epoch
    epoch = (examples.train >= 0).sum(axis=1).min() // layout.batch
    optimizer = trainable.optimizer(member.hyper)

    def shuffled(number: Array) -> Array:
        u = jax.random.uniform(_drawn(key, _ORDER, member.index, number), rows.shape, jnp.float32)
        return rows[jnp.argsort(jnp.where(rows >= 0, u, jnp.inf))]  # what fills a short split comes last, unused

    def step(i: Array, carry: tuple) -> tuple:
        params, state, order, broken, sums = carry
        order = jax.lax.cond((i % epoch == 0) | (i == start), lambda: shuffled(i // epoch), lambda: order)
        chosen = jax.lax.dynamic_slice_in_dim(order, (i % epoch) * layout.batch, layout.batch)
        batch = jax.tree.map(lambda a: a[chosen], examples.data)
        (value, terms), gradient = jax.value_and_grad(trainable.loss, has_aux=True)(
            params, member.hyper, batch, _drawn(key, _STEP, member.index, i), i
        )
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        broken = jnp.where((broken < 0) & ~jnp.isfinite(value), i, broken)
        added = {"loss": value, **terms, "steps": jnp.ones_like(value)}
        sums = {name: total + added[name] for name, total in sums.items()}
        return params, state, order, broken, sums

    first = (member.params, member.optimizer, rows, member.broken, sums)
    params, state, _, broken, total = jax.lax.fori_loop(start, start + count, step, first)
    after = replace(member, params=params, optimizer=state, broken=broken), total
    # a member that has stopped may stand in a chunk that goes on
    return jax.tree.map(lambda new, old: jnp.where(member.active, new, old), after, (member, sums))


def _scored(
    trainable: Trainable,
    layout: Layout,
    key: Array,
    member: Members,
    examples: Examples,
    step: Array,
    smoothing: Array,
) -> tuple[Members, Array]:
    rows = examples.valid[member.split]
    size = min(layout.batch, rows.shape[0])
    padding = -rows.shape[0] % size
    batches = jnp.concatenate([rows, jnp.full(padding, -1, rows.dtype)]).reshape(-1, size)
    drawn = _drawn(key, _SCORE, member.index, step)

    def one(numbered: tuple[Array, Array]) -> Array:
        number, rows = numbered
        batch = jax.tree.map(lambda a: a[rows], examples.data)
        scores = trainable.score(member.params, member.hyper, batch, jax.random.fold_in(drawn, number))
        return jnp.where(rows >= 0, scores, 0).sum()

    score = jax.lax.map(one, (jnp.arange(len(batches)), batches)).sum() / (rows >= 0).sum()
    score = jnp.where(jnp.isfinite(score), score, jnp.nan)
    before = member.smoothed
    smoothed = jnp.where(jnp.isnan(before), score, smoothing * before + (1 - smoothing) * score)
    smoothed = jnp.where(member.active, smoothed, before).astype(before.dtype)
    better = member.active & (score < member.best.score)
    now = Best(score.astype(before.dtype), step.astype(jnp.int32), member.hyper, member.params)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, member.best)
    return replace(member, smoothed=smoothed, best=best), score


def _drawn(key: Key[Array, ""], purpose: int, index: Array, step: Array | int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, purpose), index), step)


def _strong(a: Any) -> Array:
    return jnp.asarray(a, jnp.asarray(a).dtype)


def _padded(a: Array, layout: Layout, fill: Any = None) -> Array:
    """Up to `layout.padded`, by `fill` or by what the last member has."""
    more = layout.padded - layout.members
    if fill is None:
        return jnp.concatenate([a, jnp.repeat(a[-1:], more, axis=0)])
    return jnp.concatenate([a, jnp.full((more, *a.shape[1:]), fill, a.dtype)])
