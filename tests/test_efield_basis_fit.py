"""The fit of a basis in a sphere, whose fields are known exactly: where it looks, what it serves, what it says."""

from types import SimpleNamespace

import numpy as np
import pytest
from exact_sphere import MU, dipole_field
from scipy.spatial.distance import cdist

from jaxm2m import head
from jaxm2m.efield import _basis_fit

pytestmark = pytest.mark.host

RADIUS = 92.0


def dipole(points, position, moment):
    """A of a magnetic dipole, any unit."""
    r = points - position
    return np.cross(moment, r) / np.linalg.norm(r, axis=1, keepdims=True) ** 3


def attraction(points, pole):
    """Gradient of 1/r: harmonic, curl-free."""
    r = points - pole
    return -r / np.linalg.norm(r, axis=1, keepdims=True) ** 3


def exact(points, position, moment):
    """E of the dipole in any sphere round the origin, in the unit of `dipole`."""
    return dipole_field(points, position, moment) * 1e-6 / MU


def over(random, count, off):
    """Positions over the region, `off` mm over the sphere."""
    up = random.normal(size=(count, 3)) * 0.35 + [0, 0, 1]
    return up / np.linalg.norm(up, axis=1, keepdims=True) * (RADIUS + random.uniform(*off, (count, 1)))


@pytest.fixture(scope="module")
def sphere():
    return head.sphere(spacing=4.0)


@pytest.fixture(scope="module")
def region():
    axes = np.meshgrid(*[np.linspace(-20, 20, 11)] * 3, indexing="ij")
    return np.stack(axes, -1).reshape(-1, 3) + np.array([0, 0, 55])


@pytest.fixture(scope="module")
def where(sphere, region):
    return _basis_fit.choose_control_points(*sphere.mask(), region)


def sources(count, seed, off):
    """Dipoles over the region: A at the control points and E in the region are made of them."""
    random = np.random.default_rng(seed)
    return list(zip(over(random, count, off), random.normal(size=(count, 3)), strict=True))


@pytest.fixture(scope="module")
def solved(where, region):
    """A (mode, control point, 3) and E (mode, point, 3) of 250 dipoles."""
    made = sources(250, 0, (8, 35))
    return SimpleNamespace(
        a=np.stack([dipole(where.points, *s) for s in made]), e=np.stack([exact(region, *s) for s in made])
    )


@pytest.fixture(scope="module")
def fit(where, solved):
    return _basis_fit.fit(where, solved.a)


@pytest.fixture(scope="module")
def blind(where, solved):
    """A fit with a single gradient of its own."""
    return _basis_fit.fit(where._replace(gauge=where.gauge[:1]), solved.a)


def served(where, solved, fit, a):
    """E (point, 3) that the modes give for `a`, and what they and the gradients leave of it, root mean squares."""
    n = len(where.surface) + len(where.inside)
    fitted, held_out = a[:n].ravel(), a[n:].ravel()
    left = held_out - fit.residual @ fitted
    return np.tensordot(fit.coefficients @ fitted, solved.e, 1), rms(left.reshape(-1, 3))


def rms(field):
    return np.sqrt((field**2).sum(-1).mean())


def test_where_it_looks(where, region):
    """A closed surface 4 mm inside the head, points of the region, and others that take no part."""
    assert where.surface.shape == (_basis_fit.SURFACE, 3)
    assert where.inside.shape == (_basis_fit.INSIDE, 3)
    assert where.held_out.shape == (_basis_fit.HELD_OUT, 3)
    # all round, but most of them near the region
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    assert cdist(axes * RADIUS, where.surface).min(1).max() < 40
    spacing = np.sort(cdist(where.surface, where.surface), 1)[:, 1]
    near = cdist(where.surface, region).min(1) < 30
    assert spacing[near].max() < spacing[~near].max() / 2
    # the region's points are its own, each once
    chosen = np.concatenate([where.inside, where.held_out])
    assert cdist(chosen, region).min(1).max() == 0
    assert len(np.unique(chosen, axis=0)) == len(chosen)
    # the poles of the gradients lie outside the head
    assert np.linalg.norm(where.gauge, axis=1).min() > RADIUS + 20


