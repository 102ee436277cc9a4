"""The reference side of the interface benchmarks: exact solutions, fractions, loads, the folded cortex."""

from itertools import pairwise

import numpy as np
import pyamg_baseline
import pytest
import scipy.sparse.linalg as sla
from interfaces import fold as folded
from interfaces import slab, two_medium_sphere, voxels

pytestmark = pytest.mark.host

EXACT = {**slab.CASES, **two_medium_sphere.CASES}


@pytest.mark.parametrize("name", EXACT)
def test_exact_fields_are_free_of_curl_and_divergence_within_each_medium(name):
    problem = EXACT[name]
    points, layer = problem.samples(300)
    step = 1e-3
    jacobian = np.stack(
        [
            (problem.field(points + step * e, layer) - problem.field(points - step * e, layer)) / (2 * step)
            for e in np.eye(3)
        ],
        -1,
    )
    # the continuation of a shell's field is singular at the centre only
    scale = np.abs(problem.field(points, layer)).max()
    assert np.abs(np.trace(jacobian, axis1=1, axis2=2)).max() < 1e-6 * scale
    assert np.abs(jacobian - jacobian.transpose(0, 2, 1)).max() < 1e-6 * scale


@pytest.mark.parametrize("name", EXACT)
def test_normal_current_and_tangential_field_are_continuous(name):
    problem = EXACT[name]
    rng = np.random.default_rng(0)
    for k in range(len(problem.sigma) - 1):
        if isinstance(problem, slab.Slab):
            points = rng.normal(size=(50, 3))
            points += (problem.bounds[k] - points @ problem.n)[:, None] * problem.n
            normal = np.broadcast_to(problem.n, points.shape)
        else:
            normal = rng.normal(size=(50, 3))
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            points = np.asarray(problem.centre) + problem.radii[k] * normal
        above, below = problem.field(points, k), problem.field(points, k + 1)
        current = problem.sigma[k] * above - problem.sigma[k + 1] * below
        jump = above - below
        size = np.abs(problem.sigma[k] * above).max()
        assert np.abs((current * normal).sum(-1)).max() < 1e-12 * size
        assert np.abs(np.cross(jump, normal)).max() < 1e-12 * np.abs(above).max()
        assert np.abs(jump).max() > 1e-3 * np.abs(above).max()  # the case does have current across
        assert (problem.layer(points + 1e-6 * normal) == k).all()
        assert (problem.layer(points - 1e-6 * normal) == k + 1).all()


def test_single_sphere_agrees_with_the_textbook():
    sphere = two_medium_sphere.CASES["grey in csf"]
    a, b = sphere.coefficients
    outside, inside = sphere.sigma
    np.testing.assert_allclose(a, [1, 3 * outside / (2 * outside + inside)], rtol=1e-12)
    np.testing.assert_allclose(b, [sphere.radii[0] ** 3 * (outside - inside) / (inside + 2 * outside), 0], atol=1e-9)


def test_halfspace_of_a_cube_against_counting():
    rng = np.random.default_rng(1)
    normal = np.concatenate([rng.normal(size=(40, 3)), [[1, 0, 0], [0, -2, 0], [1, 1, 0], [1, -1, 1e-3]]])
    offset = 0.8 * rng.uniform(-1, 1, len(normal)) * np.abs(normal).sum(1) / 2
    n = 60
    cube = voxels.centres((n, n, n), 1 / n, np.full(3, -0.5)).reshape(-1, 3)
    counted = (cube @ normal.T + offset > 0).mean(0)
    np.testing.assert_allclose(voxels.halfspace(offset, normal), counted, atol=0.01)
    assert voxels.halfspace(np.array([9.0, -9.0]), np.ones((2, 3))).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(voxels.halfspace(np.array([0.25]), np.array([[1.0, 0, 0]])), 0.75, atol=1e-4)


@pytest.mark.parametrize("name", ["head layers, 35 deg", "csf on grey, diagonal", "head in scalp"])
def test_fractions_sum_to_one_and_labels_converge_to_them(name):
    problem = EXACT[name]
    exact = problem.fractions(4.0)
    assert exact.shape == (len(problem.sigma), 12, 12, 12)
    np.testing.assert_allclose(exact.sum(0), 1, atol=1e-12)
    assert exact.min() >= 0
    miss = [np.abs(problem.fractions(4.0, from_labels=h) - exact).mean() for h in (4.0, 2.0, 1.0, 0.5)]
    assert all(b < 0.62 * a for a, b in pairwise(miss))
    assert miss[-1] < 2e-3
    assert set(np.unique(problem.fractions(4.0, from_labels=4.0))) <= {0.0, 1.0}


def test_sphere_fractions_give_the_volume():
    sphere = two_medium_sphere.CASES["grey in csf"]
    volume = 4 / 3 * np.pi * sphere.radii[0] ** 3
    assert abs(sphere.fractions(2.0)[1].sum() * 8 / volume - 1) < 2e-5


