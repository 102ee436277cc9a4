"""The sequential autoencoder, trained on EMG as a population (AutoLFADS), and its presets."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxm2m import _check
from jaxm2m import population as populations
from jaxm2m.emg._activation import Activation, activation
from jaxm2m.emg._model import Sizes
from jaxm2m.emg._observation import Gamma, Gaussian, Observation, Poisson
from jaxm2m.emg._rectified import Rectified
from jaxm2m.emg._trainable import SequentialVAE
from jaxm2m.emg._windows import chop
from jaxm2m.population import Independent, LogUniform, Run, Schedule, Space, Uniform

_MARGIN = 6  # bins: two standard deviations of the temporal shift
_OBSERVATIONS = {type(o).__name__: o for o in (Gamma(), Gaussian(), Poisson())}


@dataclass(frozen=True)
class Preset:
    """How `fit` trains; numbers of steps are the optimiser's, since an epoch of a small set is one step.

    Attributes
    ----------
    space
        The hyperparameters.
    members
        Of the population.
    batch
        Windows of a step.
    generation
        Steps of a generation, at least; and at least 30 epochs where members meet.
    generations
        At most.
    patience
        Generations without improvement that end the run; None: none does.
    ramp
        Steps over which penalties grow, at least; and at least 50 epochs where members meet.
    decay
        Whether the learning rate falls to 3 % of itself over the run, by a cosine.
    meets
        Population-based training; else members that never meet.
    bound
        Whether members are compared by the bound of the likelihood, and the space has the scales of divergences as
        multiples of those with which the loss is that bound, 1 / (time x channels); else by the likelihood.
    """

    space: Space
    members: int
    batch: int
    generation: int
    generations: int
    patience: int | None
    ramp: int
    decay: bool
    meets: bool
    bound: bool

    def scaled(self, space: Space, values: int) -> Space:
        """`space` with absolute scales, for windows of so many values."""
        if not self.bound:
            return space
        scales = {name: space.fixed.get(name, space.tuned.get(name)) for name in ("kl_ic", "kl_co")}
        return Space(**space.tuned | space.fixed | {name: _over(scale, values) for name, scale in scales.items()})

    def schedule(self, epoch: int) -> Schedule:
        """The schedule, for so many steps an epoch."""
        epochs = max(1, math.ceil(self.generation / epoch))
        if self.meets:
            patience = self.patience or self.generations
            return populations.PBT(epochs=max(30, epochs), generations=self.generations, patience=patience)
        return Independent(epochs=epochs, generations=self.generations, patience=self.patience)


_SEARCHED = Space(
    learning_rate=LogUniform(1e-5, 5e-3, start=(1e-3, 4e-3), perturb=0.3),
    dropout=Uniform(0.0, 0.7, perturb=0.3),
    coordinated_dropout=Uniform(0.01, 0.99, start=(0.5, 0.5), perturb=0.3),
    l2_generator=LogUniform(1e-5, 0.1, perturb=0.8),
    l2_controller=LogUniform(1e-5, 0.1, perturb=0.8),
    kl_ic=LogUniform(1e-6, 1e-4, perturb=0.8),
    kl_co=LogUniform(1e-6, 1e-4, perturb=0.8),
)
# Learning rate, dropout and L2 were chosen by decoding from the rat recording (benchmarks/emg_rat.py). The scales of
# the divergences are those of the bound; the paper's are a tenth of it and less.
_KNOWN = Space(
    learning_rate=4e-3,
    dropout=0.35,
    coordinated_dropout=0.5,
    l2_generator=0.5,
    l2_controller=0.5,
    kl_ic=1.0,
    kl_co=1.0,
)
_NEAR = Space(
    learning_rate=LogUniform(1e-4, 5e-3, start=(2e-3, 4e-3), perturb=0.3),
    dropout=Uniform(0.25, 0.6, perturb=0.3),
    coordinated_dropout=Uniform(0.3, 0.7, start=(0.5, 0.5), perturb=0.3),
    l2_generator=LogUniform(0.05, 5.0, perturb=0.8),
    l2_controller=LogUniform(0.05, 5.0, perturb=0.8),
    kl_ic=LogUniform(0.1, 3.0, perturb=0.8),
    kl_co=LogUniform(0.1, 3.0, perturb=0.8),
)

PRESETS = {
    "paper": Preset(
        _SEARCHED,
        members=20,
        batch=400,
        generation=30,
        generations=100,
        patience=10,
        ramp=200,
        decay=False,
        meets=True,
        bound=False,
    ),
    "small": Preset(
        _NEAR,
        members=6,
        batch=100,
        generation=60,
        generations=25,
        patience=8,
        ramp=200,
        decay=False,
        meets=True,
        bound=True,
    ),
    "single": Preset(
        _KNOWN,
        members=1,
        batch=50,
        generation=25,
        generations=40,
        patience=None,
        ramp=200,
        decay=True,
        meets=False,
        bound=True,
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """A trained model of muscle activation.

    Attributes
    ----------
    trainable
        The model.
    channels
        Names of the muscles.
    sfreq
        Hz.
    window
        Bins of the windows that it was trained on.
    overlap
        Bins by which they overlap.
    run
        How it was trained: history, hyperparameters, all members.
    """

    trainable: SequentialVAE
    channels: tuple[str, ...]
    sfreq: float
    window: int
    overlap: int
    run: Run

    @property
    def params(self) -> PyTree:
        """The weights of the lowest validation score of all members and generations."""
        return self.run.params

    def __repr__(self) -> str:
        return f"Fit({len(self.channels)} channels at {self.sfreq:g} Hz; {self.run!r})"

    def activation(
        self,
        emg: Any,
        *,
        key: Key[Array, ""],
        samples: int = 200,
        member: int | None = None,
        padded: bool = False,
        show: bool | None = None,
    ) -> Activation:
        """Infer the activation behind EMG, also of recordings that the model never saw.

        Parameters
        ----------
        emg
            `Rectified`, of the same channels and rate, preprocessed with the same numbers (`emg.transform(recording)`
            does that).
        key
            Of the samples.
        samples
            Of the posterior, whose rates are averaged (the paper's 200); 0: one pass with all latents at their means.
        member
            The weights of a member of the population; None: the best of all.
        padded
            Trials hold margins of 6 bins on both sides, which are used, and left out of the result.
        show
            Progress; None: on a terminal only.

        Raises
        ------
        ValueError
            Other channels or another rate; a trial that is shorter than a window.
        """
        _check_channels(emg, self.channels, self.sfreq)
        params = self.params
        if member is not None:
            count = len(self.run.members.index)
            if not 0 <= member < count:
                raise ValueError(f"member: {member}; the population has members 0 to {count - 1}.")
            params = jax.tree.map(lambda a: a[member], self.run.members.best.params)
        return activation(
            params,
            self.trainable.sizes,
            emg,
            window=self.window,
            overlap=self.overlap,
            margin=self.trainable.margin if padded else 0,
            key=key,
            samples=samples,
            show=show,
        )


def fit(
    emg: Rectified,
    *,
    key: Key[Array, ""],
    valid: Rectified | None = None,
    preset: str = "paper",
    population: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    source: Fit | None = None,
    sizes: Sizes | None = None,
    space: Space | None = None,
    schedule: Schedule | None = None,
    batch: int | None = None,
    length: float | int = 0.2,
    overlap: float | int = 0.05,
    padded: bool = False,
    show: bool | None = None,
) -> Fit:
    """Train the sequential autoencoder on rectified EMG (AutoLFADS, Wimalasena et al. 2022).

    Parameters
    ----------
    emg
        Of `preprocess`; leave flagged trials out with `emg.pick(~emg.flagged)`.
    key
        All randomness follows from it.
    valid
        What members are compared by; None: a fifth of `emg`, trials where there are ten or more, else blocks of ten
        windows each.
    preset
        "paper": population-based training as published, 20 members, until 10 generations bring nothing. "small": 6
        members and smaller batches, for a desktop; it searches near the settings of "single". "single": one model with
        settings by which joints were decoded well from one recording (a walking rat), in minutes; nothing is searched.
        With `population=3`, three seeds of it. Both compare by the bound of the likelihood.
    population
        Members; None: the preset's.
    directory
        Of the run, which may be killed and is continued by the same call; `emg.load` reads it.
    source
        A model trained on other muscles, sessions or subjects, whose dynamics are kept: only what reads these muscles
        in and out is trained (a linear map before the encoders, the affine map behind the factors). Muscles of the same
        name begin as the source has them, others at random.
    sizes
        The architecture; None: the paper's, or the source's.
    space, schedule, batch
        Instead of the preset's.
    length, overlap
        s, of the windows.
    padded
        Trials hold margins of 6 bins on both sides, for the temporal shift; else the margins are mirrored.
    show
        Progress; None: on a terminal only.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        Too few windows; `valid` of other channels; a source at another rate; what `population.train` refuses.
    """
    chosen = PRESETS[_check.option(preset, tuple(PRESETS), "preset")]
    if not isinstance(emg, Rectified):
        raise TypeError(f"emg: {type(emg).__name__}; pass what emg.preprocess(recording) returns.")
    if source is not None:
        if sizes is not None:
            raise ValueError("sizes: given together with a source, which has its own; leave one of them out.")
        if source.sfreq != emg.sfreq:
            raise ValueError(f"source: trained at {source.sfreq:g} Hz, emg has {emg.sfreq:g} Hz; resample emg.")
        own = source.trainable.sizes
        sizes = replace(own, channels=len(emg.channels), readin=own.readin or own.channels)
    sizes = Sizes(len(emg.channels)) if sizes is None else sizes
    if sizes.channels != len(emg.channels):
        raise ValueError(f"sizes: for {sizes.channels} channels, emg has {len(emg.channels)}; pass the same number.")
    split_key, train_key = jax.random.split(key)
    if valid is None:
        train, held = _split(emg, length, overlap, padded, split_key)
    else:
        _check_channels(valid, emg.channels, emg.sfreq, "valid")
        train, held = (chop(part, length, overlap, margin=_MARGIN, padded=padded).values for part in (emg, valid))
    if not len(train) or not len(held):
        raise ValueError(
            f"emg: {len(train)} windows to train on and {len(held)} to validate; record longer, or shorten `length`."
        )
    batch = min(len(train), chosen.batch if batch is None else _check.integer(batch, "batch"))
    epoch = len(train) // batch
    schedule = chosen.schedule(epoch) if schedule is None else schedule
    steps = schedule.epochs * schedule.generations * epoch
    trainable = SequentialVAE(
        sizes,
        offset=tuple(np.asarray(sizes.observation.inputs(jnp.asarray(train)), np.float64).mean((0, 1)).tolist()),
        margin=_MARGIN,
        ramp=max(chosen.ramp, 50 * epoch) if chosen.meets else chosen.ramp,
        decay=steps if chosen.decay else 0,
        trained=("readin", "readout") if source else (),
        compared="bound" if chosen.bound else "likelihood",
    )
    members = chosen.members if population is None else _check.integer(population, "population")
    start = None
    if source is not None:
        train_key, own_key = jax.random.split(train_key)
        start = jax.vmap(lambda k: _transferred(source, trainable, emg.channels, k))(jax.random.split(own_key, members))
    bins = train.shape[1] - 2 * _MARGIN
    space = chosen.scaled(chosen.space, bins * sizes.channels) if space is None else space
    notes = {
        "channels": list(emg.channels),
        "sfreq": emg.sfreq,
        "window": bins,
        "overlap": round(float(overlap) * emg.sfreq),
        "preprocessing": emg.preprocessing.describe(),
        "preset": preset,
    }
    dtype = np.dtype(jnp.result_type(float))
    run = populations.train(
        trainable,
        space,
        populations.Examples.holdout(train.astype(dtype), held.astype(dtype)),
        key=train_key,
        schedule=schedule,
        members=members,
        batch=batch,
        start=start,
        directory=directory,
        notes=notes,
        show=show,
    )
    return _fitted(trainable, notes, run)


def load(directory: str | os.PathLike[str]) -> Fit:
    """Read a run of `fit`, also one that is still trained.

    Raises
    ------
    FileNotFoundError, ValueError
        No run is there, none with a checkpoint yet, or one of another model.
    """
    config = populations.read_config(directory)
    notes, model = config.get("notes", {}), dict(config["model"])
    if model.pop("model", None) != "sequential VAE" or "channels" not in notes:
        raise ValueError(f"directory: {Path(directory)} holds a run of another model; name one of emg.fit.")
    own = {name: model.pop(name) for name in ("margin", "shift", "ramp", "decay")}
    offset = tuple(float(x) for x in model.pop("offset").split())
    trained = tuple(model.pop("trained").split())
    compared = model.pop("compared")
    observation = model.pop("observation")
    sizes = Sizes(**model, observation=_observation(observation))
    trainable = SequentialVAE(sizes, offset=offset, trained=trained, compared=compared, **own)
    return _fitted(trainable, notes, populations.load(directory, trainable))


def _over(scale: Any, values: int) -> Any:
    """A number, or a distribution, divided."""
    if isinstance(scale, LogUniform):
        return replace(scale, low=scale.low / values, high=scale.high / values)
    return scale / values


def _fitted(trainable: SequentialVAE, notes: dict[str, Any], run: Run) -> Fit:
    return Fit(
        trainable, tuple(notes["channels"]), float(notes["sfreq"]), int(notes["window"]), int(notes["overlap"]), run
    )


def _transferred(source: Fit, trainable: SequentialVAE, channels: tuple[str, ...], key: Key[Array, ""]) -> PyTree:
    """The source's weights, with what reads in and out of them for other channels."""
    params = trainable.init(key)
    theirs = jax.tree.map(jnp.asarray, source.params)
    readin = theirs.get("readin", jnp.eye(len(source.channels)))
    pairs = [(i, source.channels.index(name)) for i, name in enumerate(channels) if name in source.channels]
    # the columns of the readout are the observation's parameters, each for all channels
    per = trainable.sizes.observation.parameters
    new = [k * len(channels) + i for k in range(per) for i, _ in pairs]
    old = [k * len(source.channels) + j for k in range(per) for _, j in pairs]
    rows = np.array(pairs, int).reshape(-1, 2).T
    readout = jax.tree.map(
        lambda a, b: a.at[..., np.array(new, int)].set(b[..., np.array(old, int)]), params["readout"], theirs["readout"]
    )
    own = {"offset": params["offset"], "readin": params["readin"].at[rows[0]].set(readin[rows[1]]), "readout": readout}
    return theirs | own


def _observation(words: str) -> Observation:
    """From `repr`: a name with numbers, "Gamma(floor=0.0001)"."""
    name, _, rest = words.partition("(")
    numbers = dict(part.split("=") for part in rest.rstrip(")").split(", ") if part)
    return type(_OBSERVATIONS[name])(**{key: float(value) for key, value in numbers.items()})


def _split(
    emg: Rectified, length: float | int, overlap: float | int, padded: bool, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Windows to train on and to validate."""
    windows = chop(emg, length, overlap, margin=_MARGIN, padded=padded)
    if len(emg.trials) >= 10:
        group = np.asarray(windows.trial)
    else:
        group = np.cumsum(np.r_[0, (np.arange(1, len(windows)) % 10 == 0) | (np.diff(windows.trial) > 0)])
    names = np.unique(group)
    held = np.asarray(jax.random.permutation(key, len(names)))[: len(names) // 5]
    chosen = np.isin(group, names[held])
    return windows.values[~chosen], windows.values[chosen]


def _check_channels(emg: Any, channels: tuple[str, ...], sfreq: float, name: str = "emg") -> None:
    if not isinstance(emg, Rectified):
        raise TypeError(f"{name}: {type(emg).__name__}; pass what emg.preprocess or emg.transform returns.")
    if emg.channels != channels:
        raise ValueError(
            f"{name}: channels {', '.join(emg.channels)}, the model was trained on {', '.join(channels)}; pass the "
            "same in the same order."
        )
    if emg.sfreq != sfreq:
        raise ValueError(f"{name}: {emg.sfreq:g} Hz, the model was trained at {sfreq:g} Hz; resample it.")
