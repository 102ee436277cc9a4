"""
Motor maps
==========

`jm.plot.motor_map` draws the mean MEP of each muscle over the plane of the stimulated sites, with its centre of gravity
(cross) and its hotspot (ring).
"""

import numpy as np

import jaxm2m as jm

random = np.random.default_rng(0)
sites = np.stack(np.meshgrid(np.arange(-25, 26, 7.0), np.arange(-25, 26, 7.0)), -1).reshape(-1, 2)  # mm
sites = np.repeat(sites, 3, axis=0)
muscles = ("FDI", "ADM", "FCR", "BRD")
centres = np.array([[6.0, -8.0], [9.0, -2.0], [-2.0, 4.0], [-9.0, 8.0]])
distance = np.linalg.norm(sites[:, None] - centres, axis=-1)
meps = 1500 * np.exp(-((distance / 11) ** 2)) * np.exp(0.4 * random.normal(size=distance.shape))  # uV
figure = jm.plot.motor_map(jm.muscle.motor_map(sites, meps, muscles=muscles))
