"""From raw EMG to muscle activation."""

from jaxm2m.emg.analysis._align import Alignment, Trajectories, align, trajectories
from jaxm2m.emg.analysis._bayes import bayes, bayes_grid
from jaxm2m.emg.analysis._context import context, context_pca, smooth
from jaxm2m.emg.analysis._decode import (
    Decoder,
    Decoding,
    ModelSelection,
    cross_validate_decoder,
    fit_decoder,
    select_by_decoding,
)
from jaxm2m.emg.analysis._events import Gait, around, derivative, force_onset, gait
from jaxm2m.emg.analysis._generalise import generalise, learning_curve
from jaxm2m.emg.analysis._lowpass import CUTOFFS, lowpass
from jaxm2m.emg.analysis._paired_tests import signed_rank, ttest
from jaxm2m.emg.analysis._spectra import Coherence, FrequencyResponse, coherence, frequency_response, multitaper
from jaxm2m.emg.lfads._activation import Activation
from jaxm2m.emg.lfads._fit import Fit, fit, load
from jaxm2m.emg.lfads._model import LFADSConfig
from jaxm2m.emg.lfads._observation import Gamma, Gaussian, Poisson
from jaxm2m.emg.lfads._posterior import Posterior, posterior, posterior_means
from jaxm2m.emg.lfads._presets import PRESETS, LFADSPreset
from jaxm2m.emg.lfads._trainable import SequentialVAE
from jaxm2m.emg.preprocessing._artefacts import Screening, screen
from jaxm2m.emg.preprocessing._line_noise import remove_line
from jaxm2m.emg.preprocessing._preprocess import preprocess
from jaxm2m.emg.preprocessing._quality import THRESHOLDS, Quality, quality
from jaxm2m.emg.preprocessing._rectified import Preprocessing, Rectified
from jaxm2m.emg.preprocessing._steps import clip, highpass, normalise, notch, rectify, resample
from jaxm2m.emg.preprocessing._windows import Windows, chop, merge

__all__ = [
    "CUTOFFS",
    "PRESETS",
    "THRESHOLDS",
    "Activation",
    "Alignment",
    "Coherence",
    "Decoder",
    "Decoding",
    "Fit",
    "FrequencyResponse",
    "Gait",
    "Gamma",
    "Gaussian",
    "LFADSConfig",
    "LFADSPreset",
    "ModelSelection",
    "Poisson",
    "Posterior",
    "Preprocessing",
    "Quality",
    "Rectified",
    "Screening",
    "SequentialVAE",
    "Trajectories",
    "Windows",
    "align",
    "around",
    "bayes",
    "bayes_grid",
    "chop",
    "clip",
    "coherence",
    "context",
    "context_pca",
    "cross_validate_decoder",
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
    "quality",
    "rectify",
    "remove_line",
    "resample",
    "screen",
    "select_by_decoding",
    "signed_rank",
    "smooth",
    "trajectories",
    "ttest",
]
