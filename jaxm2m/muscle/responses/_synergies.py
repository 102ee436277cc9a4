r"""Muscle synergies: non-negative factors of MEPs, and whether two sets of them are the same.

    min_{S, a} 1/2 sum_t |m_t - S a_t|^2 ,   S >= 0, a_t >= 0, 1'S = 1' .

Any factorisation W h becomes this by S = W D^-1, a = D h with D = diag(1'W): the constraint costs nothing.
The factors are not always unique: if a synergy uses no muscle that another does not use as well, that other may give
up a part of it without loss of fit.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy.optimize import linear_sum_assignment, nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle._random import numpy_generator
from jaxm2m.muscle.responses._activity import Activity, join_trials
from jaxm2m.muscle.responses._meps import Meps, amplitudes


@dataclass(frozen=True, eq=False, repr=False)
class Synergies:
    """Synergies fitted to MEPs, or to activity over time.

    Attributes
    ----------
    vectors : (n_muscle, n_synergy) float array
        S, the share of each muscle in each synergy; columns sum to 1, in order of falling total activation. A synergy
        that the fit left empty is a column of zeros.
    muscles : tuple of str
        Names of the muscles.
    vaf : float
        Uncentred VAF of the MEPs it was fitted to.
    rss : (n_start,) float array
        Residual sum of squares that each start reached; the least was taken.
    converged : bool
        Whether that start met the tolerance.
    """

    vectors: Float[np.ndarray, "n_muscle n_synergy"]
    muscles: tuple[str, ...]
    vaf: float
    rss: Float[np.ndarray, " n_start"]
    converged: bool

    def __repr__(self) -> str:
        n, k = self.vectors.shape
        return f"Synergies({k} of {n} muscles, VAF {self.vaf:.3f}{'' if self.converged else ', not converged'})"

    def activations(self, meps: Meps | Activity | ArrayLike) -> Float[np.ndarray, "n_stimulus n_synergy"]:
        """Compute the activations of stimuli, argmin |m - S a| over a >= 0, also of new ones.

        Parameters
        ----------
        meps
            `Meps`, or (n_stimulus, n_muscle), in uV or scaled; or activity as for `synergies`, a row a sample.

        Returns
        -------
        array
            (n_stimulus, n_synergy) activations, in the unit of the MEPs.
        """
        values, muscles = _read_values(meps)
        if muscles is not None and muscles != self.muscles and set(muscles) == set(self.muscles):
            raise ValueError(f"meps: {', '.join(muscles)}; the synergies are of {', '.join(self.muscles)}: same order.")
        if values.shape[1] != len(self.vectors):
            raise ValueError(f"meps: {values.shape[1]} muscles, the synergies have {len(self.vectors)}; pass the same.")
        return np.array([nnls(self.vectors, row)[0] for row in values])

    def reconstruct(self, activations: ArrayLike) -> Float[Array | np.ndarray, "*batch n_muscle"]:
        """Reconstruct MEPs from activations, S a.

        Parameters
        ----------
        activations
            (..., n_synergy) activations a, in any unit.

        Returns
        -------
        array
            (..., n_muscle) MEPs, in the unit of the activations; JAX arrays stay JAX arrays.
        """
        return _check.array(activations, "activations") @ self.vectors.T


@dataclass(frozen=True, eq=False, repr=False)
class Matching:
    """Pairs of synergies of two fits.

    Attributes
    ----------
    pairs : (n_pair, 2) int array
        Index of the synergy of the first fit, and of the second.
    cosine, p : (n_pair,) float arrays
        Their cosine, and the share of pairs of shuffled synergies that are at least as alike.
    chance : float
        95th percentile of the cosine of such pairs.
    """

    pairs: Int[np.ndarray, "n_pair 2"]
    cosine: Float[np.ndarray, " n_pair"]
    p: Float[np.ndarray, " n_pair"]
    chance: float

    def __repr__(self) -> str:
        low, high = self.cosine.min(), self.cosine.max()
        return f"Matching({len(self.pairs)} pairs, cosine {low:.3f} to {high:.3f}, chance {self.chance:.3f})"


def synergies(
    meps: Meps | Activity | ArrayLike,
    n_synergy: int,
    *,
    n_starts: int = 10,
    key: Key[Array, ""] | None = None,
    iterations: int = 20_000,
    tolerance: float = 1e-6,
) -> Synergies:
    """Factorise MEPs into synergies by coordinate descent from several random starts, and take the best.

    Parameters
    ----------
    meps
        `Meps`, or (n_stimulus, n_muscle), not negative: scaled values, or uV, in which large muscles count most. Or
        activity over time, whose names are taken: `emg.Rectified`, `emg.Activation`, or their `Cycles`
        (`normalise_cycles`); bare arrays are (n_sample, n_muscle).
    n_synergy
        Number of synergies, at most that of muscles, and of stimuli.
    n_starts
        Number of random starts; more of them than one also show how many agree (`rss`).
    key
        Draws the starts; None: `jax.random.key(0)`.
    iterations
        Largest number of iterations.
    tolerance
        Ratio of the violation of optimality to that at the start at which the iteration stops.

    Returns
    -------
    Synergies
        The synergies of the best start.

    Raises
    ------
    ValueError
        Rank too high; MEPs that are negative, NaN, flagged or all zero.

    Warns
    -----
    UserWarning
        The best start did not converge, or left synergies empty.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> meps = np.array([[9.0, 1.0, 0.0], [8.0, 2.0, 1.0], [0.0, 4.0, 8.0], [1.0, 5.0, 9.0], [5.0, 3.0, 4.0]])
    >>> result = jm.muscle.synergies(meps, 2)
    >>> result.vectors.shape, f"{float(result.vaf):.3f}"
    ((3, 2), '0.999')
    """
    values, muscles = read_amplitudes(meps)
    check_ranks([n_synergy], "n_synergy", min(values.shape))
    fits = factorise(values, n_synergy, n_starts, key, iterations, tolerance)
    rss = np.array([((values - a @ h) ** 2).sum() for a, h, _ in fits])
    a, h, converged = fits[int(rss.argmin())]
    if not converged:
        late = sum(not done for *_, done in fits)
        warnings.warn(
            f"synergies: {late} of {n_starts} starts, the best among them, had not converged to {tolerance:g} after "
            f"{iterations} iterations; raise iterations, or accept a larger tolerance.",
            stacklevel=2,
        )
    total = h.sum(1)
    activity = a.sum(0) * total
    empty = activity == 0
    if empty.any():
        warnings.warn(
            f"synergies: {int(empty.sum())} of {n_synergy} are empty, the data hold no more; take fewer.", stacklevel=2
        )
    vectors = np.where(empty, 0, h.T / np.where(empty, 1, total))[:, np.argsort(-activity, kind="stable")]
    return Synergies(vectors, muscles, float(1 - rss.min() / (values**2).sum()), rss, converged)


def match_synergies(
    first: Synergies | ArrayLike,
    second: Synergies | ArrayLike,
    *,
    shuffles: int = 1000,
    key: Key[Array, ""] | None = None,
) -> Matching:
    """Pair synergies of two fits so that the sum of cosines is largest, and compare with shuffled ones.

    Chance is what the same matching finds after the muscles of each synergy of `second` have been permuted.

    Parameters
    ----------
    first, second
        `Synergies`, or vectors (n_muscle, n_synergy) in any unit, of the same muscles; the numbers of synergies may
        differ.
    shuffles
        Number of permutations.
    key
        Draws the permutations; None: `jax.random.key(0)`.

    Returns
    -------
    Matching
        The pairs, their cosines and the chance level.
    """
    one, two = (np.asarray(s.vectors if isinstance(s, Synergies) else s, np.float64) for s in (first, second))
    if one.ndim != 2 or two.ndim != 2 or len(one) != len(two):
        raise ValueError(
            f"second: shape {two.shape}, but first has {one.shape}; pass (n_muscle, n_synergy) of the same."
        )
    if isinstance(first, Synergies) and isinstance(second, Synergies) and first.muscles != second.muscles:
        raise ValueError(f"second: {', '.join(second.muscles)}, but first has {', '.join(first.muscles)}; match them.")
    pairs, cosines = _match(one, two)
    rng = numpy_generator(key)
    _check.integer(shuffles, "shuffles")
    null = np.concatenate([_match(one, rng.permuted(two, axis=0))[1] for _ in range(shuffles)])
    p = (1 + (null >= cosines[:, None]).sum(1)) / (1 + null.size)
    return Matching(pairs, cosines, p, float(np.quantile(null, 0.95)))


def read_amplitudes(meps: Meps | Activity | ArrayLike) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return amplitudes that can be factorised, and the muscles' names."""
    values, muscles = _read_values(meps)
    if not values.any():
        raise ValueError("meps: all are zero; there is nothing to factorise.")
    return values, muscles or tuple(str(k + 1) for k in range(values.shape[1]))


