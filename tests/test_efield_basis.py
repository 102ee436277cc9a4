"""What the basis promises: the field of full solves for any coil over its region, and a word where it has none."""

import copy
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxm2m import coil as coils
from jaxm2m import efield, head
from jaxm2m._pytree import StaticMetadata
from jaxm2m.efield import _basis, _basis_sources, _expansion

pytestmark = pytest.mark.optimized

RADIUS, COVER = 92.0, 60.0  # mm: of the scalp, and of the poses round the region that are covered
CENTRE = np.array([-24.3, 12.2, 57.1])  # of the region
SHAPE, STEP = (8, 8, 6), 6.0
N_DIPOLE = 80


def winding(make):
    """Few segments, since their field is of no interest here."""
    return lambda **sizes: make(**sizes, turns=1, layers=1)


def coarse(coil):
    """A coil as an A-grid of 10 mm, by NumPy: compiles nothing."""
    wire = coil.elements[0]
    start, end, turns = (np.asarray(x, np.float64) for x in (wire.start, wire.end, wire.turns))
    axis = np.arange(-240.0, 241, 10)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    distance = np.maximum(cdist(nodes.reshape(-1, 3), (start + end) / 2), 8)
    affine = np.diag([10.0, 10, 10, 1])
    affine[:3, 3] = axis[0]
    table = coils._grid.quasi_interpolate(
        (1e-7 / distance @ (turns[:, None] * (end - start))).reshape(nodes.shape), affine
    )
    return coils.Coil((table,), coil.casing, coil.didt_max, coil.metadata)


def dipoles(position, moment):
    """A coil of one structure, whatever it is made of."""
    dtype = jnp.result_type(float)
    p, m = np.zeros((N_DIPOLE, 3)), np.zeros((N_DIPOLE, 3))
    p[: len(position)], m[: len(moment)] = position, moment
    element = coils.Dipoles(jnp.asarray(p, dtype), jnp.asarray(m, dtype))
    return coils.Coil((element,), None, jnp.full(1, jnp.nan, dtype), StaticMetadata(name="dipoles"))


def figure(wing=35.0, apart=76.0):
    """A figure-8 coil as two discs of dipoles."""
    i = np.arange(N_DIPOLE // 2)
    radius, angle = wing * np.sqrt((i + 0.5) / len(i)), i * np.pi * (3 - np.sqrt(5))
    disc = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(len(i), -7.0)], 1)
    position = np.concatenate([disc - np.array([apart / 2, 0, 0]), disc + np.array([apart / 2, 0, 0])])
    moment = np.repeat([[0, 0, -1.0], [0, 0, 1.0]], len(i), axis=0) * 1.2e-3
    return dipoles(position, moment)


def laid(random, count, arc=COVER, off=(2.0, 30.0), tilt=15.0):
    """Random poses over the sphere, up to `arc` mm round the region."""
    top = CENTRE / np.linalg.norm(CENTRE)
    result = np.zeros((count, 4, 4))
    for pose in result:
        side = np.cross(top, random.normal(size=3))
        angle = arc / RADIUS * np.sqrt(random.uniform())
        up = np.cos(angle) * top + np.sin(angle) * side / np.linalg.norm(side)
        x = np.cross(up, random.normal(size=3))
        x /= np.linalg.norm(x)
        lean = np.radians(random.uniform(0, tilt))
        z = -np.cos(lean) * up + np.sin(lean) * np.cross(x, up)
        pose[:3, :3] = np.stack([x, np.cross(z, x), z], 1)
        pose[:3, 3] = (RADIUS + random.uniform(*off)) * up
        pose[3, 3] = 1
    return result


def relative(found, exact):
    """Relative error of each pose."""
    found, exact = np.asarray(found, np.float64), np.asarray(exact, np.float64)
    return np.linalg.norm(found - exact, axis=(-2, -1)) / np.linalg.norm(exact, axis=(-2, -1))


def changed(basis, **solver):
    return replace(basis, solver=replace(basis.solver, **solver))


@pytest.fixture(scope="module", autouse=True)
def quick_sources(precision):
    with pytest.MonkeyPatch.context() as patch:
        names = {**vars(coils), "tabulate": coarse}
        names |= {name: winding(names[name]) for name in ("figure8", "circular")}
        patch.setattr(_basis_sources, "coils", SimpleNamespace(**names))
        yield


@pytest.fixture(scope="module")
def ball(precision):
    sim = efield.Simulator(head.sphere(spacing=8.0), tolerance=1e-5)
    poses = laid(np.random.default_rng(5), 20, off=(6.0, 30.0))
    return SimpleNamespace(sim=sim, roi=efield.Grid.around(CENTRE, SHAPE, STEP), coil=figure(), poses=poses)


@pytest.fixture(scope="module")
def stored(ball, quick_sources, tmp_path_factory):
    """Where the small basis was built."""
    path = tmp_path_factory.mktemp("basis") / "small.h5"
    efield.Basis.build(ball.sim, ball.roi, path, modes=24, rank=24)
    return path


