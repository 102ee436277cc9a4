"""`jaxm2m efield`: what it writes, and what it says about bad input."""

import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import typer
from small_head import save_labels, shells
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m.cli import _efield as module
from jaxm2m.cli._efield import _read_session_didt, efield

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small head, poses over it, and files that are none of both."""
    folder = tmp_path_factory.mktemp("cli")
    save_labels(folder / "head.nii.gz", shells())
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (3, 1, 1))
    poses[:, 2, 3] = 44, 45, 46
    np.savetxt(folder / "poses.csv", poses.reshape(3, 16), delimiter=",")
    (folder / "mni.json").write_text(json.dumps({"poses": poses.tolist(), "space": "MNI152"}))
    (folder / "subject.json").write_text(json.dumps({"poses": poses.tolist(), "space": "subject"}))
    poses[1, 2, 3] = 20
    np.save(folder / "inside.npy", poses)
    (folder / "empty.csv").write_text("")
    (folder / "words.csv").write_text("no\nnumbers\n")
    (folder / "two.csv").write_text("1e6\n2e6\n")
    return folder


def command(folder, **changes):
    options = {
        "head": folder / "head.nii.gz",
        "coil": "figure8",
        "poses": folder / "poses.csv",
        "roi": "0,0,20",
        "shape": "9,8,7",
        "step": 2,
        "spacing": 4,
        "out": folder / "fields.h5",
    } | changes
    words = ["efield"]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def run(folder, **changes):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(efield)
    app.callback()(lambda: None)  # or the command's name would be no part of the line
    return CliRunner().invoke(app, command(folder, **changes))


def test_fields_and_magnitudes_are_written(folder):
    done = run(folder, poses=folder / "subject.json", didt="2e6", nifti=True)
    assert done.exit_code == 0, done.output
    head = jm.head.load(folder / "head.nii.gz", 4.0)
    grid = jm.efield.Grid.around((0, 0, 20), shape=(9, 8, 7), spacing=2.0)
    with h5py.File(folder / "fields.h5") as file:
        e, poses = file["e"][()], file["poses"][()]
        np.testing.assert_array_equal(file["affine"][()], grid.affine)
    expected = np.asarray(grid.volume(jm.efield.Simulator(head).bind(jm.coil.figure8(), grid)(poses[2], didt=2e6)))
    np.testing.assert_allclose(e[2], expected, atol=1e-5 * np.abs(expected).max())
    assert 0.5 < np.abs(e).max() < 5  # V/m; the free coil at 2 A/us has about 2
    written = sorted((folder / "fields_magnitude").iterdir())
    assert [f.name for f in written] == [f"pose_{i:05d}.nii.gz" for i in range(3)]
    values, affine = jm.files.read_nifti(written[2])
    np.testing.assert_allclose(values, np.linalg.norm(e[2], axis=-1), rtol=1e-6)
    np.testing.assert_allclose(affine, grid.affine, atol=1e-4)

    # a row a pose, of which all say the same, is the same; as is the same command again; another one is refused
    (folder / "didt.csv").write_text("2e6\n\n2e6\n2000000\n")
    before = (folder / "fields.h5").stat().st_mtime_ns
    assert run(folder, poses=folder / "subject.json", didt=folder / "didt.csv").exit_code == 0
    assert (folder / "fields.h5").stat().st_mtime_ns == before
    assert run(folder, poses=folder / "subject.json", didt="2e6").exit_code == 0
    refused = run(folder, poses=folder / "subject.json", didt="1e6")
    assert refused.exit_code == 2
    assert "didt (2e+06 A/s then, 1e+06 A/s now)" in refused.output


@pytest.mark.slow
def test_a_basis_has_its_own_grid_and_leaves_to_solves_what_it_does_not_hold(folder):
    sim = jm.efield.Simulator(jm.head.load(folder / "head.nii.gz", 4.0))
    roi = jm.efield.Grid.around((0, 0, 20), shape=(9, 8, 7), spacing=2.0)
    basis = jm.efield.Basis.build(sim, roi, folder / "basis.h5", modes=8, rank=8)
    changes = {"roi": None, "shape": None, "step": None, "basis": folder / "basis.h5"}
    by_basis = run(folder, **changes, limit=1000, out=folder / "b.h5")
    assert by_basis.exit_code == 0, by_basis.output
    assert "largest estimated error of the basis: " in by_basis.output
    assert "solved" not in by_basis.output
    by_solves = run(folder, **changes, limit=1e-6, out=folder / "s.h5")
    assert by_solves.exit_code == 0, by_solves.output
    assert "3 of 3 poses, which the basis does not hold, were solved." in by_solves.output
    poses = np.loadtxt(folder / "poses.csv", delimiter=",").reshape(3, 4, 4)
    coil = jm.coil.figure8()
    for name, field_map in (("b.h5", basis.bind(coil, limit=10.0)), ("s.h5", sim.bind(coil, roi))):
        expected = np.asarray(roi.volume(field_map(poses)))
        with h5py.File(folder / name) as file:
            np.testing.assert_allclose(file["e"][()], expected, atol=1e-5 * np.abs(expected).max())
            np.testing.assert_array_equal(file["affine"][()], roi.affine)
    other = run(folder, **changes, spacing=5, out=folder / "o.h5")
    assert other.exit_code == 2
    assert "--basis: " in other.output
    assert "another head" in other.output


def test_many_poses_of_a_large_coil_take_its_table(folder, monkeypatch):
    poses = np.tile(np.loadtxt(folder / "poses.csv", delimiter=","), (3, 1))
    np.savetxt(folder / "nine.csv", poses, delimiter=",")
    seen = []
    monkeypatch.setattr(
        jm.efield, "compute_fields", lambda sim, coil, *_, **__: seen.append(type(coil.elements[0]).__name__)
    )
    monkeypatch.setattr(module, "_doubt_fields", lambda path: None)  # nothing was written
    tabulate = jm.coil.tabulate
    monkeypatch.setattr(jm.coil, "tabulate", lambda coil: tabulate(coil, spacing=20.0, reach=100.0))
    for changes in ({"poses": folder / "nine.csv"}, {"poses": folder / "nine.csv", "exact": True}, {}):
        done = run(folder, **changes, out=folder / "n.h5")
        assert done.exit_code == 0, done.output
    assert seen == ["PotentialGrid", "Segments", "Segments"]


def test_an_interrupted_command_says_how_to_go_on(folder, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(jm.efield, "compute_fields", interrupted)
    stopped = run(folder, out=folder / "i.h5")
    assert stopped.exit_code == 130
    assert "0 of 3 poses are stored. The same command goes on" in stopped.output


BAD = {
    "no head": ({"head": "none.nii.gz"}, "--head: none.nii.gz does not exist"),
    "no coil": ({"coil": "none.ccd"}, "--coil: none.ccd does not exist"),
    "kind of coil": ({"coil": "{}/poses.csv"}, "--coil: .* is not one of .ccd"),
    "no poses": ({"poses": "none.csv"}, "--poses: none.csv does not exist"),
    "empty poses": ({"poses": "{}/empty.csv"}, "--poses: .* is empty"),
    "words for poses": ({"poses": "{}/words.csv"}, "words.csv has no row of numbers"),
    "no image": ({"image": "none.nii"}, "--image: none.nii does not exist"),
    "roi of two": ({"roi": "1,2"}, "--roi: '1,2'; give X,Y,Z"),
    "roi of words": ({"roi": "a,b,c"}, "--roi: 'a,b,c'"),
    "roi not a number": ({"roi": "nan,0,0"}, "--roi: 'nan,0,0'"),
    "roi beside the head": ({"roi": "200,0,0"}, "roi: none of the 504 points of the grid lies in grey or white"),
    "no roi": ({"roi": None}, "--roi: give the centre of a grid, or --basis FILE, which has its own"),
    "roi of a basis": ({"basis": "b.h5"}, "--roi: give the centre of a grid, or --basis FILE.*; one of the two"),
    "shape of a basis": ({"roi": None, "basis": "b.h5"}, "--shape: the points are those of --basis; leave it out"),
    "no basis": ({"roi": None, "shape": None, "step": None, "basis": "b.h5"}, "--basis: b.h5 does not exist"),
    "limit of no basis": ({"limit": 2}, "--limit: it is that of --basis, which is not given; leave it out"),
    "shape": ({"shape": "80,80,0"}, "--shape: 80,80,0"),
    "enormous shape": ({"shape": "9999,9999,9999"}, "--shape: 9999,9999,9999; .* with less than"),
    "spacing": ({"spacing": -1}, "--spacing: -1; give a positive number"),
    "step": ({"step": 0}, "--step: 0"),
    "spacing beyond memory": ({"spacing": 0.001}, "spacing: 0.001 mm makes"),
    "tolerance": ({"tolerance": 0}, "--tolerance: 0"),
    "didt": ({"didt": "fast"}, "--didt: 'fast'; give A/s"),
    "didt of two": ({"didt": "1e6,2e6"}, "--didt: 2 numbers for a coil of 1 stimulator"),
    "didt of no file": ({"didt": "none.csv"}, "--didt: none.csv does not exist"),
    "didt of words": ({"didt": "{}/words.csv"}, "--didt: .*words.csv: '.*'; give rows of A/s"),
    "didt of other poses": ({"didt": "{}/two.csv"}, "--didt: .*two.csv has 2 rows, .* 3 poses"),
    "flip": ({"flip": True}, "--flip: figure8"),
    "interfaces": ({"interfaces": "soft"}, "--interfaces: 'soft'; choose one of 'tensor'"),
    "kind of out": ({"out": "fields.nii"}, "--out: fields.nii does not end in .h5"),
    "folder of out": ({"out": "nowhere/fields.h5"}, "--out: the folder nowhere does not exist"),
    "space": ({"poses": "{}/mni.json"}, "'MNI152' space, the head in 'subject'; .* say so: --space MNI152"),
    "coil in the head": ({"poses": "{}/inside.npy"}, r"poses: in 1 of 3 .*\[1\] 1\d\.\d mm the coil's casing"),
    "space of the atlas": ({"head": "atlas", "space": "subject"}, "--space: the atlas is in MNI152"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message(folder, case):
    changes, words = BAD[case]
    changes = {k: v.format(folder) if isinstance(v, str) else v for k, v in changes.items()}
    done = run(folder, **({"out": folder / "bad.h5"} | changes))
    assert done.exit_code == 2, done.output
    told = [line for line in done.output.splitlines() if line.startswith("jaxm2m efield: ")]
    assert len(told) == 1
    assert done.output.rstrip().splitlines()[-1] == told[0]
    assert re.search(words, told[0]), told[0]
    assert not list(folder.glob("bad*"))


def test_a_space_that_is_said_to_be_the_same_is_taken(folder, monkeypatch):
    monkeypatch.setattr(jm.efield, "compute_fields", lambda sim, *_, **__: None)
    monkeypatch.setattr(module, "_doubt_fields", lambda path: None)  # nothing was written
    done = run(folder, poses=folder / "mni.json", space="MNI152", out=folder / "s.h5")
    assert done.exit_code == 0, done.output


def test_a_coil_that_points_backwards_is_told(folder, monkeypatch):
    monkeypatch.setattr(jm.efield, "compute_fields", lambda sim, *_, **__: None)
    monkeypatch.setattr(module, "_doubt_fields", lambda path: None)  # nothing was written
    lines = ["# number of elements", "1", "0 0.01 -0.01 -1 0 0"]
    (folder / "back.ccd").write_text("\n".join(lines) + "\n")
    done = run(folder, coil=folder / "back.ccd", out=folder / "s.h5")
    assert "warning: " in done.output
    assert "Traceback" not in done.output


def test_the_program_itself(folder):
    words = command(folder, head="none.nii.gz")
    done = subprocess.run([sys.executable, "-m", "jaxm2m.cli", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "jaxm2m efield: --head: none.nii.gz does not exist; check the path.\n"
    assert done.stdout == ""


def markers(path, rates, percent):
    """A Localite file of stimuli along z, with dI/dt (A/us) and %MSO."""
    lines = ['<TriggerMarkerList coordinateSpace="RAS"><ResponseParameters/>']
    for k, (rate, share) in enumerate(zip(rates, percent, strict=True)):
        pose = np.diag([1.0, -1, -1, 1])
        pose[2, 3] = 44 + k
        matrix = pose @ np.linalg.inv(np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]))
        numbers = " ".join(f'data{i}{j}="{matrix[i, j]}"' for i in range(4) for j in range(4))
        lines.append(
            f'<TriggerMarker><ResponseValues><Value key="valueA" response="{rate}"/>'
            f'<Value key="amplitudeA" response="{share}"/></ResponseValues><Matrix4D {numbers}/></TriggerMarker>'
        )
    path.write_text("\n".join([*lines, "</TriggerMarkerList>"]))
    return path


def test_intensities_of_the_session(tmp_path, capsys):
    figure8 = jm.coil.figure8()
    recorded = markers(tmp_path / "a.xml", (60, 75.5), (45, 55))
    assert _read_session_didt(recorded, None, figure8) == [(60e6,), (75.5e6,)]
    assert "dI/dt as recorded: 60 to 75.5 A/us." in capsys.readouterr().err
    percent = markers(tmp_path / "b.xml", ("NaN", "NaN"), (40, 80))
    from_file = jm.coil.figure8(didt_max=1.5e8)
    assert _read_session_didt(percent, None, from_file) == [pytest.approx((0.6e8,)), pytest.approx((1.2e8,))]
    with pytest.raises(ValueError, match="carries no largest dI/dt"):
        _read_session_didt(percent, None, figure8)
    with pytest.raises(ValueError, match="no %MSO for 1 of 2 poses"):
        _read_session_didt(markers(tmp_path / "c.xml", ("NaN", 5), (40, "NaN")), None, from_file)
    with pytest.raises(ValueError, match=r"--didt: .*poses\.csv is no navigator's export"):
        _read_session_didt(tmp_path / "poses.csv", None, from_file)


def test_poses_are_drawn_back_when_asked(folder):
    done = run(folder, poses=folder / "inside.npy", out=folder / "cleared.h5", **{"clear-casing": True})
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert re.search(r"--clear-casing: 1 of 3 poses drawn back \(counted from 0\): \[1\] by 1\d\.\d mm\.", text)
    inside = np.load(folder / "inside.npy")
    with h5py.File(folder / "cleared.h5") as file:
        moved = file["poses"][()] - inside
    np.testing.assert_array_equal(moved[[0, 2]], 0)
    np.testing.assert_allclose(moved[1, :3, 3] / np.linalg.norm(moved[1, :3, 3]), -inside[1, :3, 2], atol=1e-5)
