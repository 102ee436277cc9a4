"""The sequential autoencoder, trained on EMG as a population (AutoLFADS)."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxm2m import _check
from jaxm2m import population as populations
from jaxm2m._types import PathLike
from jaxm2m.emg.lfads._activation import Activation, infer_activation
from jaxm2m.emg.lfads._model import LFADSConfig
from jaxm2m.emg.lfads._presets import PRESETS
from jaxm2m.emg.lfads._trainable import SequentialVAE, is_sequential_vae, parse_settings
from jaxm2m.emg.lfads._version_0_1 import adopt_settings, is_version_0_1, parse_settings_0_1
from jaxm2m.emg.preprocessing._rectified import Rectified
from jaxm2m.emg.preprocessing._windows import chop
from jaxm2m.population import Run, Schedule, SearchSpace

_STEP = 0.45  # s of a step of 400 windows of 112 bins and 12 channels for one member, on two cores
_MARGIN = 6  # bins: two standard deviations of the temporal shift


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
        Sampling rate, Hz.
    window
        Length of the windows that it was trained on, bins.
    overlap
        Bins by which they overlap.
    run
        The training run: history, hyperparameters, all members.
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
        emg: object,
        *,
        key: Key[Array, ""],
        samples: int = 200,
        member: int | None = None,
        padded: bool = False,
        progress: bool | None = None,
    ) -> Activation:
        """Infer the activation behind EMG, also of recordings that the model never saw.

        Parameters
        ----------
        emg
            `Rectified`, of the same channels and rate, preprocessed with the same numbers (`emg.transform(recording)`
            does that).
        key
            Draws the posterior samples.
        samples
            Number of posterior samples whose rates are averaged (the paper's 200); 0: one pass with all latents at
            their means.
        member
            The member of the population whose weights are used; None: the best of all.
        padded
            Whether trials hold margins of 6 bins on both sides, which are used, and left out of the result.
        progress
            Whether a progress bar is shown; None: on a terminal only.

        Returns
        -------
        Activation
            The activation, in units of `emg`, with factors and inferred inputs.

        Raises
        ------
        ValueError
            Other channels or another rate; a trial that is shorter than a window.
        """
        checked = _check_channels(emg, self.channels, self.sfreq)
        params = self.params
        if member is not None:
            count = len(self.run.members.index)
            if not 0 <= member < count:
                raise ValueError(f"member: {member}; the population has members 0 to {count - 1}.")
            params = jax.tree.map(lambda a: a[member], self.run.members.best.params)
        return infer_activation(
            params,
            self.trainable.config,
            checked,
            window=self.window,
            overlap=self.overlap,
            margin=self.trainable.margin if padded else 0,
            key=key,
            samples=samples,
            progress=progress,
        )


def fit(
    emg: Rectified,
    *,
    key: Key[Array, ""],
    valid: Rectified | None = None,
    preset: str = "single",
    population: int | None = None,
    directory: PathLike | None = None,
    source: Fit | None = None,
    config: LFADSConfig | None = None,
    space: SearchSpace | None = None,
    schedule: Schedule | None = None,
    batch_size: int | None = None,
    length: float | int = 0.2,
    overlap: float | int = 0.05,
    shift: float | int = 0.006,
    padded: bool = False,
    progress: bool | None = None,
) -> Fit:
    """Train the sequential autoencoder on rectified EMG (AutoLFADS, Wimalasena et al. 2022).

    Parameters
    ----------
    emg
        Rectified EMG of `preprocess`; leave flagged trials out with `emg.pick(~emg.flagged)`.
    key
        All randomness follows from it.
    valid
        The EMG that members are compared by; None: a fifth of `emg`, trials where there are ten or more, else blocks of
        ten windows each.
    preset
        "single": one model with settings by which joints were decoded well from one recording (a walking rat), in
        minutes; nothing is searched. "small": population-based training of 6 members with small batches, for a desktop;
        it searches learning rate and coordinated dropout near "single". Both compare by the bound of the likelihood.
        "paper": population-based training as published, 20 members, until 10 generations bring nothing: hours to days,
        of which a warning tells beforehand.
    population
        Number of members; None: the preset's. Of "single", the number of seeds, the best of which counts.
    directory
        Directory of the run, which may be killed and is continued by the same call; `emg.load` reads it.
    source
        A model trained on other muscles, sessions or subjects, whose dynamics are kept: only what reads these muscles
        in and out is trained (a linear map before the encoders, the affine map behind the factors). Muscles of the same
        name begin as the source has them, others at random.
    config
        The architecture; None: the paper's, or the source's.
    space, schedule, batch_size
        Hyperparameters, schedule and windows of a step, instead of the preset's.
    length, overlap
        Length of the windows, and by how much they overlap, s.
    shift
        Standard deviation of the temporal shift, s. The shift is drawn for each channel of the input and of the target,
        which keeps the model from events that channels share by chance. The model follows nothing that is fast against
        it: of oscillations at f Hz it learns exp(-(2 pi f shift)^2 / 2). The published 6 ms leave 0.75 at 20 Hz, 0.32
        at 40.
    padded
        Whether trials hold margins of 6 bins on both sides, for the temporal shift; else the margins are mirrored.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    Fit
        The trained model.

    Raises
    ------
    ValueError
        Too few windows; `valid` of other channels; a source at another rate; what `population.train` refuses.

    Warns
    -----
    UserWarning
        What `preset="paper"` will take.
    """
    chosen = PRESETS[_check.option(preset, tuple(PRESETS), "preset")]
    if not isinstance(emg, Rectified):
        raise TypeError(f"emg: {type(emg).__name__}; pass what emg.preprocess(recording) returns.")
    if source is not None:
        if config is not None:
            raise ValueError("config: given together with a source, which has its own; leave one of them out.")
        if source.sfreq != emg.sfreq:
            raise ValueError(f"source: trained at {source.sfreq:g} Hz, emg has {emg.sfreq:g} Hz; resample emg.")
        old = source.trainable.config
        config = replace(old, channels=len(emg.channels), readin=old.readin or old.channels)
    config = LFADSConfig(len(emg.channels)) if config is None else config
    if config.channels != len(emg.channels):
        raise ValueError(f"config: for {config.channels} channels, emg has {len(emg.channels)}; pass the same number.")
    split_key, train_key = jax.random.split(key)
    if valid is None:
        train, validation = _split_windows(emg, length, overlap, padded, split_key)
    else:
        _check_channels(valid, emg.channels, emg.sfreq, "valid")
        train, validation = (chop(part, length, overlap, margin=_MARGIN, padded=padded).values for part in (emg, valid))
    if not len(train) or not len(validation):
        raise ValueError(
            f"emg: {len(train)} windows to train on and {len(validation)} to validate; record longer, or shorten "
            "`length`."
        )
    batch_size = min(len(train), chosen.batch_size if batch_size is None else _check.integer(batch_size, "batch_size"))
    epoch = len(train) // batch_size
    schedule = chosen.make_schedule(epoch) if schedule is None else schedule
    steps = schedule.epochs * schedule.generations * epoch
    trainable = SequentialVAE(
        config,
        offset=tuple(np.asarray(config.observation.inputs(jnp.asarray(train)), np.float64).mean((0, 1)).tolist()),
        margin=_MARGIN,
        shift=float(_check.positive(shift, "shift")) * emg.sfreq,
        ramp=max(chosen.ramp, 50 * epoch) if chosen.published else chosen.ramp,
        decay=steps if chosen.decay else 0,
        trained=("readin", "readout") if source else (),
        compared="bound" if chosen.bound else "likelihood",
    )
    members = chosen.members if population is None else _check.integer(population, "population")
    if preset == "paper":
        _warn_of_duration(members, steps, batch_size, train.shape[1], schedule)
    initial_params = None
    if source is not None:
        train_key, start_key = jax.random.split(train_key)
        initial_params = jax.vmap(lambda k: _transfer_weights(source, trainable, emg.channels, k))(
            jax.random.split(start_key, members)
        )
    bins = train.shape[1] - 2 * _MARGIN
    space = chosen.scale_space(chosen.space, bins * config.channels) if space is None else space
    metadata = {
        "channels": list(emg.channels),
        "sfreq": emg.sfreq,
        "window": bins,
        "overlap": round(float(overlap) * emg.sfreq),
        "preprocessing": emg.preprocessing.describe(),
        "preset": preset,
    }
    dtype = np.dtype(jnp.result_type(float))
    run = populations.train(
        adopt_settings(trainable, directory),
        space,
        populations.Dataset.holdout(train.astype(dtype), validation.astype(dtype)),
        key=train_key,
        schedule=schedule,
        members=members,
        batch_size=batch_size,
        initial_params=initial_params,
        directory=directory,
        metadata=metadata,
        progress=progress,
    )
    return _make_fit(trainable, metadata, run)


def _warn_of_duration(members: int, steps: int, batch_size: int, bins: int, schedule: Schedule) -> None:
    """Tell what population-based training as published will take, before it begins."""
    hours = members * steps * _STEP * (batch_size / 400) * (bins / 112) / 3600
    warnings.warn(
        f'preset: "paper" trains {members} members for up to {schedule.generations} generations, {steps} steps each: '
        f"up to {hours:.2g} h on two cores (a third of that where it stops as early as published runs did), less on a "
        'GPU; preset="single" takes minutes.',
        stacklevel=3,
    )


def load(directory: PathLike) -> Fit:
    """Read a run of `fit`, also one that is still being trained.

    Parameters
    ----------
    directory
        Directory of the run. Runs of version 0.1 are read too.

    Returns
    -------
    Fit
        The trained model.

    Raises
    ------
    FileNotFoundError, ValueError
        No run is there, none with a checkpoint yet, or one of another model.
    """
    run_config = populations.read_config(directory)
    metadata, model = run_config.get("notes", {}), run_config["model"]
    old = is_version_0_1(model)
    if not (old or is_sequential_vae(model)) or "channels" not in metadata:
        raise ValueError(
            f"directory: {Path(directory).expanduser()} holds a run of another model; name one of emg.fit."
        )
    try:
        trainable = parse_settings_0_1(model) if old else parse_settings(model)
        channels = dict.fromkeys(metadata["channels"])
        if len(channels) != trainable.config.channels or not all(isinstance(name, str) for name in channels):
            raise ValueError("channels")
        for number in (metadata["sfreq"], metadata["window"], metadata["overlap"]):
            float(number)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"directory: the run.json of {directory} is damaged ({error}); bring it back, or train again."
        ) from None
    return _make_fit(trainable, metadata, populations.load(directory, adopt_settings(trainable, directory)))


def _make_fit(trainable: SequentialVAE, metadata: dict[str, Any], run: Run) -> Fit:
    return Fit(
        trainable,
        tuple(metadata["channels"]),
        float(metadata["sfreq"]),
        int(metadata["window"]),
        int(metadata["overlap"]),
        run,
    )


def _transfer_weights(source: Fit, trainable: SequentialVAE, channels: tuple[str, ...], key: Key[Array, ""]) -> PyTree:
    """Combine the source's weights with new ones that read other channels in and out."""
    params = trainable.init(key)
    theirs = jax.tree.map(jnp.asarray, source.params)
    readin = theirs.get("readin", jnp.eye(len(source.channels)))
    pairs = [(i, source.channels.index(name)) for i, name in enumerate(channels) if name in source.channels]
    # the columns of the readout are the observation's parameters, each for all channels
    per = trainable.config.observation.parameters
    new = [k * len(channels) + i for k in range(per) for i, _ in pairs]
    old = [k * len(source.channels) + j for k in range(per) for _, j in pairs]
    rows = np.array(pairs, int).reshape(-1, 2).T
    readout = jax.tree.map(
        lambda a, b: a.at[..., np.array(new, int)].set(b[..., np.array(old, int)]), params["readout"], theirs["readout"]
    )
    readin = params["readin"].at[rows[0]].set(readin[rows[1]])
    return theirs | {"offset": params["offset"], "readin": readin, "readout": readout}


def _split_windows(
    emg: Rectified, length: float | int, overlap: float | int, padded: bool, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Divide windows into those to train on and those to validate."""
    windows = chop(emg, length, overlap, margin=_MARGIN, padded=padded)
    if len(emg.trials) >= 10:
        group = np.asarray(windows.trial)
    else:
        group = np.cumsum(np.r_[0, (np.arange(1, len(windows)) % 10 == 0) | (np.diff(windows.trial) > 0)])
    names = np.unique(group)
    validation = np.asarray(jax.random.permutation(key, len(names)))[: len(names) // 5]
    chosen = np.isin(group, names[validation])
    return windows.values[~chosen], windows.values[chosen]


def _check_channels(emg: object, channels: tuple[str, ...], sfreq: float, name: str = "emg") -> Rectified:
    if not isinstance(emg, Rectified):
        raise TypeError(f"{name}: {type(emg).__name__}; pass what emg.preprocess or emg.transform returns.")
    if emg.channels != channels:
        raise ValueError(
            f"{name}: channels {', '.join(emg.channels)}, the model was trained on {', '.join(channels)}; pass the "
            "same in the same order."
        )
    if emg.sfreq != sfreq:
        raise ValueError(f"{name}: {emg.sfreq:g} Hz, the model was trained at {sfreq:g} Hz; resample it.")
    return emg