@pytest.fixture(scope="module")
def small(stored):
    """For whatever does not ask how accurate it is."""
    return efield.Basis.load(stored)


@pytest.fixture(scope="module")
def basis(ball, quick_sources):
    return efield.Basis.build(ball.sim, ball.roi, modes=120, rank=60)


@pytest.fixture(scope="module")
def exact(ball):
    return np.asarray(ball.sim.bind(ball.coil, ball.roi)(ball.poses, didt=1e6))


@pytest.fixture
def at(ball, small):
    return small.bind(ball.coil, limit=1.0)


@pytest.fixture
def closer(ball, basis):
    return basis.bind(ball.coil, limit=0.02)


def objective(e):
    """Nonlinear, with unequal weights, of the order of one."""
    weight = jnp.linspace(0.5, 1.5, e.shape[-2])
    return jnp.log1p((weight[:, None] * e**2).sum((-2, -1)) / 1e4)


# the field


@pytest.mark.float32
@pytest.mark.slow
def test_the_field_is_that_of_a_full_solve(ball, at, closer, exact):
    """For a coil and poses that it was not built from; the more modes, the closer."""
    few, many = relative(at(ball.poses), exact), relative(closer(ball.poses), exact)
    assert few.max() < 0.3
    assert many.max() < 0.01
    assert np.median(many) < 0.002
    assert np.median(few) > 10 * np.median(many)


def test_one_field_map_for_basis_and_simulator(ball, at):
    solver = ball.sim.bind(ball.coil, ball.roi)
    assert type(at) is type(solver) is efield.FieldMap
    for name in ("points", "active", "tissue"):
        np.testing.assert_array_equal(getattr(at, name), getattr(solver, name))
    for name in ("tissues", "space"):
        assert at.metadata[name] == solver.metadata[name]
    e = at(ball.poses[0])
    assert e.shape == (at.n_point, 3) == (np.prod(SHAPE), 3)
    assert e.dtype == jnp.result_type(float)
    # some points of the grid lie in no brain
    own = np.isin(np.arange(at.n_point), at.active)
    assert 0 < own.sum() < at.n_point
    assert (np.asarray(e)[~own] == 0).all()
    assert (np.linalg.norm(np.asarray(e)[own], axis=1) > 0).all()


def test_batches_are_the_loop(ball, at, tolerance):
    loop = np.stack([at(p, didt=2e6) for p in ball.poses])
    bound = tolerance(1e-5, 1e-12) * np.abs(loop).max()
    many = at(ball.poses.reshape(4, 5, 4, 4), didt=2e6)
    assert many.shape == (4, 5, at.n_point, 3)
    np.testing.assert_allclose(many.reshape(loop.shape), loop, rtol=0, atol=bound)
    np.testing.assert_allclose(at(ball.poses[:1])[0] * 2, loop[0], rtol=0, atol=bound)


