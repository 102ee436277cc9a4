"""When the stimulator fired, from the recording itself: its events of a name, or a channel of triggers."""

import numpy as np
from jaxtyping import Float

from jaxm2m.session import Recording

_QUIET = 0.05  # s: pulses that are closer are one
_CLEAR = 6.0  # the step of a trigger over the scatter of the channel between pulses


def find_pulses(recording: Recording, name: str) -> Float[np.ndarray, " n_stimulus"]:
    """Times of the pulses, s from the recording's first sample.

    Raises
    ------
    ValueError
        Neither an event nor a channel of that name, or a channel whose steps do not stand out.
    """
    starts = [start for event, start, _ in recording.events if event == name]
    if starts:
        return np.unique(starts) / recording.sfreq
    if name not in recording.channels:
        events = ", ".join(dict.fromkeys(event for event, _, _ in recording.events)) or "none"
        raise ValueError(
            f"pulses: {name!r} is no event ({events}) and no channel ({', '.join(recording.channels)}) of the "
            "recording; a trigger's channel is loaded by load_emg(..., picks=[..., name])."
        )
    x = np.asarray(recording.samples[:, recording.channels.index(name)], np.float64)
    rest = float(np.median(x))
    # triggers go up or down from the rest
    step = x - rest if x.max() - rest >= rest - x.min() else rest - x
    scatter = float(np.median(np.abs(step))) / 0.6745
    high = float(step.max())
    if high <= _CLEAR * scatter or high <= 0:
        raise ValueError(
            f"pulses: no step of the channel {name!r} stands out from its noise; pass the times of the pulses (s)."
        )
    above = step > high / 2
    edges = np.flatnonzero(above[1:] & ~above[:-1]) + 1
    if above[0]:
        edges = np.insert(edges, 0, 0)
    kept = np.insert(np.diff(edges) > _QUIET * recording.sfreq, 0, True)
    return edges[kept] / recording.sfreq
