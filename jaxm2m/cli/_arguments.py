"""What commands share: text into numbers, files, heads and coils; what is wrong with them in one line."""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxm2m._progress import log_lines, tell_stage

if TYPE_CHECKING:
    from jaxm2m._types import ArrayLike
    from jaxm2m.coil import Coil
    from jaxm2m.efield import Simulator
    from jaxm2m.head import Head, LabelTable, MeshHead

_WEAKEST, _STRONGEST = 0.1, 5.0  # V/m at 1 A/us, of what a coil is there to reach

CoilOption = Annotated[str, typer.Option(help=".ccd, .tcd or .nii.gz, or 'figure8'.", metavar="FILE|figure8")]
HeadOption = Annotated[
    str,
    typer.Option(
        help="Label volume (.nii, .nii.gz, .mgz), tetrahedra (.msh, .msh.gz), a SimNIBS folder (m2m_...), or 'atlas'.",
        metavar="FILE|FOLDER|atlas",
    ),
]
SpacingOption = Annotated[float, typer.Option(help="Edge of a voxel head's voxels, mm; tetrahedra have their own.")]
SpaceOption = Annotated[
    str | None, typer.Option(help="The head's coordinate space, where its file does not say it.", metavar="NAME")
]
FlipOption = Annotated[bool, typer.Option("--flip", help="Reverse the current of the coil's file.")]
CasingOption = Annotated[
    Path | None,
    typer.Option(
        help="The coil's casing (.stl, mm, in the coil's frame). Default: the file's own, an .stl of the same name "
        "beside it, else the surface 4 mm off the conductors.",
        metavar="FILE",
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        help="Which label is which tissue: five, mcx, simnibs, roast, freesurfer, charm, or a JSON file "
        '({"scalp": 1, "white": [2, 41]}). Default: the table that fits without doubt.',
        metavar="TABLE|FILE",
    ),
]
InterfacesOption = Annotated[
    str | None,
    typer.Option(help="Voxels with several tissues: tensor (the default), arithmetic, harmonic, hard."),
]
DistributedOption = Annotated[
    bool,
    typer.Option("--distributed", help="One of several processes that were started together (SLURM, MPI, ...)."),
]
ShapeOption = Annotated[str, typer.Option(help="Points of the grid along x, y, z.", metavar="N,N,N")]
StepOption = Annotated[float, typer.Option(help="Distance of the grid's points, mm.")]
OutOption = Annotated[Path, typer.Option(help="The HDF5 file to make (.h5).", metavar="FILE")]

_MANY_ELEMENTS, _MANY_POSES = 200, 7  # from there on a table of A costs less than the sums that it saves
_MOST_POINTS = 1 << 27
_silent = False  # in all but the first of several processes


