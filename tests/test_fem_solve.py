"""The solve: exact solutions, honest convergence, multigrid, derivatives of the solution."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interfaces import slab, two_medium_sphere

from jaxm2m import fem
from jaxm2m.fem import _multigrid as multigrid

SIGMA = (0.126, 0.275, 1.654, 0.010, 0.465)
stiffness = jax.jit(fem.assemble_stiffness, static_argnames="scalar")


@partial(jax.jit, static_argnames="interfaces")
def mixed(fractions, conductivity, interfaces):
    fractions = fem.tissue_fractions(fractions)
    return fem.mix(fractions, fem.interface_normal(fractions), conductivity, interfaces)


@partial(jax.jit, static_argnames=("max_iterations", "poison"))
def compiled(matrix, b, tolerance, max_iterations, poison):
    return fem.solve(matrix, b, tolerance, max_iterations, poison)


def solve(matrix, b, tolerance=None, max_iterations=200, poison=True):
    if tolerance is None:
        tolerance = 1e-5 if b.dtype == jnp.float32 else 1e-10
    return compiled(matrix, b, tolerance, max_iterations, poison)


def ball(n):
    """Mixture of a five-shell head off the grid's centre, in n^3 voxels of 192 / n mm."""
    fine = (np.arange(3 * n) + 0.5) / (3 * n) * 192 - 96
    r = np.sqrt((fine[:, None, None] - 0.7) ** 2 + (fine[:, None] + 1.3) ** 2 + (fine - 0.4) ** 2)
    inside = np.searchsorted([70, 78, 80, 86, 92], r)
    fractions = np.stack([(inside == k).reshape(n, 3, n, 3, n, 3).mean((1, 3, 5)) for k in range(5)])
    return mixed(jnp.asarray(fractions, float), jnp.asarray(SIGMA, float), "tensor")


def reference(matrix, x):
    """K x and the norm's scale in float64 NumPy, from the mixture alone."""
    h = float(matrix.h)
    elements = fem.corner_nodes(np.asarray(matrix.mixture.arithmetic) > 0)
    conducting = np.asarray(matrix.mixture.arithmetic) > 0
    tensors = np.stack([np.asarray(c, np.float64)[conducting] for c in matrix.mixture.tensor()], -1)
    local = h * np.einsum("abc,ec,eb->ea", fem.stencil.element_stiffness(), tensors, x.ravel()[elements], optimize=True)
    out = np.zeros(x.size)
    np.add.at(out, elements, local)
    return out.reshape(x.shape)


@pytest.fixture(scope="module")
def head(precision):
    """A 16^3 head and loads: two random ones in the range of K, zero, NaN."""
    matrix = stiffness(ball(16), 12e-3)
    rng = np.random.default_rng(0)
    active = np.asarray(matrix.active)
    loads = np.zeros((4, *active.shape))
    for i, scale in enumerate((1.0, 1e-4)):
        loads[i, active] = rng.normal(size=active.sum()) * scale
        loads[i, active] -= loads[i, active].mean()
    loads[3] = loads[0]
    loads[3, 8, 8, 8] = np.nan
    loads = jnp.asarray(loads)
    phi, remainder, stats = solve(matrix, loads)
    return SimpleNamespace(matrix=matrix, active=active, loads=loads, phi=phi, remainder=remainder, stats=stats)


# --- exact solutions ---


