"""Architectures and recipes by name."""

from dataclasses import dataclass

from jaxm2m.muscle._networks import Architecture
from jaxm2m.muscle._training import Recipe


@dataclass(frozen=True)
class Preset:
    """What is trained, and how.

    Attributes
    ----------
    sizes
        Of the networks.
    spacing
        mm between the voxels of the networks' volumes; None: those of the grid.
    autoencoder, mapper
        How they are trained, one after the other.
    tuned
        Whether the encoder is trained on with the mapper.
    """

    sizes: Architecture
    spacing: float | None
    autoencoder: Recipe
    mapper: Recipe
    tuned: bool = True


# What the 2019 paper does not tell (filters, hidden units, rates, batches, epochs) is our choice.
PRESETS = {
    "paper": Preset(
        Architecture(),
        spacing=1.0,
        autoencoder=Recipe("adagrad", learning_rate=1e-2, batch=4, epochs=100),
        mapper=Recipe("adam", learning_rate=1e-3, batch=4, epochs=100, patience=3, l2=1e-4),
    ),
    "m2m-net": Preset(
        Architecture(
            shape=(64, 64, 64),
            pools=2,
            convolutions=(16, 32, 64),
            hidden=(128, 32),
            activation="relu",
            normalised=True,
        ),
        spacing=1.0,
        autoencoder=Recipe("sgd", learning_rate=1e-2, batch=4, epochs=100, l1=1e-4),
        mapper=Recipe(
            "adadelta",
            learning_rate=1.0,
            batch=16,
            epochs=150,
            l1=1e-4,
            dropout=0.15,
            fall=(20, 0.7),
            criterion="squared error",
        ),
        tuned=False,
    ),
    "small": Preset(
        Architecture(shape=(12, 12, 12), filters=(8, 2), pools=1, pool="mean", hidden=(64, 32)),
        spacing=4.0,
        autoencoder=Recipe("adagrad", learning_rate=3e-2, batch=27, epochs=60),
        mapper=Recipe("adam", learning_rate=5e-4, batch=27, epochs=100, patience=3, l2=1e-3),
    ),
}
