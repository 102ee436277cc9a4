"""Recordings: neuronavigation exports and bare poses, with their coordinate spaces, read and written."""

from jaxm2m.session._export import save_marker, save_targets
from jaxm2m.session._load import load, load_poses
from jaxm2m.session._session import Session

__all__ = ["Session", "load", "load_poses", "save_marker", "save_targets"]
