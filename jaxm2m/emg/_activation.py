"""Muscle activation, inferred window by window and put together again."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxm2m import _check, files
from jaxm2m._progress import progress
from jaxm2m.emg._model import Sizes
from jaxm2m.emg._posterior import posterior, posterior_means
from jaxm2m.emg._rectified import Rectified, check_spans
from jaxm2m.emg._windows import chop, merge

_PART = 64  # windows at once


@dataclass(frozen=True, eq=False, repr=False)
class Activation:
    """Muscle activation, and what the model holds to be behind it.

    Attributes
    ----------
    samples : (n_sample, n_channel) array
        Expected rectified EMG, in the units of the input.
    factors : (n_sample, n_factor) array
    inputs : (n_sample, n_input) array
        u(t), the inferred inputs of the generator.
    sfreq : float
        Hz.
    channels : tuple of str
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
        """The activation in each trial, (n_time, n_channel) each."""
        return tuple(self.samples[start:stop] for start, stop in self.trials)

    def to_mne(self) -> Any:
        """An MNE `RawArray` with trials as annotations. Needs mne."""
        try:
            import mne
        except ImportError:
            raise ImportError("Activation.to_mne: mne is missing; python -m pip install mne.") from None
        raw = mne.io.RawArray(self.samples.T, mne.create_info(list(self.channels), self.sfreq, "emg"), verbose="ERROR")
        onset, stop = self.trials.T / self.sfreq
        return raw.set_annotations(mne.Annotations(onset, stop - onset, ["trial"] * len(onset)))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to HDF5, whole or not at all; `Activation.load` reads it."""
        path = files.check_output(path)
        with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
            for name in ("samples", "factors", "inputs", "trials"):
                file[name] = getattr(self, name)
            file["channels"] = list(self.channels)
            file.attrs.update(content="muscle activation", sfreq=self.sfreq)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Activation":
        """Read what `save` wrote."""
        with files.open_hdf5(path) as file:
            if file.text("content") != "muscle activation":
                raise ValueError(f"path: {path} holds no muscle activation; it was not written by Activation.save.")
            found = file.arrays(
                {"samples": "float sample channel", "factors": "float sample factor", "inputs": "float sample input"}
                | {"trials": "int trial 2", "channels": "text channel"}
            )
            sfreq = file.number("sfreq")
        check_spans(found["trials"], len(found["samples"]), file.told)
        channels = tuple(map(str, found.pop("channels")))
        return cls(sfreq=sfreq, channels=channels, **found)


def activation(
    params: PyTree,
    sizes: Sizes,
    emg: Rectified,
    *,
    window: int,
    overlap: int,
    margin: int,
    key: Key[Array, ""],
    samples: int,
    show: bool | None,
) -> Activation:
    """Posterior means of all windows of `emg`, merged; see `Fit.activation`.

    Parameters
    ----------
    params, sizes
        The model.
    emg
        Data.
    window, overlap
        Bins.
    margin
        Bins at both ends of a trial that are used, since windows know least at their edges, and left out at the end.
    key, samples
        Of the posterior; without samples, the latents' means.
    show
        Progress.
    """
    _check.integer(samples, "samples", minimum=0)
    cut = chop(emg, window / emg.sfreq, overlap / emg.sfreq)
    data = cut.values.astype(jnp.result_type(float))
    found = []
    with progress(len(data), "activation", unit="windows", show=show) as advance:
        for number, start in enumerate(range(0, len(data), _PART)):
            part = data[start : start + _PART]
            # all parts alike, so that one program serves them
            full = jnp.asarray(np.concatenate([part, np.repeat(part[-1:], min(_PART, len(data)) - len(part), axis=0)]))
            if samples:
                out = posterior(params, sizes, full, jax.random.fold_in(key, number), samples)
            else:
                out = posterior_means(params, sizes, full)
            found.append([np.asarray(a)[: len(part)] for a in (out.rates, out.factors, out.inputs)])
            advance(len(part))
    rates, factors, inputs = (
        [trial[margin : len(trial) - margin] for trial in merge(np.concatenate(parts), cut)]
        for parts in zip(*found, strict=True)
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
