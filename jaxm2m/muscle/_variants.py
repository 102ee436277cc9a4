"""All networks of a comparison, trained as populations: inputs x folds, then inputs x folds x heads x candidates.

Examples are stacked input after input, so that one program trains members on fields and on firing rates: a member's
rows say which. What is fitted to the known trials of a fold goes into the weights of its members before training.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from jaxm2m.muscle import _networks
from jaxm2m.muscle._folds import Fitted, Fold, fitted, seen_range
from jaxm2m.muscle._networks import Architecture, Encoder
from jaxm2m.muscle._presets import Preset
from jaxm2m.muscle._training import FieldAutoencoder, MuscleMapper, Recipe, scaled
from jaxm2m.population import Examples, Independent, Run, Space, train

HEADS = {"direct": (1.0, 0.0), "synergy": (0.0, 1.0), "combined": (1.0, 1.0), "two-stage": (1.0, 1.0)}
_GENERATIONS = 10


@dataclass(frozen=True, eq=False)
class Trained:
    """The networks of one input, head and fold, by its held-out trials the best of its candidates.

    Attributes
    ----------
    mapper
        What it computes.
    params
        Weights; the first axis is the seed. Predictions are the mean over seeds.
    hyper
        Hyperparameters.
    score
        Of the held-out trials, the mean over seeds.
    fitted
        Of the fold.
    """

    mapper: MuscleMapper
    params: PyTree
    hyper: dict[str, float]
    score: float
    fitted: Fitted

    @property
    def size(self) -> list[Any]:
        """The weights of one seed that are in use: those of both networks of two stages."""
        one = jax.tree.map(lambda a: a[0], self.params)
        rank = self.fitted.synergies.shape[1]
        return [leaf for part in (one, one.get("first")) if part is not None for leaf in _used(part, rank)]


def train_variants(
    inputs: Mapping[str, Float[np.ndarray, "n x y z c"]],
    meps: Float[np.ndarray, "n muscle"],
    folds: Sequence[Fold],
    heads: Sequence[str],
    preset: Preset,
    *,
    key: Key[Array, ""],
    rank: int | None = None,
    space: Space | None = None,
    candidates: int = 1,
    seeds: int = 1,
    directory: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    show: bool | None = None,
) -> dict[tuple[str, str], list[Trained]]:
    """Networks of each input and head, a list over folds.

    Parameters
    ----------
    inputs
        Name -> volumes; those of as many channels are trained together.
    meps
        uV.
    folds
        Trials of each.
    heads
        Of `HEADS`.
    preset
        Sizes and recipes.
    key
        Of everything random. New weights and candidates are the same for all inputs, heads and folds.
    rank
        Synergies; None: by the VAF of each fold's known trials.
    space
        Hyperparameters of the mapper that are not the preset's ("learning_rate", "l1", "l2", "dropout").
    candidates
        Draws from the space; each variant and fold keeps that with the best held-out trials.
    seeds
        Networks of each candidate, whose predictions are averaged.
    directory
        Of the runs, which go on after a kill.
    chunk
        Of `population.train`.
    show
        Progress.
    """
    needed = any(HEADS[head][1] for head in heads)
    per_fold = [fitted(meps, fold.known, rank, needed) for fold in folds]
    found: dict[tuple[str, str], list[Trained]] = {}
    for channels in sorted({x.shape[-1] for x in inputs.values()}):
        group = {name: x for name, x in inputs.items() if x.shape[-1] == channels}
        where = None if directory is None else Path(directory) / "-".join(group)
        training = Encoders(group, folds, preset, channels, key=key, directory=where, chunk=chunk, show=show)
        one_stage = [head for head in heads if head != "two-stage"]
        first = ["synergy"] if "two-stage" in heads and "synergy" not in heads else []
        made = training.mappers(meps, per_fold, [*one_stage, *first], None, space, candidates, seeds)
        if "two-stage" in heads:
            made |= training.mappers(meps, per_fold, ["two-stage"], made, space, candidates, seeds)
        found |= {(name, head): made[name, head] for name in group for head in heads}
    return {(name, head): found[name, head] for name in inputs for head in heads}


def predicted(models: Sequence[Trained], x: Float[np.ndarray, "n x y z c"], rows: Sequence[np.ndarray]) -> list:
    """MEPs scaled to [0, 1] of each model's own rows of x, (n_row, n_muscle) each."""
    most = max(len(r) for r in rows)
    filled = np.stack([np.resize(r, most) if len(r) else np.zeros(most, int) for r in rows])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(m.params for m in models))
    found = np.asarray(_predicted(models[0].mapper, stacked, x, jnp.asarray(filled)))
    return [values[: len(r)] for values, r in zip(found, rows, strict=True)]


