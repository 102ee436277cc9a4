"""The stimuli that tell most about hot spots, for who knows the truth: what `design.py` holds rules against."""

import jax
import numpy as np
from sources import RATE

import jaxm2m as jm

LEARNT = 300  # stimuli of random candidates from which the truth is known


def choose_knowing(at_roi, made, loop, key):
    """Choose the stimuli that tell most about hot spots, one after the other, for who knows the truth.

    Muscles' densities and curves are those that `LEARNT` stimuli of random candidates leave, and stay.
    """
    patch = loop.patch
    blind = jm.muscle.track_sources(
        patch.field, patch.fields * (loop.didt / 1e6), muscles=made.muscles, rate=RATE, centre=patch.centre,
        capacity=LEARNT,
    )  # fmt: skip
    knowing, rng = blind, np.random.default_rng(0)
    for number in range(LEARNT):
        pose, didt = patch.poses[rng.integers(len(patch))], rng.choice(loop.levels)
        e = at_roi(pose, didt=didt)
        meps = np.asarray(made.draw_meps(jax.random.fold_in(key, number), e))
        knowing = knowing.add(np.asarray(e)[patch.chosen], meps)
    nothing = np.zeros((0, len(blind.kernel))), np.zeros((0, len(made.muscles)))
    at_truth = blind.restore(*nothing, np.asarray(knowing.standard), np.asarray(blind.shared)).linearise()
    slopes, J = [], at_truth.centroid_slopes()
    for level in loop.levels:
        _, variance, slope = at_truth.respond(blind.measure(patch.fields * (level / 1e6)))
        slopes.append(np.asarray(slope, np.float64) / np.sqrt(np.asarray(variance, np.float64))[..., None])
    slopes = np.concatenate(slopes)
    unknown, chosen = np.broadcast_to(np.eye(J.shape[2]), (len(J), J.shape[2], J.shape[2])).copy(), []
    for _ in range(loop.n_stimulus):
        score = np.zeros(len(slopes))
        for C, s, j in zip(unknown, slopes.swapaxes(0, 1), J, strict=True):
            root = np.linalg.cholesky(np.linalg.inv(j @ C @ j.T))
            shares = (s @ C @ j.T @ root) ** 2
            score -= 0.5 * np.log1p(-shares.sum(1) / (1 + np.einsum("ni,ni->n", s @ C, s)))
        best = int(score.argmax())
        for C, s in zip(unknown, slopes[best], strict=True):
            C -= np.outer(C @ s, C @ s) / (1 + s @ C @ s)
        chosen.append((patch.poses[best % len(patch)], float(loop.levels[best // len(patch)])))
    return chosen
