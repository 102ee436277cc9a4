"""
What conductivities change
==========================

How much of a field a standard deviation of each tissue's conductivity changes, with its sign, at one point of the
cortex: `jm.efield.first_order_uncertainty`.
"""

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxm2m as jm

head = jm.head.atlas(spacing=6.0)
target = (-40, -20, 52)
coil = jm.coil.figure8()
pose = jm.coil.place(head.scalp, target=target, handle=(-1, -1, 0), distance=4.0)
roi = jm.efield.Points(jnp.array([target], float))
spread = jm.efield.first_order_uncertainty(jm.efield.Simulator(head), coil, pose, roi, didt=1e6)

figure = Figure(figsize=(6.4, 2.8), layout="constrained")
ax = figure.subplots()
change = np.asarray(spread.by_tissue).reshape(len(head.tissues), -1)[:, 0]
ax.barh(head.tissues, change, color=["#c0392b" if c < 0 else "#2456a6" for c in change])
ax.axvline(0, color="0.2", linewidth=0.8)
ax.set(xlabel="change of |E| for one standard deviation of the conductivity (V/m)")
ax.set_title(f"|E| is {float(np.ravel(spread.magnitude)[0]):.2f} V/m", fontsize=10, loc="left")
