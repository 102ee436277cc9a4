"""The figures that matter, each with its bar, out of a machine's file."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]
FOLD = "fold: 2 mm, exact fractions, tensor"


class Figure(NamedTuple):
    """One line of the table; `found` takes what a script wrote, by case."""

    what: str
    script: str
    found: Callable[[Row], float]
    bar: float
    form: str = "{:.3g}"
    more: bool = False  # is better


def _many_poses(cases: Row) -> Row:
    return next(row for name, row in cases.items() if "300 poses" in name)


def _mean(row: Row, joint: int) -> float:
    scores = [value[joint] for name, value in row.items() if name.startswith("model, seed")]
    return sum(scores) / len(scores)


def _above_filters(row: Row) -> float:
    return row["model, unseen trials"] - max(
        value for name, value in row.items() if name.startswith(("low-pass", "Gaussian", "Bayes"))
    )


def _nrmse(row: Row) -> float:
    """Of the best variant, above the noise ceiling's."""
    return min(value["above the ceiling"] for value in row.values() if isinstance(value, dict) and "cosine" in value)


def _lowest(row: Row) -> float:
    """Lower end of the paired intervals of E-field against firing rate."""
    return min(row[f"NRMSE, E-field - firing rate, {kind}"][1] for kind in ("direct", "synergy", "combined"))


