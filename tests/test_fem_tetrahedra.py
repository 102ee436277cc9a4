"""Linear tetrahedra: assembly against two others, exactness, the solve and its derivatives."""

from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from jaxm2m import fem
from jaxm2m.fem import _algebraic, _sparse
from jaxm2m.head import _mesh_sphere

# one precision each: a fixture `x64` asks for the other
pytestmark = pytest.mark.float32

RADII = np.array([40.0, 60.0, 70.0])
SIGMA = np.array([0.3, 0.01, 0.5])


@pytest.fixture(scope="module")
def ball(precision):
    """A ball of three shells that conduct alike or, tensors, in every direction differently; about 2000 nodes."""
    nodes, elements, shell = _mesh_sphere.build_ball(RADII, 14.0)
    mesh = fem.build_mesh(elements, nodes)
    rng = np.random.default_rng(0)
    root = np.eye(3) + 0.3 * rng.normal(size=(len(elements), 3, 3))
    tensors = np.einsum("eij,ekj->eik", root, root) * SIGMA[shell][:, None, None]
    x = nodes[np.asarray(mesh.nodes)] * 1e-3
    return SimpleNamespace(
        nodes=nodes,
        elements=elements,
        mesh=mesh,
        x=jnp.asarray(x),
        scalar=jnp.asarray(SIGMA[shell]),
        tensor=jnp.asarray(tensors),
        shell=shell,
    )


@pytest.fixture(scope="module", params=["scalar", "tensor"])
def stiffness(request, ball):
    return fem.precondition(fem.assemble_mesh_stiffness(ball.mesh, ball.x, getattr(ball, request.param)))


def assembled(elements, x, conductivity):
    """The stiffness element by element, in float64, with gradients from the inverse of each element's edges."""
    elements, x, conductivity = (np.asarray(a) for a in (elements, x, conductivity))
    edges = (x[elements[:, 1:]] - x[elements[:, :1]]).astype(float)
    inner = np.linalg.inv(edges).swapaxes(1, 2)
    g = np.concatenate([-inner.sum(1, keepdims=True), inner], 1)
    if conductivity.ndim == 1:
        conductivity = conductivity[:, None, None] * np.eye(3)
    local = np.einsum("epi,eij,eqj->epq", g, conductivity, g) * np.linalg.det(edges)[:, None, None] / 6
    rows, columns = np.repeat(elements, 4, axis=1).ravel(), np.tile(elements, (1, 4)).ravel()
    return sparse.csr_array((local.ravel(), (rows, columns)), shape=(len(x), len(x)))


def test_a_mesh_keeps_its_elements(ball):
    order = np.asarray(ball.mesh.nodes)
    assert np.array_equal(np.sort(order), np.arange(len(ball.nodes)))
    np.testing.assert_array_equal(order[np.asarray(ball.mesh.elements)], ball.elements)
    low, high = np.asarray(ball.mesh.edges)[np.asarray(ball.mesh.element_edges)].transpose(2, 0, 1)
    pairs = np.asarray(ball.mesh.elements)[:, fem.PAIRS]
    np.testing.assert_array_equal(np.sort(np.stack([low, high], 2), 2), np.sort(pairs, 2))


def test_shape_gradients_are_dual_to_the_corners(x64, ball, tolerance):
    corners = ball.x[ball.mesh.elements]
    gradients, volume = fem.shape_gradients(corners)
    assert float(volume.min()) > 0
    np.testing.assert_allclose(float(volume.sum()), 4 / 3 * np.pi * 0.07**3, rtol=0.05)
    steps = corners[:, 1:] - corners[:, :1]
    np.testing.assert_allclose(
        jnp.einsum("epi,eqi->epq", gradients[:, 1:], steps),
        np.tile(np.eye(3), (len(corners), 1, 1)),
        atol=tolerance(2e-5, 1e-12),
    )


