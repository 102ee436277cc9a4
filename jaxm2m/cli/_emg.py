"""`jaxm2m emg`: recordings to rectified EMG, a trained model, muscle activation, and how methods compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxm2m.cli import _arguments, _emg_times

if TYPE_CHECKING:
    import numpy as np

    from jaxm2m.emg import Activation, Fit, Rectified
    from jaxm2m.session import Recording

app = typer.Typer(no_args_is_help=True)

EmgArgument = Annotated[Path, typer.Argument(help="What `emg preprocess` made (.h5).", metavar="FILE")]
RunOption = Annotated[Path, typer.Option(help="Directory of a run of `emg fit`.", metavar="DIR")]
SamplesOption = Annotated[int, typer.Option(help="Posterior samples that are averaged; 0: one pass at their means.")]
SeedOption = Annotated[int, typer.Option(help="All randomness follows from it.")]


@app.callback()
def _emg() -> None:
    """EMG to muscle activation: preprocess, fit the sequential autoencoder, infer, compare with filters."""


@app.command()
def preprocess(
    recording: Annotated[
        Path,
        typer.Argument(help="HDF5, MAT, CSV, .xlsx, .npy, .sto, NWB, c3d, or what MNE reads.", metavar="RECORDING"),
    ],
    out: _arguments.OutOption,
    sfreq: Annotated[float | None, typer.Option(help="Sampling rate, Hz, where the file does not say it.")] = None,
    name: Annotated[str | None, typer.Option(help="Which array or sheet of the file, where it holds several.")] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Names of the channels that are taken, whatever their type and status.", metavar="A,B,..."),
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help='Order of the axes of an array, such as "trial channel sample".', metavar="AXES")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Of the samples (uV, mV, V), where the file does not say it.")
    ] = None,
    trials: Annotated[
        Path | None, typer.Option(help="Table of trials: start and stop, s (.csv, .npy).", metavar="FILE")
    ] = None,
    cycles: Annotated[
        Path | None,
        typer.Option(help="Table of the beginnings of cycles, s; a trial is from one to the next.", metavar="FILE"),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(help="Trials are the file's events of this name, or from each to the next.", metavar="NAME"),
    ] = None,
    keep_bads: Annotated[
        bool, typer.Option("--keep-bads", help="Keep channels and stretches that the file marks as bad.")
    ] = False,
    skiprows: Annotated[
        int | None, typer.Option(help="Lines above the names of a text file, where they are not found.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Name of a table's column of times, where it is not known.", metavar="NAME")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="Do as was done to this preprocessed file, with its numbers.", metavar="FILE"),
    ] = None,
    line: Annotated[float, typer.Option(help="Mains frequency, Hz; 0 leaves it.")] = 60.0,
    harmonics: Annotated[int, typer.Option(help="Sinusoids of the mains that are removed; 3: 60, 120, 180 Hz.")] = 3,
    notches: Annotated[
        str | None, typer.Option(help="Frequencies of further noise peaks, Hz.", metavar="F,F,...")
    ] = None,
    highpass: Annotated[float, typer.Option(help="Hz; 0: the amplifier has done it.")] = 65.0,
    rate: Annotated[float, typer.Option(help="Rate of the result, Hz.")] = 500.0,
    clip: Annotated[float, typer.Option(help="Percentile at which channels are clipped; 100: not.")] = 99.9,
    mvc: Annotated[
        Path | None,
        typer.Option(
            help="Recording of maximal voluntary contractions, which become 1 in place of the 95th percentile.",
            metavar="FILE",
        ),
    ] = None,
    rectified: Annotated[
        bool | None, typer.Option("--rectified/--raw", help="What the data are; by default judged by their signs.")
    ] = None,
    keep_flagged: Annotated[
        bool, typer.Option("--keep-flagged", help="Keep trials with isolated large events, which are left out.")
    ] = False,
) -> None:
    """Mains removal, high-pass, rectification, resampling, clipping and normalisation; all of it is remembered.

    Prints a methods paragraph, what was done to each channel, and what the file held besides.

    Example: `jaxm2m emg preprocess recording.csv --sfreq 2000 --line 50 --out emg.h5`
    """
    with _arguments.report_input_errors("emg preprocess"):
        _arguments.check_out(out)
        if mvc is not None and like is not None:
            raise ValueError("--mvc: --like has its own scales; give one of them.")

        peaks = () if notches is None else _arguments.parse_numbers(notches, "--notches", "frequencies in Hz")

        import jaxm2m as jm

        def load(path: Path) -> "Recording":
            return jm.session.load_emg(
                path,
                sfreq,
                name=name,
                picks=None if channels is None else [part.strip() for part in channels.split(",")],
                axes=axes,
                unit=unit,
                bads="keep" if keep_bads else "drop",
                skiprows=skiprows,
                time=time,
            )

        raw = load(recording)
        raw = _emg_times.choose_trials(raw, trials, cycles, events)
        _arguments.say(str(raw))
        if like is not None:
            emg = jm.emg.Rectified.load(like).transform(raw)
        else:
            emg = jm.emg.preprocess(
                raw,
                normalise=95.0 if mvc is None else "mvc",
                mvc=None if mvc is None else load(mvc),
                rectified=rectified,
                line=line or None,
                harmonics=harmonics,
                notches=peaks,
                highpass=highpass or None,
                to=rate,
                clip=None if clip >= 100 else clip,
            )
        if emg.flagged.any() and not keep_flagged:
            _arguments.say(
                f"left out: {int(emg.flagged.sum())} of {len(emg.trials)} trials with isolated large events, or over "
                "what the file marks as bad."
            )
            emg = emg.pick(~emg.flagged)
        emg.save(out)
    _arguments.say(f"{out}: {emg}")
    typer.echo(emg.preprocessing.describe())
    typer.echo(emg.preprocessing.table().to_string(index=False))
    if raw.left_out:
        typer.echo(raw.report().to_string(index=False))


@app.command()
def fit(
    emg: EmgArgument,
    out: Annotated[Path, typer.Option(help="Directory of the run.", metavar="DIR")],
    preset: Annotated[
        str,
        typer.Option(help="single: known settings, minutes; small: a short search; paper: the published one, hours."),
    ] = "single",
    valid: Annotated[
        Path | None, typer.Option(help="Compare members by this file; else by a fifth of the data.", metavar="FILE")
    ] = None,
    population: Annotated[
        int | None, typer.Option(help="Members (single: seeds, of which the best counts); by default the preset's.")
    ] = None,
    length: Annotated[float, typer.Option(help="Of windows, s.")] = 0.2,
    overlap: Annotated[float, typer.Option(help="Of windows, s.")] = 0.05,
    shift: Annotated[
        float, typer.Option(help="Standard deviation of the temporal shift, s; nothing faster is learnt.")
    ] = 0.006,
    padded: Annotated[bool, typer.Option("--padded", help="Trials hold margins of 6 bins on both sides.")] = False,
    source: Annotated[
        Path | None,
        typer.Option(help="Keep the dynamics of this run; refit what reads the muscles in and out.", metavar="DIR"),
    ] = None,
    distributed: _arguments.DistributedOption = False,
    seed: SeedOption = 0,
) -> None:
    """Train the sequential autoencoder, on all cores or on the GPU, until it stops by itself.

    May be stopped or killed: the same command goes on from the last generation. Writes the history as a table and
    figures of lineage and hyperparameters into the directory.

    Example: `jaxm2m emg fit emg.h5 --out run/`
    """
    with _arguments.report_input_errors("emg fit"):
        import jax

        _arguments.use_all_cores()
        _arguments.join_processes(distributed)

        import jaxm2m as jm

        data = _load_rectified(emg)
        validation = None if valid is None else _load_rectified(valid)
        if (out / "run.json").exists():
            _arguments.say(f"{out} holds a run; going on with it.")
        try:
            run = jm.emg.fit(
                data,
                key=jax.random.key(seed),
                valid=validation,
                preset=preset,
                population=population,
                directory=out,
                length=length,
                overlap=overlap,
                shift=shift,
                padded=padded,
                source=None if source is None else _load_run(source),
            )
        except KeyboardInterrupt:
            _arguments.say("stopped; the same command goes on from the last whole generation.")
            raise typer.Exit(130) from None
        if jax.process_index():
            return
        _write_figures(run, out)
    _arguments.say(f"{out}: {run}")
    for name, value in run.run.hyper.items():
        typer.echo(f"{name:>22} {value:.4g}")


@app.command()
def activation(
    emg: EmgArgument,
    run: RunOption,
    out: _arguments.OutOption,
    samples: SamplesOption = 200,
    padded: Annotated[bool, typer.Option("--padded", help="Trials hold margins of 6 bins on both sides.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Infer muscle activation by a trained model, also of recordings that it never saw.

    Preprocess them with `emg preprocess --like`, so that they get the same thresholds and scales. Writes activation,
    factors and inferred inputs to HDF5.

    Example: `jaxm2m emg activation emg.h5 --run run/ --out activation.h5`
    """
    with _arguments.report_input_errors("emg activation"):
        _arguments.check_out(out)
        inferred = _infer(_load_rectified(emg), _load_run(run), samples, padded, seed)
        inferred.save(out)
    _arguments.say(f"{out}: {inferred}")


