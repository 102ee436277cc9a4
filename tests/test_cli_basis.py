"""`jaxm2m basis`: what it builds and prints, its exit statuses, and what it says about bad input."""

import re
import subprocess
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from small_head import radii, save_labels, shells
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli

pytestmark = [pytest.mark.host, pytest.mark.slow]

MODES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small head, poses over it, and files that are none of both."""
    folder = tmp_path_factory.mktemp("cli")
    labels = shells()
    save_labels(folder / "head.nii.gz", labels)
    labels[radii() < 15] = 4
    save_labels(folder / "other.nii.gz", labels)
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (2, 1, 1))
    poses[:, 2, 3] = 46, 60
    np.save(folder / "poses.npy", poses)
    (folder / "mni.json").write_text(f'{{"poses": {poses.tolist()}, "space": "MNI152"}}')
    poses[1, 2, 3] = 20
    np.save(folder / "inside.npy", poses)
    (folder / "points.csv").write_text("x,y,z\n0,0,20  # the first\n0, 2, 20\n\n1;0;19\n")
    (folder / "four.csv").write_text("x,y,z\n0,0,20\n0,2,20,5\n")
    (folder / "words.txt").write_text("no\nnumbers\n")
    (folder / "nan.csv").write_text("0,0,nan\n")
    (folder / "outside.csv").write_text("0,0,20\n0,0,99\n")
    (folder / "latin.csv").write_bytes(b"0,0,20 # \xe9\n")
    (folder / "text.h5").write_text("no HDF5")
    return folder


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Coarse tables of one dipole for those of all coils, which would take most of a small build."""
    with pytest.MonkeyPatch.context() as patch:
        tabulate = jm.coil.tabulate
        dipole = jm.coil.Dipoles(jnp.array([[0.0, 0, -5]]), jnp.array([[0, 0, 0.1]]))

        def table(coil):
            return tabulate(replace(coil, elements=(dipole,)), spacing=20.0, reach=120.0)

        patch.setattr(jm.coil, "tabulate", table)
        yield


@pytest.fixture(scope="module")
def built(folder):
    done = build(folder, out=folder / "basis.h5")
    assert done.exit_code == 0, done.output
    return done


def words(command, options):
    found = list(command)
    for name, value in options.items():
        if value is not None:
            found += [f"--{name}", str(value)]
    return found


def build(folder, **changes):
    options = {
        "head": folder / "head.nii.gz",
        "roi": "0,0,20",
        "shape": "5,4,3",
        "step": 2,
        "spacing": 4,
        "modes": MODES,
        "rank": 4,
    } | changes
    return CliRunner().invoke(cli.app, words(("basis", "build"), options))


def check(folder, name="basis.h5", **changes):
    options = {"head": folder / "head.nii.gz", "spacing": 4, "limit": 1e9} | changes
    return CliRunner().invoke(cli.app, words(("basis", "check", str(folder / name)), options))


def table(done):
    """Coil, error and estimate of each printed line."""
    rows = [re.fullmatch(r"(.+?) +([\d.]+) +([\d.]+)", line) for line in done.stdout.splitlines()]
    return [(row[1], float(row[2]), float(row[3])) for row in rows if row]


def test_a_basis_is_built_and_its_errors_printed(folder, built):
    basis = jm.efield.Basis.load(folder / "basis.h5")
    expected = jm.efield.Grid.around((0, 0, 20), shape=(5, 4, 3), spacing=2.0)
    np.testing.assert_array_equal(basis.roi.affine, expected.affine)
    assert basis.roi.shape == expected.shape
    assert basis.solver.modes.shape[0] == 4
    rows = basis.accuracy
    assert table(built) == [
        (row.coil, pytest.approx(row.error, abs=1e-3), pytest.approx(row.estimate, abs=1e-3))
        for row in rows.itertuples()
    ]
    assert f"median error {rows.error.median():.3f} %, largest {rows.error.max():.3f} %" in built.stdout
    assert f"4 components at {len(basis.active)} points" in built.stderr
    assert not (folder / "basis.h5.parts").exists()