def test_product_and_differences(x64, ball, stiffness, tolerance):
    reference = assembled(ball.mesh.elements, ball.x, stiffness.conductivity)
    rng = np.random.default_rng(1)
    for shape in ((len(ball.nodes),), (len(ball.nodes), 3)):
        u = jnp.asarray(rng.normal(size=shape))
        expected = reference @ np.asarray(u, float)
        size = np.abs(expected).max()
        np.testing.assert_allclose(stiffness(u), expected, atol=tolerance(2e-6, 1e-13) * size)
        np.testing.assert_allclose(stiffness.exact(u, 0 * u), expected, atol=tolerance(2e-6, 1e-13) * size)
        np.testing.assert_allclose(stiffness.exact(0 * u, u), expected, atol=tolerance(2e-6, 1e-13) * size)
    difference = fem.to_csr(stiffness) - reference
    assert np.abs(difference.data).max() < tolerance(1e-6, 1e-13) * np.abs(reference.data).max()
    # constants are the null space, whatever the rounding
    assert np.abs(np.asarray(stiffness.exact(jnp.full(len(ball.nodes), 1e3), jnp.zeros(len(ball.nodes))))).max() == 0


def test_against_scikit_fem(x64, ball, stiffness):
    skfem = pytest.importorskip("skfem", reason="scikit-fem is not installed")
    from skfem.helpers import dot, grad

    mesh = skfem.MeshTet(np.asarray(ball.x).T, np.asarray(ball.mesh.elements).T)
    basis = skfem.Basis(mesh, skfem.ElementTetP1())
    conductivity = np.asarray(stiffness.conductivity)
    if conductivity.ndim == 1:
        conductivity = conductivity[:, None, None] * np.eye(3)
    s = np.broadcast_to(np.moveaxis(conductivity, 0, -1)[..., None], (3, 3, len(conductivity), basis.X.shape[-1]))

    @skfem.BilinearForm
    def form(u, v, w):
        return dot(np.einsum("ij...,j...->i...", w["s"], grad(u)), grad(v))

    theirs = sparse.csr_array(form.assemble(basis, s=s))
    ours = fem.to_csr(stiffness)
    assert np.abs((ours - theirs).data).max() < 1e-12 * np.abs(theirs.data).max()
    # and the field that follows: one node held, the mean removed
    rng = np.random.default_rng(2)
    b = rng.normal(size=len(ball.nodes))
    b -= b.mean()
    phi = skfem.solve(*skfem.condense(theirs.tocsr(), b, D=np.array([0])))
    mine, _, stats = fem.solve(stiffness, jnp.asarray(b), 1e-13)
    assert stats.status == fem.CONVERGED
    gradients, _ = fem.shape_gradients(ball.x[ball.mesh.elements])

    def field(u):
        return np.einsum("ep,epi->ei", np.asarray(u)[np.asarray(ball.mesh.elements)], np.asarray(gradients))

    assert np.abs(field(mine) - field(phi)).max() < 1e-8 * np.abs(field(phi)).max()


def test_a_gradient_drives_nothing(x64, ball, stiffness, tolerance):
    """Integrals along edges that are differences of a potential load the nodes as its stiffness does."""
    psi = jnp.asarray(np.random.default_rng(3).normal(size=len(ball.nodes)))
    low, high = fem.PAIRS.T
    load = stiffness.load_vector(lambda corners: psi[corners][:, high] - psi[corners][:, low])
    expected = np.asarray(stiffness.exact(psi, 0 * psi))
    np.testing.assert_allclose(load, expected, atol=tolerance(3e-6, 1e-13) * np.abs(expected).max())
    gradients, _ = fem.shape_gradients(ball.x[ball.mesh.elements])
    corners = psi[ball.mesh.elements]
    mean = fem.element_mean(gradients, corners[:, high] - corners[:, low])
    exact = (corners[..., None] * gradients).sum(1)
    np.testing.assert_allclose(mean, exact, atol=tolerance(1e-5, 1e-12) * float(jnp.abs(exact).max()))


def test_solve_with_one_and_many_loads(ball, stiffness, tolerance):
    rng = np.random.default_rng(4)
    b = rng.normal(size=(len(ball.nodes), 3)) * (1, 1e-6, 0)
    b -= b.mean(0)
    phi, remainder, stats = jax.jit(fem.solve)(stiffness, jnp.asarray(b))
    assert stats.status.tolist() == [0, 0, 0]
    assert float(stats.residual.max()) <= tolerance(1e-5, 1e-10)
    assert 5 < int(stats.iterations[0]) < 60
    assert int(stats.iterations[2]) == 0
    found = np.asarray(phi, float) + np.asarray(remainder, float)
    residual = assembled(ball.mesh.elements, ball.x, stiffness.conductivity) @ found - b
    assert (np.linalg.norm(residual, axis=0)[:2] <= tolerance(2e-5, 2e-10) * np.linalg.norm(b, axis=0)[:2]).all()
    alone, _, one = fem.solve(stiffness, jnp.asarray(b[:, 0]))
    assert one.status.shape == ()
    np.testing.assert_allclose(alone, phi[:, 0], atol=tolerance(1e-4, 1e-9) * float(jnp.abs(alone).max()))
    both, _, _ = jax.vmap(lambda b: fem.solve(stiffness, b))(jnp.asarray(b.T[:2]))
    np.testing.assert_allclose(both[0], alone, atol=tolerance(1e-4, 1e-9) * float(jnp.abs(alone).max()))


