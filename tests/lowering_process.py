"""A process that runs the main programs once, small, and lowers each of them for other devices before it computes.

    python lowering_process.py LINE

`jax.jit` is watched before the package is imported, so that whatever a line of calls compiles is lowered too, and not
only what somebody listed. It prints the names of the programs, and raises where one cannot be lowered.
"""

import sys
import tempfile

import jax

PLATFORMS = ("cuda", "tpu")
real = jax.jit
seen = {}


class Watched:
    """A jitted function that lowers itself for `PLATFORMS` when it is called with something new, and not in a trace."""

    def __init__(self, function, options):
        self.jitted, self.name, self.known = real(function, **options), getattr(function, "__qualname__", "?"), set()
        self.__wrapped__ = function

    def __call__(self, *args, **kwargs):
        leaves, structure = jax.tree.flatten((args, kwargs))
        if not any(isinstance(x, jax.core.Tracer) for x in leaves):
            sort = str(structure), tuple(str(jax.typeof(x)) if hasattr(x, "dtype") else str(x) for x in leaves)
            if sort not in self.known:
                self.known.add(sort)
                traced = self.jitted.trace(*args, **kwargs)
                for platform in PLATFORMS:
                    traced.lower(lowering_platforms=(platform,))
                seen[self.name] = seen.get(self.name, 0) + 1
        return self.jitted(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.jitted, name)


def watch(function=None, **options):
    if function is None:
        return lambda function: Watched(function, options)
    return Watched(function, options)


jax.jit = watch

import jax.numpy as jnp  # noqa: E402  (after what watches)
import numpy as np  # noqa: E402

import jaxm2m as jm  # noqa: E402
from jaxm2m.population import _chunking, _train  # noqa: E402

# without measuring what is fastest, which would compile more programs
_train.plan_chunks = lambda *_: _chunking.Plan(1, {}, {})

KEY = jax.random.key(0)
TARGET = np.array([-40.0, -20.0, 52.0])


def head_and_coil():
    """A ball, and a coil of few wires over it."""
    wire = jm.coil.tabulate(jm.coil.figure8(sides=8, layers=1, turns=1), spacing=20.0)
    ball = jm.head.sphere(spacing=12.0)
    return ball, wire, jm.coil.place(ball.scalp, TARGET, (-1, -1, 0), 8.0)


def differentiate(at_roi, pose):
    """Value and gradient in the pose."""
    return jax.jit(jax.value_and_grad(lambda t: (at_roi(jm.coil.move(pose, t)) ** 2).sum()))(jnp.zeros(6))


def voxels():
    ball, wire, pose = head_and_coil()
    sim = jm.efield.Simulator(ball)
    grid = jm.efield.Grid.around(TARGET, (4, 4, 4), 4.0)
    differentiate(sim.bind(wire, grid), pose)
    with tempfile.TemporaryDirectory() as folder:
        jm.efield.compute_fields(sim, wire, np.stack([pose] * 3), f"{folder}/fields.h5", roi=grid)


def tetrahedra():
    ball, wire, pose = head_and_coil()
    sim = jm.efield.Simulator(jm.head.tetrahedralise(ball))
    differentiate(sim.bind(wire, jm.efield.Points(0.5 * TARGET[None])), pose)


def basis():
    ball, wire, pose = head_and_coil()
    sim = jm.efield.Simulator(ball)
    made = jm.efield.Basis.build(sim, jm.efield.Grid.around(TARGET, (4, 4, 4), 4.0), modes=12, rank=8)
    at_roi = made.bind(wire, limit=1e9)
    differentiate(at_roi, pose)
    jm.placement.optimize(
        at_roi, jm.placement.magnitude(), coil=wire, scalp=ball.scalp, target=TARGET, n_starts=2, evaluations=3, key=KEY
    )


def emg():
    data = np.random.default_rng(0).gamma(2.0, 1.0, (12, 70, 3))
    rectified = jm.emg.preprocess(
        data, 500.0, channels=("a", "b", "c"), rectified=True, screen=None, clip=None, to=500.0
    )
    config = jm.emg.LFADSConfig(3, generator=8, controller=6, ci_encoder=5, ic_encoder=6, ic_dim=3, co_dim=1, fac_dim=3)
    schedule = jm.population.PBT(epochs=1, generations=2)
    fit = jm.emg.fit(
        rectified, config=config, preset="small", batch_size=8, length=0.06, overlap=0.02, population=2,
        schedule=schedule, key=KEY,
    )  # fmt: skip
    fit.activation(rectified, key=KEY, samples=2)


def muscles():
    from cheap_map import TARGET, cheap_map

    at_roi = cheap_map((12, 12, 12), 4.0)
    rate = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
    muscles = ("FDI", "ADM")
    made = jm.simulate.mapping_session(
        at_roi, key=KEY, rate=rate, target=TARGET, stimuli=30, muscles=muscles, synergies=1
    )
    grid = jm.efield.Grid.around(TARGET, (12, 12, 12), 4.0)
    fields = np.asarray(at_roi(made.poses, didt=1e6) * made.didt[:, None, None] / 1e6)
    tiny = jm.muscle.NetworkPreset(
        jm.muscle.NetworkConfig(shape=(12, 12, 12), filters=(2,), pools=1, kernel=1, pool="mean", hidden=(8,)),
        spacing=4.0,
        autoencoder=jm.muscle.TrainingConfig("adagrad", learning_rate=3e-2, batch_size=9, epochs=2),
        mapper=jm.muscle.TrainingConfig("adam", learning_rate=1e-2, batch_size=9, epochs=2),
    )
    jm.muscle.fit(fields, np.asarray(made.meps), grid=grid, rate=rate, muscles=made.muscles, preset=tiny, key=KEY)
    jm.muscle.fit_sources(
        fields, np.asarray(made.meps), grid=grid, grey=at_roi, rate=rate, muscles=made.muscles, n_draw=8, key=KEY
    )
    loop = jm.design.Loop(
        at_roi, coil=at_roi.coil, scalp=at_roi.scalp, target=TARGET, muscles=made.muscles, rate=rate, didt=7e7,
        n_stimulus=11, key=KEY,
    )  # fmt: skip
    for _ in range(2):
        pose, didt = loop.next()
        loop.record(pose, didt, [200.0, 50.0])


if __name__ == "__main__":
    {line.__name__: line for line in (voxels, tetrahedra, basis, emg, muscles)}[sys.argv[1]]()
    print(*sorted(seen))
