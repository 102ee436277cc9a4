r"""A surface of MEPs over the sites of stimulation, as smooth as the data say.

MEPs scatter by a factor, so that their SD grows with their mean. With c the least MEP that counts,

    E[MEP + c] = exp(eta) ,   SD[MEP + c] = phi exp(eta) ,   eta(x) = a + g(x) ,

g a Gaussian process with the kernel R phi^2 k(|x - x'| / length), k Matern's of 5/2. Length and R are where the
marginal likelihood of the working response eta + (MEP + c) / exp(eta) - 1, whose SD is phi everywhere, is largest; so
are phi and the standard error of eta known. Repeats that scatter about a site are noise, not slope, and far from all
sites the surface goes back to the mean.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

_RATIOS = np.geomspace(1e-3, 1e6, 73)  # R: variance of the process over that of the noise
_LENGTHS = 14
_KNOTS, _COMPONENTS = 400, 200  # of the process: beyond them a map has no detail
_ITERATIONS, _FREEZE = 30, 8  # of the working response; the choice of length and R settles before
_CLOSE = 1e-6  # of eta between iterations
_LEAST_VARIANCE = 1e-12  # of the working response: data without noise
_BATCH_SIZE = 1 << 13  # points at a time


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of one muscle.

    Attributes
    ----------
    length : float
        Length of the process, mm.
    noise : float
        phi, the SD of the MEPs over their mean.
    ratio : float
        R.
    offset : float
        c, uV.
    knots : (n_knot, 2) float array
        Places of the kernels, mm.
    root : (n_knot, n_component) float array
        Kernels to components of the process.
    coefficients : (1 + n_component,) float array
        Of the constant and the components.
    covariance : (1 + n_component, 1 + n_component) float array
        Of the coefficients.
    """

    length: float
    noise: float
    ratio: float
    offset: float
    knots: Float[np.ndarray, "n_knot 2"]
    root: Float[np.ndarray, "n_knot n_component"]
    coefficients: Float[np.ndarray, " n_coefficient"]
    covariance: Float[np.ndarray, "n_coefficient n_coefficient"]

    def design(self, points: Float[np.ndarray, "n_point 2"]) -> Float[np.ndarray, "n_point n_coefficient"]:
        """Return the constant and the components at points (mm)."""
        return np.insert(_kernel(points, self.knots, self.length) @ self.root, 0, 1.0, axis=1)

    def evaluate(
        self, points: Float[np.ndarray, "n_point 2"]
    ) -> tuple[Float[np.ndarray, " n_point"], Float[np.ndarray, " n_point"]]:
        """Return the mean MEP (uV, above -c), and the standard error of log(MEP + c), at points (mm)."""
        mean, error = np.empty((2, len(points)))
        for start in range(0, len(points), _BATCH_SIZE):
            rows = slice(start, start + _BATCH_SIZE)
            design = self.design(points[rows])
            mean[rows] = np.exp(design @ self.coefficients) - self.offset
            error[rows] = np.sqrt(np.maximum(((design @ self.covariance) * design).sum(1), 0))
        return mean, error

    def refit(
        self,
        design: Float[np.ndarray, "n_stimulus n_coefficient"],
        values: Float[np.ndarray, " n_stimulus"],
        count: Float[np.ndarray, " n_stimulus"],
    ) -> Float[np.ndarray, " n_coefficient"]:
        """Return the coefficients of stimuli that occur `count` times each, of the same smoothness."""
        raised, coefficients = values + self.offset, self.coefficients
        penalty = np.diag(np.r_[0.0, np.full(len(coefficients) - 1, 1 / self.ratio)])
        inverse = np.linalg.inv(design.T @ (count[:, None] * design) + penalty) @ (count[:, None] * design).T
        eta = design @ coefficients
        for _ in range(_ITERATIONS):
            coefficients = inverse @ (eta + raised * np.exp(-eta) - 1)
            before, eta = eta, design @ coefficients
            if np.abs(eta - before).max() < 1e-3:
                break
        return coefficients


def fit_surfaces(
    sites: Float[np.ndarray, "n_stimulus 2"], values: Float[np.ndarray, "n_stimulus n_muscle"], offset: float
) -> list[Surface]:
    """Fit a surface to the MEPs (uV) of each muscle at sites (mm) that are spread over an area."""
    knots = _place_knots(sites)
    size = np.linalg.norm(np.ptp(sites, 0))
    # between sites so far apart nothing can be told from noise; among equals the smoothest comes first
    least = min(np.sqrt(ConvexHull(sites).volume / len(sites)), size / 2)
    bases = [_make_basis(sites, knots, length) for length in np.geomspace(2 * size, least, _LENGTHS)]
    return [_fit(knots, bases, column, offset) for column in values.T]


