"""Regression of MEPs on the field: known places and curves found again, SciPy's fits, and files against memory."""

import json

import h5py
import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from jaxm2m import files
from jaxm2m.efield import Grid, Points
from jaxm2m.muscle import regression_map
from jaxm2m.muscle.maps import _regression, _sigmoid

N = 60
GRID = Grid.around((-38, -20, 55), shape=(7, 6, 5), spacing=2.0)
TRUE = np.array([80, 112, 47])  # voxels
KNOWN = {"y0": [12, 20, 8], "amp": [900, 300, 2500], "r": [0.25, 0.2, 0.3], "x0": [70, 80, 65]}
KNOWN = {name: np.array(value, float) for name, value in KNOWN.items()}


def made_fields(n=N, seed=0):
    """Vectors of |E| that falls with the distance from a source above the grid; zero in some voxels."""
    rng = np.random.default_rng(seed)
    xyz = GRID.positions()
    sources = rng.normal(size=(n, 3)) * [9.0, 9, 2] + np.array([-38, -20, 77])
    turn = rng.uniform(0, np.pi, n)
    away = xyz - sources[:, None]
    along = (away[..., 0] * np.cos(turn)[:, None] + away[..., 1] * np.sin(turn)[:, None]) / 20
    size = 1.3e6 * (1 + along**2) / ((away**2).sum(-1) + 100) ** 1.5
    direction = rng.normal(size=3)
    e = size[..., None] * direction / np.linalg.norm(direction)
    e[:, ::11] = 0
    return e.astype(np.float32)


def curve(x, y0, amp, r, x0):
    return y0 + (amp - y0) / (1 + np.exp(-r * (x - x0)))


def made_meps(e, noise=0.0, seed=1):
    x = np.linalg.norm(e[:, TRUE].astype(float), axis=-1)
    return curve(x, *KNOWN.values()) * np.exp(noise * np.random.default_rng(seed).normal(size=x.shape))


@pytest.fixture(scope="module")
def fields():
    return made_fields()


@pytest.fixture(scope="module")
def noisy(fields):
    return made_meps(fields, 0.25)


@pytest.fixture(scope="module")
def found(fields, noisy, precision):
    return regression_map(fields, noisy, grid=GRID, muscles=("FDI", "ADM", "APB"))


def test_the_sources_are_found_again(found):
    table = found.table()
    place = GRID.positions()[TRUE]
    assert np.abs(table[["x", "y", "z"]] - place).max(axis=None) <= 2.0
    assert np.abs(table[["centre_x", "centre_y", "centre_z"]] - place).max(axis=None) < 4.0
    assert (table["r2"] > 0.8).all()
    assert (table["spearman"] > 0.5).all()
    np.testing.assert_allclose(table["volume"], 8 * table["voxels"])
    np.testing.assert_array_equal(table["voxel"], found.best)
    smaller = found.table(share=0.98)
    assert (smaller["voxels"] < table["voxels"]).all()
    assert repr(found).startswith("RegressionMap(3 muscles, 190 of 210 voxels, R^2 to 0.9")


def test_without_noise_place_and_parameters_are_those_put_in(fields, tolerance):
    found = regression_map(fields, made_meps(fields), grid=GRID)
    np.testing.assert_array_equal(found.best, TRUE)
    rows = np.arange(3)
    np.testing.assert_allclose(found.r2[rows, TRUE], 1, atol=tolerance(1e-5, 1e-10))
    for name, value in KNOWN.items():
        scale = KNOWN["amp"] if name == "y0" else value
        error = np.abs(getattr(found, name)[rows, TRUE] - value) / scale
        assert (error < tolerance(5e-3, 1e-5)).all(), name
    assert not found.bounded[rows, TRUE].any()


def test_equals_scipy(fields, noisy, found, x64):
    x = np.linalg.norm(fields.astype(float), axis=-1)
    for k, voxel in enumerate(TRUE):
        for v in (voxel, voxel + 1, voxel + 35):
            if found.bounded[k, v]:
                continue
            start = [KNOWN[n][k] for n in KNOWN]
            best, _ = curve_fit(curve, x[:, v], noisy[:, k], p0=start, xtol=1e-12, ftol=1e-12, maxfev=20000)
            rss = ((noisy[:, k] - curve(x[:, v], *best)) ** 2).sum()
            r2 = 1 - rss / ((noisy[:, k] - noisy[:, k].mean()) ** 2).sum()
            np.testing.assert_allclose(found.r2[k, v], r2, rtol=1e-6)
            np.testing.assert_allclose([getattr(found, n)[k, v] for n in KNOWN], best, rtol=1e-3, atol=1e-2)
    assert not found.bounded[np.arange(3), TRUE].any()


