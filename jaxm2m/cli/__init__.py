"""The command line: parse, call, show progress, write files.

The modules of the commands import nothing heavy at their top, so that `jaxm2m --help` is quick.
"""

import os
import sys
from typing import Annotated

import typer

from jaxm2m._cache import keep_programs
from jaxm2m.cli._basis import app as basis
from jaxm2m.cli._design import app as design
from jaxm2m.cli._doctor import doctor
from jaxm2m.cli._efield import efield
from jaxm2m.cli._emg import app as emg
from jaxm2m.cli._emg_synergies import synergies
from jaxm2m.cli._live import live
from jaxm2m.cli._muscle import app as muscle
from jaxm2m.cli._place import place
from jaxm2m.cli.demo import demo

app = typer.Typer(
    name="jaxm2m",
    help="From a TMS coil to the muscles as one differentiable program. Lengths are mm, fields V/m, dI/dt A/s.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# in the order of the line: field, placement, muscles, EMG
_BEGIN, _FIELD = "Begin here", "Field of a coil in a head"
app.command(rich_help_panel=_BEGIN)(demo)
app.command(rich_help_panel=_BEGIN)(doctor)
app.command(rich_help_panel=_FIELD)(efield)
app.add_typer(basis, name="basis", rich_help_panel=_FIELD)
app.command(rich_help_panel="Placement of a coil")(place)
app.command(rich_help_panel="Placement of a coil")(live)
app.add_typer(muscle, name="muscle", rich_help_panel="Muscles: from fields to MEPs")
app.add_typer(design, name="design", rich_help_panel="Design: which stimuli to give")
emg.command("synergies")(synergies)
app.add_typer(emg, name="emg", rich_help_panel="EMG: from recordings to muscle activation")


def _version(wanted: bool) -> bool:
    if wanted:
        from jaxm2m import __version__

        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    compile_cache: Annotated[
        bool, typer.Option(help="Keep compiled programs in the user's cache folder; `jaxm2m doctor` says where.")
    ] = True,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Options before the command."""
    if compile_cache and not {"--help", "-h"} & set(sys.argv):
        keep_programs()


def main() -> None:
    """Run the command line.

    What is wrong with the input is one line on standard error and the exit status 1; JAXM2M_TRACEBACK=1 in the
    environment shows where it was found.
    """
    try:
        app()
    except SystemExit as leaving:
        if leaving.code != 130:
            raise
        typer.echo("jaxm2m: stopped; the files written so far are whole.", err=True)
        sys.stdout.flush()
        sys.stderr.flush()
        # all blocks were left and all files closed; taking the interpreter down while XLA compiles can crash it
        os._exit(130)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        if os.environ.get("JAXM2M_TRACEBACK", "") not in ("", "0"):
            raise
        typer.echo(f"jaxm2m: {error}", err=True)
        sys.exit(1)
