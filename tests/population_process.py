"""A small population, and a process of its own that trains it: what tests of kills and of several processes start.

python population_process.py DIRECTORY GENERATIONS RESULT.npz [PROCESS PROCESSES PORT]
"""

import os
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxm2m import population


@dataclass(frozen=True)
class Regression:
    """y = tanh(x W) v with dropout of the inputs, so that keys matter; Adam, so that there is a state to keep."""

    width: int = 4

    @property
    def settings(self):
        return {"width": self.width}

    def init(self, key):
        first, second = jax.random.split(key)
        return {
            "in/W": 0.5 * jax.random.normal(first, (3, self.width)),
            "out": jax.random.normal(second, (self.width,)),
        }

    def optimizer(self, hyper):
        return optax.adam(hyper["learning_rate"])

    def loss(self, params, hyper, batch, key, step):
        kept = jax.random.bernoulli(key, 1 - hyper["dropout"], batch["x"].shape)
        error = self._predicted(params, batch["x"] * kept) - batch["y"]
        penalty = 1e-3 * jnp.sum(params["out"] ** 2)
        return jnp.mean(error**2) + penalty, {"penalty": penalty}

    def score(self, params, hyper, batch, key):
        return (self._predicted(params, batch["x"]) - batch["y"]) ** 2

    def _predicted(self, params, x):
        return jnp.tanh(x @ params["in/W"]) @ params["out"]


def examples(count=32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * count, 3)).astype(np.float32)
    data = {"x": x, "y": np.sin(x.sum(axis=1)).astype(np.float32)}
    return population.Dataset.holdout(jax.tree.map(lambda a: a[:count], data), jax.tree.map(lambda a: a[count:], data))


SPACE = population.SearchSpace(learning_rate=population.LogUniform(1e-3, 1e-1), dropout=population.Uniform(0.0, 0.5))


def train(directory, generations, **changes):
    """The run that all tests compare with each other; `changes` replace arguments."""
    arguments = {
        "trainable": Regression(),
        "space": SPACE,
        "dataset": examples(),
        "key": jax.random.key(5),
        "schedule": population.PBT(epochs=2, generations=generations, patience=1000),
        "members": 8,
        "batch_size": 8,
        "chunk_size": 2,
        "progress": False,
    }
    arguments |= changes
    return population.train(
        arguments.pop("trainable"), arguments.pop("space"), arguments.pop("dataset"), directory=directory, **arguments
    )


def leaves(run):
    """All numbers of the members at the end, by name."""
    return {jax.tree_util.keystr(path): np.asarray(a) for path, a in jax.tree_util.tree_leaves_with_path(run.members)}


def environment(devices=1):
    """For a process of its own. Each compiles anew: jax 0.10.1 may hang on a program that it reads from its cache."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }


def main(directory, generations, result, process=None, processes=None, port=None):
    if process is not None:
        jax.distributed.initialize(f"localhost:{port}", int(processes), int(process), heartbeat_timeout_seconds=10)
    run = train(None if directory == "-" else directory, int(generations))
    np.savez(result, **leaves(run))
    run.history.to_json(result + ".json")


if __name__ == "__main__":
    main(*sys.argv[1:])