class Encoders:
    """The encoders of inputs of one number of channels, trained at once; mappers are trained behind them."""

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        folds: Sequence[Fold],
        preset: Preset,
        channels: int,
        *,
        key: Key[Array, ""],
        directory: Path | None = None,
        chunk: int | None = None,
        show: bool | None = None,
    ):
        self.names, self.folds, self.preset = list(inputs), folds, preset
        self.key, self.directory, self.chunk, self.show = key, directory, chunk, show
        self.sizes = replace(preset.sizes, channels=channels)
        self.x = np.concatenate(list(inputs.values()))
        self.count = len(self.x) // len(inputs)
        # members of autoencoders: input after input, fold after fold
        self.pairs = [(i, f) for i in range(len(self.names)) for f in range(len(folds))]
        ranges = [seen_range(inputs[self.names[i]], folds[f].known) for i, f in self.pairs]
        self.fixed = {
            "mask": np.stack([mask for mask, _ in ranges]).astype(self.x.dtype),
            "scale": np.array([scale for _, scale in ranges], self.x.dtype),
        }
        self.encoders = self._autoencoders()
        self.low, self.high, self.codes = self._codes()

    def _autoencoders(self) -> PyTree:
        """The weights of the encoders, pair by pair."""
        recipe = self.preset.autoencoder
        data = {"x": self.x}
        steps = _steps(self.folds, recipe)
        trainable = FieldAutoencoder(self.sizes, recipe.optimizer, _fall(recipe, steps))
        start = self._begun(trainable, 0, [f for _, f in self.pairs], [0] * len(self.pairs))
        start["fixed"] = self.fixed
        rows = [i * self.count for i, _ in self.pairs]
        run = self._train(trainable, recipe, data, rows, [f for _, f in self.pairs], start, {}, "autoencoders")
        return run.members.best.params["encoder"]

    def mappers(
        self,
        meps: np.ndarray,
        per_fold: Sequence[Fitted],
        heads: Sequence[str],
        first: Mapping[tuple[str, str], list[Trained]] | None = None,
        space: Space | None = None,
        candidates: int = 1,
        seeds: int = 1,
    ) -> dict[tuple[str, str], list[Trained]]:
        """Networks behind the encoders; with `first`, on what their synergies left."""
        recipe = self.preset.mapper
        rank = max(1, *(p.synergies.shape[1] for p in per_fold))
        trainable = MuscleMapper(
            self.sizes,
            meps.shape[1],
            rank,
            recipe.optimizer,
            _fall(recipe, _steps(self.folds, recipe)),
            recipe.criterion,
            tuned=self.preset.tuned,
            residual=first is not None,
        )
        members = list(product(range(candidates), range(seeds), heads, range(len(self.pairs))))
        pairs = np.array([pair for *_, pair in members])
        fold = [self.pairs[pair][1] for pair in pairs]
        start = self._begun(trainable, 1, fold, [c * seeds + s for c, s, *_ in members])
        fixed = {
            "code": np.stack([self.low, self.high], -1)[pairs],
            "largest": np.stack([per_fold[f].largest for f in fold]).astype(self.x.dtype),
            "synergies": np.stack([_wide(per_fold[f].synergies, rank) for f in fold]).astype(self.x.dtype),
            "parts": np.array(
                [(1.0, 0.0) if first is not None else HEADS[head] for *_, head, _ in members], self.x.dtype
            ),
        }
        encoders = jax.tree.map(lambda a: a[pairs], self.encoders)
        seen = {name: a[pairs] for name, a in self.fixed.items()}
        whole = {"encoder": encoders, "fixed": fixed | seen}
        if self.preset.tuned:
            start |= whole
            data, rows = {"x": self.x}, [self.pairs[pair][0] * self.count for pair in pairs]
        else:
            start["fixed"] = fixed
            data, rows = {"x": self.codes}, [int(pair) * self.count for pair in pairs]
        if first is not None:
            chosen = [first[self.names[self.pairs[pair][0]], "synergy"][f] for pair, f in zip(pairs, fold, strict=True)]
            own = [jax.tree.map(lambda a, s=s: a[s], t.params) for t, (_, s, *_) in zip(chosen, members, strict=True)]
            kept = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
            if not self.preset.tuned:
                kept = {n: v for n, v in kept.items() if n != "encoder"}
                kept["fixed"] = {n: v for n, v in kept["fixed"].items() if n not in seen}
            start["first"] = kept
            start["head"] = jax.tree.map(jnp.zeros_like, start["head"])  # it begins where the first one ended
        data["y"] = np.tile(meps.astype(self.x.dtype), (len(data["x"]) // self.count, 1))
        drawn = (space or Space()).draw(jax.random.fold_in(self.key, 2), candidates)
        index = np.array([c for c, *_ in members])
        hyper = {name: values[index] for name, values in drawn.items()}
        label = "residual" if first is not None else "mappers"
        run = self._train(trainable, recipe, data, rows, fold, start, hyper, label)
        params = dict(run.members.best.params)
        if not self.preset.tuned:  # from now on from volumes
            params["encoder"] = encoders
            params["fixed"] = params["fixed"] | seen
            if first is not None:
                params["first"] = dict(params["first"]) | {"encoder": encoders}
                params["first"]["fixed"] = dict(params["first"]["fixed"]) | seen
        final = replace(trainable, tuned=True)
        # member = (candidate, seed, head, pair), the last fastest
        shape = (candidates, seeds, len(heads), len(self.pairs))
        params = jax.tree.map(lambda a: np.asarray(a).reshape(*shape, *a.shape[1:]), params)
        scores = np.asarray(run.members.best.score).reshape(shape).mean(1)
        hypers = {name: np.asarray(values).reshape(shape)[:, 0] for name, values in run.members.best.hyper.items()}
        found: dict[tuple[str, str], list[Trained]] = {}
        for h, head in enumerate(heads):
            for pair, (i, f) in enumerate(self.pairs):
                best = int(scores[:, h, pair].argmin())
                one = jax.tree.map(lambda a, at=(best, slice(None), h, pair): a[at], params)
                of = {name: float(values[best, h, pair]) for name, values in hypers.items()}
                found.setdefault((self.names[i], head), []).append(
                    Trained(final, one, of, float(scores[best, h, pair]), per_fold[f])
                )
        return found

    def _codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranges of the codes of each pair's known trials; and, where they are what is trained on, all codes."""
        low, high, codes = [], [], []
        for pair, (i, f) in enumerate(self.pairs):
            own = slice(i * self.count, (i + 1) * self.count)
            params = jax.tree.map(lambda a, pair=pair: jnp.asarray(a[pair]), (self.encoders, self.fixed))
            code = np.asarray(_coded(self.sizes, *params, self.x[own], self.preset.autoencoder.batch))
            known = code[self.folds[f].known]
            low.append(known.min())
            high.append(max(known.max(), known.min() + 1e-6))
            codes += [] if self.preset.tuned else [code]
        return np.array(low), np.array(high), np.concatenate(codes) if codes else np.zeros(0)

    def _begun(self, trainable: Any, purpose: int, fold: Sequence[int], candidate: Sequence[int]) -> PyTree:
        """New weights of each member, the same for all inputs and heads."""
        return _begun(trainable, self.key, np.int32(10 + purpose), np.array(fold), np.array(candidate))

    def _train(
        self,
        trainable: Any,
        recipe: Recipe,
        data: dict[str, np.ndarray],
        first_row: Sequence[int],
        fold: Sequence[int],
        start: PyTree,
        hyper: Mapping[str, np.ndarray],
        label: str,
    ) -> Run:
        """Members, the rows of each counted from its own first row."""
        known = {at: k for k, at in enumerate(dict.fromkeys(zip(first_row, fold, strict=True)))}
        examples = Examples.splits(
            data,
            [at + self.folds[f].train for at, f in known],
            [at + self.folds[f].held for at, f in known],
            [known[at] for at in zip(first_row, fold, strict=True)],
        )
        return train(
            trainable,
            Space(**recipe.hyper | dict(hyper)),
            examples,
            key=jax.random.fold_in(self.key, 3),
            schedule=Independent(
                epochs=-(-recipe.epochs // _GENERATIONS), generations=_GENERATIONS, patience=recipe.patience
            ),
            members=len(fold),
            batch=recipe.batch,
            start=start,
            directory=None if self.directory is None else self.directory / label,
            chunk=self.chunk,
            show=self.show,
        )


def _used(params: PyTree, rank: int) -> list[Any]:
    """The weights of one network that the head in use has."""
    parts, head = np.asarray(params["fixed"]["parts"]), params["head"]
    found = [*jax.tree.leaves((params["encoder"], params["mapper"])), head["direct"]["bias"]]
    found += [head["direct"]["kernel"]] if parts[0] else []
    return found + ([head["activations"]["kernel"][:, :rank]] if parts[1] else [])


@partial(jax.jit, static_argnames=("trainable",))
def _begun(
    trainable: FieldAutoencoder | MuscleMapper, key: Array, purpose: Array, fold: Array, candidate: Array
) -> PyTree:
    # as one program: else each layer compiles several
    def one(fold: Array, candidate: Array) -> PyTree:
        of_purpose = jax.random.fold_in(key, purpose)
        return trainable.init(jax.random.fold_in(jax.random.fold_in(of_purpose, fold), candidate))

    return jax.vmap(one)(fold, candidate)


@partial(jax.jit, static_argnames=("mapper",))
def _predicted(mapper: MuscleMapper, params: PyTree, x: Array, rows: Array) -> Array:
    def member(one: tuple[PyTree, Array]) -> Array:
        weights, own = one
        return jax.lax.map(lambda row: mapper.average(weights, x[row][None])[0], own, batch_size=8)

    return jax.lax.map(member, (params, rows))


@partial(jax.jit, static_argnames=("sizes", "batch"))
def _coded(sizes: Architecture, encoder: PyTree, fixed: PyTree, x: Array, batch: int) -> Array:
    def one(row: Array) -> Array:
        return _networks.apply(encoder, Encoder, sizes)(scaled(fixed, row)[None])[0][0]

    return jax.lax.map(one, x, batch_size=batch)


def _steps(folds: Sequence[Fold], recipe: Recipe) -> int:
    """Of an epoch, in the smallest fold."""
    least = min(len(fold.train) for fold in folds)
    return max(1, least // min(recipe.batch, least))


def _fall(recipe: Recipe, steps: int) -> tuple[float, ...]:
    return () if recipe.fall is None else (float(recipe.fall[0] * steps), recipe.fall[1])


def _wide(vectors: np.ndarray, rank: int) -> np.ndarray:
    return np.pad(vectors, ((0, 0), (0, rank - vectors.shape[1])))
