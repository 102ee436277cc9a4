"""The field in tetrahedral heads: exact in a sphere, differentiable, and taken by all that takes a voxel head."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_sphere import dipole_field

from jaxm2m import coil as coils
from jaxm2m import efield, fem, head, placement
from jaxm2m._pytree import StaticMetadata
from jaxm2m.efield import _field_map, _fits, _mesh_source
from jaxm2m.head import _mesh_sphere

# one precision each: a fixture `x64` asks for the other
pytestmark = [pytest.mark.float32, pytest.mark.optimized]

RADII = (40, 50, 60)
TISSUES = ("white", "grey", "scalp")


def dipole(position, moment):
    """A coil without casing of one dipole (mm, A m^2 per A), in its own frame."""
    dtype = jnp.result_type(float)
    element = coils.Dipoles(jnp.asarray([position], dtype), jnp.asarray([moment], dtype), 0)
    return coils.Coil((element,), None, jnp.asarray([jnp.nan], dtype), StaticMetadata(name="dipole"))


def exact(points, at, moment):
    """V/m at points (n, 3) mm of a dipole at `at` mm, 1e6 A/s."""
    return dipole_field(points, at, 1e6 * np.asarray(moment, float))


def rdm(a, b):
    a, b = np.ravel(a), np.ravel(b)
    return np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))


@pytest.fixture(scope="module")
def ball(precision):
    """Three shells, about 6000 nodes, a figure-8 of two dipoles over the top."""
    made = head.sphere_mesh(RADII, 9.0, tissues=TISSUES)
    dtype = jnp.result_type(float)
    wings = coils.Dipoles(
        jnp.asarray([[-20.0, 0, -3], [20, 0, -3]], dtype), jnp.asarray([[0, 0, 1.0], [0, 0, -1]], dtype), 0
    )
    coil = coils.Coil((wings,), None, jnp.asarray([jnp.nan], dtype), StaticMetadata(name="figure-8"))
    pose = jnp.asarray(np.diag([1.0, -1, -1, 1])).at[2, 3].set(66.0)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3)) * (12, 12, 3) + (0, 0, 40)
    return SimpleNamespace(head=made, sim=efield.Simulator(made), coil=coil, pose=pose, points=points)


@pytest.mark.slow
def test_the_shared_sphere(data):
    """As SimNIBS tests itself: dipole at (0, 0, 300) mm along x, 1e6 A/s."""
    made = head.load(data("meshes/sphere3.msh"))
    moment = (1.0, 0, 0)
    pose = np.eye(4)
    pose[2, 3] = 300.0
    field = efield.Simulator(made)(dipole((0, 0, 0), moment), pose)
    truth = exact(made.centroids(), (0, 0, 300), moment)
    e = np.asarray(field.e)
    inner = np.asarray(made.tissue) == made.tissues.index("csf")
    assert rdm(e, truth) < 0.17
    assert rdm(e[inner], truth[inner]) < 0.25
    assert abs(np.log(np.linalg.norm(e) / np.linalg.norm(truth))) < 0.02
    # recovered: at points in every shell
    rng = np.random.default_rng(0)
    which = rng.integers(len(e), size=2000)
    share = rng.dirichlet(np.ones(4), size=2000)
    points = np.einsum("np,npi->ni", share, made.nodes[made.elements[which]])
    truth = exact(points, (0, 0, 300), moment)
    region = efield.Points(points, np.asarray(made.tissue)[which])
    recovered = np.asarray(efield.Simulator(made).bind(dipole((0, 0, 0), moment), region)(pose))
    assert rdm(recovered, truth) < 0.5 * rdm(e[which], truth)


@pytest.mark.slow
def test_order_of_the_error(x64):
    """Halving the edges halves the error element by element, and recovery does better at every size."""
    wings = dipole((0, 0, 0), (0, 1.0, 0))
    pose = np.eye(4)
    pose[2, 3] = 100.0
    raw, recovered = [], []
    for spacing in (16.0, 8.0):
        made = head.sphere_mesh(RADII, spacing, tissues=TISSUES)
        sim = efield.Simulator(made)
        truth = exact(made.centroids(), (0, 0, 100), (0, 1, 0))
        e = np.asarray(sim(wings, pose).e)
        volume = made.element_volumes()[:, None]
        raw.append(np.sqrt((volume * (e - truth) ** 2).sum() / (volume * truth**2).sum()))
        region = efield.Points(made.centroids(), np.asarray(made.tissue))
        e = np.asarray(sim.bind(wings, region)(pose))
        recovered.append(np.sqrt((volume * (e - truth) ** 2).sum() / (volume * truth**2).sum()))
    assert np.log2(raw[0] / raw[1]) > 0.9
    assert np.log2(recovered[0] / recovered[1]) > 1.5
    assert recovered[0] < raw[0]
    assert recovered[1] < 0.7 * raw[1]
    assert raw[1] < 0.12


@pytest.mark.slow
def test_a_source_that_is_a_gradient_drives_nothing(x64, ball):
    """A = grad psi, sampled on the lattice as a coil's: E is what interpolation leaves."""
    parts = ball.sim.parts
    where = parts.lattice
    x = np.asarray(where.points()) - (10, 5, 110)
    a = x / np.linalg.norm(x, axis=1, keepdims=True) ** 3
    samples = where.interpolate(jnp.asarray(a))
    k = parts.stiffness
    load = k.load_vector(lambda corners: _mesh_source.edge_integrals(k.positions[corners], samples[corners]))
    phi, _, _ = fem.solve(k, -load)
    corners = k.mesh.elements
    gradients, _ = fem.shape_gradients(k.positions[corners])
    mean = fem.element_mean(gradients, _mesh_source.edge_integrals(k.positions[corners], samples[corners]))
    e = -(mean + (phi[corners][..., None] * gradients).sum(1))
    assert float(jnp.linalg.norm(e)) < 2e-3 * float(jnp.linalg.norm(mean))


