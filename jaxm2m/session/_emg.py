"""EMG recordings: samples with their rate, channels and trials, from arrays and files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Int

from jaxm2m import _check, files
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.session import _emg_files
from jaxm2m.session._emg_files import EmgContents, MneData


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """EMG as it was recorded.

    Attributes
    ----------
    samples : (n_sample, n_channel) float array
        In `unit`; whatever the file had, NaN included.
    sfreq : float
        Samples a second, Hz.
    channels : tuple of str
        Names (muscles).
    segments : (n_segment, 2) int array
        First sample and first sample after it of each contiguous piece, in order; they make up all samples. Filters
        start anew in each.
    trials : (n_trial, 2) int array
        First sample and first sample after it of each trial, each inside a segment; where the source has no trials,
        the segments.
    unit : str
        Of `samples`, as the file or the caller said; "" where unknown.
    """

    samples: Float[np.ndarray, "n_sample n_channel"]
    sfreq: float
    channels: tuple[str, ...]
    segments: Int[np.ndarray, "n_segment 2"]
    trials: Int[np.ndarray, "n_trial 2"]
    unit: str = ""

    def __repr__(self) -> str:
        return (
            f"Recording({len(self.channels)} channels, {self.duration:.6g} s at {self.sfreq:.6g} Hz, "
            f"{len(self.trials)} trials, unit={self.unit!r})"
        )

    @property
    def duration(self) -> float:
        """Duration of all segments in sum (s)."""
        return len(self.samples) / self.sfreq

    def by_trial(self) -> tuple[np.ndarray, ...]:
        """Split the samples into trials.

        Returns
        -------
        tuple of (n_time, n_channel) arrays
            The samples of each trial, in `unit`.
        """
        return tuple(self.samples[start:stop] for start, stop in self.trials)

    def pick(self, channels: Sequence[str] | None = None, trials: ArrayLike | slice | None = None) -> "Recording":
        """Select channels and trials.

        The samples between trials stay: filters need them.

        Parameters
        ----------
        channels
            Names of the channels, in the order wanted. Default: all.
        trials
            Mask (n_trial,), slice or indices of the trials (no unit). Default: all.

        Returns
        -------
        Recording
            With these channels and trials.
        """
        rows = slice(None) if trials is None else trials if isinstance(trials, slice) else np.asarray(trials)
        return replace(
            self,
            samples=self.samples[:, channel_indices(self.channels, channels)],
            channels=self.channels if channels is None else tuple(channels),
            trials=self.trials[rows],
        )

    def save(self, path: PathLike) -> Path:
        """Write the recording to HDF5, from which `load_emg` reads it.

        Parameters
        ----------
        path
            The file to make or replace; it appears whole or not at all.

        Returns
        -------
        Path
            The file written.
        """
        path = files.check_output(path)
        with files.atomic(path) as temporary, h5py.File(temporary, "w") as file:
            file.create_dataset("samples", data=self.samples, compression="gzip", compression_opts=1, shuffle=True)
            file.attrs.update(sfreq=self.sfreq, unit=self.unit, content="emg recording")
            file["channels"] = list(self.channels)
            file["segments"], file["trials"] = self.segments, self.trials
        return path

    def fingerprint(self) -> str:
        """Compute a checksum of the numbers; names do not count.

        Returns
        -------
        str
            SHA-256, hexadecimal.
        """
        return files.fingerprint(self.samples, self.sfreq, self.segments, self.trials)


def load_emg(
    source: PathLike | ArrayLike | MneData,
    sfreq: float | int | None = None,
    *,
    name: str | None = None,
    channels: Sequence[str] | None = None,
    trials: ArrayLike | None = None,
    axes: str | None = None,
    unit: str | None = None,
) -> Recording:
    """Load EMG from arrays, a file, or MNE.

    - Arrays: (n_sample, n_channel), (n_trial, n_sample, n_channel), or a list of (n_sample, n_channel), a trial each.
    - `.h5`, `.hdf5`; `.mat` (version 5 and 7.3): a data set of two or three axes. Rate and names are taken from
      attributes or neighbours called "sfreq", "fs", "sampling_rate", ... and "channels", "labels", "muscles", ...
    - `.nwb` (needs pynwb): a time series of `acquisition` or of a processing module, with the table of trials.
    - `.csv`, `.tsv`, `.txt`: a column a channel, with or without a row of names; columns called "time" (s),
      "time_ms" and "trial" are understood.
    - `.c3d` (needs ezc3d): the analog channels.
    - MNE `Raw` and `Epochs`, and any other file that MNE reads (EDF, BDF, BrainVision, ...; BIDS: the recording, with
      its `_channels.tsv` beside it): the EMG channels, or all but triggers where none is marked as EMG, V. Needs mne.

    Where times are given and jump, a new segment begins.

    Parameters
    ----------
    source
        Samples as an array (n_sample, n_channel), (n_trial, n_sample, n_channel) or a list of trials, in any unit; the
        path of a file; or an MNE object.
    sfreq
        Sampling rate, Hz. Needed where the source does not have it; if it does, they must agree.
    name
        Which data set, variable ("emg", or "data.emg" in a structure) or time series of the file; needed where there
        are several.
    channels
        Names in the order of the source, instead of its own or "1", "2", ...
    trials
        (n_trial, 2) index of the first sample of each trial and of the first sample after it, where the source has no
        trials.
    axes
        The source's order of axes, such as "channel sample" or "sample channel trial"; by default "sample channel" or
        "trial sample channel".
    unit
        Of the samples, where the source does not name it.

    Returns
    -------
    Recording
        Samples with their rate, channels, segments and trials.

    Raises
    ------
    ValueError
        What is missing (rate, name), or wrong: axes, rates that differ, trials outside the recording.
    ImportError
        The package that reads such a file is not installed; how to install it.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> recording = jm.session.load_emg(np.zeros((2, 1000, 3)), sfreq=2000, channels=("TA", "GM", "SOL"))
    >>> recording
    Recording(3 channels, 1 s at 2000 Hz, 2 trials, unit='')
    """
    if isinstance(source, (str, os.PathLike)):
        contents, where = _emg_files.read_contents(_check.file(source, "source"), name), f"source: {os.fspath(source)}"
    elif hasattr(source, "get_data") and hasattr(source, "info"):
        contents, where = _emg_files.from_mne(source), "source"
    else:
        contents, where = EmgContents(source), "source"
    pieces = _split_pieces(contents.values, axes, where)
    samples = np.concatenate(pieces)
    bounds = np.cumsum([0, *map(len, pieces)])
    segments = np.stack([bounds[:-1], bounds[1:]], -1)
    if contents.breaks is not None and len(pieces) == 1:
        inside = contents.breaks[(contents.breaks > 0) & (contents.breaks < len(samples))]
        bounds = np.unique([0, *inside, len(samples)])
        segments = np.stack([bounds[:-1], bounds[1:]], -1)
    trials_label = "trials"
    if trials is None:
        trials, trials_label = segments if contents.trials is None else contents.trials, f"{where}, trials"
    names = channels if channels is not None else contents.channels
    names = [str(i + 1) for i in range(samples.shape[1])] if names is None else [str(n) for n in names]
    if len(names) != samples.shape[1]:
        raise ValueError(
            f"channels: {len(names)} names, but {where.removeprefix('source: ')} has {samples.shape[1]} channels; "
            "match them."
        )
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        beside = "" if channels is not None else f" in {where.removeprefix('source: ')}"
        listed = ", ".join(map(_emg_files.quote_name, twice[:20]))
        raise ValueError(f"channels: {listed} named more than once{beside}; give each its own name.")
    return Recording(
        samples,
        _choose_rate(sfreq, contents.sfreq, where),
        tuple(names),
        segments,
        _check_trials(trials, segments, trials_label),
        unit if unit is not None else contents.unit,
    )


def channel_indices(have: Sequence[str], wanted: Sequence[str] | None) -> list[int]:
    """Where `wanted` names stand in `have`; all where none are wanted."""
    if wanted is None:
        return list(range(len(have)))
    if isinstance(wanted, str):
        raise TypeError(f"channels: {wanted!r}; pass a list of names.")
    missing = [c for c in wanted if c not in have]
    if missing:
        raise ValueError(f"channels: no {', '.join(missing)}; choose from {', '.join(have)}.")
    return [list(have).index(c) for c in wanted]


def _split_pieces(values: Any, axes: str | None, where: str) -> list[np.ndarray]:
    """Trials or the whole, (n_sample, n_channel) each."""
    if isinstance(values, (list, tuple)) and values and np.ndim(values[0]) == 2:
        arrays = [np.asarray(_check.array(v, f"{where}[{i}]"), np.float64) for i, v in enumerate(values)]
    else:
        array = np.asarray(_check.array(values, where), np.float64)
        if array.ndim not in (2, 3):
            raise ValueError(
                f"{where}: shape {array.shape}; pass (n_sample, n_channel) or (n_trial, n_sample, n_channel)."
            )
        default = ("sample", "channel") if array.ndim == 2 else ("trial", "sample", "channel")
        order = default if axes is None else tuple(axes.split())
        if sorted(order) != sorted(default):
            raise ValueError(
                f"axes: {axes!r} for shape {array.shape}; name {', '.join(default)} in the order they have."
            )
        array = np.transpose(array, [order.index(a) for a in default])
        if axes is None and array.ndim == 2 and array.shape[0] < array.shape[1]:
            raise ValueError(
                f"{where}: {array.shape[0]} samples of {array.shape[1]} channels; if the axes are the other way round, "
                'pass axes="channel sample" (if not, axes="sample channel").'
            )
        arrays = [array] if array.ndim == 2 else list(array)
    for i, piece in enumerate(arrays):
        if piece.ndim != 2 or not piece.size or piece.shape[1] != arrays[0].shape[1]:
            raise ValueError(f"{where}: trial {i} has shape {piece.shape}; all must be (n_sample, n_channel).")
    if not arrays:
        raise ValueError(f"{where}: no trial; pass at least one.")
    return arrays


def _choose_rate(sfreq: float | int | None, declared: float | None, where: str) -> float:
    if sfreq is not None:
        sfreq = float(_check.positive(sfreq, "sfreq"))
    if declared is not None and not (np.isfinite(declared) and declared > 0):
        raise ValueError(f"{where} tells a sampling rate of {declared:g} Hz; correct it there.")
    if sfreq is None and declared is None:
        raise ValueError(f"sfreq: not given, and {where} does not tell it; pass the sampling rate in Hz.")
    if sfreq is not None and declared is not None and abs(sfreq / declared - 1) > 1e-3:
        raise ValueError(
            f"sfreq: {sfreq:g} Hz, but {where} tells {declared:.6g} Hz; leave it out, or correct the file."
        )
    return float(declared if declared is not None else sfreq)  # type: ignore[arg-type]


def _check_trials(trials: ArrayLike, segments: np.ndarray, where: str) -> np.ndarray:
    trials = np.asarray(_check.array(trials, where))
    if trials.ndim != 2 or trials.shape[1] != 2 or not len(trials) or trials.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: {trials.dtype} of shape {trials.shape}; pass whole numbers (n_trial, 2): first sample, and "
            "first sample after the trial."
        )
    trials = trials.astype(np.int64)
    home = np.searchsorted(segments[:, 0], trials[:, 0], side="right") - 1
    wrong = (trials[:, 0] < 0) | (trials[:, 1] <= trials[:, 0]) | (trials[:, 1] > segments[home, 1])
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{where}: trial {i} from {trials[i, 0]} to {trials[i, 1]} is empty, or not inside one contiguous segment "
            f"of the {segments[-1, 1]} samples; correct it."
        )
    return trials