@pytest.mark.float64
def test_no_sigmoid_of_a_fine_grid_fits_better(fields, noisy, found):
    x = np.linalg.norm(fields.astype(float), axis=-1)
    z = noisy - noisy.mean(0)
    for v in range(1, 210, 9):
        if v % 11 == 0:
            continue
        slopes = np.geomspace(0.15, 25, 14)[:, None, None] / x[:, v].std()
        s = 1 / (1 + np.exp(-slopes * (x[:, v] - np.quantile(x[:, v], np.linspace(0, 1, 40))[:, None])))
        s -= s.mean(-1, keepdims=True)
        correlation = s @ z / np.linalg.norm(s, axis=-1)[..., None] / np.linalg.norm(z, axis=0)
        assert (found.r2[:, v] > correlation.max((0, 1)).clip(0) ** 2 - 4e-3).all()


@pytest.mark.float64
def test_predictions_give_r2(fields, noisy, found, tolerance):
    x = np.linalg.norm(fields.astype(float), axis=-1)[:, None, :]
    y = np.asarray(_sigmoid.sigmoid(jnp.asarray(x), found.y0, found.amp, found.r, found.x0))
    rss = ((noisy[:, :, None] - y) ** 2).sum(0)
    r2 = 1 - rss / ((noisy - noisy.mean(0)) ** 2).sum(0)[:, None]
    sound = np.isfinite(found.r2)
    np.testing.assert_allclose(r2[sound], found.r2[sound], atol=tolerance(2e-3, 1e-5))
    np.testing.assert_array_equal(found.r[sound] >= 0, True)
    np.testing.assert_array_equal((found.amp >= found.y0)[sound], True)


@pytest.mark.float64
def test_spearman(fields, noisy, found, tolerance):
    x = np.linalg.norm(fields.astype(float), axis=-1)
    for v in (1, 80, 150):
        for k in range(3):
            expected = stats.spearmanr(x[:, v], noisy[:, k]).statistic
            np.testing.assert_allclose(found.spearman[k, v], expected, rtol=tolerance(1e-6, 1e-12))


@pytest.mark.float64
def test_voxels_without_field_and_muscles_without_meps(fields, noisy, found):
    for name in ("r2", "y0", "amp", "r", "x0", "spearman"):
        value = getattr(found, name)
        assert np.isnan(value[:, ::11]).all()
        assert np.isfinite(np.delete(value, np.arange(0, 210, 11), 1)[found.r[:, 1:2].ravel() > 0]).any()
    assert not found.bounded[:, ::11].any()
    constant = fields.copy()
    constant[:, 5] = (30.0, 20.0, 10.0)
    meps = noisy.copy()
    meps[:, 1] = 7.0
    other = regression_map(constant, meps, grid=GRID)
    assert np.isnan(other.r2[:, 5]).all()
    assert np.isnan(other.r2[1]).all()
    assert other.best[1] == -1
    assert np.isnan(other.table().loc["2", ["r2", "x", "centre_z"]]).all()
    assert other.table().loc["2", "voxels"] == 0
    np.testing.assert_array_equal(other.r2[0, 6:11], found.r2[0, 6:11])


@pytest.mark.float64
def test_meps_that_fall_with_the_field():
    x = np.linspace(10, 90, N)
    meps = np.stack([x, 100 - x, 50 + 0 * x + (np.arange(N) % 2)], -1)
    found = regression_map(np.stack([x, 100 - x], -1), meps)
    np.testing.assert_allclose(found.r2[0], [1, 0], atol=2e-3)
    np.testing.assert_allclose(found.r2[1], [0, 1], atol=2e-3)
    np.testing.assert_allclose(found.spearman[0], [1, -1], rtol=1e-6)
    assert found.r[0, 1] == 0
    assert found.bounded[0, 0]  # a straight line
    np.testing.assert_allclose(found.y0[0, 1], 50, rtol=1e-5)
    np.testing.assert_allclose(found.amp[0, 1], 50, rtol=1e-5)
    assert "x" not in found.table()
    with pytest.raises(ValueError, match="grid: NoneType"):
        found.volume()


