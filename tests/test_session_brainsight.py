import warnings

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxm2m import _check, session

pytestmark = pytest.mark.host

LOCATION = ["Loc. X", "Loc. Y", "Loc. Z", "m0n0", "m0n1", "m0n2", "m1n0", "m1n1", "m1n2", "m2n0", "m2n1", "m2n2"]
TARGET = ["Target Name", *LOCATION]
EXTRA = {
    7: [
        "Dist. to Target",
        "Stim. Power",
        "Date",
        "Time",
        "Comment",
        "EMG Start",
        "EMG End",
        "EMG Res.",
        "EMG Channels",
    ],
    12: [
        "Stim. Power A",
        "Stim. Pulse Interval",
        "Stim. Power B",
        "Date",
        "Time",
        "Chamber Name",
        "Comment",
        "EMG Res.",
    ],
    14: ["Stim. Power A", "Date", "Time", "Comment", "EMG Channels", "EMG Window Start", "EMG Window End", "EMG Res."],
}
CORNER = "# X=right->left, Y=anterior->posterior, Z=inferior->superior"
MAGIC = np.diag([-1.0, 1.0, -1.0, 1.0])


def frame(seed=0):
    """A rigid matrix of the file's own axes."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    matrix[:3, 3] = np.random.default_rng(seed).uniform(-60, 60, 3)
    return matrix


def cells(matrix):
    if matrix is None:
        return ["(null)"] * 12
    return [f"{v:.4f}" for v in matrix[:3, [3, 0, 1, 2]].T.ravel()]  # column after column


def export(
    tmp_path, samples=(), targets=(), version=14, space="NIfTI:Aligned", channels=(), header=(), name="export.txt"
):
    """Write a file; `samples` are (matrix, {column: value})."""
    lines = [f"# Version: {version}", f"# Coordinate system: {space}", "# Created by: Brainsight"]
    lines += ["# Units: millimetres, degrees, milliseconds, and microvolts", "# Encoding: UTF-8", *header]
    lines.append("# " + "\t".join(TARGET))
    lines += ["\t".join([f"T{i}", *cells(m)]) for i, m in enumerate(targets)]
    extra = EXTRA.get(version, EXTRA[14]) + [
        f"{kind} {c}" for c in channels for kind in ("EMG Peak-to-peak", "EMG Data")
    ]
    extra += [f"EMG Latency {c}" for c in channels]
    columns = ["Sample Name", "Session Name", "Index", "Assoc. Target", *LOCATION, *extra]
    lines.append("# " + "\t".join(columns))
    for i, (matrix, values) in enumerate(samples):
        row = [f"S{i}", "Doe Jane", str(i + 1), values.get("Assoc. Target", "(null)"), *cells(matrix)]
        lines.append("\t".join(row + [str(values.get(name, "(null)")) for name in extra]))
    lines += ["# Session Landmark Name\tSession Name\tLoc. X\tLoc. Y\tLoc. Z", "Nasion\tDoe Jane\t1\t2\t3"]
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("version", [7, 12, 14])
def test_columns_are_found_by_name_in_every_version(tmp_path, version):
    power = "Stim. Power" if version == 7 else "Stim. Power A"
    rows = [
        (frame(1), {power: "55", "Date": "2021-06-25", "Time": "23:59:59.500", "Assoc. Target": "T0"}),
        (frame(2), {power: "60.5", "Date": "2021-06-26", "Time": "00:00:01.000"}),
        (None, {}),
    ]
    loaded = session.load(export(tmp_path, rows, [frame(3)], version))
    assert loaded.kind == ("target", "sample", "sample", "sample")
    assert loaded.names == ("T0", "S0", "S1", "S2")
    assert loaded.target == ("", "T0", "", "")
    expected = np.stack([frame(k) @ MAGIC for k in (3, 1, 2)])
    np.testing.assert_allclose(loaded.poses[:3], expected, atol=1.2e-4)
    assert np.isnan(loaded.poses[3]).all()
    np.testing.assert_array_equal(loaded.located, [True, True, True, False])
    np.testing.assert_array_equal(loaded.intensity, [np.nan, 55, 60.5, np.nan])
    np.testing.assert_array_equal(loaded.time, [np.nan, 0, 1.5, np.nan])
    assert loaded.space == "subject"
    assert loaded.channels == ()
    assert loaded.meps.shape == (4, 0)


def test_poses_are_rigid_to_rounding_though_printed_with_three_decimals(tmp_path):
    rows = [(np.round(frame(k), 3), {}) for k in range(20)]
    poses = session.load(export(tmp_path, rows)).poses[:, :3, :3]
    np.testing.assert_allclose(np.swapaxes(poses, 1, 2) @ poses, np.broadcast_to(np.eye(3), poses.shape), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(poses), 1)


def test_emg_columns(tmp_path):
    rows = [
        (frame(1), {"EMG Peak-to-peak 1": 512.5, "EMG Latency 1": 22.5, "EMG Data 1": "1;2;-3", "EMG Res.": 0.333}),
        (frame(2), {"EMG Peak-to-peak 3": 90, "EMG Data 3": "4;5;6;7;", "EMG Res.": 0.333}),
    ]
    for row in rows:
        row[1]["EMG Window Start"] = -10
    loaded = session.load(export(tmp_path, rows, channels=(1, 2, 3)), channels=("FDI", "ADM"))
    assert loaded.channels == ("FDI", "ADM")
    np.testing.assert_array_equal(loaded.meps, [[512.5, np.nan], [np.nan, 90]])
    np.testing.assert_allclose(loaded.mep_latency, [[22.5e-3, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(loaded.emg[0, 0], [1, 2, -3, np.nan])
    np.testing.assert_array_equal(loaded.emg[1, 1], [4, 5, 6, 7])
    assert loaded.sfreq == pytest.approx(1000 / 0.333)
    assert loaded.emg_start == pytest.approx(-0.01)
    assert list(loaded.table().columns[-4:]) == ["mep_FDI_uv", "latency_FDI_s", "mep_ADM_uv", "latency_ADM_s"]
    with pytest.raises(ValueError, match=r"channels: 1 names, but .* has 2 EMG channels"):
        session.load(tmp_path / "export.txt", channels=("FDI",))


def test_persons_and_dates_go_nowhere(tmp_path):
    rows = [(frame(k), {"Date": "2021-06-25", "Time": f"10:00:0{k}", "Comment": "Jane was tired"}) for k in range(3)]
    loaded = session.load(export(tmp_path, rows, [frame(9)]))
    shown = f"{loaded!r} {loaded} {loaded.table().to_string()} {loaded.__dict__}"
    for private in ("Jane", "Doe", "2021", "tired", "10:00"):
        assert private not in shown
    assert repr(loaded) == "Session(3 samples, 1 targets, 4 with a position, 0 EMG channels, space='subject')"
    # the same stimuli on another day are the same
    other = [(m, values | {"Date": "1999-01-01"}) for m, values in rows]
    assert loaded.fingerprint() == session.load(export(tmp_path, other, [frame(9)])).fingerprint()
    assert loaded.fingerprint() != loaded.samples.fingerprint()


def test_pick(tmp_path):
    rows = [(frame(0), {}), (None, {}), (frame(2), {})]
    loaded = session.load(export(tmp_path, rows, [frame(3), None]))
    assert loaded.samples.names == ("S0", "S1", "S2")
    assert loaded.targets.names == ("T0", "T1")
    assert loaded.pick(kind="sample", located=True).names == ("S0", "S2")
    assert loaded.pick(located=False).names == ("T1", "S1")
    assert loaded.pick([4, 0]).names == ("S2", "T0")
    assert loaded.pick(slice(1, None, 2)).names == ("T1", "S1")
    assert loaded.pick(loaded.located).poses.shape == (3, 4, 4)
    assert len(loaded.samples.targets) == 0
    with pytest.raises(ValueError, match="kind: 'all'; choose one of 'target', 'sample'"):
        loaded.pick(kind="all")


def image(tmp_path, affine, shape=(100, 120, 90), sform=1, qform=None, qcode=0):
    volume = nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine)
    volume.set_sform(affine, sform)
    volume.set_qform(affine if qform is None else qform, qcode)
    path = tmp_path / "t1.nii.gz"
    nibabel.save(volume, path)
    return path


AXES = {
    "RAS": np.diag([2.0, 2, 2, 1]),
    "LPS": np.diag([-2.0, -2, 2, 1]),
    "PSR": np.array([[0, 0, 1.5, 0], [-2.0, 0, 0, 0], [0, 2.5, 0, 0], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("tilt", [0, 10])
@pytest.mark.parametrize("axes", AXES)
def test_brainsight_space_runs_from_the_right_anterior_inferior_corner(tmp_path, axes, tilt):
    affine = AXES[axes].copy()
    affine[:3, :3] = Rotation.from_euler("xyz", [tilt, -tilt, tilt / 2], degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = (40, -35, 10)
    shape = (100, 120, 90)
    # the voxel that is at the corner, and the one in the middle of the image, found by brute force
    corner = max(np.ndindex(2, 2, 2), key=lambda c: (AXES[axes][:3, :3] @ np.array(c)) @ (1, 1, -1)) * (
        np.array(shape) - 1
    )
    origin = affine[:3, :3] @ corner + affine[:3, 3]
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    turn = Rotation.from_euler("xyz", [tilt, -tilt, tilt / 2], degrees=True).as_matrix()
    lps = turn @ np.diag([-1, -1, 1])
    local = np.eye(4)
    local[:3, :3] = frame(5)[:3, :3]
    local[:3, 3] = lps.T @ (middle - origin)
    assert (local[:3, 3] > 0).all()

    path = export(tmp_path, [(local, {})], space="Brainsight", version=7, header=[CORNER])
    loaded = session.load(path, image=image(tmp_path, affine, shape))
    np.testing.assert_allclose(loaded.poses[0, :3, 3], middle, atol=1e-3)
    np.testing.assert_allclose(loaded.poses[0, :3, :3], lps @ local[:3, :3] @ MAGIC[:3, :3], atol=1e-4)
    _check.pose(loaded.poses)


def test_other_corners_are_refused(tmp_path):
    path = export(tmp_path, [(frame(1), {})], space="Brainsight", header=[CORNER.replace("right->left", "left->right")])
    with pytest.raises(ValueError, match=r"has axes x=left->right, .* which are not known; export in NIfTI:Aligned"):
        session.load(path, image=image(tmp_path, AXES["RAS"]))


def test_images_in_metres(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-100, -120, -90)
    expected = session.load(export(tmp_path, [(frame(1), {})], space="NIfTI:Scanner"), image=image(tmp_path, affine))
    affine[:3] /= 1000
    volume = nibabel.load(image(tmp_path, affine))
    volume.header.set_xyzt_units("meter")
    nibabel.save(volume, tmp_path / "metres.nii.gz")
    loaded = session.load(tmp_path / "export.txt", image=tmp_path / "metres.nii.gz")
    np.testing.assert_allclose(loaded.poses, expected.poses, atol=1e-4)


def test_world_is_lps(tmp_path):
    affine = AXES["RAS"].copy()
    affine[:3, 3] = (-100, -120, -90)
    path = export(tmp_path, [(frame(1), {})], space="World")
    loaded = session.load(path, image=image(tmp_path, affine))
    np.testing.assert_allclose(loaded.poses[0], np.diag([-1, -1, 1, 1]) @ frame(1) @ MAGIC, atol=2e-4)


@pytest.mark.parametrize("space", ["Brainsight", "World"])
def test_spaces_that_need_the_image_refuse_without_it(tmp_path, space):
    path = export(tmp_path, [(frame(1), {})], space=space)
    with pytest.raises(ValueError, match=rf"image: .*export\.txt is in the '{space}' space, .*pass image="):
        session.load(path)
    with pytest.raises(ValueError, match="pass image="):
        session.load_poses(path)


def test_qform_coordinates_are_brought_to_the_sform(tmp_path):
    sform = np.diag([2.0, 2, 2, 1])
    sform[:3, 3] = (-100, -120, -90)
    qform = np.diag([2.0, 2, 2, 1])
    qform[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix() @ qform[:3, :3]
    qform[:3, 3] = (-90, -100, -95)
    t1 = image(tmp_path, sform, sform=4, qform=qform, qcode=2)
    for space in ("NIfTI:Aligned", "NIfTI:Q:Aligned"):
        loaded = session.load(export(tmp_path, [(frame(1), {})], space=space), image=t1)
        np.testing.assert_allclose(loaded.poses[0], sform @ np.linalg.inv(qform) @ frame(1) @ MAGIC, atol=2e-4)
        assert loaded.space == "MNI152"
    loaded = session.load(export(tmp_path, [(frame(1), {})], space="NIfTI:S:MNI-152"), image=t1)
    np.testing.assert_allclose(loaded.poses[0], frame(1) @ MAGIC, atol=1e-4)
    with pytest.raises(ValueError, match=r"t1\.nii\.gz has no sform with the code 2, the space of"):
        session.load(export(tmp_path, [(frame(1), {})], space="NIfTI:S:Aligned"), image=t1)
    with pytest.raises(ValueError, match="sform and a qform of different shape"):
        session.load(
            export(tmp_path, [(frame(1), {})], space="NIfTI:Q:Aligned"),
            image=image(tmp_path, sform, sform=4, qform=np.diag([1.0, 2, 2, 1]), qcode=2),
        )


def test_the_wrong_image_is_noticed(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = (500, 0, 0)
    with pytest.raises(ValueError, match=r"image: poses of .* mm outside .*t1\.nii\.gz; pass the image"):
        session.load(export(tmp_path, [(frame(1), {})], space="NIfTI:Scanner"), image=image(tmp_path, affine))


def test_space_names(tmp_path):
    for space, name in (
        ("NIfTI:MNI-152", "MNI152"),
        ("NIfTI:S:Talairach", "Talairach"),
        ("NIfTI:Q:Scanner", "subject"),
    ):
        loaded = session.load(export(tmp_path, [(frame(1), {})], space=space))
        assert (loaded.space, loaded.source_space) == (name, space)
    for space in ("NIfTI:X:Aligned", "NIfTI", "Nexstim", "NIfTI:S:Q:Aligned"):
        with pytest.raises(ValueError, match="which is not known; export in NIfTI:Aligned"):
            session.load(export(tmp_path, [(frame(1), {})], space=space))


def test_defective_rows_are_named_by_line(tmp_path):
    bad = frame(1)
    bad[:3, 0] += 0.2 * bad[:3, 1]
    bad[:3, 0] /= np.linalg.norm(bad[:3, 0])
    with pytest.raises(ValueError, match=r"export\.txt, line 9: sheared"):
        session.load(export(tmp_path, [(frame(0), {}), (bad, {})]))
    mirrored = frame(1)
    mirrored[:3, 0] *= -1
    with pytest.raises(ValueError, match=r"export\.txt, line 8: left-handed"):
        session.load(export(tmp_path, [(mirrored, {})]))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_bad_text(tmp_path):
    def fresh(**kwargs):
        return export(tmp_path, [(frame(1), {"Date": "2021-06-25", "Time": "10:00:00"})], [frame(2)], **kwargs)

    for version in (6, "x", ""):
        with pytest.raises(ValueError, match=rf"has version {version or 'none'} of the format"):
            session.load(fresh(version=version))
    with pytest.warns(UserWarning, match="version 15 of the format, newer than 14"):
        session.load(fresh(version=15))
    with pytest.raises(ValueError, match="line 6: the columns m1n1 are missing; export positions with orientations"):
        session.load(edit(fresh(), "\tm1n1", "\tm9n9"))
    lines = fresh().read_text().splitlines()
    number = lines[8].split("\t")[4]
    with pytest.raises(ValueError, match=r"line 9: 'Loc\. X' holds '[-\d,]+'; it must be a number with a decimal"):
        session.load(edit(fresh(), number, number.replace(".", ",")))
    with pytest.raises(ValueError, match=r"line 7: 5 values under 13 columns; the file was cut off"):
        session.load(edit(fresh(), lines[6], "T0\t1\t2\t3\t4"))
    with pytest.raises(ValueError, match="line 9: only a part of the position is there"):
        session.load(edit(fresh(), number, "(null)"))
    with pytest.raises(ValueError, match="line 9: the time cannot be read") as caught:
        session.load(edit(fresh(), "2021-06-25", "25. Juni"))
    assert "Juni" not in str(caught.value)
    with pytest.raises(ValueError, match="is in 'inches'; export in millimetres"):
        session.load(edit(fresh(), "millimetres, degrees, milliseconds, and microvolts", "inches"))
    with pytest.raises(ValueError, match="does not name its coordinate system"):
        session.load(edit(fresh(), "# Coordinate system: NIfTI:Aligned\n", ""))
    (tmp_path / "a.txt").write_text("# Version: 7\n# Coordinate system: World\n# Electrode Name\tLoc. X\n")
    with pytest.raises(ValueError, match=r"a\.txt has neither targets nor samples"):
        session.load(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("# Version: 7\nSample 1\t3\n")
    with pytest.raises(ValueError, match="line 2: values without a row of column names"):
        session.load(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"a\.txt is empty"):
        session.load(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes("# Version: 7\n# München".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text \(byte 16\)"):
        session.load(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("some notes")
    with pytest.raises(ValueError, match=r"no Brainsight text export, Localite XML or SimNIBS \.mat"):
        session.load(tmp_path / "a.txt")


def test_emg_that_does_not_fit_together(tmp_path):
    rows = [(frame(k), {"EMG Data 1": "1;2", "EMG Res.": res}) for k, res in enumerate((0.3, 0.5))]
    with pytest.raises(ValueError, match=r"needs one positive 'EMG Res\.'"):
        session.load(export(tmp_path, rows, channels=(1,)))
    with pytest.raises(ValueError, match=r"line 8: 'EMG Data 1' holds something else"):
        session.load(export(tmp_path, [(frame(0), {"EMG Data 1": "1;x", "EMG Res.": 0.3})], channels=(1,)))


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = export(tmp_path, [(frame(1), {})])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_allclose(session.load(path).poses[0], frame(1) @ MAGIC, atol=1e-4)


def test_users_files(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = session.load(data("neuronav/brainsight/niiImage_niftialignedcoord.txt"))
        targets = session.load(data("neuronav/brainsight/niiImage_niftialignedcoord_no_samples.txt"))
        newer = session.load(data("neuronav/brainsight/niiImage_niftialigned_q_coord_v14.txt"))
    assert (len(loaded.samples), len(loaded.targets)) == (101, 7)
    assert (len(targets.samples), len(targets.targets)) == (0, 7)
    assert (len(newer.samples), len(newer.targets)) == (3, 2)
    assert newer.source_space == "NIfTI:Q:Aligned"
    # the coil's z axis points into the head
    poses = loaded.samples.poses
    assert (np.einsum("ni,ni->n", poses[:, :3, 2], poses[:, :3, 3] - (0, 0, 20)) < 0).all()
    assert loaded.samples.time[1] == pytest.approx(31.66)
    assert loaded.samples.target[1] == "Sample 1"


def test_users_export_in_two_spaces_is_one_session(data, tmp_path):
    """An image whose corner and edges turn one export into the other: then all poses must agree."""
    aligned = session.load(data("neuronav/brainsight/niiImage_niftialignedcoord.txt"))
    path = data("neuronav/brainsight/niiImage_brainsightcoord.txt")
    lps = session.load(path, image=image(tmp_path, np.diag([-1.0, -1, 1, 1]), (200, 250, 250))).poses
    # from one target's pose alone
    affine = aligned.poses[0] @ np.linalg.inv(lps[0]) @ np.diag([-1.0, -1, 1, 1])
    both = session.load(path, image=image(tmp_path, affine, (200, 250, 250))).poses
    np.testing.assert_allclose(both[..., 3], aligned.poses[..., 3], atol=0.3)
    np.testing.assert_allclose(both[..., :3], aligned.poses[..., :3], atol=4e-3)


def test_a_sample_whose_name_begins_with_a_hash(tmp_path):
    """It was taken for a row of column names: two samples of five, silently."""
    path = export(tmp_path, [(frame(i), {"Stim. Power A": "50"}) for i in range(5)], [frame(9)])
    path.write_text(path.read_text().replace("\nS2\t", "\n#3 redo\t"))
    loaded = session.load(path)
    assert loaded.names == ("T0", "S0", "S1", "#3 redo", "S3", "S4")
    np.testing.assert_allclose(loaded.poses[3][:3, 3], frame(2)[:3, 3], atol=1e-3)
