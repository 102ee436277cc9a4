"""`jaxm2m muscle WORDS` with the tiny networks of test_cli_muscle, in a process of its own."""

import sys

from test_cli_muscle import TINY

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.population import _chunking, _train

if __name__ == "__main__":
    jm.muscle.PRESETS["small"] = TINY
    _train.plan_chunks = lambda *_: _chunking.Plan(4, {}, {})
    cli.app(["muscle", *sys.argv[1:]])
