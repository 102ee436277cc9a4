"""EMG recordings: samples with their rate, channels and trials, and what their source held besides."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxm2m import _check, files
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.session._emg_contents import ReportRow, quote_name


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
    kinds : tuple of str
        Type of each channel ("EMG"), as the source said; "" where it does not.
    bad_spans : (n_bad, 2) int array
        First sample and first sample after it of what the source marks as bad.
    events : tuple of (name, first sample, first sample after)
        Events and stretches that the source names.
    left_out : tuple of (channel, type, unit, status, note)
        What else the source held, and what became of it; `report` tabulates it.
    """

    samples: Float[np.ndarray, "n_sample n_channel"]
    sfreq: float
    channels: tuple[str, ...]
    segments: Int[np.ndarray, "n_segment 2"]
    trials: Int[np.ndarray, "n_trial 2"]
    unit: str = ""
    kinds: tuple[str, ...] = ()
    bad_spans: Int[np.ndarray, "n_bad 2"] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    events: tuple[tuple[str, int, int], ...] = ()
    left_out: tuple[tuple[str, str, str, str, str], ...] = ()

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
        chosen = channel_indices(self.channels, channels)
        kinds = self._kinds()
        others = [
            ReportRow(name, kinds[i], self.unit, "left out", "not picked")
            for i, name in enumerate(self.channels)
            if i not in chosen
        ]
        return replace(
            self,
            samples=self.samples[:, chosen],
            channels=tuple(self.channels[i] for i in chosen),
            trials=self.trials[rows],
            kinds=tuple(kinds[i] for i in chosen),
            left_out=(*self.left_out, *others),
        )

    def report(self) -> pd.DataFrame:
        """Tabulate what the source held, and what became of it.

        Returns
        -------
        pandas.DataFrame
            A row for each channel, then one for each column or stretch that is none: channel, type, unit, status
            ("used", "left out", "marked") and note, which says why.

        Examples
        --------
        >>> import numpy as np
        >>> import jaxm2m as jm
        >>> recording = jm.session.load_emg(np.zeros((1000, 2)), 2000, channels=("TA", "SOL"))
        >>> recording.pick(channels=["TA"]).report().to_numpy().tolist()
        [['TA', '', '', 'used', ''], ['SOL', '', '', 'left out', 'not picked']]
        """
        return pd.DataFrame(self.report_rows(), columns=list(ReportRow._fields))

    def report_rows(self) -> tuple[tuple[str, str, str, str, str], ...]:
        """List the rows of `report`.

        Returns
        -------
        tuple of (channel, type, unit, status, note)
            All text.
        """
        kinds = self._kinds()
        rows = [(name, kinds[i], self.unit, "used", "") for i, name in enumerate(self.channels)]
        return (*rows, *self.left_out)

    def _kinds(self) -> tuple[str, ...]:
        return self.kinds or ("",) * len(self.channels)

    def with_trials(self, spans: ArrayLike) -> "Recording":
        """Set the trials by times.

        Parameters
        ----------
        spans
            (n_trial, 2) start and stop of each trial, s from the recording's first sample.

        Returns
        -------
        Recording
            The same samples with these trials.

        Raises
        ------
        ValueError
            Trials that are empty, or not inside one contiguous segment.

        Examples
        --------
        >>> import numpy as np
        >>> import jaxm2m as jm
        >>> jm.session.load_emg(np.zeros((4000, 2)), 2000).with_trials([(0, 0.5), (1, 2)])
        Recording(2 channels, 2 s at 2000 Hz, 2 trials, unit='')
        """
        times = np.asarray(_check.finite(spans, "spans"), np.float64)
        if times.ndim != 2 or times.shape[1] != 2:
            raise ValueError(f"spans: shape {times.shape}; pass (n_trial, 2): start and stop, s.")
        return replace(self, trials=check_trials(np.rint(times * self.sfreq).astype(int), self.segments, "spans"))

    def with_cycles(self, times: ArrayLike) -> "Recording":
        """Make a trial of each cycle, such as a stride: from each time to the next.

        Parameters
        ----------
        times
            (n,) beginnings of the cycles, s from the recording's first sample; the last one ends the last cycle.

        Returns
        -------
        Recording
            The same samples with n - 1 trials; fewer where a gap of the recording lies between two times.

        Raises
        ------
        ValueError
            Fewer than two times, or times that do not increase.

        Examples
        --------
        >>> import numpy as np
        >>> import jaxm2m as jm
        >>> jm.session.load_emg(np.zeros((4000, 2)), 2000).with_cycles([0.2, 0.7, 1.3, 1.8]).trials.tolist()
        [[400, 1400], [1400, 2600], [2600, 3600]]
        """
        at = np.asarray(_check.finite(times, "times"), np.float64)
        if at.ndim != 1 or len(at) < 2 or (np.diff(at) <= 0).any():
            raise ValueError(f"times: shape {at.shape}; pass at least two times (s) that increase.")
        first = np.rint(at * self.sfreq).astype(int)
        if first[0] < 0 or first[-1] > len(self.samples):
            raise ValueError(f"times: {at[0]:g} to {at[-1]:g} s reach beyond the recording's {self.duration:g} s.")
        home = np.searchsorted(self.segments[:, 0], first[:-1], side="right") - 1
        whole = first[1:] <= self.segments[home, 1]
        spans = np.stack([first[:-1], first[1:]], -1)[whole]
        return replace(self, trials=check_trials(spans, self.segments, "times"))

    def with_events(self, name: str) -> "Recording":
        """Make trials of the source's events of one name: of their stretches, or from each to the next.

        Parameters
        ----------
        name
            Of annotations (MNE), of `trial_type` or `value` in events.tsv (BIDS), of c3d events.

        Returns
        -------
        Recording
            The same samples with these trials.

        Raises
        ------
        ValueError
            No such event.
        """
        spans = [(start, stop) for event, start, stop in self.events if event == name]
        if not spans:
            listed = ", ".join(map(quote_name, dict.fromkeys(event for event, _, _ in self.events))) or "none"
            raise ValueError(f"name: no event {name!r}; the recording has {listed}.")
        if all(stop > start for start, stop in spans):
            return replace(self, trials=check_trials(np.array(sorted(spans)), self.segments, f"events {name!r}"))
        return self.with_cycles(np.unique([start for start, _ in spans]) / self.sfreq)

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
            if self.kinds or self.left_out or self.events or len(self.bad_spans):
                report = {"kinds": self._kinds(), "rows": self.left_out, "events": self.events}
                file.attrs["report"] = json.dumps(report | {"bad_spans": self.bad_spans.tolist()})
        return path

    def fingerprint(self) -> str:
        """Compute a checksum of the numbers; names do not count.

        Returns
        -------
        str
            SHA-256, hexadecimal.
        """
        bad = [self.bad_spans] if len(self.bad_spans) else []
        return files.fingerprint(self.samples, self.sfreq, self.segments, self.trials, *bad)


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


def check_trials(trials: ArrayLike, segments: np.ndarray, where: str) -> np.ndarray:
    """Refuse trials that are no whole numbers, or not inside one segment."""
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
