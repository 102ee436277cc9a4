"""Motor evoked potentials, measured in EMG and taken from the lists of navigators."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle.responses._meps import Meps
from jaxm2m.muscle.responses._triggers import find_pulses
from jaxm2m.session import Recording, Session, load_emg

_MICROVOLT = {"uV": 1.0, "µV": 1.0, "μV": 1.0, "mV": 1e3, "V": 1e6}
_BACKGROUND = (-0.1, -0.005)  # s around the pulse
_LEAST_BACKGROUND = 0.01  # s: of less no RMS is known
_END = 5e-4  # s: an extreme so near to the window's end is cut
_CUT_SHARE = 0.1  # of the amplitude: smaller extremes at the end change nothing
_HOLD = 1e-3  # s above the threshold that make an onset: a single spike of noise is shorter, the first phase is longer


def measure(
    source: Recording | Session | ArrayLike,
    sfreq: float | int | None = None,
    *,
    pulse: ArrayLike | None = None,
    pulses: ArrayLike | str | None = None,
    muscles: Sequence[str] | None = None,
    unit: str | None = None,
    window: Sequence[float | int] = (0.02, 0.05),
    background: Sequence[float | int] | str | None = "auto",
    max_rms: float | int | None = 10.0,
    max_peak_to_peak: float | int | None = None,
    saturation: float | int | None = None,
    onset: float | int = 4.0,
    artefact: float | int = 0.01,
) -> Meps:
    """Measure MEPs in EMG: peak-to-peak in `window`, onset, duration, area, and whether the trial can be trusted.

    Latency is the first time after `artefact`, until the window's end, at which the EMG leaves the background's mean by
    more than `onset` of its standard deviations and stays there for 1 ms, interpolated between samples. This is the
    rule of Hodges and Bui (1996) with a time that suits the phases of an MEP. Small MEPs have none, or noise's. The
    duration ends where the EMG was last so far from the mean for 1 ms; it is NaN where that is at the window's end. The
    area is that of the rectified EMG, less the background's mean, in all of the window.

    Flagged are, muscle by muscle:

    - "background": RMS (about its mean) or peak-to-peak over a limit before the pulse, the muscle was not at rest;
    - "saturated": samples of the window at the amplifier's limit;
    - "cut": an extreme, larger than noise, lies at an end of the window, the MEP may be larger than measured;
    - "flat": the window is constant, the electrode was off;
    - "outside": the recording does not hold the window or the background;
    - "not recorded": NaN in either.

    Parameters
    ----------
    source
        `Recording`; or `Session` with waveforms (rows correspond to its rows; pulse and unit are known); or arrays as
        `session.load_emg` takes them, in `unit`: epochs (n_trial, n_time, n_muscle) with `pulse`, or a continuous
        (n_time, n_muscle) with `pulses`.
    sfreq
        Sampling rate of arrays, Hz.
    pulse
        Of epochs: time from the first sample of each trial to its pulse, s; one number for all, or (n_trial,).
    pulses
        Of continuous recordings: (n_stimulus,) times of the pulses, s from the recording's first sample (samples /
        sfreq: pauses do not count); or the name of its events, or of a channel of triggers, whose steps are the pulses.
    muscles
        Names, for arrays; else which channels to take.
    unit
        "uV", "mV" or "V", where the source does not say it.
    window
        First and last time of the window, s after the pulse. 20 to 50 ms suits arm and hand; legs need about 20 to 80
        ms.
    background
        First and last time of the background, s relative to the pulse, before it. "auto": -100 to -5 ms, or what epochs
        hold of it, if that is 10 ms or more, with a warning that says so. None: no background is looked at; then there
        are no latencies, and no MEP is flagged for it.
    max_rms, max_peak_to_peak
        Limits of the background, uV; None: no limit. 10 uV RMS is a usual limit of rest.
    saturation
        The amplifier's limit, uV. None: three samples in a row at the channel's highest or lowest value, entered by a
        step larger than ten times its resolution (a smooth peak of coarse resolution has smaller ones).
    onset
        Number of standard deviations of the background. 3 is common; 4 takes noise for an onset less often.
    artefact
        Time after the pulse in which no onset is looked for, s.

    Returns
    -------
    Meps
        Amplitudes, latencies, durations, areas and reasons against them.

    Raises
    ------
    ValueError
        Unit, rate or pulse missing; epochs with two axes, or with more muscles than samples; windows that no stimulus
        holds, or that overlap the pulse.

    Notes
    -----
    P. W. Hodges, B. H. Bui, Electroencephalogr. Clin. Neurophysiol. 101, 511 (1996).

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> time = np.arange(-0.2, 0.1, 1 / 4000)  # s after the pulse
    >>> emg = 2 * np.sin(2 * np.pi * 90 * time)  # uV, the muscle's rest
    >>> emg += np.where((time > 0.022) & (time < 0.034), 400 * np.sin(2 * np.pi * (time - 0.022) / 0.012), 0)
    >>> meps = jm.muscle.measure(emg[None, :, None], sfreq=4000, pulse=0.2, muscles=("FDI",), unit="uV")
    >>> print(f"{meps.amplitude[0, 0]:.0f} uV")
    804 uV
    """
    epochs = pulses is None
    recording, at, pieces = _stimuli(source, sfreq, pulse, pulses, muscles, unit)
    if not 0 <= window[0] < window[1]:
        raise ValueError(f"window: {window[0]:g} to {window[1]:g} s; it must go forward, after the pulse (0 s).")
    if isinstance(background, str):
        _check.option(background, ("auto",), "background")
        background = _shorten_background(at, pieces, recording.sfreq) if epochs else _BACKGROUND
    if background is not None and not background[0] < background[1] <= 0:
        raise ValueError(f"background: {background[0]:g} to {background[1]:g} s; it must go forward, before the pulse.")
    for limit, name in ((max_rms, "max_rms"), (max_peak_to_peak, "max_peak_to_peak"), (saturation, "saturation")):
        if limit is not None:
            _check.positive(limit, name)
    _check.positive(onset, "onset")
    _check.positive(artefact, "artefact", zero=True)
    x, rate = recording.samples, recording.sfreq
    for name, span in {"window": window, "background": background}.items():
        if span is not None and all(
            _samples(t, span, piece, recording) is None for t, piece in zip(at, pieces, strict=True)
        ):
            raise ValueError(
                f"{name}: no stimulus has samples from {span[0]:g} to {span[1]:g} s around its pulse; pass a {name} "
                f"that the recording holds, or correct the pulses. ({len(recording.trials)} trials of "
                f"{1e3 * np.diff(recording.trials).max() / rate:.4g} ms, {x.shape[1]} channels: "
                "check the axes too, n_trial, n_time, n_muscle.)"
            )
    rails = _rails(x)
    amplitude, latency, duration, area = np.full((4, len(at), x.shape[1]), np.nan)
    reasons = np.full(amplitude.shape, "", dtype=object)
    for i, (time, piece) in enumerate(zip(at, pieces, strict=True)):
        spans = (window, background, (artefact, window[1]))
        response, rest, answer = (None if s is None else _samples(time, s, piece, recording) for s in spans)
        if response is not None:
            amplitude[i] = np.ptp(response, 0)
            size = np.abs(response - (response if rest is None else rest).mean(0))
            area[i] = np.trapezoid(size, dx=1 / rate, axis=0)
        if rest is not None and answer is not None:
            first = np.ceil((time + artefact) * rate - 1e-6) / rate - time
            size, level = np.abs(answer - rest.mean(0)), onset * rest.std(0)
            latency[i] = first + _onsets(size, level, rate)
            last = first + (len(size) - 1) / rate
            duration[i] = last - _onsets(size[::-1], level, rate) - latency[i]
        for k in range(x.shape[1]):
            pair = [None if part is None else part[:, k] for part in (response, rest)]
            why = [_fault(pair[0], rails[k], saturation), _describe_cut(pair[0], pair[1], window, onset, rate)]
            why += [] if background is None else [_unrest(pair[1], max_rms, max_peak_to_peak)]
            reasons[i, k] = "; ".join(filter(None, why))
    return Meps(amplitude, latency, reasons.astype(str), recording.channels, duration, area)


def read_recorded(session: Session) -> Meps:
    """Read the MEPs that a neuronavigation export lists.

    Rows correspond to rows of the session, so that poses and intensities match:

        stimuli = session.samples.pick(located=True)
        meps = muscle.read_recorded(stimuli)          # or muscle.measure(stimuli), anew from the waveforms
        poses, amplitude = stimuli.poses[meps.kept], meps.pick(meps.kept).amplitude

    Flagged "not recorded" where there is none, "negative" where the listed amplitude is below zero (it becomes NaN).
    The window was the navigator's.

    Parameters
    ----------
    session
        The session, as `session.load` reads it.

    Returns
    -------
    Meps
        Amplitudes, latencies and reasons against them.

    Raises
    ------
    ValueError
        The session lists no MEP.
    """
    if not np.isfinite(session.meps).any():
        raise ValueError(
            f"session: {session!r} lists no MEP; measure them in the EMG that was recorded beside it (muscle.measure)."
        )
    reasons = np.where(np.isfinite(session.meps), "", "not recorded")
    reasons = np.where(session.meps < 0, "negative", reasons)
    amplitude = np.where(reasons == "", session.meps, np.nan)
    return Meps(amplitude, session.mep_latency, reasons, session.channels)


def _stimuli(
    source: Recording | Session | ArrayLike,
    sfreq: float | int | None,
    pulse: ArrayLike | None,
    pulses: ArrayLike | str | None,
    muscles: Sequence[str] | None,
    unit: str | None,
) -> tuple[Recording, np.ndarray, np.ndarray]:
    """Return the recording in uV, the time of each pulse from its first sample (s), and the segment that each is in."""
    if isinstance(source, Session):
        if not source.emg.size:
            raise ValueError(f"source: {source!r} has no waveforms; take the MEPs it lists (muscle.read_recorded).")
        if sfreq is not None or pulse is not None or pulses is not None or unit is not None:
            raise ValueError("sfreq, pulse, pulses, unit: a Session has its own; leave them out.")
        pulse = -source.emg_start
        epochs = np.moveaxis(source.emg, 1, 2)
        source = load_emg(epochs, source.sfreq, channels=source.channels, unit="uV", axes="trial sample channel")
    if isinstance(source, Recording):
        if sfreq is not None:
            raise ValueError("sfreq: a Recording has its own; leave it out.")
        if isinstance(pulses, str):
            trigger, pulses = pulses, find_pulses(source, pulses)
            muscles = [name for name in source.channels if name != trigger] if muscles is None else muscles
        source = source.pick(muscles)
    else:
        if isinstance(pulses, str):
            raise ValueError(f"pulses: {pulses!r} names events or a channel of a Recording; load it with load_emg.")
        if pulse is not None:
            _check_epochs(source)
        # the axes of epochs are known, also of more trials than samples
        axes = "trial sample channel" if getattr(source, "ndim", 0) == 3 else None
        source = load_emg(source, sfreq, channels=muscles, axes=axes)
    if unit is not None and source.unit and unit != source.unit:
        raise ValueError(f"unit: {unit!r}, but the source says {source.unit!r}; leave it out.")
    unit = unit or source.unit
    if unit not in _MICROVOLT:
        raise ValueError(f"unit: {unit!r}; pass 'uV', 'mV' or 'V'.")
    if (pulse is None) == (pulses is None):
        raise ValueError("pulse, pulses: pass one of them: pulse in each trial, or pulses of the whole recording, s.")
    at = np.asarray(_check.finite(*((pulse, "pulse") if pulses is None else (pulses, "pulses"))), np.float64)
    if pulses is None:
        if at.shape not in ((), (len(source.trials),)):
            raise ValueError(f"pulse: shape {at.shape} for {len(source.trials)} trials; pass one time, or one a trial.")
        home = source.trials[:, 0]
        at = home / source.sfreq + at
    else:
        if at.ndim != 1 or not len(at):
            raise ValueError(f"pulses: shape {at.shape}; pass (n_stimulus,) s from the recording's first sample.")
        home = np.floor(at * source.sfreq + 1e-6)
    # epochs may begin after their pulse: it is in the piece of its trial all the same
    pieces = source.segments[np.maximum(np.searchsorted(source.segments[:, 0], home, side="right") - 1, 0)]
    return replace(source, samples=source.samples * _MICROVOLT[unit], unit="uV"), at, pieces


def _samples(time: float, span: Sequence[float | int], piece: np.ndarray, recording: Recording) -> np.ndarray | None:
    """Cut the samples of a span (s) around a pulse, if its piece (first sample, and first after it) holds them all."""
    # a pulse told in s is not a whole number of samples to the last digit
    first = int(np.ceil((time + span[0]) * recording.sfreq - 1e-6))
    last = int(np.floor((time + span[1]) * recording.sfreq + 1e-6)) + 1
    return recording.samples[first:last] if piece[0] <= first < last - 1 < piece[1] else None


def _check_epochs(source: ArrayLike) -> None:
    """Refuse arrays whose axes are not those of epochs; a list of trials has none."""
    shape = np.shape(source) if hasattr(source, "shape") else ()
    if len(shape) == 2:
        n, m = shape
        raise ValueError(
            f"source: shape {n, m}; epochs are (n_trial, n_time, n_muscle). Pass source.T[:, :, None] of (samples, "
            f"trials) of one muscle, source[:, :, None] of (trials, samples), source[None] of a trial of {m} muscles, "
            "or pulses= of a continuous recording."
        )
    if len(shape) == 3 and shape[2] > shape[1]:
        raise ValueError(
            f"source: shape {tuple(shape)} would be {shape[2]} muscles of {shape[1]} samples; epochs are (n_trial, "
            "n_time, n_muscle): pass np.moveaxis(source, 1, 2) of (trials, muscles, samples)."
        )


def _shorten_background(at: np.ndarray, pieces: np.ndarray, sfreq: float) -> tuple[float, float]:
    """Return the usual background, or what all epochs hold of it."""
    start, stop = _BACKGROUND
    least = float((at - pieces[:, 0] / sfreq).min())  # s before the pulse
    if least >= -start - 1e-9:
        return _BACKGROUND
    if least + stop < _LEAST_BACKGROUND - 1e-9:
        raise ValueError(
            f"background: epochs begin {1e3 * least:.4g} ms before their pulse, which is too short for one that ends "
            f"{-1e3 * stop:g} ms before it; pass the span that you trust, such as (-0.015, 0.0), or background=None to "
            "measure without."
        )
    warnings.warn(
        f"background: epochs begin {1e3 * least:.4g} ms before their pulse; it is taken from {-1e3 * least:.4g} to "
        f"{1e3 * stop:g} ms (usually from {1e3 * start:g} ms).",
        stacklevel=3,
    )
    return -least, stop


def _describe_cut(
    x: np.ndarray | None, rest: np.ndarray | None, window: Sequence[float | int], onset: float | int, rate: float
) -> str:
    """Say where an extreme that is no noise lies at an end of the window."""
    if x is None or np.isnan(x).any() or np.ptp(x) == 0:
        return ""
    if rest is None or np.isnan(rest).any():
        level = np.median(x)
        noise = 1.4826 * np.median(np.abs(x - level))
    else:
        level, noise = rest.mean(), rest.std()
    near = max(1, round(_END * rate))
    for index in (int(x.argmin()), int(x.argmax())):
        ends = [side for side, at in ((0, index), (1, len(x) - 1 - index)) if at < near]
        if ends and abs(x[index] - level) > max(onset * noise, _CUT_SHARE * np.ptp(x)):
            return f"cut: {x[index]:.4g} uV at the window's end, {1e3 * window[ends[0]]:g} ms"
    return ""


def _rails(x: np.ndarray) -> np.ndarray:
    """Find the lowest and highest value of each channel, and its smallest step, (n_muscle, 3)."""
    steps = np.abs(np.diff(x, axis=0))
    finest = np.where(steps > 0, steps, np.inf).min(0, initial=np.inf)
    return np.stack([np.fmin.reduce(x, 0), np.fmax.reduce(x, 0), finest], -1)


def _fault(x: np.ndarray | None, rails: np.ndarray, saturation: float | int | None) -> str:
    """Say why a response is no measurement."""
    if x is None:
        return "outside: window"
    if np.isnan(x).any():
        return "not recorded: window"
    if np.ptp(x) == 0:
        return f"flat: {x[0]:.4g} uV"
    full = (np.abs(x) >= (np.inf if saturation is None else saturation)).any()
    for rail in rails[:2] if saturation is None else ():
        there = x == rail
        leap = np.abs(np.diff(x))[there[1:] != there[:-1]].max(initial=0) > 10 * rails[2]
        full |= leap and (there[2:] & there[1:-1] & there[:-2]).any()
    return f"saturated: {np.abs(x).max():.4g} uV" if full else ""


def _unrest(x: np.ndarray | None, max_rms: float | int | None, max_peak_to_peak: float | int | None) -> str:
    """Say why a muscle was not at rest."""
    if x is None:
        return "outside: background"
    if np.isnan(x).any():
        return "not recorded: background"
    if max_rms is not None and x.std() > max_rms:
        return f"background: {x.std():.3g} uV RMS"
    if max_peak_to_peak is not None and np.ptp(x) > max_peak_to_peak:
        return f"background: {np.ptp(x):.3g} uV peak-to-peak"
    return ""


def _onsets(size: np.ndarray, level: np.ndarray, rate: float) -> np.ndarray:
    """Find the time to the first lasting rise above the level, (n_muscle,) s from the first sample; NaN where there is
    none.
    """
    hold = max(1, round(_HOLD * rate))
    over = size > level
    onsets = np.full(len(level), np.nan)
    if len(size) < hold + 1:
        return onsets
    lasting = np.asarray(np.lib.stride_tricks.sliding_window_view(over, hold, axis=0).all(-1))
    for k in np.flatnonzero(lasting.any(0) & ~lasting[0]):
        j = int(lasting[:, k].argmax())
        below, above = size[j - 1, k], size[j, k]
        onsets[k] = (j - 1 + (level[k] - below) / (above - below)) / rate
    return onsets
