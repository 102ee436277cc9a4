"""`jaxm2m demo`: the whole line on the atlas head."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

TARGET = (-40.0, -20.0, 52.0)  # left hand knob, MNI152, mm
HANDLE = (-1.0, -1.0, 0.0)  # 45 degrees from the midline, towards the back and the left
DISTANCE = 4.0  # mm from the scalp to the coil's frame
RADIUS = 5.0  # mm, of the target
DIDT = 1e6  # A/s


def demo(
    out: Annotated[Path, typer.Option(help="Folder for figures, numbers and report.html; made if missing.")] = Path(
        "jaxm2m-demo"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Voxels of 4 mm and a shorter search: a trial run.")] = False,
) -> None:
    """Show the line on a standard head: field of a figure-8 coil over the hand knob, then a search by gradient
    for its best place.

    Writes PNGs, summary.csv, numbers.json and one self-contained report.html.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out: {out} is a file; name a folder.")
    run(out, spacing=4.0 if quick else 2.0, evaluations=4 if quick else 12)


def run(out: Path, *, spacing: float, evaluations: int) -> None:
    """The demo into the folder `out`, with voxels of `spacing` mm and so many values and gradients at most."""
    import jax
    import numpy as np
    from rich.console import Console

    import jaxm2m as jm
    from jaxm2m.cli import _report
    from jaxm2m.placement import _placement

    console = Console(highlight=False)
    began = time.perf_counter()
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[list[str]]:
        said: list[str] = []
        start = time.perf_counter()
        with console.status(f"{name} ..."):
            yield said
        seconds[name] = time.perf_counter() - start
        console.print(f"{name:<10}{seconds[name]:6.1f} s  {'; '.join(said)}", soft_wrap=True)

    out.mkdir(parents=True, exist_ok=True)

    with stage("head") as said:
        head = jm.head.atlas(spacing)
        said.append(f"{' x '.join(map(str, head.shape))} voxels of {head.spacing:g} mm, {head.space}")
    with stage("coil") as said:
        coil = jm.coil.figure8()
        start = jm.coil.place(head.scalp, TARGET, HANDLE, DISTANCE)
        said.append(f"{coil.notes['name']}, {DISTANCE:g} mm over the scalp at {_show(np.asarray(start)[:3, 3])} mm")
    with stage("simulator"):
        sim = jm.efield.Simulator(head)
        jax.block_until_ready(sim.parts)
    with stage("field") as said:
        field = sim(coil, start, didt=DIDT)
        before = field.summary(TARGET, RADIUS)
        said.append(
            f"|E| in grey matter {before.loc['grey', 'p99.9']:.2f} V/m (99.9th percentile), "
            f"{before.loc['grey', 'target']:.2f} V/m in the target"
        )
    with stage("search") as said:
        region = jm.efield.Grid.around(TARGET, (2 * int(RADIUS) + 1,) * 3, 1.0)
        at_grid = sim.bind(coil, region)
        at_target = at_grid.pick(at_grid.within(TARGET, RADIUS))
        found = jm.placement.optimize(
            at_target,
            jm.placement.magnitude(),
            coil=coil,
            scalp=head.scalp,
            starts=start[None],
            distance=DISTANCE,
            didt=DIDT,
            evaluations=evaluations,
        )
        best = found.pose
        poses, values = found.history.poses[:, 0], found.history.values[:, 0]
        # a trial that is refused leaves the coil where it was
        steps = np.flatnonzero([True, *(np.diff(poses, axis=0) != 0).any((1, 2))])
        poses, values = poses[steps], values[steps]
        moved, turned = _placement.movement(poses[0], best)
        said.append(
            f"mean |E| {values[0]:.3f} -> {values[-1]:.3f} V/m in {len(values) - 1} steps "
            f"({found.evaluations} gradients), moved {moved:.1f} mm, turned {turned:.0f} degrees; {found.reasons[0]}"
        )
    with stage("best field"):
        after_field = sim(coil, best, didt=DIDT)
        after = after_field.summary(TARGET, RADIUS)
    with stage("figures"):
        grey = np.asarray(field.tissue) == head.tissues.index("grey")
        limit = max(float(np.percentile(np.asarray(f.magnitude)[grey], 99.9)) for f in (field, after_field))
        pictures = {
            "pose.png": jm.plot.pose(head, coil, start, target=TARGET),
            "slices.png": jm.plot.slices(field, TARGET),
            "cortex.png": jm.plot.cortex(field, target=TARGET, limit=limit),
            "search.png": jm.plot.search(found, head, TARGET, coil=coil, label="mean |E| in the target (V/m)"),
            "pose_best.png": jm.plot.pose(head, coil, best, target=TARGET),
            "cortex_best.png": jm.plot.cortex(after_field, target=TARGET, limit=limit, view=-np.asarray(start)[:3, 2]),
        }
        for name, picture in pictures.items():
            with jm.files.atomic(out / name) as temporary:
                picture.savefig(temporary, format="png")
    with stage("report"):
        seconds["in all"] = time.perf_counter() - began
        packages = _report.versions("jaxm2m", "jax", "jaxlib", "numpy", "scipy", "matplotlib", "mne", "nilearn")
        settings = {
            "head": f"atlas, {spacing:g} mm",
            "coil": coil.notes["name"],
            "target (mm, MNI152)": _show(TARGET),
            "target radius (mm)": f"{RADIUS:g}, grey matter ({at_target.n_point} points)",
            "handle points to": _show(HANDLE),
            "scalp to coil frame (mm)": f"{DISTANCE:g}",
            "dI/dt (A/s)": f"{DIDT:g}",
            "interfaces": sim.interfaces,
            "relative tolerance": f"{float(sim.parts.tolerance):g}",
            "precision": str(sim.dtype),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "evaluations of the search": f"{found.evaluations}, at most {evaluations}",
            "seeds": "none: nothing is random",
        }
        numbers = {
            "settings": settings,
            "versions": packages,
            "solve": {name: np.asarray(value).item() for name, value in field.stats._asdict().items()},
            "before": before.to_dict("index"),
            "after": after.to_dict("index"),
            "poses": poses.tolist(),
            "objective": values.tolist(),
            "search": {"evaluations": found.evaluations, "stopped": found.reasons[0]},
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
        }
        with jm.files.atomic(out / "numbers.json") as temporary:
            temporary.write_text(json.dumps(_finite(numbers), indent=1, allow_nan=False))
        with jm.files.atomic(out / "summary.csv") as temporary:
            _joined(before, after).to_csv(temporary)
        _report.write(
            out / "report.html",
            "From the coil to the field",
            f"jaxm2m {jm.__version__}, figure-8 coil over the left hand knob of a standard head, at 1 "
            "A/\N{MICRO SIGN}s. The field is proportional to dI/dt; stimulators reach some 100 A/\N{MICRO SIGN}s.",
            {
                "The coil": [
                    _report.picture(
                        out / "pose.png",
                        "Windings, casing and axes of the coil over the scalp. The cross marks the target.",
                    )
                ],
                "The field": [
                    _report.picture(
                        out / "slices.png",
                        "|E| in the planes through the target, with the tissues' "
                        "outlines. Each pixel shows the field of its own tissue.",
                    ),
                    _report.picture(out / "cortex.png", "|E| in the grey matter, seen from the coil's side."),
                    _report.table(before.rename(columns=_COLUMNS)),
                ],
                "The gradient": [
                    _report.paragraph(
                        "A search needs the derivative of the mean |E| in the target with respect to the coil's "
                        "place and angle on the scalp: one adjoint solve gives all of it. "
                        f"{found.evaluations} of them took {len(values) - 1} steps, which raised it from "
                        f"{values[0]:.3f} to {values[-1]:.3f} V/m ({100 * (values[-1] / values[0] - 1):+.1f} %); "
                        f"the coil moved {moved:.1f} mm and turned {turned:.0f} degrees. Why the search ended: "
                        f"{found.reasons[0]}."
                    ),
                    _report.picture(
                        out / "search.png",
                        "Left: the coil's way on the scalp, coloured by the objective; in the corner the coil's casing "
                        "at the end, and the part of the head that is shown. Right: the objective over the "
                        "evaluations.",
                    ),
                    _report.picture(out / "pose_best.png", "The coil at the end."),
                    _report.picture(out / "cortex_best.png", "|E| in the grey matter at the end, same colours."),
                    _report.table(after.rename(columns=_COLUMNS)),
                ],
                "Methods": [_report.paragraph(_methods(head, field, packages, found, len(values) - 1, spacing))],
                "Settings": [_report.table(settings)],
                "Versions": [_report.table(packages)],
                "Time": [
                    _report.table({name: f"{value:.1f} s" for name, value in seconds.items()}),
                    _report.paragraph("Compilation, and building the head where it was not in the cache, included."),
                ],
                "References": [
                    _report.references(
                        "jaxm2m", "jax", "coil", "fsaverage", "icbm152", "mne", "nilearn", "bfgs", "line search"
                    )
                ],
            },
        )
    total = time.perf_counter() - began
    console.print(f"{'in all':<10}{total:6.1f} s  {out / 'report.html'}", soft_wrap=True)


