"""
Two coils
=========

The electric field that a coil drives in empty space, minus dA/dt, 10 mm under its casing. A figure-8 coil is strongest
under its middle, a circular one under its ring.
"""

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxm2m as jm

axis = np.linspace(-100, 100, 81)  # mm
x, y = np.meshgrid(axis, axis)
points = jnp.asarray(np.stack([x, y, np.full_like(x, 10.0)], -1).reshape(-1, 3))
pose = jnp.eye(4)  # in the coil's own frame

figure = Figure(figsize=(8.6, 3.8), layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
for ax, coil, name in zip(axes, (jm.coil.figure8(), jm.coil.circular()), ("figure-8", "circular"), strict=True):
    dadt = jm.coil.vector_potential(coil, pose, points, didt=1e6)
    size = np.linalg.norm(np.asarray(dadt), axis=-1).reshape(x.shape)
    shown = ax.imshow(size, origin="lower", extent=(-100, 100, -100, 100), cmap="magma_r", vmin=0)
    figure.colorbar(shown, ax=ax, label="|dA/dt| (V/m), 1 A/µs", shrink=0.85)
    ax.set(title=name, xlabel="x (mm)")
axes[0].set_ylabel("y, away from the handle (mm)")
