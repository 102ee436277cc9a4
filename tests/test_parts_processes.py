"""Runs in parts that two processes of `jax.distributed` share, on one machine."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import find_port, slurm, start, wait
from small_head import save_labels, shells

pytestmark = pytest.mark.host


def run(case, folder, count=2):
    """Exit codes and what the processes said."""
    script, port = Path(__file__).with_name("parts_process.py"), find_port()
    return wait([start([script, case, folder, number, count, port]) for number in range(count)])


def test_each_part_is_stored_by_one_process_and_the_first_ends_the_run(tmp_path):
    codes, said = run("squares", tmp_path)
    assert codes == [0, 0], said
    shares = [next(line for line in text.splitlines() if line.startswith("share")) for text in said]
    assert shares == ["share 0 2", "share 1 3"]
    with h5py.File(tmp_path / "squares.h5") as file:
        np.testing.assert_array_equal(file["square"][()], np.arange(7) ** 2)
    assert not (tmp_path / "squares.h5.parts").exists()
    codes, said = run("squares", tmp_path)
    assert codes == [0, 0], said
    assert not any("share" in text for text in said)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_and_what_is_stored_stays(tmp_path):
    codes, said = run("fails", tmp_path)
    assert all(codes), said
    assert "ValueError: no square of this one" in said[1]
    assert "process 1 of 2 stopped: no square of this one" in said[0]
    assert sorted(p.name for p in (tmp_path / "squares.h5.parts").glob("*.h5")) == ["000000.h5", "000002.h5"]
    # whatever number of processes goes on
    codes, said = run("squares", tmp_path, count=1)
    assert codes == [0], said
    assert "share 1 3" in said[0]


@pytest.mark.slow
def test_processes_that_share_no_disk_are_told(tmp_path):
    codes, said = run("apart", tmp_path)
    assert all(codes), said
    assert "path: what the first process began is not in " in said[1]
    assert "process 1 of 2 stopped: path: what the first" in said[0]


@pytest.mark.slow
def test_fields_and_bases_are_those_of_one_process(tmp_path):
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        codes, said = run("fields", tmp_path / str(count), count)
        assert not any(codes), said
    for name in ("fields.h5", "basis.h5"):
        with h5py.File(tmp_path / "1" / name) as one, h5py.File(tmp_path / "2" / name) as two:
            assert one.keys() == two.keys()
            for key in one:
                if isinstance(one[key], h5py.Dataset):
                    np.testing.assert_array_equal(one[key][()], two[key][()], err_msg=f"{name} {key}")


@pytest.mark.slow
def test_the_commands_share_their_work_under_slurm(tmp_path):
    save_labels(tmp_path / "head.nii.gz", shells())
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (5, 1, 1))
    poses[:, 2, 3] = 44, 45, 46, 47, 48
    (tmp_path / "poses.json").write_text(json.dumps({"poses": poses.tolist(), "space": "subject"}))
    words = ["-m", "jaxm2m.cli", "efield", "--head", "head.nii.gz", "--coil", "figure8", "--poses", "poses.json"]
    words += ["--roi", "0,0,20", "--shape", "9,8,7", "--step", "2", "--spacing", "4"]
    words = [tmp_path / word if word in ("head.nii.gz", "poses.json") else word for word in words]
    out = tmp_path / "two.h5"
    codes, said = wait([start([*words, "--out", out, "--distributed"], **slurm(number)) for number in range(2)])
    assert codes == [0, 0], said
    assert "two.h5: 5 fields of 9x8x7 points." in said[0]
    assert "fields of" not in said[1]  # the first one speaks
    codes, said = wait([start([*words, "--out", tmp_path / "one.h5"])])
    assert codes == [0], said
    with h5py.File(out) as two, h5py.File(tmp_path / "one.h5") as one:
        np.testing.assert_array_equal(two["e"][()], one["e"][()])


@pytest.mark.slow
def test_a_process_that_nobody_started_with_others_is_told(tmp_path):
    words = ["-m", "jaxm2m.cli", "efield", "--head", "atlas", "--coil", "figure8", "--roi", "0,0,20", "--distributed"]
    codes, said = wait([start([*words, "--poses", "poses.csv", "--out", tmp_path / "e.h5"])])
    assert codes == [2]
    assert "jaxm2m efield: --distributed: JAX joins no processes (" in said[0]
    assert "start them together by srun or mpirun, or leave it out." in said[0]
