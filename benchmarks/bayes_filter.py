"""The Bayesian filter for the source's whole grid: 12 channels, 60 s at 500 Hz, 44 pairs of alpha and beta.

    python benchmarks/bayes_filter.py [--seconds 60]

Each likelihood and estimate, in float32 and float64, whole and by the second of processor time; and against a NumPy
loop over the samples, in float64, of some pairs of the grid and all channels (the largest difference; for the argmax,
which can only be off by whole bins, the share of samples that are).

Prediction: 12 x 30,000 x 44 x 100 = 1.6e9 bins, some 12 operations each, the state of 0.4 MB in the cache: 10 s on one
core. Bar: 30 s on two cores, 1e-10.
"""

import argparse
import itertools
import time

import jax
import numpy as np
import record
from scipy import signal

import jaxm2m.emg


def made(seconds, channels=12):
    """Gamma-like rectified EMG with a changing amplitude, its 95th percentile 1."""
    random = np.random.default_rng(0)
    n = round(500 * seconds)
    size = np.exp(2 * signal.lfilter([0.02], [1, -0.99], random.normal(size=(n, channels)), axis=0))
    x = np.abs(random.normal(size=(n, channels))) * size
    return x / np.percentile(x, 95, axis=0)


def plain(x, alpha, beta, likelihood, estimate, dt=1 / 500, sigma_max=2.0, bins=100):
    """(n_time, n_channel), one pair."""
    d = sigma_max / bins
    sigma = d * np.arange(1, bins + 1)
    p = np.full((x.shape[1], bins), 1 / bins)
    result = np.empty(x.shape)
    for t, e in enumerate(x[:, :, None]):
        edged = np.concatenate([p[:, :1], p, p[:, -1:]], 1)
        p = p + dt * alpha * (edged[:, :-2] - 2 * p + edged[:, 2:]) / d**2 + dt * beta * (1 - p)
        p = p * np.exp(-(e**2) / (2 * sigma**2) if likelihood == "gaussian" else -e / sigma) / sigma
        p /= p.sum(1, keepdims=True)
        result[t] = sigma[p.argmax(1)] if estimate == "argmax" else p @ sigma
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    x = made(options.seconds)
    alpha, beta = jaxm2m.emg.bayes_grid()
    for precision, likelihood, estimate in itertools.product(
        ("float32", "float64"), ("gaussian", "laplace"), ("argmax", "mean")
    ):
        with jax.enable_x64(precision == "float64"):
            wall, cpu = time.perf_counter(), time.process_time()
            found = np.asarray(jaxm2m.emg.bayes(x, 500.0, alpha, beta, likelihood=likelihood, estimate=estimate))
            row = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "seconds": options.seconds}
        if precision == "float64":
            chosen = (0, 10, 15, 43)
            expected = np.stack([plain(x, alpha[i], beta[i], likelihood, estimate) for i in chosen])
            difference = np.abs(found[list(chosen)] - expected)
            row |= {"largest_difference": difference.max(), "share_over_1e-10": (difference > 1e-10).mean()}
        record.write("bayes_filter", f"{precision} {likelihood} {estimate}", row)


if __name__ == "__main__":
    main()
