"""What a channel is, by its name, its unit and its numbers, and which channels are taken."""

import re
from collections.abc import Sequence

import numpy as np

from jaxm2m.session._emg_contents import EmgContents, ReportRow, quote_name
from jaxm2m.session._emg_units import KIND_OF_UNIT, VOLTS, is_voltage, normalise_unit

# whole words at the beginning of a label, as EDF+ has them, or alone
_KINDS_OF_NAMES = {
    "ECG": r"(ecg|ekg)\b.*",
    "EEG": r"eeg\b.*",
    "EOG": r"(eog|heog|veog)\b.*",
    "respiration": r"(resp|respiration|breath|thorax|abdomen)\b.*",
    "oxygen": r"(sao2|spo2)\b.*",
    "temperature": r"temperature\b.*",
    "skin conductance": r"(gsr|eda)\b.*",
    "trigger": r"(stim|sti|trig|trigger|triggers|ttl|marker|markers|sync|status|event|events|annotations)([ _-]?\d*)",
    "force": r"(.*\b)?(force|torque|load ?cell)([ ._-]?[xyz\d])*",
    "angle": r"(.*\b)?(angle|goniometer)([ ._-]?[xyz\d])*",
    "label": r"(class|labels?|stimulus|restimulus|repetition|rerepetition|gesture|condition|phase)",
    "acceleration": r"(.*\b)?(acc|accel|accelerometer)([ ._-]?[xyz\d])*([ ._-].*)?",
    "rotation": r"(.*\b)?(gyro|gyr)([ ._-]?[xyz\d])*([ ._-].*)?",
    "magnetic field": r"(.*\b)?mag[ ._-]?[xyz]([ ._-].*)?",
    "force plate": r"((fp|force ?plate|force)[ ._-]?\d*[ ._-])+[fm][xyz]\d*|[fm][xyz][ _]?\d*|[fm]\d?[xyz]\d\d?",
}


def rises_evenly(values: np.ndarray) -> bool:
    """Whether numbers rise by the same step all along, as far as they were printed: no muscle does."""
    for part in (values[:1000], values):
        steps = np.diff(part)
        if len(steps) < 9 or not np.isfinite(part).all() or not (steps > 0).all():
            return False
        if np.abs(steps - steps.mean()).max() > 0.02 * steps.mean():
            return False
    return True


def channel_kind(name: str, unit: str = "") -> str:
    """The type that a channel's name, or its unit, says; "" where neither does."""
    label = name.strip().rpartition(": ")[2]  # of "sensor: channel"
    if re.match(r"s?emg(\b|[ _\d])", label, re.I):
        return "EMG"
    for kind, pattern in _KINDS_OF_NAMES.items():
        if re.fullmatch(pattern, label, re.I):
            return kind
    word = unit.lower()
    return KIND_OF_UNIT.get(word, "") if not is_voltage(unit) else ""


def select_channels(
    contents: EmgContents,
    names: list[str],
    counters: dict[int, str],
    picks: Sequence[str] | None,
    bads: str,
    renamed: bool,
    where: str,
) -> tuple[list[int], list[ReportRow]]:
    """Indices of the channels that are taken, and a line for each that is not.

    `counters`: columns that are no channels, and why. `renamed`: the names are the caller's, and say no types.
    """
    units = contents.units or [contents.unit] * len(names)
    kinds = contents.kinds or [channel_kind(n, u) for n, u in zip(names, units, strict=True)]
    if picks is not None:
        if isinstance(picks, str):
            raise TypeError(f"picks: {picks!r}; pass a list of names.")
        missing = [str(n) for n in picks if n not in names]
        if missing:
            listed = ", ".join(map(quote_name, names[:60]))
            raise ValueError(f"picks: no {', '.join(missing)} in {where}; choose from {listed}.")
        chosen = [names.index(n) for n in picks]
        reasons = dict.fromkeys(set(range(len(names))) - set(chosen), "not picked")
    else:
        reasons = ({} if renamed and not contents.typed else _other_types(kinds, contents.typed)) | counters
        if bads == "drop":
            marked = {n: f"marked bad ({text})" if text else "marked bad" for n, text in (contents.bads or {}).items()}
            source_names = contents.channels or names
            reasons |= {i: marked[n] for i, n in enumerate(source_names) if n in marked and i not in reasons}
        chosen = [i for i in range(len(names)) if i not in reasons]
        if not chosen:
            raise ValueError(
                f'bads: all {len(names)} channels of {where} are marked bad or are no EMG; pass bads="keep", or name '
                "channels by picks."
            )
    kinds = ["counter" if i in counters else kind for i, kind in enumerate(kinds)]
    return chosen, [ReportRow(names[i], kinds[i], units[i], "left out", reasons[i]) for i in sorted(reasons)]


def _other_types(kinds: list[str], typed: bool) -> dict[int, str]:
    """Channels that are no EMG, and why; none where nothing else is there."""
    if typed and "EMG" in kinds:
        others = {i: f"{kind or 'no type'}, not EMG" for i, kind in enumerate(kinds) if kind != "EMG"}
    else:
        others = {i: f"{kind}, by its name or unit" for i, kind in enumerate(kinds) if kind not in ("", "EMG")}
    return others if len(others) < len(kinds) else {}


def unify_units(units: list[str], unit: str | None, names: list[str], where: str) -> tuple[np.ndarray | None, str]:
    """Factors that bring channels to one unit, if any is needed, and that unit.

    Raises
    ------
    ValueError
        The caller's unit contradicts the source's; some channels have a unit and others have none.
    """
    known = list(dict.fromkeys(u for u in units if u))
    if unit is not None:
        unit = normalise_unit(unit)
        wrong = [u for u in known if u != unit]
        if wrong and len(known) == 1 and "" not in units:
            raise ValueError(
                f"unit: {unit!r}, but {where} says {wrong[0]!r}; leave it out (numbers are in the unit that the source "
                "says), or correct the source."
            )
        units = [u or unit for u in units]
        known = list(dict.fromkeys([unit, *known]))
    if len(known) <= 1 and ("" not in units or not known):
        return None, known[0] if known else ""
    if "" in units and any(is_voltage(u) for u in known):
        nameless = ", ".join(quote_name(n) for n, u in zip(names, units, strict=True) if not u)
        raise ValueError(
            f"unit: {where} says no unit that is known for {nameless}, and {known[0]} for others; pass unit= for "
            "these, or leave them out by picks."
        )
    if not all(is_voltage(u) for u in known):
        return None, ""  # each has its own: no one unit holds
    return np.array([VOLTS[u] / VOLTS[known[0]] for u in units]), known[0]
