"""How many synergies: bi-cross-validation of recordings with five true ones and noise that is slow.

Fifteen muscles, five synergies of 3 to 6 muscles each (Gamma(2, 1), no pair with a cosine over 0.7, none within
another), activations exp(0.8 g) with g Gaussian of unit variance smoothed over 25 samples (SD), noise of 20 % of each
muscle's SD that is white or smoothed over 15 or 40 samples, cut at zero; each muscle in units of its SD, as
preprocessing normalises; 4000 samples, 20 draws. By blocks (as of activity over time), and with single samples left out
(as of MEPs). Beside it the same in units in which the muscles' noise differs: bi-cross-validation counts too many then.

Prediction: where noise is white both are right; where it is slow, single samples count too many.
"""

import argparse

import jax
import numpy as np
import record
from scipy.ndimage import gaussian_filter1d

import jaxm2m as jm

RANK, MUSCLES, SAMPLES, NOISE = 5, 15, 4000, 0.2


def count_synergies(draws: int, smooth: float, blocks: int | None, *, scaled: bool = True) -> np.ndarray:
    """Return the number that is found in each draw."""
    counts = []
    for seed in range(draws):
        samples = make_recording(seed, smooth, scaled=scaled)
        counts.append(jm.muscle.bi_cross_validation(samples, blocks=blocks, key=jax.random.key(seed)).rank)
    return np.array(counts)


def make_recording(seed: int, smooth: float, *, scaled: bool = True) -> np.ndarray:
    """Return (n_sample, n_muscle) activity whose noise is smoothed over so many samples."""
    rng = np.random.default_rng(seed)
    slow = gaussian_filter1d(rng.normal(size=(SAMPLES, RANK)), 25, axis=0)
    clean = np.exp(0.8 * slow / slow.std(0)) @ draw_vectors(rng).T
    noise = rng.normal(size=clean.shape)
    noise = gaussian_filter1d(noise, smooth, axis=0) if smooth else noise
    samples = np.maximum(clean + NOISE * clean.std(0) * noise / noise.std(0), 0)
    return samples / samples.std(0) if scaled else samples


def draw_vectors(rng: np.random.Generator) -> np.ndarray:
    """Return (n_muscle, n_synergy) that can be told from each other, and in which every muscle takes part."""
    while True:
        columns: list[np.ndarray] = []
        while len(columns) < RANK:
            new = np.zeros(MUSCLES)
            new[rng.choice(MUSCLES, rng.integers(3, 7), replace=False)] = 1
            new *= rng.gamma(2, 1, MUSCLES)
            alike = [new @ c / np.linalg.norm(new) / np.linalg.norm(c) > 0.7 for c in columns]
            within = [((new > 0) <= (c > 0)).all() or ((c > 0) <= (new > 0)).all() for c in columns]
            if not any(alike + within):
                columns.append(new / new.sum())
        vectors = np.array(columns).T
        if vectors.any(1).all():
            return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    draws = parser.parse_args().draws
    for smooth in (0.0, 15.0, 40.0):
        row = {}
        for name, blocks, scaled in (
            ("blocks", 8, True),
            ("single samples", None, True),
            ("blocks, muscles as they are", 8, False),
        ):
            counts = count_synergies(draws, smooth, blocks, scaled=scaled)
            ends = [int(counts.min()), int(counts.max())]
            row[name] = {"right": int((counts == RANK).sum()), "least, largest": ends}
        record.write("synergies", f"noise smoothed over {smooth:g} samples", {"draws": draws} | row)


if __name__ == "__main__":
    main()
