"""Derivatives of the field: in the pose and the conductivities, through every transform, at every awkward place."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m import coil as coils
from jaxm2m import efield, head
from jaxm2m._pytree import StaticMetadata

RADII = (26, 32, 34, 37, 42)


def figure():
    rng = np.random.default_rng(0)
    dtype = jnp.result_type(float)
    position = rng.uniform(-15, 15, (4, 3)) * [1, 1, 0] + [0, 0, -4]
    moment = rng.normal(size=(4, 3)) * 1e-3 + [0, 0, 3e-3]
    element = coils.Dipoles(jnp.asarray(position, dtype), jnp.asarray(moment, dtype))
    return coils.Coil((element,), None, jnp.full(1, jnp.nan, dtype), StaticMetadata(name="four dipoles"))


def start(dtype=float):
    pose = np.eye(4)
    pose[:3, :3] = np.array([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    turn = np.array([[np.cos(0.3), 0, np.sin(0.3)], [0, 1, 0], [-np.sin(0.3), 0, np.cos(0.3)]])
    pose[:3, :3] = turn @ pose[:3, :3]
    pose[:3, 3] = -50 * pose[:3, 2] + [0.4, -0.3, 0.7]
    return jnp.asarray(pose, dtype)


def objective(e):
    """Nonlinear, with unequal weights, of the order of one."""
    weight = jnp.linspace(0.5, 1.5, e.shape[-2])
    return jnp.log1p((weight[:, None] * e**2).sum((-2, -1)) / 100)


def case(spacing, n_point=10):
    sphere = head.sphere(RADII, spacing, centre=(0.4, -0.3, 0.7))
    xyz = np.random.default_rng(1).uniform(-17, 17, (n_point, 3))
    sim = efield.Simulator(sphere)
    roi = efield.Points(xyz)
    coil = figure()
    return SimpleNamespace(head=sphere, sim=sim, roi=roi, coil=coil, at=sim.bind(coil, roi))


@pytest.fixture(scope="module")
def ball(precision):
    """16^3 voxels, two levels."""
    return case(6.0)


@pytest.fixture(scope="module")
def block(precision):
    """8^3 voxels, one level: many transforms compile quickly."""
    return case(12.0)


def of_pose(twist, at, pose, didt):
    return objective(at(coils.move(pose, twist), didt=didt))


@pytest.mark.slow("float64")
@pytest.mark.float64
def test_gradients_are_those_of_the_discrete_solve(ball):
    """Each component within 1e-5 of the larger of itself and 1e-3 of the gradient's norm."""
    pose = start()
    sigma = jnp.asarray(ball.head.conductivity, float)

    def value(twist, sigma):
        at = ball.sim.bind(ball.coil, ball.roi, conductivity=sigma)
        return objective(at(coils.move(pose, twist), didt=1e6))

    compiled = jax.jit(value)
    twist = jnp.zeros(6)
    result, gradients = jax.jit(jax.value_and_grad(value, (0, 1)))(twist, sigma)
    assert result == pytest.approx(float(compiled(twist, sigma)), rel=1e-8)
    for which, (gradient, steps) in enumerate(
        zip(gradients, ([1e-2] * 3 + [1e-3] * 3, 2e-4 * np.asarray(sigma)), strict=True)
    ):
        gradient = np.asarray(gradient)
        difference = np.zeros_like(gradient)
        for i, step in enumerate(steps):
            ends = []
            for sign in (1, -1, 2, -2):
                arguments = [twist, sigma]
                arguments[which] = arguments[which].at[i].add(sign * step)
                ends.append(float(compiled(*arguments)))
            difference[i] = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * step)
        allowed = 1e-5 * np.maximum(np.abs(difference), 1e-3 * np.linalg.norm(difference))
        assert (np.abs(gradient - difference) <= allowed).all(), (gradient, difference)
        assert np.abs(difference).min() > 0
    # and the map that is bound once has the same gradient with respect to the pose
    bound = jax.jit(jax.grad(of_pose))(twist, ball.at, pose, 1e6)
    np.testing.assert_allclose(bound, gradients[0], rtol=1e-6, atol=1e-9 * np.abs(gradients[0]).max())


@pytest.mark.slow
def test_value_and_gradient_take_two_solves(ball):
    program = jax.make_jaxpr(jax.value_and_grad(of_pose))(jnp.zeros(6), ball.at, start(), 1e6)
    assert str(program).count("custom_linear_solve") == 2


