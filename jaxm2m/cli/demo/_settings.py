"""What the demo is about, and how much of everything it takes."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxm2m.muscle import NetworkPreset

TARGET = (-40.0, -20.0, 52.0)  # left hand knob, MNI152, mm
HANDLE = (-1.0, -1.0, 0.0)  # 45 degrees from the midline, towards the back and the left
DISTANCE = 4.0  # mm from the scalp to the coil's frame
RADIUS = 5.0  # mm, of the target
DIDT = 1e6  # A/s
SHAPE, STEP = (24, 24, 24), 2.0  # of the grid: the 48 mm that the small networks see
THRESHOLD = "60 V/m"  # of the firing rate
GAIN, ALPHA = 0.55, 0.6  # of the generated session: how strongly drive acts, share of the synergies
MUSCLE, SPARED = "FDI", "ECR"  # a muscle of the hand, an extensor of the wrist
STANCE, SWING = 0.3, 0.12  # s, of the gait
SEED = 0


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes
    ----------
    name
        For messages.
    spacing
        Of the head's voxels, mm.
    modes
        Solves of the basis.
    limit
        Largest error, by the basis' own estimate, of a field that is used.
    stimuli, folds
        Of the mapping session, and of the cross-validation.
    preset
        Of the networks from fields to muscles; "": smaller than any, which compile in half the time.
    starts, evaluations
        Of the search, and values with gradients for each of them.
    trials, seconds
        Of EMG, and how long each is.
    members, generations, steps
        Of the population-based training: how many, and the steps of a generation.
    samples
        Of the posterior.
    """

    name: str
    spacing: float
    modes: int
    limit: float
    stimuli: int
    folds: int
    preset: str
    starts: int
    evaluations: int
    trials: int
    seconds: float
    members: int
    generations: int
    steps: int
    samples: int

    @property
    def words(self) -> dict[str, str]:
        """Name -> value."""
        return {name: str(value) for name, value in asdict(self).items()}

    @property
    def networks(self) -> "str | NetworkPreset":
        """What `muscle.compare` takes as its preset."""
        from jaxm2m.muscle import NetworkConfig, NetworkPreset, TrainingConfig

        return self.preset or NetworkPreset(
            NetworkConfig(shape=(12, 12, 12), filters=(4,), pools=1, pool="mean", hidden=(32,)),
            spacing=4.0,
            autoencoder=TrainingConfig("adagrad", learning_rate=3e-2, batch_size=18, epochs=40),
            mapper=TrainingConfig("adam", learning_rate=1e-3, batch_size=18, epochs=100, patience=3, l2=1e-3),
        )


# the same as text, for the report
NETWORKS = """preset = jm.muscle.NetworkPreset(
    jm.muscle.NetworkConfig(shape=(12, 12, 12), filters=(4,), pools=1, pool="mean", hidden=(32,)),
    spacing=4.0,
    autoencoder=jm.muscle.TrainingConfig("adagrad", learning_rate=3e-2, batch_size=18, epochs=40),
    mapper=jm.muscle.TrainingConfig("adam", learning_rate=1e-3, batch_size=18, epochs=100, patience=3, l2=1e-3),
)
"""

FULL = Size("full", 2.0, 120, 0.02, 150, 5, "small", 8, 40, 6, 2.0, 4, 6, 60, 50)
QUICK = Size("--quick", 5.0, 40, 0.08, 48, 3, "", 3, 15, 6, 1.0, 2, 4, 60, 20)
# seconds of each stage as measured on two cores, by which the time left is told
SECONDS = {
    "EMG": (4, 4),
    "head": (10, 5),
    "coil": (6, 6),
    "field": (12, 10),
    "basis": (130, 21),
    "session": (8, 8),
    "fields": (125, 11),
    "synergies": (2, 2),
    "compare": (92, 20),
    "sources": (20, 14),
    "place": (19, 14),
    "PBT": (1, 1),
    "activation": (4, 2),
    "figures": (8, 8),
    "report": (1, 1),
}
