"""HDF5 files that are damaged, hostile or of another program: told by name, within the memory."""

import struct

import fuzz_files as made
import h5py
import numpy as np
import pytest
from fuzz_cases import read_fields

from jaxm2m import emg, files, muscle, session
from jaxm2m.efield import Basis
from jaxm2m.session import _emg_contents

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def stored(path, **content):
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
    return path


def test_hdf5_groups_in_a_circle(tmp_path):
    path = stored(tmp_path / "emg.h5", emg=np.ones((60, 3)))
    with h5py.File(path, "r+") as file:
        file["a/b"] = file["/"]
        file["a/c"] = file["a"]
    assert session.load_emg(path, 500).samples.shape == (60, 3)
    found = session.load_emg(path.rename(path.with_suffix(".mat")), 500, axes="channel sample")
    assert found.samples.shape == (60, 3)


def test_hdf5_nested_deeper_than_the_stack(tmp_path):
    path = tmp_path / "emg.h5"
    with h5py.File(path, "w") as file:
        file["emg"] = np.ones((60, 3))
        group = file
        for _ in range(1500):
            group = group.create_group("a")
    assert session.load_emg(path, 500).samples.shape == (60, 3)


def test_hdf5_that_declares_what_it_does_not_store(tmp_path):
    path = tmp_path / "meps.h5"
    made.meps().save(path)
    with h5py.File(path, "r+") as file:
        del file["amplitude"]
        file.create_dataset("amplitude", (1 << 20, 1 << 10), "f8", chunks=(1, 1024), compression="gzip")
    with pytest.raises(ValueError, match=r"meps\.h5 declares an array at /amplitude of which it stores next to noth"):
        muscle.Meps.load(path)
    with h5py.File(path, "r+") as file:
        del file["amplitude"]
        file["amplitude"] = np.zeros((7, 2))
    with pytest.raises(ValueError, match=r"meps\.h5 is damaged or of another program \('latency' has the shape"):
        muscle.Meps.load(path)


def test_hdf5_larger_than_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "meps.h5"
    made.meps().save(path)
    monkeypatch.setattr(files._hdf5, "memory", lambda: (1000.0, 100.0))
    with pytest.raises(ValueError, match=r"meps\.h5 declares .* GB, this machine has 0\.0 GB free"):
        muscle.Meps.load(path)
    monkeypatch.setattr(_emg_contents, "memory", lambda: (1000.0, 100.0))
    for name, write in (("a.h5", lambda p: stored(p, emg=np.ones((60, 3)))), ("a.mat", made.mat5)):
        write(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} (declares .* GB|is not a readable MAT file)"):
            session.load_emg(tmp_path / name, 500)


def test_hdf5_library_is_not_sent_round_in_a_circle(tmp_path):
    """Free space of length zero in a heap of texts: the library never leaves it (HDF5 2.0.0)."""
    path = tmp_path / "meps.h5"
    made.meps().save(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL")
    end = at + struct.unpack_from("<Q", data, at + 8)[0]
    here = at + 16
    while here < end and struct.unpack_from("<H", data, here)[0]:
        here += 16 + -(-struct.unpack_from("<Q", data, here + 8)[0] // 8) * 8
    struct.pack_into("<Q", data, here + 8, 0)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"meps\.h5 is damaged \(a heap of texts at byte"):
        muscle.Meps.load(path)


def test_hdf5_text_longer_than_its_file(tmp_path):
    path = tmp_path / "meps.h5"
    made.meps().save(path)
    with h5py.File(path) as file:
        at = file["muscles"].id.get_offset()
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, at, 1 << 31)  # two gigabytes, which the library would ask for
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"meps\.h5 has texts longer than the file at /muscles"):
        muscle.Meps.load(path)


def test_hdf5_errors_of_the_library_name_the_file(tmp_path):
    path = stored(tmp_path / "a.h5", x=np.zeros(3))
    for wrong in (lambda f: f["y"], lambda f: f.attrs["y"], lambda f: f["x"][7], lambda f: f["x"].asstr()[()]):
        with (
            pytest.raises(ValueError, match=r"^path: .*a\.h5 is damaged or not whole \("),
            files.open_hdf5(path) as file,
        ):
            wrong(file)
    with pytest.raises(ZeroDivisionError), files.open_hdf5(path):
        1 / 0  # noqa: B018


def test_hdf5_broken_chunk_names_the_file(tmp_path):
    path = tmp_path / "fields.h5"
    made.fields(path)
    with h5py.File(path) as file:
        where = file["e"].id.get_chunk_info(2).byte_offset
    data = bytearray(path.read_bytes())
    data[where : where + 20] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"fields: .*fields\.h5 is damaged or not whole \(.*filter"):
        read_fields(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "holds no MEPs"),
        (np.array([1, 2]), "holds no MEPs"),
        (h5py.Empty("f"), "holds no MEPs"),
    ],
)
def test_hdf5_attribute_of_another_kind(tmp_path, content, words):
    path = tmp_path / "meps.h5"
    made.meps().save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["content"] = content
    with pytest.raises(ValueError, match=rf"meps\.h5 {words}"):
        muscle.Meps.load(path)


def test_hdf5_trials_beyond_the_samples(tmp_path):
    for name, write, read in (("r.h5", made.rectified, emg.Rectified), ("a.h5", made.activation, emg.Activation)):
        write(tmp_path / name)
        with h5py.File(tmp_path / name, "r+") as file:
            file["trials"][0] = (-5, 1 << 40)
        with pytest.raises(ValueError, match=rf"{name} is damaged: not all of its trials lie within its 60 samples"):
            read.load(tmp_path / name)
    made.rectified(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        file.attrs["steps"] = '[["format", {"a": 1}]]'
    with pytest.raises(ValueError, match=r"r\.h5 is damaged: its steps are none of this version"):
        emg.Rectified.load(tmp_path / "r.h5")
    path = made.recording().save(tmp_path / "emg.h5")
    with h5py.File(path, "r+") as file:
        file["segments"][1] = (20, 60)
    with pytest.raises(ValueError, match=r"emg\.h5 is damaged \(its segments are not one after the other"):
        session.load_emg(path)


@pytest.mark.parametrize(("name", "value"), [("modes", 1e25), ("points", 1e200), ("scale", np.nan)])
def test_basis_beyond_single_precision(tmp_path, name, value):
    path = tmp_path / "basis.h5"
    made.basis(path)
    with h5py.File(path, "r+") as file:
        kept = {one: file[one][()].astype(float) for one in ("modes", "points", "scale")}
        kept["scale"][:] = 1e25 if name == "modes" else 1
        kept[name].flat[0] = value
        for one, values in kept.items():
            del file[one]
            file[one] = values
    with pytest.raises(
        ValueError, match=rf"basis\.h5 is not a whole basis \({'modes' if value != 1e200 else name} holds"
    ):
        Basis.load(path)
