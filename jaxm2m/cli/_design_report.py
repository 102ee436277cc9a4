"""What a session leaves to read: a page with what is known, what each stimulus told, methods and references."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _report
from jaxm2m.cli._design_intensity import to_percent

if TYPE_CHECKING:
    import pandas as pd

    from jaxm2m.coil import Stimulator
    from jaxm2m.design import Loop
    from jaxm2m.muscle import Sources
    from jaxm2m.placement import Placement

_RULES = {
    "information": "where a stimulus was expected to tell most: by the largest mutual information (Lindley, 1956) of "
    "its MEPs and {what}, in Laplace's approximation about the mode of the posterior, among candidates all over the "
    "patch and from there by gradient",
    "thompson": "at the best pose of a random draw of the posterior (Thompson, 1933)",
}
_READ = {"information": ["lindley1956"], "thompson": ["thompson1933"]}


@dataclass(frozen=True)
class Account:
    """What a report says besides what the loop knows.

    Attributes
    ----------
    goal, reason
        What was asked for, and why the session ended.
    source
        Where poses and MEPs came from, a sentence.
    settings
        All of them, with `rule` and `seed`.
    stimulator
        What leads from dI/dt to %MSO; None: not known.
    """

    goal: str
    reason: str
    source: str
    settings: dict[str, Any]
    stimulator: "Stimulator | None"


def write_report(
    out: Path, account: Account, loop: "Loop", sources: "Sources | None" = None, best: "Placement | None" = None
) -> None:
    """Write report.html into a folder in which its pictures and progress.csv are; of a threshold without `sources`."""
    import jaxm2m as jm

    table, rule = loop.table(), str(account.settings["rule"])
    versions = _report.find_versions("jaxm2m", "jax", "jaxlib", "numpy", "scipy")
    sections = _describe_threshold(loop, account.stimulator) if sources is None else _describe_sources(out, sources)
    if best is not None:
        columns = ["value", "x", "y", "z", "mm from best", "degrees from best"]
        poses = best.table().rename_axis("pose")
        sections["Best pose"] = [
            _report.format_table(poses[[c for c in columns if c in poses]]),
            _report.format_paragraph(f"For stimuli of {loop.didt / 1e6:.4g} A/\N{MICRO SIGN}s."),
        ]
    sections["Stimuli"] = [
        _report.embed_picture(out / "stimuli.png", "Stimuli, and their largest MEP of the muscles asked.")
    ]
    sections["What each stimulus told"] = _describe_stimuli(
        table, read_progress(out / "progress.csv"), account.stimulator
    )
    methods = _describe_hunt if sources is None else _describe_methods
    sections["Methods"] = [_report.format_paragraph(methods(account, loop, table, versions))]
    sections["Settings"] = [_report.format_table(account.settings), _report.format_table(versions)]
    read = [*_READ.get(rule, ()), "goetz2019", *(() if sources is None else ("weise2020", "numssen2021"))]
    sections["References"] = [_report.format_references("jaxm2m", "jax", *read)]
    _report.write(
        out / "report.html",
        f"A session for {account.goal}",
        f"jaxm2m {jm.__version__}: {len(loop)} stimuli; {account.reason}.",
        sections,
    )


def measure_progress(loop: "Loop") -> tuple[dict[str, float], str]:
    """What is known now: the numbers of a row of progress.csv, and in words."""
    if loop.goal == "threshold":
        mean, low, high = map(float, loop.threshold())
        numbers = {"threshold_a_per_s": mean, "low_a_per_s": low, "high_a_per_s": high}
        return numbers, f"threshold {_tell(mean)} (90 %: {low / 1e6:.3g} to {_tell(high)})"
    # of muscles of which there is little yet, mostly by the prior
    radii = replace(loop.draws, unidentified=()).hotspots()["radius_90"]
    numbers = {"radius_90_median_mm": float(radii.median())}
    numbers |= {f"radius_90_{name}_mm": float(radius) for name, radius in radii.items()}
    return numbers, f"90 % radius of the hot spots {numbers['radius_90_median_mm']:.1f} mm (median)"


def tabulate_threshold(loop: "Loop", stimulator: "Stimulator | None") -> "pd.DataFrame":
    """Tabulate a threshold and the limits that hold 90 % of its posterior, A/s, and % MSO where that is known."""
    import pandas as pd

    estimate = {name: float(value) for name, value in loop.threshold()._asdict().items()}
    table = pd.DataFrame([estimate], index=pd.Index([loop.muscles[loop.wanted[0]]], name="muscle"))
    table = table.rename(columns={"mean": "threshold"}).add_suffix("_a_per_s")
    percent = {f"{name}_mso_percent": to_percent(value, stimulator) for name, value in estimate.items()}
    for name, value in percent.items():
        if value is not None:
            table[name.replace("mean", "threshold")] = value
    return table


def _describe_threshold(loop: "Loop", stimulator: "Stimulator | None") -> dict[str, list[str]]:
    return {
        "Motor threshold": [
            _report.format_table(tabulate_threshold(loop, stimulator)),
            _report.format_paragraph(
                "dI/dt at which the median MEP is 50 \N{MICRO SIGN}V, with the limits that hold 90 % of its posterior."
            ),
        ]
    }


def _describe_sources(out: Path, sources: "Sources") -> dict[str, list[str]]:
    spots = [
        _report.format_table(sources.hotspots().drop(columns="reason", errors="ignore")),
        _report.format_paragraph(
            "Centroids of the densities that drive each muscle, mm, with the radii of the balls that hold half and "
            "nine tenths of their posterior; none where the session says nothing of a muscle."
        ),
    ]
    densities = out / "sources.png"
    if densities.exists():
        spots.insert(0, _report.embed_picture(densities, "Densities over cortex that drive the muscles."))
    curves = [
        _report.format_table(sources.table()),
        _report.format_paragraph(
            "Threshold: the drive at which the mean MEP reaches 50 \N{MICRO SIGN}V, as a share of the strongest drive "
            "of the session. Plateau and floor in \N{MICRO SIGN}V."
        ),
    ]
    return {"Hot spots": spots, "Recruitment": curves}


def read_progress(path: Path) -> "pd.DataFrame":
    """Read what was known after so many stimuli: 90 % radii, mm, by `median` and muscles; or a threshold, A/s."""
    import pandas as pd

    table = pd.read_csv(path, index_col=0)
    return table.rename(columns=lambda name: name.removeprefix("radius_90_").removesuffix("_mm"))


def tabulate_stimuli(
    table: "pd.DataFrame", progress: "pd.DataFrame", stimulator: "Stimulator | None"
) -> "pd.DataFrame":  # fmt: skip
    """Tabulate pose, intensity and what became known; where several came at once, with the last of them."""
    shown = table[["x", "y", "z", "turn"]].copy()
    shown["A/\N{MICRO SIGN}s"] = table["didt"] / 1e6
    percent = [to_percent(didt, stimulator) for didt in table["didt"]]
    if any(value is not None for value in percent):
        shown["% MSO"] = [float("nan") if value is None else value for value in percent]
    shown["turn"] = shown["turn"].round(1)
    if "threshold_a_per_s" in progress:
        shown["threshold"] = progress["threshold_a_per_s"].reindex(table.index) / 1e6
        name, known = "interval", (progress["high_a_per_s"] - progress["low_a_per_s"]) / 1e6
    else:
        name, known = "radius", progress["median"]
    shown[name], shown["fall"] = known.reindex(table.index), -known.diff().reindex(table.index)
    return shown


def _describe_stimuli(
    table: "pd.DataFrame", progress: "pd.DataFrame", stimulator: "Stimulator | None"
) -> list[str]:  # fmt: skip
    """The section with what each stimulus told."""
    hunts = "threshold_a_per_s" in progress
    what = "width of the threshold's 90 % interval" if hunts else "median 90 % radius of the hot spots"
    unit = "A/\N{MICRO SIGN}s" if hunts else "mm"
    pieces = [
        _report.fold(
            f"{len(table)} stimuli: pose, intensity, and how far the {what} fell",
            _report.format_table(tabulate_stimuli(table, progress, stimulator)),
            _report.format_paragraph(
                f"Places in mm, turns in degrees against the handle's direction; the {what} after the stimulus, "
                f"in {unit}, and how far it fell by it, at first from that of the prior; it rises "
                "where an MEP was a surprise. Where several stimuli were read at once, the last has the fall of all."
            ),
        )
    ]
    if not hunts:
        radii = _report.format_table(progress)
        pieces.append(_report.fold("The 90 % radii of all muscles after each stimulus, mm", radii))
    return pieces


def _describe_hunt(account: Account, loop: "Loop", table: "pd.DataFrame", versions: dict[str, str]) -> str:
    return (
        f"{len(table)} stimuli were given at one pose of the coil; after each, the next dI/dt, between "
        f"{loop.levels[0] / 1e6:.4g} and {_tell(loop.levels[-1])}, was that whose MEP was expected to tell most "
        f"(mutual information; Lindley, 1956) of the resting motor threshold of {loop.muscles[loop.wanted[0]]}: the "
        "dI/dt at which the median MEP is 50 \N{MICRO SIGN}V, by particles of the posterior of the muscle's "
        f"recruitment curve (Goetz et al., 2019). {_describe_end(account, versions)}"
    )


def _describe_end(account: Account, versions: dict[str, str]) -> str:
    return (
        f"{account.source} The session ended: {account.reason}. jaxm2m {versions.get('jaxm2m', '')}, jax "
        f"{versions.get('jax', '')}, seed {account.settings['seed']}."
    )


def _tell(didt: float) -> str:
    return f"{didt / 1e6:.3g} A/\N{MICRO SIGN}s"


def _describe_methods(account: Account, loop: "Loop", table: "pd.DataFrame", versions: dict[str, str]) -> str:
    rule = str(account.settings["rule"])
    what = "the centroids of the densities that drive the muscles" if loop.goal == "map" else "which pose is best"
    by = _RULES.get(rule, f"by the rule {rule!r}").format(what=what)
    return (
        f"{len(table)} stimuli were given; after each, the next pose of the coil was chosen {by}. "
        f"{_describe_intensity(loop, rule, table['didt'])} MEPs of each muscle were taken to follow a "
        "recruitment curve (Goetz et al., 2019) of a drive: the sum of the cortex' activity under the computed "
        "electric field, weighted by a density over grey matter, whose posterior was inferred from all MEPs, with an "
        "excitability shared by the muscles that varies between stimuli and may drift slowly (after an "
        f"idea of Weise et al., 2020, and Numssen et al., 2021). {_describe_end(account, versions)}"
    )


def _describe_intensity(loop: "Loop", rule: str, didt: "pd.Series") -> str:
    """What intensities were asked for, and what they were."""
    ends = loop.levels[0], loop.levels[-1], didt.min(), didt.max()
    low, high, lowest, highest = (f"{value / 1e6:.4g}" for value in ends)
    unit = "A/\N{MICRO SIGN}s"
    text = f"dI/dt was to be {loop.didt / 1e6 if rule == 'thompson' else loop.levels[-1] / 1e6:.4g} {unit}"
    if len(loop.levels) > 1 and rule == "information":
        text = (
            f"dI/dt was chosen with the pose, by the same criterion, among {len(loop.levels)} intensities between "
            f"{low} and {high} {unit}"
        )
    between = lowest if lowest == highest else f"{lowest} to {highest}"
    return f"{text}; it was {between} {unit}."
