"""
Synergies
=========

`jm.plot.synergies` draws the share of each muscle in each synergy, and beside it the synergy's activation in each cycle
(thin) and its mean over the cycles.
"""

import numpy as np

import jaxm2m as jm

random = np.random.default_rng(0)
muscles = ("TA", "SOL", "GM", "RF", "VL", "BF", "ST", "GMax")
shares = np.zeros((4, 8))
shares[0, [0, 3, 6]] = 4, 2, 1
shares[1, [1, 2]] = 4, 3
shares[2, [3, 4, 7]] = 2, 4, 3
shares[3, [0, 5, 6]] = 1, 4, 3
cycles = []
for length in random.integers(90, 130, 12):  # strides of different durations, 100 Hz
    share = np.linspace(0, 1, length)[:, None]
    bursts = np.exp(-(((share - [0.08, 0.42, 0.2, 0.9]) / [0.06, 0.1, 0.09, 0.06]) ** 2))
    cycles.append(bursts * random.uniform(0.7, 1.3, 4) @ shares + 0.1 * random.random((length, 8)))
recording = jm.session.load_emg(cycles, 100.0, channels=muscles)
strides = jm.muscle.normalise_cycles(recording)
figure = jm.plot.synergies(jm.muscle.synergies(strides, 4), strides)
