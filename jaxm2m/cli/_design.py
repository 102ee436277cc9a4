"""`jaxm2m design`: a session's poses beforehand, its next stimulus beside the navigator, one on a known truth."""

from pathlib import Path
from typing import Annotated

import typer

from jaxm2m.cli import _arguments, _design_input, _design_intensity
from jaxm2m.cli._muscle_input import UNITS, parse_names, parse_threshold

app = typer.Typer(no_args_is_help=True)

BasisOption = Annotated[Path, typer.Option(help="Of `basis build`, over motor cortex.", metavar="FILE")]
TargetOption = Annotated[
    str,
    typer.Option(
        help="mm in the head's space, or a 10-20 name for heads in MNI152; under the middle of the patch of scalp.",
        metavar="X,Y,Z|C3",
    ),
]
OutOption = Annotated[Path, typer.Option(help="Folder for the session; made if missing.", metavar="DIR")]
GoalOption = Annotated[
    str,
    typer.Option(
        help="map: hot spots; hotspot: a muscle's best pose; select: and not another; threshold: its motor threshold."
    ),
]
MuscleOption = Annotated[
    list[str] | None, typer.Option(help="That of the goal; repeatable. By default all, for a map.", metavar="NAME")
]
AvoidMuscleOption = Annotated[
    list[str] | None, typer.Option(help="A muscle that should not answer, for select; repeatable.", metavar="NAME")
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        help=f'Of the firing rate, with its unit ({UNITS}): "60 V/m"; by default the field itself.',
        metavar="NUMBER UNIT",
    ),
]
DidtOption = Annotated[
    float | None,
    typer.Option(help="dI/dt of the stimuli, A/s, such as 1.2 times that at motor threshold.", metavar="A/s"),
]
LimitsOption = Annotated[
    str | None,
    typer.Option(
        help="dI/dt of the stimuli, A/s, such as 1.2 times that at motor threshold; or limits, such as 1 and 1.5 "
        "times that, between which --rule information chooses with each pose.",
        metavar="A/s|LOWEST,HIGHEST",
    ),
]
RuleOption = Annotated[
    str | None,
    typer.Option(
        help="information, by default of a map, or thompson, of poses; for comparison grid, random, scatter, feedback, "
        "'gaussian process', 'least alike'."
    ),
]
HandleOption = Annotated[str, typer.Option(help="Where the handle points at a turn of zero.", metavar="X,Y,Z")]
RadiusOption = Annotated[float, typer.Option(help="Of the patch of scalp, mm.")]
DistanceOption = Annotated[float, typer.Option(help="From the scalp to the coil's frame, mm.")]
AvoidOption = Annotated[
    list[str] | None,
    typer.Option(help="A ball (centre, radius; mm) to keep the casing out of; repeatable.", metavar="X,Y,Z,R"),
]
MoveOption = Annotated[float | None, typer.Option(help="mm between two stimuli; by default any.")]
TurnOption = Annotated[float | None, typer.Option(help="Degrees between two stimuli; by default any.")]
StopOption = Annotated[
    float | None,
    typer.Option(
        help="Of a map, mm that all 90 % radii shall be under (5); of a threshold, half the width of its 90 % interval "
        "as a share of it (0.05); else the share of draws that agree (0.9)."
    ),
]
SeedOption = Annotated[int, typer.Option(help="All randomness follows from it.")]
FormatOption = Annotated[
    str | None,
    typer.Option(help="Of the targets, brainsight or localite; by default the export's, else both."),
]


@app.callback()
def _design() -> None:
    """Which stimuli to give: before the first one, and after each, where the next is expected to tell most."""


