"""What a careful user switches on in JAX stops none of the package's own work."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import optax
import pytest

from jaxm2m import coil, efield, head, placement, population

pytestmark = pytest.mark.float32


@dataclass(frozen=True)
class Mean:
    """One weight that is drawn to the mean of the data."""

    settings: ClassVar[dict] = {}

    def init(self, key):
        return jax.numpy.zeros(())

    def optimizer(self, hyper):
        return optax.sgd(hyper["learning_rate"])

    def loss(self, params, hyper, batch, key, step):
        return ((batch - params) ** 2).mean(), {}

    def score(self, params, hyper, batch, key):
        return (batch - params) ** 2


@pytest.fixture(params=["debug_nans", "rank_promotion"])
def strict(request):
    with jax.debug_nans(True) if request.param == "debug_nans" else jax.numpy_rank_promotion("raise"):
        yield


def test_populations_train(strict):
    space = population.SearchSpace(learning_rate=population.LogUniform(0.05, 0.5))
    data = population.Dataset.holdout(np.full(8, 3.0, np.float32))
    schedule = population.PBT(epochs=2, generations=4)
    run = population.train(Mean(), space, data, key=jax.random.key(0), schedule=schedule, members=4)
    assert np.abs(np.asarray(run.members.params) - 3).max() < 1


@pytest.mark.slow
def test_fields_and_placement(strict):
    ball, wire = head.sphere(spacing=12.0), coil.tabulate(coil.figure8(sides=8, layers=1, turns=1), spacing=20.0)
    target = np.array([0.0, 0, 70])
    pose = coil.place(ball.scalp, target)
    field = efield.Simulator(ball).bind(wire, efield.Points(target[None]))
    assert np.isfinite(np.asarray(field(pose, didt=1e6))).all()
    found = placement.optimize(
        field,
        placement.magnitude(),
        coil=wire,
        scalp=ball.scalp,
        target=target,
        n_starts=2,
        evaluations=2,
        key=jax.random.key(0),
    )
    assert found.value > 0