def test_samples_of_a_cubic_are_exact(x64, ball):
    """Away from the lattice's mirrored ends, values and symmetric gradients."""
    where = ball.sim.parts.lattice
    nodes = np.asarray(where.index) * 4.0 + np.asarray(where.affine)[:3, 3]
    x, y, z = np.asarray(where.points()).T / 100
    a = np.stack([x * y * z + x**3, y**2 * x, z * x + y**3], 1)
    samples = np.asarray(where.interpolate(jnp.asarray(a)))
    deep = np.linalg.norm(nodes, axis=1) < 35
    x, y, z = nodes.T / 100
    np.testing.assert_allclose(
        samples[deep, :3], np.stack([x * y * z + x**3, y**2 * x, z * x + y**3], 1)[deep], atol=1e-4
    )
    slopes = [y * z + 3 * x**2, 2 * x * y, x, (x * z + y**2) / 2, (x * y + z) / 2, 3 * y**2 / 2]
    np.testing.assert_allclose(samples[deep, 3:], 10 * np.stack(slopes, 1)[deep], atol=3e-2)


@pytest.mark.slow
def test_as_voxels(ball):
    """The same head as voxels: the same field where both are good."""
    made = head.sphere(RADII, 2.0, tissues=TISSUES)
    region = efield.Points(ball.points[np.linalg.norm(ball.points, axis=1) < 45])
    here = ball.sim.bind(ball.coil, region)(ball.pose)
    there = efield.Simulator(made).bind(ball.coil, region)(ball.pose)
    assert float(jnp.linalg.norm(here - there)) < 0.1 * float(jnp.linalg.norm(there))


@pytest.mark.slow
def test_many_poses_are_each_alone(ball, tolerance):
    twists = np.random.default_rng(1).normal(size=(11, 6)) * (5, 5, 2, 0.1, 0.1, 0.5)
    poses = jax.vmap(lambda t: coils.move(ball.pose, t))(jnp.asarray(twists))
    bound = ball.sim.bind(ball.coil, efield.Points(ball.points))
    together = bound(poses)
    assert together.shape == (11, 40, 3)
    for i in (0, 7, 8, 10):
        alone = bound(poses[i])
        np.testing.assert_allclose(together[i], alone, atol=tolerance(1e-4, 1e-9) * float(jnp.abs(alone).max()))
    np.testing.assert_allclose(
        jax.vmap(bound)(poses[:2]), together[:2], atol=tolerance(1e-4, 1e-9) * float(jnp.abs(together).max())
    )


