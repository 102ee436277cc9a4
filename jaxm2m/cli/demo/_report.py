"""The demo's report: figures, numbers, the commands and calls behind them, methods, references."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _arguments, _muscle_input, _muscle_report, _report
from jaxm2m.cli.demo import _settings as about
from jaxm2m.cli.demo._calls import Calls, describe_calls
from jaxm2m.cli.demo._muscle import compare_hot_spots
from jaxm2m.cli.demo._results import CoilSearch, Fields, InferredEmg, Networks, Session

if TYPE_CHECKING:
    import pandas as pd

    from jaxm2m.muscle import Sources

_FIELD = {
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
_REFERENCES = (
    "jaxm2m", "jax", "yarossi2019", "akbar2020", "wimalasena2022", "pandarinath2018", "jaderberg2017", "lee1999",
    "goetz2019", "efron1993", "coil", "fsaverage", "icbm152", "mne", "nilearn", "bfgs", "line search",
)  # fmt: skip
_OWN = {
    "head": "--head FILE: a label volume (.nii.gz), tetrahedra (.msh) or a SimNIBS folder, instead of atlas",
    "coil": "--coil FILE: .ccd, .tcd or .nii.gz, instead of figure8",
    "poses.json": "poses of your session: Brainsight's or Localite's export, .csv, .npy",
    "meps.csv": "a row a stimulus, columns mep_FDI_uv, ...; empty cells leave stimuli out",
    "fields.h5": "jaxm2m efield with the three above",
    "recording.h5": "EMG as HDF5, MAT, CSV, NWB, c3d, or anything that MNE reads; raw EMG without --rectified",
    "joints.csv": "kinematics or force, a row for each bin of emg.h5",
}


def write(
    out: Path,
    size: about.Size,
    packages: dict[str, str],
    device: str,
    seconds: dict[str, float],
    fields: Fields,
    session: Session,
    networks: Networks,
    sources: "Sources",
    placed: CoilSearch,
    emg: InferredEmg,
) -> None:
    """numbers.json and report.html, this one last, since it stands for a whole set."""
    import jaxm2m as jm

    how = describe_calls(size, session.didt)
    settings = _list_settings(size, device, fields, session, networks)
    numbers = _collect_numbers(settings, packages, seconds, how, fields, session, networks, sources, placed, emg)
    with jm.files.atomic(out / "numbers.json") as temporary:
        temporary.write_text(json.dumps(_replace_nan(numbers), indent=1, allow_nan=False))
    sections = (
        _describe_fields(out, how, fields)
        | _describe_session(out, how, session)
        | _describe_networks(out, size, how, networks)
        | _describe_sources(out, how, session, sources)
        | _describe_placed(out, how, placed)
        | _describe_emg(out, how, emg)
    )
    sections |= {
        "Your own data": [
            _report.format_paragraph(
                f"Each command takes these files of {out.name} and makes the next ones, so any of them can be replaced:"
            ),
            _report.format_table(_OWN),
        ],
        "Methods": [
            _report.format_paragraph(text)
            for text in describe_methods(size, packages, fields, session, networks, sources, placed, emg)
        ],
        "Settings": [_report.format_table(settings)],
        "Versions": [_report.format_table(packages)],
        "Time": [
            _report.format_table({name: f"{value:.1f} s" for name, value in seconds.items()}),
            _report.format_paragraph("Compilation included, and building the head where it was not in the cache."),
        ],
        "References": [_report.format_references(*_REFERENCES)],
    }
    _report.write(
        out / "report.html",
        "From the coil to the muscles",
        f"jaxm2m {jm.__version__} on a standard head: the field of a coil, a mapping session of known truth, networks "
        "from fields to muscles, where in cortex muscles are driven from, a coil placed by gradient through that, and "
        "muscle activation out of EMG. Muscle responses and EMG are generated, so that what is inferred can be held "
        "against the truth."
        + (" This is the quick version: coarse voxels and short trainings." if size is about.QUICK else ""),
        sections,
    )


def _describe_fields(out: Path, how: dict[str, Calls], fields: Fields) -> dict[str, list[str]]:
    accuracy = fields.basis.accuracy.groupby("coil")[["error", "estimate"]].median()
    accuracy.columns = ["error (%)", "its own estimate (%)"]
    return {
        "Head and coil": [
            _report.embed_picture(
                out / "pose.png",
                "The coil over the hot spot, its handle 45 degrees from the midline: windings, casing and axes. The "
                "cross marks the target, the left hand knob.",
            ),
            _list_calls(how["head"]),
        ],
        "The field": [
            _report.embed_picture(
                out / "slices.png",
                "|E| in the planes through the target, with the tissues' outlines, at 1 A/\N{MICRO SIGN}s. Each pixel "
                "shows the field of its own tissue.",
            ),
            _report.embed_picture(out / "cortex.png", "|E| in the grey matter, seen from the coil's side."),
            _report.format_table(fields.summary.rename(columns=_FIELD)),
            _list_calls(how["field"]),
        ],
        "Any pose in milliseconds": [
            _report.format_paragraph(
                f"{fields.basis.metadata['settings']['modes']['value']}: afterwards the field of any coil in any pose "
                f"over the hand knob is a small product. Medians of its errors against full solves of two coils that "
                "it was not built with:"
            ),
            _report.format_table(accuracy),
            _list_calls(how["basis"]),
        ],
    }


def _describe_session(out: Path, how: dict[str, Calls], session: Session) -> dict[str, list[str]]:
    truth = session.truth
    share = (session.data.meps.amplitude > 50).mean()
    return {
        "A mapping session": [
            _report.format_paragraph(
                f"{len(truth)} stimuli at 1.2 resting motor thresholds ({session.didt / 1e6:.1f} A/\N{MICRO SIGN}s), "
                f"MEPs of {len(truth.muscles)} muscles. The cortex that answers is known: each muscle has its "
                "place in the hand area, some have two, driven directly and through synergies by the firing rate, with "
                f"the trial-to-trial variability of real MEPs; {share:.0%} of them exceed 50 \N{MICRO SIGN}V."
            ),
            _report.embed_picture(
                out / "maps.png",
                "MEPs of each muscle over the places of the coil, with centre of gravity and hotspot.",
            ),
            _list_calls(how["session"]),
        ],
        "Firing rates": [
            _report.embed_picture(
                out / "rates.png",
                "The illustrative dose-response curve (red) over the fields of the grey matter (grey) with the coil "
                "over the hot spot, at the intensity of the session: little of it fires.",
            ),
            _list_calls(how["rates"]),
        ],
        "Synergies": [
            _report.embed_picture(
                out / "synergies.png",
                "Left: the share of the MEPs that so many synergies account for, with intervals over trials; ringed "
                "the fewest with 0.90. Right: the share of each muscle in these, by non-negative factorisation.",
            ),
            _list_calls(how["synergies"]),
        ],
    }


def _describe_networks(out: Path, size: about.Size, how: dict[str, Calls], networks: Networks) -> dict[str, list[str]]:
    result = networks.comparison
    smaller = "" if size.preset else " They are smaller here than those of any preset; the command trains preset small."
    return {
        "From fields to muscles": [
            _report.embed_picture(
                out / "comparison.png",
                "Measured MEPs, predictions of the same stimuli by networks that never saw them, and scores of the "
                "scaled MEPs: means over folds with jackknife 90 % intervals.",
            ),
            _format_words(_muscle_report.summarise(result.table)),
            _report.format_paragraph(
                f"MEPs scatter, so that no prediction can have an NRMSE below {networks.ceiling:.3f} but by chance. "
                f"Lowest: {networks.best}. Paired differences over folds; an interval that holds zero tells no winner:"
            ),
            _report.format_table(_compare_inputs(networks)),
            _list_calls(how["compare"], "All scores: compare/table.csv." + smaller),
        ],
    }


def _describe_sources(out: Path, how: dict[str, Calls], session: Session, sources: "Sources") -> dict[str, list[str]]:
    away = compare_hot_spots(sources, session)
    return {
        "Sources of muscles": [
            _report.format_paragraph(
                "Networks know only poses like those of the session; the field is known of every pose. Here the "
                "unknown is a density over the grey matter, and a recruitment curve, of each muscle: its drive is the "
                "firing rate under its density. All stimuli are fitted; what comes out is a posterior, which is how "
                "sure density and curve are."
            ),
            _report.embed_picture(
                out / "sources.png",
                f"The densities of {about.MUSCLE} and {about.SPARED} seen along each axis, their standard deviation "
                "over the posterior, hot spots, and the radii that hold 50 and 90 % of the hot spots' posterior.",
            ),
            _report.embed_picture(
                out / "recruitment.png",
                "MEPs over the drive, their mean with 90 % of its posterior (solid), the curve without noise (dashed), "
                "and the threshold.",
            ),
            _report.format_paragraph(
                "The generator knows each muscle's place, of some muscles two, of which the nearer counts. Hot spots, "
                "radii that hold 50 and 90 % of their posterior, and how far they are from the truth:"
            ),
            _report.format_table(away),
            _report.format_paragraph("The recruitment curves:"),
            _report.format_table(sources.table()),
            _report.format_paragraph("Posterior checks; a p-value near zero says that the model is wrong:"),
            _report.format_table(sources.check()),
            _list_calls(how["sources"], "The command wants a folder of its own: fit/ is there already."),
        ],
    }


def _describe_placed(out: Path, how: dict[str, Calls], placed: CoilSearch) -> dict[str, list[str]]:
    start, end = (placed.table.loc[name, "share, true"] for name in ("hot spot", "found"))
    return {
        "Coil for one muscle": [
            _report.format_paragraph(
                f"The coil should activate {about.MUSCLE} and spare {about.SPARED}: the share of the former in the sum "
                "of their predicted MEPs, each over the largest of its muscle, is raised, while the former keeps 60 % "
                "of its strongest prediction, by its gradient with respect to the coil's pose, through basis, firing "
                f"rates and sources. {placed.placement.evaluations} values with gradients from "
                f"{len(placed.placement.reasons)} starts: the hot spot, and the stimuli of the session that came "
                f"nearest. The coil ends {placed.moved:.1f} mm and {placed.turned:.0f} degrees from the hot spot. The "
                f"generator knows what it would answer: the true share goes from {start:.3f} to {end:.3f}."
            ),
            _report.embed_picture(
                out / "muscles.png",
                "Bars: means of what the generator answers to the fields of both poses. Dots: predictions of the "
                "sources, with what holds 90 % of their posterior.",
            ),
            _report.format_table(placed.table),
            _report.embed_picture(
                out / "search.png",
                "Left: the ways of all starts on the scalp, coloured by the objective. Right: the objective over the "
                "evaluations.",
            ),
            _report.embed_picture(out / "pose_found.png", "The coil where it ended."),
            _report.embed_picture(
                out / "cortex_found.png",
                "|E| in the grey matter with the coil there, in the colours of the first such figure.",
            ),
            _list_calls(how["place"], "For mean |E| in a target instead of muscles there is `jaxm2m place`."),
        ]
    }


def _describe_emg(out: Path, how: dict[str, Calls], emg: InferredEmg) -> dict[str, list[str]]:
    run = emg.fit.run
    return {
        "Muscle activation from EMG": [
            _report.format_paragraph(
                f"{emg.rectified.duration:g} s of EMG of {len(emg.rectified.channels)} muscles of a hindlimb that "
                "walks, drawn about a known activation. A sequential autoencoder was trained on it without that truth, "
                f"by population-based training of {len(run.members.index)} members."
            ),
            _report.embed_picture(
                out / "activation.png",
                "Recording, inferred activation, the best of the low-pass filters, the truth.",
            ),
            _report.format_table(emg.table),
            _report.format_paragraph(
                "R2 with the true activation, the mean over muscles and the lowest. The cut-off of the best filter is "
                "known from the truth alone; nothing tells it in a recording."
            ),
            _report.embed_picture(
                out / "lineage.png", "Which member went on from whom, generation by generation, and the scores."
            ),
            _list_calls(
                how["emg"],
                "The demo stops the training early: the second command goes on with the run where it stopped, to the "
                "preset's end. Then infer anew.",
            ),
        ]
    }


def _compare_inputs(networks: Networks) -> "pd.DataFrame":
    """Differences of NRMSE between the inputs, head by head."""
    import pandas as pd

    result, rows = networks.comparison, {}
    for head in dict.fromkeys(variant.rpartition(", ")[2] for variant in result.variants):
        d = result.difference(f"E-field, {head}", f"firing rate, {head}")
        rows[f"{head}: E-field \N{MINUS SIGN} firing rate"] = [float(d.estimate), float(d.low), float(d.high)]
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="NRMSE"), columns=["difference", "low", "high"])


def _format_words(table: "pd.DataFrame") -> str:
    """A table of words."""
    rows = {str(name): " \N{MIDDLE DOT} ".join(f"{c} {v}" for c, v in row.items()) for name, row in table.iterrows()}
    return _report.format_table(rows)


def _list_calls(how: Calls, note: str = "") -> str:
    """The files, the commands and the calls of a part."""
    pieces = []
    if how.files:
        pieces.append(_report.format_paragraph("Files: " + ", ".join(how.files)))
    if how.commands:
        pieces.append(_report.format_code("\n".join(how.commands)))
    pieces.append(_report.format_code(how.python))
    if note:
        pieces.append(_report.format_paragraph(note))
    return _report.fold("Files, commands and calls behind it", *pieces)


def _list_settings(
    size: about.Size, device: str, fields: Fields, session: Session, networks: Networks
) -> dict[str, str]:
    return {
        "size": size.name,
        "head": f"atlas, {size.spacing:g} mm, {fields.head.space}",
        "coil": fields.coil.metadata["name"],
        "target (mm, MNI152)": _arguments.format_vector(about.TARGET),
        "target radius (mm)": f"{about.RADIUS:g}, grey matter",
        "handle points to": _arguments.format_vector(about.HANDLE),
        "coil distance (mm)": f"{about.DISTANCE:g}",
        "interfaces": fields.sim.interfaces,
        "relative tolerance": f"{float(fields.sim.parts.tolerance):g}",
        "grid": f"{_muscle_input.format_shape(about.SHAPE)} points of {about.STEP:g} mm",
        "basis": f"{size.modes} solves, largest estimated error that is used {100 * size.limit:g} %",
        "session": f"{size.stimuli} stimuli, gain {about.GAIN:g}, share of synergies {about.ALPHA:g}",
        "firing rate": f"threshold {about.THRESHOLD}, illustrative sigmoid",
        "networks": f"{f'preset {size.preset}' if size.preset else 'smaller than any preset'}, {size.folds} folds, one "
        f"seed each; best: {networks.best}",
        "search": f"{size.starts} starts, at most {size.evaluations} values with gradients each",
        "EMG": f"{size.trials} trials of {size.seconds:g} s; preset small, {size.members} members, "
        f"{size.generations} generations; {size.samples} posterior samples",
        "seed": str(about.SEED),
        "precision": str(fields.sim.dtype),
        "device": device,
    }


def _collect_numbers(
    settings: dict[str, str],
    packages: dict[str, str],
    seconds: dict[str, float],
    how: dict[str, Calls],
    fields: Fields,
    session: Session,
    networks: Networks,
    sources: "Sources",
    placed: CoilSearch,
    emg: InferredEmg,
) -> dict[str, Any]:
    import numpy as np

    pooled = networks.comparison.table.xs(("scaled", "pooled"), level=("unit", "kind"))
    return {
        "settings": settings,
        "versions": packages,
        "solve": {name: np.asarray(value).item() for name, value in fields.field.stats._asdict().items()},
        "field": fields.summary.to_dict("index"),
        "basis": {"error": fields.basis.accuracy["error"].tolist(), "unit": "%"},
        "session": {
            "didt": session.didt,
            "share above 50 uV": float((session.data.meps.amplitude > 50).mean()),
            "ceiling": float(session.truth.ceiling()),
        },
        "variants": pooled.to_dict("index"),
        "ceiling of the folds": networks.ceiling,
        "best": networks.best,
        "synergies": session.synergies.vectors.shape[1],
        "sources": {
            "hot spots": compare_hot_spots(sources, session).to_dict("index"),
            "table": sources.table().to_dict("index"),
            "checks": sources.check().to_dict("index"),
        },
        "placement": {
            "poses": {name: pose.tolist() for name, pose in placed.poses.items()},
            "table": placed.table.to_dict("index"),
            "moved": placed.moved,
            "turned": placed.turned,
            "evaluations": placed.placement.evaluations,
            "values": placed.placement.history.values.tolist(),
            "reasons": list(placed.placement.reasons),
        },
        "emg": {"r2": emg.table.to_dict("index"), "scores": emg.fit.run.scores().tolist()},
        "calls": {name: {"commands": list(c.commands), "python": c.python} for name, c in how.items()},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def describe_methods(
    size: about.Size,
    packages: dict[str, str],
    fields: Fields,
    session: Session,
    networks: Networks,
    sources: "Sources",
    placed: CoilSearch,
    emg: InferredEmg,
) -> list[str]:
    """Paragraphs with the numbers."""
    import numpy as np

    head, stats, run = fields.head, fields.field.stats, emg.fit.run
    sigma = ", ".join(f"{n} {s:.3g}" for n, s in zip(head.tissues, np.asarray(head.conductivity), strict=True))
    error = fields.basis.accuracy["error"]
    best = networks.comparison.table.loc[networks.best, "scaled", "pooled"]
    model, low = emg.table.loc["model", "mean R2"], emg.table.loc[f"low-pass {emg.cutoff:g} Hz", "mean R2"]
    trained = f"preset {size.preset}" if size.preset else "smaller than those of any preset"
    kept, members = len(sources.muscles), len(run.members.index)
    prior = sources.prior
    return [
        "Field. The head is a standard one in MNI152 space: scalp and inner skull of fsaverage (MNE-Python "
        f"{packages.get('mne', '?')}), grey and white matter of the ICBM 152 tissue maps (nilearn "
        f"{packages.get('nilearn', '?')}), the outer skull put at half of the local gap between inner skull and scalp. "
        f"Its 1 mm labels were resampled to volume fractions on a cubic grid of {size.spacing:g} mm "
        f"({' x '.join(map(str, head.shape))} voxels). Conductivities were {sigma} S/m; voxels that hold several "
        "tissues conduct as laminates, with a tensor along and across their interfaces. The coil is a figure-8 "
        "computed from its windings (diameters and turns of the Magstim 70 mm coil), its frame "
        f"{about.DISTANCE:g} mm over the scalp, with the handle 45 degrees from the midline towards the back. The "
        "electric field E = -dA/dt - grad phi was computed with trilinear finite elements; conjugate gradients with a "
        f"multigrid preconditioner reached a recomputed relative residual of {float(stats.residual):.1e} in "
        f"{int(stats.iterations)} iterations.",
        f"Basis. {size.modes} fields of random placements of computed coils and dipoles were solved for and compressed "
        f"to {min(80, size.modes)} principal components on {_muscle_input.format_shape(about.SHAPE)} points "
        f"{about.STEP:g} mm apart round {_arguments.format_vector(about.TARGET)} mm; {len(error)} fields of two other "
        f"coils differed from full solves by {error.median():.2f} % (median) and {error.max():.2f} % (largest).",
        f"Session. {len(session.truth)} stimuli at 1.2 resting motor thresholds ({session.didt / 1e6:.1f} "
        "A/\N{MICRO SIGN}s) were placed on a grid of 7 x 7 cm round the target and scattered about it (12 mm). The "
        f"drive of {len(session.truth.muscles)} muscles was {about.ALPHA:g} of nine synergies and {1 - about.ALPHA:g} "
        "of direct projections of the firing rate of Gaussian patches of grey matter; MEPs were drawn by the model of "
        f"Goetz et al. (2019), gain {about.GAIN:g}. Their fields were computed by full solves. The firing rate was an "
        f"illustrative sigmoid of |E| over a threshold of {about.THRESHOLD}, the same in the generator, in the "
        "networks and in the sources, which makes their task easier than that with real data.",
        f"Networks. {len(networks.comparison.variants)} variants (E-field or firing rate; direct, synergy or combined "
        f"heads) saw the middle 48 mm in blocks of 4 mm ({trained}), and were cross-validated in {size.folds} folds, "
        "one network each; ranges, scalings, synergies (the fewest with a VAF of 0.90), autoencoders and mappers were "
        f"fitted inside the folds. Best was {networks.best}: NRMSE {best['nrmse']:.3f} (jackknife 90 % interval "
        f"{best['nrmse_low']:.3f} to {best['nrmse_high']:.3f}), {networks.ceiling:.3f} being the least that scatter "
        "allows. The usual 300 stimuli, 10 folds and several seeds would tell variants "
        "apart better than this.",
        f"Sources. The drive of a muscle was taken for the firing rate under a density over the {len(sources.points)} "
        f"points of grey matter, a sum of {sources.weights.shape[2]} Gaussians of {prior.width:g} mm whose weights "
        f"have a Gaussian-process prior ({prior.correlation:g} mm, {prior.reach:g} mm about the muscles' common "
        "centre; of two priors that with the larger evidence), its MEPs for a curve of floor, threshold and plateau "
        f"of this drive with noise after Goetz et al. (2019). {len(sources.weights)} draws of the posterior were kept.",
        f"Placement. The share of {about.MUSCLE} in the sum of its predicted MEP and that of {about.SPARED}, each over "
        f"its largest in training ({kept} muscles), less ten times the squared lack where {about.MUSCLE} fell below "
        "60 % of its strongest prediction, was maximised over two shifts along the scalp and the turn about its "
        "normal, the coil kept tangential, by BFGS in the coil's own frame with exact gradients through basis, firing "
        f"rates and the draws of the sources, whose mean was taken ({len(placed.placement.reasons)} starts, "
        f"{placed.placement.evaluations} values with gradients, steps judged by the approximate Wolfe conditions), "
        "at the session's intensity.",
        f"EMG. Gamma-distributed EMG of {len(emg.rectified.channels)} muscles ({emg.rectified.duration:g} s at "
        f"{emg.rectified.sfreq:g} Hz, {len(emg.rectified.trials)} trials) was drawn about the activation of a "
        f"simulated gait. {emg.rectified.preprocessing.describe()} A sequential variational autoencoder with gamma "
        f"observations (AutoLFADS for EMG) was trained on windows of 200 ms by population-based training ({members} "
        f"members, {len(run.scores())} generations of {int(run.history['step'].iloc[0])} steps; {run.stopped}), its "
        f"activation averaged over {size.samples} posterior samples. R2 with the true activation was {model:.3f} (mean "
        f"over muscles); that of the best zero-phase Butterworth low-pass filter, {emg.cutoff:g} Hz, {low:.3f}. The "
        f"random seed of everything was {about.SEED}.",
    ]


def _replace_nan(value: Any) -> Any:
    """NaN has no place in JSON: what is not there is null."""
    if isinstance(value, dict):
        return {key: _replace_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_replace_nan(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value
