"""`jaxm2m emg synergies`: synergies of rectified EMG or of muscle activation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxm2m.cli import _arguments

if TYPE_CHECKING:
    from jaxm2m.emg import Activation, Rectified


def synergies(
    source: Annotated[Path, typer.Argument(help="Of `emg preprocess` or `emg activation` (.h5).", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if missing.", metavar="DIR")],
    rank: Annotated[
        int | None, typer.Option(help="Number of synergies; by default what bi-cross-validation by blocks says.")
    ] = None,
    points: Annotated[int, typer.Option(help="Points that each trial is stretched to; 0: time as it is.")] = 101,
    seed: Annotated[int, typer.Option(help="All randomness follows from it.")] = 0,
) -> None:
    """Muscle synergies: shares of muscles and time courses, and how many there are.

    Each trial counts as a cycle and is stretched to the same length. Writes weights.csv, activations.csv (a row a point
    of each trial), ranks.csv (VAF with its interval, error of bi-cross-validation) and synergies.png.

    Example: `jaxm2m emg synergies emg.h5 --out synergies/`
    """
    with _arguments.report_input_errors("emg synergies"):
        if points < 0 or points == 1:
            raise ValueError(f"--points: {points}; give 2 or more, or 0 for time as it is.")
        if seed < 0:
            raise ValueError(f"--seed: {seed}; must be at least 0.")

        import jax
        import numpy as np
        import pandas as pd

        import jaxm2m as jm

        activity = _read_activity(source)
        cycles = jm.muscle.normalise_cycles(activity, points) if points else None
        samples = activity if cycles is None else cycles
        most = len(activity.channels)
        if rank is not None and not 1 <= rank <= most:
            raise ValueError(f"--rank: {rank} for {most} muscles; give 1 to {most}.")
        key = jax.random.key(seed)
        ranks = jm.muscle.bi_cross_validation(samples, muscle_folds=min(5, most), key=key)
        fit = jm.muscle.synergies(samples, rank or ranks.rank, key=key)
        curve = jm.muscle.vaf_curve(samples, resamples=200, n_starts=2, key=key).table()
        _arguments.make_folder(out)
        names = [f"S{k + 1}" for k in range(fit.vectors.shape[1])]
        tables = {
            "weights": pd.DataFrame(fit.vectors, pd.Index(fit.muscles, name="muscle"), names),
            "ranks": curve.merge(ranks.table(), on="rank", how="left").set_index("rank"),
            "activations": pd.concat(
                {
                    i + 1: pd.DataFrame(fit.activations(np.asarray(trial)), columns=names).rename_axis("point")
                    for i, trial in enumerate(samples.by_trial())
                },
                names=["trial"],
            ),
        }
        for name, table in tables.items():
            with jm.files.atomic(out / f"{name}.csv") as temporary:
                table.to_csv(temporary, float_format="%.6g")
        with jm.files.atomic(out / "synergies.png") as temporary:
            jm.plot.synergies(fit, cycles).savefig(temporary, format="png")
    typer.echo(tables["weights"].round(3).to_string())
    chosen = f"bi-cross-validation says {ranks.rank}" if rank else "their number by bi-cross-validation"
    _arguments.say(f"{out}: {fit}; {chosen}.")


def _read_activity(path: Path) -> "Rectified | Activation":
    import jaxm2m as jm
    from jaxm2m import _check

    with jm.files.open_hdf5(_check.file(path, "FILE", suffixes=(".h5", ".hdf5")), name="FILE") as file:
        content = file.text("content")
    if content == "rectified emg":
        return jm.emg.Rectified.load(path)
    if content == "muscle activation":
        return jm.emg.Activation.load(path)
    raise ValueError(f"FILE: {path} holds {content or 'nothing that is known'}; make it by `jaxm2m emg preprocess`.")
