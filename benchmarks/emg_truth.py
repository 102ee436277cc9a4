"""The sequential autoencoder on data whose truth is known, beside filters; and its health in long training.

    python benchmarks/emg_truth.py [--cases lorenz,isometric,health] [--samples 50]

- lorenz: gamma EMG of 12 muscles that follow Lorenz's attractor. R^2 of the inferred with the true mean, channel by
  channel, in 40 trials that no model saw. Bars: 0.9, and 0.1 above every filter. Filters are given every advantage:
  their settings are the best of their family on these very trials, and an affine fit to the truth is allowed.
- isometric: oscillations of 20 Hz that flexors share. Models learn them from the movements, cut out of their trials,
  with settings that were chosen on draw 0 (`--draw 1` is one that they were not). Coherence (10-50 Hz) of the
  activation of flexors with dF/dt, the mean of single trials; bar: above each low-pass and each Bayesian filter of the
  grid. Then decoders, and a model, that saw half of the targets decode dF/dt at the others.
- health: 10,000 steps at the top of the range of the learning rate, at the corners of the other ranges; bar: no NaN in
  the survivors.

Predictions: 1080 steps of 50 windows take 250 s of one core for each model (measured on the rat recording).
"""

import argparse
import os
import time

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import jax
import numpy as np
import record

from jaxm2m import emg, simulate
from jaxm2m.population import Independent, SearchSpace


def rectified(samples, channels):
    return emg.preprocess(
        samples,
        500,
        channels=list(channels),
        axes="trial sample channel",
        rectified=True,
        screen=None,
        clip=None,
    )


def true_scale(data, samples):
    """What one unit of the normalised data is, channel by channel."""
    return np.median(np.asarray(samples).reshape(-1, samples.shape[-1]) / data.samples, axis=0)


def r2(found, truth):
    """Of each channel."""
    found, truth = (np.asarray(a, float).reshape(-1, a.shape[-1]) for a in (found, truth))
    return 1 - ((truth - found) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)


def best_affine(found, truth):
    """R^2 of each channel after a linear regression on the truth: what no scale can improve."""
    found, truth = (np.asarray(a, float).reshape(-1, a.shape[-1]) for a in (found, truth))
    return np.array([np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(found.T, truth.T, strict=True)])


def filters(samples):
    """Name -> (trial, time, channel) of every low-pass, Gaussian and Bayesian filter."""
    samples = np.asarray(samples)
    found = {f"low-pass {c:g} Hz": emg.lowpass(samples, 500, c) for c in emg.CUTOFFS}
    found |= {f"Gaussian, sd {1000 * s:g} ms": emg.smooth(samples, 500, s) for s in (0.005, 0.0075, 0.01, 0.015, 0.02)}
    alpha, beta = emg.bayes_grid()
    for estimate in ("argmax", "mean"):
        bayes = np.asarray(emg.bayes(samples, 500, alpha, beta, estimate=estimate))
        found |= {f"Bayes {estimate}, alpha {a:g}, beta {b:g}": x for a, b, x in zip(alpha, beta, bayes, strict=True)}
    return found


def by_family(scores):
    """The best of each family of filters, and its score."""
    best = {}
    for name, score in scores.items():
        family = name.split()[0].rstrip(",")
        if family not in best or score > best[family][1]:
            best[family] = (name, score)
    return dict(best.values())


def lorenz(options):
    truth = simulate.lorenz_emg(jax.random.key(0))
    seen, unseen = slice(0, 160), slice(160, 200)
    data = rectified(np.asarray(truth.emg), truth.channels)
    scale = true_scale(data, truth.emg)
    mean = np.asarray(truth.mean)
    start = time.perf_counter()
    fit = emg.fit(data.pick(np.arange(160)), key=jax.random.key(1), preset="single", progress=True)
    seconds = time.perf_counter() - start
    found = fit.activation(data, key=jax.random.key(2), samples=options.samples)
    found = scale * found.samples.reshape(mean.shape)
    result = {
        "seconds of training": seconds,
        "steps": int(fit.run.history.step.max()),
        "model, unseen trials": float(r2(found[unseen], mean[unseen]).mean()),
        "model, worst channel": float(r2(found[unseen], mean[unseen]).min()),
        "model, trials it was trained on": float(r2(found[seen], mean[seen]).mean()),
    }
    scores = {n: float(best_affine(x, mean[unseen]).mean()) for n, x in filters(np.asarray(truth.emg[unseen])).items()}
    result |= by_family(scores)
    record.write("emg_truth", "lorenz", result | {"bar": "0.9, and 0.1 above each filter"})


# of 20 Hz and its harmonics: less temporal shift, and less of what regularises, than a short recording of gait wants
MOVEMENTS = {
    "preset": "single",
    "batch": 100,
    "shift": 0.002,
    "schedule": Independent(epochs=5, generations=50),
    "progress": True,
}
FLEXORS = ("FCR", "FCU", "FDP 1", "FDP 2", "FDS 1", "FDS 2", "PL", "PT")


