"""`jaxm2m demo`: the whole line on the atlas head, stage after stage."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxm2m.cli import _arguments
from jaxm2m.cli.demo import _settings as about
from jaxm2m.cli.demo._stages import Stages

if TYPE_CHECKING:
    from jaxm2m.files import Settings

_SETTINGS = "demo.json"


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for report.html and all files behind it; made if missing.", metavar="DIR")
    ] = Path("jaxm2m-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything, in two minutes: a trial run.")] = False,
) -> None:
    """Show the whole line on a standard head, with figures and a report.

    A coil, its field, a mapping session, networks from fields to muscles, where in cortex muscles are driven from, a
    coil that activates one muscle and spares another, and muscle activation out of EMG.

    Takes some minutes. May be stopped or killed: the same command goes on from where it was. Writes one self-contained
    report.html, and beside it each file that the other commands take.

    Example: `jaxm2m demo --quick --out trial/`
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out: {out} is a file; name a folder.")
    if quick:
        _arguments.compile_quickly()
    _arguments.use_all_cores()
    with _arguments.write_log("demo"):
        run(out, about.QUICK if quick else about.FULL)


def run(out: Path, size: about.Size) -> None:
    """The demo into the folder `out`."""
    import jax
    import jax.numpy as jnp

    import jaxm2m as jm
    from jaxm2m._progress import progress_bar
    from jaxm2m.cli._report import find_versions
    from jaxm2m.cli.demo import _emg, _field, _muscle, _report

    packages = find_versions(
        "jaxm2m", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "matplotlib", "mne", "nilearn"
    )
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    settings = (
        {name: jm.files.make_setting(words) for name, words in size.words.items()}
        | {name: jm.files.make_setting(words) for name, words in packages.items()}
        | {"precision": jm.files.make_setting(str(jnp.result_type(float))), "device": jm.files.make_setting(device)}
    )
    begun = _begin(out, settings)
    stages = Stages({name: both[size is about.QUICK] for name, both in about.SECONDS.items()})
    if begun:
        _arguments.say(f"{out} holds this demo, whole or in part; going on with it.")
    recorded = _emg.record_emg(out, size, stages)
    with _emg.train_beside(out, size) as trained:
        fields = _field.compute_fields(out, size, stages)
        session = _muscle.generate_session(out, size, stages, fields)
        networks = _muscle.train_networks(out, size, stages, session)
        sources = _muscle.fit_sources(out, stages, fields, session)
        placed = _muscle.place_coil(out, size, stages, fields, session, sources)
        emg = _emg.infer_activation(out, size, stages, recorded, trained)
    with stages("figures") as said:
        drawn = _field.prepare_figures(fields) | _muscle.prepare_figures(fields, session, networks, sources, placed)
        drawn |= _emg.prepare_figures(emg)
        with progress_bar(len(drawn), "figures", unit="figures") as advance:
            for name, draw in drawn.items():
                with jm.files.atomic(out / name) as temporary:
                    draw().savefig(temporary, format="png")
                advance()
        said.append(", ".join(drawn))
    with stages("report"):
        seconds = stages.seconds | {"in all": stages.total}
        _report.write(out, size, packages, device, seconds, fields, session, networks, sources, placed, emg)
    stages._print(f"in all {stages.total:.1f} s: {out / 'report.html'}")


def _begin(out: Path, settings: "Settings") -> bool:
    """Make the folder, or refuse one of another demo; whether this one was begun in it."""
    from jaxm2m import files

    _arguments.make_folder(out)
    place = out / _SETTINGS
    if place.exists():
        try:
            then = files.parse_settings(json.loads(place.read_text()))
        except ValueError:
            raise ValueError(f"--out: {place} cannot be read; remove {out}, or give --out another folder.") from None
        different = files.describe_differences(then, settings)
        if different:
            raise ValueError(
                f"--out: {out} holds a demo with other settings: {different}. Give --out another folder, or remove it."
            )
        return True
    if any(out.iterdir()):
        raise ValueError(f"--out: {out} holds other files, but no demo; give --out a new or an empty folder.")
    with files.atomic(place) as temporary:
        temporary.write_text(json.dumps(settings, indent=1))
    return False