def test_boundary_load_drives_a_uniform_current_exactly():
    problem = slab.Slab(sigma=(0.3,) * 5, tangential=(0.2, 0.1, -0.4), size=16.0)
    shape = problem.shape(4.0)
    stiffness, active = pyamg_baseline.assemble(np.full(shape, 0.3), 4.0)
    nodes = voxels.centres(tuple(n + 1 for n in shape), 4.0, problem.origin - 2.0).reshape(-1, 3)
    phi = -nodes @ problem.field(np.zeros((1, 3)))[0]
    assert active.all()
    np.testing.assert_allclose(stiffness @ phi, problem.load(4.0).ravel(), atol=1e-11)


@pytest.mark.parametrize("name", ["head layers, 20 deg", "csf on grey, 5 deg", "grey in csf", "head in scalp"])
def test_boundary_loads_balance(name):
    load = EXACT[name].load(4.0)
    assert abs(load.sum()) < 1e-6 * np.abs(load).sum()


def test_an_averaged_voxel_solution_approaches_the_exact_sphere():
    sphere = two_medium_sphere.CASES["grey in csf"]
    found = []
    for h in (6.0, 3.0):
        sigma = np.tensordot(sphere.sigma, sphere.fractions(h), 1)
        stiffness, _ = pyamg_baseline.assemble(sigma, h)
        load = sphere.load(h).ravel()
        phi = np.zeros(load.size)
        phi[1:] = sla.cg(stiffness[1:, 1:], load[1:], rtol=1e-8)[0]
        phi = phi.reshape(tuple(n + 1 for n in sigma.shape))
        e = np.zeros((*sigma.shape, 3))
        for corner in pyamg_baseline.CORNERS:
            part = phi[tuple(slice(o, o + n) for o, n in zip(corner, sigma.shape, strict=True))]
            e -= part[..., None] * (2 * corner - 1) / (4 * h)
        centre = voxels.centres(sigma.shape, h, sphere.origin).reshape(-1, 3)
        away = (np.abs(sphere.levels(centre)[:, 0]) > 6) & (np.abs(centre).max(-1) < 20)
        exact = sphere.field(centre[away])
        found.append(np.linalg.norm(e.reshape(-1, 3)[away] - exact) / np.linalg.norm(exact))
    assert found[1] < 0.6 * found[0] < 0.06


def test_fold_map_and_its_inverse():
    fold = folded.Fold()
    rng = np.random.default_rng(2)
    section = rng.uniform(fold.origin, [fold.half, fold.half, 0], (2000, 3))
    points, jacobian = fold.forward(section)
    step = 1e-5
    numeric = np.stack(
        [(fold.forward(section + step * e)[0] - fold.forward(section - step * e)[0]) / (2 * step) for e in np.eye(3)],
        -1,
    )
    np.testing.assert_allclose(jacobian, numeric, atol=1e-7)
    assert np.linalg.det(jacobian).min() > 0.5
    np.testing.assert_allclose(fold.inverse(points), section, atol=1e-8)
    for axis, value in ((0, fold.half), (0, -fold.half), (2, 0.0), (2, -fold.depth)):  # the box maps onto itself
        face = section.copy()
        face[:, axis] = value
        np.testing.assert_allclose(fold.forward(face)[0][:, axis], value, atol=1e-12)


def test_fold_fractions():
    fold = folded.Fold()
    exact = fold.fractions(4.0, cell=1.0)
    assert exact.shape == (5, 18, 18, 15)
    np.testing.assert_allclose(exact.sum(0), 1, atol=1e-12)
    counted = fold.fractions(4.0, from_labels=1.0)
    assert np.abs(counted - exact).mean() < 0.006
    assert np.abs(counted.mean((1, 2, 3)) - exact.mean((1, 2, 3))).max() < 5e-4
    with pytest.raises(ValueError, match="spacing"):
        fold.fractions(5.0)


def test_coil_dipoles():
    coil = folded.COILS["across"]
    rng = np.random.default_rng(3)
    points = rng.uniform([-30, -30, -50], [30, 30, 0], (20, 3))
    at, moment = coil.dipoles()
    r = (points[:, None] - at) * 1e-3
    expected = 0.1 * (np.cross(moment, r) / np.linalg.norm(r, axis=-1, keepdims=True) ** 3).sum(1)  # mu0/4pi 1e6 = 0.1
    np.testing.assert_allclose(coil.dadt(points), expected, rtol=1e-9, atol=1e-12)
    e = -coil.dadt(np.array([[1.0, -3.0, -15.0]]))[0]
    turned = np.rad2deg(np.arctan2(e[1], e[0]))
    assert abs(turned - coil.angle) < 0.5
    assert 1.0 < np.linalg.norm(e) < 3.0