def test_what_does_not_converge_is_told(ball, stiffness):
    b = jnp.asarray(np.random.default_rng(5).normal(size=len(ball.nodes)))
    phi, _, stats = fem.solve(stiffness, b, max_iterations=2)
    assert int(stats.status) == fem.MAX_ITERATIONS
    assert np.isnan(np.asarray(phi)).all()
    _, _, stats = fem.solve(stiffness, b.at[3].set(jnp.nan))
    assert int(stats.status) == fem.NOT_FINITE


@pytest.mark.slow
def test_derivatives_in_conductivities_and_positions(x64, ball):
    """Of the power dissipated, against central differences; the preconditioner takes no part in them."""
    rng = np.random.default_rng(6)
    b = rng.normal(size=len(ball.nodes))
    b = jnp.asarray(b - b.mean())
    preconditioner = fem.precondition(fem.assemble_mesh_stiffness(ball.mesh, ball.x, ball.scalar)).preconditioner

    @jax.jit
    def power(shells, x):
        matrix = fem.assemble_mesh_stiffness(ball.mesh, x, shells[ball.shell], preconditioner)
        phi, _, _ = fem.solve(matrix, b, 1e-12)
        return phi @ b

    shells = jnp.asarray(SIGMA)
    slopes = jax.grad(power, argnums=(0, 1))(shells, ball.x)
    directions = rng.normal(size=shells.shape) * SIGMA, rng.normal(size=ball.x.shape) * 1e-3
    for i, direction in enumerate(directions):
        # the second slope is a 260th of the power: a shorter step drowns it in the solve's last digits (2e-6 at 2e-5),
        # this one leaves 2e-7 of them, and 7e-8 of curvature
        step = 2e-4 * direction
        ahead, behind = ([shells, ball.x], [shells, ball.x])
        ahead[i], behind[i] = ahead[i] + step, behind[i] - step
        expected = (power(*ahead) - power(*behind)) / 4e-4
        np.testing.assert_allclose((slopes[i] * direction).sum(), expected, rtol=1e-6)
        tangents = [jnp.zeros_like(shells), jnp.zeros_like(ball.x)]
        tangents[i] = jnp.asarray(direction)
        np.testing.assert_allclose(jax.jvp(power, (shells, ball.x), tuple(tangents))[1], expected, rtol=1e-6)


@pytest.mark.slow
def test_many_conductivities_at_once(ball, tolerance):
    first = fem.precondition(fem.assemble_mesh_stiffness(ball.mesh, ball.x, ball.scalar))
    # a load such as fields make: the shell that hardly conducts lets random ones leave large potentials undetermined
    psi = jnp.sin(60 * ball.x[:, 0]) + jnp.cos(40 * ball.x[:, 1] + ball.x[:, 2])
    b, preconditioner = first(psi), first.preconditioner

    def potential(shells):
        return fem.solve(fem.assemble_mesh_stiffness(ball.mesh, ball.x, shells[ball.shell], preconditioner), b)[0]

    many = jnp.asarray(SIGMA * np.array([[1, 1, 1], [2, 0.5, 1], [0.5, 2, 2]]))
    together = jax.jit(jax.vmap(potential))(many)
    for one, shells in zip(together, many, strict=True):
        alone = potential(shells)
        np.testing.assert_allclose(one, alone, atol=tolerance(1e-3, 1e-8) * float(jnp.abs(alone).max()))


