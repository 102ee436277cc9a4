"""A coil over a small head with a field that costs nothing, for tests of what shows it."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from cheap_map import CORE, CORTEX, HEAD, TARGET, Bump, cheap_map

import jaxm2m as jm
from jaxm2m._pytree import StaticMetadata, tree

ACROSS = np.array([1.0, 0.0, 0.0])
MUSCLES = ("FDI", "ADM", "APB")


@tree
class Covering(Bump):
    """Fields that are known within 40 mm of the target only, with an estimate of their error."""

    def fields(self, coil, poses, didt, batch_size):
        e, _ = Bump.fields(self, coil, poses, didt, batch_size)
        away = jnp.sqrt(((poses[:, :3, 3] - jnp.asarray(TARGET, e.dtype)) ** 2).sum(-1))
        error = 1e-3 * away
        return e * jnp.where(away < 40, 1, jnp.nan)[:, None, None], error

    def pick(self, active):
        return Covering(self.points[active])

    def raise_for_status(self, report):
        """Refuse nothing."""


@tree
class Strengths:
    """Muscles that answer to the mean of |E|, by three members."""

    largest: object
    strongest: object
    metadata: StaticMetadata

    @property
    def muscles(self):
        return MUSCLES

    def predict_members(self, e, *, didt=None):
        drive = jnp.sqrt((e * e).sum(-1)).mean(-1)
        return drive * jnp.asarray([0.8, 1.0, 1.2])[:, None] * jnp.asarray([1.0, 0.5, 0.25])


def make_head():
    return jm.head.sphere((CORE, CORTEX, 80, 86, HEAD), 8.0)


def make_map():
    cheap = cheap_map()
    return replace(cheap, solver=Covering(cheap.solver.points))


def make_coil():
    return jm.coil.figure8(sides=12, layers=1, turns=3)


def make_model():
    return Strengths(jnp.asarray([1000.0, 800.0, 600.0]), jnp.ones(3), StaticMetadata())


def make_session(head, coil, n=6):
    """Stimuli along a line, the last without dI/dt; MEPs that count them."""
    poses = np.stack(
        [np.asarray(jm.coil.place(head.scalp, TARGET + 3.0 * i * ACROSS, distance=6.0), np.float64) for i in range(n)]
    )
    didt = np.append(1e6 * np.arange(1, n), np.nan)
    return jm.session.Session(
        poses=poses, space=head.space, source_space="", names=tuple(map(str, range(n))), kind=("sample",) * n,
        target=("",) * n, time=np.arange(float(n)), intensity=np.full(n, np.nan), didt=didt, channels=("ADM", "FDI"),
        meps=np.stack([100.0 + np.arange(n), 200.0 + np.arange(n)], 1), mep_latency=np.full((n, 2), np.nan),
        emg=np.zeros((n, 2, 0)),
    )  # fmt: skip


@dataclass
class OneStimulus:
    """A loop that proposes one pose."""

    pose: np.ndarray
    didt: float = 2e6
    done: bool = False
    reason: str = ""

    def __len__(self):
        return 4

    def next(self):
        return self.pose, self.didt
