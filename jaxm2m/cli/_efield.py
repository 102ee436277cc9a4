"""`jaxm2m efield`: the field of many coil poses, into one HDF5 file."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from jaxm2m.coil import Coil

_MANY_ELEMENTS, _MANY_POSES = 200, 7  # from there on a table of A costs less than the sums that it saves


def efield(
    head: Annotated[str, typer.Option(help="Label volume (.nii, .nii.gz), or 'atlas'.", metavar="FILE|atlas")],
    coil: Annotated[str, typer.Option(help=".ccd, .tcd or .nii.gz, or 'figure8'.", metavar="FILE|figure8")],
    poses: Annotated[
        Path,
        typer.Option(help="Rows of 16 numbers (.csv), .npy, .json; Brainsight or Localite export.", metavar="FILE"),
    ],
    roi: Annotated[str, typer.Option(help="Centre of the grid, mm, in the head's space.", metavar="X,Y,Z")],
    out: Annotated[Path, typer.Option(help="The HDF5 file to make (.h5).", metavar="FILE")],
    spacing: Annotated[float, typer.Option(help="Edge of the head's voxels, mm.")] = 2.0,
    shape: Annotated[str, typer.Option(help="Points of the grid along x, y, z.", metavar="N,N,N")] = "80,80,80",
    step: Annotated[float, typer.Option(help="Distance of the grid's points, mm.")] = 1.0,
    didt: Annotated[str, typer.Option(help="dI/dt, A/s; one number, or one for each stimulator.")] = "1e6",
    image: Annotated[
        Path | None, typer.Option(help="The NIfTI image that was loaded into Brainsight.", metavar="FILE")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Reverse the current of the coil's file.")] = False,
    space: Annotated[
        str | None, typer.Option(help="The head's coordinate space, where its file does not say it.", metavar="NAME")
    ] = None,
    interfaces: Annotated[
        str, typer.Option(help="Voxels with several tissues: tensor, arithmetic, harmonic, hard.")
    ] = "tensor",
    tolerance: Annotated[float | None, typer.Option(help="Relative residual of a solve (default 1e-5).")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Never replace a coil of many elements by a table of its potential.")
    ] = False,
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Write |E| of each pose as NIfTI too, into the folder OUT_magnitude.")
    ] = False,
) -> None:
    """Electric fields of many coil poses on a grid round a target, V/m.

    May be stopped or killed: the same command goes on from where it was.
    """
    with _input_errors():
        grid_centre, grid_shape, rates = _checked(
            roi, shape, didt, out, {"--spacing": spacing, "--step": step, "--tolerance": tolerance}
        )
        if flip and coil == "figure8":
            raise ValueError("--flip: figure8 drives E along +y as it is; turn the poses by 180 degrees about z.")
        if space is not None and head == "atlas":
            raise ValueError("--space: the atlas is in MNI152; leave the option out.")
        _check_files(head, coil, poses, image)

        import jaxm2m as jm
        from jaxm2m import _check
        from jaxm2m.efield import _simulator, _stream

        _check.option(interfaces, _simulator.INTERFACES, "--interfaces")
        matrices, pose_space = jm.session.load_poses(poses, image)
        driving = jm.coil.figure8() if coil == "figure8" else jm.coil.load(coil, flip=flip)
        if len(rates) not in (1, driving.n_stimulator):
            raise ValueError(f"--didt: {len(rates)} numbers for a coil of {driving.n_stimulator} stimulator(s).")
        _say(f"{len(matrices)} poses, head at {spacing:g} mm ...")
        conducting = jm.head.atlas(spacing) if head == "atlas" else jm.head.load(head, spacing, space=space)
        if pose_space is not None and pose_space != conducting.space:
            known = "" if head == "atlas" else f", or, if the two are the same, say so: --space {pose_space}"
            raise ValueError(
                f"--poses: {poses} is in {pose_space!r} space, the head in {conducting.space!r}; take a head in that "
                f"space or bring the poses into the head's{known}."
            )
        # before coil and operator are built: a coil in the head is told in seconds
        _stream._checked_poses(matrices, driving, conducting.scalp)
        grid = jm.efield.Grid.around(grid_centre, grid_shape, step)
        if not exact and len(matrices) >= _MANY_POSES and _elements(driving) >= _MANY_ELEMENTS:
            driving = jm.coil.tabulate(driving)
        sim = jm.efield.Simulator(conducting, interfaces=interfaces, tolerance=tolerance)
        before = jm.files.stored(out)
        if before:
            _say(f"{before} of {len(matrices)} poses are there from before.")
        try:
            jm.efield.stream(sim, driving, matrices, out, roi=grid, didt=rates if len(rates) > 1 else rates[0])
        except KeyboardInterrupt:
            done = jm.files.stored(out)
            _say(f"stopped; {done} of {len(matrices)} poses are stored. The same command goes on from there.")
            raise typer.Exit(130) from None
    _say(f"{out}: {len(matrices)} fields of {'x'.join(map(str, grid_shape))} points.")
    if nifti:
        folder = _write_magnitudes(out)
        _say(f"{folder}: |E| of each pose.")


def _checked(
    roi: str, shape: str, didt: str, out: Path, positive: dict[str, float | None]
) -> tuple[tuple[float, ...], tuple[int, int, int], tuple[float, ...]]:
    """The centre, shape and dI/dt that the text says; every check that needs no file."""
    centre = _numbers(roi, "--roi", "X,Y,Z in mm", count=3)
    points = _numbers(shape, "--shape", "three whole numbers", count=3)
    if any(n < 1 or n != int(n) for n in points) or points[0] * points[1] * points[2] > 1 << 27:
        raise ValueError(f"--shape: {shape}; give three whole numbers, with less than {1 << 27} points in all.")
    rates = _numbers(didt, "--didt", "A/s")
    for name, value in positive.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name}: {value:g}; give a positive number.")
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"--out: {out} does not end in .h5; name an HDF5 file.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out: the folder {out.parent} does not exist; make it first.")
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"--out: the folder {out.parent} cannot be written to; choose another one.")
    nx, ny, nz = map(int, points)
    return centre, (nx, ny, nz), rates


def _check_files(head: str, coil: str, poses: Path, image: Path | None) -> None:
    from jaxm2m import _check

    if head != "atlas":
        _check.file(head, "--head", suffixes=(".nii", ".nii.gz", ".msh"))
    if coil != "figure8":
        _check.file(coil, "--coil", suffixes=(".ccd", ".tcd", ".nii.gz", ".nii"))
    _check.file(poses, "--poses")
    if image is not None:
        _check.file(image, "--image", suffixes=(".nii", ".nii.gz"))


def _numbers(text: str, name: str, what: str, count: int | None = None) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count and len(values) != count) or not all(abs(v) < float("inf") for v in values):
        raise ValueError(f"{name}: {text!r}; give {what}, with commas and no spaces between.")
    return values


def _elements(coil: "Coil") -> int:
    return sum(getattr(element, "size", 0) for element in coil.elements)  # an A-grid is a table already


def _write_magnitudes(path: Path) -> Path:
    import h5py
    import nibabel
    import numpy as np

    from jaxm2m import files
    from jaxm2m._progress import progress

    folder = path.with_name(path.stem + "_magnitude")
    folder.mkdir(exist_ok=True)
    with h5py.File(path, "r") as file, progress(len(file["e"]), "NIfTI", unit="poses") as advance:
        affine = file["affine"][()]
        for i in range(len(file["e"])):
            volume = nibabel.Nifti1Image(np.linalg.norm(file["e"][i], axis=-1), affine)
            volume.header.set_xyzt_units("mm")
            volume.header["descrip"] = b"magnitude of E, V/m"
            with files.atomic(folder / f"pose_{i:05d}.nii.gz") as temporary:
                nibabel.save(volume, temporary)
            advance()
    return folder


@contextmanager
def _input_errors() -> Iterator[None]:
    """What is wrong with the input: one line and the exit status 2. Warnings become lines too."""
    wrong = (ValueError, TypeError, ImportError, NotImplementedError)
    wrong_files = (FileNotFoundError, FileExistsError, IsADirectoryError, PermissionError)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
            yield
    except (*wrong, *wrong_files) as error:
        if os.environ.get("JAXM2M_TRACEBACK", "") not in ("", "0"):
            raise
        _say(f"jaxm2m efield: {error}")
        raise typer.Exit(2) from None


def _say(text: Any) -> None:
    typer.echo(text, err=True)