@dataclass(frozen=True, eq=False)
class _Basis:
    """Components of the process of one length: orthogonal over the sites, and to the constant."""

    length: float
    root: np.ndarray  # (n_knot, k)
    values: np.ndarray  # (n_stimulus, k) components at the sites
    centred: np.ndarray  # (n_stimulus, k) the same without their means, to unit norm
    size: np.ndarray  # (k,) norms


def _place_knots(sites: np.ndarray) -> np.ndarray:
    """Choose sites that are far from each other: each next one is the furthest from those before."""
    unique = np.unique(sites, axis=0)
    if len(unique) <= _KNOTS:
        return unique
    chosen = [int(cdist(unique, unique.mean(0)[None])[:, 0].argmin())]
    away = np.full(len(unique), np.inf)
    while len(chosen) < _KNOTS:
        away = np.minimum(away, cdist(unique, unique[chosen[-1:]])[:, 0])
        chosen.append(int(away.argmax()))
    return unique[chosen]


def _make_basis(sites: np.ndarray, knots: np.ndarray, length: float) -> _Basis:
    variance, vectors = np.linalg.eigh(_kernel(knots, knots, length))
    variance, vectors = variance[::-1][:_COMPONENTS], vectors[:, ::-1][:, :_COMPONENTS]
    real = variance > 1e-9 * variance[0]
    root = vectors[:, real] / np.sqrt(variance[real])
    values = _kernel(sites, knots, length) @ root
    left, size, right = np.linalg.svd(values - values.mean(0), full_matrices=False)
    return _Basis(length, root @ right.T, values @ right.T, left, size)


def _fit(knots: np.ndarray, bases: list[_Basis], values: np.ndarray, offset: float) -> Surface:
    raised = values + offset
    eta = np.log(raised)
    choice = _choose(bases, eta)  # of eta = log(MEP + c) the working response is eta
    surface, at_sites = _solve(knots, choice, eta, offset)
    for iteration in range(_ITERATIONS):
        if np.abs(at_sites - eta).max() < _CLOSE:
            break
        eta = at_sites
        response = eta + raised * np.exp(-eta) - 1
        choice = _choose(bases, response) if iteration < _FREEZE else choice
        surface, at_sites = _solve(knots, choice, response, offset)
    return surface


def _solve(
    knots: np.ndarray, choice: tuple[_Basis, float, float], response: np.ndarray, offset: float
) -> tuple[Surface, np.ndarray]:
    """Fit the working response; return the surface, and eta at the sites."""
    basis, ratio, variance = choice
    kept = ratio * basis.size**2 > 1e-3  # the others stay at zero
    design = np.insert(basis.values[:, kept], 0, 1.0, axis=1)
    normal = design.T @ design + np.diag(np.r_[0.0, np.full(kept.sum(), 1 / ratio)])
    coefficients = np.linalg.solve(normal, design.T @ response)
    covariance = variance * np.linalg.inv(normal)
    noise, root = float(np.sqrt(variance)), basis.root[:, kept]
    surface = Surface(float(basis.length), noise, float(ratio), float(offset), knots, root, coefficients, covariance)
    return surface, design @ coefficients


def _choose(bases: list[_Basis], response: np.ndarray) -> tuple[_Basis, float, float]:
    """Return the length (its basis), R and phi^2 of the largest marginal likelihood, the constant integrated out."""
    centred, n = response - response.mean(), len(response) - 1
    best, choice = np.inf, (bases[0], _RATIOS[0], _LEAST_VARIANCE)
    for basis in bases:
        share = basis.centred.T @ centred
        grown = 1 + _RATIOS[:, None] * basis.size**2
        rest = max(centred @ centred - share @ share, 0.0)
        variance = np.maximum((rest + (share**2 / grown).sum(1)) / n, _LEAST_VARIANCE)
        loss = n * np.log(variance) + np.log(grown).sum(1)
        i = int(loss.argmin())
        if loss[i] < best - 1e-9 * abs(best if np.isfinite(best) else 0):
            best, choice = loss[i], (basis, float(_RATIOS[i]), float(variance[i]))
    return choice


def _kernel(points: np.ndarray, others: np.ndarray, length: float) -> np.ndarray:
    d = np.sqrt(5) * cdist(points, others) / length
    return (1 + d + d**2 / 3) * np.exp(-d)
