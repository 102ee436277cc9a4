"""Decoding behaviour or cortical activity from muscle activation by ridge regression, cross-validated."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Key

from jaxm2m import _check
from jaxm2m._types import ArrayLike

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, eq=False, repr=False)
class Decoding:
    """How well each output was predicted in the folds that were left out.

    Attributes
    ----------
    vaf : (n_fold, n_output) float array
        Variance accounted for, 1 - sum (prediction - y)^2 / sum (y - mean y)^2 over a fold, at the output's own lag.
    lag : (n_output,) float array
        The lag of the highest mean VAF, s.
    lags : (n_lag,) float array
        All lags that were tried, s.
    sweep : (n_lag, n_output) float array
        Mean VAF at each lag.
    outputs : tuple of str
        Names of the outputs.
    prediction : array, or tuple of arrays
        In the form of y; NaN in bins that some lag does not reach.
    """

    vaf: Float[np.ndarray, "n_fold n_output"]
    lag: Float[np.ndarray, " n_output"]
    lags: Float[np.ndarray, " n_lag"]
    sweep: Float[np.ndarray, "n_lag n_output"]
    outputs: tuple[str, ...]
    prediction: np.ndarray | tuple[np.ndarray, ...]

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{n} {v:.3f} ({lag * 1e3:g} ms)" for n, v, lag in zip(self.outputs, self.mean, self.lag, strict=True)
        )
        return f"Decoding(VAF {parts}; {len(self.vaf)} folds)"

    @property
    def mean(self) -> Float[np.ndarray, " n_output"]:
        """Mean VAF of each output over folds, (n_output,)."""
        return self.vaf.mean(0)

    @property
    def sem(self) -> Float[np.ndarray, " n_output"]:
        """Standard error of the mean VAF of each output, (n_output,)."""
        return self.vaf.std(0, ddof=1) / len(self.vaf) ** 0.5

    def table(self) -> pd.DataFrame:
        """Tabulate the outputs.

        Returns
        -------
        pandas.DataFrame
            A row for each output: output, vaf, sem, lag (s).
        """
        return pd.DataFrame({"output": self.outputs, "vaf": self.mean, "sem": self.sem, "lag": self.lag})


@dataclass(frozen=True, eq=False, repr=False)
class Decoder:
    """A linear map from channels to outputs, each output at its own lag.

    Attributes
    ----------
    weights : (n_channel, n_output) float array
        Weights, in units of the output over units of the channel.
    offset : (n_output,) float array
        Constant term, in units of the output.
    lag : (n_output,) float array
        Time by which the channels precede the output, s.
    sfreq : float
        Sampling rate, Hz.
    outputs : tuple of str
        Names of the outputs.
    """

    weights: Float[np.ndarray, "n_channel n_output"]
    offset: Float[np.ndarray, " n_output"]
    lag: Float[np.ndarray, " n_output"]
    sfreq: float
    outputs: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Decoder({len(self.weights)} channels -> {', '.join(self.outputs)})"

    def predict(self, x: ArrayLike, *, margin: int = 0) -> np.ndarray | tuple[np.ndarray, ...]:
        """Predict the outputs at the times of x less its margins.

        Parameters
        ----------
        x
            Activations (n_time, n_channel), (n_trial, n_time, n_channel), or a list of (n_time, n_channel), in the unit
            of what the decoder was fitted to.
        margin
            Bins at both ends of each trial that are not predicted.

        Returns
        -------
        array, or tuple of arrays
            Outputs (n_time - 2 margin, n_output) in the form of x, in the unit of what they were fitted to; NaN where a
            lag reaches beyond x.
        """
        trials, _ = _as_trials(x, "x")
        _check.integer(margin, "margin", minimum=0)
        if trials[0].shape[1] != len(self.weights):
            raise ValueError(
                f"x: {trials[0].shape[1]} channels, the decoder was fitted to {len(self.weights)}; pass the same."
            )
        steps = np.rint(self.lag * self.sfreq).astype(int)
        result = []
        for trial in trials:
            out = np.full((len(trial) - 2 * margin, len(self.offset)), np.nan)
            for j, k in enumerate(steps):
                first, last = _known_range(len(out), margin, k)
                rows = slice(first + margin - k, last + margin - k)
                out[first:last, j] = trial[rows] @ self.weights[:, j] + self.offset[j]
            result.append(out)
        return _restore_form(result, x)

    def vaf(self, x: ArrayLike, y: ArrayLike, *, margin: int = 0) -> Float[np.ndarray, " n_output"]:
        """Compute the variance accounted for over all trials together.

        It is 1 - sum (prediction - y)^2 / sum (y - mean y)^2.

        Parameters
        ----------
        x
            Activations, as for `predict`, in the unit of what the decoder was fitted to: (n_time, n_channel), or trials
            of them.
        y
            The outputs of the same trials, (..., n_time, n_output), in the unit of what the decoder was fitted to.
        margin
            Bins of x before and after those of y in each trial.

        Returns
        -------
        array
            The VAF of each output, (n_output,).
        """
        xs, ys = pair_trials(x, y, margin)
        steps = np.rint(self.lag * self.sfreq).astype(int)
        rows = [slice(*_known_range(len(v), margin, steps)) for v in ys]
        predicted = [self.predict(v, margin=margin)[r] for v, r in zip(xs, rows, strict=True)]
        return _vaf(np.concatenate(predicted), np.concatenate([v[r] for v, r in zip(ys, rows, strict=True)]))


@dataclass(frozen=True, eq=False, repr=False)
class ModelSelection:
    """Candidates, all scored by decoding.

    Attributes
    ----------
    best : name
        The candidate with the highest VAF averaged over the outputs.
    table : pandas.DataFrame
        A row for each candidate and output: method, output, vaf, sem, lag (s).
    decodings : dict
        The `Decoding` of each candidate.
    """

    best: Hashable
    table: pd.DataFrame
    decodings: Mapping[Any, Decoding]

    def __repr__(self) -> str:
        return f"ModelSelection({self.best!r} of {len(self.decodings)}: {self.decodings[self.best]!r})"


class DecoderOptions(TypedDict, total=False):
    """Options of `fit_decoder`, for functions that hand them on."""

    lags: ArrayLike
    n_folds: int
    whole_trials: bool
    alpha: float | int
    margin: int
    outputs: Sequence[str] | None


class CrossValidationOptions(DecoderOptions, total=False):
    """Options of `cross_validate_decoder`, for functions that hand them on."""

    key: Key[Array, ""] | None


def cross_validate_decoder(
    x: ArrayLike,
    y: ArrayLike,
    sfreq: float | int = 500.0,
    *,
    lags: ArrayLike = 0.0,
    n_folds: int = 10,
    key: Key[Array, ""] | None = None,
    whole_trials: bool = False,
    alpha: float | int = 1.0,
    margin: int = 0,
    outputs: Sequence[str] | None = None,
) -> Decoding:
    """Predict y(t) from x(t - lag) by ridge regression, in folds that are left out.

    ("Optimal linear estimation".) In the training folds x and y get mean 0 and standard deviation 1, and

        W = argmin |x W - y|^2 + alpha |W|^2.

    Each output takes the lag at which its mean VAF over the folds is highest. All lags are compared on the same bins:
    those for which x is known at each of them. Short trials lose many bins to long lags; results of other lags are then
    of other bins, and not to be compared.

    Parameters
    ----------
    x
        Activations, in any unit: (n_time, n_channel), (n_trial, n_time, n_channel), or a list of (n_time, n_channel).
    y
        What is to be predicted, of the same trials, in any unit: (..., n_time, n_output).
    sfreq
        Sampling rate, Hz.
    lags
        One lag or several, (n_lag,), s, rounded to bins. Positive: x precedes y (muscles and movement); negative: y
        precedes x (cortex and muscles). The source: 0 to 0.1.
    n_folds
        Number of folds: contiguous pieces of the sequence of bins, in the order given.
    key
        Shuffles the bins (with `whole_trials`, the trials) before they are divided. Neighbouring bins resemble each
        other, so that shuffled bins flatter a decoder that has many inputs.
    whole_trials
        Whether trials, not bins, are divided among the folds.
    alpha
        Weight of the penalty, for standardised data.
    margin
        Bins of x before and after those of y in each trial.
    outputs
        Names of the outputs; None: "1", "2", ...

    Returns
    -------
    Decoding
        VAF and lag of each output, and the predictions.

    Raises
    ------
    ValueError
        Trials that do not match, lags longer than a trial, an output that is constant (its VAF does not exist).

    Notes
    -----
    L. N. Wimalasena et al., J. Neural Eng. 19, 036013 (2022), Section 3.
    """
    xs, ys = pair_trials(x, y, margin)
    steps = _lags_in_bins(lags, sfreq)
    _check.positive(alpha, "alpha", zero=True)
    names = _name_outputs(outputs, ys[0].shape[1])
    rows = [np.arange(*_known_range(len(v), margin, steps)) for v in ys]
    target = np.concatenate([v[r] for v, r in zip(ys, rows, strict=True)])
    parts = _split_folds([len(r) for r in rows], n_folds, key, whole_trials)
    for i, part in enumerate(parts):
        still = np.flatnonzero(np.ptp(target[part], axis=0) == 0)
        if len(still):
            raise ValueError(
                f"y: output {names[still[0]]} is constant in fold {i}, where VAF is undefined; use fewer folds, or key."
            )
    vaf = np.empty((len(steps), len(parts), len(names)))
    best = np.full(len(names), -np.inf)
    best_prediction = np.empty_like(target)
    for i, k in enumerate(steps):
        source = np.concatenate([v[r + (margin - k)] for v, r in zip(xs, rows, strict=True)])
        predicted = _predict_left_out(source, target, parts, float(alpha))
        vaf[i] = [_vaf(predicted[p], target[p]) for p in parts]
        better = vaf[i].mean(0) > best
        best_prediction[:, better] = predicted[:, better]
        best = np.maximum(best, vaf[i].mean(0))
    chosen = vaf.mean(1).argmax(0)
    prediction, start = [np.full(v.shape, np.nan) for v in ys], 0
    for out, r in zip(prediction, rows, strict=True):
        out[r] = best_prediction[start : start + len(r)]
        start += len(r)
    seconds = steps / float(sfreq)
    return Decoding(
        vaf[chosen, :, np.arange(len(names))].T,
        seconds[chosen],
        seconds,
        vaf.mean(1),
        names,
        _restore_form(prediction, y),
    )


def fit_decoder(
    x: ArrayLike,
    y: ArrayLike,
    sfreq: float | int = 500.0,
    *,
    lags: ArrayLike = 0.0,
    n_folds: int = 10,
    whole_trials: bool = False,
    alpha: float | int = 1.0,
    margin: int = 0,
    outputs: Sequence[str] | None = None,
) -> Decoder:
    """Fit a decoder to all of x and y, to be used on other trials.

    With several lags, that of each output is chosen by cross-validation within x and y.

    Parameters
    ----------
    x
        Activations, in any unit: (n_time, n_channel), (n_trial, n_time, n_channel), or a list of (n_time, n_channel).
    y
        What is to be predicted, of the same trials, in any unit: (..., n_time, n_output).
    sfreq
        Sampling rate, Hz.
    lags
        One lag or several, (n_lag,), s, rounded to bins. Positive: x precedes y.
    n_folds
        Number of folds that choose among several lags.
    whole_trials
        Whether trials, not bins, are divided among the folds.
    alpha
        Weight of the penalty, for standardised data.
    margin
        Bins of x before and after those of y in each trial.
    outputs
        Names of the outputs; None: "1", "2", ...

    Returns
    -------
    Decoder
        The linear map, with the lag of each output.
    """
    xs, ys = pair_trials(x, y, margin)
    steps = _lags_in_bins(lags, sfreq)
    names = _name_outputs(outputs, ys[0].shape[1])
    lag = np.full(len(names), steps[0])
    if len(steps) > 1:
        chosen = cross_validate_decoder(
            x, y, sfreq, lags=lags, n_folds=n_folds, whole_trials=whole_trials, alpha=alpha, margin=margin
        )
        lag = np.rint(chosen.lag * float(sfreq)).astype(int)
    weights, offset = np.empty((xs[0].shape[1], len(names))), np.empty(len(names))
    for k in np.unique(lag):
        rows = [np.arange(*_known_range(len(v), margin, k)) for v in ys]
        source = np.concatenate([v[r + (margin - k)] for v, r in zip(xs, rows, strict=True)])
        target = np.concatenate([v[r] for v, r in zip(ys, rows, strict=True)])
        w, b = _fit_ridge(_Sums.of(source, target), float(_check.positive(alpha, "alpha", zero=True)))
        weights[:, lag == k], offset[lag == k] = w[:, lag == k], b[lag == k]
    return Decoder(weights, offset, lag / float(sfreq), float(sfreq), names)


def select_by_decoding(
    candidates: Mapping[Name, ArrayLike],
    y: ArrayLike,
    sfreq: float | int = 500.0,
    **options: Unpack[CrossValidationOptions],
) -> ModelSelection:
    """Score sets of activations by decoding, and name the best.

    The best has the highest VAF averaged over the outputs. Candidates are the hyperparameters of a Bayesian filter,
    cutoffs, or methods:

        alpha, beta = emg.bayes_grid()
        filtered = emg.bayes(x, 500, alpha, beta)
        choice = emg.select_by_decoding(dict(zip(zip(alpha, beta), filtered)), y, lags=numpy.arange(0, 0.1, 0.002))

    The winner's VAF is the best of many on these same folds; it is not an estimate for new data.

    Parameters
    ----------
    candidates
        Activations by name, each in any unit: (n_time, n_channel), (n_trial, n_time, n_channel), or a list of (n_time,
        n_channel). They are taken one after the other, so that a mapping may compute them when asked.
    y
        What is to be predicted, of the same trials, in any unit: (..., n_time, n_output).
    sfreq
        Sampling rate, Hz.
    **options
        As for `cross_validate_decoder`, same units.

    Returns
    -------
    ModelSelection
        The best candidate, and the scores of all.
    """
    if not len(candidates):
        raise ValueError("candidates: empty; pass at least one set of activations.")
    decodings = {name: cross_validate_decoder(candidates[name], y, sfreq, **options) for name in candidates}
    table = pd.concat(
        [d.table().assign(method=[name] * len(d.outputs)) for name, d in decodings.items()], ignore_index=True
    )
    best = max(decodings, key=lambda name: decodings[name].mean.mean())
    return ModelSelection(best, table[["method", "output", "vaf", "sem", "lag"]], decodings)


class _Sums:
    """Numbers of samples, sums and sums of products: enough to fit a ridge regression, and they add up."""

    def __init__(self, n, x, y, xx, xy):
        self.n, self.x, self.y, self.xx, self.xy = n, x, y, xx, xy

    @classmethod
    def of(cls, x, y):
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y)

    def __sub__(self, other):
        return _Sums(self.n - other.n, self.x - other.x, self.y - other.y, self.xx - other.xx, self.xy - other.xy)


def _fit_ridge(sums: _Sums, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and offset, for data as they are, of the ridge regression of standardised data."""
    mean_x, mean_y = sums.x / sums.n, sums.y / sums.n
    xx = sums.xx - sums.n * np.outer(mean_x, mean_x)
    xy = sums.xy - sums.n * np.outer(mean_x, mean_y)
    variance = np.diag(xx) / sums.n
    # a channel that is silent in the training data says nothing; rounding must not amplify it
    silent = variance <= 1e-12 * np.maximum(np.diag(sums.xx) / sums.n, np.finfo(float).tiny)
    scale = np.where(silent, np.inf, np.sqrt(np.where(silent, 1, variance)))
    system = xx / np.outer(scale, scale)
    # without a penalty, silent channels would leave the system singular
    system[np.diag_indices_from(system)] += np.where(silent, 1, alpha)
    weights = np.linalg.solve(system, xy / scale[:, None]) / scale[:, None]
    return weights, mean_y - mean_x @ weights


