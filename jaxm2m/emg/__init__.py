"""From raw EMG to muscle activation."""

from jaxm2m.emg._activation import Activation
from jaxm2m.emg._artefacts import Screening, screen
from jaxm2m.emg._bayes import bayes, bayes_grid
from jaxm2m.emg._fit import PRESETS, Fit, Preset, fit, load
from jaxm2m.emg._line_noise import remove_line
from jaxm2m.emg._lowpass import lowpass
from jaxm2m.emg._model import Sizes
from jaxm2m.emg._observation import Gamma, Gaussian, Poisson
from jaxm2m.emg._posterior import Posterior, posterior, posterior_means
from jaxm2m.emg._preprocess import preprocess
from jaxm2m.emg._rectified import Preprocessing, Rectified
from jaxm2m.emg._steps import clip, highpass, normalise, notch, rectify, resample
from jaxm2m.emg._trainable import SequentialVAE
from jaxm2m.emg._windows import Windows, chop, merge

__all__ = [
    "PRESETS",
    "Activation",
    "Fit",
    "Gamma",
    "Gaussian",
    "Poisson",
    "Posterior",
    "Preprocessing",
    "Preset",
    "Rectified",
    "Screening",
    "SequentialVAE",
    "Sizes",
    "Windows",
    "bayes",
    "bayes_grid",
    "chop",
    "clip",
    "fit",
    "highpass",
    "load",
    "lowpass",
    "merge",
    "normalise",
    "notch",
    "posterior",
    "posterior_means",
    "preprocess",
    "rectify",
    "remove_line",
    "resample",
    "screen",
]
