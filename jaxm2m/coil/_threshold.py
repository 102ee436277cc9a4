"""Resting motor threshold from trials."""

import warnings

import numpy as np

from jaxm2m import _check
from jaxm2m._types import ArrayLike


def resting_motor_threshold(
    intensity: ArrayLike, mep: ArrayLike, threshold: float | int = 50.0, needed: int = 3, of: int = 6
) -> float:
    """Find the lowest intensity at which `needed` of `of` consecutive trials exceed `threshold`.

    Trials at one intensity are consecutive in the order given, whatever came between them. An intensity with fewer
    than `of` trials counts once `needed` of them exceed the threshold, as in practice, where testing stops there.

    Parameters
    ----------
    intensity
        (n,) intensity of each trial, any unit (% MSO or A/s).
    mep
        (n,) peak-to-peak amplitude, uV; NaN for a trial without a usable response, which is left out.
    threshold
        Smallest amplitude that counts as a response, uV.
    needed, of
        The criterion (Rossini et al., Clin. Neurophysiol. 126, 2015, 1071 has 5 of 10; 3 of 6 is the short form).

    Returns
    -------
    float
        The threshold, in the same unit as `intensity`.

    Raises
    ------
    ValueError
        Shapes differ, no trials, or no intensity meets the criterion.

    Warns
    -----
    UserWarning
        The lowest intensity tested meets the criterion: the true threshold may be lower.

    Examples
    --------
    >>> import jaxm2m as jm
    >>> intensity = [40] * 6 + [45] * 6 + [50] * 6  # % MSO
    >>> mep = [10, 20, 10, 60, 20, 10, 70, 20, 80, 10, 55, 30, 90, 70, 120, 60, 300, 80]  # uV
    >>> jm.coil.resting_motor_threshold(intensity, mep)
    45.0
    """
    needed, of = _check.integer(needed, "needed"), _check.integer(of, "of")
    if needed > of:
        raise ValueError(f"needed: {needed} of {of} trials cannot be; give needed <= of.")
    threshold = float(_check.positive(threshold, "threshold", zero=True))
    intensity = np.asarray(_check.finite(intensity, "intensity"), float)
    mep = np.asarray(_check.array(mep, "mep"), float)
    if intensity.ndim != 1 or mep.shape != intensity.shape:
        raise ValueError(f"mep: shape {mep.shape} for intensities of shape {intensity.shape}; give one MEP a trial.")
    usable = ~np.isnan(mep)
    if not usable.any():
        raise ValueError("mep: no trial with a number; give amplitudes in uV.")
    if (mep[usable] < 0).any():
        raise ValueError("mep: negative amplitudes; give peak-to-peak amplitudes in uV.")
    intensity, mep = intensity[usable], mep[usable]
    tested = np.unique(intensity)
    for level in tested:
        hit = mep[intensity == level] > threshold
        window = np.convolve(hit, np.ones(of, int))  # running counts of the last `of` trials
        if window.max() >= needed:
            if level == tested[0] and len(tested) > 1:
                warnings.warn(
                    f"intensity: the lowest tested, {level:g}, already meets the criterion; the "
                    "threshold may be lower.",
                    stacklevel=2,
                )
            return float(level)
    raise ValueError(
        f"mep: at none of {len(tested)} intensities do {needed} of {of} trials exceed {threshold:g} uV (largest MEP "
        f"{mep.max():g}); test higher intensities, or check that amplitudes are in uV."
    )