def _predict_left_out(x: np.ndarray, y: np.ndarray, parts: list[np.ndarray], alpha: float) -> np.ndarray:
    centre, unit = x.mean(0), y.std(0)
    x = x - centre
    shifted = (y - y.mean(0)) / unit  # sums of products lose digits where the mean is large
    total, result = _Sums.of(x, shifted), np.empty_like(y)
    for part in parts:
        weights, offset = _fit_ridge(total - _Sums.of(x[part], shifted[part]), alpha)
        result[part] = (x[part] @ weights + offset) * unit + y.mean(0)
    return result


def _vaf(predicted: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 1 - ((predicted - y) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)


def _split_folds(lengths: list[int], n_folds: int, key: Key[Array, ""] | None, whole_trials: bool) -> list[np.ndarray]:
    """Indices of the samples of each fold."""
    unit, n = ("trials", len(lengths)) if whole_trials else ("bins", sum(lengths))
    if _check.integer(n_folds, "n_folds", minimum=2) > n:
        raise ValueError(f"n_folds: {n_folds}, but there are {n} {unit}; take fewer.")
    order = np.arange(n) if key is None else np.asarray(jax.random.permutation(key, n))
    parts = np.array_split(order, n_folds)
    if whole_trials:
        bounds = np.cumsum([0, *lengths])
        parts = [np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in part]) for part in parts]
    return parts


