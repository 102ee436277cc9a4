"""Resting motor thresholds: how many stimuli a rule takes until it is as near to the truth as another.

Subjects have thresholds of 35 to 75 % of the largest intensity (156 A/us); MEPs are drawn by `simulate.mep`, with its
excitability from stimulus to stimulus. Held against each other: the posterior of the curve, the relative-frequency rule
(five of ten) and maximum-likelihood tracking of yes and no. Errors are root mean squares over subjects and draws, as
shares of the threshold. A second case draws MEPs about a recruitment curve of another family, which the posterior's
model does not contain.

Prediction: excitability of 4.9 %MSO is 6.7 % of a threshold of 72.6 %MSO. A yes or no near it has at most 2/pi of the
information of the deviation itself, so that maximum likelihood needs pi/2 times as many stimuli as the best use of
amplitudes: 0.64. The relative-frequency rule gives six to ten stimuli to each of its last steps of 1 %: 60 and more.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import record

import jaxm2m as jm

LOWEST, HIGHEST = 31e6, 156e6  # A/s
SHARES = 0.35, 0.75  # of the largest intensity
LONGEST = 240  # stimuli of the relative-frequency rule
COMPARED = 10, 20, 30, 40


def begin(rule: str, key):
    if rule == "posterior":
        return jm.design.track_threshold(LOWEST, HIGHEST, key=key, capacity=max(COMPARED), n_particle=1024)
    if rule == "relative frequency":
        return jm.design.track_relative_frequency(LOWEST, HIGHEST)
    return jm.design.track_maximum_likelihood(LOWEST, HIGHEST)


@partial(jax.jit, static_argnames="curve")
def stimulate(state, key, k, unit, curve: str):
    """The rule after its next stimulus, and its estimate (3,), as a share of the unit."""
    k_next, k_mep = jax.random.split(jax.random.fold_in(key, k))
    didt = state.propose(k_next)
    state = state.add(didt, jm.simulate.mep(k_mep, (didt / unit)[None], curve=curve)[0])
    return state, jnp.stack(state.threshold()) / unit


def hunt(key, unit: float, rule: str, curve: str, n: int):
    """Estimates (n, 3), as shares of the unit of intensity, and after how many stimuli the rule had finished."""
    state, rows = begin(rule, key), []
    key, unit = jax.random.fold_in(key, 1 << 20), jnp.asarray(unit, jnp.float32)
    while len(rows) < n and not bool(getattr(state, "finished", False)):
        state, estimate = stimulate(state, key, len(rows), unit, curve)
        rows.append(estimate)
    return np.pad(np.array(rows, np.float64), ((0, n - len(rows)), (0, 0)), mode="edge"), len(rows)


def find_truth(curve: str) -> float:
    """The strength at which the median MEP is 50 uV."""
    strengths = np.linspace(0.9, 1.1, 41)
    meps = jm.simulate.mep(jax.random.key(9), jnp.broadcast_to(jnp.asarray(strengths), (40_001, 41)), curve=curve)
    return float(np.interp(np.log(50.0), np.log(np.median(np.asarray(meps), axis=0)), strengths))


def measure_row(subjects: int, draws: int, curve: str) -> dict:
    """Return errors of the three rules and the shares of stimuli that the posterior needs."""
    shares = np.random.default_rng(0).uniform(*SHARES, subjects)
    units = np.repeat(shares * HIGHEST, draws)
    keys, truth, last = jax.random.split(jax.random.key(1), len(units)), find_truth(curve), max(COMPARED)
    row: dict = {"subjects": subjects, "draws": draws, "curve": curve, "truth": truth}
    estimates, counts = {}, {}
    for rule, n in {"posterior": last, "maximum likelihood": last, "relative frequency": LONGEST}.items():
        began = time.perf_counter()
        results = [hunt(key, float(unit), rule, curve, n) for key, unit in zip(keys, units, strict=True)]
        estimates[rule], counts[rule] = (np.array(values) for values in zip(*results, strict=True))
        estimates[rule] = estimates[rule] / truth
        row[f"{rule}, ms a stimulus"] = 1e3 * (time.perf_counter() - began) / counts[rule].sum()
    errors = {rule: np.sqrt(((e[..., 0] - 1) ** 2).mean(0)) for rule, e in estimates.items()}
    count = counts["relative frequency"]
    row["unfinished"] = int((count == LONGEST).sum())
    row["relative frequency, stimuli"] = float(count.mean())
    row["relative frequency, error"] = float(errors["relative frequency"][-1])
    row["of the relative-frequency rule's stimuli"] = (
        count_until(errors["posterior"], row["relative frequency, error"]) / count.mean()
    )
    most = 0.0
    for n in COMPARED:
        row[f"posterior, error after {n}"] = float(errors["posterior"][n - 1])
        row[f"maximum likelihood, error after {n}"] = float(errors["maximum likelihood"][n - 1])
        most = max(most, count_until(errors["posterior"], float(smooth(errors["maximum likelihood"], n))) / n)
    row["of maximum likelihood's stimuli, at most"] = most
    inside = (estimates["posterior"][..., 1] <= 1) & (estimates["posterior"][..., 2] >= 1)
    row["truth in the 90 % interval"] = float(inside[:, np.array(COMPARED) - 1].mean())
    row["bias after 40, %"] = float(100 * (estimates["posterior"][:, -1, 0] - 1).mean())
    return row


def smooth(errors: np.ndarray, n: float | np.ndarray) -> np.ndarray:
    """The error after n stimuli, by a polynomial in the logarithms that draws do not roughen."""
    counts = np.arange(3, len(errors) + 1)
    return np.exp(np.polynomial.Polynomial.fit(np.log(counts), np.log(errors[2:]), 3)(np.log(n)))


def count_until(errors: np.ndarray, limit: float) -> float:
    """Stimuli until the error is down to a limit, by its smooth course; infinite where it does not get there."""
    fine = np.linspace(3, len(errors), 2000)
    below = np.flatnonzero(smooth(errors, fine) <= limit)
    return float(fine[below[0]]) if len(below) else float("inf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--curve", choices=("goetz", "boltzmann"), help="only this recruitment curve")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    for curve in (options.curve,) if options.curve else ("goetz", "boltzmann"):
        row = measure_row(options.subjects, options.draws, curve)
        print("\n".join(f"{name}: {value}" for name, value in row.items()), "\n", flush=True)
        if not options.dry:
            record.write("thresholds", curve, row)
