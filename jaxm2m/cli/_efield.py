"""`jaxm2m efield`: the field of many coil poses, into one HDF5 file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxm2m.cli import _arguments

if TYPE_CHECKING:
    import numpy as np

    from jaxm2m.coil import Coil
    from jaxm2m.head import Head, MeshHead

_MOST_BYTES = 1 << 24
_TOLD = 20  # poses
_FARTHEST = 100.0  # mm from a coil to what it is to stimulate
_SLOWEST, _FASTEST = 1e4, 1e9  # A/s


def efield(
    head: _arguments.HeadOption,
    coil: _arguments.CoilOption,
    poses: Annotated[
        Path,
        typer.Option(help="Rows of 16 numbers (.csv), .npy, .json; Brainsight or Localite export.", metavar="FILE"),
    ],
    out: _arguments.OutOption,
    roi: Annotated[
        str | None,
        typer.Option(help="Centre of the grid, mm, in the head's space; a basis has its own.", metavar="X,Y,Z"),
    ] = None,
    basis: Annotated[
        Path | None,
        typer.Option(help="Of `basis build`, instead of --roi: fields in milliseconds, on its grid.", metavar="FILE"),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(help="Largest estimated error of the basis, % (default 1); a pose above it is solved."),
    ] = None,
    spacing: _arguments.SpacingOption = 2.0,
    shape: Annotated[
        str | None, typer.Option(help="Points of the grid along x, y, z (default 80,80,80).", metavar="N,N,N")
    ] = None,
    step: Annotated[float | None, typer.Option(help="Distance of the grid's points, mm (default 1).")] = None,
    didt: Annotated[
        str,
        typer.Option(
            help="dI/dt, A/s; one number, or one for each stimulator, or a .csv or .txt with such a row for each pose; "
            "or 'session': what the navigator's export recorded.",
            metavar="A/s|FILE|session",
        ),
    ] = "1e6",
    image: Annotated[
        Path | None, typer.Option(help="The NIfTI image that was loaded into Brainsight.", metavar="FILE")
    ] = None,
    flip: _arguments.FlipOption = False,
    casing: _arguments.CasingOption = None,
    clear_casing: Annotated[
        bool, typer.Option("--clear-casing", help="Draw poses back in which the casing would touch the head.")
    ] = False,
    space: _arguments.SpaceOption = None,
    labels: _arguments.LabelsOption = None,
    interfaces: _arguments.InterfacesOption = None,
    tolerance: Annotated[float | None, typer.Option(help="Relative residual of a solve (default 1e-5).")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Never replace a coil of many elements by a table of its potential.")
    ] = False,
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Write |E| of each pose as NIfTI too, into the folder OUT_magnitude.")
    ] = False,
    distributed: _arguments.DistributedOption = False,
) -> None:
    """Electric fields of many coil poses on a grid round a target, V/m.

    With --basis a pose takes milliseconds, its estimated error is written beside it, and one that the basis does not
    hold is solved. May be stopped or killed: the same command goes on from where it was.

    Example: `jaxm2m efield --head atlas --coil figure8 --poses poses.csv --roi -40,-20,52 --out fields.h5`
    """
    with _arguments.report_input_errors("efield"):
        _check_region(roi, basis, {"--shape": shape, "--step": step}, {"--limit": limit})
        grid = None if roi is None else _arguments.parse_grid(roi, shape or "80,80,80")
        rates = [] if didt == "session" else _parse_didt(didt)
        _arguments.check_positive({"--spacing": spacing, "--step": step, "--tolerance": tolerance, "--limit": limit})
        _arguments.check_out(out)
        _arguments.check_head(head, space, labels)
        _arguments.check_coil(coil, flip, casing)
        _arguments.join_processes(distributed)

        import jax
        import numpy as np

        import jaxm2m as jm
        from jaxm2m import _check

        _arguments.check_poses(poses)
        if image is not None:
            _check.file(image, "--image", suffixes=(".nii", ".nii.gz"))
        if interfaces is not None:
            _check.option(interfaces, jm.efield.INTERFACES, "--interfaces")
        region: jm.efield.Grid | jm.efield.Points
        loaded = None
        if grid is not None:
            region = jm.efield.Grid.around(*grid, 1.0 if step is None else step)
        else:
            loaded = jm.efield.Basis.load(_check.file(basis, "--basis", suffixes=(".h5", ".hdf5")))
            region = loaded.roi
        if nifti and not isinstance(region, jm.efield.Grid):
            raise ValueError(f"--nifti: {basis} holds points, not a grid, which NIfTI needs; leave --nifti out.")
        matrices, pose_space = jm.session.load_poses(poses, image)
        driving = _arguments.load_coil(coil, flip, casing)
        rates = rates or _read_session_didt(poses, image, driving)
        for rate in rates:
            if len(rate) not in (1, driving.n_stimulator):
                raise ValueError(f"--didt: {len(rate)} numbers for a coil of {driving.n_stimulator} stimulator(s).")
        if len(rates) not in (1, len(matrices)):
            raise ValueError(f"--didt: {didt} has {len(rates)} rows, {poses} {len(matrices)} poses; give a row a pose.")
        _arguments.say(f"{len(matrices)} poses, the head ...")
        conducting = _arguments.load_head(head, spacing, space, labels)
        _arguments.check_space(poses, pose_space, head, conducting)
        if clear_casing:
            matrices = _draw_back(matrices, driving, conducting)
        # before coil and operator are built: a coil in the head is told in seconds
        jm.efield.check_poses(matrices, driving, conducting.scalp)
        _doubt_input(matrices, rates, np.asarray(region.positions()).mean(0))
        if not exact:
            driving = _arguments.tabulate_if_cheaper(driving, len(matrices))
        if loaded is not None and interfaces is None:
            interfaces = loaded.metadata["settings"]["interfaces"]["value"]
        sim = _arguments.make_simulator(conducting, interfaces, tolerance)
        if loaded is not None:
            loaded.check_simulator(sim, f"--basis: {basis}")
        with _arguments.report_progress(out, len(matrices), "poses"):
            each = np.broadcast_to(rates, (len(matrices), driving.n_stimulator))
            jm.efield.compute_fields(
                sim, driving, matrices, out, roi=region if loaded is None else None, didt=each, basis=loaded,
                limit=1e-2 if limit is None else limit / 100,
            )  # fmt: skip
    if jax.process_index():
        return
    size = "x".join(map(str, region.shape)) if isinstance(region, jm.efield.Grid) else len(region.positions())
    _arguments.say(f"{out}: {len(matrices)} fields of {size} points.")
    if loaded is not None:
        _report_errors(out)
    _doubt_fields(out)
    if nifti:
        folder = _write_magnitudes(out)
        _arguments.say(f"{folder}: |E| of each pose.")


def _check_region(roi: str | None, basis: Path | None, of_grid: dict[str, object], of_basis: dict[str, object]) -> None:
    """Refuse what the region leaves open, or says twice."""
    if (roi is None) == (basis is None):
        raise ValueError("--roi: give the centre of a grid, or --basis FILE, which has its own; one of the two.")
    others, why = (of_basis, "it is that of --basis, which is not given")
    if basis is not None:
        others, why = (of_grid, "the points are those of --basis")
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{name}: {why}; leave it out.")


def _report_errors(path: Path) -> None:
    """Say how well a basis held the poses of a file of fields."""
    import h5py
    import numpy as np

    with h5py.File(path, "r") as file:
        estimate = file["estimate"][()]
    held = np.isfinite(estimate)
    if held.any():
        _arguments.say(f"largest estimated error of the basis: {100 * estimate[held].max():.2g} %.")
    if not held.all():
        _arguments.say(f"{(~held).sum()} of {len(held)} poses, which the basis does not hold, were solved.")


def _doubt_input(matrices: "np.ndarray", rates: list[tuple[float, ...]], centre: "np.ndarray") -> None:
    """Warn of a grid that no coil is near, and of currents that no stimulator has."""
    import numpy as np

    away = np.linalg.norm(matrices[:, :3, 3] - centre, axis=1)
    if (away > _FARTHEST).any():
        _arguments.say(
            f"warning: --roi: in {int((away > _FARTHEST).sum())} of {len(matrices)} poses its centre is farther than "
            f"{_FARTHEST:g} mm from the coil (up to {away.max():.0f} mm); left and right exchanged, or another space?"
        )
    fastest = max(abs(rate) for row in rates for rate in row)
    if not _SLOWEST <= fastest <= _FASTEST:
        _arguments.say(f"warning: --didt: {fastest:g} A/s; stimulators reach 1e7 to 2e8 A/s, and 1 A/us is 1e6 A/s.")


def _doubt_fields(path: Path) -> None:
    """Warn of fields outside what heads and coils give, by the page of numbers to expect."""
    import h5py
    import numpy as np

    with h5py.File(path, "r") as file:
        peaks = []
        for i in np.unique(np.linspace(0, len(file["e"]) - 1, _TOLD).astype(int)):
            size = np.linalg.norm(file["e"][i], axis=-1)
            rate = float(np.abs(file["didt"][i]).max())
            peaks.append(float(np.percentile(size[size > 0], 99.9)) * 1e6 / rate if (size > 0).any() and rate else 0.0)
    _arguments.doubt_field(min(peaks), max(peaks), "the strongest |E| of a pose (99.9th percentile)")


def _draw_back(matrices: "np.ndarray", driving: "Coil", conducting: "Head | MeshHead") -> "np.ndarray":
    """Poses in which the casing is outside, and which were moved."""
    import numpy as np

    import jaxm2m as jm

    moved, shift = jm.coil.clear_casing(driving, matrices, conducting.scalp)
    which = np.flatnonzero(shift)
    if not len(which):
        _arguments.say("--clear-casing: the casing is outside the head in every pose; none was moved.")
        return matrices
    listed = ", ".join(f"[{i}] by {shift[i]:.1f} mm" for i in which[:_TOLD])
    more = f" and {len(which) - _TOLD} more" if len(which) > _TOLD else ""
    _arguments.say(
        f"--clear-casing: {len(which)} of {len(matrices)} poses drawn back (counted from 0): {listed}{more}."
    )
    return np.where((shift > 0)[:, None, None], np.asarray(moved, float), matrices)


def _parse_didt(didt: str) -> list[tuple[float, ...]]:
    """Rows of --didt: one, or those of the file that it names."""
    path = Path(didt)
    if path.suffix not in (".csv", ".txt"):
        return [_arguments.parse_numbers(didt, "--didt", "A/s")]
    if not path.is_file():
        raise ValueError(f"--didt: {path} does not exist; give A/s, or a file with a row for each pose.")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"--didt: {path} is larger than {_MOST_BYTES:,} bytes; give a row of A/s for each pose.")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [_arguments.parse_numbers(line, f"--didt: {path}", "rows of A/s") for line in lines if line.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError(f"--didt: {path} has {len(rows)} rows of different or no length; give a row for each pose.")
    return rows


def _read_session_didt(poses: Path, image: Path | None, driving: "Coil") -> list[tuple[float, ...]]:
    """dI/dt of each pose that `load_poses` takes from a navigator's export: as recorded, else from %MSO by the coil."""
    import numpy as np

    import jaxm2m as jm

    if poses.suffix.lower() in (".npy", ".csv", ".json"):
        raise ValueError(f"--didt: {poses} is no navigator's export and records no intensity; give A/s or a file.")
    session = jm.session.load(poses, image)
    rows = (session.samples if "sample" in session.kind else session).pick(located=True)
    if np.isfinite(rows.didt).all():
        _arguments.say(f"dI/dt as recorded: {rows.didt.min() / 1e6:.3g} to {rows.didt.max() / 1e6:.3g} A/us.")
        return [(float(rate),) for rate in rows.didt]
    if not np.isfinite(rows.intensity).all():
        missing = int((~np.isfinite(rows.intensity)).sum())
        raise ValueError(
            f"--didt: {poses} records no dI/dt, and no %MSO for {missing} of {len(rows)} poses; give a file with a row "
            "a pose."
        )
    if driving.n_stimulator != 1:
        raise ValueError("--didt: %MSO of a coil with several stimulators says nothing of each; give a file.")
    rates = np.asarray(jm.coil.calibrate(driving).didt(rows.intensity))
    _arguments.say(
        f"dI/dt from {rows.intensity.min():g} to {rows.intensity.max():g} %MSO by the coil's largest: "
        f"{rates.min() / 1e6:.3g} to {rates.max() / 1e6:.3g} A/us."
    )
    return [(float(rate),) for rate in rates]


def _write_magnitudes(path: Path) -> Path:
    import h5py
    import nibabel
    import numpy as np

    from jaxm2m import files
    from jaxm2m._progress import progress_bar

    folder = path.with_name(path.stem + "_magnitude")
    folder.mkdir(exist_ok=True)
    with h5py.File(path, "r") as file, progress_bar(len(file["e"]), "NIfTI", unit="poses") as advance:
        affine = file["affine"][()]
        for i in range(len(file["e"])):
            volume = nibabel.Nifti1Image(np.linalg.norm(file["e"][i], axis=-1), affine)
            volume.header.set_xyzt_units("mm")
            volume.header["descrip"] = b"magnitude of E, V/m"
            with files.atomic(folder / f"pose_{i:05d}.nii.gz") as temporary:
                nibabel.save(volume, temporary)
            advance()
    return folder
