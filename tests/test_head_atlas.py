"""The standard head out of installed packages, and its cache."""

import json

import numpy as np
import pytest

import jaxm2m as jm
from jaxm2m.head import _atlas

pytestmark = pytest.mark.host


def ball_mesh(radius, centre):
    from skimage import measure

    n = 2 * radius + 8
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2,) * 3, indexing="ij")
    vertices, triangles, *_ = measure.marching_cubes(np.sqrt(sum(a**2 for a in axes)) - radius, 0.0)
    return vertices - (n - 1) / 2 + centre, triangles


def test_fill_a_closed_triangulation():
    centre = np.array([14.0, 13.3, 15.7])  # a centre on whole columns, where edges are met exactly
    filled = _atlas.fill_surface(*ball_mesh(9, centre), (30, 28, 31))
    axes = np.meshgrid(*map(np.arange, filled.shape), indexing="ij")
    r = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))
    assert filled[r < 8.9].all()
    assert not filled[r > 9.1].any()


def test_fill_what_leaves_the_volume():
    centre = np.array([5.0, 8.2, -1.0])
    filled = _atlas.fill_surface(*ball_mesh(9, centre), (20, 20, 20))
    axes = np.meshgrid(*map(np.arange, filled.shape), indexing="ij")
    r = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))
    assert filled[r < 8.9].all()
    assert not filled[r > 9.1].any()


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """An atlas of five small shells, counted when built."""
    built = []

    def build():
        built.append(1)
        axes = np.meshgrid(*(np.arange(40) - 19.5,) * 3, indexing="ij")
        r = np.sqrt(sum(a**2 for a in axes))
        return np.select([r < 8, r < 11, r < 13, r < 15, r < 18], [5, 4, 3, 2, 1], 0).astype(np.uint8), np.eye(4)

    monkeypatch.setattr(_atlas, "_build_labels", build)
    monkeypatch.setenv("JAXM2M_CACHE", str(tmp_path / "cache"))
    return built, tmp_path / "cache"


def test_built_once_and_cached(quick):
    built, folder = quick
    head = jm.head.atlas(2.0)
    again = jm.head.atlas(2.0)
    assert len(built) == 1
    np.testing.assert_array_equal(head.fractions, again.fractions)
    assert head.space == "MNI152"
    assert head.tissues == ("white", "grey", "csf", "skull", "scalp")
    (record,) = folder.glob("*.json")
    assert set(json.loads(record.read_text())["versions"]) == {"mne", "nilearn"}
    assert sorted(p.suffix for p in folder.iterdir() if p.is_file()) == [".gz", ".json"]
    # the surfaces of scalp and cortex
    assert len(list((folder / "surfaces").iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "bit", "record", "no record", "empty"])
@pytest.mark.slow
def test_a_damaged_cache_is_built_anew(quick, damage):
    built, folder = quick
    whole = jm.head.atlas(2.0)
    (path,) = folder.glob("*.nii.gz")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "record":
        path.with_name(path.name + ".json").write_text("{")
    elif damage == "no record":
        path.with_name(path.name + ".json").unlink()
    else:
        path.write_bytes(b"")
    again = jm.head.atlas(2.0)
    assert len(built) == 2
    np.testing.assert_array_equal(again.fractions, whole.fractions)
    jm.head.atlas(2.0)
    assert len(built) == 2


def test_builders_at_once_write_the_same_bytes(quick):
    _, folder = quick
    first = _atlas._cache_volume().read_bytes()
    for path in folder.iterdir():
        path.unlink()
    assert _atlas._cache_volume().read_bytes() == first


def test_unwritable_cache(quick, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXM2M_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="JAXM2M_CACHE"):
        jm.head.atlas(2.0)


def test_missing_packages(monkeypatch):
    def absent(package):
        raise _atlas.PackageNotFoundError(package)

    monkeypatch.setattr(_atlas, "version", absent)
    with pytest.raises(ImportError, match=r"jaxm2m\[atlas\]"):
        jm.head.atlas()


@pytest.mark.slow
def test_the_real_atlas(monkeypatch, tmp_path):
    pytest.importorskip("mne")
    pytest.importorskip("nilearn")
    monkeypatch.setenv("JAXM2M_CACHE", str(tmp_path))
    head = jm.head.atlas(2.0)
    for tissue, ml in {"scalp": 1647, "skull": 612, "csf": 471, "grey": 1094, "white": 636}.items():
        np.testing.assert_allclose(head.volumes()[tissue], ml, rtol=0.04)
    np.testing.assert_allclose(head.scalp.distance(np.array([-40.0, -20.0, 52.0])), -28, atol=1.0)
    # every ray that leaves the brain meets CSF (perhaps), bone, skin and air, in this order
    for direction in np.array([[0, 0, 1], [1, 0, 0.3], [-1, -0.5, 0.5], [0, -1, 0.6]]):
        steps = np.arange(0, 140, 0.5)[:, None]
        met = head.tissue_at(np.array([0.0, -20, 20]) + steps * direction / np.linalg.norm(direction))
        outer = met[np.flatnonzero((met == 0) | (met == 1))[-1] + 1 :]
        assert (np.diff(np.where(outer < 0, 9, outer)) >= 0).all()
        assert {3, 4} <= set(outer.tolist())