@app.command()
def compare(
    emg: EmgArgument,
    targets: Annotated[
        Path,
        typer.Option(help="What to decode, a row for each bin of FILE: .csv with names, or .npy.", metavar="TABLE"),
    ],
    run: RunOption,
    out: Annotated[Path | None, typer.Option(help="Also write the table (.csv).", metavar="FILE")] = None,
    lag: Annotated[float, typer.Option(help="Longest lag that is tried, s.")] = 0.1,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation, contiguous pieces of the bins.")] = 10,
    samples: SamplesOption = 200,
    padded: Annotated[bool, typer.Option("--padded", help="Trials hold margins of 6 bins on both sides.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Decode kinematics or force from the model's activation, low-pass filters and Bayesian filters.

    Ridge regression in 10 folds (`--folds`), in each of which each output must vary; each output at its best lag.
    Filters are chosen by their own VAF, so that they are the best of many; beside them stand two decoders that see 80
    ms on both sides, which tells what temporal context alone is worth.

    Example: `jaxm2m emg compare emg.h5 --targets kinematics.csv --run run/ --out decoding.csv`
    """
    with _arguments.report_input_errors("emg compare"):
        _arguments.check_positive({"--lag": lag, "--folds": folds})

        import numpy as np
        import pandas as pd

        import jaxm2m as jm

        data, model = _load_rectified(emg), _load_run(run)
        margin = 6 if padded else 0
        y, names = _read_targets(targets, [len(trial) - 2 * margin for trial in data.by_trial()])
        lags = np.arange(0.0, lag + 0.5 / data.sfreq, 2 / data.sfreq)
        _check_folds(y, names, folds, max(0, round(float(lags[-1]) * data.sfreq) - margin))
        inferred = _infer(data, model, samples, padded, seed).by_trial()
        raw = data.by_trial()

        def crop(trials: "list[np.ndarray]") -> "list[np.ndarray]":
            return [x[margin : len(x) - margin] for x in trials]

        options: dict[str, Any] = {"sfreq": data.sfreq, "lags": lags, "outputs": names, "n_folds": folds}
        cutoffs = [c for c in jm.emg.CUTOFFS if c < data.sfreq / 2]
        low = {f"low-pass {c:g} Hz": crop([jm.emg.lowpass(x, data.sfreq, c) for x in raw]) for c in cutoffs}
        alpha, beta = jm.emg.bayes_grid()
        filtered = [np.asarray(jm.emg.bayes(x, data.sfreq, alpha, beta)) for x in raw]
        bayes = {
            f"Bayes, alpha {a:g}, beta {b:g}": crop([x[i] for x in filtered])
            for i, (a, b) in enumerate(zip(alpha, beta, strict=True))
        }
        choices = [jm.emg.select_by_decoding(group, y, **options) for group in (low, bayes)]
        rows = {"model": jm.emg.cross_validate_decoder(list(inferred), y, **options)}
        rows |= {str(choice.best): choice.decodings[choice.best] for choice in choices}
        smooth = [jm.emg.smooth(x, data.sfreq, 0.004) for x in raw]
        contexts = [jm.emg.context(x, data.sfreq, margin=margin) for x in smooth]
        # these see both sides already
        rows["80 ms on both sides"] = jm.emg.cross_validate_decoder(
            contexts, y, data.sfreq, outputs=names, n_folds=folds
        )
        if len({len(x) for x in smooth}) == 1:
            components = jm.emg.context_pca(np.stack(smooth), data.sfreq, margin=margin)
            rows["its 12 principal components"] = jm.emg.cross_validate_decoder(
                list(components), y, data.sfreq, outputs=names, n_folds=folds
            )
        table = pd.concat(
            [decoding.table().assign(method=method) for method, decoding in rows.items()], ignore_index=True
        )[["method", "output", "vaf", "sem", "lag"]]
        if out is not None:
            with jm.files.atomic(out) as temporary:
                table.to_csv(temporary, index=False)
    typer.echo(table.round(4).to_string(index=False))


def _load_rectified(path: Path) -> "Rectified":
    import jaxm2m as jm
    from jaxm2m import _check

    return jm.emg.Rectified.load(_check.file(path, "FILE", suffixes=(".h5", ".hdf5")))


def _load_run(run: Path) -> "Fit":
    import jaxm2m as jm

    return jm.emg.load(run)


def _infer(data: "Rectified", model: "Fit", samples: int, padded: bool, seed: int) -> "Activation":
    import jax

    return model.activation(data, key=jax.random.key(seed), samples=samples, padded=padded)


def _read_targets(path: Path, lengths: list[int]) -> "tuple[list[np.ndarray], tuple[str, ...]]":
    """What to decode, trial by trial, and the names of the columns."""
    import numpy as np
    import pandas as pd

    from jaxm2m import _check, files

    _check.file(path, "--targets", suffixes=(".csv", ".npy"))
    if path.suffix.lower() == ".csv":
        try:
            table = pd.read_csv(path)
            values, names = table.to_numpy(float), tuple(map(str, table.columns))
        except (ValueError, TypeError, OverflowError) as error:  # pandas' parser errors are ValueErrors
            line = str(error).splitlines()[0][:200]
            raise ValueError(f"--targets: {path} is not a table of numbers ({line}); save it as CSV.") from None
    else:
        values = files.read_npy(path, "--targets")
        if values.ndim < 2 or not values.size:
            raise ValueError(f"--targets: {path} has the shape {values.shape}; give one row a bin.")
        values = values.reshape(-1, values.shape[-1])
        names = tuple(f"output {i}" for i in range(values.shape[1]))
    if len(values) != sum(lengths):
        raise ValueError(
            f"--targets: {path} has {len(values)} rows, the EMG {sum(lengths)} bins; resample it to the EMG's rate, "
            "one row a bin."
        )
    return np.split(values, np.cumsum(lengths)[:-1]), names


def _check_folds(y: "list[np.ndarray]", names: tuple[str, ...], folds: int, skipped: int) -> None:
    """Refuse, before long work, folds in which an output such as 0 and 1 is constant: its VAF does not exist there."""
    import numpy as np

    bins = np.concatenate([trial[skipped:] for trial in y])

    def find_constant(count: int) -> tuple[int, int] | None:
        for i, part in enumerate(np.array_split(bins, count)):
            constant = np.flatnonzero(np.ptp(part, axis=0) == 0) if len(part) else np.array([0])
            if len(constant):
                return i, int(constant[0])
        return None

    if folds < 2:
        raise ValueError(f"--folds: {folds}; give at least 2.")
    first = find_constant(folds)
    if first is None:
        return
    fewer = next((n for n in range(folds - 1, 1, -1) if find_constant(n) is None), None)
    way = f"pass --folds {fewer}" if fewer else "leave it out, or record it in more of the trials"
    raise ValueError(
        f"--targets: output {names[first[1]]!r} is constant in fold {first[0] + 1} of {folds}, where VAF is undefined; "
        f"{way}."
    )


def _write_figures(run: "Fit", out: Path) -> None:
    import jaxm2m as jm

    with jm.files.atomic(out / "history.csv") as temporary:
        run.run.history.to_csv(temporary, index=False)
    label = "validation NLL"
    with jm.files.atomic(out / "lineage.png") as temporary:
        jm.plot.lineage(run.run, label=label).savefig(temporary)
    if run.run.history[list(run.run.hyper)].nunique().max() > 1:
        with jm.files.atomic(out / "hyperparameters.png") as temporary:
            jm.plot.hyperparameters(run.run).savefig(temporary)
