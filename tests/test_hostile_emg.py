"""EMG files of other programs that are damaged or hostile: told by name, within the memory."""

import struct
import sys
import types
import warnings

import fuzz_files as made
import h5py
import numpy as np
import pytest
import scipy.io
from fuzz_verdict import peak

from jaxm2m import session
from jaxm2m.session import _emg_contents

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def mat5(path, **content):
    scipy.io.savemat(path, content)
    return bytearray(path.read_bytes())


def test_mat_of_an_unknown_type_does_not_end_the_interpreter(tmp_path):
    path = tmp_path / "emg.mat"
    data = mat5(path, emg=np.ones((60, 3)))
    at = data.index(struct.pack("<II", 9, 60 * 3 * 8))  # 9: doubles
    for kind in (0, 8, 200, 0x7F00):
        struct.pack_into("<I", data, at, kind)
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"emg\.mat is not a readable MAT file"):
            session.load_emg(path, 500)


@pytest.mark.parametrize("kind", ["cell", "struct", "char", "numbers"])
def test_mat_that_declares_more_than_it_holds(tmp_path, kind):
    path = tmp_path / "emg.mat"
    values = {
        "cell": np.array([1.0, 2.0, 3.0], object)[:, None],
        "struct": np.zeros((3, 1), [("a", object)]),
        "char": "abc",
        "numbers": np.ones((3, 1)),
    }
    data = mat5(path, x=values[kind])
    at = data.index(struct.pack("<II", 5, 8)) + 8
    struct.pack_into("<ii", data, at, (1 << 31) - 1, 64)
    path.write_bytes(data)
    before = peak(reset=True)
    with pytest.raises(ValueError, match=r"emg\.mat is not a readable MAT file \(.*(declares more|as many numbers)"):
        session.load_emg(path, 500)
    assert peak() - before < 200


def test_mat_bomb(tmp_path, monkeypatch):
    path = tmp_path / "emg.mat"
    scipy.io.savemat(path, {"emg": np.zeros((1 << 19, 8))}, do_compression=True)
    assert path.stat().st_size < 1 << 16
    assert session.load_emg(path, 500).samples.shape == (1 << 19, 8)
    monkeypatch.setattr(_emg_contents, "LARGEST", 1 << 20)
    before = peak(reset=True)
    with pytest.raises(
        ValueError, match=r"emg\.mat is not a readable MAT file \(a variable: more than 1,048,576 bytes"
    ):
        session.load_emg(path, 500)
    assert peak() - before < 20


def test_mat_73_whose_cells_lead_back(tmp_path):
    path = tmp_path / "emg.mat"
    made.mat73(path)
    with h5py.File(path, "r+") as file:
        names = file["rec/labels"]
        names[0, 0] = names.ref
    with pytest.raises(ValueError, match=r"emg\.mat names 2 of its 3 channels"):
        session.load_emg(path)


C3D = """
import os, signal
def c3d(path):
    if b"stop" in open(path, "rb").read():
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"raise" in open(path, "rb").read():
        raise RuntimeError("no header")
    return {"data": {"analogs": [[[1.0, 2, 3, 4]]]}, "header": {"analogs": {"frame_rate": 500}},
            "parameters": {"ANALOG": {"LABELS": {"value": ["FDI", "spare"]}, "UNITS": {"value": ["V"]}}}}
"""


def test_c3d_is_read_by_a_process_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "ezc3d.py").write_text(C3D)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setitem(sys.modules, "ezc3d", types.ModuleType("ezc3d"))  # here it is never used
    path = tmp_path / "gait.c3d"
    path.write_bytes(b"fine")
    found = session.load_emg(path)
    assert (found.channels, found.sfreq, found.unit, found.samples.ravel().tolist()) == (
        ("FDI",),
        500,
        "V",
        [1, 2, 3, 4],
    )
    path.write_bytes(b"stop")
    with pytest.raises(ValueError, match=r"source: .*gait\.c3d cannot be read by ezc3d \(its reader broke down\)"):
        session.load_emg(path)
    path.write_bytes(b"raise")
    with pytest.raises(ValueError, match=r"gait\.c3d cannot be read by ezc3d \(no header\)"):
        session.load_emg(path)


def test_edf_of_thousands_of_channels_that_are_not_there(tmp_path):
    pytest.importorskip("mne")
    path = tmp_path / "emg.edf"
    made.edf(path)
    data = bytearray(path.read_bytes())
    data[252:256] = b"9999"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"emg\.edf cannot be read \(it is no EDF, or cut off in its header\)"):
        session.load_emg(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"name\ttype\n\xae\tEMG\n", "cannot be read"),
        (b"name\ttype\na\tb\na\tb\tc\td\n", "cannot be read"),
    ],
)
def test_bids_sidecar_names_itself(tmp_path, text, words):
    pytest.importorskip("mne")
    path = tmp_path / "sub-1_channels.tsv"
    made.sidecar(path)
    path.write_bytes(text)
    with pytest.raises(ValueError, match=rf"sub-1_channels\.tsv {words}"):
        session.load_emg(tmp_path / "sub-1_emg.edf")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,a,b\n0,1,2\n1e300,1,2\n2e300,1,2\n3e300,1,2\n", "times do not increase"),
        ("time,trial,a\n0,1,2\n1,1,2\n2,2,2\n9,2,2\n10,2,2\n11,3,1\n12,3,1\n", "(times jump|trials: trial 1 from 2)"),
        ('"' + "a" * 200_000 + "\n1,2\n", "is not a table"),
    ],
)
def test_emg_table_names_itself(tmp_path, text, words):
    path = tmp_path / "emg.csv"
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(ValueError, match=rf"source: .*emg\.csv.*{words}"):
            session.load_emg(path)