def test_units_of_the_field(fields, noisy, found, tolerance):
    # a power of two, so that rounding is the same
    other = regression_map(fields / 1024, noisy / 1024, grid=GRID)
    rows = np.arange(3)
    np.testing.assert_allclose(other.r2, found.r2, rtol=tolerance(1e-3, 1e-9))
    for name, factor in {"x0": 1 / 1024, "r": 1024, "amp": 1 / 1024}.items():
        ours, theirs = (getattr(m, name)[rows, TRUE] for m in (other, found))
        np.testing.assert_allclose(ours, factor * theirs, rtol=tolerance(1e-2, 1e-9))


@pytest.mark.float64
def test_shapes_of_fields_are_the_same_fields(fields, noisy, found):
    magnitude = np.sqrt(fields[..., 0] ** 2 + fields[..., 1] ** 2 + fields[..., 2] ** 2)
    for same in (magnitude, magnitude.reshape(N, 7, 6, 5), fields.reshape(N, 7, 6, 5, 3), jnp.asarray(fields)):
        np.testing.assert_array_equal(regression_map(same, noisy, grid=GRID).r2, found.r2)


@pytest.mark.float64
def test_blocks_and_single_voxels_are_the_same(fields, noisy, found, monkeypatch, tolerance):
    x = np.linalg.norm(fields, axis=-1)
    alone = [_sigmoid.fit(jnp.asarray(x[:, v, None], float), jnp.asarray(noisy, float)) for v in (80, 112)]
    for v, fits in zip((80, 112), alone, strict=True):
        np.testing.assert_allclose(fits.r2[0], found.r2[:, v], atol=tolerance(1e-4, 1e-5))
    monkeypatch.setattr(_regression, "_BATCH_SIZE", 64)
    monkeypatch.setattr(_regression, "_BYTES", 1)
    parts = regression_map(fields, noisy, grid=GRID)
    for name in ("r2", "spearman"):
        np.testing.assert_allclose(getattr(parts, name), getattr(found, name), atol=tolerance(1e-4, 1e-9))


@pytest.mark.float64
def test_batches_within_a_call(fields, noisy, monkeypatch, tolerance):
    x = jnp.linalg.norm(jnp.asarray(fields[:, 78:85], float), axis=-1)
    y = jnp.asarray(noisy, float)
    together = _sigmoid.fit(x, y)
    monkeypatch.setattr(_sigmoid, "_BATCH_SIZE", 3 * N * 3 * 4)
    parts = jax.jit(_sigmoid.fit.__wrapped__)(x, y)
    np.testing.assert_allclose(parts.r2, together.r2, atol=tolerance(1e-5, 1e-10))


def stored(path, fields, **more):
    with h5py.File(path, "w") as file:
        file["e"] = fields
        for name, value in more.items():
            file[name] = value
    return path


@pytest.mark.float64
def test_a_file_gives_what_memory_gives(fields, noisy, found, tmp_path, monkeypatch):
    path = stored(tmp_path / "e.h5", fields.reshape(N, 7, 6, 5, 3), affine=GRID.affine)
    read = regression_map(path, noisy)
    for name in ("r2", "y0", "amp", "r", "x0", "spearman", "bounded"):
        np.testing.assert_array_equal(getattr(read, name), getattr(found, name))
    assert read.grid.shape == (7, 6, 5)
    np.testing.assert_array_equal(read.grid.affine, GRID.affine)
    points = regression_map(stored(tmp_path / "p.h5", fields, points=GRID.positions()), noisy)
    np.testing.assert_array_equal(points.r2, found.r2)
    assert isinstance(points.grid, Points)
    assert "volume" not in points.table()
    np.testing.assert_array_equal(points.table()["x"], found.table()["x"])
    with pytest.raises(ValueError, match="grid: Points; volumes need"):
        points.save(tmp_path / "r2.nii")


