"""EMG out of MATLAB's files, in the layouts that laboratories and programs write.

A table; trials in cells or in an array of structures; channels in an array of structures with their names; one
variable a muscle; what LabChart exports.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from jaxm2m.files import decode_text, open_hdf5
from jaxm2m.session import _emg_contents
from jaxm2m.session._emg_channels import rises_evenly
from jaxm2m.session._emg_contents import (
    VALUES,
    EmgContents,
    ReportRow,
    check_size,
    choose_data_set,
    find_near,
    first_line,
    flatten,
    normalise_key,
    quote_name,
    read_neighbours,
    size_limit,
)
from jaxm2m.session._emg_units import is_time, split_unit
from jaxm2m.session._mat5 import check_mat5

_Collected = tuple[dict[str, Any], dict[str, tuple[int, ...]], dict[str, Any], Callable[[str], Any]]
_LABELS = ("name", "label", "title", "channel", "muscle")


def read_mat(path: Path, name: str | None) -> EmgContents:
    """Read a MAT file of version 4, 5 or 7.3."""
    where = f"source: {path}"
    if h5py.is_hdf5(path):
        # cells are references, which are followed to text and numbers only
        with open_hdf5(path, limit=_emg_contents.LARGEST, name="source", linked=True) as file:
            return _read_entries(*_collect_mat73(file, path), name, path)
    try:
        check_mat5(path, size_limit())
        content = scipy.io.loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises whatever its parser met
        raise ValueError(f"{where} is not a readable MAT file ({first_line(error)}); save it again.") from None
    content = {k: v for k, v in content.items() if not k.startswith("__")}
    if {"data", "datastart", "dataend"} <= set(content):
        return _read_labchart(content, where)
    entries = dict(flatten(content))
    shapes = {n: v.shape for n, v in entries.items() if _is_numbers(v)}
    lists = {n: v for n, v in entries.items() if (isinstance(v, np.ndarray) and v.dtype == object) or _is_structs(v)}
    return _read_entries(entries, shapes, lists, lambda n: entries[n], name, path)


def _read_entries(
    entries: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    lists: dict[str, Any],
    values: Callable[[str], Any],
    name: str | None,
    path: Path,
) -> EmgContents:
    """Find the EMG among numbers, and lists of numbers or structures."""
    where = f"source: {path}"
    tables = {n: s for n, s in shapes.items() if 2 <= len(s) <= 3 and max(s) > 3}
    trials = {n: [np.asarray(x) for x in v] for n, v in lists.items() if len(v) and all(map(_is_numbers, v))}
    structs = {n: v for n, v in lists.items() if _is_structs(v)}
    if name in trials or (name is None and not tables and len(trials) == 1):
        return _read_cells(name or next(iter(trials)), trials, entries, where)
    for key in structs:
        if (name is None and not tables and not trials) or name == key or (name or "").startswith(f"{key}."):
            return _read_structs(key, structs[key], (name or "")[len(key) + 1 :], entries, where)
    vectors = {n: s for n, s in shapes.items() if len(s) == 1 and s[0] > 10}
    if name is None and not tables and not trials and vectors:
        return _read_vectors({n: np.asarray(values(n)) for n in vectors}, entries, where)
    chosen = choose_data_set(shapes, name, path, least=1 if name is not None else 2)
    near = read_neighbours(find_near(entries, chosen, "."), where)
    array = values(chosen)
    array = array[:, None] if np.ndim(array) == 1 else array
    return EmgContents(array, near.sfreq, near.channels, unit=near.unit, units=near.units, doubt=near.doubt)


def _read_cells(chosen: str, trials: dict[str, list[Any]], entries: dict[str, Any], where: str) -> EmgContents:
    """A cell array of trials, or of channels where names of the same number stand beside it."""
    near = read_neighbours(find_near(entries, chosen, "."), where)
    parts = trials[chosen]
    if all(x.ndim == 1 for x in parts):
        if near.channels is None or len(near.channels) != len(parts):
            raise ValueError(
                f"{where}: {quote_name(chosen)} holds {len(parts)} rows of numbers, and nothing says whether they are "
                "trials or channels; save (n_sample, n_channel), or the names of the channels beside it."
            )
        return _join_channels(parts, near.channels, near, where)
    trial_list = [x[:, None] if x.ndim == 1 else x for x in parts]
    return EmgContents(trial_list, near.sfreq, near.channels, unit=near.unit, units=near.units, doubt=near.doubt)


def _read_structs(
    key: str, structs: list[dict[str, Any]], field: str, entries: dict[str, Any], where: str
) -> EmgContents:
    """An array of structures: a trial each, or a channel each where they hold one row of numbers and a name."""
    shared = [f for f in structs[0] if all(f in one and _is_numbers(one[f]) and np.size(one[f]) > 3 for one in structs)]
    known = [f for f in shared if normalise_key(f) in (*VALUES, "values")]
    fit = [field] if field in shared else known if len(known) == 1 else shared if not field else []
    if len(fit) != 1:
        listed = ", ".join(f"{key}.{f}" for f in shared) or "none with numbers"
        raise ValueError(f"name: {where.removeprefix('source: ')} has the structures {key} with {listed}; say which.")
    parts = [np.asarray(one[fit[0]]) for one in structs]
    near = read_neighbours(find_near(entries, key, ".") | {k: v for k, v in structs[0].items() if k != fit[0]}, where)
    label = next((f for f in structs[0] if normalise_key(f) in _LABELS), None)
    names = [decode_text(one.get(label)) for one in structs] if label else []
    if all(x.ndim == 1 for x in parts):
        if not names or None in names:
            raise ValueError(
                f"{where}: the structures {key} hold rows of numbers, and nothing says whether they are trials or "
                "channels; give each a `name`, or save (n_sample, n_channel)."
            )
        return _join_channels(parts, [str(n) for n in names], near, where)
    trial_list = [x[:, None] if x.ndim == 1 else x for x in parts]
    return EmgContents(trial_list, near.sfreq, near.channels, unit=near.unit, units=near.units, doubt=near.doubt)


def _join_channels(parts: list[Any], names: list[str], near: Any, where: str) -> EmgContents:
    lengths = {len(x) for x in parts}
    if len(lengths) > 1:
        raise ValueError(f"{where}: its channels have {min(lengths)} to {max(lengths)} samples; save them at one rate.")
    values = np.column_stack(parts)
    return EmgContents(values, near.sfreq, names, unit=near.unit, units=near.units, doubt=near.doubt)


def _read_vectors(vectors: dict[str, np.ndarray], entries: dict[str, Any], where: str) -> EmgContents:
    """One variable a muscle: vectors of the same length."""
    near = read_neighbours(find_near(entries, next(iter(vectors)), "."), where)
    times = [n for n, v in vectors.items() if is_time(*split_unit(n.rpartition(".")[2])) or rises_evenly(v)]
    others = {n: v for n, v in vectors.items() if n not in times}
    longest = max(map(len, others.values()), default=0)
    taken = {n: v for n, v in others.items() if len(v) == longest}
    if not taken:
        raise ValueError(f"{where} has no numbers but times; save (n_sample, n_channel).")
    homes = [n.rpartition(".")[0] for n in taken]
    if len(set(homes)) == len(homes) > 1 and len({n.rpartition(".")[2] for n in taken}) == 1:
        return _read_structs_of_channels(taken, homes, entries, where)
    if len(set(homes)) > 1:
        raise ValueError(f"name: {where.removeprefix('source: ')} has {', '.join(taken)}; say which holds the EMG.")
    rows = [ReportRow(n, "time", "", "left out", "times or a counter") for n in times]
    rows += [
        ReportRow(n, "", "", "left out", f"{len(v)} samples, not {longest}")
        for n, v in others.items()
        if n not in taken
    ]
    names = near.channels if near.channels is not None and len(near.channels) == len(taken) else None
    if names is None and not (len(taken) == 1 and normalise_key(next(iter(taken)).rpartition(".")[2]) in VALUES):
        names = [n.rpartition(".")[2] for n in taken]
    values = np.column_stack(list(taken.values()))
    return EmgContents(values, near.sfreq, names, unit=near.unit, rows=tuple(rows), doubt=near.doubt)


def _read_structs_of_channels(
    taken: dict[str, np.ndarray], homes: list[str], entries: dict[str, Any], where: str
) -> EmgContents:
    """One structure a channel, with its own rate, name and unit, as Spike2 exports them."""
    beside = [
        {k.rpartition(".")[2]: v for k, v in entries.items() if k.rpartition(".")[0] == home and k not in taken}
        for home in homes
    ]
    near = [read_neighbours(part, where) for part in beside]
    rates = {part.sfreq for part in near}
    if len(rates) > 1 or any(part.doubt for part in near):
        listed = ", ".join(f"{home}: {part.sfreq or part.doubt} Hz" for home, part in zip(homes, near, strict=True))
        raise ValueError(f"{where} has channels of several rates ({listed}); export those of the EMG alone.")
    starts = {float(np.ravel(part["start"])[0]) for part in beside if np.size(part.get("start", ())) == 1}
    if len(starts) > 1:
        raise ValueError(f"{where} has channels that start at {sorted(starts)} s; export them over the same time.")
    titles = [next((decode_text(v) for k, v in part.items() if normalise_key(k) in _LABELS), None) for part in beside]
    names = [title or home for title, home in zip(titles, homes, strict=True)]
    values = np.column_stack(list(taken.values()))
    return EmgContents(values, near[0].sfreq, names, units=[part.unit for part in near])


def _read_labchart(content: dict[str, Any], where: str) -> EmgContents:
    """What LabChart exports: all channels and blocks in one row, with the place of each."""
    data = np.ravel(content["data"]).astype(float)
    start, stop = (np.asarray(content[k], float) for k in ("datastart", "dataend"))
    names = [str(t).strip() for t in np.atleast_1d(content.get("titles", []))]
    count = len(names) or (len(start) if start.ndim else 1)
    start, stop = start.reshape(count, -1), stop.reshape(count, -1)
    rates = np.atleast_1d(np.asarray(content.get("samplerate", np.nan), float)).reshape(count, -1)
    used = (start[:, 0] > 0) & (stop[:, 0] > start[:, 0])
    names = names or [str(i + 1) for i in range(count)]
    if not used.any():
        raise ValueError(f"{where} declares no samples; export it again.")
    if np.ptp(rates[used]) > 1e-3 * np.max(rates[used]):
        listed = ", ".join(f"{n}: {r:g} Hz" for n, r in zip(names, rates[:, 0], strict=True))
        raise ValueError(f"{where} has channels of several rates ({listed}); export those of the EMG alone.")
    pieces = []
    for block in range(start.shape[1]):
        spans = [(int(a) - 1, int(b)) for a, b in zip(start[used, block], stop[used, block], strict=True)]
        if len({b - a for a, b in spans}) != 1 or min(a for a, _ in spans) < 0 or max(b for _, b in spans) > len(data):
            raise ValueError(f"{where}: block {block + 1} has not all channels whole; export it again.")
        pieces.append(np.column_stack([data[a:b] for a, b in spans]))
    units = None
    if "unittext" in content and "unittextmap" in content:
        texts = [str(t).strip() for t in np.atleast_1d(content["unittext"])]
        at = np.asarray(content["unittextmap"], int).reshape(count, -1)[:, 0]
        units = [texts[i - 1] if 0 < i <= len(texts) else "" for i in at[used]]
    kept = [n for n, u in zip(names, used, strict=True) if u]
    rows = [ReportRow(n, "", "", "left out", "no samples") for n, u in zip(names, used, strict=True) if not u]
    return EmgContents(pieces, float(rates[used][0, 0]), kept, units=units, rows=tuple(rows))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and 1 <= value.ndim <= 3


def _is_structs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _collect_mat73(file: Any, path: Path) -> _Collected:
    """Entries, shapes, lists of numbers, and what reads an array: MATLAB's first axis runs fastest in HDF5."""
    arrays = {n.replace("/", "."): d for n, d in file.datasets() if not n.startswith("#")}
    entries = {n: _read_mat73_value(file, d) for n, d in arrays.items() if d.size <= 4096 or is_time(*split_unit(n))}
    shapes = {n: d.shape[::-1] for n, d in arrays.items() if _is_number(d)}
    lists = {}
    for n, d in arrays.items():
        targets = _follow_cells(file, d)
        if targets and all(t.ndim and _is_number(t) and t.size > 3 for t in targets):
            check_size(sum(t.size for t in targets), f"source: {path}")
            parts = [t[()].T for t in targets]
            lists[n] = [x.ravel() if 1 in x.shape else x for x in parts]

    def values(n: str) -> Any:
        check_size(arrays[n].size, f"source: {path}")
        return arrays[n][()].T

    return entries, shapes, lists, values