def _read_values(meps: Meps | Activity | ArrayLike) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if isinstance(meps, Meps):
        return amplitudes(meps), meps.muscles
    muscles = None
    if isinstance(meps, Activity):
        meps, muscles = join_trials(meps), tuple(meps.channels)
    values = np.asarray(_check.finite(meps, "meps"), np.float64)
    if values.size and values.min() < 0:
        raise ValueError(
            f"meps: {(values < 0).mean():.1%} of the values are negative, down to {values.min():.3g} (the largest is "
            f"{values.max():.3g}); envelopes that a low-pass filter took a little below zero are raised by "
            "np.maximum(x, 0), EMG that is not rectified goes through emg.preprocess."
        )
    return amplitudes(values), muscles


def check_ranks(ranks: Iterable[int] | np.ndarray, name: str, most: int) -> list[int]:
    checked = [_check.integer(rank, name) for rank in ranks]
    if not checked or max(checked) > most:
        raise ValueError(f"{name}: {max(checked, default='none')}; 1 to {most} is what these trials and muscles allow.")
    return checked


def factorise(
    values: np.ndarray, rank: int, n_starts: int, key: Key[Array, ""] | None, iterations: int, tolerance: float
) -> list:
    """Factorise from each start into (n_stimulus, rank) and (rank, n_muscle); tell whether they met the tolerance."""
    _check.integer(n_starts, "n_starts")
    seeds = numpy_generator(key).integers(2**31, size=n_starts)
    return [_factorise(values, rank, int(s), iterations, tolerance) for s in seeds]


def _factorise(
    values: np.ndarray, rank: int, seed: int, iterations: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Factorise into (n_stimulus, rank) and (rank, n_muscle), and tell whether they met the tolerance."""
    model = NMF(rank, init="random", random_state=seed, max_iter=iterations, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ours says more
        a = model.fit_transform(values)
    return a, model.components_, model.n_iter_ < iterations


def _match(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit = [v / np.maximum(np.linalg.norm(v, axis=0), np.finfo(float).tiny) for v in (one, two)]
    cosines = unit[0].T @ unit[1]
    rows, columns = linear_sum_assignment(-cosines)
    return np.stack([rows, columns], -1), cosines[rows, columns]