@app.command("next")
def next_stimulus(
    head: _arguments.HeadOption,
    coil: _arguments.CoilOption,
    basis: BasisOption,
    target: TargetOption,
    out: OutOption,
    watch: Annotated[
        Path | None,
        typer.Option(
            help="A Brainsight export (.txt), a TriggerMarkers_Coil*.xml of Localite or its session's folder; it may "
            "grow, and need not be there yet.",
            metavar="EXPORT",
        ),
    ] = None,
    session: Annotated[
        Path | None, typer.Option(help="The same, read once, without waiting for more.", metavar="EXPORT")
    ] = None,
    meps: Annotated[
        Path | None,
        typer.Option(
            help="MEPs of another program: columns mep_FDI_uv, ..., a row a stimulus, in the order of the export, or "
            "by its names in a column called name. It may grow too.",
            metavar="TABLE.csv",
        ),
    ] = None,
    muscles: Annotated[
        str | None,
        typer.Option(help="Those recorded; by default the table's, or the export's channels.", metavar="NAME,NAME,..."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="The export's EMG channels that they are; by default 1, 2, ...", metavar="N,N,..."),
    ] = None,
    goal: GoalOption = "map",
    muscle: MuscleOption = None,
    avoid_muscle: AvoidMuscleOption = None,
    threshold: ThresholdOption = None,
    didt: LimitsOption = None,
    largest_didt: Annotated[
        float | None,
        typer.Option(help="dI/dt at 100 %MSO, A/s, to read and write %MSO; by default that of the coil's file."),
    ] = None,
    rule: RuleOption = None,
    pose: Annotated[
        Path | None,
        typer.Option(
            help="Of a threshold: a file with one pose, such as best.json; by default over the target.", metavar="FILE"
        ),
    ] = None,
    handle: HandleOption = _design_input.HANDLE,
    radius: RadiusOption = 20.0,
    distance: DistanceOption = 4.0,
    avoid: AvoidOption = None,
    largest_move: MoveOption = None,
    largest_turn: TurnOption = None,
    stop: StopOption = None,
    n_stimulus: Annotated[int, typer.Option(help="At most.")] = 300,
    interval: Annotated[float, typer.Option(help="s between two looks at the export.")] = 1.0,
    format: FormatOption = None,
    image: Annotated[
        Path | None, typer.Option(help="The NIfTI image that was loaded into Brainsight.", metavar="FILE")
    ] = None,
    seed: SeedOption = 0,
    spacing: _arguments.SpacingOption = 2.0,
    space: _arguments.SpaceOption = None,
    labels: _arguments.LabelsOption = None,
    flip: _arguments.FlipOption = False,
    casing: _arguments.CasingOption = None,
) -> None:
    """Propose the next stimulus of a session, from an export that the navigator is writing.

    Each stimulus of the export counts once, where the coil was; one without an MEP counts as missed. The last
    proposal stands until the next is there. Ends when enough is known, or by Ctrl-C; the same command goes on.

    Writes next_brainsight.txt or next_localite.xml, next.json, next_stimulus.json (with the intensity), next.png,
    stimuli.csv, progress.csv and log.txt after each stimulus; at the end hotspots.csv, curves.csv, model.h5 (for `place
    --muscle`), stimuli.png, sources.png and report.html, with other goals best.csv and best_brainsight.txt, or
    threshold.csv.

    Example: `jaxm2m design next --head atlas --coil figure8 --basis basis.h5 --target C3 --muscles FDI,ADM --threshold
    "60 V/m" --didt 7e7,1e8 --watch export.txt --out session/`
    """
    with _arguments.report_input_errors("design next"):
        if watch is not None and session is not None:
            raise ValueError("--session: --watch reads an export too; leave one of the two out.")
        export = watch or session
        for name, value in (("--meps", meps), ("--channels", channels), ("--image", image)):
            if value is not None and export is None:
                raise ValueError(f"{name}: not used without an export; give --watch or --session EXPORT.")
        if meps is not None and channels is not None:
            raise ValueError("--channels: of the export's EMG, and --meps has its own columns; leave one out.")
        _arguments.check_positive({"--interval": interval, "--largest-didt": largest_didt})
        limits = None if didt is None else _design_intensity.parse_limits(didt, "--didt", "A/s")
        if seed < 0:
            raise ValueError(f"--seed: {seed}; must be at least 0.")
        patch = _design_input.Patch.parse(target, handle, radius, distance, avoid)
        rate = None if threshold is None else parse_threshold(threshold)
        asked = _design_input.Goal(
            goal, rule, tuple(muscle or ()), tuple(avoid_muscle or ()), stop, n_stimulus, largest_move, largest_turn,
            pose,
        )  # fmt: skip
        asked.check()
        _design_intensity.check_didt(limits, rate, largest_didt)
        _design_intensity.check_limits(limits, goal, "--didt")
        _design_input.check_files(
            head, coil, basis, spacing=spacing, space=space, labels=labels, flip=flip, casing=casing
        )
        _arguments.make_folder(out)

        from jaxm2m.cli import _design_session
        from jaxm2m.cli._design_desk import Desk

        names = None if muscles is None else parse_names(muscles, "--muscles")
        numbers = None if channels is None else parse_names(channels, "--channels")
        with _design_input.lock_folder(out):
            journal = _design_session.read_journal(out)
            feed, journal = _design_session.open_feed(
                out, export, watch is not None, meps, image, names, numbers, journal
            )
            asked.check_muscles(journal.muscles)
            kind = format or _design_input.guess_format(export)
            setup = _design_input.load(
                head, coil, basis, patch, spacing=spacing, space=space, labels=labels, flip=flip, casing=casing
            )
            formats = _design_input.choose_formats(setup.head.space, kind)
            if feed is not None:
                feed.check_space(setup.head.space)
            _arguments.say("the session ...")
            loop = setup.make_loop(asked, muscles=journal.muscles, rate=rate, didt=limits, seed=seed, directory=out)
            _design_intensity.check_didt(tuple(loop.levels), rate, largest_didt)
            stimulator = _design_intensity.find_stimulator(setup.coil, largest_didt)
            _arguments.say(_design_intensity.describe_levels(loop, stimulator))
            if stimulator is None and len(loop.levels) > 1:
                _arguments.say("dI/dt at 100 % MSO is not known; pass --largest-didt to see % MSO as well.")
            if feed is not None:
                journal.agree(len(loop))
                journal.write()
            if len(loop):
                _arguments.say(f"{len(loop)} stimuli are there from before.")
            settings = setup.describe(basis, threshold, loop.levels, seed) | asked.settings(journal.muscles, loop)
            shown = (*(asked.muscle or journal.muscles), *asked.avoid_muscle)
            desk = Desk(out, setup, asked.describe(), shown, formats, settings, stimulator)
            halt = _design_session.Stop()
            with halt.listen():
                _design_session.run(
                    loop, journal, feed, desk, n_stimulus=n_stimulus, interval=interval, stop=halt
                )  # fmt: skip


