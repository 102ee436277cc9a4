"""`jaxm2m live`: a coil held over a head, as a page in a browser on this machine."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxm2m.cli import _arguments


def live(
    head: _arguments.HeadOption,
    coil: _arguments.CoilOption,
    basis: Annotated[Path, typer.Option(help="Of `basis build`, of this head.", metavar="FILE")],
    target: Annotated[
        str | None,
        typer.Option(
            help="mm in the head's space, or a 10-20 name for heads in MNI152; by default the basis' middle.",
            metavar="X,Y,Z|C3",
        ),
    ] = None,
    session: Annotated[
        Path | None,
        typer.Option(help="A navigator's export in the head's space, to go through its stimuli.", metavar="FILE"),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(help="Of muscles, on the basis' grid: what `muscle sources` wrote (.h5).", metavar="FILE"),
    ] = None,
    didt: Annotated[float, typer.Option(help="dI/dt at first, A/s.")] = 1e6,
    port: Annotated[int, typer.Option(help="To listen on; 0 takes one that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    save: Annotated[
        Path | None,
        typer.Option(help="Write one page to share (.html), and leave.", metavar="FILE"),
    ] = None,
    spacing: _arguments.SpacingOption = 2.0,
    space: _arguments.SpaceOption = None,
    labels: _arguments.LabelsOption = None,
    flip: _arguments.FlipOption = False,
    casing: _arguments.CasingOption = None,
) -> None:
    """Hold a coil over a head in a browser: move it, see the field and the muscles that answer, keep poses.

    The page is for this machine alone (127.0.0.1), and its address holds a token. Ctrl-C ends it.

    Example: `jaxm2m live --head atlas --coil figure8 --basis basis.h5 --target C3`
    """
    with _arguments.report_input_errors("live"):
        where: Any = target
        if target is not None and "," in target:
            where = _arguments.parse_numbers(target, "--target", "X,Y,Z in mm", count=3)
        _arguments.check_positive({"--didt": didt, "--spacing": spacing})
        if not 0 <= port < 1 << 16:
            raise ValueError(f"--port: {port}; give 0 to 65535.")
        _arguments.check_head(head, space, labels)
        _arguments.check_coil(coil, flip, casing)

        if find_spec("anywidget") is None:
            raise ModuleNotFoundError("anywidget is missing; python -m pip install 'jaxm2m[live]'.")

        import jaxm2m as jm
        from jaxm2m import _check

        _check.file(basis, "--basis", suffixes=(".h5", ".hdf5"))
        loaded = jm.efield.Basis.load(basis)
        model = None if sources is None else jm.muscle.Sources.load(sources)
        driving = _arguments.load_coil(coil, flip, casing)
        _arguments.say("the head ...")
        conducting = _arguments.load_head(head, spacing, space, labels)
        loaded.check_simulator(
            _arguments.make_simulator(conducting, loaded.metadata["settings"]["interfaces"]["value"]), "--basis"
        )
        recorded = None if session is None else jm.session.load(session)
        _arguments.say("the scene ...")
        view: Any = jm.plot.live(
            conducting, loaded.bind(jm.coil.tabulate(driving)), driving, target=where, model=model, session=recorded,
            didt=didt,
        )  # fmt: skip
        if save is not None:
            _arguments.say(str(view.save(save)))
            return
        page = view.serve(port)
    typer.echo(page.url)
    _arguments.say("for this machine alone; Ctrl-C ends it.")
    if browser:
        import webbrowser

        webbrowser.open(page.url)
    try:
        page.serve()
    except KeyboardInterrupt:
        page.close()
