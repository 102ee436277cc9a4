"""Which stimuli to give: sessions that plan themselves by what a stimulus is expected to tell."""

from jaxm2m.design._loop import INFORMATION, THOMPSON, Loop
from jaxm2m.design._plan import plan
from jaxm2m.design._rules import GOALS, RULES

__all__ = ["GOALS", "INFORMATION", "RULES", "THOMPSON", "Loop", "plan"]
