"""Cortices of simulated sessions: drawn by key or on a line, densities and hot spots, another recruitment curve."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from cheap_map import CORE, CORTEX, TARGET, cheap_map
from scipy import integrate, stats

from jaxm2m import cortex, simulate

PARTS = ("thresholds", "synergies", "poses", "direct_weights", "synergy_weights", "direct_centres", "second_centres")


def session(key=0, field_map=None, **options):
    rate = cortex.FiringRate(cortex.threshold(60.0, "V/m"))
    options = {"rate": rate, "target": TARGET, "stimuli": 36} | options
    return simulate.mapping_session(field_map or cheap_map(), key=jax.random.key(key), **options)


@pytest.mark.float32
def test_the_line_is_what_it_was():
    s = session(cortex="line")
    places = np.asarray(s.direct_centres)[[0, 7, 14]]
    np.testing.assert_array_equal(places, [[-46, -2, 61], [-42, -6, 65], [-34, -2, 65]])
    np.testing.assert_array_equal(np.asarray(s.synergy_centres)[[0, 8]], [[-46, -6, 61], [-30, -2, 65]])
    np.testing.assert_allclose(s.meps[0, :3], [10.455633, 8.308924, 10.47013], rtol=1e-4)
    np.testing.assert_allclose(s.meps[20, :3], [8.787961, 16.685684, 7.061043], rtol=1e-4)
    np.testing.assert_allclose(s.thresholds[:3], [1.0563601, 0.9904620, 1.0556720], rtol=1e-5)
    assert np.isnan(s.second_centres).all()
    # all but the places is also that of a cortex drawn by the same key
    drawn = session()
    for name in ("thresholds", "synergies", "poses"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(s, name))
    assert (np.asarray(drawn.direct_centres) != np.asarray(s.direct_centres)).any(1).mean() > 0.7


@pytest.mark.float32
def test_centres_are_uniform_over_the_hand_area():
    at = cheap_map()
    up = TARGET / np.linalg.norm(TARGET)
    axes = np.stack([np.cross(up, [0, 1.0, 0]), np.cross(up, np.cross(up, [0, 1.0, 0]))])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    points = np.asarray(at.points, float)[np.asarray(at.active)]
    grey = points[np.linalg.norm(points, axis=1) > CORE]
    nearest = grey[np.linalg.norm(grey - TARGET, axis=1).argmin()]
    first, second, level = [], [], []
    for key in range(12):
        s = session(key, at, second_places=8, muscles=tuple(map(str, range(40))), synergies=20)
        centres, others = np.asarray(s.direct_centres, float), np.asarray(s.second_centres, float)
        two = np.isfinite(others).all(1)
        assert two.sum() == 8
        assert np.linalg.norm(others - centres, axis=1)[two].min() >= 12
        first.append(centres)
        second.append(others[two])
        level.append(np.asarray(s.synergy_centres, float))
    for places in map(np.concatenate, (first, level)):
        radius = np.linalg.norm(places, axis=1)
        assert CORE < radius.min() <= radius.max() < CORTEX
        middle = places.mean(0)
        assert np.linalg.norm((middle - nearest) @ axes.T) < 1.5
        across = (places - middle) @ axes.T
        # voxels of 4 mm: a uniform one of 25 mm has a deviation of 7.2 mm
        np.testing.assert_allclose(across.std(0), 25 / 12**0.5, rtol=0.12)
        assert np.abs(across).max() < 12.5 + 4
        assert abs(np.corrcoef(across.T)[0, 1]) < 0.1
    # in no order: neither side of it says where a muscle lies
    order = np.tile(np.arange(40), 12)
    along = np.concatenate(first) @ axes.T
    assert max(abs(stats.spearmanr(order, along[:, k]).statistic) for k in (0, 1)) < 0.12
    assert np.abs((np.concatenate(second) - np.concatenate(first).mean(0)) @ axes.T).max() < 12.5 + 4


@pytest.mark.float32
def test_weights_of_two_places():
    s = session()
    two = np.isfinite(s.second_centres).all(1)
    assert two.sum() == 2
    points = np.asarray(s.points, float)
    assert points.shape == (len(s.active), 3)
    grey = np.linalg.norm(points, axis=1) > CORE
    wanted = []
    for centres in (s.direct_centres, s.second_centres):
        one = np.exp(-((points - np.asarray(centres, float)[:, None]) ** 2).sum(-1) / 50) * grey
        wanted.append(one / one.sum(1, keepdims=True))
    wanted = np.where(two[:, None], (wanted[0] + wanted[1]) / 2, wanted[0])
    np.testing.assert_allclose(s.direct_weights, wanted, atol=1e-6)
    np.testing.assert_allclose(np.asarray(s.direct_weights, float).sum(1), 1, rtol=1e-5)


@pytest.mark.float32
def test_the_number_of_stimuli_leaves_the_cortex():
    at = cheap_map()
    few, many = session(3, at), session(3, at, stimuli=60)
    for name in set(PARTS) - {"poses"}:
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name))
    other = session(4, at)
    for name in PARTS:
        assert not np.array_equal(getattr(few, name), getattr(other, name), equal_nan=True), name
    # more places leave all others where they are
    more = session(3, at, second_places=4)
    np.testing.assert_array_equal(few.direct_centres, more.direct_centres)
    two = np.isfinite(few.second_centres).all(1)
    np.testing.assert_array_equal(np.asarray(few.second_centres)[two], np.asarray(more.second_centres)[two])
    for count, names in ((2, 15), (1, 7), (0, 2)):
        s = session(3, at, muscles=tuple("abcdefghijklmno"[:names]))
        assert np.isfinite(s.second_centres).all(1).sum() == count
    # a strip of cortex where nothing is 12 mm apart: as far as it goes
    narrow = cheap_map((3, 3, 9))
    s = session(3, narrow, second_places=5)
    assert np.isfinite(s.second_centres).all(1).sum() == 5
    assert np.nanmax(np.linalg.norm(s.second_centres - s.direct_centres, axis=1)) > 7


def test_densities_make_the_drive(tolerance):
    at = cheap_map()
    s = session(1, at, alpha=0.4)
    density = np.asarray(s.densities(), np.float64)
    assert density.shape == (15, len(s.active))
    assert (density >= 0).all()
    didt = np.asarray(s.didt)[:, None, None] / 1e6
    rates = np.asarray(s.rate(np.asarray(at(s.poses)) * didt), np.float64)[:, np.asarray(s.active)]
    np.testing.assert_allclose(rates @ density.T, s.drive, rtol=tolerance(2e-4, 1e-10), atol=1e-6)

    spots = s.hotspots()
    assert isinstance(spots, pd.DataFrame)
    assert (spots.index.name, list(spots.columns)) == ("muscle", ["place", "x", "y", "z"])
    second = np.isfinite(s.second_centres).all(1)
    assert list(spots.index.unique()) == list(s.muscles)
    assert list(spots.groupby(level=0, sort=False).size()) == list(1 + second)
    points = np.asarray(s.points, np.float64)
    for k, name in enumerate(s.muscles):
        places = spots.loc[[name], ["x", "y", "z"]].to_numpy()
        whole = density[k] @ points / density[k].sum()
        if second[k]:
            to = [((points - np.asarray(c[k])) ** 2).sum(1) for c in (s.direct_centres, s.second_centres)]
            mine = to[0] <= to[1]
            shares = np.array([density[k, mine].sum(), density[k, ~mine].sum()]) / density[k].sum()
            np.testing.assert_allclose(shares @ places, whole, rtol=1e-6)
            assert np.linalg.norm(places[1] - places[0]) > 5
            assert (
                to[0][((points - places[0]) ** 2).sum(1).argmin()] < to[1][((points - places[0]) ** 2).sum(1).argmin()]
            )
        else:
            np.testing.assert_allclose(places, whole[None], rtol=1e-6)


@pytest.mark.float32
def test_hot_spots_without_synergies_are_at_the_centres():
    s = session(2, cheap_map((20, 20, 9), 3.0), alpha=0, second_places=0)
    spots = s.hotspots()
    assert list(spots.place) == [0] * 15
    assert np.linalg.norm(spots[["x", "y", "z"]].to_numpy() - np.asarray(s.direct_centres), axis=1).max() < 4


@pytest.mark.float64
def test_the_boltzmann_curve():
    """Its mean is the integral over the momentary excitability, and the median is 50 uV at the threshold."""
    strength = np.array([0.6, 1.0, 1.2, 1.5])
    plateau, middle = 0.1 * 10**4.5323, 1.35 * 72.55
    slope = np.log(plateau / 50 - 1) / (middle - 72.55)

    def at(x):
        return plateau / (1 + np.exp(slope * (middle - x)))

    assert at(72.55) == pytest.approx(50)
    noise = stats.genextreme(-0.14, 10**0.9182, 1.55).mean()
    lognormal = np.exp((np.log(10) * 0.1085) ** 2 / 2)
    for s, mean in zip(strength, simulate.expected_mep(strength, curve="boltzmann"), strict=True):
        size, _ = integrate.quad(lambda z, s=s: stats.norm.pdf(z) * at(72.55 * s + 4.88 * z), -8, 8)
        assert float(mean) == pytest.approx(noise + lognormal * size, rel=3e-6)
    some = np.array([1.0, 1.1, 1.2, 1.4])
    v = np.asarray(simulate.mep(jax.random.key(0), jnp.tile(jnp.asarray(some), (100_000, 1)), curve="boltzmann"))
    np.testing.assert_allclose(np.median(v, 0), [59, 170, 488, 2139], rtol=0.02)
    np.testing.assert_allclose(v.mean(0), simulate.expected_mep(some, curve="boltzmann"), rtol=0.01)


@pytest.mark.float32
def test_a_session_with_another_curve():
    at = cheap_map()
    goetz, other = session(1, at, gain=0.55), session(1, at, gain=0.55, curve="boltzmann")
    np.testing.assert_array_equal(goetz.drive, other.drive)
    assert (goetz.curve, other.curve) == ("goetz", "boltzmann")
    strength = (0.75 + 0.55 * np.asarray(other.drive)) / np.asarray(other.thresholds)
    np.testing.assert_allclose(other.mean, simulate.expected_mep(strength, curve="boltzmann"), rtol=1e-4)
    assert np.asarray(other.mean).max() > 1.2 * np.asarray(goetz.mean).max()
    e = np.asarray(at(other.poses)) * np.asarray(other.didt)[:, None, None] / 1e6
    np.testing.assert_allclose(other.expected_meps(e), other.mean, rtol=2e-3)
    y, p = np.asarray(other.meps, float), np.asarray(other.mean, float)
    wanted = np.sqrt((((y - p) / y.max(0)) ** 2).mean() / ((y / y.max(0)) ** 2).mean())
    assert float(other.ceiling()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.float32
def test_the_normal_component_drives_a_drawn_cortex():
    """The truth is then the field along the normals, which the session's own fields show."""
    at = cheap_map()
    normals = np.tile(np.asarray(session(0, at).poses)[0, :3, 1], (at.n_point, 1))
    rate = cortex.FiringRate(cortex.threshold(60.0, "V/m"), component="normal", normals=normals)
    s = session(0, at, rate=rate, turn=60)
    e = np.asarray(at(s.poses)) * np.asarray(s.didt)[:, None, None] / 1e6
    np.testing.assert_allclose(s.expected_meps(e), s.mean, rtol=2e-3)
    # a coil turned away drives nothing along them
    along = (np.asarray(s.poses)[:, :3, 1] @ normals[0]) < 0
    assert along.any()
    assert np.asarray(s.drive)[along].max() == 0


@pytest.mark.float32
def test_refusals():
    def refused(match, **options):
        with pytest.raises(ValueError, match=match):
            session(0, **options)

    refused(r"^cortex: 'row'; choose one of 'drawn', 'line'", cortex="row")
    refused(r"^curve: 'hill'; choose one of 'goetz', 'boltzmann'", curve="hill")
    refused(r"^second_places: -1; must be at least 0", second_places=-1)
    refused(r"^second_places: 16, of 15 muscles", second_places=16)
    refused(
        r'^second_places: 1, but each muscle of a line has one place; take cortex="drawn"',
        second_places=1,
        cortex="line",
    )
    with pytest.raises(ValueError, match=r"^curve: 'hill'"):
        simulate.mep(jax.random.key(0), np.ones((2, 1)), curve="hill")
    with pytest.raises(ValueError, match=r"^curve: 'hill'"):
        simulate.expected_mep(np.ones((2, 1)), curve="hill")