_COLUMNS = {
    "p99.9": "99.9 % (V/m)",
    "peak": "peak (V/m)",
    "peak_x": "x (mm)",
    "peak_y": "y (mm)",
    "peak_z": "z (mm)",
    "volume_50": "above 50 % (ml)",
    "volume_75": "above 75 % (ml)",
    "target": "target (V/m)",
    "volume": "volume (ml)",
}


def _methods(head: Any, field: Any, packages: dict[str, str], found: Any, steps: int, spacing: float) -> str:
    import numpy as np

    sigma = ", ".join(f"{n} {s:.3g}" for n, s in zip(head.tissues, np.asarray(head.conductivity), strict=True))
    stats = field.stats
    return (
        "The head is a standard one in MNI152 space: scalp and inner skull of fsaverage (MNE-Python "
        f"{packages['mne']}), grey and white matter of the ICBM 152 tissue maps (nilearn {packages['nilearn']}), the "
        "outer skull put at half of the local gap between inner skull and scalp. Its 1 mm labels were resampled to "
        f"volume fractions on a cubic grid of {spacing:g} mm ({' x '.join(map(str, head.shape))} voxels). "
        f"Conductivities were {sigma} S/m; voxels that hold several tissues conduct as laminates, with a tensor along "
        "and across their interfaces. The coil is a figure-8 computed from its windings (diameters and turns of the "
        f"Magstim 70 mm coil), its frame {DISTANCE:g} mm over the scalp point nearest the target {_show(TARGET)} "
        "mm, with the handle 45 degrees from the midline towards the back. The electric field E = -dA/dt - grad phi "
        f"under dI/dt = {DIDT / 1e6:g} A/\N{MICRO SIGN}s was computed with trilinear finite elements; conjugate "
        "gradients with a multigrid preconditioner reached a recomputed relative residual of "
        f"{float(stats.residual):.1e} in {int(stats.iterations)} iterations. The mean |E| in the grey matter within "
        f"{RADIUS:g} mm of the target (points 1 mm apart) was then maximised from that pose over two shifts along the "
        "scalp and the turn about its normal, the coil kept tangential at its distance and lifted where its casing "
        "would have touched the head, by BFGS in the coil's own frame with gradients of the adjoint solve, steps "
        f"being judged by the approximate Wolfe conditions ({found.evaluations} gradients, {steps} accepted steps)."
    )


def _joined(before: Any, after: Any) -> Any:
    import pandas as pd

    return pd.concat({"before": before, "after": after}, names=["pose"])


def _show(vector: Any) -> str:
    return "(" + ", ".join(f"{float(x):.4g}" for x in vector) + ")"


def _finite(value: Any) -> Any:
    """NaN has no place in JSON: what a tissue does not have is null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value