@pytest.mark.float64
def test_manufactured_solution_converges_with_order_two():
    """phi = cos(k x) cos(l y) cos(m z) on an insulated block with conductivities (1, 2, 1/2)."""
    errors = []
    sigma, waves = np.array([1.0, 2.0, 0.5]), np.pi * np.array([1, 2, 1])
    for n in (8, 16):
        h = 1 / n
        shape = (n, n, n)
        one = jnp.ones(shape)
        # uniaxial mixtures cannot say diag(1, 2, 1/2): the operator is put together by hand
        coefficients = fem.stencil.tensor_coefficients((one, 2 * one, one / 2, 0 * one, 0 * one, 0 * one), h)
        isotropic = fem.Mixture(one, one, jnp.zeros((3, *shape)))
        k = fem.Stiffness(isotropic, jnp.asarray(h), coefficients, multigrid.build(one, h))
        axis = np.linspace(0, 1, n + 1)
        exact = np.einsum("i,j,k->ijk", *(np.cos(w * axis) for w in waves))
        t, w = np.polynomial.legendre.leggauss(5)
        t, w = (t + 1) / 2, w / 2
        moments = []
        for wave in waves:
            values = np.cos(wave * h * (np.arange(n)[:, None] + t))
            moment = np.zeros(n + 1)
            moment[:-1] += values @ (w * (1 - t)) * h
            moment[1:] += values @ (w * t) * h
            moments.append(moment)
        b = (sigma * waves**2).sum() * np.einsum("i,j,k->ijk", *moments)
        phi, _, _ = solve(k, jnp.asarray(b), 1e-5)
        errors.append(np.sqrt(np.mean((np.asarray(phi) - exact) ** 2) / np.mean(exact**2)))
    assert errors[1] < 0.02
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layers_along_the_grid_are_exact(axis, tolerance):
    """Current straight across layers whose faces are voxel faces: piecewise linear, so exact."""
    normal = np.eye(3)[axis]
    case = slab.Slab(normal=tuple(normal), bounds=(8.0, 4.0, 0.0, -4.0), size=32.0)
    fractions = jnp.asarray(np.round(case.fractions(4.0), 2), float)
    mixture = mixed(fractions, jnp.asarray(case.sigma, float), "tensor")
    phi, _, stats = solve(stiffness(mixture, 4.0), jnp.asarray(case.load(4.0)))
    assert stats.status == fem.CONVERGED
    field = -np.diff(np.moveaxis(np.asarray(phi), axis, 0), axis=0)[:, 1, 2] / 4.0
    layer = np.moveaxis(fractions, axis + 1, 1)[:, :, 0, 0].argmax(0)
    np.testing.assert_allclose(field, 1 / np.asarray(case.sigma)[layer], rtol=tolerance(1e-3, 1e-7))


