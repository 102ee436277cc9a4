import csv
import json
import os
import tempfile

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from jaxm2m import session
from jaxm2m.files import read_nifti

pytestmark = pytest.mark.host

SUFFIX = {"csv": ".csv", "txt": ".txt", "json": ".json", "brainsight": ".txt", "localite": ".xml"}
NAMES = ["M1 left", 'a "b", c; d', "#4 <&> µ"]


@pytest.fixture
def poses():
    result = np.tile(np.eye(4), (3, 1, 1))
    result[:, :3, :3] = Rotation.random(3, rng=np.random.default_rng(0)).as_matrix()
    result[:, :3, 3] = np.random.default_rng(0).uniform(-80, 80, (3, 3))
    return result


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("format", "space"),
    [("localite", s) for s in ("subject", "MNI152")]
    + [(f, s) for f in SUFFIX if f != "localite" for s in ("subject", "MNI152", "Talairach")],
)
def test_round_trip(tmp_path, poses, format, space):
    names = ["M1", "premotor, left", "<V1>"]
    for given, expected in ((poses, poses), (poses[1], poses[1:2]), (jnp.asarray(poses[:1], jnp.float32), poses[:1])):
        path = tmp_path / ("a" + SUFFIX[format])
        n = len(expected)
        written = session.save_targets(path, given, names=names[:n], space=space, format=format)
        assert written == path
        loaded, found = session.load_poses(path)
        np.testing.assert_allclose(loaded, expected, rtol=0, atol=1e-5 if given.dtype == np.float32 else 1e-6)
        assert found == (None if format in ("csv", "txt") else space)
        if format in ("brainsight", "localite"):
            again = session.load(path)
            np.testing.assert_array_equal(again.poses, loaded)
            assert (again.kind, again.names, again.space) == (("target",) * n, tuple(names[:n]), space)
    assert sorted(os.listdir(tmp_path)) == ["a" + SUFFIX[format]]  # nothing temporary stays


@pytest.mark.parametrize("format", ["csv", "txt", "json", "localite"])
def test_suffix_decides(tmp_path, poses, format):
    for name in ("a", "b.tar"):
        path = tmp_path / (name + SUFFIX[format].upper())
        session.save_targets(path, poses, space="subject")
        session.save_targets(tmp_path / "explicit", poses, space="subject", format=format)
        assert path.read_bytes() == (tmp_path / "explicit").read_bytes()


