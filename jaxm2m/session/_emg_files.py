"""Readers of EMG files: what they hold, before it is made into a `Recording`."""

import contextlib
import csv
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import numpy as np
import pandas as pd
import scipy.io

from jaxm2m._memory import memory
from jaxm2m.files import decode_text, open_hdf5
from jaxm2m.session._mat5 import check_mat5

GIGABYTE = 1 << 30
_LARGEST = 16 * GIGABYTE
_SHARE = 0.5  # of the free memory: samples are copied on their way
_PATIENCE = 300  # s that another program may take for a file
_RATES = ("sfreq", "fs", "srate", "samplingrate", "samplerate", "samplingfrequency", "freq", "rate", "emgfs", "fsemg")
_NAMES = ("channels", "channelnames", "chnames", "chanlabels", "labels", "muscles", "musclenames", "names", "emgnames")
_UNITS = ("unit", "units")
_VALUES = ("samples", "emg", "data", "rawemg", "emgraw")


@runtime_checkable
class MneData(Protocol):
    """What MNE's `Raw` and `Epochs` have in common."""

    info: Any
    ch_names: list[str]
    times: np.ndarray

    def get_data(self, picks: Any = None) -> np.ndarray:
        """Samples (V), the last axis time."""
        ...


@dataclass(frozen=True, eq=False)
class EmgContents:
    """What a source holds: values with its own order of axes, and what it says about them."""

    values: Any
    sfreq: float | None = None
    channels: list[str] | None = None
    trials: np.ndarray | None = None
    breaks: np.ndarray | None = None  # samples at which a new contiguous piece begins
    unit: str = ""


def read_contents(path: Path, name: str | None) -> EmgContents:
    """The content of an EMG file, by its suffix."""
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path, str | None], EmgContents]] = {
        ".h5": _read_hdf5,
        ".hdf5": _read_hdf5,
        ".mat": _read_mat,
        ".nwb": _read_nwb,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".txt": _read_csv,
        ".c3d": _read_c3d,
    }
    return readers.get(suffix, _read_by_mne)(path, name)


def from_mne(source: Any, emg: Sequence[str] = (), where: str = "source") -> EmgContents:
    """MNE `Raw` or `Epochs`: the channels called `emg`, else those of that type, else all that are no triggers."""
    names, kinds = list(source.ch_names), source.get_channel_types()
    chosen = [i for i, name in enumerate(names) if name in emg]
    chosen = chosen or [i for i, kind in enumerate(kinds) if kind == "emg"]
    chosen = chosen or [i for i, kind in enumerate(kinds) if kind != "stim"]
    if not chosen:
        raise ValueError(f"{where}: it has no channel but triggers; pass the recording of the muscles.")
    sfreq = float(source.info["sfreq"])
    if not 0 < sfreq < math.inf:
        raise ValueError(f"{where} tells a sampling rate of {sfreq:g} Hz; correct it there.")
    with _translate_errors("MNE", where):
        _check_size(len(chosen) * len(source) * (len(source.times) if hasattr(source, "events") else 1), where)
        values = source.get_data(picks=chosen)
    contents = EmgContents(np.moveaxis(values, -1, -2), sfreq, [names[i] for i in chosen], unit="V")
    if values.ndim == 3:
        return contents
    trials, breaks = [], []
    for onset, duration, text in zip(
        source.annotations.onset, source.annotations.duration, source.annotations.description, strict=True
    ):
        # onsets count from the start of the measurement, which may lie before the first sample
        begin = onset - (source.first_time if source.annotations.orig_time is not None else 0)
        edges = np.array([begin, begin + duration]) * sfreq
        if not (np.abs(edges) < 1 << 62).all():
            continue
        start, stop = (round(edge) for edge in edges.tolist())
        if text.lower().startswith("trial") and 0 <= start < stop <= values.shape[-1]:
            trials.append((start, stop))
        elif "boundary" in text.lower() and 0 < start < values.shape[-1]:
            breaks.append(start)
    return replace(
        contents, trials=np.array(trials) if trials else None, breaks=np.unique(breaks).astype(int) if breaks else None
    )


