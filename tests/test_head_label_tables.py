"""Which label is which tissue: tables by name, recognition, and what it refuses to guess; volumes and meshes."""

import gzip

import nibabel
import numpy as np
import pytest

import jaxm2m as jm

pytestmark = pytest.mark.host
SPACING = 4.0
SIMNIBS = ("white", "grey", "csf", "skull", "scalp")
FIVE = ("scalp", "skull", "csf", "grey", "white")
RADII = {"white": 52.0, "grey": 66.0, "csf": 72.0, "skull": 80.0, "scalp": 90.0}
AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])
AFFINE[:3, 3] = -SPACING * 23.5


def balls(order, n=48):
    """Five shells; label k is `order[k - 1]`."""
    index = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1)
    position = index * SPACING + AFFINE[:3, 3]
    r = np.linalg.norm(position * [1.02, 1, 1], axis=-1)
    labels = np.zeros((n, n, n), np.uint16)
    for tissue in ("scalp", "skull", "csf", "grey", "white"):
        labels[r < RADII[tissue]] = order.index(tissue) + 1 if isinstance(order, tuple) else order[tissue]
    return labels, position


def ball(position, centre, radius):
    return np.linalg.norm(position - np.asarray(centre), axis=-1) < radius


def taken(head):
    return next(r for r in head.metadata["remarks"] if r.startswith("labels by"))


@pytest.mark.parametrize(("order", "title"), [(SIMNIBS, "SimNIBS"), (FIVE, "five tissues")])
def test_small_tables_go_by_what_lies_outermost(order, title):
    head = jm.head.from_labels(balls(order)[0], AFFINE)
    assert taken(head) == f"labels by {title} table"
    assert head.tissues == ("white", "grey", "csf", "skull", "scalp")


def test_two_eyes_are_eyes():
    labels, position = balls(SIMNIBS)
    for x in (-30, 30):
        labels[ball(position, (x, 85, 0), 12.5) & (labels >= 4)] = 6
    head = jm.head.from_labels(labels, AFFINE)
    assert taken(head) == "labels by SimNIBS table"
    assert 3 < head.volumes()["eye"] < 28


def test_sinuses_are_air_as_roast_has_it():
    labels, position = balls(SIMNIBS)
    r = np.linalg.norm(position, axis=-1)
    labels[(r > 77) & (r < 85) & (position[..., 1] > 65)] = 6
    head = jm.head.from_labels(labels, AFFINE)
    assert taken(head) == "labels by ROAST table"
    assert "eye" not in head.tissues
    assert head.tissue_at(np.array([0.0, 81.0, 0.0])) == -1


def test_a_cavity_in_the_brain_is_asked_for():
    """66 ml of label 6 was taken for eyes."""
    labels, position = balls(SIMNIBS)
    labels[ball(position, (-40, 10, 20), 25)] = 6
    with pytest.raises(ValueError, match=r"6 is 6\d(\.\d)? ml in 1 part, which is no pair of eyes.*touches b.*roast"):
        jm.head.from_labels(labels, AFFINE)
    by_name = jm.head.from_labels(labels, AFFINE, "roast")
    assert taken(by_name) == "labels by ROAST table"
    assert by_name.tissue_at(np.array([-40.0, 10.0, 20.0])) == -1
    by_hand = jm.head.from_labels(labels, AFFINE, {**{k + 1: t for k, t in enumerate(SIMNIBS)}, 6: "csf"})
    assert by_hand.tissues[int(by_hand.tissue_at(np.array([-40.0, 10.0, 20.0])))] == "csf"


def test_air_all_round_is_mcx():
    labels, _ = balls(FIVE)
    labels[labels == 0] = 6
    head = jm.head.from_labels(labels, AFFINE)
    assert taken(head) == "labels by mcx table"
    np.testing.assert_allclose(head.volumes()["scalp"], jm.head.from_labels(balls(FIVE)[0], AFFINE).volumes()["scalp"])


def test_charm_and_freesurfer():
    order = {"white": 2, "grey": 3, "csf": 520, "skull": 515, "scalp": 511}
    labels, position = balls(order)
    labels[ball(position, (0, 80, -10), 15) & (labels == 511)] = 501
    head = jm.head.from_labels(labels, AFFINE)
    assert taken(head) == "labels by CHARM table"
    assert head.tissues == ("white", "grey", "csf", "compact_bone", "scalp")
    order = {"white": 41, "grey": 42, "csf": 24, "skull": 165, "scalp": 258}
    assert taken(jm.head.from_labels(balls(order)[0], AFFINE)) == "labels by FreeSurfer table"