def test_fields_to_a_file_are_by_the_basis_where_it_holds_them(ball, small, tmp_path, tolerance):
    poses, rates = ball.poses[:5], np.array([1e6, 2e6, -1e6, 0, 3e6])
    estimate = np.asarray(small.estimate(ball.coil, poses))
    limit = float(np.sort(estimate[[0, 1, 2, 4]])[1:3].mean())  # no current, no error: the fourth is held
    held = (estimate <= limit) | (rates == 0)
    assert 0 < held.sum() < 5
    path = efield.compute_fields(
        ball.sim, ball.coil, poses, tmp_path / "e.h5", didt=rates, basis=small, limit=limit, progress=False
    )
    with h5py.File(path) as file:
        e, stored = file["e"][()].reshape(5, -1, 3), {name: file[name][()] for name in file}
    maps = small.bind(ball.coil, limit=1.0), ball.sim.bind(ball.coil, ball.roi)
    by_basis, by_solves = (np.stack([m(p, didt=r) for p, r in zip(poses, rates, strict=True)]) for m in maps)
    expected = np.where(held[:, None, None], by_basis, by_solves)
    np.testing.assert_allclose(e, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(np.isfinite(stored["estimate"]), held)
    np.testing.assert_allclose(stored["estimate"][held], np.where(rates == 0, 0, estimate)[held], rtol=1e-4)
    np.testing.assert_array_equal(stored["iterations"] > 0, ~held)
    np.testing.assert_array_equal(np.isfinite(stored["residual"]), ~held)
    np.testing.assert_array_equal(np.flatnonzero(stored["tissue"].ravel() >= 0), small.active)
    np.testing.assert_array_equal(stored["affine"], ball.roi.affine)
    before = path.stat().st_mtime_ns
    again = {"didt": rates, "basis": small, "limit": limit}
    assert efield.compute_fields(ball.sim, ball.coil, poses, path, **again).stat().st_mtime_ns == before


def test_fields_to_a_file_refuse_what_is_no_basis_of_theirs(ball, small, stored, tmp_path):
    path = tmp_path / "e.h5"
    with pytest.raises(ValueError, match="roi: give points or a grid, or a `basis`"):
        efield.compute_fields(ball.sim, ball.coil, ball.poses, path)
    with pytest.raises(ValueError, match="roi: give points or a grid, or a `basis`"):
        efield.compute_fields(ball.sim, ball.coil, ball.poses, path, roi=ball.roi, basis=small)
    other = efield.Simulator(head.sphere(spacing=12.0))
    with pytest.raises(ValueError, match="basis: the basis was built with another head"):
        efield.compute_fields(other, ball.coil, ball.poses, path, basis=small)
    with pytest.raises(ValueError, match="limit: 0"):
        efield.compute_fields(ball.sim, ball.coil, ball.poses, path, basis=small, limit=0)
    assert not path.exists()


@pytest.mark.slow
def test_transforms_agree(ball, small, at, tolerance):
    """jit with all of it as arguments, vmap over poses, forward and reverse derivatives."""
    poses = jnp.asarray(ball.poses[:3])
    e = np.asarray(at(poses))
    bound = tolerance(1e-5, 1e-12) * np.abs(e).max()
    whole = jax.jit(lambda basis, coil, pose: basis.bind(coil, limit=1.0)(pose))(small, ball.coil, poses)
    np.testing.assert_allclose(whole, e, rtol=0, atol=bound)
    np.testing.assert_allclose(jax.jit(jax.vmap(at))(poses), e, rtol=0, atol=bound)
    np.testing.assert_allclose(jax.vmap(at)(poses), e, rtol=0, atol=bound)

    def value(twist, pose):
        return objective(at(coils.move(pose, twist)))

    forward = jax.jit(jax.vmap(jax.jacfwd(value), (None, 0)))(jnp.zeros(6), poses)
    reverse = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(jnp.zeros(6), poses)
    assert np.abs(reverse).max() > 1e-3
    np.testing.assert_allclose(forward, reverse, rtol=0, atol=tolerance(1e-4, 1e-10) * np.abs(reverse).max())


def differences(f, x, step):
    """Central differences of fourth order, component by component."""
    result = np.zeros(x.shape)
    for i in np.ndindex(*x.shape):
        a, b, c, d = (float(f(x.at[i].add(k * step))) for k in (1, -1, 2, -2))
        result[i] = (8 * (a - b) - (c - d)) / (12 * step)
    return result


@pytest.mark.slow
@pytest.mark.float64
def test_derivative_in_the_pose(ball, at):
    def value(twist):
        return objective(at(coils.move(jnp.asarray(ball.poses[0]), twist)))

    gradient = np.asarray(jax.jit(jax.grad(value))(jnp.zeros(6)))
    expected = differences(jax.jit(value), jnp.zeros(6), 1e-3)
    assert np.abs(expected).min() > 0
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.float64
def test_derivative_in_the_coil(ball, small):
    """Dipoles traced round `bind`: a coil that bends or is designed."""
    element = ball.coil.elements[0]

    def value(position, moment, places):
        p, m = element.position.at[places].set(position), element.moment.at[places].set(moment)
        coil = replace(ball.coil, elements=(coils.Dipoles(p, m),))
        return objective(small.bind(coil, limit=1.0)(ball.poses[1]))

    places = jnp.array([3, 50])
    position, moment = element.position[places], element.moment[places]
    by_position, by_moment = jax.jit(jax.grad(value, (0, 1)))(position, moment, places)
    compiled = jax.jit(value)
    for gradient, expected in (
        (by_position, differences(lambda p: compiled(p, moment, places), position, 1e-2)),
        (by_moment, differences(lambda m: compiled(position, m, places), moment, 1e-5)),
    ):
        assert np.abs(expected).min() > 0
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


def test_linear_in_currents_and_moments(ball, small, tolerance):
    """Two stimulators, each with its own current."""
    halves = [slice(0, 40), slice(40, 80)]
    p, m = ball.coil.elements[0].position, ball.coil.elements[0].moment
    elements = tuple(coils.Dipoles(p[h], m[h], i) for i, h in enumerate(halves))
    coil = coils.Coil(elements, None, jnp.full(2, jnp.nan, p.dtype), StaticMetadata())
    pose = ball.poses[2]

    def field(moments, didt):
        scaled = tuple(replace(e, moment=s * e.moment) for e, s in zip(elements, moments, strict=True))
        return np.asarray(small.bind(replace(coil, elements=scaled), limit=1.0)(pose, didt=didt))

    first, second = field((1, 1), np.array([1e6, 0.0])), field((1, 1), np.array([0.0, 1e6]))
    bound = tolerance(2e-5, 1e-11) * max(np.abs(first).max(), np.abs(second).max())
    assert np.abs(first - second).max() > 1e3 * bound
    for moments, didt in (((1, 1), np.array([3e6, -2e6])), ((3, -2), 1e6), ((1.5, 2), np.array([2e6, -1e6]))):
        np.testing.assert_allclose(field(moments, didt), 3 * first - 2 * second, rtol=0, atol=3 * bound)


def test_no_current_no_field(ball, small, at):
    """Nor an error; all derivatives are finite."""
    pose = jnp.asarray(ball.poses[0])
    np.testing.assert_array_equal(at(pose, didt=0.0), 0)
    still = replace(ball.coil, elements=(jax.tree.map(jnp.zeros_like, ball.coil.elements[0]),))
    np.testing.assert_array_equal(small.bind(still)(pose), 0)
    assert small.estimate(still, pose) == 0

    def value(twist, didt):
        return objective(at(coils.move(pose, twist), didt=didt))

    by_twist, by_didt = jax.jit(jax.grad(value, (0, 1)))(jnp.zeros(6), 0.0)
    np.testing.assert_array_equal(by_twist, 0)
    assert by_didt == 0
    slope = jax.jit(jax.jacfwd(lambda didt: at(pose, didt=didt)))(0.0)
    np.testing.assert_allclose(1e6 * slope, at(pose), rtol=1e-4, atol=1e-5)


# some of the points


def test_picked_points_have_the_numbers_of_the_whole(ball, at, tolerance):
    target = at.within(CENTRE, 9.0, ("grey", "white"))
    e = np.asarray(at(ball.poses[:2]))
    bound = tolerance(1e-5, 1e-12) * np.abs(e).max()
    few = at.pick(target)
    assert 0 < few.n_point == target.sum() < at.active.shape[0]
    np.testing.assert_allclose(few(ball.poses[:2]), e[:, target], rtol=0, atol=bound)
    order = np.flatnonzero(target)[::-1][:4]
    np.testing.assert_allclose(at.pick(order)(ball.poses[:2]), e[:, order], rtol=0, atol=bound)
    assert few.solver.modes.shape[1] == target.sum()
    # the estimate stays that of the whole region
    np.testing.assert_array_equal(few.solver.expansion, at.solver.expansion)


@pytest.mark.float32
def test_points_without_a_field_are_refused(ball, at):
    empty = np.ones(at.n_point, bool)
    empty[np.asarray(at.active)] = False
    with pytest.raises(ValueError, match=rf"where: {empty.sum()} of {at.n_point} points have no field"):
        at.pick(np.ones(at.n_point, bool))
    with pytest.raises(ValueError, match="where: a mask of shape"):
        at.pick(np.ones(5, bool))
    with pytest.raises(ValueError, match=r"centre: no point of grey within 5 mm of \(0\.0, 0\.0, 200\.0\) mm"):
        at.within((0, 0, 200.0))
    with pytest.raises(ValueError, match="tissues: 'gray'; choose one of"):
        at.within(CENTRE, tissues=("gray",))


# what it does not cover


def turned(random, poses):
    """Each turned at will about its centre."""
    poses = poses.copy()
    for pose in poses:
        axes, _ = np.linalg.qr(random.normal(size=(3, 3)))
        pose[:3, :3] = axes * np.linalg.det(axes)
    return poses


DIPOLE = [[0, 0, 0]], [[0, 0, 0.01]]  # mm, A m^2


@pytest.fixture
def opposite(ball):
    pose = ball.poses[0].copy()
    pose[:3] *= -1
    pose[:3, 0] *= -1  # right-handed
    return pose


@pytest.mark.float32
@pytest.mark.slow
def test_what_is_not_covered_is_refused(ball, basis, closer, opposite):
    with pytest.raises(
        efield.CoverageError,
        match=r"pose: 1 of 1 poses are not covered .*estimated error of [\d.e+]+ %, limit 2 %\): .*Simulator\.bind",
    ):
        closer(opposite)
    poses = np.stack([*ball.poses[:3], opposite, ball.poses[4]])
    with pytest.raises(efield.CoverageError, match=r"1 of 5 poses are not covered by the basis \(number 3 "):
        closer(poses)
    single = dipoles(*DIPOLE)
    close = laid(np.random.default_rng(1), 1, arc=1.0, off=(3.0, 3.0))[0]
    with pytest.raises(efield.CoverageError, match=r"limit 1 %"):
        basis.bind(single)(close)
    # and a source inside the head
    close[:3, 3] = 0.9 * CENTRE
    with pytest.raises(efield.CoverageError):
        basis.bind(single)(close)
    with pytest.raises(efield.CoverageError, match="estimated error of nan"):
        closer(ball.poses[0], didt=np.nan)
    assert issubclass(efield.CoverageError, ValueError)


@pytest.mark.slow
@pytest.mark.float32
def test_it_is_nan_where_nothing_can_be_raised(ball, closer, opposite):
    """Value and gradient, of that pose alone."""
    poses = jnp.stack([jnp.asarray(ball.poses[0]), jnp.asarray(opposite), jnp.asarray(ball.poses[1])])
    e = np.asarray(jax.jit(closer)(poses))
    own = np.asarray(closer.active)
    assert np.isnan(e[1, own]).all()
    assert np.isfinite(e[[0, 2]]).all()

    def value(twist, pose):
        return objective(closer(coils.move(pose, twist)))

    for derivative in (jax.grad, jax.jacfwd):
        slope = np.asarray(jax.jit(jax.vmap(derivative(value), (None, 0)))(jnp.zeros(6), poses))
        assert np.isnan(slope[1]).all()
        assert np.isfinite(slope[[0, 2]]).all()


@pytest.mark.float32
@pytest.mark.slow
def test_a_limit_lets_it_pass(ball, basis, opposite):
    estimate = float(basis.estimate(ball.coil, opposite))
    assert estimate > 0.02
    e = basis.bind(ball.coil, limit=1.01 * estimate)(opposite)
    assert np.isfinite(e).all()
    with pytest.raises(efield.CoverageError):
        basis.bind(ball.coil, limit=0.99 * estimate)(opposite)
    for limit in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="limit: "):
            basis.bind(ball.coil, limit=limit)