def _read_by_mne(path: Path, name: str | None) -> EmgContents:
    mne = _import_package("mne", path, "mne")
    if path.suffix.lower() == ".set" and not h5py.is_hdf5(path):
        with _translate_errors("EEGLAB", f"source: {path}"):
            check_mat5(path, _size_limit())
    if path.suffix.lower() in (".edf", ".bdf"):
        _check_edf(path)
    with _translate_errors("MNE", f"source: {path}"):
        raw = mne.io.read_raw(path, preload=False, verbose="ERROR")
    sidecar = path.with_name(re.sub(r"_[a-z]+$", "_channels.tsv", path.name.split(".")[0]))
    # BIDS keeps the kinds of channels beside the recording
    emg = _read_emg_names(sidecar) if sidecar != path and sidecar.is_file() else []
    return from_mne(raw, emg, f"source: {path}")


def _check_edf(path: Path) -> None:
    """Refuse more channels than the header has room for: MNE would look for names of thousands."""
    with open(path, "rb") as file:
        words = file.read(256)[252:].strip()
    if not words.isdigit() or 256 * (1 + int(words)) > path.stat().st_size:
        raise ValueError(f"source: {path} cannot be read (it is no EDF, or cut off in its header); export it again.")


def _read_emg_names(sidecar: Path) -> list[str]:
    with _translate_errors("pandas", f"source: {sidecar}"):
        table = pd.read_csv(sidecar, sep="\t", dtype=str, keep_default_na=False)
        if not {"name", "type"} <= set(table.columns):
            return []
        return [n for n, kind in zip(table["name"], table["type"], strict=True) if kind.upper() == "EMG"]


def _read_hdf5(path: Path, name: str | None) -> EmgContents:
    with open_hdf5(path, limit=_LARGEST, name="source") as file:
        if file.text("content") == "emg recording" and name in (None, "samples"):
            return _read_recording(file)
        arrays = dict(file.datasets())
        chosen = _choose_data_set({n: d.shape for n, d in arrays.items() if d.dtype.kind in "iuf"}, name, path)
        near = _collect_neighbours(file, arrays, chosen)
        return EmgContents(
            _read_values(arrays[chosen], path), *_find_rate_and_names(near, path), unit=_find_text(near, _UNITS)
        )


def _read_recording(file: Any) -> EmgContents:
    """What `Recording.save` wrote."""
    arrays = file.arrays(
        {"samples": "float sample channel", "channels": "text channel", "segments": "int piece 2", "trials": "int n 2"}
    )
    segments = arrays["segments"].astype(np.int64)
    bounds = np.append(segments[:, 0], len(arrays["samples"]))
    if bounds[0] != 0 or (np.diff(bounds) <= 0).any() or not np.array_equal(segments[:, 1], bounds[1:]):
        raise ValueError(f"{file.label} is damaged (its segments are not one after the other); make it again.")
    names = [str(n) for n in arrays["channels"]]
    unit = file.text("unit")
    return EmgContents(arrays["samples"], file.number("sfreq"), names, arrays["trials"], segments[1:, 0], unit)


def _read_mat(path: Path, name: str | None) -> EmgContents:
    if h5py.is_hdf5(path):
        return _read_mat73(path, name)
    try:
        check_mat5(path, _size_limit())
        content = scipy.io.loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises whatever its parser met
        raise ValueError(f"source: {path} is not a readable MAT file ({_first_line(error)}); save it again.") from None
    entries = dict(_flatten({k: v for k, v in content.items() if not k.startswith("__")}))
    shapes = {n: v.shape for n, v in entries.items() if isinstance(v, np.ndarray) and v.dtype.kind in "iuf"}
    chosen = _choose_data_set(shapes, name, path)
    near = _find_near(entries, chosen, ".")
    return EmgContents(entries[chosen], *_find_rate_and_names(near, path), unit=_find_text(near, _UNITS))


def _read_mat73(path: Path, name: str | None) -> EmgContents:
    # cells are references, which are followed for names only
    with open_hdf5(path, limit=_LARGEST, name="source", linked=True) as file:
        arrays = {n.replace("/", "."): d for n, d in file.datasets() if not n.startswith("#")}
        chosen = _choose_data_set({n: d.shape[::-1] for n, d in arrays.items() if _is_number(d)}, name, path)
        near = {n: _read_mat73_value(file, d) for n, d in _find_near(arrays, chosen, ".").items() if d.size <= 4096}
        # MATLAB's first axis runs fastest, so that HDF5 lists the axes backwards
        return EmgContents(
            _read_values(arrays[chosen], path).T, *_find_rate_and_names(near, path), unit=_find_text(near, _UNITS)
        )


