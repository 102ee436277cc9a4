"""From raw EMG to muscle activation."""

from jaxm2m.emg._activation import Activation
from jaxm2m.emg._align import Alignment, Trajectories, align, trajectories
from jaxm2m.emg._artefacts import Screening, screen
from jaxm2m.emg._bayes import bayes, bayes_grid
from jaxm2m.emg._context import context, context_pca, smooth
from jaxm2m.emg._decode import Choice, Decoder, Decoding, choose, decode, fit_decoder
from jaxm2m.emg._events import Gait, around, derivative, force_onset, gait
from jaxm2m.emg._fit import Fit, fit, load
from jaxm2m.emg._generalise import generalise, learning_curve
from jaxm2m.emg._line_noise import remove_line
from jaxm2m.emg._lowpass import CUTOFFS, lowpass
from jaxm2m.emg._model import Sizes
from jaxm2m.emg._observation import Gamma, Gaussian, Poisson
from jaxm2m.emg._paired_tests import signed_rank, ttest
from jaxm2m.emg._posterior import Posterior, posterior, posterior_means
from jaxm2m.emg._preprocess import preprocess
from jaxm2m.emg._presets import PRESETS, Preset
from jaxm2m.emg._rectified import Preprocessing, Rectified
from jaxm2m.emg._spectra import Coherence, Response, coherence, frequency_response, multitaper
from jaxm2m.emg._steps import clip, highpass, normalise, notch, rectify, resample
from jaxm2m.emg._trainable import SequentialVAE
from jaxm2m.emg._windows import Windows, chop, merge

__all__ = [
    "CUTOFFS",
    "PRESETS",
    "Activation",
    "Alignment",
    "Choice",
    "Coherence",
    "Decoder",
    "Decoding",
    "Fit",
    "Gait",
    "Gamma",
    "Gaussian",
    "Poisson",
    "Posterior",
    "Preprocessing",
    "Preset",
    "Rectified",
    "Response",
    "Screening",
    "SequentialVAE",
    "Sizes",
    "Trajectories",
    "Windows",
    "align",
    "around",
    "bayes",
    "bayes_grid",
    "choose",
    "chop",
    "clip",
    "coherence",
    "context",
    "context_pca",
    "decode",
    "derivative",
    "fit",
    "fit_decoder",
    "force_onset",
    "frequency_response",
    "gait",
    "generalise",
    "highpass",
    "learning_curve",
    "load",
    "lowpass",
    "merge",
    "multitaper",
    "normalise",
    "notch",
    "posterior",
    "posterior_means",
    "preprocess",
    "rectify",
    "remove_line",
    "resample",
    "screen",
    "signed_rank",
    "smooth",
    "trajectories",
    "ttest",
]
