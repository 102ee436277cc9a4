"""What is known of a pose, as numbers that JSON holds and values of the coloured vertices."""

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxm2m.placement import Controls, PoseReport

CONTROLS = tuple(Controls.__annotations__)  # names of what places the coil
_NUMBERS = ("value", "mean", "percentile", "clearance", "shift", "error")


def make_answer(report: PoseReport, message: str = "") -> dict[str, Any]:
    """Put what is known of a pose into numbers that JSON holds; None where there is none."""
    covered = bool(np.isfinite(report.mean))
    if not covered:
        estimate = f": estimated error {100 * report.error:.2g} %" if np.isfinite(report.error) else ""
        refusal = f"not covered by the field map{estimate}; its field is not shown"
        message = f"{refusal}. {message}" if message else refusal
    numbers = {name: finite_or_none(getattr(report, name)) for name in _NUMBERS}
    whole = bool(np.isfinite(report.gradient).all())
    return {
        **numbers,
        "pose": np.asarray(report.pose, np.float64).ravel().tolist(),
        "frame": np.asarray(report.frame, np.float64).ravel().tolist(),
        "gradient": np.asarray(report.gradient, np.float64).tolist() if whole else None,
        "meps": [[finite_or_none(value) for value in row] for row in report.meps] if covered else [],
        "highest": finite_or_none(np.max(report.magnitude, initial=0.0)),
        "covered": covered,
        "message": message,
    }


def select_values(report: PoseReport, component: str) -> Float[np.ndarray, " vertex"]:
    """Values of the coloured vertices, V/m."""
    return np.asarray(report.magnitude if component == "magnitude" else report.normal)


def finite_or_none(value: Any) -> float | None:
    """Return a number, or None where it is none."""
    return float(value) if np.isfinite(value) else None
