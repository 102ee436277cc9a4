"""Trials shifted into line with each other, and their paths through the space of principal components."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg, optimize

from jaxm2m import _check
from jaxm2m.emg.preprocessing._steps import as_signal


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """Shifts that bring trials into line.

    Attributes
    ----------
    shift : (n_trial,) int array
        How much later than the template each trial runs, bins.
    template : (n_time, n_channel) float array
        What the trials have in common, in their unit.
    sfreq : float
        Sampling rate, Hz.
    loss : (n_iteration + 1,) float array
        Mean squared difference between trials and shifted template; the first, before any shift.
    """

    shift: Int[np.ndarray, " n_trial"]
    template: Float[np.ndarray, "n_time n_channel"]
    sfreq: float
    loss: Float[np.ndarray, " n_loss"]

    def __repr__(self) -> str:
        most = np.abs(self.shift).max() / self.sfreq
        return f"Alignment({len(self.shift)} trials, shifts up to {most * 1e3:g} ms)"

    @property
    def seconds(self) -> Float[np.ndarray, " n_trial"]:
        """The shifts in s, (n_trial,).

        Added to the times about which trials were cut (`around`), they cut them in line.
        """
        return self.shift / self.sfreq

    def apply(self, x: Float[Any, "n_trial n_time n_any"]) -> Float[np.ndarray, "n_trial n_time n_any"]:
        """Shift any signals of the same trials into line.

        Parameters
        ----------
        x
            Signals (n_trial, n_time, n) of the aligned trials, in any unit.

        Returns
        -------
        array
            The shifted signals, (n_trial, n_time, n), in the unit of `x`; at the ends the first or last bin is
            repeated.
        """
        x = as_signal(x)
        if x.ndim != 3 or len(x) != len(self.shift):
            raise ValueError(f"x: shape {x.shape}; pass ({len(self.shift)}, n_time, n).")
        return x[np.arange(len(x))[:, None], _shift_bins(x.shape[1], -self.shift)]


@dataclass(frozen=True, eq=False, repr=False)
class Trajectories:
    """Activity in the space of the first principal components.

    Attributes
    ----------
    axes : (n_channel, n_component) float array
        Orthonormal axes of the components.
    centre : (n_channel,) float array
        What is subtracted, in the unit of the activity.
    explained : (n_component,) float array
        Share of the variance of what the components were fitted to.
    trials : (n_trial, n_time, n_component) float array
        Single trials.
    averages : (n_condition, n_time, n_component) float array
        Averages of the trials of each condition.
    conditions : tuple
        Labels of the conditions.
    """

    axes: Float[np.ndarray, "n_channel n_component"]
    centre: Float[np.ndarray, " n_channel"]
    explained: Float[np.ndarray, " n_component"]
    trials: Float[np.ndarray, "n_trial n_time n_component"]
    averages: Float[np.ndarray, "n_condition n_time n_component"]
    conditions: tuple[Hashable, ...]

    def __repr__(self) -> str:
        return (
            f"Trajectories({len(self.trials)} trials, {len(self.conditions)} conditions, "
            f"{len(self.explained)} components with {self.explained.sum():.1%} of the variance)"
        )

    def project(self, x: Float[Any, "*batch n_time n_channel"]) -> Float[np.ndarray, "*batch n_time n_component"]:
        """Project other trials into the same space.

        Parameters
        ----------
        x
            Activity (..., n_time, n_channel), in the unit of the fitted one.

        Returns
        -------
        array
            Its components, (..., n_time, n_component), in the unit of `x`.
        """
        return (as_signal(x) - self.centre) @ self.axes


def align(
    x: Float[Any, "n_trial n_time n_channel"],
    sfreq: float | int = 500.0,
    largest: float | int = 0.035,
    *,
    smoothness: float | int = 1.0,
    nonnegative: bool = True,
    iterations: int = 20,
) -> Alignment:
    """Shift each trial by whole bins so that it fits a common template.

    In turn, the template m and the shifts s_k that make

        sum_k sum_t |x_k(t) - m(t - s_k)|^2 + smoothness n_trial |D^2 m|^2

    least are computed (D^2: second differences; beyond its ends m goes on with its first and last value), until the
    shifts stay.

    Parameters
    ----------
    x
        Trials of one condition, (n_trial, n_time, n_channel), in any unit. The source: 80 ms before to 240 ms after
        force onset.
    sfreq
        Sampling rate, Hz.
    largest
        Bound of the shifts, s. The source: about half of an oscillation.
    smoothness
        Weight of the penalty.
    nonnegative
        Whether the template is kept at or above zero, as activations are.
    iterations
        Largest number of iterations.

    Returns
    -------
    Alignment
        The shifts and the template.

    Notes
    -----
    The model of shift-only time warping: A. H. Williams et al., Discovering precise temporal patterns in large-scale
    neural recordings through robust and interpretable time warping, Neuron 105, 246 (2020). The numbers are those of
    `affinewarp.ShiftWarping` 0.2.0 with the same bounds and penalties.
    """
    x, sfreq = as_signal(x), float(_check.positive(sfreq, "sfreq"))
    if x.ndim != 3:
        raise ValueError(f"x: shape {x.shape}; pass (n_trial, n_time, n_channel).")
    n_trial, n_time, _ = x.shape
    reach = round(float(_check.positive(largest, "largest", zero=True)) * sfreq)
    if n_time < 3 or reach > n_time // 2:
        raise ValueError(f"largest: {reach} bins, but trials have {n_time}; it must be at most half of them.")
    _check.positive(smoothness, "smoothness", zero=True)
    bend = np.diff(np.eye(n_time), 2, axis=0)
    # the small ridge decides where neither a trial nor the penalty does
    penalty = n_trial * (float(smoothness) * bend.T @ bend + 1e-7 * np.eye(n_time))
    candidates = np.arange(-reach, reach + 1)
    shift = np.zeros(n_trial, int)
    template = _template(x, shift, penalty, nonnegative)
    loss = [np.mean((x - template) ** 2)]
    for _ in range(_check.integer(iterations, "iterations")):
        # |x - m|^2 but for |x|^2, which no shift changes
        shifted = template[_shift_bins(n_time, candidates)]
        cost = (shifted**2).sum((1, 2)) - 2 * np.einsum("ktc,stc->ks", x, shifted, optimize=True)
        # of equally good shifts the smallest
        order = np.argsort(np.abs(candidates), kind="stable")
        best = candidates[order][cost[:, order].argmin(1)]
        still = (best == shift).all()
        shift = best
        template = _template(x, shift, penalty, nonnegative)
        loss.append(np.mean((x - template[_shift_bins(n_time, shift)]) ** 2))
        if still:
            break
    return Alignment(shift, template, sfreq, np.array(loss))


def trajectories(
    x: Float[Any, "n_trial n_time n_channel"],
    conditions: Sequence[Hashable] | np.ndarray | None = None,
    components: int = 3,
    *,
    fitted_to: str = "trials",
) -> Trajectories:
    """Compute the principal components of activations, and trials and averages along them.

    Parameters
    ----------
    x
        Trials of equal length, aligned as wanted: (n_trial, n_time, n_channel), in any unit.
    conditions
        (n_trial,) labels: names, or an index; by default all trials are of one condition.
    components
        Number of components.
    fitted_to
        "trials", all bins of all of them, or "averages", of each condition, which leaves their noise out. The source
        does not say.

    Returns
    -------
    Trajectories
        The components, and single trials and averages along them.

    Notes
    -----
    The sign of a component is such that its largest weight is positive.
    """
    x = as_signal(x)
    if x.ndim != 3:
        raise ValueError(f"x: shape {x.shape}; pass (n_trial, n_time, n_channel).")
    _check.option(fitted_to, ("trials", "averages"), "fitted_to")
    labels = [0] * len(x) if conditions is None else list(conditions)
    if len(labels) != len(x):
        raise ValueError(f"conditions: {len(labels)} labels for {len(x)} trials; pass one a trial.")
    if _check.integer(components, "components") > x.shape[2]:
        raise ValueError(f"components: {components} of {x.shape[2]} channels; take fewer.")
    kinds = tuple(dict.fromkeys(labels))
    averages = np.stack([x[[label == kind for label in labels]].mean(0) for kind in kinds])
    data = (x if fitted_to == "trials" else averages).reshape(-1, x.shape[2])
    centre = data.mean(0)
    _, size, rows = np.linalg.svd(data - centre, full_matrices=False)
    if len(size) < components:
        raise ValueError(f"components: {components}, but the averages have {len(size)} bins; take fewer.")
    axes = rows[:components].T
    axes = axes * np.where(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0) < 0, -1, 1)
    total = max((size**2).sum(), np.finfo(float).tiny)
    return Trajectories(
        axes, centre, size[:components] ** 2 / total, (x - centre) @ axes, (averages - centre) @ axes, kinds
    )


def _shift_bins(n: int, shift: np.ndarray) -> np.ndarray:
    """Compute the bins t - s, kept inside, (n_shift, n)."""
    return np.clip(np.arange(n) - shift[:, None], 0, n - 1)


def _template(x: np.ndarray, shift: np.ndarray, penalty: np.ndarray, nonnegative: bool) -> np.ndarray:
    index = _shift_bins(x.shape[1], shift)
    system = penalty + np.diag(np.bincount(index.ravel(), minlength=x.shape[1]))
    sums = np.zeros(x.shape[1:])
    np.add.at(sums, index, x)
    template = linalg.solve(system, sums, assume_a="pos")
    if nonnegative and (template < 0).any():
        # least squares in the metric of the system: |L' m - L^-1 sums|
        lower = linalg.cholesky(system, lower=True)
        target = linalg.solve_triangular(lower, sums, lower=True)
        for k in np.flatnonzero((template < 0).any(0)):
            template[:, k] = optimize.nnls(lower.T, target[:, k])[0]
    return template
