"""What laboratories get wrong in units, spaces and axes: each mistake is told, most before the field is solved."""

import warnings

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m.cli import app

pytestmark = pytest.mark.host

RADII = {1: 55.0, 2: 60.0, 3: 63.0, 4: 70.0, 5: 76.0}  # white, grey, csf, skull, scalp, mm


def write_head(path, scale=1.0, spacing=4.0):
    """Balls in SimNIBS's numbers; the affine in mm times `scale`."""
    n = int(2 * 88 / spacing)
    centre = (np.arange(n) - (n - 1) / 2) * spacing
    radius = np.sqrt(sum(np.square(x) for x in np.meshgrid(centre, centre, centre, indexing="ij")))
    labels = np.zeros((n, n, n), np.uint8)
    for label in sorted(RADII, reverse=True):
        labels[radius <= RADII[label]] = label
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = centre[0]
    affine[:3] *= scale
    image = nibabel.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def upright(distance=6.0, place=(0.0, 0.0, 1.0)):
    place = np.array(place) / np.linalg.norm(place)
    pose = np.eye(4)
    y = np.cross(place, [1.0, 0, 0])
    pose[:3, 1] = y / np.linalg.norm(y)
    pose[:3, 2] = -place
    pose[:3, 0] = np.cross(pose[:3, 1], pose[:3, 2])
    pose[:3, 3] = (76.0 + distance) * place
    return pose


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mistakes")
    write_head(path / "head.nii.gz")
    write_head(path / "cm.nii.gz", 0.1)
    write_head(path / "m.nii.gz", 0.001)
    rows = "-0.02 0.0 -0.005 0.0 0.0 -0.02\n0.02 0.0 -0.005 0.0 0.0 0.02\n"
    for name, limit in (("coil", "100"), ("fast", "100e6")):
        (path / f"{name}.ccd").write_text(f"# coil version 1.0;dIdtmax={limit}\n2\n# dipoles\n{rows}")
    poses = {
        "right": upright(),
        "cm": scaled(upright(), 0.1),
        "outwards": upright(15.0) @ np.diag([1.0, -1, -1, 1]),
        "far": upright(150.0),
        "other side": upright(place=(0.9, 0.0, -0.6)),
    }
    for name, pose in poses.items():
        np.save(path / f"{name}.npy", pose[None])
    return path


def scaled(pose, by):
    pose = pose.copy()
    pose[:3, 3] *= by
    return pose


def compute(folder, **options):
    options = {"head": "head.nii.gz", "coil": "coil.ccd", "poses": "right.npy", "out": "e.h5"} | options
    for key in ("head", "coil", "poses", "out"):
        options[key] = folder / options[key]
    options = {"roi": "0,0,58", "shape": "6,6,6", "step": 2, "spacing": 4, "labels": "simnibs"} | options
    (folder / "e.h5").unlink(missing_ok=True)
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = CliRunner().invoke(app, ["efield", *words])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"head": "m.nii.gz"}, 2, "seems to be in metres"),
        ({"coil": "fast.ccd"}, 2, "dIdtmax"),
        ({"poses": "cm.npy"}, 2, "casing reaches that far into the head"),
    ],
)
def test_it_is_refused_before_the_solve(folder, monkeypatch, options, status, words):
    monkeypatch.setattr(jm.efield, "Simulator", lambda *_, **__: pytest.fail("the operator was built"))
    code, text = compute(folder, **options)
    assert code == status
    assert words in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"poses": "outwards.npy"}, "z must point into the head"),
        ({"poses": "far.npy"}, "far from the scalp; are they of this head"),
        ({"poses": "other side.npy"}, "left and right exchanged"),
        ({"didt": 100}, "--didt: 100 A/s; stimulators reach"),
    ],
)
def test_it_is_told_before_the_solve(folder, monkeypatch, options, words):
    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr(jm.efield, "Simulator", stop)
    _, text = compute(folder, **options)
    assert words in text


def test_a_head_in_centimetres_is_told(folder):
    with pytest.warns(UserWarning, match="the head is 15 x 15 x 15 mm large.*in cm, multiply its coordinates by 10"):
        jm.head.load(folder / "cm.nii.gz", 0.4, labels="simnibs")


def test_conductivities_in_another_unit_are_told(folder):
    with pytest.warns(UserWarning, match="conductivity: 275 S/m for grey"):
        jm.head.load(folder / "head.nii.gz", 4.0, labels="simnibs", conductivity={"grey": 275.0})


def test_a_field_that_no_coil_drives_is_told(folder):
    rows = "-0.02 0.0 -0.005 0.0 0.0 -1\n0.02 0.0 -0.005 0.0 0.0 1\n"
    (folder / "strong.ccd").write_text(f"# coil version 1.0;dIdtmax=100\n2\n# dipoles\n{rows}")
    code, text = compute(folder, coil="strong.ccd")
    assert code == 0
    assert "reaches 10" in text
    assert "over a motor cortex it is 0.1 to 5" in text


def test_nothing_is_told_of_what_is_right(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = jm.head.load(folder / "head.nii.gz", 4.0, labels="simnibs")
        coil = jm.coil.load(folder / "coil.ccd")
        jm.efield.check_poses(upright()[None], coil, head.scalp)
    code, text = compute(folder)
    assert code == 0
    assert "warning" not in text
