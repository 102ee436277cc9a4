"""Recordings: neuronavigation exports and bare poses, with their coordinate spaces, and EMG, read and written."""

from jaxm2m.session._emg import Recording
from jaxm2m.session._export import save_marker, save_targets
from jaxm2m.session._load import load, load_poses, load_positions
from jaxm2m.session._load_emg import load_emg
from jaxm2m.session._session import Session

__all__ = ["Recording", "Session", "load", "load_emg", "load_poses", "load_positions", "save_marker", "save_targets"]
