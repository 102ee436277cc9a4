"""Small models with known answers, which several tests of populations train."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxm2m.population import Dataset, LogUniform, SearchSpace, Uniform

NOTHING = Dataset.holdout(np.zeros((1, 1), np.float32))


@dataclass(frozen=True)
class Surrogate:
    """Jaderberg et al. 2017, figure 2: maximise 1.2 - w0^2 - w1^2 by the gradient of 1.2 - h0 w0^2 - h1 w1^2."""

    settings = {"begins": 0.9}  # noqa: RUF012

    def init(self, key):
        return jnp.full(2, 0.9)

    def optimizer(self, hyper):
        return optax.sgd(0.01)

    def loss(self, params, hyper, batch, key, step):
        return hyper["h0"] * params[0] ** 2 + hyper["h1"] * params[1] ** 2 - 1.2, {}

    def score(self, params, hyper, batch, key):
        return jnp.broadcast_to(jnp.sum(params**2) - 1.2, batch.shape[:1])


@dataclass(frozen=True)
class Tracking:
    """Follow a target that moves on by `drift` a step, by gradients with noise of variance one.

    In the frame of the target w <- w - rate (w + noise) + drift, so that in the long run the mean of w^2 is
    (drift / rate)^2 + rate / (2 - rate): a high rate follows the noise, a low one lags behind.
    """

    drift: float
    size: int = 512

    @property
    def settings(self):
        return {"drift": self.drift, "size": self.size}

    def error(self, rate):
        """Mean of w^2 in the long run."""
        return (self.drift / rate) ** 2 + rate / (2 - rate)

    def init(self, key):
        return jnp.ones(self.size)

    def optimizer(self, hyper):
        moved = optax.stateless(lambda updates, _: jax.tree.map(lambda u: u + self.drift, updates))
        return optax.chain(optax.sgd(hyper["rate"]), moved)

    def loss(self, params, hyper, batch, key, step):
        return jnp.sum(params**2 / 2 + params * jax.random.normal(key, params.shape)), {}

    def score(self, params, hyper, batch, key):
        return jnp.broadcast_to(jnp.mean(params**2), batch.shape[:1])


@dataclass(frozen=True)
class Diary:
    """Its weights (step, row) are 1 where the row was in the batch of the step; the score is the mean value of rows."""

    steps: int
    rows: int

    @property
    def settings(self):
        return {"steps": self.steps, "rows": self.rows}

    def init(self, key):
        return {"diary": jnp.zeros((self.steps, self.rows))}

    def optimizer(self, hyper):
        return optax.sgd(1.0)

    def loss(self, params, hyper, batch, key, step):
        return -params["diary"][step][batch["row"]].sum(), {"clock": step, "first": step == 0}

    def score(self, params, hyper, batch, key):
        return batch["value"]


@dataclass(frozen=True)
class Line:
    """y = x w with some inputs dropped, so that keys matter; Adam, so that there is a state to keep."""

    size: int = 3

    @property
    def settings(self):
        return {"size": self.size}

    def init(self, key):
        return {"w": jax.random.uniform(key, (self.size,)), "offset": {"c": jnp.zeros(())}}

    def optimizer(self, hyper):
        return optax.adam(hyper["rate"])

    def loss(self, params, hyper, batch, key, step):
        kept = jax.random.uniform(key, batch["x"].shape) >= hyper["dropout"]
        penalty = 1e-3 * jnp.sum(params["w"] ** 2)
        return jnp.mean(self._error(params, batch["x"] * kept, batch["y"]) ** 2) + penalty, {"penalty": penalty}

    def score(self, params, hyper, batch, key):
        return self._error(params, batch["x"], batch["y"]) ** 2

    def _error(self, params, x, y):
        return x @ params["w"] + params["offset"]["c"] - y


def points(count=32):
    """For `Line`, as many to train on as to validate on."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * count, 3)).astype(np.float32)
    data = {"x": x, "y": np.sin(x.sum(axis=1)).astype(np.float32)}
    return Dataset.holdout(jax.tree.map(lambda a: a[:count], data), jax.tree.map(lambda a: a[count:], data))


SPACE = SearchSpace(rate=LogUniform(1e-3, 1e-1), dropout=Uniform(0, 0.5))


def leaves(run):
    """All numbers of the members at the end, by name."""
    return {jax.tree_util.keystr(path): np.asarray(a) for path, a in jax.tree_util.tree_leaves_with_path(run.members)}
