"""Standard electrode positions on a scalp."""

import sys

import numpy as np
import pytest

import jaxm2m as jm


@pytest.fixture(scope="module")
def head(precision):
    """An ellipsoid within 5 mm of Colin27's scalp above z = -30 mm, cut at -60 mm."""
    return ellipsoid()


def ellipsoid(space="MNI152", shift=(0.0, 0.0, 0.0)):
    axes = [np.arange(a, b, 4.0) for a, b in ((-100, 101), (-134, 101), (-58, 117))]
    centre, radii = np.array([0.9, -16.3, -9.4]), np.array([88.1, 105.3, 112.3])
    r = sum(((x - c) / a) ** 2 for x, c, a in zip(np.meshgrid(*axes, indexing="ij"), centre, radii, strict=True))
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [x[0] for x in axes] + np.array(shift)
    # a ramp two voxels wide instead of steps
    fractions = np.clip(0.5 + (1 - np.sqrt(r)) * 90 / 8, 0, 1)[None].astype(np.float32)
    return jm.head.from_fractions(fractions, affine, ["scalp"], space=space)


@pytest.fixture(autouse=True)
def _mne():
    pytest.importorskip("mne")


def test_positions_make_a_head(head):
    at = {
        name: jm.head.electrode(head, name) for name in ("C3", "C4", "Cz", "Fpz", "Oz", "T7", "T8", "Fz", "Pz", "FCz")
    }
    for name, point in at.items():
        assert point.shape == (3,)
        assert point.dtype == np.float64
        assert abs(float(head.scalp.distance(point))) < 1e-3, name
    assert max(abs(at[name][0]) for name in ("Cz", "Fpz", "Oz", "Fz", "Pz", "FCz")) < 4
    assert at["C3"][0] < -50 < 50 < at["C4"][0]
    assert at["T7"][0] < -80 < 80 < at["T8"][0]
    assert at["Fpz"][1] > 80
    assert at["Oz"][1] < -105
    assert at["Fpz"][1] > at["Fz"][1] > at["FCz"][1] > at["Cz"][1] > at["Pz"][1] > at["Oz"][1]
    assert at["Cz"][2] > 90
    assert at["Cz"][2] == max(point[2] for point in at.values())


def test_names_in_any_case_and_their_old_forms(head):
    expected = jm.head.electrode(head, "FCz")
    for name in ("fcz", "FCZ"):
        np.testing.assert_array_equal(jm.head.electrode(head, name), expected)
    np.testing.assert_array_equal(jm.head.electrode(head, "T3"), jm.head.electrode(head, "T7"))


@pytest.mark.host
def test_errors(head):
    with pytest.raises(ValueError, match=r"name: 'C33' is no standard position; did you mean .*C3"):
        jm.head.electrode(head, "C33")
    with pytest.raises(ValueError, match="did you mean a name of the 10-20 or 10-10 system"):
        jm.head.electrode(head, "hotspot")
    with pytest.raises(ValueError, match=r"head: its space is 'subject', .*; give the electrode's coordinates"):
        jm.head.electrode(ellipsoid(space="subject"), "C3")
    with pytest.raises(ValueError, match=r"name: Cz lies \d\d mm from the scalp; take a head that is really in MNI152"):
        jm.head.electrode(ellipsoid(shift=(0, 0, -40)), "cz")
    with pytest.raises(ValueError, match="name: M1 lies where the head is cut"):
        jm.head.electrode(head, "M1")


@pytest.mark.host
@pytest.mark.parametrize("name", ["colin27_1005", "standard_1005"])
def test_both_names_of_the_montage(head, monkeypatch, name):
    import mne

    made = []
    installed = "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"
    monkeypatch.setattr(mne.channels, "get_builtin_montages", lambda: [name])
    make = mne.channels.make_standard_montage

    def record(kind, head_size):
        made.append((kind, head_size))
        return make(installed, head_size=head_size)

    monkeypatch.setattr(mne.channels, "make_standard_montage", record)
    assert jm.head.electrode(head, "C3")[0] < -50
    assert made == [(name, None)]


@pytest.mark.host
def test_without_mne(head, monkeypatch):
    monkeypatch.setitem(sys.modules, "mne", None)
    with pytest.raises(ImportError, match=r"head\.electrode: .*mne.*jaxm2m\[atlas\]"):
        jm.head.electrode(head, "C3")


@pytest.mark.host
@pytest.mark.slow
def test_colin27(data):
    """The head that the positions were measured on: unscaled, in its own frame, they lie on its scalp."""
    from jaxm2m.head._electrodes import _positions

    colin = jm.head.load(data("heads/colin27_labels_1mm.nii.gz"), 4.0, space="MNI152")
    points = np.stack(list(_positions().values()))
    distance = np.asarray(colin.scalp.distance(points))
    assert abs(np.median(distance)) < 1.5
    assert distance.std() < 1.2
    assert np.abs(distance).max() < 6
    for name in ("C3", "C4", "Cz", "Oz", "Fpz"):
        electrode = jm.head.electrode(colin, name)
        assert np.linalg.norm(electrode - _positions()[name]) < 3
        assert abs(float(colin.scalp.distance(electrode))) < 1e-3