def test_stored_reference_belongs_to_the_geometry():
    reference = folded.load()
    fold = folded.Fold()
    assert (fold.layer(reference.points) == reference.layer).mean() > 0.999  # points are float32
    assert np.count_nonzero(reference.layer == 3) == 4000
    assert np.count_nonzero((reference.layer == 3) & (reference.distance < 0.5)) > 500
    for name in folded.COILS:
        assert np.isfinite(reference.e[name]).all()
        assert reference.error[name]["grey"] < 1.0


@pytest.mark.slow
def test_reference_solver_cancels_a_gradient_and_agrees_with_the_stored_field():
    from interfaces import fold_reference

    fold = folded.Fold()
    mesh = fold_reference.section(fold)
    reference = folded.load()
    grey = reference.layer == 3
    linear = np.array([0.3, -0.2, 0.5])
    sources = {
        "gauge": lambda points: np.broadcast_to(linear, points.shape),  # curved by the map: exact only in the limit
        "across": folded.COILS["across"].dadt,
    }
    fields, record = fold_reference.solve(fold, mesh, 12, sources, reference.points[grey])
    assert record["residual_across"] < 1e-7
    assert record["iterations_across"] < 40
    assert np.sqrt((fields["gauge"] ** 2).sum(-1).mean()) < 0.04 * np.linalg.norm(linear)  # 0.8 % one level finer
    assert folded.errors(fields["across"], reference.e["across"][grey])["l2"] < 4


@pytest.mark.parametrize("tensor", [False, True])
def test_assembly_is_that_of_gauss_quadrature(tensor):
    rng = np.random.default_rng(4)
    shape, h = (3, 2, 4), 1.7
    if tensor:
        root = rng.normal(size=(*shape, 3, 3))
        full = root @ root.swapaxes(-1, -2)
        sigma = np.stack([full[..., i, j] for i, j in pyamg_baseline.PAIRS], -1)
    else:
        sigma = rng.uniform(0.01, 2, shape)
        full = sigma[..., None, None] * np.eye(3)
    sigma[0, 0, 0], full[0, 0, 0] = 0, 0  # air: one node drops out
    stiffness, active = pyamg_baseline.assemble(sigma, h)
    dense = np.zeros((60, 60))
    index = np.arange(60).reshape(4, 3, 5)
    x, w = (np.array([-1, 1]) / np.sqrt(3) + 1) / 2, 0.5
    corners = pyamg_baseline.CORNERS
    for cell in np.ndindex(shape):
        nodes = [index[tuple(np.array(cell) + c)] for c in corners]
        for gx, gy, gz in np.stack(np.meshgrid(x, x, x), -1).reshape(-1, 3):
            line = np.stack([[1 - t, t] for t in (gx, gy, gz)])
            slope = np.array([-1.0, 1.0]) / h
            gradient = np.array(
                [
                    [np.prod([slope[c[k]] if k == axis else line[k, c[k]] for k in range(3)]) for axis in range(3)]
                    for c in corners
                ]
            )
            dense[np.ix_(nodes, nodes)] += (w * h) ** 3 * gradient @ full[cell] @ gradient.T
    keep = active.ravel()
    assert keep.sum() == 59
    np.testing.assert_allclose(stiffness.toarray(), dense[np.ix_(keep, keep)], atol=1e-13 * np.abs(dense).max())
    assert stiffness.has_sorted_indices


def test_scikit_fem_assembles_the_same_matrix():
    pytest.importorskip("skfem", reason="scikit-fem is a benchmark peer (extra `bench`)")
    sigma = np.random.default_rng(5).uniform(0.01, 2, (4, 5, 3))
    ours, _ = pyamg_baseline.assemble(sigma, 2.0)
    theirs, misplaced = pyamg_baseline.skfem_stiffness(sigma, 2.0)
    assert misplaced == 0
    assert abs(ours - theirs).max() < 1e-13 * abs(ours).max()


def test_pyamg_reaches_the_true_residual():
    pytest.importorskip("pyamg", reason="PyAMG is a benchmark peer (extra `bench`)")
    labels = np.zeros((28, 28, 28), np.uint8)
    radius = np.linalg.norm(voxels.centres((28, 28, 28), 1.0, np.full(3, -14.0)), axis=-1)
    for k, r in enumerate((13, 11, 9, 8, 6), 1):
        labels[radius < r] = k
    sigma = pyamg_baseline.conductivity(labels)
    stiffness, active = pyamg_baseline.assemble(sigma, 2.0)
    load = pyamg_baseline.tms_load(sigma, 2.0, np.full(3, -14.0), active, folded.Coil(height=20.0).dadt)
    result = pyamg_baseline.solve(stiffness, load)
    assert result["converged"]
    assert np.linalg.norm(stiffness @ result["x"] - load) < 1.1e-5 * np.linalg.norm(load)
