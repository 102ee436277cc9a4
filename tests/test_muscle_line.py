"""The line from the coil to the muscles: poses and MEPs, a model, and the pose that it finds for one muscle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_placement_optimize import Ball, Exact

import jaxm2m as jm
from jaxm2m.muscle import NetworkConfig, NetworkPreset, TrainingConfig, TrainingOptions

RADIUS, DEPTH = 92.0, 24.0  # mm: of the scalp; of the cortex under it
MUSCLES = ("FDI", "ADM")
PRESET = NetworkPreset(
    NetworkConfig(shape=(8, 8, 4), filters=(4, 2), pools=1, kernel=1, pool="mean", hidden=(16, 8)),
    spacing=None,
    autoencoder=TrainingConfig("adagrad", learning_rate=3e-2, batch_size=20, epochs=20),
    mapper=TrainingConfig("adam", learning_rate=5e-3, batch_size=20, epochs=150),
)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.float32
def test_a_coil_is_placed_on_one_muscle_and_off_another():
    """Two muscles 20 mm apart under a spherical scalp: the search through field, rate and networks finds the one."""
    grid = jm.efield.Grid.around((0, 0, RADIUS - DEPTH), shape=(8, 8, 4), spacing=6.0)
    coil = jm.coil.figure8(sides=8, layers=1)
    field = Exact(jnp.asarray(grid.positions(), float), coil)
    scalp = Ball(jnp.asarray(RADIUS, float))

    rng = np.random.default_rng(0)
    places = np.append(rng.uniform(-25, 25, (100, 2)), np.full((100, 1), RADIUS), 1)
    poses = np.stack([np.asarray(jm.coil.place(scalp, place)) for place in [[0, 0, RADIUS], *places]])
    fields = np.asarray(jax.jit(lambda poses: jax.lax.map(field, poses))(jnp.asarray(poses)))
    strength = np.linalg.norm(fields, axis=-1)
    sites = [np.linalg.norm(grid.positions() - [x, 0, RADIUS - DEPTH], axis=1).argsort()[:4] for x in (-10, 10)]
    rate = jm.cortex.FiringRate(jm.cortex.threshold(float(strength[0].max()), "V/m"))
    didt = 1.2e6  # 120 % of what reaches the threshold under the middle

    def truth(e):
        return jnp.stack([rate(1.2 * jnp.asarray(e)[..., site, :]).mean(-1) for site in sites], -1)

    meps = 10 + 1000 * np.asarray(truth(fields[1:])) * np.exp(0.1 * rng.normal(size=(100, 2)))
    how = {"grid": grid, "rate": rate, "preset": PRESET, "muscles": MUSCLES, "progress": False}
    how["options"] = TrainingOptions(chunk_size=1)
    model = jm.muscle.fit(1.2 * fields[1:], meps, variant="direct", key=jax.random.key(0), **how)
    objective = jm.muscle.activate(model, "FDI", avoid="ADM")
    best = jm.placement.optimize(
        field,
        objective,
        coil=coil,
        scalp=scalp,
        target=(0, 0, RADIUS),
        n_starts=6,
        key=jax.random.key(1),
        distance=4.0,
        didt=didt,
        progress=False,
    )
    tried = np.asarray(jax.vmap(objective)(jnp.asarray(1.2 * fields[1:])))
    assert best.value > tried.max() - 0.02
    difference = np.asarray(truth(fields) @ jnp.array([1.0, -1.0]))
    responses = truth(field(jnp.asarray(best.pose), didt=1e6))
    assert float(responses @ jnp.array([1.0, -1.0])) > 0.9 * difference.max()
    every = np.asarray(truth(fields))
    share = np.where(every[:, 0] >= every[:, 0].max() / 2, every[:, 0] / every.sum(1), 0)
    assert float(responses[0] / responses.sum()) > 0.95 * share.max()
    assert float(responses[0]) > every[:, 0].max() / 2
    assert best.pose[0, 3] < -5