@pytest.mark.slow
def test_order_of_the_error(x64):
    """u = x y z^2-like harmonic polynomial in a cube's worth of ball: nodal values at second order."""
    errors = []
    for spacing in (14.0, 7.0):
        nodes, elements, _ = _mesh_sphere.build_ball(RADII, spacing)
        mesh = fem.build_mesh(elements, nodes)
        x = jnp.asarray(nodes[np.asarray(mesh.nodes)] * 1e-3)
        matrix = fem.precondition(fem.assemble_mesh_stiffness(mesh, x, jnp.ones(len(elements))))
        u = np.asarray(x[:, 0] ** 3 - 3 * x[:, 0] * x[:, 1] ** 2) * 1e6
        # the load of its gradient, integrated at each element's centroid
        c = np.asarray(x)[np.asarray(mesh.elements)].mean(1)
        gradient = 1e6 * np.stack([3 * c[:, 0] ** 2 - 3 * c[:, 1] ** 2, -6 * c[:, 0] * c[:, 1], 0 * c[:, 0]], 1)
        shape, volume = (np.asarray(a) for a in fem.shape_gradients(x[mesh.elements]))
        b = np.zeros(len(nodes))
        np.add.at(b, np.asarray(mesh.elements), np.einsum("epi,ei,e->ep", shape, gradient, volume))
        phi, _, _ = fem.solve(matrix, jnp.asarray(b))
        errors.append(np.sqrt(np.mean((np.asarray(phi) - (u - u.mean())) ** 2) / np.var(u)))
    assert errors[1] < 0.02
    assert np.log2(errors[0] / errors[1]) > 1.6


@pytest.mark.parametrize("shape", [(3000, 700), (5000, 5000), (40, 3)])
def test_rows_of_any_length(shape, tolerance):
    rng = np.random.default_rng(8)
    lengths = rng.integers(0, 60, shape[0]) * (rng.random(shape[0]) < 0.3) + 3
    lengths = np.minimum(lengths, shape[1])
    columns = np.concatenate([rng.choice(shape[1], n, replace=False) for n in lengths])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    matrix = sparse.csr_array((rng.normal(size=len(columns)), columns, indptr), shape=shape)
    rows = _sparse.from_csr(matrix, float if jax.config.jax_enable_x64 else np.float32)
    for tail in ((), (4,)):
        x = jnp.asarray(rng.normal(size=(shape[1], *tail)))
        expected = matrix @ np.asarray(x, float)
        np.testing.assert_allclose(jax.jit(lambda r, x: r @ x)(rows, x), expected, atol=tolerance(2e-5, 1e-12))


def test_long_rows_do_not_lengthen_the_others():
    lengths = np.sort(np.random.default_rng(0).geometric(0.1, 100_000))[::-1]
    groups = _sparse.group_rows(lengths)
    assert groups[0].start == 0
    assert groups[-1].stop == len(lengths)
    assert all(a.stop == b.start for a, b in pairwise(groups))
    assert sum(lengths[g.start] * (g.stop - g.start) for g in groups) < 1.25 * lengths.sum()
    assert len(groups) < 20


def test_the_cycle_is_symmetric_and_definite(ball, stiffness):
    """What conjugate gradients need of a preconditioner, in float32."""
    rng = np.random.default_rng(9)
    u, v = (jnp.asarray(a - a.mean(), jnp.float32) for a in rng.normal(size=(2, len(ball.nodes))))
    mu, mv = stiffness.preconditioner(u), stiffness.preconditioner(v)
    assert abs(float(u @ mv - v @ mu)) < 1e-4 * float(jnp.linalg.norm(u) * jnp.linalg.norm(mv))
    assert float(u @ mu) > 0


def test_the_hierarchy_depends_on_the_matrix_alone(x64):
    """PyAMG takes NumPy's global random state, and advances it."""
    nodes, elements, _ = _mesh_sphere.build_ball(RADII, 10.0)
    mesh = fem.build_mesh(elements, nodes)
    x = nodes[np.asarray(mesh.nodes)] * 1e-3
    matrix = fem.assemble_mesh_stiffness(mesh, jnp.asarray(x), jnp.full(len(elements), 0.3))
    np.random.seed(1)  # noqa: NPY002
    first = jax.tree.leaves(fem.precondition(matrix))
    after = np.random.get_state()[1]  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(after, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    for one, other in zip(first, jax.tree.leaves(fem.precondition(matrix)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_pyamg_missing_is_told(ball, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(ModuleNotFoundError, match=r"PyAMG .* pip install 'jaxm2m\[tet\]'"):
        _algebraic.build_levels(sparse.csr_array(sparse.eye_array(3)))
