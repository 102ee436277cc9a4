"""What the text of a name or a unit says: its scale, whether it is a time or a counter."""

import re

VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9}
_SPELLINGS = {
    "uV": ("uv", "\u00b5v", "\u03bcv", "microv", "microvolt", "microvolts", "\u00b5volts", "uvolts"),
    "mV": ("mv", "millivolt", "millivolts", "mvolts"),
    "V": ("v", "volt", "volts"),
    "nV": ("nv", "nanovolt", "nanovolts"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "ms": ("ms", "msec", "millisecond", "milliseconds"),
    "us": ("us", "\u00b5s", "\u03bcs", "usec", "microseconds"),
}
_OF_SPELLING = {word: unit for unit, words in _SPELLINGS.items() for word in words}
SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
# what no EMG is measured in, and what it then is
_KINDS_OF_UNITS = {
    "force": ("n", "kn", "lbs", "kg"),
    "moment": ("nm", "nmm", "n.m", "n.mm", "n*m"),
    "acceleration": ("g", "m/s2", "m/s^2", "m/s\u00b2", "mm/s^2", "mm/s2"),
    "angle or rotation": ("deg", "rad", "deg/s", "rad/s", "dps", "\u00b0", "\u00b0/s"),
    "position": ("mm", "cm", "m"),
    "other": ("%", "a.u.", "au", "bpm", "hz", "us/cm", "degc", "\u00b0c", "mmhg"),
}
KIND_OF_UNIT = {word: kind for kind, words in _KINDS_OF_UNITS.items() for word in words}
_COUNTERS = {
    *("sample", "samples", "sampleindex", "samplenumber", "sampleno", "index", "idx", "frame", "frames", "subframe"),
    *("framenumber", "counter", "count", "no", "nr", "row", "n", "#", "point", "points", "packet", "unnamed", "item"),
}
_TIME = re.compile(r"(.*[\s:_.])?(time|times|time ?stamps?|zeit|time series|temps|tiempo|tempo|elapsed)", re.I)


def normalise_unit(unit: str) -> str:
    """A unit in one spelling ("uV" of "microvolts"); what is not known stays as it is."""
    text = unit.strip().strip("[]()").strip()
    return _OF_SPELLING.get(text.lower(), text)


def is_unit(text: str) -> bool:
    """Whether `text` is a unit that recordings have."""
    word = text.strip().strip("[]()").strip().lower()
    return word in _OF_SPELLING or word in KIND_OF_UNIT


def is_voltage(unit: str) -> bool:
    """Whether a unit in its one spelling is one of voltage."""
    return unit in VOLTS


def split_unit(name: str) -> tuple[str, str]:
    """`name` and unit of "FDI [mV]", "FDI (mV)", "FDI,mV", "time_ms"."""
    name = name.strip()
    bracket = re.fullmatch(r"(.*?)\s*[\[(]\s*([^\[\]()]*?)\s*[\])]\s*", name)
    if bracket and is_unit(bracket[2]):
        return bracket[1].strip(), normalise_unit(bracket[2])
    end = re.fullmatch(r"(.+?)\s*,\s*(\S+)", name)
    if end and is_unit(end[2]):
        return end[1], normalise_unit(end[2])
    end = re.fullmatch(r"((?:.*[\s_])?(?:time|t|timestamp|zeit))s?[\s_]+(ms|s|us|sec|msec)", name, re.I)
    return (end[1], normalise_unit(end[2])) if end else (name, "")


def is_time(name: str, unit: str) -> bool:
    """Whether a column of that name and unit holds times."""
    if unit and unit not in SECONDS:
        return False
    return bool(_TIME.fullmatch(name) or name.lower() in ("t", "ts") or (unit and name.lower() in ("x", "", "s")))


def is_counter(name: str) -> bool:
    """Whether a column of that name counts samples or frames."""
    return re.sub(r"[\s_:.-]|\d+$", "", name.lower()) in _COUNTERS
