"""Readers of EMG files: what they hold, before it is made into a `Recording`."""

import contextlib
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxm2m.files import open_hdf5, read_npy
from jaxm2m.session import _emg_contents
from jaxm2m.session._emg_channels import channel_kind
from jaxm2m.session._emg_contents import (
    EmgContents,
    ReportRow,
    check_size,
    choose_data_set,
    estimate_rate,
    find_near,
    import_package,
    read_neighbours,
    translate_errors,
)
from jaxm2m.session._emg_mat import read_mat
from jaxm2m.session._emg_mne import read_by_mne
from jaxm2m.session._emg_table import TableOptions, read_sheet, read_text
from jaxm2m.session._emg_units import is_time, normalise_unit, split_unit

_PATIENCE = 300  # s that another program may take for a file
_TABLES = (".csv", ".tsv", ".txt", ".sto", ".mot", ".dat", ".asc")
# lfads-torch's files say their axes by these names
_LFADS = {f"{part}_{kind}data" for part in ("train", "valid", "test") for kind in ("", "encod_", "recon_")}
# what other parts of the package write: read as raw EMG it would be filtered and rectified a second time
_OWN = {
    "rectified emg": "preprocessed EMG; emg.Rectified.load",
    "muscle activation": "muscle activation; emg.Activation.load",
    "meps": "MEPs; muscle.Meps.load",
}
_CONVERTERS = {
    ".otb+": "openhdemg (openhdemg.library.emg_from_otb), or OT BioLab+ exports .mat or .csv",
    ".otb4": "openhdemg, or OT BioLab+ exports .mat or .csv",
    ".rhd": "neo (neo.io.IntanIO)",
    ".rhs": "neo (neo.io.IntanIO)",
    ".smr": "neo (neo.io.Spike2IO)",
    ".smrx": "neo (neo.io.CedIO)",
    ".plx": "neo (neo.io.PlexonIO)",
    ".abf": "pyabf",
    ".acq": "bioread (acq2mat)",
    ".adicht": "adi-reader, or LabChart exports .mat",
    ".hpf": "Delsys File Utility, which exports .csv and .c3d",
    ".shpf": "Trigno Discover, which exports .csv",
    ".poly5": "TMSi's python interface",
    ".xdf": "pyxdf",
    ".tdms": "npTDMS",
    ".xls": "a spreadsheet program, as .xlsx",
    ".ods": "a spreadsheet program, as .xlsx",
    ".parquet": "pandas (pandas.read_parquet; a DataFrame is taken as it is)",
    ".feather": "pandas (pandas.read_feather; a DataFrame is taken as it is)",
    ".pkl": "pandas or numpy (arrays and DataFrames are taken as they are)",
}


def read_contents(path: Path, name: str | None, options: TableOptions) -> EmgContents:
    """The content of an EMG file, by its suffix."""
    suffix = path.suffix.lower()
    if suffix in _CONVERTERS:
        raise ValueError(f"source: {path} is not read here; convert it to HDF5, CSV or EDF by {_CONVERTERS[suffix]}.")
    if suffix in _TABLES:
        return read_text(path, options)
    if options.skiprows is not None and suffix != ".xlsx":
        raise ValueError(f"skiprows: {path} is no text; leave it out.")
    readers: dict[str, Callable[[Path, str | None], EmgContents]] = {
        ".h5": _read_hdf5,
        ".hdf5": _read_hdf5,
        ".mat": read_mat,
        ".nwb": _read_nwb,
        ".c3d": _read_c3d,
        ".npy": lambda path, _: EmgContents(read_npy(path, "source")),
        ".xlsx": lambda path, name: read_sheet(path, name, options),
    }
    return readers.get(suffix, lambda path, _: read_by_mne(path))(path, name)


