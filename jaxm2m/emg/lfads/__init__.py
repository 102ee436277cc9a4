"""The sequential variational autoencoder: model, training, and the activation that it infers."""

from jaxm2m.emg.lfads._model import loss_terms

__all__ = ["loss_terms"]
