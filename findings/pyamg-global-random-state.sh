#!/usr/bin/env bash
# PyAMG's smoothed aggregation depends on NumPy's global random state, and advances it.
#
# Versions: pyamg 5.3.0, NumPy 2.4.
# Common guess: a multigrid hierarchy is a function of the matrix: two calls give the same one, and a caller's
#     np.random.seed holds.
# Behaviour: the spectral radius that scales its prolongation smoother is estimated from a random start vector of
#     np.random. The levels differ from call to call in their last digits, so that iteration counts and the last digits of
#     solutions do too; the caller's next np.random number is another one.
# Seen: "same seed, same levels: True; next call, same levels: False; the caller's next number is unchanged: False"
# A way round: save np.random's state, seed it, build, put it back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pyamg==5.3.0 "numpy==2.4.*"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pyamg

matrix = pyamg.gallery.poisson((40, 40, 4), format="csr")


def prolongations():
    return [level.P.data for level in pyamg.smoothed_aggregation_solver(matrix, max_coarse=50).levels[:-1]]


def equal(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


np.random.seed(1)
first, second = prolongations(), prolongations()
np.random.seed(1)
again = prolongations()
np.random.seed(1)
expected = np.random.rand()
np.random.seed(1)
prolongations()
unchanged = np.random.rand() == expected
repeated, varied = equal(first, again), not equal(first, second)
print("pyamg", pyamg.__version__, "NumPy", np.__version__)
print(
    f"same seed, same levels: {repeated}; next call, same levels: {not varied}; "
    f"the caller's next number is unchanged: {unchanged}"
)
raise SystemExit(not (repeated and varied and not unchanged))
PYTHON