def isometric(options):
    truth = simulate.isometric_emg(jax.random.key(options.draw))
    data = rectified(np.asarray(truth.emg), truth.channels)
    rates = np.asarray(truth.pick("rate x", "rate y"))
    count, channels = len(rates), len(truth.channels)
    condition = np.asarray(truth.condition)
    first = np.round(np.asarray(truth.onset) * 500).astype(int)
    bound = 0.3 / (100 * channels)  # of what makes the loss a bound
    space = SearchSpace(
        learning_rate=8e-3, dropout=0.0, coordinated_dropout=0.3, l2_generator=1e-3, l2_controller=1e-3,
        kl_ic=bound, kl_co=bound,
    )  # fmt: skip

    def trained(rows):
        """On movements: from 150 ms before their onset to 450 ms after it."""
        cut = data.pick(rows).around(np.asarray(truth.onset)[rows], 0.15, 0.45)
        start = time.perf_counter()
        fit = emg.fit(cut, key=jax.random.key(1), space=space, **MOVEMENTS)
        return fit, time.perf_counter() - start

    def inferred(model, samples):
        found = model.activation(data, key=jax.random.key(2), samples=samples)
        return found.samples.reshape(count, -1, channels)

    fit, seconds = trained(np.arange(count))
    own = inferred(fit, options.samples)
    flexors = [truth.channels.index(c) for c in FLEXORS]
    # trials towards flexion, where there are oscillations, from 300 ms before the onset to 600 ms after it
    swinging = np.flatnonzero(np.isin(condition, (0, 1, 7)))

    def cut(x):
        return np.stack([x[i, first[i] - 150 : first[i] + 300] for i in swinging])

    def coherence(x):
        found = emg.coherence(cut(np.asarray(x))[..., flexors], cut(rates)[..., :1], 500)
        return {
            "10-50 Hz": float(found.band(10, 50).mean()),
            "15-25 Hz": float(found.band(15, 25).mean()),
        }

    def decoded(x, **how):
        return emg.cross_validate_decoder(
            list(x), list(rates), 500, lags=np.arange(0, 0.1, 0.004), whole_trials=True, **how
        )

    by_filter = {n: coherence(x) for n, x in filters(np.asarray(truth.emg)).items()}
    result = {
        "seconds of training": seconds,
        "steps": int(fit.run.history.step.max()),
        "samples": options.samples,
        "truth": coherence(truth.mean),
        "model": coherence(own),
        "model, latents at their means": coherence(inferred(fit, 0)),
    }
    for band in ("10-50 Hz", "15-25 Hz"):
        result[f"filters, {band}"] = by_family({n: c[band] for n, c in by_filter.items()})
    low = emg.lowpass(np.asarray(truth.emg), 500, 20.0)
    result["VAF of dF/dt, model"] = decoded(own).mean.tolist()
    result["VAF of dF/dt, low-pass 20 Hz"] = decoded(low).mean.tolist()
    train, test = (np.flatnonzero(condition % 2 == k) for k in (0, 1))
    part = inferred(trained(train)[0], options.samples)
    lags = np.arange(0, 0.1, 0.004)
    for name, x in (("model", own), ("model of half of the targets", part), ("low-pass 20 Hz", low)):
        decoder = emg.fit_decoder([x[i] for i in train], [rates[i] for i in train], 500, lags=lags)
        other = decoder.vaf([x[i] for i in test], [rates[i] for i in test])
        within = emg.cross_validate_decoder(
            [x[i] for i in test], [rates[i] for i in test], 500, lags=lags, whole_trials=True
        ).mean
        result[f"VAF at the targets left out, {name}"] = {
            "decoder of the other targets": np.asarray(other).tolist(),
            "decoder of their own": within.tolist(),
            "loss": (within - other).tolist(),
        }
    name = "isometric" if not options.draw else f"isometric, draw {options.draw}"
    record.write("emg_truth", name, result | {"bar": "10-50 Hz: above each filter"})


def health(options):
    corners = {
        "dropout": [0.0, 0.7, 0.0, 0.7],
        "coordinated_dropout": [0.01, 0.5, 0.99, 0.01],
        "l2_generator": [1e-5, 0.1, 1e-5, 0.1],
        "l2_controller": [1e-5, 1e-5, 0.1, 0.1],
        "kl_ic": [1e-6, 1e-4, 1e-6, 1e-4],
        "kl_co": [1e-6, 1e-6, 1e-4, 1e-4],
    }
    truth = simulate.lorenz_emg(jax.random.key(0), trials=60)
    data = rectified(np.asarray(truth.emg), truth.channels)
    start = time.perf_counter()
    fit = emg.fit(
        data,
        key=jax.random.key(1),
        preset="paper",
        population=4,
        space=SearchSpace(learning_rate=5e-3, **corners),
        schedule=Independent(epochs=25, generations=20),
        batch_size=16,
        progress=True,
    )
    history = fit.run.history
    result = {
        "seconds": time.perf_counter() - start,
        "steps": int(history.step.max()),
        "members": 4,
        "step of the first loss that was not finite, or -1": fit.run.members.broken.tolist(),
        "scores that were not finite": int((~np.isfinite(history.score)).sum()),
        "last scores": history.score.tail(4).tolist(),
        "best scores": fit.run.members.best.score.tolist(),
    }
    record.write("emg_truth", "health", result | {"bar": "no NaN in the survivors"})


def main():
    cases = {"lorenz": lorenz, "isometric": isometric, "health": health}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(cases))
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--draw", type=int, default=0, help="Of the isometric task's data.")
    options = parser.parse_args()
    for name in options.cases.split(","):
        cases[name](options)


if __name__ == "__main__":
    main()