def _known_range(n: int, margin: int, steps: np.ndarray | np.integer) -> tuple[int, int]:
    """First bin and first bin after those for which x is known at all lags (bins)."""
    low, high = int(np.min(steps)), int(np.max(steps))
    first, last = max(0, high - margin), n - max(0, -low - margin)
    if last - first < 1:
        raise ValueError(f"lags: up to {max(abs(low), abs(high))} bins, but a trial has {n}; take shorter lags.")
    return first, last


def _lags_in_bins(lags: ArrayLike, sfreq: float | int) -> np.ndarray:
    seconds = np.atleast_1d(np.asarray(_check.finite(lags, "lags"), np.float64))
    if seconds.ndim != 1 or not len(seconds):
        raise ValueError(f"lags: shape {seconds.shape}; pass one number, or a list, in s.")
    return np.unique(np.rint(seconds * float(_check.positive(sfreq, "sfreq"))).astype(int))


def _as_trials(x: ArrayLike, name: str) -> tuple[list[np.ndarray], int]:
    """Trials (n_time, n) as float64, and the dimensions of what was given (0: a list)."""
    if isinstance(x, (list, tuple)) and len(x) and np.ndim(x[0]) == 2:
        trials = [np.asarray(_check.finite(v, f"{name}[{i}]"), np.float64) for i, v in enumerate(x)]
        wrong = [i for i, v in enumerate(trials) if v.ndim != 2 or v.shape[1] != trials[0].shape[1]]
        if wrong:
            raise ValueError(f"{name}: trial {wrong[0]} has shape {trials[wrong[0]].shape}; all must be (n_time, n).")
        return trials, 0
    array = np.asarray(_check.finite(x, name), np.float64)
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"{name}: shape {array.shape}; pass (n_time, n) or (n_trial, n_time, n).")
    return ([array] if array.ndim == 2 else list(array)), array.ndim


