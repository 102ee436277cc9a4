"""`jaxm2m muscle`: networks from the field to the muscles, compared, trained and asked; maps of MEPs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxm2m.cli import _arguments, _muscle_input
from jaxm2m.cli._muscle_input import UNITS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from jaxm2m.cli._muscle_input import SourceData
    from jaxm2m.muscle import Meps, Model, Sources

app = typer.Typer(no_args_is_help=True)

FieldsArgument = Annotated[Path, typer.Argument(help="Fields of `jaxm2m efield` (.h5), one a stimulus.")]
MepsArgument = Annotated[
    Path, typer.Argument(help="Columns mep_FDI_uv, ... (.csv), or what Meps.save wrote (.h5); a row a stimulus.")
]
OutOption = Annotated[Path, typer.Option(help="Folder for the results; made if missing.", metavar="DIR")]
PresetOption = Annotated[str | None, typer.Option(help="small, paper or m2m-net; by default small.")]
MusclesOption = Annotated[
    str | None, typer.Option(help="Which, such as FDI,ADM; by default all.", metavar="NAME,NAME,...")
]
RankOption = Annotated[
    int | None, typer.Option(help="Synergies; by default the fewest with a VAF of 0.90 in the training trials.")
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        help="NIfTI in the fields' space: points of the grid in its voxels above 0.5 count, such as motor cortex. For "
        "sources: grey matter; by default as the fields' file says.",
        metavar="FILE",
    ),
]
SeedOption = Annotated[int, typer.Option(help="All randomness follows from it.")]

_PRESET, _SOURCES = "small", "sources"
_SMALL = 0.01  # p-value of a check that is told
_BATCH_SIZE = 8  # fields that a model sees at once


@app.callback()
def _muscle() -> None:
    """From fields to muscles: compare networks, train one, predict MEPs by it; map MEPs over scalp and brain.

    Stimuli of which an MEP is flagged (reason_FDI) or empty are left out, of the fields too: an empty cell is how to
    leave one out by hand. Sources leave out the MEPs alone.
    """


@app.command()
def compare(
    fields: FieldsArgument,
    meps: MepsArgument,
    out: OutOption,
    threshold: Annotated[
        str | None,
        typer.Option(help=f'Of the firing rate, with its unit ({UNITS}): "60 V/m".', metavar="NUMBER UNIT"),
    ] = None,
    preset: PresetOption = None,
    folds: Annotated[int, typer.Option(help="Of the cross-validation.")] = 10,
    heads: Annotated[
        str,
        typer.Option(
            help="Of direct, synergy, combined, two-stage; sources, synergy-sources.", metavar="NAME,NAME,..."
        ),
    ] = "direct,synergy,combined",
    inputs: Annotated[str, typer.Option(help="Of field, rate.", metavar="NAME,NAME")] = "field,rate",
    counts: Annotated[
        str,
        typer.Option(
            help="AIC and BIC with parameters counted so: parameters, above, generalised, effective (the last two take "
            "minutes for each variant).",
            metavar="NAME,NAME,...",
        ),
    ] = "",
    muscles: MusclesOption = None,
    rank: RankOption = None,
    mask: MaskOption = None,
    seed: SeedOption = 0,
    distributed: _arguments.DistributedOption = False,
) -> None:
    """Compare what predicts MEPs: {E-field, firing rate} x {direct, synergy, combined}, by cross-validation.

    With --heads direct,synergy,combined,sources also by where in grey matter each muscle is driven from.

    May be stopped or killed: the same command goes on from where it was (DIR/run). Writes comparison.h5, table.csv,
    differences.csv, comparison.png and report.html; with --counts criteria.csv.

    Example: `jaxm2m muscle compare fields.h5 meps.csv --threshold "60 V/m" --out comparison/`
    """
    with _arguments.report_input_errors("muscle compare"):
        chosen_heads, chosen_inputs = (
            _muscle_input.parse_names(heads, "--heads"),
            _muscle_input.parse_names(inputs, "--inputs"),
        )
        if "rate" in chosen_inputs and threshold is None:
            raise ValueError('--threshold: none, and --inputs has rate; give such as "60 V/m", or --inputs field.')
        if "rate" not in chosen_inputs and threshold is not None:
            raise ValueError("--threshold: not used without the input rate; leave it out.")
        _arguments.use_all_cores()
        _arguments.join_processes(distributed)

        import jax

        import jaxm2m as jm
        from jaxm2m import _check
        from jaxm2m.cli import _muscle_report

        for head in chosen_heads:
            _check.option(head, (*jm.muscle.PATHWAYS, *jm.muscle.SOURCE_PATHWAYS), "--heads")
        networks = [head for head in chosen_heads if head in jm.muscle.PATHWAYS]
        if preset is not None and not networks:
            raise ValueError("--preset: of networks, and --heads has sources alone; leave it out.")
        if rank is not None and set(chosen_heads) <= {"direct", "sources"}:
            raise ValueError("--rank: of synergies, which no head uses; leave it out.")
        if counts and not networks:
            raise ValueError("--counts: of networks, and --heads has sources alone; leave it out.")
        if networks and preset is None:
            preset = _PRESET
        data = _muscle_input.load_training_data(fields, meps, muscles, threshold, preset, mask, rank, seed)
        for kind in chosen_inputs:
            _check.option(kind, jm.muscle.INPUTS, "--inputs")
        chosen_counts = _muscle_input.parse_names(counts, "--counts") if counts else ()
        for count in chosen_counts:
            _check.option(count, jm.muscle.COUNTS, "--counts")
        _arguments.make_folder(out)
        number = len(chosen_inputs) * folds
        work = [f"{number} autoencoders", f"{number * len(networks)} mappers"] if networks else []
        if len(networks) < len(chosen_heads):
            work.append(f"{number * (len(chosen_heads) - len(networks))} fits of sources")
        _arguments.say(
            f"{data}; {len(chosen_inputs) * len(chosen_heads)} variants, {folds} folds: {', then '.join(work)} ..."
        )
        with (
            _report_progress(out / "run"),
            _muscle_input.tell_unknown_grey(data, wanted=len(networks) < len(chosen_heads)),
            data.select_fields(out) as path,
        ):
            result = jm.muscle.compare(
                path,
                data.meps,
                n_folds=folds,
                pathways=chosen_heads,
                inputs=chosen_inputs,
                counts=chosen_counts,
                options=data.training_options(directory=out / "run"),
                key=jax.random.key(seed),
                **data.options,
            )
        if jax.process_index():
            return
        _muscle_report.write_comparison(out, result, data, seed)
    typer.echo(_muscle_report.summarise(result.table).to_string())
    _arguments.say(f"{out}: {result}. Whether two variants differ: differences.csv.")


@app.command()
def fit(
    fields: FieldsArgument,
    meps: MepsArgument,
    out: OutOption,
    variant: Annotated[str, typer.Option(help="direct, synergy, combined, two-stage, or sources.")] = "combined",
    threshold: Annotated[
        str | None,
        typer.Option(
            help=f'Of the firing rate, with its unit ({UNITS}): "60 V/m"; by default the model sees the field.',
            metavar="NUMBER UNIT",
        ),
    ] = None,
    preset: PresetOption = None,
    muscles: MusclesOption = None,
    rank: RankOption = None,
    mask: MaskOption = None,
    seed: SeedOption = 0,
) -> None:
    """Train one variant on all trials.

    May be stopped or killed: the same command goes on from where it was (DIR/run). Writes the model (DIR/model, for
    `predict` and for the search of coil poses), and of the trials that it was trained on training_scores.csv and
    training.png, which say nothing of others: that is what `compare` is for.

    --variant sources fits where in grey matter each muscle is driven from, in seconds: DIR/model.h5, hotspots.csv (mm),
    curves.csv and checks.csv (p-values).

    Example: `jaxm2m muscle fit fields.h5 meps.csv --threshold "60 V/m" --out fit/`
    """
    with _arguments.report_input_errors("muscle fit"):
        _arguments.use_all_cores()

        import jax

        import jaxm2m as jm
        from jaxm2m import _check

        _check.option(variant, (*jm.muscle.PATHWAYS, _SOURCES), "--variant")
        if variant == _SOURCES:
            for name, value in (("--preset", preset), ("--rank", rank)):
                if value is not None:
                    raise ValueError(f"{name}: of networks, and --variant is sources; leave it out.")
            _fit_sources(out, _muscle_input.load_source_data(fields, meps, muscles, threshold, mask, seed), seed)
            return
        data = _muscle_input.load_training_data(fields, meps, muscles, threshold, preset or _PRESET, mask, rank, seed)
        _make_empty(out)
        _arguments.say(f"{data} ...")
        with _report_progress(out / "run"), data.select_fields(out) as path:
            model = jm.muscle.fit(
                path,
                data.meps,
                variant=variant,
                options=data.training_options(directory=out / "run"),
                key=jax.random.key(seed),
                **data.options,
            )
            predicted = _predict(model, path, data.didt)
        table = _write_training(out, data.meps, predicted, model)
        model.save(out / "model")  # last, since it stands for a whole set
    typer.echo(table.round(3).to_string())
    _arguments.say(f"{out / 'model'}: {model}. The scores are of the trials that it was trained on.")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="DIR of `muscle fit`, or the DIR/model or DIR/model.h5 in it.")],
    fields: FieldsArgument,
    out: Annotated[Path, typer.Option(help="The table to make (.csv).", metavar="FILE")],
) -> None:
    """Predict the MEPs of other fields on the model's grid: a row a stimulus, columns mep_FDI_uv, ... (uV).

    Example: `jaxm2m muscle predict fit/model others.h5 --out predicted.csv`
    """
    with _arguments.report_input_errors("muscle predict"):
        if out.suffix.lower() != ".csv":
            raise ValueError(f"--out: {out} does not end in .csv; name a table.")

        import numpy as np
        import pandas as pd

        import jaxm2m as jm

        source = _muscle_input.read_source(fields)
        trained = jm.muscle.load(_muscle_input.find_model(model, "MODEL"))
        grid = trained.grid
        if grid is None:
            raise ValueError(f"MODEL: {model} is of points, not of a grid; call it in Python (jaxm2m.muscle.load).")
        if source.grid.shape != tuple(grid.shape) or not np.allclose(source.grid.affine, grid.affine, atol=1e-3):
            one, other = (_muscle_input.format_shape(shape) for shape in (source.grid.shape, grid.shape))
            raise ValueError(
                f"FIELDS: {fields} is on another grid than the model (its {one} points, the model's {other}); compute "
                "it with the --roi, --shape and --step of the training."
            )
        predicted = _predict(trained, fields, source.didt_for(trained.rate))
        table = pd.DataFrame(predicted, columns=[f"mep_{name}_uv" for name in trained.muscles])
        with jm.files.atomic(out) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    _arguments.say(f"{out}: {len(predicted)} stimuli by {trained}.")


@app.command("map")
def motor_map(
    meps: MepsArgument,
    out: OutOption,
    fields: Annotated[
        Path | None, typer.Option(help="Fields of `jaxm2m efield` (.h5), which know their poses.", metavar="FILE")
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(
            help="Instead: rows of 16 numbers, or of x, y, z (mm, RAS; .csv), .npy, .json; Brainsight, Localite.",
            metavar="FILE",
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="The NIfTI image that was loaded into Brainsight.", metavar="FILE")
    ] = None,
    axes: Annotated[
        str, typer.Option(help="Where x, y and z of a table of --poses point; RSA: right, up, front; LPS as in DICOM.")
    ] = "RAS",
    muscles: MusclesOption = None,
    least: Annotated[float, typer.Option(help="uV; less is taken for no response.")] = 50.0,
    regression: Annotated[
        bool, typer.Option("--regression", help="Also fit MEPs to the field in each voxel of --fields.")
    ] = False,
    shuffles: Annotated[
        int, typer.Option(help="Of the regression: what chance reaches; each takes as long as the map.")
    ] = 0,
    sources: Annotated[
        bool, typer.Option("--sources", help="Also fit where in grey matter muscles are driven from, by --fields.")
    ] = False,
    threshold: Annotated[
        str | None,
        typer.Option(
            help=f"Of the sources' firing rate, with its unit ({UNITS}); by default the field itself drives.",
            metavar="NUMBER UNIT",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="NIfTI of grey matter, for --sources; by default as the fields' file says.", metavar="FILE"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the shuffles, and of the sources.")] = 0,
) -> None:
    """Map MEPs over the places of the coil: area, volume, centre of gravity, hotspot, overlap; and over the brain.

    Writes map.csv, overlap.csv, map.png and map.nii.gz (uV, a slice in space); with --regression, regression.csv and
    regression_r2.nii.gz (a volume a muscle); with --sources, sources.nii.gz (densities, 1/mm^3, a volume a muscle) and
    hotspots.csv (mm).

    Example: `jaxm2m muscle map meps.csv --fields fields.h5 --out map/`
    """
    with _arguments.report_input_errors("muscle map"):
        if (fields is None) == (poses is None):
            raise ValueError("--fields: give the fields, or --poses FILE; one of the two.")
        if regression and fields is None:
            raise ValueError("--regression: it needs the fields; give --fields FILE.")
        if sources and fields is None:
            raise ValueError("--sources: they need the fields; give --fields FILE.")
        for name, value in (("--threshold", threshold), ("--mask", mask)):
            if value is not None and not sources:
                raise ValueError(f"{name}: only used with --sources; add it.")
        if axes != "RAS" and poses is None:
            raise ValueError("--axes: only used with --poses; leave it out.")
        if shuffles and not regression:
            raise ValueError("--shuffles: only used with --regression; add it.")
        _arguments.check_positive({"--least": least})

        import jax

        import jaxm2m as jm

        if poses is None:
            assert fields is not None
            places = _muscle_input.read_source(fields).poses[:, :3, 3]
        else:
            places, _ = jm.session.load_positions(poses, image, axes=axes)
        data = None
        if sources and fields is not None:
            data = _muscle_input.load_source_data(fields, meps, muscles, threshold, mask, seed)
        selected, rows, _ = _muscle_input.select_meps(meps, len(places), poses or fields, muscles)
        _arguments.make_folder(out)
        maps = jm.muscle.motor_map(places[rows], selected, least=least)
        table = maps.table()
        with jm.files.atomic(out / "map.csv") as temporary:
            table.to_csv(temporary)
        with jm.files.atomic(out / "overlap.csv") as temporary:
            maps.overlap().rename_axis("jaccard").to_csv(temporary)
        with jm.files.atomic(out / "map.png") as temporary:
            jm.plot.motor_map(maps).savefig(temporary, format="png")
        maps.save(out / "map.nii.gz")
        typer.echo(table.round(1).to_string())
        if maps.at_edge.any():
            edge = ", ".join(name for name, at_edge in zip(maps.muscles, maps.at_edge, strict=True) if at_edge)
            _arguments.say(f"hotspots at the edge of what was stimulated, the true ones may lie beyond: {edge}.")
        if regression:
            assert fields is not None
            key = jax.random.key(seed)
            regressed = jm.muscle.regression_map(fields, selected, stimuli=rows, shuffles=shuffles, key=key)
            with jm.files.atomic(out / "regression.csv") as temporary:
                regressed.table().to_csv(temporary)
            regressed.save(out / "regression_r2.nii.gz")
            typer.echo(regressed.table().round(3).to_string())
        if data is not None:
            _arguments.say("sources ...")
            fitted = data.fit(seed)
            table = _write_hotspots(out, fitted)
            fitted.maps(out / "sources.nii.gz")
            typer.echo(table.round(1).to_string())
    _arguments.say(f"{out}: {maps}.")


def _fit_sources(out: Path, data: "SourceData", seed: int) -> None:
    """Fit sources and write what `fit` does; the model last, since it stands for a whole set."""
    from jaxm2m import files

    _make_empty(out)
    _arguments.say(f"{data} ...")
    sources = data.fit(seed)
    predicted = _predict(sources, data.source.path, data.source.didt_for(data.rate))
    table = _write_training(out, data.meps, predicted, sources)
    hotspots = _write_hotspots(out, sources)
    for name, rows in {"curves.csv": sources.table(), "checks.csv": sources.check()}.items():
        with files.atomic(out / name) as temporary:
            rows.to_csv(temporary)
    sources.save(out / "model.h5")
    typer.echo(table.round(3).to_string())
    typer.echo(hotspots.round(1).to_string())
    small = {name: p for name, p in sources.check().loc["all"].items() if p < _SMALL}
    if small:
        named = ", ".join(f"{name}, p {p:.2g}" for name, p in small.items())
        _arguments.say(
            f"warning: sessions of this model look otherwise ({named}); see checks.csv, and do not rely on the sources "
            "before you know why."
        )
    _arguments.say(f"{out / 'model.h5'}: {sources}. The scores are of the trials that it was fitted to.")


def _make_empty(out: Path) -> None:
    """Make the folder, and refuse one that holds a model."""
    _arguments.make_folder(out)
    for path in (out / "model", out / "model.h5"):
        if path.exists():
            raise FileExistsError(f"--out: {path} exists; choose another folder, or remove it.")


def _write_hotspots(out: Path, sources: "Sources") -> "pd.DataFrame":
    from jaxm2m import files

    table = sources.hotspots()
    with files.atomic(out / "hotspots.csv") as temporary:
        table.to_csv(temporary)
    return table


def _write_training(out: Path, meps: "Meps", predicted: "np.ndarray", model: "Model | Sources") -> "pd.DataFrame":
    """Write scores and figure of the trials that a model was fitted to; MEPs that are flagged count for nothing."""
    import numpy as np

    import jaxm2m as jm

    names, largest = meps.muscles, np.asarray(model.largest, float)
    usable = (meps.reasons == "") & np.isfinite(meps.amplitude)
    # where there is no MEP, zero for both: it adds nothing to any sum
    measured, counted = (np.where(usable, values, 0) for values in (meps.amplitude, predicted))
    scores = jm.muscle.scores(measured / largest, counted / largest, muscles=names)
    table = scores.muscles.rename_axis("training trials")
    table.loc["all"] = scores.pooled
    with jm.files.atomic(out / "training_scores.csv") as temporary:
        table.to_csv(temporary)
    variant = _SOURCES if isinstance(model, jm.muscle.Sources) else model.variant
    title = f"training trials ({int(usable.any(1).sum())}), {variant}"
    with jm.files.atomic(out / "training.png") as temporary:
        jm.plot.predictions(measured, counted, muscles=names, title=title).savefig(temporary, format="png")
    return table


def _predict(model: "Model | Sources", path: Path, didt: "np.ndarray | None") -> "np.ndarray":
    """uV (n_stimulus, n_muscle) of a file's fields, of which few are in memory."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxm2m import files
    from jaxm2m._progress import progress_bar

    call = jax.jit(lambda model, e, didt: model(e, didt=didt))
    dtype = jnp.result_type(float)
    batches = []
    with files.open_hdf5(path, name="FIELDS") as file:
        e = file["e"]
        with progress_bar(len(e), "predicting", unit="stimuli") as advance:
            for start in range(0, len(e), _BATCH_SIZE):
                rows = np.minimum(np.arange(start, start + _BATCH_SIZE), len(e) - 1)  # one shape, one program
                few = np.asarray(e[start : start + _BATCH_SIZE], dtype)
                if not np.isfinite(few).all():
                    where = f"[{start}] to [{start + len(few) - 1}]"
                    raise ValueError(f"FIELDS: {path} holds NaN or infinity in {where}; compute these again.")
                batch_didt = None if didt is None else jnp.asarray(didt[rows], dtype)
                batches.append(np.asarray(call(model, jnp.asarray(few[rows - start]), batch_didt))[: len(few)])
                advance(len(few))
    return np.concatenate(batches).astype(float)


@contextmanager
def _report_progress(run: Path) -> Iterator[None]:
    if run.exists():
        _arguments.say(f"{run} holds a run; going on with it.")
    try:
        yield
    except KeyboardInterrupt:
        _arguments.say("stopped; the same command goes on from the last checkpoint.")
        raise typer.Exit(130) from None