def _read_hdf5(path: Path, name: str | None) -> EmgContents:
    with open_hdf5(path, limit=_emg_contents.LARGEST, name="source") as file:
        content = file.text("content")
        if content == "emg recording" and name in (None, "samples"):
            return _read_recording(file)
        if content in _OWN and name is None:
            raise ValueError(f"source: {path} holds {_OWN[content]} reads it.")
        arrays = dict(file.datasets())
        chosen = choose_data_set({n: d.shape for n, d in arrays.items() if d.dtype.kind in "iuf"}, name, path)
        values = _read_values(arrays[chosen], path)
        near = read_neighbours(_collect_neighbours(file, arrays, chosen), f"source: {path}")
        axes = "trial sample channel" if chosen in _LFADS and values.ndim == 3 else None
        return EmgContents(
            values, near.sfreq, near.channels, unit=near.unit, units=near.units, axes=axes, doubt=near.doubt
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
    contents = EmgContents(
        arrays["samples"],
        file.number("sfreq"),
        names,
        arrays["trials"],
        segments[1:, 0],
        file.text("unit"),
        kinds=["EMG"] * len(names),  # they were chosen once
        axes="sample channel",
    )
    if not file.text("report"):
        return contents
    try:
        report = file.json("report")
        return replace(
            contents,
            kinds=[str(kind) for kind in report["kinds"]],
            rows=tuple(ReportRow(*map(str, row)) for row in report["rows"]),
            bad_spans=[(int(a), int(b), "") for a, b in report["bad_spans"]],
            events=[(str(n), int(a), int(b)) for n, a, b in report["events"]],
            reported=True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file.label} is damaged (its report: {error}); make it again.") from None


def _read_nwb(path: Path, name: str | None) -> EmgContents:
    pynwb = import_package("pynwb", path, "pynwb")
    where = f"source: {path}"
    with open_hdf5(path, limit=_emg_contents.LARGEST, name="source", linked=True):
        pass  # what it declares and where it points has been looked at
    with contextlib.ExitStack() as stack:
        with translate_errors("pynwb", where):
            io = stack.enter_context(pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True))
            content = io.read()
            series = {
                n: s
                for n, s in _iterate_nwb_series(pynwb, content)
                if s.data is not None and len(s.data.shape) in (1, 2)
            }
        chosen = choose_data_set({n: s.data.shape for n, s in series.items()}, name, path, least=1)
        one = series[chosen]
        check_size(math.prod(one.data.shape), where)
        with translate_errors("pynwb", where):
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
        rate, breaks = estimate_rate(times, where)
    if rate is None or not 0 < rate < math.inf:
        raise ValueError(f"{where} tells a sampling rate of {rate} Hz; correct it there.")
    if at is not None:
        at = np.searchsorted(times, at) if times is not None else np.rint((at - start) * rate)
        trials = at[(at[:, 0] >= 0) & (at[:, 1] <= len(values)) & (at[:, 0] < at[:, 1])].astype(np.int64)
        trials = trials if len(trials) else None
    return EmgContents(values, rate, names, trials, breaks, normalise_unit(unit), axes="sample channel")


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
    import_package("ezc3d", path, "ezc3d")
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
            names, units = [str(n) for n in content["labels"]], [normalise_unit(str(u)) for u in content["units"]]
            plates, onsets = set(content["plates"].tolist()), content["onsets"].tolist()
            events = [(str(n), round(t * rate)) for n, t in zip(content["events"], onsets, strict=True)]
    if not values.size:
        raise ValueError(f"source: {path} has no analog channels; export the EMG with the markers.")
    if len(names) < values.shape[1]:
        raise ValueError(f"source: {path} names {len(names)} of its {values.shape[1]} channels; export it again.")
    names = names[: values.shape[1]]
    units = units * len(names) if len(units) == 1 else (units + [""] * len(names))[: len(names)]
    kinds = [
        "force plate" if i in plates else channel_kind(name, unit)
        for i, (name, unit) in enumerate(zip(names, units, strict=True))
    ]
    return EmgContents(
        values,
        rate,
        names,
        units=units,
        kinds=kinds,
        events=[(n, i, i) for n, i in events if 0 <= i < len(values)],
        axes="sample channel",
    )


def _collect_neighbours(file: h5py.File, arrays: dict[str, h5py.Dataset], chosen: str) -> dict[str, Any]:
    near: dict[str, Any] = dict(file.attrs)
    near |= {
        n: d[()]
        for n, d in find_near(arrays, chosen, "/").items()
        if d.size <= 4096 or (d.ndim == 1 and d.size <= max(arrays[chosen].shape) and is_time(*split_unit(n)))
    }
    near |= dict(arrays[chosen].parent.attrs) | dict(arrays[chosen].attrs)
    return near


def _read_values(data: h5py.Dataset, path: Path) -> np.ndarray:
    check_size(data.size, f"source: {path}")
    return data[()]
