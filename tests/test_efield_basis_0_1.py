"""A basis that version 0.1 wrote, whose active points it called "own", is read."""

import fuzz_files
import h5py
import numpy as np
import pytest

from jaxm2m.efield import Basis

pytestmark = pytest.mark.host


def test_a_basis_of_0_1_is_read(tmp_path):
    path = tmp_path / "basis.h5"
    fuzz_files.basis(path)
    now = Basis.load(path)
    with h5py.File(path, "a") as file:
        file.move("active", "own")
    then = Basis.load(path)
    np.testing.assert_array_equal(then.active, now.active)
    np.testing.assert_array_equal(then.active, [0, 1, 2, 5])
    np.testing.assert_array_equal(then.solver.modes, now.solver.modes)
