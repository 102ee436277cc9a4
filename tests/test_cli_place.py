"""`jaxm2m place`: the files it writes, that they agree with each other, and what it says about bad input."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_head import save_labels, shells
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.efield import _basis_sources

pytestmark = pytest.mark.host

TARGET = (0.0, 0.0, 23.0)
FILES = [
    "marker.nii.gz",
    "placement.json",
    "pose.txt",
    "search.png",
    "table.csv",
    "targets_brainsight.txt",
    "targets_localite.xml",
]


def few(make):
    """Of one turn: sums of it are quick to compile."""
    return lambda **sizes: make(**{"sides": 12, "turns": 1, "layers": 1, **sizes})


def coarse(coil):
    return jm.coil.tabulate(coil, spacing=10.0, reach=200.0)


@pytest.fixture(scope="module", autouse=True)
def small_coils():
    with pytest.MonkeyPatch.context() as patch:
        names = {**vars(jm.coil), "tabulate": coarse}
        names |= {name: few(names[name]) for name in ("figure8", "circular")}
        patch.setattr(_basis_sources, "coils", SimpleNamespace(**names))
        patch.setattr(jm.coil, "figure8", few(jm.coil.figure8))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small head of coarse shells, and files that are none."""
    folder = tmp_path_factory.mktemp("place")
    save_labels(folder / "head.nii.gz", shells())
    (folder / "text.h5").write_text("no HDF5")
    (folder / "file").write_text("x")
    return folder


def place(folder, **options):
    options = {"head": folder / "head.nii.gz", "coil": "figure8", "spacing": "4", **options}
    options.setdefault("target", ",".join(map(str, TARGET)))
    words = ["place"]
    for name, value in options.items():
        if value is None:
            continue
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", str(each)]
    return CliRunner().invoke(cli.app, words)


def read(path):
    return json.loads((path / "placement.json").read_text())


@pytest.mark.slow
def test_all_files_hold_the_same_pose(folder, tmp_path):
    out = tmp_path / "new" / "results"
    options = {"starts": 2, "evaluations": 3, "avoid": ["0,45,0,4", "60,0,0,5.5"], "tilt": 5, "seed": 3}
    done = place(folder, out=out, **options)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == FILES
    said = read(out)
    best = np.asarray(said["ranked"][0]["pose"])
    head = jm.head.load(folder / "head.nii.gz", 4.0)

    settings = said["settings"]
    assert settings["avoid_mm"] == [[0, 45, 0, 4], [60, 0, 0, 5.5]]
    assert (settings["starts"], settings["evaluations"], settings["tilt_degrees"], settings["seed"]) == (2, 3, 5, 3)
    assert settings["basis"] is None
    assert said["checked"] is None
    assert said["left_out"] == {}
    assert said["versions"]["jaxm2m"] == jm.__version__
    assert len(said["reasons"]) == 2
    # with zones the starts are evaluated once more
    assert said["evaluations"] <= 2 * (3 + 1)
    values = [entry["value"] for entry in said["ranked"]]
    assert values == sorted(values, reverse=True)
    # the value is that of the full solver
    coil = jm.coil.figure8()
    points = np.asarray(TARGET) + np.array([[0.0, 0, 0], [0, 3, 0], [0, 0, -2], [3, 0, 1]])
    e = jm.efield.Simulator(head).bind(coil, jm.efield.Points(points))(best, didt=1e6)
    assert abs(said["value"] / float(jm.placement.magnitude()(e)) - 1) < 0.1
    # neither in the head nor in a zone
    assert float(jm.coil.clearance(coil, jnp.asarray(best), head.scalp)) > 0
    for ball in settings["avoid_mm"]:
        casing = np.asarray(coil.casing.vertices) @ best[:3, :3].T + best[:3, 3]
        assert np.linalg.norm(casing - ball[:3], axis=1).min() > ball[3] - 0.5

    np.testing.assert_allclose(np.loadtxt(out / "pose.txt"), best, atol=1e-6)
    table = pd.read_csv(out / "table.csv")
    np.testing.assert_allclose(table["value"], values)
    np.testing.assert_allclose(table[["x", "y", "z"]], [np.asarray(c["pose"])[:3, 3] for c in said["ranked"]])
    for name in ("targets_brainsight.txt", "targets_localite.xml"):
        poses, space = jm.session.load_poses(out / name)
        assert space == "subject"
        np.testing.assert_allclose(poses, [c["pose"] for c in said["ranked"]], atol=1e-5)
    marker = nibabel.load(out / "marker.nii.gz")
    np.testing.assert_allclose(marker.affine, head.labels_affine)
    assert marker.shape == head.labels.shape
    assert {2} <= set(np.unique(np.asarray(marker.dataobj)))
    with Image.open(out / "search.png") as image:
        assert min(image.size) > 600

    # once more, over what is there: the same numbers; in a space that Localite cannot hold, without its file
    again = place(folder, out=out, space="Talairach", **options)
    assert again.exit_code == 0, again.output
    assert sorted(p.name for p in out.iterdir()) == [name for name in FILES if "localite" not in name]
    assert "targets_localite.xml left out" in again.output
    other = read(out)
    assert other["ranked"] == said["ranked"]
    assert other["space"] == "Talairach"
    assert list(other["left_out"]) == ["targets_localite.xml"]
    assert other["settings"] == settings