def test_csv(tmp_path, poses):
    path = session.save_targets(tmp_path / "a.csv", poses, names=NAMES, space="subject")
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", *(f"m{i}{j}" for i in range(4) for j in range(4))]
    assert [row[0] for row in rows] == NAMES
    same(np.array([row[1:] for row in rows], float), poses.reshape(3, 16))
    same(session.load_poses(path)[0], poses)
    # as spreadsheets write it
    other = tmp_path / "b.csv"
    with open(other, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([["Name", *header[1:]], *rows, [""] * 17])
    same(session.load_poses(other)[0], poses)
    session.save_targets(path, poses, names=["1", "2", "3"], space="subject")
    same(session.load_poses(path)[0], poses)


def test_bad_csv_with_names(tmp_path):
    path = tmp_path / "a.csv"
    for content, message in [
        ("name,x\nM1,1\n", "row 2: 2 cells; a row is a name and 16 numbers"),
        ("name,x\n\nM1" + ",1" * 15 + ",x\n", "row 3: not all cells after the name are numbers"),
        ("name,x\n\n", "has no row under its column names"),
        ("name,x\n" + "M" * 200_000, "row 2: not a row of CSV"),
        ("name,x\nM1" + ",1" * 16, "pose 1: last row 1, 1, 1, 1"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"path: .*a\.csv, {message}|path: .*a\.csv {message}"):
            session.load_poses(path)


def test_txt_is_plain_numbers(tmp_path, poses):
    same(np.loadtxt(session.save_targets(tmp_path / "a.txt", poses[0], space="subject")), poses[0])
    same(np.loadtxt(session.save_targets(tmp_path / "a.txt", poses, space="subject")), poses.reshape(3, 16))


def test_json(tmp_path, poses):
    path = session.save_targets(tmp_path / "a.json", poses, names=NAMES, space="MNI152")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == ["poses", "space", "names"]
    assert (content["space"], content["names"]) == ("MNI152", NAMES)
    same(content["poses"], poses)


def test_the_name_of_an_exports_space_goes_back_to_brainsight(tmp_path, poses):
    for name, space in (("NIfTI:Aligned", "subject"), ("NIfTI:Q:Aligned", "subject"), ("NIfTI:MNI-152", "MNI152")):
        path = session.save_targets(tmp_path / "a.txt", poses, space=space, format="brainsight", source_space=name)
        assert f"# Coordinate system: {name}\n" in path.read_text(encoding="utf-8")
        loaded = session.load(path)
        assert (loaded.source_space, loaded.space) == (name, space)
        same(loaded.poses, poses)
    for name, format, said in (
        ("NIfTI:MNI-152", "brainsight", "source_space: 'NIfTI:MNI-152' is none of Brainsight's names for 'subject'"),
        ("Brainsight", "brainsight", "source_space: 'Brainsight' is none"),
        ("NIfTI:Aligned\n", "brainsight", "source_space: "),
        ("NIfTI:Aligned", "json", "source_space: only Brainsight's file has one, not format 'json'"),
    ):
        with pytest.raises(ValueError, match=said):
            session.save_targets(tmp_path / "b.txt", poses, space="subject", format=format, source_space=name)


def test_brainsight_axes_and_header(tmp_path):
    pose = np.eye(4)
    pose[:3] = [[0, 0, 1, -60], [0, 1, 0, -20], [-1, 0, 0, 50]]  # x down, y forward, z to the right: into the left side
    path = session.save_targets(tmp_path / "a.txt", pose, space="subject", format="brainsight")
    *header, columns, row = path.read_text(encoding="utf-8").splitlines()
    assert header[:2] == ["# Version: 12", "# Coordinate system: NIfTI:Scanner"]
    assert columns.startswith("# Target Name\tLoc. X\tLoc. Y\tLoc. Z\tm0n0\tm0n1\tm0n2\tm1n0")
    name, *values = row.split("\t")
    assert name == "Target 1"
    # x and z turned round: up, forward, out of the head
    np.testing.assert_array_equal(np.array(values, float), [-60, -20, 50, 0, 0, 1, 0, 1, 0, -1, 0, 0])
    assert not any(value.startswith("-0.000") for value in values)


def test_localite_axes(tmp_path):
    pose = np.eye(4)
    pose[:3] = [[0, 0, 1, -60], [0, 1, 0, -20], [-1, 0, 0, 50]]
    text = session.save_targets(tmp_path / "a.xml", pose, names=["M1"], space="subject").read_text(encoding="utf-8")
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<InstrumentMarkerList coordinateSpace="RAS">')
    assert 'index="0"' in text
    assert 'description="M1" set="true"' in text
    # Localite's x into the head, y towards the handle, z the pose's x
    for key, value in {"00": 1, "10": 0, "20": 0, "01": 0, "11": -1, "02": 0, "22": -1, "03": -60, "33": 1}.items():
        assert float(text.partition(f'data{key}="')[2].partition('"')[0]) == value


def test_errors_of_targets(tmp_path, poses, monkeypatch):
    def refused(error, match, path="a.csv", poses=poses, **keywords):
        with pytest.raises(error, match=match):
            session.save_targets(tmp_path / path, poses, **{"space": "subject", **keywords})

    refused(
        ValueError,
        r"path: .*a\.tsv has none of the suffixes .csv, .txt, .xml, .json, .mat; rename it, or pass format=",
        "a.tsv",
    )
    refused(ValueError, "format: 'xlsx'; choose one of 'csv', 'txt'", format="xlsx")
    refused(ValueError, "space: 'MNI'; choose one of 'subject'", space="MNI")
    refused(ValueError, "names: 2 names for 3 poses", names=["a", "b"])
    refused(TypeError, "names: the text 'abc'; pass a list", names="abc")
    refused(ValueError, r"names\[1\]: 'b\\tc' holds a tab", names=["a", "b\tc", "d"])
    refused(ValueError, r"poses: shape \(0, 4, 4\); pass .* at least 1", poses=np.empty((0, 4, 4)))
    refused(ValueError, r"poses: shape \(1, 3, 4, 4\)", poses=poses[None])
    scaled = poses.copy()
    scaled[1, :3, :3] *= 1.1
    refused(ValueError, r"poses\[1\]: scaled, its axes have length 1\.1", poses=scaled)
    scaled[1] = np.nan
    refused(ValueError, r"poses\[1\]: holds NaN", poses=scaled)
    refused(ValueError, r"names\[0\]: '' would be no target", names=["", "b", "c"], format="brainsight")
    refused(ValueError, r"names\[2\]: '#c' would be no target", names=["a", "b", "#c"], format="brainsight")
    refused(ValueError, "space: 'Talairach', but Localite's file has no name for it", "a.xml", space="Talairach")
    nowhere = np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    refused(ValueError, r"poses\[0\]: it stands for 'no position'", "a.xml", poses=nowhere)
    refused(FileNotFoundError, "the folder .* does not exist", "absent/a.csv")
    (tmp_path / "folder.csv").mkdir()
    refused(IsADirectoryError, "is a folder; name a file in it", "folder.csv")

    def forbid(*args, **keywords):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(tempfile, "mkstemp", forbid)
    refused(PermissionError, r"path: .*a\.csv cannot be written \(Permission denied\); choose a folder that can be")
    assert os.listdir(tmp_path) == ["folder.csv"]


def test_a_failed_write_leaves_the_old_file(tmp_path, poses):
    path = session.save_targets(tmp_path / "a.txt", poses, space="subject")
    old = path.read_bytes()
    with pytest.raises(ValueError, match="names"):
        session.save_targets(path, poses, names=["#"] * 3, space="subject", format="brainsight")
    assert path.read_bytes() == old


@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize(
    "file",
    [
        "brainsight/niiImage_niftialignedcoord_no_samples.txt",
        "brainsight/niiImage_niftialigned_q_coord_v14.txt",
        "localite/InstrumentMarkers/LPS_InstrumentMarker20120925123537421.xml",
        "localite/InstrumentMarkers/RAS_InstrumentMarker20170403154022328.xml",
    ],
)
def test_users_files_come_back(data, tmp_path, file, format):
    targets = session.load(data(f"neuronav/{file}")).targets.pick(located=True)
    assert len(targets) > 1
    path = tmp_path / ("a" + SUFFIX[format])
    session.save_targets(path, targets.poses, names=targets.names, space=targets.space, format=format)
    same(session.load_poses(path)[0], targets.poses)
    if format in ("brainsight", "localite"):
        again = session.load(path)
        assert (again.names, again.kind, again.space) == (targets.names, targets.kind, targets.space)


AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])  # x runs from right to left
SHAPE = (181, 217, 181)


