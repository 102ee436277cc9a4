"""Vector potential and magnetic field of a coil against closed forms and identities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from scipy.special import ellipe, ellipk

from jaxm2m import coil as jc
from jaxm2m._pytree import StaticMetadata
from jaxm2m.coil import _potential, _tabulate

pytestmark = pytest.mark.optimized

MU0_4PI = 1e-7
# compiled: op-by-op dispatch costs more than the sums of these tests
vector_potential = jax.jit(jc.vector_potential)
magnetic_field = jax.jit(jc.magnetic_field)


def make(*elements, n_stimulator=1):
    return jc.Coil(elements, None, jnp.full(n_stimulator, jnp.nan), StaticMetadata(name="test"))


def dipoles(n=7, seed=0, stimulator=0):
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float)
    position = rng.uniform([-40, -40, -10], [40, 40, -3], (n, 3))
    return jc.Dipoles(jnp.asarray(position, dtype), jnp.asarray(rng.normal(size=(n, 3)) * 1e-4, dtype), stimulator)


def loop(radius=35.0, sides=400, height=-5.0, stimulator=0):
    angle = 2 * np.pi * np.arange(sides + 1) / sides
    swell = np.sqrt(angle[1] / np.sin(angle[1]))
    ring = np.column_stack([swell * radius * np.cos(angle), swell * radius * np.sin(angle), np.full(sides + 1, height)])
    dtype = jnp.result_type(float)
    return jc.Segments(jnp.asarray(ring[:-1], dtype), jnp.asarray(ring[1:], dtype), jnp.ones(sides, dtype), stimulator)


def wild_pose(seed=3):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = [12.0, -30.0, 55.0]
    return pose


def points_below(n=40, seed=1, near=4.0, far=90.0):
    return np.random.default_rng(seed).uniform([-70, -70, near], [70, 70, far], (n, 3))


def test_dipoles_match_the_closed_form_near_and_far(tolerance):
    element = dipoles()
    for distance in (1.0, 10.0, 300.0):
        x = np.asarray(element.position, float)[:1] + distance * np.array([[0.6, 0.0, 0.8], [0, 1, 0]])
        r = (x[:, None] - np.asarray(element.position, float)) * 1e-3
        m = np.asarray(element.moment, float)
        exact = MU0_4PI * np.sum(np.cross(m[None], r) / np.linalg.norm(r, axis=-1)[..., None] ** 3, axis=1)
        got = np.asarray(vector_potential(make(element), np.eye(4), x))
        assert np.abs(got - exact).max() < tolerance(2e-5, 3e-6) * np.abs(exact).max()


def test_a_polygon_of_segments_is_a_current_loop(tolerance):
    a, height = 35.0, -5.0
    x = points_below()
    rho, z = np.hypot(x[:, 0], x[:, 1]) * 1e-3, (x[:, 2] - height) * 1e-3
    a *= 1e-3
    m = 4 * a * rho / ((a + rho) ** 2 + z**2)
    k = np.sqrt(m)
    azimuthal = 4 * MU0_4PI / k * np.sqrt(a / rho) * ((1 - m / 2) * ellipk(m) - ellipe(m))
    exact = azimuthal[:, None] * np.column_stack([-x[:, 1], x[:, 0], np.zeros(len(x))]) / (rho[:, None] * 1e3)
    coil = make(loop())
    got = np.asarray(vector_potential(coil, np.eye(4), x))
    assert np.abs(got - exact).max() < tolerance(1e-5, 2e-7) * np.abs(exact).max()
    beta2, alpha2 = (a + rho) ** 2 + z**2, (a - rho) ** 2 + z**2
    bz = 2 * MU0_4PI / np.sqrt(beta2) * (ellipk(m) + (a**2 - rho**2 - z**2) / alpha2 * ellipe(m))
    got = np.asarray(magnetic_field(coil, np.eye(4), x))[:, 2]
    assert np.abs(got - bz).max() < tolerance(2e-5, 1e-6) * np.abs(bz).max()


def test_a_small_loop_is_a_dipole(tolerance):
    ring = loop(radius=0.5, sides=64, height=0.0)
    dtype = jnp.result_type(float)
    one = jc.Dipoles(jnp.zeros((1, 3), dtype), jnp.asarray([[0, 0, np.pi * 0.5e-3**2]], dtype))
    x = points_below(near=30)
    a, b = (np.asarray(vector_potential(make(e), np.eye(4), x)) for e in (ring, one))
    # float32: the loop's sides cancel to a hundredth of each
    assert np.abs(a - b).max() < tolerance(2e-2, 1e-3) * np.abs(b).max()


@pytest.mark.parametrize("element", [dipoles, loop])
def test_magnetic_field_is_the_curl_and_divergence_vanishes(x64, element):
    coil, x, h = make(element()), points_below(20), 1e-3
    pose = wild_pose()
    x = x @ pose[:3, :3].T + pose[:3, 3]
    jacobian = np.empty((len(x), 3, 3))
    for b in range(3):
        step = np.zeros(3)
        step[b] = h
        plus, minus = (np.asarray(vector_potential(coil, pose, x + s * step)) for s in (1, -1))
        jacobian[:, :, b] = (plus - minus) / (2 * h * 1e-3)
    curl = np.stack([jacobian[:, i, j] - jacobian[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1)
    got = np.asarray(magnetic_field(coil, pose, x))
    assert np.abs(got - curl).max() < 1e-6 * np.abs(curl).max()
    assert np.abs(np.trace(jacobian, axis1=1, axis2=2)).max() < 1e-6 * np.abs(jacobian).max()


@pytest.mark.parametrize("element", [dipoles, loop])
def test_moving_coil_and_points_together_turns_the_field(element, tolerance):
    coil, x, pose = make(element()), points_below(), wild_pose()
    moved = x @ pose[:3, :3].T + pose[:3, 3]
    for f in (vector_potential, magnetic_field):
        here, there = np.asarray(f(coil, np.eye(4), x)), np.asarray(f(coil, pose, moved))
        assert np.abs(there - here @ pose[:3, :3].T).max() < tolerance(3e-5, 1e-12) * np.abs(here).max()


def test_poses_batch_over_leading_axes(tolerance):
    coil, x = make(dipoles(), loop(sides=16)), points_below()
    poses = np.stack([wild_pose(s) for s in range(6)]).reshape(2, 3, 4, 4)
    batch = vector_potential(coil, poses, x, didt=2.0)
    assert batch.shape == (2, 3, len(x), 3)
    one = vector_potential(coil, poses[1, 2], x, didt=2.0)
    mapped = jax.vmap(lambda p: vector_potential(coil, p, x, didt=2.0))(jnp.asarray(poses[0]))
    scale = float(jnp.abs(batch).max())
    assert np.abs(batch[1, 2] - one).max() < tolerance(1e-5, 1e-13) * scale
    assert np.abs(batch[0] - mapped).max() < tolerance(1e-5, 1e-13) * scale


@pytest.mark.float32
def test_chunks_change_nothing(monkeypatch, tolerance):
    coil, x = make(dipoles(), loop(sides=16)), points_below(101)
    whole = [f(coil, wild_pose(), x) for f in (vector_potential, magnetic_field)]
    monkeypatch.setattr(_potential, "PAIRS", 16 * 13)
    # B comes from a Jacobian, which rounds up to 2e-4; how much of it changes with the chunks is the processor's
    rounding = {jc.vector_potential: tolerance(1e-5, 1e-13), jc.magnetic_field: tolerance(1e-4, 1e-12)}
    for (f, least), reference in zip(rounding.items(), whole, strict=True):
        f = jax.jit(lambda *a, f=f: f(*a))  # traced anew
        got = f(coil, wild_pose(), x)
        assert np.abs(got - reference).max() < least * np.abs(reference).max()


@pytest.mark.float32
def test_no_array_of_all_points_by_all_elements():
    coil, x = make(dipoles(600)), jnp.zeros((20_000, 3))
    pose = jnp.eye(4)

    def largest(jaxpr):
        sizes = [0]
        for equation in jaxpr.eqns:
            sizes += [int(np.prod(v.aval.shape)) for v in equation.outvars]
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    sizes.append(largest(inner))
        return max(sizes)

    gradient = jax.grad(lambda p: jnp.sum(jc.vector_potential(coil, p, x) ** 2))
    assert largest(jax.make_jaxpr(gradient)(pose).jaxpr) <= 2 * _potential.PAIRS < 600 * 20_000


def test_gradient_in_pose_and_coil_against_central_differences(x64):
    coil, x, pose = make(dipoles(), loop(sides=12)), points_below(), jnp.asarray(wild_pose())
    weight = jnp.asarray(np.random.default_rng(5).normal(size=(len(x), 3)))

    def value(twist, coil):
        return jnp.sum(weight * vector_potential(coil, jc.move(pose, twist), x, didt=1e6))

    twist = jnp.asarray([1.0, -2.0, 0.5, 0.1, 0.2, -0.1])
    value = jax.jit(value)
    by_twist = jax.jit(jax.grad(value))(twist, coil)
    for i in range(6):
        e = jnp.zeros(6).at[i].set(1e-4)
        difference = (value(twist + e, coil) - value(twist - e, coil)) / 2e-4
        assert abs(difference - by_twist[i]) < 1e-7 * jnp.abs(by_twist).max()
    direction = jax.tree.map(lambda a: jnp.ones_like(a) * jnp.abs(a).mean() * 1e-2, coil)
    _, tangent = jax.jvp(lambda c: value(twist, c), (coil,), (direction,))
    by_coil = jax.jit(jax.grad(lambda c: value(twist, c)))(coil)
    pulled = sum(
        float(jnp.vdot(a, b))
        for a, b in zip(jax.tree.leaves(by_coil.elements), jax.tree.leaves(direction.elements), strict=True)
    )
    assert abs(tangent - pulled) < 1e-10 * abs(tangent)
    h = 1e-4
    plus = value(twist, jax.tree.map(lambda a, b: a + h * b, coil, direction))
    minus = value(twist, jax.tree.map(lambda a, b: a - h * b, coil, direction))
    assert abs((plus - minus) / (2 * h) - tangent) < 1e-6 * abs(tangent)


@pytest.mark.float32
@pytest.mark.parametrize("element", [dipoles, loop])
def test_finite_with_derivatives_on_the_elements(element):
    element = element()
    coil = make(element)
    first = element.position if isinstance(element, jc.Dipoles) else element.start
    middle = first if isinstance(element, jc.Dipoles) else (element.start + element.end) / 2
    x = jnp.concatenate([first[:3], middle[:3]])

    def value(twist):
        return jnp.sum(vector_potential(coil, jc.move(jnp.eye(4), twist), x))

    zero = jnp.zeros(6)
    assert np.isfinite(vector_potential(coil, np.eye(4), x)).all()
    assert np.isfinite(magnetic_field(coil, np.eye(4), x)).all()
    assert np.isfinite(jax.jit(jax.grad(value))(zero)).all()
    assert np.isfinite(jax.jit(jax.hessian(value))(zero)).all()


def test_a_segment_of_no_length_and_far_points_are_harmless(tolerance):
    ring = loop(sides=16)
    dtype = jnp.result_type(float)
    extra = jc.Segments(jnp.zeros((1, 3), dtype), jnp.zeros((1, 3), dtype), jnp.ones(1, dtype))
    x = np.array([[0.0, 0.0, 0.0], [10, 20, 30], [1e4, 0, 0]])
    a, b = (vector_potential(make(*e), np.eye(4), x) for e in ((ring,), (ring, extra)))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    gradient = jax.jit(jax.grad(lambda e: jnp.sum(vector_potential(make(e), np.eye(4), x))))(extra)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_each_stimulator_drives_its_own_elements(tolerance):
    a, b, x = dipoles(seed=1), loop(sides=16, stimulator=1), points_below()
    both = make(a, b, n_stimulator=2)
    got = vector_potential(both, np.eye(4), x, didt=np.array([2.0, -3.0]))
    alone = [np.asarray(vector_potential(make(e), np.eye(4), x)) for e in (a, jc.Segments(b.start, b.end, b.turns))]
    expected = 2 * alone[0] - 3 * alone[1]
    assert np.abs(got - expected).max() < tolerance(1e-5, 1e-12) * np.abs(expected).max()
    slope = jax.grad(lambda d: jnp.sum(vector_potential(both, np.eye(4), x, didt=d)))(jnp.ones(2))
    np.testing.assert_allclose(slope, [v.sum() for v in alone], rtol=tolerance(1e-3, 1e-10))
    with pytest.raises(ValueError, match=r"didt: shape \(3,\) for a coil with 2"):
        vector_potential(both, np.eye(4), x, didt=np.ones(3))


@pytest.mark.float32
def test_a_coil_passes_through_jit_as_an_argument():
    traces = []

    @jax.jit
    def value(coil, pose, x):
        traces.append(1)
        return jc.vector_potential(coil, pose, x)

    x = jnp.asarray(points_below())
    value(make(dipoles(seed=1)), jnp.eye(4), x)
    other = make(dipoles(seed=2))
    value(jc.Coil(other.elements, None, other.didt_max, StaticMetadata(name="another")), jnp.eye(4), x)
    assert len(traces) == 1
    assert not any(c.size > 100 for c in jax.make_jaxpr(value)(other, jnp.eye(4), x).consts if hasattr(c, "size"))


def test_float32_keeps_six_digits():
    coil = jc.figure8()
    x = points_below(200, near=2.0)
    got = np.asarray(vector_potential(coil, np.eye(4), x))
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        exact = np.asarray(vector_potential(jc.figure8(), np.eye(4), x))
    finally:
        jax.config.update("jax_enable_x64", before)
    assert np.abs(got - exact).max() < 1e-5 * np.abs(exact).max()


# -- the computed coils ------------------------------------------------------------------------------------------------


def test_figure8_points_along_y_and_resembles_the_literature(tolerance):
    e = -np.asarray(vector_potential(jc.figure8(), np.eye(4), np.array([[0.0, 0.0, 40.0]]), didt=1e6))[0]
    assert abs(e[1] - 0.977) < 0.002
    assert np.abs(e[[0, 2]]).max() < 1e-6


@pytest.mark.float32
def test_figure8_against_the_dipole_model(data):
    reference = jc.load(data("coils/Magstim_70mm_Fig8.ccd"))
    x = points_below(300, near=8.0)
    a, b = (np.asarray(vector_potential(c, np.eye(4), x)) for c in (jc.figure8(), reference))
    assert np.linalg.norm(a - b) < 0.015 * np.linalg.norm(b)


def test_figure8_discretisation_error_is_as_stated(x64):
    fine, coarse = jc.figure8(sides=200, layers=5), jc.figure8()
    x = np.random.default_rng(0).uniform([-95, -50, 5], [95, 50, 5], (200, 3))
    a, b = (np.asarray(vector_potential(c, np.eye(4), x)) for c in (fine, coarse))
    assert np.linalg.norm(a - b, axis=1).max() < 4e-5 * np.linalg.norm(a, axis=1).max()


@pytest.mark.float32
def test_circular_runs_round():
    coil = jc.circular(inner_diameter=70, outer_diameter=70, turns=1, wire_height=0.0, layers=1, sides=200)
    x = np.array([[35.0, 0, 10], [-35.0, 0, 10], [0, 0, 10]])
    e = -np.asarray(vector_potential(coil, np.eye(4), x, didt=1e6))
    assert e[0, 1] > 0
    assert abs(e[0, 1] + e[1, 1]) < 1e-5 * e[0, 1]
    assert abs(e[2]).max() < 1e-5 * e[0, 1]


@pytest.mark.host
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"turns": 0}, "turns: 0"),
        ({"inner_diameter": 90.0}, "outer_diameter: 87.0 mm is not above"),
        ({"outer_diameter": float("nan")}, "outer_diameter: nan"),
        ({"sides": 3}, "sides: 3"),
        ({"wire_height": -1.0}, "wire_height: -1"),
    ],
)
def test_impossible_windings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        jc.figure8(**arguments)


# -- stand-ins --------------------------------------------------------------------------------------------------------


def test_tabulated_coil_equals_the_sum(x64):
    coil = make(dipoles(), loop(sides=24, stimulator=1), n_stimulator=2)
    table = jc.tabulate(coil, spacing=5.0, reach=70.0)
    assert [type(e) for e in table.elements] == [jc.PotentialGrid, jc.PotentialGrid]
    assert [e.stimulator for e in table.elements] == [0, 1]
    pose = wild_pose()
    x = np.random.default_rng(1).uniform([-40, -40, 15], [40, 40, 50], (200, 3)) @ pose[:3, :3].T + pose[:3, 3]
    didt = np.array([1e6, -2e6])
    a, b = (np.asarray(vector_potential(c, pose, x, didt)) for c in (coil, table))
    assert np.abs(a - b).max() < 2e-3 * np.abs(a).max()
    a, b = (np.asarray(magnetic_field(c, pose, x, didt)) for c in (coil, table))
    assert np.abs(a - b).max() < 2e-2 * np.abs(a).max()


@pytest.mark.parametrize("half", [20, 21])
@pytest.mark.parametrize("make_element", [dipoles, partial(loop, sides=24)], ids=["dipoles", "loop"])
def test_nodes_far_from_a_coil_follow_from_every_second_one(x64, make_element, half):
    element = make_element()  # here: before a test starts JAX is in float32
    spacing = 4.0
    axis = spacing * np.arange(-half, half + 1)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    exact = np.asarray(vector_potential(make(element), np.eye(4), nodes))
    found = _tabulate._tabulate_element(element, half, spacing).reshape(-1, 3)
    away = cKDTree(_tabulate._source_points(element)).query(nodes)[0]
    size = np.linalg.norm(exact, axis=1)
    error = np.linalg.norm(found - exact, axis=1)
    outside = away >= _tabulate.CLAMP
    near = outside & (away < _tabulate.NEAR * spacing)
    assert error[near].max() < 1e-12 * size.max()
    assert 0 < error[~near & outside].max() < 2e-5 * size[outside].max()
    # no poles inside
    assert np.linalg.norm(found[~outside], axis=1).max() < size[~outside].max()


def test_a_coil_beside_its_grid_is_tabulated_too(x64):
    far = jc.Dipoles(jnp.array([[300.0, 0, 0]]), jnp.array([[0, 0, 1.0]]))
    found = _tabulate._tabulate_element(far, 8, 5.0).reshape(-1, 3)
    axis = 5.0 * np.arange(-8, 9)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    exact = np.asarray(vector_potential(make(far), np.eye(4), nodes))
    np.testing.assert_allclose(found, exact, atol=1e-6 * np.abs(exact).max())


@pytest.mark.float32
def test_tabulated_coil_stays_finite_through_its_dipoles_and_decays_outside():
    table = jc.tabulate(make(dipoles()), spacing=5.0, reach=40.0)
    assert np.isfinite(table.elements[0].coefficients).all()
    x = np.column_stack([np.linspace(30.0, 400.0, 200), np.full(200, 3.0), np.full(200, 7.0)])
    a = np.linalg.norm(vector_potential(table, np.eye(4), x), axis=1)
    assert (np.diff(a[x[:, 0] > 45]) < 0).all()
    assert a[-1] < 0.02 * a[x[:, 0] > 40][0]

    def value(twist):
        return jnp.sum(vector_potential(table, jc.move(jnp.eye(4), twist), x))

    assert np.isfinite(jax.jit(jax.hessian(value))(jnp.zeros(6))).all()


def test_clusters_keep_the_far_field(tolerance):
    coil = make(dipoles(400))
    few = jc.cluster(coil, 8.0)
    assert few.elements[0].size < 400
    x = points_below(near=60, far=120)
    a, b = (np.asarray(vector_potential(c, np.eye(4), x)) for c in (coil, few))
    assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)
    same = jc.cluster(coil, 1e-3)
    b = np.asarray(vector_potential(same, np.eye(4), x))
    assert np.abs(a - b).max() < tolerance(1e-4, 1e-10) * np.abs(a).max()


@pytest.mark.host
def test_stand_ins_refuse_impossible_sizes():
    coil = make(dipoles())
    with pytest.raises(ValueError, match="spacing: 0"):
        jc.tabulate(coil, spacing=0.0)
    with pytest.raises(ValueError, match="nodes"):
        jc.tabulate(coil, spacing=0.5, reach=240.0)
    with pytest.raises(ValueError, match="reach: 5"):
        jc.tabulate(coil, reach=5.0)
    with pytest.raises(ValueError, match="size: -1"):
        jc.cluster(coil, -1.0)
