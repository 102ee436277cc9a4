"""Sources of muscles from a mapping session: the posterior of densities and curves, given fields and MEPs."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxm2m import _check
from jaxm2m._precision import full_precision
from jaxm2m._progress import progress_bar
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.cortex import FiringRate
from jaxm2m.efield import FieldMap, Grid, Points
from jaxm2m.muscle.responses._meps import Meps
from jaxm2m.muscle.sources._activity import read_activity
from jaxm2m.muscle.sources._density import Bumps, DensityPrior, make_bumps, pad_bumps, weigh_bumps
from jaxm2m.muscle.sources._drift import make_no_drift
from jaxm2m.muscle.sources._posterior import (
    Draws,
    Measured,
    Mode,
    describe_mode,
    draw_posterior,
    find_mode,
    measure_drive,
)
from jaxm2m.muscle.sources._posterior_check import check_posterior
from jaxm2m.muscle.sources._recruitment_curve import (
    N_NUMBER,
    CurvePrior,
    RecruitmentCurve,
    curve_from,
    make_curve_prior,
    mean_response,
)
from jaxm2m.muscle.sources._sources import Sources

PRIORS = (DensityPrior(), DensityPrior(reach=14.0))
WIDE = DensityPrior(reach=20.0)  # with which the muscles' common centre is looked for
_PADDING = 64  # of bumps that are added at a time: few shapes are few programs
_LEAST_USABLE = 10  # MEPs of a muscle
_LEAST_RANGE = 0.3  # decades from the 5th to the 95th percentile: noise alone has less
_RESPONSE = 50.0  # uV


def fit_sources(
    fields: PathLike | ArrayLike,
    meps: Meps | ArrayLike,
    *,
    grid: Grid | Points,
    key: Key[Array, ""],
    rate: FiringRate | None = None,
    muscles: Sequence[str] | None = None,
    didt: ArrayLike | None = None,
    grey: FieldMap | ArrayLike | None = None,
    normals: ArrayLike | None = None,
    centre: ArrayLike | None = None,
    prior: DensityPrior | Sequence[DensityPrior] = PRIORS,
    n_draw: int = 64,
    progress: bool | None = None,
) -> Sources:
    """Fit where in cortex each muscle is driven from, and how it is recruited: a posterior, in seconds.

    For a muscle, a stimulus and the grey points p with their activity r_p (the firing rate, or the field),

        V = curve(gain sum_p w(p) r_p + excitability),   w >= 0, sum_p w(p) = 1, w smooth,

    with a curve of floor, threshold and plateau of its own. Where networks know only poses like those of the session,
    this holds for every pose whose field is known, as long as MEPs follow the local field through one curve and one
    rate.

    Parameters
    ----------
    fields
        (n_stimulus, n_point, 3) or (n_stimulus, nx, ny, nz, 3) V/m at the stimuli's own dI/dt, or the path of an HDF5
        file of `efield.compute_fields`.
    meps
        `Meps`, of which what is flagged or missing counts for nothing, or (n_stimulus, n_muscle) peak-to-peak uV, NaN
        where there is none. Zero, as tables have it for "no response", counts as the muscle's smallest MEP above it.
    grid
        The region of the fields.
    key
        All randomness follows from it.
    rate
        The firing rate as a function of the field; None: the field itself.
    muscles
        Names of the muscles; those of `Meps`, or numbers, by default.
    didt
        dI/dt of the stimuli, a number or (n_stimulus,), A/s, for thresholds that need it (`cortex.threshold`).
    grey
        The field map of the region, which knows which of its points are grey matter, or a mask of them (n_point,) or
        (nx, ny, nz). None: what the file of the fields says; where it says nothing, all points with a field are taken,
        white matter too, with a warning.
    normals
        (n_point, 3) into cortex, of any length: without a rate, the component of the field along them counts, where it
        goes into cortex; None: the magnitude.
    centre
        (3,) mm, about which sources are looked for. None: found from all muscles together, from the middle of the grid
        on.
    prior
        What is believed of a density beforehand; of several the one with the largest evidence is taken.
    n_draw
        Draws of the posterior that are kept.
    progress
        Whether a progress bar is shown; None: on a terminal only.

    Returns
    -------
    Sources
        Draws of the posterior, and what they say of any field.

    Raises
    ------
    ValueError
        Fields, grid and MEPs that do not fit each other; no grey matter; fewer stimuli than muscles; no MEP above 50
        uV; activity that does not vary.

    Notes
    -----
    The idea of regressing MEPs on the local field is that of K. Weise et al., NeuroImage 209, 116486 (2020), and O.
    Numssen et al., NeuroImage 245, 118654 (2021); a density in place of single points, its prior and the joint
    posterior are ours. Curves and noise follow S. M. Goetz et al., IEEE Trans. Neural Syst. Rehabil. Eng. 27, 1539
    (2019).
    """
    region = np.asarray(grid.positions(), np.float64)
    y, usable, names = read_meps(meps, muscles)
    candidates = (prior,) if isinstance(prior, DensityPrior) else tuple(prior)
    if not candidates:
        raise ValueError("prior: none; pass a DensityPrior or several.")
    _check.integer(n_draw, "n_draw", minimum=2)
    middle = None if centre is None else np.asarray(_check.points(centre, "centre"), np.float64)
    if middle is not None and middle.shape != (3,):
        raise ValueError(f"centre: shape {middle.shape}; give one point x, y, z in mm.")
    responses, activity, assumed = read_activity(
        fields, grid, len(y), rate=rate, normals=normals, didt=didt, grey=grey, progress=progress
    )
    if assumed:
        warnings.warn(assumed, stacklevel=2)
    points = region[np.asarray(activity.grey)]
    unidentified = tuple((name, why) for name, why in zip(names, find_reasons(y, usable), strict=True) if why)
    curve = make_curve_prior(rates=rate is not None)
    bumps, data, mode, best = _choose_prior(responses, y, usable, region, points, middle, candidates, curve, progress)
    k_draw, k_check = jax.random.split(key)
    with progress_bar(1, "drawing from the posterior", unit="fit", enabled=progress) as advance:
        draws = draw_posterior(k_draw, mode, data, n_draw)
        checks = jax.block_until_ready(check_posterior(k_check, draws, data))
        advance(1)
    weights, curves, usual, response = summarise(draws, data)
    largest = jnp.asarray(np.nanmax(np.where(usable, 10**y, np.nan), axis=0, initial=1.0), weights.dtype)
    return Sources(
        weights=weights[..., : len(bumps.places)],
        curves=curves,
        kernel=jnp.asarray(bumps.kernel, weights.dtype),
        points=jnp.asarray(points, weights.dtype),
        activity=activity,
        largest=largest,
        strongest=response.max(1) / largest,
        usual=usual,
        checks=checks,
        affine=jnp.asarray(grid.affine, weights.dtype) if isinstance(grid, Grid) else None,
        shape=tuple(grid.shape) if isinstance(grid, Grid) else (),
        muscles=names,
        prior=best,
        unidentified=unidentified,
    )


def read_meps(
    meps: Meps | ArrayLike, muscles: Sequence[str] | None
) -> tuple[Float[np.ndarray, "n m"], Bool[np.ndarray, "n m"], tuple[str, ...]]:
    """log10 of the MEPs (uV), which of them count, and names; amplitudes of zero become the smallest above it."""
    if isinstance(meps, Meps):
        values = np.asarray(meps.amplitude, np.float64)
        flagged = np.asarray(meps.reasons) != ""
        names = meps.muscles if muscles is None else tuple(muscles)
    else:
        values = np.asarray(_check.array(meps, "meps"), np.float64)
        flagged = np.zeros(values.shape, bool)
        names = tuple(str(k + 1) for k in range(values.shape[-1])) if muscles is None else tuple(muscles)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"meps: shape {values.shape}; pass (n_stimulus, n_muscle).")
    if len(names) != values.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"muscles: {len(names)} names for {values.shape[1]} columns of meps; give each its own name.")
    if np.isinf(values).any() or (np.nan_to_num(values) < 0).any():
        raise ValueError(
            "meps: negative or infinite amplitudes; pass peak-to-peak amplitudes in uV, NaN where there are none."
        )
    n, m = values.shape
    if n <= m:
        raise ValueError(f"meps: {n} stimuli of {m} muscles; a source needs more stimuli than muscles, 100 or more.")
    usable = np.isfinite(values) & ~flagged
    if not (np.where(usable, values, 0) >= _RESPONSE).any():
        raise ValueError(
            f"meps: none of {int(usable.sum())} reaches {_RESPONSE:g} uV, so that no muscle answered; check their unit "
            "(uV), or stimulate more strongly."
        )
    positive = np.where(usable & (values > 0), values, np.nan)
    smallest = np.nanmin(positive, axis=0, initial=np.nanmax(positive))
    return np.log10(np.where(usable, np.maximum(values, smallest), 10.0)), usable, names


def find_reasons(y: np.ndarray, usable: np.ndarray) -> list[str]:
    """Say of each muscle why a session tells nothing of it; "" where it does."""
    reasons = []
    for column, which in zip(y.T, usable.T, strict=True):
        values = column[which]
        if len(values) < _LEAST_USABLE:
            reasons.append(f"{len(values)} MEPs that may be used; {_LEAST_USABLE} are the least")
        elif values.max() < np.log10(_RESPONSE):
            reasons.append(f"it never answered: all {len(values)} MEPs are under {_RESPONSE:g} uV")
        elif np.subtract(*np.percentile(values, [95, 5])) < _LEAST_RANGE and np.median(values) < np.log10(_RESPONSE):
            reasons.append("its MEPs hardly vary")
        else:
            reasons.append("")
    return reasons


def _choose_prior(
    responses: np.ndarray,
    y: np.ndarray,
    usable: np.ndarray,
    region: np.ndarray,
    points: np.ndarray,
    centre: np.ndarray | None,
    candidates: tuple[DensityPrior, ...],
    curve: CurvePrior,
    progress: bool | None,
) -> tuple[Bumps, Measured, Mode, DensityPrior]:
    """Find the muscles' common centre, then the mode under each prior; keep the one with the largest evidence."""
    best: tuple[float, Any] | None = None
    size = 0
    with progress_bar(len(candidates) + (centre is None), "densities", unit="fits", enabled=progress) as advance:
        if centre is None:
            wide = make_bumps(points, region.mean(0), WIDE)
            middle = find_centre(responses, y, usable, wide, curve)
            size = len(wide.places)
            advance(1)
        else:
            middle = centre
        for prior in candidates:
            bumps = make_bumps(points, middle, prior)
            data = gather(responses, y, usable, bumps, curve, size)
            mode = describe_mode(find_mode(data), data)
            evidence = float(mode.evidence.sum())
            if best is None or evidence > best[0]:
                best = evidence, (bumps, data, mode, prior)
            advance(1)
    assert best is not None
    return best[1]