@pytest.fixture
def pose():
    """Over the left side, z into the head."""
    z = np.array([0.8, 0.1, -0.6]) / np.linalg.norm([0.8, 0.1, -0.6])
    y = np.cross(z, [0.6, -0.7, 0.2])
    y /= np.linalg.norm(y)
    result = np.eye(4)
    result[:3] = np.column_stack([np.cross(y, z), y, z, [-55.0, -20, 62]])
    return result


def label_at(volume, affine, point):
    return volume[tuple(np.rint(np.linalg.solve(affine, [*point, 1])[:3]).astype(int))]


@pytest.mark.parametrize(
    ("name", "space", "code"), [("a.nii.gz", "MNI152", 4), ("a.nii", "subject", 1), ("a.nii", "Talairach", 3)]
)
def test_marker(tmp_path, pose, name, space, code):
    path = session.save_marker(tmp_path / name, pose, AFFINE, SHAPE, space=space)
    volume, affine = read_nifti(path)
    assert (volume.dtype, volume.shape) == (np.uint8, SHAPE)
    np.testing.assert_array_equal(affine, AFFINE)
    header = nibabel.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (code, code)
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_qform(), AFFINE, atol=1e-5)
    centre, y, z = pose[:3, 3], pose[:3, 1], pose[:3, 2]
    for point, label in [(centre, 1), (centre + 58 * z, 2), (centre + 63 * z, 0), (centre - 10 * z, 0)]:
        assert label_at(volume, affine, point) == label
    for along, label in [(-28, 3), (-15, 3), (-33, 0), (10, 0)]:
        assert label_at(volume, affine, centre + along * y) == label
    assert (volume == 1).sum() == pytest.approx(4 / 3 * np.pi * 2**3, rel=0.2)
    assert (volume == 2).sum() == pytest.approx(np.pi * 60, rel=0.15)
    assert (volume == 3).sum() == pytest.approx(np.pi * 30, rel=0.15)
    session.save_marker(path, pose, AFFINE, SHAPE, space=space, radius=6)
    assert (read_nifti(path)[0] == 1).sum() == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.05)
    assert os.listdir(tmp_path) == [name]


