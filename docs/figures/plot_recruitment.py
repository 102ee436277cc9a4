"""
Recruitment curves
==================

`jm.plot.recruitment` draws measured MEPs over the intensity, the fitted curve, and its threshold (open dot).
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxm2m as jm

intensity = np.repeat(np.linspace(80, 150, 15), 4)  # % of the motor threshold of the average muscle
thresholds = np.array([0.9, 1.0, 1.1, 1.2])
meps = jm.simulate.mep(jax.random.key(5), jnp.asarray(intensity[:, None] / 100 / thresholds))  # uV
curves = jm.muscle.recruitment(intensity, np.asarray(meps), log=True, muscles=("FDI", "ADM", "FCR", "BRD"))
figure = jm.plot.recruitment(curves, label="intensity (% of threshold)")
