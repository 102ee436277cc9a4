"""Cubic B-spline interpolation on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxm2m import _spline

SHAPE = (7, 4, 9)


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=SHAPE)


def points(n=200, inset=0.0, seed=1):
    high = np.array(SHAPE) - 1
    return inset + np.random.default_rng(seed).uniform(size=(n, 3)) * (high - 2 * inset)


def test_agrees_with_scipy_up_to_the_mirrors(values, tolerance):
    x = points()
    expected = ndimage.map_coordinates(values, x.T, order=3, mode="mirror")
    found = _spline.evaluate(_spline.prefilter(values), x)
    np.testing.assert_allclose(found, expected, atol=tolerance(2e-5, 1e-13))


def test_interpolates_the_samples(values, tolerance):
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).astype(float)
    np.testing.assert_allclose(_spline.evaluate(_spline.prefilter(values), grid), values, atol=tolerance(1e-5, 1e-13))


def test_reproduces_cubic_polynomials(x64):
    # coefficients of x^3 on the whole line are k^3 - k: away from the edges the spline is the polynomial
    k = np.arange(12.0)
    cubic = k**3 - k
    c = cubic[:, None, None] + 0 * cubic[:, None] * cubic + cubic[:, None] - 2 * cubic
    x = np.random.default_rng(2).uniform(2, 9, size=(100, 3))
    np.testing.assert_allclose(
        _spline.evaluate(c, x), x[:, 0] ** 3 + x[:, 1] ** 3 - 2 * x[:, 2] ** 3, rtol=1e-12, atol=1e-9
    )


def test_gradient_against_central_differences(values, x64):
    c = _spline.prefilter(values)
    f = jax.jit(lambda x: _spline.evaluate(c, x))
    x = points(50, inset=0.01)
    gradient = jax.jit(jax.grad(lambda x: f(x).sum()))(jnp.asarray(x))
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-5
        np.testing.assert_allclose(gradient[:, axis], (f(x + step) - f(x - step)) / 2e-5, atol=1e-8)


def test_second_derivative_is_continuous_across_cells(values, x64):
    c = _spline.prefilter(values)
    hessian = jax.jit(jax.hessian(lambda x: _spline.evaluate(c, x)))
    at = jnp.array([3.0, 1.0, 5.0])
    for axis in range(3):
        step = jnp.eye(3)[axis] * 1e-9
        np.testing.assert_allclose(hessian(at - step), hessian(at + step), atol=1e-7)
    # and no cell is flat: the test can fail
    assert np.abs(hessian(at)).max() > 0.1


def test_components_and_batch_axes(values, tolerance):
    both = np.stack([values, 2 * values], -1)
    x = points(12).reshape(3, 4, 3)
    found = jax.vmap(lambda p: _spline.evaluate(_spline.prefilter(both), p))(jnp.asarray(x))
    assert found.shape == (3, 4, 2)
    np.testing.assert_allclose(found[..., 1], 2 * found[..., 0], rtol=1e-5)
    np.testing.assert_allclose(
        found[..., 0], _spline.evaluate(_spline.prefilter(values), x), atol=tolerance(1e-5, 1e-12)
    )


def test_constant_beyond_the_edge_and_nan_stays(values):
    c = _spline.prefilter(values)
    out = _spline.evaluate(c, np.array([[-5.0, 1, 2], [0, 1, 2], [99, 3, 8], [6, 3, 8], [np.nan, 0, 0]]))
    assert out[0] == out[1]
    assert out[2] == out[3]
    assert np.isnan(out[4])
    gradient = jax.jit(jax.grad(lambda x: _spline.evaluate(c, x)))(jnp.array([-5.0, 1.0, 2.0]))
    assert np.isfinite(gradient).all()
    assert gradient[0] == 0


@pytest.mark.host
def test_prefilter_keeps_the_type(values):
    assert _spline.prefilter(values.astype(np.float32)).dtype == np.float32
    assert _spline.prefilter((10 * values).astype(np.int16)).dtype == np.float64


@pytest.mark.host
@pytest.mark.parametrize(("shape", "x"), [((3, 8, 8), np.zeros((1, 3))), ((8, 8, 8), np.zeros((3, 2)))])
def test_bad_shapes(shape, x):
    with pytest.raises((ValueError, TypeError), match=r"index_coordinates|coefficients"):
        _spline.evaluate(np.zeros(shape), x)
