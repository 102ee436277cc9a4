"""Decoders on other conditions than they were fitted to, and on fewer trials."""

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from jaxm2m import _check
from jaxm2m.emg._decode import decode, fit_decoder, paired


def generalise(
    x: Any,
    y: Any,
    conditions: Sequence[Hashable] | np.ndarray,
    sfreq: float | int = 500.0,
    *,
    train: str = "one",
    **how: Any,
) -> pd.DataFrame:
    """Train on the trials of some conditions, test on those of others.

    Parameters
    ----------
    x, y
        Trials, as for `decode`.
    conditions
        (n_trial,) labels.
    train
        "one": train on each condition, test on each other one. "others": test on each condition, train on all others.
    sfreq, **how
        As for `decode`.

    Returns
    -------
    pandas.DataFrame
        A row a pair of conditions and an output: train ("others" where it was all others), test, output, lag (s), vaf,
        within (cross-validated inside the test condition) and loss = within - vaf.
        Where an output hardly moves in the test condition, small errors make its vaf large and negative.

    """
    xs, ys = paired(x, y, how.get("margin", 0))
    _check.option(train, ("one", "others"), "train")
    labels = list(conditions)
    if len(labels) != len(xs):
        raise ValueError(f"conditions: {len(labels)} labels for {len(xs)} trials; pass one a trial.")
    kinds = list(dict.fromkeys(labels))
    if len(kinds) < 2:
        raise ValueError(f"conditions: only {kinds[0]!r}; at least two are needed.")
    of = {c: [i for i, label in enumerate(labels) if label == c] for c in kinds}
    within = {c: decode([xs[i] for i in of[c]], [ys[i] for i in of[c]], sfreq, **how) for c in kinds}
    margin, fit = how.get("margin", 0), {k: v for k, v in how.items() if k != "key"}
    if train == "one":
        splits = [(a, of[a], [b for b in kinds if b != a]) for a in kinds]
    else:
        splits = [("others", [i for i, label in enumerate(labels) if label != b], [b]) for b in kinds]
    rows = []
    for name, part, tests in splits:
        decoder = fit_decoder([xs[i] for i in part], [ys[i] for i in part], sfreq, **fit)
        for test in tests:
            vaf = decoder.vaf([xs[i] for i in of[test]], [ys[i] for i in of[test]], margin=margin)
            rows += [
                {"train": name, "test": test, "output": n, "lag": lag, "vaf": v, "within": w, "loss": w - v}
                for n, lag, v, w in zip(decoder.outputs, decoder.lag, vaf, within[test].mean, strict=True)
            ]
    return pd.DataFrame(rows)


def learning_curve(
    x: Any,
    y: Any,
    sizes: Sequence[int],
    sfreq: float | int = 500.0,
    *,
    key: Key[Array, ""],
    repeats: int = 5,
    test: float = 0.2,
    **how: Any,
) -> pd.DataFrame:
    """VAF of decoders that were fitted to fewer trials, on trials that none of them saw.

    In each repeat a share of trials is drawn and left for testing, and the training sets, which grow by size out of one
    another, are drawn from the rest.

    Parameters
    ----------
    x, y
        Trials, as for `decode`.
    sizes
        Numbers of trials to train on.
    sfreq
        Hz.
    key
        Of the draws.
    repeats
        Number of draws.
    test
        Share of trials to test on.
    **how
        As for `fit_decoder`.

    Returns
    -------
    pandas.DataFrame
        repeat, trials, output, lag (s), vaf.

    """
    margin = how.get("margin", 0)
    xs, ys = paired(x, y, margin)
    left = max(1, round(float(_check.positive(test, "test")) * len(xs)))
    for size in sizes:
        _check.integer(size, "sizes")
    if max(sizes) > len(xs) - left:
        raise ValueError(
            f"sizes: {max(sizes)} of {len(xs)} trials, of which {left} are for testing; at most {len(xs) - left}."
        )
    rows = []
    for repeat in range(_check.integer(repeats, "repeats")):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, repeat), len(xs)))
        held, rest = order[:left], order[left:]
        for size in sizes:
            part = rest[:size]
            decoder = fit_decoder([xs[i] for i in part], [ys[i] for i in part], sfreq, **how)
            vaf = decoder.vaf([xs[i] for i in held], [ys[i] for i in held], margin=margin)
            rows += [
                {"repeat": repeat, "trials": size, "output": n, "lag": lag, "vaf": v}
                for n, lag, v in zip(decoder.outputs, decoder.lag, vaf, strict=True)
            ]
    return pd.DataFrame(rows)
