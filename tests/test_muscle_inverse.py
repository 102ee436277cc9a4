"""The way back, from MEPs to fields: what it starts from, what units and silence do to it, files of 0.1."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxm2m as jm
from jaxm2m.muscle import NetworkConfig, NetworkPreset, TrainingConfig, TrainingOptions
from jaxm2m.muscle.networks import _inverse, _networks, _stored

GRID = jm.efield.Grid.around((0.0, 0.0, 0.0), shape=(4, 4, 4), spacing=4.0)
ONE_EPOCH = TrainingConfig("adam", learning_rate=1e-9, batch_size=20, epochs=1)
PRESET = NetworkPreset(
    NetworkConfig(shape=(4, 4, 4), filters=(3, 2), pools=0, kernel=1, pool="mean", hidden=(8,)),
    spacing=4.0,
    autoencoder=ONE_EPOCH,
    mapper=ONE_EPOCH,
)


def session():
    """Fields of blobs that move, and MEPs of three places whose medians differ by a factor of 100."""
    rng = np.random.default_rng(0)
    xyz = GRID.positions()
    centre = rng.uniform(-6, 6, (40, 3))
    size = 90 * np.exp(-((xyz - centre[:, None]) ** 2).sum(-1) / 2 / 8.0**2)
    e = (size[..., None] * np.array([0.6, 0.8, 0.0])).astype(np.float32)
    values = np.array([1.0, 10.0, 100.0]) * np.exp(size[:, [5, 30, 60]] / 20)
    return e, size.reshape(-1, 4, 4, 4, 1), values


def fit(e, values, **options):
    options = {"training": ONE_EPOCH, "key": jax.random.key(0)} | options
    return jm.muscle.fit_inverse(
        e, values, grid=GRID, preset=PRESET, latent=4, progress=False, options=TrainingOptions(chunk_size=1), **options
    )


@pytest.mark.slow
@pytest.mark.float32
def test_it_learns_what_differs_from_the_mean_field():
    """And its loss is the evidence bound of voxels that differ by as much as the fields do."""
    e, size, values = session()
    model = fit(e, values, beta=0.7)
    generator, params = model.generator, model.params
    fixed = params["fixed"]
    deviation = np.sqrt(size.var(0).mean())
    np.testing.assert_allclose(fixed["mean"] * fixed["scale"], size.mean(0), rtol=1e-4)
    np.testing.assert_allclose(fixed["deviation"] * fixed["scale"], deviation, rtol=1e-4)
    still = {**params, "decoder": jax.tree.map(jnp.zeros_like, params["decoder"])}
    np.testing.assert_allclose(generator.decode(still, jnp.ones((1, 4)))[0], fixed["mean"], rtol=1e-6)
    batch = {"x": jnp.asarray(size[:5], jnp.float32), "y": jnp.asarray(values[:5], jnp.float32)}
    loss, parts = generator.loss(params, {}, batch, jax.random.key(1), jnp.array(0))
    wanted = float(parts["error"]) / (2 * float(fixed["deviation"]) ** 2) + 0.7 * float(parts["divergence"]) / 64
    assert float(loss) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
@pytest.mark.float32
def test_all_muscles_count_alike_whatever_their_unit():
    e, _, values = session()
    model, scaled = fit(e, values), fit(e, 1000 * values)
    np.testing.assert_allclose(scaled(1000 * values), model(values), rtol=1e-3, atol=1e-3)
    x = (model.generator.scale_meps(jnp.asarray(values), model.params["fixed"]["largest"])
         - model.params["fixed"]["middle"]) / model.params["fixed"]["spread"]  # fmt: skip
    np.testing.assert_allclose(np.asarray(x).std(0), 1, rtol=1e-3)
    # no response is a number as any other, and has a gradient
    silent = jnp.zeros(3)
    assert np.isfinite(model(silent)).all()
    assert np.isfinite(jax.grad(lambda m: model(m).sum())(silent)).all()


@pytest.mark.float32
def test_models_of_0_1_are_read(tmp_path):
    """They took MEPs as they are, and decoded whole volumes."""
    e, _, values = session()
    model = fit(e, values)
    generator = dataclasses.replace(model.generator, log=False)
    params = jax.tree.map(np.asarray, model.params)
    params["fixed"] = {name: params["fixed"][name] for name in ("mask", "scale", "largest")}
    settings = dataclasses.asdict(generator)
    del settings["log"]
    text = {"generator": settings, "kind": "field", "muscles": list("123"), "score": 0.5, "precision": "float32"}
    path = _stored.save_folder(tmp_path / "old", _inverse.CONTENT, text, {"params": params, "affine": model.affine})
    assert "log" not in json.loads((path / "model.json").read_text())["generator"]
    loaded = jm.muscle.InverseModel.load(path)
    output, _ = _networks.apply(params["posterior"], _inverse.Posterior, 3, 4)(
        jnp.asarray(values / params["fixed"]["largest"], jnp.float32)
    )
    code, _ = _networks.apply(params["expansion"], _inverse.Expansion, 4, generator.config)(output[:, :4])
    volume, _ = _networks.apply(params["decoder"], _networks.Decoder, generator.config)(code)
    wanted = volume * params["fixed"]["mask"] * params["fixed"]["scale"]
    np.testing.assert_allclose(loaded(values), wanted, rtol=1e-4, atol=1e-4)
    # and kept as what they are
    again = jm.muscle.InverseModel.load(loaded.save(tmp_path / "again"))
    np.testing.assert_array_equal(again(values), loaded(values))