def find_centre(
    responses: np.ndarray, y: np.ndarray, usable: np.ndarray, bumps: Bumps, curve: CurvePrior
) -> Float[np.ndarray, " 3"]:
    """Find the common centre (mm) of the muscles of which the session tells something, from bumps everywhere."""
    data = gather(responses, y, usable, bumps, curve)
    standard, _, _ = find_mode(data)
    weights = jax.vmap(weigh_bumps, (0, None, None))(standard[:, N_NUMBER:], data.log_mean, data.factor)
    identified = np.array([not why for why in find_reasons(y, usable)])
    places = np.asarray(weights, np.float64)[:, : len(bumps.places)] @ bumps.places
    # where none is, what little there is
    return places[identified if identified.any() else usable.any(0)].mean(0)


def gather(
    responses: np.ndarray, y: np.ndarray, usable: np.ndarray, bumps: Bumps, curve: CurvePrior, size: int = 0
) -> Measured:
    """Put together what the posterior is computed from, the bumps filled up to `size` or a few more."""
    padded = pad_bumps(bumps, -(-max(size, len(bumps.kernel)) // _PADDING) * _PADDING)
    dtype = bumps.log_mean.dtype
    features = jnp.asarray(responses @ padded.kernel.T, dtype)
    return Measured(
        jnp.asarray(y, dtype), jnp.asarray(usable), features, padded.log_mean, padded.factor, curve, features,
        make_no_drift(len(y)),
    )  # fmt: skip


@jax.jit
@full_precision
def summarise(draws: Draws, data: Measured) -> tuple[Array, RecruitmentCurve, Array, Array]:
    """Weights, curves of the drive as it is, usual range of each draw's drive, mean responses (muscle, stimulus)."""

    def one(standard):
        weights = weigh_bumps(standard[N_NUMBER:], data.log_mean, data.factor)
        drive, size = measure_drive(data.features, weights, data.reference)
        curve = curve_from(standard[:N_NUMBER], data.curve)
        return weights, curve._replace(gain=curve.gain / size), drive * size, mean_response(curve, drive)

    weights, curves, drive, response = jax.vmap(jax.vmap(one))(draws.standard)
    usual = jnp.percentile(drive, jnp.asarray([2.0, 98.0], drive.dtype), axis=-1)
    return weights, curves, usual, response.mean(0)
