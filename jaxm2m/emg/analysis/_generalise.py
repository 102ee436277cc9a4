"""Decoders on other conditions than they were fitted to, and on fewer trials."""

from collections.abc import Hashable, Sequence
from typing import Unpack, cast

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.emg.analysis._decode import (
    CrossValidationOptions,
    DecoderOptions,
    cross_validate_decoder,
    fit_decoder,
    pair_trials,
)


def generalise(
    x: ArrayLike,
    y: ArrayLike,
    conditions: Sequence[Hashable] | np.ndarray,
    sfreq: float | int = 500.0,
    *,
    train: str = "one",
    **options: Unpack[CrossValidationOptions],
) -> pd.DataFrame:
    """Train a decoder on the trials of some conditions, and test it on those of others.

    Parameters
    ----------
    x
        Activations, in any unit: (n_trial, n_time, n_channel), or a list of (n_time, n_channel).
    y
        What is to be predicted, of the same trials, in any unit: (..., n_time, n_output).
    conditions
        (n_trial,) labels: names, or an index.
    sfreq
        Sampling rate, Hz.
    train
        "one": train on each condition, test on each other one. "others": test on each condition, train on all others.
    **options
        As for `cross_validate_decoder`, same units.

    Returns
    -------
    pandas.DataFrame
        A row for each pair of conditions and each output: train ("others" where it was all others), test, output, lag
        (s), vaf, within (cross-validated inside the test condition) and loss = within - vaf. Where an output hardly
        moves in the test condition, small errors make its vaf large and negative.
    """
    margin = options.get("margin", 0)
    xs, ys = pair_trials(x, y, margin)
    _check.option(train, ("one", "others"), "train")
    labels = list(conditions)
    if len(labels) != len(xs):
        raise ValueError(f"conditions: {len(labels)} labels for {len(xs)} trials; pass one a trial.")
    kinds = list(dict.fromkeys(labels))
    if len(kinds) < 2:
        raise ValueError(f"conditions: only {kinds[0]!r}; at least two are needed.")
    of = {c: [i for i, label in enumerate(labels) if label == c] for c in kinds}
    within = {
        c: cross_validate_decoder([xs[i] for i in of[c]], [ys[i] for i in of[c]], sfreq, **options) for c in kinds
    }
    fit_options = cast(DecoderOptions, {name: value for name, value in options.items() if name != "key"})
    if train == "one":
        splits = [(a, of[a], [b for b in kinds if b != a]) for a in kinds]
    else:
        splits = [("others", [i for i, label in enumerate(labels) if label != b], [b]) for b in kinds]
    rows = []
    for name, part, tests in splits:
        decoder = fit_decoder([xs[i] for i in part], [ys[i] for i in part], sfreq, **fit_options)
        for test in tests:
            vaf = decoder.vaf([xs[i] for i in of[test]], [ys[i] for i in of[test]], margin=margin)
            rows += [
                {"train": name, "test": test, "output": n, "lag": lag, "vaf": v, "within": w, "loss": w - v}
                for n, lag, v, w in zip(decoder.outputs, decoder.lag, vaf, within[test].mean, strict=True)
            ]
    return pd.DataFrame(rows)


def learning_curve(
    x: ArrayLike,
    y: ArrayLike,
    sizes: Sequence[int],
    sfreq: float | int = 500.0,
    *,
    key: Key[Array, ""],
    repeats: int = 5,
    test_fraction: float = 0.2,
    **options: Unpack[DecoderOptions],
) -> pd.DataFrame:
    """Compute the VAF of decoders that were fitted to fewer trials, on trials that none of them saw.

    In each repeat a share of trials is drawn and left for testing, and the training sets, which grow by size out of one
    another, are drawn from the rest.

    Parameters
    ----------
    x
        Activations, in any unit: (n_trial, n_time, n_channel), or a list of (n_time, n_channel).
    y
        What is to be predicted, of the same trials, in any unit: (..., n_time, n_output).
    sizes
        Numbers of trials to train on.
    sfreq
        Sampling rate, Hz.
    key
        Draws the trials.
    repeats
        Number of draws.
    test_fraction
        Share of the trials to test on.
    **options
        As for `fit_decoder`, same units.

    Returns
    -------
    pandas.DataFrame
        A row for each repeat, size and output: repeat, trials, output, lag (s), vaf.
    """
    margin = options.get("margin", 0)
    xs, ys = pair_trials(x, y, margin)
    left = max(1, round(float(_check.positive(test_fraction, "test_fraction")) * len(xs)))
    for size in sizes:
        _check.integer(size, "sizes")
    if max(sizes) > len(xs) - left:
        raise ValueError(
            f"sizes: {max(sizes)} of {len(xs)} trials, of which {left} are for testing; at most {len(xs) - left}."
        )
    rows = []
    for repeat in range(_check.integer(repeats, "repeats")):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, repeat), len(xs)))
        unseen, rest = order[:left], order[left:]
        for size in sizes:
            part = rest[:size]
            decoder = fit_decoder([xs[i] for i in part], [ys[i] for i in part], sfreq, **options)
            vaf = decoder.vaf([xs[i] for i in unseen], [ys[i] for i in unseen], margin=margin)
            rows += [
                {"repeat": repeat, "trials": size, "output": n, "lag": lag, "vaf": v}
                for n, lag, v in zip(decoder.outputs, decoder.lag, vaf, strict=True)
            ]
    return pd.DataFrame(rows)