@pytest.mark.parametrize("spacing", [4.0, 8.0])
def test_the_surface_lies_in_the_head(spacing, region):
    """However coarse its voxels, whose staircase it follows."""
    sphere = head.sphere(spacing=spacing)
    depth = RADIUS - np.linalg.norm(_basis_fit.choose_control_points(*sphere.mask(), region).surface, axis=1)
    assert depth.min() > 0
    assert depth.mean() == pytest.approx(_basis_fit.DEPTH, abs=1)
    assert np.abs(depth - depth.mean()).max() < 0.6 * spacing


def test_the_same_each_time(sphere, region, where, solved, fit):
    for a, b in zip(_basis_fit.choose_control_points(*sphere.mask(), region), where, strict=True):
        np.testing.assert_array_equal(a, b)
    again = _basis_fit.fit(where, solved.a)
    np.testing.assert_array_equal(again.coefficients, fit.coefficients)
    np.testing.assert_array_equal(again.residual, fit.residual)


def test_a_small_region_has_points_round_it(sphere):
    """A single point under the scalp: its neighbours tell as much, and all lie in the head."""
    point = np.array([[0, 0, 86.0]])
    where = _basis_fit.choose_control_points(*sphere.mask(), point)
    chosen = np.concatenate([where.inside, where.held_out])
    assert len(np.unique(chosen, axis=0)) == _basis_fit.INSIDE + _basis_fit.HELD_OUT
    assert np.linalg.norm(chosen - point, axis=1).max() < 20
    assert np.linalg.norm(chosen, axis=1).max() < RADIUS


def test_dipoles_that_are_no_modes_have_their_field(where, region, solved, fit):
    """The farther off, the closer; what is left of A tells how close."""
    errors, estimates = [], []
    for off in ((20, 40), (8, 20), (1, 3)):
        for source in sources(8, 1, off):
            e, left = served(where, solved, fit, dipole(where.points, *source))
            errors.append(rms(e - exact(region, *source)) / rms(exact(region, *source)))
            estimates.append(left / rms(e))
    errors, estimates = np.reshape(errors, (3, 8)), np.reshape(estimates, (3, 8))
    assert errors[0].max() < 0.001
    assert np.median(errors[0]) < 0.3 * np.median(errors[1]) < 0.1 * np.median(errors[2])
    assert (estimates > 0.3 * errors).all()
    assert (estimates < 20 * errors).all()
    # a source on the other side is none of theirs
    beyond = np.array([0, 0, -97.0]), np.array([1.0, 0, 0])
    e, left = served(where, solved, fit, dipole(where.points, *beyond))
    assert left > 0.05 * rms(e)


def test_blind_to_the_size_of_modes(where, solved, fit):
    """A mode that is a thousand times as strong is asked for a thousand times less."""
    strength = 10.0 ** np.linspace(-3, 3, len(solved.a))
    other = _basis_fit.fit(where, solved.a * strength[:, None, None])
    a = dipole(where.points, *sources(1, 2, (10, 20))[0])
    e, left = served(where, solved, fit, a)
    scaled, left_scaled = served(where, SimpleNamespace(e=solved.e * strength[:, None, None]), other, a)
    assert rms(scaled - e) < 1e-6 * rms(e)
    assert left_scaled == pytest.approx(left, rel=1e-4)


@pytest.mark.parametrize("pole", [(0, 0, 140.0), (60, 30, 110.0), (-30, 120, -20)])
def test_a_gradient_has_no_field(where, region, solved, fit, blind, pole):
    """A coil's A in another gauge is the same coil; what is left does not take the gradient for an error."""
    gradient = attraction(where.points, np.array(pole))
    source = sources(1, 3, (12, 20))[0]
    a = dipole(where.points, *source)
    gradient *= rms(a[len(where.surface) :]) / rms(gradient[len(where.surface) :])
    e, _ = served(where, solved, fit, a)
    nothing, left_of_it = served(where, solved, fit, gradient)
    something, left_by_modes = served(where, solved, blind, gradient)
    assert rms(nothing) < 0.003 * rms(e)
    assert left_of_it < 0.003 * rms(e)
    # without the fit's own gradients, the modes would have to span it
    assert rms(something) > 10 * rms(nothing)
    assert left_by_modes > 10 * left_of_it