@pytest.mark.float32
@pytest.mark.slow
def test_no_error_over_the_limit_is_let_pass(ball, basis):
    """Over the limit before the error is: single dipoles at any distance, coils anywhere round the head."""
    random = np.random.default_rng(7)
    for coil, poses, cried in (
        (dipoles(*DIPOLE), turned(random, laid(random, 20, off=(2.0, 60.0))), 20),
        (ball.coil, laid(random, 20, arc=140.0), 100),
        (ball.coil, laid(random, 20, arc=np.pi * RADIUS), 1000),
    ):
        true = relative(basis.bind(coil, limit=1e9)(poses), ball.sim.bind(coil, ball.roi)(poses))
        estimate = np.asarray(basis.estimate(coil, poses.reshape(4, 5, 4, 4)))
        assert estimate.shape == (4, 5)
        estimate = estimate.ravel()
        wrong = true > 0.01
        assert wrong.sum() > 2
        assert (estimate[wrong] > 0.01).all(), np.stack([true, estimate], 1)
        # nor does it cry wolf, over the region at least
        assert (estimate < cried * true).all()


@pytest.mark.slow
@pytest.mark.float32
def test_ordinary_coils_are_covered(ball, basis):
    """At the default limit, from the usual 4 mm on, tilted to 15 degrees, within 60 mm."""
    poses = laid(np.random.default_rng(6), 40, off=(4.0, 30.0))
    for coil in (coils.figure8(), coils.circular()):
        assert float(basis.estimate(coil, poses).max()) < _expansion.LIMIT
        e = basis.bind(replace(coil, casing=None))(poses)
        assert np.isfinite(e).all()


