"""What the simulator promises: checks before work, batches, points and grids, programs that are compiled once."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m import coil as coils
from jaxm2m import efield, fem, head
from jaxm2m._pytree import StaticMetadata
from jaxm2m.efield import _field_map, _fits, _voxel_solver

RADII = (26, 32, 34, 37, 42)
BOX = np.array([[x, y, z] for x in (-20.0, 20) for y in (-20.0, 20) for z in (-8.0, 0)])
SIDES = [[0, 2, 4], [2, 6, 4], [1, 5, 3], [3, 5, 7], [0, 1, 2], [1, 3, 2]]


def figure(seed=0):
    """Four dipoles in two wings and a casing."""
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float)
    position = rng.uniform(-15, 15, (4, 3)) * [1, 1, 0] + [0, 0, -4]
    moment = rng.normal(size=(4, 3)) * 1e-3 + [0, 0, 3e-3]
    wings = tuple(
        coils.Dipoles(jnp.asarray(position[s], dtype), jnp.asarray(moment[s], dtype), i)
        for i, s in enumerate((slice(0, 2), slice(2, 4)))
    )
    casing = coils.Casing(jnp.asarray(BOX, dtype), jnp.asarray(SIDES, jnp.int32))
    return coils.Coil(wings, casing, jnp.full(2, jnp.nan, dtype), StaticMetadata(name=f"coil {seed}"))


def above(gap=6.0, x=0.0, y=0.0):
    pose = np.diag([-1.0, 1.0, -1.0, 1.0])
    pose[:3, 3] = x, y, 42 + gap
    return pose


@pytest.fixture(scope="module")
def ball(precision):
    sphere = head.sphere(RADII, 6.0, centre=(0.4, -0.3, 0.7))
    sim = efield.Simulator(sphere)
    coil = figure()
    rng = np.random.default_rng(1)
    xyz = rng.uniform(-17, 17, (12, 3))
    at = sim.bind(coil, efield.Points(xyz))
    poses = np.stack([above(6, x, y) for x, y in ((0, 0), (3, 1), (-2, 4), (5, -3), (1, 1), (0, -4))])
    e = at(poses.reshape(2, 3, 4, 4), didt=1e6)
    return SimpleNamespace(head=sphere, sim=sim, coil=coil, xyz=xyz, at=at, poses=poses, e=np.asarray(e))


def test_batches_are_the_loop(ball, tolerance):
    assert ball.e.shape == (2, 3, 12, 3)
    one = np.asarray(ball.at(ball.poses[0], didt=1e6))
    assert one.shape == (12, 3)
    assert one.dtype == jnp.result_type(float)
    loop = np.stack([np.asarray(ball.at(p, didt=1e6)) for p in ball.poses])
    assert np.abs(loop - ball.e.reshape(6, 12, 3)).max() <= tolerance(1e-5, 1e-12) * np.abs(loop).max()
    # members do not see each other
    turned = np.asarray(ball.at(ball.poses[::-1].reshape(2, 3, 4, 4), didt=1e6))
    np.testing.assert_array_equal(turned.reshape(6, 12, 3)[::-1], ball.e.reshape(6, 12, 3))


def test_points_agree_with_the_whole_field(ball):
    """At voxel centres deep in one tissue the two recoveries see one smooth field."""
    field = ball.sim(ball.coil, ball.poses[0], didt=1e6)
    tissue = np.asarray(field.tissue)
    centres = np.argwhere(tissue >= 0) @ ball.head.affine[:3, :3].T + ball.head.affine[:3, 3]
    deep = np.linalg.norm(centres - [0.4, -0.3, 0.7], axis=1) < 12
    chosen = centres[deep][:12]
    assert len(chosen) == 12
    got = np.asarray(ball.sim.bind(ball.coil, efield.Points(chosen))(ball.poses[0], didt=1e6))
    expected = np.asarray(field.e)[tissue >= 0][deep][:12]
    assert np.linalg.norm(got - expected) < 0.1 * np.linalg.norm(expected)


def test_points_in_a_tissue_that_is_told(ball):
    """On an interface the user says which side."""
    edge = np.tile([[0.4, -0.3, 26.7]], (12, 1)) + np.linspace(-0.2, 0.2, 12)[:, None]
    white, grey = (
        np.asarray(ball.sim.bind(ball.coil, efield.Points(edge, np.full(12, t)))(ball.poses[0], didt=1e6))
        for t in (0, 1)
    )
    assert np.isfinite(white).all()
    assert np.isfinite(grey).all()
    assert (white != grey).any()


def test_grid_holds_the_brain_and_zero_elsewhere(ball):
    grid = efield.Grid.around((0, 0, 30), shape=(6, 5, 8), spacing=3.0)
    e = ball.sim.bind(ball.coil, grid)(ball.poses[:2], didt=1e6)
    volume = np.asarray(grid.volume(e))
    assert volume.shape == (2, 6, 5, 8, 3)
    positions = grid.positions()
    np.testing.assert_allclose(positions.mean(0), [0, 0, 30], atol=1e-12)
    np.testing.assert_allclose(positions[1] - positions[0], [0, 0, 3], atol=1e-12)
    tissue = ball.head.tissue_at(positions).reshape(grid.shape)
    brain = (tissue == 0) | (tissue == 1)
    assert brain.any()
    assert (~brain).any()
    assert (volume[:, ~brain] == 0).all()
    assert (np.linalg.norm(volume[:, brain], axis=-1) > 0).all()


@pytest.mark.host
def test_grid_arguments():
    with pytest.raises(ValueError, match="centre: shape"):
        efield.Grid.around(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="spacing: 0"):
        efield.Grid.around((0, 0, 0), spacing=0.0)
    with pytest.raises(ValueError, match="axes: not orthonormal"):
        efield.Grid.around((0, 0, 0), axes=np.diag([1, 1, 2.0]))
    with pytest.raises(ValueError, match="shape"):
        efield.Grid.around((0, 0, 0), shape=(4, 0, 4))
    grid = efield.Grid.around((1, 2, 3), shape=(3, 3, 3))
    np.testing.assert_allclose(grid.positions()[13], [1, 2, 3])
    with pytest.raises(ValueError, match="this grid has 27 points"):
        grid.volume(np.zeros((26, 3)))


@pytest.mark.float32
def test_bad_input_is_refused_before_any_solve(ball):
    sim, coil, pose = ball.sim, ball.coil, ball.poses[0]
    with pytest.raises(ValueError, match=r"roi: 1 of 2 points lie outside the head, the first at \(0.0, 0.0, 90.0\)"):
        sim.bind(coil, efield.Points([[0.0, 0, 0], [0, 0, 90]]))
    with pytest.raises(ValueError, match="xyz: 1 of 3 values are NaN"):
        sim.bind(coil, efield.Points([[0.0, np.nan, 0]]))
    with pytest.raises(ValueError, match="xyz: shape"):
        sim.bind(coil, efield.Points([0.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="none of the 8 points of the grid lies in grey or white"):
        sim.bind(coil, efield.Grid.around((0, 0, 200), shape=(2, 2, 2)))
    with pytest.raises(ValueError, match=r"casing reaches .* mm into the head"):
        sim(coil, above(-10), didt=1e6)
    with pytest.raises(ValueError, match="casing reaches"):
        ball.at(np.stack([pose] * 5 + [above(-10)]).reshape(2, 3, 4, 4), didt=1e6)
    sheared = pose.copy()
    sheared[0, 1] = 0.3
    with pytest.raises(ValueError, match="pose: "):
        sim(coil, sheared)
    with pytest.raises(ValueError, match="scaled"):
        ball.at(pose * [[1e-3], [1e-3], [1e-3], [1]])
    with pytest.raises(ValueError, match="one field is one pose"):
        sim(coil, ball.poses)
    with pytest.raises(ValueError, match="pose: shape"):
        ball.at(pose[:3])
    with pytest.raises(ValueError, match="didt: shape"):
        sim(coil, pose, didt=jnp.ones(3))
    with pytest.raises(ValueError, match="interfaces: 'none'"):
        efield.Simulator(ball.head, interfaces="none")
    with pytest.raises(ValueError, match="tolerance"):
        efield.Simulator(ball.head, tolerance=-1.0)
    with pytest.raises(ValueError, match="conductivity: shape"):
        sim.bind(coil, efield.Points(ball.xyz), conductivity=np.ones(3))
    with pytest.raises(ValueError, match="conductivity: 0"):
        sim.bind(coil, efield.Points(ball.xyz), conductivity=np.array([0.1, 0.2, 0.0, 0.1, 0.1]))
    for tissue in (np.full(12, 5), np.full(12, -1), np.zeros(3, int), np.full(12, 0.5)):
        with pytest.raises((ValueError, TypeError), match="tissue: "):
            sim.bind(coil, efield.Points(ball.xyz, tissue))


@pytest.mark.float32
def test_a_solve_that_fails_raises_or_says_so(ball):
    strict = efield.Simulator(ball.head, tolerance=1e-12)
    with pytest.raises(efield.ConvergenceError, match=r"relative residual .* raise `tolerance`"):
        strict(ball.coil, ball.poses[0])
    field = strict(ball.coil, ball.poses[0], throw=False)
    assert field.stats.status == fem.MAX_ITERATIONS
    assert np.isfinite(field.e).all()
    at = strict.bind(ball.coil, efield.Points(ball.xyz))
    with pytest.raises(efield.ConvergenceError, match="6 of 6 solves failed"):
        at(ball.poses.reshape(2, 3, 4, 4), didt=1e6)
    assert np.isnan(jax.jit(lambda at, p: at(p, didt=1e6))(at, ball.poses.reshape(2, 3, 4, 4))).all()


@pytest.mark.float32
def test_a_source_that_is_not_finite_raises(ball):
    with pytest.raises(efield.ConvergenceError, match="not finite"):
        ball.at(ball.poses.reshape(2, 3, 4, 4), didt=np.nan)


def test_a_simulator_is_an_argument(ball, tolerance):
    """Simulator, coil and pose traced or not, in any mixture."""
    pose = jnp.asarray(ball.poses[0])
    expected = np.asarray(ball.sim(ball.coil, pose, didt=1e6).e)
    bound = tolerance(1e-5, 1e-12) * np.abs(expected).max()
    got = jax.jit(lambda sim, coil, pose: sim(coil, pose, didt=1e6).e)(ball.sim, ball.coil, pose)
    assert np.abs(got - expected).max() <= bound
    # a pose that is known while the head is not
    shape = jax.eval_shape(lambda sim: sim(ball.coil, pose, didt=1e6), ball.sim)
    assert shape.e.shape == expected.shape
    leaves, structure = jax.tree.flatten(ball.sim)
    again = jax.tree.unflatten(structure, leaves)
    assert repr(again) == repr(ball.sim)
    assert jax.tree.structure(again) == structure


def programs(caplog):
    return [m for m in caplog.messages if m.startswith("Compiling")]


@pytest.mark.float32
def test_what_has_been_seen_compiles_nothing(ball, caplog):
    """Another head of the same padded shape, another coil of as many elements, another pose."""
    other = head.sphere((25, 31, 33, 38, 41.5), 6.0, centre=(0.4, -0.3, 0.7), conductivity={"grey": 0.3})
    efield.Simulator(other)  # what NumPy arrays of new shapes may compile
    with jax.log_compiles(), caplog.at_level("WARNING"):
        sim = efield.Simulator(other)
        assert sim.parts.fractions.shape == ball.sim.parts.fractions.shape
        at = sim.bind(figure(7), efield.Points(ball.xyz))
        e = at(np.stack([above(7, i, -i) for i in range(6)]).reshape(2, 3, 4, 4), didt=2e6)
        jax.block_until_ready(e)
    big = [m for m in programs(caplog) if re.search("_assemble|evaluate|_recovery|_whole|solve", m)]
    assert not big
    assert np.abs(np.asarray(e) - ball.e).max() > 0


@pytest.mark.float32
def test_no_program_holds_a_large_constant(ball):
    """Nothing of the size of the grid is baked in (it has 4096 voxels: 16 kB an array)."""
    poses = jnp.asarray(ball.poses.reshape(2, 3, 4, 4))
    closed = [
        _field_map.evaluate.trace(ball.at, poses, jnp.asarray(1e6), 1),
        _voxel_solver._solve_head.trace(ball.sim.parts, ball.coil, poses[0, 0], jnp.asarray(1e6), poison=True),
    ]
    closed.append(
        jax.jit(
            jax.value_and_grad(lambda t, at, p: (at(coils.move(p, t), didt=1e6) ** 2).sum()),
        ).trace(jnp.zeros(6), ball.at, poses[0, 0])
    )
    for traced in closed:
        sizes = [np.asarray(c).nbytes for c in traced.jaxpr.consts]
        assert max(sizes, default=0) < 8000
        text = traced.lower().as_text()
        for literal in re.findall(r'dense<"0x([0-9A-F]*)"', text):
            assert len(literal) / 2 < 8000


@pytest.mark.float32
def test_another_conductivity_is_another_head(ball):
    """`bind(conductivity=)` equals a head that has it."""
    sigma = np.asarray(ball.head.conductivity) * [1.3, 0.8, 1.0, 2.0, 0.9]
    other = head.sphere(
        RADII, 6.0, centre=(0.4, -0.3, 0.7), conductivity=dict(zip(ball.head.tissues, sigma.tolist(), strict=True))
    )
    expected = np.asarray(
        efield.Simulator(other).bind(ball.coil, efield.Points(ball.xyz))(ball.poses.reshape(2, 3, 4, 4))
    )
    got = ball.sim.bind(ball.coil, efield.Points(ball.xyz), conductivity=sigma)(ball.poses.reshape(2, 3, 4, 4))
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_another_tolerance_is_kept_by_its_solves(ball):
    residuals = [float(ball.sim.with_tolerance(t)(ball.coil, ball.poses[0]).stats.residual) for t in (1e-1, 1e-3)]
    assert 1e-2 < residuals[0] <= 1e-1
    assert 1e-5 < residuals[1] <= 1e-3
    with pytest.raises(ValueError, match="tolerance"):
        ball.sim.with_tolerance(0.0)


@pytest.mark.float64
@pytest.mark.slow
def test_single_precision_on_demand(ball):
    sim = efield.Simulator(ball.head, dtype=jnp.float32)
    e = sim.bind(ball.coil, efield.Points(ball.xyz))(ball.poses.reshape(2, 3, 4, 4), didt=1e6)
    assert e.dtype == jnp.float32
    assert np.abs(e - ball.e).max() < 1e-4 * np.abs(ball.e).max()


@pytest.mark.float32
def test_a_head_beyond_the_memory_is_refused_before_work(ball, monkeypatch):
    monkeypatch.setattr(_fits, "_device_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match=r"head: .* voxels need about .*larger `spacing`"):
        efield.Simulator(ball.sim.head)
