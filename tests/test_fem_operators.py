"""The stiffness: stencils, the Walsh form, ELL and an independent SciPy assembly are one matrix."""

from itertools import product
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyamg_baseline import assemble

from jaxm2m import fem

SHAPE = (12, 10, 8)
H = 2e-3


def sparse(kind):
    """A head-like grid (air, five conductivities), and the SciPy matrix of it."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 6, SHAPE)
    labels[:4] = 0  # a slab of air besides the holes
    arithmetic = np.array([0, 0.465, 0.010, 1.654, 0.275, 0.126])[labels]
    normal = rng.normal(size=(3, *SHAPE))
    normal /= np.linalg.norm(normal, axis=0)
    across = arithmetic * rng.uniform(1 / 3, 1, SHAPE)
    if kind == "scalar":
        across, normal = arithmetic, np.zeros_like(normal)
        matrix, active = assemble(arithmetic, H)
    else:
        d = arithmetic - across
        x, y, z = normal
        components = (arithmetic - d * x * x, arithmetic - d * y * y, arithmetic - d * z * z)
        components += (-d * x * y, -d * x * z, -d * y * z)
        matrix, active = assemble(np.stack(components, -1), H)
    return arithmetic, across, normal, matrix, active


# compiled once a shape and precision; operation by operation the tests take four times as long
stiffness = jax.jit(fem.assemble_stiffness, static_argnames="scalar")
times = jax.jit(lambda k, u: k(u))
exact = jax.jit(lambda k, u, v: k.exact(u, v))
walsh = jax.jit(fem.apply)


@pytest.fixture(scope="module", params=["scalar", "tensor"])
def problem(request, precision):
    arithmetic, across, normal, matrix, active = sparse(request.param)
    mixture = fem.Mixture(*(jnp.asarray(a, float) for a in (arithmetic, across, normal)))
    rng = np.random.default_rng(4)
    potentials = rng.normal(size=(3, *active.shape))
    reference = np.zeros_like(potentials)
    reference[:, active] = potentials[:, active] @ matrix.T
    return SimpleNamespace(
        scalar=request.param == "scalar",
        mixture=mixture,
        stiffness=stiffness(mixture, H, scalar=request.param == "scalar"),
        matrix=matrix,
        active=active,
        potentials=jnp.asarray(potentials),
        reference=reference,
    )


def same(value, reference, bound):
    assert np.abs(np.asarray(value) - reference).max() <= bound * np.abs(reference).max()


def test_stencil(problem, tolerance):
    same(times(problem.stiffness, problem.potentials), problem.reference, tolerance(2e-6, 1e-12))
    np.testing.assert_array_equal(problem.stiffness.active, problem.active)


def test_the_tensor_stencil_holds_scalars_too(problem, tolerance):
    general = stiffness(problem.mixture, H)
    same(times(general, problem.potentials), problem.reference, tolerance(2e-6, 1e-12))


def test_walsh_form(problem, tolerance):
    tensor = problem.mixture.tensor()
    same(walsh(tensor, problem.potentials, H), problem.reference, tolerance(2e-6, 1e-12))
    zero = jnp.zeros_like(problem.potentials)
    same(exact(problem.stiffness, problem.potentials, zero), problem.reference, tolerance(2e-6, 1e-12))
    same(exact(problem.stiffness, zero, problem.potentials), problem.reference, tolerance(2e-6, 1e-12))


def test_symmetric_semidefinite_with_the_constants_as_null_space(problem, tolerance):
    u, v, _ = problem.potentials
    ku, kv, _ = times(problem.stiffness, problem.potentials)
    size = float(jnp.sqrt((ku**2).sum() * (v**2).sum()))
    assert abs(float((v * ku).sum() - (u * kv).sum())) <= tolerance(1e-6, 1e-14) * size
    assert float((u * ku).sum()) > 0
    constants = times(problem.stiffness, jnp.ones_like(problem.potentials))
    assert np.abs(constants).max() <= tolerance(1e-6, 1e-14) * float(jnp.abs(ku).max())
    values = np.linalg.eigvalsh(problem.matrix.toarray())
    assert values[0] > -1e-13 * values[-1]


def test_diagonal_of_the_scalar_stencil(problem, tolerance):
    if not problem.scalar:
        pytest.skip("only the scalar stencil keeps a diagonal apart")
    diagonal = np.zeros(problem.active.shape)
    diagonal[problem.active] = problem.matrix.diagonal()
    same(fem.stencil.scalar_diagonal(problem.stiffness.coefficients), diagonal, tolerance(1e-6, 1e-14))


@pytest.mark.host
def test_element_against_quadrature():
    nodes, weights = np.polynomial.legendre.leggauss(3)
    nodes, weights = (nodes + 1) / 2, weights / 2
    corners = np.array(list(product((0, 1), repeat=3)))
    expected = np.zeros((8, 8, 6))
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    for (x, wx), (y, wy), (z, wz) in product(zip(nodes, weights, strict=True), repeat=3):
        p = np.array([x, y, z])
        hat = np.where(corners == 1, p, 1 - p)
        slope = np.where(corners == 1, 1.0, -1.0)
        gradients = np.stack([slope[:, i] * np.prod(np.delete(hat, i, 1), 1) for i in range(3)], 1)
        for c, (i, j) in enumerate(pairs):
            outer = np.outer(gradients[:, i], gradients[:, j])
            expected[..., c] += wx * wy * wz * (outer if i == j else outer + outer.T)
    np.testing.assert_allclose(fem.stencil.element_stiffness(), expected, atol=1e-15)
    twelfths = [4, 0, 0, -1, 0, -1, -1, -1]  # 000, 001, 010, 011, 100...
    np.testing.assert_allclose(12 * fem.stencil.element_stiffness()[..., :3].sum(-1)[0], twelfths, atol=1e-15)


def test_load_is_the_integral_of_the_flux(problem, tolerance):
    """b_i = int S e . grad N_i for Whitney fields, by quadrature element by element."""
    rng = np.random.default_rng(5)
    nx, ny, nz = SHAPE
    edges = fem.Edges(*(rng.normal(size=s) for s in ((nx, ny + 1, nz + 1), (nx + 1, ny, nz + 1), (nx + 1, ny + 1, nz))))
    tensor = np.stack([np.asarray(c, np.float64) for c in problem.mixture.tensor()], -1)
    matrix = tensor[..., [[0, 3, 4], [3, 1, 5], [4, 5, 2]]]
    gauss, weight = np.polynomial.legendre.leggauss(2)
    gauss, weight = (gauss + 1) / 2, weight / 2
    expected = np.zeros((nx + 1, ny + 1, nz + 1))
    for i, j, k in product(range(2), repeat=3):
        p = gauss[[i, j, k]]
        field = np.zeros((*SHAPE, 3))
        for c in range(3):
            for corner in product((0, 1), repeat=3):
                if corner[c]:
                    continue
                w = np.prod([p[a] if corner[a] else 1 - p[a] for a in range(3) if a != c])
                window = tuple(slice(o, o + n) for o, n in zip(corner, SHAPE, strict=True))
                field[..., c] += w * edges[c][window]
        flux = np.einsum("...ab,...b->...a", matrix, field) * np.prod(weight[[i, j, k]]) * H**2
        for corner in product((0, 1), repeat=3):
            hat = [p[a] if corner[a] else 1 - p[a] for a in range(3)]
            slope = [2 * corner[a] - 1 for a in range(3)]
            gradient = np.array([slope[0] * hat[1] * hat[2], hat[0] * slope[1] * hat[2], hat[0] * hat[1] * slope[2]])
            expected[tuple(slice(o, o + n) for o, n in zip(corner, SHAPE, strict=True))] += flux @ gradient
    got = jax.jit(fem.load_vector)(problem.mixture.tensor(), fem.Edges(*(jnp.asarray(e, float) for e in edges)), H)
    same(got, expected, tolerance(2e-6, 1e-13))


def test_gradient_and_centre_are_exact_for_linear_potentials(tolerance):
    index = np.stack(np.meshgrid(*(np.arange(n + 1.0) for n in SHAPE), indexing="ij"), -1)
    slope = np.array([3.0, -2.0, 0.5])
    edges = jax.jit(fem.gradient)(jnp.asarray(index @ slope * H, float), H)
    assert [e.shape for e in edges] == [(12, 11, 9), (13, 10, 9), (13, 11, 8)]
    same(jax.jit(fem.at_centres)(edges), np.broadcast_to(slope, (*SHAPE, 3)), tolerance(2e-5, 1e-13))


def test_active_nodes(problem):
    conducting = problem.mixture.arithmetic > 0
    np.testing.assert_array_equal(fem.active_nodes(conducting), problem.active)


def test_exchanging_the_axes_cyclically_changes_nothing(problem, tolerance):
    m = problem.mixture

    def turn(a):
        return jnp.moveaxis(a, (-3, -2, -1), (-2, -1, -3))

    turned = fem.Mixture(turn(m.arithmetic), turn(m.across), turn(m.normal)[jnp.array([2, 0, 1])])
    same(
        walsh(turned.tensor(), turn(problem.potentials), H),
        np.asarray(turn(jnp.asarray(problem.reference))),
        tolerance(2e-6, 1e-12),
    )
