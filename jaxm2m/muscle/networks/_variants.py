"""All networks of a comparison, trained as populations: inputs x folds, then inputs x folds x heads x candidates.

Examples are stacked input after input, so that one program trains members on fields and on firing rates: a member's
rows say which. What is fitted to the known trials of a fold goes into the weights of its members before training.
"""

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

from jaxm2m.muscle.networks import _networks
from jaxm2m.muscle.networks._folds import Fitted, Fold, fit_scaling, measure_range
from jaxm2m.muscle.networks._networks import Encoder, NetworkConfig
from jaxm2m.muscle.networks._options import TrainingOptions
from jaxm2m.muscle.networks._presets import NetworkPreset
from jaxm2m.muscle.networks._training import FieldAutoencoder, MuscleMapper, TrainingConfig, scale_volumes
from jaxm2m.population import Dataset, Independent, Run, SearchSpace, train

PATHWAYS = {"direct": (1.0, 0.0), "synergy": (0.0, 1.0), "combined": (1.0, 1.0), "two-stage": (1.0, 1.0)}
_GENERATIONS = 10


@dataclass(frozen=True, eq=False)
class TrainedMapper:
    """The networks of one input, pathway and fold, by its held-out trials the best of its candidates.

    Attributes
    ----------
    mapper
        What it computes.
    params
        Weights; the first axis is the seed. Predictions are the mean over seeds.
    hyper
        Hyperparameters.
    score
        Score of the held-out trials, the mean over seeds.
    fitted
        Scaling and synergies of the fold.
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
        return [leaf for part in (one, one.get("first")) if part is not None for leaf in _used_weights(part, rank)]


def train_variants(
    inputs: Mapping[str, Float[np.ndarray, "n x y z c"]],
    meps: Float[np.ndarray, "n muscle"],
    folds: Sequence[Fold],
    pathways: Sequence[str],
    preset: NetworkPreset,
    *,
    key: Key[Array, ""],
    options: TrainingOptions,
    progress: bool | None = None,
) -> dict[tuple[str, str], list[TrainedMapper]]:
    """Train networks of each input and pathway, a list over folds.

    Parameters
    ----------
    inputs
        Volumes by name; those of as many channels are trained together.
    meps
        (n, n_muscle) uV.
    folds
        Trials of each fold.
    pathways
        Of `PATHWAYS`.
    preset
        Architecture and training.
    key
        Of everything random. New weights and candidates are the same for all inputs, pathways and folds.
    options
        Options of the training. Each variant and fold keeps the candidate with the best validation trials.
    progress
        Whether a progress bar is shown.
    """
    needed = any(PATHWAYS[pathway][1] for pathway in pathways)
    per_fold = [fit_scaling(meps, fold.known, options.rank, needed) for fold in folds]
    trained: dict[tuple[str, str], list[TrainedMapper]] = {}
    for channels in sorted({x.shape[-1] for x in inputs.values()}):
        group = {name: x for name, x in inputs.items() if x.shape[-1] == channels}
        where = None if options.directory is None else Path(options.directory).expanduser() / "-".join(group)
        training = VariantTrainer(
            group, folds, preset, channels, key=key, directory=where, chunk_size=options.chunk_size, progress=progress
        )
        one_stage = [pathway for pathway in pathways if pathway != "two-stage"]
        first = ["synergy"] if "two-stage" in pathways and "synergy" not in pathways else []
        made = training.mappers(meps, per_fold, [*one_stage, *first], None, options)
        if "two-stage" in pathways:
            made |= training.mappers(meps, per_fold, ["two-stage"], made, options)
        trained |= {(name, pathway): made[name, pathway] for name in group for pathway in pathways}
    return {(name, pathway): trained[name, pathway] for name in inputs for pathway in pathways}


def predict_trials(
    models: Sequence[TrainedMapper], x: Float[np.ndarray, "n x y z c"], rows: Sequence[np.ndarray]
) -> list:
    """Predict MEPs scaled to [0, 1] of each model's own rows of x, (n_row, n_muscle) each."""
    most = max(len(r) for r in rows)
    filled = np.stack([np.resize(r, most) if len(r) else np.zeros(most, int) for r in rows])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(m.params for m in models))
    predictions = np.asarray(_predict(models[0].mapper, stacked, x, jnp.asarray(filled)))
    return [values[: len(r)] for values, r in zip(predictions, rows, strict=True)]