def two_media(name, spacing, interfaces):
    """Relative L2 error of the potential of an exact solution."""
    case = two_medium_sphere.CASES[name]
    fractions = jnp.asarray(case.fractions(spacing), float)
    mixture = mixed(fractions, jnp.asarray(case.sigma, float), interfaces)
    # the general stencil for scalars too: one program
    phi, _, stats = solve(stiffness(mixture, spacing), jnp.asarray(case.load(spacing)))
    assert stats.status == fem.CONVERGED
    n = phi.shape[0]
    nodes = np.stack(np.meshgrid(*(o + spacing * np.arange(n) for o in case.origin), indexing="ij"), -1).reshape(-1, 3)
    a, b = case.coefficients
    layer, r = case.layer(nodes), nodes - np.asarray(case.centre)
    exact = -(a[layer] + b[layer] / np.linalg.norm(r, axis=-1) ** 3) * (r @ np.asarray(case.field_far))
    exact -= exact.mean()
    return np.linalg.norm(np.asarray(phi).ravel() - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("name", ["grey in csf", "csf in grey"])
def test_sphere_in_a_uniform_current(name):
    error = two_media(name, 4.0, "tensor")
    assert error < 0.02
    assert error < 0.6 * two_media(name, 4.0, "arithmetic")


@pytest.mark.float64
def test_sphere_in_a_uniform_current_converges():
    assert two_media("grey in csf", 2.0, "tensor") < 0.6 * two_media("grey in csf", 4.0, "tensor")


# --- what a solve says of itself ---


def test_residual_is_that_of_the_solution(head, tolerance):
    for i in (0, 1):
        x = np.asarray(head.phi[i], np.float64) + np.asarray(head.remainder[i], np.float64)
        b = np.asarray(head.loads[i], np.float64)
        residual = np.linalg.norm(b - reference(head.matrix, x)) / np.linalg.norm(b)
        assert residual <= tolerance(1.02e-5, 1e-10)
        assert float(head.stats.residual[i]) == pytest.approx(residual, rel=0.05)
        assert head.stats.status[i] == fem.CONVERGED
        assert 3 < head.stats.iterations[i] < 40


def test_gauge_is_zero_mean_over_the_head(head, tolerance):
    x = np.asarray(head.phi[:2])
    assert np.abs(x[:, head.active].mean(1)).max() < tolerance(1e-5, 1e-12) * np.abs(x).max()
    assert (x[:, ~head.active] == 0).all()


def test_zero_load(head):
    assert head.stats.status[2] == fem.CONVERGED
    assert head.stats.iterations[2] == 0
    assert head.stats.residual[2] == 0
    assert (np.asarray(head.phi[2]) == 0).all()


def test_not_a_number(head):
    assert head.stats.status[3] == fem.NOT_FINITE
    assert np.isnan(head.stats.residual[3])
    assert np.isnan(head.phi[3][head.active]).all()


def test_members_of_a_batch_know_nothing_of_each_other(head, tolerance):
    """Bit for bit, also beside members that need other numbers of iterations, or fail."""
    order = [3, 0, 2, 1]
    phi, remainder, stats = solve(head.matrix, head.loads[jnp.asarray(order)])
    for got, i in enumerate(order):
        np.testing.assert_array_equal(phi[got], head.phi[i])
        np.testing.assert_array_equal(remainder[got], head.remainder[i])
        assert stats.iterations[got] == head.stats.iterations[i]
    for i in (0, 1):  # another program sums in another order
        alone, _, stats = solve(head.matrix, head.loads[i])
        assert np.abs(alone - head.phi[i]).max() <= tolerance(1e-5, 1e-13) * np.abs(alone).max()
        assert stats.iterations == head.stats.iterations[i]


def test_too_few_iterations(head):
    phi, _, stats = solve(head.matrix, head.loads, None, 2, False)
    assert stats.status.tolist() == [fem.MAX_ITERATIONS, fem.MAX_ITERATIONS, fem.CONVERGED, fem.NOT_FINITE]
    assert stats.iterations.tolist() == [2, 2, 0, 0]
    assert (np.asarray(stats.residual[:2]) > 1e-3).all()
    assert np.isfinite(phi[:3]).all()


def test_conductivities_that_are_not_finite(head):
    broken = head.matrix.mixture.arithmetic.at[8, 8, 8].set(jnp.nan)
    matrix = stiffness(head.matrix.mixture._replace(arithmetic=broken), 12e-3)
    phi, _, stats = solve(matrix, head.loads[0])
    assert stats.status != fem.CONVERGED
    assert np.isnan(phi).any()


@pytest.mark.parametrize("scale", [1e-25, 1e15])
def test_size_of_the_load_does_not_matter(head, scale, tolerance):
    """Squares of small loads (adjoint ones above all) underflow in float32, of large ones overflow."""
    phi, _, stats = solve(head.matrix, head.loads[0] * scale)
    assert stats.status == fem.CONVERGED
    assert abs(int(stats.iterations) - int(head.stats.iterations[0])) <= 1
    expected = np.asarray(head.phi[0], np.float64) * scale
    assert np.abs(np.asarray(phi, np.float64) - expected).max() < tolerance(1e-4, 1e-9) * np.abs(expected).max()


@pytest.mark.float32
def test_float32_reaches_a_tolerance_below_its_rounding(head):
    """Many sweeps: the null space must not grow until it spoils a search direction."""
    for i in (0, 1):
        _, _, stats = solve(head.matrix, head.loads[i], 1e-6)
        assert stats.status == fem.CONVERGED
        assert stats.residual <= 1e-6
    phi, remainder, stats = solve(head.matrix, head.loads[0], 1e-9)  # out of reach: said, and nothing breaks
    assert stats.status == fem.MAX_ITERATIONS
    assert 1e-9 < stats.residual < 1e-5
    assert np.isnan(phi[head.active]).all()
    assert np.isfinite(remainder).all()


@pytest.mark.float32
def test_the_null_space_that_rounding_adds_to_residuals_is_taken_out(head):
    """On millions of nodes K p adds up to far more than zero, as here by intent; unprojected, the residuals grow."""
    matrix, b = head.matrix, head.loads[0]

    @jax.jit
    def run(matrix, b):
        def rounded(p):
            q = matrix(p)
            return q + jnp.where(matrix.active, 1e-4 * jnp.abs(q).max(), 0)

        return fem._conjugate_gradient.conjugate_gradient(
            rounded, matrix.exact, matrix.preconditioner, matrix.remove_mean, matrix.inner, b, 1e-5, 100
        )

    _, _, stats = run(matrix, b)
    assert stats.status.squeeze() == fem.CONVERGED
    assert stats.iterations.squeeze() <= head.stats.iterations[0] + 2


# --- multigrid ---


def test_restriction_is_the_transpose_of_prolongation(tolerance):
    rng = np.random.default_rng(1)
    coarse, fine = jnp.asarray(rng.normal(size=(2, 5, 4, 7))), jnp.asarray(rng.normal(size=(2, 9, 7, 13)))
    up, down = jax.jit(multigrid.prolong)(coarse), jax.jit(multigrid.restrict)(fem.stencil.halo(fine))
    assert up.shape == fine.shape
    assert down.shape == coarse.shape
    left, right = np.sum(np.asarray(up * fine), (1, 2, 3)), np.sum(np.asarray(down * coarse), (1, 2, 3))
    np.testing.assert_allclose(left, right, rtol=tolerance(1e-4, 1e-12), atol=tolerance(1e-4, 1e-12))


def test_prolongation_is_exact_for_trilinear_potentials(tolerance):
    x, y, z = np.meshgrid(np.arange(9) / 2, np.arange(7) / 2, np.arange(13) / 2, indexing="ij")
    fine = 1 + x - 2 * y + 0.5 * z + x * y - y * z + 0.25 * x * y * z
    up = jax.jit(multigrid.prolong)(jnp.asarray(fine[::2, ::2, ::2]))
    np.testing.assert_allclose(up, fine, atol=tolerance(1e-5, 1e-13))


def test_preconditioner_is_symmetric_and_positive(head, tolerance):
    rng = np.random.default_rng(2)
    u, v = (jnp.asarray(np.where(head.active, rng.normal(size=head.active.shape), 0)) for _ in range(2))
    cycle = jax.jit(lambda m, r: m(r))
    mu, mv = cycle(head.matrix.preconditioner, u), cycle(head.matrix.preconditioner, v)
    assert mu.dtype == u.dtype
    size = np.linalg.norm(u) * np.linalg.norm(mv)
    assert abs(float((v * mu).sum() - (u * mv).sum())) < 1e-5 * size  # the cycle runs in float32
    for w, mw in ((u, mu), (v, mv)):
        assert float((w * mw).sum()) > 0
    assert (np.asarray(mu)[~head.active] == 0).all()


@pytest.mark.float32
def test_iterations_stay_bounded_as_the_grid_is_refined(head):
    fine = stiffness(ball(32), 6e-3)
    rng = np.random.default_rng(3)
    active = np.asarray(fine.active)
    b = np.zeros(active.shape)
    b[active] = rng.normal(size=active.sum())
    _, _, stats = solve(fine, jnp.asarray(b), 1e-5)
    _, _, coarse = solve(head.matrix, head.loads[0], 1e-5)
    assert stats.status == fem.CONVERGED
    assert stats.iterations <= 1.5 * coarse.iterations + 2


@pytest.mark.host
def test_buckets_of_shapes():
    assert fem.pad_shape((5, 8, 3)) == (5, 8, 3)
    assert fem.pad_shape((9, 8, 3)) == (10, 8, 4)
    assert fem.pad_shape((90, 109, 89)) == (96, 112, 96)
    for shape in ((17, 40, 66), (181, 217, 181)):
        assert fem.pad_shape(fem.pad_shape(shape)) == fem.pad_shape(shape)


def test_shapes_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match=r"conductivity: shape \(9, 8, 8\) cannot be halved; pad it to \(10, 8, 8\)"):
        multigrid.build(jnp.ones((9, 8, 8)), 1.0)


