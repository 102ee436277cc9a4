"""
Quality of a recording
======================

`jm.plot.quality` draws what `jm.emg.quality` measured of each channel, coloured where it is over its threshold, and
where in time something is wrong: here a channel at its rail, one already rectified, one of mains only, one that is not
connected, half a second without any signal, and an artefact.
"""

import numpy as np

import jaxm2m as jm

random = np.random.default_rng(0)
time = np.arange(20_000) / 2000  # s
bursts = 0.1 + np.sin(2 * np.pi * (0.7 * time[:, None] + np.arange(8) / 8)).clip(0) ** 2
emg = 100 * bursts * random.normal(size=bursts.shape)  # uV
emg[:, 1] = emg[:, 1].clip(-60, 60)
emg[:, 3] = abs(emg[:, 3])
emg[:, 4] = 80 * np.sin(2 * np.pi * 50 * time) + random.normal(size=len(time))
emg[:, 6] *= 1e-6
emg[9000:10_000] = 0
emg[15_000, 7] = 4000
names = ("TA", "GM", "SOL", "VL", "RF", "BF", "ST", "GLU")
checked = jm.emg.quality(jm.session.load_emg(emg, 2000, channels=names, unit="uV"))
print(checked.table())
figure = jm.plot.quality(checked)
