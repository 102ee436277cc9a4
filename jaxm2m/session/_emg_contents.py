"""What a source of EMG holds, and what all readers of EMG files need."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxm2m._memory import memory
from jaxm2m.files import decode_text
from jaxm2m.session._emg_units import SECONDS, is_time, normalise_unit, split_unit

GIGABYTE = 1 << 30
LARGEST = 16 * GIGABYTE
_SHARE = 0.5  # of the free memory: samples are copied on their way
_RATES = ("sfreq", "fs", "srate", "samplingrate", "samplerate", "samplingfrequency", "freq", "rate", "emgfs", "fsemg")
_INTERVALS = ("dt", "isi", "interval", "sampleinterval", "samplinginterval", "sampletime")
_NAMES = ("channels", "channelnames", "chnames", "chanlabels", "labels", "muscles", "musclenames", "names", "emgnames")
VALUES = ("samples", "emg", "data", "rawemg", "emgraw")
UNIT_KEYS = ("unit", "units")


class ReportRow(NamedTuple):
    """A line of `Recording.report()`: a column or channel of the source, and what became of it."""

    channel: str
    type: str
    unit: str
    status: str
    note: str


@dataclass(frozen=True, eq=False)
class EmgContents:
    """What a source holds: values with its own order of axes, and what it says about them.

    `units`, `kinds` and `bads` speak of each channel; kinds are "EMG", another type, or "" where nothing is said.
    `typed`: the source itself types its channels; else the kinds stand in their names. Spans are in samples.
    """

    values: Any  # an array, a list of trials, or a function of the indices of the channels that are wanted
    sfreq: float | None = None
    channels: list[str] | None = None
    trials: np.ndarray | None = None
    breaks: np.ndarray | None = None  # samples at which a new contiguous piece begins
    unit: str = ""
    units: list[str] | None = None
    kinds: list[str] | None = None
    typed: bool = False
    bads: dict[str, str] | None = None  # names, and why
    bad_spans: list[tuple[int, int, str]] | None = None
    events: list[tuple[str, int, int]] | None = None  # name, first sample, first sample after
    rows: tuple[ReportRow, ...] = ()  # columns that are no channels
    reported: bool = False  # the rows were told of when the source was written
    axes: str | None = None
    doubt: str = ""  # why there is no rate although one is told
    step: float | None = None  # of a column that rises evenly: times without a unit, or a counter


def estimate_rate(times: np.ndarray, where: str) -> tuple[float, np.ndarray | None]:
    """Sampling rate of regular times (s), and where they jump."""
    known = len(times) > 2 and (np.abs(times) < 1e15).all()
    steps = np.diff(times) if known else np.zeros(1)
    forward = steps[(steps >= 0) & (steps <= np.percentile(steps, 90))]
    typical = forward.mean() if len(forward) else 0.0
    if not typical > 0:
        raise ValueError(f"{where}: its times do not increase; correct them, or leave them out and pass sfreq.")
    # times may be printed with so few decimals that some steps are zero; they may start anew with every trial
    gaps = (steps < 0) | (steps > 2.5 * typical)
    if gaps.mean() > 0.05 or not steps[~gaps].sum() > 0:
        raise ValueError(f"{where}: {gaps.mean():.0%} of its times jump; resample it to a regular rate first.")
    rate = float((~gaps).sum() / steps[~gaps].sum())
    return rate, np.flatnonzero(gaps) + 1 if gaps.any() else None


def choose_data_set(shapes: dict[str, tuple[int, ...]], name: str | None, path: Path, least: int = 2) -> str:
    """The name of the data set that holds the EMG."""
    fit = [n for n, s in shapes.items() if least <= len(s) <= 3 and np.prod(s, dtype=float) > 0 and max(s) > 3]
    if name is not None:
        if name.lstrip("/") in shapes:
            return name.lstrip("/")
        raise ValueError(
            f"name: no {name!r} in {path}; choose from {', '.join(map(quote_name, fit[:20])) or 'nothing'}."
        )
    if len(fit) > 1:
        known = [n for n in fit if normalise_key(re.split(r"[./]", n)[-1]) in VALUES]
        fit = known if len(known) == 1 else fit
    if len(fit) != 1:
        listed = ", ".join(f"{quote_name(n)} {shapes[n]}" for n in fit[:20])
        raise ValueError(
            f"name: {path} has {listed}; say which holds the EMG."
            if fit
            else f"source: {path} has no table of numbers with two or three axes; save (n_sample, n_channel)."
        )
    return fit[0]


def find_near(entries: dict[str, Any], chosen: str, separator: str) -> dict[str, Any]:
    """Entries at the top and beside the chosen one, the nearest last, by their own name."""
    parent = chosen.rpartition(separator)[0]
    top = {n: v for n, v in entries.items() if separator not in n}
    beside = {n.rpartition(separator)[2]: v for n, v in entries.items() if n.rpartition(separator)[0] == parent}
    return {n: v for n, v in (top | beside).items() if n != chosen.rpartition(separator)[2]}


@dataclass(frozen=True)
class Neighbours:
    """What stands beside the data: rate (Hz), names, unit; `doubt` says why there is no rate although one is told."""

    sfreq: float | None = None
    channels: list[str] | None = None
    unit: str = ""
    units: list[str] | None = None
    doubt: str = ""


def read_neighbours(near: dict[str, Any], where: str) -> Neighbours:
    """Rate, names and units among what stands beside the data, by their keys."""
    rates: dict[str, float] = {}
    doubt = ""
    names: list[str] | None = None
    units: list[str] | None = None
    for key, value in near.items():
        word = normalise_key(key)
        base = word.removesuffix("khz") if word.endswith("khz") else word.removesuffix("hz")
        numbers = _as_numbers(value)
        number = float(numbers.ravel()[0]) if numbers.size == 1 else None
        if base in _RATES and number is not None:
            rates[key] = number * (1000 if word.endswith("khz") else 1)
        elif word in _INTERVALS and number is not None:
            unit = normalise_unit(find_text(near, (f"{word}units", f"{word}unit")))
            if word == "isi" and unit not in ("s", "ms", "us"):
                doubt = f"{key} is {number:g}, without a unit"
            elif number > 0:
                rates[key] = 1 / (number * SECONDS.get(unit, 1.0))
        elif is_time(*split_unit(key)) and numbers.ndim == 1 and numbers.size > 10:
            rates[key] = estimate_rate(numbers.astype(float) * SECONDS[split_unit(key)[1]], where)[0]
        if word in _NAMES:
            names = _read_texts(value) or names
        if word in UNIT_KEYS:
            texts = _read_texts(value)
            units = texts if texts is not None and len(texts) > 1 else units
    if rates and max(rates.values()) > 1.001 * min(rates.values()):
        doubt = ", ".join(f"{k}: {v:.6g} Hz" for k, v in rates.items())
        rates = {}
    sfreq = next(iter(rates.values()), None)
    unit = find_text(near, UNIT_KEYS) if units is None else ""
    return Neighbours(sfreq, names, unit, units, doubt)


def _as_numbers(value: Any) -> np.ndarray:
    """An array of numbers; an empty one of anything else, such as lists of different lengths."""
    if isinstance(value, (list, tuple, dict, str, bytes)):
        return np.zeros(0)
    array = np.asarray(value)
    return array if array.dtype.kind in "iuf" else np.zeros(0)


def _read_texts(value: Any) -> list[str] | None:
    texts = [decode_text(v) for v in np.atleast_1d(np.asarray(value, dtype=object)).ravel()]
    return [str(t).strip() for t in texts] if texts and all(t is not None for t in texts) else None


def find_text(near: dict[str, Any], keys: tuple[str, ...]) -> str:
    texts = (decode_text(v) for k, v in near.items() if normalise_key(k) in keys)
    return next((t for t in texts if t is not None), "")


def normalise_key(key: str) -> str:
    return re.sub(r"[^a-z]", "", key.lower())


def is_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def flatten(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_size(count: int, where: str) -> None:
    if 8 * count > size_limit():
        raise ValueError(f"{where} declares {8 * count / GIGABYTE:.1f} GB, which do not fit here; save less at once.")


def size_limit() -> int:
    """Bytes that a recording may have."""
    _, free = memory()
    return min(LARGEST, int(_SHARE * free)) if free else LARGEST


@contextlib.contextmanager
def translate_errors(package: str, where: str) -> Iterator[None]:
    """Whatever the reader of another package raises becomes one line that names the file."""
    try:
        yield
    except Exception as error:
        line = first_line(error)
        raise ValueError(f"{where} cannot be read by {package} ({line}); convert it to HDF5, CSV or EDF.") from None


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def check_unique(names: list[str], where: str | None) -> None:
    """Refuse names that stand for several channels."""
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        beside = "" if where is None else f" in {where.removeprefix('source: ')}"
        listed = ", ".join(map(quote_name, twice[:20]))
        raise ValueError(f"channels: {listed} named more than once{beside}; give each its own name.")


def quote_name(name: str) -> str:
    """A name out of a file, for a message."""
    return name if name.isprintable() and len(name) < 80 else repr(name[:80])


def import_package(module: str, path: Path, install: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ImportError(f"source: {path} needs {module}; python -m pip install {install}.") from None
