"""From raw EMG to rectified EMG that a model or a filter can take."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.emg.preprocessing import _steps
from jaxm2m.emg.preprocessing._plausible import check_spectrum
from jaxm2m.emg.preprocessing._quality import report_quality
from jaxm2m.emg.preprocessing._rectified import Preprocessing, Rectified, State, check_input
from jaxm2m.session import Recording, load_emg

_CONTRACTION = 0.5  # s over which a maximal contraction is averaged


def preprocess(
    recording: Recording | ArrayLike,
    sfreq: float | int | None = None,
    *,
    channels: Sequence[str] | None = None,
    axes: str | None = None,
    rectified: bool | None = None,
    line: float | int | None = 60.0,
    harmonics: int = 3,
    notches: Sequence[float | int] = (),
    highpass: float | int | None = 65.0,
    to: float | int = 500.0,
    screen: float | int | None = 2.0,
    clip: float | int | Sequence[float | int] | None = 99.9,
    normalise: float | int | str = 95.0,
    mvc: Recording | ArrayLike | None = None,
    floor: float | int = 1e-4,
) -> Rectified:
    """Turn raw EMG into rectified, normalised EMG.

    The steps: line removal, notches, high-pass, rectification, resampling, clipping, normalisation, floor. They and
    their defaults are the source's; `remove_line`, `notch`, `highpass`, `rectify`, `resample`, `screen`, `clip` and
    `normalise` are the same steps alone. Data that are rectified already go through the steps from resampling on.

    Parameters
    ----------
    recording
        `Recording`, or arrays as `session.load_emg` takes them, in any unit: (n_sample, n_channel), (n_trial, n_sample,
        n_channel), or a list of (n_sample, n_channel). Filters run inside its segments.
    sfreq
        Sampling rate of arrays, Hz.
    channels
        Names of the channels of arrays.
    axes
        Order of the axes of arrays, such as "trial channel sample"; see `session.load_emg`.
    rectified
        Whether the data are rectified already; by default they are if no sample is negative.
    line
        Nominal mains frequency, Hz; None leaves the line in.
    harmonics
        How many sinusoids of the line are removed: 3 for 60, 120 and 180 Hz.
    notches
        Frequencies of further noise peaks that the spectrum shows, Hz.
    highpass
        Cutoff of the high-pass (order 4, zero-phase), Hz; None where the amplifier has done it.
    to
        Sampling rate of the result, Hz.
    screen
        Trials with isolated events over this ratio to those of other trials are flagged; None: no trial is looked at.
    clip
        Percentile at which each channel is clipped, from 50 to 100; one for each channel where some have more
        artefacts. 99 to 99.99 in the source. None: no clipping.
    normalise
        Percentile that becomes 1. Percentiles are over all samples, those between trials included, but for stretches
        that the source marks as bad. Or "mvc": what becomes 1 is the largest mean over half a second of `mvc`.
    mvc
        Recording of maximal voluntary contractions, one or one a muscle, of the same channels in the same unit; an
        array has the rate and the channels of `recording`. It goes through the same filters.
    floor
        Values below this are raised to it, in units of the normalised signal: resampling rings, and quiet muscles give
        zeros, which have no logarithm. The default is a ten-thousandth of the 95th percentile.

    Returns
    -------
    Rectified
        The rectified EMG. Its `preprocessing` repeats the steps with the same numbers: `emg.transform(another)`.

    Warns
    -----
    UserWarning
        What `quality` flags: saturation, dropouts, channels that are mains only, rectified, tiny or doubled, artefacts.

    Raises
    ------
    ValueError
        NaN, constant or mostly zero channels (named); negative values in rectified data; data of which some samples are
        negative, so that they are neither; a rate that the spectrum contradicts (`line` at the wrong place, no power
        over the high-pass), or below `to`.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> raw = np.random.default_rng(0).normal(size=(4000, 2))  # at 2 kHz
    >>> emg = jm.emg.preprocess(raw, sfreq=2000, channels=("TA", "GM"), line=None)
    >>> emg.samples.shape, emg.sfreq
    ((1000, 2), 500.0)
    """
    if isinstance(recording, Recording):
        if sfreq is not None or channels is not None or axes is not None:
            raise ValueError("sfreq, channels, axes: a Recording has its own; leave them out.")
    else:
        if sfreq is None and isinstance(recording, (np.ndarray, list, tuple)):
            raise ValueError("sfreq: not given; arrays need their sampling rate in Hz.")
        recording = load_emg(recording, sfreq, channels=channels, axes=axes)
    _check.positive(floor, "floor")
    contractions = _check_normalise(normalise, mvc, recording)
    _steps.resampling_ratio(recording.sfreq, to)
    _steps.as_signal(recording.samples, "recording", recording.channels)
    raw = not (_looks_rectified(recording) if rectified is None else rectified)
    check_input(recording, rectified=not raw)
    if not raw and rectified is None and _has_offset(recording):
        raise ValueError(
            "recording: no sample is negative, but none is near zero either; say rectified=True (an envelope), or "
            "rectified=False (raw EMG with an offset)."
        )

    if contractions is not None and _looks_rectified(contractions) == raw:
        raise ValueError(
            f"mvc: it is {'rectified' if raw else 'raw'} and the recording is not; pass both as they come from the "
            "amplifier, or both rectified."
        )
    source = report_quality(recording, line)
    state, steps = State.from_recording(recording), []

    def do(name: str, **parameters: Any) -> None:
        nonlocal state
        state = state.apply_step(name, parameters)
        steps.append((name, parameters))

    if raw:
        cutoff = None if highpass is None else float(_check.positive(highpass, "highpass"))
        if cutoff is not None:
            _steps.check_below_nyquist(cutoff, state.sfreq, "highpass")
        check_spectrum(state.pieces, state.sfreq, None if line is None else float(line), cutoff)
        if line is not None:
            do("line", frequency=float(line), harmonics=harmonics, settling=2.0)
        if len(notches):
            do("notch", frequencies=[float(f) for f in notches], quality=30.0)
        if cutoff is not None:
            do("highpass", cutoff=cutoff, order=4)
        do("rectify")
    do("resample", to=float(to))
    good = _good_samples(recording, state)
    if screen is not None:
        do("screen", factor=float(screen), width=0.05)
    if clip is not None:
        # the ringing below zero is no matter to a high percentile
        threshold = _steps.clip(np.maximum(np.concatenate(state.pieces)[good], 0), clip)[1]
        share = np.broadcast_to(np.asarray(clip, float), threshold.shape)
        do("clip", percentile=share.tolist(), threshold=threshold.tolist())
    if contractions is not None:
        scale = _measure_contractions(contractions, steps)
        do("normalise", mvc=_CONTRACTION, scale=scale.tolist())
    else:
        percentile = float(normalise)
        scale = np.percentile(np.concatenate(state.pieces)[good], percentile, axis=0)
        _steps.check_scale(scale, percentile, recording.channels)
        do("normalise", percentile=percentile, scale=scale.tolist())
    do("floor", value=float(floor))
    return state.to_rectified(Preprocessing(recording.channels, recording.unit, tuple(steps)), source)


def _check_normalise(normalise: Any, mvc: Any, recording: Recording) -> Recording | None:
    """The recording of maximal contractions, where they are what becomes 1; percentiles checked."""
    if not isinstance(normalise, str):
        if mvc is not None:
            raise ValueError('mvc: given, but normalise is a percentile; pass normalise="mvc" too, or leave mvc out.')
        if not 0 < _check.positive(normalise, "normalise") <= 100:
            raise ValueError(f"normalise: {normalise}; pass a percentile up to 100.")
        return None
    _check.option(normalise, ("mvc",), "normalise")
    if mvc is None:
        raise ValueError('normalise: "mvc" needs mvc=, a recording of maximal voluntary contractions.')
    if not isinstance(mvc, Recording):
        mvc = load_emg(mvc, recording.sfreq, channels=recording.channels)
    missing = [name for name in recording.channels if name not in mvc.channels]
    if missing:
        raise ValueError(f"mvc: it lacks the channels {', '.join(missing)}; record them, or leave them out of both.")
    if mvc.unit != recording.unit:
        raise ValueError(
            f"mvc: in {mvc.unit or 'no unit'}, but the recording is in {recording.unit or 'no unit'}; bring both into "
            "one."
        )
    return mvc.pick(list(recording.channels))


def _measure_contractions(mvc: Recording, steps: list[tuple[str, dict[str, Any]]]) -> np.ndarray:
    """(n_channel,) the largest moving mean of each channel, after the steps that the recording itself went through."""
    state = State.from_recording(mvc)
    for name, parameters in steps:
        if name not in ("screen", "clip"):  # of the recording's own artefacts
            state = state.apply_step(name, parameters)
    width = round(_CONTRACTION * state.sfreq)
    # what the source marks as bad is no contraction
    whole = np.where(_good_samples(mvc, state)[:, None], np.concatenate(state.pieces), 0)
    pieces = np.split(whole, np.cumsum([len(piece) for piece in state.pieces])[:-1])
    pieces = [piece for piece in pieces if len(piece) >= width]
    if not pieces:
        raise ValueError(f"mvc: no stretch of {_CONTRACTION:g} s; record contractions of some seconds.")
    scale = np.max([_moving_mean(piece, width).max(axis=0) for piece in pieces], axis=0)
    if not (scale > 0).all():
        silent = [name for name, value in zip(mvc.channels, scale, strict=True) if not value > 0]
        raise ValueError(f"mvc: nothing above zero in {', '.join(silent)}; record a contraction of each muscle.")
    return scale


def _moving_mean(x: np.ndarray, width: int) -> np.ndarray:
    total = np.cumsum(np.insert(np.maximum(x, 0), 0, 0.0, axis=0), axis=0)
    return (total[width:] - total[:-width]) / width


def _good_samples(recording: Recording, state: State) -> np.ndarray:
    """Which resampled samples lie outside of what the source marks as bad; all, where that is all."""
    bad = np.zeros(len(recording.samples), bool)
    for start, stop in recording.bad_spans:
        bad[start:stop] = True
    masks = []
    for (start, stop), piece in zip(recording.segments, state.pieces, strict=True):
        at = start + np.arange(len(piece)) * recording.sfreq / state.sfreq
        masks.append(~bad[np.minimum(at.astype(int), stop - 1)])
    good = np.concatenate(masks)
    return good if good.any() else ~good


def _looks_rectified(recording: Recording) -> bool:
    negative = (recording.samples < 0).mean(0)
    # an offset moves raw EMG as a whole; ringing makes a few samples of rectified EMG negative
    strange = np.flatnonzero((negative > 0) & (negative < 0.1))
    if len(strange) and (negative < 0.1).all():
        k = int(strange[0])
        raise ValueError(
            f"recording: {negative[k]:.2%} of channel {recording.channels[k]!r} is negative: too little for raw EMG, "
            "too much for rectified. Of an envelope that rings below zero pass np.maximum(x, 0) with rectified=True; "
            "of raw EMG say rectified=False."
        )
    return not (negative > 0).any()


def _has_offset(recording: Recording) -> bool:
    low, middle = recording.samples.min(0), np.median(recording.samples, 0)
    return bool((low > 0.5 * middle).any())