# --- derivatives ---


@pytest.fixture(scope="module")
def small(precision):
    """A block with a hole in 6 x 4 x 4 voxels: derivatives are cheap."""
    rng = np.random.default_rng(5)
    shape = (6, 4, 4)
    sigma = rng.uniform(0.1, 1.5, shape)
    sigma[2:4, 1:3, 3] = 0
    across = sigma * rng.uniform(0.4, 0.9, shape)
    normal = rng.normal(size=(3, *shape))
    normal /= np.linalg.norm(normal, axis=0)
    mixture = fem.Mixture(*(jnp.asarray(a) for a in (sigma, across, normal)))
    b, c = (jnp.asarray(rng.normal(size=(7, 5, 5))) for _ in range(2))
    return mixture, b, c


def functional(scale, b, mixture, c, max_iterations=200):
    """A nonlinear functional of the solution: scale multiplies the conductivities of one half."""
    half = jnp.where(jnp.arange(6)[:, None, None] < 3, scale, 1)
    scaled = fem.Mixture(mixture.arithmetic * half, mixture.across * half, mixture.normal)
    phi, _, stats = fem.solve(fem.assemble_stiffness(scaled, 0.5), b, max_iterations=max_iterations)
    return (c * phi).sum() + (phi**2).sum(), stats