FIGURES = (
    Figure("spheres, 2 mm: worst L2 error in white matter", "sphere", lambda c: c["2 mm"]["worst"]["white"], 0.025),
    Figure("spheres, 2 mm: worst L2 error in grey matter", "sphere", lambda c: c["2 mm"]["worst"]["grey"], 0.07),
    Figure(
        "folded cortex, 2 mm: L2 error in grey matter, worse of two coils (%)",
        "interface_errors",
        lambda c: max(c[FOLD][f"grey, coil {way}"]["l2"] for way in ("across", "along")),
        10,
    ),
    Figure(
        "a solve at 2 mm, times faster than PyAMG's",
        "solver",
        lambda c: c["2mm"]["tensor"]["times faster than PyAMG's solve"],
        4,
        more=True,
    ),
    Figure("value and gradient over the value", "solver", lambda c: c["gradient"]["5 mm target"]["ratio"], 3),
    Figure("1 mm, peak memory (GB)", "solver", lambda c: c["1mm"]["tensor"]["peak memory, GB"], 2.5),
    Figure("300 poses to a grid (s)", "many_poses", lambda c: _many_poses(c)["uninterrupted"]["wall_s"], 300, "{:.0f}"),
    Figure(
        "basis: largest error against full solves (%)", "basis", lambda c: c["accuracy"]["all"]["largest error, %"], 1
    ),
    Figure(
        "basis: a field of 2 mm voxels (ms)",
        "basis",
        lambda c: c["speed"]["one field, 2mm brain voxels"]["best, ms"],
        5,
    ),
    Figure(
        "search: value over the exhaustive best",
        "placement",
        lambda c: c["exhaustive"]["mean |E|"]["value over the exhaustive best"],
        0.999,
        "{:.4f}",
        True,
    ),
    Figure(
        "search: evaluations over the exhaustive ones",
        "placement",
        lambda c: c["exhaustive"]["mean |E|"]["evaluations over the exhaustive, a gradient counted twice"],
        0.05,
    ),
    Figure(
        "a step of the paper's autoencoder over PyTorch's",
        "network_step",
        lambda c: c["paper"]["now"]["autoencoder, s"] / c["paper"]["torch"]["autoencoder, s"],
        1.25,
    ),
    Figure(
        "a step of its mapper over PyTorch's",
        "network_step",
        lambda c: c["paper"]["now"]["mapper, s"] / c["paper"]["torch"]["mapper, s"],
        1.25,
    ),
    Figure(
        "a move of a slider until the picture (ms, median)", "live", lambda c: c["field"]["ms, median"], 150, "{:.0f}"
    ),
    Figure(
        "with 15 muscles (ms, 95th percentile)", "live", lambda c: c["muscles"]["ms, 95th percentile"], 400, "{:.0f}"
    ),
    Figure(
        "eight models together over one after the other",
        "population",
        lambda c: c["eight"]["population over one after the other"],
        0.6,
    ),
    Figure(
        "tetrahedra, 900 k nodes: times faster than PyAMG's own CG",
        "tetrahedra",
        lambda c: c["solver"]["PyAMG over one"],
        1,
        more=True,
    ),
    Figure("tetrahedra: eight right-hand sides over one", "tetrahedra", lambda c: c["solver"]["eight over one"], 4),
    Figure("tetrahedra, 4 M elements: peak memory (GB)", "tetrahedra", lambda c: c["head"]["peak memory, GB"], 16),
    Figure("six variants, 10 folds (min)", "muscle", lambda c: c["truth rate, gain 0.55"]["seconds"] / 60, 30),
    Figure(
        "six variants: best NRMSE above the noise ceiling", "muscle", lambda c: _nrmse(c["truth rate, gain 0.55"]), 0.2
    ),
    Figure(
        "six variants: firing rate better by at least (90 %)",
        "muscle",
        lambda c: _lowest(c["truth rate, gain 0.55"]),
        0,
        "{:.4f}",
        True,
    ),
    Figure(
        "coil for one muscle: share of the best of the grid, worst of five pairs",
        "muscle",
        lambda c: min(
            row["selective"]["over the best of the grid"]
            for row in c["target, gain 0.55"].values()
            if isinstance(row, dict) and "selective" in row
        ),
        0.95,
        "{:.3f}",
        True,
    ),
    Figure(
        "field from MEPs: correlation above the mean field's, worst of three keys",
        "inverse",
        lambda c: min(row["fit_inverse"]["correlation"] - row["mean field"]["correlation"] for row in c.values()),
        0,
        "{:.3f}",
        True,
    ),
    Figure("networks at the paper's size: peak memory (GB)", "muscle", lambda c: c["paper"]["peak memory, GB"], 8),
    Figure("rat: hip, mean R2 of three seeds", "emg_rat", lambda c: _mean(c["single"], 0), 0.67, more=True),
    Figure("rat: knee", "emg_rat", lambda c: _mean(c["single"], 1), 0.86, more=True),
    Figure("rat: ankle", "emg_rat", lambda c: _mean(c["single"], 2), 0.76, more=True),
    Figure("Lorenz: R2 with the true mean", "emg_truth", lambda c: c["lorenz"]["model, unseen trials"], 0.9, more=True),
    Figure("Lorenz: above the best filter by", "emg_truth", lambda c: _above_filters(c["lorenz"]), 0.1, more=True),
    Figure(
        "isometric: coherence with dF/dt over the best filter's",
        "emg_truth",
        lambda c: c["isometric"]["model"]["10-50 Hz"] / max(c["isometric"]["filters, 10-50 Hz"].values()),
        1,
        more=True,
    ),
    Figure(
        "EMG step, one model, wall over PyTorch's",
        "emg_step",
        lambda c: c["paper"]["one member, two devices"]["ratio"]["PyTorch, 2 threads"]["wall"],
        0.55,
    ),
    Figure(
        "EMG step, four models, wall",
        "emg_step",
        lambda c: c["paper"]["four members, two devices"]["ratio"]["PyTorch, 2 threads"]["wall"],
        0.5,
    ),
    Figure(
        "EMG step, four models, CPU time",
        "emg_step",
        lambda c: c["paper"]["four members, two devices"]["ratio"]["PyTorch, 2 threads"]["cpu"],
        0.4,
    ),
    Figure(
        "Bayesian filter, whole grid, 60 s of 12 channels (s)",
        "bayes_filter",
        lambda c: c["float32 gaussian argmax"]["wall_s"],
        30,
    ),
    Figure(
        "motor maps, sites that scatter by 1 mm: hotspot off (mm, median)",
        "motor_maps",
        lambda c: c["scatter of 1 mm"]["hotspot off, mm: median, 90 %"][0],
        2.5,
    ),
    Figure(
        "synergies, slow noise: draws of 20 in which their number is right",
        "synergies",
        lambda c: c["noise smoothed over 40 samples"]["blocks"]["right"],
        16,
        more=True,
    ),
)


def table(everything: Row) -> str:
    """Markdown: what, figure, bar, whether it is met, script."""
    lines = ["| what | measured | bar | met | script |", "| --- | ---: | ---: | --- | --- |"]
    for figure in FIGURES:
        try:
            value = figure.found(everything[figure.script])
        except (KeyError, StopIteration):
            shown, met = "not measured", ""
        else:
            shown = figure.form.format(value)
            met = "yes" if (value >= figure.bar if figure.more else value <= figure.bar) else "**no**"
        sign = ">=" if figure.more else "<="
        lines.append(f"| {figure.what} | {shown} | {sign} {figure.bar:g} | {met} | `{figure.script}.py` |")
    return "\n".join(lines)
