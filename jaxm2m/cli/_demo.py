"""`jaxm2m demo`: the whole line on the atlas head, stage after stage."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxm2m.cli import _arguments
from jaxm2m.cli import _demo_settings as about

if TYPE_CHECKING:
    from jaxm2m.files import Settings

_SETTINGS = "demo.json"


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for report.html and all files behind it; made if missing.", metavar="DIR")
    ] = Path("jaxm2m-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything, in two minutes: a trial run.")] = False,
) -> None:
    """Show the whole line on a standard head: coil, field, a mapping session, networks from fields to muscles, a coil
    that activates one muscle and spares another, and muscle activation out of EMG.

    Takes some minutes. May be stopped or killed: the same command goes on from where it was. Writes one self-contained
    report.html, and beside it each file that the other commands take.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out: {out} is a file; name a folder.")
    if quick:
        _arguments.compile_quickly()
    _arguments.use_all_cores()
    run(out, about.QUICK if quick else about.FULL)


class Stages:
    """Tells which stage runs, how long all will take still, and what each has found."""

    def __init__(self, expected: dict[str, float | int]) -> None:
        from rich.console import Console

        self.seconds: dict[str, float] = {}
        self._expected = expected
        self._console = Console(highlight=False)
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[list[str]]:
        """A stage; what is put into the list is told at its end."""
        said: list[str] = []
        place = list(self._expected).index(name) + 1
        self._print(f"[{place:>2}/{len(self._expected)}] {name} ...  {self._left()}".rstrip())
        start = time.perf_counter()
        yield said
        self.seconds[name] = time.perf_counter() - start
        self._print(f"        {self.seconds[name]:.1f} s  {'; '.join(said)}")

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def _left(self) -> str:
        """What is expected of the stages to come, at the pace of those that are done."""
        done = sum(self._expected[name] for name in self.seconds)
        pace = (10 + sum(self.seconds.values())) / (10 + done)  # a stage that is there from before tells little
        left = (sum(self._expected.values()) - done) * pace
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {10 * max(1, round(left / 10))} s left"

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)


def run(out: Path, size: about.Size) -> None:
    """The demo into the folder `out`."""
    import jax
    import jax.numpy as jnp

    import jaxm2m as jm
    from jaxm2m._progress import progress
    from jaxm2m.cli import _demo_emg, _demo_field, _demo_muscle, _demo_report, _report

    packages = _report.versions(
        "jaxm2m", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "matplotlib", "mne", "nilearn"
    )
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    settings = (
        {name: jm.files.setting(words) for name, words in size.words.items()}
        | {name: jm.files.setting(words) for name, words in packages.items()}
        | {"precision": jm.files.setting(str(jnp.result_type(float))), "device": jm.files.setting(device)}
    )
    begun = _begin(out, settings)
    stages = Stages({name: both[size is about.QUICK] for name, both in about.SECONDS.items()})
    if begun:
        _arguments.say(f"{out} holds this demo, whole or in part; going on with it.")
    recorded = _demo_emg.record(out, size, stages)
    with _demo_emg.beside(out, size) as trained:
        fields = _demo_field.run(out, size, stages)
        session = _demo_muscle.session(out, size, stages, fields)
        networks = _demo_muscle.networks(out, size, stages, session)
        placed = _demo_muscle.place(out, size, stages, fields, session, networks)
        emg = _demo_emg.run(out, size, stages, recorded, trained)
    with stages("figures") as said:
        drawn = _demo_field.pictures(fields) | _demo_muscle.pictures(fields, session, networks, placed)
        drawn |= _demo_emg.pictures(emg)
        with progress(len(drawn), "figures", unit="figures") as advance:
            for name, draw in drawn.items():
                with jm.files.atomic(out / name) as temporary:
                    draw().savefig(temporary, format="png")
                advance()
        said.append(", ".join(drawn))
    with stages("report"):
        seconds = stages.seconds | {"in all": stages.total}
        _demo_report.write(out, size, packages, device, seconds, fields, session, networks, placed, emg)
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
        different = files.differences(then, settings)
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
