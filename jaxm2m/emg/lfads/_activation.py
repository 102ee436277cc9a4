"""Muscle activation, inferred window by window and put together again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check, files
from jaxm2m._progress import progress_bar
from jaxm2m._types import PathLike
from jaxm2m.emg.lfads._model import LFADSConfig
from jaxm2m.emg.lfads._posterior import posterior, posterior_means
from jaxm2m.emg.preprocessing._rectified import Rectified, check_spans
from jaxm2m.emg.preprocessing._windows import chop, merge

_BATCH_SIZE = 64  # windows at once


@dataclass(frozen=True, eq=False, repr=False)
class Activation:
    """Muscle activation, with the factors and inputs that the model infers behind it.

    Attributes
    ----------
    samples : (n_sample, n_channel) array
        Expected rectified EMG, in the units of the input.
    factors : (n_sample, n_factor) array
        Factors that the activation is read out from.
    inputs : (n_sample, n_input) array
        u(t), the inferred inputs of the generator.
    sfreq : float
        Sampling rate, Hz.
    channels : tuple of str
        Names of the channels (muscles).
    trials : (n_trial, 2) int array
        First sample and first sample after it of each trial.
    """

    samples: Float[np.ndarray, "n_sample n_channel"]
    factors: Float[np.ndarray, "n_sample n_factor"]
    inputs: Float[np.ndarray, "n_sample n_input"]
    sfreq: float
    channels: tuple[str, ...]
    trials: Int[np.ndarray, "n_trial 2"]

    def __repr__(self) -> str:
        return f"Activation({len(self.channels)} channels, {len(self.trials)} trials at {self.sfreq:g} Hz)"

    def by_trial(self) -> tuple[np.ndarray, ...]:
        """Split the activation into trials.

        Returns
        -------
        tuple of arrays
            The activation in each trial, (n_time, n_channel), in units of the input.
        """
        return tuple(self.samples[start:stop] for start, stop in self.trials)

    def to_mne(self) -> Any:
        """Make an MNE `RawArray` with trials as annotations.

        Returns
        -------
        mne.io.RawArray
            The activation as EMG channels.

        Raises
        ------
        ImportError
            mne is not installed.
        """
        try:
            import mne
        except ImportError:
            raise ImportError("Activation.to_mne: mne is missing; python -m pip install mne.") from None
        raw = mne.io.RawArray(self.samples.T, mne.create_info(list(self.channels), self.sfreq, "emg"), verbose="ERROR")
        onset, stop = self.trials.T / self.sfreq
        return raw.set_annotations(mne.Annotations(onset, stop - onset, ["trial"] * len(onset)))

    def save(self, path: PathLike) -> Path:
        """Write the activation to HDF5, whole or not at all; `Activation.load` reads it.

        Parameters
        ----------
        path
            The file to be written.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = files.check_output(path)
        with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
            for name in ("samples", "factors", "inputs", "trials"):
                file[name] = getattr(self, name)
            file["channels"] = list(self.channels)
            file.attrs.update(content="muscle activation", sfreq=self.sfreq)
        return path

    @classmethod
    def load(cls, path: PathLike) -> "Activation":
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The HDF5 file.

        Returns
        -------
        Activation
            The activation of the file.

        Raises
        ------
        ValueError
            The file holds something else, or is damaged.
        """
        with files.open_hdf5(path) as file:
            if file.text("content") != "muscle activation":
                raise ValueError(f"path: {path} holds no muscle activation; it was not written by Activation.save.")
            arrays = file.arrays(
                {"samples": "float sample channel", "factors": "float sample factor", "inputs": "float sample input"}
                | {"trials": "int trial 2", "channels": "text channel"}
            )
            sfreq = file.number("sfreq")
        check_spans(arrays["trials"], len(arrays["samples"]), file.label)
        channels = tuple(map(str, arrays.pop("channels")))
        return cls(sfreq=sfreq, channels=channels, **arrays)


def infer_activation(
    params: PyTree,
    config: LFADSConfig,
    emg: Rectified,
    *,
    window: int,
    overlap: int,
    margin: int,
    key: Key[Array, ""],
    samples: int,
    progress: bool | None,
) -> Activation:
    """Infer the activation in all windows of `emg`, and merge them; see `Fit.activation`.

    Parameters
    ----------
    params, config
        The model.
    emg
        Rectified EMG.
    window, overlap
        Length of the windows, and by how much they overlap, bins.
    margin
        Bins at both ends of a trial that are used, since windows know least at their edges, and left out at the end.
    key
        Draws the posterior samples.
    samples
        How many posterior samples are averaged; 0: one pass with all latents at their means.
    progress
        Whether a progress bar is shown; None: on a terminal only.
    """
    _check.integer(samples, "samples", minimum=0)
    cut = chop(emg, window / emg.sfreq, overlap / emg.sfreq)
    data = cut.values.astype(jnp.result_type(float))
    outputs = []
    with progress_bar(len(data), "activation", unit="windows", enabled=progress) as advance:
        for number, start in enumerate(range(0, len(data), _BATCH_SIZE)):
            part = data[start : start + _BATCH_SIZE]
            # all parts alike, so that one program serves them
            full = jnp.asarray(
                np.concatenate([part, np.repeat(part[-1:], min(_BATCH_SIZE, len(data)) - len(part), axis=0)])
            )
            if samples:
                out = posterior(params, config, full, jax.random.fold_in(key, number), samples)
            else:
                out = posterior_means(params, config, full)
            outputs.append([np.asarray(a)[: len(part)] for a in (out.rates, out.factors, out.inputs)])
            advance(len(part))
    rates, factors, inputs = (
        [trial[margin : len(trial) - margin] for trial in merge(np.concatenate(parts), cut)]
        for parts in zip(*outputs, strict=True)
    )
    edges = np.cumsum([0, *map(len, rates)])
    return Activation(
        np.concatenate(rates),
        np.concatenate(factors),
        np.concatenate(inputs),
        emg.sfreq,
        emg.channels,
        np.stack([edges[:-1], edges[1:]], -1),
    )