@pytest.mark.slow
def test_the_field_of_a_whole_head(ball, tolerance):
    field = ball.sim(ball.coil, ball.pose)
    assert field.e.shape == (len(ball.head.elements), 3)
    assert int(field.stats.status) == fem.CONVERGED
    # potential and elements in the numbers of the head: with dA/dt at its nodes, edge by edge, they give E again
    corners = ball.head.elements
    x = jnp.asarray(ball.head.nodes)
    gradients, _ = fem.shape_gradients(x[corners] * 1e-3)
    dadt = coils.vector_potential(ball.coil, ball.pose, x, 1e6)[corners]
    low, high = fem.PAIRS.T
    along = ((dadt[:, low] + dadt[:, high]) / 2 * (x[corners][:, high] - x[corners][:, low]) * 1e-3).sum(-1)
    e = -(fem.element_mean(gradients, along) + (field.phi[corners][..., None] * gradients).sum(1))
    deep = ball.head.centroids()[:, 2] < 35  # where the trapezoidal rule is good enough
    assert float(jnp.abs(field.e - e)[deep].max()) < 0.03 * float(jnp.abs(field.e)[deep].max())


@pytest.mark.slow
def test_gradients_in_pose_and_conductivity(x64, ball):
    """Against central differences, and forward against reverse."""
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(40, 3)))
    region = efield.Points(ball.points)
    sim = efield.Simulator(ball.head, tolerance=1e-12)

    @jax.jit
    def value(twist, conductivity):
        e = sim.bind(ball.coil, region, conductivity=conductivity)(coils.move(ball.pose, twist))
        return (weight * e).sum() + (e**2).sum()

    start = jnp.zeros(6), ball.head.conductivity
    slopes = jax.grad(value, argnums=(0, 1))(*start)
    rng = np.random.default_rng(3)
    directions = rng.normal(size=6) * (1, 1, 1, 0.02, 0.02, 0.02), rng.normal(size=3) * np.asarray(start[1])
    for i, direction in enumerate(directions):
        ahead, behind, tangents = list(start), list(start), [jnp.zeros(6), jnp.zeros(3)]
        ahead[i], behind[i] = start[i] + 1e-3 * direction, start[i] - 1e-3 * direction
        tangents[i] = jnp.asarray(direction)
        expected = (value(*ahead) - value(*behind)) / 2e-3
        np.testing.assert_allclose((slopes[i] * direction).sum(), expected, rtol=2e-5)
        np.testing.assert_allclose(jax.jvp(value, start, tuple(tangents))[1], expected, rtol=2e-5)


@pytest.mark.slow
def test_tensors(x64, ball):
    """Multiples of the identity are the scalar; a stronger direction takes field away along it."""
    n = len(ball.head.elements)
    sigma = np.asarray(ball.head.conductivity)[np.asarray(ball.head.tissue)]
    tags = np.asarray(ball.head.tissue) + 1

    def field(tensors):
        made = head.from_mesh(ball.head.nodes, ball.head.elements, tags, dict(enumerate(TISSUES, 1)), tensors=tensors)
        return np.asarray(efield.Simulator(made)(ball.coil, ball.pose).e)

    plain = np.asarray(ball.sim(ball.coil, ball.pose).e)
    np.testing.assert_allclose(field(sigma[:, None, None] * np.eye(3)), plain, atol=1e-6 * np.abs(plain).max())
    along = sigma[:, None, None] * np.diag([1.0, 4.0, 1.0]) * np.ones((n, 1, 1))
    other = field(along)
    assert np.linalg.norm(other - plain) > 0.05 * np.linalg.norm(plain)


