"""Architectures and recipes by name."""

from dataclasses import dataclass

from jaxm2m.efield import Grid
from jaxm2m.muscle.networks._inputs import Reduction
from jaxm2m.muscle.networks._networks import NetworkConfig
from jaxm2m.muscle.networks._training import TrainingConfig


@dataclass(frozen=True)
class NetworkPreset:
    """An architecture, and how it is trained.

    Attributes
    ----------
    config
        Architecture of the networks.
    spacing
        mm between the voxels of the networks' volumes; None: those of the grid.
    autoencoder, mapper
        How they are trained, one after the other.
    tuned
        Whether the encoder is trained on with the mapper.
    """

    config: NetworkConfig
    spacing: float | None
    autoencoder: TrainingConfig
    mapper: TrainingConfig
    tuned: bool = True

    def check_grid(self, grid: Grid) -> None:
        """Check that the networks can see the fields on a grid.

        Parameters
        ----------
        grid
            Grid of the fields.

        Raises
        ------
        ValueError
            The grid is too small or too coarse, or its spacing is no whole fraction of `spacing`.
        """
        Reduction.of(grid, self.config.shape, self.spacing)


# What the 2019 paper does not tell (filters, hidden units, rates, batches, epochs) is our choice.
PRESETS = {
    "paper": NetworkPreset(
        NetworkConfig(),
        spacing=1.0,
        autoencoder=TrainingConfig("adagrad", learning_rate=1e-2, batch_size=4, epochs=100),
        mapper=TrainingConfig("adam", learning_rate=1e-3, batch_size=4, epochs=100, patience=3, l2=1e-4),
    ),
    "m2m-net": NetworkPreset(
        NetworkConfig(
            shape=(64, 64, 64),
            pools=2,
            convolutions=(16, 32, 64),
            hidden=(128, 32),
            activation="relu",
            normalised=True,
        ),
        spacing=1.0,
        autoencoder=TrainingConfig("sgd", learning_rate=1e-2, batch_size=4, epochs=100, l1=1e-4),
        mapper=TrainingConfig(
            "adadelta",
            learning_rate=1.0,
            batch_size=16,
            epochs=150,
            l1=1e-4,
            dropout=0.15,
            lr_decay=(20, 0.7),
            criterion="squared error",
        ),
        tuned=False,
    ),
    "small": NetworkPreset(
        NetworkConfig(shape=(12, 12, 12), filters=(8, 2), pools=1, pool="mean", hidden=(64, 32)),
        spacing=4.0,
        autoencoder=TrainingConfig("adagrad", learning_rate=3e-2, batch_size=27, epochs=60),
        mapper=TrainingConfig("adam", learning_rate=5e-4, batch_size=27, epochs=100, patience=3, l2=1e-3),
    ),
}
