"""
Predicted over measured MEPs
============================

`jm.plot.predictions` draws a dot a stimulus. Here the generator's own means are the predictions: no model can do
better, since MEPs scatter from pulse to pulse.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxm2m as jm

muscles = ("FDI", "ADM", "FCR", "BRD")
random = np.random.default_rng(0)
drive = random.uniform(0.6, 1.8, (150, len(muscles)))  # 1: motor threshold
measured = np.asarray(jm.simulate.mep(jax.random.key(0), jnp.asarray(drive)))
mean = np.asarray(jm.simulate.expected_mep(jnp.asarray(drive)))
figure = jm.plot.predictions(measured, mean, muscles=muscles)