@pytest.mark.slow
def test_a_point_in_a_tissue_of_ones_own_choice(ball):
    """On an interface either side may be asked for; far from the tissue none."""
    top = np.array([[0.5, 0.3, 50.0]])
    away = ball.pose.at[2, 3].add(30.0)
    grey, scalp = (np.asarray(ball.sim.bind(ball.coil, efield.Points(top, np.array([t])))(away)) for t in (1, 2))
    assert np.isfinite(grey).all()
    # no current runs across a shell: tangential fields are continuous
    np.testing.assert_allclose(grey[0, :2], scalp[0, :2], atol=0.15 * np.abs(grey).max())
    with pytest.raises(ValueError, match=r"roi: 1 of 1 points have no scalp near.*check `tissue`"):
        ball.sim.bind(ball.coil, efield.Points(np.zeros((1, 3)), np.array([2])))
    with pytest.raises(ValueError, match="roi: 1 of 1 points lie outside the head"):
        ball.sim.bind(ball.coil, efield.Points(np.array([[0, 0, 80.0]])))


@pytest.mark.slow
def test_picked_points_are_the_same(ball):
    bound = ball.sim.bind(ball.coil, efield.Points(ball.points))
    some = bound.pick(np.array([3, 17, 5]))
    np.testing.assert_allclose(some(ball.pose), bound(ball.pose)[jnp.array([3, 17, 5])], rtol=1e-6)
    assert len(some.solver.recovery.elements) < len(bound.solver.recovery.elements)


@pytest.mark.slow
def test_another_pose_compiles_nothing(ball):
    bound = ball.sim.bind(ball.coil, efield.Points(ball.points))
    bound(ball.pose)
    before = _field_map.evaluate._cache_size()
    bound(ball.pose.at[0, 3].add(1.0))
    assert _field_map.evaluate._cache_size() == before


def test_a_head_beyond_the_memory_is_refused_before_work(ball, monkeypatch):
    monkeypatch.setattr(_fits, "_device_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match=r"head: \d+ tetrahedra need about .*coarser mesh"):
        efield.Simulator(ball.head)


def test_interfaces_are_for_voxels(ball):
    with pytest.raises(ValueError, match=r"interfaces: 'tensor' .*tetrahedra .* leave it out"):
        efield.Simulator(ball.head, interfaces="tensor")
    assert ball.sim.interfaces == "conforming"


@pytest.mark.slow
def test_a_coil_is_placed_by_gradient(ball):
    """The whole line of calls on a tetrahedral head: grid, target, search."""
    grid = efield.Grid.around((0, 0, 44), (7, 7, 5), 3.0)
    bound = ball.sim.bind(ball.coil, grid)
    objective = placement.magnitude(bound.within((0, 0, 45), 6.0))
    pose = coils.place(ball.head.scalp, (12, 8, 60), (0, 1, 0), 4.0)
    value, slope = jax.value_and_grad(lambda t: objective(bound(coils.move(pose, t))))(jnp.zeros(6))
    step = 2.0 * slope[:3] / jnp.linalg.norm(slope[:3])
    ahead = objective(bound(coils.move(pose, jnp.concatenate([step, jnp.zeros(3)]))))
    assert float(ahead) > float(value)


@pytest.mark.slow
def test_a_basis_of_a_tetrahedral_head(ball, tmp_path):
    region = efield.Points(ball.points[np.linalg.norm(ball.points, axis=1) < 48])
    basis = efield.Basis.build(ball.sim, region, tmp_path / "basis.h5", modes=30, rank=20)
    again = efield.Basis.load(tmp_path / "basis.h5", ball.sim)
    np.testing.assert_allclose(again.accuracy["error"], basis.accuracy["error"])
    assert basis.accuracy["error"].median() < 25  # thirty modes of two hundred


def test_shells_of_a_ball():
    nodes, elements, shell = _mesh_sphere.build_ball(np.array([30.0, 40.0]), 6.0)
    x = nodes[elements]
    volume = np.linalg.det(x[:, 1:] - x[:, :1]) / 6
    assert volume.min() > 0
    for k, (a, b) in enumerate(((0, 30), (30, 40))):
        assert volume[shell == k].sum() == pytest.approx(4 / 3 * np.pi * (b**3 - a**3), rel=0.03)
    faces = np.sort(elements[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]].reshape(-1, 3), axis=1)
    _, count = np.unique(faces, axis=0, return_counts=True)
    assert count.max() == 2
    single = np.unique(faces, axis=0)[count == 1]
    np.testing.assert_allclose(np.linalg.norm(nodes[np.unique(single)], axis=1), 40, rtol=1e-9)
