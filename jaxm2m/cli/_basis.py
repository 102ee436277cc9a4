"""`jaxm2m basis`: build the fields of any coil over a region once, and compare them with full solves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxm2m.cli import _arguments

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


app = typer.Typer(no_args_is_help=True)


@app.callback()
def _basis() -> None:
    """Fields of any coil over a region in milliseconds: solve for a basis once, check it against full solves."""


@app.command()
def build(
    head: _arguments.HeadOption,
    out: _arguments.OutOption,
    roi: Annotated[
        str | None, typer.Option(help="Centre of the grid, mm, in the head's space.", metavar="X,Y,Z")
    ] = None,
    points: Annotated[
        Path | None, typer.Option(help="Instead of a grid: rows of x, y, z in mm (.csv, .txt).", metavar="FILE")
    ] = None,
    shape: _arguments.ShapeOption = "80,80,80",
    step: _arguments.StepOption = 1.0,
    spacing: _arguments.SpacingOption = 2.0,
    modes: Annotated[int, typer.Option(help="Fields that are solved for.")] = 200,
    rank: Annotated[int, typer.Option(help="Principal components of them that are kept.")] = 80,
    interfaces: _arguments.InterfacesOption = None,
    space: _arguments.SpaceOption = None,
    labels: _arguments.LabelsOption = None,
    distributed: _arguments.DistributedOption = False,
) -> None:
    """Solve for a basis and print its errors against full solves, of coils that it was not built from.

    It covers poses within 60 mm of the scalp point nearest to the region, 2 to 30 mm off the scalp, tilted to 15
    degrees. May be stopped or killed: the same command goes on from where it was.

    Example: `jaxm2m basis build --head atlas --roi -40,-20,52 --out basis.h5`
    """
    with _arguments.report_input_errors("basis build"):
        if (roi is None) == (points is None):
            raise ValueError("--roi: give the centre of a grid, or --points FILE; one of the two.")
        grid = _arguments.parse_grid(roi, shape) if roi is not None else None
        _arguments.check_positive({"--spacing": spacing, "--step": step})
        _arguments.check_out(out)
        _arguments.check_head(head, space, labels)
        _arguments.join_processes(distributed)

        import jax

        import jaxm2m as jm
        from jaxm2m import _check

        _check.integer(modes, "--modes", minimum=2)
        _check.integer(rank, "--rank")
        if rank > modes:
            raise ValueError(f"--rank: {rank}; no more components than --modes ({modes}) can be kept.")
        if interfaces is not None:
            _check.option(interfaces, jm.efield.INTERFACES, "--interfaces")
        region: jm.efield.Grid | jm.efield.Points
        if grid is not None:
            region = jm.efield.Grid.around(*grid, step)
        else:
            assert points is not None
            region = jm.efield.Points(_read_points(points))
        _arguments.say(f"{modes} modes, the head ...")
        sim = _arguments.make_simulator(_arguments.load_head(head, spacing, space, labels), interfaces)
        with _arguments.report_progress(out, modes, "modes"):
            basis = jm.efield.Basis.build(sim, region, out, modes=modes, rank=rank)
    _arguments.say(f"{out}: {len(basis.solver.modes)} components at {len(basis.active)} points.")
    if jax.process_index() == 0:
        typer.echo(_format_accuracy(basis.accuracy))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="What `basis build` made (.h5).", metavar="FILE")],
    head: _arguments.HeadOption,
    coil: Annotated[
        str | None,
        typer.Option(help=".ccd, .tcd or .nii.gz, or figure8; by default two computed coils.", metavar="FILE|figure8"),
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(help="As for `efield`; by default random ones that the basis covers.", metavar="FILE"),
    ] = None,
    count: Annotated[int, typer.Option(help="Random poses of each coil.")] = 5,
    limit: Annotated[float, typer.Option(help="Largest error that passes, %.")] = 1.0,
    spacing: _arguments.SpacingOption = 2.0,
    space: _arguments.SpaceOption = None,
    labels: _arguments.LabelsOption = None,
    flip: _arguments.FlipOption = False,
    casing: _arguments.CasingOption = None,
) -> None:
    """Compare a basis with full solves: relative error over the region, and its estimate, of each pose.

    Exit status 1 if an error is above the limit.

    Example: `jaxm2m basis check basis.h5 --head atlas --coil figure8 --count 3`
    """
    with _arguments.report_input_errors("basis check"):
        _arguments.check_positive({"--limit": limit, "--spacing": spacing})
        if poses is not None and coil is None:
            raise ValueError("--poses: of which coil? Give --coil too.")
        if flip and coil is None:
            raise ValueError("--flip: of which coil? Give --coil too.")
        if casing is not None and coil is None:
            raise ValueError("--casing: of which coil? Give --coil too.")
        _arguments.check_head(head, space, labels)
        if coil is not None:
            _arguments.check_coil(coil, flip, casing)

        import jaxm2m as jm
        from jaxm2m import _check

        _check.integer(count, "--count")
        _check.file(file, "FILE", suffixes=(".h5", ".hdf5"))
        if poses is not None:
            _arguments.check_poses(poses)
        basis = jm.efield.Basis.load(file)
        matrices, pose_space = (None, None) if poses is None else jm.session.load_poses(poses)
        driving = None if coil is None else _arguments.load_coil(coil, flip, casing)
        conducting = _arguments.load_head(head, spacing, space, labels)
        if driving is not None:
            if poses is None:
                matrices = basis.draw_poses(driving, count)
            else:
                _arguments.check_space(poses, pose_space, head, conducting)
            assert matrices is not None
            matrices = jm.efield.check_poses(matrices, driving, conducting.scalp)
            driving = _arguments.tabulate_if_cheaper(driving, len(matrices))
        interfaces = basis.metadata["settings"].get("interfaces", {}).get("value", "tensor")
        sim = _arguments.make_simulator(conducting, interfaces)
        basis.check_simulator(sim, "--head")
        table = basis.check(sim, driving, matrices, count=count)
    typer.echo(_format_accuracy(table))
    largest = table["error"].max()
    if not largest <= limit:  # NaN too
        _arguments.say(f"the largest error, {largest:.3g} %, is above the limit of {limit:g} %.")
        raise typer.Exit(1)


def _read_points(path: Path) -> "np.ndarray":
    """(n, 3) mm out of a table of text, with or without a row of names."""
    import re

    import numpy as np

    from jaxm2m import _check

    try:
        text = _check.file(path, "--points").read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"--points: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = re.split(r"\s*[,;\t]\s*|\s+", line.partition("#")[0].strip())
        if cells == [""]:
            continue
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            if not rows:
                continue  # the row of names
            row = []
        if len(row) != 3:
            raise ValueError(f"--points: {path}, line {number}: not three numbers; a row is x, y, z in mm.")
        rows.append(row)
    if not rows:
        raise ValueError(f"--points: {path} has no row of three numbers; a row is x, y, z in mm.")
    return _check.finite(np.array(rows), f"--points: {path}")


def _format_accuracy(table: "pd.DataFrame") -> str:
    """A line a pose, and the median and largest error in all."""
    width = max(map(len, table["coil"]))
    lines = [f"{'coil':<{width}}  error, %  estimate, %"]
    for row in table.itertuples():
        lines.append(f"{row.coil:<{width}}  {row.error:8.3f}  {row.estimate:11.3f}")
    error = table["error"]
    return "\n".join([*lines, f"median error {error.median():.3f} %, largest {error.max():.3f} %, {len(table)} poses"])