def test_the_same_command_again_computes_nothing_and_another_one_is_refused(folder, built, monkeypatch):
    monkeypatch.setattr(jm.efield.Simulator, "bind", None)
    again = build(folder, out=folder / "basis.h5")
    assert again.exit_code == 0
    assert again.stdout == built.stdout
    refused = build(folder, out=folder / "basis.h5", modes=MODES + 1)
    assert refused.exit_code == 2
    assert f"modes ({MODES} solves, rank 4 then, {MODES + 1} solves, rank 4 now)" in refused.output


def test_points_instead_of_a_grid(folder, monkeypatch):
    seen = []

    def recorded(sim, roi, path, **options):
        seen.append((sim.interfaces, np.asarray(roi.positions()), path, options))
        raise ValueError("seen")

    monkeypatch.setattr(jm.efield.Basis, "build", recorded)
    done = build(folder, out=folder / "p.h5", roi=None, points=folder / "points.csv", interfaces="arithmetic")
    assert "basis build: seen" in done.output
    interfaces, points, path, options = seen[0]
    assert interfaces == "arithmetic"
    np.testing.assert_array_equal(points, [[0, 0, 20], [0, 2, 20], [1, 0, 19]])
    assert path == folder / "p.h5"
    assert options == {"modes": MODES, "rank": 4}