@app.command()
def plan(
    head: _arguments.HeadOption,
    coil: _arguments.CoilOption,
    basis: BasisOption,
    target: TargetOption,
    out: OutOption,
    n: Annotated[int, typer.Option("--n", help="Poses.")] = 50,
    threshold: ThresholdOption = None,
    didt: DidtOption = None,
    handle: HandleOption = _design_input.HANDLE,
    radius: RadiusOption = 20.0,
    distance: DistanceOption = 4.0,
    avoid: AvoidOption = None,
    format: FormatOption = None,
    seed: SeedOption = 0,
    spacing: _arguments.SpacingOption = 2.0,
    space: _arguments.SpaceOption = None,
    labels: _arguments.LabelsOption = None,
    flip: _arguments.FlipOption = False,
    casing: _arguments.CasingOption = None,
) -> None:
    """Plan poses before the first stimulus, those whose fields tell most about cortex together, in a short order.

    Writes targets_brainsight.txt, targets_localite.xml, targets.json, table.csv and plan.png.

    Example: `jaxm2m design plan --head atlas --coil figure8 --basis basis.h5 --target C3 --n 50 --threshold "60 V/m"
    --out plan/`
    """
    with _arguments.report_input_errors("design plan"):
        _arguments.check_positive({"--didt": didt})
        if n < 1:
            raise ValueError(f"--n: {n}; must be at least 1.")
        if seed < 0:
            raise ValueError(f"--seed: {seed}; must be at least 0.")
        patch = _design_input.Patch.parse(target, handle, radius, distance, avoid)
        rate = None if threshold is None else parse_threshold(threshold)
        _design_input.check_files(
            head, coil, basis, spacing=spacing, space=space, labels=labels, flip=flip, casing=casing
        )
        _arguments.make_folder(out)
        from jaxm2m.cli import _design_plan

        setup = _design_input.load(
            head, coil, basis, patch, spacing=spacing, space=space, labels=labels, flip=flip, casing=casing
        )
        formats = _design_input.choose_formats(setup.head.space, format)
        _arguments.say(f"{n} poses ...")
        table = _design_plan.write_plan(out, setup, n, rate=rate, didt=didt, seed=seed, formats=formats)
    typer.echo(table.to_string(float_format=lambda v: f"{v:.4g}"))
    _arguments.say(f"{out}: {len(table)} poses; {', '.join(formats) or 'no navigator'} and JSON.")


