"""EMG from arrays, DataFrames, files and MNE objects, made into a `Recording`."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxm2m import _check
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.session import _emg_files
from jaxm2m.session._emg import Recording, check_trials
from jaxm2m.session._emg_channels import channel_kind, rises_evenly, select_channels, unify_units
from jaxm2m.session._emg_contents import EmgContents, ReportRow, check_unique, quote_name
from jaxm2m.session._emg_mne import MneData, from_mne
from jaxm2m.session._emg_table import TableOptions, from_frame, from_frames
from jaxm2m.session._emg_units import normalise_unit

_SLOWEST, _FASTEST = 50.0, 2e5  # Hz; beyond these a rate is believed only if the caller says it too


def load_emg(
    source: PathLike | ArrayLike | MneData | pd.DataFrame,
    sfreq: float | int | None = None,
    *,
    name: str | None = None,
    channels: Sequence[str] | None = None,
    picks: Sequence[str] | None = None,
    trials: ArrayLike | None = None,
    axes: str | None = None,
    unit: str | None = None,
    bads: str = "drop",
    skiprows: int | None = None,
    time: str | None = None,
) -> Recording:
    """Load EMG from arrays, a file, or MNE.

    - Arrays: (n_sample, n_channel), (n_trial, n_sample, n_channel), or a list of (n_sample, n_channel), a trial each.
      Where the axis of samples would not be the longest, `axes` must say which it is. DataFrames keep their names.
    - `.h5`, `.hdf5`; `.npy`: a data set of two or three axes. Rate and names are taken from attributes or neighbours
      called "sfreq", "fs", "fs_khz", "dt", "time", ... and "channels", "labels", "muscles", ...
    - `.mat` (version 5 and 7.3): the same; trials in cells or structures, channels in structures with names, one
      variable a muscle, LabChart's exports.
    - `.nwb` (needs pynwb): a time series of `acquisition` or of a processing module, with the table of trials.
    - `.csv`, `.tsv`, `.txt`, `.sto`, `.mot`; `.xlsx` (needs openpyxl): a column a channel, below whatever its maker
      writes: names, units, settings; Delsys' blocks of "X[s]", Nexus' "Devices", Noraxon's preamble. Columns of times
      (s, or as their name says) and "trial" are understood; counters are left out.
    - `.c3d` (needs ezc3d): the analog channels, without those of force plates.
    - MNE `Raw` and `Epochs`, and any other file that MNE reads (EDF, BDF, BrainVision, ...; BIDS: the recording, with
      its channels.tsv and events.tsv): the EMG channels, or all but what their names say is something else. Needs mne.

    Where times are given and jump, a new segment begins. What is left out is warned of, and stands in
    `Recording.report()`.

    Parameters
    ----------
    source
        Samples as an array (n_sample, n_channel), (n_trial, n_sample, n_channel) or a list of trials, in any unit; a
        DataFrame; the path of a file; or an MNE object.
    sfreq
        Sampling rate, Hz. Needed where the source does not have it; if it does, they must agree.
    name
        Which data set, variable ("emg", or "data.emg" in a structure), sheet or time series of the file; needed where
        there are several.
    channels
        Names in the order of the source, instead of its own or "1", "2", ...
    picks
        Names of the channels that are taken, in this order, whatever their type and status.
    trials
        (n_trial, 2) index of the first sample of each trial and of the first sample after it, where the source has no
        trials. `Recording.with_trials` takes times.
    axes
        The source's order of axes, such as "channel sample" or "sample channel trial"; by default "sample channel" or
        "trial sample channel".
    unit
        Of the samples, where the source does not name it.
    bads
        "drop": channels that the source marks as bad are left out, and trials that it does not mark itself end before
        bad stretches and begin after them; "keep": they stay, and are listed.
    skiprows
        Lines above the names of a text file, where they are not found.
    time
        Name of the column of times of a table; "" for none.

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

    Warns
    -----
    UserWarning
        Channels or columns were left out, or stretches are marked as bad.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> recording = jm.session.load_emg(np.zeros((2, 1000, 3)), sfreq=2000, channels=("TA", "GM", "SOL"))
    >>> recording
    Recording(3 channels, 1 s at 2000 Hz, 2 trials, unit='')
    >>> recording.report().status.tolist()
    ['used', 'used', 'used']
    """
    _check.option(bads, ("drop", "keep"), "bads")
    contents, where = _read_source(source, name, TableOptions(skiprows, time, picks))
    pieces = None if callable(contents.values) else _split_pieces(contents.values, axes or contents.axes, where)
    count = len(contents.channels or ()) if pieces is None else pieces[0].shape[1]
    names = contents.channels
    if names is None or (channels is not None and len(names) != count):
        names = [str(i + 1) for i in range(count)]
    if len(names) != count:
        raise ValueError(
            f"channels: {where} names {len(names)} of its {count} channels; pass channels=, names for all."
        )
    renamed = channels is not None and len(channels) == count
    names = [str(n) for n in channels] if channels is not None and renamed else names
    check_unique(names, where if not renamed else None)
    counters, step = _find_counters(pieces, contents)
    chosen, others = select_channels(contents, names, counters, picks, bads, renamed, where)
    labels = [names[i] for i in chosen]
    if channels is not None and not renamed:
        if len(channels) != len(chosen):
            left = f" ({len(chosen)} of them EMG)" if len(chosen) < count else ""
            raise ValueError(
                f"channels: {len(channels)} names, but {where.removeprefix('source: ')} has {count} channels{left}; "
                "match them."
            )
        labels = [str(n) for n in channels]
        check_unique(labels, None)
    if pieces is None:
        pieces = _split_pieces(contents.values(chosen), contents.axes, where)
    elif chosen != list(range(count)):
        pieces = [piece[:, chosen] for piece in pieces]
    units = [(contents.units or [contents.unit] * count)[i] for i in chosen]
    factors, unit = unify_units(list(map(normalise_unit, units)), unit, labels, where)
    pieces = pieces if factors is None else [piece * factors for piece in pieces]
    sfreq = _choose_rate(sfreq, contents, contents.step or step, where)
    samples = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    segments = _find_segments(pieces, contents.breaks)
    spans = contents.bad_spans or []
    bad_spans = np.array([(start, stop) for start, stop, _ in spans], np.int64).reshape(-1, 2)
    marked = [ReportRow(text or "bad", "stretch", "", "marked", f"samples {a} to {b}") for a, b, text in spans]
    rows = [*others, *([] if contents.reported else [*contents.rows, *marked])]
    trials_label = "trials"
    if trials is None:
        trials, trials_label = contents.trials, f"{where}, trials"
    if trials is None:
        trials = segments if bads == "keep" else _cut_out(segments, bad_spans)
    _warn_of(rows, where)
    kinds = contents.kinds or [channel_kind(n) for n in names]
    return Recording(
        samples,
        sfreq,
        tuple(labels),
        segments,
        check_trials(trials, segments, trials_label),
        unit,
        tuple("" if renamed and not contents.typed else kinds[i] for i in chosen),
        bad_spans,
        tuple(contents.events or ()),
        (*(contents.rows if contents.reported else ()), *rows),
    )


def _read_source(source: Any, name: str | None, options: TableOptions) -> tuple[EmgContents, str]:
    if isinstance(source, (str, os.PathLike)):
        path = _check.file(source, "source")
        return _emg_files.read_contents(path, name, options), f"source: {os.fspath(source)}"
    if options.skiprows is not None:
        raise ValueError("skiprows: the source is no file of text; leave it out.")
    if isinstance(source, pd.DataFrame):
        return from_frame(source, options), "source"
    if isinstance(source, (list, tuple)) and source and all(isinstance(part, pd.DataFrame) for part in source):
        return from_frames(source, options), "source"
    if hasattr(source, "get_data") and hasattr(source, "info"):
        return from_mne(source), "source"
    return EmgContents(source), "source"


def _find_counters(pieces: list[np.ndarray] | None, contents: EmgContents) -> tuple[dict[int, str], float | None]:
    """Columns that rise by the same step all along: times or counters, no muscles; and the step."""
    if pieces is None or contents.rows:
        return {}, None
    rising = [i for i in range(pieces[0].shape[1]) if all(rises_evenly(piece[:, i]) for piece in pieces)]
    steps = [float(np.diff(pieces[0][:, i]).mean()) for i in rising]
    reasons = {i: f"rises by {step:.6g} every sample" for i, step in zip(rising, steps, strict=True)}
    return (reasons, steps[0]) if rising and len(rising) < pieces[0].shape[1] else ({}, None)


def _find_segments(pieces: list[np.ndarray], breaks: np.ndarray | None) -> np.ndarray:
    bounds = np.cumsum([0, *map(len, pieces)])
    if breaks is not None and len(pieces) == 1:
        inside = breaks[(breaks > 0) & (breaks < bounds[-1])]
        bounds = np.unique([0, *inside, bounds[-1]])
    return np.stack([bounds[:-1], bounds[1:]], -1)


def _cut_out(segments: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """What is left of segments without spans; the segments where that is nothing."""
    pieces = []
    for start, stop in segments.tolist():
        for a, b in sorted(spans.tolist()):
            if a < stop and b > start:
                pieces.append((start, min(a, stop)))
                start = max(start, b)
        pieces.append((start, stop))
    kept = [(a, b) for a, b in pieces if b > a]
    return np.array(kept, np.int64) if kept else segments


def _warn_of(rows: list[ReportRow], where: str) -> None:
    """Tell what is left out, or marked, but for columns whose name says that they are times."""
    silent = ("time", "trial")
    out = [row for row in rows if row.status == "left out" and row.note != "not picked" and row.type not in silent]
    marked = [row for row in rows if row.status == "marked"]
    texts = [f"{quote_name(row.channel)} ({row.note})" for row in out[:12]]
    texts += [f"and {len(out) - 12} more"] if len(out) > 12 else []
    if out:
        warnings.warn(
            f"{where}: left out: {', '.join(texts)}; picks= takes what is EMG all the same, report() lists all.",
            stacklevel=3,
        )
    if marked:
        warnings.warn(
            f"{where}: {len(marked)} stretches are marked as bad ({quote_name(marked[0].channel)}, ...); "
            "recording.report() lists them.",
            stacklevel=3,
        )


def _split_pieces(values: Any, axes: str | None, where: str) -> list[np.ndarray]:
    """Trials or the whole, (n_sample, n_channel) each."""
    if isinstance(values, (list, tuple)) and values and np.ndim(values[0]) == 2:
        arrays = [np.asarray(_check.array(v, f"{where}[{i}]"), np.float64) for i, v in enumerate(values)]
        order = ("sample", "channel") if axes is None else tuple(a for a in axes.split() if a != "trial")
        if sorted(order) != ["channel", "sample"]:
            raise ValueError(f"axes: {axes!r} for a list of trials; name sample, channel in the order they have.")
        arrays = [array if order[0] == "sample" or array.ndim != 2 else array.T for array in arrays]
        if axes is None and all(array.ndim == 2 and array.shape[0] < array.shape[1] for array in arrays):
            raise ValueError(
                f"{where}: trials of {arrays[0].shape[0]} samples and {arrays[0].shape[1]} channels; if the axes are "
                'the other way round, pass axes="channel sample" (if not, axes="sample channel").'
            )
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
        if axes is None and array.ndim == 3 and array.shape[1] < max(array.shape[0], array.shape[2]):
            raise ValueError(
                f"axes: {where} of shape {array.shape} would be {array.shape[0]} trials of {array.shape[1]} samples "
                f"and {array.shape[2]} channels, and the longest axis is not that of samples; say the order, axes="
                '"trial sample channel", "trial channel sample", "sample channel trial", ...'
            )
        arrays = [array] if array.ndim == 2 else list(array)
    for i, piece in enumerate(arrays):
        if piece.ndim != 2 or not piece.size or piece.shape[1] != arrays[0].shape[1]:
            raise ValueError(f"{where}: trial {i} has shape {piece.shape}; all must be (n_sample, n_channel).")
    if not arrays:
        raise ValueError(f"{where}: no trial; pass at least one.")
    return arrays


def _choose_rate(sfreq: float | int | None, contents: EmgContents, step: float | None, where: str) -> float:
    declared = contents.sfreq
    if sfreq is not None:
        sfreq = float(_check.positive(sfreq, "sfreq"))
    if declared is not None and not (np.isfinite(declared) and declared > 0):
        raise ValueError(f"{where} tells a sampling rate of {declared:g} Hz; correct it there.")
    if sfreq is None and declared is None:
        hint = f" (it tells {contents.doubt})" if contents.doubt else ""
        if step is not None and step < 1:
            hint += f" (a column rises by {step:.6g} every sample: {1 / step:.6g} Hz if that is s)"
        raise ValueError(f"sfreq: not given, and {where} does not tell it{hint}; pass the sampling rate in Hz.")
    if declared is None:
        assert sfreq is not None
        meant = [scale / step for scale in (1.0, 1e3, 1e6)] if step is not None and step != round(step) else []
        if meant and min(abs(sfreq / m - 1) for m in meant) > 0.02:
            raise ValueError(
                f"sfreq: {sfreq:g} Hz, but {where} has a column that rises by {step:.6g} every sample: {meant[0]:.6g} "
                f"Hz if that is s, {meant[1]:.6g} Hz if ms; correct one of them."
            )
        return sfreq
    if sfreq is None and not _SLOWEST <= declared <= _FASTEST:
        guess = f"{1000 * declared:.6g}" if declared < _SLOWEST else f"{declared / 1000:.6g}"
        raise ValueError(
            f"sfreq: {where} tells {declared:.6g} Hz, which no EMG is recorded at; pass sfreq={guess} if its unit is "
            f"another, or sfreq={declared:.6g} if that is right."
        )
    if sfreq is not None and abs(sfreq / declared - 1) > 1e-3:
        if not _SLOWEST <= declared <= _FASTEST and min(abs(sfreq / declared / f - 1) for f in (1e3, 1e6, 1e-3)) < 1e-3:
            return sfreq  # times in ms without saying so, or a rate in kHz
        raise ValueError(
            f"sfreq: {sfreq:g} Hz, but {where} tells {declared:.6g} Hz; leave it out, or correct the file."
        )
    return float(declared)
