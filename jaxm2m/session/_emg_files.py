"""Readers of EMG files: what they hold, before it is made into a `Recording`."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io

from jaxm2m import _check
from jaxm2m.files import open_hdf5

GIGABYTE = 1 << 30
_LARGEST = 16 * GIGABYTE
_RATES = ("sfreq", "fs", "srate", "samplingrate", "samplerate", "samplingfrequency", "freq", "rate", "emgfs", "fsemg")
_NAMES = ("channels", "channelnames", "chnames", "chanlabels", "labels", "muscles", "musclenames", "names", "emgnames")
_UNITS = ("unit", "units")
_VALUES = ("samples", "emg", "data", "rawemg", "emgraw")


@dataclass(frozen=True, eq=False)
class Found:
    """What a source holds: values with its own order of axes, and what it tells about them."""

    values: Any
    sfreq: float | None = None
    channels: list[str] | None = None
    trials: np.ndarray | None = None
    breaks: np.ndarray | None = None  # samples at which a new contiguous piece begins
    unit: str = ""


def read(path: Path, name: str | None) -> Found:
    """The content of an EMG file, by its suffix."""
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path, str | None], Found]] = {
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


def from_mne(source: Any, emg: Sequence[str] = ()) -> Found:
    """MNE `Raw` or `Epochs`: the channels called `emg`, else those of that type, else all that are no triggers."""
    kinds = source.get_channel_types()
    chosen = [c for c in source.ch_names if c in emg]
    chosen = chosen or [c for c, kind in zip(source.ch_names, kinds, strict=True) if kind == "emg"]
    chosen = chosen or [c for c, kind in zip(source.ch_names, kinds, strict=True) if kind != "stim"]
    if not chosen:
        raise ValueError("source: it has no channel but triggers; pass the recording of the muscles.")
    values = source.get_data(picks=chosen)
    found = Found(np.moveaxis(values, -1, -2), float(source.info["sfreq"]), chosen, unit="V")
    if values.ndim == 3:
        return found
    trials, breaks = [], []
    for onset, duration, text in zip(
        source.annotations.onset, source.annotations.duration, source.annotations.description, strict=True
    ):
        # onsets count from the start of the measurement, which may lie before the first sample
        begin = onset - (source.first_time if source.annotations.orig_time is not None else 0)
        start, stop = (round(t * found.sfreq) for t in (begin, begin + duration))
        if text.lower().startswith("trial") and 0 <= start < stop <= values.shape[-1]:
            trials.append((start, stop))
        elif "boundary" in text.lower() and 0 < start < values.shape[-1]:
            breaks.append(start)
    return replace(
        found, trials=np.array(trials) if trials else None, breaks=np.unique(breaks).astype(int) if breaks else None
    )


def _read_by_mne(path: Path, name: str | None) -> Found:
    mne = _package("mne", path, "mne")
    try:
        raw = mne.io.read_raw(path, preload=False, verbose="ERROR")
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"source: {path} cannot be read ({line}); convert it to HDF5, CSV or EDF.") from None
    sidecar = path.with_name(re.sub(r"_[a-z]+$", "_channels.tsv", path.name.split(".")[0]))
    emg: list[str] = []
    if sidecar != path and sidecar.is_file():  # BIDS keeps the kinds of channels beside the recording
        table = pd.read_csv(sidecar, sep="\t", dtype=str)
        if {"name", "type"} <= set(table.columns):
            emg = [n for n, kind in zip(table["name"], table["type"], strict=True) if str(kind).upper() == "EMG"]
    return from_mne(raw, emg)


def _read_hdf5(path: Path, name: str | None) -> Found:
    with open_hdf5(path, limit=_LARGEST, name="source") as file:
        arrays = {n.lstrip("/"): item for n, item in _datasets(file)}
        chosen = _choose({n: d.shape for n, d in arrays.items() if d.dtype.kind in "iuf"}, name, path)
        near = _neighbours(file, arrays, chosen)
        trials = arrays["trials"][()] if chosen == "samples" and "trials" in arrays else None
        breaks = arrays["segments"][1:, 0] if chosen == "samples" and "segments" in arrays else None
        return Found(arrays[chosen][()], *_told(near, path), trials=trials, breaks=breaks, unit=_text(near, _UNITS))


def _read_mat(path: Path, name: str | None) -> Found:
    if h5py.is_hdf5(path):
        return _read_mat73(path, name)
    try:
        declared = scipy.io.whosmat(path)
        size = sum(8 * int(np.prod(shape, dtype=float)) for _, shape, _ in declared)
        if size > _LARGEST:
            raise ValueError(f"it declares {size / GIGABYTE:.1f} GB")
        content = scipy.io.loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises whatever its parser met
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"source: {path} is not a readable MAT file ({line}); save it again.") from None
    entries = dict(_flat({k: v for k, v in content.items() if not k.startswith("__")}))
    shapes = {n: v.shape for n, v in entries.items() if isinstance(v, np.ndarray) and v.dtype.kind in "iuf"}
    chosen = _choose(shapes, name, path)
    near = _near(entries, chosen, ".")
    return Found(entries[chosen], *_told(near, path), unit=_text(near, _UNITS))


def _read_mat73(path: Path, name: str | None) -> Found:
    # cells are references, which open_hdf5 refuses: here they are followed for names only, inside the file
    with h5py.File(path, "r") as file:
        arrays = {n.lstrip("/").replace("/", "."): d for n, d in _datasets(file) if not n.startswith("/#")}
        for n, d in arrays.items():
            if d.external or d.is_virtual:
                raise ValueError(f"source: {path} keeps {n} in another file; save it again as a whole.")
        chosen = _choose({n: d.shape[::-1] for n, d in arrays.items() if _is_number(d)}, name, path)
        if arrays[chosen].size * 8 > _LARGEST:
            raise ValueError(f"source: {path} declares {arrays[chosen].size * 8 / GIGABYTE:.1f} GB; save less at once.")
        near = {n: _mat73_value(file, d) for n, d in _near(arrays, chosen, ".").items() if d.size <= 4096}
        # MATLAB's first axis runs fastest, so that HDF5 lists the axes backwards
        return Found(arrays[chosen][()].T, *_told(near, path), unit=_text(near, _UNITS))


def _mat73_value(file: h5py.File, data: h5py.Dataset) -> Any:
    if data.dtype.kind == "O":
        return [_mat73_value(file, file[r]) for r in data[()].T.ravel() if isinstance(r, h5py.Reference) and r]
    values = data[()]
    if data.attrs.get("MATLAB_class") == b"char":
        return "".join(map(chr, np.asarray(values).T.ravel()))
    return values


def _is_number(data: h5py.Dataset) -> bool:
    return data.dtype.kind in "iuf" and data.attrs.get("MATLAB_class", b"") not in (b"char", b"cell")


def _read_nwb(path: Path, name: str | None) -> Found:
    pynwb = _package("pynwb", path, "pynwb")
    _check.file(path, "source")
    with pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
        content = io.read()
        series = {n: s for n, s in _nwb_series(pynwb, content) if s.data is not None and len(s.data.shape) in (1, 2)}
        chosen = _choose({n: s.data.shape for n, s in series.items()}, name, path, least=1)
        one = series[chosen]
        if np.prod(one.data.shape, dtype=float) * 8 > _LARGEST:
            raise ValueError(f"source: {path} declares a series of {one.data.shape}; it takes too much memory.")
        values = np.asarray(one.data[()], np.float64).reshape(one.data.shape[0], -1)
        factors = getattr(one, "channel_conversion", None)
        values = values * one.conversion * (1 if factors is None else np.asarray(factors)) + one.offset
        names = None
        electrodes = getattr(one, "electrodes", None)
        if electrodes is not None:
            table = electrodes.table.to_dataframe().iloc[list(electrodes.data[:])]
            for column in ("label", "channel_name", "location"):
                if column in table and table[column].is_unique:
                    names = [str(v) for v in table[column]]
                    break
        start, rate, breaks = one.starting_time or 0.0, one.rate, None
        times = None
        if rate is None:
            times = np.asarray(one.timestamps[()], np.float64)
            rate, breaks = _rate_of(times, path)
        trials = None
        if content.trials is not None:
            frame = content.trials.to_dataframe()
            at = np.stack([frame["start_time"], frame["stop_time"]], -1).astype(float)
            at = np.searchsorted(times, at) if times is not None else np.rint((at - start) * rate)
            trials = at[(at[:, 0] >= 0) & (at[:, 1] <= len(values)) & (at[:, 0] < at[:, 1])].astype(np.int64)
            trials = trials if len(trials) else None
        return Found(values, float(rate), names, trials, breaks, str(one.unit))


def _nwb_series(pynwb: Any, content: Any) -> Iterator[tuple[str, Any]]:
    modules = [content.acquisition, *(m.data_interfaces for m in content.processing.values())]
    for module in modules:
        for key, item in module.items():
            if isinstance(item, pynwb.TimeSeries):
                yield key, item
            for inner in ("time_series", "electrical_series"):  # containers such as FilteredEphys
                for k, s in (getattr(item, inner, None) or {}).items():
                    yield f"{key}.{k}", s


def _read_c3d(path: Path, name: str | None) -> Found:
    content = _package("ezc3d", path, "ezc3d").c3d(str(path))
    values = np.asarray(content["data"]["analogs"])
    if not values.size:
        raise ValueError(f"source: {path} has no analog channels; export the EMG with the markers.")
    analog = content["parameters"]["ANALOG"]
    units = analog.get("UNITS", {}).get("value") or [""]
    return Found(
        values.reshape(values.shape[-2:]).T,
        float(content["header"]["analogs"]["frame_rate"]),
        list(analog["LABELS"]["value"])[: values.shape[-2]],
        unit=units[0] if len(set(units)) == 1 else "",
    )


def _read_csv(path: Path, name: str | None) -> Found:
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = [line for _, line in zip(range(50), file, strict=False)]
    comments = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if comments is None:
        raise ValueError(f"source: {path} has no row of numbers; save a column a channel.")
    first = lines[comments]
    delimiter = next((d for d in "\t;" if d in first), "," if "," in first else r"\s+")
    decimal = "," if delimiter in ("\t", ";") and re.search(r"\d,\d", "".join(lines[comments:])) else "."
    cells = re.split(delimiter, first.strip()) if len(delimiter) > 1 else next(csv.reader([first], delimiter=delimiter))
    header = comments if any(not _number(c.replace(decimal, ".")) for c in cells) else None
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
        line = str(error).splitlines()[0]
        raise ValueError(f"source: {path} is not a table ({line}); save a column a channel.") from None
    table.columns = [str(c).strip() for c in table.columns]
    text = [c for c in table.columns if table[c].dtype.kind not in "iufb"]
    if text or not len(table):
        raise ValueError(
            f"source: {path}: {'no rows' if not text else 'not all of column ' + text[0] + ' is numbers'}; save a "
            "column a channel, one row of names at most."
        )
    found = Found(None)
    trials = breaks = rate = None
    pattern = re.compile(r"(time|t|timestamp|zeit)s?[\s_(\[]*(m?s|sec)?[)\]]?", re.I)
    times = next((c for c in table.columns if pattern.fullmatch(c)), None)
    if times is not None and header is not None:
        scale = 1e-3 if re.search(r"ms\W?$", times, re.I) else 1.0
        rate, breaks = _rate_of(scale * table.pop(times).to_numpy(np.float64), path)
    marks = next((c for c in table.columns if c.lower() in ("trial", "epoch")), None)
    if marks is not None:
        number = table.pop(marks).to_numpy()
        cuts = np.flatnonzero(np.diff(number) != 0) + 1
        bounds = np.array([0, *cuts, len(table)])
        trials = np.stack([bounds[:-1], bounds[1:]], -1)
        if rate is None:
            breaks = cuts
    names = list(table.columns) if header is not None else None
    return replace(found, values=table.to_numpy(np.float64), sfreq=rate, channels=names, trials=trials, breaks=breaks)


def _rate_of(times: np.ndarray, path: Path) -> tuple[float, np.ndarray | None]:
    """Sampling rate of regular times (s), and where they jump."""
    steps = np.diff(times)
    typical = np.mean(steps[(steps >= 0) & (steps <= np.percentile(steps, 90))]) if len(times) > 2 else 0.0
    if not np.isfinite(times).all() or not typical > 0:
        raise ValueError(f"source: {path}: its times do not increase; correct them, or leave them out and pass sfreq.")
    # times may be printed with so few decimals that some steps are zero; they may start anew with every trial
    gaps = (steps < 0) | (steps > 2.5 * typical)
    rate = float((~gaps).sum() / steps[~gaps].sum())
    if gaps.mean() > 0.05:
        raise ValueError(f"source: {path}: {gaps.mean():.0%} of its times jump; resample it to a regular rate first.")
    return rate, np.flatnonzero(gaps) + 1 if gaps.any() else None


def _choose(shapes: dict[str, tuple[int, ...]], name: str | None, path: Path, least: int = 2) -> str:
    """The name of the data set that holds the EMG."""
    fit = [n for n, s in shapes.items() if least <= len(s) <= 3 and np.prod(s, dtype=float) > 0 and max(s) > 3]
    if name is not None:
        if name.lstrip("/") in shapes:
            return name.lstrip("/")
        raise ValueError(f"name: no {name!r} in {path}; choose from {', '.join(fit) or 'nothing'}.")
    if len(fit) > 1:
        known = [n for n in fit if _plain(re.split(r"[./]", n)[-1]) in _VALUES]
        fit = known if len(known) == 1 else fit
    if len(fit) != 1:
        found = ", ".join(f"{n} {shapes[n]}" for n in fit[:20])
        raise ValueError(
            f"name: {path} has {found}; say which holds the EMG."
            if fit
            else f"source: {path} has no table of numbers with two or three axes; save (n_sample, n_channel)."
        )
    return fit[0]


def _datasets(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    for key in group:
        if isinstance(group.get(key, getlink=True), h5py.HardLink):
            item = group[key]
            if isinstance(item, h5py.Group):
                yield from _datasets(item)
            elif isinstance(item, h5py.Dataset) and item.shape is not None:
                yield item.name, item


def _neighbours(file: h5py.File, arrays: dict[str, h5py.Dataset], chosen: str) -> dict[str, Any]:
    near: dict[str, Any] = dict(file.attrs)
    near |= {n: d[()] for n, d in _near(arrays, chosen, "/").items() if d.size <= 4096}
    near |= dict(arrays[chosen].parent.attrs) | dict(arrays[chosen].attrs)
    return near


def _near(entries: dict[str, Any], chosen: str, separator: str) -> dict[str, Any]:
    """Entries at the top and beside the chosen one, the nearest last, by their own name."""
    parent = chosen.rpartition(separator)[0]
    top = {n: v for n, v in entries.items() if separator not in n}
    beside = {n.rpartition(separator)[2]: v for n, v in entries.items() if n.rpartition(separator)[0] == parent}
    return {n: v for n, v in (top | beside).items() if n != chosen.rpartition(separator)[2]}


def _told(near: dict[str, Any], path: Path) -> tuple[float | None, list[str] | None]:
    """Sampling rate and channel names among what stands beside the data."""
    rate = names = None
    for key, value in near.items():
        if _plain(key) in _RATES and np.size(value) == 1 and np.asarray(value).dtype.kind in "iuf":
            rate = float(np.asarray(value).ravel()[0])
        if _plain(key) in _NAMES:
            texts = [_string(v) for v in np.atleast_1d(np.asarray(value, dtype=object)).ravel()]
            if all(t is not None for t in texts):
                names = [str(t).strip() for t in texts]
    return rate, names


def _text(near: dict[str, Any], keys: tuple[str, ...]) -> str:
    texts = (_string(v) for k, v in near.items() if _plain(k) in keys)
    return next((t for t in texts if t is not None), "")


def _string(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def _plain(key: str) -> str:
    return re.sub(r"[^a-z]", "", key.lower())


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _package(module: str, path: Path, install: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ImportError(f"source: {path} needs {module}; python -m pip install {install}.") from None
