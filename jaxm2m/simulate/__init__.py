"""Data whose truth is known."""

from jaxm2m.simulate._gait import gait_emg
from jaxm2m.simulate._isometric import isometric_emg
from jaxm2m.simulate._lorenz import lorenz_emg
from jaxm2m.simulate._mapping import mapping_session
from jaxm2m.simulate._mep import expected_mep, mep
from jaxm2m.simulate._simulated import SimulatedEMG
from jaxm2m.simulate._simulated_session import SimulatedSession

__all__ = [
    "SimulatedEMG",
    "SimulatedSession",
    "expected_mep",
    "gait_emg",
    "isometric_emg",
    "lorenz_emg",
    "mapping_session",
    "mep",
]
