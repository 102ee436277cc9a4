"""
Sources of muscles
==================

`jm.plot.sources` draws the densities over cortex that muscles are driven from, with their hot spots and how sure they
are, `jm.plot.source_recruitment` the curves. The session is made up: two folds of cortex, a field that falls off with
the distance from the coil, four muscles with a place each.
"""

import jax
import numpy as np

import jaxm2m as jm

random = np.random.default_rng(0)
grid = jm.efield.Grid.around((-40.0, -20.0, 50.0), shape=(14, 14, 10), spacing=3.0)
x, y, z = grid.positions().T
grey = np.abs(z - 52 - 7 * np.cos((y + 20) / 4.5)) < 3

sites = (-40.0, -20.0) + 12 * random.normal(size=(60, 2))  # mm, of the coil
away = (x - sites[:, :1]) ** 2 + (y - sites[:, 1:]) ** 2
size = 130 * np.exp(-away / (2 * 14.0**2)) * np.exp((z - 60) / 40)  # V/m
turn = random.normal(0.8, 0.15, (60, 1))  # radians, of the handle
fields = np.stack([size * np.cos(turn), size * np.sin(turn), 0 * size], -1)

muscles = ("FDI", "ADM", "FCR", "BRD")
places = np.array([[-36.0, -22.0, 54.0], [-40.0, -24.0, 54.0], [-44.0, -16.0, 54.0], [-34.0, -10.0, 54.0]])
patches = np.exp(-((grid.positions()[grey] - places[:, None]) ** 2).sum(-1) / (2 * 4.0**2))
drive = size[:, grey] @ (patches / patches.sum(1, keepdims=True)).T
meps = jm.simulate.mep(jax.random.key(0), 0.75 + 0.55 * drive / np.percentile(drive, 98, axis=0))  # uV

sources = jm.muscle.fit_sources(fields, meps, grid=grid, grey=grey, muscles=muscles, key=jax.random.key(1))
figure = jm.plot.sources(sources, ("FDI", "ADM", "BRD"))

# %%
# Dots are single MEPs, bands 90 % of the posterior of their mean.

curves = jm.plot.source_recruitment(sources, drive=sources.drive(fields), meps=meps)
