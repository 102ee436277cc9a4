"""Data whose truth is known."""

from jaxm2m.simulate._emg import SimulatedEMG, gait_emg, isometric_emg, lorenz_emg

__all__ = ["SimulatedEMG", "gait_emg", "isometric_emg", "lorenz_emg"]