@pytest.mark.slow
def test_transforms_agree(block, tolerance):
    """jit x vmap x jvp x vjp, forward and reverse Jacobians."""
    pose = start()
    rng = np.random.default_rng(3)
    twists = jnp.asarray(rng.normal(size=(3, 6)) * [2, 2, 1, 0.1, 0.1, 0.1])
    directions = jnp.asarray(rng.normal(size=(3, 6)))

    def f(twist, at):
        return of_pose(twist, at, pose, 1e6)

    def jvp(t, d, at):
        return jax.jvp(lambda t: f(t, at), (t,), (d,))[1]

    def vjp(t, at):
        value, pull = jax.vjp(lambda t: f(t, at), t)
        return value, pull(jnp.ones_like(value))[0]

    value, gradient = jax.jit(jax.vmap(vjp, (0, None)))(twists, block.at)
    slope = jax.jit(jax.vmap(jvp, (0, 0, None)))(twists, directions, block.at)
    bound = tolerance(2e-3, 1e-7)
    scale = np.abs(np.asarray(gradient)).max()
    np.testing.assert_allclose(slope, (gradient * directions).sum(-1), atol=bound * scale)
    one_value, one_gradient = jax.jit(vjp)(twists[1], block.at)
    np.testing.assert_allclose(one_value, value[1], rtol=bound)
    np.testing.assert_allclose(one_gradient, gradient[1], atol=bound * scale)
    # eager, with the checks of poses
    eager = vjp(twists[1], block.at)
    np.testing.assert_allclose(eager[1], gradient[1], atol=bound * scale)
    # a batch of poses in one call is the vmap over them
    poses = coils.move(pose, twists)
    many = block.at(poses, didt=1e6)
    alone = jax.jit(jax.vmap(lambda p, at: at(p, didt=1e6), (0, None)))(poses, block.at)
    np.testing.assert_allclose(many, alone, atol=tolerance(1e-4, 1e-9) * np.abs(np.asarray(many)).max())


@pytest.mark.slow
def test_jacobians_and_hessian(block, tolerance):
    pose = start()
    zero = jnp.zeros(6)
    bound = tolerance(2e-3, 1e-7)
    forward = jax.jit(jax.jacfwd(of_pose))(zero, block.at, pose, 1e6)
    reverse = jax.jit(jax.jacrev(of_pose))(zero, block.at, pose, 1e6)
    np.testing.assert_allclose(forward, reverse, atol=bound * np.abs(np.asarray(reverse)).max())
    hessian = np.asarray(jax.jit(jax.jacfwd(jax.grad(of_pose)))(zero, block.at, pose, 1e6))
    assert np.isfinite(hessian).all()
    size = np.abs(hessian).max()
    assert size > 0
    np.testing.assert_allclose(hessian, hessian.T, atol=tolerance(1e-2, 1e-6) * size)
    if hessian.dtype == np.float64:
        slope = jax.jit(jax.grad(of_pose))
        step = 1e-3
        for i in (1, 4):
            difference = slope(zero.at[i].set(step), block.at, pose, 1e6) - slope(
                zero.at[i].set(-step), block.at, pose, 1e6
            )
            np.testing.assert_allclose(hessian[i], difference / (2 * step), atol=1e-4 * size)


@pytest.mark.slow
def test_zero_field(block):
    """No current: field and all derivatives are finite, those of the magnitude too."""
    pose = start()
    value, gradient = jax.jit(jax.value_and_grad(of_pose))(jnp.zeros(6), block.at, pose, 0.0)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)
    hessian = jax.jit(jax.jacfwd(jax.grad(of_pose)))(jnp.zeros(6), block.at, pose, 0.0)
    assert np.isfinite(hessian).all()

    def loudest(didt, sim):
        return sim(block.coil, pose, didt=didt).magnitude.sum()

    slope = jax.jit(jax.grad(loudest))
    assert np.isfinite(slope(0.0, block.sim))
    assert float(slope(1e6, block.sim)) > 0


def test_derivative_in_the_coil_and_the_current(block, tolerance):
    """The field is linear in both."""
    pose = start()

    def f(didt, scale, at):
        element = block.coil.elements[0]
        scaled = coils.Dipoles(element.position, scale * element.moment)
        coil = coils.Coil((scaled,), None, block.coil.didt_max, block.coil.metadata)
        return dataclasses.replace(at, coil=coil)(pose, didt=didt).sum()

    value, slopes = jax.jit(jax.value_and_grad(f, (0, 1)))(1e6, 1.0, block.at)
    np.testing.assert_allclose(slopes[0] * 1e6, value, rtol=tolerance(1e-3, 1e-8))
    np.testing.assert_allclose(slopes[1], value, rtol=tolerance(1e-3, 1e-8))


@pytest.mark.float32
def test_failures_poison_value_and_gradient(block):
    strict = efield.Simulator(block.head, tolerance=1e-13).bind(block.coil, block.roi)
    value, gradient = jax.jit(jax.value_and_grad(of_pose))(jnp.zeros(6), strict, start(), 1e6)
    assert np.isnan(value)
    assert np.isnan(gradient).all()