@pytest.mark.float32
@pytest.mark.slow
def test_a_gradient_has_no_field(ball, basis):
    """A coil's A in another gauge is the same coil, and as well covered."""
    fit, held_out = (np.asarray(x, np.float64) for x in (basis.solver.fit_points, basis.solver.held_out))
    coil = [np.asarray(coils.vector_potential(ball.coil, ball.poses[0], x, 1e6)) for x in (fit, held_out)]
    step = [x - np.array([20.0, 60, 120]) for x in (fit, held_out)]
    gradient = [x / np.linalg.norm(x, axis=1, keepdims=True) ** 3 for x in step]
    gradient = [x * np.linalg.norm(coil[1]) / np.linalg.norm(gradient[1]) for x in gradient]

    def served(a):
        z, left = basis.solver.expansion @ a[0].ravel(), a[1].ravel() - basis.solver.residual @ a[0].ravel()
        return np.linalg.norm(z), np.sqrt(3 * np.mean(np.asarray(left) ** 2))

    (size, _), (nothing, left) = served(coil), served(gradient)
    assert nothing < 0.003 * size
    assert left < 0.003 * size


# the head moved


@pytest.fixture(scope="module")
def moved(ball, quick_sources):
    """All of it turned and shifted, and the basis built anew, by other random sources."""
    motion = np.eye(4)
    motion[:3, :3] = coils.move(jnp.eye(4), jnp.asarray([0, 0, 0, 0.4, -0.7, 0.3]))[:3, :3]
    motion[:3, :3] = np.linalg.qr(motion[:3, :3])[0] * [np.sign(np.diag(np.linalg.qr(motion[:3, :3])[1]))]
    motion[:3, 3] = motion[:3, :3] @ [16.0, -8, 24]
    sphere = head.sphere(spacing=8.0, centre=motion[:3, 3], rotation=motion[:3, :3])
    roi = efield.Grid(motion @ ball.roi.affine, SHAPE)
    basis = efield.Basis.build(efield.Simulator(sphere, tolerance=1e-5), roi, modes=80, rank=60)
    return SimpleNamespace(motion=motion, basis=basis)


