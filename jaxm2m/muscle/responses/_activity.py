"""Muscle activity over time: what `emg` returns, and its cycles, as synergies take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from jaxm2m import _check


@runtime_checkable
class Activity(Protocol):
    """Samples of muscles with names: `emg.Rectified`, `emg.Activation`, `Cycles`."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the muscles."""
        ...

    def by_trial(self) -> Sequence[np.ndarray]:
        """Samples of each trial, (n_time, n_muscle)."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Cycles:
    """Cycles of movement, each stretched to the same number of points.

    Attributes
    ----------
    samples : (n_cycle, n_point, n_muscle) float array
        Activity, in the unit of the source.
    duration : (n_cycle,) int array
        Samples that each cycle had.
    channels : tuple of str
        Names of the muscles.
    """

    samples: Float[np.ndarray, "n_cycle n_point n_muscle"]
    duration: np.ndarray
    channels: tuple[str, ...]

    def __repr__(self) -> str:
        n, points, m = self.samples.shape
        return f"Cycles({n} cycles of {points} points, {m} muscles)"

    def by_trial(self) -> tuple[np.ndarray, ...]:
        """Split the samples into cycles.

        Returns
        -------
        tuple of arrays
            The samples of each cycle, (n_point, n_muscle).
        """
        return tuple(self.samples)

    def mean(self) -> Float[np.ndarray, "n_point n_muscle"]:
        """Average the cycles.

        Returns
        -------
        array
            (n_point, n_muscle) mean activity, in the unit of the source.
        """
        return self.samples.mean(0)


def normalise_cycles(source: Activity, n_points: int = 101) -> Cycles:
    """Stretch each trial to the same number of points, so that slow cycles do not count for more than fast ones.

    Points lie at equal shares of the cycle, first and last sample included, with linear interpolation between samples.

    Parameters
    ----------
    source
        `emg.Rectified` or `emg.Activation` whose trials are cycles (`emg.around`, or trials of the recording).
    n_points
        Points of each cycle; 101 are steps of one per cent.

    Returns
    -------
    Cycles
        The cycles.

    Raises
    ------
    ValueError
        A trial of fewer than two samples.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> cycles = [np.linspace(0.0, 1.0, n)[:, None] * [1.0, 2.0] for n in (50, 80)]
    >>> recording = jm.session.load_emg(cycles, 100.0, channels=("TA", "SOL"))
    >>> jm.muscle.normalise_cycles(recording)
    Cycles(2 cycles of 101 points, 2 muscles)
    """
    _check.integer(n_points, "n_points", minimum=2)
    trials = source.by_trial()
    for i, trial in enumerate(trials):
        if len(trial) < 2:
            raise ValueError(f"source: trial {i + 1} has {len(trial)} samples; a cycle has at least two.")
    share = np.linspace(0, 1, n_points)
    samples = [
        np.stack([np.interp(share, np.linspace(0, 1, len(trial)), column) for column in np.asarray(trial).T], -1)
        for trial in trials
    ]
    return Cycles(np.array(samples, float), np.array([len(trial) for trial in trials]), tuple(source.channels))


def join_trials(source: Activity) -> np.ndarray:
    """Return the samples of all trials, (n_sample, n_muscle), one after the other."""
    trials = source.by_trial()
    if not len(trials):
        raise ValueError("meps: no trials; the source has nothing to factorise.")
    return np.concatenate([np.asarray(trial, np.float64) for trial in trials])
