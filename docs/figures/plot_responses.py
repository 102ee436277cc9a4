"""
Responses of all muscles at one pose
====================================

`jm.plot.responses` draws a bar a muscle: here what a strong stimulus near FDI makes, and one stimulus' MEPs as dots.
`jaxm2m place --muscle` leaves such a figure of the coil that it found.
"""

import jax
import numpy as np

import jaxm2m as jm

muscles = ("FDI", "ADM", "FCR", "ECR", "BRD")
strength = np.array([1.35, 1.05, 1.1, 0.9, 0.85])  # of each muscle's threshold
figure = jm.plot.responses(
    np.asarray(jm.simulate.expected_mep(strength)),
    muscles=muscles,
    wanted=("FDI",),
    spared=("ADM",),
    marks=np.asarray(jm.simulate.mep(jax.random.key(0), strength)),
    label="one stimulus",
)
