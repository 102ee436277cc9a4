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
from jaxm2m.population._trainable import Dataset, Trainable, evaluate_loss

# purposes that keys are derived for
_INIT, _STEP, _ORDER, _SCORE = range(4)


class Programs(NamedTuple):
    """The compiled programs of a trainable in a layout; see `compile_programs`."""

    begin: Callable[..., Members]
    advance: Callable[..., tuple[Members, dict[str, Array]]]
    score: Callable[..., tuple[Members, Array]]
    exchange: Callable[..., Members]
    shard: Callable[..., Members]
    gather: Callable[..., PyTree]


@functools.lru_cache(maxsize=32)
def compile_programs(trainable: Trainable, layout: Layout) -> Programs:
    """Compile the programs of a population; equal arguments share them.

    - `begin(key, split, hyper, initial_params=None) -> members`: with new weights, or with `initial_params`, by member.
    - `advance(key, members, dataset, first_step, count, sums) -> (members, sums)`: so many steps more. `sums` adds up
      the loss, its terms and the steps ("steps") of each member.
    - `score(key, members, dataset, step, smoothing) -> (members, scores)`: on the validation examples.
    - `exchange(members, parent, hyper, active) -> members`: member i goes on from the weights, the optimiser's state
      and the smoothed score of `parent[i]`, with new hyperparameters.
    - `shard(members)`: members of the first `layout.members` numbers, from any device, laid out.
    - `gather(tree)`: the first `layout.members` of everything, on every device.

    Parameters
    ----------
    trainable
        The model that is trained.
    layout
        How members lie on the devices.

    Returns
    -------
    Programs
        Jitted; `advance`, `score` and `exchange` overwrite the members that they are given.
    """
    by_member, everywhere = layout.by_member, layout.everywhere

    def map_members(function: Callable, idle: Callable | None = None) -> Callable:
        """Map `function(member, *shared)` over all members: devices, then chunks, then members."""

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
            if count == layout.chunk_size:
                return chunk(members)
            parts = jax.tree.map(lambda a: a.reshape(-1, layout.chunk_size, *a.shape[1:]), members)
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(chunk, parts))

        def over_members(members: PyTree, *shared: Any) -> PyTree:
            specs = (PartitionSpec("member"),) + (PartitionSpec(),) * len(shared)
            return jax.shard_map(
                on_device, mesh=layout.mesh, in_specs=specs, out_specs=PartitionSpec("member"), check_vma=False
            )(members, *shared)

        return over_members

    def begin(key, split, hyper, initial_params=None):
        index = jnp.arange(layout.padded, dtype=jnp.int32)
        per_member = jax.tree.map(lambda a: _pad(a, layout), (split, hyper, initial_params))
        first = (index, *per_member)
        members = map_members(lambda member, key: begin_member(trainable, key, *member))(first, key)
        return replace(members, active=index < layout.members)  # nobody asked for those that fill up

    def advance(key, members, dataset, first_step, count, sums):
        def one(both, key, dataset, first_step, count):
            member, sums = both
            return _advance_member(trainable, layout, key, member, sums, dataset, first_step, count)

        return map_members(one, idle=lambda both, *shared: both)((members, sums), key, dataset, first_step, count)

    def score(key, members, dataset, step, smoothing):
        def one(member, key, dataset, step, smoothing):
            return _score_member(trainable, layout, key, member, dataset, step, smoothing)

        members, scores = map_members(one)(members, key, dataset, step, smoothing)
        return members, scores[: layout.members]

    def exchange(members, parent, hyper, active):
        # the members that fill up follow themselves
        parent = jnp.concatenate([parent, jnp.arange(layout.members, layout.padded, dtype=parent.dtype)])

        def take(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda a: a[parent], tree)

        return Members(
            index=members.index,
            split=members.split,
            active=_pad(active, layout, fill=False),
            broken=jnp.where(parent == members.index, members.broken, -1),
            smoothed=take(members.smoothed),
            hyper={name: _pad(h, layout) for name, h in hyper.items()},
            params=take(members.params),
            optimizer=take(members.optimizer),
            best=members.best,
        )

    def shard(members):
        padded = jax.tree.map(lambda a: _pad(a, layout), members)
        return replace(
            padded,
            index=jnp.arange(layout.padded, dtype=jnp.int32),
            active=_pad(members.active, layout, fill=False),
        )

    def gather(tree):
        return jax.tree.map(lambda a: a[: layout.members], tree)

    return Programs(
        begin=jax.jit(begin, out_shardings=by_member),
        advance=jax.jit(advance, out_shardings=by_member, donate_argnums=(1, 5)),
        score=jax.jit(score, out_shardings=(by_member, everywhere), donate_argnums=1),
        exchange=jax.jit(exchange, out_shardings=by_member, donate_argnums=0),
        shard=jax.jit(shard, out_shardings=by_member),
        gather=jax.jit(gather, out_shardings=everywhere),
    )


