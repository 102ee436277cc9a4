"""Uncertain conductivities: first order against differences, sampling against first order."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m import coil as coils
from jaxm2m import efield, head
from jaxm2m._pytree import StaticMetadata
from jaxm2m.efield import _uncertainty

TISSUES = ("white", "grey", "scalp")


@pytest.fixture(scope="module", params=["voxels", "tetrahedra"])
def case(request, precision):
    """A layered ball beside a coil that leans: currents cross the layers because the ball is not the coil's own."""
    if request.param == "voxels":
        made = head.sphere((40, 50, 60), 6.0, tissues=TISSUES)
    else:
        made = head.sphere_mesh((40, 50, 60), 12.0, tissues=TISSUES)
    dtype = jnp.result_type(float)
    wings = coils.Dipoles(
        jnp.asarray([[-20.0, 0, -3], [20, 0, -3]], dtype), jnp.asarray([[0, 0, 1.0], [0, 0, -1]], dtype), 0
    )
    coil = coils.Coil((wings,), None, jnp.asarray([jnp.nan], dtype), StaticMetadata(name="figure-8"))
    pose = jnp.asarray(np.diag([1.0, -1, -1, 1])).at[2, 3].set(80.0)
    points = np.random.default_rng(0).normal(size=(20, 3)) * (12, 12, 3) + (0, 0, 38)
    return SimpleNamespace(sim=efield.Simulator(made), coil=coil, pose=pose, roi=efield.Points(points))


@pytest.mark.slow
def test_first_order(x64, case):
    """Against differences of full solves, tissue by tissue."""
    found = efield.first_order_uncertainty(case.sim, case.coil, case.pose, case.roi)
    own = np.asarray(case.sim.head.conductivity)
    np.testing.assert_allclose(
        found.magnitude, jnp.linalg.norm(case.sim.bind(case.coil, case.roi)(case.pose), axis=-1), rtol=1e-8
    )
    for t, name in enumerate(TISSUES):
        low, high = efield.RANGES[name]
        sd = (high - low) / np.sqrt(28)
        step = 1e-3 * sd * np.eye(3)[t]
        ahead, behind = (
            jnp.linalg.norm(case.sim.bind(case.coil, case.roi, conductivity=own + s)(case.pose), axis=-1)
            for s in (step, -step)
        )
        size = float(found.magnitude.max())
        np.testing.assert_allclose(found.by_tissue[t], (ahead - behind) / 2e-3, atol=1e-6 * size)
    np.testing.assert_allclose(found.deviation, np.sqrt((np.asarray(found.by_tissue) ** 2).sum(0)), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.float32
def test_sampling_agrees_with_first_order(case):
    ranges = {"white": (0.12, 0.132), "grey": (0.26, 0.29), "scalp": (0.45, 0.48)}
    linear = efield.first_order_uncertainty(case.sim, case.coil, case.pose, case.roi, ranges=ranges)
    drawn = efield.sampled_uncertainty(
        case.sim, case.coil, case.pose, case.roi, ranges=ranges, key=jax.random.key(0), samples=90
    )
    assert drawn.percentiles.shape == (3, 20)
    assert (np.diff(drawn.percentiles, axis=0) >= 0).all()
    size = float(linear.deviation.mean())
    assert size > 0
    np.testing.assert_allclose(float(drawn.deviation.mean()), size, rtol=0.25)
    assert (np.abs(np.asarray(drawn.magnitude - linear.magnitude)) < 4 * np.asarray(linear.deviation).max()).all()
    assert drawn.metadata["samples"] == 90
    # another pose and other ranges compile nothing
    before = _uncertainty._draw_magnitudes._cache_size(), _uncertainty._linearize_magnitude._cache_size()
    moved = case.pose.at[0, 3].add(3.0)
    efield.first_order_uncertainty(case.sim, case.coil, moved, case.roi)
    efield.sampled_uncertainty(case.sim, case.coil, moved, case.roi, key=jax.random.key(1), samples=3)
    assert (_uncertainty._draw_magnitudes._cache_size(), _uncertainty._linearize_magnitude._cache_size()) == before


@pytest.mark.slow
@pytest.mark.float32
def test_a_tissue_that_is_held_adds_nothing(case):
    held = dict.fromkeys(TISSUES[1:], (0.3, 0.3))
    found = efield.first_order_uncertainty(case.sim, case.coil, case.pose, case.roi, ranges=held)
    assert float(jnp.abs(found.by_tissue[1:]).max()) == 0
    assert list(found.metadata["ranges"]) == ["white"]


@pytest.mark.float32
def test_what_is_refused(case):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="ranges: 'csf'; choose one of 'white', 'grey', 'scalp'"):
        efield.first_order_uncertainty(case.sim, case.coil, case.pose, case.roi, ranges={"csf": (1, 2)})
    with pytest.raises(ValueError, match=r"ranges: 'grey' is \(0.4, 0.2\)"):
        efield.first_order_uncertainty(case.sim, case.coil, case.pose, case.roi, ranges={"grey": (0.4, 0.2)})
    with pytest.raises(ValueError, match="percentiles"):
        efield.sampled_uncertainty(case.sim, case.coil, case.pose, case.roi, key=key, percentiles=(101,))
    with pytest.raises(ValueError, match="one pose"):
        efield.first_order_uncertainty(case.sim, case.coil, case.pose[None], case.roi)
