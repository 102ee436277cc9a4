"""Main programs can be lowered for GPUs and TPUs: on this machine, without one.

Lowering says that every operation exists there, not that it is quick, nor that its numbers are right.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow]

HERE = Path(__file__).parent
# of each line of calls, programs that it cannot do without
LINES = {
    "voxels": {"_fractions", "_assemble", "build_recovery", "potential", "_compute_batch"},
    "tetrahedra": {"_assemble", "_far_potential_of_block", "differentiate.<locals>.<lambda>"},
    "basis": {"_active_field", "_expand_unlimited", "evaluate_step", "accept_step"},
    "emg": {"compile_programs.<locals>.advance", "compile_programs.<locals>.exchange", "_sample_posterior"},
    "muscles": {"compile_programs.<locals>.advance", "find_mode", "draw_posterior", "_add", "screen_information"},
}


@pytest.mark.parametrize("line", LINES)
def test_programs_are_lowered_for_cuda_and_tpu(line):
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(HERE / "lowering_process.py"), line], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert LINES[line] <= set(done.stdout.split())