def _read_mat73_value(file: h5py.File, data: h5py.Dataset) -> Any:
    if data.dtype.kind == "O" and h5py.check_ref_dtype(data.dtype) is h5py.Reference:
        targets = [file[r] for r in data[()].T.ravel() if r]
        # what a cell holds is text: cells of cells are no names, and could lead back to themselves
        return [_read_mat73_text(t) for t in targets if isinstance(t, h5py.Dataset) and t.dtype.kind == "u"]
    return _read_mat73_text(data)


def _read_mat73_text(data: h5py.Dataset) -> Any:
    if data.size > 4096 or decode_text(data.attrs.get("MATLAB_class")) != "char":
        return data[()] if data.size <= 4096 else None
    return "".join(chr(c) for c in np.asarray(data[()]).T.ravel() if 0 <= c < 0xD800)


def _is_number(data: h5py.Dataset) -> bool:
    return data.dtype.kind in "iuf" and decode_text(data.attrs.get("MATLAB_class")) not in ("char", "cell")


def _read_nwb(path: Path, name: str | None) -> EmgContents:
    pynwb = _import_package("pynwb", path, "pynwb")
    where = f"source: {path}"
    with open_hdf5(path, limit=_LARGEST, name="source", linked=True):
        pass  # what it declares and where it points has been looked at
    with contextlib.ExitStack() as stack:
        with _translate_errors("pynwb", where):
            io = stack.enter_context(pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True))
            content = io.read()
            series = {
                n: s
                for n, s in _iterate_nwb_series(pynwb, content)
                if s.data is not None and len(s.data.shape) in (1, 2)
            }
        chosen = _choose_data_set({n: s.data.shape for n, s in series.items()}, name, path, least=1)
        one = series[chosen]
        _check_size(math.prod(one.data.shape), where)
        with _translate_errors("pynwb", where):
            values = np.asarray(one.data[()], np.float64).reshape(one.data.shape[0], -1)
            factors = getattr(one, "channel_conversion", None)
            values = values * one.conversion * (1 if factors is None else np.asarray(factors)) + one.offset
            names = _find_nwb_names(getattr(one, "electrodes", None))
            start, rate = float(one.starting_time or 0.0), None if one.rate is None else float(one.rate)
            times = None if rate is not None else np.asarray(one.timestamps[()], np.float64)
            frame = None if content.trials is None else content.trials.to_dataframe()
            at = None if frame is None else np.stack([frame["start_time"], frame["stop_time"]], -1).astype(float)
            unit = str(one.unit)
    breaks = trials = None
    if times is not None:
        rate, breaks = _estimate_rate(times, path)
    if rate is None or not 0 < rate < math.inf:
        raise ValueError(f"{where} tells a sampling rate of {rate} Hz; correct it there.")
    if at is not None:
        at = np.searchsorted(times, at) if times is not None else np.rint((at - start) * rate)
        trials = at[(at[:, 0] >= 0) & (at[:, 1] <= len(values)) & (at[:, 0] < at[:, 1])].astype(np.int64)
        trials = trials if len(trials) else None
    return EmgContents(values, rate, names, trials, breaks, unit)


def _find_nwb_names(electrodes: Any) -> list[str] | None:
    if electrodes is None:
        return None
    table = electrodes.table.to_dataframe().iloc[list(electrodes.data[:])]
    columns = (c for c in ("label", "channel_name", "location") if c in table and table[c].is_unique)
    column = next(columns, None)
    return None if column is None else [str(v) for v in table[column]]


def _iterate_nwb_series(pynwb: Any, content: Any) -> Iterator[tuple[str, Any]]:
    modules = [content.acquisition, *(m.data_interfaces for m in content.processing.values())]
    for module in modules:
        for key, item in module.items():
            if isinstance(item, pynwb.TimeSeries):
                yield key, item
            for inner in ("time_series", "electrical_series"):  # containers such as FilteredEphys
                for k, s in (getattr(item, inner, None) or {}).items():
                    yield f"{key}.{k}", s


