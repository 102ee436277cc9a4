"""Heads from maps of tissue probability: the fractions as they are, and what is refused."""

import nibabel
import numpy as np
import pytest

import jaxm2m as jm

pytestmark = pytest.mark.host
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = (-64, -60, -58)
RADII = {"white": 30.0, "grey": 38.0, "csf": 42.0, "skull": 48.0, "scalp": 54.0}
SPM = {"grey": "c1", "white": "c2", "csf": "c3", "skull": "c4", "scalp": "c5", "air": "c6"}


@pytest.fixture(scope="module")
def maps(precision):
    """Shares of shells, by eight samples a voxel."""
    n, out = (32, 30, 29), {}
    inside = {name: np.zeros(n, np.float32) for name in RADII}
    for offset in np.stack(np.meshgrid(*[[-0.25, 0.25]] * 3, indexing="ij"), -1).reshape(-1, 3):
        p = (np.moveaxis(np.indices(n), 0, -1) + offset) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
        r = np.linalg.norm(p * [1.0, 0.97, 1.04], axis=-1)
        for name, radius in RADII.items():
            inside[name] += (r < radius) / np.float32(8)
    below = np.zeros(n, np.float32)
    for name in RADII:
        out[name] = inside[name] - below
        below = inside[name]
    return {**out, "air": 1 - below}


def write(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)
    return path


@pytest.fixture
def files(maps, tmp_path):
    return {name: write(tmp_path / f"{SPM[name]}head.nii", values) for name, values in maps.items()}


def test_fractions_are_taken_as_they_are(maps, files):
    head = jm.head.load(list(files.values()))
    assert head.tissues == ("white", "grey", "csf", "skull", "scalp")
    for k, name in enumerate(head.tissues):
        np.testing.assert_allclose(head.fractions[k], maps[name], atol=1e-6)
    np.testing.assert_allclose(head.affine, AFFINE)
    assert "fractions from 6 maps of white, grey, csf, skull, scalp, air" in head.metadata["remarks"]


def test_a_mapping_a_fourth_axis_and_another_spacing(maps, files, tmp_path):
    expected = jm.head.load(list(files.values()))
    head = jm.head.load({name: files[name] for name in RADII})
    np.testing.assert_array_equal(head.fractions, expected.fractions)
    order = ("air", "scalp", "skull", "csf", "grey", "white")
    path = write(tmp_path / "all.nii.gz", np.stack([maps[name] for name in order], -1))
    with pytest.raises(ValueError, match=r"tissues: .*all\.nii\.gz holds 6 maps and does not say of what"):
        jm.head.load(path)
    head = jm.head.load(path, tissues=order)
    np.testing.assert_allclose(head.fractions, expected.fractions, atol=1e-6)
    coarse = jm.head.load(path, 6.0, tissues=order)
    assert coarse.spacing == 6.0
    for name, ml in expected.volumes().items():
        assert coarse.volumes()[name] == pytest.approx(ml, rel=1e-4)


def test_an_affine_of_ones_own_is_in_no_space_that_the_file_names(maps, tmp_path):
    paths = []
    for name, values in maps.items():
        image = nibabel.Nifti1Image(values, AFFINE)
        image.set_sform(AFFINE, 4)
        paths.append(tmp_path / f"{SPM[name]}head.nii")
        nibabel.save(image, paths[-1])
    assert jm.head.load(paths).space == "MNI152"
    assert jm.head.load(paths, affine=AFFINE).space == "subject"


def test_stored_in_eight_bits(maps, tmp_path):
    paths = []
    for name, values in maps.items():
        image = nibabel.Nifti1Image(np.round(values * 255).astype(np.uint8), AFFINE)
        image.header.set_slope_inter(1 / 255, 0)
        paths.append(tmp_path / f"{SPM[name]}head.nii")
        nibabel.save(image, paths[-1])
    head = jm.head.load(paths)
    assert head.fractions.sum(0).max() <= 1 + 1e-5
    for k, name in enumerate(head.tissues):
        np.testing.assert_allclose(head.fractions[k], maps[name], atol=0.02)


def test_what_no_map_accounts_for_is_filled_only_by_request(maps, files):
    rest = {name: files[name] for name in ("white", "grey", "skull", "scalp")}
    with pytest.raises(ValueError, match=r"fill: \d+\.\d % of the head in .* belong to no map"):
        jm.head.load(rest)
    head = jm.head.load(rest, fill="csf")
    np.testing.assert_allclose(head.fractions[head.tissues.index("csf")], maps["csf"], atol=1e-5)
    assert any("were taken as csf" in remark for remark in head.metadata["remarks"])
    assert "csf" not in jm.head.load(rest, fill="air").tissues


def test_refusals(maps, files, tmp_path):
    def refuse(message, path, **options):
        with pytest.raises(ValueError, match=message):
            jm.head.load(path, **options)

    brain = [write(tmp_path / f"t1_pve_{k}.nii.gz", maps[n]) for k, n in enumerate(("csf", "grey", "white"))]
    refuse("path: no map of skull, scalp among t1_pve_0", brain)
    refuse("has no name of SPM, CAT", [write(tmp_path / "one.nii", maps["grey"])])
    elsewhere = write(tmp_path / "c6b.nii", maps["air"], np.eye(4))
    refuse("lies on another grid than", [*list(files.values())[:5], elsewhere])
    refuse("add up to 2 in a voxel", {"grey": files["grey"], "white": files["white"], "csf": files["grey"]}, fill="air")
    refuse("holds 0 to 100; probabilities", {"grey": write(tmp_path / "p.nii", 100 * maps["grey"])})
    refuse("labels: maps of tissue probability take none", list(files.values()), labels="five")
    refuse("tissues: 2 names for the 6 maps", list(files.values()), tissues=("grey", "white"))
    refuse("tissues: for maps of tissue probability", files["grey"], tissues=("grey",))
    refuse("fill: 'water'", list(files.values()), fill="water")
