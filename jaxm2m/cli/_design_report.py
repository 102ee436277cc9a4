"""What a session leaves to read: a page with what is known, what each stimulus told, methods and references."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _report
from jaxm2m.cli._design_intensity import to_percent

if TYPE_CHECKING:
    import numpy as np
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


def write_report(out: Path, account: Account, loop: "Loop", sources: "Sources", best: "Placement | None") -> None:
    """Write report.html into a folder in which its pictures and progress.csv are."""
    import jaxm2m as jm

    table, rule = loop.table(), str(account.settings["rule"])
    versions = _report.find_versions("jaxm2m", "jax", "jaxlib", "numpy", "scipy")
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
    sections = {"Hot spots": spots, "Recruitment": curves}
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
    progress = read_progress(out / "progress.csv")
    if progress is not None:
        sections["What each stimulus told"] = _describe_stimuli(table, progress, account.stimulator)
    sections["Methods"] = [_report.format_paragraph(_describe_methods(account, loop, table, versions))]
    sections["Settings"] = [_report.format_table(account.settings), _report.format_table(versions)]
    sections["References"] = [
        _report.format_references("jaxm2m", "jax", *_READ.get(rule, ()), "goetz2019", "weise2020", "numssen2021")
    ]
    _report.write(
        out / "report.html",
        f"A session for {account.goal}",
        f"jaxm2m {jm.__version__}: {len(loop)} stimuli; {account.reason}.",
        sections,
    )


def read_progress(path: Path) -> "pd.DataFrame | None":
    """Read the 90 % radii, mm, after so many stimuli: their median, and those of the muscles by their names."""
    import pandas as pd

    if not path.exists():
        return None
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
    shown["radius"], shown["fall"] = (
        column.reindex(table.index) for column in (progress["median"], -progress["median"].diff())
    )
    return shown


def _describe_stimuli(
    table: "pd.DataFrame", progress: "pd.DataFrame", stimulator: "Stimulator | None"
) -> list[str]:  # fmt: skip
    """The section with what each stimulus told."""
    return [
        _report.fold(
            f"{len(table)} stimuli: pose, intensity, and how far the median 90 % radius fell",
            _report.format_table(tabulate_stimuli(table, progress, stimulator)),
            _report.format_paragraph(
                "Places in mm, turns in degrees against the handle's direction; the median 90 % radius of the hot "
                "spots after the stimulus, mm, at first that of the prior, and how far it fell by it; it rises where "
                "an MEP was a surprise. Where several stimuli were read at once, the last of them has the fall of all."
            ),
        ),
        _report.fold("The 90 % radii of all muscles after each stimulus, mm", _report.format_table(progress)),
    ]


def _describe_methods(account: Account, loop: "Loop", table: "pd.DataFrame", versions: dict[str, str]) -> str:
    rule = str(account.settings["rule"])
    what = "the centroids of the densities that drive the muscles" if loop.goal == "map" else "which pose is best"
    by = _RULES.get(rule, f"by the rule {rule!r}").format(what=what)
    return (
        f"{len(table)} stimuli were given; after each, the next pose of the coil was chosen {by}. "
        f"{_describe_intensity(loop.levels, rule, table['didt'])} MEPs of each muscle were taken to follow a "
        "recruitment curve (Goetz et al., 2019) of a drive: the sum of the cortex' activity under the computed "
        "electric field, weighted by a density over grey matter, whose posterior was inferred from all MEPs (after an "
        f"idea of Weise et al., 2020, and Numssen et al., 2021). {account.source} The session ended: {account.reason}. "
        f"jaxm2m {versions.get('jaxm2m', '')}, jax {versions.get('jax', '')}, seed {account.settings['seed']}."
    )


def _describe_intensity(levels: "np.ndarray", rule: str, didt: "pd.Series") -> str:
    """What intensities were asked for, and what they were."""
    low, high, lowest, highest = (f"{v / 1e6:.4g}" for v in (levels[0], levels[-1], didt.min(), didt.max()))
    unit = "A/\N{MICRO SIGN}s"
    text = f"dI/dt was to be {high} {unit}"
    if len(levels) > 1 and rule == "information":
        text = (
            f"dI/dt was chosen with the pose, by the same criterion, among {len(levels)} intensities between {low} and "
            f"{high} {unit}"
        )
    between = lowest if lowest == highest else f"{lowest} to {highest}"
    return f"{text}; it was {between} {unit}."
