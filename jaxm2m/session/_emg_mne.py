"""EMG that MNE holds or reads, with what BIDS says beside it."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import numpy as np
import pandas as pd

from jaxm2m.session._emg_channels import channel_kind
from jaxm2m.session._emg_contents import (
    EmgContents,
    check_size,
    check_unique,
    import_package,
    size_limit,
    translate_errors,
)
from jaxm2m.session._emg_units import is_voltage, normalise_unit
from jaxm2m.session._mat5 import check_mat5

_KINDS = {
    "emg": "EMG",
    "ecg": "ECG",
    "eeg": "EEG",
    "eog": "EOG",
    "stim": "trigger",
    "resp": "respiration",
    "gsr": "GSR",
}
_BIDS_KINDS = {"TRIG": "trigger", "RESP": "respiration"}


@runtime_checkable
class MneData(Protocol):
    """What MNE's `Raw` and `Epochs` have in common."""

    info: Any
    ch_names: list[str]
    times: np.ndarray

    def get_data(self, picks: Any = None) -> np.ndarray:
        """Samples (V), the last axis time."""
        ...


def from_mne(source: Any, where: str = "source") -> EmgContents:
    """MNE `Raw` or `Epochs`: their channels with types, and what is marked bad."""
    names, types = list(source.ch_names), source.get_channel_types()
    if all(kind == "stim" for kind in types):
        raise ValueError(f"{where}: it has no channel but triggers; pass the recording of the muscles.")
    sfreq = float(source.info["sfreq"])
    if not 0 < sfreq < math.inf:
        raise ValueError(f"{where} tells a sampling rate of {sfreq:g} Hz; correct it there.")
    typed = "emg" in types
    # files without types, such as EDF, are all EEG to MNE: then the names say what they are
    kinds = [
        str(_KINDS.get(kind, kind)) if typed or kind not in ("eeg", "misc") else channel_kind(name)
        for name, kind in zip(names, types, strict=True)
    ]
    epochs = hasattr(source, "drop_bad")
    if epochs and not source.preload:
        with translate_errors("MNE", where):
            source = source.copy().drop_bad(verbose="ERROR")
    count = len(source) * (len(source.times) if epochs else 1)

    def values(chosen: list[int]) -> np.ndarray:
        check_size(len(chosen) * count, where)
        with translate_errors("MNE", where):
            return np.moveaxis(source.get_data(picks=chosen), -1, -2)

    contents = EmgContents(
        values,
        sfreq,
        names,
        unit="V",
        kinds=kinds,
        typed=typed,
        bads=dict.fromkeys(source.info["bads"], ""),
        axes="trial sample channel" if epochs else "sample channel",
    )
    return contents if epochs else _add_annotations(contents, source, count, sfreq)


def _add_annotations(contents: EmgContents, source: Any, n_sample: int, sfreq: float) -> EmgContents:
    """Trials, bad spans, gaps and events, as annotations mark them."""
    trials, breaks, bads, events = [], [], [], []
    marks = source.annotations
    for onset, duration, text in zip(marks.onset, marks.duration, marks.description, strict=True):
        # onsets count from the start of the measurement, which may lie before the first sample
        begin = onset - (source.first_time if marks.orig_time is not None else 0)
        edges = np.array([begin, begin + duration]) * sfreq
        if not (np.abs(edges) < 1 << 62).all():
            continue
        start, stop = (round(edge) for edge in edges.tolist())
        name = str(text).lower()
        if name.startswith("trial") and 0 <= start < stop <= n_sample:
            trials.append((start, stop))
        elif "boundary" in name and 0 < start < n_sample:
            breaks.append(start)
        elif name.startswith("bad") and start < n_sample and stop > 0:
            bads.append((max(start, 0), min(max(stop, start + 1), n_sample), str(text)))
        elif 0 <= start < n_sample:
            events.append((str(text), start, min(max(stop, start), n_sample)))
    return replace(
        contents,
        trials=np.array(trials) if trials else None,
        breaks=np.unique(breaks).astype(int) if breaks else None,
        bad_spans=bads,
        events=events,
    )


def read_by_mne(path: Path) -> EmgContents:
    """Read a file of MNE's formats, and the tables that BIDS keeps beside it."""
    mne = import_package("mne", path, "mne")
    where = f"source: {path}"
    if path.suffix.lower() == ".set" and not h5py.is_hdf5(path):
        with translate_errors("EEGLAB", where):
            check_mat5(path, size_limit())
    labels = _read_edf_labels(path) if path.suffix.lower() in (".edf", ".bdf") else []
    with translate_errors("MNE", where):
        raw = mne.io.read_raw(path, preload=False, verbose="ERROR")
    contents = from_mne(raw, where)
    if labels:
        contents = _add_edf_units(contents, labels, where)
    elif raw.__dict__.get("_orig_units"):
        known = raw.__dict__["_orig_units"]
        contents = replace(contents, units=["" if known.get(n) == "n/a" else "V" for n in raw.ch_names])
    contents = _add_bids_channels(contents, _find_sidecar(path, "channels"), where)
    return _add_bids_events(contents, _find_sidecar(path, "events"), len(raw))