def test_present_tissues_of_simnibs():
    labels, position = balls(SIMNIBS)
    for x in (-30, 30):
        labels[ball(position, (x, 85, 0), 12.5) & (labels >= 4)] = 6
    labels[ball(position, (0, 0, -86), 14) & (labels == 5)] = 11
    labels[ball(position, (0, -84, 0), 14) & (labels == 5)] = 12
    head = jm.head.from_labels(labels, AFFINE)
    sigma = dict(zip(head.tissues, np.asarray(head.conductivity).tolist(), strict=True))
    assert sigma["cartilage"] == pytest.approx(0.88)
    assert sigma["fat"] == pytest.approx(0.078)


def test_every_table_is_documented_and_named_in_messages():
    for name, table in jm.head.label_tables.items():
        assert 0 not in table
        assert set(table.values()) <= {*jm.head.conductivities, "air"}, name
    labels, _ = balls(FIVE)
    with pytest.raises(ValueError, match=r"labels: 'spm' is no table; take one of five, mcx, simnibs, roast"):
        jm.head.from_labels(labels, AFFINE, "spm")
    labels[0, 0, 0] = 77
    with pytest.raises(ValueError, match=r"labels 77 are not in the table 'five'"):
        jm.head.from_labels(labels, AFFINE, "five")
    with pytest.raises(ValueError, match=r'labels="\.\.\." \(one of five, mcx'):
        jm.head.from_labels(labels, AFFINE)


# meshes


def mesh(order):
    """A sphere of five shells as a mesh, its tags by `order`."""
    shells = jm.head.sphere_mesh(radii=(52.0, 66.0, 72.0, 80.0, 90.0), spacing=12.0)
    number = {tissue: k for k, tissue in order.items()}
    names = ("white", "grey", "csf", "skull", "scalp")
    radius = np.linalg.norm(shells.centroids(), axis=-1)
    which = np.searchsorted([52.0, 66.0, 72.0, 80.0], radius)
    return shells.nodes, shells.elements, np.array([number[names[k]] for k in which])


@pytest.fixture(scope="module")
def shells(precision):
    return mesh({k + 1: tissue for k, tissue in enumerate(SIMNIBS)})


def test_meshes_are_recognised_as_volumes_are(shells):
    nodes, elements, tags = shells
    assert taken(jm.head.from_mesh(nodes, elements, tags, spacing=6.0)) == "labels by SimNIBS table"
    assert taken(jm.head.from_mesh(nodes, elements, 6 - tags, spacing=6.0)) == "labels by five tissues table"
    with pytest.raises(ValueError, match=r"tags 2, 3, 4, 5, 6 cannot be told.*would lie outermost.*labels="):
        jm.head.from_mesh(nodes, elements, 7 - tags, spacing=6.0)  # 2 scalp ... 6 white
    head = jm.head.from_mesh(
        nodes, elements, 7 - tags, {"scalp": 2, "skull": 3, "csf": 4, "grey": 5, "white": 6}, spacing=6.0
    )
    assert head.volumes()["white"] == pytest.approx(4 / 3 * np.pi * 52**3 / 1000, rel=0.1)
    assert taken(jm.head.from_mesh(nodes, elements, tags, "simnibs", spacing=6.0)) == "labels by SimNIBS table"


# files


def write(path, labels, affine=AFFINE, sform=1, qform=None, q=0):
    image = nibabel.Nifti1Image(labels.astype(np.uint8), affine)
    image.set_sform(affine, sform)
    image.set_qform(affine if qform is None else qform, q)
    nibabel.save(image, path)
    return path


def test_a_volume_without_orientation_is_refused(tmp_path):
    labels, _ = balls(FIVE)
    path = write(tmp_path / "head.nii.gz", labels, sform=0, q=0)
    with pytest.raises(ValueError, match=r"head\.nii\.gz has sform_code 0 and qform_code 0.*affine="):
        jm.head.load(path)
    head = jm.head.load(path, affine=AFFINE)
    np.testing.assert_allclose(head.affine, AFFINE)


