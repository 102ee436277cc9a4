"""Every reader of files that the package has, with a small valid file and what can happen to it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_files as made
import numpy as np
from fuzz_accidents import Mutate, hdf5, in_gzip, json_lines, json_tree, matlab, raw, text, xml
from mesh_cases import binary_22, layered, text_22, version_41

import jaxm2m as jm
from jaxm2m import emg, files, muscle, population, session
from jaxm2m.cli import _basis as _basis_command
from jaxm2m.cli import _emg as _emg_command
from jaxm2m.cli import _muscle_input
from jaxm2m.efield._basis import Basis
from jaxm2m.head import _folder, _gmsh, _mni
from jaxm2m.muscle.networks import _inputs
from jaxm2m.population import _chunking, _directory


@dataclass(frozen=True)
class Case:
    """A reader with a small valid file.

    Attributes
    ----------
    name
        Of the case.
    file
        Name of the file that is changed, in the folder of the case.
    write
        Makes it (and what it needs beside it), valid.
    read
        The reader under test.
    mutate
        What can happen to the file.
    weight
        Share of the mutations that the suite affords: readers that take long get fewer.
    """

    name: str
    file: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    mutate: tuple[Mutate, ...] = (raw,)
    weight: float = 1.0
    needs: tuple[str, ...] = ()


def _read_folder(path: Path) -> Any:
    found = _mni.find_transforms(path.parent.parent)
    if found is None:
        return None
    metadata, points = {"space": "subject", "mni": found}, np.full((2, 3), 12.0)
    return _folder.find_head(path.parent.parent), _mni.to_mni(metadata, points), _mni.from_mni(metadata, points)


def read_fields(path: Path) -> Any:
    found = _muscle_input.read_source(path)
    rows = _inputs.count_stimuli(path)
    reduce = _inputs.Reduction(found.grid.shape, found.grid.shape, 1)
    seen = _inputs.read_inputs(path, found.grid, ("field",), rate=None, reduce=reduce, progress=False)
    return found, rows, seen


def _read_basis(path: Path) -> Any:
    basis = Basis.load(path)
    return basis, basis.roi, basis.accuracy, repr(basis)


def _read_record(path: Path) -> Any:
    record = _directory.read_record(path.parent)
    with _directory.open_run_directory(path.parent, record["settings"], {}) as held:
        return held.plan, held.read_history(), population.read_config(path.parent)


def _read_emg_run(path: Path) -> Any:
    try:
        return emg.load(path.parent)
    except FileNotFoundError as error:
        if "no checkpoint yet" not in str(error):
            raise


def _read_unfinished(path: Path) -> Any:
    whole = path.parent.with_name(path.parent.name.removesuffix(".parts"))
    return files.count_stored(whole)


def read_mask(path: Path) -> Any:
    return _muscle_input._read_mask(path, jm.efield.Grid.around((0.0, 0.0, 0.0), (4, 4, 4), 2.0))


CASES = (
    Case("label volume", "labels.nii", lambda p: made.nifti(p, made.labels()), files.read_nifti),
    Case(
        "label volume, compressed",
        "labels.nii.gz",
        lambda p: made.nifti(p, made.labels()),
        files.read_nifti,
        (in_gzip(raw),),
    ),
    Case("head of labels", "labels.nii.gz", lambda p: made.nifti(p, made.labels()), jm.head.load, (in_gzip(raw),), 0.1),
    Case("mesh 2.2", "h.msh", lambda p: p.write_bytes(binary_22(*layered(2))), _gmsh.read_gmsh),
    Case(
        "mesh 2.2 big",
        "h.msh",
        lambda p: p.write_bytes(binary_22(*layered(2), order=">", grouped=True)),
        _gmsh.read_gmsh,
    ),
    Case("mesh 2.2 text", "h.msh", lambda p: p.write_bytes(text_22(*layered(2))), _gmsh.read_gmsh, (text,)),
    Case("mesh 2.2 tensors", "h.msh", lambda p: p.write_bytes(made.tensors()), _gmsh.read_gmsh, (raw, text)),
    Case("mesh 4.1", "h.msh", lambda p: p.write_bytes(version_41(*layered(2), binary=True)), _gmsh.read_gmsh),
    Case(
        "mesh 4.1 text",
        "h.msh",
        lambda p: p.write_bytes(version_41(*layered(2), binary=False)),
        _gmsh.read_gmsh,
        (text,),
    ),
    Case(
        "head of a mesh",
        "h.msh",
        lambda p: p.write_bytes(text_22(*layered(4))),
        lambda p: jm.head.load(p, 6.0),
        (text,),
        0.1,
    ),
    Case("matrix to MNI", "toMNI/MNI2conform_12DOF.txt", made.folder, _read_folder, (text,)),
    Case("field to MNI", "toMNI/Conform2MNI_nonl.nii.gz", made.folder, _read_folder, (in_gzip(raw),)),
    Case("ccd", "coil.ccd", made.ccd, jm.coil.load, (text,), 0.5),
    Case("tcd", "coil.tcd", made.tcd, jm.coil.load, (json_tree,), 0.5),
    Case("coil grid", "coil.nii.gz", made.coil_grid, jm.coil.load, (in_gzip(raw),), 0.5),
    Case("casing", "coil.stl", made.casing, lambda p: jm.coil.load(p.with_name("coil.ccd"), casing=p), (raw,), 0.5),
    Case(
        "casing as text",
        "coil.stl",
        lambda p: made.casing(p, binary=False),
        lambda p: jm.coil.load(p.with_name("coil.ccd"), casing=p),
        (text,),
        0.5,
    ),
    Case("SimNIBS", "session.mat", made.simnibs, session.load, (matlab,)),
    Case("SimNIBS, compressed", "s.mat", lambda p: made.simnibs(p, True), session.load_poses, (matlab,)),
    Case("Brainsight", "export.txt", made.brainsight, session.load, (text,)),
    Case(
        "Brainsight poses",
        "export.txt",
        made.brainsight_corner,
        lambda p: session.load_poses(p, p.with_name("image.nii")),
        (text,),
    ),
    Case("Brainsight image", "image.nii", made.aligned_image, lambda p: session.load(p.with_name("export.txt"), p)),
    Case("Localite triggers", "t.xml", made.triggers, session.load, (xml,)),
    Case("Localite targets", "targets.xml", made.targets, session.load_poses, (xml,)),
    Case("poses npy", "poses.npy", made.npy, session.load_poses, (raw, text)),
    Case("poses csv", "poses.csv", made.targets, session.load_poses, (text,)),
    Case("poses txt", "poses.txt", made.targets, session.load_poses, (text,)),
    Case("poses json", "poses.json", made.targets, session.load_poses, (json_tree,)),
    Case("recording", "emg.h5", lambda p: made.recording().save(p), session.load_emg, (raw, hdf5)),
    Case("MAT 5", "emg.mat", made.mat5, session.load_emg, (matlab,)),
    Case("MAT 5, compressed", "emg.mat", lambda p: made.mat5(p, True), session.load_emg, (matlab,)),
    Case("MAT 7.3", "emg.mat", made.mat73, session.load_emg, (raw, hdf5)),
    Case("EMG csv", "emg.csv", made.csv, session.load_emg, (text,)),
    Case("EMG tsv", "emg.tsv", lambda p: made.csv(p, "\t"), session.load_emg, (text,)),
    Case("EMG txt", "emg.txt", lambda p: made.csv(p, " "), session.load_emg, (text,)),
    Case("EDF", "emg.edf", made.edf, session.load_emg, (raw, text), 0.3, ("mne",)),
    Case("BrainVision", "emg.vhdr", made.brainvision, session.load_emg, (text,), 0.3, ("mne",)),
    Case(
        "BrainVision markers",
        "emg.vmrk",
        lambda p: made.brainvision(p.with_suffix(".vhdr")),
        lambda p: session.load_emg(p.with_suffix(".vhdr")),
        (text,),
        0.3,
        ("mne",),
    ),
    Case(
        "BIDS channels",
        "sub-1_channels.tsv",
        made.sidecar,
        lambda p: session.load_emg(p.with_name("sub-1_emg.edf")),
        (text,),
        0.3,
        ("mne",),
    ),
    Case("NWB", "emg.nwb", made.nwb, lambda p: session.load_emg(p, name="EMG"), (raw, hdf5), 0.1, ("pynwb",)),
    Case("c3d", "emg.c3d", made.c3d, session.load_emg, (raw,), 0.3, ("ezc3d",)),
    Case("rectified EMG", "emg.h5", made.rectified, emg.Rectified.load, (raw, hdf5)),
    Case("activation", "act.h5", made.activation, emg.Activation.load, (raw, hdf5)),
    Case("MEPs", "meps.h5", lambda p: made.meps().save(p), muscle.Meps.load, (raw, hdf5)),
    Case("MEPs csv", "meps.csv", lambda p: made.meps().save(p), muscle.Meps.load, (text,)),
    Case("comparison", "c.h5", made.comparison, muscle.Comparison.load, (raw, hdf5)),
    Case("fields", "fields.h5", made.fields, read_fields, (raw, hdf5), 0.3),
    Case("basis", "basis.h5", made.basis, _read_basis, (raw, hdf5), 0.3),
    Case("run", "run.json", made.record, _read_record, (json_tree,)),
    Case("run of EMG", "run.json", made.record, _read_emg_run, (json_tree,)),
    Case("history", "history.jsonl", made.history, lambda p: _directory.read_history(p.parent), (json_lines,)),
    Case("parts", "x.h5.parts/run.json", made.unfinished, _read_unfinished, (json_tree,)),
    Case("part", "x.h5.parts/000000.h5", lambda p: made.unfinished(p.with_name("run.json")), _read_unfinished, (raw,)),
    Case(
        "plans",
        "population-plans.json",
        lambda p: p.write_text('{"a": {"chunk": 2}}'),
        _chunking._read_plans,
        (json_tree,),
    ),
    Case("muscle model", "model/model.json", made.model, lambda p: muscle.load(p.parent), (json_tree,), 0.1),
    Case("points", "points.csv", made.points, _basis_command._read_points, (text,)),
    Case("decoded csv", "y.csv", made.decoded, lambda p: _emg_command._read_targets(p, [2, 3]), (text,)),
    Case(
        "decoded npy",
        "y.npy",
        lambda p: np.save(p, np.zeros((5, 2))),
        lambda p: _emg_command._read_targets(p, [2, 3]),
        (raw, text),
    ),
    Case("mask", "mask.nii.gz", lambda p: made.nifti(p, made.labels()), read_mask, (in_gzip(raw),)),
    Case(
        "MEPs of the command",
        "meps.csv",
        lambda p: made.meps().save(p),
        lambda p: _muscle_input.select_meps(p, 6, None, None),
        (text,),
    ),
)
