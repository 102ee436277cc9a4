"""Training of a population of models in one program: search spaces, schedules, checkpoints, devices."""

from jaxm2m.population._checkpoint import Checkpoints
from jaxm2m.population._run import Run, load, read_config
from jaxm2m.population._schedule import PBT, Halving, Independent, Schedule
from jaxm2m.population._space import Choice, LogUniform, SearchSpace, Uniform
from jaxm2m.population._train import train
from jaxm2m.population._trainable import Dataset, Trainable

__all__ = [
    "PBT",
    "Checkpoints",
    "Choice",
    "Dataset",
    "Halving",
    "Independent",
    "LogUniform",
    "Run",
    "Schedule",
    "SearchSpace",
    "Trainable",
    "Uniform",
    "load",
    "read_config",
    "train",
]