def begin_member(
    trainable: Trainable,
    key: Array,
    index: Array,
    split: Array,
    hyper: dict[str, Array],
    initial_params: PyTree | None = None,
) -> Members:
    """Begin one member, with new weights or with `initial_params`."""
    # Python's numbers and arrays made of them are weakly typed: the first step would turn them into others
    params = jax.tree.map(
        _drop_weak_type, trainable.init(_draw_key(key, _INIT, index, 0)) if initial_params is None else initial_params
    )
    smoothed = jnp.asarray(jnp.nan, jnp.result_type(float))
    return Members(
        index=index,
        split=split,
        active=jnp.ones((), bool),
        broken=jnp.full((), -1, jnp.int32),
        smoothed=smoothed,
        hyper=hyper,
        params=params,
        optimizer=jax.tree.map(_drop_weak_type, trainable.optimizer(hyper).init(params)),
        best=Best(jnp.full_like(smoothed, jnp.inf), jnp.zeros((), jnp.int32), hyper, params),
    )


def _advance_member(
    trainable: Trainable,
    layout: Layout,
    key: Array,
    member: Members,
    sums: dict[str, Array],
    dataset: Dataset,
    first_step: Array,
    count: Array,
) -> tuple[Members, dict[str, Array]]:
    rows = dataset.train[member.split]
    # of the smallest split; what is left over changes from epoch to epoch
    epoch = (dataset.train >= 0).sum(axis=1).min() // layout.batch_size
    optimizer = trainable.optimizer(member.hyper)

    def shuffle(number: Array) -> Array:
        u = jax.random.uniform(_draw_key(key, _ORDER, member.index, number), rows.shape, jnp.float32)
        return rows[jnp.argsort(jnp.where(rows >= 0, u, jnp.inf))]  # what fills a short split comes last, unused

    def step(i: Array, carry: tuple) -> tuple:
        params, state, order, broken, sums = carry
        order = jax.lax.cond((i % epoch == 0) | (i == first_step), lambda: shuffle(i // epoch), lambda: order)
        chosen = jax.lax.dynamic_slice_in_dim(order, (i % epoch) * layout.batch_size, layout.batch_size)
        batch = jax.tree.map(lambda a: a[chosen], dataset.data)
        (value, (terms, parts)), gradient = jax.value_and_grad(evaluate_loss, argnums=1, has_aux=True)(
            trainable, params, member.hyper, batch, _draw_key(key, _STEP, member.index, i), i
        )
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        if parts:
            params = params | {name: jax.tree.map(_cast_like, params[name], part) for name, part in parts.items()}
        broken = jnp.where((broken < 0) & ~jnp.isfinite(value), i, broken)
        terms_of_step = {"loss": value, **terms, "steps": jnp.ones_like(value)}
        sums = {name: total + terms_of_step[name] for name, total in sums.items()}
        return params, state, order, broken, sums

    initial = (member.params, member.optimizer, rows, member.broken, sums)
    params, state, _, broken, total = jax.lax.fori_loop(first_step, first_step + count, step, initial)
    after = replace(member, params=params, optimizer=state, broken=broken), total
    # a member that has stopped may stand in a chunk that goes on
    return jax.tree.map(lambda new, old: jnp.where(member.active, new, old), after, (member, sums))


def _score_member(
    trainable: Trainable,
    layout: Layout,
    key: Array,
    member: Members,
    dataset: Dataset,
    step: Array,
    smoothing: Array,
) -> tuple[Members, Array]:
    rows = dataset.valid[member.split]
    size = min(layout.batch_size, rows.shape[0])
    padding = -rows.shape[0] % size
    batches = jnp.concatenate([rows, jnp.full(padding, -1, rows.dtype)]).reshape(-1, size)
    score_key = _draw_key(key, _SCORE, member.index, step)

    def one(numbered: tuple[Array, Array]) -> Array:
        number, rows = numbered
        batch = jax.tree.map(lambda a: a[rows], dataset.data)
        scores = trainable.score(member.params, member.hyper, batch, jax.random.fold_in(score_key, number))
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


def _draw_key(key: Key[Array, ""], purpose: int, index: Array, step: Array | int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, purpose), index), step)


def _cast_like(old: Array, new: Array) -> Array:
    return jnp.asarray(new, old.dtype)


def _drop_weak_type(a: Any) -> Array:
    return jnp.asarray(a, jnp.asarray(a).dtype)


def _pad(a: Array, layout: Layout, fill: Any = None) -> Array:
    """Pad up to `layout.padded` members, by `fill` or by what the last member has."""
    more = layout.padded - layout.members
    if fill is None:
        return jnp.concatenate([a, jnp.repeat(a[-1:], more, axis=0)])
    return jnp.concatenate([a, jnp.full((more, *a.shape[1:]), fill, a.dtype)])
