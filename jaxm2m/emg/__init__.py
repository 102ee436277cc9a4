"""From raw EMG to muscle activation."""

from jaxm2m.emg._model import Sizes
from jaxm2m.emg._observation import Gamma, Gaussian, Poisson
from jaxm2m.emg._posterior import Posterior, posterior, posterior_means
from jaxm2m.emg._trainable import SequentialVAE

__all__ = [
    "Gamma",
    "Gaussian",
    "Poisson",
    "Posterior",
    "SequentialVAE",
    "Sizes",
    "posterior",
    "posterior_means",
]