def _read_edf_labels(path: Path) -> list[tuple[str, str]]:
    """Label and dimension of each signal. More than the header has room for are refused: MNE looks for thousands."""
    with open(path, "rb") as file:
        head = file.read(256)
        words = head[252:].strip()
        if not words.isdigit() or 256 * (1 + int(words)) > path.stat().st_size:
            raise ValueError(
                f"source: {path} cannot be read (it is no EDF, or cut off in its header); export it again."
            )
        count = int(words)
        rest = file.read(count * 104).decode("latin-1")
    labels = [rest[16 * i : 16 * (i + 1)].strip() for i in range(count)]
    units = [rest[96 * count + 8 * i : 96 * count + 8 * (i + 1)].strip() for i in range(count)]
    pairs = [(n, u) for n, u in zip(labels, units, strict=True) if not n.endswith("Annotations")]
    check_unique([n for n, _ in pairs], f"source: {path}")
    return pairs


def _add_edf_units(contents: EmgContents, labels: list[tuple[str, str]], where: str) -> EmgContents:
    """The dimensions as the file has them: MNE takes those that it does not know for V, and leaves the numbers."""
    unit_of = dict(labels)
    units = []
    for name in contents.channels or []:
        text = unit_of.get(name, "")
        unit = normalise_unit(text)
        scaled = text in ("\u03bcV", "\u00b5V", "\x83\xcaV", "uV", "mV")
        units.append("V" if scaled else unit if is_voltage(unit) else "")
    return replace(contents, units=units)


def _find_sidecar(path: Path, table: str) -> Path | None:
    """The BIDS table of a recording: beside it, or above it, with the nearest first, and fewer entities in its name."""
    match = re.fullmatch(r"((?:[a-zA-Z]+-[^_]+_)*(?:[^_]+_)*?)([a-z]+)", path.name.split(".")[0])
    if match is None or not match[1]:
        return None
    entities = match[1].rstrip("_").split("_")
    for folder in [path.parent, *[p for p in path.parents[1:4] if path.name.startswith("sub-")]]:
        fit = [f for f in folder.glob(f"*_{table}.tsv") if set(f.stem.split("_")[:-1]) <= set(entities)]
        fit += [f for f in [folder / f"{table}.tsv"] if folder != path.parent and f.is_file()]
        if fit:
            return max(fit, key=lambda f: len(f.stem.split("_")))
    return None


def _read_sidecar(sidecar: Path) -> pd.DataFrame:
    with translate_errors("pandas", f"source: {sidecar}"):
        return pd.read_csv(sidecar, sep="\t", dtype=str, keep_default_na=False, index_col=False)


def _add_bids_channels(contents: EmgContents, sidecar: Path | None, where: str) -> EmgContents:
    """Types, units and status of channels.tsv."""
    if sidecar is None:
        return contents
    table = _read_sidecar(sidecar)
    if "name" not in table:
        return contents
    rows = {row["name"]: row for row in table.to_dict("records")}
    names = contents.channels or []
    kinds = list(contents.kinds or [""] * len(names))
    units = list(contents.units or ["V"] * len(names))
    bads = dict(contents.bads or {})
    # where the table types any channel as EMG, its word counts for all
    typed = "type" in table and any(row["type"].strip().upper() == "EMG" for n, row in rows.items() if n in names)
    for i, name in enumerate(names):
        row = rows.get(name, {"type": "not in channels.tsv" if typed else ""})
        kind = row.get("type", "").strip()
        if kind.upper() not in ("", "N/A"):
            kinds[i] = str(_BIDS_KINDS.get(kind.upper(), kind))
        unit = normalise_unit(row.get("units", ""))
        if not units[i] and is_voltage(unit):
            units[i] = unit
        if row.get("status", "").strip().lower() == "bad":
            reason = row.get("status_description", "").strip()
            bads[name] = "" if reason.lower() == "n/a" else reason
    return replace(contents, kinds=kinds, units=units, bads=bads, typed=typed or contents.typed)


def _add_bids_events(contents: EmgContents, sidecar: Path | None, n_sample: int) -> EmgContents:
    """Events of events.tsv: onset and duration in s."""
    if sidecar is None:
        return contents
    table = _read_sidecar(sidecar)
    column = next((c for c in ("trial_type", "value", "event_type") if c in table), None)
    if column is None or "onset" not in table or contents.sfreq is None:
        return contents
    onset = pd.to_numeric(table["onset"], errors="coerce")
    duration = pd.to_numeric(table.get("duration", pd.Series(0.0, table.index)), errors="coerce").fillna(0)
    events, bads = list(contents.events or []), list(contents.bad_spans or [])
    for text, at, length in zip(table[column], onset, duration, strict=True):
        edges = [float(at) * contents.sfreq, float(at + length) * contents.sfreq]
        if not np.isfinite(edges).all() or not 0 <= edges[0] < n_sample:
            continue
        start, stop = round(edges[0]), round(min(edges[1], n_sample))
        if str(text).lower().startswith("bad"):
            bads.append((start, max(stop, start + 1), str(text)))
        else:
            events.append((str(text), start, stop))
    return replace(contents, events=events, bad_spans=bads)