def test_marker_on_a_coarse_oblique_grid_has_no_gaps(tmp_path, pose):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -10, 35], degrees=True).as_matrix() @ np.diag([4.0, 3.0, 5.0])
    shape = (50, 60, 40)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    path = session.save_marker(tmp_path / "a.nii.gz", pose, affine, shape, space="subject", radius=0.5)
    volume, loaded = read_nifti(path)
    np.testing.assert_allclose(loaded, affine, atol=1e-5)
    np.testing.assert_allclose(nibabel.load(path).get_qform(), affine, atol=1e-4)
    assert set(np.unique(volume)) == {0, 1, 2, 3}
    for k in (2, 3):
        _, pieces = ndimage.label((volume == k) | (volume == 1), np.ones((3, 3, 3)))
        assert pieces == 1
    for share in np.linspace(0, 60, 300):
        assert label_at(volume, affine, pose[:3, 3] + share * pose[:3, 2]) in (1, 2)


def test_marker_on_a_sheared_grid_has_no_qform(tmp_path, pose):
    affine = AFFINE.copy()
    affine[0, 1] = 0.2
    header = nibabel.load(session.save_marker(tmp_path / "a.nii", pose, affine, SHAPE, space="subject")).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)


def test_marker_of_a_coil_above_an_image_cut_at_the_scalp(tmp_path, pose):
    volume, affine = read_nifti(session.save_marker(tmp_path / "a.nii", pose, AFFINE, (181, 217, 120), space="subject"))
    assert set(np.unique(volume)) == {0, 2}
    assert label_at(volume, affine, pose[:3, 3] + 40 * pose[:3, 2]) == 2


def test_errors_of_markers(tmp_path, pose, monkeypatch):
    def refused(error, match, path="a.nii", pose=pose, affine=AFFINE, shape=SHAPE, **keywords):
        with pytest.raises(error, match=match):
            session.save_marker(tmp_path / path, pose, affine, shape, **{"space": "subject", **keywords})

    refused(ValueError, r"path: .*a\.mgz is not one of \.nii, \.nii\.gz", "a.mgz")
    refused(ValueError, "space: 'scanner'; choose one of", space="scanner")
    refused(ValueError, "radius: 0; must be above zero", radius=0)
    refused(ValueError, r"image_shape: \(181, 217\); pass three", shape=(181, 217))
    refused(ValueError, r"image_shape: \(2000, 2000, 2000\); .*2 GB", shape=(2000, 2000, 2000))
    refused(ValueError, "image_shape: 0; must be at least 1", shape=(181, 0, 181))
    refused(ValueError, "image_affine: not an invertible", affine=np.diag([1.0, 1, 0, 1]))
    refused(ValueError, "image_affine: not an invertible affine with the last row", affine=AFFINE.T)
    refused(ValueError, "image_affine: 16 of 16 values are NaN", affine=np.full((4, 4), np.nan))
    far = pose.copy()
    far[0, 3] = -900
    refused(ValueError, r"pose: its centre \(-900, -20, 62 mm\) and all of its marker lie outside", pose=far)
    refused(ValueError, "pose: left-handed", pose=pose @ np.diag([-1.0, 1, 1, 1]))
    refused(FileNotFoundError, "the folder .* does not exist", "absent/a.nii")
    assert os.listdir(tmp_path) == []
