"""
Muscle activation
=================

`jm.plot.activation` draws inferred activation over the rectified recording, beside filters and, where it is known, the
truth. So that this picture takes no training, a Gaussian filter stands in for the sequential autoencoder of
`jm.emg.fit`; for that see :doc:`/notebooks/04_emg`.
"""

import jax
import numpy as np

import jaxm2m as jm

gait = jm.simulate.gait_emg(jax.random.key(0), trials=2, duration=2.0)
emg = jm.emg.preprocess(np.asarray(gait.emg), float(gait.sfreq), channels=gait.channels, rectified=True)
truth = np.asarray(gait.mean) / np.asarray(emg.preprocessing["normalise"]["scale"])
trials = emg.by_trial()
estimate = [np.asarray(jm.emg.smooth(trial, emg.sfreq, 0.03)) for trial in trials]
edges = np.cumsum([0, *map(len, estimate)])
samples = np.concatenate(estimate)
inferred = jm.emg.Activation(
    samples, samples[:, :1], samples[:, :1], emg.sfreq, emg.channels, np.stack([edges[:-1], edges[1:]], -1)
)
low = [jm.emg.lowpass(trial, emg.sfreq, 40.0) for trial in trials]
figure = jm.plot.activation(inferred, emg, truth=truth, filters={"low-pass 40 Hz": low}, channels=emg.channels[:4])
