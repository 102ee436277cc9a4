"""Networks from the field to MEPs: autoencoder, mapper, the six variants, training and selection."""

from jaxm2m.muscle.networks._convolution import convolve
from jaxm2m.muscle.networks._training import FieldAutoencoder, MuscleMapper

__all__ = ["FieldAutoencoder", "MuscleMapper", "convolve"]
