"""Training of a population of models in one program: search spaces, schedules, checkpoints, devices."""

from jaxm2m.population._checkpoint import Checkpoints
from jaxm2m.population._run import Run, load, read_config
from jaxm2m.population._schedule import PBT, Halving, Independent, Schedule
from jaxm2m.population._space import Choice, LogUniform, Space, Uniform
from jaxm2m.population._train import train
from jaxm2m.population._trainable import Examples, Trainable

__all__ = [
    "PBT",
    "Checkpoints",
    "Choice",
    "Examples",
    "Halving",
    "Independent",
    "LogUniform",
    "Run",
    "Schedule",
    "Space",
    "Trainable",
    "Uniform",
    "load",
    "read_config",
    "train",
]
