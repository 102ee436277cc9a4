"""Every reader on files that are damaged at random: they are told by name, in time, within the memory.

The damage is the same on every run. The suite affords little of it; a change to a reader deserves more, by the number
of accidents to each file in the environment:

    JAXM2M_FUZZ=500 python -m pytest tests/test_fuzz_readers.py -k "MEPs or recording"

A defect that a long run finds becomes a test of its own, in the files test_hostile_*.py.
"""

import time
from pathlib import Path

import numpy as np
import pytest
from fuzz_accidents import MUTATIONS, matlab, raw, text, xml
from fuzz_cases import CASES
from fuzz_verdict import peak, told

import jaxm2m as jm
from jaxm2m import session

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

SECONDS, MEGABYTES = 4.0, 600


def prepared(case, folder):
    for package in case.needs:
        pytest.importorskip(package)
    path = folder / case.file
    path.parent.mkdir(parents=True, exist_ok=True)
    case.write(path)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_whatever_a_file_holds_is_told(case, tmp_path):
    path = prepared(case, tmp_path)
    whole = path.read_bytes()
    case.read(path)
    for seed in range(max(2, round(MUTATIONS * case.weight))):
        rng = np.random.default_rng([seed, *case.name.encode()])
        path.write_bytes(case.mutate[seed % len(case.mutate)](whole, rng))
        before, start = peak(reset=True), time.process_time()
        assert not told(case.read, path), f"accident {seed}"
        assert time.process_time() - start < SECONDS, f"accident {seed} takes too long"
        assert peak() - before < MEGABYTES, f"accident {seed} takes too much memory"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_empty_file_a_folder_and_noise(case, tmp_path):
    path = prepared(case, tmp_path)
    for content in (b"", b"\x00" * 600, bytes(range(256)) * 8, "\ufeffé\n".encode("utf-16"), b"a" * 70_000):
        path.write_bytes(content)
        assert not told(case.read, path), content[:9]
    path.unlink()
    path.mkdir()
    assert not told(case.read, path)


USERS = (
    ("coils/testcoil.ccd", jm.coil.load, text),
    ("neuronav/brainsight/niiImage_niftialignedcoord_no_samples.txt", session.load, text),
    ("neuronav/localite/InstrumentMarkers/RAS_InstrumentMarker20170316160859032.xml", session.load_poses, xml),
    ("mep/ID02.mat", lambda p: session.load_emg(p, 3000, name="meps"), matlab),
    ("emg/rat_locomotion.h5", lambda p: session.load_emg(p, 500, name="valid_data"), raw),
    ("meshes/sphere3.msh", jm.head._gmsh.read_gmsh, raw),
)


@pytest.mark.parametrize(("name", "read", "mutate"), USERS, ids=[name for name, *_ in USERS])
def test_users_files_damaged(data, tmp_path, name, read, mutate):
    whole = data(name).read_bytes()
    path = tmp_path / Path(name).name
    for seed in range(max(2, MUTATIONS // 4)):
        path.write_bytes(mutate(whole, np.random.default_rng([seed, 7])))
        assert not told(read, path), f"accident {seed}"
