"""Which stimuli to give: sessions that plan themselves by what a stimulus is expected to tell."""

from jaxm2m.design._goal import GOALS
from jaxm2m.design._loop import INFORMATION, THOMPSON, Loop
from jaxm2m.design._plan import plan
from jaxm2m.design._rules import RULES
from jaxm2m.design._threshold import ThresholdEstimate, ThresholdRule, ThresholdTracker, track_threshold
from jaxm2m.design._threshold_rules import (
    MaximumLikelihood,
    RelativeFrequency,
    track_maximum_likelihood,
    track_relative_frequency,
)

__all__ = [
    "GOALS",
    "INFORMATION",
    "RULES",
    "THOMPSON",
    "Loop",
    "MaximumLikelihood",
    "RelativeFrequency",
    "ThresholdEstimate",
    "ThresholdRule",
    "ThresholdTracker",
    "plan",
    "track_maximum_likelihood",
    "track_relative_frequency",
    "track_threshold",
]
