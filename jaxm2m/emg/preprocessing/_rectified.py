"""Preprocessed EMG, and what was done to it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxm2m import _check, files
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.emg.preprocessing import _line_noise, _steps
from jaxm2m.emg.preprocessing._artefacts import screen
from jaxm2m.emg.preprocessing._plausible import check_spectrum
from jaxm2m.emg.preprocessing._quality import report_quality
from jaxm2m.session import Recording

ReportRows = tuple[tuple[str, str, str, str, str], ...]

_SENTENCES = {
    "line": "The mains ({frequency:g} Hz, {harmonics} sinusoids) was subtracted adaptively (Keshtkaran and Yang 2014).",
    "notch": "Zero-phase notch filters were set at {frequencies} Hz (quality {quality:g}).",
    "highpass": "A zero-phase Butterworth high-pass followed (order {order}, {cutoff:g} Hz).",
    "rectify": "The signals were rectified.",
    "resample": "The signals were resampled to {to:g} Hz (polyphase).",
    "screen": "Trials with isolated events over {factor:g} times those of the other trials were flagged.",
    "clip": "Each channel was clipped at its percentile {percentile}.",
    "normalise": "Each channel was divided by its percentile {percentile:g}.",
    "mvc": "Each channel was divided by the largest mean of {mvc:g} s of a maximal voluntary contraction.",
    "floor": "Values below {value:g} were raised to it.",
}


@dataclass(frozen=True, eq=False, repr=False)
class Preprocessing:
    """The steps that `preprocess` took, in order and with all their numbers, to be repeated on new data.

    Attributes
    ----------
    channels : tuple of str
        The channels that the steps were fitted to.
    unit : str
        Unit of the samples that went in.
    steps : tuple of (name, parameters)
        "line", "notch", "highpass", "rectify", "resample", "screen", "clip", "normalise", "floor", as far as taken.
        Parameters are numbers and lists; thresholds and scales are those of the fitted data.
    """

    channels: tuple[str, ...]
    unit: str
    steps: tuple[tuple[str, dict[str, Any]], ...]

    def __repr__(self) -> str:
        return f"Preprocessing({' -> '.join(name for name, _ in self.steps)}; {len(self.channels)} channels)"

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Parameters of a step."""
        return dict(self.steps)[name]

    def __contains__(self, name: str) -> bool:
        return name in dict(self.steps)

    @property
    def sfreq(self) -> float:
        """Sampling rate of the result, Hz."""
        return float(self["resample"]["to"])

    def describe(self) -> str:
        """Describe the steps in a methods paragraph.

        Returns
        -------
        str
            The paragraph, with all numbers.
        """

        def as_text(value: Any) -> Any:
            return ", ".join(f"{v:g}" for v in dict.fromkeys(value)) if isinstance(value, list) else value

        return " ".join(
            _SENTENCES["mvc" if "mvc" in parameters else name].format(**{k: as_text(v) for k, v in parameters.items()})
            for name, parameters in self.steps
        )

    def table(self) -> pd.DataFrame:
        """Tabulate the threshold and the scale of each channel.

        Returns
        -------
        pandas.DataFrame
            A row for each channel: channel, clip_percentile and threshold (where channels were clipped), scale; both in
            the unit of the recording.
        """
        columns: dict[str, Any] = {"channel": self.channels}
        if "clip" in self:
            columns["clip_percentile"], columns["threshold"] = self["clip"]["percentile"], self["clip"]["threshold"]
        columns["scale"] = self["normalise"]["scale"]
        return pd.DataFrame(columns)

    def transform(self, recording: Recording) -> "Rectified":
        """Apply the same steps to another recording, with the thresholds and scales of the first.

        Parameters
        ----------
        recording
            Another recording of the same channels, in the same unit.

        Returns
        -------
        Rectified
            The recording, rectified and normalised by the stored numbers.

        Raises
        ------
        ValueError
            Other channels or another unit; NaN or constant channels; raw where rectified data were fitted, or the
            reverse.
        """
        if recording.channels != self.channels:
            missing = [c for c in self.channels if c not in recording.channels]
            fix = (
                f"it lacks {', '.join(missing)}"
                if missing
                else f"pass recording.pick(channels={list(self.channels)!r})"
            )
            raise ValueError(
                f"recording: channels {', '.join(recording.channels)}, but the preprocessing was fitted to "
                f"{', '.join(self.channels)}; {fix}."
            )
        if recording.unit != self.unit and recording.unit and self.unit:
            raise ValueError(
                f"recording: in {recording.unit}, but the preprocessing was fitted to {self.unit}; convert it."
            )
        return apply_steps(self.steps, recording)

    def fingerprint(self) -> str:
        """Compute the SHA-256 over channels, unit and steps.

        Returns
        -------
        str
            The digest, hexadecimal.
        """
        return files.fingerprint(list(self.channels), self.unit, json.dumps(self.steps))