def parse_numbers(text: str, name: str, what: str, count: int | None = None) -> tuple[float, ...]:
    """Split "1,2,3" into finite numbers."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count and len(values) != count) or not all(abs(v) < float("inf") for v in values):
        raise ValueError(f"{name}: {text!r}; give {what}, with commas and no spaces between.")
    return values


def parse_grid(roi: str, shape: str) -> tuple[tuple[float, ...], tuple[int, int, int]]:
    """Return the centre (mm) and the shape of a grid."""
    centre = parse_numbers(roi, "--roi", "X,Y,Z in mm", count=3)
    points = parse_numbers(shape, "--shape", "three whole numbers", count=3)
    if any(n < 1 or n != int(n) for n in points) or points[0] * points[1] * points[2] > _MOST_POINTS:
        raise ValueError(f"--shape: {shape}; give three whole numbers, with less than {_MOST_POINTS} points in all.")
    nx, ny, nz = map(int, points)
    return centre, (nx, ny, nz)


def check_positive(options: dict[str, float | None]) -> None:
    """Refuse numbers that are not above zero; None is an option left out."""
    for name, value in options.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name}: {value:g}; give a positive number.")


def check_out(out: Path) -> None:
    """Refuse a name that no HDF5 file can be written to."""
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"--out: {out} does not end in .h5; name an HDF5 file.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out: the folder {out.parent} does not exist; make it first.")
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"--out: the folder {out.parent} cannot be written to; choose another one.")


def check_head(head: str, space: str | None, labels: str | None = None) -> None:
    """Refuse what cannot be a head."""
    import jaxm2m as jm
    from jaxm2m import _check

    parse_labels(labels)
    if head != "atlas":
        if not Path(head).is_dir():
            _check.file(head, "--head", suffixes=jm.head.SUFFIXES)
    elif space is not None:
        raise ValueError("--space: the atlas is in MNI152; leave the option out.")
    elif labels is not None:
        raise ValueError("--labels: the atlas has its own; leave the option out.")


def parse_labels(labels: str | None) -> "LabelTable | None":
    """Return the table of a name, or of a JSON file with names and numbers either way round."""
    import jaxm2m as jm
    from jaxm2m import files

    if labels is None or labels in jm.head.label_tables:
        return labels
    if not labels.lower().endswith(".json"):
        raise ValueError(f"--labels: {labels!r}; give one of {', '.join(jm.head.label_tables)}, or a .json file.")
    content = files.read_json(labels, "--labels")
    if not isinstance(content, dict) or not content:
        raise ValueError(f'--labels: {labels} must hold {{"scalp": 1, ...}} or {{"1": "scalp", ...}}.')
    return {int(key) if key.isdigit() else key: value for key, value in content.items()}


def check_coil(coil: str, flip: bool = False, casing: Path | None = None) -> None:
    """Refuse what cannot be a coil."""
    import jaxm2m as jm
    from jaxm2m import _check

    if flip and coil == "figure8":
        raise ValueError("--flip: figure8 drives E along +y as it is; turn the poses by 180 degrees about z.")
    if coil != "figure8":
        _check.file(coil, "--coil", suffixes=jm.coil.SUFFIXES)
    if casing is not None:
        if coil == "figure8":
            raise ValueError("--casing: figure8 has its own; give --coil FILE.")
        _check.file(casing, "--casing", suffixes=(".stl",))


def load_head(head: str, spacing: float, space: str | None, labels: str | None = None) -> "Head | MeshHead":
    """Load the atlas or a file's head, and say by which table its labels were read."""
    import jaxm2m as jm

    if head == "atlas":
        return jm.head.atlas(spacing)
    # a mesh has its own size: what it takes as spacing is that of its raster
    meshed = head.lower().endswith((".msh", ".msh.gz")) or any(Path(head).glob("*.msh"))
    loaded = jm.head.load(head, None if meshed else spacing, space=space, labels=parse_labels(labels))
    say(f"Head: {'; '.join(loaded.metadata['remarks'])}.")
    return loaded


def make_simulator(
    conducting: "Head | MeshHead", interfaces: str | None = None, tolerance: float | None = None
) -> "Simulator":
    """Make the simulator of a head; `interfaces` as in `Simulator.interfaces`, or None."""
    import jaxm2m as jm

    scheme = None if interfaces == "conforming" else interfaces
    return jm.efield.Simulator(conducting, interfaces=scheme, tolerance=tolerance)


def load_coil(coil: str, flip: bool = False, casing: Path | None = None) -> "Coil":
    """Load the computed figure-8 or a file's coil, and say what its casing is."""
    import jaxm2m as jm

    loaded = jm.coil.figure8() if coil == "figure8" else jm.coil.load(coil, flip=flip, casing=casing)
    say(f"Coil: {loaded.metadata['name']}; casing: {loaded.metadata['casing']}.")
    return loaded


def doubt_field(low: float, high: float, what: str) -> None:
    """Warn of fields (V/m at 1 A/us) that no head and coil give; the page of numbers to expect has what they do."""
    if low < _WEAKEST or high > _STRONGEST:
        say(
            f"warning: {what} is {low:.3g}{'' if low == high else f' to {high:.3g}'} V/m at 1 A/us; over a motor "
            f"cortex it is {_WEAKEST:g} to {_STRONGEST:g}. The page of numbers to expect lists what does that: the "
            "coil's unit, a head in cm, a target far from the coil."
        )


