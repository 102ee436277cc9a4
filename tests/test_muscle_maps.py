"""Motor maps and recruitment curves: surfaces, circles and curves of known area, place and threshold."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from scipy.optimize import curve_fit

from jaxm2m import files
from jaxm2m.muscle import Meps, motor_map, recruitment

WIDTH = 9.0  # mm
LATTICE = np.stack(np.meshgrid(np.arange(-36, 37, 4.0), np.arange(-32, 33, 4.0)), -1).reshape(-1, 2)


def bump(at, peak=1000.0, sites=LATTICE):
    return peak * np.exp(-((sites - at) ** 2).sum(-1) / (2 * WIDTH**2))


@pytest.mark.host
def test_a_gaussian_has_the_area_volume_and_centre_of_the_formulas():
    at, peaks = np.array([[3.0, -5.0], [-6.0, 4.0]]), np.array([1000.0, 400.0])
    found = motor_map(LATTICE, np.stack([bump(a, p) for a, p in zip(at, peaks, strict=True)], -1))
    area, volume = 2 * np.pi * WIDTH**2 * np.log(peaks / 50), 2 * np.pi * WIDTH**2 * (peaks - 50)
    np.testing.assert_allclose(found.area, area, rtol=0.02)
    np.testing.assert_allclose(found.volume, volume, rtol=0.02)
    np.testing.assert_allclose(found.mean, volume / area, rtol=0.02)
    np.testing.assert_allclose(found.volume / found.area, found.mean, rtol=1e-12)
    np.testing.assert_allclose(found.centre, at, atol=0.05)
    np.testing.assert_allclose(found.hotspot, at, atol=1.01)
    np.testing.assert_allclose(found.largest_site, [[4, -4], [-8, 4]], atol=4.01)
    assert not ((found.maps > 0) & (found.maps < 50)).any()
    finer = motor_map(LATTICE, bump(at[0])[:, None], spacing=0.5)
    np.testing.assert_allclose(finer.area, area[:1], rtol=0.02)
    assert repr(found) == "MotorMap(2 muscles, 323 stimuli, 72 x 64 mm)"


@pytest.mark.host
def test_planes_without_noise_are_met_and_only_within_the_hull():
    rng = np.random.default_rng(0)
    sites = rng.uniform(-20, 20, (60, 2))
    found = motor_map(sites, (300 + sites @ [3.0, -4.0])[:, None])
    x, y = np.meshgrid(found.x, found.y, indexing="ij")
    inside = np.isfinite(found.maps[0])
    np.testing.assert_allclose(found.maps[0][inside], (300 + 3 * x - 4 * y)[inside], rtol=1e-3)
    assert 0.5 < inside.mean() < 1
    # the same map in another unit of length
    large = motor_map(10 * sites, (300 + sites @ [3.0, -4.0])[:, None], spacing=10.0)
    np.testing.assert_allclose(large.area, 100 * found.area, rtol=1e-12)
    np.testing.assert_allclose(large.centre, 10 * found.centre, rtol=1e-4)


GRID = np.stack(np.meshgrid(np.arange(-20, 21, 10.0), np.arange(-20, 21, 10.0)), -1).reshape(-1, 2)


@pytest.mark.host
def test_repeats_that_scatter_are_noise_and_no_slope():
    z = 1000 * np.exp(-(GRID**2).sum(1) / 288)
    sites = np.concatenate([GRID + shift for shift in ([-0.75, 0.0], [0.75, 0.0])])
    found = motor_map(sites, np.concatenate([0.5 * z, 1.5 * z])[:, None])
    np.testing.assert_array_equal(found.hotspot, [[0, 0]])
    peak = found.table()["peak"].iloc[0]
    assert 900 < peak < 1100
    # without noise the same sites give the peak itself
    exact = motor_map(GRID, z[:, None])
    np.testing.assert_allclose(exact.table()["peak"], 1000, rtol=5e-3)
    assert found.noise[0] > 0.3 > 0.01 > exact.noise[0]


@pytest.mark.host
def test_where_the_noise_alone_is_there_is_no_hotspot():
    rng = np.random.default_rng(1)
    sites = np.repeat(GRID, 4, axis=0) + rng.normal(0, 1.5, (100, 2))
    found = motor_map(sites, 300 * np.exp(rng.normal(-0.18, 0.6, (100, 5))))
    assert np.nanmax(found.maps) < 450 < found.meps.max() / 2
    assert np.nanmin(found.maps) > 180


@pytest.mark.host
def test_nothing_is_mapped_in_gaps_nor_towards_a_lost_pose():
    at = np.concatenate([GRID, [[90.0, 0]]])
    found = motor_map(at, np.append(bump([15, 0], sites=GRID), 1500.0)[:, None])
    assert not np.isfinite(found.maps[0, found.x > 20]).any()
    assert found.hotspot[0, 0] <= 20
    ring = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 40, endpoint=False)), np.sin(t)], -1)
    ring = np.concatenate([r * ring for r in (20.0, 24, 28)])
    hollow = motor_map(ring, bump([0, 0], sites=ring)[:, None])
    x, y = np.meshgrid(hollow.x, hollow.y, indexing="ij")
    assert not np.isfinite(hollow.maps[0][np.hypot(x, y) < 18]).any()
    assert hollow.at_edge.all()


@pytest.mark.host
def test_a_hotspot_at_the_edge_is_marked():
    found = motor_map(LATTICE, np.stack([bump([0, 0]), bump([42, 0]), np.zeros(len(LATTICE))], -1))
    np.testing.assert_array_equal(found.at_edge, [False, True, False])
    np.testing.assert_array_equal(found.table()["at_edge"], [False, True, False])


@pytest.mark.host
def test_intervals_hold_the_true_map_as_often_as_they_say():
    covered, x = [], GRID
    for seed in range(8):
        rng = np.random.default_rng(seed)
        at = rng.uniform(-8, 8, 2)
        sites = np.repeat(x, 6, axis=0)
        meps = 1000 * np.exp(-((sites - at) ** 2).sum(1) / 288) * np.exp(rng.normal(-0.18, 0.6, len(sites)))
        found = motor_map(sites, meps[:, None], spacing=5.0)
        low, high = (ends[0] for ends in found.interval(0.9))
        points = np.stack(np.meshgrid(found.x, found.y, indexing="ij"), -1)
        truth = 1000 * np.exp(-((points - at) ** 2).sum(-1) / 288)
        covered.append(((low <= truth) & (truth <= high))[np.isfinite(low)].mean())
        assert 0.3 < found.noise[0] < 0.8
        row = found.table().iloc[0]
        assert row["peak_low"] < row["peak"] < row["peak_high"]
    assert 0.8 < np.mean(covered) < 0.98
    with pytest.raises(ValueError, match="confidence: 90"):
        found.interval(90.0)


@pytest.mark.host
@pytest.mark.slow
def test_hotspots_of_noisy_grids_are_near():
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        from motor_maps import measure_errors
    finally:
        sys.path.pop(0)
    away, peak = np.median(measure_errors(8, scatter=1.0), 0)
    assert away < 2.5
    assert 0.8 < peak < 1.25


@pytest.mark.host
def test_overlap_of_circles():
    distance, radius = 10.0, WIDTH * np.sqrt(2 * np.log(1000 / 50))
    at = [(-5, 0), (5, 0), (-5, 0)]
    meps = np.stack([bump(a) for a in at], -1)
    meps = np.concatenate([meps, np.full((len(meps), 1), 20.0)], 1)
    found = motor_map(LATTICE, meps, muscles=("A", "B", "C", "none"))
    lens = 2 * radius**2 * np.arccos(distance / 2 / radius) - distance / 2 * np.sqrt(4 * radius**2 - distance**2)
    circle = np.pi * radius**2
    np.testing.assert_allclose(found.overlap().loc["A", "B"], lens / (2 * circle - lens), rtol=0.02)
    np.testing.assert_allclose(found.overlap("share").loc["B", "A"], lens / circle, rtol=0.02)
    assert found.overlap().loc["A", "C"] == 1
    assert found.overlap().loc["A", "none"] == 0
    assert np.isnan(found.overlap("share").loc["none", "A"])
    assert np.isnan(found.table().loc["none", ["mean", "centre_x", "hotspot_y"]]).all()
    assert found.table().loc["none", "largest"] == 20


def scalp(sites, radius=85.0):
    """Sites on a sphere, seen from the left and above; x to the midline, y to the front."""
    local = np.column_stack([sites, np.sqrt(radius**2 - (sites**2).sum(1))])
    turn = np.deg2rad(-35)
    axes = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    return local @ axes.T, axes


@pytest.mark.host
def test_positions_in_space_give_the_map_of_their_plane_and_points_back():
    positions, axes = scalp(LATTICE)
    meps = np.stack([bump([6.0, -4.0]), bump([0.0, 8.0])], -1)
    found = motor_map(positions, meps)
    flat = motor_map(LATTICE, meps)
    np.testing.assert_allclose(found.centre, flat.centre, atol=0.1)
    np.testing.assert_allclose(found.area, flat.area, rtol=0.01)
    np.testing.assert_allclose(found.plane[:3, :3], axes, atol=1e-6)
    back = found.to_space(found.centre)
    expected, _ = scalp(flat.centre)
    # on the plane, that is below or above the scalp along the normal
    np.testing.assert_allclose((back - expected) @ axes[:, :2], 0, atol=0.1)
    assert np.abs(back - expected).max() < 12
    np.testing.assert_allclose(found.table()[["centre_r", "centre_a", "centre_s"]], back, rtol=1e-12)

    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, 0], poses[:, :3, 1], poses[:, :3, 2] = axes[:, 0], -axes[:, 1], -axes[:, 2]
    poses[:, :3, 3] = positions
    np.testing.assert_allclose(motor_map(poses, meps).maps, found.maps)


@pytest.mark.host
def test_maps_are_saved_as_a_slice_in_space(tmp_path):
    positions, _ = scalp(LATTICE)
    found = motor_map(positions, np.stack([bump([6.0, -4.0]), bump([0.0, 8.0])], -1), muscles=("FDI", "ADM"))
    path = found.save(tmp_path / "map.nii.gz")
    values, affine = files.read_nifti(path)
    assert values.shape == (len(found.x), len(found.y), 1, 2)
    i, j = np.unravel_index(values[:, :, 0, 1].argmax(), values.shape[:2])
    np.testing.assert_allclose(affine[:3, :3] @ [i, j, 0] + affine[:3, 3], found.to_space(found.hotspot[1]), atol=1e-4)
    words = json.loads(nibabel.load(path).header.extensions[0].get_content())
    assert words == {"quantity": "motor map", "unit": "uV", "muscles": ["FDI", "ADM"]}
    with pytest.raises(ValueError, match="path: a map in a plane has no place"):
        motor_map(LATTICE, bump([0, 0])[:, None]).save(tmp_path / "flat.nii")


@pytest.mark.host
def test_bootstrap_tells_overlap_better_than_shift():
    rng = np.random.default_rng(3)
    sites = rng.normal(0, 14, (150, 2))
    clean = np.stack([bump([-0.3, 0], sites=sites), bump([0.3, 0], sites=sites), bump([20.0, 0], sites=sites)], -1)
    meps = clean * np.exp(rng.normal(0, 0.7, clean.shape)) + rng.uniform(5, 15, clean.shape)
    found = motor_map(sites, np.concatenate([meps, np.full((150, 1), 9.0)], 1), muscles=("A", "B", "far", "none"))
    resampled = found.bootstrap(40, key=jax.random.key(1))
    table, pairs = resampled.table(), resampled.pairs()
    for name in ("area", "centre_x", "centre_y"):
        assert (table[f"{name}_low"] <= table[f"{name}_high"])[:3].all()
    assert (np.abs(resampled.centre[:, :3] - found.centre[:3]).max(0) > 0).all()
    assert (table["radius"][:3] > 0.3).all()
    assert np.isnan(table.loc["none", "radius"])
    assert pairs.loc[("A", "B"), "shift_x_low"] < 0 < pairs.loc[("A", "B"), "shift_x_high"]
    assert pairs.loc[("A", "far"), "shift_x_low"] > 5
    assert pairs.loc[("A", "B"), "overlap_low"] > pairs.loc[("A", "far"), "overlap_high"]
    np.testing.assert_array_equal(resampled.area, found.bootstrap(40, key=jax.random.key(1)).area)
    assert np.isnan(motor_map(sites[:4], meps[:4]).bootstrap(30).area).any()  # resamples of two sites
    with pytest.raises(ValueError, match="confidence: 90"):
        found.bootstrap(confidence=90.0)


@pytest.mark.host
def test_muscles_are_named_or_taken_and_flags_are_refused():
    values = np.stack([bump([0, 0]), bump([5, 5])], -1)
    reasons = np.full(values.shape, "", dtype="<U20")
    meps = Meps(values, values, reasons, ("FDI", "ADM"))
    found = motor_map(LATTICE, meps, muscles=["ADM"])
    assert found.muscles == ("ADM",)
    np.testing.assert_array_equal(found.meps[:, 0], values[:, 1])
    reasons[3, 0] = "background"
    with pytest.raises(ValueError, match="1 of 323 stimuli are flagged"):
        motor_map(LATTICE, meps)
    assert motor_map(LATTICE, meps, muscles=["ADM"]).muscles == ("ADM",)
    with pytest.raises(ValueError, match="muscles: A, A for 2 columns"):
        motor_map(LATTICE, values, muscles=("A", "A"))


@pytest.mark.host
@pytest.mark.parametrize(
    ("problem", "positions"),
    {
        "positions: 10 for 323 stimuli": LATTICE[:10],
        "positions: 323 that are on a line": LATTICE * [1, 0] + [0, 1] * LATTICE[:, :1],
        "positions: they span 0.072 x 0.064 mm": LATTICE / 1000,
        "positions: they span 7.2e.04 x 6.4e.04 mm": LATTICE * 1000,
        "positions: shape": LATTICE[:, :1],
        "positions: their plane faces the front": np.insert(LATTICE, 1, 70.0, axis=1),
        "positions: 1 of 646 values are NaN": np.where(np.arange(646).reshape(323, 2) == 5, np.nan, LATTICE),
    }.items(),
)
def test_bad_positions(problem, positions):
    with pytest.raises(ValueError, match=problem):
        motor_map(positions, bump([0, 0])[:, None])


# recruitment

X = np.linspace(30, 90, 60)
KNOWN = {"y0": [12, 20, 8], "amp": [900, 300, 2500], "r": [0.2, 0.35, 0.15], "x0": [58, 49, 64]}
KNOWN = {name: np.array(value, float) for name, value in KNOWN.items()}


def curves(x=X, log=False):
    low, high = (np.log10(KNOWN[n]) if log else KNOWN[n] for n in ("y0", "amp"))
    y = low + (high - low) / (1 + np.exp(-KNOWN["r"] * (x[:, None] - KNOWN["x0"])))
    return 10**y if log else y


@pytest.mark.parametrize("log", [False, True])
def test_known_curves_are_found_again(log, tolerance):
    found = recruitment(X, curves(log=log), log=log)
    for name, value in KNOWN.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=tolerance(2e-2, 1e-5), err_msg=name)
    np.testing.assert_allclose(found.r2, 1, atol=tolerance(1e-5, 1e-12))
    assert not found.bounded.any()
    # by the curve itself
    np.testing.assert_allclose(np.diag(found.predict(found.threshold)), 50, rtol=tolerance(1e-3, 1e-9))
    slope = np.diag(found.predict(found.x0 + 0.01) - found.predict(found.x0 - 0.01)) / 0.02
    np.testing.assert_allclose(slope, found.slope, rtol=tolerance(1e-2, 1e-4))
    np.testing.assert_allclose(found.predict(X), curves(log=log), rtol=tolerance(2e-2, 1e-4), atol=tolerance(0.5, 1e-4))
    assert list(found.table().columns) == ["y0", "amp", "r", "x0", "r2", "threshold", "slope", "bounded"]
    assert repr(found) == "Recruitment(3 muscles, 60 stimuli, R^2 1.00 to 1.00)"


def test_curves_equal_those_of_scipy(x64):
    rng = np.random.default_rng(0)
    y = curves() * np.exp(rng.normal(0, 0.4, (60, 3)))
    found = recruitment(X, y)

    def sigmoid(x, y0, amp, r, x0):
        return y0 + (amp - y0) / (1 + np.exp(-r * (x - x0)))

    for k in range(3):
        start = [KNOWN[n][k] for n in KNOWN]
        best, _ = curve_fit(sigmoid, X, y[:, k], p0=start, xtol=1e-12, ftol=1e-12, bounds=(0, np.inf), max_nfev=10000)
        np.testing.assert_allclose([getattr(found, n)[k] for n in KNOWN], best, rtol=1e-4, atol=1e-9)


def test_units_of_intensity_and_amplitude(tolerance):
    y = curves() * np.exp(np.random.default_rng(0).normal(0, 0.3, (60, 3)))
    # a power of two scales without rounding, which the search would follow
    k = 1024
    first, second = recruitment(X, y), recruitment(k * X, y / k, least=50 / k)
    close = {"rtol": tolerance(1e-3, 1e-8)}
    np.testing.assert_allclose(second.x0, k * first.x0, **close)
    np.testing.assert_allclose(second.r, first.r / k, **close)
    np.testing.assert_allclose(second.amp, first.amp / k, **close)
    np.testing.assert_allclose(second.r2, first.r2, **close)
    np.testing.assert_allclose(second.threshold, k * first.threshold, rtol=tolerance(5e-3, 1e-8))


def test_muscles_that_do_not_follow():
    y = np.stack([np.full(60, 9.0), 1000 - 10 * X, np.linspace(5, 40, 60)], -1)
    found = recruitment(X, y)
    assert np.isnan(found.r2[0])
    assert found.r[1] == found.r2[1] == 0
    assert np.isnan(found.x0[1])
    assert np.isnan(found.threshold[:2]).all()
    assert not found.threshold[2] <= 90  # 50 uV were not reached
    assert repr(found) == "Recruitment(3 muscles, 60 stimuli, R^2 0.00 to 1.00)"
    assert found.bounded[2]
    np.testing.assert_allclose(found.predict(X)[:, 1], y[:, 1].mean(), rtol=1e-5)
    assert found.r2[2] > 0.99
    assert np.isfinite(found.predict(X)).all()


def test_a_floor_is_not_negative():
    x = np.array([40.0, 45, 50, 55, 60, 65])
    y = np.array([30.0, 150, 420, 640, 900, 1100])  # a line whose foot was not seen
    found = recruitment(x, np.stack([y, 1000 / (1 + np.exp(-0.25 * (x - 53)))], -1))
    assert found.y0[0] == 0
    assert (found.y0 > -1e-2).all()
    assert found.bounded[0]
    assert found.r2[0] > 0.97
    np.testing.assert_allclose(found.predict(x)[:, 0], y, atol=90)
    assert 35 < found.threshold[0] < 45
    steps = recruitment(np.repeat(x, 2), np.repeat(y, 2)[:, None] * np.resize([0.6, 1.4], 12)[:, None])
    assert steps.y0[0] >= 0
    assert steps.amp[0] > 900


def test_predictions_can_be_differentiated():
    found = recruitment(X, np.stack([curves()[:, 0], 1000 - 10 * X, np.full(60, 9.0)], -1))
    slope = jax.jacobian(lambda x: found.predict(x))(jnp.asarray(found.x0[0]))
    np.testing.assert_allclose(slope[0], found.slope[0], rtol=1e-3)
    np.testing.assert_array_equal(slope[1:], 0)
    far = jax.jacobian(lambda x: found.predict(x))(jnp.asarray([-1e6, 1e6]))
    assert np.isfinite(far).all()


@pytest.mark.host
def test_what_is_no_recruitment_curve():
    y = curves()
    for problem, x, meps, how in (
        ("intensity: shape", X[:5], y, {}),
        ("intensity: 3 different ones", np.resize([40.0, 50, 60], 60), y, {}),
        ("meps: zeros have no logarithm", X, y - y.min(0), {"log": True}),
        ("least: 0", X, y, {"least": 0}),
    ):
        with pytest.raises(ValueError, match=problem):
            recruitment(x, meps, **how)