@dataclass(frozen=True, eq=False, repr=False)
class Rectified:
    """Rectified EMG, normalised, above zero.

    Attributes
    ----------
    samples : (n_sample, n_channel) float array
        In units of each channel's 95th percentile or maximal contraction (as `preprocessing` says), at least its floor.
    sfreq : float
        Sampling rate, Hz.
    channels : tuple of str
        Names of the channels (muscles).
    segments, trials : (n, 2) int arrays
        First sample and first sample after it of each contiguous piece, and of each trial, as in `Recording`.
    flagged : (n_trial,) bool array
        Trials with isolated large events (`screen`), or over a stretch that the source marks as bad; they are still
        there: `emg.pick(~emg.flagged)` drops them.
    floored : (n_channel,) float array
        Share of the samples that were raised to the floor.
    preprocessing : Preprocessing
        The steps that led here.
    source : tuple of (channel, type, unit, status, note)
        What the recording's source held, and what was left out and why; `report` tabulates it.
    """

    samples: Float[np.ndarray, "n_sample n_channel"]
    sfreq: float
    channels: tuple[str, ...]
    segments: Int[np.ndarray, "n_segment 2"]
    trials: Int[np.ndarray, "n_trial 2"]
    flagged: Bool[np.ndarray, " n_trial"]
    floored: Float[np.ndarray, " n_channel"]
    preprocessing: Preprocessing
    source: ReportRows = ()

    def __repr__(self) -> str:
        return f"Rectified({len(self.channels)} channels, {self.duration:.6g} s at {self.sfreq:g} Hz, " + (
            f"{len(self.trials)} trials, {int(self.flagged.sum())} flagged)"
            if len(self.trials) > 1
            else "1 trial, which there are no others to compare with)"
        )

    @property
    def duration(self) -> float:
        """Duration of all segments together, s."""
        return len(self.samples) / self.sfreq

    def by_trial(self) -> tuple[np.ndarray, ...]:
        """Split the samples into trials.

        Returns
        -------
        tuple of arrays
            The samples of each trial, (n_time, n_channel), normalised.
        """
        return tuple(self.samples[start:stop] for start, stop in self.trials)

    def pick(self, trials: slice | ArrayLike) -> "Rectified":
        """Keep some of the trials.

        Parameters
        ----------
        trials
            Mask, slice or indices of the trials to keep.

        Returns
        -------
        Rectified
            The same samples with those trials.
        """
        rows = trials if isinstance(trials, slice) else np.asarray(trials)
        return replace(self, trials=self.trials[rows], flagged=self.flagged[rows])

    def report(self) -> pd.DataFrame:
        """Tabulate what the recording's source held, as `session.Recording.report` does.

        Returns
        -------
        pandas.DataFrame
            Channel, type, unit (of the recording), status and note; empty for files of versions that did not store it.

        Examples
        --------
        >>> import numpy as np
        >>> import jaxm2m as jm
        >>> raw = np.random.default_rng(0).normal(size=(4000, 2))
        >>> emg = jm.emg.preprocess(raw, sfreq=2000, channels=("TA", "GM"), line=None)
        >>> emg.report().status.tolist()
        ['used', 'used']
        """
        return pd.DataFrame(self.source, columns=["channel", "type", "unit", "status", "note"])

    def around(self, events: ArrayLike, before: float | int, after: float | int) -> "Rectified":
        """Keep a part of each trial: from `before` ahead of an event in it to `after` behind it.

        Parameters
        ----------
        events
            (n_trial,) times from the beginning of each trial, s, such as onsets.
        before, after
            Time before and after the event, s.

        Returns
        -------
        Rectified
            The same samples with the shorter trials.

        Raises
        ------
        ValueError
            Another number of events than of trials; a part that reaches beyond its trial.
        """
        at = np.round(np.asarray(_check.finite(events, "events"), float) * self.sfreq).astype(int)
        if at.shape != (len(self.trials),):
            raise ValueError(f"events: shape {at.shape} for {len(self.trials)} trials; pass one time a trial.")
        bins = [
            round(float(_check.positive(t, name, zero=True)) * self.sfreq)
            for t, name in ((before, "before"), (after, "after"))
        ]
        spans = (self.trials[:, 0] + at)[:, None] + np.array([-bins[0], bins[1]])
        outside = np.flatnonzero((spans[:, 0] < self.trials[:, 0]) | (spans[:, 1] > self.trials[:, 1]))
        if len(outside) or not sum(bins):
            where = f"trial {outside[0]}" if len(outside) else "nothing is left"
            raise ValueError(
                f"events: {before:g} s before to {after:g} s after them reaches beyond the trial, or is empty "
                f"({where}, {len(outside)} in all); take less, or leave such trials out."
            )
        return replace(self, trials=spans)

    def transform(self, recording: Recording) -> "Rectified":
        """Preprocess another recording exactly as this one was.

        Parameters
        ----------
        recording
            Another recording of the same channels, in the same unit.

        Returns
        -------
        Rectified
            The recording, rectified and normalised by the stored numbers.
        """
        return self.preprocessing.transform(recording)

    def to_mne(self, samples: ArrayLike | None = None) -> Any:
        """Make an MNE `RawArray` with trials as annotations ("trial", and "bad trial" where flagged).

        Parameters
        ----------
        samples
            (n_sample, n_channel), normalised, stored instead of these samples: an activation on the same time axis.

        Returns
        -------
        mne.io.RawArray
            The samples as EMG channels.

        Raises
        ------
        ImportError
            mne is not installed.
        """
        try:
            import mne
        except ImportError:
            raise ImportError("Rectified.to_mne: mne is missing; python -m pip install mne.") from None
        values = np.asarray(self.samples if samples is None else samples)
        if values.shape != self.samples.shape:
            raise ValueError(f"samples: shape {values.shape}; pass {self.samples.shape}.")
        info = mne.create_info(list(self.channels), self.sfreq, "emg")
        raw = mne.io.RawArray(values.T, info, verbose="ERROR")
        onset, stop = self.trials.T / self.sfreq
        text = ["bad trial" if bad else "trial" for bad in self.flagged]
        marks = mne.Annotations(onset, stop - onset, text)
        edges = self.segments[1:, 0] / self.sfreq
        return raw.set_annotations(marks + mne.Annotations(edges, np.zeros(len(edges)), ["EDGE boundary"] * len(edges)))

    def save(self, path: PathLike) -> Path:
        """Write the EMG to HDF5, whole or not at all; `Rectified.load` reads it.

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
            file.create_dataset("samples", data=self.samples, compression="gzip", compression_opts=1, shuffle=True)
            for name in ("segments", "trials", "flagged", "floored"):
                file[name] = getattr(self, name)
            file["channels"] = list(self.channels)
            file.attrs.update(
                content="rectified emg",
                sfreq=self.sfreq,
                unit=self.preprocessing.unit,
                steps=json.dumps(self.preprocessing.steps),
                report=json.dumps(self.source),
            )
        return path

    @classmethod
    def load(cls, path: PathLike) -> "Rectified":
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The HDF5 file.

        Returns
        -------
        Rectified
            The EMG with its preprocessing.

        Raises
        ------
        ValueError
            The file holds something else, or is damaged.
        """
        with files.open_hdf5(path) as file:
            if file.text("content") != "rectified emg":
                raise ValueError(f"path: {path} holds no preprocessed EMG; for recordings call session.load_emg.")
            arrays = file.arrays(
                {"samples": "float sample channel", "segments": "int segment 2", "trials": "int trial 2"}
                | {"flagged": "bool trial", "floored": "float channel", "channels": "text channel"}
            )
            channels = tuple(map(str, arrays.pop("channels")))
            preprocessing = Preprocessing(channels, file.text("unit"), _parse_steps(file.json("steps"), file.label))
            sfreq = file.number("sfreq")
            source = _parse_report(file.json("report"), file.label) if file.text("report") else ()
        for name in ("segments", "trials"):
            check_spans(arrays[name], len(arrays["samples"]), file.label)
        return cls(sfreq=sfreq, channels=channels, preprocessing=preprocessing, source=source, **arrays)

    def fingerprint(self) -> str:
        """Compute the SHA-256 over the numbers and the preprocessing.

        Returns
        -------
        str
            The digest, hexadecimal.
        """
        return files.fingerprint(self.samples, self.sfreq, self.segments, self.trials, self.preprocessing.fingerprint())