def check_poses(poses: Path) -> None:
    """Refuse what is neither a file of poses nor the folder of a Localite session."""
    from jaxm2m import _check

    if not poses.is_dir():
        _check.file(poses, "--poses")


def check_space(poses: Path, space: str | None, head: str, conducting: "Head | MeshHead") -> None:
    """Refuse poses in another coordinate space than the head."""
    if space is not None and space != conducting.space:
        known = "" if head == "atlas" else f", or, if the two are the same, say so: --space {space}"
        raise ValueError(
            f"--poses: {poses} is in {space!r} space, the head in {conducting.space!r}; take a head in that "
            f"space or bring the poses into the head's{known}."
        )


def tabulate_if_cheaper(coil: "Coil", count: int) -> "Coil":
    """Return the coil, or a table of its potential if that is cheaper for `count` poses."""
    import jaxm2m as jm

    elements = sum(getattr(element, "size", 0) for element in coil.elements)  # an A-grid is a table already
    return jm.coil.tabulate(coil) if count >= _MANY_POSES and elements >= _MANY_ELEMENTS else coil


def compile_quickly() -> None:
    """Ask for less optimisation, before JAX has started: a run that is mostly compiling takes a quarter less."""
    flags = "--xla_backend_optimization_level=1"
    if version("jaxlib") in ("0.10.0", "0.10.1"):  # a jaxlib that does not know the flag would not start
        flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ.setdefault("XLA_FLAGS", flags)


def use_all_cores() -> None:
    """Make each core a CPU device, before JAX has started: a population shares its members among devices."""
    import jax

    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with suppress(RuntimeError):  # it has started already
            jax.config.update("jax_num_cpu_devices", cores)


def join_processes(distributed: bool) -> None:
    """Join the processes that were started together, before JAX has started; all but the first say nothing."""
    global _silent
    if not distributed:
        return
    import jax

    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed: JAX joins no processes ({error}); start them together by srun or mpirun, or leave it out."
        ) from None
    _silent = jax.process_index() > 0


@contextmanager
def report_progress(out: Path, count: int, unit: str) -> Iterator[None]:
    """Report what an unfinished run has stored, before it goes on and when it is stopped."""
    from jaxm2m import files

    before = files.count_stored(out)
    if before:
        say(f"{before} of {count} {unit} are there from before.")
    try:
        yield
    except KeyboardInterrupt:
        done = files.count_stored(out)
        say(f"stopped; {done} of {count} {unit} are stored. The same command goes on from there.")
        raise typer.Exit(130) from None


def write_log(command: str) -> AbstractContextManager[None]:
    """Say at least every ten seconds what is being done, where standard error is no terminal."""
    return log_lines(command, lambda line: typer.echo(line, err=True))


@contextmanager
def report_input_errors(command: str) -> Iterator[None]:
    """Report what is wrong with the input in one line, with the exit status 2. Warnings become lines too.

    Where standard error is no terminal, a line at least every ten seconds says what is being done.
    """
    wrong = (ValueError, TypeError, ImportError, NotImplementedError)
    wrong_files = (FileNotFoundError, FileExistsError, IsADirectoryError, PermissionError)
    try:
        with warnings.catch_warnings(), write_log(command):
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
            yield
    except (*wrong, *wrong_files) as error:
        if os.environ.get("JAXM2M_TRACEBACK", "") not in ("", "0"):
            raise
        say(f"jaxm2m {command}: {error}")
        raise typer.Exit(2) from None


def format_vector(vector: "ArrayLike") -> str:
    """Write a vector as "(x, y, z)", with four digits."""
    import numpy as np

    return "(" + ", ".join(f"{float(x):.4g}" for x in np.asarray(vector, float)) + ")"


def say(text: object) -> None:
    """Write a line for people, beside the output; of several processes the first one does."""
    tell_stage(str(text))
    if not _silent:
        typer.echo(text, err=True)


def make_folder(out: Path) -> None:
    """Make the folder of `--out`, if it can be written to."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file; name a folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(f"--out: {out} cannot be made ({error.strerror}); choose another folder.") from None
    if not os.access(out, os.W_OK):
        raise PermissionError(f"--out: {out} cannot be written to; choose another folder.")
