"""The compilation cache on disk changes no number: with it, without it, filled or empty, results are the same bits."""

import hashlib
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.host

PROGRAM = """
import hashlib
import jax, jax.numpy as jnp, numpy as np
import jaxm2m as jm
head = jm.head.sphere(spacing=12.0)
sim = jm.efield.Simulator(head)
coil = jm.coil.figure8()
pose = jm.coil.place(head.scalp, target=(-40, -20, 52), handle=(-1, -1, 0), distance=8.0)
at = sim.bind(jm.coil.tabulate(coil), jm.efield.Points(np.array([[-30.0, -15, 40], [10, 20, 50]])))
e, gradient = jax.value_and_grad(lambda t: (at(jm.coil.move(pose, t)) ** 2).sum())(jnp.zeros(6))
config = jm.emg.LFADSConfig(3, generator=8, controller=6, ci_encoder=5, ic_encoder=6, ic_dim=3, co_dim=1, fac_dim=3)
model = jm.emg.SequentialVAE(config)
params = model.init(jax.random.key(0))
leaves = [np.asarray(x) for x in (e, gradient, *jax.tree.leaves(params))]
print(hashlib.sha256(b"".join(x.tobytes() for x in leaves)).hexdigest())
"""


def run(**variables):
    """The fingerprint of PROGRAM's numbers."""
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    environment = {k: v for k, v in os.environ.items() if k not in names} | variables
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    fingerprint = done.stdout.split()[-1]
    assert len(fingerprint) == len(hashlib.sha256(b"").hexdigest())
    return fingerprint


@pytest.mark.slow
def test_results_are_equal_to_the_bit(tmp_path):
    without = run(JAX_ENABLE_COMPILATION_CACHE="0")
    filling = run(JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert len(kept) > 20
    filled = run(JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    # what is looked up is found: nothing is compiled a second time
    assert {p.name for p in tmp_path.iterdir() if p.name.endswith("-cache")} == {
        name for name in kept if name.endswith("-cache")
    }
    assert without == filling == filled
