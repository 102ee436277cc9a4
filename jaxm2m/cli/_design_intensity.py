"""How strong stimuli are: what the options ask for, what a navigator recorded, and what the operator reads."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxm2m.cli import _arguments

if TYPE_CHECKING:
    from jaxm2m.cli._design_stimulus import Stimulus
    from jaxm2m.coil import Coil, Stimulator
    from jaxm2m.cortex import FiringRate
    from jaxm2m.design import Loop

Limits = tuple[float, ...]  # one intensity, or the lowest and the highest


def parse_limits(text: str, option: str, unit: str) -> Limits:
    """Read "8e7", or "6e7,9e7": one number above zero, or the lowest and the highest."""
    values = _arguments.parse_numbers(text, option, f"one number ({unit}), or LOWEST,HIGHEST")
    _arguments.check_positive({option: min(values)})
    if len(values) > 2 or list(values) != sorted(set(values)):
        raise ValueError(f"{option}: {text!r}; give one number ({unit}), or LOWEST,HIGHEST, the lowest first.")
    return values


def check_didt(limits: Limits | None, rate: "FiringRate | None", largest: float | None = None) -> None:
    """Refuse a missing dI/dt where nothing says which one would do, and one over `largest`, A/s."""
    if limits is None and (rate is None or rate.threshold.unit not in ("V/m", "V/cm")):
        raise ValueError(
            "--didt: missing; give that of the stimuli, A/s, such as 1.2 times that at motor threshold, or "
            "LOWEST,HIGHEST."
        )
    highest = max(limits or (0.0,))
    if largest is not None and highest > largest:
        raise ValueError(
            f"--didt: {highest:.4g} A/s is more than 100 %MSO, {largest:.4g} A/s; lower it, or correct --largest-didt."
        )


def check_limits(limits: Limits | None, goal: str, option: str) -> None:
    """Refuse one intensity where a threshold is hunted between two."""
    if goal == "threshold" and (limits is None or len(limits) < 2):
        raise ValueError(f"{option}: --goal threshold needs LOWEST,HIGHEST, between which the threshold lies.")


def find_stimulator(coil: "Coil", largest: float | None = None) -> "Stimulator | None":
    """What leads from %MSO to dI/dt: dI/dt at 100 % where it is passed, A/s, else the coil's; None: not known."""
    import jaxm2m as jm

    if largest is not None:
        return jm.coil.calibrate(largest)
    if coil.n_stimulator == 1 and math.isfinite(float(coil.didt_max[0])):
        return jm.coil.calibrate(coil)
    return None


def to_percent(didt: float, stimulator: "Stimulator | None") -> float | None:
    """% of the maximum stimulator output; None where 100 % is not known, or less."""
    if stimulator is None or didt > float(stimulator.rate[-1]) * (1 + 1e-6):  # rounding of the table
        return None
    return float(stimulator.intensity(didt))


def describe_didt(didt: float, stimulator: "Stimulator | None") -> str:
    """Tell an intensity as the operator sets it: "72 A/us (45 % MSO)"."""
    percent = to_percent(didt, stimulator)
    text = f"{didt / 1e6:.3g} A/\N{MICRO SIGN}s"
    return text if percent is None else f"{text} ({percent:.0f} % MSO)"


def describe_levels(loop: "Loop", stimulator: "Stimulator | None") -> str:
    """Tell which intensities proposals will have."""
    lowest, highest = (describe_didt(loop.levels[end], stimulator) for end in (0, -1))
    if len(loop.levels) == 1:
        return f"all stimuli at {highest}."
    if loop.rule == "thompson":
        return f"all stimuli at {describe_didt(loop.didt, stimulator)}: --rule thompson chooses poses alone."
    if loop.rule != "information":
        return f"all stimuli at the highest, {highest}: --rule {loop.rule} chooses poses alone."
    if loop.goal == "threshold":
        return f"all stimuli at one pose, with {lowest} to {highest}."
    return f"each stimulus at one of {len(loop.levels)} intensities, {lowest} to {highest}."


def make_didt_reader(
    stimulator: "Stimulator | None", standing: Callable[["Stimulus"], float]
) -> Callable[["Stimulus"], float]:
    """dI/dt of a stimulus, A/s: as recorded, else from %MSO where 100 % is known, else that of `standing`."""
    said: set[str] = set()

    def tell(text: str) -> None:
        if text not in said:
            said.add(text)
            _arguments.say(text)

    def read(stimulus: "Stimulus") -> float:
        if stimulus.didt > 0:
            tell("dI/dt as the navigator recorded it.")
            return stimulus.didt
        if stimulus.intensity > 0 and stimulator is not None:
            tell("dI/dt from the recorded %MSO.")
            return float(stimulator.didt(stimulus.intensity))
        didt = standing(stimulus)
        tell("the navigator records no dI/dt: that of the proposal is taken.")
        return didt

    return read
