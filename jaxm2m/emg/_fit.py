"""The sequential autoencoder, trained on EMG as a population (AutoLFADS)."""

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
from jaxm2m.emg._presets import PRESETS
from jaxm2m.emg._rectified import Rectified
from jaxm2m.emg._trainable import SequentialVAE
from jaxm2m.emg._windows import chop
from jaxm2m.population import Run, Schedule, Space

_MARGIN = 6  # bins: two standard deviations of the temporal shift
_OBSERVATIONS = {type(o).__name__: o for o in (Gamma(), Gaussian(), Poisson())}


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
    shift: float | int = 0.006,
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
        members and smaller batches, for a desktop; it searches learning rate and coordinated dropout near "single".
        "single": one model with settings by which joints were decoded well from one recording (a walking rat), in
        minutes; nothing is searched. With `population=3`, three seeds of it. Both compare by the bound of the
        likelihood.
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
    shift
        s, standard deviation of the temporal shift, drawn for each channel of the input and of the target, which keeps
        the model from events that channels share by chance. The model follows nothing that is fast against it: of
        oscillations at f Hz it learns exp(-(2 pi f shift)^2 / 2). The published 6 ms leave 0.75 at 20 Hz, 0.32 at 40.
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
        shift=float(_check.positive(shift, "shift")) * emg.sfreq,
        ramp=max(chosen.ramp, 50 * epoch) if chosen.published else chosen.ramp,
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
    try:
        trainable = _described(model)
        told = dict.fromkeys(notes["channels"]), float(notes["sfreq"]), int(notes["window"]), int(notes["overlap"])
        if len(told[0]) != trainable.sizes.channels or not all(isinstance(name, str) for name in told[0]):
            raise ValueError("channels")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"directory: the run.json of {Path(directory)} is damaged ({error}); bring it back, or train again."
        ) from None
    return _fitted(trainable, notes, populations.load(directory, trainable))


def _described(model: dict[str, Any]) -> SequentialVAE:
    """From `SequentialVAE.settings`."""
    own = {name: model.pop(name) for name in ("margin", "shift", "ramp", "decay")}
    offset = tuple(float(x) for x in model.pop("offset").split())
    trained = tuple(model.pop("trained").split())
    compared = model.pop("compared")
    observation = model.pop("observation")
    sizes = Sizes(**model, observation=_observation(observation))
    return SequentialVAE(sizes, offset=offset, trained=trained, compared=compared, **own)


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
