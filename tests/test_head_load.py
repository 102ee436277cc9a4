"""Label volumes of any affine, any table; and what is wrong with them."""

import gzip

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import jaxm2m as jm
from jaxm2m.head import _load as _load_module
from jaxm2m.head import _overlap

FIVE = {"scalp": 1, "skull": 2, "csf": 3, "grey": 4, "white": 5}
pytestmark = pytest.mark.host


def shells(n=(28, 30, 26), spacing=(2.0, 2.0, 2.0), order=(1, 2, 3, 4, 5)):
    """Five shells, slightly off centre and flattened, so that no flip or turn leaves the volume as it was."""
    axes = np.meshgrid(*((np.arange(k) - (k - 1) / 2) * s for k, s in zip(n, spacing, strict=True)), indexing="ij")
    r = np.sqrt((axes[0] - 1.2) ** 2 + (axes[1] + 0.7) ** 2 * 0.9 + (axes[2] - 0.4) ** 2 * 1.2)
    r += 0.05 * axes[0]
    labels = np.zeros(n, np.uint8)
    for label, radius in zip(order, (22, 19, 16, 14, 10), strict=True):
        labels[r < radius] = label
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20, -33, 5)
    return labels, affine


@pytest.fixture
def volume():
    return shells()


def write(path, labels, affine, **header):
    image = nibabel.Nifti1Image(labels, affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def world_centroids(head):
    index = np.moveaxis(np.indices(head.shape), 0, -1)
    position = index @ head.affine[:3, :3].T + head.affine[:3, 3]
    weight = head.fractions[..., None]
    return (weight * position).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def test_same_spacing_gives_whole_voxels(tmp_path, volume):
    labels, affine = volume
    head = jm.head.load(write(tmp_path / "head.nii.gz", labels, affine))
    assert head.tissues == ("white", "grey", "csf", "skull", "scalp")
    assert set(np.unique(head.fractions)) == {0.0, 1.0}
    assert head.spacing == 2.0
    for tissue, label in FIVE.items():
        np.testing.assert_array_equal(head.fractions[head.tissues.index(tissue)], labels == label)
    np.testing.assert_allclose(head.affine, affine, atol=1e-5)
    assert any("five tissues" in r for r in head.metadata["remarks"])
    np.testing.assert_allclose(head.conductivity, [0.126, 0.275, 1.654, 0.010, 0.465], rtol=1e-6)


@pytest.mark.parametrize("spacing", [1.5, 3.0, 3.7, 4.0])
@pytest.mark.parametrize("voxel", [(2.0, 2.0, 2.0), (1.7, 2.2, 3.1)])
def test_volumes_are_conserved(spacing, voxel):
    labels, affine = shells(spacing=voxel)
    head = jm.head.from_labels(labels, affine, spacing=spacing)
    ml = np.prod(voxel) / 1000
    for tissue, found in head.volumes().items():
        np.testing.assert_allclose(found, (labels == FIVE[tissue]).sum() * ml, rtol=1e-5)
    total = head.fractions.sum(0)
    assert total.max() <= 1 + 1e-5
    assert head.fractions.min() >= 0
    # first moments are conserved too: the voxels stay where they are in the world
    for tissue, found in zip(head.tissues, world_centroids(head), strict=True):
        index = np.argwhere(labels == FIVE[tissue]).mean(0)
        np.testing.assert_allclose(found, affine[:3, :3] @ index + affine[:3, 3], atol=0.2 if spacing > 2 else 0.1)


def test_overlap_matrices_are_exact():
    w = _overlap.overlap_matrix(7, 1.0, 1.5).toarray()
    np.testing.assert_allclose(w[0], [2 / 3, 1 / 3, 0, 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(w[1], [0, 1 / 3, 2 / 3, 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(w.sum(0), 1 / 1.5, rtol=1e-6)
    np.testing.assert_allclose(w.sum(1)[:4], 1, rtol=1e-6)
    assert w.shape == (5, 7)


def stored_otherwise(labels, affine, permutation, flips):
    """The same head in the world, its axes stored in another order and direction."""
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, old in enumerate(permutation):
        change[old, new] = -1 if flips[new] else 1
        change[old, 3] = labels.shape[old] - 1 if flips[new] else change[old, 3]
    out = labels.transpose(permutation)
    for axis, flip in enumerate(flips):
        out = np.flip(out, axis) if flip else out
    return np.ascontiguousarray(out), affine @ change


@pytest.mark.parametrize(
    ("permutation", "flips"),
    [((0, 1, 2), (True, False, False)), ((2, 0, 1), (False, True, True)), ((1, 0, 2), (True, True, True))],
)
@pytest.mark.parametrize("spacing", [None, 3.3])
def test_order_and_direction_of_stored_axes_change_nothing(volume, permutation, flips, spacing):
    labels, affine = volume
    reference = jm.head.from_labels(labels, affine, spacing=spacing)
    turned = jm.head.from_labels(*stored_otherwise(labels, affine, permutation, flips), spacing=spacing)
    np.testing.assert_allclose(turned.affine, reference.affine, atol=1e-9)
    np.testing.assert_allclose(turned.fractions, reference.fractions, atol=1e-6)
    points = np.random.default_rng(0).uniform(-30, 40, (200, 3))
    np.testing.assert_array_equal(turned.tissue_at(points), reference.tissue_at(points))


def test_rotated_volume(volume):
    labels, affine = volume
    rotation = np.eye(4)
    rotation[:3, :3] = Rotation.from_euler("xyz", (25, -130, 70), degrees=True).as_matrix()
    rotation[:3, 3] = (3, -8, 11)
    reference = jm.head.from_labels(labels, affine)
    turned = jm.head.from_labels(labels, rotation @ affine)
    assert np.linalg.det(turned.affine[:3, :3]) > 0
    np.testing.assert_allclose(turned.spacing, 2.0, rtol=1e-9)
    points = reference.affine[:3, 3] + np.random.default_rng(0).uniform(0, 50, (300, 3))
    moved = points @ rotation[:3, :3].T + rotation[:3, 3]
    np.testing.assert_array_equal(turned.tissue_at(moved), reference.tissue_at(points))
    distance = np.asarray(reference.scalp.distance(points))
    near = np.abs(distance) < 6
    np.testing.assert_allclose(turned.scalp.distance(moved)[near], distance[near], atol=0.05)


def test_anisotropic_default_spacing_is_the_smallest():
    labels, affine = shells(spacing=(2.0, 1.5, 3.0), n=(28, 38, 20))
    head = jm.head.from_labels(labels, affine)
    assert head.spacing == 1.5


def test_floats_that_are_whole_and_a_fourth_axis(tmp_path, volume):
    labels, affine = volume
    path = write(tmp_path / "f.nii.gz", labels.astype(np.float32)[..., None], affine)
    assert jm.head.load(path).fractions.sum() == (labels > 0).sum()


def test_mapping_by_name_by_number_and_several(volume):
    labels, affine = volume
    labels = labels.copy().astype(np.int16)
    labels[labels == 5] = 41
    labels[:14][labels[:14] == 41] = 2041
    by_name = {"WM": (41, 2041), "gm": 4, "CSF": 3, "bone": 2, "skin": 1}
    by_number = {41: "white", 2041: "white", 4: "grey", 3: "csf", 2: "skull", 1: "scalp"}
    a, b = (jm.head.from_labels(labels, affine, m) for m in (by_name, by_number))
    np.testing.assert_array_equal(a.fractions, b.fractions)
    assert a.fractions[0].sum() == np.isin(labels, (41, 2041)).sum()
    brain = {"brain": [41, 2041, 4], "csf": 3, "skull": 2, "scalp": 1}
    merged = jm.head.from_labels(labels, affine, brain, conductivity={"brain": 0.2})
    assert merged.tissues == ("csf", "skull", "scalp", "brain")
    assert merged.cortex is None
    dropped = jm.head.from_labels(labels, affine, {**by_number, 1: "air"})
    assert dropped.tissues == ("white", "grey", "csf", "skull")


def test_simnibs_and_freesurfer_tables():
    labels, affine = shells(order=(5, 4, 3, 2, 1))
    head = jm.head.from_labels(labels, affine)
    assert any("SimNIBS" in r for r in head.metadata["remarks"])
    assert head.fractions[0].sum() == (labels == 1).sum()
    split = labels.copy()
    split[:14][split[:14] == 4] = 7
    split[14:][split[14:] == 4] = 8
    expected = ("white", "grey", "csf", "compact_bone", "spongy_bone", "scalp")
    assert jm.head.from_labels(split, affine).tissues == expected
    free = np.array([0, 258, 165, 24, 42, 41], np.int16)[shells()[0]]
    head = jm.head.from_labels(free, affine)
    assert any("FreeSurfer" in r for r in head.metadata["remarks"])
    assert head.tissues == ("white", "grey", "csf", "skull", "scalp")


def test_conductivity(volume):
    head = jm.head.from_labels(*volume, conductivity={"skull": 0.02})
    np.testing.assert_allclose(head.conductivity[head.tissues.index("skull")], 0.02, rtol=1e-6)


def test_islands_are_removed(volume):
    labels, affine = volume
    labels = labels.copy()
    labels[1, 1, 1:3] = 1
    head = jm.head.from_labels(labels, affine)
    assert head.fractions[:, 1, 1, 1:3].sum() == 0
    assert any("2 voxels" in r for r in head.metadata["remarks"])


def test_space(tmp_path, volume):
    assert jm.head.load(write(tmp_path / "a.nii", *volume, sform_code=4)).space == "MNI152"
    assert jm.head.load(write(tmp_path / "b.nii", *volume, sform_code=1)).space == "subject"
    assert jm.head.load(tmp_path / "a.nii", space="study").space == "study"


@pytest.mark.parametrize("spacing", [None, 3.0])
def test_crop_keeps_the_grid(volume, spacing):
    labels, affine = volume
    whole = jm.head.from_labels(labels, affine, spacing=spacing)
    centre = affine[:3, :3] @ (np.array(labels.shape) / 2) + affine[:3, 3]
    part = jm.head.from_labels(labels, affine, spacing=spacing, crop=(tuple(centre), 14.0))
    assert max(part.shape) <= 2 * 14 / part.spacing + 1
    middle = part.affine[:3, :3] @ ((np.array(part.shape) - 1) / 2) + part.affine[:3, 3]
    assert np.abs(middle - centre).max() <= part.spacing
    start = np.rint(np.linalg.solve(whole.affine, part.affine[:, 3])[:3]).astype(int)
    inner = tuple(slice(s, s + n) for s, n in zip(start, part.shape, strict=True))
    np.testing.assert_allclose(part.fractions, whole.fractions[(slice(None), *inner)], atol=1e-6)
    points = centre + np.random.default_rng(0).uniform(-12, 12, (100, 3))
    np.testing.assert_array_equal(part.tissue_at(points), whole.tissue_at(points))
    np.testing.assert_allclose(part.scalp.distance(points), whole.scalp.distance(points), atol=1e-5)


@pytest.mark.slow
def test_real_head(data):
    head = jm.head.load(data("heads/colin27_labels_1mm.nii.gz"), spacing=2.0)
    expected = {"scalp": 1457.1, "skull": 498.2, "csf": 308.2, "grey": 990.1, "white": 660.6}
    for tissue, ml in expected.items():
        np.testing.assert_allclose(head.volumes()[tissue], ml, atol=0.15)
    knob = np.array([-40.0, -20.0, 52.0])
    np.testing.assert_allclose(head.scalp.distance(knob), -29.3, atol=0.5)
    nearest = np.asarray(head.scalp.nearest(knob))
    np.testing.assert_allclose(np.linalg.norm(nearest - knob), 29.3, atol=0.5)
    assert head.cortex is not None


# what is wrong


def test_affine_in_metres(tmp_path, volume):
    labels, affine = volume
    small = affine.copy()
    small[:3] /= 1000
    path = write(tmp_path / "metres.nii.gz", labels, small)
    with pytest.raises(ValueError, match=r"metres\.nii\.gz: voxels of 0\.002.*metres"):
        jm.head.load(path)


def test_sheared(tmp_path, volume):
    labels, affine = volume
    affine = affine.copy()
    affine[0, 1] = 0.4
    with pytest.raises(ValueError, match="sheared"):
        jm.head.load(write(tmp_path / "s.nii", labels, affine))


def test_nan_and_fractions_of_labels(tmp_path, volume):
    labels, affine = volume
    broken = labels.astype(np.float32)
    broken[3, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        jm.head.load(write(tmp_path / "n.nii", broken, affine))
    with pytest.raises(ValueError, match="not whole"):
        jm.head.from_labels(labels * 0.37, affine)
    with pytest.raises(ValueError, match="whole numbers from 0"):
        jm.head.from_labels(labels.astype(np.int16) - 3, affine)


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz"])
def test_empty_and_truncated_files(tmp_path, volume, name):
    path = write(tmp_path / name, *volume)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=name):
        jm.head.load(path)
    path.write_bytes(b"")
    with pytest.raises((ValueError, OSError), match=name):
        jm.head.load(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.nii"):
        jm.head.load(tmp_path / "absent.nii")


def test_enormous_declared_size(tmp_path, volume):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((20000, 20000, 20000))
    header.set_sform(np.eye(4), code=1)
    path = tmp_path / "huge.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(2000)))
    with pytest.raises(ValueError, match=r"huge\.nii\.gz"):
        jm.head.load(path)
    with pytest.raises(ValueError, match="coarser"):
        jm.head.from_labels(*volume, spacing=0.02)


def test_unknown_ambiguous_and_missing_labels(volume):
    labels, affine = volume
    unknown = labels.copy()
    unknown[unknown == 3] = 77
    unknown[unknown == 4] = 250
    with pytest.raises(ValueError, match=r"250.*labels="):
        jm.head.from_labels(unknown, affine)
    ambiguous = shells(order=(3, 2, 1, 4, 5))[0]
    with pytest.raises(ValueError, match=r"would lie outermost.*labels="):
        jm.head.from_labels(ambiguous, affine)
    missing = labels.copy()
    missing[missing == 2] = 1
    with pytest.raises(ValueError, match=r"no voxel of skull"):
        jm.head.from_labels(missing, affine)
    aseg = np.array([0, 24, 24, 24, 42, 41], np.int16)[labels]
    with pytest.raises(ValueError, match=r"skull.*samseg"):
        jm.head.from_labels(aseg, affine)
    with pytest.raises(ValueError, match="air"):
        jm.head.from_labels(np.zeros_like(labels), affine)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({**FIVE, "eye": 6}, r"eye.*6"),
        ({"scalp": 1}, "not in the mapping"),
        ({**FIVE, "skin": 2}, "both"),
        ({**FIVE, "armour": 5}, "both"),
        ({1: "scalp", 2: "armour", 3: "csf", 4: "grey", 5: "white"}, r"armour.*conductivity"),
        ({**FIVE, "csf": -3}, "negative"),
        ({"scalp": 0, **FIVE, "eye": 0}, "air"),
    ],
)
def test_bad_mappings(volume, mapping, message):
    with pytest.raises(ValueError, match=message):
        jm.head.from_labels(*volume, mapping)


def test_bad_crop(volume):
    with pytest.raises(ValueError, match="crop"):
        jm.head.from_labels(*volume, crop=((500.0, 0.0, 0.0), 20.0))
    with pytest.raises(ValueError, match="crop"):
        jm.head.from_labels(*volume, crop=((0.0, 0.0, 30.0), -20.0))


def test_folder_without_a_head(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        jm.head.load(tmp_path / "head.msh")
    with pytest.raises(ValueError, match="neither a mesh"):
        jm.head.load(tmp_path)


def test_bad_fractions(volume):
    labels, affine = volume
    good = (labels[None] > 0).astype(np.float32)
    with pytest.raises(ValueError, match="sum"):
        jm.head.from_fractions(2 * good, affine, ["scalp"])
    with pytest.raises(ValueError, match=r"3, 2, |cubic"):
        jm.head.from_fractions(good, np.diag([1.0, 2, 2, 1]), ["scalp"])
    with pytest.raises(ValueError, match="left-handed"):
        jm.head.from_fractions(good, affine @ np.diag([-1.0, 1, 1, 1]), ["scalp"])
    with pytest.raises(ValueError, match="tissues"):
        jm.head.from_fractions(good, affine, ["scalp", "skull"])
    with pytest.raises(ValueError, match="no head"):
        jm.head.from_fractions(0.3 * good, affine, ["scalp"])


@pytest.mark.host
def test_large_volumes_are_told_before_the_work(tmp_path, monkeypatch):
    labels = np.ones((300, 300, 300), np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([0.5, 0.5, 0.5, 1])), tmp_path / "fine.nii")
    monkeypatch.setattr(_load_module, "_to_whole_numbers", lambda *_: pytest.fail("the work has begun"))
    with (
        pytest.warns(UserWarning, match=r"300 x 300 x 300 voxels of 0.5 mm, .*spacing=2 \(--spacing 2\)"),
        pytest.raises(pytest.fail.Exception, match="the work has begun"),
    ):
        jm.head.load(tmp_path / "fine.nii")
    with pytest.raises(pytest.fail.Exception, match="the work has begun"):
        jm.head.load(tmp_path / "fine.nii", 2.0)