def _restore_form(trials: list[np.ndarray], like: ArrayLike) -> np.ndarray | tuple[np.ndarray, ...]:
    """Trials in the form in which `like` came."""
    if isinstance(like, (list, tuple)):
        return tuple(trials)
    return trials[0] if np.ndim(like) == 2 else np.stack(trials)


def pair_trials(x: ArrayLike, y: ArrayLike, margin: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    xs, ys = _as_trials(x, "x")[0], _as_trials(y, "y")[0]
    _check.integer(margin, "margin", minimum=0)
    if len(xs) != len(ys):
        raise ValueError(f"y: {len(ys)} trials, but x has {len(xs)}; pass the same.")
    for i, (a, b) in enumerate(zip(xs, ys, strict=True)):
        if len(a) != len(b) + 2 * margin:
            raise ValueError(
                f"y: trial {i} has {len(b)} bins, x {len(a)}; they must be as long"
                f"{f' but for margins of {margin}' if margin else ' (x may have more: margin=)'}."
            )
    return xs, ys


def _name_outputs(outputs: Sequence[str] | None, n: int) -> tuple[str, ...]:
    names = tuple(str(i + 1) for i in range(n)) if outputs is None else tuple(outputs)
    if len(names) != n:
        raise ValueError(f"outputs: {len(names)} names for {n} outputs; match them.")
    return names