@pytest.mark.float64
def test_derivatives_against_central_differences(small):
    mixture, b, c = small
    f = jax.jit(lambda s, b: functional(s, b, mixture, c)[0])
    slope = jax.jit(jax.grad(lambda s, b: functional(s, b, mixture, c)[0], (0, 1)))
    by_scale, by_load = slope(1.3, b)
    step = 1e-4
    difference = (f(1.3 + step, b) - f(1.3 - step, b)) / (2 * step)
    np.testing.assert_allclose(by_scale, difference, rtol=1e-6)
    direction = jnp.asarray(np.random.default_rng(6).normal(size=b.shape))
    difference = (f(1.3, b + step * direction) - f(1.3, b - step * direction)) / (2 * step)
    np.testing.assert_allclose((by_load * direction).sum(), difference, rtol=1e-6)


def test_value_and_gradient_take_two_solves(small):
    mixture, b, c = small
    both = jax.make_jaxpr(jax.value_and_grad(lambda s, b: functional(s, b, mixture, c)[0], (0, 1)))(1.0, b)
    assert str(both).count("custom_linear_solve") == 2


def test_an_adjoint_that_fails_is_poisoned(small):
    """The forward solve of a zero load succeeds at once; the adjoint one may not."""
    mixture, b, c = small

    @jax.jit
    def f(b):
        return jax.value_and_grad(lambda b: functional(1.0, b, mixture, c, 1), has_aux=True)(b)

    (value, stats), gradient = f(0 * b)
    assert stats.status == fem.CONVERGED
    assert value == 0
    assert np.isnan(gradient).any()
    (value, stats), gradient = f(b)
    assert stats.status == fem.MAX_ITERATIONS
    assert np.isnan(value)
    assert np.isnan(gradient).any()
