"""
A climb
=======

`jm.plot.ascent` draws an objective over the steps of a search, and how far the coil has moved. Here the coil goes
straight from a place that is 20 mm off to the place over the target.
"""

import jax.numpy as jnp
import numpy as np

import jaxm2m as jm

head = jm.head.sphere(radii=(70, 78, 80, 86, 92), spacing=6.0)
target = np.array([-35.0, -15.0, 63.0])
coil = jm.coil.figure8()
at_target = jm.efield.Simulator(head).bind(coil, jm.efield.Points(target[None]))
poses = jnp.stack(
    [
        jm.coil.place(head.scalp, target + (1 - step) * np.array([-10, 17, 0]), handle=(-1, -1 + 0.7 * step, 0))
        for step in np.linspace(0, 1, 9) ** 0.7
    ]
)
values = [float(jnp.linalg.norm(at_target(pose, didt=1e6))) for pose in poses]
figure = jm.plot.ascent(poses, values, label="|E| in the target (V/m)")