class VariantTrainer:
    """The encoders of inputs of one number of channels, trained at once; mappers are trained behind them."""

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        folds: Sequence[Fold],
        preset: NetworkPreset,
        channels: int,
        *,
        key: Key[Array, ""],
        directory: Path | None = None,
        chunk_size: int | None = None,
        progress: bool | None = None,
    ):
        self.names, self.folds, self.preset = list(inputs), folds, preset
        self.key, self.directory, self.chunk_size, self.progress = key, directory, chunk_size, progress
        self.config = replace(preset.config, channels=channels)
        self.x = np.concatenate(list(inputs.values()))
        self.count = len(self.x) // len(inputs)
        # members of autoencoders: input after input, fold after fold
        self.pairs = [(i, f) for i in range(len(self.names)) for f in range(len(folds))]
        ranges = [measure_range(inputs[self.names[i]], folds[f].known) for i, f in self.pairs]
        self.fixed = {
            "mask": np.stack([mask for mask, _ in ranges]).astype(self.x.dtype),
            "scale": np.array([scale for _, scale in ranges], self.x.dtype),
        }
        self.encoders = self._autoencoders()
        self.low, self.high, self.codes = self._codes()

    def _autoencoders(self) -> PyTree:
        """Train the autoencoders; return the weights of the encoders, pair by pair."""
        recipe = self.preset.autoencoder
        data = {"x": self.x}
        steps = _count_steps(self.folds, recipe)
        trainable = FieldAutoencoder(self.config, recipe.optimizer, _lr_steps(recipe, steps))
        start = self._draw_start(trainable, 0, [f for _, f in self.pairs], [0] * len(self.pairs))
        start["fixed"] = self.fixed
        rows = [i * self.count for i, _ in self.pairs]
        run = self._train(trainable, recipe, data, rows, [f for _, f in self.pairs], start, {}, "autoencoders")
        return run.members.best.params["encoder"]

    def mappers(
        self,
        meps: np.ndarray,
        per_fold: Sequence[Fitted],
        pathways: Sequence[str],
        first: Mapping[tuple[str, str], list[TrainedMapper]] | None = None,
        options: TrainingOptions | None = None,
    ) -> dict[tuple[str, str], list[TrainedMapper]]:
        """Train networks behind the encoders; with `first`, on what their synergies left."""
        recipe = self.preset.mapper
        options = options or TrainingOptions()
        candidates, n_seeds = options.candidates, options.n_seeds
        rank = max(1, *(p.synergies.shape[1] for p in per_fold))
        trainable = MuscleMapper(
            self.config,
            meps.shape[1],
            rank,
            recipe.optimizer,
            _lr_steps(recipe, _count_steps(self.folds, recipe)),
            recipe.criterion,
            tuned=self.preset.tuned,
            residual=first is not None,
        )
        members = list(product(range(candidates), range(n_seeds), pathways, range(len(self.pairs))))
        pairs = np.array([pair for *_, pair in members])
        fold = [self.pairs[pair][1] for pair in pairs]
        start = self._draw_start(trainable, 1, fold, [c * n_seeds + s for c, s, *_ in members])
        fixed = {
            "code": np.stack([self.low, self.high], -1)[pairs],
            "largest": np.stack([per_fold[f].largest for f in fold]).astype(self.x.dtype),
            "synergies": np.stack([_widen(per_fold[f].synergies, rank) for f in fold]).astype(self.x.dtype),
            "parts": np.array(
                [(1.0, 0.0) if first is not None else PATHWAYS[pathway] for *_, pathway, _ in members], self.x.dtype
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
            first_params = [
                jax.tree.map(lambda a, s=s: a[s], t.params) for t, (_, s, *_) in zip(chosen, members, strict=True)
            ]
            kept = jax.tree.map(lambda *leaves: np.stack(leaves), *first_params)
            if not self.preset.tuned:
                kept = {n: v for n, v in kept.items() if n != "encoder"}
                kept["fixed"] = {n: v for n, v in kept["fixed"].items() if n not in seen}
            start["first"] = kept
            start["head"] = jax.tree.map(jnp.zeros_like, start["head"])  # it begins where the first one ended
        data["y"] = np.tile(meps.astype(self.x.dtype), (len(data["x"]) // self.count, 1))
        drawn = (options.space or SearchSpace()).draw(jax.random.fold_in(self.key, 2), candidates)
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
        shape = (candidates, n_seeds, len(pathways), len(self.pairs))
        params = jax.tree.map(lambda a: np.asarray(a).reshape(*shape, *a.shape[1:]), params)
        scores = np.asarray(run.members.best.score).reshape(shape).mean(1)
        hypers = {name: np.asarray(values).reshape(shape)[:, 0] for name, values in run.members.best.hyper.items()}
        trained: dict[tuple[str, str], list[TrainedMapper]] = {}
        for h, pathway in enumerate(pathways):
            for pair, (i, f) in enumerate(self.pairs):
                best = int(scores[:, h, pair].argmin())
                one = jax.tree.map(lambda a, at=(best, slice(None), h, pair): a[at], params)
                of = {name: float(values[best, h, pair]) for name, values in hypers.items()}
                trained.setdefault((self.names[i], pathway), []).append(
                    TrainedMapper(final, one, of, float(scores[best, h, pair]), per_fold[f])
                )
        return trained

    def _codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute the range of the codes of each pair's known trials; and all codes, if mappers are trained on them."""
        low, high, codes = [], [], []
        for pair, (i, f) in enumerate(self.pairs):
            rows = slice(i * self.count, (i + 1) * self.count)
            params = jax.tree.map(lambda a, pair=pair: jnp.asarray(a[pair]), (self.encoders, self.fixed))
            code = np.asarray(_encode(self.config, *params, self.x[rows], self.preset.autoencoder.batch_size))
            known = code[self.folds[f].known]
            low.append(known.min())
            high.append(max(known.max(), known.min() + 1e-6))
            codes += [] if self.preset.tuned else [code]
        return np.array(low), np.array(high), np.concatenate(codes) if codes else np.zeros(0)

    def _draw_start(self, trainable: Any, purpose: int, fold: Sequence[int], candidate: Sequence[int]) -> PyTree:
        """Draw new weights of each member, the same for all inputs and pathways."""
        return _draw_weights(trainable, self.key, np.int32(10 + purpose), np.array(fold), np.array(candidate))

    def _train(
        self,
        trainable: Any,
        recipe: TrainingConfig,
        data: dict[str, np.ndarray],
        first_row: Sequence[int],
        fold: Sequence[int],
        start: PyTree,
        hyper: Mapping[str, np.ndarray],
        label: str,
    ) -> Run:
        """Train members, the rows of each counted from its own first row."""
        known = {at: k for k, at in enumerate(dict.fromkeys(zip(first_row, fold, strict=True)))}
        dataset = Dataset.splits(
            data,
            [at + self.folds[f].train for at, f in known],
            [at + self.folds[f].validation for at, f in known],
            [known[at] for at in zip(first_row, fold, strict=True)],
        )
        return train(
            trainable,
            SearchSpace(**recipe.hyper | dict(hyper)),
            dataset,
            key=jax.random.fold_in(self.key, 3),
            schedule=Independent(
                epochs=-(-recipe.epochs // _GENERATIONS), generations=_GENERATIONS, patience=recipe.patience
            ),
            members=len(fold),
            batch_size=recipe.batch_size,
            initial_params=start,
            directory=None if self.directory is None else self.directory / label,
            chunk_size=self.chunk_size,
            progress=self.progress,
        )


def _used_weights(params: PyTree, rank: int) -> list[Any]:
    """List the weights of one network that the pathway in use has."""
    parts, head = np.asarray(params["fixed"]["parts"]), params["head"]
    weights = [*jax.tree.leaves((params["encoder"], params["mapper"])), head["direct"]["bias"]]
    weights += [head["direct"]["kernel"]] if parts[0] else []
    return weights + ([head["activations"]["kernel"][:, :rank]] if parts[1] else [])


@partial(jax.jit, static_argnames=("trainable",))
def _draw_weights(
    trainable: FieldAutoencoder | MuscleMapper, key: Array, purpose: Array, fold: Array, candidate: Array
) -> PyTree:
    # as one program: else each layer compiles several
    def one(fold: Array, candidate: Array) -> PyTree:
        of_purpose = jax.random.fold_in(key, purpose)
        return trainable.init(jax.random.fold_in(jax.random.fold_in(of_purpose, fold), candidate))

    return jax.vmap(one)(fold, candidate)


@partial(jax.jit, static_argnames=("mapper",))
def _predict(mapper: MuscleMapper, params: PyTree, x: Array, rows: Array) -> Array:
    def member(one: tuple[PyTree, Array]) -> Array:
        weights, member_rows = one
        return jax.lax.map(lambda row: mapper.average(weights, x[row][None])[0], member_rows, batch_size=8)

    return jax.lax.map(member, (params, rows))


@partial(jax.jit, static_argnames=("config", "batch_size"))
def _encode(config: NetworkConfig, encoder: PyTree, fixed: PyTree, x: Array, batch_size: int) -> Array:
    def one(row: Array) -> Array:
        return _networks.apply(encoder, Encoder, config)(scale_volumes(fixed, row)[None])[0][0]

    return jax.lax.map(one, x, batch_size=batch_size)


def _count_steps(folds: Sequence[Fold], recipe: TrainingConfig) -> int:
    """Count the steps of an epoch, in the smallest fold."""
    least = min(len(fold.train) for fold in folds)
    return max(1, least // min(recipe.batch_size, least))


def _lr_steps(recipe: TrainingConfig, steps: int) -> tuple[float, ...]:
    return () if recipe.lr_decay is None else (float(recipe.lr_decay[0] * steps), recipe.lr_decay[1])


def _widen(vectors: np.ndarray, rank: int) -> np.ndarray:
    return np.pad(vectors, ((0, 0), (0, rank - vectors.shape[1])))
