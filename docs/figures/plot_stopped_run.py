"""
A run that was stopped
======================

A run with a directory goes on where it was, and ends with the numbers of one that was never stopped. This is
`jm.population.train`; `jm.emg.fit` and `jm.muscle.fit` do the same.
"""

import tempfile
from dataclasses import dataclass

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import jaxm2m as jm


@dataclass(frozen=True)
class Line:
    settings = {}  # noqa: RUF012  (what makes it this model: nothing)

    def init(self, key):
        return jax.random.normal(key, (4,))

    def optimizer(self, hyper):
        return optax.adam(hyper["learning_rate"])

    def loss(self, params, hyper, batch, key, step):
        error = self.score(params, hyper, batch, key).mean()
        return error, {"error": error}

    def score(self, params, hyper, batch, key):
        x, y = batch
        return (x @ params - y) ** 2


random = np.random.default_rng(0)
x = random.normal(size=(400, 4)).astype(np.float32)
y = (x @ np.array([1, -2, 3, 0.5]) + 0.1 * random.normal(size=400)).astype(np.float32)
settings = {
    "dataset": jm.population.Dataset.holdout((x[:200], y[:200]), (x[200:], y[200:])),
    "key": jax.random.key(0),
    "members": 6,
    "batch_size": 50,
}
space = jm.population.SearchSpace(learning_rate=jm.population.LogUniform(1e-3, 1e-1, perturb=0.5))


def train(generations, **options):
    schedule = jm.population.PBT(epochs=1, generations=generations, patience=100)
    return jm.population.train(Line(), space, schedule=schedule, **settings, **options)


with tempfile.TemporaryDirectory() as folder:
    stopped = train(12, directory=folder)
    continued = train(30, directory=folder)
never = train(30)

figure = Figure(figsize=(6.4, 3.2), layout="constrained")
ax = figure.subplots()
for run, label, style in (
    (never, "never stopped", {"color": "#b5b5b5", "linewidth": 5}),
    (continued, "stopped, then continued", {"color": "#2456a6", "linewidth": 1.6}),
):
    ax.semilogy(np.nanmin(run.scores(), axis=1), label=label, **style)
ax.plot(11, np.nanmin(stopped.scores(), axis=1)[-1], "o", color="#c0392b", label="stopped here")
ax.set(xlabel="generation", ylabel="squared error of the best member")
ax.legend(frameon=False)
