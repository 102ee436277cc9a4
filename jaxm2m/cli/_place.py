"""`jaxm2m place`: the best pose of a coil for a target, and the files that bring it to the navigator."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxm2m.cli import _arguments, _place_muscle

if TYPE_CHECKING:
    from jaxm2m.coil import Coil
    from jaxm2m.efield import Points
    from jaxm2m.head import Head, MeshHead
    from jaxm2m.placement import Placement

_BY_BASIS, _BY_SOLVES = (8, 60), (3, 20)  # starts, evaluations of each
_RADIUS, _DIDT = 5.0, 1e6  # mm, A/s


def place(
    head: _arguments.HeadOption,
    coil: _arguments.CoilOption,
    out: Annotated[Path, typer.Option(help="Folder for the results; made if missing.", metavar="DIR")],
    target: Annotated[
        str | None,
        typer.Option(
            help="mm in the head's space, or a 10-20 name for heads in MNI152. With --muscle, where starts lie; by "
            "default over the middle of the model's grid.",
            metavar="X,Y,Z|C3",
        ),
    ] = None,
    muscle: Annotated[
        list[str] | None,
        typer.Option(help="Instead of the field at a target: a muscle that should answer; repeatable.", metavar="NAME"),
    ] = None,
    avoid_muscle: Annotated[
        list[str] | None, typer.Option(help="A muscle that should not answer; repeatable.", metavar="NAME")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="From fields to muscles, what `muscle fit` wrote; for --muscle.", metavar="DIR|FILE"),
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of --avoid-muscle in the share that is raised; by default 1.")
    ] = None,
    least: Annotated[
        float | None,
        typer.Option(help="Share of its strongest response that --muscle should keep, 0 to 1; by default 0.6."),
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            help="Share of the model's posterior (draws of sources, or networks) that may be worse than what is "
            "raised, such as 0.1; by default the expectation is raised."
        ),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(help="Maximise the mean of E along it; by default the mean of |E|.", metavar="X,Y,Z"),
    ] = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(help="A ball (centre, radius; mm) to keep the casing out of; repeatable.", metavar="X,Y,Z,R"),
    ] = None,
    basis: Annotated[
        Path | None,
        typer.Option(help="Of `basis build`; by default each value is a full solve.", metavar="FILE"),
    ] = None,
    radius_target: Annotated[
        float | None, typer.Option(help=f"Of the ball of grey matter round the target, mm; by default {_RADIUS:g}.")
    ] = None,
    starts: Annotated[
        int | None, typer.Option(help=f"Starts; by default {_BY_BASIS[0]}, without a basis {_BY_SOLVES[0]}.")
    ] = None,
    search_radius: Annotated[float, typer.Option(help="Of the patch of scalp in which starts lie, mm.")] = 30.0,
    distance: Annotated[float, typer.Option(help="From the scalp to the coil's frame, mm.")] = 4.0,
    tilt: Annotated[float, typer.Option(help="Degrees that the coil may lean from the tangent plane.")] = 0.0,
    didt: Annotated[
        float | None, typer.Option(help="dI/dt, A/s; by default 1e6. With --muscle it must be given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the starts' places and turns.")] = 0,
    spacing: _arguments.SpacingOption = 2.0,
    evaluations: Annotated[
        int | None,
        typer.Option(
            help=f"Values with gradients a start; by default {_BY_BASIS[1]}, without a basis {_BY_SOLVES[1]}."
        ),
    ] = None,
    space: _arguments.SpaceOption = None,
    labels: _arguments.LabelsOption = None,
    flip: _arguments.FlipOption = False,
    casing: _arguments.CasingOption = None,
) -> None:
    """Find the pose of a coil that drives a target, or a muscle, best, by gradient from several starts.

    With a basis the search takes seconds, and the best pose is computed once more by a full solve. Writes
    placement.json, table.csv, pose.txt, targets for Brainsight and Localite, marker.nii.gz and search.png; with
    --muscle also fields.h5 (of the best pose, on the model's grid), muscles.csv, muscles.png and report.html.

    Example: `jaxm2m place --head atlas --coil figure8 --target C3 --basis basis.h5 --out c3/`
    """
    with _arguments.report_input_errors("place"):
        _check_purpose(
            target,
            muscle,
            {
                "--avoid-muscle": avoid_muscle,
                "--model": model,
                "--weight": weight,
                "--least": least,
                "--risk": risk,
            },
            {"--direction": direction, "--radius-target": radius_target},
        )
        if muscle and model is None:
            raise ValueError("--model: missing; give what `jaxm2m muscle fit` wrote, from fields to muscles.")
        if muscle and didt is None:
            raise ValueError("--didt: missing; MEPs depend on it: give that of the stimulation, A/s.")
        radius_target = _RADIUS if radius_target is None else radius_target
        didt = _DIDT if didt is None else didt
        usual = _BY_SOLVES if basis is None else _BY_BASIS
        starts = usual[0] if starts is None else starts
        evaluations = usual[1] if evaluations is None else evaluations
        where: Any = target
        if target is not None and "," in target:
            where = _arguments.parse_numbers(target, "--target", "X,Y,Z in mm", count=3)
        along = None if direction is None else _arguments.parse_numbers(direction, "--direction", "X,Y,Z", count=3)
        balls = [_arguments.parse_numbers(ball, "--avoid", "X,Y,Z,R in mm", count=4) for ball in avoid or []]
        _check_options(starts, evaluations, tilt, seed, distance, along)
        _arguments.check_positive(
            {
                "--radius-target": radius_target,
                "--search-radius": search_radius,
                "--didt": didt,
                "--spacing": spacing,
                "--avoid": min((ball[3] for ball in balls), default=None),
            }
        )
        _arguments.check_head(head, space, labels)
        _arguments.check_coil(coil, flip, casing)
        _arguments.make_folder(out)

        import jax

        import jaxm2m as jm
        from jaxm2m import _check

        if basis is not None:
            _check.file(basis, "--basis", suffixes=(".h5", ".hdf5"))
        driving = _arguments.load_coil(coil, flip, casing)
        # what the search would refuse after the operator is built
        zones = [(ball[:3], ball[3]) for ball in balls]
        jm.placement.check_zones(zones, driving)
        jm.placement.check_didt(didt, driving)
        loaded = None if basis is None else jm.efield.Basis.load(basis)
        aim = None
        if muscle and model is not None:
            aim = _place_muscle.load_aim(
                model,
                muscle,
                avoid_muscle or [],
                weight=1.0 if weight is None else weight,
                least=0.6 if least is None else least,
                risk=risk,
                didt=didt,
            )
            if loaded is not None and basis is not None:
                aim.check_basis(loaded, basis)
            where = aim.middle if where is None else where
        _arguments.say("the head ...")
        conducting = _arguments.load_head(head, spacing, space, labels)
        centre = jm.placement.target(conducting, where)
        if isinstance(where, str):
            _arguments.say(f"{where}: {jm.head.electrode_source(conducting, where)}.")
        if aim is None:
            region = _select_grey_points(conducting, centre, radius_target)
        else:
            aim.check_place(centre)
            region = aim.grid

        sim = _arguments.make_simulator(
            conducting, None if loaded is None else loaded.metadata["settings"]["interfaces"]["value"]
        )
        quick = _arguments.tabulate_if_cheaper(driving, starts * evaluations)
        if loaded is None:
            field, full = sim.bind(quick, region), None
        else:
            loaded.check_simulator(sim, "--basis")
            field = loaded.bind(quick)
            if aim is None:
                field = field.pick(field.within(centre, radius_target))
                region = jm.efield.Points(field.points, field.tissue)
            full = sim.bind(driving, region)
        if aim is None:
            objective = jm.placement.magnitude() if along is None else jm.placement.along(along)
            text, unit, points = _describe_objective(along), "V/m", "points of grey matter"
        else:
            objective, text, unit, points = aim.objective, aim.text, "1", "points of the model's grid"
        _arguments.say(f"{starts} starts, {field.n_point} {points} round {_arguments.format_vector(centre)} mm ...")
        search = partial(
            jm.placement.optimize,
            field,
            coil=driving,
            scalp=conducting.scalp,
            target=centre,
            n_starts=starts,
            key=jax.random.key(seed),
            radius=search_radius,
            distance=distance,
            didt=didt,
            tilt=tilt,
            avoid=zones,
            evaluations=evaluations,
            space=conducting.space,
        )
        if aim is not None:
            aim = aim.refer(search, field)
            objective = aim.objective
        placement = search(objective, check=full)
        settings = {
            "head": Path(head).name,
            "labels": labels,
            "flip": flip,
            "casing": str(driving.metadata["casing"]),
            "coil": str(driving.metadata.get("name", "")) if coil == "figure8" else Path(coil).name,
            "basis": None if basis is None else basis.name,
            "target": target,
            "target_mm": list(map(float, centre)),
            "target_radius_mm": radius_target if aim is None else None,
            "target_points": field.n_point,
            "objective": text,
            "unit": unit,
            "starts": starts,
            "search_radius_mm": search_radius,
            "distance_mm": distance,
            "tilt_degrees": tilt,
            "didt_a_per_s": didt,
            "avoid_mm": [list(ball) for ball in balls],
            "seed": seed,
            "evaluations": evaluations,
            "interfaces": sim.interfaces,
            "sha256": _compute_fingerprints(sim, driving, loaded),
        }
        if aim is not None:
            settings |= aim.settings
            settings["sha256"] |= aim.fingerprints
        left_out = _write_poses(out, placement, conducting, driving, centre, settings)
        meps = _place_muscle.write(out, aim, placement, field, sim, driving, settings)
        _write_summary(out, placement, settings, left_out, meps)
    typer.echo(placement.table().to_string(float_format=lambda v: f"{v:.4g}"))
    if aim is None:
        value = placement.value * 1e6 / didt
        _arguments.doubt_field(value, value, text)
    else:
        typer.echo(aim.summarise(meps))
    checked = "" if loaded is None else f"; by a full solve {placement.checked:.4g}"
    _arguments.say(f"{text}: {placement.value:.4g}{'' if aim else ' V/m'}{checked}. {out}")


def _check_purpose(
    target: str | None, muscle: list[str] | None, of_muscles: dict[str, Any], of_fields: dict[str, Any]
) -> None:
    """Refuse options that do not go together: a coil is placed for the field at a target, or for muscles."""
    if muscle:
        for name, value in of_fields.items():
            if value is not None:
                raise ValueError(f"{name}: of the field at a target, and --muscle asks for muscles; leave one out.")
        return
    for name, value in of_muscles.items():
        if value not in (None, []):
            raise ValueError(f"{name}: not used without --muscle; name the muscle that should answer, or leave it out.")
    if target is None:
        raise ValueError("--target: missing; give X,Y,Z in mm or a 10-20 name, or a muscle by --muscle and --model.")


def _check_options(starts: int, evaluations: int, tilt: float, seed: int, distance: float, along: Any) -> None:
    for name, number, least in (("--starts", starts, 1), ("--evaluations", evaluations, 1), ("--seed", seed, 0)):
        if number < least:
            raise ValueError(f"{name}: {number}; must be at least {least}.")
    if not 0 <= tilt <= 60:
        raise ValueError(f"--tilt: {tilt:g} degrees; give 0 to 60.")
    if not 0 <= distance < 100:
        raise ValueError(f"--distance: {distance:g} mm; give 0 to 100.")
    if along is not None and not any(along):
        raise ValueError("--direction: 0,0,0 points nowhere; give a vector.")


def _select_grey_points(head: "Head | MeshHead", centre: Any, radius: float) -> "Points":
    """The points 1 mm apart of the grey matter in the target."""
    import numpy as np

    import jaxm2m as jm

    if "grey" not in head.tissues:
        raise ValueError(f"--head: it has no grey matter, only {', '.join(head.tissues)}; label it, as the target.")
    axis = np.arange(-int(radius), int(radius) + 1.0)
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    points = centre + offsets[np.linalg.norm(offsets, axis=1) <= radius]
    points = points[head.tissue_at(points) == head.tissues.index("grey")]
    if not len(points):
        raise ValueError(
            f"--target: no grey matter within {radius:g} mm of {_arguments.format_vector(centre)} mm; move it or "
            "enlarge --radius-target."
        )
    return jm.efield.Points(points)


def _describe_objective(along: Any) -> str:
    return (
        "mean |E| in the target" if along is None else f"mean E along {_arguments.format_vector(along)} in the target"
    )


def _compute_fingerprints(sim: Any, driving: "Coil", loaded: Any) -> dict[str, str]:
    """What tells another time whether head, coil and basis are the same."""
    from jaxm2m import files

    settings = sim.settings
    fingerprints = {name: settings[name]["sha256"] for name in ("head", "conductivity")}
    fingerprints["coil"] = files.fingerprint(driving)
    if loaded is not None:
        fingerprints["basis"] = files.fingerprint(loaded.solver)
    return fingerprints


def _write_poses(
    out: Path, placement: "Placement", head: "Head | MeshHead", coil: "Coil", centre: Any, settings: dict[str, Any]
) -> dict[str, str]:
    """The poses in all formats, and the search as a picture; returns what was left out, and why."""
    import jaxm2m as jm
    from jaxm2m import files

    with files.atomic(out / "table.csv") as temporary:
        placement.table().to_csv(temporary, index=False)
    # without names and space, the best pose alone
    placement.export(out / "pose.txt", format="txt")
    count = len(placement.ranked)
    left_out: dict[str, str] = {}
    if head.space in ("subject", "MNI152", "Talairach"):
        placement.export(out / "targets_brainsight.txt", format="brainsight", count=count)
        jm.session.save_marker(
            out / "marker.nii.gz", placement.pose, head.labels_affine, head.labels.shape, space=head.space
        )
    else:
        reason = f"the head's space {head.space!r} has no name in it"
        left_out |= {"targets_brainsight.txt": reason, "marker.nii.gz": reason}
    if head.space in ("subject", "MNI152"):
        placement.export(out / "targets_localite.xml", format="localite", count=count)
    else:
        left_out["targets_localite.xml"] = f"its format has no name for the head's space, {head.space!r}"
    for name, reason in left_out.items():
        # an earlier run's would not belong to these results
        (out / name).unlink(missing_ok=True)
        _arguments.say(f"{name} left out: {reason}.")
    label = f"{settings['objective']} ({'a share' if settings['unit'] == '1' else settings['unit']})"
    with files.atomic(out / "search.png") as temporary:
        jm.plot.search(placement, head, centre, coil=coil, label=label).savefig(temporary, format="png")
    return left_out


def _write_summary(
    out: Path, placement: "Placement", settings: dict[str, Any], left_out: dict[str, str], meps: dict[str, Any]
) -> None:
    """placement.json, the last of all, so that it stands for a whole set."""
    import json
    import math

    from jaxm2m import files
    from jaxm2m.cli import _report

    content = {
        "space": placement.space,
        "value": placement.value,
        "unit": settings["unit"],
        "checked": None if math.isnan(placement.checked) else placement.checked,
        "ranked": [
            {
                "pose": c.pose.tolist(),
                "value": c.value,
                "didt": c.didt,
                "start": c.start + 1,
                "starts": c.starts,
                "stopped": c.reason,
            }
            for c in placement.ranked
        ],
        "reasons": list(placement.reasons),
        "evaluations": placement.evaluations,
        **meps,
        "seconds": round(placement.seconds, 2),
        "settings": settings,
        "left_out": left_out,
        "versions": _report.find_versions("jaxm2m", "jax", "jaxlib", "numpy", "scipy"),
    }
    with files.atomic(out / "placement.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