def _parse_report(rows: Any, place: str) -> ReportRows:
    """Read the rows of a report out of JSON."""
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 5 for row in rows):
        raise ValueError(f"{place} is damaged: its report has other rows than five texts; make it again.")
    return tuple((str(a), str(b), str(c), str(d), str(e)) for a, b, c, d, e in rows)


def _parse_steps(entries: Any, place: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Read steps out of JSON."""
    try:
        steps = tuple((_check.option(name, _SENTENCES, "step"), dict(parameters)) for name, parameters in entries)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} is damaged: its steps are none of this version ({error}).") from None
    return steps


def check_spans(spans: Int[np.ndarray, "n 2"], n_sample: int, place: str) -> None:
    """Refuse trials or segments out of a file that do not lie within its samples."""
    if len(spans) and not ((spans[:, 0] >= 0) & (spans[:, 0] < spans[:, 1]) & (spans[:, 1] <= n_sample)).all():
        raise ValueError(f"{place} is damaged: not all of its trials lie within its {n_sample} samples; make it again.")


def apply_steps(steps: Sequence[tuple[str, dict[str, Any]]], recording: Recording) -> Rectified:
    """Put a recording through steps whose numbers are known."""
    check_input(recording, rectified="rectify" not in dict(steps))
    state, known = State.from_recording(recording), dict(steps)
    source = report_quality(recording, known.get("line", {}).get("frequency"))
    if "rectify" in known:
        line, cutoff = known.get("line", {}).get("frequency"), known.get("highpass", {}).get("cutoff")
        check_spectrum(state.pieces, state.sfreq, line, cutoff)
    for name, parameters in steps:
        state = state.apply_step(name, parameters)
    return state.to_rectified(Preprocessing(recording.channels, recording.unit, tuple(steps)), source)


def check_input(recording: Recording, *, rectified: bool) -> None:
    """Refuse NaN, constant channels, and negative values in rectified data."""
    if rectified:
        _steps.as_rectified(recording.samples, "recording", recording.channels, zero=True)
        return
    samples = _steps.as_signal(recording.samples, "recording", recording.channels)
    _steps.check_varies(samples, "recording", recording.channels)


@dataclass(frozen=True, eq=False)
class State:
    """A recording on its way through the steps: its contiguous pieces, and where the trials are in them."""

    pieces: list[np.ndarray]
    sfreq: float
    channels: tuple[str, ...]
    home: np.ndarray  # (n_trial,) piece
    trials: np.ndarray  # (n_trial, 2) in samples of that piece
    flagged: np.ndarray
    floored: np.ndarray

    @staticmethod
    def from_recording(recording: Recording) -> "State":
        """Begin with a recording."""
        segments, trials = recording.segments, recording.trials
        home = np.searchsorted(segments[:, 0], trials[:, 0], side="right") - 1
        return State(
            [recording.samples[start:stop] for start, stop in segments],
            recording.sfreq,
            recording.channels,
            home,
            trials - segments[home, :1],
            _overlap(trials, recording.bad_spans),
            np.zeros(len(recording.channels)),
        )

    def apply_step(self, name: str, parameters: dict[str, Any]) -> "State":
        """Take one more step."""
        if name == "line":
            clean = _line_noise.remove_line_of_pieces(
                self.pieces, self.sfreq, parameters["frequency"], parameters["harmonics"], parameters["settling"]
            )
            return replace(self, pieces=clean)
        if name == "screen":
            return replace(self, flagged=self.flagged | screen(self.by_trial(), self.sfreq, **parameters).flagged)
        if name == "resample":
            up, down = _steps.resampling_ratio(self.sfreq, parameters["to"])
            pieces = [_steps.resample(x, self.sfreq, parameters["to"]) for x in self.pieces]
            start, length = self.trials[:, 0], self.trials[:, 1] - self.trials[:, 0]
            start, length = ((2 * n * up + down) // (2 * down) for n in (start, length))  # rounded
            stop = np.minimum(start + np.maximum(length, 1), [len(pieces[i]) for i in self.home])
            return replace(self, pieces=pieces, sfreq=float(parameters["to"]), trials=np.stack([start, stop], -1))
        if name == "floor":
            low = parameters["value"]
            count = sum(((x < low).sum(0) for x in self.pieces), np.zeros(len(self.channels), int))
            share = count / sum(map(len, self.pieces))
            _check_floored(share, low, self.channels)
            return replace(self, pieces=[np.maximum(x, low) for x in self.pieces], floored=share)
        simple = {
            "notch": lambda x: _steps.notch(x, self.sfreq, **parameters),
            "highpass": lambda x: _steps.highpass(x, self.sfreq, **parameters),
            "rectify": _steps.rectify,
            "clip": lambda x: np.minimum(x, parameters["threshold"]),
            "normalise": lambda x: x / np.asarray(parameters["scale"]),
        }
        return replace(self, pieces=[simple[name](x) for x in self.pieces])

    def by_trial(self) -> list[np.ndarray]:
        """Split the samples into trials."""
        return [self.pieces[i][start:stop] for i, (start, stop) in zip(self.home, self.trials, strict=True)]

    def to_rectified(self, preprocessing: Preprocessing, source: ReportRows) -> Rectified:
        """End with the rectified EMG."""
        bounds = np.cumsum([0, *map(len, self.pieces)])
        return Rectified(
            np.concatenate(self.pieces),
            self.sfreq,
            self.channels,
            np.stack([bounds[:-1], bounds[1:]], -1),
            self.trials + bounds[self.home][:, None],
            self.flagged,
            self.floored,
            preprocessing,
            source,
        )


def _overlap(trials: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Which trials reach into stretches that the source marks as bad."""
    inside = (trials[:, None, 0] < spans[None, :, 1]) & (trials[:, None, 1] > spans[None, :, 0])
    return np.asarray(inside.any(1))


def _check_floored(share: np.ndarray, low: float, channels: tuple[str, ...]) -> None:
    for k in np.flatnonzero(share > 0.5):
        raise ValueError(
            f"recording: {share[k]:.0%} of channel {channels[k]!r} is zero, or below the floor of {low:g}; it was not "
            "connected, or cut off at a threshold: leave it out, or lower the floor."
        )
