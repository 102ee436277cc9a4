"""What `compare`, `fit`, `select` and `fit_inverse` may be told about the training of their networks."""

from dataclasses import dataclass, fields

from jaxm2m import _check
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.population import SearchSpace


@dataclass(frozen=True, eq=False)
class TrainingOptions:
    """Options of the training that `compare`, `fit`, `select` and `fit_inverse` share.

    Attributes
    ----------
    components
        What the networks see of the field: 1, its magnitude; 3, its components.
    mask
        (nx, ny, nz) bool: which points of the grid count, such as those of motor cortex; None: all that have a field.
    rank
        Number of synergies; None: the fewest with a VAF of 0.90 in the training trials.
    space
        Hyperparameters of the mapper that are tuned ("learning_rate", "l1", "l2", "dropout"); None: those of the
        preset.
    candidates
        Number of draws from the space, of which the one with the best validation trials is kept.
    n_seeds
        Number of networks that differ by chance alone, whose predictions are averaged: a little better, and less noise
        between variants.
    validation_fraction
        Share of the training trials that stop the training and choose candidates, between 0 and 1.
    directory
        Directory of the runs: the same call goes on after a kill. None keeps nothing.
    chunk_size
        Members that a device steps at once; None: what was measured to be fastest.

    Raises
    ------
    TypeError, ValueError
        Numbers out of range.
    """

    components: int = 1
    mask: ArrayLike | None = None
    rank: int | None = None
    space: SearchSpace | None = None
    candidates: int = 1
    n_seeds: int = 1
    validation_fraction: float | int = 0.1
    directory: PathLike | None = None
    chunk_size: int | None = None

    def __post_init__(self):
        _check.option(self.components, (1, 3), "components")
        _check.integer(self.candidates, "candidates")
        _check.integer(self.n_seeds, "n_seeds")
        if self.rank is not None:
            _check.integer(self.rank, "rank")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction: {self.validation_fraction:g}; the share that is held out must lie between 0 "
                "and 1."
            )


def refuse_unused(options: TrainingOptions, names: tuple[str, ...], caller: str) -> None:
    """Refuse options that a caller has no use for, rather than ignore them."""
    defaults = {f.name: f.default for f in fields(TrainingOptions)}
    unused = [name for name in names if getattr(options, name) != defaults[name]]
    if unused:
        raise ValueError(f"options: {caller} makes no use of {', '.join(unused)}; leave it out.")