@pytest.mark.slow
@pytest.mark.float32
def test_a_head_that_is_moved_has_the_moved_field(ball, moved, exact):
    e = np.asarray(moved.basis.bind(ball.coil, limit=1.0)(moved.motion @ ball.poses)) @ moved.motion[:3, :3]
    assert relative(e, exact).max() < 0.02


# files


def content(path):
    """All that an HDF5 file holds."""
    found = {}

    def visit(name, item):
        found[name] = item[()].tobytes() if isinstance(item, h5py.Dataset) else None
        found.update({(name, key): str(value) for key, value in item.attrs.items()})

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return found


def test_saved_and_loaded(ball, tmp_path, tolerance, small):
    """Modes to half precision, relative to the largest value of each; all else as it was."""
    random = np.random.default_rng(0)
    modes = random.normal(size=small.solver.modes.shape) * 10.0 ** random.uniform(-6, 6, (24, 1, 1))
    basis = changed(small, modes=jnp.asarray(modes, small.solver.modes.dtype))
    path = basis.save(tmp_path / "basis.h5")
    again = efield.Basis.load(path, ball.sim)
    assert jax.tree.structure(again) == jax.tree.structure(basis)
    size = np.abs(modes).max((1, 2), keepdims=True)
    assert 0 < np.abs((np.asarray(again.solver.modes) - modes) / size).max() < 2.0**-11
    for now, then in zip(
        jax.tree.leaves(changed(again, modes=0)), jax.tree.leaves(changed(basis, modes=0)), strict=True
    ):
        np.testing.assert_array_equal(now, then)
        assert np.asarray(now).dtype == np.asarray(then).dtype
    assert dict(again.metadata) == dict(basis.metadata)
    # what has been rounded once stays
    assert content(again.save(tmp_path / "again.h5")) == content(path)


@pytest.mark.float32
def test_a_loaded_basis_knows_its_region(ball, small):
    assert isinstance(small.roi, efield.Grid)
    assert small.roi.shape == ball.roi.shape
    np.testing.assert_array_equal(small.roi.affine, ball.roi.affine)
    e = small.bind(ball.coil, limit=1.0)(ball.poses[:2])
    assert small.roi.volume(e).shape == (2, *SHAPE, 3)


@pytest.mark.float32
def test_another_simulator_is_refused_and_named(ball, small, stored):
    with_conductivity = efield.Simulator(head.sphere(spacing=8.0, conductivity={"grey": 0.3}))
    larger = efield.Simulator(head.sphere((69, 78, 80, 86, 92), spacing=8.0))
    hard = copy.copy(ball.sim)
    hard.parts = replace(hard.parts, interfaces="hard")
    for sim, words in (
        (with_conductivity, r"another conductivity \(0\.126 0\.275 .* then, 0\.126 0\.3 .* now\);"),
        (larger, "another head;"),
        (hard, r"another interfaces \(tensor then, hard now\);"),
    ):
        with pytest.raises(ValueError, match=rf"^path: .*small\.h5: the basis was built with {words}"):
            efield.Basis.load(stored, sim)
        with pytest.raises(ValueError, match=f"^sim: the basis was built with {words}"):
            small.check(sim, count=1)
    # numbers do not depend on what a solve may leave
    efield.Basis.load(stored, efield.Simulator(ball.sim.head, tolerance=1e-4))


@pytest.mark.float32
def test_what_is_no_basis_is_refused(ball, tmp_path, small, stored):
    with pytest.raises(ValueError, match=r"is not one of \.h5"):
        efield.Basis.load(tmp_path / "basis.npz")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        efield.Basis.load(tmp_path / "basis.h5")
    with pytest.raises(ValueError, match="does not end in"):
        small.save(tmp_path / "basis.npz")
    with pytest.raises(FileNotFoundError, match="make it first"):
        small.save(tmp_path / "nowhere" / "basis.h5")
    path = tmp_path / "basis.h5"
    path.write_text("text")
    with pytest.raises(ValueError, match="not an HDF5 file"):
        efield.Basis.load(path)
    with h5py.File(path, "w") as file:
        file["modes"] = np.zeros(3)
    with pytest.raises(ValueError, match="holds no basis"):
        efield.Basis.load(path)
    whole = stored.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut off"):
        efield.Basis.load(path)


def without(name):
    def damage(file):
        del file[name]

    return damage


def other_shape(name):
    def damage(file):
        values = file[name][()][..., :-1]
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)

    return damage


def other_notes(file):
    file.attrs["notes"] = json.dumps({"tissues": ["grey"]})


def no_settings(file):
    del file.attrs["settings"]


@pytest.mark.float32
@pytest.mark.parametrize(
    "damage",
    [
        *[without(name) for name in ("modes", "scale", "expansion", "active", "scalp/affine")],
        *[other_shape(name) for name in ("modes", "expansion", "residual", "held_out", "around", "points")],
        other_notes,
        no_settings,
    ],
)
def test_a_damaged_file_is_refused(ball, tmp_path, damage, stored):
    path = tmp_path / "basis.h5"
    path.write_bytes(stored.read_bytes())
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(ValueError, match=r"path: .*basis\.h5 (is not a whole basis|is damaged|does not say)"):
        efield.Basis.load(path)