@pytest.mark.slow
def test_a_basis_is_searched_and_the_best_pose_checked(folder, tmp_path):
    head = jm.head.load(folder / "head.nii.gz", 4.0)
    sim = jm.efield.Simulator(head)
    grid = jm.efield.Grid.around(TARGET, (5, 5, 5), 2.5)
    jm.efield.Basis.build(sim, grid, tmp_path / "basis.h5", modes=100, rank=80)
    out = tmp_path / "out"
    options = {"basis": tmp_path / "basis.h5", "direction": "3,0,0", "search_radius": 10, "distance": 6}
    done = place(folder, out=out, starts=2, evaluations=8, didt="2e6", **options)
    assert done.exit_code == 0, done.output
    said = read(out)
    assert said["settings"]["objective"] == "mean E along (3, 0, 0) in the target"
    assert said["settings"]["basis"] == "basis.h5"
    # the field under the coil runs along its y axis, and so y turns to the direction
    best = np.asarray(said["ranked"][0]["pose"])
    assert abs(best[0, 1]) > 0.9
    assert said["ranked"][0]["didt"] == 2e6
    assert said["value"] > 0
    assert abs(said["checked"] / said["value"] - 1) < 0.03
    assert f"by a full solve {said['checked']:.4g}" in done.output

    # a basis of another head is refused before the search
    refused = place(folder, out=out, **{**options, "spacing": "8"})
    assert refused.exit_code == 2
    assert "--basis: the basis was built with another head" in refused.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "1,2"}, "--target: '1,2'; give X,Y,Z in mm"),
        ({"target": "1,2,nan"}, "--target: '1,2,nan'"),
        ({"target": "0,0,90"}, "lies outside the head"),
        ({"target": "0,0,34"}, "--target: no grey matter within 2 mm"),
        ({"target": "C3"}, "MNI152"),
        ({"direction": "0,0,0"}, "--direction: 0,0,0"),
        ({"direction": "1,0"}, "--direction: '1,0'"),
        ({"avoid": ["0,0,0,5", "1,2,3"]}, "--avoid: '1,2,3'; give X,Y,Z,R in mm"),
        ({"avoid": ["0,0,0,5", "1,2,3,-1"]}, "--avoid: -1"),
        ({"basis": "absent.h5"}, "absent.h5 does not exist"),
        ({"basis": "{}/text.h5"}, "text.h5"),
        ({"basis": "{}/head.nii.gz"}, "--basis: "),
        ({"head": "absent.nii.gz"}, "--head: absent.nii.gz does not exist"),
        ({"coil": "absent.ccd"}, "--coil: absent.ccd does not exist"),
        ({"out": "{}/file"}, "--out: "),
        ({"starts": 0}, "--starts: 0"),
        ({"evaluations": 0}, "--evaluations: 0"),
        ({"seed": -1}, "--seed: -1"),
        ({"tilt": 70}, "--tilt: 70"),
        ({"distance": -1}, "--distance: -1"),
        ({"radius_target": 0}, "--radius-target: 0"),
        ({"search_radius": "inf"}, "--search-radius: inf"),
        ({"didt": "nan"}, "--didt: nan"),
        ({"spacing": 0}, "--spacing: 0"),
    ],
)
def test_bad_input_is_one_line_before_any_work(folder, tmp_path, monkeypatch, options, words):
    monkeypatch.delenv("JAXM2M_TRACEBACK", raising=False)
    monkeypatch.setattr(jm.efield, "Simulator", lambda *_, **__: pytest.fail("the operator was built"))
    options = {k: v.format(folder) if isinstance(v, str) else v for k, v in options.items()}
    done = place(folder, **{"out": tmp_path / "out", "radius_target": 2, **options})
    assert done.exit_code == 2, done.output
    stages = ("the head", "head: ", "coil: ", "warning: ")
    lines = [line for line in done.output.splitlines() if not line.lower().startswith(stages)]
    assert len(lines) == 1
    assert lines[0].startswith("jaxm2m place: ")
    assert words in lines[0]
    assert not (tmp_path / "out" / "placement.json").exists()


def test_a_coil_without_a_casing_cannot_avoid(folder, tmp_path, monkeypatch):
    bare = replace(jm.coil.figure8(), casing=None)
    monkeypatch.setattr(jm.coil, "figure8", lambda: bare)
    monkeypatch.setattr(jm.efield, "Simulator", lambda *_, **__: pytest.fail("the operator was built"))
    done = place(folder, out=tmp_path / "out", avoid=["0,0,60,5"])
    assert done.exit_code == 2
    assert "avoid: the coil has no casing" in done.output
