"""
A population
============

`jm.plot.lineage` draws who went on from whom, `jm.plot.hyperparameters` the settings along the way to the best weights.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxm2m as jm


@dataclass(frozen=True)
class Regression:
    hidden: int = 32

    @property
    def settings(self):
        return {"hidden": self.hidden}

    def init(self, key):
        first, second = jax.random.split(key)
        return {"w": jax.random.normal(first, (4, self.hidden)) / 2, "v": jax.random.normal(second, (self.hidden,)) / 6}

    def optimizer(self, hyper):
        return optax.adam(hyper["learning_rate"])

    def loss(self, params, hyper, batch, key, step):
        error = self.score(params, hyper, batch, key).mean()
        return error + hyper["l2"] * sum((a**2).sum() for a in jax.tree.leaves(params)), {"error": error}

    def score(self, params, hyper, batch, key):
        x, y = batch
        return (jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2


random = np.random.default_rng(0)
x = random.normal(size=(400, 4)).astype(np.float32)
y = np.sin(x.sum(1)).astype(np.float32)
run = jm.population.train(
    Regression(),
    jm.population.SearchSpace(
        learning_rate=jm.population.LogUniform(1e-4, 1e-1, perturb=0.5),
        l2=jm.population.LogUniform(1e-7, 1e-2, perturb=0.8),
    ),
    jm.population.Dataset.holdout((x[:200], y[:200]), (x[200:], y[200:])),
    key=jax.random.key(0),
    schedule=jm.population.PBT(epochs=5, generations=20),
    members=10,
    batch_size=50,
)
lineage = jm.plot.lineage(run, label="squared error")

# %%
# Each hyperparameter of the best weights is a schedule that nobody wrote down.

hyperparameters = jm.plot.hyperparameters(run)