# building


@pytest.fixture
def killed(ball, tmp_path, monkeypatch, quick_sources):
    """Broken off after 14 of 24 solves, in the second part of ten."""
    path, solved = tmp_path / "killed.h5", _basis._solve_source
    count = iter(range(14))

    def dying(*arguments):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return solved(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_basis, "_solve_source", dying)
        with pytest.raises(KeyboardInterrupt):
            efield.Basis.build(ball.sim, ball.roi, path, modes=24, rank=24)
    assert not path.exists()
    return path


@pytest.fixture
def solves(monkeypatch):
    """A list that grows with each solve of a mode."""
    found, solved = [], _basis._solve_source
    monkeypatch.setattr(_basis, "_solve_source", lambda *arguments: found.append(1) or solved(*arguments))
    return found


@pytest.mark.slow
@pytest.mark.float32
def test_killed_and_called_again(ball, killed, solves, small, stored):
    again = efield.Basis.build(ball.sim, ball.roi, killed, modes=24, rank=24)
    assert len(solves) == 14
    assert content(killed) == content(stored)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(small), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [f.name for f in killed.parent.iterdir() if not f.name.startswith(".")] == ["killed.h5"]


@pytest.mark.float32
@pytest.mark.slow
def test_a_path_begun_with_something_else_is_refused(ball, killed, solves, stored):
    elsewhere = efield.Grid.around(CENTRE + 1, SHAPE, STEP)
    for path, roi, modes, rank, words in (
        (killed, ball.roi, 25, 24, r"modes \(24 solves, rank 24 then, 25 solves, rank 24 now\)"),
        (stored, ball.roi, 24, 20, r"modes \(24 solves, rank 24 then, 24 solves, rank 20 now\)"),
        (killed, elsewhere, 24, 24, "roi"),
        (stored, efield.Points([CENTRE]), 24, 24, r"roi \(Grid of 384 points then, Points of 1 points now\)"),
    ):
        with pytest.raises(ValueError, match=f"was begun with another {words};"):
            efield.Basis.build(ball.sim, roi, path, modes=modes, rank=rank)
    with pytest.raises(ValueError, match="was begun with another tolerance"):
        efield.Basis.build(efield.Simulator(ball.sim.head, tolerance=1e-4), ball.roi, killed, modes=24, rank=24)
    assert not solves


@pytest.mark.float32
def test_a_complete_file_is_read(ball, solves, monkeypatch, small, stored):
    monkeypatch.setattr(_basis_sources, "draw_sources", None)
    before = stored.stat().st_mtime_ns
    again = efield.Basis.build(ball.sim, ball.roi, stored, modes=24, rank=24)
    assert not solves
    assert stored.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.solver.modes, small.solver.modes)


@pytest.mark.float32
def test_arguments_of_a_build(ball, tmp_path, solves):
    def build(roi=ball.roi, path="basis.h5", sim=ball.sim, **sizes):
        efield.Basis.build(sim, roi, tmp_path / path, **{"modes": 24, "rank": 24, **sizes})

    with pytest.raises(ValueError, match="rank: 30; no more components than solved modes"):
        build(rank=30)
    with pytest.raises(ValueError, match="modes: 1; must be at least 2"):
        build(modes=1)
    with pytest.raises(ValueError, match="rank: 0"):
        build(rank=0)
    with pytest.raises(TypeError, match="modes: "):
        build(modes=24.0)
    with pytest.raises(ValueError, match="does not end in"):
        build(path="basis.npz")
    with pytest.raises(FileNotFoundError, match="make it first"):
        build(path="nowhere/basis.h5")
    with pytest.raises(ValueError, match="roi: 1 of 2 points lie outside the head"):
        build(roi=efield.Points([CENTRE, [0, 0, 120.0]]))
    with pytest.raises(ValueError, match="none of the 384 points of the grid"):
        build(roi=efield.Grid.around((0, 0, 300.0), SHAPE, STEP))
    assert not solves
    assert not list(tmp_path.iterdir())  # nothing was begun
    with pytest.raises(efield.ConvergenceError, match="1 of 1 solves failed"):
        build(sim=efield.Simulator(ball.sim.head, tolerance=1e-12), path="strict.h5")
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.slow
@pytest.mark.float32
def test_a_single_point_is_a_region(ball, small, exact):
    """A point of the grid, its tissue told."""
    place = 7
    own = int(small.active[place])
    xyz, tissue = np.asarray(ball.roi.positions())[[own]], np.asarray(small.tissue)[[place]]
    basis = efield.Basis.build(ball.sim, efield.Points(xyz, tissue), modes=40, rank=30)
    assert basis.solver.modes.shape == (3, 1, 3)  # no more components than numbers
    assert isinstance(basis.roi, efield.Points)
    np.testing.assert_array_equal(basis.roi.tissue, tissue)
    np.testing.assert_allclose(basis.roi.positions(), xyz, rtol=1e-6)
    e = basis.bind(ball.coil, limit=1.0)(ball.poses)
    assert e.shape == (20, 1, 3)
    error = relative(e, exact[:, [own]])
    assert np.median(error) < 0.02
    assert error.max() < 0.2


