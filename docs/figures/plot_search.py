"""
A search from several starts
============================

`jm.plot.search` draws the paths of all starts over the scalp, and the objective over their evaluations. Each value is a
full solve here, on coarse voxels; through a basis it takes a millisecond.
"""

import jax
import numpy as np

import jaxm2m as jm

head = jm.head.atlas(spacing=6.0)
target = np.array([-40.0, -20.0, 52.0])  # mm, MNI152
coil = jm.coil.figure8()
at_target = jm.efield.Simulator(head).bind(coil, jm.efield.Points(target[None]))
best = jm.placement.optimize(
    at_target,
    jm.placement.magnitude(),
    coil=coil,
    scalp=head.scalp,
    target=target,
    n_starts=3,
    key=jax.random.key(0),
    evaluations=12,
)
figure = jm.plot.search(best, head, target, coil=coil, label="|E| in the target (V/m)")