@app.command()
def simulate(
    out: OutOption,
    goal: GoalOption = "map",
    stimuli: Annotated[int, typer.Option(help="At most.")] = 60,
    muscle: MuscleOption = None,
    avoid_muscle: AvoidMuscleOption = None,
    rule: RuleOption = None,
    stop: StopOption = None,
    basis: Annotated[
        Path | None,
        typer.Option(help="Of `basis build` for the atlas head; by default one is built, in minutes.", metavar="FILE"),
    ] = None,
    target: TargetOption = "-40,-20,52",
    handle: HandleOption = _design_input.HANDLE,
    radius: RadiusOption = 20.0,
    distance: DistanceOption = 4.0,
    largest_move: MoveOption = None,
    largest_turn: TurnOption = None,
    threshold: Annotated[str, typer.Option(help=f"Of the firing rate, with its unit ({UNITS}).")] = "60 V/m",
    intensity: Annotated[
        str | None,
        typer.Option(
            help="In resting motor thresholds; of limits, --rule information chooses with each pose. Default: 1,1.5, "
            "of a threshold 0.5,2.",
            metavar="NUMBER|LOWEST,HIGHEST",
        ),
    ] = None,
    missed: Annotated[float, typer.Option(help="Share of MEPs that are flagged.")] = 0.0,
    seed: SeedOption = 0,
    spacing: _arguments.SpacingOption = 2.0,
    modes: Annotated[int, typer.Option(help="Of the basis, where it is built.")] = 120,
) -> None:
    """Try a whole session on a generated subject of the atlas head, whose truth is known, with the clock.

    A line a stimulus, with the seconds of the loop; at the end how far it is from the truth. Writes what `design next`
    does, and truth.csv. The same command goes on from where it was.

    Example: `jaxm2m design simulate --goal map --stimuli 60 --out trial/`
    """
    with _arguments.report_input_errors("design simulate"):
        intensity = intensity or ("0.5,2" if goal == "threshold" else "1,1.5")
        limits = _design_intensity.parse_limits(intensity, "--intensity", "resting motor thresholds")
        _design_intensity.check_limits(limits, goal, "--intensity")
        if not 0 <= missed < 1:
            raise ValueError(f"--missed: {missed:g}; give a share of 0 to 1.")
        if modes < 2:
            raise ValueError(f"--modes: {modes}; must be at least 2.")
        if seed < 0:
            raise ValueError(f"--seed: {seed}; must be at least 0.")
        patch = _design_input.Patch.parse(target, handle, radius, distance, None)
        rate = parse_threshold(threshold)
        if rate.threshold.unit not in ("V/m", "V/cm"):
            raise ValueError(f"--threshold: {threshold}; a generated subject takes V/m or V/cm.")
        asked = _design_input.Goal(
            goal, rule, tuple(muscle or ()), tuple(avoid_muscle or ()), stop, stimuli, largest_move, largest_turn
        )
        asked.check("--stimuli")
        _design_input.check_files(
            "atlas", "figure8", basis, spacing=spacing, space=None, labels=None, flip=False, casing=None
        )
        _arguments.make_folder(out)

        from jaxm2m.cli import _design_simulate
        from jaxm2m.cli._design_desk import Desk

        built = basis or (out / "basis.h5" if (out / "basis.h5").exists() else None)
        with _design_input.lock_folder(out):
            setup = _design_input.load(
                "atlas", "figure8", built, patch, spacing=spacing, build=out / "basis.h5", modes=modes
            )
            _arguments.say("a subject ...")
            subject = _design_simulate.generate_subject(setup, rate, seed)
            asked.check_muscles(subject.muscles)
            at_threshold = float(subject.rmt_didt)
            didt = tuple(at_threshold * limit for limit in limits)
            loop = setup.make_loop(asked, muscles=subject.muscles, rate=rate, didt=didt, seed=seed, directory=out)
            at = _design_intensity.describe_didt(at_threshold, None)
            _arguments.say(f"motor threshold {at}; {_design_intensity.describe_levels(loop, None)}")
            settings = setup.describe(built, threshold, loop.levels, seed) | asked.settings(subject.muscles, loop)
            settings["intensity_rmt"] = intensity
            desk = Desk(
                out, setup, asked.describe(), (*(asked.muscle or subject.muscles), *asked.avoid_muscle),
                _design_input.choose_formats(setup.head.space, None), settings, source=_design_simulate.SOURCE,
            )  # fmt: skip
            _design_simulate.run(loop, subject, desk, asked, missed=missed, seed=seed)
            table = _design_simulate.compare(loop, subject, setup, asked)
            desk.write_csv("truth.csv", table)
    typer.echo(table.to_string(float_format=lambda v: f"{v:.3g}"))
    _arguments.say(_design_simulate.summarise(table, asked))