@pytest.mark.float64
def test_some_of_the_stimuli(fields, noisy, found, tmp_path):
    more = np.concatenate([made_fields(6, seed=5), fields])
    path = stored(tmp_path / "e.h5", more.reshape(-1, 7, 6, 5, 3), affine=GRID.affine)
    mask = np.arange(66) >= 6
    for stimuli in (mask, np.arange(6, 66)):
        np.testing.assert_array_equal(regression_map(path, noisy, stimuli=stimuli).r2, found.r2)
    order = np.random.default_rng(0).permutation(N)
    mixed = regression_map(path, noisy[order], stimuli=6 + order)
    np.testing.assert_allclose(mixed.spearman, found.spearman, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.float64
def test_shuffled_meps_tell_chance(fields, noisy, found):
    silent = noisy.copy()
    silent[:, 2] = np.random.default_rng(0).lognormal(5, 1, N)
    tested = regression_map(fields, silent, grid=GRID, shuffles=19)
    assert tested.chance.shape == (19, 3)
    table = tested.table()
    np.testing.assert_allclose(table["p"][:2], 0.05)
    assert table["p"].iloc[2] > 0.05
    assert (table["r2"][:2] > table["chance"][:2]).all()
    np.testing.assert_array_equal(tested.r2[:2], found.r2[:2])
    again = regression_map(fields, silent, grid=GRID, shuffles=19)
    np.testing.assert_array_equal(again.chance, tested.chance)


@pytest.mark.float64
def test_saved_maps(found, tmp_path):
    path = found.save(tmp_path / "r2.nii.gz")
    values, affine = files.read_nifti(path)
    np.testing.assert_allclose(affine, GRID.affine)
    assert values.shape == (7, 6, 5, 3)
    np.testing.assert_allclose(values, np.nan_to_num(np.moveaxis(found.volume(), 0, -1)), rtol=1e-6)
    words = json.loads(nibabel.load(path).header.extensions[0].get_content())
    assert words == {"quantity": "r2", "unit": "", "muscles": ["FDI", "ADM", "APB"]}
    x0, _ = files.read_nifti(found.save(tmp_path / "x0.nii", "x0"))
    assert x0.max() > 10
    assert sorted(f.name for f in tmp_path.iterdir()) == ["r2.nii.gz", "x0.nii"]
    with pytest.raises(ValueError, match="quantity: 'R2'"):
        found.save(tmp_path / "r2.nii", "R2")
    with pytest.raises(ValueError, match=r"path: '\.txt'"):
        found.save(tmp_path / "r2.txt")


@pytest.mark.float32  # where squares and logistic tails vanish first
def test_gradients_are_finite_also_where_the_field_is_constant(fields, noisy, monkeypatch):
    x = np.linalg.norm(fields[:, 10:14], axis=-1)  # the second is zero
    x[:, 2] = 40.0
    monkeypatch.setattr(_sigmoid, "_ITERATIONS", 3)

    def total(x):
        r2 = _sigmoid.fit.__wrapped__(x, jnp.asarray(noisy, float)).r2
        return jnp.where(jnp.isfinite(r2), r2, 0).sum()

    slope = jax.jit(jax.grad(total))(jnp.asarray(x, float))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[:, 1:3], 0)
    assert np.abs(slope[:, 0]).max() > 0


@pytest.mark.host
def test_bad_input(fields, noisy, tmp_path):
    broken = fields.copy()
    broken[3, 7] = np.nan
    for problem, e, meps, how in (
        (r"fields: shape \(60, 7, 6\)", np.zeros((N, 7, 6)), noisy, {}),
        ("fields: 59 stimuli, meps has 60", fields[1:], noisy, {}),
        ("fields: stimulus 3 holds NaN", broken, noisy, {}),
        ("fields: the same for all stimuli", np.ones((N, 4)), noisy, {}),
        ("grid: 210 points, but fields has 4", np.ones((N, 4)), noisy, {"grid": GRID}),
        ("meps: 4 stimuli", fields[:4], noisy[:4], {}),
        ("stimuli: index 60 for 60", fields, noisy, {"stimuli": np.arange(1, 61)}),
        (r"stimuli: bool\[3\] for 60", fields, noisy, {"stimuli": np.ones(3, bool)}),
        ("muscles: A for 3 columns", fields, noisy, {"muscles": ["A"]}),
        ("holds no fields of efield.compute_fields", stored(tmp_path / "a.h5", fields), noisy, {}),
        ("holds no fields", stored(tmp_path / "b.h5", fields[..., 0], points=GRID.positions()), noisy, {}),
    ):
        with pytest.raises(ValueError, match=problem):
            regression_map(e, meps, **how)
    with pytest.raises(FileNotFoundError, match=r"fields: .* does not exist"):
        regression_map(tmp_path / "none.h5", noisy)