# its own word on its accuracy


@pytest.mark.float32
@pytest.mark.slow
def test_the_table_says_what_a_comparison_does(ball, basis, exact):
    poses = ball.poses[:3]
    # a casing, even one in the head, is no matter
    coil = replace(ball.coil, casing=coils.circular(turns=1, layers=1, wire_height=60.0).casing)
    table = basis.check(ball.sim, coil, poses)
    assert table.columns.tolist() == ["coil", "error", "estimate"]
    assert table.coil.tolist() == ["dipoles"] * 3
    direct = relative(basis.bind(ball.coil, limit=1.0)(poses), exact[:3])
    np.testing.assert_allclose(table.error, 100 * direct, rtol=2e-3)
    np.testing.assert_allclose(table.estimate, 100 * basis.estimate(ball.coil, poses), rtol=1e-4)
    assert len(basis.check(ball.sim, ball.coil, poses[0])) == 1


@pytest.mark.float32
@pytest.mark.slow
def test_accuracy_at_the_end_of_a_build(ball, small, basis):
    """The same two coils and poses for every basis of a region."""
    few, many = small.accuracy, basis.accuracy
    assert few.columns.tolist() == ["coil", "error", "estimate"]
    assert few.coil.tolist() == many.coil.tolist()
    assert few.coil.value_counts().tolist() == [5, 5]
    assert (many.error < 0.2 * few.error).all()
    assert many.error.max() < 1
    again = small.check(ball.sim)
    assert again.coil.tolist() == few.coil.tolist()
    np.testing.assert_allclose(again[["error", "estimate"]], few[["error", "estimate"]], rtol=0.01)


@pytest.mark.float32
def test_arguments_of_a_check(ball, small):
    with pytest.raises(ValueError, match="poses: give a coil and its poses together"):
        small.check(ball.sim, ball.coil)
    with pytest.raises(ValueError, match="poses: give a coil and its poses together"):
        small.check(ball.sim, poses=ball.poses)
    with pytest.raises(ValueError, match="count: 0"):
        small.check(ball.sim, count=0)
    with pytest.raises(ValueError, match="poses: shape"):
        small.check(ball.sim, ball.coil, ball.poses[0, :3])
    with pytest.raises(ValueError, match=r"poses\[1\]: scaled"):
        small.estimate(ball.coil, np.stack([ball.poses[0], ball.poses[0] @ np.diag([2.0, 2, 2, 1])]))


# programs


def programs(caplog):
    return [m for m in caplog.messages if re.match("Compiling|Finished XLA compilation", m)]


@pytest.mark.float32
@pytest.mark.slow
def test_what_has_been_seen_compiles_nothing(ball, basis, moved, caplog):
    """Another pose, another coil of as many elements, another basis of the same shape."""

    @jax.jit
    def slope(field_map, pose):
        return jax.grad(lambda t: objective(field_map(coils.move(pose, t))))(jnp.zeros(6))

    def use(basis, coil, poses):
        field_map = basis.bind(coil, limit=1.0)
        return [field_map(poses), field_map(poses[0]), slope(field_map, poses[0]), basis.estimate(coil, poses)]

    other = figure(30.0, 70.0)
    shifted = moved.motion @ ball.poses[5:10]
    first = use(basis, ball.coil, ball.poses[:5])
    assert moved.basis.solver.modes.shape == basis.solver.modes.shape
    with jax.log_compiles(), caplog.at_level("WARNING"):
        second = use(basis, other, ball.poses[5:10])
        third = use(moved.basis, other, shifted)
        jax.block_until_ready((second, third))
    assert not programs(caplog)
    for a, b, c in zip(first, second, third, strict=True):
        assert len({np.asarray(x).tobytes() for x in (a, b, c)}) == 3
    # and a program of another shape is one that is seen here
    with jax.log_compiles(), caplog.at_level("WARNING"):
        basis.bind(ball.coil, limit=1.0)(ball.poses[:7])
    assert programs(caplog)


@pytest.mark.float32
def test_no_program_holds_the_basis(ball, at):
    """Nothing of its size is baked in: 80 modes at 300 points are 300 kB."""
    traced = jax.jit(lambda at, pose: at(pose)).trace(at, jnp.asarray(ball.poses[0]))
    assert max((np.asarray(c).nbytes for c in traced.jaxpr.consts), default=0) < 1000
    for literal in re.findall(r'dense<"0x([0-9A-F]*)"', traced.lower().as_text()):
        assert len(literal) / 2 < 1000