def test_an_sform_and_a_qform_that_disagree_are_told(tmp_path):
    labels, _ = balls(FIVE)
    flipped = np.diag([-1.0, 1, 1, 1]) @ AFFINE
    path = write(tmp_path / "head.nii.gz", labels, qform=flipped, q=1)
    with pytest.warns(UserWarning, match=r"sform \(code 1\) and qform \(code 1\) differ by up to 18\d\.\d mm, one"):
        head = jm.head.load(path)
    assert any("one mirrors the other" in remark for remark in head.metadata["remarks"])
    # two spaces: scanner and MNI may well differ
    other = AFFINE.copy()
    other[:3, 3] += 7
    image = write(tmp_path / "mni.nii.gz", labels, sform=4, qform=other, q=1)
    assert jm.head.load(image).space == "MNI152"


def test_freesurfer_volumes(tmp_path):
    labels, _ = balls({"white": 41, "grey": 42, "csf": 24, "skull": 165, "scalp": 258})
    image = nibabel.freesurfer.MGHImage(labels.astype(np.int32), AFFINE)
    nibabel.save(image, tmp_path / "seg.mgz")
    head = jm.head.load(tmp_path / "seg.mgz")
    expected = jm.head.from_labels(labels, AFFINE)
    np.testing.assert_allclose(head.affine, AFFINE, atol=1e-4)
    np.testing.assert_array_equal(head.fractions, expected.fractions)
    data = gzip.decompress((tmp_path / "seg.mgz").read_bytes())
    (tmp_path / "lost.mgz").write_bytes(gzip.compress(data[:28] + b"\0\0" + data[30:]))
    with pytest.raises(ValueError, match=r"lost\.mgz holds no orientation"):
        jm.head.load(tmp_path / "lost.mgz")
    (tmp_path / "cut.mgz").write_bytes(gzip.compress(data[:2000]))
    with pytest.raises(ValueError, match=r"cut\.mgz (ends before|cannot be read)"):
        jm.head.load(tmp_path / "cut.mgz")


def test_packed_meshes(tmp_path, shells):
    nodes, elements, tags = shells
    lines = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat", "$Nodes", str(len(nodes))]
    lines += [f"{k + 1} {x!r} {y!r} {z!r}" for k, (x, y, z) in enumerate(np.asarray(nodes, float).tolist())]
    lines += ["$EndNodes", "$Elements", str(len(elements))]
    lines += [
        f"{k + 1} 4 2 {t} {t} {' '.join(str(i + 1) for i in e)}"
        for k, (e, t) in enumerate(zip(elements.tolist(), tags.tolist(), strict=True))
    ]
    text = "\n".join([*lines, "$EndElements", ""]).encode()
    (tmp_path / "head.msh").write_bytes(text)
    (tmp_path / "head.msh.gz").write_bytes(gzip.compress(text))
    plain, packed = (jm.head.load(tmp_path / name, spacing=6.0) for name in ("head.msh", "head.msh.gz"))
    np.testing.assert_array_equal(plain.nodes, packed.nodes)
    np.testing.assert_array_equal(plain.labels, packed.labels)
    (tmp_path / "cut.msh.gz").write_bytes(gzip.compress(text)[:-5000])
    with pytest.raises(ValueError, match=r"cut\.msh\.gz cannot be unpacked to its end"):
        jm.head.load(tmp_path / "cut.msh.gz")


# the command line


def test_labels_on_the_command_line(tmp_path, capsys):
    from jaxm2m.cli import _arguments

    labels, _ = balls(FIVE)
    path = write(tmp_path / "head.nii.gz", labels)
    (tmp_path / "table.json").write_text('{"1": "scalp", "2": "skull", "3": "csf", "4": "grey", "5": "white"}')
    (tmp_path / "names.json").write_text('{"scalp": 1, "skull": 2, "csf": 3, "grey": 4, "white": [5]}')
    for option, title in (("five", "five tissues"), ("table.json", "the caller's"), ("names.json", "the caller's")):
        option = str(tmp_path / option) if option.endswith("json") else option
        _arguments.check_head(str(path), None, option)
        head = _arguments.load_head(str(path), 4.0, None, option)
        assert f"Head: labels by {title} table" in capsys.readouterr().err
        assert head.tissues == ("white", "grey", "csf", "skull", "scalp")
    (tmp_path / "empty.json").write_text("[]")
    for option, message in (
        ("spm", "--labels: 'spm'; give one of five, mcx"),
        (str(tmp_path / "empty.json"), "--labels: .*empty.json must hold"),
        (str(tmp_path / "none.json"), "--labels: .*none.json does not exist"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            _arguments.check_head(str(path), None, option)
    with pytest.raises(ValueError, match="--labels: the atlas has its own"):
        _arguments.check_head("atlas", None, "five")
