"""What each stage of the demo hands on to those after it, and to the report."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from jaxm2m.cli._muscle_input import TrainingData
    from jaxm2m.coil import Coil
    from jaxm2m.cortex import FiringRate
    from jaxm2m.efield import Basis, FieldMap, Grid, Simulator
    from jaxm2m.emg import Activation, Fit, Rectified
    from jaxm2m.head import Head
    from jaxm2m.muscle import Comparison, Synergies, VafCurve
    from jaxm2m.placement import Placement
    from jaxm2m.simulate import SimulatedSession


@dataclass(frozen=True)
class Fields:
    """What conducts, what drives, and the field of any pose.

    Attributes
    ----------
    head, coil, sim, grid, basis
        As their rooms make them.
    table
        The coil as a table of its potential, for many poses.
    hot_spot
        (4, 4) mm, the coil over the target with the usual handle.
    field
        There, at `DIDT`.
    summary
        Of this field.
    at_grid
        The field on the grid, by the basis.
    """

    head: "Head"
    coil: "Coil"
    table: "Coil"
    hot_spot: "np.ndarray"
    sim: "Simulator"
    field: Any
    summary: "pd.DataFrame"
    grid: "Grid"
    basis: "Basis"
    at_grid: "FieldMap"


@dataclass(frozen=True)
class Session:
    """A mapping session as files, with its truth.

    Attributes
    ----------
    truth
        What it was generated from.
    rate
        Of the firing.
    didt
        A/s of all its stimuli.
    data
        Fields and MEPs, as the commands read them from the files.
    vaf
        Of synergies of the MEPs, each muscle divided by its largest, by their number.
    synergies
        The fewest with a VAF of 0.90.
    """

    truth: "SimulatedSession"
    rate: "FiringRate"
    didt: float
    data: "TrainingData"
    vaf: "VafCurve"
    synergies: "Synergies"


@dataclass(frozen=True)
class Networks:
    """What was compared.

    Attributes
    ----------
    comparison
        Of the variants.
    ceiling
        NRMSE of the true means, scaled as the comparison's.
    best
        Such as "firing rate, combined".
    """

    comparison: "Comparison"
    ceiling: float
    best: str


@dataclass(frozen=True)
class CoilSearch:
    """The search for a coil that activates one muscle and spares another.

    Attributes
    ----------
    placement
        The search.
    poses
        Name -> (4, 4) mm: the hot spot, the session's best by its measured MEPs, what was found.
    predicted, true
        (n_pose, n_muscle) uV: those of the sources, and the means of what the generator would draw.
    interval
        (2, n_pose, n_muscle) uV: ends of what holds 90 % of the posterior of the predicted.
    table
        A row a pose: objective and MEPs of the two muscles, predicted and true.
    field
        At the pose that was found, at `DIDT`.
    moved, turned
        mm and degrees from the hot spot to it.
    """

    placement: "Placement"
    poses: "dict[str, np.ndarray]"
    predicted: "np.ndarray"
    interval: "np.ndarray"
    true: "np.ndarray"
    table: "pd.DataFrame"
    field: Any
    moved: float
    turned: float


@dataclass(frozen=True)
class InferredEmg:
    """Recording, model, and how near its activation comes to the truth.

    Attributes
    ----------
    rectified
        The recording, preprocessed.
    truth
        (n_sample, n_channel) the mean that it was drawn about, in its units.
    fit
        The trained population.
    inferred
        The activation that it inferred.
    table
        A row a method: R2 with the truth, the mean over muscles and the lowest.
    filtered
        The recording through the best of the low-pass filters.
    cutoff
        Of that, Hz.
    """

    rectified: "Rectified"
    truth: "np.ndarray"
    fit: "Fit"
    inferred: "Activation"
    table: "pd.DataFrame"
    filtered: "list[np.ndarray]"
    cutoff: float


@dataclass(frozen=True)
class SimulatedEmg:
    """A recording of known truth.

    Attributes
    ----------
    rectified
        Preprocessed, what was flagged left out.
    truth
        (n_sample, n_channel) the mean that it was drawn about, in its units.
    """

    rectified: "Rectified"
    truth: "np.ndarray"
