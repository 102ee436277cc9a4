"""Many poses to HDF5: what the file holds, and that kills, full disks and changed input do no harm."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

import jaxm2m as jm
from jaxm2m.efield import _compute_fields

pytestmark = [pytest.mark.host, pytest.mark.slow]

# The run that is killed: arguments are the folder and the moment at which it kills itself.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
import jaxm2m as jm
from jaxm2m.efield import _compute_fields

folder, moment = Path(sys.argv[1]), sys.argv[2]
write_bytes, os_replace, copy = Path.write_bytes, os.replace, jm.files.write_chunks
written = []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def half(self, data):
    written.append(self)
    if moment == "half written" and len(written) == 2:
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        die()
    return write_bytes(self, data)

def renaming(source, target):
    if moment == "before the name" and len(written) == 2:
        die()
    os_replace(source, target)
    if moment == "complete" and Path(target) == folder / "e.h5":
        die()

def copying(data, chunks, start=0):
    copy(data, chunks, start)
    if moment == "assembling" and start == 2:
        die()

Path.write_bytes, os.replace, jm.files.write_chunks, _compute_fields._SMALL = half, renaming, copying, 1
head = jm.head.load(folder / "head.nii.gz", 4.0)
coil = jm.coil.figure8(inner_diameter=10, outer_diameter=20, wing_distance=22, turns=2, layers=1, sides=12)
grid = jm.efield.Grid.around((0, 0, 20), shape=(12, 11, 10), spacing=2.0)
poses = np.load(folder / "poses.npy")
jm.efield.compute_fields(jm.efield.Simulator(head), coil, poses, folder / "e.h5", roi=grid, didt=2e6)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    axes = (np.arange(40) - 19.5) * 2
    radius = np.linalg.norm(np.stack(np.meshgrid(axes, axes, axes, indexing="ij")), axis=0)
    labels = np.zeros(radius.shape, np.uint8)
    for label, limit in ((1, 36), (2, 32), (3, 28), (4, 26), (5, 20)):
        labels[radius < limit] = label
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = axes[0]
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "head.nii.gz")
    return folder


@pytest.fixture(scope="module")
def head(folder):
    return jm.head.load(folder / "head.nii.gz", 4.0)


@pytest.fixture(scope="module")
def sim(head):
    return jm.efield.Simulator(head)


@pytest.fixture(scope="module")
def coil():
    return jm.coil.figure8(inner_diameter=10, outer_diameter=20, wing_distance=22, turns=2, layers=1, sides=12)


@pytest.fixture(scope="module")
def poses(folder):
    """Five poses over the top of the head, which need no scalp to be found."""
    result = np.tile(np.eye(4), (5, 1, 1))
    for i, angle in enumerate(np.linspace(-0.4, 0.4, 5)):
        c, s = np.cos(angle), np.sin(angle)
        result[i, :3, :3] = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ np.diag([1.0, -1, -1])
        result[i, :3, 3] = -(42 + i) * result[i, :3, 2]
    np.save(folder / "poses.npy", result)
    return result


@pytest.fixture(scope="module")
def grid():
    return jm.efield.Grid.around((0, 0, 20), shape=(12, 11, 10), spacing=2.0)


@pytest.fixture(autouse=True)
def one_pose_a_part(monkeypatch):
    monkeypatch.setattr(_compute_fields, "_SMALL", 1)


@pytest.fixture(scope="module")
def whole(folder, sim, coil, poses, grid):
    """The uninterrupted run."""
    path = folder / "whole.h5"
    small, _compute_fields._SMALL = _compute_fields._SMALL, 1
    assert jm.efield.compute_fields(sim, coil, poses, path, roi=grid, didt=2e6) == path
    _compute_fields._SMALL = small
    return path


def read(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def same(a, b):
    a, b = read(a), read(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


def test_a_grid_is_written_as_the_networks_take_it(whole, sim, coil, poses, grid):
    with jm.files.open_hdf5(whole) as file:
        e = file["e"]
        assert e.shape == (5, 12, 11, 10, 3)
        assert e.dtype == np.float32
        assert (e.chunks, e.compression, e.shuffle) == ((1, 12, 11, 10, 3), "gzip", True)
        expected = np.asarray(grid.volume(sim.bind(coil, grid)(poses, didt=2e6)))
        np.testing.assert_allclose(e[()], expected, atol=1e-5 * np.abs(expected).max())
        assert (expected == 0).all(-1).any()  # points outside the brain are part of the test
        assert ((e[()] == 0) == (expected == 0)).all()
        np.testing.assert_array_equal(file["poses"][()], poses)
        np.testing.assert_array_equal(file["didt"][()], np.full(5, 2e6))
        np.testing.assert_array_equal(file["affine"][()], grid.affine)
        assert (file["iterations"][()] > 0).all()
        assert (file["residual"][()] <= 1e-5).all()
        assert file.attrs["space"] == "subject"
        assert file.attrs["jaxm2m"] == jm.__version__
        assert json.loads(file.attrs["tissues"])[0] == sim.head.tissues[0]
        # the tissue of each point, -1 where there is no field
        tissue = file["tissue"][()]
        assert (tissue.dtype, tissue.shape) == (np.int8, grid.shape)
        field_map = sim.bind(coil, grid)
        np.testing.assert_array_equal(np.flatnonzero(tissue.ravel() >= 0), field_map.active)
        np.testing.assert_array_equal(tissue.ravel()[np.asarray(field_map.active)], field_map.tissue)
    assert not (whole.parent / "whole.h5.parts").exists()


def test_a_complete_file_is_left_alone(whole, sim, coil, poses, grid, monkeypatch):
    before = whole.read_bytes(), whole.stat().st_mtime_ns
    monkeypatch.setattr(_compute_fields, "_compute_parts", None)
    jm.efield.compute_fields(sim, coil, poses, whole, roi=grid, didt=2e6)
    assert (whole.read_bytes(), whole.stat().st_mtime_ns) == before


def test_points_share_parts_and_each_pose_has_its_didt(tmp_path, monkeypatch, sim, coil, poses):
    monkeypatch.setattr(_compute_fields, "_SMALL", 1 << 20)
    monkeypatch.setattr(_compute_fields, "_MOST", 3)  # five poses in parts of three: the last one is filled up
    xyz = np.array([[0.0, 0, 15], [3, -2, 18], [-5, 1, 22]])
    rates = np.array([1e6, -2e6, 0, 3e6, 5e5])
    path = jm.efield.compute_fields(sim, coil, poses, tmp_path / "e.h5", roi=jm.efield.Points(xyz), didt=rates)
    found = read(path)
    expected = np.asarray(sim.bind(coil, jm.efield.Points(xyz))(poses, didt=1.0)) * rates[:, None, None]
    assert found["e"].shape == (5, 3, 3)
    np.testing.assert_allclose(found["e"], expected, atol=1e-4 * np.abs(expected).max())
    assert (found["e"][2] == 0).all()
    np.testing.assert_array_equal(found["points"], xyz)
    np.testing.assert_array_equal(found["didt"], rates)
    assert "affine" not in found


def run(folder, moment):
    # each compiles anew: jax 0.10.1 may hang on a program that it reads from its cache
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), moment],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bits(folder, whole, sim, coil, poses, grid):
    path, parts = folder / "e.h5", folder / "e.h5.parts"

    def stored():
        return sorted(f.name for f in parts.glob("[0-9]*.h5"))

    # each run goes on from what the one before left
    for moment, least, most in (
        ("half written", 1, 1),
        ("before the name", 2, 2),
        ("at any time", 3, 5),
        ("assembling", 5, 5),
    ):
        process = run(folder, moment)
        if moment == "at any time":
            until = time.monotonic() + 120
            while len(stored()) < 3 and process.poll() is None and time.monotonic() < until:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL, errors
        assert not path.exists()
        assert least <= len(stored()) <= most, moment
        assert jm.files.count_stored(path) == len(stored())
        if moment == "half written":
            assert list(parts.glob(".*~000001.h5"))  # the torn file is there, under no name that counts
    process = run(folder, "complete")
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert path.exists()
    assert parts.exists()
    same(path, whole)
    assert jm.efield.compute_fields(sim, coil, poses, path, roi=grid, didt=2e6) == path
    assert not parts.exists()
    same(path, whole)


class Stop(Exception):
    pass


@pytest.fixture
def unfinished(tmp_path, sim, coil, poses, grid, monkeypatch):
    """Three of five poses are stored."""
    path = tmp_path / "e.h5"
    store = _compute_fields._store

    def store_three(run, index, *rest):
        if index >= 3:
            raise Stop
        return store(run, index, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(_compute_fields, "_store", store_three)
        with pytest.raises(Stop):
            jm.efield.compute_fields(sim, coil, poses, path, roi=grid, didt=2e6)
    assert jm.files.count_stored(path) == 3
    assert not path.exists()
    return path


def test_stored_poses_are_not_computed_again(unfinished, whole, sim, coil, poses, grid, monkeypatch):
    computed = []
    store = _compute_fields._store
    monkeypatch.setattr(_compute_fields, "_store", lambda run, i, *rest: computed.append(i) or store(run, i, *rest))
    jm.efield.compute_fields(sim, coil, poses, unfinished, roi=grid, didt=2e6)
    assert computed == [3, 4]
    same(unfinished, whole)


def test_a_damaged_part_is_computed_again(unfinished, whole, sim, coil, poses, grid):
    part = unfinished.with_name("e.h5.parts") / "000001.h5"
    os.truncate(part, part.stat().st_size // 2)
    assert jm.files.count_stored(unfinished) == 2
    jm.efield.compute_fields(sim, coil, poses, unfinished, roi=grid, didt=2e6)
    same(unfinished, whole)


def changes(sim, coil, poses, grid):
    head = sim.head
    fractions = head.fractions.copy()
    fractions[:, 8, 8, 8] *= 0.5
    moved = poses.copy()
    moved[4, 2, 3] += 1e-9
    yield "didt (2e+06 A/s then, 1e+06 A/s now)", sim, coil, poses, grid, 1e6
    yield "poses (5 then, 4 now)", sim, coil, poses[:4], grid, 2e6
    yield "another poses;", sim, coil, moved, grid, 2e6
    yield "another coil;", sim, jm.coil.figure8(inner_diameter=11, outer_diameter=20, turns=2), poses, grid, 2e6
    other = jm.efield.Grid.around((0, 0, 21), shape=(12, 11, 10), spacing=2.0)
    yield "another roi;", sim, coil, poses, other, 2e6
    yield "tolerance (1e-05 then, 1e-06 now)", jm.efield.Simulator(head, tolerance=1e-6), coil, poses, grid, 2e6
    yield "interfaces (tensor", jm.efield.Simulator(head, interfaces="arithmetic"), coil, poses, grid, 2e6
    yield "another head;", jm.efield.Simulator(replace(head, fractions=fractions)), coil, poses, grid, 2e6
    salty = jm.efield.Simulator(replace(head, conductivity=head.conductivity * 2))
    yield "another conductivity (", salty, coil, poses, grid, 2e6


@pytest.mark.skipif(os.environ.get("JAX_ENABLE_X64", "0") not in ("", "0"), reason="names float32's tolerance")
def test_other_input_is_refused_and_named(unfinished, whole, sim, coil, poses, grid):
    for words, sim_, coil_, poses_, grid_, didt in changes(sim, coil, poses, grid):
        for path in (unfinished, whole):
            with pytest.raises(ValueError, match="was begun with another") as error:
                jm.efield.compute_fields(sim_, coil_, poses_, path, roi=grid_, didt=didt)
            assert words in str(error.value), str(error.value)
            assert str(path) in str(error.value)
    assert jm.files.count_stored(unfinished) == 3


def test_one_writer(tmp_path, sim, coil, poses, grid):
    with jm.files.lock(tmp_path / "e.h5"), pytest.raises(RuntimeError, match="in use by process"):
        jm.efield.compute_fields(sim, coil, poses, tmp_path / "e.h5", roi=grid)


def test_a_full_disk_keeps_what_is_done(tmp_path, whole, sim, coil, poses, grid, monkeypatch):
    path = tmp_path / "e.h5"
    write, written = Path.write_bytes, []

    def full(self, data):
        written.append(self)
        if len(written) == 3:
            write(self, bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="no space left") as error:
            jm.efield.compute_fields(sim, coil, poses, path, roi=grid, didt=2e6)
    # the next batch was being computed, and is stored if there is room
    assert "2 of 5 poses are kept" in str(error.value)
    assert not path.exists()
    jm.efield.compute_fields(sim, coil, poses, path, roi=grid, didt=2e6)
    same(path, whole)


def test_a_disk_that_will_be_full_is_told_after_the_first_pose(tmp_path, sim, coil, poses, grid, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
    with pytest.raises(OSError, match=r"5 poses need about .* GB more"):
        jm.efield.compute_fields(sim, coil, poses, tmp_path / "e.h5", roi=grid)
    assert jm.files.count_stored(tmp_path / "e.h5") == 1


def test_all_bad_poses_are_named_before_anything_is_written(tmp_path, sim, coil, poses, grid):
    bad = poses.copy()
    bad[1, :3, 0] *= 2
    bad[3, :3, :3] *= -1
    with pytest.raises(ValueError, match=r"poses: 2 of 5 .*\[1\] axes of lengths.*\[3\] left-handed"):
        jm.efield.compute_fields(sim, coil, bad, tmp_path / "e.h5", roi=grid)
    inside = poses.copy()
    inside[[0, 4], :3, 3] *= 0.7
    with pytest.raises(ValueError, match=r"in 2 of 5 .*\[0\] \d+\.\d mm, \[4\] \d+\.\d mm the coil's casing"):
        jm.efield.compute_fields(sim, coil, inside, tmp_path / "e.h5", roi=grid)
    with pytest.raises(ValueError, match=r"poses: shape \(4, 4\)"):
        jm.efield.compute_fields(sim, coil, poses[0], tmp_path / "e.h5", roi=grid)
    assert not list(tmp_path.iterdir())


def test_bad_arguments(tmp_path, sim, coil, poses, grid):
    def call(path="e.h5", roi=grid, didt=1e6):
        jm.efield.compute_fields(sim, coil, poses, tmp_path / path, roi=roi, didt=didt)

    with pytest.raises(ValueError, match="does not end in"):
        call("e.nii")
    with pytest.raises(FileNotFoundError, match="make it first"):
        call("nowhere/e.h5")
    with pytest.raises(ValueError, match=r"didt: shape \(3,\) for 5 poses"):
        call(didt=np.ones(3))
    with pytest.raises(ValueError, match="didt: 1 of 5 values are NaN"):
        call(didt=np.array([1, 1, np.nan, 1, 1]))
    with pytest.raises(ValueError, match="outside the head"):
        call(roi=jm.efield.Points(np.array([[0.0, 0, 60]])))
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(FileExistsError, match="holds no fields"):
        call("text.h5")
    (tmp_path / "b.h5.parts").mkdir()
    (tmp_path / "b.h5.parts" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds no unfinished run"):
        call("b.h5")
    assert (tmp_path / "b.h5.parts" / "mine.txt").exists()


def test_a_failed_solve_is_named(tmp_path, head, coil, poses, grid):
    sim = jm.efield.Simulator(head, tolerance=1e-30)
    with pytest.raises(jm.efield.ConvergenceError, match=r"poses\[0\]: after \d+ iterations .* 0 of 5 poses are kept"):
        jm.efield.compute_fields(sim, coil, poses, tmp_path / "e.h5", roi=grid)
    assert not (tmp_path / "e.h5").exists()