def test_an_interrupted_build_says_how_to_go_on(folder, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(jm.efield.Basis, "build", interrupted)
    stopped = build(folder, out=folder / "i.h5")
    assert stopped.exit_code == 130
    assert f"0 of {MODES} modes are stored. The same command goes on" in stopped.output


def test_a_check_compares_with_full_solves(folder, built):
    done = check(folder, coil="figure8", poses=folder / "poses.npy")
    assert done.exit_code == 0, done.output
    basis = jm.efield.Basis.load(folder / "basis.h5")
    sim = jm.efield.Simulator(jm.head.load(folder / "head.nii.gz", 4.0))
    expected = basis.check(sim, jm.coil.figure8(), np.load(folder / "poses.npy"))
    assert table(done) == [
        (row.coil, pytest.approx(row.error, abs=1e-3), pytest.approx(row.estimate, abs=1e-3))
        for row in expected.itertuples()
    ]
    # random poses of that coil, which are always the same
    several = check(folder, coil="figure8", count=3)
    assert several.exit_code == 0, several.output
    assert len(table(several)) == 3
    assert several.output == check(folder, coil="figure8", count=3).output


def test_the_exit_status_tells_errors_above_the_limit(folder, built):
    largest = jm.efield.Basis.load(folder / "basis.h5").accuracy.error.max()
    passed = check(folder, limit=1.01 * largest)
    assert passed.exit_code == 0, passed.output
    assert [row[1] for row in table(passed)] == pytest.approx([row[1] for row in table(built)], rel=0.01)
    failed = check(folder, limit=0.99 * largest)
    assert failed.exit_code == 1
    assert failed.stdout == passed.stdout
    last = failed.stderr.splitlines()[-1]
    assert last == f"the largest error, {largest:.3g} %, is above the limit of {0.99 * largest:g} %."


BAD_BUILD = {
    "no head": ({"head": "none.nii.gz"}, "--head: none.nii.gz does not exist"),
    "no region": ({"roi": None}, "--roi: give the centre of a grid, or --points FILE"),
    "two regions": ({"points": "{}/points.csv"}, "--roi: give the centre of a grid, or --points FILE"),
    "roi of words": ({"roi": "a,b,c"}, "--roi: 'a,b,c'"),
    "shape": ({"shape": "80,80"}, "--shape: '80,80'; give three whole numbers"),
    "step": ({"step": 0}, "--step: 0; give a positive number"),
    "spacing": ({"spacing": -1}, "--spacing: -1"),
    "modes": ({"modes": 1}, "--modes: 1; must be at least 2"),
    "rank": ({"rank": 0}, "--rank: 0; must be at least 1"),
    "rank above modes": ({"rank": MODES + 1}, f"--rank: {MODES + 1}; no more components than --modes"),
    "interfaces": ({"interfaces": "soft"}, "--interfaces: 'soft'; choose one of 'tensor'"),
    "kind of out": ({"out": "basis.npz"}, "--out: basis.npz does not end in .h5"),
    "folder of out": ({"out": "nowhere/basis.h5"}, "--out: the folder nowhere does not exist"),
    "space of the atlas": ({"head": "atlas", "space": "subject"}, "--space: the atlas is in MNI152"),
    "no points": ({"roi": None, "points": "none.csv"}, "--points: none.csv does not exist"),
    "points of four": ({"roi": None, "points": "{}/four.csv"}, "--points: .*four.csv, line 3: not three numbers"),
    "points of words": ({"roi": None, "points": "{}/words.txt"}, "--points: .*words.txt has no row of three numbers"),
    "points of NaN": ({"roi": None, "points": "{}/nan.csv"}, "--points: .*nan.csv: 1 of 3 values are NaN"),
    "points in Latin-1": ({"roi": None, "points": "{}/latin.csv"}, "--points: .*latin.csv is not UTF-8"),
    "points outside": ({"roi": None, "points": "{}/outside.csv"}, "roi: 1 of 2 points lie outside the head"),
    "roi beside the head": ({"roi": "200,0,0"}, "roi: none of the 60 points of the grid lies in grey or white"),
}


@pytest.mark.parametrize("case", BAD_BUILD)
def test_bad_input_of_a_build_is_one_message(folder, case):
    changes, told = BAD_BUILD[case]
    changes = {k: v.format(folder) if isinstance(v, str) else v for k, v in changes.items()}
    refused(build(folder, **({"out": folder / f"{case}.h5"} | changes)), "build", told)
    assert not list(folder.glob(f"*{case}*"))


BAD_CHECK = {
    "no file": ({"name": "none.h5"}, "FILE: .*none.h5 does not exist"),
    "kind of file": ({"name": "poses.npy"}, "FILE: .*poses.npy is not one of .h5"),
    "no basis": ({"name": "text.h5"}, "text.h5"),
    "no head": ({"head": "none.nii.gz"}, "--head: none.nii.gz does not exist"),
    "another head": ({"head": "{}/other.nii.gz"}, "--head: the basis was built with another head"),
    "spacing": ({"spacing": 8}, r"--head: the basis was built with another head \(.* of 4 mm then, .* of 8 mm now\)"),
    "no coil": ({"coil": "none.ccd"}, "--coil: none.ccd does not exist"),
    "poses without a coil": ({"poses": "{}/poses.npy"}, "--poses: of which coil"),
    "no poses": ({"coil": "figure8", "poses": "none.csv"}, "--poses: none.csv does not exist"),
    "coil in the head": ({"coil": "figure8", "poses": "{}/inside.npy"}, r"poses: in 1 of 2 .*\[1\]"),
    "space": ({"coil": "figure8", "poses": "{}/mni.json"}, "'MNI152' space, the head in 'subject'"),
    "count": ({"count": 0}, "--count: 0; must be at least 1"),
    "limit": ({"limit": 0}, "--limit: 0; give a positive number"),
}


@pytest.mark.parametrize("case", BAD_CHECK)
def test_bad_input_of_a_check_is_one_message(folder, built, case):
    changes, told = BAD_CHECK[case]
    changes = {k: v.format(folder) if isinstance(v, str) else v for k, v in changes.items()}
    refused(check(folder, **changes), "check", told)


def refused(done, command, told):
    assert done.exit_code == 2, done.output
    lines = [line for line in done.output.splitlines() if line.startswith(f"jaxm2m basis {command}: ")]
    assert len(lines) == 1
    assert done.output.rstrip().splitlines()[-1] == lines[0]
    assert re.search(told, lines[0]), lines[0]


def test_the_program_itself(folder):
    line = words(("basis", "build"), {"head": "none.nii.gz", "roi": "0,0,0", "out": folder / "x.h5"})
    done = subprocess.run([sys.executable, "-m", "jaxm2m.cli", *line], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "jaxm2m basis build: --head: none.nii.gz does not exist; check the path.\n"
    assert done.stdout == ""