def _read_c3d(path: Path, name: str | None) -> EmgContents:
    _import_package("ezc3d", path, "ezc3d")
    script = Path(__file__).with_name("_c3d_process.py")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "analog.npz"
        # -P: what lies beside the script is not importable by it
        command = [sys.executable, "-P", str(script), str(path.absolute()), str(out)]
        surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            process = subprocess.run(command, capture_output=True, env=surroundings, timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            process = None
        if process is None or process.returncode or not out.exists():
            last = b"" if process is None else process.stderr.strip().rpartition(b"\n")[2]
            reason = last.decode("utf-8", "replace").partition(": ")[2] or "its reader broke down"
            raise ValueError(f"source: {path} cannot be read by ezc3d ({reason[:200]}); export it again.")
        with np.load(out, allow_pickle=False) as content:
            values, rate = content["values"], float(content["rate"])
            names, units = [str(n) for n in content["labels"]], [str(u) for u in content["units"]]
    if not values.size:
        raise ValueError(f"source: {path} has no analog channels; export the EMG with the markers.")
    if len(names) < values.shape[1]:
        raise ValueError(f"source: {path} names {len(names)} of its {values.shape[1]} channels; export it again.")
    return EmgContents(values, rate, names[: values.shape[1]], unit=units[0] if len(set(units)) == 1 else "")


def _read_csv(path: Path, name: str | None) -> EmgContents:
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = [line for _, line in zip(range(50), file, strict=False)]
    comments = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if comments is None:
        raise ValueError(f"source: {path} has no row of numbers; save a column a channel.")
    first = lines[comments]
    delimiter = next((d for d in "\t;" if d in first), "," if "," in first else r"\s+")
    decimal = "," if delimiter in ("\t", ";") and re.search(r"\d,\d", "".join(lines[comments:])) else "."
    try:
        cells = first.split() if len(delimiter) > 1 else next(csv.reader([first], delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"source: {path} is not a table ({error}); save a column a channel.") from None
    header = comments if any(not _is_numeric(c.replace(decimal, ".")) for c in cells) else None
    try:
        table = pd.read_csv(
            path,
            sep=delimiter,
            decimal=decimal,
            header=0 if header is not None else None,
            skiprows=comments,
            encoding="utf-8-sig",
            skip_blank_lines=True,
        )
    except (ValueError, UnicodeDecodeError, OverflowError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"source: {path} is not a table ({_first_line(error)}); save a column a channel.") from None
    table.columns = [str(c).strip() for c in table.columns]
    text = [c for c in table.columns if table[c].dtype.kind not in "iufb"]
    if text or not len(table):
        raise ValueError(
            f"source: {path}: {'no rows' if not text else f'not all of column {quote_name(text[0])} is numbers'}; save "
            "a column a channel, one row of names at most."
        )
    contents = EmgContents(None)
    trials = breaks = rate = None
    pattern = re.compile(r"(time|t|timestamp|zeit)s?[\s_(\[]*(m?s|sec)?[)\]]?", re.I)
    times = next((c for c in table.columns if pattern.fullmatch(c)), None)
    if times is not None and header is not None:
        scale = 1e-3 if re.search(r"ms\W?$", times, re.I) else 1.0
        rate, breaks = _estimate_rate(scale * table.pop(times).to_numpy(np.float64), path)
    marks = next((c for c in table.columns if c.lower() in ("trial", "epoch")), None)
    if marks is not None:
        number = table.pop(marks).to_numpy()
        cuts = np.flatnonzero(np.diff(number) != 0) + 1
        bounds = np.array([0, *cuts, len(table)])
        trials = np.stack([bounds[:-1], bounds[1:]], -1)
        if rate is None:
            breaks = cuts
    names = list(table.columns) if header is not None else None
    return replace(
        contents, values=table.to_numpy(np.float64), sfreq=rate, channels=names, trials=trials, breaks=breaks
    )


def _estimate_rate(times: np.ndarray, path: Path) -> tuple[float, np.ndarray | None]:
    """Sampling rate of regular times (s), and where they jump."""
    known = len(times) > 2 and (np.abs(times) < 1e15).all()
    steps = np.diff(times) if known else np.zeros(1)
    forward = steps[(steps >= 0) & (steps <= np.percentile(steps, 90))]
    typical = forward.mean() if len(forward) else 0.0
    if not typical > 0:
        raise ValueError(f"source: {path}: its times do not increase; correct them, or leave them out and pass sfreq.")
    # times may be printed with so few decimals that some steps are zero; they may start anew with every trial
    gaps = (steps < 0) | (steps > 2.5 * typical)
    if gaps.mean() > 0.05 or not steps[~gaps].sum() > 0:
        raise ValueError(f"source: {path}: {gaps.mean():.0%} of its times jump; resample it to a regular rate first.")
    rate = float((~gaps).sum() / steps[~gaps].sum())
    return rate, np.flatnonzero(gaps) + 1 if gaps.any() else None


def _choose_data_set(shapes: dict[str, tuple[int, ...]], name: str | None, path: Path, least: int = 2) -> str:
    """The name of the data set that holds the EMG."""
    fit = [n for n, s in shapes.items() if least <= len(s) <= 3 and np.prod(s, dtype=float) > 0 and max(s) > 3]
    if name is not None:
        if name.lstrip("/") in shapes:
            return name.lstrip("/")
        raise ValueError(
            f"name: no {name!r} in {path}; choose from {', '.join(map(quote_name, fit[:20])) or 'nothing'}."
        )
    if len(fit) > 1:
        known = [n for n in fit if _normalise_key(re.split(r"[./]", n)[-1]) in _VALUES]
        fit = known if len(known) == 1 else fit
    if len(fit) != 1:
        listed = ", ".join(f"{quote_name(n)} {shapes[n]}" for n in fit[:20])
        raise ValueError(
            f"name: {path} has {listed}; say which holds the EMG."
            if fit
            else f"source: {path} has no table of numbers with two or three axes; save (n_sample, n_channel)."
        )
    return fit[0]


def _collect_neighbours(file: h5py.File, arrays: dict[str, h5py.Dataset], chosen: str) -> dict[str, Any]:
    near: dict[str, Any] = dict(file.attrs)
    near |= {n: d[()] for n, d in _find_near(arrays, chosen, "/").items() if d.size <= 4096}
    near |= dict(arrays[chosen].parent.attrs) | dict(arrays[chosen].attrs)
    return near


def _find_near(entries: dict[str, Any], chosen: str, separator: str) -> dict[str, Any]:
    """Entries at the top and beside the chosen one, the nearest last, by their own name."""
    parent = chosen.rpartition(separator)[0]
    top = {n: v for n, v in entries.items() if separator not in n}
    beside = {n.rpartition(separator)[2]: v for n, v in entries.items() if n.rpartition(separator)[0] == parent}
    return {n: v for n, v in (top | beside).items() if n != chosen.rpartition(separator)[2]}


def _find_rate_and_names(near: dict[str, Any], path: Path) -> tuple[float | None, list[str] | None]:
    """Sampling rate and channel names among what stands beside the data."""
    rate = names = None
    for key, value in near.items():
        if _normalise_key(key) in _RATES and np.size(value) == 1 and np.asarray(value).dtype.kind in "iuf":
            rate = float(np.asarray(value).ravel()[0])
        if _normalise_key(key) in _NAMES:
            texts = [decode_text(v) for v in np.atleast_1d(np.asarray(value, dtype=object)).ravel()]
            if all(t is not None for t in texts):
                names = [str(t).strip() for t in texts]
    return rate, names


def _find_text(near: dict[str, Any], keys: tuple[str, ...]) -> str:
    texts = (decode_text(v) for k, v in near.items() if _normalise_key(k) in keys)
    return next((t for t in texts if t is not None), "")


def _normalise_key(key: str) -> str:
    return re.sub(r"[^a-z]", "", key.lower())


def _is_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _flatten(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_values(data: h5py.Dataset, path: Path) -> np.ndarray:
    _check_size(data.size, f"source: {path}")
    return data[()]


def _check_size(count: int, where: str) -> None:
    if 8 * count > _size_limit():
        raise ValueError(f"{where} declares {8 * count / GIGABYTE:.1f} GB, which do not fit here; save less at once.")


def _size_limit() -> int:
    """Bytes that a recording may have."""
    _, free = memory()
    return min(_LARGEST, int(_SHARE * free)) if free else _LARGEST


@contextlib.contextmanager
def _translate_errors(package: str, where: str) -> Iterator[None]:
    """Whatever the reader of another package raises becomes one line that names the file."""
    try:
        yield
    except Exception as error:
        line = _first_line(error)
        raise ValueError(f"{where} cannot be read by {package} ({line}); convert it to HDF5, CSV or EDF.") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def quote_name(name: str) -> str:
    """A name out of a file, for a message."""
    return name if name.isprintable() and len(name) < 80 else repr(name[:80])


def _import_package(module: str, path: Path, install: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ImportError(f"source: {path} needs {module}; python -m pip install {install}.") from None