def _follow_cells(file: Any, data: h5py.Dataset) -> list[h5py.Dataset]:
    if data.dtype.kind != "O" or h5py.check_ref_dtype(data.dtype) is not h5py.Reference or data.size > 4096:
        return []
    targets = [file[r] for r in data[()].T.ravel() if r]
    return [t for t in targets if isinstance(t, h5py.Dataset)] if len(targets) == data.size else []


def _read_mat73_value(file: Any, data: h5py.Dataset) -> Any:
    if data.dtype.kind == "O" and h5py.check_ref_dtype(data.dtype) is h5py.Reference:
        # what a cell holds is text here: cells of cells are no names, and could lead back to themselves
        return [_read_mat73_text(t) for t in _follow_cells(file, data) if t.dtype.kind == "u"]
    value = _read_mat73_text(data)
    return np.ravel(value) if isinstance(value, np.ndarray) and 1 in value.shape else value


def _read_mat73_text(data: h5py.Dataset) -> Any:
    if decode_text(data.attrs.get("MATLAB_class")) != "char":
        return data[()]
    if data.size > 4096:
        return None
    return "".join(chr(c) for c in np.asarray(data[()]).T.ravel() if 0 <= c < 0xD800)


def _is_number(data: h5py.Dataset) -> bool:
    return data.dtype.kind in "iuf" and decode_text(data.attrs.get("MATLAB_class")) not in ("char", "cell")
